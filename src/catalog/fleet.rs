//! Several archivers on one table: a *mover* is a session of one of them, a *lane* a share of a target's rows.
//!
//! A row of `fleet_mover` is the right to write: each writing transaction of a mover changes its own row first, so that it
//! fails where somebody has deleted that. Nobody's clock counts. A mover is evicted once its row has stood still while
//! another one's own heartbeats came through, so many of them.

mod links;
mod plan;
mod stand;

pub use links::{FarLink, LinkGrant, LinkNews, LinkWay};
pub(super) use links::{LINK_TABLES, LinkLine, LinkMark, LinkShare, LinkTurn, SCHEMA_OF_LINKS, TurnTaker, no_links};
pub(crate) use links::{LinkLimits, LinkStand, SESSIONS_MOST};
pub(crate) use plan::{FleetLane, LanePlan, Muster, MusteredMover};
#[cfg(test)]
pub(crate) use stand::HeldLanes;
pub(super) use stand::{BacklogCount, DEBTS_MOST};
pub(crate) use stand::{FleetStand, MoverStand, NodeDebt, TargetBacklog, TargetLanes};

use super::CatalogError;
use crate::clock::boot_time;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What `init-db --fleet` creates.
pub(super) const FLEET_TABLES: [&str; 5] =
    ["fleet_setting", "fleet_mover", "fleet_target", "fleet_lane", "fleet_proof"];

/// The ages of these tables: the first one, and the one with storage nodes beside them. Older movers know nothing of these
/// and must not work beside those that do.
pub(super) const SCHEMA: &str = "1";
pub(super) const SCHEMA_OF_NODES: &str = "2";

/// What is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FleetExtent {
    /// What several movers need.
    Movers,
    /// The tables for several storage nodes, too.
    Nodes,
}

/// What `fleet_setting` says at first.
pub(super) const FLEET_SETTINGS: [(&str, &str); 4] =
    [("schema", SCHEMA), ("lanes", "8"), ("heartbeat_ms", "5000"), ("patience", "6")];

/// The storage node of a proof, as long as there is one for each target.
pub(super) const NODE: &str = "archive";

/// Heartbeats between two looks for lanes whose holder is not there.
const SWEEP_EVERY: u32 = 10;

/// Of which lane a row is, and at which taking of that lane it was read; all the same where one archiver has all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hold {
    /// Number of the lane among those of the targets.
    pub lane: u32,
    /// Grows each time the lane is taken.
    pub taking: i64,
}

/// Whether more rows may come to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// All rows that are not ours have somebody who lives.
    Settled,
    /// Some lane is free, or of somebody who may be gone.
    Unsettled,
}

/// What `fleet_setting` says; the same for all movers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FleetRules {
    /// Lanes of each target.
    pub(crate) lanes: u32,
    pub(crate) heartbeat: Duration,
    /// So many heartbeats of one's own another one's row may stand still.
    pub(crate) patience: u32,
}

impl FleetRules {
    /// From the rows of the table.
    pub(super) fn read(settings: &BTreeMap<String, String>) -> Result<Self, String> {
        let number = |name: &str, among: std::ops::RangeInclusive<u32>| {
            let value = settings
                .get(name)
                .ok_or_else(|| format!("table fleet_setting has no row {name}; run init-db --fleet"))?;
            value.parse().ok().filter(|number| among.contains(number)).ok_or_else(|| {
                format!(
                    "table fleet_setting says {name}={value}; set a number from {} to {}",
                    among.start(),
                    among.end()
                )
            })
        };
        match settings.get("schema").map(String::as_str) {
            Some(SCHEMA | SCHEMA_OF_NODES | SCHEMA_OF_LINKS) | None => {}
            Some(schema) => {
                return Err(format!(
                    "the tables of the fleet are of schema {schema}, which a later version made; install that"
                ));
            }
        }
        Ok(Self {
            lanes: number("lanes", 1..=256)?,
            heartbeat: Duration::from_millis(number("heartbeat_ms", 20..=60_000)?.into()),
            patience: number("patience", 3..=100)?,
        })
    }

