//! What is special to MySQL and MariaDB.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::*;
use crate::support::mariadb::MariaDb;
use mysql_async::prelude::Queryable;
use pysmurf_archiver::catalog::{self, Created, Database, Layout, Naming, Options, Selection};

/// The last age's table in a database of its own.
pub(crate) struct Table {
    server: &'static MariaDb,
    name: &'static str,
    url: String,
}

impl Table {
    pub(crate) fn new(name: &'static str) -> Option<Self> {
        let server = MariaDb::shared()?;
        let url = server.database(name);
        let table = Self { server, name, url };
        table.execute(include_str!("v1.sql"));
        Some(table)
    }

    pub(crate) fn execute(&self, sql: &str) -> String {
        self.server.execute(&format!("USE `{}`; SET innodb_lock_wait_timeout=1; {sql}", self.name))
    }

    fn database(&self) -> Database {
        Database::choose(Some(&self.url), &|_| None).unwrap().unwrap()
    }
}

fn options() -> Options {
    let selection = Selection { targets: vec![TARGET.to_owned(), "second".to_owned()], max_attempts: MAX_ATTEMPTS };
    Options { selection, ..Options::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn text(text: &str) -> String {
    format!("CONVERT(UNHEX('{}') USING utf8mb4)", hex(text.as_bytes()))
}

fn number(value: Option<i64>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

impl Fixture for Table {
    async fn open(&self) -> AnyCatalog {
        catalog::open(&self.database(), options()).await.unwrap()
    }

    fn insert(&self, rows: &[NewRow]) -> i64 {
        let values: Vec<String> = rows
            .iter()
            .map(|row| {
                let target = row.target.map_or("NULL".to_owned(), text);
                let (path, copied, attempts) = (text(&row.path), i64::from(row.copied), number(row.attempts));
                format!("({path}, {target}, {copied}, {attempts}, UNHEX('{}'))", hex(&MD5))
            })
            .collect();
        let id = self.execute(&format!(
            "INSERT INTO pysmurf_files_v1 (path, instance_id, copied, failed_copy_attempts, md5sum) VALUES {}; \
             SELECT LAST_INSERT_ID()",
            values.join(", ")
        ));
        id.trim().parse().unwrap()
    }

    fn insert_many(&self, count: u32) {
        self.execute(&format!(
            "INSERT INTO pysmurf_files_v1 (path, instance_id, copied, failed_copy_attempts, md5sum) \
             SELECT CONCAT('/data/', seq), '{TARGET}', 0, 0, UNHEX('{}') FROM seq_1_to_{count}",
            hex(&MD5)
        ));
    }

    fn read(&self, id: i64) -> Seen {
        let row = self
            .execute(&format!("SELECT HEX(path), copied, failed_copy_attempts FROM pysmurf_files_v1 WHERE id = {id}"));
        let [path, copied, attempts] = row.trim_end().split('\t').collect::<Vec<_>>().try_into().unwrap();
        let path = (0..path.len()).step_by(2).map(|at| u8::from_str_radix(&path[at..at + 2], 16).unwrap()).collect();
        Seen { path: String::from_utf8(path).unwrap(), copied: copied != "0", attempts: attempts.parse().ok() }
    }

    fn noted(&self) -> i64 {
        self.execute("SELECT COUNT(*) FROM archiver_note").trim().parse().unwrap()
    }

    fn set_attempts(&self, id: i64, attempts: i64) {
        self.execute(&format!("UPDATE pysmurf_files_v1 SET failed_copy_attempts = {attempts} WHERE id = {id}"));
    }
}

const TIME: i64 = 1_589_517_264;

/// [`MD5`] as SQL has it.
const HEX: &str = "27225c0001fffe0708090a0b0c0d0e00";

/// One column list for all ages: what the old monitor wrote.
const OLD: &str = "id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, path VARCHAR(260) NOT NULL, type VARCHAR(32) NOT NULL, \
                   timestamp TIMESTAMP, format VARCHAR(32), site VARCHAR(32), instance_id VARCHAR(32), copied TINYINT(1), \
                   failed_copy_attempts INT, md5sum BINARY(16) NOT NULL";

/// A database without any table.
fn bare(name: &'static str) -> Option<Table> {
    let server = MariaDb::shared()?;
    Some(Table { server, name, url: server.database(name) })
}

async fn open_with(table: &Table, options: Options) -> Result<AnyCatalog, CatalogError> {
    catalog::open(&table.database(), options).await
}

#[tokio::test]
async fn what_names_a_file_by_action() {
    let Some(table) = Table::new("naming_action") else { return };
    table.execute(&format!(
        "INSERT INTO pysmurf_files_v1 (path, action, timestamp, action_timestamp, plot, pub_id, instance_id, copied, \
         failed_copy_attempts, md5sum) VALUES \
         ('/a', 'tracking_setup', FROM_UNIXTIME({TIME}), 1589517260, 1, 'crate1slot2', 'second', 0, 2, UNHEX('{0}')), \
         ('/b', NULL, NULL, NULL, NULL, NULL, '{TARGET}', 0, 0, UNHEX('{0}')), \
         ('/c', '', NULL, -5, 0, '', '{TARGET}', 0, 0, UNHEX('{0}'))",
        hex(&MD5)
    ));
    let catalog = table.open().await;
    let rows = ready(all(&catalog).await);
    let naming = |timestamp, action: Option<&str>, pub_id: Option<&str>, action_timestamp, plot| Naming::Action {
        timestamp,
        pub_id: pub_id.map(str::to_owned),
        action: action.map(str::to_owned),
        action_timestamp,
        plot,
    };
    let whole = naming(Some(TIME), Some("tracking_setup"), Some("crate1slot2"), Some(1_589_517_260), true);
    assert_eq!((&rows[0].naming, rows[0].attempts), (&whole, 2));
    assert_eq!(rows[1].naming, naming(None, None, None, None, false));
    assert_eq!(rows[2].naming, naming(None, Some(""), Some(""), Some(-5), false));
    assert_eq!(catalog.path_limit(), 260);
    let place = format!("table pysmurf_files_v1 of mysql://127.0.0.1:{}/naming_action", table.server.port);
    assert_eq!(catalog.describe(), place);
    catalog.close().await;
}

#[tokio::test]
async fn a_time_is_an_instant_in_every_zone() {
    let Some(table) = Table::new("zones") else { return };
    let insert = |zone: &str, time: &str| {
        table.execute(&format!(
            "SET time_zone='{zone}', sql_mode=''; INSERT INTO pysmurf_files_v1 \
             (path, timestamp, instance_id, copied, failed_copy_attempts, md5sum) VALUES ('/a', {time}, '{TARGET}', 0, 0, x'{HEX}')"
        ));
    };
    insert("-07:00", "'2020-05-14 21:34:24'");
    insert("+09:00", "'2020-05-15 13:34:24.6'");
    insert("+00:00", "'0000-00-00 00:00:00'");
    insert("+00:00", "'1970-01-01 00:00:01'");
    // The server's own zone must not matter either, whatever our session begins with.
    let catalog = table.open().await;
    let rows = ready(all(&catalog).await);
    let times: Vec<Option<i64>> = rows
        .iter()
        .map(|row| match row.naming {
            Naming::Action { timestamp, .. } => timestamp,
            _ => panic!("{row:?}"),
        })
        .collect();
    assert_eq!(times, [Some(TIME), Some(TIME), None, Some(1)]);
    assert_eq!(catalog.oldest().await.unwrap(), Some(1.0));
    // A zero time is kept like any other, in strict mode too.
    let outcomes: Vec<Settled> = rows.iter().map(|row| copied(row.id.0, "/x")).collect();
    assert_eq!(catalog.record(&outcomes).await.unwrap(), 4);
    let kept = table.execute("SELECT `timestamp` FROM pysmurf_files_v1 ORDER BY id");
    assert_eq!(kept, "2020-05-15 04:34:24\n2020-05-15 04:34:24\n0000-00-00 00:00:00\n1970-01-01 00:00:01\n");
    catalog.close().await;
}

#[tokio::test]
async fn the_files_time_stays_in_tables_that_update_it() {
    for (name, explicit) in [("explicit_off", "OFF"), ("explicit_on", "ON")] {
        let Some(table) = bare(name) else { return };
        table.execute(&format!("SET explicit_defaults_for_timestamp={explicit}; {}", include_str!("v1.sql")));
        let updates = table.execute("SHOW CREATE TABLE pysmurf_files_v1").contains("ON UPDATE current_timestamp()");
        assert_eq!(updates, explicit == "OFF");
        table.execute(&format!(
            "INSERT INTO pysmurf_files_v1 (path, timestamp, instance_id, copied, failed_copy_attempts, md5sum) VALUES \
             ('/a', FROM_UNIXTIME({TIME}), '{TARGET}', 0, 0, x'{HEX}'), ('/b', FROM_UNIXTIME({TIME}), '{TARGET}', 0, 0, x'{HEX}')"
        ));
        let catalog = table.open().await;
        let rows = ids(&all(&catalog).await);
        assert_eq!(catalog.record(&[copied(rows[0], "/x"), failed(rows[1], 0)]).await.unwrap(), 2);
        let times =
            table.execute("SELECT UNIX_TIMESTAMP(timestamp), copied, failed_copy_attempts FROM pysmurf_files_v1");
        assert_eq!(times, format!("{TIME}\t1\t0\n{TIME}\t0\t1\n"));
        catalog.close().await;
    }
}

#[tokio::test]
async fn the_newest_table_is_taken_unless_one_is_named() {
    let Some(table) = bare("ages") else { return };
    let by_type = |rows: Vec<Pending>| ready(rows).into_iter().map(|row| row.naming).next();
    let insert = |name: &str, kind: &str| {
        table.execute(&format!(
            "INSERT INTO {name} (path, type, timestamp, instance_id, copied, failed_copy_attempts, md5sum) \
             VALUES ('/a', '{kind}', FROM_UNIXTIME({TIME}), '{TARGET}', 0, 0, x'{HEX}')"
        ));
    };
    let naming = |kind: &str| Some(Naming::Type { timestamp: Some(TIME), file_type: Some(kind.to_owned()) });

    table.execute(&format!("CREATE TABLE pysmurf_files ({OLD})"));
    insert("pysmurf_files", "oldest");
    let oldest = table.open().await;
    assert_eq!(by_type(all(&oldest).await), naming("oldest"));
    assert_eq!(oldest.record(&[copied(1, "/x")]).await.unwrap(), 1);

    table.execute(&format!(
        "CREATE TABLE pysmurf_files_v0 ({OLD}, plot TINYINT(1), pub_id VARCHAR(32), action_timestamp INT)"
    ));
    insert("pysmurf_files_v0", "older");
    assert_eq!(by_type(all(&table.open().await).await), naming("older"));

    table.execute(include_str!("v1.sql"));
    let newest = table.open().await;
    assert!(newest.describe().contains("pysmurf_files_v1"));
    assert_eq!(all(&newest).await, []);

    let named = |name: &str, layout| Options { table: Some(name.to_owned()), layout, ..options() };
    let v0 = open_with(&table, named("pysmurf_files_v0", Some(Layout::Type))).await.unwrap();
    assert_eq!(by_type(all(&v0).await), naming("older"));
    let message = setup_message(open_with(&table, named("pysmurf_files_v0", Some(Layout::Action))).await);
    assert!(message.contains("pysmurf_files_v0") && message.contains("lacks column action"), "{message}");
    let message = setup_message(open_with(&table, named("pysmurf_files_v1", Some(Layout::Type))).await);
    assert!(message.contains("lacks column type") && message.contains("--layout action"), "{message}");

    // A name is a name, whatever is in it.
    table.execute(&format!("CREATE TABLE `odd``; name'` ({OLD}, action VARCHAR(32))"));
    let odd = open_with(&table, named("odd`; name'", None)).await.unwrap();
    assert_eq!((all(&odd).await, odd.newest().await.unwrap()), (vec![], RecordId(0)));
    for catalog in [oldest, newest, v0, odd] {
        catalog.close().await;
    }
}

#[tokio::test]
async fn a_table_that_cannot_serve_is_said_so() {
    let Some(table) = bare("misfits") else { return };
    let message = setup_message(open_with(&table, options()).await);
    assert!(message.contains("no table pysmurf_files_v1") && message.contains("init-db"), "{message}");
    let named = |name: &str| Options { table: Some(name.to_owned()), ..options() };
    let message = setup_message(open_with(&table, named("mine")).await);
    assert!(message.contains("no table mine") && message.contains("--table"), "{message}");

    table.execute("CREATE TABLE pysmurf_files (id INT PRIMARY KEY, path VARCHAR(260), timestamp TIMESTAMP, type VARCHAR(32), md5sum BINARY(16))");
    let message = setup_message(open_with(&table, options()).await);
    assert!(message.contains("lacks columns instance_id, copied, failed_copy_attempts"), "{message}");

    table.execute(&format!("CREATE TABLE numeric_time ({})", OLD.replace("timestamp TIMESTAMP", "timestamp INT")));
    let message = setup_message(open_with(&table, named("numeric_time")).await);
    assert!(message.contains("column timestamp of type int"), "{message}");

    let without = Options { selection: Selection::default(), ..options() };
    let message = setup_message(open_with(&table, without).await);
    assert!(message.contains("--target"), "{message}");
}

#[tokio::test]
async fn values_of_the_wrong_type_make_a_row_unusable() {
    let Some(table) = bare("wrong_types") else { return };
    table.execute(
        "CREATE TABLE pysmurf_files_v1 (id BIGINT UNSIGNED PRIMARY KEY, path VARBINARY(260), timestamp DATETIME(6), action DATE, \
         action_timestamp VARCHAR(32), plot INT, pub_id INT, instance_id VARCHAR(32), copied INT, failed_copy_attempts DOUBLE, \
         md5sum VARBINARY(32))",
    );
    let good = format!("UNHEX('{}')", hex(&MD5));
    let insert = |id: u32, path: &str, action: &str, action_timestamp: &str, sum: &str| {
        table.execute(&format!(
            "INSERT INTO pysmurf_files_v1 VALUES ({id}, {path}, '2020-05-15 04:34:24.75', {action}, {action_timestamp}, 7, 12, \
             '{TARGET}', 0, 1, {sum})"
        ));
    };
    insert(1, "UNHEX('2FFF')", "NULL", "' 5'", &good);
    insert(2, "NULL", "NULL", "NULL", &good);
    insert(3, "''", "NULL", "NULL", &good);
    insert(4, "UNHEX('2F61002F')", "NULL", "NULL", &good);
    insert(5, "'/a'", "'2020-01-01'", "NULL", &good);
    insert(6, "'/a'", "NULL", "'abc'", &good);
    insert(7, "'/a'", "NULL", "NULL", "'short'");
    insert(8, "'/a'", "NULL", "NULL", "NULL");
    insert(9, "UNHEX('2FFF')", "NULL", "'5'", &good);
    let catalog = table.open().await;
    let mut rows = all(&catalog).await;
    let last = ready(vec![rows.pop().unwrap()]).remove(0);
    assert_eq!(last.source.as_os_str().as_encoded_bytes(), [b'/', 0xff], "a binary path is its bytes");
    let naming = Naming::Action {
        timestamp: Some(TIME),
        pub_id: Some("12".to_owned()),
        action: None,
        action_timestamp: Some(5),
        plot: true,
    };
    assert_eq!((last.naming, last.attempts), (naming, 1));
    let columns = ["action_timestamp", "path", "path", "path", "action", "action_timestamp", "md5sum", "md5sum"];
    assert_eq!(rows.len(), columns.len());
    for (row, column) in rows.iter().zip(columns) {
        assert!(why(row).contains(&format!("Column {column} ")), "{row:?}");
        assert_eq!(catalog.record(&[failed(row.id().0, 1)]).await.unwrap(), 1);
    }
    catalog.close().await;
}

#[tokio::test]
async fn a_path_that_the_column_refuses_fails_alone() {
    // A server of its own, since its settings change; it ends with this process.
    let Some(server) = MariaDb::start() else { return };
    let server = Box::leak(Box::new(server));
    let table = Table { server, name: "refused_paths", url: server.database("refused_paths") };
    table.execute(
        &include_str!("v1.sql").replace("version VARCHAR(64) );", "version VARCHAR(64) ) CHARACTER SET latin1;"),
    );
    let first =
        table.insert(&[NewRow::new("/data/Gr\u{fc}\u{df}e"), NewRow::new("/b"), NewRow::new("/c"), NewRow::new("/d")]);
    // As on servers that would cut a value silently.
    table.execute("SET GLOBAL sql_mode=''");
    let catalog = table.open().await;
    let rows = ready(all(&catalog).await);
    assert_eq!(rows[0].source.to_str(), Some("/data/Gr\u{fc}\u{df}e"));
    let long = "x".repeat(261);
    let batch = [
        copied(first, "/x/Gr\u{fc}\u{df}e"),
        copied(first + 1, "/\u{65e5}\u{672c}"),
        copied(first + 2, &long),
        copied(first + 3, &long[1..]),
    ];
    assert_eq!(catalog.record(&batch).await.unwrap(), 4);
    assert_eq!(
        table.execute("SELECT CONVERT(path USING utf8mb4), copied, failed_copy_attempts FROM pysmurf_files_v1"),
        format!("/x/Gr\u{fc}\u{df}e\t1\t0\n/b\t0\t1\n/c\t0\t1\n{}\t1\t0\n", &long[1..])
    );
    catalog.close().await;
}

#[tokio::test]
async fn a_path_that_another_row_has_fails_alone() {
    let Some(table) = bare("unique_paths") else { return };
    table.execute(&format!(
        "CREATE TABLE pysmurf_files ({})",
        OLD.replace("path VARCHAR(260)", "path VARCHAR(260) UNIQUE")
    ));
    table.execute(&format!(
        "INSERT INTO pysmurf_files (path, type, instance_id, copied, failed_copy_attempts, md5sum) VALUES \
         ('/taken', '', '{TARGET}', 1, 0, x'{HEX}'), ('/b', '', '{TARGET}', 0, 0, x'{HEX}'), ('/c', '', '{TARGET}', 0, 0, x'{HEX}')"
    ));
    let catalog = table.open().await;
    assert_eq!(catalog.record(&[copied(2, "/taken"), copied(3, "/free")]).await.unwrap(), 2);
    let rows = table.execute("SELECT path, copied, failed_copy_attempts FROM pysmurf_files ORDER BY id");
    assert_eq!(rows, "/taken\t1\t0\n/b\t0\t1\n/free\t1\t0\n");
    catalog.close().await;
}

#[tokio::test]
async fn a_killed_connection_is_replaced() {
    let Some(table) = Table::new("killed") else { return };
    let id = table.insert(&[NewRow::new("/a")]);
    let catalog = table.open().await;
    for attempts in 0..3 {
        assert_eq!(ids(&all(&catalog).await), [id]);
        let kill =
            table.execute("SELECT CONCAT('KILL ', id, ';') FROM information_schema.processlist WHERE user='killed'");
        assert!(kill.starts_with("KILL"), "a connection is kept");
        let hosts =
            table.execute("SELECT DISTINCT LEFT(host, 10) FROM information_schema.processlist WHERE user='killed'");
        assert_eq!(hosts, "127.0.0.1:\n", "by TCP, not by the socket that the server names");
        table.execute(&kill);
        assert_eq!(catalog.record(&[failed(id, attempts)]).await.unwrap(), 1);
    }
    catalog.close().await;
}

#[tokio::test]
async fn a_server_that_goes_away_is_unavailable() {
    let Some(server) = MariaDb::start() else { return };
    let url = server.database("gone");
    server.execute(&format!("USE gone; {}", include_str!("v1.sql")));
    let database = Database::choose(Some(&url), &|_| None).unwrap().unwrap();
    let catalog = catalog::open(&database, options()).await.unwrap();
    assert_eq!(all(&catalog).await, []);
    drop(server);
    for _ in 0..2 {
        let message = unavailable_message(catalog.pending(RecordId(0), 1).await);
        assert!(message.contains(&database.to_string()), "{message}");
        unavailable_message(catalog.record(&[failed(1, 0)]).await);
    }
    let message = unavailable_message(catalog::open(&database, options()).await);
    assert!(message.contains("refused"), "{message}");
    catalog.close().await;
}

#[tokio::test]
async fn a_row_locked_by_another_leaves_the_batch_unwritten() {
    let Some(table) = Table::new("locked_row") else { return };
    let first = table.insert(&[NewRow::new("/a"), NewRow::new("/b")]);
    let catalog = table.open().await;
    let other = Database::choose(Some(&table.url), &|_| None);
    let Ok(Some(Database::Mysql(other))) = other else { panic!("{other:?}") };
    let opts = mysql_async::OptsBuilder::default()
        .ip_or_hostname(other.addresses[0].host.as_str())
        .tcp_port(other.addresses[0].port)
        .user(Some(other.user))
        .pass(Some(crate::support::mariadb::PASSWORD))
        .db_name(Some(other.name))
        .prefer_socket(false);
    let mut conn = mysql_async::Conn::new(opts).await.unwrap();
    conn.query_drop(format!("BEGIN; UPDATE pysmurf_files_v1 SET site='x' WHERE id={}", first + 1)).await.unwrap();
    let message = unavailable_message(catalog.record(&[copied(first, "/x"), copied(first + 1, "/y")]).await);
    assert!(message.contains("1205"), "{message}");
    assert_eq!(table.read(first), seen("/a", false, 0), "all of them or none");
    // Freed while the recorder waits.
    let outcomes = [copied(first, "/x"), copied(first + 1, "/y")];
    let (changed, freed) = tokio::join!(catalog.record(&outcomes), conn.query_drop("COMMIT"));
    freed.unwrap();
    assert_eq!(changed.unwrap(), 2);
    conn.disconnect().await.unwrap();
    catalog.close().await;
}

#[tokio::test]
async fn a_mute_server_does_not_hold_us_for_ever() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mysql://u:hunter2@{}/files", listener.local_addr().unwrap());
    let database = Database::choose(Some(&url), &|_| None).unwrap().unwrap();
    let message = unavailable_message(catalog::open(&database, options()).await);
    assert!(message.contains("within 10 s") && !message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn refusals_name_the_remedy_and_never_the_password() {
    let Some(table) = Table::new("refusals") else { return };
    let port = table.server.port;
    let refusal = async |url: String| {
        let database = Database::choose(Some(&url), &|_| None).unwrap().unwrap();
        let message = setup_message(catalog::open(&database, options()).await);
        let again = setup_message(catalog::init_db(&database).await);
        for text in [&message, &again] {
            assert!(!text.contains("hunter2") && !text.contains(crate::support::mariadb::PASSWORD), "{text}");
        }
        message
    };
    let wrong = refusal(format!("mysql://refusals:hunter2@127.0.0.1:{port}/refusals")).await;
    assert!(wrong.contains("Access denied") && wrong.contains("MYSQL_PASSWORD"), "{wrong}");
    let denied = refusal(format!("{}/mysql", table.url.strip_suffix("/refusals").unwrap())).await;
    assert!(denied.contains("mysql") && denied.contains("MYSQL_DATABASE"), "{denied}");
    table.server.execute("GRANT ALL ON `refusals_absent`.* TO 'refusals'@'%'");
    let absent = refusal(format!("{}_absent", table.url)).await;
    assert!(absent.contains("Unknown database") && absent.contains("MYSQL_DATABASE"), "{absent}");

    // Reading alone is not enough; a right that comes with a role is.
    table.server.execute("REVOKE ALL ON refusals.* FROM 'refusals'@'%'; GRANT SELECT ON refusals.* TO 'refusals'@'%';");
    let message = setup_message(open_with(&table, options()).await);
    assert!(message.contains("may not write columns path") && message.contains("grant UPDATE"), "{message}");
    table.server.execute(
        "CREATE ROLE archiving; GRANT SELECT, UPDATE ON refusals.pysmurf_files_v1 TO archiving; \
         GRANT archiving TO 'refusals'@'%'; SET DEFAULT ROLE archiving FOR 'refusals'@'%';",
    );
    let catalog = open_with(&table, options()).await.unwrap();
    let id = table.insert(&[NewRow::new("/a")]);
    assert_eq!(catalog.record(&[copied(id, "/b")]).await.unwrap(), 1);
    catalog.close().await;
}

#[tokio::test]
async fn init_db_creates_once_and_hides_nothing() {
    let Some(table) = bare("init") else { return };
    let created = |tables: &[(&str, bool)]| {
        tables.iter().map(|(table, new)| Created { table: (*table).to_owned(), new: *new }).collect::<Vec<_>>()
    };
    for new in [true, false] {
        let all = created(&[("pysmurf_files_v1", new), ("archiver_note", new)]);
        assert_eq!(catalog::init_db(&table.database()).await.unwrap(), all);
    }
    let ours = table.execute("SHOW CREATE TABLE pysmurf_files_v1");
    table.execute(&format!("DROP TABLE pysmurf_files_v1; {}", include_str!("v1.sql")));
    assert_eq!(table.execute("SHOW CREATE TABLE pysmurf_files_v1"), ours);
    let id = table.insert(&[NewRow::new("/a")]);
    assert_eq!(ids(&all(&table.open().await).await), [id]);

    table.execute(&format!("DROP TABLE pysmurf_files_v1; CREATE TABLE pysmurf_files_v0 ({OLD})"));
    let found = created(&[("pysmurf_files_v0", false), ("archiver_note", false)]);
    assert_eq!(catalog::init_db(&table.database()).await.unwrap(), found);

    table.server.execute("REVOKE CREATE ON init.* FROM 'init'@'%'");
    // Without the right, what is there already still is in order.
    table.execute("DROP TABLE archiver_note");
    let found = created(&[("pysmurf_files_v0", false)]);
    assert_eq!(catalog::init_db(&table.database()).await.unwrap(), found);
    table.execute("DROP TABLE pysmurf_files_v0");
    let message = setup_message(catalog::init_db(&table.database()).await);
    assert!(message.contains("grant CREATE"), "{message}");
}

/// A certificate for 127.0.0.1, and the authority that signed it.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout";
    for step in [
        format!("req -x509 {key} ca.key -out ca.pem -subj /CN=authority -days 2"),
        format!("req -x509 {key} other.key -out other.pem -subj /CN=other -days 2"),
        format!("req {key} server.key -out server.csr -subj /CN=server -addext subjectAltName=IP:127.0.0.1"),
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -copy_extensions copy -out server.pem -days 2"
            .to_owned(),
    ] {
        let output = Command::new("openssl").args(step.split(' ')).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn a_secured_connection() {
    if !crate::support::tools::require("openssl") {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let options = |name: &str, value: &str| format!("--ssl-{name}={}", file(value));
    let Some(server) = MariaDb::start_with(&[options("cert", "server.pem"), options("key", "server.key")]) else {
        return;
    };
    let url = server.database("secured");
    server.execute(&format!("USE secured; {}; ALTER USER 'secured'@'%' REQUIRE SSL", include_str!("v1.sql")));
    let open = async |host: &str, parameters: &str| {
        let url = url.replace("127.0.0.1", host) + parameters;
        let database = Database::choose(Some(&url), &|_| None).unwrap().unwrap();
        catalog::open(&database, self::options()).await
    };
    let (ca, other) = (format!("ssl-ca={}", file("ca.pem")), format!("ssl-ca={}", file("other.pem")));
    let good = [
        ("127.0.0.1", "?ssl-mode=required".to_owned()),
        // To this very machine, and to whom it was said.
        ("127.0.0.1", String::new()),
        ("localhost", String::new()),
        ("0.0.0.0", "?ssl-mode=preferred".to_owned()),
        ("127.0.0.1", format!("?{ca}")),
        ("localhost", format!("?ssl-mode=required&{ca}")),
    ];
    for (host, parameters) in good {
        let catalog = open(host, &parameters).await.unwrap();
        assert_eq!(all(&catalog).await, [], "{parameters}");
        catalog.close().await;
    }
    let bad = [
        ("127.0.0.1", "?ssl-mode=disabled".to_owned(), "ssl-mode=required"),
        // Not known to be this machine, and its certificate from nobody we believe.
        ("0.0.0.0", String::new(), "not sent to a server that nobody has verified"),
        ("127.0.0.1", "?ssl-mode=verify-identity".to_owned(), "ssl-ca"),
        ("127.0.0.1", format!("?{other}"), "ssl-ca"),
        ("localhost", format!("?{ca}"), "ssl-ca"),
    ];
    for (host, parameters, remedy) in bad {
        let message = setup_message(open(host, &parameters).await);
        assert!(message.contains(remedy), "{parameters}: {message}");
    }
    let Some(plain) = Table::new("plain") else { return };
    let database = Database::choose(Some(&format!("{}?ssl-mode=required", plain.url)), &|_| None).unwrap().unwrap();
    let message = setup_message(catalog::open(&database, self::options()).await);
    assert!(message.contains("ssl-mode=disabled"), "{message}");
}

/// A server that offers no TLS and wants the password itself; gives all that it was sent.
fn curious_server() -> (u16, std::thread::JoinHandle<Vec<u8>>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&super::false_server::greeting("caching_sha2_password")).unwrap();
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent);
        sent
    });
    (port, serving)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_password_goes_to_a_server_that_nobody_has_verified() {
    for parameters in ["", "?ssl-mode=verify-identity", "?ssl-mode=required"] {
        let (port, serving) = curious_server();
        let url = format!("mysql://u:hunter2@0.0.0.0:{port}/files{parameters}");
        let database = Database::choose(Some(&url), &|_| None).unwrap().unwrap();
        let message = setup_message(catalog::open(&database, options()).await);
        assert!(message.contains("ssl-mode=disabled") && !message.contains("hunter2"), "{message}");
        assert_eq!(serving.join().unwrap(), b"", "{parameters}: not even the account's name");
    }
}

#[tokio::test]
async fn check_says_how_the_connection_is_secured() {
    let Some(table) = Table::new("told") else { return };
    let product = catalog::reach(&table.database()).await.unwrap();
    assert!(product.starts_with("MariaDB ") && product.ends_with(", not encrypted"), "{product}");
}

#[tokio::test]
async fn ids_may_grow_in_steps() {
    let Some(server) = MariaDb::start_with(&["--auto-increment-increment=3".to_owned()]) else { return };
    let url = server.database("steps");
    server.execute(&format!("USE steps; {}", include_str!("v1.sql")));
    let database = Database::choose(Some(&url), &|_| None).unwrap().unwrap();
    let catalog = catalog::open(&database, options()).await.unwrap();
    assert_eq!(catalog.id_step(), 3);
    catalog.close().await;
}

/// What [`super::sqlite`] asks of its kind, as far as it is asked of this one: nothing is deleted beside these tables.
#[tokio::test]
async fn duties_ask_a_long_table_for_what_is_new_whoever_writes_meanwhile() {
    let rows: i64 = std::env::var("ARCHIVER_LONG_TABLE").map_or(60_000, |rows| rows.parse().unwrap());
    let Some(table) = Table::new("long_table") else { return };
    table.execute(&format!(
        "INSERT INTO pysmurf_files_v1 (path, action, timestamp, action_timestamp, format, plot, site, pub_id, instance_id, copied, \
         failed_copy_attempts, md5sum) SELECT CONCAT('/archive/', 10000 + seq DIV 100000, '/', seq, '_tuning.npy'), 'take', \
         FROM_UNIXTIME(1000000000 + seq), 1000000000, 'npy', 0, 'observatory', 'crate1slot2', '{TARGET}', 1, 0, \
         UNHEX(MD5(seq)) FROM seq_1_to_{rows}"
    ));
    let catalog = table.open().await;
    for indexed in [false, true] {
        if indexed {
            catalog::make_indexes(&table.database()).await.unwrap();
        }
        let mut timed = Timed(Vec::new());
        let writers: Vec<_> = (0..10)
            .map(|writer| {
                let (server, name) = (table.server, table.name);
                let add = move |n| {
                    format!(
                        "INSERT INTO pysmurf_files_v1 (path, instance_id, copied, failed_copy_attempts, md5sum) VALUES \
                         ('/data/w{writer}/{n}', '{TARGET}', 0, 0, UNHEX('{HEX}'));"
                    )
                };
                let all: String = (0..100).map(add).collect();
                std::thread::spawn(move || server.execute(&format!("USE `{name}`; {all}")))
            })
            .collect();
        for _ in 0..20 {
            let began = Instant::now();
            let newest = catalog.newest().await.unwrap();
            timed.note("newest", began);
            let began = Instant::now();
            let waiting = ready(catalog.look(RecordId(newest.0 - 1000), 256).await.unwrap().rows);
            timed.note("poll", began);
            let path = |record: &Record| record.source.to_str().unwrap().to_owned();
            let outcome = |record: &Record| Outcome::Copied { path: path(record), md5: record.md5 };
            let settled: Vec<_> = waiting
                .iter()
                .take(20)
                .map(|record| Settled { id: record.id, attempts: 0, outcome: outcome(record), hold: Hold::default() })
                .collect();
            let began = Instant::now();
            assert_eq!(catalog.record(&settled).await.unwrap(), settled.len() as u64);
            timed.note("record of 20", began);
            let began = Instant::now();
            catalog.look(RecordId(rows / 2), 256).await.unwrap();
            timed.note("look at older rows", began);
        }
        for writer in writers {
            writer.join().unwrap();
        }
        for _ in 0..5 {
            let began = Instant::now();
            catalog.totals().await.unwrap();
            timed.note("count", began);
            let began = Instant::now();
            catalog.oldest().await.unwrap();
            timed.note("oldest", began);
        }
        timed
            .print(&format!("{rows} rows, {}, ten writers:", if indexed { "with indexes" } else { "without indexes" }));
        assert!(catalog.totals().await.unwrap().copied as i64 >= rows);
    }
    catalog.close().await;
}
