//! Damage of every kind at every place: no end may hang or panic, and no wrong bytes may stand under a final name.

use crate::support::cutter::{Action as Blow, Cutter, Fault as LinkFault};
use crate::support::daemon::Daemon;
use crate::support::engine::{Folder, Silent, hello};
use crate::support::stock::{Bench, OURS, Run, client as client_of, ended as run_to_end};
use crate::support::tiny::Tiny;
use crate::support::tree::{self, THEN, Tree};
use protocol::args::{Options, ServerArgs};
use protocol::flist::{DirClass, Extras, FileEntry, FileList, Ndx};
use protocol::handshake::Offer;
use protocol::mux::{Message, Outbox};
use protocol::ndx::{NdxState, NdxValue};
use pysmurf_archiver::link::{Closer, Ending, Link, Remote};
use pysmurf_archiver::pipe::{PipeReader, PipeWriter, pipe};
use pysmurf_archiver::transfer::serve::{Served, serve};
use pysmurf_archiver::transfer::{Listing, ReceivePlan, SendObserver, SendPlan, TransferError, greet, receive, send};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

/// No session of a few hundred bytes may take longer, however busy the machine is.
const WATCHDOG: Duration = Duration::from_secs(120);
/// How long an end waits for bytes that a fault keeps from coming: many cases wait this long. Where an end gives up too
/// soon on a busy machine, that is one more broken session.
const STALL_LIMIT: Duration = Duration::from_millis(150);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The direction ends.
    Cut,
    /// The whole link breaks.
    Break,
    /// The reader gives up waiting.
    Stall,
    /// A byte changes by these bits.
    Flip(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    to_server: bool,
    /// How many bytes pass unharmed.
    at: usize,
    action: Action,
}

/// The reading half of a link that goes wrong.
struct Faulty {
    inner: Option<PipeReader>,
    passed: Arc<AtomicUsize>,
    fault: Option<(usize, Action)>,
    closer: Closer,
}

impl Read for Faulty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else { return Ok(0) };
        let passed = self.passed.load(Ordering::Relaxed);
        let room = match self.fault {
            Some((at, Action::Flip(_))) if passed > at => buffer.len(),
            Some((at, Action::Flip(_))) if passed == at => 1,
            Some((at, action)) if passed >= at => {
                match action {
                    Action::Stall => return Err(ErrorKind::TimedOut.into()),
                    Action::Break => self.closer.close(),
                    _ => {}
                }
                self.inner = None;
                return Ok(0);
            }
            Some((at, _)) => buffer.len().min(at - passed),
            None => buffer.len(),
        };
        let n = inner.read(&mut buffer[..room])?;
        if let Some((at, Action::Flip(bits))) = self.fault
            && passed == at
            && n == 1
        {
            buffer[0] ^= bits;
        }
        self.passed.fetch_add(n, Ordering::Relaxed);
        Ok(n)
    }
}

/// A client's and a server's link with a fault between them, and counts of the bytes that passed each way.
fn faulty_pair(fault: Option<Fault>) -> (Link, Link, [Arc<AtomicUsize>; 2]) {
    let limited = |(mut reader, mut writer): (PipeReader, PipeWriter)| {
        // Without a fault all comes, in its time.
        let limit = if fault.is_some() { STALL_LIMIT } else { WATCHDOG };
        reader.set_stall_limit(Some(limit));
        writer.set_stall_limit(Some(limit));
        (reader, writer)
    };
    let (server_reader, client_writer) = limited(pipe(1 << 16));
    let (client_reader, server_writer) = limited(pipe(1 << 16));
    let closers = [server_reader.closer(), client_reader.closer()];
    let closer = Closer::new(move || closers.iter().for_each(|closer| closer.close()));
    let passed = [Arc::default(), Arc::default()];
    let link = |reader: PipeReader, writer: PipeWriter, at_server: bool| {
        let remote = Remote::new();
        remote.end(Ending::Lost("the test is over".into()));
        let fault = fault.filter(|fault| fault.to_server == at_server).map(|fault| (fault.at, fault.action));
        let passed = Arc::clone(&passed[usize::from(at_server)]);
        let reader = Faulty { inner: Some(reader), passed, fault, closer: closer.clone() };
        Link { reader: Box::new(reader), writer: Box::new(writer), closer: closer.clone(), remote, patience: None }
    };
    (link(client_reader, client_writer, false), link(server_reader, server_writer, true), passed)
}

