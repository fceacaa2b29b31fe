//! An SSH server that is the one it should be, by its key, and does harm behind that. The program must live, leave it within its
//! limits, take no more memory than it may, call nothing copied, and say which host it was in words of its own.

use crate::false_server::message::*;
use crate::false_server::{Deed, FalseServer, Moment, Wire, channel_of, exit_status, kexinit, string};
use crate::support::sshd::keygen;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use protocol::checksum::{Checksum, FileHasher};
use pysmurf_archiver::transport::Connect;
use pysmurf_archiver::transport::ssh::{Ssh, SshOptions};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pysmurf-archiver");

/// Limits that the program is given, seconds.
const LIMIT: &str = "1";

/// No case may take longer, however many of these limits it takes.
const LONGEST: Duration = Duration::from_secs(60);

/// What it may have of memory, KiB: 64 MiB of what nobody has asked for, and what it has anyway.
const MEMORY: u64 = 160 << 10;

/// Cases at once, of all tests: each keeps two processors busy for as long as it is let.
const AT_ONCE: usize = 4;
static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(AT_ONCE), Condvar::new());

/// One of these places.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let (free, changed) = &PLACES;
        *changed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap() -= 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *PLACES.0.lock().unwrap() += 1;
        PLACES.1.notify_one();
    }
}

struct Case {
    name: String,
    moment: Moment,
    /// The key exchange is the strict one.
    strict: bool,
    /// The connection may be used again.
    kept: bool,
    deed: Arc<Deed>,
}

fn case(name: &str, moment: Moment, deed: Arc<Deed>) -> Case {
    Case { name: name.to_owned(), moment, strict: true, kept: false, deed }
}

/// One message for ever.
fn floods(message: &[u8]) -> Arc<Deed> {
    let message = message.to_vec();
    Arc::new(move |wire, _| wire.flood_and_hear(|_| message.clone()))
}

/// These messages, and then what is right.
fn says(messages: &[&[u8]]) -> Arc<Deed> {
    let messages: Vec<Vec<u8>> = messages.iter().map(|message| message.to_vec()).collect();
    Arc::new(move |wire, _| messages.iter().try_for_each(|message| wire.send(message)))
}

/// One message of the channel at hand, for ever.
fn floods_channel(kind: u8, rest: &[u8]) -> Arc<Deed> {
    let rest = rest.to_vec();
    Arc::new(move |wire, said| {
        let message = [&[kind][..], &said[1..5], &rest].concat();
        wire.flood_and_hear(|_| message.clone())
    })
}

/// These messages of the channel at hand.
fn says_of_channel(messages: &[(u8, &[u8])]) -> Arc<Deed> {
    let messages: Vec<(u8, Vec<u8>)> = messages.iter().map(|(kind, rest)| (*kind, rest.to_vec())).collect();
    Arc::new(move |wire, said| {
        messages.iter().try_for_each(|(kind, rest)| wire.send(&[&[*kind][..], &said[1..5], rest].concat()))
    })
}

/// What has a key to log in with, a source, and an archive.
struct Stage {
    folder: TempDir,
    number: AtomicUsize,
}

/// How the program ended.
struct Ended {
    status: ExitStatus,
    /// It was asked to.
    asked: bool,
    said: String,
    took: Duration,
    /// The most memory it had, KiB.
    peak: u64,
}