    /// How long a mover may be silent: about that long it is waited for.
    pub(super) fn lease(&self) -> Duration {
        self.heartbeat * self.patience
    }
}

/// The statements, as a database takes them. All that write are one transaction, with the fence first; false where that has
/// found that the mover's row is gone.
pub(super) trait FleetTables: Send + Sync + 'static {
    /// Puts a mover's row there, with its targets, and the lanes of these where they are absent.
    fn join(&self, mover: &str) -> impl Future<Output = Result<(), CatalogError>> + Send;
    /// The fence alone.
    fn beat(&self, mover: &str) -> impl Future<Output = Result<bool, CatalogError>> + Send;
    /// All movers, and the lanes of our targets.
    fn muster(&self) -> impl Future<Output = Result<Muster, CatalogError>> + Send;
    /// Deletes the row of another mover if it still stands at that beat, and frees its lanes.
    fn evict(&self, mover: &str, dead: &str, beat: i64) -> impl Future<Output = Result<bool, CatalogError>> + Send;
    /// Frees lanes whose holder has no row.
    fn sweep(&self, mover: &str) -> impl Future<Output = Result<bool, CatalogError>> + Send;
    /// Takes those of the lanes that are free.
    fn take(&self, mover: &str, lanes: &[u32]) -> impl Future<Output = Result<bool, CatalogError>> + Send;
    /// Frees lanes.
    fn give(&self, mover: &str, lanes: &[u32]) -> impl Future<Output = Result<bool, CatalogError>> + Send;
    /// Whether the mover is one to share the lanes of its targets with.
    fn serve(&self, mover: &str, serves: Serves) -> impl Future<Output = Result<bool, CatalogError>> + Send;
    /// Frees all lanes of the mover and deletes its row.
    fn leave(&self, mover: &str) -> impl Future<Output = Result<(), CatalogError>> + Send;
    /// Has our turn at a link taken.
    fn link_turn(
        &self,
        link: &FarLink,
        taker: TurnTaker,
    ) -> impl Future<Output = Result<Option<LinkTurn>, CatalogError>> + Send;
    /// The table, for messages.
    fn name(&self) -> String;
    /// By what the rows of a lane are known, and its target.
    fn rows_of(&self, lane: u32) -> (String, String);
}

/// What is looked at beside the tables of a fleet.
#[derive(Debug, Clone)]
pub(crate) struct FleetLook {
    /// The table of files, where it is not the usual one.
    pub(crate) table: Option<String>,
    /// Rows that failed so often are given up.
    pub(crate) max_attempts: i64,
    /// For about how long what waits is counted.
    pub(crate) limit: Duration,
}

/// What is said where there are no such tables.
pub(super) fn no_fleet(database: &str) -> CatalogError {
    CatalogError::Setup(format!(
        "Database {database} has no tables of a fleet, or the user may not see them; several archivers share its rows after \
         `pysmurf-archiver init-db --fleet`, and `status` without --fleet tells of one alone"
    ))
}

/// Whether a mover wants lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    Lanes,
    Nothing,
}

/// One process's part in the fleet.
pub(super) struct Fleet<T>(Arc<Shared<T>>);

struct Shared<T> {
    tables: T,
    rules: FleetRules,
    /// One transaction of the protocol at a time.
    turn: tokio::sync::Mutex<()>,
    session: Mutex<Option<Session>>,
    /// How often lanes came.
    takings: AtomicU64,
    /// Some are to be taken or given back.
    moving: tokio::sync::Notify,
    /// This was a mover and is none any more.
    out: tokio::sync::Notify,
}

/// What is known as a mover.
struct Session {
    mover: String,
    serves: Serves,
    /// When the last fence that came through was begun, on a clock that goes on while the machine sleeps.
    fenced: Duration,
    beats: u32,
    plan: LanePlan,
    /// What the tables said last.
    seen: Muster,
}

impl<T: FleetTables> Fleet<T> {
    pub(super) fn new(tables: T, rules: FleetRules) -> Self {
        Self(Arc::new(Shared {
            tables,
            rules,
            turn: tokio::sync::Mutex::default(),
            session: Mutex::default(),
            takings: AtomicU64::new(0),
            moving: tokio::sync::Notify::new(),
            out: tokio::sync::Notify::new(),
        }))
    }

