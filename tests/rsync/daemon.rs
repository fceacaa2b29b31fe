//! The rsync daemon and its clients, ours and stock's, over real sockets of the loopback.

#[path = "daemon/held.rs"]
mod held;
#[path = "daemon/modules.rs"]
mod modules;
#[path = "daemon/started.rs"]
mod started;
#[path = "daemon/words.rs"]
mod words;

use crate::support;
use crate::support::daemon::{Daemon, START};
use crate::support::engine::{self, Silent};
use crate::support::stock::{Bench, OURS, Run, rsync};
use crate::support::tree::{self, THEN, Tree};
use protocol::args::{Options, ServerArgs};
use protocol::flist::{FileEntry, FileList, Ndx};
use protocol::handshake::{Hello, Offer};
use pysmurf_archiver::rsync::daemon::{Call, Connected, DaemonError, Shell, Site, connect, list_modules};
use pysmurf_archiver::transfer::{Listing, ReceivePlan, SendPlan, Source, greet_agreed, receive, send};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A tree in `src`, an empty `dst`, a secrets file.
fn work(bench: &Bench) -> tempfile::TempDir {
    let work = bench.fresh("daemon");
    tree::put(&work.path().join("src"), "plain", b"plain words\n", 0o644, THEN);
    tree::put(&work.path().join("src"), "dir/a b*c", &tree::noise(70_000, 3), 0o600, THEN);
    tree::put(&work.path().join("src"), "dir/sub/deep", b"deep", 0o644, THEN);
    fs::create_dir(work.path().join("dst")).unwrap();
    fs::write(work.path().join("secrets"), "joe:s3cret\nann:other\n").unwrap();
    fs::set_permissions(work.path().join("secrets"), fs::Permissions::from_mode(0o600)).unwrap();
    work
}

const MODULES: &str = "use chroot = no\nuid = root\ngid = root\nmotd file = WORK/motd\n\
    [mod]\npath = WORK/src\ncomment = the tree\n\
    [in]\npath = WORK/dst\nread only = no\ncomment = a place\n\
    [hidden]\npath = WORK/src\nlist = no\n\
    [jail]\npath = WORK/src\nuse chroot = yes\nuid = nobody\n\
    [auth]\npath = WORK/dst\nauth users = joe:rw ann:ro\nsecrets file = WORK/secrets\n\
    [denied]\npath = WORK/src\nhosts deny = 127.0.0.0/8\n";

fn same_trees(work: &Path, left: &str, right: &str) -> String {
    Tree::of(&work.join(left), 0).difference(&Tree::of(&work.join(right), 0))
}

#[test]
fn stock_clients_pull_and_push() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let daemon = Daemon::ours(work, MODULES);
    for version in [30, 31, 32] {
        for option in ["", " -s", " --checksum-choice=md5", " --no-i-r", " --timeout=20"] {
            let _ = fs::remove_dir_all(work.join("got"));
            let run = daemon.client(work, &format!("-a --protocol={version}{option} URL/mod/ got"));
            assert_eq!((run.code, &*run.stderr), (0, ""), "{version}{option}: {}", daemon.said());
            assert_eq!(same_trees(work, "src", "got"), "", "{version}{option}");
            let _ = fs::remove_dir_all(work.join("dst/x"));
            let run = daemon.client(work, &format!("-a --protocol={version}{option} src/ URL/in/x"));
            assert_eq!((run.code, &*run.stderr), (0, ""), "{version}{option}: {}", daemon.said());
            assert_eq!(same_trees(work, "src", "dst/x"), "", "{version}{option}");
        }
    }
    let said = daemon.said();
    assert!(said.contains("rsync on mod/ from "), "{said}");
    assert!(said.contains("rsync to in/x from "), "{said}");
}

