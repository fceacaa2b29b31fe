//! The rows of a relayed storage node, in MySQL: those that the node which feeds it has proven, and it has not. Nothing is kept
//! of them but the proofs, so that a node that is new, or was wiped, needs nobody who knew of it.

use super::MySqlCatalog;
use super::fleet::Ours;
use super::indexes::has;
use super::nodes::{MOMENTS, NodeRows, PLACES};
use super::row::{integer, text};
use super::table::quote;
use crate::catalog::fleet::Fleet;
use crate::catalog::nodes::{FED_PAGE, FED_PAGES, FedRows, RelayFeed};
use crate::catalog::note::short;
use crate::catalog::{CatalogError, Settled, Totals};
use mysql_async::prelude::Queryable;
use mysql_async::{Error, Params, Row, Value};

impl NodeRows<'_> {
    /// Failures at this node to make a copy of the proven one that there is: one that was proven later is another chance.
    pub(super) fn attempts_relayed(&self) -> String {
        format!(
            "COALESCE((SELECT t.of_node FROM fleet_trouble AS t WHERE t.table_name={} AND t.node='{}' \
             AND t.row_id=p.row_id AND t.noted_at >= p.at), 0)",
            self.named(),
            self.node.name()
        )
    }

    /// The rows that the other node has proven as they are, behind FROM; each with its proof as `p`. By the rows' ids, and the
    /// whole key of each proof: left to choose, the server goes through all proofs of the table where its statistics are old.
    pub(super) fn proven_at(&self, feed: &RelayFeed) -> String {
        let table = quote(self.table);
        format!(
            "{table} FORCE INDEX (PRIMARY) STRAIGHT_JOIN fleet_proof AS p FORCE INDEX (PRIMARY) \
             ON p.table_name={} AND p.row_id={table}.id AND p.node='{}' WHERE p.sum={table}.md5sum",
            self.named(),
            feed.node
        )
    }

    /// What makes one of them one that this node lacks: it has no proof, and in the other node's place stands no later row's
    /// copy.
    pub(super) fn lacks(&self, feed: &RelayFeed) -> String {
        let named = self.named();
        format!(
            "NOT EXISTS (SELECT 1 FROM fleet_proof AS r FORCE INDEX (PRIMARY) WHERE r.table_name={named} AND r.row_id=p.row_id AND r.node='{}' \
             AND r.sum=p.sum) \
             AND NOT EXISTS (SELECT 1 FROM fleet_proof AS q FORCE INDEX ({PLACES}) WHERE q.node='{}' AND q.path=p.path AND q.table_name={named} \
             AND q.row_id > p.row_id)",
            self.node.name(),
            feed.node
        )
    }

    /// Counts a failed attempt for the relayed node alone; what it comes to, if it was counted.
    pub(super) async fn fail_relayed(
        &self,
        transaction: &mut impl Queryable,
        feed: &RelayFeed,
        row: &Settled,
        why: &str,
    ) -> Result<Option<i64>, Error> {
        let before = format!("SELECT {} FROM {} AND id=? FOR UPDATE", self.attempts_relayed(), self.proven_at(feed));
        let before = transaction.exec_first::<Row, _, _>(before, (row.id.0,)).await?;
        if before.and_then(|row| integer(row.as_ref(0)).ok().flatten()) != Some(row.attempts) {
            return Ok(None);
        }
        let counted = row.attempts.saturating_add(1);
        let put = "INSERT INTO fleet_trouble (table_name, node, row_id, of_source, of_node, why) VALUES (?, ?, ?, 0, ?, ?) \
                   ON DUPLICATE KEY UPDATE of_source=0, of_node=VALUES(of_node), why=VALUES(why), \
                   noted_at=CURRENT_TIMESTAMP(6)";
        transaction.exec_drop(put, (self.table, self.node.name(), row.id.0, counted, short(why))).await?;
        Ok(Some(counted))
    }
}

impl MySqlCatalog {
    /// The relayed storage node that is worked for, with what feeds it.
    pub(super) fn relayed(&self) -> Option<(NodeRows<'_>, &RelayFeed)> {
        let node = self.node.as_ref()?;
        Some((NodeRows { node, table: &self.table.name }, node.feed()?))
    }

