//! Rows as the Python monitor wrote them before it knew SupRsync's tables.

use super::super::announced::{
    AnnouncedBatch, AnnouncedFile, AnnouncedOutcome, LATE, LaneStep, SPOOLS, SpoolMarks, SpoolNumber, WATCHED,
    WatchedMark,
};
use super::super::{CatalogError, Database, Layout};
use super::row::{integer, text};
use super::table::quote;
use super::{COMMAND_DENIED, MySqlCatalog, is_bad_data};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, TxOpts, Value};
use std::collections::{BTreeSet, HashMap};

/// In the column where the Python monitor has its version.
const VERSION: &str = concat!("pysmurf-archiver ", env!("CARGO_PKG_VERSION"));

/// Why a transaction is given up: the server's trouble, or what the batch comes to instead.
enum Stopped {
    Trouble(Error),
    Outcome(AnnouncedOutcome),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Trouble(error)
    }
}

/// A table of ours beside that of the files.
struct OwnTable {
    name: &'static str,
    columns: &'static str,
}

const SPOOLS_TABLE: OwnTable = OwnTable {
    name: SPOOLS,
    columns: "spool VARCHAR(32) NOT NULL, lane VARCHAR(16) NOT NULL, position BIGINT NOT NULL, PRIMARY KEY (spool, lane, position)",
};

const WATCHED_TABLE: OwnTable = OwnTable {
    name: WATCHED,
    columns: "file CHAR(32) NOT NULL PRIMARY KEY, stamp VARCHAR(80) NOT NULL, md5sum CHAR(32) NOT NULL",
};

impl OwnTable {
    fn statement(&self) -> String {
        format!("CREATE TABLE IF NOT EXISTS {} ({}) ENGINE=InnoDB", self.name, self.columns)
    }

    /// Makes it; false where the account may not.
    async fn create(&self, conn: &mut Conn) -> Result<bool, Error> {
        match conn.query_drop(self.statement()).await {
            Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => Ok(false),
            made => made.map(|()| true),
        }
    }
}

impl MySqlCatalog {
    pub(in crate::catalog) async fn watched_stamps(
        &self,
        keys: Vec<String>,
    ) -> Result<HashMap<String, String>, CatalogError> {
        let known = self.run(async |conn| {
            let marks = vec!["?"; keys.len().max(1)].join(", ");
            let query = format!("SELECT file, stamp FROM {WATCHED} WHERE file IN ({marks})");
            let values = || Params::Positional(keys.iter().map(Value::from).collect());
            let rows: Vec<(String, String)> = match conn.exec(&query, values()).await {
                // ER_NO_SUCH_TABLE, as above.
                Err(Error::Server(error)) if error.code == 1146 => {
                    return Ok(WATCHED_TABLE.create(conn).await?.then(HashMap::new));
                }
                // An account with rights on single tables learns of no other whether it is there.
                Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => return Ok(None),
                rows => rows?,
            };
            Ok(Some(rows.into_iter().collect()))
        });
        known.await?.ok_or_else(|| self.lacks(&WATCHED_TABLE))
    }

    /// What somebody else is to do about it.
    fn lacks(&self, table: &OwnTable) -> CatalogError {
        let Database::Mysql(server) = &self.database else { return CatalogError::Setup(String::new()) };
        let (database, name, user) = (&self.database, table.name, &server.user);
        CatalogError::Setup(format!(
            "Database {database} has no table {name}, and user {user} may not make it; have an administrator run: {}; and: \
             GRANT SELECT, INSERT, UPDATE, DELETE ON {}.{name} TO {user}",
            table.statement(),
            quote(&server.name)
        ))
    }

    pub(in crate::catalog) async fn spool_marks(&self, spool: &str) -> Result<SpoolMarks, CatalogError> {
        let marks = self.run(async |conn| {
            let query = format!("SELECT spool, lane, position FROM {SPOOLS} WHERE spool = ? OR lane = '{LATE}'");
            let rows: Vec<mysql_async::Row> = match conn.exec(&query, (spool,)).await {
                // ER_NO_SUCH_TABLE; not every account may make one that is there.
                Err(Error::Server(error)) if error.code == 1146 => {
                    if !SPOOLS_TABLE.create(conn).await? {
                        return Ok(None);
                    }
                    conn.exec(&query, (spool,)).await?
                }
                // An account with rights on single tables learns of no other whether it is there.
                Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => return Ok(None),
                rows => rows?,
            };
            let mut marks = SpoolMarks::default();
            for row in &rows {
                let word = |index| text(row.as_ref(index)).ok().flatten().unwrap_or_default();
                let number = integer(row.as_ref(2)).ok().flatten().and_then(|number| u64::try_from(number).ok());
                match (word(1), number.unwrap_or(0)) {
                    (lane, number) if lane == LATE => marks.late.push(SpoolNumber { spool: word(0), number }),
                    (lane, number) => marks.lanes.push((lane, number)),
                }
            }
            Ok(Some(marks))
        });
        marks.await?.ok_or_else(|| self.lacks(&SPOOLS_TABLE))
    }

