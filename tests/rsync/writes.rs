//! How files are written and what they are built upon: our ends against stock rsync's, option by option.

#[path = "writes/destination.rs"]
mod destination;
#[path = "writes/stories.rs"]
mod stories;
use crate::support::both::{Both, STOCK, all_agree, words};
use crate::support::engine;
use crate::support::stock::{Bench, OURS, Run, client, ended};
use crate::support::tree::{self, THEN, Tree, noise};
use protocol::args::{Options, ServerArgs};
use protocol::handshake::{Hello, Offer};
use pysmurf_archiver::transfer::receive::Received;
use pysmurf_archiver::transfer::{ReceivePlan, TransferError, greet, receive};
use pysmurf_archiver::transport::child::Child;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Option sets that both directions know.
const BOTH: &[&str] = &[
    "-a",
    "-ac",
    "-aI --no-W",
    "-a --inplace",
    "-aI --no-W --inplace -B700",
    "-a --inplace -b",
    "-aI --no-W --inplace -b",
    "-a --append",
    "-a --append-verify",
    "-aI --append",
    "-ac --append-verify",
    "-rt --inplace",
    "-aS",
    "-aSI --no-W",
    "-aSI --inplace --no-W",
    "-a --inplace --sparse -W",
    "-a -b",
    "-a -b --suffix=.old",
    "-a --backup-dir=../bak",
    "-a --backup-dir=bak/deep/er --suffix=.x",
    "-a --max-alloc=2m",
    "-aW",
    "-a -b --delete",
    "-a --backup-dir=../bak --delete",
];

/// Option sets that only a receiving server is told.
const TO_RECEIVER: &[&str] = &[
    "-a --preallocate",
    "-aSI --preallocate",
    "-a --partial",
    "-aI --no-W --partial",
    "-a --partial-dir=.p",
    "-aI --no-W --partial-dir=.p",
    "-aW --partial-dir=.p",
    "-a --partial-dir=WORK/kept",
    "-ac --partial-dir=.p",
    "-a --temp-dir=WORK/tmp",
    "-a --temp-dir=/nonexistent/dir",
    "-a --delay-updates",
    "-a --delay-updates -b",
    "-aI --no-W --delay-updates --partial-dir=.p",
    "-a --delay-updates --remove-source-files",
    "-a --fsync",
    "-a --fsync --inplace",
    "-a --fsync --delay-updates",
    "-a --compare-dest=../alt",
    "-aii --compare-dest=../alt",
    "-aii --copy-dest=../alt",
    "-aii --link-dest=../alt",
    "-ai --link-dest=WORK/alt --link-dest=../alt2",
    "-aii --compare-dest=../alt --compare-dest=../alt2",
    "-aii --copy-dest=../alt2 --copy-dest=../alt",
    "-aiic --link-dest=../alt --link-dest=../alt2",
    "-aiic --copy-dest=../alt",
    "-rti --copy-dest=../alt",
    "-rtii --link-dest=../alt",
    "-ri --link-dest=../alt",
    "-aiI --link-dest=../alt --no-W",
    "-ai --size-only --link-dest=../alt",
    "-ani --link-dest=../alt",
    "-anii --compare-dest=../alt",
    "-ai --link-dest=../nowhere",
    "-ai -b --link-dest=../alt",
    "-ai -b --compare-dest=../alt",
    "-ai --inplace --copy-dest=../alt",
    "-ai --delay-updates --copy-dest=../alt",
    "-au",
    "-au --modify-window=3",
    "-au --modify-window=-1",
    "-a --existing",
    "-a --ignore-existing",
    "-a --existing --ignore-existing",
    "-a --size-only",
    "-a --modify-window=6000",
    "-a --modify-window=-1",
    "-ai --force",
    "-ai --force -b",
    "-ani --force",
    "-ai --force --backup-dir=../bak",
    "-ai --write-devices",
    "-a --delete --partial-dir=.p",
    "-a --delete --delay-updates",
    "-aH --inplace",
    "-aH --delay-updates",
    "-aH -b",
    "-aH --link-dest=../alt",
    "-ai --ignore-existing --inplace",
];

