//! The real binary as a child process, files to archive, and a look at what has become of them.

use protocol::checksum::{Checksum, FileHasher};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use super::noise::noise;
use super::processes::signal;
use super::script::script;
use super::sshd::Sshd;
use super::wait::PATIENCE;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_pysmurf-archiver");

/// How the directories begin in which unfinished files are kept.
pub const KEPT: &[u8] = b".archiver-partial-";

/// Whether the tests run as root, and so must give up rights to see a file refused.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A folder with sources and an archive, readable for everyone.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn make() -> Self {
        let folder = tempfile::Builder::new().prefix("archiver-e2e").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let place = Self { folder };
        fs::create_dir(place.archive()).unwrap();
        fs::create_dir(place.sources()).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    pub fn sources(&self) -> PathBuf {
        self.path("sources")
    }

    /// Writes a source file of `len` bytes that depend on `seed`; gives its path and sum.
    pub fn source(&self, name: impl AsRef<[u8]>, len: u64, seed: u64) -> (PathBuf, [u8; 16]) {
        let path = self.sources().join(OsStr::from_bytes(name.as_ref()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(&path).unwrap();
        let mut hasher = FileHasher::new(Checksum::Md5);
        let mut block = noise(len.min(1 << 18) as usize, seed);
        let mut left = len;
        let mut number = 0u64;
        while left > 0 {
            let size = left.min(block.len() as u64) as usize;
            if size >= 8 {
                block[..8].copy_from_slice(&number.to_le_bytes());
            }
            hasher.update(&block[..size]);
            file.write_all(&block[..size]).unwrap();
            left -= size as u64;
            number += 1;
        }
        (path, hasher.finish().as_bytes().try_into().unwrap())
    }

    /// The command line for this archive, without database and far end.
    pub fn run(&self) -> Command {
        self.run_in(&self.archive())
    }

    fn run_in(&self, data_dir: &Path) -> Command {
        let mut command = self.program();
        command.arg("run").arg("--data-dir").arg(data_dir);
        command
    }

    /// The bare program, in this place and with no setting from outside.
    pub fn program(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        for name in std::env::vars_os().map(|(name, _)| name) {
            let text = name.to_string_lossy();
            if ["MYSQL_", "ARCHIVER_", "SSH_", "RUST_LOG", "OCS_", "SITE_", "INSTANCE_ID", "LOGLEVEL"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
            {
                command.env_remove(name);
            }
        }
        // What a service has of systemd: its sockets and histories stay in the place.
        command.env("RUNTIME_DIRECTORY", self.path("runtime")).env("STATE_DIRECTORY", self.path("state"));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// This archive behind that server.
    pub fn behind(&self, sshd: &Sshd) -> FarEnd<'_> {
        // In the place, so that any user may reach them; a key is for one alone.
        for (from, name, mode) in [(sshd.client_key(), "id", 0o600), (sshd.known_hosts(), "known_hosts", 0o644)] {
            fs::copy(from, self.path(name)).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        FarEnd { user: sshd.user(), ..self.at_port(sshd.port) }
    }

    /// This archive behind a server at that port of 127.0.0.1, which is known and lets a key in by what the place holds.
    pub fn at_port(&self, port: u16) -> FarEnd<'_> {
        FarEnd {
            place: self,
            data_dir: self.archive(),
            user: "somebody".into(),
            port,
            key: self.path("id"),
            known_hosts: self.path("known_hosts"),
            rsync_path: "rsync".into(),
            option: "--storage-host",
        }
    }

    /// Its sources behind that server, the archive on this side.
    pub fn from(&self, sshd: &Sshd) -> FarEnd<'_> {
        FarEnd { option: "--host", ..self.behind(sshd) }
    }

    /// As [`Place::run`], over SSH.
    pub fn run_to(&self, sshd: &Sshd) -> Command {
        self.behind(sshd).command()
    }

    /// Writes a program for the far end.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        script(&path, text);
        path
    }

    /// Everything in the archive.
    pub fn tree(&self) -> Tree {
        Tree::read(&self.archive())
    }
}

