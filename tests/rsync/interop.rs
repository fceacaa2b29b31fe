//! Our ends against stock rsync's: the same command must leave the same trees, exit code and words.

#[path = "interop/clients.rs"]
mod clients;

use crate::support;
use crate::support::both::{Both, STOCK, all_agree, words};
use crate::support::sshd::Sshd;
use crate::support::stock::{Bench, OURS};
use crate::support::tree::{self, THEN, Tree};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Options whose bytes on the wire depend on the version, for a copy of `src/` over an older `dst/`.
const CORE: &[&str] = &[
    "-a",
    "-ac",
    "-a --checksum-choice=xxh128",
    "-a --checksum-choice=md5",
    "-a --checksum-choice=none",
    "-ac --checksum-choice=md5,sha1",
    "-aI --no-W -B700",
    "-ad --no-r",
    "-r",
    "-rlptD --no-specials",
    "-a --numeric-ids",
    "-an",
    "-a --remove-source-files",
    "-aL",
    "-aii",
];

/// Further options every end must treat alike.
const MORE: &[&str] = &[
    "-a --checksum-choice=xxh3",
    "-a --checksum-choice=xxh64",
    "-a --checksum-choice=md4",
    "-a --checksum-choice=sha1",
    "-aW",
    "-aI",
    "-a --no-W -B131072",
    "-d",
    "-rlt",
    "-rE",
    "-rp",
    "-rpgoD",
    "-rl",
    "-rt",
    "-rtO",
    "-rltJ",
    "-rlpt --specials",
    "-aO",
    "-au",
    "-a --existing",
    "-a --ignore-existing",
    "-a --size-only",
    "-a --modify-window=6000",
    "-ac --modify-window=6000",
    "-acn",
    "-a --fsync",
    "-ak",
    "-axv",
    "-vvv -a",
    "-a --timeout=20",
];

/// What differs in the versions before 30, besides what [`CORE`] has.
const OLD: &[&str] = &[
    "-aH",
    "-az",
    "-aU",
    "-a --append",
    "-a --inplace --no-W",
    "-a --delete",
    "-a --delete-after",
    "-a --delete --delete-excluded --exclude=dir",
    "-a --delay-updates",
    "-a --partial-dir=.part",
    "-a --compare-dest=../src/dir",
    "-ani --delete",
    "-d --delete",
    "-aR",
    "-aA",
    "-am",
];

fn matrix(version: u8, push: bool) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    tree::build(&bench.path().join("src"));
    tree::build_old(&bench.path().join("dst"));
    let prepare = |work: &Path| {
        tree::copy(&bench.path().join("src"), &work.join("src"));
        tree::copy(&bench.path().join("dst"), &work.join("dst"));
    };
    let both = Both::new(&bench, &prepare);
    // The versions before 30 have all rows where there is time.
    let few = version < 30 && std::env::var_os("ARCHIVER_SLOW").is_none();
    let core = if few { &CORE[..2] } else { CORE };
    let more: &[_] = match version {
        32 => MORE,
        ..30 if few => &OLD[..2],
        ..30 => OLD,
        _ => &[],
    };
    let trouble_of_stock = |options: &&str| match version {
        // Between its own two ends it breaks off, since it reads times that it does not send.
        27 => *options == "-aU",
        // In a dry run it takes the rest of a folder for missing when one that is missing was listed in between.
        _ => false,
    } || (version < 29 && push && (options.starts_with("-an") || *options == "-acn"));
    let operands = if push { "src/ host:dst/" } else { "host:src/ dst/" };
    let mut rows = [core, more].concat();
    rows.retain(|options| !trouble_of_stock(options));
    all_agree(&rows, |options| {
        let line = format!("--protocol={version} -i --stats --no-i-r {options} {operands}");
        both.difference((STOCK, OURS), &line)
    });
}

#[test]
fn push_27() {
    matrix(27, true);
}

#[test]
fn push_28() {
    matrix(28, true);
}

#[test]
fn push_29() {
    matrix(29, true);
}

#[test]
fn pull_27() {
    matrix(27, false);
}

#[test]
fn pull_28() {
    matrix(28, false);
}

#[test]
fn pull_29() {
    matrix(29, false);
}

#[test]
fn push_30() {
    matrix(30, true);
}

#[test]
fn push_31() {
    matrix(31, true);
}

