//! How a daemon is started, who reaches it, and what it opens.

use super::{MODULES, pull, work};
use crate::support;
use crate::support::daemon::{Daemon, START};
use crate::support::held::is_held;
use crate::support::processes::descendants;
use crate::support::stock::{Bench, OURS};
use pysmurf_archiver::rsync::daemon::Call;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a daemon on a port answers to who asks for its modules, once it answers.
fn listing(port: u16) -> String {
    let deadline = Instant::now() + START;
    loop {
        assert!(Instant::now() < deadline, "no daemon listens at {port}");
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
            std::thread::yield_now();
            continue;
        };
        stream.write_all(b"@RSYNCD: 31.0 md5\n#list\n").unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        return text;
    }
}

/// Options stand in any order; what they name is found from where the daemon was started, and so is what the
/// configuration names.
#[test]
fn a_daemon_starts_whatever_the_order_of_its_options() {
    let bench = Bench::start();
    let work = work(&bench);
    let work = work.path();
    fs::write(work.join("motd"), "from the folder\n").unwrap();
    let text = "log file = log\nmotd file = motd\npid file = pid\nuse chroot = no\n[mod]\npath = /\n";
    fs::write(work.join("c"), text).unwrap();
    for options in [
        "--config=c --daemon --no-detach --address=127.0.0.1 --port=PORT",
        "-v --no-detach --config other --port PORT --daemon --config c -4 --address 127.0.0.1",
        "--port=1 --sockopts=SO_KEEPALIVE --daemon --log-file=log2 -M address=127.0.0.1 --config=c -vv --bwlimit=1.5m \
         --no-detach --port=PORT --log-file-format=%n",
        "-6 -4 --dparam=motdfile=motd --config=./c --port=PORT --address=127.0.0.1 --no-detach --daemon",
    ] {
        let port = free_port();
        let words: Vec<_> = options.split_whitespace().map(|word| word.replace("PORT", &port.to_string())).collect();
        let mut child =
            Command::new(OURS).arg("rsync").args(&words).current_dir(work).stdin(Stdio::null()).spawn().unwrap();
        let text = listing(port);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            text.contains("from the folder\n") && text.ends_with("mod            \t\n@RSYNCD: EXIT\n"),
            "{options}: {text}"
        );
    }
    assert!(work.join("log2").exists());
    // The same in the background.
    let port = free_port();
    let mut command = Command::new(OURS);
    command.args(["rsync", "--config=c", "--daemon", "--address=127.0.0.1"]).arg(format!("--port={port}"));
    assert!(command.current_dir(work).stdin(Stdio::null()).status().unwrap().success());
    let text = listing(port);
    let pid = fs::read_to_string(work.join("pid")).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::TERM).unwrap();
    assert!(text.contains("from the folder\n") && text.contains("mod"), "{text}");
    // Over a remote shell, with the file before all that the client adds.
    let mut command = Command::new(OURS);
    command.args(["rsync", "--config=c", "--server", "--daemon", "."]).current_dir(work).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"@RSYNCD: 31.0 md5\n#list\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("mod            \t\n"));
}

#[test]
fn a_daemon_names_the_option_that_it_does_not_know() {
    for (words, code, said) in [
        (&["--daemon", "--delete"][..], 1, "--delete"),
        (&["--daemon", "--bwlimit=x"], 1, "a rate"),
        (&["-v", "--daemon", "--help"], 0, "--dparam"),
    ] {
        let output = Command::new(OURS).arg("rsync").args(words).stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        assert!(String::from_utf8_lossy(&text).contains(said), "{words:?}: {}", String::from_utf8_lossy(&text));
    }
}

/// As under inetd: the program finds a connected socket, and somebody of this machine at its other end.
#[test]
fn a_program_stands_for_the_connection() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let text = format!(
        "log file = {0}/log\nuse chroot = no\nuid = 0\n[mod]\npath = {0}/src\nhosts allow = 127.0.0.1\n",
        work.display()
    );
    fs::write(work.join("c"), text).unwrap();
    let (ours, theirs) = (format!("{OURS} rsync"), "rsync".to_owned());
    for (number, (client, daemon)) in [(&ours, &ours), (&ours, &theirs), (&theirs, &ours)].into_iter().enumerate() {
        let words: Vec<_> = client.split(' ').collect();
        let run = |args: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).args(args).current_dir(work).stdin(Stdio::null());
            command.env("RSYNC_CONNECT_PROG", format!("{daemon} --daemon --config={}/c", work.display()));
            command.output().unwrap()
        };
        let listed = run(&["rsync://localhost/"]);
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert_eq!((listed.status.code(), text.trim_end()), (Some(0), "mod"), "{client} {daemon}: {listed:?}");
        let to = format!("got{number}");
        let pulled = run(&["-a", "rsync://localhost/mod/", &to]);
        assert_eq!(pulled.status.code(), Some(0), "{client} {daemon}: {pulled:?}");
        assert_eq!(super::same_trees(work, "src", &to), "");
    }
}