/// An archive reached by SSH; every part may be changed.
pub struct FarEnd<'a> {
    pub place: &'a Place,
    pub data_dir: PathBuf,
    pub user: String,
    pub port: u16,
    pub key: PathBuf,
    pub known_hosts: PathBuf,
    pub rsync_path: PathBuf,
    /// Which way: `--storage-host`, or `--host`.
    pub option: &'static str,
}

impl FarEnd<'_> {
    /// The command line, without database.
    pub fn command(&self) -> Command {
        let mut command = self.place.run_in(&self.data_dir);
        let to = format!("{}@127.0.0.1", self.user);
        command.args([self.option, &to, "--ssh-config", "/dev/null", "--ssh-port", &self.port.to_string()]);
        command.arg("--ssh-key").arg(&self.key).arg("--known-hosts").arg(&self.known_hosts);
        command.arg("--rsync-path").arg(&self.rsync_path);
        command
    }
}

/// The same command as an ordinary user, if we are root.
pub fn as_ordinary_user(command: Command) -> Command {
    if !is_root() {
        return command;
    }
    // A key is for one alone.
    let mut words = command.get_args();
    while let Some(word) = words.next() {
        if word == "--ssh-key" {
            std::os::unix::fs::chown(words.next().unwrap(), Some(65534), Some(65534)).unwrap();
        }
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    wrapped.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}

/// The MD5 of a file.
pub fn md5_of(path: &Path) -> [u8; 16] {
    let mut hasher = FileHasher::new(Checksum::Md5);
    let mut file = File::open(path).unwrap();
    let mut block = vec![0; 1 << 18];
    loop {
        match file.read(&mut block).unwrap() {
            0 => return hasher.finish().as_bytes().try_into().unwrap(),
            n => hasher.update(&block[..n]),
        }
    }
}

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A file as it stands, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    pub len: u64,
    pub mode: u32,
    pub mtime: (i64, i64),
    pub inode: u64,
}

/// Files below a folder by their path relative to it; directories have a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<Vec<u8>, Stand>);

impl Tree {
    pub fn read(folder: &Path) -> Self {
        let mut tree = BTreeMap::new();
        let mut waiting = vec![folder.to_owned()];
        while let Some(next) = waiting.pop() {
            // The far end is at work meanwhile: what goes away was not there.
            for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
                let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
                let mut name = entry.path().strip_prefix(folder).unwrap().as_os_str().as_bytes().to_vec();
                if meta.is_dir() {
                    name.push(b'/');
                    waiting.push(entry.path());
                }
                let mtime = (meta.mtime(), meta.mtime_nsec());
                tree.insert(name, Stand { len: meta.len(), mode: meta.mode(), mtime, inode: meta.ino() });
            }
        }
        Self(tree)
    }

    /// The files, without directories.
    pub fn files(&self) -> impl Iterator<Item = (&Vec<u8>, &Stand)> {
        self.0.iter().filter(|(name, _)| !name.ends_with(b"/"))
    }

    /// Without its directories, whose times change whenever something is tried in them.
    pub fn without_directories(mut self) -> Self {
        self.0.retain(|name, _| !name.ends_with(b"/"));
        self
    }

    /// The names of the files as text.
    pub fn names(&self) -> Vec<String> {
        self.files().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// Files that a receiver has under a temporary name, `.NAME.XXXXXX`, or in a directory for unfinished ones.
    pub fn temporary(&self) -> Vec<(&Vec<u8>, &Stand)> {
        self.files().filter(|(name, _)| is_temporary(name)).collect()
    }
}

