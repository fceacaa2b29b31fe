//! How a client reaches a server: a pipe, a real sshd, a daemon's socket.

use super::rows::Row;
use super::{End, Way};
use crate::support::sshd::Sshd;
use crate::support::stock::{Bench, OURS, Run, client, ended};
use crate::support::tree;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    Pipe,
    Sshd,
    Daemon,
}

/// The servers of one road, and the trees that every run gets its own copy of.
pub struct Roads {
    bench: Bench,
    _sshd: Option<Sshd>,
    daemons: Vec<(End, Daemon)>,
}

struct Daemon {
    process: Child,
    port: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Roads {
    /// Opens a road; `None` where its server is not installed.
    pub fn open(road: Road) -> Option<Self> {
        let bench = Bench::start();
        tree::build(&bench.path().join("src"));
        extend(&bench.path().join("src"));
        tree::build_old(&bench.path().join("dst"));
        tree::build_old(&bench.path().join("alt"));
        tree::put(&bench.path().join("alt"), "plain", b"plain words\n", 0o644, tree::THEN);
        fs::create_dir(bench.path().join("bin")).unwrap();
        symlink(OURS, bench.path().join("bin/rsync")).unwrap();
        let sshd = match road {
            Road::Sshd => {
                let sshd = Sshd::start("")?;
                fs::write(bench.path().join("ssh_config"), ssh_config(&sshd)).unwrap();
                // Ours reads the file that OpenSSH would.
                fs::create_dir_all(bench.path().join("home/.ssh")).unwrap();
                fs::write(bench.path().join("home/.ssh/config"), ssh_config(&sshd)).unwrap();
                Some(sshd)
            }
            _ => None,
        };
        let mut roads = Self { bench, _sshd: sshd, daemons: Vec::new() };
        if road == Road::Daemon {
            for end in [End::installed(), End::Ours] {
                let daemon = roads.daemon(&end);
                roads.daemons.push((end, daemon));
            }
        }
        Some(roads)
    }

    /// A folder with a copy of everything.
    pub fn prepared(&self, road: Road) -> TempDir {
        let work = self.bench.fresh("work");
        for name in ["src", "dst", "alt"] {
            tree::copy(&self.bench.path().join(name), &work.path().join(name));
        }
        if road == Road::Daemon {
            // Stock's daemon cuts a symlink that points out of its module.
            fs::remove_file(work.path().join("src/dir/unsafe")).unwrap();
            tree::set_mtime(&work.path().join("src/dir"), tree::THEN.0 + 9, 99);
        }
        fs::write(work.path().join("list"), "plain\ndir/sub/two\ndir/one\nhollow/\n").unwrap();
        work
    }

    /// The program of an end.
    fn program(&self, end: &End) -> PathBuf {
        match end {
            End::Stock(path) => path.clone(),
            End::Ours => self.bench.path().join("bin/rsync"),
        }
    }

    pub fn run(&self, road: Road, row: &Row, way: Way, near: &End, server: &End, work: &Path) -> Run {
        let folder = work.to_str().unwrap();
        let mut words: Vec<OsString> = vec!["-i".into(), "--stats".into()];
        words.extend(row.options.split(' ').map(|word| word.replace("WORK", folder).replace('_', " ").into()));
        let far = match road {
            Road::Pipe => {
                words.extend(["-e".into(), self.bench.shell().into_os_string()]);
                words.push(format!("--rsync-path={}", self.program(server).display()).into());
                format!("host:{folder}/")
            }
            Road::Sshd => {
                if matches!(near, End::Stock(_)) {
                    words.push("-e".into());
                    words.push(format!("ssh -F {}", self.bench.path().join("ssh_config").display()).into());
                }
                words.push(format!("--rsync-path={}", self.program(server).display()).into());
                format!("node:{folder}/")
            }
            Road::Daemon => {
                let port = self.daemons.iter().find(|(end, _)| end == server).unwrap().1.port;
                let name = work.file_name().unwrap().to_str().unwrap();
                format!("rsync://127.0.0.1:{port}/all/{name}/")
            }
        };
        words.extend(match way {
            Way::Push => [row.source.into(), format!("{far}dst/").into()],
            Way::Pull => [OsString::from(format!("{far}{}", row.source)), "dst/".into()],
        });
        let mut command = client(self.program(near).to_str().unwrap());
        command.args(&words).env("HOME", self.bench.path().join("home")).env("LC_ALL", "C.UTF-8");
        let mut run = ended(command.current_dir(work));
        // With full names every run has names of its own.
        let own = folder.trim_start_matches('/').as_bytes();
        let mut stdout = Vec::new();
        let mut rest = &run.stdout[..];
        while let Some(at) = rest.windows(own.len()).position(|window| window == own) {
            stdout.extend_from_slice(&rest[..at]);
            stdout.extend_from_slice(b"WORK");
            rest = &rest[at + own.len()..];
        }
        stdout.extend_from_slice(rest);
        run.stdout = stdout;
        run
    }

    /// Starts a daemon that serves the whole bench.
    fn daemon(&self, end: &End) -> Daemon {
        let name = if *end == End::Ours { "ours" } else { "stock" };
        let config = self.bench.path().join(format!("{name}.conf"));
        let root = self.bench.path().display();
        let log = self.bench.path().join(format!("{name}.log"));
        let text = format!(
            "use chroot = no\nuid = 0\ngid = 0\nlog file = {}\n[all]\npath = {root}\nread only = no\nmunge symlinks = no\n",
            log.display()
        );
        fs::write(&config, text).unwrap();
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new(self.program(end));
            command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
            command.arg(format!("--port={port}")).arg(format!("--config={}", config.display()));
            let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let deadline = Instant::now() + START_LIMIT;
            while Instant::now() < deadline && process.try_wait().unwrap().is_none() {
                if let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)) {
                    socket.set_read_timeout(Some(START_LIMIT)).unwrap();
                    if socket.read_exact(&mut [0; 8]).is_ok() {
                        return Daemon { process, port };
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("the daemon of {name} does not start: {}", fs::read_to_string(log).unwrap_or_default());
    }
}

/// What [`tree::build`] lacks: more links, attributes, rules, a sparse file, copies of one file under several names.
fn extend(src: &Path) {
    let then = tree::THEN;
    tree::put(src, "sparse", &[&[0; 100_000][..], b"end", &[0; 70_000]].concat(), 0o644, then);
    tree::put(src, "dir/.rsync-filter", b"- secret\n", 0o644, then);
    tree::put(src, "dir/secret", b"not for -F", 0o644, then);
    tree::put(src, "code.o", b"not for -C", 0o644, then);
    tree::put(src, "list.txt", b"text", 0o644, then);
    fs::hard_link(src.join("dir/one"), src.join("dir-x/one-again")).unwrap();
    fs::hard_link(src.join("dir/one"), src.join("zz-one")).unwrap();
    symlink("../../outside", src.join("dir/unsafe")).unwrap();
    tree::set_mtime(&src.join("dir/unsafe"), then.0, 0);
    for (name, value) in [("user.small", &b"value"[..]), ("user.large", &[b'x'; 300][..])] {
        let _ = rustix::fs::setxattr(src.join("plain"), name, value, rustix::fs::XattrFlags::empty());
        let _ = rustix::fs::setxattr(src.join("dir"), name, value, rustix::fs::XattrFlags::empty());
    }
    for name in ["dir-x", "dir", "."] {
        tree::set_mtime(&src.join(name), then.0 + 9, 99);
    }
}

fn ssh_config(sshd: &Sshd) -> String {
    format!(
        "Host node\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  UserKnownHostsFile {}\n  \
         IdentitiesOnly yes\n  BatchMode yes\n  LogLevel ERROR\n",
        sshd.port,
        sshd.user(),
        sshd.client_key().display(),
        sshd.known_hosts().display()
    )
}

/// The rsyncs that `scripts/other-rsyncs` unpacked. In CI there must be some.
pub fn other_releases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/rsyncs");
    let mut found: Vec<_> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("rsync")))
        .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0 && meta.size() > 0))
        .collect();
    found.sort();
    if found.is_empty() {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        assert!(!set("CI") && !set("ARCHIVER_REQUIRE_PEERS"), "No other rsyncs here; run scripts/other-rsyncs");
        eprintln!("SKIPPED: no other rsyncs; run scripts/other-rsyncs");
    }
    found
}
