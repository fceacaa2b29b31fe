//! Our `rsync` command against stock's: the same command line gives the same words, exit code and trees.

#[path = "command/batches.rs"]
mod batches;
#[path = "command/bounded.rs"]
mod bounded;
#[path = "command/broken.rs"]
mod broken;
#[path = "command/counted.rs"]
mod counted;
#[path = "command/ends.rs"]
mod ends;
#[path = "command/hostile.rs"]
mod hostile;
#[path = "command/lists.rs"]
mod lists;
#[path = "command/logged.rs"]
mod logged;
#[path = "command/named.rs"]
mod named;
#[path = "command/parallel.rs"]
mod parallel;
#[path = "command/places.rs"]
mod places;
#[path = "command/ranges.rs"]
mod ranges;
#[path = "command/rights.rs"]
mod rights;
#[path = "command/scripts.rs"]
pub(super) mod scripts;
#[path = "command/verbosity.rs"]
mod verbosity;

use crate::support;
use crate::support::both::{Both, STOCK, all_agree, words};
use crate::support::sshd::Sshd;
use crate::support::stock::{Bench, OURS, Run, client, ended};
use crate::support::tree::{self, THEN, Tree};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// Within one machine.
const LOCAL: &[&str] = &[
    "-a src/ dst/",
    "-av src/ dst/",
    "-av src/ old/",
    "-avi src/ old/",
    "-avvi src/ old/",
    "-ai src/ old/",
    "-aii src/ old/",
    "-avn src/ dst/",
    "-ani src/ dst/",
    "-av src dst",
    "-av src/one src/big dst",
    "-v src/one dst",
    "-v src dst",
    "-r src dst",
    "-avc src/ old/",
    "-avu src/ old/",
    "-av --existing src/ old/",
    "-av --ignore-existing src/ old/",
    "-a --stats src/ old/",
    "-a --stats -hh src/ dst/",
    "-avh src/ dst/",
    "-av --no-h src/ dst/",
    "-aq src/ dst/",
    "-avq src/ dst/",
    "-a --info=name src/ dst/",
    "-a --info=flist,stats src/ old/",
    "-av --no-i-r src/ dst/",
    "src/",
    "-r src",
    "-rv src/",
    "-av src/",
    "--list-only src/one",
    "-a --list-only src/",
    "-rhh src/",
    "-r8 src/",
    "-a --out-format=%n src/ old/",
    "-a --out-format=%i|%n%L|%l|%o|%M src/ old/",
    "-a --out-format=%c|%B|%f|%U:%G|%10l|%-10l|%'l|%''l|%%|%n src/ dst/",
    "-a --out-format=%C|%n --checksum-choice=md5 src/ dst/",
    "-av --remove-source-files src/one src/big dst/",
    "-a --info=remove --remove-source-files src/one dst/",
    "-avR src/d/two dst",
    "-avR src/./d/two dst",
    "-d src/ dst",
    "-a nonex dst",
    "-av src/one nonex dst",
    "-a --stderr=all -v src/ dst/",
    "-av --bwlimit=10000 src/ dst",
    "--frobnicate src/ dst",
    "-a --timeout=x src/ dst",
    "-a src host:dst other:x",
    "host:src other:x",
    "-a host:a b c",
    "-a -- -host:x y",
    "--delete src dst",
    "--info=nonsense src dst",
];

/// By a remote shell; `host:` is where `WORK` is.
const REMOTE: &[&str] = &[
    "-av src/ host:WORK/dst/",
    "-av src/ host:WORK/old/",
    "-ai src/ host:WORK/old/",
    "-avi --stats src/ host:WORK/old/",
    "-avW src/ host:WORK/old/",
    "-av host:WORK/src/ dst/",
    "-av host:WORK/src/ old/",
    "-aii host:WORK/src/ old/",
    "-avi --stats host:WORK/src/ old/",
    "-avn host:WORK/src/ dst/",
    "host:WORK/src/",
    "-av --list-only host:WORK/src/",
    "-av -s host:WORK/src/ dst/",
    "-av -s src/ host:WORK/dst/",
    "-av host:WORK/src/*e* dst/",
    "-av -s host:WORK/src/*e* dst/",
    "-av host:WORK/src/one :WORK/src/big dst/",
    "-av host:WORK/src/one host:WORK/src/big dst/",
    "-a nonex host:WORK/dst",
    "-aR host:WORK/src/./d dst",
    "-a --no-specials host:WORK/src/ dst",
];

