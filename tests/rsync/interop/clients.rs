//! Our engine as the client, of stock rsync's server and of our own.

use crate::support;
use crate::support::engine;
use crate::support::sshd::Sshd;
use crate::support::stock::OURS;
use crate::support::tree::{self, THEN, Tree};
use protocol::args::{Options, ServerArgs};
use protocol::checksum::{Checksum, FileHasher, Sum};
use protocol::flist::{DirClass, Extras, FileEntry, FileList, Ndx};
use protocol::handshake::{Hello, Negotiated, Offer};
use protocol::sender::Request;
use pysmurf_archiver::link::{Ending, Link};
use pysmurf_archiver::transfer::receive::Received;
use pysmurf_archiver::transfer::send::Summary;
use pysmurf_archiver::transfer::{
    Answer, Conversation, Listing, ReceivePlan, SendObserver, SendPlan, Sent, Source, TransferError, greet, receive,
    send,
};
use pysmurf_archiver::transport::Connect;
use pysmurf_archiver::transport::child::Child;
use pysmurf_archiver::transport::ssh::Ssh;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

fn local(program: &str) -> Child {
    Child::local(vec![program.into()])
}

/// The options the archiver works with.
fn archiving() -> Options {
    Options {
        times: true,
        perms: true,
        relative: true,
        no_implied_dirs: true,
        remove_source_files: true,
        ..Options::default()
    }
}

fn start(connect: &mut dyn Connect, sender: bool, options: &Options, path: &Path) -> Link {
    let args = ServerArgs {
        sender,
        options: options.clone(),
        paths: vec![path.as_os_str().as_bytes().to_vec()],
        ..ServerArgs::default()
    };
    engine::open(connect, &args)
}

fn shake(link: Link, version: u8, offer: Offer, options: &Options) -> Conversation {
    let (choice, compression, incremental) = (options.checksum_choice, options.compression(), options.sends_segments());
    greet(link, Hello { choice, compression, incremental, ..engine::hello(version, offer) }).unwrap()
}

/// Regular files to send, by the names they get.
struct Files {
    list: FileList,
    paths: HashMap<Vec<u8>, PathBuf>,
    promised: HashMap<Vec<u8>, Sum>,
}

impl Files {
    fn new(sources: &[(&str, PathBuf)]) -> Self {
        let entry = |name: &str, path: &Path| {
            let meta = fs::metadata(path).unwrap();
            FileEntry {
                len: meta.len(),
                mtime: meta.mtime(),
                nsec: u32::try_from(meta.mtime_nsec()).unwrap(),
                uid: meta.uid(),
                gid: meta.gid(),
                ..FileEntry::new(name, meta.mode())
            }
        };
        let mut entries: Vec<_> = sources.iter().map(|(name, path)| entry(name, path)).collect();
        // Receivers want every parent in the list, though only as a way to what is asked for.
        let parents: BTreeSet<_> =
            sources.iter().flat_map(|(name, _)| name.match_indices('/').map(|(at, _)| &name[..at])).collect();
        for name in parents {
            let extra = Extras { dir_class: DirClass::Implied, ..Extras::default() }.into();
            let directory = FileEntry { mode: 0o040_755, extra, ..entry(name, Path::new("/")) };
            entries.push(FileEntry { len: 0, ..directory });
        }
        let list = FileList::new(entries);
        let paths = sources.iter().map(|(name, path)| (name.as_bytes().to_vec(), path.clone())).collect();
        Self { list, paths, promised: HashMap::new() }
    }

    /// Everything that is in `folder`.
    fn of(folder: &Path) -> Self {
        let tree = Tree::of(folder, i64::MAX);
        let name = |name: &&[u8]| String::from_utf8(name.strip_prefix(b"./").unwrap().to_vec()).unwrap();
        let names: Vec<_> = tree.files().iter().map(name).collect();
        Self::new(&names.iter().map(|name| (&name[..], folder.join(name))).collect::<Vec<_>>())
    }

