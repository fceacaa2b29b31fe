//! Links that movers share, in SQLite.

use super::trouble::{in_time, on_own_thread, trouble};
use super::{OpenFor, connect};
use crate::catalog::fleet::{
    FarLink, LINK_TABLES, LinkLimits, LinkLine, LinkMark, LinkShare, LinkStand, LinkTurn, SCHEMA_OF_LINKS, TurnTaker,
    no_links,
};
use crate::catalog::{CatalogError, Database};
use rusqlite::{Connection, Error, Transaction, TransactionBehavior, params};
use std::path::Path;

const CREATE: [&str; 2] = [
    "CREATE TABLE fleet_link (site VARCHAR NOT NULL, node VARCHAR NOT NULL, sessions INTEGER, bandwidth INTEGER,
     turn INTEGER NOT NULL DEFAULT 0, down_by VARCHAR, down_turns INTEGER NOT NULL DEFAULT 0, down_why VARCHAR,
     PRIMARY KEY (site, node)) WITHOUT ROWID",
    "CREATE TABLE fleet_share (mover VARCHAR NOT NULL PRIMARY KEY, site VARCHAR NOT NULL, node VARCHAR NOT NULL,
     moved INTEGER NOT NULL, wants INTEGER NOT NULL, sessions INTEGER NOT NULL, bandwidth INTEGER NOT NULL) WITHOUT ROWID",
];

