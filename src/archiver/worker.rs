//! A worker: one thread, one session, batch after batch.

use super::batch::{Demands, Fate, Flown, Manner, fly, server_args};
use super::crew::Crew;
use super::deliver::{Delivery, ReadBack};
use super::flight::Job;
use super::origins::{self, Look, Origin, Origins};
use super::patience::PatientFile;
use super::ranges::{Board, Laid, Split};
use super::resume::{self, Strays};
use super::retry::{Backoff, ONCE_PATIENCE, blames_the_link, no_room, with_words, words_about};
use super::road::{self, Road};
use super::squeeze::Squeeze;
use super::stop::Stop;
use super::{Direction, Settings, Sources, pull, recorder::Result as JobResult};
use crate::catalog::Outcome;
use crate::manifest::Entry;
use crate::status::{Failure, Progress};
use crate::transfer::TransferError;
use crate::transfer::dest::Dest;
use crate::transfer::digest::each_piece;
use crate::transfer::local::Local;
use crate::transfer::send::{Digest, Sent};
use crate::transport::{Connect, ConnectError};
use protocol::checksum::{Checksum, FileHasher};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};

/// Numbered variants of a taken name that are tried.
const VARIANTS_MOST: u32 = 1000;
/// Sessions that one file may break, with the far end in order otherwise, before the file is to blame.
const BREAKS_MOST: u32 = 3;
/// Pause before a file alone is tried again that has broken its session.
const BREAK_PAUSE: Duration = Duration::from_millis(200);
/// Folders of one batch that the far end is asked for.
const FOLDERS_ASKED: usize = 16;
/// The first stock release with `--fsync`.
const FSYNC_SINCE: (u32, u32, u32) = (3, 2, 4);
/// How long the far end's answer about its version is believed.
const VERSION_LASTS: Duration = Duration::from_secs(60);
/// How long a detour is taken before the straight road is looked for again.
const DETOUR_LASTS: Duration = Duration::from_secs(600);

pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) connect: Box<dyn Connect>,
    pub(super) crew: Arc<Crew>,
    pub(super) board: Arc<Board>,
    pub(super) strays: Arc<Strays>,
    pub(super) origins: Arc<Origins>,
    pub(super) settings: Arc<Settings>,
    pub(super) path_limit: usize,
    pub(super) jobs: Arc<Mutex<mpsc::Receiver<Vec<Job>>>>,
    pub(super) results: mpsc::Sender<JobResult>,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: Stop,
    pub(super) runtime: tokio::runtime::Handle,
    /// The road to the far end, and when it was found.
    pub(super) road: Option<(Road, Instant)>,
    /// Whether compression pays.
    pub(super) squeeze: Squeeze,
    /// Until when nobody is helped with a large file, since that did not work.
    pub(super) no_help_before: Option<Instant>,
    /// Files of no use that a broken connection left at the far end, where we write them ourselves.
    pub(super) leftovers: Vec<PathBuf>,
    /// A file of the far end that a broken connection has left half read.
    pub(super) read_back: Option<ReadBack>,
    /// Where our own program stands at the far end, if it was uploaded.
    pub(super) uploaded: Option<PathBuf>,
}

/// What a worker does next.
enum Next {
    /// A batch, or nothing ever again.
    Jobs(Option<Vec<Job>>),
    /// A large file of another worker.
    Help(Arc<Split>),
    /// It has lost its seat.
    Leave,
}

/// Work that is left of a batch.
struct Rest {
    jobs: Vec<Job>,
    /// How many sessions it has broken.
    breaks: u32,
}

impl Worker {
    /// Works until the queue is closed.
    pub(super) fn run(mut self) {
        let mut backoff = Backoff::new();
        loop {
            let next = self.runtime.block_on(async {
                self.crew.seated(self.number).await;
                tokio::select! {
                    next = async { self.jobs.lock().await.recv().await } => Next::Jobs(next),
                    split = self.call_for_help() => Next::Help(split),
                    () = self.crew.dismissed(self.number) => Next::Leave,
                }
            });
            let jobs = match next {
                Next::Jobs(Some(jobs)) => jobs,
                Next::Jobs(None) => return self.part(),
                Next::Help(split) => {
                    self.help(&split);
                    continue;
                }
                Next::Leave => {
                    self.connect.disconnect();
                    self.road = None;
                    continue;
                }
            };
            let mut rests = VecDeque::from([Rest { jobs, breaks: 0 }]);
            while let Some(rest) = rests.pop_front() {
                self.work(rest, &mut rests, &mut backoff);
                self.sweep();
            }
        }
    }

