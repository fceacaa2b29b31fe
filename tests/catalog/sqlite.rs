//! What is special to SQLite.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use pysmurf_archiver::catalog::{self, Created, Database, Naming, Options, Selection};
use rusqlite::{Connection, params};
use tempfile::TempDir;

/// A file of SupRsync in a folder of its own.
pub(crate) struct Table {
    _folder: TempDir,
    file: PathBuf,
}

impl Table {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("deeper/suprsync.db");
        Self { _folder: folder, file }
    }

    /// The producer's connection; made after the tables are.
    fn connect(&self) -> Connection {
        let database = Database::Sqlite(self.file.clone());
        let create = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(catalog::init_db(&database)).unwrap();
        };
        // The test's own thread has a runtime already.
        std::thread::spawn(create).join().unwrap();
        let connection = Connection::open(&self.file).unwrap();
        // As patient as the producers are.
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }

    async fn try_open(&self) -> Result<AnyCatalog, CatalogError> {
        open(&self.file, &[TARGET]).await
    }
}

async fn open(file: &Path, targets: &[&str]) -> Result<AnyCatalog, CatalogError> {
    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
    let options = Options { selection: Selection { targets, max_attempts: MAX_ATTEMPTS }, ..Options::default() };
    catalog::open(&Database::Sqlite(file.to_owned()), options).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const INSERT: &str = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, remote_md5sum, \
                      failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, 'to/be', 1.5, ?, ?, 1, 0)";

impl Fixture for Table {
    async fn open(&self) -> AnyCatalog {
        self.try_open().await.unwrap()
    }

    fn insert(&self, rows: &[NewRow]) -> i64 {
        let mut connection = self.connect();
        let transaction = connection.transaction().unwrap();
        for row in rows {
            let remote = row.copied.then(|| hex(&MD5));
            // The column takes no NULL.
            let target = row.target.unwrap_or("");
            transaction.execute(INSERT, params![row.path, hex(&MD5), target, remote, row.attempts]).unwrap();
        }
        let last = transaction.last_insert_rowid();
        transaction.commit().unwrap();
        last - rows.len() as i64 + 1
    }

    fn insert_many(&self, count: u32) {
        let rows: Vec<NewRow> = (0..count).map(|n| NewRow::new(format!("/data/{n}"))).collect();
        self.insert(&rows);
    }

    fn read(&self, id: i64) -> Seen {
        let query =
            "SELECT remote_path, remote_md5sum IS local_md5sum, failed_copy_attempts FROM supersync_v0 WHERE id = ?";
        let connection = Connection::open(&self.file).unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok(Seen { path: row.get(0)?, copied: row.get(1)?, attempts: row.get(2)? });
        connection.query_row(query, [id], row).unwrap()
    }

    fn noted(&self) -> i64 {
        self.connect().query_row("SELECT COUNT(*) FROM archiver_note", [], |row| row.get(0)).unwrap()
    }

    fn set_attempts(&self, id: i64, attempts: i64) {
        let update = "UPDATE supersync_v0 SET failed_copy_attempts = ? WHERE id = ?";
        self.connect().execute(update, [attempts, id]).unwrap();
    }
}