    /// Puts the sums of the files into the list, as `-c` wants them.
    fn with_sums(mut self, checksum: Checksum) -> Self {
        let mut entries = self.list.entries().to_vec();
        for entry in entries.iter_mut().filter(|entry| entry.is_file()) {
            let mut hasher = FileHasher::new(checksum);
            hasher.update(&fs::read(&self.paths[&entry.name]).unwrap());
            entry.extra.sum = Some(hasher.finish());
        }
        self.list = FileList::new(entries);
        self
    }
}

impl Source for &Files {
    type File = File;

    fn open(&self, _ndx: Ndx, entry: &FileEntry) -> io::Result<File> {
        File::open(&self.paths[&entry.name])
    }

    fn promised(&self, ndx: Ndx) -> Option<Sum> {
        self.promised.get(&self.list.get(ndx)?.name).copied()
    }
}

/// What was heard of a transfer.
#[derive(Default)]
struct Ear {
    list: FileList,
    /// Names whose requests are declined: at once, or only when they come again.
    declined: Vec<Vec<u8>>,
    declined_again: bool,
    requested: Vec<(String, bool)>,
    sent: Vec<(String, Sum)>,
    finished: Vec<String>,
}

impl Ear {
    fn name(&self, ndx: Ndx) -> String {
        String::from_utf8(self.list.get(ndx).unwrap().name.clone()).unwrap()
    }
}

impl SendObserver for Ear {
    fn requested(&mut self, _entry: &FileEntry, request: &Request) -> Answer {
        let ndx = request.ndx;
        self.requested.push((self.name(ndx), request.redo));
        let declined = self.declined.contains(&self.list.get(ndx).unwrap().name);
        if declined || (self.declined_again && request.redo) { Answer::Decline } else { Answer::Send }
    }

    fn sent(&mut self, _entry: &FileEntry, request: &Request, _sent: &Sent, sum: &Sum) {
        self.sent.push((self.name(request.ndx), *sum));
    }

    fn finished(&mut self, ndx: Ndx) {
        self.finished.push(self.name(ndx));
    }
}

struct Push<'a> {
    files: &'a Files,
    to: &'a Path,
    options: Options,
    version: u8,
    offer: Offer,
}

impl Push<'_> {
    fn run(&self, connect: &mut dyn Connect, ear: &mut Ear) -> Result<(Negotiated, Summary), TransferError> {
        let link = start(connect, false, &self.options, self.to);
        let session = shake(link, self.version, self.offer, &self.options);
        let n = session.agreed;
        let shape = self.options.list_shape(n.list_checksum.size());
        let plan = SendPlan { shape, ..SendPlan::default() };
        ear.list = self.files.list.clone();
        let listing = Listing { list: self.files.list.clone(), ..Listing::default() };
        let summary = send(session, &plan, |_| Ok((listing, self.files)), ear)?;
        ear.requested.sort();
        ear.finished.sort();
        ear.sent.sort_by(|one, other| one.0.cmp(&other.0));
        Ok((n, summary))
    }
}

/// Three files to archive, and a folder to archive them in that has an older copy of one.
fn archive() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    let mut changed = tree::noise(300_000, 11);
    tree::put(&dst, "deep/down/changed", &changed, 0o600, (THEN.0 - 77, 0));
    changed[1000..1004].copy_from_slice(b"news");
    tree::put(&src, "deep/down/changed", &changed, 0o644, THEN);
    tree::put(&src, "a name's \u{e9}", b"odd", 0o640, THEN);
    tree::put(&src, "empty", b"", 0o644, (THEN.0, 0));
    (dir, src, dst)
}

const NAMES: [&str; 3] = ["a name's \u{e9}", "deep/down/changed", "empty"];

fn assert_copied(src: &Path, dst: &Path, version: u8) {
    let mut copied = 0;
    let there = Tree::of(dst, i64::MAX);
    for (name, node) in Tree::of(src, i64::MAX).0 {
        if node.is_file() {
            let mut node = node;
            if version < 31 {
                node.mtime = node.mtime.map(|(seconds, _)| (seconds, 0));
            }
            assert_eq!(there.0.get(&name), Some(&node), "{}", name.escape_ascii());
            copied += 1;
        }
    }
    assert_eq!(copied, there.files().len(), "something else is there: {:?}", there.0.keys());
}