/// What cannot agree: bytes on the wire, times, versions, places.
fn comparable(text: &[u8], work: &Path) -> String {
    let text = String::from_utf8_lossy(text).replace(work.to_str().unwrap(), "WORK");
    let mut lines = Vec::new();
    for line in text.lines() {
        let cut = |mark: &str| line.find(mark).map(|at| line[..at].to_owned());
        let line = match () {
            () if line.starts_with("sent ") && line.contains(" bytes/sec") => "sent".into(),
            () if line.starts_with("total size is ") => line.split("speedup is").next().unwrap().to_owned(),
            () if line.starts_with("File list ") || line.starts_with("Total bytes ") => {
                line.split(':').next().unwrap().to_owned()
            }
            () if line.starts_with("total: matches=") => continue,
            // A broken pipe after the end is a race that stock loses now and then.
            () if line.contains("write error: Broken pipe") => continue,
            () => cut(" at main.c(")
                .or_else(|| cut(" at io.c("))
                .or_else(|| cut(" at options.c("))
                .or_else(|| cut(" at pysmurf"))
                .unwrap_or_else(|| line.to_owned()),
        };
        lines.push(line);
    }
    lines.join("\n")
}

fn prepare(work: &Path) {
    let src = work.join("src");
    tree::put(&src, "one", b"one line\n", 0o644, THEN);
    tree::put(&src, "big", &tree::noise(300_000, 1), 0o644, THEN);
    tree::put(&src, "d/two", b"two\n", 0o640, THEN);
    symlink("one", src.join("link")).unwrap();
    tree::copy(&src, &work.join("old"));
    tree::put(&src, "one", b"one line, and another\n", 0o644, (THEN.0 + 60, 0));
    tree::put(&src, "new/tab\tand\nline", b"odd", 0o644, THEN);
    tree::put(&src, "new/back\\#012slash", b"odd", 0o644, THEN);
    tree::put(&src, b"new/not\xffutf8", b"odd", 0o644, THEN);
    fs::set_permissions(src.join("big"), fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["src/link", "old/link", "src/new", "src/d", "old/d", "src", "old"] {
        tree::set_mtime(&work.join(name), THEN.0 + 9, 0);
    }
    tree::set_mtime(&work.join("old/d"), THEN.0 + 99, 0);
}

fn run(program: &str, work: &Path, words: &[String]) -> Run {
    ended(client(program).args(words).current_dir(work))
}

/// All that was said and can agree.
fn said(run: &Run, work: &Path) -> Vec<String> {
    vec![comparable(&run.stdout, work), comparable(run.stderr.as_bytes(), work)]
}

/// Each line reads alike with stock's client and with ours, and leaves the same.
fn all_read_alike(lines: &[&str]) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let both = Both { folders: &["."], look: &said, ..Both::new(&bench, &prepare) };
    all_agree(lines, |line| both.difference((OURS, STOCK), line));
}

#[test]
fn local_copies_read_like_stock() {
    all_read_alike(LOCAL);
}

#[test]
fn copies_by_a_remote_shell_read_like_stock() {
    all_read_alike(REMOTE);
}

/// Stock tells of a far shell that finds no rsync by its own code or by the shell's, whichever it hears of first.
#[test]
fn a_far_end_without_rsync_is_told_by_its_code() {
    let bench = Bench::start();
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let words =
        ["-av", "-e", bench.shell().to_str().unwrap(), "--rsync-path=nosuchrsync", "host:x", "y"].map(str::to_owned);
    let run = run(OURS, work, &words);
    assert_eq!(run.code, 127, "{}", run.stderr);
    assert!(run.stderr.contains("nosuchrsync: not found\n"), "{}", run.stderr);
    assert!(run.stderr.contains("rsync error: remote command not found (code 127)"), "{}", run.stderr);
    assert!(!work.join("y").exists());
}

