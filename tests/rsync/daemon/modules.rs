//! What a daemon's module makes of a session: each parameter, with our daemon and with stock's, must show the client the
//! same and leave the same.

use crate::support;
use crate::support::both::{Outcome, STOCK};
use crate::support::daemon::Daemon;
use crate::support::stock::{Bench, OURS};
use crate::support::tree::{self, THEN};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A module's folder, something to push, and files of rules.
fn prepare(work: &Path) {
    for name in
        ["a.txt", "b.tmp", "c.tmp", "sub/keep.o", "sub/drop.o", "secret/s", "secret/deep/t", "open/x", "back\\slash"]
    {
        tree::put(&work.join("mod"), name, name.as_bytes(), 0o644, THEN);
    }
    for name in ["x.o", "ok", "y.tmp", "c.tmp", "secret/new", "secret/deep/new", "open/new", "sub/drop.o", "sub/in"] {
        tree::put(&work.join("up"), name, b"pushed", 0o644, THEN);
    }
    fs::write(work.join("leave"), "*.tmp\n# comment\n").unwrap();
    fs::write(work.join("take"), "/sub/keep.o\n/c.tmp\n").unwrap();
    fs::create_dir(work.join("none")).unwrap();
    for dir in [
        "mod",
        "mod/sub",
        "mod/secret",
        "mod/secret/deep",
        "mod/open",
        "up",
        "up/sub",
        "up/secret",
        "up/secret/deep",
        "up/open",
        "none",
    ] {
        tree::set_mtime(&work.join(dir), THEN.0 - 7, 0);
    }
}

/// Plays the commands against modules of this text, once with each daemon.
fn same(modules: &str, before: &dyn Fn(&Path), commands: &[&str]) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for command in commands {
        let [stock, ours] = [STOCK, OURS].map(|program| {
            let work = bench.fresh("work");
            prepare(work.path());
            before(work.path());
            tree::set_mtime(&work.path().join("mod"), THEN.0 - 7, 0);
            let daemon = Daemon::start(program, work.path(), &format!("use chroot = no\nuid = 0\ngid = 0\n{modules}"));
            let run = daemon.client(work.path(), command);
            let told =
                |line: &&str| line.starts_with("ERROR") || line.starts_with("***") || line.contains("cannot convert");
            let mut errors: Vec<_> = run.stderr.lines().filter(told).map(str::to_owned).collect();
            errors.sort();
            let mut shown: Vec<_> = String::from_utf8_lossy(&run.stdout).lines().map(str::to_owned).collect();
            shown.retain(|line| {
                line.as_bytes().get(11) == Some(&b' ') || line.contains("delet") || line.starts_with(['-', 'd', 'l'])
            });
            shown.sort();
            (Outcome::new(run, [errors, shown].concat(), work.path(), &["mod", "got"], 0), daemon.said())
        });
        let text = stock.0.difference(&ours.0);
        assert!(text.is_empty(), "{command}\n{text}  stock logged {}\n  ours logged {}", stock.1, ours.1);
    }
}

const KEPT: &str = "[m]\npath = WORK/mod\nread only = no\nexclude from = WORK/leave\ninclude from = WORK/take\n\
     exclude = /secret *.o\ninclude = z.tmp\n\
     [f]\npath = WORK/mod\nread only = no\nfilter = - /secret/*** + /sub/keep.o - *.o\nexclude = + c.tmp *.tmp\n";

#[test]
fn what_a_module_keeps_is_not_there_for_who_pulls() {
    same(
        KEPT,
        &|_| (),
        &[
            "-ai URL/m/ got",
            "-ai --no-i-r URL/f/ got",
            "-ai URL/f/ got",
            "-aR --itemize-changes URL/m/./sub/keep.o got",
            "-ai URL/m/secret/ got",
            "-ai URL/m/secret/s got",
            "-ai URL/f/secret got",
            "-ai URL/m/b.tmp URL/m/c.tmp got",
            "-ai URL/m/sub/ got",
            "-ai URL/m/*.tmp got",
            "-ais URL/m/back\\slash got",
            "-ai URL/m/back\\slash got",
        ],
    );
}