    pub(super) fn tables(&self) -> &T {
        &self.0.tables
    }

    /// Takes part, and takes lanes up to our share.
    pub(super) async fn claim(&self) -> Result<Claimed, CatalogError> {
        let shared = &self.0;
        if let Some(session) = &*shared.session()
            && session.serves == Serves::Lanes
            && session.plan.wanted().is_empty()
            && !shared.is_stale(session)
        {
            return Ok(session.plan.claimed());
        }
        let _turn = shared.turn.lock().await;
        let now =
            shared.session().as_ref().map(|session| (session.mover.clone(), session.serves, shared.is_stale(session)));
        let mover = match now {
            None => self.join().await?,
            Some((mover, serves, stale)) => {
                if serves == Serves::Nothing {
                    shared.through(&mover, shared.tables.serve(&mover, Serves::Lanes)).await?;
                    if let Some(session) = &mut *shared.session() {
                        session.serves = Serves::Lanes;
                    }
                }
                if stale || serves == Serves::Nothing {
                    shared.heartbeat(&mover).await?;
                }
                mover
            }
        };
        let wanted = shared.session().as_ref().map(|session| session.plan.wanted()).unwrap_or_default();
        if !wanted.is_empty() {
            shared.through(&mover, shared.tables.take(&mover, &wanted)).await?;
            shared.look(&mover).await?;
        }
        shared.session().as_ref().map(|session| session.plan.claimed()).ok_or_else(|| shared.lost())
    }

    async fn join(&self) -> Result<String, CatalogError> {
        let (shared, mover, began) = (&self.0, new_name(), boot_time());
        shared.tables.join(&mover).await?;
        let plan = LanePlan::new(mover.clone(), shared.rules);
        let seen = Muster::default();
        let session = Session { mover: mover.clone(), serves: Serves::Lanes, fenced: began, beats: 0, plan, seen };
        *shared.session() = Some(session);
        tracing::info!(event = "joined", mover, "Working with others on {}", shared.tables.name());
        tokio::spawn(keep(Arc::downgrade(shared), mover.clone()));
        shared.look(&mover).await?;
        Ok(mover)
    }

    /// Wants no lanes for now.
    pub(super) async fn rest(&self) -> Result<(), CatalogError> {
        let shared = &self.0;
        let _turn = shared.turn.lock().await;
        let working =
            shared.session().as_ref().filter(|session| session.serves == Serves::Lanes).map(|s| s.mover.clone());
        if let Some(mover) = working {
            shared.through(&mover, shared.tables.serve(&mover, Serves::Nothing)).await?;
            if let Some(session) = &mut *shared.session() {
                session.serves = Serves::Nothing;
            }
            shared.look(&mover).await?;
        }
        Ok(())
    }

    /// Gives back the lanes that are to go and have no rows in flight; whether some are still to go.
    pub(super) async fn give_back(&self, in_flight: &BTreeSet<u32>) -> Result<bool, CatalogError> {
        let shared = &self.0;
        if shared.session().as_ref().is_none_or(|session| session.plan.leaving().is_empty()) {
            return Ok(false);
        }
        let _turn = shared.turn.lock().await;
        let Some((mover, leaving)) =
            shared.session().as_ref().map(|session| (session.mover.clone(), session.plan.leaving().clone()))
        else {
            return Ok(false);
        };
        let lanes: Vec<u32> = leaving.difference(in_flight).copied().collect();
        if !lanes.is_empty() {
            // From now on nothing is recorded of them.
            if let Some(session) = &mut *shared.session() {
                session.plan.gave(&lanes);
            }
            shared.through(&mover, shared.tables.give(&mover, &lanes)).await?;
            tracing::debug!(mover, ?lanes, "Lanes given back");
        }
        Ok(lanes.len() < leaving.len())
    }

    /// Comes back when lanes may be taken, or others wait for some of ours.
    pub(super) async fn moving(&self) {
        self.0.moving.notified().await;
    }

    /// Comes back when this is no mover any more, from the next poll on.
    pub(super) async fn out(&self) {
        self.0.out.notified().await;
    }