/// Both ends ours: what a link named `rsync` does, the server's side included.
#[test]
fn a_link_named_rsync_is_both_ends() {
    let bench = Bench::start();
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let link = work.join("rsync");
    symlink(OURS, &link).unwrap();
    let shell = bench.shell();
    for (flags, pull) in [("-a", false), ("-a", true), ("-as", false), ("-as", true), ("-ac", true)] {
        let there = if pull { "host:" } else { "" };
        let here = if pull { "" } else { "host:" };
        let words = [
            flags.to_owned(),
            "-e".into(),
            shell.to_str().unwrap().into(),
            format!("--rsync-path={}", link.display()),
            format!("{there}{}/src/", work.display()),
            format!("{here}{}/to {flags}{pull}/", work.display()),
        ];
        let run = run(link.to_str().unwrap(), work, &words);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{words:?}");
        let copy = Tree::of(&work.join(format!("to {flags}{pull}")), i64::MAX);
        let lines = Tree::of(&work.join("src"), i64::MAX).difference(&copy);
        assert!(lines.is_empty(), "{words:?}\n{lines}");
    }
}

/// Without `-e` the SSH within is used, with the keys and known hosts of the user's own folder.
#[test]
fn the_ssh_within_reads_the_users_configuration() {
    let Some(sshd) = Sshd::start("") else { return };
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let home = work.join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    let config = format!(
        "Host storage\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile {}\n UserKnownHostsFile {}\n",
        sshd.port,
        sshd.user(),
        sshd.client_key().display(),
        sshd.known_hosts().display(),
    );
    fs::write(home.join(".ssh/config"), config).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(OURS);
        command.arg("rsync").args(words).current_dir(work).env("HOME", &home).env_remove("SSH_AUTH_SOCK");
        let output = command.env_remove("RSYNC_RSH").stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let at = |name: &str| format!("storage:{}/{name}", work.display());
    let same = |name: &str| Tree::of(&work.join("src"), i64::MAX).difference(&Tree::of(&work.join(name), i64::MAX));

    let (code, out, err) = run(&["-av", "src/", &at("a b/")]);
    assert_eq!((code, err.as_str(), same("a b")), (Some(0), "", String::new()), "{out}");
    assert!(out.contains("created directory") && out.contains("one\n"), "{out}");
    let (code, _, err) = run(&["-a", &at("src/"), "b/"]);
    assert_eq!((code, err.as_str(), same("b")), (Some(0), "", String::new()));
    // The shell over there expands what its user may mean, and nothing else.
    let (code, out, _) = run(&["-r", &at("src/*e*")]);
    assert!(code == Some(0) && out.contains(" one\n") && !out.contains("big"), "{out}");
    let (code, _, err) = run(&["-a", "--rsync-path=no-such-program", "src/", &at("c/")]);
    assert!(code == Some(127) && err.contains("remote command not found (code 127)"), "{code:?} {err}");
    let (code, _, err) = run(&["-a", "src/", "nowhere.invalid:x"]);
    assert!(code == Some(10) && err.contains("nowhere.invalid"), "{code:?} {err}");
}

#[test]
fn help_and_version_speak_to_people_and_scripts() {
    let words = |words: &[&str]| {
        let output = Command::new(OURS).arg("rsync").args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, _) = words(&["--version"]);
    assert!(code == Some(0) && out.starts_with("rsync  version ") && out.contains("pysmurf-archiver"), "{out}");
    assert!(out.lines().next().unwrap().ends_with("protocol version 32"), "{out}");
    let (code, out, _) = words(&["-VV"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["program"], &json["protocol"]), (Some(0), &"rsync".into(), &"32.0".into()));
    let (code, out, err) = words(&["-h"]);
    assert!(code == Some(0) && err.is_empty() && out.contains("--itemize-changes, -i"), "{out}");
    let (code, out, err) = words(&[]);
    assert!(code == Some(1) && out.is_empty() && err.contains("Usage: rsync") && err.contains("(code 1)"), "{err}");
    let (code, out, _) = words(&["--info=help"]);
    assert!(
        code == Some(0) && out.contains("PROGRESS") && out.contains("1) COPY,DEL,FLIST,MISC,NAME,STATS,SYMSAFE"),
        "{out}"
    );
    // What never shows anything is taken, and not advertised.
    assert!(
        !out.contains("COPY  ") && words(&["--info=copy", "--debug=all", "--list-only", "/etc/hosts"]).0 == Some(0)
    );
    let (_, out, _) = words(&["--debug=help"]);
    let listed: Vec<_> = out.lines().filter_map(|line| line.split_once("  ")).map(|(name, _)| name.trim()).collect();
    assert_eq!(listed, ["CONNECT", "CMD", "DELTASUM", "FILTER", "FLIST", "ALL", "NONE", "HELP"], "{out}");
    let (code, out, _) = words(&["--generate", "man"]);
    assert!(code == Some(0) && out.starts_with(".TH RSYNC 1"), "{out}");
}