#[test]
fn what_stock_says_is_what_we_say() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    fs::write(work.join("motd"), "be welcome\n").unwrap();
    symlink("/etc/passwd", work.join("src/out")).unwrap();
    let (ours, stock) = (Daemon::ours(work, MODULES), Daemon::start("rsync", work, MODULES));
    for command in [
        "URL/",
        "--no-motd URL/",
        "-a URL/mod/plain got1",
        "-a URL/mod/dir/a* got2",
        "-a URL/mod/[dp]* got3",
        "-a URL/mod/absent got4",
        "-a URL/mod/../../../plain got5",
        "-a URL/mod/out/ got6",
        "-aR URL/mod/dir/sub/deep got7",
        "-a URL/hidden/plain got8",
        "-a URL/nosuch/ got9",
        "-a URL/denied/ got9",
        "-a src/plain URL/mod/",
        "-a src/plain URL/in/../../up",
        "-a src/plain URL/in/no/such/place/",
    ] {
        let (a, b) = (ours.client(work, command), stock.client(work, command));
        assert_eq!(a.code, b.code, "{command}: {} | {}", a.stderr, b.stderr);
        let text = |run: &Run| String::from_utf8_lossy(&run.stdout).into_owned();
        assert_eq!(text(&a), text(&b), "{command}");
        let errors = |run: &Run| -> Vec<String> {
            run.stderr
                .lines()
                .filter(|line| line.starts_with('@') || line.starts_with("ERROR"))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(errors(&a), errors(&b), "{command}");
    }
    assert!(work.join("dst/up").exists());
}

#[test]
fn users_prove_themselves() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let daemon = Daemon::ours(work, MODULES);
    let password = work.join("password");
    let ask = |user: &str, secret: &str, push: bool| {
        fs::write(&password, secret).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let url = daemon.url("auth/").replace("//127", &format!("//{user}@127"));
        let paths = if push { ["src/plain".to_owned(), url] } else { [url, "got/".to_owned()] };
        let file = format!("--password-file={}", password.display());
        let mut words = vec!["-r".to_owned(), file];
        words.extend(paths);
        rsync(work, &words)
    };
    for (user, secret, push, code) in [
        ("joe", "s3cret\n", true, 0),
        ("joe", "s3cret", false, 0),
        ("joe", "wrong", false, 5),
        ("ann", "other", false, 0),
        ("ann", "other", true, 1),
        ("eve", "s3cret", false, 5),
    ] {
        let run = ask(user, secret, push);
        assert_eq!(run.code, code, "{user} {secret}: {}", run.stderr);
        if code == 5 {
            assert!(run.stderr.contains("@ERROR: auth failed on module auth"), "{}", run.stderr);
        }
    }
    let said = daemon.said();
    assert!(said.contains("for joe: password mismatch") && said.contains("for eve: no matching rule"), "{said}");
    // A client whose digests are all too weak is not even challenged.
    let floor = format!(
        "{MODULES}auth digest = sha256\n[floor]\npath = WORK/dst\nauth users = joe\nsecrets file = WORK/secrets\nauth digest = sha256\n"
    );
    let daemon = Daemon::ours(
        work,
        &floor.replace("hosts deny = 127.0.0.0/8\nauth digest = sha256\n", "hosts deny = 127.0.0.0/8\n"),
    );
    let mut stream = daemon.raw();
    stream.write_all(b"@RSYNCD: 31.0 md5 md4\nfloor\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("@ERROR: auth failed on module floor\n") && !text.contains("AUTHREQD"), "{text}");
}

