//! Carries batches to or from one far end, each in one session: what of the far end outlasts a session is known here.

use super::acknowledging::Acknowledging;
use super::compression::{Coding, CompressionTuner};
use super::control::Control;
use super::far_end::{self, FarFolders, FarProgram};
use super::flight::Job;
use super::folders::MadeFolders;
use super::results::Results;
use super::retry::with_words;
use super::road::{FoundProgram, Road, Roads};
use super::sessions::SessionPermits;
use super::sftp::Interrupted;
use super::shared_file::{SharedFile, SharedFiles, Sharing};
use super::syncing::FarSync;
use super::terms::{NamesSynced, SessionTerms};
use super::unfinished::{self, Unfinished};
use super::verdict::Carried;
use super::{ArchiverSettings, Direction, pull, push, sftp};
use crate::local::Local;
use crate::transport::ranges::connections_worth;
use crate::transport::{Connect, ConnectError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long a far end's program waits for a session: no longer than an idle connection goes unwatched.
const AHEAD_FOR: Duration = Duration::from_secs(30);

/// A login whose answers took so long was over a long link, whatever else the machine does.
const LONG: Duration = Duration::from_millis(50);

/// The round trip of the link is known: so many sessions may work as it takes to fill a fast one.
fn know_link(permits: &SessionPermits, round_trip: Option<Duration>) {
    if let Some(round_trip) = round_trip {
        permits.begin_with(connections_worth(u64::MAX, round_trip));
    }
}

pub(super) struct Carrier {
    /// The number of its sessions, of which there is one at a time.
    number: usize,
    connect: Box<dyn Connect>,
    settings: Arc<ArchiverSettings>,
    results: Results,
    control: Control,
    permits: Arc<SessionPermits>,
    roads: Roads,
    /// Whether compression pays.
    compression: CompressionTuner,
    folders: MadeFolders,
    syncing: FarSync,
    acknowledging: Acknowledging,
    sharing: Sharing,
    /// Bytes of the largest file of the batch at work that several may write; 0 for none.
    largest: Arc<AtomicU64>,
    interrupted: Interrupted,
    /// The last session went well, so that the next may be prepared.
    went_well: bool,
}

impl Carrier {
    pub(super) fn new(
        number: usize,
        connect: Box<dyn Connect>,
        results: Results,
        control: Control,
        (shared_files, found, permits): (Arc<SharedFiles>, FoundProgram, Arc<SessionPermits>),
    ) -> Self {
        let mut connect = connect;
        let largest = Arc::new(AtomicU64::new(0));
        let (answered, files, large) = (permits.clone(), shared_files.clone(), largest.clone());
        connect.on_answer(Arc::new(move |round_trip| {
            if number == 0 && round_trip >= LONG {
                answered.set_out(connections_worth(u64::MAX, round_trip));
                files.expect(large.load(Relaxed), round_trip);
            }
            answered.may_log_in(number)
        }));
        let (roads, compression, interrupted) =
            (Roads::new(found), CompressionTuner::default(), Interrupted::default());
        Self {
            number,
            connect,
            settings: results.settings.clone(),
            results,
            control,
            permits,
            roads,
            compression,
            folders: MadeFolders::default(),
            syncing: FarSync::default(),
            acknowledging: Acknowledging::default(),
            sharing: Sharing::new(shared_files),
            largest,
            interrupted,
            went_well: false,
        }
    }

    /// The far end's name.
    pub(super) fn describe(&self) -> String {
        self.connect.describe()
    }

    fn terms(&self, coding: Coding) -> SessionTerms {
        SessionTerms::new(self.number, &self.results, &self.control, coding)
    }

    /// Carries a batch, all of whose jobs are of one variant. The error says why there was no session, or could be none.
    pub(super) fn carry(&mut self, jobs: &[Job]) -> Result<Carried, String> {
        self.went_well = false;
        let are_new = jobs.iter().all(|job| job.attempts == 0 && job.headway.is_new());
        jobs.iter().for_each(|job| job.headway.begin());
        let coding = self.compression.next(self.settings.compress);
        let mut terms = self.terms(coding);
        let connect = self.connect.as_mut();
        let permits = &self.permits;
        let largest = jobs.iter().map(|job| job.bytes).max().unwrap_or_default();
        let is_shared = self.sharing.may_be_shared(largest, &self.settings);
        self.largest.store(if is_shared { largest } else { 0 }, Relaxed);
        if is_shared {
            connect.sftp_ahead(LONG);
        }
        let login = connect.login().inspect_err(|error| {
            permits.kept_out(self.number);
            if matches!(
                error,
                ConnectError::Unreachable { .. } | ConnectError::Timeout { .. } | ConnectError::Lost { .. }
            ) {
                permits.found().down(&error.to_string());
            }
        });
        login.map_err(|error| terms.trouble(&error))?;
        // The others may log in while we look around.
        know_link(permits, connect.round_trip().filter(|&round_trip| round_trip >= LONG));
        permits.logged_in();
        let road = self.roads.find(connect, &self.settings, self.control.progress());
        let road = road.map_err(|error| terms.trouble(&error))?;
        // Not before several answers have come: one alone may have taken long for reasons of its own.
        know_link(permits, connect.round_trip());
        if let (Road::Push(_), false) = (&road, jobs.is_empty()) {
            self.folders.make(jobs, connect, &terms);
        }
        if let (Road::Push(Some(FarProgram::Stock(_))), true) = (&road, are_new) {
            terms.acknowledged = self.acknowledging.of(jobs, connect.round_trip().unwrap_or_default());
        }
        let carried = match road {
            Road::Push(Some(program @ FarProgram::Stock(_))) => {
                let program = *program;
                terms.names_synced = NamesSynced::Afterwards;
                push::carry(jobs, connect, Some(program), &mut self.sharing, &terms).map(|mut carried| {
                    self.syncing.settle(jobs, &mut carried, (program, connect), &terms);
                    carried
                })
            }
            Road::Push(far_end) => push::carry(jobs, connect, *far_end, &mut self.sharing, &terms),
            Road::Pull => pull::carry(jobs, connect, &mut self.sharing, &terms),
            Road::Sftp(session) => sftp::carry(jobs, session, &mut self.interrupted, &terms),
        };
        // A connection for files that were not shared after all.
        self.connect.leave_ahead();
        let carried = carried?;
        self.acknowledging.learn(terms.acknowledged, &carried);
        if let (Some(took), Ok(_)) = (carried.took, &carried.ended) {
            self.compression.learn(coding, terms.moved(), took);
            self.sharing.learn(terms.moved(), took, &self.settings);
        }
        self.went_well = carried.ended.is_ok();
        if self.went_well {
            self.permits.found().through();
        }
        Ok(carried)
    }

    /// A batch is done: has the far end's program started for the next one, so that its rows need not wait for that.
    pub(super) fn prepare(&mut self) {
        let ends = self.settings.once || self.control.stop().is_stopped();
        if std::mem::take(&mut self.went_well) && !ends && self.roads.pushes() {
            self.connect.open_ahead();
        }
    }

    /// Waits until a program that was started ahead has waited for long enough.
    pub(super) async fn ahead_lapsed(&self) {
        match self.connect.ahead_since() {
            Some(since) => tokio::time::sleep_until((since + AHEAD_FOR).into()).await,
            None => std::future::pending().await,
        }
    }

    /// Ends it.
    pub(super) fn leave_ahead(&mut self) {
        self.connect.leave_ahead();
    }

    /// Waits until a file is expected that this worker will help with.
    pub(super) async fn expected(&self) {
        self.sharing.expected(self.number).await;
    }

    /// Connects for it.
    pub(super) fn set_out(&mut self) -> Result<(), ConnectError> {
        self.sharing.set_out(self.connect.as_mut())
    }

    /// Waits for a file of another worker that help is wanted for.
    pub(super) async fn help_wanted(&self) -> Arc<SharedFile> {
        self.sharing.help_wanted(self.number).await
    }

    /// Waits until a connection that served such files is to be left.
    pub(super) async fn sharing_lapsed(&self) {
        self.sharing.lapsed().await;
    }

    /// Leaves it.
    pub(super) fn leave_sharing(&mut self) {
        self.sharing.leave();
    }

    /// Helps with the file of another worker; the error says why no connection for that is to be had.
    pub(super) fn help(&mut self, shared: &SharedFile) -> Result<(), ConnectError> {
        let terms = self.terms(Coding::Plain);
        self.sharing.help(shared, self.connect.as_mut(), &terms)
    }

    /// What keeps the archive's base directory from taking anything, if something does.
    pub(super) fn base_trouble(&mut self) -> Option<String> {
        let base = &self.settings.data_dir;
        match self.settings.direction {
            // Those who write by SFTP have looked already.
            Direction::Push if self.roads.sftp().is_some() => None,
            Direction::Push => far_end::base_trouble(self.connect.as_mut(), base),
            Direction::Pull => far_end::base_trouble(&mut Local::default(), base),
        }
    }

    /// What keeps the far end's program from a session without any file, if something does.
    pub(super) fn program_trouble(&mut self) -> Option<String> {
        match self.carry(&[]) {
            Ok(Carried { ended: Ok(_), .. }) => None,
            Ok(Carried { ended: Err(error), words, .. }) => Some(with_words(&error, &words)),
            Err(why) => Some(why),
        }
    }

    /// What of the two keeps all files from being carried.
    pub(super) fn trouble(&mut self) -> Option<String> {
        self.base_trouble().or_else(|| self.program_trouble())
    }

    /// The folders that pulled files come from.
    pub(super) fn far_folders(&mut self) -> FarFolders<'_> {
        FarFolders::new(self.connect.as_mut())
    }

    /// Removes unfinished files. One that cannot be reached now stays; it is in nobody's way.
    pub(super) fn clear(&mut self, files: &[Unfinished]) {
        if files.is_empty() {
            return;
        }
        let (data_dir, aside) = (&self.settings.data_dir, &self.settings.aside);
        if self.settings.direction == Direction::Pull {
            return unfinished::clear_here(data_dir, aside, files);
        }
        let paths: Vec<_> = files.iter().map(|file| Path::new(data_dir).join(file.kept(aside))).collect();
        match self.roads.sftp() {
            Some(sftp) => {
                let lost =
                    paths.iter().any(|path| unfinished::remove(sftp, path).is_err_and(|error| error.is_of_the_line()));
                if lost {
                    self.roads.forget();
                    self.folders.forget();
                }
            }
            None => unfinished::clear_there(self.connect.as_mut(), paths),
        }
    }

    /// The connection is not what it was.
    pub(super) fn forget_road(&mut self) {
        self.roads.forget();
        self.folders.forget();
        self.syncing.forget();
    }

    /// Ends the connection, for a while.
    pub(super) fn disconnect(&mut self) {
        self.sharing.leave();
        self.connect.disconnect();
        self.roads.leave();
    }

    /// Ends the connection for good.
    pub(super) fn part(mut self) {
        self.roads.part(self.connect.as_mut(), &self.settings);
    }
}
