//! Looks after the batches of one link beside the copying: takes what is handed over, has it read, sees how its rows stand,
//! completes it or removes what it has written, and tells how it stands.

use super::far::{BatchExtent, FarHand, FarTrouble, Spared, UNSEEN};
use super::reading::{BatchReader, ReadTrouble, place_of};
use super::request::BatchRequest;
use super::spool::{BatchSpool, SpoolName};
use super::state::{BatchState, BatchStatus};
use crate::archiver::Sources;
use crate::archiver::control::Control;
use crate::backoff::Backoff;
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::sqlite::batches::{BatchCount, BatchRow, BatchStep, WantedBatches};
use crate::catalog::{AnyCatalog, CatalogError};
use crate::clock::unix_now;
use crate::disk::summed::FileStamp;
use crate::transport::Connect;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The longest pause between two looks at the spool.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What share of the time these looks may take.
const LOOK_SHARE: u32 = 20;
/// Batches that are read at once.
const READINGS: usize = 2;
/// How long batches that are over are remembered, and how often it is looked which ones are to be forgotten.
const KEPT: f64 = 30.0 * 86_400.0;
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// For how long what a failed batch has written is tried to be removed.
const UNDOING: f64 = 7.0 * 86_400.0;
/// Bytes of the name under which a request is told to have failed that has none of its own.
const NAME_MOST: usize = 200;
/// How long a cancellation waits for a batch that nobody knows, seconds.
const UNKNOWN: f64 = 86_400.0;
/// Failed errands after which a run with an end waits for the far end no more.
const ONCE_PATIENCE: usize = 3;

/// What batches are of, and where they go.
#[derive(Debug, Clone)]
pub(crate) struct BatchTerms {
    pub(crate) spool: BatchSpool,
    /// The link's name, by which batches name it.
    pub(crate) link: String,
    /// A batch that is older has failed.
    pub(crate) deadline: Duration,
    /// A batch has failed whose files cannot be read so often.
    pub(crate) attempts: i64,
    /// The base of all places.
    pub(crate) data_dir: String,
    pub(crate) sources: Sources,
    /// What the folders are called in which unfinished files are kept.
    pub(crate) aside: String,
    pub(crate) poll: Duration,
}

/// Looks after the batches of one link.
pub(crate) struct BatchKeeper {
    terms: BatchTerms,
    catalog: Arc<AnyCatalog>,
    control: Control,
    hand: Arc<Mutex<FarHand>>,
    /// States as they were told.
    told: HashMap<String, BatchState>,
    /// Requests for other links, which are not read again.
    others: HashMap<String, FileStamp>,
    /// What keeps a batch, beside its rows.
    troubles: HashMap<String, String>,
    readings: HashMap<String, BatchReading>,
    errand: Option<Errand>,
    /// Until when a batch is left alone for which an errand failed, and its pauses.
    left: HashMap<String, (Instant, Backoff)>,
    /// Pauses between attempts at a far end that is out of reach, and when the next one is due.
    backoff: Backoff,
    far_due: Instant,
    forget_due: Instant,
    /// Rung when a reading or an errand ends.
    bell: Arc<Notify>,
    /// States were compared with the batches.
    rebuilt: bool,
    /// Those that were not over when they were seen first.
    seen: HashSet<String>,
}

/// The reading of a batch's files.
struct BatchReading {
    stop: Arc<AtomicBool>,
    attempts: i64,
    /// `None` between two attempts.
    task: Option<JoinHandle<Result<(), ReadTrouble>>>,
    due: Instant,
}

/// Something that is done at the far end for a batch.
struct Errand {
    batch: BatchRow,
    task: JoinHandle<Result<ErrandEnd, FarTrouble>>,
}

/// What came of it.
enum ErrandEnd {
    Looked(Spared),
    Completed,
    /// Files that were proven are there no more.
    Missing,
    /// Whether there was something to be removed.
    Removed(bool),
}