#[test]
fn a_module_is_entered_as_its_user_and_not_left() {
    if !support::tools::require("rsync") || !tree::is_root() {
        return;
    }
    let bench = Bench::start();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let work = work(&bench);
    let work = work.path();
    let outside = work.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "not yours").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    for (name, chroot) in [("root", "yes"), ("cage", "no")] {
        let module = work.join(name);
        fs::create_dir(&module).unwrap();
        symlink("../outside", module.join("up")).unwrap();
        symlink(&outside, module.join("far")).unwrap();
        fs::create_dir(module.join("inner")).unwrap();
        symlink("inner", module.join("near")).unwrap();
        fs::write(module.join("inner/file"), "mine").unwrap();
        tree::put(&module, "private", b"root's", 0o600, THEN);
        std::os::unix::fs::chown(module.join("inner"), Some(65534), Some(65534)).unwrap();
        let text = format!(
            "[{name}]\npath = {}\nuse chroot = {chroot}\nread only = no\nuid = nobody\ngid = 65534\n",
            module.display()
        );
        let daemon = Daemon::ours(work, &text);
        let got = work.join(format!("got-{name}"));
        let to = got.to_str().unwrap();
        // What root alone may read is not read, although the daemon runs as root.
        let run = daemon.client(work, &format!("-a URL/{name}/ {to}"));
        assert_eq!(run.code, 23, "{}", run.stderr);
        assert!(run.stderr.contains("private") && !got.join("private").exists(), "{}", run.stderr);
        assert!(got.join("inner/file").exists());
        // No link leads out, however it is asked for; one within the module does.
        for path in ["up/", "far/", "up/secret", "far/secret"] {
            let run = daemon.client(work, &format!("-aL URL/{name}/{path} {to}/stolen"));
            assert_ne!(run.code, 0, "{path}");
        }
        daemon.client(work, &format!("-aL URL/{name}/ {to}/all"));
        let copied = Command::new("grep").args(["-r", "not yours", to]).output().unwrap();
        assert!(copied.stdout.is_empty(), "{}", String::from_utf8_lossy(&copied.stdout));
        let run = daemon.client(work, &format!("-a URL/{name}/near/ {to}/near"));
        assert_eq!(run.code, 0, "{}", run.stderr);
        // And nothing is written through one, or as another user.
        for path in ["up/", "far/", "up/x/", "far/x/", "../outside/"] {
            daemon.client(work, &format!("-r --mkpath src/plain URL/{name}/{path}"));
        }
        let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let run = daemon.client(work, &format!("-r src/plain URL/{name}/inner/"));
        assert_eq!(run.code, 0, "{}", run.stderr);
        let stat = fs::metadata(module.join("inner/plain")).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (65534, 65534));
    }
}

#[test]
fn connections_are_counted() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let daemon = Daemon::ours(
        work,
        "use chroot = no\nuid = root\nlock file = WORK/lock\n[one]\npath = WORK/src\nmax connections = 1\n\
         [none]\npath = WORK/src\nmax connections = -1\n",
    );
    let mut first = daemon.raw();
    first.write_all(b"@RSYNCD: 31.0 md5\none\n").unwrap();
    let mut answer = BufReader::new(first.try_clone().unwrap());
    let mut line = String::new();
    while line != "@RSYNCD: OK\n" {
        line.clear();
        assert_ne!(answer.read_line(&mut line).unwrap(), 0);
    }
    let run = daemon.client(work, "-a URL/one/ got");
    assert_eq!(run.code, 5);
    assert!(run.stderr.contains("@ERROR: max connections (1) reached -- try again later"), "{}", run.stderr);
    drop((first, answer));
    let deadline = Instant::now() + START;
    while daemon.client(work, "-a URL/one/ got").code != 0 {
        assert!(Instant::now() < deadline, "{}", daemon.said());
    }
    assert_eq!(daemon.client(work, "-a URL/none/ got").code, 5);
}

