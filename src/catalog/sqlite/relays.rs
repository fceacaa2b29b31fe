//! The rows of a relayed storage node: those that the node which feeds it has proven, and it has not. Nothing is kept of them
//! but the proofs, so that a node that is new, or was wiped, needs nobody who knew of it.

use super::table::FILES;
use super::walk::BOTTOM;
use super::{SqliteCatalog, columns};
use crate::catalog::fleet::DEBTS_MOST;
use crate::catalog::nodes::{FED_PAGE, FED_PAGES, FedRows, RelayFeed, StorageNode};
use crate::catalog::{CatalogError, Settled, Totals};
use crate::clock::unix_now;
use rusqlite::{Connection, Error, OptionalExtension, Transaction, params};

/// Index of the moments of proofs.
pub(super) const MOMENTS: &str = "fleet_proof_at";

/// Whether there is an index of the moments of proofs.
fn has_moments(connection: &Connection) -> Result<bool, Error> {
    let there = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name = ?";
    connection.prepare_cached(there)?.query_row([MOMENTS], |row| row.get::<_, i64>(0)).map(|indexes| indexes > 0)
}

/// Failures at this node to make a copy of the proven one that there is: one that was proven later is another chance.
pub(super) fn attempts(node: &StorageNode) -> String {
    format!(
        "COALESCE((SELECT t.of_node FROM fleet_trouble AS t WHERE t.table_name = '{FILES}' AND t.node = '{}' \
         AND t.row_id = p.row_id AND t.noted_at >= p.at), 0)",
        node.name()
    )
}

/// The rows that the other node has proven as they are, behind FROM; each with its proof as `p`. Not by the index of places,
/// which would have all of the node's.
pub(super) fn proven(feed: &RelayFeed) -> String {
    format!(
        "fleet_proof AS p CROSS JOIN {FILES} ON {FILES}.id = p.row_id WHERE p.table_name = '{FILES}' AND +p.node = '{}' \
         AND lower(hex(p.sum)) = lower(local_md5sum)",
        feed.node
    )
}

/// What makes one of them one that this node lacks: it has no proof, and in the other node's place stands no later row's copy.
pub(super) fn lacks(node: &StorageNode, feed: &RelayFeed) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM fleet_proof AS r WHERE r.table_name = '{FILES}' AND r.row_id = p.row_id \
         AND r.node = '{}' AND r.sum = p.sum) \
         AND NOT EXISTS (SELECT 1 FROM fleet_proof AS q JOIN {FILES} AS f ON f.id = q.row_id WHERE q.node = '{}' AND q.path = p.path \
         AND q.table_name = '{FILES}' AND q.row_id > p.row_id AND f.archive_name = {FILES}.archive_name)",
        node.name(),
        feed.node
    )
}

/// A look at the rows that this node lacks; parameters as those of a look at all. `more`: what else is asked of a row.
pub(super) fn look(node: &StorageNode, feed: &RelayFeed, more: &str) -> String {
    let (attempts, lacks) = (attempts(node), lacks(node, feed));
    format!(
        "SELECT {FILES}.id, {attempts}, {} FROM {} AND p.row_id > ?2 AND p.row_id <= ?5 AND archive_name = ?1 {more} \
         AND {lacks} AND {attempts} < ?3 ORDER BY p.row_id LIMIT ?4",
        columns("p.path"),
        proven(feed)
    )
}

/// Of the newest proofs of the other node, as far as is counted: how many there are, and of how many rows this one has none.
pub(super) fn lacked(connection: &Connection, node: &str, from: &str) -> Result<[u64; 2], Error> {
    let query = format!(
        "SELECT COUNT(*), SUM(NOT EXISTS (SELECT 1 FROM fleet_proof AS r WHERE r.table_name = '{FILES}' AND r.row_id = p.row_id \
         AND r.node = ?1 AND r.sum = p.sum)) FROM (SELECT row_id, sum FROM fleet_proof WHERE table_name = '{FILES}' \
         AND +node = ?2 ORDER BY row_id DESC LIMIT {DEBTS_MOST}) AS p"
    );
    connection.prepare_cached(&query)?.query_row([node, from], |row| {
        Ok([row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or(0)].map(i64::unsigned_abs))
    })
}