#[test]
fn what_a_module_keeps_is_not_taken_and_not_deleted() {
    same(
        KEPT,
        &|_| (),
        &[
            "-ri up/ URL/m/",
            "-ri --no-i-r up/ URL/m/",
            "-rin up/ URL/m/",
            "-ri --delete up/ URL/f/",
            "-ri --delete none/ URL/m/",
            "-ri --delete-after none/ URL/f/",
            "-ri up/ok URL/m/secret/",
            "-ri up/ok URL/m/secret/deep/",
            "-ri up/ok URL/m/z.o",
            "-ri up/sub/ URL/m/sub/",
            "-ri --backup-dir=secret up/ok URL/m/a.txt",
            "-ri --link-dest=/secret/deep up/ok URL/m/",
        ],
    );
}

/// What a rule keeps is kept with all below it, by whatever name a client comes to it.
#[test]
fn a_folder_that_is_kept_keeps_what_is_below() {
    let modules = "[m]\npath = WORK/mod\nread only = no\nexclude = /secret/ *.o .rules\n";
    let rules = |work: &Path| fs::write(work.join("mod/.rules"), "- a.txt\n").unwrap();
    for other in ["exclude = secret/", "filter = - /secret/", "exclude from = WORK/list", "exclude = /secret"] {
        let list = |work: &Path| fs::write(work.join("list"), "/secret/\n").unwrap();
        same(
            &format!("[m]\npath = WORK/mod\nread only = no\n{other}\n"),
            &list,
            &["-ri up/ok URL/m/secret/f2", "-ri up/ok URL/m/secret/deep/", "-ai URL/m/secret/deep/ got"],
        );
    }
    same(
        modules,
        &rules,
        &[
            "-ri up/ok URL/m/secret/f2",
            "-ri up/ok URL/m/secret/deep/f2",
            "-ri --mkpath up/ok URL/m/secret/new/",
            "-ri up/ok URL/m/open/../secret/f2",
            "-ri up/ok URL/m/secret",
            "-ri up/ok URL/m/sub/new.o",
            "-ri up URL/m/sub/new.o/",
            "-riR up/ok URL/m/secret/",
            "-ri --backup-dir=/secret/b up/ok URL/m/open/",
            "-ri --backup-dir=open/../secret/b up/ok URL/m/open/",
            "-ri --temp-dir=secret up/ok URL/m/open/",
            "-ri --temp-dir=/open/x.o up/ok URL/m/open/",
            "-ri --temp-dir=/open up/ok URL/m/sub/",
            "-ai URL/m/secret/deep got",
            "-ai URL/m/secret/deep/t got",
            "-ai URL/m/sub/drop.o got",
            "-ai --filter=:_.rules URL/m/ got",
            "-ri --delete --filter=:_.rules none/ URL/m/",
        ],
    );
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("kept");
    prepare(work.path());
    fs::write(work.path().join("mod/secret/list"), "a.txt\n").unwrap();
    let daemon = Daemon::start(OURS, work.path(), &format!("use chroot = no\nuid = 0\ngid = 0\n{modules}"));
    for command in [
        "-ri --backup --backup-dir=../secret up/ok URL/m/open/",
        "-ri --partial-dir=/secret/deep up/ok URL/m/open/",
        "-ri --partial-dir=secret up/ok URL/m/",
        "-ri --link-dest=../secret up/ok URL/m/open/",
        "-ri --compare-dest=../secret/deep up/ok URL/m/open/",
        "-ri --copy-dest=secret/deep up/ok URL/m/",
        "-ri --link-dest=../../secret/deep up/ok URL/m/open/new",
        "-ri --files-from=:/secret/list URL/m/ got",
        "-ri --files-from=:/open/../secret/list URL/m/ got",
    ] {
        let run = daemon.client(work.path(), command);
        assert!(run.stderr.contains("Your options have been rejected by the server."), "{command}: {}", run.stderr);
        assert!(run.code != 0 && !work.path().join("got").exists(), "{command}");
    }
}