const FUZZY: &[&str] = &[
    "-ay --no-W",
    "-rty --no-W",
    "-ayy --no-W --copy-dest=../alt",
    "-ayy --no-W --link-dest=../alt2 --link-dest=../alt",
    "-ay --no-W --copy-dest=../alt",
    "-ayW",
    "-ay --no-W --inplace",
    "-ay --no-W --partial-dir=.p",
    "-any --no-W",
];

/// A source, a destination that knows some of it, two alternative destinations, and room for what else options name.
fn prepare(work: &Path) {
    let (src, dst, alt, alt2) = (work.join("src"), work.join("dst"), work.join("alt"), work.join("alt2"));
    let earlier = (THEN.0 - 5000, 1);
    for folder in ["tmp", "kept", "src/hollow", "dst", "alt2"] {
        fs::create_dir_all(work.join(folder)).unwrap();
    }
    let here = |name: &str, bytes: &[u8]| tree::put(&src, name, bytes, 0o644, THEN);
    // As in the first alternative, but for what its name says.
    for name in ["same", "mode", "time", "differs", "d/in", "stale", "two", "secondly"] {
        here(name, format!("content of {name}\n").as_bytes());
        tree::put(&alt, name, format!("content of {name}\n").as_bytes(), 0o644, THEN);
    }
    tree::put(&alt, "mode", b"content of mode\n", 0o600, THEN);
    tree::put(&alt, "time", b"content of time\n", 0o644, earlier);
    tree::put(&alt, "differs", b"other content of differs\n", 0o644, earlier);
    tree::put(&dst, "stale", b"stale\n", 0o644, earlier);
    tree::put(&alt, "two", b"content of two\n", 0o600, THEN);
    tree::put(&alt2, "two", b"content of two\n", 0o644, THEN);
    tree::put(&alt, "secondly", b"of no use\n", 0o600, earlier);
    tree::put(&alt2, "secondly", b"content of secondly\n", 0o4711, THEN);
    here("here", b"right already\n");
    tree::put(&dst, "here", b"right already\n", 0o644, THEN);
    tree::put(&alt, "here", b"right already\n", 0o644, THEN);
    symlink("x", src.join("ln")).unwrap();
    symlink("x", alt.join("ln")).unwrap();
    symlink("x", src.join("ln2")).unwrap();
    symlink("y", alt.join("ln2")).unwrap();
    symlink("x", src.join("ln3")).unwrap();
    symlink("y", dst.join("ln3")).unwrap();
    // Changed, grown, shrunk, holed, moved within.
    let bytes = noise(300_000, 1);
    let mut changed = bytes.clone();
    changed[100_000..100_010].copy_from_slice(b"difference");
    here("deep/changed", &changed);
    tree::put(&dst, "deep/changed", &bytes, 0o600, earlier);
    here("grown", &bytes);
    tree::put(&dst, "grown", &bytes[..120_300], 0o644, earlier);
    here("grown-otherwise", &bytes);
    tree::put(&dst, "grown-otherwise", &noise(7000, 2), 0o644, earlier);
    here("shrunk", &bytes[..1000]);
    tree::put(&dst, "shrunk", &bytes[..50_000], 0o644, earlier);
    here("same-length", &bytes[..1000]);
    tree::put(&dst, "same-length", &bytes[1000..2000], 0o644, earlier);
    here("turned", &[&bytes[150_000..], &bytes[..150_000]].concat());
    tree::put(&dst, "turned", &bytes, 0o644, earlier);
    here("holes", &[&bytes[..5000], &[0; 200_000][..], &bytes[..3], &[0; 100_000][..]].concat());
    here("was-full", &[&bytes[..5000], &[0; 200_000][..], &bytes[..3], &[0; 100_000][..]].concat());
    tree::put(&dst, "was-full", &bytes, 0o644, earlier);
    here("empty", b"");
    tree::put(&dst, "empty", b"not so", 0o644, earlier);
    here("fresh", b"fresh\n");
    // Two names of one file.
    here("linked", &bytes[..10_000]);
    tree::put(&dst, "linked", &bytes[..9_000], 0o644, earlier);
    fs::hard_link(dst.join("linked"), dst.join("linked-too")).unwrap();
    // Newer here, hardly newer here.
    here("newer", b"new?\n");
    tree::put(&dst, "newer", b"newer, and longer\n", 0o644, (THEN.0 + 5000, 0));
    here("hardly", b"new?\n");
    tree::put(&dst, "hardly", b"hardly newer\n", 0o644, (THEN.0 + 2, 0));
    here("nanoseconds", b"equal\n");
    tree::put(&dst, "nanoseconds", b"equal\n", 0o644, (THEN.0, 5));
    // Another kind is there.
    here("full", b"a directory is there");
    tree::put(&dst, "full/sub/in", b"in the way", 0o644, THEN);
    tree::put(&dst, "full/sub2/in", b"in the way", 0o644, THEN);
    tree::put(&dst, "full/also", b"in the way", 0o644, THEN);
    here("was-hollow", b"an empty directory is there");
    fs::create_dir(dst.join("was-hollow")).unwrap();
    here("was-link", b"a symlink is there");
    symlink("nowhere", dst.join("was-link")).unwrap();
    here("was-file/in", b"a file is there");
    // Stock gives it the time of the directory that it keeps out.
    tree::put(&dst, "was-file", b"a file", 0o644, (THEN.0 + 9, 0));
    symlink("x", src.join("link-now")).unwrap();
    tree::put(&dst, "link-now", b"a file", 0o644, THEN);
    symlink("x", src.join("link-over")).unwrap();
    tree::put(&dst, "link-over/in", b"a directory", 0o644, THEN);
    // Left by earlier tries.
    here("broken-off", &bytes);
    for place in ["dst/.p", "kept"] {
        tree::put(&work.join(place), "broken-off", &bytes[..200_000], 0o644, THEN);
    }
    here("deep/broken-off-too", &bytes[10..]);
    tree::put(&dst, "deep/broken-off-too", b"older", 0o644, earlier);
    tree::put(&dst, "deep/.p/broken-off-too", &bytes[10..200_000], 0o600, THEN);
    here("needless", b"whole\n");
    tree::put(&dst, "needless", b"whole\n", 0o644, THEN);
    tree::put(&dst, ".p/needless", b"who", 0o600, THEN);
    // Of similar names.
    here("fuzzy/report-2024-11.dat", &bytes);
    tree::put(&dst, "fuzzy/report-2024-10.dat", &bytes[..290_000], 0o644, earlier);
    tree::put(&dst, "fuzzy/other", &noise(1000, 4), 0o644, earlier);
    here("fuzzy2/moved", &noise(50_000, 5));
    tree::put(&dst, "fuzzy2/before", &noise(50_000, 5), 0o644, THEN);
    here("fuzzy3/report-2024-11.dat", &noise(40_000, 6));
    fs::create_dir(dst.join("fuzzy3")).unwrap();
    tree::put(&alt, "fuzzy3/report-2024-10.dat", &noise(40_000, 6)[..30_000], 0o644, earlier);
    if tree::is_root() {
        here("device", b"what is written is gone");
        let null = rustix::fs::makedev(1, 3);
        let node = |path: &Path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, mode, null).unwrap();
            tree::set_mtime(path, THEN.0, 0);
        };
        node(&dst.join("device"));
        node(&src.join("node"));
        node(&alt.join("node"));
    }
    fs::set_permissions(src.join("d"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(dst.join("deep"), fs::Permissions::from_mode(0o710)).unwrap();
    for name in ["ln", "ln2", "ln3", "link-now", "link-over"] {
        tree::set_mtime(&src.join(name), THEN.0, 0);
    }
    for path in [alt.join("ln"), alt.join("ln2"), dst.join("ln3"), dst.join("was-link")] {
        tree::set_mtime(&path, THEN.0, 0);
    }
    tree::settle(work, (THEN.0 + 9, 0));
}

/// Which names lead to one file, and which files have holes.
fn groups(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, node) in Tree::of(root, i64::MAX).0 {
        let text = String::from_utf8(name).unwrap();
        if node.is_file() {
            let meta = fs::metadata(root.join(&text)).unwrap();
            let sparse = meta.blocks() * 512 + 65_536 < meta.len();
            lines.push(format!("{text}: {} links{}", meta.nlink(), if sparse { ", holes" } else { "" }));
        }
    }
    lines
}