fn list_of(folder: &Path) -> FileList {
    let entries = Tree::of(folder, i64::MAX).0.into_iter().map(|(name, node)| {
        let name = name.strip_prefix(b"./").unwrap_or(&name).to_vec();
        let path = folder.join(std::ffi::OsStr::from_bytes(&name));
        let meta = fs::metadata(path).unwrap();
        let dir_class = if meta.is_dir() { DirClass::Argument } else { DirClass::Content };
        let extra = Extras { dir_class, ..Extras::default() }.into();
        FileEntry { len: meta.len(), mtime: meta.mtime(), extra, ..FileEntry::new(name, node.mode) }
    });
    FileList::new(entries.collect())
}

fn options() -> Options {
    Options { recurse: true, no_inc_recursive: true, times: true, checksum_seed: Some(7), ..Options::default() }
}

/// The client's part: sends or receives a folder.
fn client(link: Link, push: bool, src: &Path, dst: &Path) -> Result<bool, TransferError> {
    let session = greet(link, hello(32, Offer::Blake3))?;
    let options = options();
    if push {
        let shape = options.list_shape(session.agreed.list_checksum.size());
        let plan = SendPlan { shape, ..SendPlan::default() };
        let listing = Listing { list: list_of(src), ..Listing::default() };
        send(session, &plan, |_| Ok((listing, Folder(src.to_owned()))), &mut Silent)?;
        return Ok(true);
    }
    let plan = ReceivePlan { options, destination: dst.to_owned(), ..ReceivePlan::default() };
    let received = receive(session, &plan, &|_: &protocol::mux::Message| {})?;
    Ok(received.failed == 0 && received.io_error == 0)
}

type Ends = (Result<bool, TransferError>, Result<Served, TransferError>);

/// Runs both ends in threads. Neither may panic or go on for ever.
fn session(push: bool, fault: Option<Fault>, src: &Path, dst: &Path) -> (Ends, [usize; 2]) {
    let (near, far, passed) = faulty_pair(fault);
    let args = ServerArgs {
        sender: !push,
        options: options(),
        capabilities: b"LsfxCIvu".to_vec(),
        old: false,
        paths: vec![if push {
            dst.as_os_str().as_bytes().to_vec()
        } else {
            [src.as_os_str().as_bytes(), b"/"].concat()
        }],
        ..ServerArgs::default()
    };
    let (tell_near, near_ended) = mpsc::channel();
    let (tell_far, far_ended) = mpsc::channel();
    let (src, dst) = (src.to_owned(), dst.to_owned());
    thread::spawn(move || tell_near.send(client(near, push, &src, &dst)));
    thread::spawn(move || tell_far.send(serve(&args, far)));
    // A hang is a time-out here, a panic a channel without a sender.
    let near = near_ended.recv_timeout(WATCHDOG).unwrap_or_else(|e| panic!("client, push {push}, {fault:?}: {e}"));
    let far = far_ended.recv_timeout(WATCHDOG).unwrap_or_else(|e| panic!("server, push {push}, {fault:?}: {e}"));
    for text in [near.as_ref().err().map(ToString::to_string), far.as_ref().err().map(ToString::to_string)] {
        assert!(!text.as_ref().is_some_and(|text| text.contains("panicked")), "push {push}, {fault:?}: {text:?}");
    }
    ((near, far), passed.map(|passed| passed.load(Ordering::Relaxed)))
}

fn small(src: &Path) {
    tree::put(src, "fresh", &tree::noise(90, 1), 0o644, THEN);
    tree::put(src, "changed", &tree::noise(1800, 2), 0o644, THEN);
    tree::put(src, "d/empty", b"", 0o644, THEN);
    tree::put(src, "d/inner", b"inner", 0o644, THEN);
}

fn small_old(dst: &Path) {
    let mut changed = tree::noise(1800, 2);
    changed[800..810].copy_from_slice(b"older text");
    tree::put(dst, "changed", &changed, 0o644, (THEN.0 - 60, 0));
}