impl Stage {
    fn make() -> Option<Self> {
        if !require("ssh-keygen") {
            return None;
        }
        let stage = Self { folder: tempfile::tempdir().unwrap(), number: AtomicUsize::new(0) };
        keygen(&stage.path("id"), "ed25519");
        fs::create_dir_all(stage.path("home/.ssh")).unwrap();
        fs::write(stage.path("source"), vec![b's'; 300_000]).unwrap();
        let made = stage.program(&["init-db", "--db"]).arg(stage.database("rows.db")).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut hasher = FileHasher::new(Checksum::Md5);
        hasher.update(&fs::read(stage.path("source")).unwrap());
        let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                      failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'smurf', '17950/file', 1795350012.25, 0, 1, 0)";
        let (source, md5) = (stage.path("source"), hasher.finish().to_string());
        let row = rusqlite::params![source.to_str().unwrap(), md5];
        rusqlite::Connection::open(stage.path("rows.db")).unwrap().execute(insert, row).unwrap();
        Some(stage)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn database(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(words).env_clear().env("HOME", self.path("home")).current_dir(self.folder.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// A folder of its own for a case.
    fn fresh(&self) -> String {
        let name = self.number.fetch_add(1, Relaxed).to_string();
        fs::create_dir(self.path(&name)).unwrap();
        name
    }

    /// Runs the archiver once against a server, until it has left it, or would come back; whether its row is copied.
    fn archive(&self, server: &FalseServer, kept: bool) -> (Ended, bool) {
        let name = self.fresh();
        let at = |file: &str| self.path(&name).join(file);
        fs::copy(self.path("rows.db"), at("rows.db")).unwrap();
        fs::write(at("known_hosts"), server.known_hosts_line()).unwrap();
        let database = self.database(&format!("{name}/rows.db"));
        let mut command = self.program(&["run", "--once", "--archive-name", "smurf", "--storage-host", "x@127.0.0.1"]);
        command.args(["--ssh-config", "/dev/null", "--workers", "1", "--control", "none", "--state-dir", "none"]);
        command.args(["--connect-timeout", LIMIT, "--stall-timeout", LIMIT, "--db", &database]);
        command.args(["--ssh-port", &server.port.to_string()]).arg("--ssh-key").arg(self.path("id"));
        command.arg("--known-hosts").arg(at("known_hosts")).arg("--data-dir").arg(at("archive"));
        // A connection that hangs somewhere is not left.
        let known = |said: &str| said.contains("trying again") && (kept || server.left.load(Relaxed) > 0);
        let ended = watched(command, &at("log"), known);
        let query = "SELECT remote_md5sum IS NOT NULL OR copied IS NOT NULL FROM supersync_v0";
        let copied = rusqlite::Connection::open(at("rows.db")).unwrap().query_row(query, [], |row| row.get(0));
        (ended, copied.unwrap())
    }
}

/// Runs a command to its end, or until what it has said is enough.
fn watched(mut command: Command, log: &Path, enough: impl Fn(&str) -> bool) -> Ended {
    let file = fs::File::create(log).unwrap();
    let began = Instant::now();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut child = command.spawn().unwrap();
    let said = || String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    let (proc, mut peak, mut asked) = (format!("/proc/{}/status", child.id()), 0, false);
    let status = loop {
        let stand = fs::read_to_string(&proc).unwrap_or_default();
        let most = stand.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        peak = peak.max(most.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > LONGEST || peak > 4 * MEMORY {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        if !asked && enough(&said()) {
            asked = true;
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        }
        thread::sleep(Duration::from_millis(10));
    };
    Ended { status, asked, said: said(), took: began.elapsed(), peak }
}

/// What is wrong with how it ended.
fn wrong(ended: &Ended, host: &str) -> Vec<&'static str> {
    let hidden = |c: char| c.is_control() && c != '\n';
    [
        (ended.status.code().is_none(), "it was ended"),
        (ended.status.success() && !ended.asked, "it ended as if all were well"),
        (ended.peak > MEMORY, "it took too much memory"),
        (ended.said.contains("panicked"), "it panicked"),
        (!ended.said.contains(host), "it does not name the host"),
        (ended.said.contains(hidden), "it says what a terminal obeys"),
        (ended.said.len() > 200_000, "it says too much"),
    ]
    .into_iter()
    .filter_map(|(is_so, what)| is_so.then_some(what))
    .collect()
}

/// Tries every case, some at once.
fn withstands(cases: Vec<Case>) {
    let Some(stage) = Stage::make() else { return };
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Relaxed)) {
                    let turn = Turn::wait();
                    let fault = withstood(&stage, case);
                    drop(turn);
                    faults.lock().unwrap().extend(fault);
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What a client has to leave alone; large, as a flood of these leaves no socket empty.
fn ignored() -> Vec<u8> {
    [&[IGNORE][..], &string(&[b'i'; 30_000])].concat()
}

/// What is wrong, if anything.
fn withstood(stage: &Stage, case: &Case) -> Option<String> {
    // A busy machine may take longer than the limits to come so far.
    for _ in 0..10 {
        let server = FalseServer::start(case.moment, case.strict, case.deed.clone());
        let (ended, copied) = stage.archive(&server, case.kept);
        if server.reached.load(Relaxed) == 0 {
            continue;
        }
        let mut wrong = wrong(&ended, &format!("127.0.0.1:{}", server.port));
        if copied {
            wrong.push("it calls the row copied");
        }
        let Ended { status, said, took, peak, .. } = ended;
        eprintln!("{}: {status}, {:.1} s, {} MiB, {said}", case.name, took.as_secs_f64(), peak >> 10);
        return (!wrong.is_empty())
            .then(|| format!("{}: {wrong:?}: {status}, {peak} KiB, {took:?}: {said}", case.name));
    }
    Some(format!("{}: it never came to that", case.name))
}

/// So many extensions are announced, and these follow.
fn extensions(count: u32, pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let pairs: Vec<u8> = pairs.iter().flat_map(|(name, value)| [string(name), string(value)].concat()).collect();
    [&[EXT_INFO][..], &count.to_be_bytes(), &pairs].concat()
}

/// CVE-2026-55199.
#[test]
fn extensions_without_end_or_sense_are_left_in_time() {
    let empty = extensions(1000, &[(&b""[..], &b""[..]); 1000]);
    let algorithms = extensions(1, &[(b"server-sig-algs", &[b','; 30_000])]);
    let mut cases = Vec::new();
    let messages = [
        ("no extensions", [&extensions(0, &[])[..], &[0; 30_000]].concat()),
        ("empty extensions", empty),
        ("extensions that are not there", extensions(1023, &[])),
        ("a list of commas", algorithms),
    ];
    for (n, (name, message)) in messages.into_iter().enumerate() {
        for moment in [Moment::BeforeNewKeys, Moment::AfterNewKeys, Moment::Login, Moment::Command] {
            if n > 0 && moment != Moment::AfterNewKeys {
                continue;
            }
            let name = format!("{name}, {moment:?}");
            cases.push(Case {
                name,
                moment,
                strict: moment != Moment::BeforeNewKeys,
                kept: false,
                deed: floods(&message),
            });
        }
    }
    cases.push(case("no extensions, before their time", Moment::BeforeNewKeys, floods(&extensions(0, &[]))));
    let most = extensions(u32::MAX, &[(b"", b"")]);
    cases.push(case("2^32-1 extensions", Moment::AfterNewKeys, floods(&most)));
    let cut = [&[EXT_INFO][..], &1u32.to_be_bytes(), &u32::MAX.to_be_bytes()].concat();
    cases.push(case("an extension of 2^32-1 bytes", Moment::AfterNewKeys, floods(&cut)));
    withstands(cases);
}

/// A failure to log in, with the ways that there are.
fn failure(ways: &[u8], partial: bool) -> Vec<u8> {
    [&[USERAUTH_FAILURE][..], &string(ways), &[partial.into()]].concat()
}

#[test]
fn a_login_that_comes_to_nothing_is_left_in_time() {
    let banner = |text: &[u8]| [&[USERAUTH_BANNER][..], &string(text), &string(b"")].concat();
    let disconnect =
        [&[DISCONNECT][..], &11u32.to_be_bytes(), &string(&b"\x1b[2Jgone\r\n".repeat(3000)), &string(b"")].concat();
    let prompts =
        [&[USERAUTH_PK_OK][..], &string(b"name\x1b[2J"), &string(b""), &string(b""), &[0x80, 0, 0, 0]].concat();
    let other_key = [&[USERAUTH_PK_OK][..], &string(b"ssh-ed25519"), &string(&[5; 51])].concat();
    let long = b"keyboard-interactive,".repeat(1500);
    let mut lying = failure(b"publickey", false);
    lying[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut lying_banner = banner(b"text");
    lying_banner[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
    let cases = [
        ("a goodbye of 30,000 bytes", says(&[&disconnect])),
        ("giant banners for ever", floods(&banner(&[b'b'; 34_000]))),
        ("a banner that is not there", floods(&lying_banner)),
        ("a list of ways of 30,000 bytes", says(&[&failure(&long, false)])),
        ("a list of ways that is no text", says(&[&failure(b"\xff\xfe,\xc3", false)])),
        ("a list of ways that a terminal obeys", says(&[&failure(b"\x1b[2Jpublickey\r\n", false)])),
        ("a list of ways that is not there", says(&[&lying])),
        ("failures for ever", floods(&failure(b"publickey", false))),
        ("half a success, each time", says(&[&failure(b"publickey,password", true)])),
        ("half a success for ever", floods(&failure(b"publickey", true))),
        ("2^31 questions", says(&[&prompts])),
        ("another key is fine", says(&[&other_key])),
        ("nothing but a number, unknown", floods(&[UNKNOWN])),
        ("large unknown messages", floods(&[UNKNOWN; 35_000])),
        ("a number that is none", floods(&[0; 8])),
        ("nothing to be heeded", floods(&ignored())),
        ("words for nobody", floods(&[&[DEBUG, 1][..], &string(b"\x1b[2J"), &string(b"")].concat())),
        ("new keys without an exchange", floods(&[NEWKEYS])),
    ];
    withstands(cases.into_iter().map(|(name, deed)| case(name, Moment::Login, deed)).collect());
}

#[test]
fn channels_that_no_server_opens_are_left_in_time() {
    let mut cases = Vec::new();
    for (window, packet) in [(0, u32::MAX), (1, 1), (u32::MAX, 0), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
        let deed: Arc<Deed> = Arc::new(move |wire, said| wire.confirm(said, window, packet));
        cases.push(case(&format!("window {window}, packet {packet}"), Moment::Open, deed));
    }
    let other: Arc<Deed> = Arc::new(|wire, _| {
        let open = [&[CHANNEL_OPEN_CONFIRMATION][..], &77u32.to_be_bytes(), &[0; 8], &[1; 4]].concat();
        wire.flood_and_hear(|_| open.clone())
    });
    let refused: Arc<Deed> = Arc::new(|wire, said| {
        let text = string(&b"\x1b[2Jno\r\n".repeat(4000));
        wire.send(&[&[CHANNEL_OPEN_FAILURE][..], channel_of(said), &[0xff; 4], &text, &string(b"")].concat())
    });
    let short: Arc<Deed> =
        Arc::new(|wire, said| wire.send(&[&[CHANNEL_OPEN_CONFIRMATION][..], channel_of(said)].concat()));
    let data = [&[CHANNEL_DATA][..], &4000u32.to_be_bytes(), &string(&[b'd'; 1000])].concat();
    let early: Arc<Deed> = Arc::new(|wire, said| {
        let data = [&[CHANNEL_DATA][..], channel_of(said), &string(&[b'd'; 30_000])].concat();
        wire.flood_and_hear(|_| data.clone())
    });
    cases.push(case("another channel", Moment::Open, other));
    cases.push(case("a refusal of 28,000 bytes", Moment::Open, refused));
    cases.push(case("half an answer", Moment::Open, short));
    cases.push(case("data for a channel that is not there", Moment::Open, floods(&data)));
    cases.push(case("data before the channel is open", Moment::Open, early));
    withstands(cases);
}

/// What a server asks for that we never give, for ever.
fn opens(kind: &[u8]) -> Arc<Deed> {
    let rest = [string(b"\x1b[2Jhost"), vec![0, 0, 0, 1], string(b"from"), vec![0, 0, 0, 1]].concat();
    floods(&[&[CHANNEL_OPEN][..], &string(kind), &[0, 0, 0, 1], &[0xff; 8], &rest].concat())
}

#[test]
fn a_flood_is_no_sign_of_life() {
    let global = [&[GLOBAL_REQUEST][..], &string(b"keepalive@openssh.com"), &[1]].concat();
    let deaf = global.clone();
    let of_channel = [string(b"keepalive@openssh.com"), vec![1]].concat();
    let now_and_then: Arc<Deed> = Arc::new(|wire, _| {
        loop {
            wire.send(&[IGNORE, 0, 0, 0, 0])?;
            thread::sleep(Duration::from_millis(20));
        }
    });
    let extended = |kind: u32| [&kind.to_be_bytes()[..], &string(&b"\x1b[2Jwords\r\n".repeat(100))].concat();
    let cases = [
        ("nothing to be heeded", floods(&ignored())),
        ("nothing to be heeded, now and then", now_and_then),
        ("words for nobody", floods(&[&[DEBUG, 1][..], &string(&[b'w'; 30_000]), &string(b"")].concat())),
        ("unknown messages", floods(&[UNKNOWN, 1, 2, 3])),
        ("answers to no request", floods(&[REQUEST_SUCCESS])),
        ("questions", floods(&global)),
        (
            "questions whose answers nobody hears",
            Arc::new(move |wire: &mut Wire, _: &[u8]| wire.flood(|_| deaf.clone())),
        ),
        ("questions of the channel", floods_channel(CHANNEL_REQUEST, &of_channel)),
        ("answers of the channel", floods_channel(CHANNEL_FAILURE, b"")),
        ("a window that never grows", floods_channel(CHANNEL_WINDOW_ADJUST, &[0; 4])),
        ("a window that overflows", floods_channel(CHANNEL_WINDOW_ADJUST, &[0xff; 4])),
        ("data", floods_channel(CHANNEL_DATA, &string(&[0; 30_000]))),
        ("data of no bytes", floods_channel(CHANNEL_DATA, &string(b""))),
        ("data that is not there", floods_channel(CHANNEL_DATA, &[0xff; 4])),
        ("words of the command", floods_channel(CHANNEL_EXTENDED_DATA, &extended(1))),
        ("words of no kind", floods_channel(CHANNEL_EXTENDED_DATA, &extended(u32::MAX))),
        ("channels for X11", opens(b"x11")),
        ("channels for an agent", opens(b"auth-agent@openssh.com")),
        ("channels of a port", opens(b"forwarded-tcpip")),
        ("channels of no kind", opens(b"none\x1b[2J")),
    ];
    let mut cases: Vec<_> = cases.into_iter().map(|(name, deed)| case(name, Moment::Command, deed)).collect();
    cases.push(case("nothing to be heeded for a version", Moment::Version, floods(&ignored())));
    withstands(cases);
}

#[test]
fn ends_that_are_none_prove_nothing() {
    let zero: Arc<Deed> = Arc::new(|wire, said| {
        let channel = &said[1..5];
        wire.send(&exit_status(channel, 0))?;
        wire.send(&[&[CHANNEL_DATA][..], channel, &string(&[0; 100])].concat())?;
        for kind in [CHANNEL_EOF, CHANNEL_EOF, CHANNEL_CLOSE, CHANNEL_CLOSE, CHANNEL_EOF] {
            wire.send(&[&[kind][..], channel].concat())?;
        }
        wire.send(&exit_status(channel, 0))
    });
    let signal =
        |name: &[u8]| [string(b"exit-signal"), vec![0], string(name), vec![0], string(b""), string(b"")].concat();
    let (long, odd) = (signal(&b"\x1b[2J".repeat(8000)), signal(b"\xff\xfe"));
    let end = [(CHANNEL_EOF, &b""[..]), (CHANNEL_CLOSE, b"")];
    let cases = [
        ("a status before the data, ends twice", true, zero),
        ("a signal of 32,000 bytes", true, says_of_channel(&[(CHANNEL_REQUEST, &long), end[0], end[1]])),
        ("a signal that is no text", true, says_of_channel(&[(CHANNEL_REQUEST, &odd), end[0], end[1]])),
        ("no status at all", true, says_of_channel(&end)),
        ("closed for ever", false, floods_channel(CHANNEL_CLOSE, b"")),
        ("signals for ever", false, floods_channel(CHANNEL_REQUEST, &long)),
    ];
    let case = |(name, kept, deed)| Case { kept, ..case(name, Moment::Command, deed) };
    withstands(cases.into_iter().map(case).collect());
}

#[test]
fn key_exchanges_without_end_are_left_in_time() {
    let whole: Arc<Deed> = Arc::new(|wire, _| {
        loop {
            wire.exchange(|_| Ok(()))?;
        }
    });
    let cases = [
        ("offers for ever", floods(&kexinit("curve25519-sha256"))),
        ("offers of nothing that we know", floods(&kexinit("none-such"))),
        ("offers that are none", floods(&[KEXINIT])),
        ("whole exchanges", whole),
        ("an exchange that stops", says(&[&kexinit("curve25519-sha256")])),
    ];
    withstands(cases.into_iter().map(|(name, deed)| case(name, Moment::Command, deed)).collect());
}

/// SFTP's frames on the channel at hand, each made of its number, in packets of 30,000 bytes, as the window allows.
fn files(next: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Arc<Deed> {
    Arc::new(move |wire, said| {
        let channel = said[1..5].to_vec();
        let data = |bytes: &[u8]| [&[CHANNEL_DATA][..], &channel, &string(bytes)].concat();
        // The program's first words ask for the version.
        wire.hear_of(CHANNEL_DATA)?;
        wire.send(&data(b"\0\0\0\x05\x02\0\0\0\x03"))?;
        wire.hear_of(CHANNEL_DATA)?;
        let (mut room, mut number) = (1_000_000, 0);
        loop {
            let mut frames = Vec::new();
            while frames.len() < 29_000 {
                frames.extend(string(&next(number)));
                number += 1;
            }
            while room < frames.len() {
                let leave = wire.hear_of(CHANNEL_WINDOW_ADJUST)?;
                room += u32::from_be_bytes(leave[5..9].try_into().unwrap()) as usize;
            }
            room -= frames.len();
            wire.send(&data(&frames))?;
        }
    })
}

#[test]
fn answers_to_no_question_about_files_come_to_an_end() {
    let id = |number: u32| (number % 1_000_000 + 5_000).to_be_bytes();
    let cases = [
        ("statuses", files(move |n| [&[101][..], &id(n), &[0; 12]].concat())),
        ("data", files(move |n| [&[103][..], &id(n), &string(&[b'd'; 28_000])].concat())),
        ("the least that there is", files(move |n| [&[105][..], &id(n)].concat())),
        ("versions", files(|_| vec![2, 0xff, 0xff, 0xff, 0xff])),
        ("questions", files(move |n| [&[5][..], &id(n), &[0; 12]].concat())),
    ];
    withstands(cases.into_iter().map(|(name, deed)| case(name, Moment::Sftp, deed)).collect());
}

#[test]
fn an_idle_session_that_is_flooded_is_left() {
    let Some(stage) = Stage::make() else { return };
    let left = Arc::new(AtomicUsize::new(0));
    let leaves = left.clone();
    let server = FalseServer::start(
        Moment::Open,
        true,
        Arc::new(move |wire, said| {
            wire.confirm(said, 1 << 20, 32768)?;
            let over = wire.flood_and_hear(|_| ignored());
            leaves.fetch_add(1, Relaxed);
            over
        }),
    );
    fs::write(stage.path("known_hosts"), server.known_hosts_line()).unwrap();
    let mut options = SshOptions::new("x@127.0.0.1");
    options.port = Some(server.port);
    options.keys = vec![stage.path("id")];
    options.known_hosts = Some(stage.path("known_hosts"));
    options.config = Some(PathBuf::from("/dev/null"));
    options.agent = false;
    let mut ssh = Ssh::new(options).unwrap();
    ssh.login().unwrap();
    wait_until("it is left", || left.load(Relaxed) == 1);
}

/// The command goes by the same transport; of its own are its limits and words.
#[test]
fn the_rsync_command_leaves_such_a_server_as_well() {
    let Some(stage) = Stage::make() else { return };
    let words = [&1u32.to_be_bytes()[..], &string(b"\x1b[2Jwords\r\n")].concat();
    for (name, moment, deed) in [
        ("nothing to be heeded", Moment::Command, floods(&ignored())),
        ("words", Moment::Command, floods_channel(CHANNEL_EXTENDED_DATA, &words)),
    ] {
        let server = FalseServer::start(moment, true, deed);
        let at = |file: &str| stage.path("home/.ssh").join(file);
        fs::write(at("known_hosts"), server.known_hosts_line()).unwrap();
        let config = format!(
            "Host far\nHostName 127.0.0.1\nPort {}\nUser x\nIdentityFile {}\n",
            server.port,
            stage.path("id").display()
        );
        fs::write(at("config"), config).unwrap();
        let mut command = stage.program(&["rsync", "-a", "--timeout", LIMIT, "source", "far:copy"]);
        command.env("USER", "x");
        let ended = watched(command, &stage.path("log"), |_| false);
        eprintln!("{name}: {}, {:?}, {} KiB, {}", ended.status, ended.took, ended.peak, ended.said);
        assert!(server.reached.load(Relaxed) > 0, "{name}: it never came to that: {}", ended.said);
        // It has the words of stock, which names no host.
        let wrong = wrong(&ended, "rsync: ");
        assert!(wrong.is_empty(), "{name}: {wrong:?}: {}", ended.said);
    }
}
