//! The far end: its SSH, its rsync; and the archive's directory, there or here.

use super::report::{CheckReport, CheckStatus};
use crate::archiver::{
    Coding, Demands, Direction, FarProgram, ServerProbe, base, hello, probe, sender_args, server_args,
};
use crate::link::Closer;
use crate::local::Local;
use crate::service::Service;
use crate::transfer::{TransferError, greet};
use crate::transport::ssh::Ssh;
use crate::transport::ssh::sftp::Sftp;
use crate::transport::{CommandOutput, Connect, ConnectError};
use protocol::PeerError;
use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// How long a step at the far end may take; shorter than `run`'s patience, since somebody is watching.
const STEP_LIMIT: Duration = Duration::from_secs(20);
/// How long the program there may take to end once we have left it.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// Free space below which a word is due: the share of the whole in percent, and KiB.
const SCARCE: (u64, u64) = (5, 10 << 20);

/// How the lines of our own script begin, to tell them from what a shell's start-up file prints.
const MARK: &str = "archiver-check:";

/// What kind of thing the directory is, to whom it belongs, and whether it takes files.
const LOOK: &str = r#"d=$1
if [ -d "$d" ]; then
  echo archiver-check:directory
  [ -w "$d" ] && [ -x "$d" ] && echo archiver-check:writable
  set -- $(ls -ld "$d" 2>/dev/null); echo "archiver-check:owner $1 $3 $4"
elif [ -e "$d" ] || [ -L "$d" ]; then echo archiver-check:other
else echo archiver-check:absent
fi"#;

const OF_THE_PROGRAM: [&str; 3] = ["rsync", "fsync", "protocol"];
const OF_THE_ARCHIVE: [&str; 3] = ["directory", "writable", "free space"];

/// Says how everything at the far end stands.
pub(super) fn check(service: &Service, report: &mut CheckReport) {
    let mut connect: Box<dyn Connect> = match &service.ssh {
        None => {
            let why = "not needed: without --storage-host or --host files are copied on this machine";
            report.say("connection", CheckStatus::Skip, why);
            Box::new(Local::default())
        }
        Some(options) => {
            let mut options = options.clone();
            options.stall_timeout = options.stall_timeout.min(STEP_LIMIT);
            let dialled = Ssh::new(options).and_then(|mut ssh| ssh.login().map(|()| ssh));
            match dialled {
                Ok(ssh) => {
                    report.ok("connection", &format!("{}, by SSH", ssh.describe()));
                    report.ok("host key", "it is the known one");
                    report.ok("authentication", "the key was accepted");
                    Box::new(ssh)
                }
                Err(error) => {
                    no_login(&error, report);
                    return match service.direction {
                        Direction::Push => report.not_checked(&OF_THE_ARCHIVE, "nobody is logged in"),
                        Direction::Pull => here(service, report),
                    };
                }
            }
        }
    };
    let far = &mut FarSide {
        connect: connect.as_mut(),
        data_dir: &service.data_dir,
        direction: service.direction,
        bootstrap: service.bootstrap.as_ref().map(|bootstrap| bootstrap.file.as_path()),
        sftp: None,
    };
    match far.rsync(report) {
        Some(fsync) => far.protocol(fsync, report),
        None => report.not_checked(&["fsync", "protocol"], "no rsync could be asked"),
    }
    match service.direction {
        Direction::Push => far.archive(report),
        Direction::Pull => here(service, report),
    }
    connect.disconnect();
}

/// The archive of one who pulls.
fn here(service: &Service, report: &mut CheckReport) {
    let connect = &mut Local::default();
    FarSide { connect, data_dir: &service.data_dir, direction: service.direction, bootstrap: None, sftp: None }
        .archive(report);
}

/// Sorts out how far we came.
fn no_login(error: &ConnectError, report: &mut CheckReport) {
    let why = error.to_string();
    match error {
        ConnectError::HostKey { host, .. } => {
            report.ok("connection", &format!("{host} answers by SSH"));
            report.fail("host key", &why);
            report.not_checked(&["authentication"], "the host key was not accepted");
        }
        ConnectError::Auth { host, .. } | ConnectError::Timeout { host, stage: "authentication", .. } => {
            report.ok("connection", &format!("{host} answers by SSH"));
            report.ok("host key", "it is the known one");
            report.fail("authentication", &why);
        }
        ConnectError::Timeout { .. } => {
            let why = format!("{why}; check the network and the host named, or raise --connect-timeout");
            report.fail("connection", &why);
            report.not_checked(&["host key", "authentication"], "there is no connection");
        }
        ConnectError::Unreachable { .. }
        | ConnectError::Lost { .. }
        | ConnectError::NoCommand { .. }
        | ConnectError::Setup(_) => {
            report.fail("connection", &why);
            report.not_checked(&["host key", "authentication"], "there is no connection");
        }
    }
    report.not_checked(&OF_THE_PROGRAM, "nobody is logged in");
}