/// Each case on a destination of its own; several at once, since most of them wait.
fn try_all(push: bool, faults: &[Fault]) {
    let home = tempfile::tempdir().unwrap();
    let src = home.path().join("src");
    small(&src);
    let old = home.path().join("old");
    small_old(&old);
    let known: Vec<Vec<u8>> = [&src, &old].iter().flat_map(|folder| contents(folder)).map(|(_, bytes)| bytes).collect();
    let whole = contents(&src);
    thread::scope(|scope| {
        for (number, share) in faults.chunks(faults.len().div_ceil(8)).enumerate() {
            let (home, src, known, whole) = (home.path(), &src, &known, &whole);
            scope.spawn(move || {
                for &fault in share {
                    let dst = home.join(format!("dst-{number}"));
                    small_old(&dst);
                    let ((near, far), _) = session(push, Some(fault), src, &dst);
                    let there = contents(&dst);
                    let case = format!("push {push}, {fault:?}: client {near:?}, server {far:?}");
                    for (name, bytes) in &there {
                        assert!(known.contains(bytes), "wrong bytes in {}: {case}", name.escape_ascii());
                        let leaf = name.rsplit(|&byte| byte == b'/').next().unwrap();
                        assert!(!leaf.starts_with(b"."), "{} was left: {case}", name.escape_ascii());
                    }
                    let receiver_is_content =
                        if push { far.is_ok_and(|served| served.exit_code() == 0) } else { near.is_ok_and(|ok| ok) };
                    let flipped = matches!(fault.action, Action::Flip(_));
                    if receiver_is_content && !flipped {
                        assert_eq!(&there, whole, "content with less than all: {case}");
                    }
                    fs::remove_dir_all(&dst).unwrap();
                }
            });
        }
    });
}

/// Names of regular files, and their bytes.
type Contents = Vec<(Vec<u8>, Vec<u8>)>;

fn contents(folder: &Path) -> Contents {
    let regular = |(_, node): &(Vec<u8>, tree::Node)| node.is_file();
    Tree::of(folder, 0).0.into_iter().filter(regular).map(|(name, node)| (name, node.content)).collect()
}

/// How many bytes pass to the client and to the server when nothing goes wrong.
fn lengths(push: bool) -> [usize; 2] {
    let home = tempfile::tempdir().unwrap();
    let (src, dst) = (home.path().join("src"), home.path().join("dst"));
    small(&src);
    small_old(&dst);
    let ((near, far), passed) = session(push, None, &src, &dst);
    assert!(near.unwrap() && far.unwrap().exit_code() == 0);
    assert_eq!(contents(&src), contents(&dst));
    passed
}

fn cut_everywhere(push: bool, actions: &[Action]) {
    let mut faults = Vec::new();
    for (to_server, len) in [false, true].into_iter().zip(lengths(push)) {
        for at in 0..len {
            faults.extend(actions.iter().map(|&action| Fault { to_server, at, action }));
        }
    }
    println!("push {push}: {} faults", faults.len());
    try_all(push, &faults);
}

#[test]
fn a_push_cut_at_every_byte() {
    cut_everywhere(true, &[Action::Cut]);
}

#[test]
fn a_pull_cut_at_every_byte() {
    cut_everywhere(false, &[Action::Cut]);
}

#[test]
fn a_broken_or_stalled_link_at_many_bytes() {
    for push in [true, false] {
        let mut faults = Vec::new();
        for (to_server, len) in [false, true].into_iter().zip(lengths(push)) {
            for (step, at) in (0..len).step_by(5).enumerate() {
                let action = if step % 2 == 0 { Action::Break } else { Action::Stall };
                faults.push(Fault { to_server, at, action });
            }
        }
        try_all(push, &faults);
    }
}

#[test]
fn flipped_bytes_never_become_files() {
    let mut random = fastrand::Rng::with_seed(42);
    for push in [true, false] {
        let mut faults = Vec::new();
        for (to_server, len) in [false, true].into_iter().zip(lengths(push)) {
            for at in 0..len {
                // All of the framing and the sums, and some of the data.
                if len < 600 || random.u8(..3) == 0 {
                    faults.push(Fault { to_server, at, action: Action::Flip(random.u8(1..)) });
                }
            }
        }
        println!("push {push}: {} flips", faults.len());
        try_all(push, &faults);
    }
}

