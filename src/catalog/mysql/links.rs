//! Links that movers share, in MySQL.

use super::COMMAND_DENIED;
use super::connections::Connections;
use super::row::{integer, text};
use crate::catalog::fleet::{
    FarLink, LINK_TABLES, LinkLimits, LinkLine, LinkMark, LinkShare, LinkStand, LinkTurn, SCHEMA_OF_LINKS, TurnTaker,
    no_links,
};
use crate::catalog::{CatalogError, Database, DatabaseServer};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, Value};

const CREATE: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS fleet_link (site VARCHAR(32) NOT NULL, node VARCHAR(128) NOT NULL, sessions INT NULL, bandwidth BIGINT NULL, turn BIGINT NOT NULL DEFAULT 0, down_by VARCHAR(64) NULL, down_turns INT NOT NULL DEFAULT 0, down_why VARCHAR(255) NULL, PRIMARY KEY (site, node)) ENGINE=InnoDB CHARACTER SET utf8mb4",
    "CREATE TABLE IF NOT EXISTS fleet_share (mover VARCHAR(64) NOT NULL PRIMARY KEY, site VARCHAR(32) NOT NULL, node VARCHAR(128) NOT NULL, moved BIGINT NOT NULL, wants INT NOT NULL, sessions INT NOT NULL, bandwidth BIGINT NOT NULL, KEY (site, node)) ENGINE=InnoDB CHARACTER SET utf8mb4",
];

/// Whether the tables are there, and seen.
pub(super) async fn exist(conn: &mut Conn) -> Result<bool, Error> {
    let query =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN (?, ?)";
    let there: Vec<Row> = conn.exec(query, LINK_TABLES.map(Value::from).to_vec()).await?;
    Ok(there.len() == LINK_TABLES.len())
}

/// Creates those that are absent; whether each is new.
pub(super) async fn create(conn: &mut Conn) -> Result<Vec<(&'static str, bool)>, Error> {
    let mut created = Vec::new();
    for (name, statement) in LINK_TABLES.into_iter().zip(CREATE) {
        let there = "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
        let new = conn.exec_first::<Row, _, _>(there, (name,)).await?.is_none();
        if new {
            conn.query_drop(statement).await?;
        }
        created.push((name, new));
    }
    Ok(created)
}

/// What to do where the server refuses a turn, and would refuse the next one, too.
pub(super) fn remedy(code: u16) -> Option<&'static str> {
    match code {
        _ if COMMAND_DENIED.contains(&code) => {
            Some("grant SELECT, INSERT, UPDATE and DELETE on tables fleet_link and fleet_share")
        }
        // ER_NO_SUCH_TABLE
        1146 => Some("run `pysmurf-archiver init-db --fleet`"),
        _ => None,
    }
}

fn word(row: &Row, index: usize) -> Option<String> {
    text(row.as_ref(index)).ok().flatten()
}

fn bytes(row: &Row, index: usize) -> Option<u64> {
    integer(row.as_ref(index)).ok().flatten().and_then(|number| u64::try_from(number).ok())
}

fn small(row: &Row, index: usize) -> Option<u32> {
    bytes(row, index).and_then(|number| u32::try_from(number).ok())
}

