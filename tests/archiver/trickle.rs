//! Far ends and links that are at work by appearance alone: what comes brings nothing on.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::noise::noise;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use crate::tables::{Age, Row, TARGET, Table, expect_all_proven};
use pysmurf_archiver::bench::link::{Relay, Terms};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Serves as the program that is named does, and in the first two sessions at some point no more than by appearance: the kind
/// says where, and what comes instead.
const TRICKLE: &str = r#"
import os, select, struct, subprocess, sys, threading, time

folder, kind, words = sys.argv[1], sys.argv[2], sys.argv[3:]
server = "--server" in words or "sftp" in kind
for number in range(2):
    try:
        if server:
            os.mkdir(os.path.join(folder, str(number)))
            break
    except FileExistsError:
        pass
else:
    os.execvp(words[0], words)
if not server:
    os.execvp(words[0], words)

NOOP, EMPTY = struct.pack("<I", 49 << 24), struct.pack("<I", 7 << 24)
WORDS = struct.pack("<I", 9 << 24 | 8) + b"working\n"
child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
heard, said = 0, 0
over = threading.Event()


def say(data):
    while data:
        data = data[os.write(1, data):]


def pass_up():
    global heard
    while not (kind == "unread" and heard > 400_000):
        data = os.read(0, 16384)
        heard += len(data)
        if not data:
            break
        try:
            child.stdin.write(data)
        except BrokenPipeError:
            break
    else:
        over.set()
        return
    os._exit(0)


def whole(count):
    data = b""
    while len(data) < count:
        more = child.stdout.read(count - len(data))
        if not more:
            os._exit(child.wait())
        data += more
    return data


def now_and_then(next):
    while True:
        time.sleep(0.2)
        next()


def greeting():
    "What comes before the frames: version, flags, names of checksums, seed."
    say(whole(4))
    flags = whole(1)
    say(flags + whole(1 if flags[0] >= 0x80 else 0))
    length = whole(1)
    if kind == "greeting":
        say(b"\x7f")
        now_and_then(lambda: say(b"x"))
    say(length + whole(length[0]) + whole(4))


def frames(done):
    global said
    while not done():
        if select.select([child.stdout], [], [], 0.05)[0]:
            header = whole(4)
            frame = header + whole(struct.unpack("<I", header)[0] & 0xFFFFFF)
            say(frame)
            said += len(frame)


threading.Thread(target=pass_up, daemon=True).start()
if "sftp" in kind:
    while said < 40_000:
        data = child.stdout.read(1000)
        said += len(data)
        say(data)
    now_and_then(lambda: say(child.stdout.read(1)))
greeting()
if kind == "unread":
    frames(over.is_set)
elif kind in ("file", "bytes"):
    frames(lambda: said > 400_000)
now_and_then({
    "silent": lambda: None,
    "stderr": lambda: os.write(2, b"working\n"),
    "empty": lambda: say(EMPTY),
    "words": lambda: say(WORDS),
    "bytes": lambda: say(child.stdout.read(1)),
}.get(kind, lambda: say(NOOP)))
"#;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Push,
    Pull,
    Sftp,
}

/// Each kind of appearance to each program; all of them at once, since most of their time they wait.
#[test]
fn what_brings_nothing_on_is_no_sign_of_life() {
    let (Some(server), true, true) = (MariaDb::shared(), require("rsync"), require("python3")) else { return };
    let mut cases = Vec::new();
    for kind in ["silent", "greeting", "noop", "empty", "words", "stderr", "unread"] {
        cases.push((Way::Push, kind, "rsync"));
    }
    for kind in ["noop", "unread"] {
        cases.push((Way::Push, kind, PROGRAM));
    }
    for kind in ["greeting", "noop", "file", "bytes", "stderr"] {
        cases.push((Way::Pull, kind, "rsync"));
    }
    cases.push((Way::Pull, "file", PROGRAM));
    cases.push((Way::Sftp, "sftp", "/usr/lib/openssh/sftp-server"));
    std::thread::scope(|scope| {
        for (number, (way, kind, program)) in cases.into_iter().enumerate() {
            scope.spawn(move || only_seems_to_work(server, &format!("trickle_{number}"), way, (kind, program)));
        }
    });
}