/// How many bytes of a small transfer lie between two that are cut at: all are tried with `ARCHIVER_FAULTS`.
fn step(short: usize) -> usize {
    if std::env::var_os("ARCHIVER_FAULTS").is_some() { 1 } else { short }
}

/// A client of ours and a daemon, with a link between them that ends at a byte, for every so many.
fn a_daemon_cut(program: &str, short: usize) {
    let home = tempfile::tempdir().unwrap();
    let (src, old) = (home.path().join("src"), home.path().join("old"));
    small(&src);
    small_old(&old);
    let known: Vec<Vec<u8>> = [&src, &old].iter().flat_map(|folder| contents(folder)).map(|(_, bytes)| bytes).collect();
    let text = "uid = 0\ngid = 0\nuse chroot = no\n[m]\npath = WORK\nread only = no\n";
    let daemon = Daemon::start(program, home.path(), text);
    for push in [true, false] {
        let run = |port: u16, dst: &str| {
            let module = format!("rsync://127.0.0.1:{port}/m");
            let (from, to) = match push {
                true => (format!("{}/", src.display()), format!("{module}/{dst}/")),
                false => (format!("{module}/src/"), format!("{}/", home.path().join(dst).display())),
            };
            run_to_end(client_of(OURS).args(["-rt", "--timeout=2", &from, &to]))
        };
        let whole = Cutter::start(daemon.port, u64::MAX);
        small_old(&home.path().join("whole"));
        assert_eq!(run(whole.port, "whole").code, 0);
        assert_eq!(whole.connections(), 1);
        let mut cases = Vec::new();
        for (up, len) in [(true, whole.up()), (false, whole.down())] {
            cases.extend((0..len).step_by(step(short)).map(|at| LinkFault { action: Blow::Cut, up, at }));
            // Everything else that befalls links, in turn; for `--timeout` any byte is a sign of life.
            // Stock's daemon to which nothing comes keeps its client content with such for a minute or two.
            let ends = |action: &&Blow| **action != Blow::Trickle && (program == OURS || **action != Blow::Stall);
            let others = Blow::ALL.iter().filter(ends).cycle().zip((0..len).step_by(4 * step(short)));
            cases.extend(others.map(|(&action, at)| LinkFault { action, up, at }));
        }
        println!("{program}, push {push}: {} faults", cases.len());
        thread::scope(|scope| {
            for share in cases.chunks(cases.len().div_ceil(4)) {
                let (run, home, known, daemon) = (&run, home.path(), &known, &daemon);
                scope.spawn(move || {
                    for &fault in share {
                        let LinkFault { action, up, at } = fault;
                        // Of its own: a daemon may still be at work there.
                        let dst = format!("dst-{push}-{action:?}-{up}-{at}");
                        small_old(&home.join(&dst));
                        let cutter = Cutter::faulty(daemon.port, move |_| Some(fault));
                        let cut = run(cutter.port, &dst);
                        let there = contents(&home.join(&dst));
                        for (name, bytes) in &there {
                            let leaf = name.rsplit(|&byte| byte == b'/').next().unwrap();
                            let is_final = !leaf.starts_with(b".");
                            assert!(!is_final || known.contains(bytes), "{fault:?}: {}", name.escape_ascii());
                        }
                        // What stands behind the last word of a session is no loss; what a flipped bit makes of a name is
                        // known to nobody.
                        let all = there == contents(&home.join("src")) || cutter.cuts() == 0;
                        let guarded = !matches!(fault.action, Blow::Flip | Blow::Duplicate);
                        assert!(cut.code != 0 || all || !guarded, "{fault:?}: less than all: {}", cut.stderr);
                    }
                });
            }
        });
    }
}

#[test]
fn a_session_with_our_daemon_cut_at_bytes() {
    a_daemon_cut(OURS, 71);
}

#[test]
fn a_session_with_stocks_daemon_cut_at_bytes() {
    if crate::support::tools::require("rsync") {
        a_daemon_cut("rsync", 71);
    }
}