/// Lines about items, totals, deletions and what cannot be done; links and holes.
fn look(run: &Run, work: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&run.stdout);
    let stderr = run.stderr.lines().filter(|line| line.contains("could not make way") || line.contains("-dest arg"));
    let told = text.lines().filter(|line| line.starts_with("*deleting") || line.starts_with("cannot delete"));
    let lines = run.lines().into_iter().chain(told.chain(stderr).map(str::to_owned));
    let mut lines: Vec<_> = lines.map(|line| line.replace(work.to_str().unwrap(), "WORK")).collect();
    lines.sort();
    [lines, groups(work)].concat()
}

fn table(options: &[&str], paths: &str) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let template = bench.path().join("template");
    prepare(&template);
    let copied = |work: &Path| tree::copy(&template.join("."), work);
    let both = Both { folders: &["."], look: &look, ..Both::new(&bench, &copied) };
    let only = std::env::var("WRITES_ONLY").unwrap_or_default();
    let options: Vec<_> = options.iter().filter(|options| options.contains(&only)).collect();
    all_agree(&options, |options| both.difference((STOCK, OURS), &format!("-i --stats --no-i-r {options} {paths}")));
}

#[test]
fn pushed_files_are_written_as_by_stock() {
    table(BOTH, "src/ host:dst/");
}