impl BatchKeeper {
    pub(crate) fn new(
        terms: BatchTerms,
        catalog: Arc<AnyCatalog>,
        control: Control,
        connect: Box<dyn Connect>,
    ) -> Self {
        let hand = FarHand::new(connect, &terms.data_dir, &terms.aside);
        Self {
            hand: Arc::new(Mutex::new(hand)),
            terms,
            catalog,
            control,
            told: HashMap::new(),
            others: HashMap::new(),
            troubles: HashMap::new(),
            readings: HashMap::new(),
            errand: None,
            left: HashMap::new(),
            backoff: Backoff::default(),
            far_due: Instant::now(),
            forget_due: Instant::now(),
            bell: Arc::default(),
            rebuilt: false,
            seen: HashSet::new(),
        }
    }

    /// The table was opened anew.
    pub(crate) fn go_on_with(&mut self, catalog: Arc<AnyCatalog>) {
        self.catalog = catalog;
    }

    /// Does it for as long as the run lasts; never ends by itself.
    pub(crate) async fn run(&mut self) {
        let mut said = None;
        loop {
            let began = Instant::now();
            let error = self.turn().await.err().map(|error| error.to_string());
            // Once, for as long as it is the same.
            if let Some(error) = error.as_ref().filter(|_| error != said) {
                tracing::info!(event = "batch_trouble", "{error}; trying again");
            }
            said = error;
            self.rest(began.elapsed()).await;
        }
    }

    /// Does it until nothing more can be done before rows are copied; how many batches are not done.
    pub(crate) async fn settle(&mut self) -> Result<usize, BatchTrouble> {
        loop {
            self.turn().await?;
            let far_is_away = self.backoff.failures() >= ONCE_PATIENCE;
            let at_work = self.errand.is_some() || self.readings.values().any(|reading| reading.task.is_some());
            if !at_work && (far_is_away || !self.has_work().await?) {
                let is_done = |id: &String| self.told.get(id).is_some_and(|state| state.status == BatchStatus::Done);
                return Ok(self.seen.iter().filter(|id| !is_done(id)).count());
            }
            self.rest(Duration::ZERO).await;
        }
    }