/// Where a module is no root of its own, no symlink that comes leads out of it.
#[test]
fn symlinks_that_come_stay_inside() {
    let links = |work: &Path| {
        for (name, target) in [
            ("abs", "/etc/passwd"),
            ("esc", "../../x"),
            ("up", ".."),
            ("root", "/"),
            ("in", "ok"),
            ("sub/beside", "../ok"),
            ("sub/out", "../../../y"),
            ("sub/mid", "a/../../../b"),
            ("slash", "open/"),
            ("double", "//a//b"),
        ] {
            symlink(target, work.join("up").join(name)).unwrap();
        }
    };
    same(
        "[m]\npath = WORK/mod\nread only = no\nmunge symlinks = no\n\
         [munged]\npath = WORK/mod\nread only = no\n",
        &links,
        &[
            "-rli up/ URL/m/",
            "-rli up/ URL/m/open/",
            "-rli up/abs URL/m/link",
            "-rliR up/sub URL/m/",
            "-rli up/ URL/munged/",
        ],
    );
}

#[test]
fn what_the_user_cannot_read_is_not_there() {
    let before = |work: &Path| {
        fs::set_permissions(work.join("mod/a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(work.join("mod/secret"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("nowhere", work.join("mod/link")).unwrap();
        tree::set_mtime(&work.join("mod/link"), THEN.0, 0);
    };
    same(
        "[m]\npath = WORK/mod\nuid = nobody\nignore nonreadable = yes\n",
        &before,
        &["-rl URL/m/", "-r --list-only URL/m/secret"],
    );
}

#[test]
fn a_module_has_a_character_set() {
    let latin = |work: &Path| {
        fs::write(work.join("mod").join(OsStr::from_bytes(b"\xe4")), "ae").unwrap();
        fs::write(work.join("up/ö"), "oe").unwrap();
        symlink(OsStr::from_bytes(b"\xe4"), work.join("mod/to")).unwrap();
    };
    same(
        "[m]\npath = WORK/mod\nread only = no\ncharset = iso-8859-1\n\
         [j]\npath = WORK/mod\nuse chroot = yes\ncharset = latin1\n",
        &latin,
        &[
            "-rli --iconv=utf-8 URL/m/ got",
            "-rli --iconv=utf-8,koi8-r URL/j/ got",
            "-ris --iconv=utf-8 URL/m/ä got",
            "-rli --iconv=utf-8 up/ URL/m/",
            "-rlis --iconv=utf-8 up/ö URL/m/nöw/",
            "-rli URL/m/ got",
        ],
    );
}

#[test]
fn a_module_changes_what_comes_and_goes() {
    let links = |work: &Path| {
        symlink("/etc/passwd", work.join("up/out")).unwrap();
        symlink("/rsyncd-munged//etc/passwd", work.join("mod/munged")).unwrap();
        fs::create_dir(work.join("mod/tmp")).unwrap();
    };
    same(
        "[m]\npath = WORK/mod\nread only = no\nincoming chmod = Dg+s,F600\noutgoing chmod = Fg-r,o-rwx\n\
         [l]\npath = WORK/mod\nread only = no\nmunge symlinks = yes\n[t]\npath = WORK/mod\nread only = no\ntemp dir = /tmp\n\
         [s]\npath = WORK/mod\nread only = no\nfake super = yes\nuid = nobody\n[n]\npath = WORK/mod\nnumeric ids = yes\nmax verbosity = 0\n",
        &links,
        &[
            "-rpi URL/m/ got",
            "-rpi up/ URL/m/",
            "-rli up/ URL/l/",
            "-rli URL/l/ got",
            "-ri up/ URL/t/",
            "-ai URL/n/ got",
            "-ai URL/s/ got",
        ],
    );
}

/// The lines of a log about one transfer, without what cannot agree: moment, process, and bytes on the wire.
fn logged(text: &str) -> Vec<String> {
    let kept = |line: &str| {
        let (_, line) = line.split_once("] ")?;
        let heads = [
            "rsyncd version",
            "connect from",
            "rsync allowed",
            "sent ",
            "connection lost before",
            "rsync error: error in rsync protocol",
        ];
        // Stock says behind a path in which module it lies.
        let line = line.replace(" (in d)", "");
        let line = line.split_once(" at ").filter(|_| line.starts_with("rsync error")).map_or(&*line, |(what, _)| what);
        let total = line.split_once("total size").filter(|_| line.starts_with("sent ")).map(|(_, total)| total);
        match total {
            Some(total) => Some(format!("sent total size{total}")),
            None => Some(line.to_owned())
                .filter(|line| !heads.iter().any(|head| line.starts_with(head)) && !line.contains("safe_read")),
        }
    };
    text.lines().filter_map(kept).collect()
}

/// Plays the commands against a daemon with these modules: the exit codes, and what the log says of each.
fn log_of(bench: &Bench, program: &str, modules: &str, commands: &[&str]) -> Vec<(i32, Vec<String>)> {
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    symlink("a.txt", work.join("up/link")).unwrap();
    tree::set_mtime(&work.join("up"), THEN.0 - 7, 0);
    for (name, text) in [("secrets", "joe:x\n"), ("password", "x\n")] {
        fs::write(work.join(name), text).unwrap();
        fs::set_permissions(work.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let daemon = Daemon::start(program, work, &format!("use chroot = no\nuid = 0\ngid = 0\n{modules}"));
    let mut told = Vec::new();
    let mut heard = 0;
    for (at, command) in commands.iter().enumerate() {
        let _ = fs::remove_dir_all(work.join("got"));
        let run = daemon.client(work, &command.replace("PORT", &daemon.port.to_string()));
        daemon.has_said(|log| log.matches(" total size ").count() > at);
        // Its last word about one that is turned down.
        assert!(run.code != 1 || daemon.has_said(|log| log[heard..].contains("] rsync error: syntax")), "{command}");
        let log = daemon.said();
        told.push((run.code, logged(&log[heard..].replace(work.to_str().unwrap(), "WORK"))));
        heard = log.len();
    }
    told
}

/// What a daemon's log says of each file, with our daemon as with stock's.
#[test]
fn transfers_are_logged_as_by_stock() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let modules = "read only = no\nreverse lookup = no\ntransfer logging = yes\n\
                   [d]\npath = WORK/mod\n\
                   [i]\npath = WORK/mod\nlog format = %i %n%L\n\
                   [all]\npath = WORK/mod\nlog format = %o|%h|%a|%m|%u|%f|%'l|%n|%c|%M|%B|%20n|%-20n|%P|%z\n\
                   [off]\npath = WORK/mod\ntransfer logging = no\n\
                   [empty]\npath = WORK/mod\nlog format =\n\
                   [who]\npath = WORK/mod\nauth users = joe\nsecrets file = WORK/secrets\n";
    let commands = [
        "-rt URL/d/ got",
        "-rt URL/d/sub got",
        "-rt --no-links up/ URL/d/",
        "-rt --delete up/ URL/d/sub/",
        "-rtn up/ URL/d/",
        "-rt URL/i/ got",
        "-rti up/ URL/i/sub",
        "-rt --delete up/ URL/i/",
        "-rt URL/all/sub/ got",
        "-rt up/ URL/all/sub/",
        "-rt up/ URL/off/",
        "-rt up/ URL/empty/",
        "-rt --password-file=password up/ rsync://joe@127.0.0.1:PORT/who/",
        "-r URL/d/nosuch got",
        "URL/d/",
    ];
    let [stock, ours] = [STOCK, OURS].map(|program| log_of(&bench, program, modules, &commands));
    for ((command, stock), ours) in commands.iter().zip(stock).zip(ours) {
        assert_eq!(stock, ours, "stock | ours: {command}");
    }
}

/// What the client hears in words stands in the log, too, and changes without data as their names.
#[test]
fn what_a_client_is_told_is_logged_as_by_stock() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let modules = "read only = no\nreverse lookup = no\nmax verbosity = 2\ntransfer logging = yes\n\
                   [o]\npath = WORK/mod\nlog format = %o %n\n\
                   [i]\npath = WORK/mod\nlog format = %n|%i|%3i|%-14i\n\
                   [ids]\npath = WORK/mod\nlog format = %U:%G %B %C\n\
                   [off]\npath = WORK/mod\ntransfer logging = no\n\
                   [kept]\npath = WORK/mod\nread only = yes\n";
    let commands = [
        "-rtv up/ URL/o/",
        "-rtvv --delete --max-size=5 up/ URL/o/",
        "-rlvn --delete up/ URL/o/",
        "-rlptv --chmod=F600 up/ URL/o/",
        "-rlptvv --chmod=F640 up/ URL/o/",
        "-rlptvv --chmod=F600 --protocol=28 up/ URL/o/",
        "-rlptv --chmod=F640 up/ URL/i/",
        "-rlv up/ URL/o/fresh",
        "-rltv up/ URL/o/new",
        "-rltiv --backup up/ URL/o/new",
        "-rltv --protocol=28 --delete up/ URL/o/old",
        "-rltv --protocol=28 --delete up/ URL/o/old",
        "-rltv --delete up/ URL/i/",
        "-rltv --protocol=28 up/ URL/i/old2",
        "-rltvn --delete none/ URL/i/",
        "-rlto --delete up/ URL/ids/",
        "-rltg --delete none/ URL/ids/",
        "-rlt up/ URL/ids/",
        "-rlt URL/ids/ got",
        "-rltv --delete up/ URL/off/x",
        "-rltvv --exclude=sub URL/o/ got",
        "-rt --remove-source-files URL/kept/ got",
        "-rtn --remove-source-files URL/kept/ got",
    ];
    let [stock, ours] = [STOCK, OURS].map(|program| log_of(&bench, program, modules, &commands));
    for ((command, mut stock), mut ours) in commands.iter().zip(stock).zip(ours) {
        // Two that work side by side write it.
        stock.1.sort();
        ours.1.sort();
        assert_eq!(stock, ours, "stock | ours: {command}");
    }
}

/// Parameters of small effect: what the client sees, and what is left, is as with stock's daemon.
#[test]
fn small_parameters_have_stocks_effect() {
    let unreadable = |_: &Path| {};
    same(
        "read only = no\n[m]\npath = WORK/mod\nignore errors = yes\n[n]\npath = WORK/mod\n",
        &unreadable,
        &["-ri --delete up/ nosuch URL/m/", "-ri --delete up/ nosuch URL/n/", "-ri --delete URL/m/ URL/m/nosuch up"],
    );
    same(
        "[m]\npath = WORK/mod\nmax verbosity = 0\n[n]\npath = WORK/mod\nmax verbosity = 3\n[d]\npath = WORK/mod\ndont compress = *\n",
        &|_| {},
        &["-rv URL/m/sub up", "-rv URL/n/sub up", "-rtz URL/d/ up", "-rtz --compress-choice=zlib URL/d/ up"],
    );
}

/// With `open noatime` nobody sees that a file was read.
#[test]
fn a_module_may_leave_access_times_alone() {
    if !support::tools::require("rsync") || !tree::is_root() {
        return;
    }
    let bench = Bench::start();
    for (wanted, kept) in [("yes", true), ("no", false), ("unset", false)] {
        for program in ["rsync", OURS] {
            let work = bench.fresh("work");
            prepare(work.path());
            let text = format!("use chroot = no\nuid = 0\ngid = 0\n[m]\npath = WORK/mod\nopen noatime = {wanted}\n");
            let daemon = Daemon::start(program, work.path(), &text);
            let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let file = fs::File::options().write(true).open(work.path().join("mod/a.txt")).unwrap();
            file.set_times(fs::FileTimes::new().set_accessed(long_ago)).unwrap();
            assert_eq!(daemon.client(work.path(), "-r URL/m/a.txt got").code, 0);
            let accessed = fs::metadata(work.path().join("mod/a.txt")).unwrap().accessed().unwrap();
            // A file system may be mounted without access times.
            assert!(accessed == long_ago || !kept, "{program} {wanted}");
        }
    }
}

/// Behind a proxy it is the client's address that counts, and only a proxy that is named is believed.
#[test]
fn a_proxy_says_who_its_client_is() {
    use std::io::{Read, Write};
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x7f\0\0\x01\x03\xe8\x03\x69";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (hosts, header, answer) in [
        ("127.0.0.1", &b"PROXY TCP4 10.1.2.3 127.0.0.1 1000 873\r\n"[..], "@RSYNCD: OK"),
        ("127.0.0.0/8", v2, "@RSYNCD: OK"),
        (
            "127.0.0.1",
            b"PROXY TCP4 10.9.9.9 127.0.0.1 1000 873\r\n",
            "@ERROR: access denied to m from UNDETERMINED (10.9.9.9)",
        ),
        ("127.0.0.1", local, "@ERROR: access denied to m from UNDETERMINED (127.0.0.1)"),
        ("127.0.0.1", b"PROXY UNKNOWN\r\n", "@ERROR: access denied to m from UNDETERMINED (127.0.0.1)"),
        ("127.0.0.1", b"", ""),
        ("127.0.0.1", b"PROXY TCP4 10.1.2.3\r\n", ""),
        ("10.0.0.0/8", v2, ""),
        ("", v2, ""),
    ] {
        let said = ["rsync", OURS].map(|program| {
            let work = bench.fresh("work");
            prepare(work.path());
            let text = format!(
                "proxy protocol = yes\nproxy protocol hosts = {hosts}\nreverse lookup = no\nuse chroot = no\n\
                 [m]\npath = WORK/mod\nhosts allow = 10.1.2.3\n"
            );
            let daemon = Daemon::start(program, work.path(), &text);
            let mut stream = daemon.raw();
            // A daemon that does not believe us may hang up before it has heard all.
            let _ = stream.write_all(&[header, b"@RSYNCD: 31.0 md5\nm\n"].concat());
            let mut heard = Vec::new();
            let mut buffer = [0; 512];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                heard.extend_from_slice(&buffer[..count]);
                if heard.ends_with(b"@RSYNCD: OK\n") {
                    break;
                }
            }
            String::from_utf8_lossy(&heard).lines().last().unwrap_or_default().to_owned()
        });
        assert_eq!(said, [answer, answer], "{hosts} {}", header.escape_ascii());
    }
}