    /// One session over what is left; puts what is still left then back.
    fn work(&mut self, rest: Rest, rests: &mut VecDeque<Rest>, backoff: &mut Backoff) {
        if self.stop.is_stopped() || rest.jobs.is_empty() {
            return self.leave(rest.jobs);
        }
        let Rest { mut jobs, breaks } = rest;
        // Unfinished files of one session are kept in directories of one name.
        let variant = jobs.first().map_or(0, |job| job.variant);
        let others: Vec<_> = jobs.extract_if(.., |job| job.variant != variant).collect();
        if !others.is_empty() {
            rests.push_front(Rest { jobs: others, breaks });
        }
        self.strays.take_up(&jobs);
        let since = Instant::now();
        let flown = match self.session(&jobs) {
            Ok(flown) => flown,
            Err(why) => return self.wait_for_link(Rest { jobs, breaks }, &why, rests, backoff),
        };
        let Flown { fates, words, ended } = flown;
        if let Err(TransferError::Stalled(_)) = &ended {
            self.progress.timed_out();
        }
        let full = no_room(&words).map(str::to_owned);
        let listed = jobs.len();
        // Only then does it matter which files were there.
        let sources =
            if self.origins.in_trouble() { jobs.iter().map(|job| job.source.clone()).collect() } else { Vec::new() };
        let mut failed = Vec::new();
        let mut left = Vec::new();
        let mut refused = Vec::new();
        for (mut job, fate) in jobs.into_iter().zip(fates) {
            match fate {
                Fate::Proven(_, digest) => {
                    backoff.reset();
                    let digest = digest.or(job.way.arrived);
                    let name = job.place.variant(job.variant);
                    let path = self.archived_path(&name);
                    let entry = self.entry(&job, name, digest);
                    let md5 = job.md5;
                    self.give(JobResult { job, outcome: Outcome::Copied { path, md5 }, entry });
                }
                Fate::Arrived(digest) => {
                    job.way.arrived = digest;
                    left.push(job);
                }
                Fate::Failed(kind, why) => failed.push((job, kind, why)),
                Fate::Taken => {
                    job.variant += 1;
                    let path = self.archived_path(&job.place.variant(job.variant));
                    if path.chars().count() > self.path_limit {
                        self.fail(job, Failure::Row, too_long(&path, self.path_limit));
                    } else if job.variant > VARIANTS_MOST {
                        self.fail(
                            job,
                            Failure::Refused,
                            format!("the name and its first {VARIANTS_MOST} variants are taken"),
                        );
                    } else {
                        left.push(job);
                    }
                }
                Fate::Refused if full.is_some() => left.push(job),
                Fate::Refused => refused.push(job),
                Fate::Open => left.push(job),
            }
        }
        self.blame(failed, listed, (sources, since));
        if !refused.is_empty() {
            // A base that takes nothing at all is no file's fault.
            match self.base_trouble() {
                Some(why) => {
                    left.extend(refused);
                    return self.wait_for_link(Rest { jobs: left, breaks }, &why, rests, backoff);
                }
                None => {
                    for job in refused {
                        let name = job.place.variant(job.variant);
                        let who = match self.settings.direction {
                            Direction::Push => "the storage node refused it",
                            Direction::Pull => "it cannot be stored here",
                        };
                        self.fail(job, Failure::Refused, format!("{who}: {}", words_about(&words, &name)));
                    }
                }
            }
        }
        if let (Some(why), false) = (&full, left.is_empty()) {
            self.strays.make_room(left.iter());
            return self.wait_for_link(Rest { jobs: left, breaks }, why, rests, backoff);
        }
        match ended {
            Ok(_) => rests.push_back(Rest { jobs: left, breaks: 0 }),
            // Whatever broke it, the next one goes on from there, and at once; but a link on which nothing moved for so long is in
            // trouble, however far it came before.
            Err(error) if !matches!(error, TransferError::Stalled(_)) && resume::advance(&mut left) => {
                tracing::debug!(host = self.connect.describe(), "{error}; going on");
                if blames_the_link(&error) {
                    self.progress.link_trouble(&error.to_string());
                }
                backoff.reset();
                self.road = None;
                rests.push_front(Rest { jobs: left, breaks: 0 });
            }
            Err(error) if blames_the_link(&error) => {
                let breaks = if left.len() < listed { 0 } else { breaks + 1 };
                self.after_loss(Rest { jobs: left, breaks }, &with_words(&error, &words), rests, backoff);
            }
            Err(error) => {
                let why = with_words(&error, &words);
                self.after_break(Rest { jobs: left, breaks: breaks + 1 }, &why, rests, backoff);
            }
        }
    }