#[tokio::test]
async fn creates_what_is_absent_and_alters_nothing() {
    let table = Table::new();
    let database = Database::Sqlite(table.file.clone());
    let names = ["supersync_v0", "timecode_dirs_v0", "archiver_note"];
    let all = |new| names.map(|name| Created { table: name.to_owned(), new });
    assert_eq!(catalog::init_db(&database).await.unwrap(), all(true));
    let schema = || -> Vec<String> {
        let connection = Connection::open(&table.file).unwrap();
        let mut statement =
            connection.prepare("SELECT sql FROM sqlite_master WHERE name LIKE '%_v0' ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let words = |sql: &str| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(&schema()[0]),
        "CREATE TABLE supersync_v0 ( id INTEGER NOT NULL, local_path VARCHAR NOT NULL, local_md5sum VARCHAR NOT NULL, \
         archive_name VARCHAR NOT NULL, remote_path VARCHAR NOT NULL, timestamp FLOAT NOT NULL, remote_md5sum VARCHAR, \
         copied FLOAT, removed FLOAT, failed_copy_attempts INTEGER, deletable BOOLEAN, \"ignore\" BOOLEAN, PRIMARY KEY (id))"
    );
    let before = schema();
    assert_eq!(catalog::init_db(&database).await.unwrap(), all(false));
    table.open().await.close().await;
    assert_eq!(schema(), before);
    let connection = Connection::open(&table.file).unwrap();
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn a_row_says_its_own_place() {
    let table = Table::new();
    let id = table.insert(&[NewRow::new("/data/x")]);
    let catalog = table.open().await;
    assert_eq!(ready(all(&catalog).await)[0].naming, Naming::Given("to/be".to_owned()));
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    catalog.record(&[copied(id, "to/be.1")]).await.unwrap();
    let query = "SELECT copied, typeof(copied), remote_md5sum FROM supersync_v0";
    let (time, kind, sum): (f64, String, String) =
        table.connect().query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    assert!((before..before + 60.0).contains(&time), "{time}");
    assert_eq!((kind.as_str(), sum), ("real", hex(&MD5)));
}

#[tokio::test]
async fn removed_and_ignored_rows_do_not_wait_and_a_differing_sum_does() {
    let table = Table::new();
    let first = table.insert(&vec![NewRow::new("/data/x"); 6]);
    let set = [
        "removed = 0",
        "removed = 1.5",
        "\"ignore\" = 1",
        "\"ignore\" = NULL",
        "remote_md5sum = 'ffff'",
        "remote_md5sum = NULL",
    ];
    for (id, set) in (first..).zip(set) {
        table.connect().execute(&format!("UPDATE supersync_v0 SET {set} WHERE id = ?"), [id]).unwrap();
    }
    let catalog = table.open().await;
    assert_eq!(ids(&all(&catalog).await), [first + 4, first + 5]);
    assert_eq!(catalog.record(&[copied(first + 4, "x")]).await.unwrap(), 1);
    assert!(table.read(first + 4).copied);
}

#[tokio::test]
async fn bad_values_make_a_row_unusable_and_nothing_worse() {
    let table = Table::new();
    let cases = [
        ("local_path = x'616263'", "local_path"),
        ("local_path = ''", "local_path"),
        ("local_path = '/a' || char(0) || 'b'", "local_path"),
        ("local_path = '/' || hex(zeroblob(100000))", "local_path"),
        ("remote_path = CAST(x'ff' AS TEXT)", "remote_path"),
        ("remote_path = ''", "remote_path"),
        ("local_md5sum = 'abc'", "local_md5sum"),
        ("local_md5sum = 'zz' || substr(local_md5sum, 3)", "local_md5sum"),
        ("local_md5sum = local_md5sum || '0'", "local_md5sum"),
        ("local_md5sum = x'00'", "local_md5sum"),
    ];
    let first = table.insert(&vec![NewRow::new("/data/x"); cases.len() + 1]);
    for (id, (set, _)) in (first..).zip(cases) {
        table.connect().execute(&format!("UPDATE supersync_v0 SET {set} WHERE id = ?"), [id]).unwrap();
    }
    // Upper case is as good.
    let last = first + cases.len() as i64;
    table.connect().execute("UPDATE supersync_v0 SET local_md5sum = upper(local_md5sum) WHERE id = ?", [last]).unwrap();
    let catalog = table.open().await;
    let mut found = all(&catalog).await;
    assert_eq!(ready(vec![found.pop().unwrap()])[0].md5, MD5);
    assert_eq!(found.len(), cases.len());
    for (row, (_, column)) in found.iter().zip(cases) {
        assert!(why(row).contains(column), "{row:?}");
        assert_eq!(catalog.record(&[failed(row.id().0, 0)]).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_table_older_than_ignore_and_deletable() {
    let table = Table::new();
    table
        .connect()
        .execute_batch(
            "ALTER TABLE supersync_v0 DROP COLUMN \"ignore\"; ALTER TABLE supersync_v0 DROP COLUMN deletable",
        )
        .unwrap();
    table
        .connect()
        .execute(
            "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, failed_copy_attempts) \
             VALUES ('/x', ?, ?, 'x', 1, 0)",
            params![hex(&MD5), TARGET],
        )
        .unwrap();
    let catalog = table.open().await;
    let rows = ready(all(&catalog).await);
    assert_eq!(catalog.totals().await.unwrap().pending, 1);
    assert_eq!(catalog.record(&[copied(rows[0].id.0, "x")]).await.unwrap(), 1);
    assert_eq!(all(&catalog).await, []);
}

#[tokio::test]
async fn a_locked_file_is_unavailable_and_then_serves_again() {
    let table = Table::new();
    let id = table.insert(&[NewRow::new("/data/x")]);
    let catalog = table.open().await;
    let producer = table.connect();
    producer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    let message = unavailable_message(catalog.record(&[copied(id, "y")]).await);
    assert!(message.contains("locked") && message.contains(table.file.to_str().unwrap()), "{message}");
    assert!(start.elapsed() < Duration::from_secs(120));
    assert_eq!(ids(&all(&catalog).await), [id], "reading goes on");
    producer.execute_batch("ROLLBACK").unwrap();
    assert_eq!(catalog.record(&[copied(id, "y")]).await.unwrap(), 1);
}

#[tokio::test]
async fn what_cannot_serve_is_said_so() {
    let table = Table::new();
    table.connect().execute_batch("ALTER TABLE supersync_v0 DROP COLUMN removed").unwrap();
    let message = setup_message(table.try_open().await);
    assert!(message.contains("lacks column removed") && message.contains("supersync_v0"), "{message}");

    let folder = TempDir::new().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no database, but long enough to be taken for one at first sight").unwrap();
    let message = setup_message(open(&text, &[TARGET]).await);
    assert!(message.contains(text.to_str().unwrap()), "{message}");
    let message = setup_message(open(folder.path(), &[TARGET]).await);
    assert!(message.contains(folder.path().to_str().unwrap()), "{message}");
    let message = setup_message(open(&text.join("below"), &[TARGET]).await);
    assert!(message.contains("cannot be made"), "{message}");

    for targets in [&[][..], &["a", "b"]] {
        let message = setup_message(open(&folder.path().join("new"), targets).await);
        assert!(message.contains("--archive-name"), "{message}");
    }
    assert!(!folder.path().join("new").exists());
    let options = Options { table: Some("x".to_owned()), ..Options::default() };
    let message = setup_message(catalog::open(&Database::Sqlite(text), options).await);
    assert!(message.contains("--table"), "{message}");
}

#[tokio::test]
async fn closing_leaves_one_file_behind() {
    let table = Table::new();
    let id = table.insert(&[NewRow::new("/data/x")]);
    let catalog = table.open().await;
    catalog.record(&[copied(id, "y")]).await.unwrap();
    let log = table.file.with_extension("db-wal");
    assert!(log.exists());
    catalog.close().await;
    assert!(!log.exists());
    let message = unavailable_message(catalog.newest().await);
    assert!(message.contains("closed"), "{message}");
    catalog.close().await;
}