#[test]
fn a_full_disk_is_told_by_name() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let mut runs: Vec<(Run, Contents)> = Vec::new();
    for (name, server) in [("stock", "rsync"), ("ours", OURS)] {
        let work = bench.fresh(name);
        let dst = work.path().join("dst");
        let Some(_tiny) = Tiny::mount(dst.clone(), "256k") else {
            eprintln!("SKIPPED: may not mount a tmpfs; run as root with CAP_SYS_ADMIN");
            return;
        };
        let src = work.path().join("src");
        tree::put(&src, "a-small", b"fits", 0o644, THEN);
        tree::put(&src, "b-huge", &tree::noise(1_000_000, 3), 0o644, THEN);
        tree::put(&src, "c-small", b"fits too", 0o644, THEN);
        tree::put(&dst, "b-huge", b"old", 0o644, (THEN.0 - 9, 0));
        let run = bench.rsync(server, work.path(), &["-rt", "src/", "host:dst/"]);
        runs.push((run, contents(&dst)));
    }
    let (ours, there) = runs.pop().unwrap();
    let (stock, stock_there) = runs.pop().unwrap();
    println!("stock: {} {}ours: {} {}", stock.code, stock.stderr, ours.code, ours.stderr);
    assert!([11, 23].contains(&ours.code), "{}: {}", ours.code, ours.stderr);
    assert!(ours.stderr.contains("b-huge") && ours.stderr.contains("No space left"), "{}", ours.stderr);
    // The old file stays, nothing partial stands beside it, and what fits has come.
    let find = |name: &[u8]| there.iter().find(|(found, _)| found.ends_with(name)).map(|(_, bytes)| &bytes[..]);
    assert_eq!(find(b"b-huge"), Some(&b"old"[..]));
    assert_eq!(find(b"a-small"), Some(&b"fits"[..]));
    assert!(there.len() <= 3 && stock_there.len() <= 3, "{there:?}");
}

/// Our program as a process at the other end of two pipes.
struct Process {
    child: Arc<Mutex<Child>>,
    link: Link,
}

fn process(args: &ServerArgs) -> Process {
    let words = args.to_words();
    let mut command = Command::new(OURS);
    command.args(words.iter().map(|word| std::ffi::OsStr::from_bytes(word)));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (reader, writer) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    let remote = Remote::new();
    remote.end(Ending::Lost("the test is over".into()));
    let link =
        Link { reader: Box::new(reader), writer: Box::new(writer), closer: Closer::new(|| {}), remote, patience: None };
    Process { child: Arc::new(Mutex::new(child)), link }
}

/// Does something once this many bytes of a file have been read.
struct Halfway<F: FnMut()> {
    left: u64,
    act: F,
}

impl<F: FnMut()> SendObserver for Halfway<F> {
    fn progress(&mut self, bytes: u64) {
        let before = self.left;
        self.left = self.left.saturating_sub(bytes);
        if before > 0 && self.left == 0 {
            (self.act)();
        }
    }
}

#[test]
fn a_killed_receiver_leaves_the_old_file() {
    const LEN: usize = 8 << 20;
    for old in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let (src, dst) = (home.path().join("src"), home.path().join("dst"));
        tree::put(&src, "file", &tree::noise(LEN, 1), 0o644, THEN);
        fs::create_dir(&dst).unwrap();
        if old {
            tree::put(&dst, "file", b"old", 0o644, (THEN.0 - 9, 0));
        }
        let options = options();
        let paths = vec![dst.as_os_str().as_bytes().to_vec()];
        let server = process(&ServerArgs { sender: false, options: options.clone(), paths, ..ServerArgs::default() });
        let child = Arc::clone(&server.child);
        let (tell, told) = mpsc::channel();
        let list = list_of(&src);
        thread::spawn(move || {
            let session = greet(server.link, hello(32, Offer::Stock)).unwrap();
            let shape = options.list_shape(session.agreed.list_checksum.size());
            let plan = SendPlan { shape, ..SendPlan::default() };
            let mut watch = Halfway { left: LEN as u64 / 2, act: || child.lock().unwrap().kill().unwrap() };
            let listing = Listing { list, ..Listing::default() };
            tell.send(send(session, &plan, |_| Ok((listing, Folder(src))), &mut watch)).unwrap();
        });
        let result = told.recv_timeout(WATCHDOG).expect("the sender ends");
        assert!(result.is_err(), "{result:?}");
        server.child.lock().unwrap().wait().unwrap();
        let under_name = fs::read(dst.join("file")).ok();
        assert_eq!(under_name.as_deref(), old.then_some(&b"old"[..]));
    }
}