    /// A session broke, and not for want of a link. If the far end is in order, some file breaks it: find out which.
    fn after_break(&mut self, rest: Rest, error: &str, rests: &mut VecDeque<Rest>, backoff: &mut Backoff) {
        if let Some(why) = self.base_trouble().or_else(|| self.program_trouble()) {
            return self.wait_for_link(rest, &why, rests, backoff);
        }
        backoff.reset();
        let Rest { mut jobs, breaks } = rest;
        match jobs.len() {
            0 => {}
            1 if breaks >= BREAKS_MOST => {
                if let Some(job) = jobs.pop() {
                    self.fail(job, Failure::Refused, format!("the far end's rsync breaks off at it: {error}"));
                }
            }
            1 => {
                // Whatever else there is goes first.
                if rests.is_empty() {
                    self.stop.wait(BREAK_PAUSE);
                }
                rests.push_back(Rest { jobs, breaks });
            }
            several => {
                let later = jobs.split_off(several / 2);
                rests.push_back(Rest { jobs, breaks });
                rests.push_back(Rest { jobs: later, breaks });
            }
        }
    }

    /// The link went away in the middle. Some file may be what kills it, time and again; then the others must get past it,
    /// and still nothing is counted against it.
    fn after_loss(&mut self, rest: Rest, error: &str, rests: &mut VecDeque<Rest>, backoff: &mut Backoff) {
        let Rest { mut jobs, breaks } = rest;
        if breaks < BREAKS_MOST || self.base_trouble().or_else(|| self.program_trouble()).is_some() {
            return self.wait_for_link(Rest { jobs, breaks }, error, rests, backoff);
        }
        match jobs.len() {
            0 => {}
            1 => {
                // Its turn comes again with a later pass.
                self.pause(error, backoff);
                self.leave(jobs);
            }
            several => {
                let later = jobs.split_off(several / 2);
                rests.extend([jobs, later].map(|jobs| Rest { jobs, breaks }));
            }
        }
    }

    fn session(&mut self, jobs: &[Job]) -> Result<Flown, String> {
        let stop = self.stop.clone();
        let stopping = || stop.is_stopped();
        let (progress, number) = (self.progress.clone(), self.number);
        let timeouts = progress.clone();
        let trouble = |error: ConnectError| {
            if let ConnectError::Timeout { .. } = &error {
                timeouts.timed_out();
            }
            error.to_string()
        };
        let moved = Cell::new(0);
        // Bytes that several wrote were counted then.
        let counts = Cell::new(true);
        let progress = |bytes| {
            moved.set(moved.get() + bytes);
            if counts.get() {
                progress.read(number, bytes);
            }
        };
        let settings = self.settings.clone();
        let squeezed = self.squeeze.next(settings.compress);
        let confirmed = self.progress.clone();
        let confirmed = |sent: &Sent, in_place| confirmed.confirmed(sent, in_place);
        let manner = Manner {
            chmod: settings.chmod.as_ref(),
            sources: &settings.sources,
            squeezed,
            digests: settings.manifest.is_some(),
            stopping: &stopping,
            progress: &progress,
            confirmed: &confirmed,
        };
        resume::begin(jobs);
        let aside = resume::variant_of(&settings.aside, jobs.first().map_or(0, |job| job.variant));
        let mut began = Instant::now();
        let mut laid = Laid::default();
        let flown = match settings.direction {
            Direction::Pull => {
                let data_dir = &settings.data_dir;
                let dest = Dest::open(data_dir.as_ref(), false)
                    .map_err(|error| format!("Directory {data_dir} on this machine cannot be entered: {error}"))?
                    .keeping(&aside);
                let mut guard = None;
                let open = || {
                    let link = self.connect.open(&pull::sender_args(squeezed))?;
                    guard = Some(self.stop.guard(link.closer.clone()));
                    Ok(settings.rate.on_reading(link))
                };
                pull::fly(jobs, &dest, open, &manner).map_err(&trouble)?
            }
            Direction::Push => {
                self.find_road().map_err(&trouble)?;
                laid = self.lay_down(jobs);
                counts.set(laid.is_empty());
                began = Instant::now();
                let syncs = match &mut self.road {
                    Some((Road::Sftp(sftp), _)) => {
                        let _guard = self.stop.guard(sftp.closer());
                        let base = PathBuf::from(&settings.data_dir);
                        let rate = &settings.rate;
                        let (leftovers, read_back) = (&mut self.leftovers, &mut self.read_back);
                        let delivery = Delivery {
                            sftp,
                            leftovers,
                            read_back,
                            base,
                            aside: &settings.aside,
                            rate,
                            manner: &manner,
                        };
                        return delivery.fly(jobs);
                    }
                    Some((Road::Program { syncs, .. }, _)) => *syncs,
                    None => false,
                };
                let chmod = manner.chmod.is_some();
                let demands = Demands { fsync: syncs, chmod, squeezed, partial: Some(aside) };
                let args = server_args(&settings.data_dir, demands);
                let link = self.connect.open(&args).map_err(&trouble)?;
                let _guard = self.stop.guard(link.closer.clone());
                fly(jobs, settings.rate.on_writing(link), &manner)
            }
        };
        if laid.is_empty() && flown.ended.is_ok() {
            self.squeeze.learn(squeezed, moved.get(), began.elapsed());
            if settings.split_size > 0 && moved.get() >= settings.split_size / 2 {
                self.board.learn(moved.get(), began.elapsed());
            }
        }
        Ok(flown)
    }