    /// Rows that the other node has proven since then.
    pub(super) async fn rows_fed_since(&self, since: Option<f64>) -> Result<Option<FedRows>, CatalogError> {
        let Some((rows, feed)) = self.relayed() else { return Ok(None) };
        if since.is_none() && !self.run(async |conn| has(conn, "fleet_proof", MOMENTS).await).await? {
            return Ok(None);
        }
        let table = quote(self.table.name.as_str());
        let ours = Ours::new(self.fleet.as_ref().map(Fleet::held), self.lanes, &self.selection.targets);
        let query = format!(
            "SELECT p.row_id, UNIX_TIMESTAMP(p.at), IFNULL(p.sum={table}.md5sum AND {} AND {} < ? AND {}, 0) \
             FROM (SELECT row_id, at, sum, path FROM fleet_proof FORCE INDEX ({MOMENTS}) WHERE node='{}' AND table_name={} \
             AND at >= FROM_UNIXTIME(?) ORDER BY at LIMIT {FED_PAGE}) AS p LEFT JOIN {table} ON {table}.id=p.row_id ORDER BY p.at",
            ours.condition("p.path"),
            rows.attempts_relayed(),
            rows.lacks(feed),
            feed.node,
            rows.named()
        );
        self.run(async |conn| {
            let now: Option<Row> = conn.query_first("SELECT UNIX_TIMESTAMP(NOW(6))").await?;
            let until = now.and_then(|row| decimal(&row, 0)).unwrap_or_default();
            let (mut fed, mut from) = (FedRows { ids: Vec::new(), until }, since);
            for page in 0..FED_PAGES {
                let Some(moment) = from else { break };
                let mut values = ours.condition_values();
                values.extend([self.selection.max_attempts.into(), moment.into()]);
                let found: Vec<Row> = conn.exec(&query, Params::Positional(values)).await?;
                let proof = |row: &Row| {
                    let whole = |index| integer(row.as_ref(index)).ok().flatten();
                    Some((whole(0)?, decimal(row, 1)?, whole(2) == Some(1)))
                };
                from = fed.enter(moment, &found.iter().filter_map(proof).collect::<Vec<_>>());
                if let Some(moment) = from.filter(|_| page + 1 == FED_PAGES) {
                    fed.until = moment;
                }
            }
            Ok(Some(fed))
        })
        .await
    }

    /// How many rows of the other node's wait for this one, how many it gave up and how many it has.
    pub(super) async fn count_relayed(&self, rows: &NodeRows<'_>, feed: &RelayFeed) -> Result<Totals, CatalogError> {
        let (attempts, lacks) = (rows.attempts_relayed(), rows.lacks(feed));
        let query = format!(
            "SELECT COUNT(CASE WHEN {lacks} AND {attempts} < ? THEN 1 END), \
             COUNT(CASE WHEN {lacks} AND {attempts} >= ? THEN 1 END), COUNT(*) FROM {} \
             AND id > ? AND id <= ? AND {}",
            rows.proven_at(feed),
            self.targets()
        );
        let (mut after, mut totals) = (i64::MIN, Totals::default());
        while let Some((last, _)) = self.reach_of_a_look(after).await? {
            let most = Value::from(self.selection.max_attempts);
            let first = [most.clone(), most, after.into(), last.into()];
            let values = Params::Positional(first.into_iter().chain(self.target_values()).collect());
            let row = self.run(async |conn| conn.exec_first::<Row, _, _>(&query, values).await).await?;
            let count = |index| {
                let value = row.as_ref().and_then(|row| integer(row.as_ref(index)).ok().flatten());
                value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0)
            };
            totals.pending += count(0);
            totals.given_up += count(1);
            totals.copied += count(2).saturating_sub(count(0) + count(1));
            after = last;
        }
        Ok(totals)
    }

    /// When the file of the oldest of those that wait was written.
    pub(super) async fn oldest_relayed(
        &self,
        rows: &NodeRows<'_>,
        feed: &RelayFeed,
    ) -> Result<Option<f64>, CatalogError> {
        let query = format!(
            "SELECT MIN(NULLIF(UNIX_TIMESTAMP(`timestamp`), 0)) FROM {} AND id > ? AND id <= ? \
             AND {} AND {} < ? AND {}",
            rows.proven_at(feed),
            rows.lacks(feed),
            rows.attempts_relayed(),
            self.targets()
        );
        let (mut after, mut oldest) = (i64::MIN, None::<i64>);
        while let Some((last, _)) = self.reach_of_a_look(after).await? {
            let first = [after.into(), last.into(), self.selection.max_attempts.into()];
            let values = Params::Positional(first.into_iter().chain(self.target_values()).collect());
            let row = self.run(async |conn| conn.exec_first::<Row, _, _>(&query, values).await).await?;
            let here = row.and_then(|row| integer(row.as_ref(0)).ok().flatten());
            oldest = oldest.into_iter().chain(here.filter(|&seconds| seconds > 0)).min();
            after = last;
        }
        Ok(oldest.map(|seconds| seconds as f64))
    }
}

fn decimal(row: &Row, index: usize) -> Option<f64> {
    text(row.as_ref(index)).ok().flatten()?.parse().ok()
}