#[test]
fn pushed_files_are_built_upon_what_stock_chooses() {
    table(TO_RECEIVER, "src/ host:dst/");
}

/// Chosen by us as by stock where there is no doubt which file is the most alike.
#[test]
fn a_file_of_a_similar_name_is_built_upon() {
    table(FUZZY, "src/fuzzy src/fuzzy2 src/fuzzy3 host:dst/");
}

#[test]
fn pulled_files_are_sent_as_by_stock() {
    table(BOTH, "host:src/ dst/");
}

/// Runs stock's client with a remote shell of its own in a folder with one large file to copy.
struct Broken<'a> {
    work: tempfile::TempDir,
    server: &'a str,
    len: usize,
}

impl<'a> Broken<'a> {
    fn new(bench: &Bench, server: &'a str, len: usize) -> Self {
        let work = bench.fresh("broken");
        let mut bytes = vec![0; len];
        fastrand::Rng::with_seed(9).fill(&mut bytes);
        tree::put(&work.path().join("src"), "sub/large", &bytes, 0o640, THEN);
        fs::create_dir(work.path().join("dst")).unwrap();
        Self { work, server, len }
    }

    fn run(&self, shell: &Path, command: &str) -> Run {
        let folder = self.work.path().to_str().unwrap();
        let mut stock = client(STOCK);
        stock.arg("-e").arg(shell).args(["--rsync-path", self.server, "--no-i-r"]).current_dir(folder);
        ended(stock.args(words(command).iter().map(|word| word.replace("WORK", folder))))
    }

    /// What is at the destination: names, modes, whether the time is recent; and lengths.
    fn left(&self) -> (Vec<String>, Vec<usize>) {
        let nodes = Tree::of(self.work.path(), tree::now() - 100).0;
        let there = nodes.iter().filter(|(name, _)| !name.starts_with(b"./src"));
        let show = |(name, node): (&Vec<u8>, &tree::Node)| {
            let time = if node.is_dir() { None } else { node.mtime };
            format!("{} {:o} {time:?}", name.escape_ascii(), node.mode)
        };
        let lengths = there.clone().filter(|(_, node)| !node.content.is_empty()).map(|(_, node)| node.content.len());
        (there.clone().map(show).collect(), lengths.collect())
    }

