//! The rows of a target as one of its storage nodes has them before it, in MySQL: what waits there, and what a proof of it
//! makes of a row.

use super::is_bad_data;
use super::row::{integer, text};
use super::table::quote;
use crate::catalog::nodes::{NODE_TABLES, RELAY_TABLE, Spread, StorageNode, has_nodes};
use crate::catalog::note::short;
use crate::catalog::{FailedSide, Md5, RecordId, Settled};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Row, Value};

const CREATE: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS fleet_node (table_name VARCHAR(64) NOT NULL, target VARCHAR(64) NOT NULL, node VARCHAR(32) NOT NULL, PRIMARY KEY (table_name, target, node)) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_owed (table_name VARCHAR(64) NOT NULL, node VARCHAR(32) NOT NULL, row_id BIGINT NOT NULL, source VARCHAR(4096) NULL, lacking TINYINT NOT NULL DEFAULT 0, PRIMARY KEY (table_name, node, row_id)) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_trouble (table_name VARCHAR(64) NOT NULL, node VARCHAR(32) NOT NULL, row_id BIGINT NOT NULL, of_source INT NOT NULL, of_node INT NOT NULL, noted_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), why VARCHAR(1000) NOT NULL, PRIMARY KEY (table_name, node, row_id)) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_relay (table_name VARCHAR(64) NOT NULL, target VARCHAR(64) NOT NULL, node VARCHAR(32) NOT NULL, source VARCHAR(32) NOT NULL, PRIMARY KEY (table_name, target, node)) ENGINE=InnoDB CHARACTER SET utf8mb4",
];

/// Index of the places of copies.
pub(super) const PLACES: &str = "fleet_proof_place";
/// That of the moments of proofs. They come first in it: else it would be taken for questions that the primary key answers.
pub(super) const MOMENTS: &str = "fleet_proof_at";

/// Whether the tables are there, and seen.
pub(super) async fn exist(conn: &mut Conn) -> Result<bool, Error> {
    let query =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN (?, ?, ?)";
    let there: Vec<Row> = conn.exec(query, NODE_TABLES.map(Value::from).to_vec()).await?;
    Ok(there.len() == NODE_TABLES.len())
}

/// Whether there is a table that says which of them are relayed.
pub(super) async fn know_relays(conn: &mut impl Queryable) -> Result<bool, Error> {
    let there = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    Ok(conn.exec_first::<Row, _, _>(there, (RELAY_TABLE,)).await?.is_some())
}

/// Creates those that are absent; whether each is new.
pub(super) async fn create(conn: &mut Conn) -> Result<Vec<(&'static str, bool)>, Error> {
    let mut created = Vec::new();
    for (name, statement) in NODE_TABLES.into_iter().chain([RELAY_TABLE]).zip(CREATE) {
        let there = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
        let new = conn.exec_first::<Row, _, _>(there, (name,)).await?.is_none();
        if new {
            conn.query_drop(statement).await?;
        }
        created.push((name, new));
    }
    // By which it is known whose copy stands at a place.
    if !super::indexes::has(conn, "fleet_proof", PLACES).await? {
        conn.query_drop(format!("CREATE INDEX {PLACES} ON fleet_proof (node, path(190))")).await?;
    }
    // By which a relay finds what was proven of late, of whatever rows.
    if !super::indexes::has(conn, "fleet_proof", MOMENTS).await? {
        conn.query_drop(format!("CREATE INDEX {MOMENTS} ON fleet_proof (at, node, table_name)")).await?;
    }
    Ok(created)
}

/// Says in the table which nodes the copies of these targets go to; without any, why nobody may work on them who has none.
pub(super) async fn enter(
    conn: &mut Conn,
    table: &str,
    targets: &[String],
    node: Option<&StorageNode>,
) -> Result<Option<String>, Error> {
    if let Some(node) = node {
        let (names, know_relays) = (node.names(), know_relays(conn).await?);
        for target in targets {
            for name in names.direct.iter().chain(names.relayed.iter().map(|(name, _)| name)) {
                let insert = "INSERT IGNORE INTO fleet_node (table_name, target, node) VALUES (?, ?, ?)";
                conn.exec_drop(insert, (table, target, name)).await?;
            }
            if !know_relays {
                continue;
            }
            for name in &names.direct {
                let delete = "DELETE FROM fleet_relay WHERE table_name=? AND target=? AND node=?";
                conn.exec_drop(delete, (table, target, name)).await?;
            }
            for (name, from) in &names.relayed {
                let put = "INSERT INTO fleet_relay (table_name, target, node, source) VALUES (?, ?, ?, ?) \
                           ON DUPLICATE KEY UPDATE source=VALUES(source)";
                conn.exec_drop(put, (table, target, name, from)).await?;
            }
        }
        return Ok(None);
    }
    let marks = vec!["?"; targets.len()].join(", ");
    let query = format!("SELECT DISTINCT node FROM fleet_node WHERE table_name=? AND target IN ({marks})");
    let values = std::iter::once(Value::from(table)).chain(targets.iter().map(Value::from)).collect();
    let known: Vec<Row> = conn.exec(query, Params::Positional(values)).await?;
    let known: Vec<String> = known.iter().filter_map(|row| text(row.as_ref(0)).ok().flatten()).collect();
    Ok((!known.is_empty()).then(|| has_nodes(&known)))
}

