//! The verbs of `files`, on both kinds of database.

use crate::support::archiver::{Place, Run, hex};
use crate::support::mariadb::MariaDb;
use crate::tables::{Age, TARGET, Table};
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

#[path = "files/add.rs"]
mod add;
#[path = "files/change.rs"]
mod change;
#[path = "files/list.rs"]
mod list;
#[path = "files/verify.rs"]
mod verify;

/// A database that `files` works on, in a place of its own.
pub(crate) struct Desk {
    pub(crate) place: Place,
    url: String,
    /// Of a MySQL database.
    table: Option<Table<'static>>,
}

impl Desk {
    /// One of each kind; MariaDB where it is installed.
    pub(crate) fn both(name: &str) -> Vec<Self> {
        Self::mysql(name).into_iter().chain([Self::sqlite()]).collect()
    }

    pub(crate) fn mysql(name: &str) -> Option<Self> {
        let server = MariaDb::shared()?;
        let table = Table::new(server, &format!("files_{name}"), Age::V1);
        Some(Self { place: Place::make(), url: table.url.clone(), table: Some(table) })
    }

    pub(crate) fn sqlite() -> Self {
        let place = Place::make();
        let url = format!("sqlite:{}", place.path("q.db").display());
        let mut init = place.program();
        init.args(["init-db", "--db", &url]);
        Run::to_end(init).expect(0);
        Self { place, url, table: None }
    }

    pub(crate) fn is_mysql(&self) -> bool {
        self.table.is_some()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn named(&self, mut command: Command) -> Command {
        let name = if self.is_mysql() { "--target" } else { "--archive-name" };
        command.args(["--db", &self.url, name, TARGET]);
        command
    }

    /// `files` with these words.
    pub(crate) fn files(&self, words: &[&str]) -> Ended {
        let mut command = self.place.program();
        command.arg("files").args(words);
        Ended::of(self.named(command))
    }

    /// Files added from the sources, in the order of their names.
    pub(crate) fn add_sources(&self) {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(self.place.sources()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for name in names {
            self.files(&["add", name.to_str().unwrap()]).expect(0);
        }
    }

    /// A run over all that waits, each row once, and given up at its first failure.
    pub(crate) fn run_once(&self, command: Command) -> Run {
        let mut command = self.named(command);
        command.args(["--once", "--max-copy-attempts", "1"]);
        Run::start(command)
    }

    pub(crate) fn run_here(&self) -> crate::support::archiver::Over {
        self.run_once(self.place.run()).wait(crate::support::wait::PATIENCE)
    }

    /// A statement, where both kinds have one.
    pub(crate) fn execute(&self, mysql: &str, sqlite: &str) {
        match &self.table {
            Some(table) => drop(table.execute(mysql)),
            None => Connection::open(self.place.path("q.db")).unwrap().execute_batch(sqlite).unwrap(),
        }
    }

    /// What the genuine agent would take: the rows of its own query.
    pub(crate) fn taken_by_the_old_agent(&self) -> Vec<i64> {
        match &self.table {
            Some(table) => {
                let query = format!(
                    "SELECT id FROM pysmurf_files_v1 WHERE copied=0 AND failed_copy_attempts<5 AND instance_id IN ('{TARGET}')"
                );
                table.execute(&query).lines().map(|line| line.parse().unwrap()).collect()
            }
            None => {
                let connection = Connection::open(self.place.path("q.db")).unwrap();
                // As SQLAlchemy makes it of SupRsync's conditions.
                let query = "SELECT id FROM supersync_v0 WHERE removed IS NULL AND archive_name = ?1 AND failed_copy_attempts < 5 \
                             AND \"ignore\" = 0 AND (remote_md5sum != local_md5sum OR remote_md5sum IS NULL)";
                let mut statement = connection.prepare(query).unwrap();
                let rows = statement.query_map([TARGET], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
        }
    }

    /// The registered sum of a row, in lower case.
    pub(crate) fn md5(&self, id: i64) -> String {
        match &self.table {
            Some(table) => table
                .execute(&format!("SELECT LOWER(HEX(md5sum)) FROM pysmurf_files_v1 WHERE id={id}"))
                .trim()
                .to_owned(),
            None => {
                let connection = Connection::open(self.place.path("q.db")).unwrap();
                let query = "SELECT local_md5sum FROM supersync_v0 WHERE id = ?1";
                connection.query_row(query, [id], |row| row.get(0)).optional().unwrap().unwrap_or_default()
            }
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn of(mut command: Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    /// The objects of its lines.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    pub(crate) fn object(&self) -> Value {
        self.objects().remove(0)
    }
}

pub(crate) fn lower_hex(md5: [u8; 16]) -> String {
    hex(md5).to_lowercase()
}