    pub(in crate::catalog) async fn register_announced(
        &self,
        batch: AnnouncedBatch,
    ) -> Result<AnnouncedOutcome, CatalogError> {
        self.run(async |conn| match self.write_announced(conn, &batch).await {
            Ok(known) => Ok(AnnouncedOutcome::Registered(known)),
            Err(Stopped::Outcome(outcome)) => {
                conn.query_drop("ROLLBACK").await?;
                Ok(outcome)
            }
            Err(Stopped::Trouble(error)) => Err(error),
        })
        .await
    }

    async fn write_announced(&self, conn: &mut Conn, batch: &AnnouncedBatch) -> Result<BTreeSet<usize>, Stopped> {
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        let elsewhere = || Stopped::Outcome(AnnouncedOutcome::Elsewhere);
        for step in &batch.steps {
            if !take_step(&mut transaction, step).await? {
                return Err(elsewhere());
            }
        }
        for late in &batch.late {
            let mark = format!("INSERT IGNORE INTO {SPOOLS} (spool, lane, position) VALUES (?, '{LATE}', ?)");
            transaction.exec_drop(mark, (&late.spool, late.number)).await?;
            if transaction.affected_rows() == 0 {
                return Err(elsewhere());
            }
        }
        for late in &batch.forgotten {
            let forget = format!("DELETE FROM {SPOOLS} WHERE spool = ? AND lane = '{LATE}' AND position = ?");
            transaction.exec_drop(forget, (&late.spool, late.number)).await?;
        }
        let mut known = BTreeSet::new();
        for (index, file) in batch.files.iter().enumerate() {
            if let Some(mark) = &file.watched
                && is_known(&mut transaction, mark, file.md5).await?
            {
                known.insert(index);
                continue;
            }
            match self.insert_announced(&mut transaction, file).await {
                Err(Error::Server(error)) if is_bad_data(error.code) => {
                    return Err(Stopped::Outcome(AnnouncedOutcome::Refused(index, error.message)));
                }
                inserted => inserted?,
            }
        }
        transaction.commit().await?;
        Ok(known)
    }

    /// The columns in that one's order; what is NULL is left out.
    async fn insert_announced(&self, conn: &mut impl Queryable, file: &AnnouncedFile) -> Result<(), Error> {
        let said = &file.columns;
        let maybe = |text: &Option<String>| text.as_ref().map(Value::from);
        let kind = match self.layout {
            Layout::Action => ("action", maybe(&said.action)),
            Layout::Type => ("type", maybe(&said.file_type)),
        };
        let mut columns = vec![
            ("path", Some(Value::from(&file.path))),
            kind,
            ("timestamp", Some(said.timestamp.into())),
            ("action_timestamp", said.action_timestamp.map(Value::from)),
            ("format", maybe(&said.format)),
            ("plot", Some(said.plot.into())),
            ("site", Some(Value::from(&said.site))),
            ("pub_id", maybe(&said.publisher)),
            ("instance_id", Some(Value::from(&said.instance))),
            ("copied", Some(0.into())),
            ("failed_copy_attempts", Some(0.into())),
            ("md5sum", Some(Value::from(&file.md5[..]))),
            ("socs_version", Some(Value::from(VERSION))),
        ];
        columns.retain(|(name, value)| value.is_some() && self.table.has(name));
        let mark = |name: &str| if name == "timestamp" { "FROM_UNIXTIME(?)" } else { "?" };
        let query = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            quote(&self.table.name),
            columns.iter().map(|(name, _)| quote(name)).collect::<Vec<_>>().join(", "),
            columns.iter().map(|(name, _)| mark(name)).collect::<Vec<_>>().join(", ")
        );
        let values = columns.into_iter().filter_map(|(_, value)| value).collect();
        conn.exec_drop(query, Params::Positional(values)).await
    }
}

/// Whether the file was registered with this sum last; from here on it is.
async fn is_known(
    transaction: &mut mysql_async::Transaction<'_>,
    mark: &WatchedMark,
    md5: [u8; 16],
) -> Result<bool, Error> {
    let md5: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
    let query = format!("SELECT md5sum FROM {WATCHED} WHERE file = ? FOR UPDATE");
    let known: Option<String> = transaction.exec_first(query, (&mark.key,)).await?;
    let note = format!("REPLACE INTO {WATCHED} (file, stamp, md5sum) VALUES (?, ?, ?)");
    transaction.exec_drop(note, (&mark.key, &mark.stamp, &md5)).await?;
    Ok(known.is_some_and(|known| known == md5))
}

/// False where the table says another thing of the lane.
async fn take_step(transaction: &mut mysql_async::Transaction<'_>, step: &LaneStep) -> Result<bool, Error> {
    let update = format!("UPDATE {SPOOLS} SET position = ? WHERE spool = ? AND lane = ? AND position = ?");
    transaction.exec_drop(update, (step.to, &step.spool, step.lane, step.from)).await?;
    if transaction.affected_rows() > 0 {
        return Ok(true);
    }
    let there = format!("SELECT COUNT(*) FROM {SPOOLS} WHERE spool = ? AND lane = ? FOR UPDATE");
    let rows: Option<u64> = transaction.exec_first(there, (&step.spool, step.lane)).await?;
    if rows.unwrap_or(0) > 0 {
        return Ok(false);
    }
    let insert = format!("INSERT INTO {SPOOLS} (spool, lane, position) VALUES (?, ?, ?)");
    transaction.exec_drop(insert, (&step.spool, step.lane, step.to)).await?;
    Ok(true)
}
