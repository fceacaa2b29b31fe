//! Further connections that bring files (`--parallel`).
//!
//! The one ordinary session of the command lists, decides, makes directories and links, deletes, tells and counts. Of the files
//! that it is asked for whole it puts up what others may bring. Each helper has a connection of its own, and on it sessions of
//! its own with lists of such files alone; what the far end has acknowledged of them, the one session need not send any more.
//! A helper whose connection fails is gone, and what it had is sent by the one session, as if it had never been put up.

mod crew;
mod hand;
mod pulled;
mod ranged;

use super::command_line::{CommandLine, Parallel};
use super::operands::{Plan, RemoteHost};
use crate::transfer::help::{Help, OfferedFile};
use crate::transfer::stager::Stager;
use crate::transport::ranges::connections_worth;
use crew::Crew;
use hand::{Conveyance, Hand, way};
use protocol::args::{ItemDetail, Options};
use pulled::RangedPull;
use ranged::RangedPush;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Helpers that a file takes that goes in ranges: of a push two who write, and one who proves it.
const FOR_RANGES: usize = 3;
/// How long sessions may take to end once there is nothing more to bring.
const GOODBYE: Duration = Duration::from_secs(10);

/// Why one connection has to do, as in a `pull`; `None` where others may help.
pub(super) fn why_alone(line: &CommandLine, plan: &Plan, pull: bool, version: u8) -> Option<&'static str> {
    let options = &line.options;
    let batch = &line.batch;
    let reasons = [
        (plan.remote.is_none(), "both ends are on this machine"),
        (plan.remote.as_ref().is_some_and(|remote| remote.daemon), "a daemon counts its connections"),
        (pull && !pulled::may_be_one_file(line, plan), "what is pulled is not one new file"),
        (version < 30, "the far end speaks an old protocol"),
        (options.list_only || options.dry_run, "nothing is transferred"),
        (batch.read.is_some() || batch.write.is_some() || batch.only_write.is_some(), "a batch is of one session"),
        (options.append > 0 || options.inplace || options.write_devices, "files are written where they stand"),
        (options.copy_devices, "devices are read (--copy-devices)"),
        (options.delay_updates, "--delay-updates puts all files in place at once"),
        (options.partial_dir.is_some() && options.whole_file, "--partial-dir is given with --whole-file"),
        (options.remove_source_files, "--remove-source-files is given"),
        (options.xattrs > 0, "extended attributes are kept (--xattrs)"),
        (options.bwlimit.is_some(), "the rate is limited (--bwlimit)"),
        (options.charset.is_some(), "names are converted (--iconv)"),
        (options.copy_as.is_some(), "--copy-as is given"),
    ];
    reasons.into_iter().find(|(holds, _)| *holds).map(|(_, why)| why)
}

/// Those who reach the far end while the session of the command logs in, for one large file.
pub(super) enum EarlyHelpers {
    Push(Helpers),
    Pull(Pullers),
}

impl EarlyHelpers {
    /// Calls as many as the command line asks for, or a link with this round trip is worth. It is of a push, or of a `pull`.
    pub(super) fn call(line: &CommandLine, plan: &Plan, pull: bool, version: u8, round_trip: Duration) -> Option<Self> {
        let others = others_worth(line, round_trip)?;
        if why_alone(line, plan, pull, version).is_some() {
            return None;
        }
        match pull {
            true => call_to_pull(plan, others).map(Self::Pull),
            false => Helpers::call_for_one(line, plan, version, others).map(Self::Push),
        }
    }

    /// The session of the command has logged in, so they may.
    pub(super) fn admit(&self) {
        match self {
            Self::Push(helpers) => helpers.crew.admit(),
            Self::Pull(pullers) => pullers.0.admit(),
        }
    }
}

/// How many connections beside one the command line asks for, or a link with this round trip is worth.
pub(super) fn others_worth(line: &CommandLine, round_trip: Duration) -> Option<usize> {
    let asked = match line.parallel? {
        Parallel::Auto => connections_worth(u64::MAX, round_trip),
        Parallel::Connections(count) => usize::from(count),
    };
    asked.checked_sub(1).filter(|&others| others > 0)
}

/// Calls so many that read ranges of what is pulled, where they are enough. They log in once they are admitted.
fn call_to_pull(plan: &Plan, count: usize) -> Option<Pullers> {
    let RemoteHost { host, .. } = plan.remote.as_ref().filter(|_| count >= FOR_RANGES)?;
    Some(Pullers(RangedPull::call(host, plan, count)))
}

