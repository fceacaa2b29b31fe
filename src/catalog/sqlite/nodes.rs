//! The rows of a target as one of its storage nodes has them before it: what waits there, and what a proof of it makes of a row.

use super::relays::{self, MOMENTS};
use super::row::hex;
use super::table::{FILES, PATH_LIMIT};
use crate::catalog::nodes::{NODE_TABLES, RELAY_TABLE, Spread, StorageNode, has_nodes};
use crate::catalog::{FailedSide, Md5, Note, RecordId, Retry, Settled};
use rusqlite::{Connection, Error, OptionalExtension, Transaction, params};

const CREATE: [&str; 4] = [
    "CREATE TABLE fleet_node (table_name VARCHAR NOT NULL, target VARCHAR NOT NULL, node VARCHAR NOT NULL,
     PRIMARY KEY (table_name, target, node)) WITHOUT ROWID",
    "CREATE TABLE fleet_owed (table_name VARCHAR NOT NULL, node VARCHAR NOT NULL, row_id INTEGER NOT NULL, source VARCHAR,
     lacking INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (table_name, node, row_id)) WITHOUT ROWID",
    "CREATE TABLE fleet_trouble (table_name VARCHAR NOT NULL, node VARCHAR NOT NULL, row_id INTEGER NOT NULL, of_source INTEGER NOT NULL,
     of_node INTEGER NOT NULL, noted_at FLOAT NOT NULL, why VARCHAR NOT NULL, PRIMARY KEY (table_name, node, row_id)) WITHOUT ROWID",
    "CREATE TABLE fleet_relay (table_name VARCHAR NOT NULL, target VARCHAR NOT NULL, node VARCHAR NOT NULL, source VARCHAR NOT NULL,
     PRIMARY KEY (table_name, target, node)) WITHOUT ROWID",
];