/// Progress has a form that scripts read: a carriage return, then count, percentage, rate and time.
#[test]
fn progress_is_drawn_over_itself() {
    let bench = Bench::start();
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let words = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        String::from_utf8(run(OURS, work, &words).stdout).unwrap()
    };
    let out = words(&["-P", "src/big", "src/one", "dst/"]);
    let last: Vec<_> = out.lines().filter_map(|line| line.rsplit('\r').next()).collect();
    assert!(last.contains(&"big") && last.contains(&"one"), "{out}");
    let done = |text: &str| last.iter().any(|line| line.starts_with(text));
    assert!(done("        300,000 100% ") && done("             22 100% "), "{out}");
    assert!(out.contains("(xfr#1, to-chk=1/2)\n") && out.contains("(xfr#2, to-chk=0/2)\n"), "{out}");
    let out = words(&["-a", "--info=progress2", "src/", "other/"]);
    assert!(!out.contains("one") && out.ends_with(")\n") && out.matches('\n').count() == 1, "{out}");
}

/// What we lack is refused by its name, before anything is touched.
#[test]
fn what_is_not_served_is_refused_by_name() {
    let bench = Bench::start();
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let help = Command::new(OURS).args(["rsync", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, told) = help.split_once("refused by name with exit code 1: ").unwrap();
    for (option, name) in [("--protocol=26", "--protocol"), ("--crtimes", "-N")] {
        let words = ["-a", option, "src/", "new-dst/"].map(str::to_owned);
        let run = run(OURS, work, &words);
        assert!(matches!(run.code, 1 | 2) && run.stderr.contains(name), "{option}: {} {}", run.code, run.stderr);
        assert!(!work.join("new-dst").exists());
        assert!(
            name == "--protocol" || told.contains(option.split('=').next().unwrap()),
            "--help says nothing of {name}: {told}"
        );
    }
    assert_eq!(told.matches("--").count(), 1, "{told}");
}

/// Another user reads and writes, with the rights of that user.
#[test]
fn another_user_copies() {
    if !support::tools::require("rsync") || !tree::is_root() {
        return;
    }
    let bench = Bench::start();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let open = |work: &Path| {
        prepare(work);
        fs::create_dir(work.join("dst")).unwrap();
        fs::set_permissions(work.join("dst"), fs::Permissions::from_mode(0o777)).unwrap();
    };
    let first = |run: &Run, work: &Path| said(run, work)[1].lines().take(1).map(str::to_owned).collect();
    let both = Both { folders: &["."], look: &first, ..Both::new(&bench, &open) };
    for line in [
        "-rlpt -O --copy-as=nobody --exclude=big src/d src/one dst/",
        "-rlpt -O --copy-as=nobody:0 --exclude=big src/d dst/",
        "-a --copy-as=nosuchuser src/one dst/",
        "-a --copy-as=nobody:nosuchgroup src/one dst/",
        "-aN src/one dst/",
        "-a --insecure-links --confine-root=/tmp src/one dst/",
        "-a --confine-root=rel src/one dst/",
    ] {
        let text = both.difference((OURS, STOCK), line);
        assert!(text.is_empty(), "{text}");
    }
}

/// A symlink of a stranger on the way to a named place is followed only where that was asked for.
#[test]
fn links_of_strangers_are_followed_on_demand() {
    if !support::tools::require("rsync") || !tree::is_root() {
        return;
    }
    let bench = Bench::start();
    let plant = |work: &Path| {
        prepare(work);
        fs::create_dir(work.join("there")).unwrap();
        symlink("there", work.join("way")).unwrap();
        std::os::unix::fs::lchown(work.join("way"), Some(65534), Some(65534)).unwrap();
    };
    let both = Both::new(&bench, &plant);
    for (line, followed) in [
        ("-a src/one way/to/", false),
        ("-a --insecure-links src/one way/to/", true),
        ("-a --insecure-links --no-insecure-links src/one way/to/", false),
    ] {
        for near in [STOCK, OURS] {
            let run = both.run((near, STOCK), &words(line)).run;
            assert_eq!(run.code == 0, followed, "{line}: {}", run.stderr);
        }
    }
}

/// Files that the operator names are not read or written through a symlink that another user may have planted.
#[test]
fn files_that_are_named_are_followed_as_by_stock() {
    if !support::tools::require("rsync") || !tree::is_root() {
        return;
    }
    let bench = Bench::start();
    let plant = |work: &Path| {
        prepare(work);
        tree::put(work, "real/file", b"one\n", 0o600, THEN);
        for (name, target) in [("file", "real/file"), ("way", "real"), ("ours", "real/file")] {
            symlink(target, work.join(name)).unwrap();
        }
        for name in ["file", "way"] {
            std::os::unix::fs::lchown(work.join(name), Some(65534), Some(65534)).unwrap();
        }
    };
    let look = |_: &Run, work: &Path| vec![format!("{:?}", fs::read(work.join("real/file")).unwrap() == b"one\n")];
    let both = Both { folders: &["dst"], look: &look, ..Both::new(&bench, &plant) };
    for option in ["exclude-from", "include-from", "files-from", "log-file", "write-batch", "only-write-batch"] {
        for (letters, name, followed) in [
            ("-r", "file", false),
            ("-r", "way/file", false),
            ("-r", "ours", true),
            ("-r --insecure-links", "file", true),
        ] {
            let line = format!("{letters} --{option}={name} src/ dst/");
            let [stock, ours] = [STOCK, OURS].map(|near| both.run((near, STOCK), &words(&line)));
            assert_eq!(stock.difference(&ours), "", "{line}");
            assert!(followed || stock.lines == ["true"], "{line}: {}", stock.run.stderr);
        }
    }
}

/// A signal ends a client with code 20; no temporary file and no process stays, and what came is kept if that was asked.
#[test]
fn signals_end_a_client_tidily() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    std::thread::scope(|scope| {
        for (signal, partial) in [("INT", false), ("TERM", true), ("HUP", false), ("INT", true)] {
            for operands in [["src/big", "dst/"], ["src/big", "host:dst/"], ["host:src/big", "dst/"]] {
                let bench = &bench;
                scope.spawn(move || signalled(bench, signal, partial, operands));
            }
        }
    });
}

