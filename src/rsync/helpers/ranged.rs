//! A push of one large file over a long link: several connections write ranges of it by SFTP to where a session finds it as
//! what an earlier try has left (`--partial-dir`). That session proves it and gives it its name; the one session of the command
//! sends it if anything of this fails.

use super::crew::Crew;
use super::hand::{Conveyance, Hand, HelpOffer, way};
use crate::rsync::command_line::CommandLine;
use crate::rsync::operands::{Plan, RemoteHost};
use crate::rsync::way::{HELPERS_PATIENCE, Way};
use crate::transfer::help::{Help, Helper, OfferedFile};
use crate::transport::Connect;
use crate::transport::ranges::{Haste, RangeError, Ranges, Written};
use crate::transport::ssh::Ssh;
use crate::transport::ssh::sftp::Sftp;
use protocol::args::Options;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Smaller files are not worth the logins.
pub(super) const LEAST: u64 = 32 << 20;
/// Round trips from when a session begins until its receiver is at the file: a channel, the command, the greeting, the list.
const WAY_THERE: u32 = 4;
/// Bytes per second at which no machine sums a file by the quickest checksum.
const SUMMED: f64 = 5e9;
/// Between the arrivals of two: an sshd turns some away where many have yet to log in.
const ARRIVAL: Duration = Duration::from_millis(30);

/// The length of the file, where one large one is all that is pushed, and SFTP leads to the same place as rsync.
pub(in crate::rsync) fn one_large_file(line: &CommandLine, plan: &Plan) -> Option<u64> {
    let [source] = &plan.sources[..] else { return None };
    let options = &line.options;
    let destination = plan.destination.as_deref().filter(|path| !path.is_empty() && is_simple(path))?;
    let same_place = line.rsync_path.as_deref().is_none_or(is_simple) || destination[0] == b'/';
    let plain = !options.relative && options.files_from.is_none() && !options.compress && line.rsh.is_none();
    // What is there or beside it may be built upon.
    let builds = options.whole_file
        || options.fuzzy > 0
        || options.partial_dir.is_some()
        || !options.alt_dirs.is_empty()
        || options.sparse;
    let meta = std::fs::symlink_metadata(Path::new(OsStr::from_bytes(source))).ok()?;
    let large = meta.is_file() && meta.len() >= LEAST;
    (large && plain && same_place && !builds).then_some(meta.len())
}

/// Whether no shell sees anything in these words but a path.
pub(super) fn is_simple(path: &[u8]) -> bool {
    path.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+=,@%".contains(byte))
}

/// One who has a file written by several.
pub(super) struct RangedPush {
    line: CommandLine,
    plan: Plan,
    version: u8,
    crew: Arc<Crew>,
    ranges: Ranges,
    connections: usize,
    /// Where it is written, once that is known.
    target: OnceLock<PathBuf>,
}

impl RangedPush {
    /// For a file of so many bytes. The options are those of a helper.
    pub(super) fn new(
        line: &CommandLine,
        plan: &Plan,
        version: u8,
        crew: &Arc<Crew>,
        (len, connections): (u64, usize),
    ) -> Self {
        // It is the only one, and has the name that the one session gives it.
        let (partial_dir, base) = (Some(unheard_of()), line.options.clone());
        let options = Options { partial_dir, relative: false, no_implied_dirs: false, ..base };
        let line = CommandLine { options, ..line.clone() };
        let (ranges, target) = (Ranges::new(len, connections).end_first(), OnceLock::new());
        Self { line, plan: plan.clone(), version, crew: crew.clone(), ranges, connections, target }
    }

    /// Waits for the file to be asked for, and brings it.
    pub(super) fn work(self: &Arc<Self>, help: &Help<OfferedFile>) -> Result<(), String> {
        let helper = help.helper();
        for number in 1..self.connections {
            let push = self.clone();
            let come = move || {
                if let Err(why) = push.join(number) {
                    tracing::debug!(number, "A helper leaves: {why}");
                }
            };
            // Without it there is one less.
            let _ = thread::Builder::new().name(format!("range {number}")).spawn(come);
        }
        let done = self.bring(&helper);
        self.ranges.end();
        done
    }

    fn way(&self) -> Result<Ssh, String> {
        let RemoteHost { host, .. } = self.plan.remote.as_ref().ok_or("no host")?;
        Way::ssh(host, HELPERS_PATIENCE).map_err(|failure| failure.text)
    }

    fn ssh(&self) -> Result<Ssh, String> {
        let mut ssh = self.way()?;
        let crew = self.crew.clone();
        ssh.on_answer(Arc::new(move |_| crew.await_admission(HELPERS_PATIENCE)));
        Ok(ssh)
    }

    fn sftp(&self) -> Result<Sftp, String> {
        self.ssh()?.sftp().map_err(|error| error.to_string())
    }

    fn log_in(&self) -> Result<Option<Ssh>, String> {
        let mut ssh = self.ssh()?;
        ssh.login().map_err(|error| error.to_string())?;
        Ok(Some(ssh))
    }

    /// One who writes ranges, once the file is there.
    fn join(&self, number: usize) -> Result<(), String> {
        if !self.crew.pause(ARRIVAL * u32::try_from(number).unwrap_or(0)) {
            return Ok(());
        }
        let mut sftp = self.sftp()?;
        if !self.crew.begins(number, &sftp.closer()) {
            return Ok(());
        }
        let done = self.write_ranges(&mut sftp);
        self.crew.ends(number);
        done
    }

