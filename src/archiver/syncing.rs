//! Copies that are to outlast a power cut at the far end, as far as its program leaves that open.
//!
//! Stock rsync syncs the bytes of a file (`--fsync`) before it gives it its name, and never the directory that has the name:
//! the last ones are gone with the power. So a session's proofs wait for `sync`, which is run there once for all of them.

use super::arguments::base;
use super::far_end::{FarProgram, first_line};
use super::flight::Job;
use super::terms::SessionTerms;
use super::verdict::{Carried, Verdict};
use crate::transfer::TransferError;
use crate::transport::{Connect, ConnectError};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;

/// Bytes of paths in one command.
const COMMAND_MOST: usize = 64 * 1024;

/// Has the far end sync what a session has brought.
#[derive(Debug, Default)]
pub(super) struct FarSync {
    /// It does not, and that was told.
    refused: bool,
}

impl FarSync {
    /// Sees to it that what is proven of a session is on the disk, by name; what may not be is proven no more.
    pub(super) fn settle(
        &mut self,
        jobs: &[Job],
        carried: &mut Carried,
        (program, connect): (FarProgram, &mut dyn Connect),
        terms: &SessionTerms,
    ) {
        let base = base(&terms.settings.data_dir);
        let paths = paths_of(jobs, &carried.verdicts, program, &base);
        if paths.is_empty() || self.refused {
            return;
        }
        // A connection that was ended because all is to end is not made anew.
        let left = carried.ended.is_err() && terms.stopping();
        let why = match left {
            true => "the work is to end".to_owned(),
            false => match self.sync(&paths, connect, terms) {
                Ok(()) => return,
                Err(error) => terms.trouble(&error),
            },
        };
        for verdict in carried.verdicts.iter_mut().filter(|verdict| matches!(verdict, Verdict::Proven(..))) {
            *verdict = Verdict::Open;
        }
        if carried.ended.is_ok() {
            carried.ended = Err(TransferError::Link(io::Error::other(why)));
        }
    }

    /// Whoever is reached next may be another.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn sync(
        &mut self,
        paths: &BTreeSet<String>,
        connect: &mut dyn Connect,
        terms: &SessionTerms,
    ) -> Result<(), ConnectError> {
        for words in commands(paths) {
            let Err(why) = run(&words, connect, terms)? else { continue };
            // What was there a moment ago may be elsewhere by now; then everything is synced.
            if let Err(all) = run(&["sync".into()], connect, terms)? {
                self.refused = true;
                let host = connect.describe();
                tracing::warn!(
                    host,
                    "The last copies may be lost if it loses power: sync cannot be run there ({why}; {all})"
                );
            }
            break;
        }
        Ok(())
    }
}

/// Runs a command; the inner error is what it said of its failure.
fn run(
    words: &[OsString],
    connect: &mut dyn Connect,
    terms: &SessionTerms,
) -> Result<Result<(), String>, ConnectError> {
    let mut guard = None;
    let output = connect.run_until(words, &mut |closer| guard = Some(terms.guard(closer)))?;
    match output.status {
        Some(0) => Ok(Ok(())),
        Some(status) => Ok(Err(format!("exit status {status}: {}", first_line(&output)))),
        None => Err(ConnectError::Lost { host: connect.describe(), why: "sync did not come to its end there".into() }),
    }
}

/// What is to be synced of a session: the directories on the way to what is proven, and such files as nobody has synced.
fn paths_of(jobs: &[Job], verdicts: &[Verdict], program: FarProgram, base: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (job, verdict) in jobs.iter().zip(verdicts) {
        let Verdict::Proven(sent, _) = verdict else { continue };
        let name = job.place.variant(job.variant);
        paths.extend(name.match_indices('/').map(|(slash, _)| format!("{base}/{}", &name[..slash])));
        paths.insert(format!("{base}/."));
        // Who brought what was found there is not known.
        if sent.literal_bytes == 0 || !program.syncs() {
            paths.insert(format!("{base}/{name}"));
        }
    }
    paths
}

/// The commands that sync these. Releases of `sync` that take no paths sync everything.
fn commands(paths: &BTreeSet<String>) -> Vec<Vec<OsString>> {
    let mut commands: Vec<Vec<OsString>> = Vec::new();
    let mut bytes = COMMAND_MOST;
    for path in paths {
        if bytes + path.len() > COMMAND_MOST {
            commands.push(vec!["sync".into()]);
            bytes = 0;
        }
        bytes += path.len() + 1;
        if let Some(words) = commands.last_mut() {
            words.push(path.into());
        }
    }
    commands
}