/// Whether the tables are there.
pub(super) fn exist(connection: &Connection) -> Result<bool, Error> {
    for name in NODE_TABLES {
        if !has(connection, name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is a table that says which of them are relayed.
pub(super) fn know_relays(connection: &Connection) -> Result<bool, Error> {
    has(connection, RELAY_TABLE)
}

fn has(connection: &Connection, table: &str) -> Result<bool, Error> {
    let there = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
    connection.prepare_cached(there)?.query_row([table], |row| row.get::<_, i64>(0)).map(|tables| tables > 0)
}

/// Creates those that are absent; whether each is new.
pub(super) fn create(transaction: &Transaction<'_>) -> Result<Vec<(&'static str, bool)>, Error> {
    let mut created = Vec::new();
    for (name, statement) in NODE_TABLES.into_iter().chain([RELAY_TABLE]).zip(CREATE) {
        let new = !has(transaction, name)?;
        if new {
            transaction.execute_batch(statement)?;
        }
        created.push((name, new));
    }
    // By which it is known whose copy stands at a place.
    transaction.execute_batch("CREATE INDEX IF NOT EXISTS fleet_proof_place ON fleet_proof (node, path)")?;
    // By which a relay finds what was proven of late, of whatever rows.
    transaction
        .execute_batch(&format!("CREATE INDEX IF NOT EXISTS {MOMENTS} ON fleet_proof (at, node, table_name)"))?;
    Ok(created)
}

/// Says in the table which nodes the copies of an archive go to; without any, why nobody may work on it who has none.
pub(super) fn enter(
    transaction: &Transaction<'_>,
    archive: &str,
    node: Option<&StorageNode>,
) -> Result<Option<String>, Error> {
    if let Some(node) = node {
        let names = node.names();
        for name in names.direct.iter().chain(names.relayed.iter().map(|(name, _)| name)) {
            let insert = "INSERT OR IGNORE INTO fleet_node (table_name, target, node) VALUES (?, ?, ?)";
            transaction.execute(insert, params![FILES, archive, name])?;
        }
        if know_relays(transaction)? {
            for name in &names.direct {
                let delete = "DELETE FROM fleet_relay WHERE table_name = ? AND target = ? AND node = ?";
                transaction.execute(delete, params![FILES, archive, name])?;
            }
            for (name, from) in &names.relayed {
                let put = "INSERT OR REPLACE INTO fleet_relay (table_name, target, node, source) VALUES (?, ?, ?, ?)";
                transaction.execute(put, params![FILES, archive, name, from])?;
            }
        }
        return Ok(None);
    }
    let mut known = transaction.prepare("SELECT node FROM fleet_node WHERE table_name = ? AND target = ?")?;
    let known = known.query_map([FILES, archive], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    Ok((!known.is_empty()).then(|| has_nodes(&known)))
}

/// The proofs of a row that speak of the bytes it has now, behind FROM.
pub(super) fn proofs() -> String {
    format!(
        "fleet_proof WHERE table_name = '{FILES}' AND row_id = {FILES}.id AND lower(hex(sum)) = lower(local_md5sum)"
    )
}

/// What makes a row that waits one that waits for this node. Where enough nodes have proven it, somebody has put it back
/// since, and the proofs are void.
pub(super) fn is_due(node: &StorageNode) -> String {
    let (proofs, name, list, copies) = (proofs(), node.name(), node.list(), node.copies());
    format!(
        "(NOT EXISTS (SELECT 1 FROM {proofs} AND node = '{name}') \
         OR (SELECT COUNT(*) FROM {proofs} AND node IN ({list})) >= {copies})"
    )
}

/// Failures of a row that waits, as they count at this node: those of its source while the row still says so, and the node's.
pub(super) fn attempts(node: &StorageNode) -> String {
    format!(
        "COALESCE((SELECT min(of_source, CAST(failed_copy_attempts AS INTEGER)) + of_node FROM fleet_trouble \
         WHERE table_name = '{FILES}' AND node = '{}' AND row_id = {FILES}.id), 0)",
        node.name()
    )
}

/// The rows that this node still owes a copy of, although enough others have proven it, behind FROM.
fn owed(node: &StorageNode) -> String {
    format!(
        "fleet_owed JOIN {FILES} ON {FILES}.id = fleet_owed.row_id WHERE fleet_owed.table_name = '{FILES}' AND fleet_owed.node = '{}' \
         AND archive_name = ?1 AND remote_md5sum IS local_md5sum",
        node.name()
    )
}

/// Failures of such a row at this node.
fn attempts_owed(node: &StorageNode) -> String {
    format!(
        "COALESCE((SELECT of_node FROM fleet_trouble AS t WHERE t.table_name = '{FILES}' AND t.node = '{}' \
         AND t.row_id = {FILES}.id), 0)",
        node.name()
    )
}

/// A look at the rows that wait for this node. `columns` are those of a row behind its failures, given the one of its file's
/// path; parameters as those of a look at all.
pub(super) fn look(node: &StorageNode, columns: impl Fn(&str) -> String, waiting: &str) -> String {
    let (mine, lacking) = (attempts(node), attempts_owed(node));
    format!(
        "SELECT {FILES}.id AS id, {mine}, {} FROM {FILES} WHERE id > ?2 AND id <= ?5 AND {waiting} \
         AND failed_copy_attempts < ?3 AND {} AND {mine} < ?3 \
         UNION ALL SELECT {FILES}.id, {lacking}, {} FROM {} AND fleet_owed.row_id > ?2 AND fleet_owed.row_id <= ?5 \
         AND NOT ({LACKING}) AND {lacking} < ?3 ORDER BY id LIMIT ?4",
        columns("local_path"),
        is_due(node),
        columns("COALESCE(fleet_owed.source, local_path)"),
        owed(node)
    )
}

/// Owed rows whose files are here no more.
pub(super) const LACKING: &str = "fleet_owed.lacking <> 0 OR removed IS NOT NULL AND fleet_owed.source IS NULL";

/// A look at those of them that this node has not given up, for at most `?3`.
pub(super) fn look_lacking(node: &StorageNode, columns: impl Fn(&str) -> String) -> String {
    let lacking = attempts_owed(node);
    format!(
        "SELECT {FILES}.id, {lacking}, {} FROM {} AND ({LACKING}) AND {lacking} < ?2 ORDER BY fleet_owed.row_id LIMIT ?3",
        columns("local_path"),
        owed(node)
    )
}

/// Where other nodes have copies of a row.
pub(super) fn copies_elsewhere(
    connection: &Connection,
    node: &StorageNode,
    id: RecordId,
) -> Result<Vec<(String, String)>, Error> {
    let query = "SELECT node, path FROM fleet_proof WHERE table_name = ? AND row_id = ? AND node <> ?";
    let mut query = connection.prepare_cached(query)?;
    query.query_map(params![FILES, id.0, node.name()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Says where the file of an owed row is now.
pub(super) fn lend(connection: &Connection, node: &StorageNode, id: RecordId, path: &str) -> Result<(), Error> {
    let lend = "UPDATE fleet_owed SET source = ?, lacking = 0 WHERE table_name = ? AND node = ? AND row_id = ?";
    connection.prepare_cached(lend)?.execute(params![path, FILES, node.name(), id.0]).map(drop)
}

/// Which of these rows the node still owes.
pub(super) fn still_owed(connection: &Connection, node: &StorageNode, ids: &[RecordId]) -> Result<Vec<bool>, Error> {
    let query = "SELECT COUNT(*) FROM fleet_owed WHERE table_name = ? AND node = ? AND row_id = ?";
    let mut query = connection.prepare_cached(query)?;
    let owed = |id: &RecordId| query.query_row(params![FILES, node.name(), id.0], |row| row.get::<_, i64>(0));
    ids.iter().map(owed).map(|count| count.map(|count| count > 0)).collect()
}

/// Has a node owe its copy of a row, whatever it has proven; whether it is one that it may have. A relayed one lacks what it
/// has not proven, and its debts keep no file here.
pub(super) fn owe(transaction: &Transaction<'_>, node: &str, row: (RecordId, &str)) -> Result<bool, Error> {
    let (id, md5) = row;
    let found =
        format!("SELECT remote_md5sum IS NOT local_md5sum FROM {FILES} WHERE id = ? AND lower(local_md5sum) = ?");
    let found: Option<bool> =
        transaction.prepare_cached(&found)?.query_row(params![id.0, md5], |row| row.get(0)).optional()?;
    let Some(waits) = found else { return Ok(false) };
    for table in ["fleet_proof", "fleet_trouble"] {
        let delete = format!("DELETE FROM {table} WHERE table_name = ? AND node = ? AND row_id = ?");
        transaction.prepare_cached(&delete)?.execute(params![FILES, node, id.0])?;
    }
    if !waits && fed_from(transaction, node)?.is_none() {
        let owe = "INSERT OR REPLACE INTO fleet_owed (table_name, node, row_id) VALUES (?, ?, ?)";
        transaction.prepare_cached(owe)?.execute(params![FILES, node, id.0])?;
    }
    Ok(true)
}

/// The node that feeds this one, if it is a relayed one.
pub(super) fn fed_from(connection: &Connection, node: &str) -> Result<Option<String>, Error> {
    if !know_relays(connection)? {
        return Ok(None);
    }
    let query = "SELECT source FROM fleet_relay WHERE table_name = ? AND node = ? LIMIT 1";
    connection.prepare_cached(query)?.query_row([FILES, node], |row| row.get(0)).optional()
}

/// The last row whose copy was proven at this place of the archive at the node, with its file.
pub(super) fn last_proven_at(
    connection: &Connection,
    node: &StorageNode,
    (archive, path): (&str, &str),
) -> Result<Option<(i64, Vec<u8>)>, Error> {
    let query = format!(
        "SELECT row_id, CAST(local_path AS BLOB) FROM fleet_proof JOIN {FILES} ON id = row_id \
         WHERE node = ? AND path = ? AND table_name = ? AND archive_name = ? ORDER BY row_id DESC LIMIT 1"
    );
    let mut query = connection.prepare_cached(&query)?;
    query.query_row(params![node.name(), path, FILES, archive], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// How many rows this node owes; of those that it gave up, and of all others.
pub(super) fn count_owed(connection: &Connection, node: &StorageNode, of: (&str, i64)) -> Result<[u64; 2], Error> {
    let lacking = attempts_owed(node);
    let query = format!(
        "SELECT COUNT(CASE WHEN {lacking} < ?2 THEN 1 END), COUNT(CASE WHEN {lacking} >= ?2 THEN 1 END) FROM {}",
        owed(node)
    );
    connection.prepare_cached(&query)?.query_row(params![of.0, of.1], |row| {
        Ok([row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()])
    })
}

/// Keeps the proof of this node, and makes the row a copied one where there are enough; whether the row still was what
/// was proven.
pub(super) fn prove(
    transaction: &Transaction<'_>,
    by: (&StorageNode, &str),
    row: &Settled,
    copy: (&str, &Md5, f64),
) -> Result<bool, Error> {
    let ((node, mover), (path, md5, now)) = (by, copy);
    let found =
        format!("SELECT remote_md5sum IS NOT local_md5sum FROM {FILES} WHERE id = ? AND lower(local_md5sum) = ?");
    let found: Option<bool> =
        transaction.prepare_cached(&found)?.query_row(params![row.id.0, hex(md5)], |row| row.get(0)).optional()?;
    let Some(waits) = found else { return Ok(false) };
    let old = "DELETE FROM fleet_proof WHERE table_name = ? AND row_id = ? AND sum <> ?";
    transaction.prepare_cached(old)?.execute(params![FILES, row.id.0, &md5[..]])?;
    // Without one whose proofs do not count, a row is no less done.
    let waits = waits && node.counts();
    if waits && proven(transaction, node, row)?.len() >= node.copies() {
        let all = node.list_of_all();
        let void = format!("DELETE FROM fleet_proof WHERE table_name = ? AND row_id = ? AND node IN ({all})");
        transaction.prepare_cached(&void)?.execute(params![FILES, row.id.0])?;
    }
    let insert = "INSERT OR REPLACE INTO fleet_proof (table_name, row_id, node, mover, gen, path, sum, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let values = params![FILES, row.id.0, node.name(), mover, row.hold.taking, path, &md5[..], now];
    transaction.prepare_cached(insert)?.execute(values)?;
    for table in ["fleet_owed", "fleet_trouble"] {
        let delete = format!("DELETE FROM {table} WHERE table_name = ? AND node = ? AND row_id = ?");
        transaction.prepare_cached(&delete)?.execute(params![FILES, node.name(), row.id.0])?;
    }
    if waits {
        settle(transaction, node, row, now)?;
    }
    Ok(true)
}

/// Makes a row a copied one if enough nodes have proven it; the others owe their copies from then on.
fn settle(transaction: &Transaction<'_>, node: &StorageNode, row: &Settled, now: f64) -> Result<(), Error> {
    let proven = proven(transaction, node, row)?;
    let path_of = |name: &String| proven.iter().find(|(node, _)| node == name).map(|(_, path)| path);
    let Some(path) = node.counted().find_map(path_of).filter(|_| proven.len() >= node.copies()) else {
        return Ok(());
    };
    let copied = format!("UPDATE {FILES} SET remote_md5sum = local_md5sum, copied = ?, remote_path = ? WHERE id = ?");
    transaction.prepare_cached(&copied)?.execute(params![now, path, row.id.0])?;
    if node.spread() == Spread::Share {
        return Ok(());
    }
    for lacking in node.names().direct.iter().filter(|name| path_of(name).is_none()) {
        let owe = "INSERT OR IGNORE INTO fleet_owed (table_name, node, row_id) VALUES (?, ?, ?)";
        transaction.prepare_cached(owe)?.execute(params![FILES, lacking, row.id.0])?;
    }
    Ok(())
}

/// The nodes that have proven a row, with the places of their copies.
fn proven(transaction: &Connection, node: &StorageNode, row: &Settled) -> Result<Vec<(String, String)>, Error> {
    let query =
        format!("SELECT node, path FROM fleet_proof WHERE table_name = ? AND row_id = ? AND node IN ({})", node.list());
    let mut query = transaction.prepare_cached(&query)?;
    query.query_map(params![FILES, row.id.0], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Counts a failed attempt where it belongs: what is wrong with the source counts in the row, however many nodes meet it;
/// what is wrong with the node, for this node alone. Whether it was counted, and what the row says then.
pub(super) fn fail(
    transaction: &Transaction<'_>,
    node: &StorageNode,
    row: &Settled,
    trouble: (FailedSide, &str, f64),
) -> Result<Option<i64>, Error> {
    let (side, why, now) = trouble;
    if let Some(feed) = node.feed() {
        return relays::fail(transaction, (node, feed), row, (why, now));
    }
    let found = format!(
        "SELECT remote_md5sum IS NOT local_md5sum, CAST(failed_copy_attempts AS INTEGER) FROM {FILES} WHERE id = ?"
    );
    let found: Option<(bool, Option<i64>)> =
        transaction.prepare_cached(&found)?.query_row([row.id.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((waits, counted)) = found else { return Ok(None) };
    let counted = counted.unwrap_or(0);
    let before = "SELECT of_source, of_node FROM fleet_trouble WHERE table_name = ? AND node = ? AND row_id = ?";
    let (of_source, mut of_node) = transaction
        .prepare_cached(before)?
        .query_row(params![FILES, node.name(), row.id.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        .optional()?
        .unwrap_or_default();
    let mut of_source = if waits { of_source.min(counted) } else { 0 };
    if of_source + of_node != row.attempts {
        return Ok(None);
    }
    match side {
        FailedSide::Source if waits => of_source += 1,
        FailedSide::Source => {
            // No failure: another node has what is here no more.
            let lacks = "UPDATE fleet_owed SET lacking = 1 WHERE table_name = ? AND node = ? AND row_id = ?";
            let found = transaction.prepare_cached(lacks)?.execute(params![FILES, node.name(), row.id.0])?;
            return Ok((found > 0).then_some(counted));
        }
        FailedSide::Destination => of_node += 1,
    }
    let counted = counted.max(of_source);
    if waits {
        let count = format!("UPDATE {FILES} SET failed_copy_attempts = ?1 WHERE id = ?2 AND failed_copy_attempts < ?1");
        transaction.prepare_cached(&count)?.execute(params![counted, row.id.0])?;
    }
    let put = "INSERT OR REPLACE INTO fleet_trouble (table_name, node, row_id, of_source, of_node, noted_at, why) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let why = crate::catalog::note::short(why);
    transaction.prepare_cached(put)?.execute(params![FILES, node.name(), row.id.0, of_source, of_node, now, why])?;
    Ok(Some(counted))
}

/// Why a storage node alone gave rows up that are meant, of so many at most: this one, or any.
pub(super) fn given_up(
    connection: &Connection,
    node: Option<&StorageNode>,
    (archive, max_attempts): (&str, i64),
    (which, limit): (&Retry, usize),
) -> Result<Vec<Note>, Error> {
    if !exist(connection)? {
        return Ok(Vec::new());
    }
    let of_node = node.map_or_else(String::new, |node| format!("AND node = '{}'", node.name()));
    // Of a relayed one the row's own failures are no matter.
    let of_row = match node.and_then(StorageNode::feed) {
        Some(_) => "",
        None => "AND failed_copy_attempts < ?2",
    };
    let (meant, like) = match which {
        Retry::All => (String::new(), None),
        Retry::Ids(ids) => {
            let ids: Vec<_> = ids.iter().map(|id| id.0.to_string()).collect();
            (format!("AND row_id IN ({})", ids.join(", ")), None)
        }
        Retry::Pattern(pattern) => (String::new(), Some(Retry::like(pattern))),
    };
    let query = format!(
        "SELECT id, CAST(substr(local_path, 1, {PATH_LIMIT}) AS TEXT), of_source + of_node, noted_at, why, node \
         FROM fleet_trouble JOIN {FILES} ON id = row_id WHERE table_name = '{FILES}' AND archive_name = ?1 {of_node} {of_row} {meant} \
         AND (?3 IS NULL OR local_path LIKE ?3 ESCAPE '|') \
         AND min(of_source, CAST(failed_copy_attempts AS INTEGER)) + of_node >= ?2 ORDER BY row_id, node LIMIT {limit}"
    );
    let mut query = connection.prepare(&query)?;
    let rows = query.query_map(params![archive, max_attempts, like], |row| {
        let path = row.get::<_, Option<String>>(1)?.unwrap_or_default();
        let reason = Some((row.get(3)?, row.get(4)?));
        Ok(Note { id: RecordId(row.get(0)?), path, attempts: row.get(2)?, reason, node: row.get(5)? })
    });
    rows?.collect()
}

/// Forgets the failures at storage nodes of rows that `meant` says, with its parameters; how many rows had been given up by
/// some node alone, or waited for another node to give their files.
pub(super) fn forget(connection: &Connection, meant: &str, values: &[&dyn rusqlite::ToSql]) -> Result<usize, Error> {
    if !exist(connection)? {
        return Ok(0);
    }
    let rows = format!("table_name = '{FILES}' AND row_id IN (SELECT id FROM {FILES} WHERE {meant})");
    let given_up = format!(
        "SELECT COUNT(DISTINCT row_id) FROM fleet_trouble JOIN {FILES} ON id = row_id \
         WHERE {rows} AND failed_copy_attempts < ?2 AND min(of_source, failed_copy_attempts) + of_node >= ?2"
    );
    let given_up: i64 = connection.prepare_cached(&given_up)?.query_row(values, |row| row.get(0))?;
    connection.prepare_cached(&format!("DELETE FROM fleet_trouble WHERE {rows}"))?.execute(values)?;
    // What was here no more may be here again.
    let again = format!("UPDATE fleet_owed SET lacking = 0 WHERE {rows} AND lacking <> 0");
    let again = connection.prepare_cached(&again)?.execute(values)?;
    Ok(usize::try_from(given_up).unwrap_or(0) + again)
}