/// Has a node owe its copy of a row, whatever it has proven; whether the row is what was read. A relayed one lacks what it has
/// not proven.
pub(super) async fn owe(
    transaction: &mut impl Queryable,
    table: &str,
    node: &str,
    (id, md5): (RecordId, &Md5),
) -> Result<bool, Error> {
    let lock = format!("SELECT copied FROM {} WHERE id=? AND md5sum=? FOR UPDATE", quote(table));
    let Some(found) = transaction.exec_first::<Row, _, _>(lock, (id.0, &md5[..])).await? else { return Ok(false) };
    for of in ["fleet_proof", "fleet_trouble"] {
        let delete = format!("DELETE FROM {of} WHERE table_name=? AND node=? AND row_id=?");
        transaction.exec_drop(delete, (table, node, id.0)).await?;
    }
    let copied = integer(found.as_ref(0)).ok().flatten().is_some_and(|copied| copied != 0);
    if copied && fed_from(transaction, table, node).await?.is_none() {
        let owe =
            "INSERT INTO fleet_owed (table_name, node, row_id) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE lacking=0";
        transaction.exec_drop(owe, (table, node, id.0)).await?;
    }
    Ok(true)
}

/// The node that feeds this one, if it is a relayed one.
pub(super) async fn fed_from(conn: &mut impl Queryable, table: &str, node: &str) -> Result<Option<String>, Error> {
    if !know_relays(conn).await? {
        return Ok(None);
    }
    let query = "SELECT source FROM fleet_relay WHERE table_name=? AND node=? LIMIT 1";
    let row = conn.exec_first::<Row, _, _>(query, (table, node)).await?;
    Ok(row.and_then(|row| text(row.as_ref(0)).ok().flatten()))
}

/// A table of files as one node has it before it.
pub(super) struct NodeRows<'a> {
    pub(super) node: &'a StorageNode,
    pub(super) table: &'a str,
}