/// A mover's turn at a link, within a transaction that began with the fence.
pub(super) async fn turn(conn: &mut Conn, link: &FarLink, taker: &TurnTaker) -> Result<LinkTurn, Error> {
    let of = (&link.site, &link.node);
    // By this all turns of one link come one after another, on whichever nodes of a cluster.
    let next = "UPDATE fleet_link SET turn=turn+1 WHERE site=? AND node=?";
    conn.exec_drop(next, of).await?;
    if conn.affected_rows() == 0 {
        conn.exec_drop("INSERT IGNORE INTO fleet_link (site, node) VALUES (?, ?)", of).await?;
        conn.exec_drop(next, of).await?;
    }
    let query = "SELECT l.sessions, l.bandwidth, l.turn, l.down_by, l.down_turns, l.down_why, m.mover IS NOT NULL \
                 FROM fleet_link AS l LEFT JOIN fleet_mover AS m ON m.mover=l.down_by WHERE l.site=? AND l.node=?";
    let row: Option<Row> = conn.exec_first(query, of).await?;
    let line = row.map_or_else(LinkLine::default, |row| LinkLine {
        sessions: small(&row, 0),
        bandwidth: bytes(&row, 1),
        turn: integer(row.as_ref(2)).ok().flatten().unwrap_or(0),
        mark: word(&row, 3).map(|by| LinkMark {
            by,
            turns: small(&row, 4).unwrap_or(0),
            why: word(&row, 5).unwrap_or_default(),
            lives: small(&row, 6) == Some(1),
        }),
    });
    let query = "SELECT s.mover, s.moved, s.wants, s.sessions, s.bandwidth FROM fleet_share AS s \
                 JOIN fleet_mover AS m ON m.mover=s.mover WHERE s.site=? AND s.node=?";
    let shares: Vec<Row> = conn.exec(query, of).await?;
    let share = |row: &Row| {
        let (moved, wants, sessions) = (bytes(row, 1)?, small(row, 2)?, small(row, 3)?);
        Some(LinkShare { mover: word(row, 0)?, moved, wants, sessions, bandwidth: bytes(row, 4)? })
    };
    let turn = taker.take(&line, &shares.iter().filter_map(share).collect::<Vec<_>>());
    let LinkShare { mover, moved, wants, sessions, bandwidth } = &turn.share;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let put =
        "REPLACE INTO fleet_share (mover, site, node, moved, wants, sessions, bandwidth) VALUES (?, ?, ?, ?, ?, ?, ?)";
    conn.exec_drop(put, (mover, &link.site, &link.node, signed(*moved), wants, sessions, signed(*bandwidth))).await?;
    if turn.mark != line.mark {
        let (by, turns, why) = match &turn.mark {
            Some(mark) => (Some(&mark.by), mark.turns, Some(mark.short_why())),
            None => (None, 0, None),
        };
        let update = "UPDATE fleet_link SET down_by=?, down_turns=?, down_why=? WHERE site=? AND node=?";
        conn.exec_drop(update, (by, turns, why, &link.site, &link.node)).await?;
    }
    Ok(turn)
}

/// Sets what may go over a link at once.
pub(in crate::catalog) async fn limit_link(
    server: &DatabaseServer,
    link: &FarLink,
    limits: LinkLimits,
) -> Result<(), CatalogError> {
    let connections = Connections::new(server);
    let database = Database::Mysql(server.clone()).to_string();
    let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
    let set = connections
        .run(conn, async |conn| {
            if !exist(conn).await? {
                return Ok(Err(no_links(&database)));
            }
            let of = (&link.site, &link.node);
            let setting = async {
                conn.exec_drop("INSERT IGNORE INTO fleet_link (site, node) VALUES (?, ?)", of).await?;
                if let Some(sessions) = limits.sessions {
                    let update = "UPDATE fleet_link SET sessions=? WHERE site=? AND node=?";
                    conn.exec_drop(update, (sessions, of.0, of.1)).await?;
                }
                if let Some(bandwidth) = limits.bandwidth {
                    let bandwidth = bandwidth.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
                    let update = "UPDATE fleet_link SET bandwidth=? WHERE site=? AND node=?";
                    conn.exec_drop(update, (bandwidth, of.0, of.1)).await?;
                }
                conn.exec_drop("UPDATE fleet_setting SET value=? WHERE name='schema'", (SCHEMA_OF_LINKS,)).await
            };
            match setting.await {
                Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => {
                    Ok(Err(CatalogError::Setup(format!(
                        "Database {database}: {}; grant INSERT and UPDATE on it to user {}",
                        error.message, server.user
                    ))))
                }
                set => set.map(Ok),
            }
        })
        .await?;
    connections.close().await;
    set
}

/// All links with what their movers have of them.
pub(super) async fn stand(conn: &mut Conn) -> Result<Vec<LinkStand>, Error> {
    if !exist(conn).await? {
        return Ok(Vec::new());
    }
    let query = "SELECT l.site, l.node, l.sessions, l.bandwidth, l.down_by, l.down_why, COUNT(m.mover), \
                 SUM(CASE WHEN m.mover IS NOT NULL THEN s.sessions END), SUM(CASE WHEN m.mover IS NOT NULL THEN s.moved END) \
                 FROM fleet_link AS l LEFT JOIN fleet_share AS s ON s.site=l.site AND s.node=l.node \
                 LEFT JOIN fleet_mover AS m ON m.mover=s.mover \
                 GROUP BY l.site, l.node, l.sessions, l.bandwidth, l.down_by, l.down_why ORDER BY l.site, l.node";
    let rows: Vec<Row> = conn.query(query).await?;
    let link = |row: &Row| {
        Some(LinkStand {
            site: word(row, 0)?,
            node: word(row, 1)?,
            sessions: small(row, 2),
            bandwidth: bytes(row, 3),
            down_by: word(row, 4),
            down_why: word(row, 5),
            movers: bytes(row, 6).unwrap_or(0),
            in_use: bytes(row, 7).unwrap_or(0),
            moved: bytes(row, 8).unwrap_or(0),
        })
    };
    Ok(rows.iter().filter_map(link).collect())
}
