//! Counts of the whole table.

use super::SqliteCatalog;
use super::indexes::{INDEX_ARCHIVE, INDEX_UNCOPIED, UNCOPIED, has};
use super::nodes;
use super::table::FILES;
use super::walk::BOTTOM;
use crate::catalog::{CatalogError, Totals};
use rusqlite::{Connection, Error, params};

impl SqliteCatalog {
    /// Whether counts need not go through the table.
    pub(in crate::catalog) async fn is_indexed(&self) -> Result<bool, CatalogError> {
        self.run(|connection| Ok(has(connection, INDEX_UNCOPIED)? && has(connection, INDEX_ARCHIVE)?)).await
    }

    /// How many rows are in which state.
    pub(super) async fn count(&self) -> Result<Totals, CatalogError> {
        if let Some((node, feed)) = self.relayed() {
            return self.count_relayed(node, feed).await;
        }
        let mut totals = match self.is_indexed().await? {
            true => self.count_by_indexes().await?,
            false => {
                let counted = self.walk(BOTTOM, RowCounts::default(), self.counting("", "")).await?.0;
                Totals { copied: counted.rows - counted.uncopied, ..counted.totals }
            }
        };
        if let Some(node) = self.node.clone() {
            let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
            let owed = self.run(move |connection| nodes::count_owed(connection, &node, (&archive, max_attempts)));
            let [waiting, given_up] = owed.await?;
            totals.pending += waiting;
            totals.given_up += given_up;
            totals.copied = totals.copied.saturating_sub(waiting + given_up);
        }
        Ok(totals)
    }

    /// The same, without a look at each row that is copied.
    async fn count_by_indexes(&self) -> Result<Totals, CatalogError> {
        let counting = self.counting(&format!("INDEXED BY {INDEX_UNCOPIED}"), &format!("AND {UNCOPIED}"));
        let counted = self.walk_uncopied(RowCounts::default(), counting).await?;
        let all = format!("SELECT COUNT(*) FROM {FILES} INDEXED BY {INDEX_ARCHIVE} WHERE archive_name = ?1");
        let archive = self.archive.clone();
        let all: i64 = self.run(move |connection| connection.query_row(&all, [archive], |row| row.get(0))).await?;
        Ok(Totals { copied: all.unsigned_abs().saturating_sub(counted.uncopied), ..counted.totals })
    }

    /// What makes a row one that waits, for the storage node that is worked for.
    fn waiting_here(&self) -> String {
        match &self.node {
            Some(node) => format!("{} AND {}", self.waiting(), nodes::is_due(node)),
            None => self.waiting(),
        }
    }

    /// Its failures, as they count there.
    fn failures(&self) -> String {
        match &self.node {
            Some(node) => format!("max(failed_copy_attempts, {})", nodes::attempts(node)),
            None => "failed_copy_attempts".to_owned(),
        }
    }

    /// A look that counts, `by` an index and only what `more` says.
    fn counting(
        &self,
        by: &str,
        more: &str,
    ) -> impl Fn(&mut Connection, [i64; 2], &mut RowCounts) -> Result<bool, Error> + use<> {
        let query = format!(
            "SELECT COUNT(CASE WHEN {0} AND {1} < ?2 THEN 1 END), COUNT(CASE WHEN {0} AND {1} >= ?2 THEN 1 END), \
             COUNT(CASE WHEN {UNCOPIED} THEN 1 END), COUNT(*) FROM {FILES} {by} \
             WHERE id > ?3 AND id <= ?4 AND archive_name = ?1 {more}",
            self.waiting_here(),
            self.failures()
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        move |connection, [after, last], counts| {
            connection.prepare_cached(&query)?.query_row(params![archive, max_attempts, after, last], |row| {
                let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                counts.totals.pending += count(0)?;
                counts.totals.given_up += count(1)?;
                counts.uncopied += count(2)?;
                counts.rows += count(3)?;
                Ok(true)
            })
        }
    }

    /// The oldest timestamp of those that wait.
    pub(super) async fn oldest_waiting(&self) -> Result<Option<f64>, CatalogError> {
        if let Some((node, feed)) = self.relayed() {
            return self.oldest_relayed(node, feed).await;
        }
        let indexed = self.run(|connection| has(connection, INDEX_UNCOPIED)).await?;
        let by = if indexed { format!("INDEXED BY {INDEX_UNCOPIED}") } else { String::new() };
        let query = format!(
            "SELECT MIN(timestamp) FROM {FILES} {by} WHERE id > ?3 AND id <= ?4 AND {} AND {} < ?2",
            self.waiting_here(),
            self.failures()
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], oldest: &mut Option<f64>| {
            let given = params![archive, max_attempts, after, last];
            let here: Option<f64> = connection.prepare_cached(&query)?.query_row(given, |row| row.get(0))?;
            *oldest = oldest.take().into_iter().chain(here).reduce(f64::min);
            Ok(true)
        };
        match indexed {
            true => self.walk_uncopied(None, look).await,
            false => Ok(self.walk(BOTTOM, None, look).await?.0),
        }
    }
}

/// What a look counts.
#[derive(Default)]
struct RowCounts {
    totals: Totals,
    uncopied: u64,
    rows: u64,
}