impl NodeRows<'_> {
    /// The table's name as a text of SQL.
    pub(super) fn named(&self) -> String {
        format!("'{}'", self.table.replace('\\', "\\\\").replace('\'', "''"))
    }

    /// The proofs of a row that speak of the bytes it has now, behind FROM.
    pub(super) fn proofs(&self) -> String {
        let (named, table) = (self.named(), quote(self.table));
        format!(
            "fleet_proof AS p FORCE INDEX (PRIMARY) WHERE p.table_name={named} AND p.row_id={table}.id AND p.sum={table}.md5sum"
        )
    }

    /// What makes a row that waits one that waits for this node. Where enough nodes have proven it, somebody has put it back
    /// since, and the proofs are void.
    pub(super) fn is_due(&self) -> String {
        let (proofs, name, list, copies) = (self.proofs(), self.node.name(), self.node.list(), self.node.copies());
        format!(
            "(NOT EXISTS (SELECT 1 FROM {proofs} AND p.node='{name}') \
             OR (SELECT COUNT(*) FROM {proofs} AND p.node IN ({list})) >= {copies}){}",
            self.takes()
        )
    }

    /// Which rows go to this node, where several share them: that with the highest sum of all.
    pub(super) fn takes(&self) -> String {
        if self.node.spread() != Spread::Share {
            return String::new();
        }
        let sum = |name: &str| format!("MD5(CONCAT(SUBSTRING_INDEX(path, '/', -1), '@{name}'))");
        let others = self.node.names().direct.iter().filter(|name| *name != self.node.name());
        others.map(|other| format!(" AND {} > {}", sum(self.node.name()), sum(other))).collect()
    }

    /// Failures of a row that waits, as they count at this node: those of its source while the row still says so, and the
    /// node's.
    pub(super) fn attempts(&self) -> String {
        format!(
            "COALESCE((SELECT LEAST(t.of_source, failed_copy_attempts) + t.of_node FROM fleet_trouble AS t \
             WHERE t.table_name={} AND t.node='{}' AND t.row_id={}.id), 0)",
            self.named(),
            self.node.name(),
            quote(self.table)
        )
    }

    /// The rows that this node still owes a copy of, although enough others have proven it, behind FROM.
    pub(super) fn owed(&self) -> String {
        let table = quote(self.table);
        format!(
            "fleet_owed AS o JOIN {table} ON {table}.id=o.row_id WHERE o.table_name={} AND o.node='{}' AND copied<>0",
            self.named(),
            self.node.name()
        )
    }

    /// Failures of such a row at this node.
    pub(super) fn attempts_owed(&self) -> String {
        format!(
            "COALESCE((SELECT t.of_node FROM fleet_trouble AS t WHERE t.table_name={} AND t.node='{}' AND t.row_id={}.id), 0)",
            self.named(),
            self.node.name(),
            quote(self.table)
        )
    }

    /// The nodes that have proven a row, with the places of their copies and their sums.
    async fn proven(
        &self,
        transaction: &mut impl Queryable,
        id: RecordId,
    ) -> Result<Vec<(String, String, Vec<u8>)>, Error> {
        let query = format!(
            "SELECT node, path, sum FROM fleet_proof WHERE table_name=? AND row_id=? AND node IN ({})",
            self.node.list()
        );
        let rows: Vec<Row> = transaction.exec(query, (self.table, id.0)).await?;
        let proof = |row: &Row| {
            let sum = match row.as_ref(2) {
                Some(Value::Bytes(sum)) => sum.clone(),
                _ => Vec::new(),
            };
            Some((text(row.as_ref(0)).ok().flatten()?, text(row.as_ref(1)).ok().flatten()?, sum))
        };
        Ok(rows.iter().filter_map(proof).collect())
    }

    /// Keeps the proof of this node, and makes the row a copied one where there are enough; whether the row still was what
    /// was proven. The error in words: the table does not take the row's new path.
    pub(super) async fn prove(
        &self,
        transaction: &mut impl Queryable,
        mover: &str,
        row: &Settled,
        (path, md5): (&str, &Md5),
    ) -> Result<Result<bool, String>, Error> {
        // Locked, so that of two nodes whose proofs come at once the second one sees the first one's.
        let table = quote(self.table);
        let lock = format!("SELECT copied, path FROM {table} WHERE id=? AND md5sum=? FOR UPDATE");
        let Some(found) = transaction.exec_first::<Row, _, _>(lock, (row.id.0, &md5[..])).await? else {
            return Ok(Ok(false));
        };
        let Some(copied) = integer(found.as_ref(0)).ok().flatten() else { return Ok(Ok(false)) };
        let source = found.as_ref(1).cloned().unwrap_or(Value::NULL);
        // Without one whose proofs do not count, a row is no less done.
        let waits = copied == 0 && self.node.counts();
        let mut proven = self.proven(transaction, row.id).await?;
        if proven.iter().any(|(.., sum)| sum != md5) || (waits && proven.len() >= self.node.copies()) {
            let all = self.node.list_of_all();
            let void = format!("DELETE FROM fleet_proof WHERE table_name=? AND row_id=? AND node IN ({all})");
            transaction.exec_drop(void, (self.table, row.id.0)).await?;
            proven.clear();
        }
        let insert = "INSERT INTO fleet_proof (table_name, row_id, node, mover, gen, path, sum) VALUES (?, ?, ?, ?, ?, ?, ?) \
                      ON DUPLICATE KEY UPDATE mover=VALUES(mover), gen=VALUES(gen), path=VALUES(path), sum=VALUES(sum), \
                      at=CURRENT_TIMESTAMP(6)";
        let name = self.node.name();
        let values = (self.table, row.id.0, name, mover, row.hold.taking, path, &md5[..]);
        transaction.exec_drop(insert, values).await?;
        if !waits || row.attempts > 0 || self.node.feed().is_some() {
            for of in ["fleet_owed", "fleet_trouble"] {
                let delete = format!("DELETE FROM {of} WHERE table_name=? AND node=? AND row_id=?");
                transaction.exec_drop(delete, (self.table, name, row.id.0)).await?;
            }
        }
        if !waits {
            return Ok(Ok(true));
        }
        proven.retain(|(node, ..)| node != name);
        proven.push((name.to_owned(), path.to_owned(), md5.to_vec()));
        self.settle(transaction, row.id, &proven, source).await
    }

    /// Makes a row a copied one if enough nodes have proven it; the others owe their copies from then on.
    async fn settle(
        &self,
        transaction: &mut impl Queryable,
        id: RecordId,
        proven: &[(String, String, Vec<u8>)],
        source: Value,
    ) -> Result<Result<bool, String>, Error> {
        let path_of = |name: &String| proven.iter().find(|(node, ..)| node == name).map(|(_, path, _)| path);
        let Some(path) = self.node.counted().find_map(path_of).filter(|_| proven.len() >= self.node.copies()) else {
            return Ok(Ok(true));
        };
        let copied = format!(
            "UPDATE {} SET path=?, copied=1, `timestamp`=`timestamp` WHERE id=? AND copied=0",
            quote(self.table)
        );
        match transaction.exec_drop(copied, (path, id.0)).await {
            Err(Error::Server(error)) if is_bad_data(error.code) => return Ok(Err(error.message)),
            written => written?,
        }
        if self.node.spread() == Spread::Share {
            return Ok(Ok(true));
        }
        for lacking in self.node.names().direct.iter().filter(|name| path_of(name).is_none()) {
            let owe = "INSERT IGNORE INTO fleet_owed (table_name, node, row_id, source) VALUES (?, ?, ?, ?)";
            transaction.exec_drop(owe, (self.table, lacking, id.0, &source)).await?;
        }
        Ok(Ok(true))
    }

    /// Counts a failed attempt where it belongs: what is wrong with the source counts in the row, however many nodes meet it;
    /// what is wrong with the node, for this node alone. What the row says then, if it was counted.
    pub(super) async fn fail(
        &self,
        transaction: &mut impl Queryable,
        row: &Settled,
        (side, why): (FailedSide, &str),
    ) -> Result<Option<i64>, Error> {
        if let Some(feed) = self.node.feed() {
            return self.fail_relayed(transaction, feed, row, why).await;
        }
        let table = quote(self.table);
        let lock = format!("SELECT copied, failed_copy_attempts FROM {table} WHERE id=? FOR UPDATE");
        let Some(found) = transaction.exec_first::<Row, _, _>(lock, (row.id.0,)).await? else { return Ok(None) };
        let number = |row: &Row, index| integer(row.as_ref(index)).ok().flatten();
        let (Some(copied), counted) = (number(&found, 0), number(&found, 1).unwrap_or(0)) else { return Ok(None) };
        let waits = copied == 0;
        let before = "SELECT of_source, of_node FROM fleet_trouble WHERE table_name=? AND node=? AND row_id=?";
        let before = transaction.exec_first::<Row, _, _>(before, (self.table, self.node.name(), row.id.0)).await?;
        let before = |index| before.as_ref().and_then(|row| number(row, index)).unwrap_or(0);
        let (mut of_source, mut of_node) = (if waits { before(0).min(counted) } else { 0 }, before(1));
        if of_source + of_node != row.attempts {
            return Ok(None);
        }
        match side {
            FailedSide::Source if waits => of_source += 1,
            FailedSide::Source => {
                // No failure: another node has what is here no more.
                let lacks = "UPDATE fleet_owed SET lacking=1 WHERE table_name=? AND node=? AND row_id=?";
                transaction.exec_drop(lacks, (self.table, self.node.name(), row.id.0)).await?;
                return Ok(Some(counted));
            }
            FailedSide::Destination => of_node += 1,
        }
        let counted = counted.max(of_source);
        if waits {
            let count = format!(
                "UPDATE {table} SET failed_copy_attempts=?, `timestamp`=`timestamp` WHERE id=? AND failed_copy_attempts < ?"
            );
            transaction.exec_drop(count, (counted, row.id.0, counted)).await?;
        }
        let put = "INSERT INTO fleet_trouble (table_name, node, row_id, of_source, of_node, why) VALUES (?, ?, ?, ?, ?, ?) \
                   ON DUPLICATE KEY UPDATE of_source=VALUES(of_source), of_node=VALUES(of_node), why=VALUES(why), \
                   noted_at=CURRENT_TIMESTAMP(6)";
        let values = (self.table, self.node.name(), row.id.0, of_source, of_node, short(why));
        transaction.exec_drop(put, values).await?;
        Ok(Some(counted))
    }
}