    /// Finds the road, where none is known or the far end's program may have been replaced since.
    fn find_road(&mut self) -> Result<(), ConnectError> {
        let known = self.road.as_ref().is_some_and(|(road, found)| match road {
            Road::Program { .. } if self.uploaded.is_none() => found.elapsed() < VERSION_LASTS,
            Road::Program { .. } | Road::Sftp(_) => found.elapsed() < DETOUR_LASTS,
        });
        if !known {
            self.road = None;
            self.uploaded = None;
            let args = server_args(&self.settings.data_dir, Demands::default());
            let bootstrap = self.settings.bootstrap.as_ref();
            let road = road::find(self.connect.as_mut(), &args, bootstrap, &mut self.uploaded, &self.progress)?;
            self.road = Some((road, Instant::now()));
        }
        Ok(())
    }

    /// Leaves the far end; our own program there goes where it is to.
    fn part(&mut self) {
        let remove = self.settings.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.remove);
        if let (true, Some(path)) = (remove, &self.uploaded)
            && let Err(error) = self
                .connect
                .sftp()
                .map_err(|error| error.to_string())
                .and_then(|sftp| sftp.remove(path).map_err(|error| error.to_string()))
        {
            tracing::warn!("The uploaded program {} could not be removed: {error}", path.display());
        }
        self.connect.disconnect();
    }

    /// What keeps the base directory from taking anything, if something does.
    fn base_trouble(&mut self) -> Option<String> {
        if let Some((Road::Sftp(_), _)) = &self.road {
            // Those who deliver have looked already.
            return None;
        }
        let base = OsString::from(&self.settings.data_dir);
        let mut here = Local::default();
        let side: &mut dyn Connect = match self.settings.direction {
            Direction::Push => self.connect.as_mut(),
            Direction::Pull => &mut here,
        };
        for (flag, why) in [("-d", "is not there"), ("-w", "cannot be written to")] {
            let argv = ["test".into(), flag.into(), base.clone()];
            match side.run(&argv) {
                Ok(output) if output.status == Some(0) => {}
                // `test` itself says nothing; whoever does is one in its place, that runs no such commands.
                Ok(output) if output.status == Some(1) && output.stdout.is_empty() && output.stderr.is_empty() => {
                    return Some(format!("Directory {} at {} {why}", self.settings.data_dir, side.describe()));
                }
                // A far end without `test` cannot be asked.
                Ok(output) => {
                    let said = road::first_line(&output);
                    tracing::debug!(host = side.describe(), "test {flag} {}: {said}", self.settings.data_dir);
                    return None;
                }
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    }

    /// What keeps the far end's program from a session without any file, if something does.
    fn program_trouble(&mut self) -> Option<String> {
        match self.session(&[]) {
            Ok(Flown { ended: Ok(_), .. }) => None,
            Ok(Flown { ended: Err(error), words, .. }) => Some(with_words(&error, &words)),
            Err(why) => Some(why),
        }
    }

    fn wait_for_link(&mut self, rest: Rest, why: &str, rests: &mut VecDeque<Rest>, backoff: &mut Backoff) {
        if self.crew.give_back(self.number) {
            tracing::info!(host = self.connect.describe(), "One session less: {why}");
            self.road = None;
            return self.leave(rest.jobs);
        }
        if rest.jobs.is_empty() || self.stop.is_stopped() || !self.pause(why, backoff) {
            return self.leave(rest.jobs);
        }
        rests.push_front(rest);
    }

    /// Waits because of the link; false when a run with `once` gives up instead.
    fn pause(&mut self, why: &str, backoff: &mut Backoff) -> bool {
        let wait = backoff.next();
        self.road = None;
        self.progress.link_trouble(why);
        if self.settings.once && backoff.failures >= ONCE_PATIENCE {
            tracing::error!(host = self.connect.describe(), "Giving up after {} attempts: {why}", backoff.failures);
            self.progress.give_up(why);
            self.stop.stop();
            return false;
        }
        tracing::warn!(host = self.connect.describe(), wait_ms = wait.as_millis() as u64, "{why}; trying again");
        self.stop.wait(wait);
        true
    }

    /// Lets jobs go without a result: their rows stay as they are.
    fn leave(&self, jobs: Vec<Job>) {
        jobs.iter().for_each(|job| self.strays.leave(job));
    }

    /// Counts failures of files of a session, but for those whose place is in trouble: they are held back with it. Given are
    /// its sources too, where they matter, and when it began.
    fn blame(&mut self, failed: Vec<(Job, Failure, String)>, listed: usize, (sources, since): (Vec<PathBuf>, Instant)) {
        if failed.is_empty() && sources.is_empty() {
            return;
        }
        let mut asked = HashMap::new();
        let places: Vec<_> = failed
            .iter()
            .map(|(job, kind, why)| match (kind, self.settings.direction) {
                (Failure::Missing | Failure::Unreadable, Direction::Push) => {
                    Some(self.origins.look(&job.source).err().and_then(|lack| lack.place))
                }
                (Failure::Missing | Failure::Unreadable, Direction::Pull) => {
                    Some(self.far_place(&job.source, why, &mut asked))
                }
                _ => None,
            })
            .collect();
        let nowhere = PathBuf::new();
        let looks = failed.iter().zip(places).map(|((job, ..), lack)| Look { source: &job.source, lack });
        let others = sources.iter().filter(|source| !failed.iter().any(|(job, ..)| job.source == **source));
        let others = others.chain(std::iter::repeat(&nowhere)).map(|source| Look { source, lack: None });
        let looks: Vec<_> = looks.chain(others).take(listed).collect();
        let held = self.origins.judge(&looks, since);
        drop(looks);
        for ((mut job, kind, why), held) in failed.into_iter().zip(held) {
            match held {
                true => job.had_its_turn(),
                false => self.fail(job, kind, why),
            }
        }
    }

    /// The place at the far end whose trouble keeps a file from being had, if it is not the file's own.
    fn far_place(&mut self, source: &Path, why: &str, asked: &mut HashMap<PathBuf, Option<Origin>>) -> Option<Origin> {
        let folder = source.parent()?.to_owned();
        if origins::far_place(why) {
            return Some(Origin { folder, why: why.to_owned() });
        }
        if let Some(known) = asked.get(&folder) {
            return known.clone();
        }
        if asked.len() >= FOLDERS_ASKED {
            return None;
        }
        // An account that is held to one command may answer anything else with failure.
        let answers = asked.iter().any(|(_, place)| place.is_some())
            || self.connect.run(&["test".into(), "-d".into(), "/".into()]).is_ok_and(|output| output.status == Some(0));
        let mut place = None;
        for (flag, why) in [("-d", "is not there"), ("-x", "cannot be entered")] {
            match self.connect.run(&["test".into(), flag.into(), folder.clone().into()]) {
                Ok(output) if answers && output.status == Some(1) => {
                    place = Some(format!("at {} {why}", self.connect.describe()));
                }
                // A far end without `test` cannot be asked.
                Ok(_) => {}
                // Then nothing is known, and nothing counted.
                Err(error) => place = Some(format!("at {} cannot be asked for: {error}", self.connect.describe())),
            }
            if place.is_some() {
                break;
            }
        }
        let place = place.map(|why| Origin { folder: folder.clone(), why });
        asked.insert(folder, place.clone());
        place
    }

    fn fail(&self, job: Job, kind: Failure, why: String) {
        self.progress.failure(kind);
        // What came of another file than the registered one is of no use, and nothing is of a row that is given up.
        let useless = matches!(kind, Failure::Changed | Failure::Refused | Failure::Row);
        match useless || job.attempts + 1 >= self.settings.max_attempts {
            true => self.strays.give_up(&job),
            false => self.strays.leave(&job),
        }
        self.settle(job, Outcome::Failed { why });
    }

    fn settle(&self, job: Job, outcome: Outcome) {
        self.give(JobResult { job, outcome, entry: None });
    }

    fn give(&self, result: JobResult) {
        // The recorder outlives the workers; without it nothing can be recorded and the row stays pending.
        let _ = self.results.blocking_send(result);
    }

    /// What the manifest says of a copy. Where its bytes were not read on their way, those on this machine are.
    fn entry(&self, job: &Job, name: String, digest: Option<Digest>) -> Option<Entry> {
        self.settings.manifest.as_ref()?;
        let (here, sources) = match self.settings.direction {
            Direction::Push => (job.source.clone(), self.settings.sources.clone()),
            Direction::Pull => (Path::new(&self.settings.data_dir).join(&name), Sources::default()),
        };
        let digest = digest.map_or_else(|| digest_of(sources.open(&here), &job.md5), Ok);
        let told =
            |why: String| tracing::warn!(id = job.id.0, "{} is proven and not in the manifest: {why}", here.display());
        digest.map_err(told).ok().map(|digest| Entry { name, digest })
    }

    fn archived_path(&self, relative: &str) -> String {
        archived_path(&self.settings, relative)
    }
}

/// The digest of a file that must have the registered sum.
fn digest_of(file: io::Result<PatientFile>, md5: &[u8]) -> Result<Digest, String> {
    let mut file = file.map_err(|error| format!("it cannot be read here: {error}"))?;
    let (mut registered, mut blake3) = (FileHasher::new(Checksum::Md5), FileHasher::new(Checksum::Blake3));
    let len = each_piece(&mut file, |bytes| {
        registered.update(bytes);
        blake3.update(bytes);
    });
    let len = len.map_err(|error| format!("it cannot be read here: {error}"))?;
    match registered.finish() {
        sum if sum.as_bytes() == md5 => Ok(Digest { len, blake3: blake3.finish() }),
        _ => Err("the file here has changed since".to_owned()),
    }
}

/// What the table's path column says of a copy.
pub(super) fn archived_path(settings: &Settings, relative: &str) -> String {
    if settings.relative_paths {
        relative.to_owned()
    } else {
        format!("{}/{relative}", settings.data_dir.trim_end_matches('/'))
    }
}

/// What is wrong with a path that the table cannot hold.
pub(super) fn too_long(path: &str, limit: usize) -> String {
    format!(
        "its archived path has {} characters, and the table's path column holds {limit}: {path:?}",
        path.chars().count()
    )
}

/// What runs at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FarEnd {
    /// This program.
    Ours,
    /// Stock rsync of this version.
    Stock((u32, u32, u32)),
}