    /// Waits until the client's second process, which nobody waits for, has kept what came.
    fn settle(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let kept =
            || fs::metadata(self.work.path().join("dst/sub/large")).is_ok_and(|meta| meta.len() > self.len as u64 / 2);
        while !kept() {
            assert!(std::time::Instant::now() < deadline, "nothing was kept: {:?}", self.left());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn is_whole(&self) {
        let (src, dst) = (self.work.path().join("src/sub/large"), self.work.path().join("dst/sub/large"));
        assert!(fs::read(src).unwrap() == fs::read(&dst).unwrap(), "the copy differs");
        assert_eq!(fs::metadata(dst).unwrap().mtime(), THEN.0);
    }
}

/// A command that passes so many bytes on as they come.
fn passing(bytes: usize) -> String {
    // The client's end does not block.
    let write =
        "$w = syswrite(STDOUT, $_, $r - $o, $o) // do { exit if !$!{EAGAIN}; select(undef, undef, undef, 0.001); 0 }";
    let code = "while ($n > 0 && ($r = sysread(STDIN, $_, $n < 65536 ? $n : 65536)))";
    format!("perl -e '$n = {bytes}; {code} {{ for ($o = 0; $o < $r; $o += $w) {{ {write} }} $n -= $r }}'")
}

/// A shell that lets only so many bytes through, one way, and then ends the client, as an impatient user does.
fn cutting_shell(bench: &Bench, to_server: bool, bytes: usize) -> std::path::PathBuf {
    let line = match to_server {
        true => format!("shift\n({}; kill $PPID) | sh -c \"$*\"\n", passing(bytes)),
        false => format!("shift\nsh -c \"$*\" | ({}; kill $PPID)\n", passing(bytes)),
    };
    bench.script(&format!("cut-{to_server}-{bytes}"), &line)
}

/// The length of the file that is resumed: a gigabyte where slow tests are asked for.
fn large() -> usize {
    match std::env::var_os("ARCHIVER_SLOW").is_some_and(|value| !value.is_empty()) {
        true => 1_000_000_000,
        false => 60_000_000,
    }
}

fn assert_resumed(run: &Run, len: usize, what: &str) {
    assert_eq!(run.code, 0, "{what}: {}", run.stderr);
    let (literal, matched) = (run.stat("Literal data"), run.stat("Matched data"));
    println!("{what}: {literal} bytes literal, {matched} matched");
    assert!(literal < len as u64 * 42 / 100, "{what}: {literal} bytes were sent again");
}

#[test]
fn a_push_that_broke_off_sends_only_the_rest() {
    let Some(bench) = Bench::with(&["rsync", "perl"]) else { return };
    for options in [
        "--partial",
        "--partial --sparse",
        "--partial-dir=.p",
        "--partial-dir=WORK/kept",
        "--inplace",
        "--delay-updates",
        "--append",
        "--append-verify",
        "--partial --temp-dir=WORK",
    ] {
        let len = if options == "--partial-dir=.p" { large() } else { 5_000_000 };
        let cut = cutting_shell(&bench, true, len * 6 / 10);
        let mut lefts = Vec::new();
        for server in ["rsync", OURS] {
            if server == "rsync" && len > 100_000_000 {
                continue;
            }
            let broken = Broken::new(&bench, server, len);
            let command = format!("-a --no-W --stats {options} src/ host:dst/");
            let run = broken.run(&cut, &command);
            assert_ne!(run.code, 0, "{options}");
            let (left, lengths) = broken.left();
            assert!(lengths.iter().any(|&there| there > len / 2), "{server} {options}: {left:?} {lengths:?}");
            if server == OURS {
                assert_resumed(&broken.run(&bench.shell(), &command), broken.len, options);
                broken.is_whole();
                let (whole, _) = broken.left();
                assert!(whole.iter().all(|line| !line.contains("/.")), "{whole:?}");
            }
            lefts.push(left);
        }
        if let [stock, ours] = &lefts[..] {
            assert_eq!(stock, ours, "{options}");
        }
    }
}

#[test]
fn a_pull_that_broke_off_is_resumed_from_our_sender() {
    let Some(bench) = Bench::with(&["rsync", "perl"]) else { return };
    for options in ["--partial", "--inplace", "--append", "--append-verify"] {
        let len = if options == "--partial" { large() } else { 5_000_000 };
        let cut = cutting_shell(&bench, false, len * 6 / 10);
        let broken = Broken::new(&bench, OURS, len);
        let command = format!("-a --no-W --stats {options} host:src/ dst/");
        let run = broken.run(&cut, &command);
        assert_ne!(run.code, 0, "{options}");
        broken.settle();
        assert_resumed(&broken.run(&bench.shell(), &command), broken.len, options);
        broken.is_whole();
    }
}

#[test]
fn without_an_option_nothing_is_left_of_a_broken_push() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let cut = cutting_shell(&bench, true, 3_000_000);
    let mut lefts = Vec::new();
    for server in ["rsync", OURS] {
        let broken = Broken::new(&bench, server, 6_000_000);
        assert_ne!(broken.run(&cut, "-a src/ host:dst/").code, 0);
        lefts.push(broken.left());
    }
    assert_eq!(lefts[0], lefts[1]);
    assert!(lefts[1].1.is_empty(), "{lefts:?}");
}

/// A server that is told to go removes what it began, or keeps it as the options ask.
#[test]
fn a_signal_leaves_no_temporary_file() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for (signal, options) in
        [("TERM", ""), ("INT", ""), ("HUP", ""), ("TERM", "--partial "), ("HUP", "--partial-dir=.p ")]
    {
        let mut results = Vec::new();
        for server in ["rsync", OURS] {
            let broken = Broken::new(&bench, server, 6_000_000);
            // Once the file is coming in, the server is told to go; the client stays.
            let folder = bench.fresh("signal");
            let (pid, done) = (folder.path().join("pid"), folder.path().join("done"));
            let (pid, done, temp) = (pid.display(), done.display(), broken.work.path().join("dst/sub"));
            let text = format!(
                "shift\n(until [ -s {pid} ] && find {} -size +100k 2>/dev/null | grep -q .; do sleep 0.02; done; \
                 kill -{signal} $(cat {pid}); touch {done}) >/dev/null 2>&1 </dev/null &\n\
                 ({}; until [ -e {done} ]; do sleep 0.02; done) | sh -c \"echo \\$\\$ >{pid}; exec $*\"\n",
                temp.display(),
                passing(3_000_000)
            );
            let run = broken.run(&bench.script("signalling", &text), &format!("-a {options}src/ host:dst/"));
            let (left, lengths) = broken.left();
            // Where the client notices first that the server has gone, it is its own code.
            assert!([10, 12, 20].contains(&run.code), "{signal} {server}: {}", run.stderr);
            results.push((left, lengths.is_empty()));
        }
        assert_eq!(results[0], results[1], "{signal} {options}");
        assert_eq!(results[1].1, options.is_empty(), "{signal} {options}: {results:?}");
    }
}

