//! Tables of files, filled as the producers fill them and read as they stand.

use crate::support::archiver::{Place, hex};
use crate::support::mariadb::MariaDb;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The monitor whose rows are copied.
pub(crate) const TARGET: &str = "monitor";

/// A file's time, and the start of the action it belongs to.
pub(crate) const TIME: i64 = 1_589_517_384;
pub(crate) const STARTED: i64 = 1_589_517_264;

/// A row as the monitor inserts it.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) path: PathBuf,
    pub(crate) md5: [u8; 16],
    pub(crate) timestamp: i64,
    pub(crate) action_timestamp: Option<i64>,
    /// The file's type, in tables that have one.
    pub(crate) action: Option<String>,
    pub(crate) pub_id: Option<String>,
    pub(crate) plot: bool,
    pub(crate) instance: String,
    pub(crate) copied: i64,
    pub(crate) attempts: Option<i64>,
}

impl Row {
    pub(crate) fn new((path, md5): (PathBuf, [u8; 16])) -> Self {
        Self {
            path,
            md5,
            timestamp: TIME,
            action_timestamp: Some(STARTED),
            action: Some("tracking_setup".into()),
            pub_id: Some("crate1slot2".into()),
            plot: false,
            instance: TARGET.into(),
            copied: 0,
            attempts: Some(0),
        }
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        self.path.file_name().unwrap().as_bytes().to_vec()
    }
}

/// Where a row of plain values belongs, relative to the archive.
pub(crate) const FOLDER: &str = "15895/crate1slot2/1589517264_tracking_setup/outputs/";

/// A row as it stands; the path as bytes, and everything that is never to change in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stands {
    pub(crate) id: i64,
    pub(crate) path: Vec<u8>,
    pub(crate) copied: i64,
    pub(crate) attempts: Option<i64>,
    pub(crate) rest: String,
}

/// Which of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    V0,
    V1,
}

/// A table in a database of its own.
pub(crate) struct Table<'a> {
    pub(crate) server: &'a MariaDb,
    pub(crate) name: String,
    pub(crate) url: String,
    age: Age,
}

impl<'a> Table<'a> {
    /// A table made by the schema's own statement on a server of those years: every UPDATE that does not say otherwise
    /// sets `timestamp` to now.
    pub(crate) fn new(server: &'a MariaDb, name: &str, age: Age) -> Self {
        let url = server.database(name);
        let table = Self { server, name: name.to_owned(), url, age };
        let v1 = include_str!("catalog/v1.sql");
        let statement = match age {
            Age::V1 => v1.to_owned(),
            Age::V0 => v1
                .replace("pysmurf_files_v1", "pysmurf_files_v0")
                .replace("action VARCHAR(32) , timestamp", "type VARCHAR(32) NOT NULL, timestamp"),
        };
        table.execute(&format!("SET explicit_defaults_for_timestamp=OFF; {statement}"));
        table
    }

    pub(crate) fn execute(&self, sql: &str) -> String {
        self.server.execute(&format!("USE `{}`; SET time_zone='+00:00'; {sql}", self.name))
    }

    pub(crate) fn table(&self) -> &'static str {
        match self.age {
            Age::V0 => "pysmurf_files_v0",
            Age::V1 => "pysmurf_files_v1",
        }
    }

    fn kind(&self) -> &'static str {
        match self.age {
            Age::V0 => "type",
            Age::V1 => "action",
        }
    }

    /// The statement that inserts these rows.
    pub(crate) fn insertion(&self, rows: &[Row]) -> String {
        let text = |text: &[u8]| format!("CONVERT(UNHEX('{}') USING utf8mb4)", hex(text));
        let maybe = |value: &Option<String>| value.as_ref().map_or("NULL".into(), |value| text(value.as_bytes()));
        let number = |value: Option<i64>| value.map_or("NULL".into(), |value| value.to_string());
        let values: Vec<String> = rows
            .iter()
            .map(|row| {
                format!(
                    "({}, {}, FROM_UNIXTIME({}), {}, 'npy', {}, 'site', {}, {}, {}, {}, UNHEX('{}'))",
                    text(row.path.as_os_str().as_bytes()),
                    maybe(&row.action),
                    row.timestamp,
                    number(row.action_timestamp),
                    u8::from(row.plot),
                    maybe(&row.pub_id),
                    text(row.instance.as_bytes()),
                    row.copied,
                    number(row.attempts),
                    hex(row.md5)
                )
            })
            .collect();
        format!(
            "INSERT INTO {} (path, {}, timestamp, action_timestamp, format, plot, site, pub_id, instance_id, copied, \
             failed_copy_attempts, md5sum) VALUES {};",
            self.table(),
            self.kind(),
            values.join(", ")
        )
    }

    pub(crate) fn insert(&self, rows: &[Row]) {
        for some in rows.chunks(1000) {
            self.execute(&self.insertion(some));
        }
    }

    /// All rows in order of id.
    pub(crate) fn rows(&self) -> Vec<Stands> {
        let text = self.execute(&format!(
            "SELECT id, HEX(path), copied, IFNULL(failed_copy_attempts, 'NULL'), CONCAT_WS(' ', UNIX_TIMESTAMP(timestamp), \
             IFNULL({}, 'NULL'), IFNULL(action_timestamp, 'NULL'), format, plot, site, IFNULL(pub_id, 'NULL'), \
             IFNULL(script_id, 'NULL'), instance_id, HEX(md5sum), IFNULL(pysmurf_version, 'NULL')) FROM {} ORDER BY id",
            self.kind(),
            self.table()
        ));
        text.lines()
            .map(|line| {
                let fields: Vec<&str> = line.split('\t').collect();
                Stands {
                    id: fields[0].parse().unwrap(),
                    path: unhex(fields[1]),
                    copied: fields[2].parse().unwrap(),
                    attempts: fields[3].parse().ok(),
                    rest: fields[4].to_owned(),
                }
            })
            .collect()
    }

    /// How many rows are copied.
    pub(crate) fn copied(&self) -> usize {
        self.execute(&format!("SELECT COUNT(*) FROM {} WHERE copied=1", self.table())).trim().parse().unwrap()
    }
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// Many small files in the sources and their rows, named `NUMBER_file.dat`.
pub(crate) fn small_files(place: &Place, numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(|n| Row::new(place.source(format!("{n:05}_file.dat"), n * 37 % 5000, n))).collect()
}

/// Fails unless every row is copied to `FOLDER` under its own name at the first attempt, and the tree holds just that.
pub(crate) fn expect_all_proven(place: &Place, table: &Table<'_>, rows: &[Row]) {
    let folder = format!("{}/{FOLDER}", place.archive().display());
    let stands = table.rows();
    assert_eq!(stands.len(), rows.len());
    for (stands, row) in stands.iter().zip(rows) {
        let path = [folder.as_bytes(), &row.name()].concat();
        let shown = String::from_utf8_lossy(&stands.path).into_owned();
        assert_eq!((stands.copied, stands.attempts), (1, Some(0)), "row {}, {shown}", stands.id);
        assert_eq!(stands.path, path, "{shown}");
        assert_eq!(
            crate::support::archiver::md5_of(&place.archive().join(FOLDER).join(row.path.file_name().unwrap())),
            row.md5
        );
    }
    assert_eq!(place.tree().files().count(), rows.len(), "{:?}", place.tree().names());
}