/// What a hostile client says, and whether it is answered with an error; none may hang or hurt the daemon.
#[test]
fn hostile_greetings_are_cut_off() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let daemon = Daemon::ours(work, MODULES);
    let hello = &b"@RSYNCD: 31.0 md5\n"[..];
    let cases: Vec<Vec<u8>> = vec![
        vec![b'x'; 100_000],
        [hello, &vec![b'm'; 100_000]].concat(),
        b"\0\0\0\0".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"@RSYNCD: 99.0 md5\n".to_vec(),
        b"@RSYNCD: 32.0\n".to_vec(),
        b"@RSYNCD: 29.0 md5\nmod\n".to_vec(),
        [hello, b"#early_input=999999\n"].concat(),
        [hello, b"#reboot\n"].concat(),
        [hello, b"../../etc\n"].concat(),
        [hello, b"mod\n", &b"-a\0".repeat(20_000)].concat(),
        [hello, b"mod\n", &vec![b'a'; 3 << 20]].concat(),
        [hello, b"mod\n--server\0--sender\0.\0", &b"mod/*/*/*/*/*\0".repeat(100), b"\0"].concat(),
        [hello, b"mod\n--server\0--max-size=999999999999999999999999999999999999\0.\0mod/\0\0"].concat(),
        [hello, b"mod\n\0"].concat(),
        [hello, b"auth\njoe\n"].concat(),
        [hello, b"auth\n\n"].concat(),
        [hello, b"auth\njoe ", &vec![b'A'; 5000], b"\n"].concat(),
        [hello, b"\n\n\n\n"].concat(),
    ];
    for case in &cases {
        let mut stream = daemon.raw();
        let _ = stream.write_all(case);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // It hangs up; what it says and whether it resets the rest does not matter here.
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let timed_out =
            end.is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        assert!(!timed_out, "{:?}", String::from_utf8_lossy(&case[..case.len().min(80)]));
        assert!(!String::from_utf8_lossy(&answer).contains("panicked"));
    }
    assert!(!daemon.said().contains("panicked"));
    assert_eq!(daemon.client(work, "-a URL/mod/ got").code, 0);
}

#[test]
fn a_remote_shell_starts_a_daemon() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let config = work.join("rsyncd.conf");
    let text = MODULES.replace("WORK", work.to_str().unwrap());
    fs::write(&config, format!("log file = {}/log\n{text}", work.display())).unwrap();
    let shell = bench.shell();
    let script = bench.script("ours-daemon", &format!("exec {OURS} \"$@\" --config={}\n", config.display()));
    let words = ["-a", "-e", shell.to_str().unwrap(), "--rsync-path", script.to_str().unwrap(), "host::mod/", "got"];
    let run = rsync(work, &words);
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert_eq!(same_trees(work, "src", "got"), "");
    // Our client does the same to stock's daemon.
    let stock = bench.script("stock-daemon", &format!("exec rsync \"$@\" --config={}\n", config.display()));
    let call = Call {
        shell: Some(Shell { words: vec![bench.shell().into(), "host".into()], program: stock.into() }),
        ..Call::default()
    };
    let site = Site { host: "host".into(), ..Site::default() };
    pull(&site, &call, "mod/", &work.join("got2")).unwrap();
    assert_eq!(same_trees(work, "src", "got2"), "");
}

fn server_args(sender: bool, path: &str) -> ServerArgs {
    let options = Options { recurse: true, links: true, times: true, perms: true, ..Options::default() };
    ServerArgs { sender, options, paths: vec![path.into()], ..ServerArgs::default() }
}

fn hello(version: u8, incremental: bool) -> Hello {
    Hello { incremental, ..engine::hello(version, Offer::Stock) }
}

fn pull(site: &Site, call: &Call, path: &str, to: &Path) -> Result<(), DaemonError> {
    let args = server_args(true, path);
    let Connected { link, version } = connect(site, call, &args, &mut |_| {})?;
    let session = greet_agreed(link, hello(version, args.options.takes_segments())).unwrap();
    let destination = to.to_path_buf();
    let plan = ReceivePlan { options: args.options, destination, ..ReceivePlan::default() };
    let received = receive(session, &plan, &|_: &protocol::mux::Message| {}).unwrap();
    assert_eq!(received.failed, 0);
    Ok(())
}

struct One(PathBuf);

impl Source for One {
    type File = File;

    fn open(&self, _: Ndx, _: &FileEntry) -> io::Result<File> {
        File::open(&self.0)
    }
}