struct FarSide<'a> {
    connect: &'a mut dyn Connect,
    data_dir: &'a str,
    direction: Direction,
    bootstrap: Option<&'a Path>,
    /// The files there, where no program serves.
    sftp: Option<Sftp>,
}

impl FarSide<'_> {
    /// The archive's directory, and the room in it.
    fn archive(&mut self, report: &mut CheckReport) {
        if let Some(sftp) = self.sftp.take() {
            self.directory_by_sftp(&sftp, report);
        } else if self.directory(report) {
            self.free_space(report);
        }
    }

    /// What SFTP tells of the base directory.
    fn directory_by_sftp(&self, sftp: &Sftp, report: &mut CheckReport) {
        let place = format!("{} at {}", self.data_dir, self.connect.describe());
        let dir = Path::new(self.data_dir);
        match sftp.is_dir(dir) {
            Ok(true) => report.ok("directory", &place),
            found => {
                let why = found.err().map_or("it is not there, or is none".to_owned(), |error| error.to_string());
                report.fail("directory", &format!("{place}: {why}; create or mount it, or correct --data-dir"));
                return report.not_checked(&["writable", "free space"], "the directory is not there");
            }
        }
        report.not_checked(&["writable"], "without a shell only writing would show it, and nothing is written here");
        match sftp.space(dir) {
            Some((total, free)) => say_space(&Space { total, free }, report),
            None => report.not_checked(&["free space"], "the SFTP server does not tell"),
        }
    }

    /// Whether a copy counts only once it is on the disk.
    fn fsync(&mut self, far: FarProgram, report: &mut CheckReport) -> bool {
        match self.direction {
            Direction::Pull => report.ok("fsync", "done here: a copy counts once it is on the disk"),
            Direction::Push if far.syncs() => match self.sync_trouble(far) {
                None => report.ok("fsync", "known: a copy counts once it and its name are on the disk"),
                Some(why) => {
                    let why = format!(
                        "sync cannot be run, so the last names may be lost if the storage node loses power: {why}"
                    );
                    report.say("fsync", CheckStatus::Warn, &why);
                }
            },
            Direction::Push => {
                let why = "not known before rsync 3.2.4: the last copies may be lost if the storage node loses power; \
                           install a newer rsync there, or name one with --rsync-path";
                report.say("fsync", CheckStatus::Warn, why);
            }
        }
        far.syncs()
    }

    /// What keeps the names of copies from being synced. Our own program does it itself.
    fn sync_trouble(&mut self, far: FarProgram) -> Option<String> {
        if far == FarProgram::Ours {
            return None;
        }
        match self.connect.run(&["sync".into(), "/".into()]) {
            Ok(output) if output.status == Some(0) => None,
            Ok(output) => Some(first_line(&[output.stderr, output.stdout].concat())),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Which program serves there; gives whether it knows `--fsync`, `None` when there is no program at all.
    fn rsync(&mut self, report: &mut CheckReport) -> Option<bool> {
        let program = self.connect.program();
        let name = program.join(" ".as_ref()).to_string_lossy().into_owned();
        let args = self.session_args(false);
        let what = match probe(self.connect, &args) {
            Err(error) => {
                report.fail("rsync", &error.to_string());
                return None;
            }
            Ok(ServerProbe::Serves(Some(far), said)) => {
                let which = match far {
                    FarProgram::Ours => said,
                    FarProgram::Stock((major, minor, patch)) => format!("rsync {major}.{minor}.{patch}"),
                };
                report.ok("rsync", &format!("{which}, as {name}"));
                return Some(self.fsync(far, report));
            }
            Ok(ServerProbe::Serves(None, why)) => return Some(unknown(&why, report)),
            Ok(ServerProbe::Unclear(why)) => {
                if !self.detour() {
                    return Some(unknown(&why, report));
                }
                why
            }
            Ok(ServerProbe::Nothing(why)) => {
                if !self.detour() {
                    report.fail("rsync", &format!("{why}; install rsync there, or name it with --rsync-path"));
                    return None;
                }
                why
            }
        };
        let (road, remedy) = match self.bootstrap {
            Some(file) => (
                format!("{} is uploaded and serves there, if it may", file.display()),
                "install rsync there, or name it with --rsync-path",
            ),
            None => ("files go by SFTP, which is slower".to_owned(), "give --bootstrap, or install rsync there"),
        };
        report.say("rsync", CheckStatus::Warn, &format!("{what}; {road}; {remedy}"));
        None
    }

    /// Those who push have another road where no program serves.
    fn detour(&mut self) -> bool {
        if self.direction == Direction::Push {
            self.sftp = self.connect.sftp().ok();
        }
        self.sftp.is_some()
    }

    fn session_args(&self, fsync: bool) -> Vec<OsString> {
        match self.direction {
            Direction::Push => server_args(self.data_dir, Demands { fsync, ..Demands::default() }),
            Direction::Pull => sender_args(Coding::Plain),
        }
    }

    /// Opens the very session that `run` would open, agrees on a protocol, and leaves before a file is named.
    fn protocol(&mut self, fsync: bool, report: &mut CheckReport) {
        let link = match self.connect.open(&self.session_args(fsync)) {
            Ok(link) => link,
            Err(error) => return report.fail("protocol", &error.to_string()),
        };
        let remote = link.remote.clone();
        let alarm = Alarm::set(link.closer.clone());
        let agreed = greet(link, hello(Coding::Plain)).map(|session| session.agreed);
        drop(alarm);
        // One session at a time: the next step needs the line, or a new one.
        if remote.wait(LEAVE_LIMIT).is_none() {
            self.connect.disconnect();
        }
        match agreed {
            Ok(n) => {
                report.ok("protocol", &format!("rsync protocol {}, checksum {}", n.version, n.checksum.name()));
            }
            Err(error) => {
                let remedy = match &error {
                    TransferError::Peer(PeerError::Version(_)) => "; install rsync 3.0 or later there",
                    TransferError::Peer(PeerError::NoCommonChecksum { .. }) => "; install an rsync there that has MD5",
                    _ => "",
                };
                report.fail("protocol", &format!("{error}{remedy}"));
            }
        }
    }

    /// Looks at the base directory; true when it is there.
    fn directory(&mut self, report: &mut CheckReport) -> bool {
        let place = self.connect.describe();
        let dir = self.data_dir;
        let output = match self.shell(LOOK) {
            Ok(output) => output,
            Err(error) => {
                report.fail("directory", &error.to_string());
                report.not_checked(&["writable", "free space"], "the directory could not be looked at");
                return false;
            }
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(MARK)).collect();
        let says = |answer| answers.contains(&answer);
        if says("directory") {
            if dir.starts_with('/') {
                report.ok("directory", &format!("{dir} at {place}"));
            } else {
                let why = format!(
                    "{dir} at {place} is relative: where it leads depends on where a login begins, or this program is \
                     started; give --data-dir an absolute path"
                );
                report.say("directory", CheckStatus::Warn, &why);
            }
            let owner = answers.iter().find_map(|answer| answer.strip_prefix("owner ")).unwrap_or_default();
            match says("writable") {
                // Into the root itself nothing is written.
                false if dir == "/" => report.not_checked(&["writable"], "batches say where they go"),
                true => report.ok("writable", &format!("by us ({owner})")),
                false => report.fail(
                    "writable",
                    &format!(
                        "{dir} at {place} cannot be written to ({owner}); grant writing there, log in as another \
                              user (--user), or correct --data-dir"
                    ),
                ),
            }
            return true;
        }
        if answers.is_empty() {
            let how = output.status.map_or("no exit status".to_owned(), |status| format!("exit status {status}"));
            let why = format!("this account runs no shell commands ({how}{})", words(&output));
            report.not_checked(&["directory", "writable", "free space"], &why);
            return false;
        }
        let why = match says("absent") {
            true => "is not there, or we may not look into the directories above it; create or mount it",
            false => "is no directory; move what is there",
        };
        report.fail("directory", &format!("{dir} at {place} {why}, or correct --data-dir"));
        report.not_checked(&["writable", "free space"], "the directory is not there");
        false
    }

    fn free_space(&mut self, report: &mut CheckReport) {
        let output = match self.shell(r#"df -Pk "$1""#) {
            Ok(output) => output,
            Err(error) => return report.say("free space", CheckStatus::Warn, &error.to_string()),
        };
        let Some(space) = space(&String::from_utf8_lossy(&output.stdout)) else {
            let why = format!("df -Pk {} gives no figures{}", self.data_dir, words(&output));
            return report.say("free space", CheckStatus::Warn, &why);
        };
        say_space(&space, report);
    }

    /// Runs a script over there, `$1` being the base directory.
    fn shell(&mut self, script: &str) -> Result<CommandOutput, ConnectError> {
        // The root has no name but its slash.
        let base = Some(base(self.data_dir)).filter(|base| !base.is_empty()).unwrap_or_else(|| "/".to_owned());
        self.connect.run(&["sh".into(), "-c".into(), script.into(), "sh".into(), base.into()])
    }
}

/// Says how much room there is.
fn say_space(Space { total, free }: &Space, report: &mut CheckReport) {
    let figures = format!("{} of {}", gib(*free), gib(*total));
    let percent = u128::from(*free) * 100 / u128::from((*total).max(1));
    match (*free, percent) {
        (0, _) => report.fail("free space", &format!("none is left of {}; make room there", gib(*total))),
        (free, percent) if percent < u128::from(SCARCE.0) || free < SCARCE.1 => {
            let why = format!("only {figures} ({percent} %); make room there");
            report.say("free space", CheckStatus::Warn, &why);
        }
        _ => report.ok("free space", &format!("{figures} ({percent} %)")),
    }
}

/// An rsync that tells no version we know; it is not asked to sync.
fn unknown(why: &str, report: &mut CheckReport) -> bool {
    report.say("rsync", CheckStatus::Warn, why);
    report.say("fsync", CheckStatus::Warn, "not used, as the version is not known");
    false
}

/// Closes a link that takes too long, unless dropped before.
struct Alarm(#[allow(dead_code, reason = "its drop is the signal")] mpsc::Sender<()>);

impl Alarm {
    fn set(closer: Closer) -> Self {
        let (alive, watched) = mpsc::channel();
        let thread = std::thread::Builder::new().name("alarm".into());
        // Without a thread the link's own limits remain.
        let _ = thread.spawn(move || {
            if watched.recv_timeout(STEP_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                closer.close();
            }
        });
        Self(alive)
    }
}

/// What a command said, its error output first; empty or `: …`.
fn words(output: &CommandOutput) -> String {
    let line = match first_line(&output.stderr) {
        line if line.is_empty() => first_line(&output.stdout),
        line => line,
    };
    if line.is_empty() { line } else { format!(": {line}") }
}

fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().chars().take(200).collect()
}

/// KiB of a file system.
#[derive(Debug, PartialEq, Eq)]
struct Space {
    total: u64,
    free: u64,
}

/// Finds the figures in the output of `df -Pk`: three numbers and a percentage. Names before and behind may hold spaces,
/// and a shell may have printed something first.
fn space(text: &str) -> Option<Space> {
    text.lines().rev().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(4).find_map(|words| {
            let percent =
                words[3] == "-" || words[3].strip_suffix('%').is_some_and(|number| number.parse::<u64>().is_ok());
            // What is left may be negative where root has used its reserve.
            let free = words[2].parse::<i64>().ok().map(|free| free.max(0).unsigned_abs());
            let (total, _used) = (words[0].parse::<u64>().ok()?, words[1].parse::<u64>().ok()?);
            free.filter(|_| percent && total > 0).map(|free| Space { total, free })
        })
    })
}