impl FarEnd {
    /// Whether it knows `--fsync`.
    pub(crate) fn syncs(self) -> bool {
        match self {
            Self::Ours => true,
            Self::Stock(version) => version >= FSYNC_SINCE,
        }
    }
}

/// Reads the first line of `--version`.
pub(super) fn far_end(output: &[u8]) -> Option<FarEnd> {
    let text = String::from_utf8_lossy(output);
    let mut words = text.lines().next()?.split_whitespace();
    match (words.next()?, words.next()?, words.next()) {
        ("pysmurf-archiver", _, _) => Some(FarEnd::Ours),
        ("rsync", "version", Some(version)) => {
            let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
            let mut parts = version.trim_start_matches('v').split('.').map(digits);
            let mut part = || parts.next().flatten();
            Some(FarEnd::Stock((part()?, part().unwrap_or(0), part().unwrap_or(0))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(far_end(b"rsync  version 3.5.0  protocol version 32\nmore"), Some(FarEnd::Stock((3, 5, 0))));
        assert_eq!(far_end(b"rsync  version v3.2.7pre1  protocol version 31"), Some(FarEnd::Stock((3, 2, 7))));
        assert_eq!(far_end(b"pysmurf-archiver 0.1.0\n"), Some(FarEnd::Ours));
        assert_eq!(far_end(b"openrsync: protocol version 29\n"), None);
        assert_eq!(far_end(b""), None);
    }
}
