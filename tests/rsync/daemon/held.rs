//! What a peer can make us hold: servers under attack, with the most memory that each has taken.

use super::hello;
use crate::support::stock::{Bench, OURS};
use protocol::daemon::ArgList;
use protocol::flist::{FileEntry, IdNames, ListEncoder, ListShape};
use protocol::handshake::{Handshake, Negotiated};
use protocol::mux::{Inbox, Message, Outbox, TextKind};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What one connection may make a server take beyond what an idle one has, bytes.
const MOST: u64 = 64 << 20;

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Road {
    Pipe,
    Daemon,
}

/// A server, and the hostile client that has shaken hands with it.
struct Attack {
    child: Child,
    stream: TcpStream,
    n: Negotiated,
    inbox: Inbox,
    out: Outbox,
    peak: Peak,
    idle: u64,
}

/// The most memory a process has had, looked at all the time.
struct Peak(std::sync::Arc<(AtomicU64, Mutex<bool>)>, Option<JoinHandle<()>>);

impl Peak {
    fn of(pid: u32) -> Self {
        let seen = std::sync::Arc::new((AtomicU64::new(0), Mutex::new(false)));
        let shared = seen.clone();
        let watching = std::thread::spawn(move || {
            while !*shared.1.lock().unwrap() {
                match most(pid) {
                    Some(bytes) => shared.0.fetch_max(bytes, Ordering::AcqRel),
                    None => return,
                };
                std::thread::yield_now();
            }
        });
        Self(seen, Some(watching))
    }

    fn end(mut self) -> u64 {
        *self.0.1.lock().unwrap() = true;
        let _ = self.1.take().unwrap().join();
        self.0.0.load(Ordering::Acquire)
    }
}