/// Whether the tables are there.
pub(super) fn exist(connection: &Connection) -> Result<bool, Error> {
    let mut there = connection.prepare("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?")?;
    for name in LINK_TABLES {
        if there.query_row([name], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates those that are absent; whether each is new.
pub(super) fn create(transaction: &Transaction<'_>) -> Result<Vec<(&'static str, bool)>, Error> {
    let mut created = Vec::new();
    for (name, statement) in LINK_TABLES.into_iter().zip(CREATE) {
        let there = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
        let new = transaction.query_row(there, [name], |row| row.get::<_, i64>(0))? == 0;
        if new {
            transaction.execute_batch(statement)?;
        }
        created.push((name, new));
    }
    Ok(created)
}

/// A mover's turn at a link, within a transaction that began with the fence.
pub(super) fn turn(transaction: &Transaction<'_>, link: &FarLink, taker: &TurnTaker) -> Result<LinkTurn, Error> {
    let of = [&link.site, &link.node];
    transaction.prepare_cached("INSERT OR IGNORE INTO fleet_link (site, node) VALUES (?, ?)")?.execute(of)?;
    transaction.prepare_cached("UPDATE fleet_link SET turn = turn + 1 WHERE site = ? AND node = ?")?.execute(of)?;
    let query = "SELECT sessions, bandwidth, turn, down_by, down_turns, down_why, \
                 EXISTS (SELECT 1 FROM fleet_mover WHERE mover = down_by) FROM fleet_link WHERE site = ? AND node = ?";
    let line = transaction.prepare_cached(query)?.query_row(of, |row| {
        let mark = row.get::<_, Option<String>>(3)?.map(|by| {
            Ok::<_, Error>(LinkMark {
                by,
                turns: row.get(4)?,
                why: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
                lives: row.get(6)?,
            })
        });
        let bandwidth = row.get::<_, Option<i64>>(1)?.map(i64::unsigned_abs);
        Ok(LinkLine { sessions: row.get(0)?, bandwidth, turn: row.get(2)?, mark: mark.transpose()? })
    })?;
    let query = "SELECT s.mover, moved, wants, sessions, bandwidth FROM fleet_share AS s JOIN fleet_mover AS m ON m.mover = s.mover \
                 WHERE s.site = ? AND s.node = ?";
    let mut query = transaction.prepare_cached(query)?;
    let shares = query.query_map(of, |row| {
        let bytes = |index| row.get::<_, i64>(index).map(i64::unsigned_abs);
        Ok(LinkShare {
            mover: row.get(0)?,
            moved: bytes(1)?,
            wants: row.get(2)?,
            sessions: row.get(3)?,
            bandwidth: bytes(4)?,
        })
    });
    let turn = taker.take(&line, &shares?.collect::<Result<Vec<_>, _>>()?);
    let LinkShare { mover, moved, wants, sessions, bandwidth } = &turn.share;
    let bytes = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let put = "INSERT OR REPLACE INTO fleet_share (mover, site, node, moved, wants, sessions, bandwidth) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let values = params![mover, link.site, link.node, bytes(*moved), wants, sessions, bytes(*bandwidth)];
    transaction.prepare_cached(put)?.execute(values)?;
    if turn.mark != line.mark {
        let (by, turns, why) = match &turn.mark {
            Some(mark) => (Some(&mark.by), mark.turns, Some(mark.short_why())),
            None => (None, 0, None),
        };
        let update = "UPDATE fleet_link SET down_by = ?, down_turns = ?, down_why = ? WHERE site = ? AND node = ?";
        transaction.prepare_cached(update)?.execute(params![by, turns, why, link.site, link.node])?;
    }
    Ok(turn)
}

/// Sets what may go over a link at once.
pub(in crate::catalog) async fn limit_link(path: &Path, link: FarLink, limits: LinkLimits) -> Result<(), CatalogError> {
    let file = path.to_owned();
    let database = Database::Sqlite(path.to_owned()).to_string();
    let setting = on_own_thread(&database, move |database| {
        let mut connection = connect(&file, database, OpenFor::Use)?;
        let mut set = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !exist(&transaction)? {
                return Ok(false);
            }
            let of = [&link.site, &link.node];
            transaction.execute("INSERT OR IGNORE INTO fleet_link (site, node) VALUES (?, ?)", of)?;
            let update = "UPDATE fleet_link SET sessions = CASE WHEN ?3 THEN ?4 ELSE sessions END, \
                          bandwidth = CASE WHEN ?5 THEN ?6 ELSE bandwidth END WHERE site = ?1 AND node = ?2";
            let bandwidth = limits.bandwidth.flatten().map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
            let (sessions, said) = (limits.sessions.flatten(), limits.sessions.is_some());
            let values = params![link.site, link.node, said, sessions, limits.bandwidth.is_some(), bandwidth];
            transaction.execute(update, values)?;
            transaction.execute("UPDATE fleet_setting SET value = ? WHERE name = 'schema'", [SCHEMA_OF_LINKS])?;
            transaction.commit()?;
            Ok(true)
        };
        match set() {
            Ok(true) => Ok(()),
            Ok(false) => Err(no_links(database)),
            Err(error) => Err(trouble(database, error)),
        }
    });
    in_time(&database, setting).await
}

/// All links with what their movers have of them.
pub(super) fn stand(connection: &Connection) -> Result<Vec<LinkStand>, Error> {
    if !exist(connection)? {
        return Ok(Vec::new());
    }
    let query = "SELECT site, node, sessions, bandwidth, down_by, down_why, \
                 (SELECT COUNT(*) FROM fleet_share AS s JOIN fleet_mover AS m ON m.mover = s.mover WHERE s.site = l.site AND s.node = l.node), \
                 (SELECT SUM(s.sessions) FROM fleet_share AS s JOIN fleet_mover AS m ON m.mover = s.mover WHERE s.site = l.site AND s.node = l.node), \
                 (SELECT SUM(s.moved) FROM fleet_share AS s JOIN fleet_mover AS m ON m.mover = s.mover WHERE s.site = l.site AND s.node = l.node) \
                 FROM fleet_link AS l ORDER BY site, node";
    let mut query = connection.prepare(query)?;
    let links = query.query_map([], |row| {
        let sum = |index| Ok::<_, Error>(row.get::<_, Option<i64>>(index)?.unwrap_or(0).unsigned_abs());
        Ok(LinkStand {
            site: row.get(0)?,
            node: row.get(1)?,
            sessions: row.get(2)?,
            bandwidth: row.get::<_, Option<i64>>(3)?.map(i64::unsigned_abs),
            down_by: row.get(4)?,
            down_why: row.get(5)?,
            movers: sum(6)?,
            in_use: sum(7)?,
            moved: sum(8)?,
        })
    });
    links?.collect()
}
