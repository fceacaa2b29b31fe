//! Calls one after another, each on a thread for blocking work, and walks through the table in short looks.

use super::SqliteCatalog;
use super::handle::Handle;
use super::indexes::{INDEX_UNCOPIED, UNCOPIED};
use super::trouble::{in_time, on_own_thread, trouble};
use crate::catalog::{CatalogError, RecordId};
use rusqlite::{Connection, Error, params};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Rows of one look at the table by those who go through all of it: some milliseconds.
pub(super) const LOOK: i64 = 10_000;

/// The longest rest between two looks.
pub(super) const LONGEST_REST: Duration = Duration::from_millis(100);

/// Below every row.
pub(super) const BOTTOM: RecordId = RecordId(i64::MIN);

/// A file that is used by one call at a time, each on a thread for blocking work.
#[derive(Clone)]
pub(super) struct FileCalls {
    handle: Arc<Mutex<Handle>>,
    /// So that a hung disk holds one thread and not all.
    turn: Arc<Semaphore>,
    database: Arc<str>,
}

impl FileCalls {
    pub(super) fn new(handle: Handle, database: &str) -> Self {
        Self { handle: Arc::new(Mutex::new(handle)), turn: Arc::new(Semaphore::new(1)), database: database.into() }
    }

    /// Runs `work` when its turn comes.
    pub(super) async fn run_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Handle, &str) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let handle = Arc::clone(&self.handle);
        let turn = Arc::clone(&self.turn);
        let calling = async {
            let turn = turn.acquire_owned().await;
            on_own_thread(&self.database, move |database| {
                // Held by the thread, also when nobody waits for it any more.
                let _turn = turn;
                work(&mut handle.lock().unwrap_or_else(PoisonError::into_inner), database)
            })
            .await
        };
        in_time(&self.database, calling).await
    }
}

impl SqliteCatalog {
    /// Runs `work` on a thread for blocking work, when its turn comes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let generation = Arc::clone(&self.generation);
        self.run_with(move |handle, database| {
            let used = handle
                .current(database)
                .and_then(|connection| work(connection).map_err(|error| trouble(database, error)));
            generation.store(handle.replaced(), Ordering::Release);
            used
        })
        .await
    }

    pub(super) async fn run_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Handle, &str) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.calls.run_with(work).await
    }

    /// Goes through the table in short looks, between which others have their turn: `look` is given the ids above the
    /// first number and up to the second, and says whether to go on. Gives what was found, and up to where.
    pub(super) async fn walk<T: Send + 'static>(
        &self,
        above: RecordId,
        found: T,
        look: impl Fn(&mut Connection, [i64; 2], &mut T) -> Result<bool, Error> + Send + Sync + 'static,
    ) -> Result<(T, RecordId), CatalogError> {
        self.walk_past(above, found, look, None).await
    }

    /// The same, past the rows of other archives and those that have a proven copy, by the index for that.
    pub(super) async fn walk_uncopied<T: Send + 'static>(
        &self,
        found: T,
        look: impl Fn(&mut Connection, [i64; 2], &mut T) -> Result<bool, Error> + Send + Sync + 'static,
    ) -> Result<T, CatalogError> {
        Ok(self.walk_past(BOTTOM, found, look, Some(self.archive.clone())).await?.0)
    }

    /// `uncopied`: the archive of whose rows without a proven copy alone each look has some thousands.
    async fn walk_past<T: Send + 'static>(
        &self,
        above: RecordId,
        mut found: T,
        look: impl Fn(&mut Connection, [i64; 2], &mut T) -> Result<bool, Error> + Send + Sync + 'static,
        uncopied: Option<String>,
    ) -> Result<(T, RecordId), CatalogError> {
        let look = Arc::new(look);
        let mut after = above.0;
        loop {
            let look = Arc::clone(&look);
            let uncopied = uncopied.clone();
            let began = Instant::now();
            let (looked, last, more) = self
                .run(move |connection| {
                    let reached = match &uncopied {
                        None => reach_of_a_look(connection, after)?.map(|(last, _)| last),
                        Some(archive) => reach_past_copied(connection, archive, after)?,
                    };
                    let Some(last) = reached else {
                        return Ok((found, after, false));
                    };
                    let more = look(connection, [after, last], &mut found)?;
                    Ok((found, last, more))
                })
                .await?;
            (found, after) = (looked, last);
            if !more {
                return Ok((found, RecordId(after)));
            }
            // So that it never has the whole of a core.
            tokio::time::sleep((began.elapsed() / 2).min(LONGEST_REST)).await;
        }
    }
}

/// Up to which id a short look at the rows above `after` goes, and whether there are none above that; `None` where there
/// are no rows.
pub(super) fn reach_of_a_look(connection: &Connection, after: i64) -> Result<Option<(i64, bool)>, Error> {
    let last = "SELECT MAX(id), COUNT(*) FROM (SELECT id FROM supersync_v0 WHERE id > ?1 ORDER BY id LIMIT ?2)";
    connection.prepare_cached(last)?.query_row(params![after, LOOK], |row| {
        let (last, rows) = (row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?);
        Ok(last.map(|last| (last, rows < LOOK)))
    })
}

/// The same, of the rows of an archive that have no proven copy.
pub(super) fn reach_past_copied(connection: &Connection, archive: &str, after: i64) -> Result<Option<i64>, Error> {
    let last = format!(
        "SELECT MAX(id) FROM (SELECT id FROM supersync_v0 INDEXED BY {INDEX_UNCOPIED} \
         WHERE archive_name = ?1 AND {UNCOPIED} AND id > ?2 ORDER BY id LIMIT ?3)"
    );
    connection.prepare_cached(&last)?.query_row(params![archive, after, LOOK], |row| row.get(0))
}