/// `VmHWM` of a process; nothing once it has ended.
fn most(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

impl Attack {
    /// Starts a server with these options, the first of which are `--server` and its letters, in a folder.
    fn start(road: Road, work: &Path, words: &[&str], incremental: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
        let end = OwnedFd::from(listener.accept().unwrap().0);
        let mut command = Command::new(OURS);
        command.arg("rsync").current_dir(work).stderr(Stdio::null());
        match road {
            Road::Pipe => command.args(words),
            Road::Daemon => {
                let text = format!(
                    "log file = {0}/log\nuse chroot = no\nuid = 0\n[m]\npath = {0}\nread only = no\n",
                    work.display()
                );
                fs::write(work.join("conf"), text).unwrap();
                command.args(["--server", "--daemon", "--config"]).arg(work.join("conf")).arg(".")
            }
        };
        let child = command.stdin(end.try_clone().unwrap()).stdout(end).spawn().unwrap();
        if road == Road::Daemon {
            let args: Vec<_> = words.iter().map(|word| word.replace("./", "m/").into_bytes()).collect();
            let request = [&b"@RSYNCD: 32.0 sha256\nm\n"[..], &ArgList::encode(&args, 0)].concat();
            stream.write_all(&request).unwrap();
            let mut said = Vec::new();
            while !said.ends_with(b"@RSYNCD: OK\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                said.push(byte[0]);
            }
        }
        let (mut out, greeting) = (Outbox::new(), hello(32, incremental));
        let mut handshake = match road {
            Road::Pipe => Handshake::new(greeting, &mut out),
            Road::Daemon => Handshake::agreed(greeting, &mut out),
        };
        let n = loop {
            stream.write_all(out.bytes()).unwrap();
            out.clear();
            if let Some(n) = handshake.poll(&mut out).unwrap() {
                break n;
            }
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            handshake.feed(&byte).unwrap();
        };
        let idle = most(child.id()).unwrap();
        let peak = Peak::of(child.id());
        Self { child, stream, n, inbox: handshake.into_inbox(), out, peak, idle }
    }

    /// Says pieces one after another, until there are no more or the server listens no longer; then hears what it says.
    /// Gives how much more memory than before it has taken, and its error messages.
    fn say(mut self, pieces: impl Iterator<Item = Vec<u8>>) -> (u64, String) {
        let hearing = {
            let mut stream = self.stream.try_clone().unwrap();
            std::thread::spawn(move || {
                // Only the last is of interest.
                let (mut heard, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    heard.extend_from_slice(&buffer[..n]);
                }
                heard
            })
        };
        for piece in pieces {
            self.out.put(&piece);
            if self.stream.write_all(self.out.bytes()).is_err() {
                break;
            }
            self.out.clear();
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        let heard = hearing.join().unwrap();
        let _ = self.child.wait();
        let mut text = String::new();
        let _ = self.inbox.start_mux();
        let _ = self.inbox.feed(&heard);
        while let Some(message) = self.inbox.message() {
            if let Message::Text(TextKind::Error | TextKind::ErrorXfer, words) = message
                && text.len() < 10_000
            {
                text.push_str(&String::from_utf8_lossy(&words));
            }
        }
        (self.peak.end().saturating_sub(self.idle), text)
    }
}

/// So many bytes of one rule, again and again.
fn rules(rule: &[u8], bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    let one = [&(rule.len() as u32).to_le_bytes()[..], rule].concat();
    let piece = one.repeat((1 << 16) / one.len() + 1);
    let count = bytes / piece.len() + 1;
    (0..count).map(move |_| piece.clone())
}

fn work(bench: &Bench) -> tempfile::TempDir {
    let work = bench.fresh("held");
    fs::write(work.path().join("f"), "f").unwrap();
    fs::create_dir(work.path().join("d")).unwrap();
    work
}

const SENDER: [&str; 5] = ["--server", "--sender", "-re.LsfxCIvu", ".", "./"];

#[test]
fn rules_of_a_client_are_bounded() {
    let bench = Bench::start();
    let work = work(&bench);
    let long = [&b"- "[..], &b"[a]".repeat(1700)].concat();
    let classes: &[u8] = b"- [a]";
    let delete = ["--server", "-re.LsfxCIvu", "--delete", ".", "./"];
    for road in [Road::Pipe, Road::Daemon] {
        for (args, rule, bytes) in [
            (&SENDER, classes, 10 << 20),
            (&SENDER, classes, 51 << 20),
            (&SENDER, &long, 60 << 20),
            (&SENDER, b"-C ", 10 << 20),
            (&SENDER, b": .x", 10 << 20),
            (&delete, classes, 51 << 20),
        ] {
            let (taken, said) = Attack::start(road, work.path(), args, false).say(rules(rule, bytes));
            let what = format!("{road:?} {args:?} {}", rule[..rule.len().min(9)].escape_ascii());
            println!("{what}: {} KiB", taken >> 10);
            assert!(taken < MOST, "{what} takes {taken} bytes; {said}");
            assert!(
                said.contains("filter rules, which is our limit") || said.contains("rules that name files"),
                "{what}: {said}"
            );
        }
    }
}

#[test]
fn names_of_a_client_are_listed_as_they_come() {
    let bench = Bench::start();
    let work = work(&bench);
    let named = ["--server", "--sender", "-re.LsfxCIvu", "--files-from=-", "--from0", ".", "./"];
    for (road, name) in [(Road::Pipe, &b"nothing of that name\0"[..]), (Road::Daemon, b"x\0"), (Road::Pipe, b"f\0")] {
        let pieces = std::iter::repeat_n(name.repeat(1000), 100);
        let attack = Attack::start(road, work.path(), &named, false);
        let (taken, _) = attack.say(std::iter::once(vec![0; 4]).chain(pieces).chain([vec![0]]));
        let what = format!("{road:?} {}", name.escape_ascii());
        println!("{what}: {} KiB", taken >> 10);
        // A hundred thousand; all of them together would take more.
        assert!(taken < 8 << 20, "{what} takes {taken} bytes");
    }
}

#[test]
fn a_long_list_of_names_still_works() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let work = work(&bench);
    let work = work.path();
    let folder = "a-folder-with-a-name-that-is-long-enough".repeat(5);
    let source = work.join("src").join(&folder);
    fs::create_dir_all(&source).unwrap();
    let mut list = String::new();
    for number in 0..200 {
        fs::write(source.join(number.to_string()), "").unwrap();
    }
    // More than any pipe holds, most of it of names that are not there.
    for number in 0..1_500 {
        list.push_str(&format!("{folder}/{number}\n"));
    }
    fs::write(work.join("list"), &list).unwrap();
    let words = ["-a", "--files-from=list", "--ignore-missing-args", "host:src", "got"];
    let run = bench.rsync(&format!("{OURS} rsync"), work, &words);
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert_eq!(fs::read_dir(work.join("got").join(&folder)).unwrap().count(), 200);
    // The server may read the list itself, for either direction.
    for (index, words) in [
        ["-a", "--files-from=:list", "--ignore-missing-args", "host:src", "own"],
        ["-a", "--files-from=:list", "--ignore-missing-args", "src", "host:own2"],
    ]
    .iter()
    .enumerate()
    {
        let run = bench.rsync(&format!("{OURS} rsync"), work, words);
        assert_eq!((run.code, &*run.stderr), (0, ""), "{words:?}");
        let got = work.join(["own", "own2"][index]).join(&folder);
        assert_eq!(fs::read_dir(got).unwrap().count(), 200, "{words:?}");
    }
}

#[test]
fn names_of_owners_are_bounded() {
    let bench = Bench::start();
    let work = work(&bench);
    for road in [Road::Pipe, Road::Daemon] {
        for (option, name, within) in [
            ("--max-alloc=20M", 255, true),
            ("--max-alloc=0", 255, true),
            ("--max-alloc=0", 1, true),
            ("--max-alloc=20M", 255, false),
            ("--max-alloc=0", 255, false),
            ("--max-alloc=0", 1, false),
        ] {
            let letters = if within { "-ore.iLsfxCIvu" } else { "-ore.LsfxCIvu" };
            let attack = Attack::start(road, work.path(), &["--server", letters, option, ".", "./"], within);
            let shape = ListShape { owner: true, ..ListShape::default() };
            let mut encoder = ListEncoder::new(&attack.n, shape);
            let name = vec![b'n'; name];
            let mut bytes = Vec::new();
            encoder.entry(&FileEntry { mtime: 1, ..FileEntry::new("f", 0o100644) }, &mut bytes);
            if !within {
                encoder.end(0, &IdNames::default(), &mut bytes);
                // Without the end of the list of owners, which is a zero and an empty name.
                bytes.truncate(bytes.len() - 2);
            }
            let owners = (1..1_000_000u32).collect::<Vec<_>>();
            let owners = owners.chunks(200).map(|ids| {
                let mut piece = Vec::new();
                for &id in ids {
                    if within {
                        encoder.know(IdNames { users: vec![(id, name.clone())], groups: Vec::new() });
                        let entry = FileEntry { uid: id, ..FileEntry::new(format!("{id:x}"), 0o100644) };
                        encoder.entry(&entry, &mut piece);
                        continue;
                    }
                    // As a number of the protocol of four bytes.
                    let id = id.to_be_bytes();
                    piece.extend([0xe0 | id[0], id[3], id[2], id[1], name.len() as u8]);
                    piece.extend_from_slice(&name);
                }
                piece
            });
            let (taken, said) = attack.say(std::iter::once(bytes).chain(owners));
            let what = format!("{road:?} {option} {letters} {}", name.len());
            println!("{what}: {} KiB", taken >> 10);
            assert!(taken < MOST, "{what} takes {taken} bytes; {said}");
            assert!(said.contains("names of owners and groups"), "{what}: {said}");
        }
    }
}