#[test]
fn push_32() {
    matrix(32, true);
}

#[test]
fn pull_30() {
    matrix(30, false);
}

#[test]
fn pull_31() {
    matrix(31, false);
}

#[test]
fn pull_32() {
    matrix(32, false);
}

/// A few small files in `src`, an empty `dst`.
fn few(work: &Path) {
    let src = work.join("src");
    tree::put(&src, "plain", b"plain words\n", 0o644, THEN);
    tree::put(&src, "dir/sub/two", b"22", 0o644, THEN);
    tree::put(&src, "dir/one", b"1", 0o600, THEN);
    fs::create_dir(src.join("hollow")).unwrap();
    fs::set_permissions(src.join("dir"), fs::Permissions::from_mode(0o710)).unwrap();
    fs::create_dir(work.join("dst")).unwrap();
    tree::put(&work.join("dst"), "there/old", b"old", 0o644, THEN);
    fs::write(work.join("list"), "plain\ndir/sub/two\nabsent\n").unwrap();
    for name in ["src/dir/sub", "src/dir", "src/hollow", "src", "dst/there", "dst"] {
        tree::set_mtime(&work.join(name), THEN.0 - 3, 3);
    }
}

#[test]
fn arguments_of_all_shapes() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let both = Both::new(&bench, &few);
    let mut failures = String::new();
    let mut play = |command: &str, code: i32| {
        let (text, ours) = both.compare((STOCK, OURS), &words(command));
        if !text.is_empty() || ours.run.code != code {
            failures += &format!("{command}: {}\n{text}\n{}", ours.run.code, ours.run.stderr);
        }
    };
    for (from, to) in [("", "host:"), ("host:", "")] {
        // A single file: to a name, a new name, into a directory, over a directory, to where there is nothing.
        play(&format!("-ai {from}src/plain {to}dst/renamed"), 0);
        play(&format!("-ai {from}src/plain {to}dst"), 0);
        play(&format!("-ai {from}src/plain {to}dst/"), 0);
        play(&format!("-ai {from}src/plain {to}dst/there"), 0);
        play(&format!("-ai {from}src/plain {to}dst/new/"), 0);
        play(&format!("-ai {from}src/plain {to}dst/no/such/place"), 3);
        play(&format!("-ai {from}src/plain {to}dst/no/such/"), 11);
        play(&format!("-ai --mkpath {from}src/plain {to}dst/no/such/place"), 0);
        play(&format!("-ai --mkpath {from}src/plain {to}dst/no/such/"), 0);
        play(&format!("-ani {from}src/plain {to}dst/no/such/"), 0);
        play(&format!("-ani {from}src/ {to}dst/new/"), 0);
        // Directories: with and without their own name, new and old.
        play(&format!("-ai {from}src {to}dst"), 0);
        play(&format!("-ai {from}src {to}dst/new"), 0);
        play(&format!("-ai {from}src/ {to}dst/new"), 0);
        play(&format!("-ai {from}src/ {to}dst/no/such"), 11);
        play(&format!("-ai {from}src/hollow/ {to}dst/new"), 0);
        play(&format!("-ai {from}src/. {to}dst/there/."), 0);
        play(&format!("-i {from}src/dir {to}dst"), 0);
        play(&format!("-ti {from}src/dir/ {to}dst"), 0);
        play(&format!("-di {from}src/ {to}dst"), 0);
        // Several of them, and a file in the place of a directory.
        play(&format!("-ai {from}src/plain {from}src/dir {to}dst"), 0);
        play(&format!("-ai {from}src/plain {from}src/dir {to}dst/new"), 0);
        play(&format!("-ai {from}src/plain {from}src/dir {to}dst/there/old"), 3);
        play(&format!("-ai {from}src/dir {to}dst/there/old"), 3);
        play(&format!("-ai {from}src/hollow {to}dst/there/old"), 3);
        // Whole names.
        play(&format!("-aRi {from}src/dir/sub {to}dst"), 0);
        play(&format!("-aRi {from}src/./dir/sub/two {to}dst"), 0);
        play(&format!("-aRi --no-implied-dirs {from}src/./dir/sub/two {to}dst"), 0);
        play(&format!("-Ri {from}src/dir/sub/two {to}dst"), 0);
        // What is not there.
        play(&format!("-ai {from}src/absent {to}dst"), 23);
        play(&format!("-ai {from}src/absent {from}src/plain {to}dst"), 23);
        play(&format!("-ai {from}absent/dir/ {to}dst"), 23);
    }
    play("-ai --files-from=list src host:dst", 23);
    play("-ari --files-from=list src host:dst", 23);
    play("-ai --no-R --files-from=list src/ host:dst", 23);
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn other_users_files_are_trouble_of_one_file() {
    if !support::tools::require("rsync") || !support::tools::require("setpriv") || !tree::is_root() {
        return;
    }
    let bench = Bench::start();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let prepare = |work: &Path| {
        few(work);
        tree::build(&work.join("src"));
        tree::put(&work.join("src"), "secret", b"for root", 0o600, THEN);
        tree::put(&work.join("src"), "private/inside", b"for root", 0o600, THEN);
        fs::set_permissions(work.join("src/private"), fs::Permissions::from_mode(0o700)).unwrap();
        tree::put(&work.join("dst"), "closed/in", b"older, by root", 0o644, (THEN.0 - 9, 0));
        std::os::unix::fs::chown(work.join("dst"), Some(65534), Some(65534)).unwrap();
        std::os::unix::fs::chown(work.join("dst/there"), Some(65534), Some(65534)).unwrap();
    };
    let before = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
    let both = Both { before, ..Both::new(&bench, &prepare) };
    let pull = both.same("-ai host:src/ dst/");
    assert_eq!(pull.code, 23, "{}", pull.stderr);
    assert!(pull.stderr.contains("secret") && pull.stderr.contains("Permission denied"), "{}", pull.stderr);
    let push = both.same("-ai src/ host:dst/");
    assert_eq!(push.code, 23, "{}", push.stderr);
    assert!(push.stderr.contains("closed/in"), "{}", push.stderr);
    both.same("-rlti src/ host:dst/");
    both.same("-rltgi src/ host:dst/there/");
    both.same("-ai --remove-source-files host:src/ dst/");
}

