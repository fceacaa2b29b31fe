//! Further connections that bring files (`--parallel`).
//!
//! The one ordinary session of the command lists, decides, makes directories and links, deletes, tells and counts. Of the files
//! that it is asked for whole it puts up what others may bring. Each helper has a connection of its own, and on it sessions of
//! its own with lists of such files alone; what the far end has acknowledged of them, the one session need not send any more.
//! A helper whose connection fails is gone, and what it had is sent by the one session, as if it had never been put up.

mod crew;
mod hand;
mod ranged;

use super::command_line::CommandLine;
use super::operands::Plan;
use crate::transfer::help::{Help, OfferedFile};
use crate::transport::ranges::connections_worth;
use crew::Crew;
use hand::{Conveyance, Hand, way};
use protocol::args::{ItemDetail, Options};
use ranged::RangedPush;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Helpers that a file takes that is written in ranges: two who write, and one who proves it.
const FOR_RANGES: usize = 3;
/// How long sessions may take to end once there is nothing more to bring.
const GOODBYE: Duration = Duration::from_secs(10);

/// How many connections a link with this round trip is worth.
pub(super) fn worth(round_trip: Duration) -> usize {
    connections_worth(u64::MAX, round_trip)
}

/// Why one connection has to do, as in a `pull`; `None` where others may help.
pub(super) fn why_alone(line: &CommandLine, plan: &Plan, pull: bool, version: u8) -> Option<&'static str> {
    let options = &line.options;
    let batch = &line.batch;
    let reasons = [
        (plan.remote.is_none(), "both ends are on this machine"),
        (plan.remote.as_ref().is_some_and(|remote| remote.daemon), "a daemon counts its connections"),
        (pull, "files are pulled"),
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

/// Those who help.
pub(super) struct Helpers {
    help: Arc<Help<OfferedFile>>,
    crew: Arc<Crew>,
}

impl Helpers {
    /// Has so many log in.
    pub(super) fn call(line: &CommandLine, plan: &Plan, version: u8, count: usize) -> Self {
        let crew = Arc::new(Crew::default());
        let one = ranged::one_large_file(line, plan).filter(|_| count >= FOR_RANGES);
        let line = CommandLine { options: options(&line.options), peer_words: Vec::new(), ..line.clone() };
        let Some(len) = one else { return Self::call_each(&line, plan, version, (count, crew)) };
        // One connection is for the session that proves it.
        let push = Arc::new(RangedPush::new(&line, plan, version, &crew, (len, count - 1)));
        let help = Arc::new(Help::of_a_lone_file());
        let offers = help.clone();
        begin(&help, "ranges", move || push.work(&offers));
        Self { help, crew }
    }

    fn call_each(line: &CommandLine, plan: &Plan, version: u8, (count, crew): (usize, Arc<Crew>)) -> Self {
        let help = Arc::new(Help::new(count));
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