/// KiB as GiB, or TiB where that reads better.
fn gib(kib: u64) -> String {
    let gib = kib as f64 / f64::from(1 << 20);
    if gib >= 1024.0 { format!("{:.1} TiB", gib / 1024.0) } else { format!("{gib:.1} GiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_df() {
        let found = |text: &str| space(text).map(|Space { total, free }| (total, free));
        let header = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n";
        for (line, expected) in [
            ("/dev/sda1  1000 400 600 40% /", Some((1000, 600))),
            ("//nas/our share  1000 400 600 40% /mnt/a b 1 2 3 4%", Some((1000, 600))),
            ("tank/x 1000 1200 -50 105% /x", Some((1000, 0))),
            ("none 1000 0 1000 - /x", Some((1000, 1000))),
            ("none 0 0 0 - /proc", None),
            ("df: /x: No such file or directory", None),
            ("/dev/sda1 99999999999999999999 1 1 1% /", None),
        ] {
            assert_eq!(found(&format!("{header}{line}\n")), expected, "{line}");
        }
        assert_eq!(found("Welcome!\n/dev/x 10 4 6 40% /\n"), Some((10, 6)));
        assert_eq!(found(""), None);
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!((gib(1 << 20), gib(3 << 29)), ("1.0 GiB".to_owned(), "1.5 TiB".to_owned()));
    }
}
