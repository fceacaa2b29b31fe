//! What is special to SQLite.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use futures_util::FutureExt;
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
    let selection = Selection { targets, max_attempts: MAX_ATTEMPTS };
    let options = Options { selection, create: true, ..Options::default() };
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

/// Puts another database, with `rows` rows of its own, in the place of the table's file, as `how` says.
fn replace(table: &Table, how: &str, rows: &[NewRow]) {
    let folder = table.file.parent().unwrap();
    if how == "log" {
        return std::fs::remove_file(table.file.with_extension("db-wal")).unwrap();
    }
    let other = Table::new();
    other.insert(rows);
    match how {
        "file" => {
            std::fs::rename(&table.file, folder.join("old.db")).unwrap();
            for journal in ["db-wal", "db-shm"] {
                let _ = std::fs::remove_file(table.file.with_extension(journal));
            }
            std::fs::copy(&other.file, folder.join("new.db")).unwrap();
            std::fs::rename(folder.join("new.db"), &table.file).unwrap();
        }
        "folder" => {
            std::fs::rename(folder, folder.with_extension("old")).unwrap();
            std::fs::create_dir(folder).unwrap();
            std::fs::copy(&other.file, &table.file).unwrap();
        }
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_is_taken_up() {
    for how in ["file", "folder", "log"] {
        let table = Table::new();
        let old = table.insert(&vec![NewRow::new("/data/old"); 3]);
        let catalog = table.open().await;
        catalog.claim().await.unwrap();
        assert_eq!((all(&catalog).await.len(), catalog.generation()), (3, 0));
        replace(&table, how, &[NewRow::new("/data/new"), NewRow::new("/data/newer")]);
        let rows = ready(all(&catalog).await);
        let names: Vec<_> = rows.iter().map(|row| row.source.to_str().unwrap()).collect();
        // Rows whose log was deleted are lost with it, except those that had come into the file.
        assert!(how == "log" || names == ["/data/new", "/data/newer"], "{how}: {names:?}");
        assert_eq!(catalog.generation(), 1, "{how}");
        catalog.claim().await.unwrap();
        // Another archiver finds the lock where it looks for it.
        let message = unavailable_message(table.open().await.claim().await);
        assert!(message.contains("another archiver"), "{how}: {message}");
        if how != "log" {
            assert_eq!(catalog.record(&[copied(old, "x")]).await.unwrap(), 1, "{how}");
            assert!(table.read(old).copied, "{how}: what is recorded is in the file of the name");
        }
        catalog.close().await;
    }
}

#[tokio::test]
async fn writes_of_others_are_told_also_to_a_file_that_took_the_place_of_another() {
    for how in ["file", "folder", "log"] {
        let table = Table::new();
        table.insert(&[NewRow::new("/data/old")]);
        let catalog = table.open().await;
        let is_told = || catalog.changed().now_or_never().is_some();
        for round in 0..2 {
            if round > 0 {
                replace(&table, how, &[NewRow::new("/data/new")]);
            }
            // What is written from this question on is told.
            catalog.newest().await.unwrap();
            is_told();
            catalog.newest().await.unwrap();
            assert!(!is_told(), "{how}: to read is to write nothing");
            let row = table.insert(&[NewRow::new(format!("/data/{round}"))]);
            assert!(is_told(), "{how}");
            assert_eq!(catalog.newest().await.unwrap(), RecordId(row), "{how}");
        }
        catalog.close().await;
    }
}

#[tokio::test]
async fn a_file_that_is_away_is_waited_for() {
    let table = Table::new();
    table.insert(&[NewRow::new("/data/x")]);
    let catalog = table.open().await;
    let aside = table.file.with_extension("aside");
    std::fs::rename(&table.file, &aside).unwrap();
    for _ in 0..2 {
        let message = unavailable_message(catalog.newest().await);
        assert!(message.contains("not there any more"), "{message}");
        assert!(!table.file.exists(), "nothing is made in its place");
    }
    std::fs::rename(&aside, &table.file).unwrap();
    assert_eq!((all(&catalog).await.len(), catalog.generation()), (1, 0));
    // One without a table is none yet.
    std::fs::rename(&table.file, &aside).unwrap();
    std::fs::write(&table.file, "").unwrap();
    let message = unavailable_message(catalog.newest().await);
    assert!(message.contains("has no table supersync_v0"), "{message}");
    std::fs::rename(&aside, &table.file).unwrap();
    assert_eq!(all(&catalog).await.len(), 1);
}

#[tokio::test]
async fn closing_a_replaced_file_leaves_the_new_ones_log_alone() {
    let table = Table::new();
    table.insert(&[NewRow::new("/data/old")]);
    let catalog = table.open().await;
    catalog.newest().await.unwrap();
    replace(&table, "file", &[]);
    let producer = table.connect();
    producer.query_row("SELECT COUNT(*) FROM supersync_v0", [], |row| row.get::<_, i64>(0)).unwrap();
    table.insert(&[NewRow::new("/data/new")]);
    let log = table.file.with_extension("db-wal");
    assert!(log.exists());
    catalog.close().await;
    assert!(log.exists());
    drop(producer);
    assert_eq!(table.read(1), seen("to/be", false, 0));
}

#[tokio::test]
async fn a_proof_is_recorded_only_of_the_row_it_is_for() {
    let table = Table::new();
    let id = table.insert(&[NewRow::new("/data/x")]);
    let catalog = table.open().await;
    let other = Outcome::Copied { path: "x".to_owned(), md5: [7; 16] };
    let settled = Settled { id: RecordId(id), attempts: 0, outcome: other, hold: Hold::default() };
    assert_eq!(catalog.record(&[settled]).await.unwrap(), 0);
    assert_eq!(table.read(id), seen("to/be", false, 0));
}

#[tokio::test]
async fn an_absent_file_is_made_only_where_that_is_asked() {
    let table = Table::new();
    let options =
        Options { selection: Selection { targets: vec![TARGET.into()], max_attempts: 1 }, ..Options::default() };
    let message = setup_message(catalog::open(&Database::Sqlite(table.file.clone()), options.clone()).await);
    assert!(message.contains("is not there") && message.contains("init-db"), "{message}");
    assert!(!table.file.parent().unwrap().exists());
    std::fs::create_dir(table.file.parent().unwrap()).unwrap();
    std::fs::write(&table.file, "").unwrap();
    let message = setup_message(catalog::open(&Database::Sqlite(table.file.clone()), options).await);
    assert!(message.contains("init-db"), "{message}");
    assert_eq!(std::fs::metadata(&table.file).unwrap().len(), 0);
}

#[tokio::test]
async fn the_lock_follows_no_link_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can make links for others");
    }
    let table = Table::new();
    table.insert(&[NewRow::new("/data/x")]);
    let (target, link) = (table.file.with_extension("target"), table.file.with_extension("db.smurf.lock"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(65534), Some(65534)).unwrap();
    let catalog = table.open().await;
    let message = unavailable_message(catalog.claim().await);
    assert!(message.contains("smurf.lock") && message.contains("belongs to another user"), "{message}");
    assert!(!target.exists());
    std::fs::remove_file(&link).unwrap();
    catalog.claim().await.unwrap();
}

#[tokio::test]
async fn a_long_table_is_gone_through_to_its_end() {
    let table = Table::new();
    let rows = 25_000;
    table.insert_many(rows);
    let set = |set: &str| table.connect().execute(&format!("UPDATE supersync_v0 SET {set}"), []).unwrap();
    set("timestamp = 30000 - id");
    set("remote_md5sum = local_md5sum, copied = id WHERE id % 2 = 0");
    set("failed_copy_attempts = 5 WHERE id % 1000 = 1");
    // The file of the first row that is due waits in the last one.
    set("local_path = '/data/1' WHERE id = 24999");
    let AnyCatalog::Sqlite(catalog) = table.open().await else { panic!("no SQLite") };
    let totals = catalog.totals().await.unwrap();
    assert_eq!((totals.pending, totals.given_up, totals.copied), (12_475, 25, 12_500));
    assert_eq!(catalog.oldest().await.unwrap(), Some(5001.0));
    let stats = catalog.archive_stats().await.unwrap();
    assert_eq!((stats.num_files, stats.uncopied_files, stats.finalized_until), (25_000, 12_500, 5000.0));
    assert_eq!((&*stats.last_file_added, &*stats.last_file_copied), ("/data/0", "/data/1"));
    let parts = catalog.prunable_parts(1e9).await.unwrap();
    // The oldest proof first, and none is older than its row.
    assert_eq!(parts, [[10_000, 20_000], [i64::MIN, 10_000], [20_000, 25_000]]);
    let mut due = Vec::new();
    for ids in parts {
        due.extend(catalog.prunable(ids, 1e9).await.unwrap());
    }
    let mut ids = due.iter().map(|file| file.id.0).collect::<Vec<_>>();
    ids.sort_unstable();
    assert_eq!(ids, (1..=12_500).map(|n| 2 * n).collect::<Vec<_>>());
    let (needed, last) = catalog.needed(&mut due, None).await.unwrap();
    let needed: Vec<_> = due.iter().zip(needed).filter_map(|(file, why)| Some((file.id.0, why?))).collect();
    assert_eq!((needed.len(), needed[0].0, last), (1, 2, RecordId(25_000)));
    assert_eq!(catalog.retry(&catalog::Retry::All).await.unwrap(), 25);
    catalog.close().await;
}

/// What SupRsync's duties need of a long table is asked of it once, and then of what has changed.
#[tokio::test]
async fn what_was_found_in_a_long_table_is_remembered() {
    let table = Table::new();
    table.insert_many(45_000);
    let set = |set: &str| table.connect().execute(&format!("UPDATE supersync_v0 SET {set}"), []).unwrap();
    set("remote_md5sum = local_md5sum, copied = 1");
    let AnyCatalog::Sqlite(catalog) = table.open().await else { panic!("no SQLite") };
    let mut before = 0;
    let mut looks = || catalog.looks() - std::mem::replace(&mut before, catalog.looks());
    assert_eq!(catalog.archive_stats().await.unwrap().uncopied_files, 0);
    assert_eq!(looks(), 5);
    catalog.complete_timecodes(1e9).await.unwrap();
    catalog.prunable_parts(1e9).await.unwrap();
    assert_eq!(looks(), 2, "the end alone, each time");
    // Somebody puts a row back. The archiver comes by it, and with that the part is known to have changed.
    set("remote_md5sum = NULL WHERE id = 15000");
    assert_eq!(catalog.archive_stats().await.unwrap().uncopied_files, 0);
    catalog.pending(RecordId(0), 10).await.unwrap();
    assert_eq!(catalog.archive_stats().await.unwrap().uncopied_files, 1);
    assert!(looks() <= 4);
    // What is written by us is seen at once.
    let md5 = catalog.pending(RecordId(0), 1).await.unwrap();
    let catalog::Pending::Ready(record) = &md5[0] else { panic!("unusable") };
    let outcome = catalog::Outcome::Copied { path: "17950/x".into(), md5: record.md5 };
    catalog.record(&[catalog::Settled { id: record.id, attempts: 0, outcome, hold: Hold::default() }]).await.unwrap();
    assert_eq!(catalog.archive_stats().await.unwrap().uncopied_files, 0);
    // New rows always.
    table.insert(&[NewRow::new("/data/new")]);
    assert_eq!(catalog.archive_stats().await.unwrap().num_files, 45_001);
    catalog.close().await;
}

/// Ten writers fill the table while all is asked that a run asks time and again. `make long-table` has millions of rows, and
/// shows how long each takes.
#[tokio::test]
async fn duties_ask_a_long_table_for_what_is_new_whoever_writes_meanwhile() {
    let rows: i64 = std::env::var("ARCHIVER_LONG_TABLE").map_or(60_000, |rows| rows.parse().unwrap());
    let table = Table::new();
    let connection = table.connect();
    // All are copied; but for the last thousands the local files are gone.
    let fill = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows}) INSERT INTO supersync_v0 \
         (local_path, local_md5sum, archive_name, remote_path, timestamp, remote_md5sum, copied, removed, failed_copy_attempts, \
         deletable, \"ignore\") SELECT '/data/smurf/' || (n / 1000) || '/crate1slot2/' || n || '_tuning.npy', printf('%032d', n), \
         'smurf', (10000 + n * 7000 / {rows}) || '/crate1slot2/' || n || '_tuning.npy', 1.0e9 + n, printf('%032d', n), 1.0e9 + n, \
         iif(n <= {rows} - 5000, 1.7e9, NULL), 0, 1, 0 FROM n"
    );
    connection.execute(&fill, []).unwrap();
    connection.execute("INSERT INTO timecode_dirs_v0 (timecode, archive_name, completed, synced, finalized) VALUES (17000, 'smurf', 0, 0, 0)", []).unwrap();
    let AnyCatalog::Sqlite(catalog) = table.open().await else { panic!("no SQLite") };
    for indexed in [false, true] {
        if indexed {
            catalog::make_indexes(&Database::Sqlite(table.file.clone())).await.unwrap();
        }
        let mut timed = Timed(Vec::new());
        let began = Instant::now();
        catalog.archive_stats().await.unwrap();
        timed.note("first look at all", began);
        let writers: Vec<_> = (0..10)
            .map(|writer| {
                let connection = table.connect();
                std::thread::spawn(move || {
                    for n in 0..40 {
                        let add = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                                   failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'smurf', ?, 1.2e9, 0, 1, 0)";
                        let name = format!("w{writer}/{n}");
                        let values = params![format!("/data/{name}"), "0".repeat(32), format!("17000/{name}")];
                        connection.execute(add, values).unwrap();
                    }
                })
            })
            .collect();
        let before = catalog.looks();
        let rounds = 20;
        for _ in 0..rounds {
            let began = Instant::now();
            let newest = catalog.newest().await.unwrap();
            timed.note("newest", began);
            let began = Instant::now();
            let waiting = catalog.look(RecordId(newest.0 - 1000), 256).await.unwrap().rows;
            timed.note("poll", began);
            let began = Instant::now();
            let settled: Vec<_> = waiting
                .iter()
                .take(20)
                .map(|row| match row {
                    Pending::Ready(record) => {
                        let Naming::Given(path) = &record.naming else { panic!("no place") };
                        let outcome = Outcome::Copied { path: path.clone(), md5: record.md5 };
                        Settled { id: record.id, attempts: 0, outcome, hold: Hold::default() }
                    }
                    Pending::Unusable { .. } => panic!("unusable"),
                })
                .collect();
            catalog.record(&settled).await.unwrap();
            timed.note("record of 20", began);
            let began = Instant::now();
            catalog.archive_stats().await.unwrap();
            timed.note("statistics", began);
            let began = Instant::now();
            assert_eq!(catalog.complete_timecodes(1.2e9).await.unwrap(), []);
            timed.note("timecodes", began);
            let began = Instant::now();
            let parts = catalog.prunable_parts(1.1e9).await.unwrap();
            let mut files = catalog.prunable(parts[0], 1.1e9).await.unwrap();
            files.truncate(64);
            timed.note("files to be deleted", began);
            let began = Instant::now();
            let (needed, _) = catalog.needed(&mut files, None).await.unwrap();
            assert!(needed.iter().all(Option::is_none));
            timed.note("who needs 64 files", began);
        }
        let looks = catalog.looks() - before;
        assert!(looks <= rounds * 20, "{looks} looks");
        for writer in writers {
            writer.join().unwrap();
        }
        timed.print(&format!(
            "{rows} rows, {}, ten writers, {looks} looks in {rounds} rounds:",
            if indexed { "with indexes" } else { "without indexes" }
        ));
    }
    catalog.close().await;
}

#[tokio::test]
async fn the_lock_is_gone_with_the_archiver_that_had_it() {
    let table = Table::new();
    table.insert(&[NewRow::new("/data/x")]);
    let lock = table.file.with_extension("db.smurf.lock");
    let (catalog, other) = (table.open().await, table.open().await);
    catalog.claim().await.unwrap();
    assert!(unavailable_message(other.claim().await).contains("another archiver"));
    other.close().await;
    assert!(lock.exists(), "the other one never had it");
    catalog.close().await;
    assert!(!lock.exists());
    table.open().await.claim().await.unwrap();
    assert!(lock.exists());
}

#[tokio::test]
async fn a_lock_file_that_an_operator_has_linked_stays() {
    let table = Table::new();
    table.insert(&[NewRow::new("/data/x")]);
    let (target, link) = (table.file.with_extension("target"), table.file.with_extension("db.smurf.lock"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let catalog = table.open().await;
    catalog.claim().await.unwrap();
    catalog.close().await;
    assert!(link.is_symlink() && target.exists());
}