/// A remote shell that gives the server's (or, turned round, the client's) bytes to a Perl filter. The filter is code
/// that sees each piece as `$_`.
fn filtering_shell(bench: &Bench, name: &str, from_server: bool, filter: &str) -> PathBuf {
    let filter = format!("while (sysread(STDIN, $_, 65536)) {{ {filter}; syswrite(STDOUT, $_) or last }}");
    // The filter runs beside the server, not before it: the shell must end when the server does.
    let beside = format!(
        "pipe(R, W); if (fork) {{ open(STDIN, \"<&R\"); close W; close R; exec \"sh\", \"-c\", \"@ARGV\" }} \
         open(STDOUT, \">&W\"); close W; close R; {filter}"
    );
    bench.script(
        name,
        &match from_server {
            true => format!("shift\nsh -c \"$*\" | perl -e '{filter}'\n"),
            false => format!("shift\nexec perl -e '{beside}' \"$@\"\n"),
        },
    )
}

#[test]
fn a_flipped_byte_is_sent_again() {
    let Some(bench) = Bench::with(&["rsync", "perl"]) else { return };
    let prepare = |work: &Path| {
        few(work);
        for (folder, mtime) in [("src", THEN), ("dst", (THEN.0 - 50, 0))] {
            let mut bytes = tree::noise(20_000, 5);
            if folder == "src" {
                bytes.splice(9_000..9_006, *b"FLIPME");
            }
            tree::put(&work.join(folder), "flipped", &bytes, 0o644, mtime);
        }
        tree::put(&work.join("src"), "fresh", b"FLIPME is all there is", 0o644, THEN);
        // They would differ wherever a second ends between the two.
        for name in ["src", "dst"] {
            tree::set_mtime(&work.join(name), THEN.0, 0);
        }
    };
    for from_server in [false, true] {
        let arguments = if from_server { "host:src/ dst/" } else { "src/ host:dst/" };
        for (name, filter, code) in
            [("once", "if (!$done) { $done = s/FLIPME/FLIPPE/ }", 0), ("always", "s/FLIPME/FLIPPE/g", 23)]
        {
            let shell = filtering_shell(&bench, name, from_server, filter);
            let both = Both { shell: shell.clone(), ..Both::new(&bench, &prepare) };
            for version in [27, 29, 30, 32] {
                let run = both.same(&format!("-ai --no-W --stats --protocol={version} {arguments}"));
                assert_eq!(run.code, code, "{name} {arguments}: {}", run.stderr);
                // Below 30 a server's warnings reach the client as plain words.
                let said = String::from_utf8_lossy(&run.stdout).into_owned() + &run.stderr;
                assert!(said.contains("failed verification"), "{name} {arguments} {version}: {said}");
            }
        }
    }
}