/// Both ends ours: the client is the library, its far end our server.
fn pull(program: &Path, from: &Path, to: &Path, options: &Options) -> Result<Received, TransferError> {
    let path = [from.as_os_str().as_bytes(), b"/"].concat();
    let args = ServerArgs { sender: true, options: options.clone(), paths: vec![path], ..ServerArgs::default() };
    let link = engine::open(&mut Child::local(vec![program.into()]), &args);
    let session = greet(link, Hello { compression: options.compression(), ..engine::hello(32, Offer::Blake3) })?;
    let plan = ReceivePlan { options: options.clone(), destination: to.to_owned(), ..ReceivePlan::default() };
    receive(session, &plan, &|_: &protocol::mux::Message| {})
}

#[test]
fn what_broke_off_between_our_own_ends_is_resumed() {
    let Some(bench) = Bench::with(&["perl"]) else { return };
    let len = large();
    let cut = bench.script("cut", &format!("{OURS} \"$@\" | {}\n", passing(len * 6 / 10)));
    let plain = Options { recurse: true, times: true, perms: true, no_inc_recursive: true, ..Options::default() };
    for (options, kept) in [
        (Options { partial: true, ..plain.clone() }, "dst/sub/large"),
        (Options { inplace: true, ..plain.clone() }, "dst/sub/large"),
        (Options { partial_dir: Some(b".p".to_vec()), ..plain.clone() }, "dst/sub/.p/large"),
    ] {
        let broken = Broken::new(&bench, OURS, len);
        let (src, dst) = (broken.work.path().join("src"), broken.work.path().join("dst"));
        assert!(pull(&cut, &src, &dst, &options).is_err());
        let there = fs::metadata(broken.work.path().join(kept)).unwrap().len();
        assert!(there > len as u64 / 2, "{kept}: {there}");
        let received = pull(Path::new(OURS), &src, &dst, &options).unwrap();
        assert!(received.bytes.literal_bytes < len as u64 * 42 / 100, "{kept}: {received:?}");
        broken.is_whole();
        assert!(!dst.join("sub/.p").exists());
    }
}