/// Whether a file has such a name as receivers give their unfinished files, or is where ours are kept.
pub fn is_temporary(path: &[u8]) -> bool {
    if path.windows(KEPT.len()).any(|part| part == KEPT) {
        return true;
    }
    let leaf = path.rsplit(|&byte| byte == b'/').next().unwrap();
    let tail = leaf.rsplit(|&byte| byte == b'.').next().unwrap();
    leaf.starts_with(b".")
        && tail.len() >= 6
        && tail.len() < leaf.len() - 1
        && tail.iter().all(u8::is_ascii_alphanumeric)
}

/// Kills the connections to an sshd only; what runs in them finds its input at an end.
pub fn kill_connections(sshd: &Sshd) {
    let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let connections: Vec<_> = sshd.sessions().into_iter().filter(|pid| comm(pid).starts_with("sshd")).collect();
    signal("KILL", &connections);
}

/// A running archiver; killed when dropped.
pub struct Run {
    child: Child,
    log: PathBuf,
    began: Instant,
    peak: Arc<AtomicU64>,
    own_peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

/// An archiver that has ended.
#[derive(Debug)]
pub struct Over {
    pub status: ExitStatus,
    /// Both streams.
    pub log: String,
    pub seconds: f64,
    /// The most memory it had (`VmHWM`), KiB.
    pub peak_kib: u64,
    /// The most that it had without pages of files (`RssFile`), KiB. Those are its program, of which a debug build has more with
    /// each line of code, and the kernel takes them back when it needs them.
    pub own_peak_kib: u64,
}

impl Over {
    /// Fails, showing the log, unless it ended with this status.
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status.code(), Some(status), "{}: {}", self.status, self.log);
        self
    }
}

impl Run {
    pub fn start(mut command: Command) -> Self {
        let (file, log) = tempfile::Builder::new().prefix("archiver-log").tempfile().unwrap().keep().unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let [peak, own_peak] = [(); 2].map(|()| Arc::<AtomicU64>::default());
        let over = Arc::new(AtomicBool::new(false));
        let (status, done) = (format!("/proc/{}/status", child.id()), over.clone());
        let (watched, own) = (peak.clone(), own_peak.clone());
        std::thread::spawn(move || {
            while !done.load(Relaxed) {
                let text = fs::read_to_string(&status).unwrap_or_default();
                if let (Some(kib), Some(of_files)) = (kib_of(&text, "VmHWM:"), kib_of(&text, "RssFile:")) {
                    watched.fetch_max(kib, Relaxed);
                    own.fetch_max(kib.saturating_sub(of_files), Relaxed);
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { child, log, began: Instant::now(), peak, own_peak, over }
    }

    /// Runs to the end.
    pub fn to_end(command: Command) -> Over {
        Self::start(command).wait(PATIENCE)
    }

    pub fn wait(mut self, limit: Duration) -> Over {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let seconds = self.began.elapsed().as_secs_f64();
                let [peak_kib, own_peak_kib] = [&self.peak, &self.own_peak].map(|kib| kib.load(Relaxed));
                return Over { status, log: self.log(), seconds, peak_kib, own_peak_kib };
            }
            assert!(Instant::now() < deadline, "It does not end within {limit:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether it has ended by itself.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Sends a signal: `TERM`, `KILL` …
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// The memory that it has now for itself alone (`RssAnon`), KiB: how much of its own file has been read by now says nothing.
    pub fn memory_kib(&self) -> Option<u64> {
        kib_of(&fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?, "RssAnon:")
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(self) -> (Over, Duration) {
        let asked = Instant::now();
        self.signal("TERM");
        let over = self.wait(PATIENCE);
        (over, asked.elapsed())
    }

    /// Dies at once.
    pub fn kill(self) -> Over {
        self.signal("KILL");
        self.wait(PATIENCE)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // Whatever failed: what it had to say may tell why.
        if std::thread::panicking()
            && let Ok(log) = fs::read(&self.log)
        {
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "The archiver {} said last:\n{}",
                self.child.id(),
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// A figure of a process's status.
fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