#[test]
fn a_file_that_vanishes_is_no_failure_of_the_rest() {
    let Some(bench) = Bench::with(&["rsync", "perl"]) else { return };
    let prepare = |work: &Path| {
        few(work);
        tree::put(&work.join("src"), "victim", b"not for long", 0o644, THEN);
    };
    // Gone as soon as the list that names it has been made.
    let shell = filtering_shell(&bench, "vanishing", true, "unlink \"src/victim\" if /victim/");
    let both = Both { shell: shell.clone(), ..Both::new(&bench, &prepare) };
    let run = both.same("-ai host:src/ dst/");
    assert_eq!(run.code, 24, "{}", run.stderr);
    assert!(run.stderr.contains("victim"), "{}", run.stderr);
}

#[test]
fn what_is_known_is_not_sent() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    const LEN: usize = 6_000_000;
    let prepare = |work: &Path| {
        few(work);
        let mut bytes = tree::noise(LEN, 8);
        tree::put(&work.join("dst"), "large", &bytes, 0o644, (THEN.0 - 50, 0));
        bytes.splice(1_000_000..1_000_003, *b"inserted words");
        bytes.drain(4_000_000..4_000_100);
        bytes.extend_from_slice(b"appended");
        tree::put(&work.join("src"), "large", &bytes, 0o644, THEN);
    };
    let both = Both::new(&bench, &prepare);
    for arguments in ["src/large host:dst/", "host:src/large dst/"] {
        let run = both.same(&format!("-ai --stats {arguments}"));
        let (literal, matched) = (run.stat("Literal data"), run.stat("Matched data"));
        println!("{arguments}: {literal} bytes literal, {matched} matched");
        assert!(literal < LEN as u64 / 100 && matched > LEN as u64 * 98 / 100, "{literal} {matched}");
    }
}

#[test]
fn options_we_lack_are_refused_by_name() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let folder = bench.fresh("ours");
    let work = folder.path();
    few(work);
    let before = Tree::of(&work.join("dst"), 0);
    let lacking = [("-M--bogus=x", "--bogus"), ("-M--crtimes", "--crtimes")];
    for (option, name, pushes) in
        lacking.iter().flat_map(|(option, name)| [(option, name, true), (option, name, false)])
    {
        let paths = if pushes { ["src/", "host:dst/"] } else { ["host:src/", "dst/"] };
        let run = bench.rsync(OURS, work, &["-a", option, paths[0], paths[1]]);
        // As stock's client ends when stock's server does not know an option.
        assert_eq!(run.code, 12, "{option}: {}", run.stderr);
        let told = ["unknown option", "does not support"].iter().any(|words| run.stderr.contains(words));
        assert!(told, "{option}: {}", run.stderr);
        assert!(run.stderr.contains(name), "{option}: {}", run.stderr);
        assert_eq!(before.difference(&Tree::of(&work.join("dst"), 0)), "", "{option}");
    }
    let alone = Command::new(OURS).args(["--server", "--bogus", ".", "dst"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(alone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&alone.stderr).contains("--bogus"));
}

#[test]
fn over_a_real_ssh() {
    if !support::tools::require("rsync") || !support::tools::require("ssh") {
        return;
    }
    let Some(sshd) = Sshd::start("") else { return };
    let bench = Bench::start();
    let ssh = format!(
        "exec ssh -F /dev/null -p {} -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} \"$@\"\n",
        sshd.port,
        sshd.client_key().display(),
        sshd.known_hosts().display()
    );
    let shell = bench.script("ssh", &ssh);
    let prepare = |work: &Path| {
        tree::build(&work.join("src"));
        tree::build_old(&work.join("dst"));
    };
    let both = Both { shell: shell.clone(), ..Both::new(&bench, &prepare) };
    let host = format!("{}@127.0.0.1", sshd.user());
    for options in ["-ai", "-aci --checksum-choice=md5", "-ani --stats"] {
        both.same(&format!("{options} src/ {host}:WORK/dst/"));
        both.same(&format!("{options} {host}:WORK/src/ dst/"));
    }
}
