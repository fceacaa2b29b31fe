//! What a far end says before it closes is read and shown, however much the client still has to say itself.

use crate::support::daemon::Daemon;
use crate::support::stock::{Bench, OURS, Run, client, ended};
use crate::support::tree::{self, THEN};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Small buffers of sockets, so that whoever is not heard must soon wait.
const MODULES: &str = "use chroot = no\nuid = root\ngid = root\nsocket options = SO_RCVBUF=4096\n\
    [ro]\npath = WORK/dst\n\
    [wo]\npath = WORK/many\nread only = no\nwrite only = yes\n\
    [picky]\npath = WORK/dst\nread only = no\nrefuse options = delete\n\
    [auth]\npath = WORK/dst\nread only = no\nauth users = joe\nsecrets file = WORK/secrets\n\
    [full]\npath = WORK/dst\nread only = no\nmax connections = 1\nlock file = WORK/lock\n\
    [denied]\npath = WORK/dst\nhosts deny = *\n\
    [gone]\npath = WORK/no/such/folder\n";

/// A command and what must be read of its daemon, `AT`.
const TOLD: &[(&str, &str)] = &[
    ("-a many/ AT/ro/", "ERROR: module is read only"),
    ("-a big AT/ro/x", "ERROR: module is read only"),
    ("-a --no-i-r many/ AT/ro/", "ERROR: module is read only"),
    ("-an --delete many/ AT/ro/", "ERROR: module is read only"),
    ("-a --protocol=30 many/ AT/ro/", "ERROR: module is read only"),
    ("-a --protocol=29 many/ AT/ro/", "ERROR: module is read only"),
    ("-r --files-from=list many AT/ro/", "ERROR: module is read only"),
    ("-a AT/wo/ got/", "ERROR: module is write only"),
    ("-a --files-from=list AT/wo/ got/", "ERROR: module is write only"),
    ("-a --exclude-from=list AT/wo/ got/", "ERROR: module is write only"),
    ("-a --delete many/ AT/picky/", "The server is configured to refuse --delete"),
    ("-a --delete --exclude-from=list many/ AT/picky/", "The server is configured to refuse --delete"),
    ("-a many/ AT/picky/no/such/place/", "mkdir \"no/such"),
    ("-a --temp-dir=nowhere many/ AT/picky/", "nowhere"),
    ("-a many/ joe@AT/auth/", "@ERROR: auth failed on module auth"),
    ("-a many/ AT/full/", "@ERROR: max connections (1) reached -- try again later"),
    ("-a many/ AT/denied/", "@ERROR: access denied to denied from"),
    ("-a many/ AT/gone/", "@ERROR: chdir failed"),
    ("-a many/ AT/nosuch/", "@ERROR: Unknown module 'nosuch'"),
];

fn ours(work: &Path, words: &[String]) -> Run {
    ended(client(OURS).args(words).current_dir(work).env("RSYNC_PASSWORD", "wrong"))
}

/// Many names, which make a list longer than a pipe holds, and a file that is longer still.
fn prepare(work: &Path) {
    let name = |number: usize| format!("{number:05}{}", "n".repeat(200));
    for number in 0..2000 {
        tree::put(&work.join("many"), name(number), b"x", 0o644, THEN);
    }
    let names: String = (0..2000).map(|number| name(number) + "\n").collect();
    fs::write(work.join("list"), names).unwrap();
    fs::write(work.join("big"), vec![7; 3_000_000]).unwrap();
    fs::create_dir(work.join("dst")).unwrap();
    fs::write(work.join("secrets"), "joe:s3cret\n").unwrap();
    fs::set_permissions(work.join("secrets"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Comes as far as the module, and stays.
fn hold(daemon: &Daemon, module: &str) -> std::net::TcpStream {
    let mut stream = daemon.raw();
    stream.write_all(format!("@RSYNCD: 31.0 md5\n{module}\n").as_bytes()).unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"@RSYNCD: OK\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    stream
}

#[test]
fn what_a_daemon_says_before_it_closes_is_shown() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = bench.fresh("words");
    let work = work.path();
    prepare(work);
    for (server, lock) in [("rsync", "/lock-of-stock"), (OURS, "/lock-of-ours")] {
        let daemon = Daemon::start(server, work, &MODULES.replace("/lock", lock));
        let config = work.join(format!("conf-{}", daemon.port));
        let program = if server == OURS { format!("{OURS} rsync") } else { server.to_owned() };
        let shell = bench.script("there", &format!("exec {program} --server --daemon --config={} .", config.display()));
        for (command, told) in TOLD {
            let held = command.contains("full").then(|| hold(&daemon, "full"));
            let by_socket = command.replace("AT/", "127.0.0.1::");
            let by_shell = command.replace("AT/", "host::");
            let port = format!("--port={} --sockopts=SO_SNDBUF=4096", daemon.port);
            for (line, way) in [(by_socket, port), (by_shell, format!("-e {}", shell.display()))] {
                let words: Vec<_> = format!("{way} {line}").split(' ').map(str::to_owned).collect();
                let run = ours(work, &words);
                let said = String::from_utf8_lossy(&run.stdout) + &*run.stderr;
                assert!(run.code != 0 && said.contains(told), "{server}: {line}: {}\n{said}", run.code);
            }
            drop(held);
        }
    }
}