fn pushes_arrive_and_are_acknowledged(connect: &mut dyn Connect, blake3: bool) {
    for version in 30..=32 {
        for (offer, choice) in [
            (Offer::Stock, None),
            (Offer::Only(Checksum::Md5), None),
            (Offer::Blake3, None),
            (Offer::Stock, Some((Checksum::Md5, Checksum::Md5))),
        ] {
            let (_dir, src, dst) = archive();
            let files = Files::of(&src);
            let options = Options { checksum_choice: choice, fsync: version > 30, ..archiving() };
            let mut push = Push { files: &files, to: &dst, options, version, offer };
            let mut ear = Ear::default();
            let (n, summary) = push.run(connect, &mut ear).unwrap();
            assert_eq!(n.version, version);
            let expected = match (offer, choice) {
                (Offer::Only(Checksum::Md5), _) | (_, Some(_)) => Checksum::Md5,
                (Offer::Blake3, _) if blake3 => Checksum::Blake3,
                _ => Checksum::Xxh128,
            };
            assert_eq!((n.checksum, n.list_checksum), (expected, expected), "{version} {offer:?}");
            assert_eq!(summary.ending, Some(Ending::Exited(0)), "{version} {offer:?}: {}", summary.stderr);
            assert_eq!(ear.finished, NAMES, "{version} {offer:?}: {}", summary.stderr);
            assert!(summary.sent.literal_bytes < 5000, "{:?}", summary.sent);
            assert_eq!(summary.sent.literal_bytes + summary.sent.matched_bytes, 300_003);
            assert_copied(&src, &dst, version);

            // Once more, judged by the bytes: nothing is asked for, all is acknowledged.
            let files = Files::of(&src).with_sums(expected);
            push.files = &files;
            push.options.checksum = true;
            let mut ear = Ear::default();
            let (_, summary) = push.run(connect, &mut ear).unwrap();
            assert_eq!((summary.files, ear.requested.len()), (0, 0), "{:?}", ear.requested);
            assert_eq!(ear.finished, NAMES, "{}", summary.stderr);
        }
    }
}

#[test]
fn our_sender_serves_stock_receivers() {
    if support::tools::require("rsync") {
        pushes_arrive_and_are_acknowledged(&mut local("rsync"), false);
    }
}

#[test]
fn our_sender_serves_our_receiver() {
    pushes_arrive_and_are_acknowledged(&mut local(OURS), true);
}

#[test]
fn our_sender_serves_stock_receivers_over_ssh() {
    if !support::tools::require("rsync") {
        return;
    }
    let Some(sshd) = Sshd::start("") else { return };
    let mut ssh = Ssh::new(sshd.options()).unwrap();
    pushes_arrive_and_are_acknowledged(&mut ssh, false);
}

#[test]
fn a_broken_promise_is_refused_by_the_receiver() {
    for program in ["rsync", OURS] {
        if program == "rsync" && !support::tools::require("rsync") {
            continue;
        }
        for version in 30..=32 {
            let (_dir, src, dst) = archive();
            fs::remove_dir_all(&dst).unwrap();
            fs::create_dir(&dst).unwrap();
            let mut files = Files::of(&src);
            for name in [NAMES[0], NAMES[1]] {
                let mut promised = FileHasher::new(Checksum::Md5);
                promised.update(if name == NAMES[0] { b"odd" } else { b"what was registered" });
                files.promised.insert(name.as_bytes().to_vec(), promised.finish());
            }
            let push =
                Push { files: &files, to: &dst, options: archiving(), version, offer: Offer::Only(Checksum::Md5) };
            let mut ear = Ear { declined_again: true, ..Ear::default() };
            let (_, summary) = push.run(&mut local(program), &mut ear).unwrap();
            let changed = NAMES[1].to_owned();
            assert_eq!(ear.requested.iter().filter(|(name, _)| *name == changed).count(), 2, "{:?}", ear.requested);
            assert!(ear.requested.contains(&(changed, true)), "{program} {version}: {:?}", ear.requested);
            assert_eq!(ear.finished, [NAMES[0], NAMES[2]], "{program} {version}: {}", summary.stderr);
            let there = Tree::of(&dst, 0);
            assert_eq!(there.files(), [&b"./a name's \xc3\xa9"[..], b"./empty"], "{program} {version}");
        }
    }
}