/// Counts a failed attempt for the relayed node alone; whether it was counted, and what it comes to.
pub(super) fn fail(
    transaction: &Transaction<'_>,
    (node, feed): (&StorageNode, &RelayFeed),
    row: &Settled,
    (why, now): (&str, f64),
) -> Result<Option<i64>, Error> {
    let before = format!("SELECT {} FROM {} AND p.row_id = ?", attempts(node), proven(feed));
    let before: Option<i64> =
        transaction.prepare_cached(&before)?.query_row([row.id.0], |row| row.get(0)).optional()?;
    if before != Some(row.attempts) {
        return Ok(None);
    }
    let counted = row.attempts.saturating_add(1);
    let put = "INSERT OR REPLACE INTO fleet_trouble (table_name, node, row_id, of_source, of_node, noted_at, why) VALUES (?, ?, ?, 0, ?, ?, ?)";
    let why = crate::catalog::note::short(why);
    transaction.prepare_cached(put)?.execute(params![FILES, node.name(), row.id.0, counted, now, why])?;
    Ok(Some(counted))
}

/// A page of the other node's proofs from a moment on, in their order: the row, the moment, and whether this node lacks it.
fn page_since(node: &StorageNode, feed: &RelayFeed, more: &str) -> String {
    format!(
        "SELECT p.row_id, p.at, coalesce(lower(hex(p.sum)) = lower(local_md5sum) AND archive_name = ?1 {more} AND {} < ?2 \
         AND {}, 0) FROM (SELECT row_id, at, sum, path FROM fleet_proof INDEXED BY {MOMENTS} WHERE node = '{}' \
         AND table_name = '{FILES}' AND at >= ?3 ORDER BY at LIMIT {FED_PAGE}) AS p LEFT JOIN {FILES} ON {FILES}.id = p.row_id \
         ORDER BY p.at",
        attempts(node),
        lacks(node, feed),
        feed.node
    )
}

impl SqliteCatalog {
    /// Rows that the other node has proven since then.
    pub(super) async fn rows_fed_since(&self, since: Option<f64>) -> Result<Option<FedRows>, CatalogError> {
        let Some((node, feed)) = self.relayed() else { return Ok(None) };
        let query = page_since(node, feed, self.not_ignored);
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        self.run(move |connection| {
            if since.is_none() && !has_moments(connection)? {
                return Ok(None);
            }
            let (mut fed, mut from) = (FedRows { ids: Vec::new(), until: unix_now() }, since);
            for page in 0..FED_PAGES {
                let Some(moment) = from else { break };
                let mut statement = connection.prepare_cached(&query)?;
                let found = statement.query_map(params![archive, max_attempts, moment], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?;
                from = fed.enter(moment, &found.collect::<Result<Vec<_>, _>>()?);
                if let Some(moment) = from.filter(|_| page + 1 == FED_PAGES) {
                    fed.until = moment;
                }
            }
            Ok(Some(fed))
        })
        .await
    }

    /// How many rows of the other node's wait for this one, how many it gave up and how many it has.
    pub(super) async fn count_relayed(&self, node: &StorageNode, feed: &RelayFeed) -> Result<Totals, CatalogError> {
        let (attempts, lacks) = (attempts(node), lacks(node, feed));
        let query = format!(
            "SELECT COUNT(CASE WHEN {lacks} AND {attempts} < ?2 THEN 1 END), \
             COUNT(CASE WHEN {lacks} AND {attempts} >= ?2 THEN 1 END), COUNT(*) FROM {} \
             AND p.row_id > ?3 AND p.row_id <= ?4 AND archive_name = ?1 {}",
            proven(feed),
            self.not_ignored
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], totals: &mut Totals| {
            connection.prepare_cached(&query)?.query_row(params![archive, max_attempts, after, last], |row| {
                let count = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
                let (pending, given_up) = (count(0)?, count(1)?);
                totals.pending += pending;
                totals.given_up += given_up;
                totals.copied += count(2)?.saturating_sub(pending + given_up);
                Ok(true)
            })
        };
        Ok(self.walk(BOTTOM, Totals::default(), look).await?.0)
    }

    /// The oldest timestamp of those that wait.
    pub(super) async fn oldest_relayed(
        &self,
        node: &StorageNode,
        feed: &RelayFeed,
    ) -> Result<Option<f64>, CatalogError> {
        let query = format!(
            "SELECT MIN(timestamp) FROM {} AND p.row_id > ?3 AND p.row_id <= ?4 AND archive_name = ?1 {} AND {} AND {} < ?2",
            proven(feed),
            self.not_ignored,
            lacks(node, feed),
            attempts(node)
        );
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], oldest: &mut Option<f64>| {
            let given = params![archive, max_attempts, after, last];
            let here: Option<f64> = connection.prepare_cached(&query)?.query_row(given, |row| row.get(0))?;
            *oldest = oldest.take().into_iter().chain(here).reduce(f64::min);
            Ok(true)
        };
        Ok(self.walk(BOTTOM, None, look).await?.0)
    }
}