/// A sender that names another basis than it was asked to build upon is refused, and nothing is written.
#[test]
fn a_basis_never_asked_for_is_refused() {
    let Some(bench) = Bench::with(&["perl"]) else { return };
    let work = bench.fresh("hostile");
    let bytes = noise(5_000, 3);
    tree::put(&work.path().join("src"), "file", &bytes, 0o644, THEN);
    let dst = work.path().join("dst");
    tree::put(&dst, "filf", &bytes[..4_000], 0o644, (THEN.0 - 9, 0));
    tree::put(work.path(), "secret", b"nobody's business", 0o600, THEN);
    let options = Options { recurse: true, times: true, fuzzy: 1, no_inc_recursive: true, ..Options::default() };
    // The echoed header says 0x83 and the name; both are changed on their way.
    for (name, change) in [("name", "s/\\x83\\x04filf/\\x83\\x04..\\/x/"), ("type", "s/\\x83\\x04filf/\\x82\\x04filf/")]
    {
        let filter = format!("while (sysread(STDIN, $_, 65536)) {{ {change}; syswrite(STDOUT, $_) }}");
        let program = bench.script(name, &format!("{OURS} \"$@\" | perl -e '{filter}'\n"));
        let before = Tree::of(&dst, 0);
        let error = pull(&program, &work.path().join("src"), &dst, &options).unwrap_err();
        assert!(matches!(error, TransferError::Peer(_)), "{name}: {error}");
        assert!(error.to_string().contains("another basis"), "{name}: {error}");
        assert_eq!(before.difference(&Tree::of(&dst, 0)), "", "{name}");
    }
    let received = pull(Path::new(OURS), &work.path().join("src"), &dst, &options).unwrap();
    assert!(received.bytes.matched_bytes >= 3_500, "{received:?}");
}

/// A file whose new content is its old one keeps its inode, where nothing else could tell; all others are written anew.
#[test]
fn what_is_right_already_is_not_written_again() {
    let bench = Bench::start();
    let work = bench.fresh("stays");
    let (src, dst) = (work.path().join("src"), work.path().join("dst"));
    let bytes = noise(300_000, 11);
    let earlier = (THEN.0 - 5000, 0);
    let mut end_differs = bytes.clone();
    end_differs[299_999] ^= 1;
    for name in ["stays", "ends-otherwise", "linked", "begins-otherwise", "grown", "moved-on"] {
        tree::put(&src, name, &bytes, 0o640, THEN);
        tree::put(&dst, name, &bytes, 0o600, earlier);
    }
    tree::put(&dst, "ends-otherwise", &end_differs, 0o600, earlier);
    tree::put(&dst, "begins-otherwise", &[b"no", &bytes[2..]].concat(), 0o600, earlier);
    tree::put(&dst, "grown", &bytes[..299_000], 0o600, earlier);
    tree::put(&dst, "moved-on", &[&bytes[150_000..], &bytes[..150_000]].concat(), 0o600, earlier);
    fs::hard_link(dst.join("linked"), dst.join("linked-too")).unwrap();
    let inode = |name: &str| fs::metadata(dst.join(name)).unwrap().ino();
    let names = ["stays", "ends-otherwise", "linked", "begins-otherwise", "grown", "moved-on"];
    for (options, stays) in [
        ("-ai --no-W", true),
        ("-aiI --no-W", true),
        ("-aiI --no-W -z --zc=zlib", true),
        ("-aiI --no-W --checksum-choice=md5", true),
        ("-aiI --no-W --fsync", true),
        ("-aiIb --no-W --backup-dir=../bak", false),
        ("-aiIS --no-W", false),
        ("-riI --no-W", false),
        ("-aiI -W", false),
    ] {
        let before = names.map(inode);
        let words: Vec<_> = options.split(' ').chain(["src/", "host:dst"]).collect();
        let words: Vec<_> =
            words.iter().map(|word| word.replace("host:dst", &format!("host:{}", dst.display()))).collect();
        let run = bench.rsync(OURS, work.path(), &words);
        assert_eq!(run.code, 0, "{options}: {}", run.stderr);
        for (name, before) in names.into_iter().zip(before) {
            let meta = fs::metadata(dst.join(name)).unwrap();
            assert_eq!(fs::read(dst.join(name)).unwrap(), bytes, "{options} {name}");
            if options.starts_with("-a") {
                assert_eq!((meta.mtime(), meta.mode() & 0o777), (THEN.0, 0o640), "{options} {name}");
            }
            if name == "stays" {
                assert_eq!(meta.ino() == before, stays, "{options}");
            }
            if options == "-ai --no-W" && name != "stays" {
                assert_ne!(meta.ino(), before, "{name}");
            }
        }
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(said.contains("<f") && said.contains("stays"), "{options}: {said}");
    }
    // The other name kept what it was.
    let other = fs::metadata(dst.join("linked-too")).unwrap();
    assert_eq!((other.mtime(), other.mode() & 0o777), (earlier.0, 0o600));
}