    fn write_ranges(&self, sftp: &mut Sftp) -> Result<(), String> {
        let Some(writer) = self.ranges.join() else { return Ok(()) };
        let (Some(target), Some(source)) = (self.target.get(), self.plan.sources.first()) else { return Ok(()) };
        let write = || {
            let pieces = sftp.pieces(target, None).map_err(RangeError::Far)?;
            let mut source = File::open(OsStr::from_bytes(source)).map_err(RangeError::Here)?;
            writer.write(&mut source, pieces, &mut |_| true)
        };
        write().map(drop).map_err(|error| error.to_string())
    }

    fn bring(&self, helper: &Helper<'_, OfferedFile>) -> Result<(), String> {
        let mut sftp = self.sftp()?;
        if !self.crew.begins(0, &sftp.closer()) {
            return Ok(());
        }
        let round = helper.round();
        let Some((ticket, file)) = round.first() else {
            self.crew.ends(0);
            return Ok(());
        };
        let proven = self.place(&sftp, &file.entry.name).and_then(|target| {
            // The session's connection logs in meanwhile.
            let proven = thread::scope(|scope| {
                let proven = scope.spawn(|| self.prove(helper, &round, self.log_in()?));
                let staged = self.stage(&mut sftp, &target, file).inspect_err(|_| self.ranges.end());
                staged.and(proven.join().unwrap_or_else(|_| Err("a thread of the session panicked".to_owned())))
            });
            // The one session need not wait for what is cleared away.
            helper.finish(&[*ticket]);
            self.clear(&sftp, &target);
            proven
        });
        helper.finish(&[*ticket]);
        self.crew.ends(0);
        proven
    }

    /// Takes away what no session has given its name; by another connection, if this one broke.
    fn clear(&self, sftp: &Sftp, target: &Path) {
        let remove = |sftp: &Sftp| {
            sftp.remove(target)?;
            target.parent().map_or(Ok(()), |dir| sftp.remove_dir(dir))
        };
        if remove(sftp).is_err_and(|error| error.is_of_the_line())
            && let Ok(Ok(other)) = self.way().map(|mut ssh| ssh.sftp())
        {
            let _ = remove(&other);
        }
    }

    /// Where the file is to be written for a session to find it, in a directory that is made for it.
    fn place(&self, sftp: &Sftp, name: &[u8]) -> Result<PathBuf, String> {
        let destination = Path::new(OsStr::from_bytes(self.plan.destination.as_deref().unwrap_or_default()));
        let aside = OsStr::from_bytes(self.line.options.partial_dir.as_deref().unwrap_or_default());
        let name = Path::new(OsStr::from_bytes(name)).file_name().ok_or("no name")?;
        // Where one can be made in it, the destination is a directory.
        let within = destination.join(aside);
        if sftp.new_dir(&within, 0o700).is_ok() {
            return Ok(within.join(name));
        }
        let is_dir = sftp.is_dir(destination).map_err(|error| error.to_string())?;
        let path = if is_dir { destination.join(name) } else { destination.to_owned() };
        let (dir, leaf) = (path.parent().unwrap_or(Path::new("")), path.file_name().ok_or("no name")?);
        let aside = dir.join(aside);
        sftp.new_dir(&aside, 0o700).map_err(|error| format!("{}: {error}", aside.display()))?;
        Ok(aside.join(leaf))
    }

    /// Has it written.
    fn stage(&self, sftp: &mut Sftp, target: &Path, file: &OfferedFile) -> Result<(), String> {
        let opened = sftp.open_to_write(target, Some(0o600));
        let opened = opened.map_err(|error| format!("{}: {error}", target.display()))?;
        let mut source = (file.open)().map_err(|error| error.to_string())?;
        let _ = self.target.set(target.to_owned());
        let written = self.ranges.begin().write(&mut source, sftp.in_pieces(opened), &mut |_| true);
        written.map_err(|error| error.to_string())?;
        match self.ranges.finish() {
            Written::Whole => Ok(()),
            // Whoever broke off may still be writing to it.
            Written::Mended | Written::Partly => Err("those who wrote ranges broke off".to_owned()),
        }
    }

    /// An ordinary session that finds it; begun before the last of it is written.
    fn prove(&self, helper: &Helper<'_, OfferedFile>, round: &[HelpOffer], mut ssh: Option<Ssh>) -> Result<(), String> {
        let round_trip = ssh.as_ref().and_then(Connect::round_trip).unwrap_or_default();
        if !self.ranges.are_nearly_written(Haste { way_there: round_trip * WAY_THERE, summed: SUMMED }) {
            return Ok(());
        }
        let way = way(&self.line, &self.plan, self.version);
        let conveyance = Conveyance::Staged(&self.ranges);
        let hand = Hand { helper, way: &way, crew: &self.crew, number: 0, conveyance };
        let link = way.connect(&mut ssh, &|_| {}).map_err(|failure| failure.text)?;
        // Beside those who write.
        if !self.crew.begins(self.connections, &link.closer) {
            link.closer.close();
            return Ok(());
        }
        helper.count(self.ranges.len(), 0);
        let done = hand.session(link, round);
        self.crew.ends(self.connections);
        done
    }
}

/// A name of a directory that nobody has thought of.
fn unheard_of() -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!(".~parallel-{:x}-{:x}~", std::process::id(), now & 0xffff_ffff).into_bytes()
}