    /// The lanes whose rows may be taken up, with their takings.
    pub(super) fn held(&self) -> BTreeMap<u32, i64> {
        match &*self.0.session() {
            Some(session) if !self.0.is_stale(session) => session.plan.working(),
            _ => BTreeMap::new(),
        }
    }

    pub(super) fn holds(&self, hold: Hold) -> bool {
        self.0.session().as_ref().is_some_and(|session| session.plan.holds(hold))
    }

    /// As which mover outcomes of these rows may be written.
    pub(super) fn permit(&self, holds: impl Iterator<Item = Hold>) -> Result<String, CatalogError> {
        let session = self.0.session();
        let held = session.as_ref().filter(|session| holds.into_iter().all(|hold| session.plan.holds(hold)));
        held.map(|session| session.mover.clone()).ok_or_else(|| self.0.lost())
    }

    /// A fence of this mover has found no row.
    pub(super) fn evicted(&self, mover: &str) -> CatalogError {
        self.0.evicted(mover)
    }

    /// A fence of this mover, begun then, has come through.
    pub(super) fn fenced(&self, mover: &str, began: Duration) {
        self.0.fenced(mover, began);
    }

    /// Whether what is done but once for a target is ours to do, as the table says right now.
    pub(super) async fn is_on_duty(&self) -> Result<Option<String>, CatalogError> {
        self.claim().await?;
        let shared = &self.0;
        let _turn = shared.turn.lock().await;
        let Some(mover) = shared.session().as_ref().map(|session| session.mover.clone()) else { return Ok(None) };
        shared.heartbeat(&mover).await?;
        Ok(self.held().contains_key(&0).then_some(mover))
    }

    /// As which mover what is done but once for a target may be written.
    pub(super) fn on_duty(&self) -> Result<String, CatalogError> {
        let session = self.0.session();
        let on_duty = session.as_ref().filter(|session| session.plan.working().contains_key(&0));
        on_duty.map(|session| session.mover.clone()).ok_or_else(|| self.0.lost())
    }

    /// Grows with each time that lanes came.
    pub(super) fn takings(&self) -> u64 {
        self.0.takings.load(Ordering::Acquire)
    }

    /// How the fleet stands, as far as our targets go, by the last look at the tables.
    pub(super) fn stand(&self) -> Option<FleetStand> {
        let shared = &self.0;
        shared.session().as_ref().map(|session| session.plan.stand(&session.seen, |lane| shared.tables.rows_of(lane)))
    }

    pub(super) async fn leave(&self) {
        let shared = &self.0;
        let _turn = shared.turn.lock().await;
        let session = shared.session().take();
        if let Some(Session { mover, .. }) = session {
            // Where it does not reach the table, the others find out by themselves.
            if let Err(error) = shared.tables.leave(&mover).await {
                tracing::debug!(mover, %error, "No goodbye; the others wait until this mover is evicted");
            }
        }
    }
}

impl<T: FleetTables> Shared<T> {
    fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others may have taken it for dead.
    fn is_stale(&self, session: &Session) -> bool {
        boot_time().saturating_sub(session.fenced) >= self.rules.lease()
    }

    fn lost(&self) -> CatalogError {
        CatalogError::Lost(format!("The lanes of these rows in {} are not ours any more", self.tables.name()))
    }

    fn evicted(&self, mover: &str) -> CatalogError {
        let mut session = self.session();
        if session.as_ref().is_some_and(|session| session.mover == mover) {
            *session = None;
            drop(session);
            self.moving.notify_one();
            self.out.notify_waiters();
            tracing::warn!(
                event = "evicted",
                mover,
                "Others took over, since nothing was heard of this archiver for so long; it drops what is in flight and joins anew"
            );
        }
        self.lost()
    }

    fn fenced(&self, mover: &str, began: Duration) {
        if let Some(session) = &mut *self.session()
            && session.mover == mover
        {
            session.fenced = session.fenced.max(began);
        }
    }