#[test]
fn a_declined_file_is_left_as_it_is() {
    for program in ["rsync", OURS] {
        if program == "rsync" && !support::tools::require("rsync") {
            continue;
        }
        for version in 30..=32 {
            let (_dir, src, dst) = archive();
            let before = Tree::of(&dst, i64::MAX).0;
            let files = Files::of(&src);
            let push = Push { files: &files, to: &dst, options: archiving(), version, offer: Offer::Stock };
            let mut ear = Ear { declined: vec![NAMES[1].into()], ..Ear::default() };
            let (_, summary) = push.run(&mut local(program), &mut ear).unwrap();
            assert_eq!(ear.finished, [NAMES[0], NAMES[2]], "{program} {version}: {}", summary.stderr);
            let changed = &b"./deep/down/changed"[..];
            assert_eq!(Tree::of(&dst, i64::MAX).0.get(changed), before.get(changed), "{program} {version}");
            assert!(ear.requested.iter().all(|(_, redo)| !redo), "{:?}", ear.requested);
        }
    }
}

fn pull(connect: &mut dyn Connect, from: &Path, to: &Path, version: u8, offer: Offer) -> (Negotiated, Received) {
    let options = Options {
        recurse: true,
        times: true,
        perms: true,
        links: true,
        owner: true,
        group: true,
        devices: true,
        specials: true,
        ..Options::default()
    };
    let session = shake(start(connect, true, &options, from), version, offer, &options);
    let n = session.agreed;
    let plan = ReceivePlan { options, destination: to.to_owned(), ..ReceivePlan::default() };
    let received = receive(session, &plan, &|message: &protocol::mux::Message| panic!("{message:?}")).unwrap();
    (n, received)
}

#[test]
fn our_receiver_gets_whole_trees() {
    for program in ["rsync", OURS] {
        if program == "rsync" && !support::tools::require("rsync") {
            continue;
        }
        for version in 30..=32 {
            let dir = tempfile::tempdir().unwrap();
            let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
            tree::build(&src);
            tree::build_old(&dst);
            let slash = dir.path().join("src/");
            let (n, received) = pull(&mut local(program), &slash, &dst, version, Offer::Blake3);
            assert_eq!(n.checksum, if program == OURS { Checksum::Blake3 } else { Checksum::Xxh128 });
            assert_eq!((received.failed, received.io_error, received.ending), (0, 0, Some(Ending::Exited(0))));
            fs::remove_file(dst.join("dir/extra")).unwrap();
            tree::set_mtime(&dst.join("dir"), THEN.0 + 9, if version > 30 { 99 } else { 0 });
            let mut expected = Tree::of(&src, i64::MAX);
            let mut there = Tree::of(&dst, i64::MAX);
            // A fraction of a second is no difference to an existing file, and no part of version 30.
            for node in expected.0.values_mut().chain(there.0.values_mut()) {
                node.mtime = node.mtime.map(|(seconds, _)| (seconds, 0));
            }
            // Other bytes of the same size and time are found only by their sum.
            assert_eq!(there.0[&b"./same-size"[..]].content, b"bbbb");
            expected.0.get_mut(&b"./same-size"[..]).unwrap().content = b"bbbb".to_vec();
            assert_eq!(there.difference(&expected), "", "{program} {version}");
            let (_, again) = pull(&mut local(program), &slash, &dst, version, Offer::Stock);
            assert_eq!((again.files, again.failed), (0, 0));
        }
    }
}