fn signalled(bench: &Bench, signal: &str, partial: bool, operands: [&str; 2]) {
    let what = format!("{signal} {partial} {operands:?}");
    let work = bench.fresh("work");
    let work = work.path();
    tree::put(&work.join("src"), "big", &tree::noise(8_000_000, 2), 0o644, THEN);
    fs::create_dir(work.join("dst")).unwrap();
    let shell = work.join("shell");
    support::script::script(&shell, &format!("shift\ncd {0}\necho $$ >{0}/pid\nexec $*", work.display()));
    let mut command = Command::new(OURS);
    command.args(["rsync", "-t", "-W", "--bwlimit=400", "-e"]).arg(&shell).args(partial.then_some("--partial"));
    let mut client = command.args(operands).current_dir(work).stderr(Stdio::piped()).spawn().unwrap();
    let until = |condition: &dyn Fn() -> bool, why: &str| {
        let start = std::time::Instant::now();
        while !condition() {
            assert!(start.elapsed().as_secs() < 120, "{what}: {why}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    let files = || fs::read_dir(work.join("dst")).unwrap().map(|entry| entry.unwrap()).collect::<Vec<_>>();
    let begun = || files().iter().any(|file| file.metadata().is_ok_and(|meta| meta.len() > 0));
    until(&begun, "nothing is written");
    assert!(Command::new("kill").args([&format!("-{signal}"), &client.id().to_string()]).status().unwrap().success());
    let status = client.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut client.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(status.code(), Some(20), "{what}: {said}");
    assert!(said.contains("received SIGINT, SIGTERM, or SIGHUP (code 20)"), "{what}: {said}");
    if operands.concat().contains(':') {
        let pid = fs::read_to_string(work.join("pid")).unwrap();
        until(&|| !Path::new(&format!("/proc/{}", pid.trim())).exists(), "the far end lives on");
    }
    let left: Vec<_> = files().iter().map(|file| (file.file_name(), file.metadata().unwrap().len())).collect();
    match partial {
        false => assert!(left.is_empty(), "{what}: {left:?}"),
        true => assert!(matches!(&left[..], [(name, 1..8_000_000)] if name == "big"), "{what}: {left:?}"),
    }
}