    /// Has a transaction done that begins with the fence.
    async fn through(
        &self,
        mover: &str,
        writing: impl Future<Output = Result<bool, CatalogError>>,
    ) -> Result<(), CatalogError> {
        let began = boot_time();
        match writing.await? {
            true => {
                self.fenced(mover, began);
                Ok(())
            }
            false => Err(self.evicted(mover)),
        }
    }

    /// Reads how the lanes are shared, and plans by it.
    async fn look(&self, mover: &str) -> Result<(), CatalogError> {
        let muster = self.tables.muster().await?;
        if let Some(session) = &mut *self.session()
            && session.mover == mover
        {
            let before = session.plan.working().len();
            if session.plan.see(&muster, session.serves) {
                self.takings.fetch_add(1, Ordering::Release);
            }
            if !session.plan.leaving().is_empty() || !session.plan.wanted().is_empty() {
                self.moving.notify_one();
            }
            let (now, all) = (session.plan.working().len(), muster.lanes.len());
            if now != before {
                tracing::info!(
                    event = "lanes",
                    mover,
                    lanes = now,
                    of = all,
                    movers = muster.movers.len(),
                    "Working on {now} of {all} lanes"
                );
            }
            session.seen = muster;
        }
        Ok(())
    }

    /// Says that we live, looks whether the others do, and evicts those who do not.
    async fn heartbeat(&self, mover: &str) -> Result<(), CatalogError> {
        self.through(mover, self.tables.beat(mover)).await?;
        self.look(mover).await?;
        let (dead, sweeps) = {
            let mut session = self.session();
            let Some(session) = session.as_mut().filter(|session| session.mover == mover) else { return Ok(()) };
            session.beats = session.beats.wrapping_add(1);
            (session.plan.dead(), session.beats % SWEEP_EVERY == 0)
        };
        for (other, beat) in &dead {
            if self.tables.evict(mover, other, *beat).await? {
                tracing::warn!(
                    event = "mover_evicted",
                    mover = other,
                    "Mover {other} has not been heard of for {} heartbeats; its lanes are free",
                    self.rules.patience
                );
            }
        }
        if sweeps {
            self.through(mover, self.tables.sweep(mover)).await?;
        }
        if !dead.is_empty() || sweeps {
            self.look(mover).await?;
        }
        Ok(())
    }
}

/// Keeps a mover's row changing for as long as it is one.
async fn keep<T: FleetTables>(fleet: Weak<Shared<T>>, mover: String) {
    loop {
        let Some(heartbeat) = fleet.upgrade().map(|shared| shared.rules.heartbeat) else { return };
        tokio::time::sleep(heartbeat).await;
        let Some(shared) = fleet.upgrade() else { return };
        let _turn = shared.turn.lock().await;
        if shared.session().as_ref().is_none_or(|session| session.mover != mover) {
            return;
        }
        match shared.heartbeat_counted(&mover).await {
            Ok(()) => {}
            Err(CatalogError::Lost(_)) => return,
            // Who polls the table says so.
            Err(error) => tracing::debug!(mover, %error, "No heartbeat"),
        }
    }
}

impl<T: FleetTables> Shared<T> {
    /// A heartbeat by which the silence of others is counted: these come at their time, and no oftener.
    async fn heartbeat_counted(&self, mover: &str) -> Result<(), CatalogError> {
        if let Some(session) = &mut *self.session() {
            session.plan.counts();
        }
        self.heartbeat(mover).await
    }
}

/// Never used again: the machine for people, and 128 bits by chance.
fn new_name() -> String {
    let uname = rustix::system::uname();
    let host: String = uname
        .nodename()
        .to_string_lossy()
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() || char == '-' { char } else { '-' })
        .take(20)
        .collect();
    // The hasher's keys are the system's random numbers.
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{host}.{:016x}{:016x}", random(), random())
}

/// What people are told of a mover.
pub(super) fn told() -> String {
    let uname = rustix::system::uname();
    format!(
        "pysmurf-archiver {} at {}, process {}",
        env!("CARGO_PKG_VERSION"),
        uname.nodename().to_string_lossy(),
        std::process::id()
    )
    .chars()
    .take(255)
    .collect()
}

/// FNV-1a in 64 bits, by which rows and turns are spread: the same in every version, and by every mover.
pub(in crate::catalog) fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