/// Those who read ranges of what is pulled.
pub(super) struct Pullers(Arc<RangedPull>);

impl Pullers {
    /// What brings the file to the session.
    pub(super) fn stager(&self) -> Arc<dyn Stager> {
        self.0.clone()
    }

    /// Lets them go; gives the bytes that they have read.
    pub(super) fn dismiss(&self) -> u64 {
        self.0.dismiss()
    }
}

impl Drop for Pullers {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

/// Those who help.
pub(super) struct Helpers {
    help: Arc<Help<OfferedFile>>,
    crew: Arc<Crew>,
}

impl Helpers {
    /// Has so many log in.
    pub(super) fn call(line: &CommandLine, plan: &Plan, version: u8, count: usize) -> Self {
        let one = Self::call_for_one(line, plan, version, count).inspect(|helpers| helpers.crew.admit());
        one.unwrap_or_else(|| Self::call_each(line, plan, version, count))
    }

    /// Calls so many where one large file is all that is pushed, and they are enough. They log in once they are admitted.
    fn call_for_one(line: &CommandLine, plan: &Plan, version: u8, count: usize) -> Option<Self> {
        let len = ranged::one_large_file(line, plan).filter(|_| count >= FOR_RANGES)?;
        let crew = Arc::new(Crew::default());
        // One connection is for the session that proves it.
        let push = Arc::new(RangedPush::new(&of_helpers(line), plan, version, &crew, (len, count - 1)));
        let help = Arc::new(Help::of_a_lone_file());
        let offers = help.clone();
        begin(&help, "ranges", move || push.work(&offers));
        Some(Self { help, crew })
    }

    fn call_each(line: &CommandLine, plan: &Plan, version: u8, count: usize) -> Self {
        let (help, crew) = (Arc::new(Help::new(count)), Arc::new(Crew::default()));
        let line = of_helpers(line);
        for number in 0..count {
            let (line, plan, offers, crew) = (line.clone(), plan.clone(), help.clone(), crew.clone());
            begin(&help, "helper", move || {
                let (helper, way) = (&offers.helper(), &way(&line, &plan, version));
                Hand { helper, way, crew: &crew, number, conveyance: Conveyance::Session }.work()
            });
        }
        Self { help, crew }
    }

    /// What is put up for them.
    pub(super) fn help(&self) -> Arc<Help<OfferedFile>> {
        self.help.clone()
    }

    /// Lets them go, as there is nothing more to bring; sessions may end in order. Gives the bytes that they have written
    /// and read.
    pub(super) fn dismiss(self) -> (u64, u64) {
        self.help.close();
        self.crew.dismiss(GOODBYE);
        self.help.moved()
    }
}

/// The command line of a session that brings nothing but files.
fn of_helpers(line: &CommandLine) -> CommandLine {
    CommandLine { options: options(&line.options), peer_words: Vec::new(), ..line.clone() }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.help.close();
        self.crew.break_off();
    }
}

/// Has one work in a thread.
fn begin(help: &Arc<Help<OfferedFile>>, name: &str, work: impl FnOnce() -> Result<(), String> + Send + 'static) {
    let body = move || {
        if let Err(why) = work() {
            tracing::debug!("A helper leaves: {why}");
        }
    };
    if thread::Builder::new().name(name.into()).spawn(body).is_err() {
        drop(help.helper());
    }
}

/// The options of a session that brings nothing but files, and says of each that it is there.
fn options(options: &Options) -> Options {
    Options {
        relative: true,
        no_implied_dirs: true,
        omit_dir_times: true,
        remove_source_files: true,
        recurse: false,
        dirs: false,
        mkpath: false,
        hard_links: false,
        prune_empty_dirs: false,
        cvs_exclude: false,
        delete: None,
        delete_excluded: false,
        delete_missing_args: false,
        ignore_missing_args: false,
        max_delete: None,
        force: false,
        files_from: None,
        fuzzy: 0,
        // What one that lags behind has left could take the place of the file that has come by then.
        partial: false,
        partial_dir: None,
        verbose: 0,
        quiet: false,
        stats: false,
        detail: ItemDetail::None,
        info: Default::default(),
        debug: Default::default(),
        ..options.clone()
    }
}