/// A program of the operator knows the names of owners, also where the root is changed and the system's list lies outside.
#[test]
fn a_program_converts_the_names_of_owners() {
    if !tree::is_root() {
        eprintln!("SKIPPED: only root can give files away; run as root");
        return;
    }
    let before = |work: &Path| {
        let script = "while read -r what of; do\n\
             echo \"$what $of\" >>\"$1-$RSYNC_MODULE_NAME\"\n\
             case \"$what $of\" in\n\
             'uid 12') echo alice;; 'gid 13') echo sales;; 'usr alice') echo 112;; 'grp sales') echo 113;;\n\
             'usr daemon') echo 77;; 'grp nonsense') echo 5x;; *) echo;;\n\
             esac\ndone";
        support::script::script(&work.join("convert"), script);
        for (name, uid, gid) in
            [("mod/a.txt", 12, 13), ("mod/sub/keep.o", 4000, 4001), ("up/ok", 1, 1), ("up/x.o", 12, 13)]
        {
            std::os::unix::fs::lchown(work.join(name), Some(uid), Some(gid)).unwrap();
        }
    };
    same(
        "name converter = WORK/convert WORK/asked\nread only = no\n\
         [m]\npath = WORK/mod\n\
         [jail]\npath = WORK/mod\nuse chroot = yes\n\
         [bare]\npath = WORK/mod\nnumeric ids = yes\n\
         [other]\npath = WORK/mod\nuid = nobody\n",
        &before,
        &[
            "-ai --usermap=alice:5,*:6 --groupmap=sales:7 URL/m/ got",
            "-ai --usermap=alice:5,*:6 --groupmap=sales:7 URL/jail/ got",
            "-ai --usermap=alice:5 --numeric-ids URL/jail/ got",
            "-ai --usermap=alice:5 URL/bare/ got",
            "-ai --usermap=alice:5 URL/other/a.txt got/",
            "-ai up/ URL/m/new/",
            "-ai up/ URL/jail/new/",
            "-ai up/ URL/bare/new/",
            "-ai --chown=alice:sales up/ URL/jail/new/",
            "-ai --usermap=12:alice,*:nobody-knows --groupmap=*:nonsense up/ URL/m/new/",
            "-ai --numeric-ids up/ URL/m/new/",
            "-r URL/m/ got",
        ],
    );
    // Without its answers nothing is given to anybody.
    let bench = Bench::start();
    let work = bench.fresh("work");
    prepare(work.path());
    before(work.path());
    let modules = "[m]\npath = WORK/mod\nuid = 0\ngid = 0\nuse chroot = no\nread only = no\nname converter = exit 3 #";
    let daemon = Daemon::ours(work.path(), modules);
    for (at, command) in ["-a URL/m/ got", "-a up/ URL/m/new/"].into_iter().enumerate() {
        let run = daemon.client(work.path(), command);
        let told = daemon.has_said(|log| log.matches("name-converter").count() > at);
        assert!(run.code != 0 && told, "{command}: {} {}", run.code, daemon.said());
        assert!(!work.path().join("got/a.txt").exists() && !work.path().join("mod/new/ok").exists(), "{command}");
    }
}