/// Nothing that the configuration names is read or written through a symlink that another user may have planted.
#[test]
fn files_of_the_configuration_are_nobody_elses() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root; run it as root");
        return;
    }
    let bench = Bench::start();
    let work = work(&bench);
    let work = work.path();
    fs::create_dir(work.join("own.d")).unwrap();
    let private = work.join("private");
    fs::write(&private, "joe:s3cret\n").unwrap();
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let planted = |name: &str, target: &Path| {
        let link = work.join(name);
        symlink(target, &link).unwrap();
        lchown(&link, Some(65534), Some(65534)).unwrap();
        link.display().to_string()
    };
    let path = planted("planted", &private);
    let folder = planted("planted.d", &work.join("own.d"));
    let ask = |module: &str, text: &str| {
        let config = work.join("c");
        fs::write(&config, format!("use chroot = no\nlog file = {}/log\n{text}", work.display())).unwrap();
        let mut command = Command::new(OURS);
        command.args(["rsync", "--server", "--daemon", "."]).arg(format!("--config={}", config.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("@RSYNCD: 31.0 md5\n{module}\njoe x\n").as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let said = ask("#list", &format!("motd file = {path}\n[m]\npath = /\n"));
    assert!(!said.contains("s3cret") && said.contains("m              \t\n"), "{said}");
    for line in ["&include ", "&merge "] {
        for place in [&path, &folder] {
            let said = ask("#list", &format!("{line}{place}\n[m]\npath = /\n"));
            assert!(said.contains("configuration cannot be used"), "{line}{place}: {said}");
        }
    }
    for parameter in ["lock file", "exclude from", "include from"] {
        let said = ask("m", &format!("[m]\npath = {}\nmax connections = 2\n{parameter} = {path}\n", work.display()));
        assert!(said.contains("@ERROR"), "{parameter}: {said}");
    }
    let said = ask("m", &format!("[m]\npath = /\nauth users = joe\nsecrets file = {path}\n"));
    assert!(said.contains("@ERROR: auth failed"), "{said}");
    ask("#list", &format!("log file = {path}\n[m]\npath = /\n"));
    assert_eq!(fs::read_to_string(&private).unwrap(), "joe:s3cret\n");
    let config = work.join("c");
    fs::write(&config, format!("pid file = {path}\nlog file = {}/log\n[m]\npath = /\n", work.display())).unwrap();
    let mut command = Command::new(OURS);
    command.args(["rsync", "--daemon", "--no-detach", "--address=127.0.0.1"]).arg(format!("--port={}", free_port()));
    let output = command.arg(format!("--config={}", config.display())).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(fs::read_to_string(&private).unwrap(), "joe:s3cret\n");
}

/// What the daemon itself gives up before it hears a client, and what it follows because it was told to.
#[test]
fn the_daemon_itself_may_have_fewer_rights() {
    if !support::tools::require("rsync") {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root; run it as root");
        return;
    }
    let bench = Bench::start();
    let work = work(&bench);
    let work = work.path();
    let link = work.join("planted");
    symlink(work.join("src"), &link).unwrap();
    lchown(&link, Some(65534), Some(65534)).unwrap();
    for (number, (settings, path, code, said)) in [
        ("", "WORK/src", 0, ""),
        // One file of the tree is for its owner alone.
        (
            "daemon uid = nobody\ndaemon gid = nogroup\n",
            "WORK/src",
            23,
            "failed to open \"dir/a b*c\": Permission denied",
        ),
        ("daemon chroot = WORK\n", "/src", 0, ""),
        ("daemon uid = nobody of that name\n", "WORK/src", 5, "@ERROR: invalid uid"),
        ("", "WORK/planted", 5, "@ERROR: chdir failed"),
        ("insecure links = yes\n", "WORK/planted", 0, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!("{settings}use chroot = no\nuid = 0\ngid = 0\n[mod]\npath = {path}\n");
        let daemon = Daemon::ours(work, &text);
        let to = format!("own{number}");
        let run = daemon.client(work, &format!("-a URL/mod/ {to}"));
        match said {
            "" => {
                assert_eq!((run.code, &*run.stderr), (0, ""), "{text}: {}", daemon.said());
                assert_eq!(super::same_trees(work, "src", &to), "", "{text}");
            }
            said => assert!(run.code == code && run.stderr.contains(said), "{text}: {} {}", run.stderr, daemon.said()),
        }
    }
}

/// The operator's limit holds for who has not even said what he wants.
#[test]
fn silence_is_not_waited_for_longer_than_the_operator_says() {
    let bench = Bench::start();
    let work = work(&bench);
    let daemon = Daemon::ours(work.path(), &format!("timeout = 1\n{MODULES}"));
    for said in [&b""[..], b"@RSYNCD: 31.0 md5\n", b"@RSYNCD: 31.0 md5\nmod\n--server\0"] {
        let mut silent = daemon.raw();
        silent.write_all(said).unwrap();
        let _ = silent.read_to_end(&mut Vec::new());
    }
    let told = daemon.said().matches("no complete request within 1s").count();
    assert_eq!(told, 3, "{}", daemon.said());
}

/// What is proven with MD4 is known to whoever listens.
#[test]
fn md4_is_no_proof_unless_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = pysmurf_archiver::rsync::daemon::Site {
        host: "127.0.0.1".into(),
        port: Some(listener.local_addr().unwrap().port()),
        user: Some("joe".into()),
    };
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"@RSYNCD: 31.0 md4\n@RSYNCD: AUTHREQD abc\n").unwrap();
        let mut heard = String::new();
        let _ = stream.read_to_string(&mut heard);
        heard
    });
    let bench = Bench::start();
    let work = work(&bench);
    let work = work.path();
    fs::write(work.join("password"), "s3cret\n").unwrap();
    fs::set_permissions(work.join("password"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let call = Call { password_file: Some(work.join("password")), ..Call::default() };
    let error = pull(&site, &call, "mod/", Path::new("/nonexistent")).unwrap_err();
    assert!(error.to_string().contains("--protocol=29"), "{error}");
    assert_eq!(error.exit_code(), 5);
    assert!(!server.join().unwrap().contains("joe"));
    let weak = "[weak]\npath = WORK/dst\nauth users = joe\nsecrets file = WORK/secrets\nauth digest = md4\n";
    let daemon = Daemon::ours(work, &format!("{MODULES}{weak}"));
    for (module, said) in [("auth", "@ERROR: auth failed on module auth"), ("weak", "@RSYNCD: AUTHREQD ")] {
        let mut stream = daemon.raw();
        stream.write_all(format!("@RSYNCD: 31.0 md4\n{module}\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(text.contains(said), "{module}: {text}");
    }
}

/// What serves a client is held to its module by the kernel, too; its listener is not.
#[test]
fn a_session_of_a_module_is_held_to_it() {
    let bench = Bench::start();
    let work = work(&bench);
    for (module, words) in [
        ("mod", &b"--server\0--sender\0-logDtpre.iLsfxCIvu\0.\0mod/\0\0"[..]),
        ("jail", &b"--server\0--sender\0-logDtpre.iLsfxCIvu\0.\0jail/\0\0"[..]),
    ] {
        let daemon = Daemon::ours(work.path(), MODULES);
        let mut client = daemon.raw();
        client.write_all(format!("@RSYNCD: 31.0 md5\n{module}\n").as_bytes()).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"@RSYNCD: OK\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        client.write_all(words).unwrap();
        // What the session begins with.
        client.read_exact(&mut [0; 1]).unwrap();
        // Whoever asked whether the daemon listens may have a connection yet that ends unheard.
        let deadline = Instant::now() + START;
        let limits = loop {
            let held = descendants(daemon.child.id()).into_iter().filter(|pid| is_held(*pid) != Some(false));
            let mut limits = held.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
            if let Some(limits) = limits.find(|limits| !limits.is_empty()) {
                break limits;
            }
            assert!(Instant::now() < deadline, "no session of {module} is held");
            std::thread::yield_now();
        };
        let memory = limits.lines().find(|line| line.starts_with("Max address space")).unwrap();
        assert!(!memory.contains("unlimited"), "{memory}");
        assert_ne!(is_held(daemon.child.id()), Some(true));
    }
}