/// Reads through, and remembers the highest memory mark of a process.
struct Gauge<R> {
    inner: R,
    pid: u32,
    reads: u32,
    peak_kib: Arc<AtomicUsize>,
}

impl<R: Read> Read for Gauge<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.reads += 1;
        // The last bytes of a session come in small pieces, the file in large ones.
        if self.reads.is_multiple_of(64) || n < 1024 {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
            let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = mark.and_then(|mark| mark.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
            self.peak_kib.fetch_max(kib, Ordering::Relaxed);
        }
        Ok(n)
    }
}

#[test]
fn a_large_file_costs_little_memory() {
    const LEN: u64 = 1 << 30;
    const MOST_KIB: usize = 64 * 1024;
    let home = tempfile::tempdir().unwrap();
    let (src, dst) = (home.path().join("src"), home.path().join("dst"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&dst).unwrap();
    File::create(src.join("sparse")).unwrap().set_len(LEN).unwrap();
    for push in [true, false] {
        let options = options();
        let paths =
            vec![if push { dst.as_os_str().as_bytes().to_vec() } else { [src.as_os_str().as_bytes(), b"/"].concat() }];
        let server = process(&ServerArgs { sender: !push, options: options.clone(), paths, ..ServerArgs::default() });
        let peak_kib = Arc::new(AtomicUsize::new(0));
        let Link { reader, writer, closer, remote, patience } = server.link;
        let pid = server.child.lock().unwrap().id();
        let reader = Box::new(Gauge { inner: reader, pid, reads: 0, peak_kib: Arc::clone(&peak_kib) });
        let (tell, told) = mpsc::channel();
        let (src, dst) = (src.clone(), dst.clone());
        let far = dst.clone();
        thread::spawn(move || tell.send(client(Link { reader, writer, closer, remote, patience }, push, &src, &far)));
        assert!(told.recv_timeout(WATCHDOG).expect("the session ends").unwrap());
        assert!(server.child.lock().unwrap().wait().unwrap().success());
        let peak = peak_kib.load(Ordering::Relaxed);
        println!("push {push}: peak {peak} KiB");
        assert!((1000..MOST_KIB).contains(&peak), "push {push}: {peak} KiB");
        let there = fs::metadata(dst.join("sparse")).unwrap();
        assert_eq!(there.len(), LEN);
        fs::remove_file(dst.join("sparse")).unwrap();
    }
}

/// A server in this folder to which somebody has said a version and a checksum's name, and that has answered.
fn greeted(sender: bool, options: Options, folder: &Path) -> Process {
    let paths = vec![[folder.as_os_str().as_bytes(), b"/"].concat()];
    let mut server = process(&ServerArgs { sender, options, paths, ..ServerArgs::default() });
    server.link.writer.write_all(b"\x20\0\0\0\x06xxh128").unwrap();
    server.link.writer.flush().unwrap();
    server.link.reader.read_exact(&mut [0; 20]).unwrap();
    server
}

/// The code with which a server ends by itself.
fn ended(child: &Arc<Mutex<Child>>) -> Option<i32> {
    let (tell, told) = mpsc::channel();
    let child = Arc::clone(child);
    thread::spawn(move || tell.send(child.lock().unwrap().wait().unwrap()));
    told.recv_timeout(WATCHDOG).expect("the server ends").code()
}

#[test]
fn a_client_that_breaks_the_rules_and_stays_is_left() {
    let home = tempfile::tempdir().unwrap();
    let leave = |sender: bool| {
        let server = greeted(sender, options(), home.path());
        let Link { mut reader, mut writer, .. } = server.link;
        // A frame of a kind that does not exist; and never a hanging-up.
        writer.write_all(b"\0\0\0\xff").unwrap();
        writer.flush().unwrap();
        assert_eq!(ended(&server.child), Some(12));
        let mut words = Vec::new();
        reader.read_to_end(&mut words).unwrap();
        assert!(words.windows(9).any(|words| words == b"a known c"), "{}", words.escape_ascii());
        drop(writer);
    };
    thread::scope(|scope| {
        for sender in [true, false] {
            scope.spawn(move || leave(sender));
        }
    });
}

#[test]
fn a_client_that_says_nothing_is_left_in_time() {
    let options = Options { timeout: Some(1), ..options() };
    for sender in [true, false] {
        let server = process(&ServerArgs {
            sender,
            options: options.clone(),
            paths: vec![b".".to_vec()],
            ..ServerArgs::default()
        });
        assert_eq!(ended(&server.child), Some(30));
        drop(server.link);
    }
}

/// What a peer says of its own time limit changes nothing of ours, and is nothing to stumble over.
#[test]
fn a_peers_time_limit_is_its_own() {
    let home = tempfile::tempdir().unwrap();
    let limited = |sender: bool, seconds: i32| {
        let options = Options { timeout: Some(1), ..options() };
        let Process { child, link: Link { reader, mut writer, .. } } = greeted(sender, options, home.path());
        let mut said = Outbox::new();
        said.start_mux(32);
        said.message(&Message::IoTimeout(seconds));
        writer.write_all(said.bytes()).unwrap();
        writer.flush().unwrap();
        assert_eq!(ended(&child), Some(30), "{sender} {seconds}");
        drop((reader, writer));
    };
    thread::scope(|scope| {
        for sender in [true, false] {
            for seconds in [0, -1, i32::MIN, i32::MAX] {
                scope.spawn(move || limited(sender, seconds));
            }
        }
    });
}

/// A client may ask for the files that it was shown, and for nothing else by way of their numbers.
#[test]
fn only_what_is_listed_is_sent() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), "its very bytes").unwrap();
    let value = |value: NdxValue| {
        let mut bytes = Vec::new();
        NdxState::default().encode(value, &mut bytes);
        bytes
    };
    // The file is number 1, below its folder.
    let wants = |ndx: u32, head: [u32; 4]| {
        let head = head.into_iter().flat_map(u32::to_le_bytes).collect();
        [value(NdxValue::Index(ndx)), vec![0, 0x80], head].concat()
    };
    let whole = [0; 4];
    let ask = |what: &[u8], message: Option<Message>| {
        let Process { child, link: Link { mut reader, mut writer, .. } } = greeted(true, options(), home.path());
        let mut said = Outbox::new();
        said.start_mux(32);
        // No filter rules.
        said.put(&[0; 4]);
        said.put(what);
        message.iter().for_each(|message| said.message(message));
        writer.write_all(said.bytes()).unwrap();
        writer.flush().unwrap();
        if message.is_none() && what == wants(1, whole) {
            drop(writer);
        }
        let code = ended(&child);
        let mut words = Vec::new();
        reader.read_to_end(&mut words).unwrap();
        (code, String::from_utf8_lossy(&words).into_owned())
    };
    assert!(ask(&wants(1, whole), None).1.contains("its very bytes"));
    let cases = [
        (wants(0, whole), None, "requested index"),
        (wants(2, whole), None, "index"),
        (wants(i32::MAX as u32 - 1, whole), None, "index"),
        (wants(1, [1, 0, 2, 0]), None, "block length"),
        (wants(1, [1, 700, 17, 0]), None, "strong sum length"),
        (wants(1, [u32::MAX, 700, 2, 0]), None, "block count"),
        (value(NdxValue::Segment(0)), None, "a list number"),
        (value(NdxValue::FlistEnd), None, "a list number"),
        (Vec::new(), Some(Message::Success(Ndx(2))), "acknowledged index"),
        (Vec::new(), Some(Message::NoSend(Ndx(u32::MAX))), "index in a message"),
    ];
    // A server that refuses somebody lets him hear why, and waits for that.
    thread::scope(|scope| {
        for (what, message, refusal) in cases {
            let ask = &ask;
            scope.spawn(move || {
                let (code, words) = ask(&what, message);
                assert!(matches!(code, Some(2 | 12)) && words.contains(refusal), "{what:?}: {code:?} {words}");
                assert!(!words.contains("its very bytes"), "{what:?}");
            });
        }
    });
}