fn push(site: &Site, call: &Call, from: &Path, path: &str) -> Result<(), DaemonError> {
    let mut args = server_args(false, path);
    args.options.no_inc_recursive = true;
    let Connected { link, version } = connect(site, call, &args, &mut |_| {})?;
    let session = greet_agreed(link, hello(version, false)).unwrap();
    let stat = fs::metadata(from).unwrap();
    let entry = FileEntry { len: stat.len(), mtime: stat.mtime(), ..FileEntry::new("pushed", 0o100644) };
    let plan = SendPlan { shape: args.options.list_shape(0), ..SendPlan::default() };
    let listing = |_: pysmurf_archiver::transfer::Asked<'_>| {
        Ok((Listing { list: FileList::new(vec![entry]), ..Listing::default() }, One(from.into())))
    };
    let summary = send(session, &plan, listing, &mut Silent).unwrap();
    assert_eq!(summary.files, 1);
    Ok(())
}

#[test]
fn our_client_reaches_stock_and_ours() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    fs::write(work.join("motd"), "be welcome\n").unwrap();
    let password = work.join("password");
    for program in ["rsync", OURS] {
        let daemon = Daemon::start(program, work, MODULES);
        for version in [30, 31, 32] {
            let call = Call { version, ..Call::default() };
            let got = work.join(format!("got-{}-{version}", daemon.port));
            pull(&daemon.site(), &call, "mod/", &got).unwrap();
            assert_eq!(Tree::of(&got, 0).files(), Tree::of(&work.join("src"), 0).files());
            let _ = fs::remove_file(work.join("dst/pushed"));
            push(&daemon.site(), &call, &work.join("src/dir/a b*c"), "in/").unwrap();
            assert_eq!(fs::read(work.join("dst/pushed")).unwrap(), fs::read(work.join("src/dir/a b*c")).unwrap());
        }
        fs::write(&password, "s3cret\n").unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let call = Call { password_file: Some(password.clone()), ..Call::default() };
        let joe = Site { user: Some("joe".into()), ..daemon.site() };
        pull(&joe, &call, "auth/", &work.join("got-auth")).unwrap();
        fs::write(&password, "wrong").unwrap();
        let error = pull(&joe, &call, "auth/", &work.join("got-auth")).unwrap_err();
        assert_eq!((error.to_string(), error.exit_code()), ("@ERROR: auth failed on module auth".into(), 5));
        let error = pull(&daemon.site(), &Call::default(), "nosuch/", &work.join("no")).unwrap_err();
        assert_eq!((error.to_string(), error.exit_code()), ("@ERROR: Unknown module 'nosuch'".into(), 5));
        let mut lines = Vec::new();
        list_modules(&daemon.site(), &Call::default(), &mut |line| {
            lines.push(String::from_utf8_lossy(line).into_owned())
        })
        .unwrap();
        assert_eq!(lines[..3], ["be welcome", "", "mod            \tthe tree"], "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("hidden")), "{lines:?}");
    }
}