    /// Whether a batch can come on without its rows.
    async fn has_work(&self) -> Result<bool, BatchTrouble> {
        let Some(table) = self.table() else { return Ok(false) };
        for batch in table.batches(WantedBatches::Open).await? {
            let count = table.batch_count(&batch.id).await?;
            let waits = match batch.step {
                BatchStep::Listed if count.proven < count.files => count.given_up.is_none(),
                // It was tried.
                BatchStep::Reading => self.troubles.contains_key(&batch.id),
                BatchStep::Undoing => batch.ended.is_some(),
                _ => self.left.contains_key(&batch.id),
            };
            if !waits {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn rest(&self, took: Duration) {
        let pause = LOOK_EVERY.min(self.terms.poll).max(took * LOOK_SHARE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.bell.notified() => {}
        }
    }

    fn table(&self) -> Option<&SqliteCatalog> {
        match &*self.catalog {
            AnyCatalog::Sqlite(table) => Some(table),
            AnyCatalog::Mysql(_) => None,
        }
    }

    /// One look at everything.
    async fn turn(&mut self) -> Result<(), BatchTrouble> {
        let catalog = self.catalog.clone();
        let AnyCatalog::Sqlite(table) = &*catalog else { return Ok(()) };
        // Whoever does not hold the link's rows leaves its batches alone.
        if !table.is_on_duty().await? {
            return Ok(());
        }
        if !self.rebuilt {
            table.make_batches().await?;
            for batch in table.batches(WantedBatches::All).await? {
                self.tell(table, &batch).await?;
            }
            self.rebuilt = true;
        }
        self.end_errand(table).await?;
        let mut trouble = None;
        let requests = self.terms.spool.requests()?;
        self.others.retain(|name, _| requests.iter().any(|entry| entry.name == *name));
        for entry in &requests {
            let stamp = FileStamp::at(&entry.path);
            if stamp.is_none() || self.others.get(&entry.name) != stamp.as_ref() {
                let taken = self.take(table, entry).await;
                set_aside(taken, &mut trouble)?;
            }
        }
        for entry in self.terms.spool.cancellations()? {
            let cancelled = self.cancel(table, &entry).await;
            set_aside(cancelled, &mut trouble)?;
        }
        for batch in table.batches(WantedBatches::Open).await? {
            self.seen.insert(batch.id.clone());
            let advanced = self.advance(table, &batch).await;
            set_aside(advanced, &mut trouble)?;
            if let Some(batch) = table.batch(&batch.id).await? {
                let told = self.tell(table, &batch).await;
                set_aside(told, &mut trouble)?;
            }
        }
        if self.forget_due <= Instant::now() {
            self.forget_due = Instant::now() + FORGET_EVERY;
            for id in table.forget_batches(unix_now() - KEPT).await? {
                self.told.remove(&id);
                self.seen.remove(&id);
                self.terms.spool.forget(&id)?;
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Takes a request, if it is for this link, or for none.
    async fn take(&mut self, table: &SqliteCatalog, entry: &SpoolName) -> Result<(), BatchTrouble> {
        let parsed = match self.terms.spool.read_request(entry) {
            Ok(parsed) => parsed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let parsed = parsed.and_then(|request| self.fits(request));
        let now = unix_now();
        let batch = |id: &str, request: String, step, error: Option<String>| BatchRow {
            id: id.to_owned(),
            link: self.terms.link.clone(),
            request,
            step,
            began: now,
            ended: error.is_some().then_some(now),
            error,
            spared: "[]".to_owned(),
        };
        let taken = match parsed {
            Ok(Some(request)) => batch(request.id.as_str(), request.to_json(), BatchStep::Taken, None),
            Ok(None) => {
                self.others.extend(FileStamp::at(&entry.path).map(|stamp| (entry.name.clone(), stamp)));
                return Ok(());
            }
            Err(why) => {
                let name = entry.name.strip_suffix(".json").unwrap_or(&entry.name);
                // With its suffix it is to be a file's name still.
                let name = &name[..name.floor_char_boundary(NAME_MOST)];
                batch(name, String::new(), BatchStep::Failed, Some(why))
            }
        };
        if table.take_batch(taken.clone()).await? {
            match &taken.error {
                None => tracing::info!(event = "batch_taken", batch = taken.id, "Batch {} is taken", taken.id),
                Some(why) => {
                    tracing::error!(event = "batch_failed", batch = taken.id, "Batch {} failed: {why}", taken.id);
                }
            }
            self.seen.insert(taken.id.clone());
        }
        // Also of one that was there before, should it not have been told.
        if let Some(known) = table.batch(&taken.id).await?.filter(|known| known.link == self.terms.link) {
            self.tell(table, &known).await?;
        }
        self.terms.spool.remove(entry)?;
        Ok(())
    }

    /// The request, if it is for this link; the error says what is wrong with it here.
    fn fits(&self, request: BatchRequest) -> Result<Option<BatchRequest>, String> {
        if request.link != self.terms.link {
            return Ok(None);
        }
        for file in &request.files {
            place_of(&file.remote, self.base())?;
        }
        Ok(Some(request))
    }

    fn base(&self) -> &str {
        self.terms.data_dir.trim_end_matches('/')
    }

    async fn cancel(&mut self, table: &SqliteCatalog, entry: &SpoolName) -> Result<(), BatchTrouble> {
        match table.batch(&entry.name).await? {
            Some(batch) if batch.link != self.terms.link => return Ok(()),
            Some(batch) if !batch.step.is_over() && batch.step != BatchStep::Undoing => {
                self.fail(table, &batch, "it was cancelled").await?;
            }
            Some(_) => {}
            // It may be of another link, whose mover has not seen it.
            None if FileStamp::at(&entry.path).is_some_and(|stamp| unix_now() - stamp.mtime() < UNKNOWN) => {
                return Ok(());
            }
            None => {}
        }
        Ok(self.terms.spool.remove(entry)?)
    }

    async fn fail(&mut self, table: &SqliteCatalog, batch: &BatchRow, why: &str) -> Result<(), BatchTrouble> {
        tracing::error!(event = "batch_failed", batch = batch.id, "Batch {} failed: {why}", batch.id);
        if let Some(reading) = self.readings.remove(&batch.id) {
            reading.stop.store(true, Relaxed);
        }
        self.troubles.remove(&batch.id);
        table.undo_batch(batch, why).await?;
        self.control.recall(&table.batch_rows(&batch.id).await?);
        match table.batch(&batch.id).await? {
            Some(batch) => self.tell(table, &batch).await,
            None => Ok(()),
        }
    }

    /// Brings a batch on as far as it can come now.
    async fn advance(&mut self, table: &SqliteCatalog, batch: &BatchRow) -> Result<(), BatchTrouble> {
        if batch.step != BatchStep::Undoing && unix_now() - batch.began > self.terms.deadline.as_secs_f64() {
            let why = format!("it was not done within {} (--batch-deadline)", days(self.terms.deadline));
            return self.fail(table, batch, &why).await;
        }
        match batch.step {
            BatchStep::Taken => self.send(table, batch).await,
            BatchStep::Reading => self.read(table, batch).await,
            BatchStep::Listed => {
                let count = table.batch_count(&batch.id).await?;
                match count.given_up {
                    Some((file, why)) => self.fail(table, batch, &format!("{file}: {why}")).await,
                    None if count.proven == count.files => self.send(table, batch).await,
                    None => Ok(()),
                }
            }
            BatchStep::Undoing => {
                if self.control.recall(&table.batch_rows(&batch.id).await?) {
                    return Ok(());
                }
                self.send(table, batch).await
            }
            BatchStep::Done | BatchStep::Failed => Ok(()),
        }
    }

    async fn read(&mut self, table: &SqliteCatalog, batch: &BatchRow) -> Result<(), BatchTrouble> {
        let at_once = self.readings.values().filter(|reading| reading.task.is_some()).count();
        let reading = self.readings.entry(batch.id.clone()).or_insert_with(|| BatchReading {
            stop: Arc::default(),
            attempts: 0,
            task: None,
            due: Instant::now(),
        });
        let Some(task) = reading.task.take_if(|task| task.is_finished()) else {
            if reading.task.is_none() && reading.due <= Instant::now() && at_once < READINGS {
                let request = requested(batch)?;
                let reader = BatchReader {
                    batch: batch.id.clone(),
                    units: request.files,
                    base: self.terms.data_dir.trim_end_matches('/').to_owned(),
                    sources: self.terms.sources.clone(),
                    table: self.catalog.clone(),
                    stop: reading.stop.clone(),
                };
                let (runtime, bell) = (tokio::runtime::Handle::current(), self.bell.clone());
                reading.task = Some(tokio::task::spawn_blocking(move || {
                    let read = reader.run(&runtime);
                    bell.notify_one();
                    read
                }));
            }
            return Ok(());
        };
        match task.await.unwrap_or_else(|error| Err(ReadTrouble::Passing(error.to_string()))) {
            Ok(()) => {
                self.readings.remove(&batch.id);
                self.troubles.remove(&batch.id);
                table.step_batch(batch, BatchStep::Listed, None).await?;
                self.bell.notify_one();
            }
            Err(ReadTrouble::Stopped) => drop(self.readings.remove(&batch.id)),
            Err(ReadTrouble::Lasting(why)) => return self.fail(table, batch, &why).await,
            Err(ReadTrouble::Place(why)) => {
                reading.due = Instant::now() + self.terms.poll.max(LOOK_EVERY);
                self.troubles.insert(batch.id.clone(), why);
            }
            Err(ReadTrouble::Passing(why)) => {
                reading.attempts += 1;
                if reading.attempts >= self.terms.attempts {
                    return self.fail(table, batch, &why).await;
                }
                let doublings = u32::try_from(reading.attempts).unwrap_or(u32::MAX).min(16);
                reading.due = Instant::now() + self.terms.poll * 2u32.pow(doublings);
                self.troubles.insert(batch.id.clone(), why);
            }
        }
        Ok(())
    }

    /// Has done at the far end what its step asks for, if nothing else is done there.
    async fn send(&mut self, table: &SqliteCatalog, batch: &BatchRow) -> Result<(), BatchTrouble> {
        let due = self.left.get(&batch.id).map_or(self.far_due, |(due, _)| self.far_due.max(*due));
        if self.errand.is_some() || due > Instant::now() {
            return Ok(());
        }
        let request = requested(batch)?;
        let units = request.files.iter().map(|file| place_of(&file.remote, self.base()));
        let units = units.collect::<Result<Vec<_>, _>>().map_err(|why| BatchTrouble::Other(io::Error::other(why)))?;
        let spared = serde_json::from_str(&batch.spared).map_err(io::Error::from)?;
        let extent = BatchExtent { units, places: table.batch_places(&batch.id).await?, spared };
        let (hand, bell, step) = (self.hand.clone(), self.bell.clone(), batch.step);
        let task = tokio::task::spawn_blocking(move || {
            let mut hand = hand.lock().unwrap_or_else(PoisonError::into_inner);
            let end = match step {
                BatchStep::Taken => hand.look(&extent.units).map(ErrandEnd::Looked),
                BatchStep::Undoing => hand.remove(&extent).map(ErrandEnd::Removed),
                _ => hand.complete(&extent).map(|all| if all { ErrandEnd::Completed } else { ErrandEnd::Missing }),
            };
            bell.notify_one();
            end
        });
        self.errand = Some(Errand { batch: batch.clone(), task });
        Ok(())
    }

    async fn end_errand(&mut self, table: &SqliteCatalog) -> Result<(), BatchTrouble> {
        let Some(Errand { batch, task }) = self.errand.take_if(|errand| errand.task.is_finished()) else {
            return Ok(());
        };
        let end = task.await.unwrap_or_else(|error| Err(FarTrouble::Passing(error.to_string())));
        let end = match end {
            Ok(end) => end,
            Err(FarTrouble::NothingBut(host)) => {
                let why = format!("the account at {host} runs no commands and has no SFTP");
                match batch.step {
                    BatchStep::Taken => ErrandEnd::Looked(Spared::from([UNSEEN.to_owned()])),
                    BatchStep::Undoing => {
                        let why = format!("{}; what it has written is not removed: {why}", reason(&batch));
                        table.tell_batch_failed(&batch, &why).await?;
                        ErrandEnd::Removed(false)
                    }
                    _ => {
                        tracing::warn!(event = "batch_trouble", batch = batch.id, "Empty folders are not made: {why}");
                        ErrandEnd::Completed
                    }
                }
            }
            Err(FarTrouble::Passing(why)) => {
                self.far_due = Instant::now() + self.backoff.pause();
                return self.far_trouble(table, &batch, why).await;
            }
            Err(FarTrouble::OfBatch(why)) => {
                self.backoff.reset();
                let (due, backoff) =
                    self.left.entry(batch.id.clone()).or_insert_with(|| (Instant::now(), Backoff::default()));
                *due = Instant::now() + backoff.pause();
                return self.far_trouble(table, &batch, why).await;
            }
        };
        self.backoff.reset();
        self.left.remove(&batch.id);
        self.troubles.remove(&batch.id);
        match end {
            ErrandEnd::Looked(spared) => self.looked(table, &batch, &spared).await?,
            ErrandEnd::Completed => {
                if table.step_batch(&batch, BatchStep::Done, None).await? {
                    tracing::info!(event = "batch_done", batch = batch.id, "Batch {} is done", batch.id);
                }
            }
            ErrandEnd::Missing => {
                tracing::warn!(
                    event = "batch_trouble",
                    batch = batch.id,
                    "Files of batch {} were proven and are there no more; all of it is proven anew",
                    batch.id
                );
                table.reopen_batch(&batch.id).await?;
                self.control.look_again();
            }
            // A far end that has lost its link may have written since.
            ErrandEnd::Removed(true) => {
                let due = Instant::now() + self.terms.poll.min(LOOK_EVERY);
                self.left.insert(batch.id.clone(), (due, Backoff::default()));
                return Ok(());
            }
            ErrandEnd::Removed(false) => drop(table.step_batch(&batch, BatchStep::Failed, None).await?),
        }
        if let Some(batch) = table.batch(&batch.id).await? {
            self.tell(table, &batch).await?;
        }
        Ok(())
    }

    async fn looked(&mut self, table: &SqliteCatalog, batch: &BatchRow, spared: &Spared) -> Result<(), BatchTrouble> {
        let text = serde_json::to_string(spared).map_err(io::Error::from)?;
        let stands = requested(batch)?
            .files
            .into_iter()
            .find(|file| file.is_dir && place_of(&file.remote, self.base()).is_ok_and(|place| spared.contains(&place)));
        if !table.step_batch(batch, BatchStep::Reading, Some(text)).await? {
            return Ok(());
        }
        match stands {
            Some(file) => {
                let why = format!("something stands at {} already; nothing of it was touched", file.remote);
                self.fail(table, batch, &why).await
            }
            None => Ok(()),
        }
    }

    /// Nothing can be done for it at the far end now.
    async fn far_trouble(&mut self, table: &SqliteCatalog, batch: &BatchRow, why: String) -> Result<(), BatchTrouble> {
        if batch.step == BatchStep::Undoing {
            let why = format!("{}; what it has written is not removed yet: {why}", reason(batch));
            // Whoever waits for it is not to wait for that.
            table.tell_batch_failed(batch, &why).await?;
            if batch.ended.is_some_and(|ended| unix_now() - ended > UNDOING) {
                table.step_batch(batch, BatchStep::Failed, None).await?;
            }
        } else {
            self.troubles.insert(batch.id.clone(), why);
        }
        Ok(())
    }

    /// Tells how a batch stands, where that has changed.
    async fn tell(&mut self, table: &SqliteCatalog, batch: &BatchRow) -> Result<(), BatchTrouble> {
        let count = table.batch_count(&batch.id).await?;
        let state = self.state(batch, count);
        if self.told.get(&batch.id) == Some(&state) {
            return Ok(());
        }
        let is_told = match state.id() {
            Some(id) if !self.told.contains_key(&batch.id) => {
                self.terms.spool.state(&id).ok().flatten() == Some(state.clone())
            }
            _ => false,
        };
        if !is_told {
            self.terms.spool.tell(&state)?;
        }
        self.told.insert(batch.id.clone(), state);
        Ok(())
    }

    fn state(&self, batch: &BatchRow, count: BatchCount) -> BatchState {
        let BatchCount { files, bytes, proven, retrying, .. } = count;
        let state = BatchState { files, bytes, done: proven, ..BatchState::new(&batch.id, batch.began) };
        match (batch.step, batch.ended) {
            (BatchStep::Done, Some(ended)) => state.ended(BatchStatus::Done, ended),
            (BatchStep::Failed | BatchStep::Undoing, Some(ended)) => {
                BatchState { error: batch.error.clone(), ..state }.ended(BatchStatus::Failed, ended)
            }
            _ => {
                let now = self.control.progress().snapshot();
                let ongoing =
                    [now.link, now.source, now.database].into_iter().flatten().next().map(|trouble| trouble.why);
                let of_row = retrying.map(|(file, why)| format!("{file}: {why}"));
                let own = self.troubles.get(&batch.id).cloned();
                BatchState { error: batch.error.clone().or(own).or(of_row).or(ongoing), ..state }
            }
        }
    }
}

/// Why something could not be done now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchTrouble {
    #[error(transparent)]
    Table(#[from] CatalogError),
    #[error("The spool of batches: {0}")]
    Other(#[from] io::Error),
}

/// One batch's trouble with the spool holds up no other; the table's is everybody's.
fn set_aside(done: Result<(), BatchTrouble>, trouble: &mut Option<BatchTrouble>) -> Result<(), BatchTrouble> {
    match done {
        Err(BatchTrouble::Other(error)) => {
            trouble.get_or_insert(BatchTrouble::Other(error));
            Ok(())
        }
        done => done,
    }
}

fn requested(batch: &BatchRow) -> Result<BatchRequest, BatchTrouble> {
    BatchRequest::parse(batch.request.as_bytes())
        .map_err(|why| BatchTrouble::Other(io::Error::other(format!("batch {}: {why}", batch.id))))
}

fn reason(batch: &BatchRow) -> String {
    batch.error.clone().unwrap_or_default()
}

fn days(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 86_400 == 0 && seconds > 0 => format!("{} d", seconds / 86_400),
        seconds => format!("{seconds} s"),
    }
}
