//! The catalog on real databases: one suite for both kinds, and what is special to each.

#[path = "catalog/conformance.rs"]
mod conformance;
#[path = "catalog/false_server.rs"]
mod false_server;
#[path = "catalog/mysql.rs"]
mod mysql;
#[path = "catalog/sqlite.rs"]
mod sqlite;

use std::time::Instant;

use pysmurf_archiver::catalog::{
    AnyCatalog, Catalog, CatalogError, FailedSide, Hold, Outcome, Pending, Record, RecordId, Settled,
};

/// A sum whose first bytes look like text and end of text.
const MD5: [u8; 16] = [b'\'', b'"', b'\\', 0, 1, 0xff, 0xfe, 7, 8, 9, 10, 11, 12, 13, 14, 0];

/// The monitor or archive whose rows the tests ask for.
const TARGET: &str = "smurf";

const MAX_ATTEMPTS: i64 = 5;

/// A row to be put into a table.
#[derive(Clone)]
struct NewRow {
    path: String,
    target: Option<&'static str>,
    copied: bool,
    attempts: Option<i64>,
}

impl NewRow {
    fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), target: Some(TARGET), copied: false, attempts: Some(0) }
    }
}

/// What a table says about a row.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: String,
    copied: bool,
    attempts: Option<i64>,
}

fn seen(path: &str, copied: bool, attempts: i64) -> Seen {
    Seen { path: path.to_owned(), copied, attempts: Some(attempts) }
}

/// A fresh table of one kind, and the producer's way into it.
trait Fixture: Sync {
    async fn open(&self) -> AnyCatalog;
    /// Inserts rows; gives the first one's id, the others follow.
    fn insert(&self, rows: &[NewRow]) -> i64;
    fn insert_many(&self, count: u32);
    fn read(&self, id: i64) -> Seen;
    /// How many rows have a note.
    fn noted(&self) -> i64;
    fn set_attempts(&self, id: i64, attempts: i64);
}

async fn all(catalog: &impl Catalog) -> Vec<Pending> {
    catalog.pending(RecordId(0), 1000).await.unwrap()
}

fn ids(rows: &[Pending]) -> Vec<i64> {
    rows.iter().map(|row| row.id().0).collect()
}

fn ready(rows: Vec<Pending>) -> Vec<Record> {
    rows.into_iter()
        .map(|row| match row {
            Pending::Ready(record) => record,
            unusable => panic!("{unusable:?}"),
        })
        .collect()
}

fn why(row: &Pending) -> &str {
    match row {
        Pending::Unusable { why, .. } => why,
        ready => panic!("{ready:?}"),
    }
}

fn copied(id: i64, path: &str) -> Settled {
    Settled {
        id: RecordId(id),
        attempts: 0,
        outcome: Outcome::Copied { path: path.to_owned(), md5: MD5 },
        hold: Hold::default(),
    }
}

fn failed(id: i64, attempts: i64) -> Settled {
    Settled {
        id: RecordId(id),
        attempts,
        outcome: Outcome::Failed { why: "test".to_owned(), side: FailedSide::Source },
        hold: Hold::default(),
    }
}

fn setup_message<T>(result: Result<T, CatalogError>) -> String {
    match result {
        Err(CatalogError::Setup(message)) => message,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

fn unavailable_message<T>(result: Result<T, CatalogError>) -> String {
    match result {
        Err(error @ CatalogError::Unavailable { .. }) => error.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("accepted"),
    }
}

/// How long a call takes, the median and the longest of several, in milliseconds.
struct Timed(Vec<(&'static str, Vec<f64>)>);

impl Timed {
    fn note(&mut self, what: &'static str, began: Instant) {
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, times)) => times.push(ms),
            None => self.0.push((what, vec![ms])),
        }
    }

    fn print(mut self, title: &str) {
        println!("{title}");
        for (what, times) in &mut self.0 {
            times.sort_by(f64::total_cmp);
            println!("  {what:24} {:8.1} ms, at most {:8.1} ms", times[times.len() / 2], times[times.len() - 1]);
        }
    }
}