/// A module within a changed root is left neither by names nor by symlinks, though what lies beside it is in reach of both.
#[test]
fn a_module_within_a_changed_root_is_not_left() {
    if !tree::is_root() {
        eprintln!("SKIPPED: only root can change the root; run as root");
        return;
    }
    let links = |work: &Path| {
        tree::put(&work.join("mod"), "inner/own", b"own", 0o644, THEN);
        tree::put(&work.join("mod"), "beside/secret", b"secret", 0o644, THEN);
        for (name, target) in
            [("way", "/beside"), ("up", "../beside"), ("leaf", "/beside/secret"), ("real", "/mod/beside")]
        {
            symlink(target, work.join("mod/inner").join(name)).unwrap();
        }
    };
    let modules = "[m]\npath = WORK/mod/./inner\nuse chroot = yes\nread only = no\nmunge symlinks = no\n";
    let commands = [
        "-r URL/m/own got/",
        "-rL URL/m/ got",
        "-r URL/m/way/ got",
        "-r URL/m/leaf got",
        "-rL URL/m/leaf got",
        "-r URL/m/up/secret got",
        "-r URL/m/../beside/ got",
        "-ri up/ok URL/m/way/",
        "-ri up/ok URL/m/up/new",
        "-ri up/ok URL/m/../beside/",
        "-ri --backup-dir=/way up/ok URL/m/own",
        "-ri --temp-dir=/up up/ok URL/m/own",
        "-ri --link-dest=/way up/ok URL/m/",
    ];
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for command in commands {
        let work = bench.fresh("inner");
        let work = work.path();
        prepare(work);
        links(work);
        let daemon = Daemon::ours(work, &format!("uid = 0\ngid = 0\n{modules}"));
        let run = daemon.client(work, command);
        assert!(!command.ends_with("own got/") || run.code == 0, "{}", run.stderr);
        let beside: Vec<_> =
            fs::read_dir(work.join("mod/beside")).unwrap().map(|file| file.unwrap().file_name()).collect();
        let secret = Command::new("grep").args(["-rl", "secret", "got"]).current_dir(work).output().unwrap();
        assert!(beside == ["secret"] && secret.stdout.is_empty(), "{command}: {beside:?} {secret:?}");
    }
}