/// A false daemon for our client: what it says, and how that ends.
#[test]
fn our_client_believes_no_false_daemon() {
    let site = |port| Site { host: "127.0.0.1".into(), port: Some(port), user: None };
    for (said, code) in [
        (&b"SSH-2.0-OpenSSH_10.0\r\n"[..], 5),
        (b"@RSYNCD: 32.0\n", 5),
        (b"@RSYNCD: 12.0 md5\n", 2),
        (b"@RSYNCD: 31.0 md5\n@RSYNCD: WHAT\n", 5),
        (b"@RSYNCD: 31.0 md5\n@RSYNCD: EXIT\n", 5),
        (b"@RSYNCD: 31.0 md5\n@ERROR: go away\x1b[2J\n", 5),
        (b"@RSYNCD: 31.0 md5\n", 5),
        (b"", 5),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let error = pull(&site(port), &Call::default(), "mod/", Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(!error.to_string().contains('\x1b'), "{error:?}");
        server.join().unwrap();
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(pull(&site(closed), &Call::default(), "mod/", Path::new("/x")).unwrap_err().exit_code(), 10);
    let call = Call { timeout: Some(Duration::from_millis(300)), ..Call::default() };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    assert_eq!(pull(&site(port), &call, "mod/", Path::new("/x")).unwrap_err().exit_code(), 30);
}

#[test]
fn a_daemon_that_cannot_serve_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c");
    for (text, expected) in [
        ("[a]\nread only = maybe\n", "expected yes, no, true, false, 1 or 0"),
        ("[a]\ncomment = x\n", "Module [a]: it has no path"),
        ("[a]\npath = /\nhosts allow = 10.0.0.0/99\n", "is no address, address/mask or host name"),
        ("[a]\npath = /\nauth users = x\n", "auth users needs a secrets file"),
        ("[a]\npath = /\nauth users = x:wr\nsecrets file = /s\n", "ends in neither :deny, :ro nor :rw"),
        ("socket options = SO_WHAT\n", "Unknown socket option SO_WHAT"),
    ] {
        fs::write(&config, text).unwrap();
        for detach in [&["--no-detach"][..], &[]] {
            let mut command = Command::new(OURS);
            command.args(["rsync", "--daemon", "--port=1", "--address=127.0.0.1"]).args(detach);
            let output = command.arg(format!("--config={}", config.display())).stdin(Stdio::null()).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{text}");
            assert!(stderr.contains(expected), "{text}: {stderr}");
        }
    }
}

#[test]
fn a_signal_ends_it_and_the_pid_file() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let mut daemon = Daemon::ours(work.path(), "pid file = WORK/pid\n[mod]\npath = WORK/src\n");
    // Whoever is served knows that all stands.
    assert_eq!(daemon.client(work.path(), "URL/").code, 0);
    let pid = fs::read_to_string(work.path().join("pid")).unwrap();
    assert_eq!(pid.trim(), daemon.child.id().to_string());
    let pid = rustix::process::Pid::from_child(&daemon.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.child.wait().unwrap().success());
    assert!(!work.path().join("pid").exists());
}

#[test]
fn commands_of_the_operator_surround_a_transfer() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let daemon = Daemon::ours(
        work,
        "use chroot = yes\nuid = nobody\n[mod]\npath = WORK/src\ntimeout = 33\n\
         early exec = cat > WORK/early\n\
         pre-xfer exec = echo \"$RSYNC_MODULE_NAME $RSYNC_REQUEST $RSYNC_ARG0 $RSYNC_ARG1\" > WORK/pre\n\
         post-xfer exec = echo \"$RSYNC_EXIT_STATUS $RSYNC_HOST_ADDR $(id -u)\" > WORK/post\n\
         [no]\npath = WORK/src\npre-xfer exec = echo not today; exit 7\n",
    );
    fs::write(work.join("input"), "for the early one").unwrap();
    let run = daemon.client(work, "-r --early-input=input URL/mod/plain got");
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert_eq!(fs::read_to_string(work.join("early")).unwrap(), "for the early one");
    assert_eq!(fs::read_to_string(work.join("pre")).unwrap(), "mod mod/plain rsyncd --server\n");
    let deadline = Instant::now() + START;
    let post = || fs::read_to_string(work.join("post")).unwrap_or_default();
    while !post().ends_with('\n') {
        assert!(Instant::now() < deadline, "no post-xfer exec: {}", daemon.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(post(), format!("0 127.0.0.1 {own}\n"));
    let run = daemon.client(work, "-r URL/no/plain got");
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains("not today"), "{}", run.stderr);
}

/// As inetd starts us: the client's socket is standard input, output and error.
#[test]
fn inetd_hands_over_a_socket() {
    let bench = Bench::start();
    let work = work(&bench);
    let config = work.path().join("c");
    fs::write(&config, format!("use chroot = no\n[mod]\npath = {}\n", work.path().display())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = std::os::fd::OwnedFd::from(listener.accept().unwrap().0);
    let mut command = Command::new(OURS);
    command.args(["rsync", "--daemon", &format!("--config={}", config.display())]);
    command.stdin(socket.try_clone().unwrap()).stdout(socket.try_clone().unwrap()).stderr(socket);
    let mut child = command.spawn().unwrap();
    drop(command);
    stream.write_all(b"@RSYNCD: 31.0 md5\n#list\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("mod            \t\n@RSYNCD: EXIT\n"), "{text}");
    assert!(child.wait().unwrap().success());
}