fn only_seems_to_work(server: &MariaDb, name: &str, way: Way, (kind, program): (&str, &str)) {
    let place = Place::make();
    let (script, sessions) = (place.path("trickle.py"), place.path("sessions"));
    fs::write(&script, TRICKLE).unwrap();
    fs::create_dir(&sessions).unwrap();
    let words = format!("exec python3 {} {} {kind} {program}", script.display(), sessions.display());
    let far_program = place.script("program", &format!("{words} \"$@\""));
    // It asks whether we are there all the while, and is answered.
    let config = "ClientAliveInterval 1\nClientAliveCountMax 1000\n";
    let sftp =
        format!("SetEnv PATH=/nowhere\nSubsystem sftp /usr/bin/env PATH=/usr/bin:/bin {}\n", far_program.display());
    let Some(sshd) = Sshd::start(&format!("{config}{}", if way == Way::Sftp { &sftp } else { "" })) else { return };
    let table = Table::new(server, name, Age::V1);
    let rows = [Row::new(place.source("large", 3 << 20, 1)), Row::new(place.source("small", 3000, 2))];
    table.insert(&rows);
    let far = if way == Way::Pull { place.from(&sshd) } else { place.behind(&sshd) };
    let rsync_path = if way == Way::Sftp { PathBuf::from("rsync") } else { far_program };
    let mut command = FarEnd { rsync_path, ..far }.command();
    command.args(["--db", &table.url, "--target", TARGET, "--stall-timeout", "1", "--workers", "1", "--poll", "0.2"]);
    let run = Run::start(command);
    let what = format!("{kind} of {program}");
    wait_until(&format!("all rows, {what}"), || table.copied() == rows.len());
    let over = run.terminate().0.expect(0);
    eprintln!("{what}: {:.1} s", over.seconds);
    let told = over.log.lines().filter(|line| line.contains("talled") || line.contains("no answer")).count();
    assert!(told >= 1 && !over.log.contains("Not copied"), "{what}: {}", over.log);
    expect_all_proven(&place, &table, &rows);
}

/// However slow: a link that brings bytes of files is at work, by each road, though one file takes longer than a stall may.
#[test]
fn a_slow_link_is_no_stall() {
    let config = "Subsystem sftp internal-sftp";
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(config), require("rsync")) else { return };
    let Some(bare) = Sshd::start(&format!("SetEnv PATH=/nowhere\n{config}")) else { return };
    std::thread::scope(|scope| {
        for (number, way) in [Way::Push, Way::Pull, Way::Sftp].into_iter().enumerate() {
            let sshd = if way == Way::Sftp { &bare } else { &sshd };
            scope.spawn(move || arrives_slowly(server, sshd, &format!("slow_{number}"), way));
        }
    });
}

fn arrives_slowly(server: &MariaDb, sshd: &Sshd, name: &str, way: Way) {
    let terms = Terms { round_trip: Duration::from_millis(20), rate: 60_000, loss: 0.0, window: 1 };
    let relay = Relay::start(([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], sshd.port).into(), terms).unwrap();
    let place = Place::make();
    let table = Table::new(server, name, Age::V1);
    let path = place.sources().join("large");
    fs::write(&path, noise(500_000, 1)).unwrap();
    let md5 = md5_of(&path);
    let rows = [Row::new((path, md5)), Row::new(place.source("small", 3000, 2))];
    table.insert(&rows);
    let far = if way == Way::Pull { place.from(sshd) } else { place.behind(sshd) };
    let port = relay.address().port();
    fs::write(&far.known_hosts, sshd.known_hosts_line("ed25519").replace(&sshd.port.to_string(), &port.to_string()))
        .unwrap();
    let mut command = FarEnd { port, ..far }.command();
    command.args(["--db", &table.url, "--target", TARGET, "--once", "--workers", "1", "-v"]);
    command.args(["--stall-timeout", "5", "--connect-timeout", "60"]);
    let over = Run::to_end(command).expect(0);
    eprintln!("{name}: {:.1} s", over.seconds);
    assert!(!over.log.contains("talled"), "{name}: {}", over.log);
    expect_all_proven(&place, &table, &rows);
}
