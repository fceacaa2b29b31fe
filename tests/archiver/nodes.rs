//! Several storage nodes for the rows of one target: each is filled by itself, and a row is done when enough have proven it.

use crate::files::Ended;
use crate::support::archiver::{Place, Run, hex, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, FOLDER, Row, TARGET, Table};
use rusqlite::{Connection, params};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "nodes/away.rs"]
mod away;
#[path = "nodes/listing.rs"]
mod listing;

const ARCHIVE: &str = "smurf";

/// Storage nodes with a server each, and a database whose rows go to them.
pub(crate) struct Site {
    pub(crate) place: Place,
    nodes: Vec<(&'static str, Sshd)>,
    /// Those that others feed, with these.
    relayed: Vec<(&'static str, &'static str)>,
    /// Else the rows are in a file of SQLite.
    pub(crate) table: Option<Table<'static>>,
}

impl Site {
    /// With nodes of these names; `None` where tools are missing. `common` stands above all in the configuration.
    fn make(names: &[&'static str], common: &str) -> Option<Self> {
        Self::with((names, &[]), common, None)
    }

    /// The same with a database of this name.
    fn on_mariadb(database: &str, names: &[&'static str], common: &str) -> Option<Self> {
        Self::with((names, &[]), common, Some(Table::new(MariaDb::shared()?, database, Age::V1)))
    }

    /// With nodes of which some are fed from others, by what SQLite has or in a database of MariaDB.
    pub(crate) fn relaying(
        names: (&[&'static str], &[(&'static str, &'static str)]),
        common: &str,
        database: Option<&str>,
    ) -> Option<Self> {
        let table = match database {
            Some(database) => Some(Table::new(MariaDb::shared()?, database, Age::V1)),
            None => None,
        };
        Self::with(names, common, table)
    }

    pub(crate) fn with(
        (names, relayed): (&[&'static str], &[(&'static str, &'static str)]),
        common: &str,
        table: Option<Table<'static>>,
    ) -> Option<Self> {
        if !require("rsync") {
            return None;
        }
        let nodes = names
            .iter()
            .map(|&name| Some((name, Sshd::start("Subsystem sftp internal-sftp")?)))
            .collect::<Option<Vec<_>>>()?;
        let site = Self { place: Place::make(), nodes, relayed: relayed.to_vec(), table };
        for (name, _) in &site.nodes {
            fs::create_dir(site.at(name)).unwrap();
        }
        site.configure(common);
        let mut init = site.place.program();
        init.args(["init-db", "--nodes", "--db", &site.url()]);
        Run::to_end(init).expect(0);
        site.run_sql("UPDATE fleet_setting SET value='200' WHERE name='heartbeat_ms'");
        Some(site)
    }

    pub(crate) fn url(&self) -> String {
        self.table.as_ref().map_or_else(|| "sqlite:files.db".to_owned(), |table| table.url.clone())
    }

    fn configure(&self, common: &str) {
        let rows = match &self.table {
            Some(_) => format!("target = '{TARGET}'"),
            None => format!("archive-name = '{ARCHIVE}'"),
        };
        let mut text = format!(
            "db = '{}'\n{rows}\npoll = 0.1\nmax-copy-attempts = 2\nssh-config = '/dev/null'\nlog-format = 'text'\n{common}\n",
            self.url()
        );
        for (name, sshd) in &self.nodes {
            text += &format!(
                "[[node]]\nname = '{name}'\nstorage-host = '{}@127.0.0.1:{}'\ndata-dir = '{}'\nssh-key = '{}'\nknown-hosts = '{}'\n",
                sshd.user(),
                sshd.port,
                self.at(name).display(),
                sshd.client_key().display(),
                sshd.known_hosts().display()
            );
            if let Some((_, from)) = self.relayed.iter().find(|(relayed, _)| relayed == name) {
                text += &format!("from = '{from}'\n");
            }
        }
        fs::write(self.place.path("config.toml"), text).unwrap();
    }

    /// The archive of a node.
    pub(crate) fn at(&self, node: &str) -> PathBuf {
        self.place.path(&format!("archive-{node}"))
    }

    /// Where its copies are.
    pub(crate) fn folder(&self, node: &str) -> PathBuf {
        self.at(node).join(if self.table.is_some() { FOLDER } else { "17950" })
    }

    pub(crate) fn sshd(&self, node: &str) -> &Sshd {
        &self.nodes.iter().find(|(name, _)| *name == node).unwrap().1
    }

    fn database(&self) -> Connection {
        let database = Connection::open(self.place.path("files.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database
    }

    /// Rows of the answer, values parted by tabs. FILES is the table of files with its PATH, and DONE says of a row
    /// that it is done.
    pub(crate) fn run_sql(&self, sql: &str) -> String {
        let (files, done, path) = match &self.table {
            Some(_) => ("pysmurf_files_v1", "copied=1", "pysmurf_files_v1.path"),
            None => ("supersync_v0", "remote_md5sum = local_md5sum", "local_path"),
        };
        let sql = sql.replace("FILES", files).replace("DONE", done).replace("PATH", path);
        if let Some(table) = &self.table {
            return table.execute(&sql);
        }
        let database = self.database();
        if !sql.starts_with("SELECT") {
            database.execute_batch(&sql).unwrap();
            return String::new();
        }
        let mut statement = database.prepare(&sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let words = (0..columns).map(|column| {
                Ok(match row.get_ref(column)? {
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    _ => "NULL".to_owned(),
                })
            });
            words.collect::<Result<Vec<_>, rusqlite::Error>>().map(|words| words.join("\t") + "\n")
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    pub(crate) fn count(&self, of: &str) -> usize {
        self.run_sql(&format!("SELECT COUNT(*) FROM {of}")).trim().parse().unwrap()
    }

    pub(crate) fn copied(&self) -> usize {
        self.count("FILES WHERE DONE")
    }

    pub(crate) fn proven(&self, node: &str) -> usize {
        self.count(&format!("fleet_proof WHERE node='{node}'"))
    }

    pub(crate) fn register(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let (path, md5) = self.place.source(format!("{number:05}.dat"), number * 37 % 5000 + 1, number);
            self.insert(&path, md5);
        }
    }

    pub(crate) fn insert(&self, path: &Path, md5: [u8; 16]) {
        if let Some(table) = &self.table {
            return table.insert(&[Row::new((path.to_owned(), md5))]);
        }
        let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                      failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, ?, strftime('%s', 'now'), 0, 1, 0)";
        let remote = format!("17950/{}", path.file_name().unwrap().to_str().unwrap());
        self.database()
            .execute(insert, params![path.to_str().unwrap(), hex(md5).to_lowercase(), ARCHIVE, remote])
            .unwrap();
    }

    /// A verb for the table.
    pub(crate) fn tell(&self, words: &[&str]) -> String {
        let mut command = self.place.program();
        let name = if self.table.is_some() { ["--target", TARGET] } else { ["--archive-name", ARCHIVE] };
        command.args(words).args(["--db", &self.url(), "--max-copy-attempts", "2"]).args(name);
        Run::to_end(command).expect(0).log
    }

    /// `files list` with these words, of rows that are given up after two failures.
    pub(crate) fn list(&self, words: &[&str]) -> Ended {
        self.list_given_up_after("2", words)
    }

    fn list_given_up_after(&self, failures: &str, words: &[&str]) -> Ended {
        let mut command = self.place.program();
        let name = if self.table.is_some() { ["--target", TARGET] } else { ["--archive-name", ARCHIVE] };
        command.args(["files", "list", "--db", &self.url(), "--max-copy-attempts", failures]).args(name).args(words);
        Ended::of(command)
    }

    /// How all stands by the tables alone.
    fn fleet(&self) -> Value {
        let mut status = self.place.program();
        let said = status.args(["status", "--fleet", "--json", "--config", "config.toml"]).output().unwrap();
        let told: Value = serde_json::from_slice(&said.stdout).unwrap();
        told["fleets"][0].clone()
    }

    pub(crate) fn start(&self, words: &[&str]) -> Run {
        let mut command = self.place.program();
        command.args(["run", "--config", "config.toml"]).args(words);
        Run::start(command)
    }

    /// Fails unless this node has whole copies of all that it has proven; how many there are.
    pub(crate) fn expect_whole(&self, node: &str) -> usize {
        let sum = if self.table.is_some() { "HEX(md5sum)" } else { "upper(local_md5sum)" };
        let path = "fleet_proof.path";
        let query = format!("SELECT {path}, {sum} FROM fleet_proof JOIN FILES ON id=row_id WHERE node='{node}'");
        let mut places = BTreeSet::new();
        for copy in self.run_sql(&query).lines() {
            let (path, md5) = copy.split_once('\t').unwrap();
            assert_eq!(hex(md5_of(&self.at(node).join(path))), md5, "{path} at {node}");
            assert!(places.insert(path.to_owned()), "{path} is the copy of two rows");
        }
        places.len()
    }
}

fn one_is_away(site: &Site) {
    const ROWS: usize = 60;
    site.sshd("b").kill();
    site.register(0..ROWS as u64);
    let run = site.start(&[]);
    wait_until("the node that is there has all", || site.proven("a") == ROWS);
    assert_eq!([site.copied(), site.proven("b"), site.count("FILES WHERE failed_copy_attempts > 0")], [0; 3]);
    let waits = |line: &Value| (line["node"].as_str().unwrap().to_owned(), line["files"].as_u64().unwrap());
    let backlog: Vec<_> = site.fleet()["backlog"].as_array().unwrap().iter().map(waits).collect();
    assert_eq!(backlog, [("a".to_owned(), 0), ("b".to_owned(), ROWS as u64)]);
    assert_eq!(site.place.sources().read_dir().unwrap().count(), ROWS);
    site.sshd("b").restart();
    wait_until("all rows are done", || site.copied() == ROWS);
    if site.table.is_none() {
        wait_until("local files go, and only now", || site.count("FILES WHERE removed > 0") == ROWS);
    }
    run.terminate().0.expect(0);
    for node in ["a", "b"] {
        assert_eq!(site.expect_whole(node), ROWS);
    }
    assert_eq!(
        [site.count("fleet_owed"), site.count("fleet_mover"), site.count("fleet_lane WHERE holder IS NOT NULL")],
        [0; 3]
    );
}

#[test]
fn a_row_is_done_when_all_storage_nodes_have_proven_it_and_one_that_is_away_holds_up_no_other() {
    let Some(site) = Site::make(&["a", "b"], "delete-local-after = 0") else { return };
    one_is_away(&site);
}

#[test]
fn the_same_holds_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_away", &["a", "b"], "") else { return };
    one_is_away(&site);
}

fn one_owes(site: &Site) {
    site.sshd("b").kill();
    site.register(0..20);
    let run = site.start(&[]);
    wait_until("one copy is enough", || site.copied() == 20);
    assert_eq!(site.count("fleet_owed WHERE node='b'"), 20);
    let owed: Vec<_> = site.fleet()["nodes"].as_array().unwrap().iter().map(|node| node["owed"].clone()).collect();
    assert_eq!(owed, [0, 20]);
    if site.table.is_none() {
        assert_eq!(site.count("FILES WHERE removed IS NOT NULL"), 0);
        // Until it is seen that the owed copies were made from the files here.
        site.run_sql("UPDATE FILES SET deletable=0");
    }
    site.sshd("b").restart();
    wait_until("the other one gets its own", || site.proven("b") == 20 && site.count("fleet_owed") == 0);
    if site.table.is_none() {
        assert_eq!(site.count("FILES WHERE removed IS NOT NULL"), 0);
        site.run_sql("UPDATE FILES SET deletable=1");
        wait_until("local files go", || site.count("FILES WHERE removed > 0") == 20);
    }
    run.terminate().0.expect(0);
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [20, 20]);
}

#[test]
fn what_one_storage_node_lacks_of_a_row_that_is_done_it_owes() {
    let Some(site) = Site::make(&["a", "b"], "copies = 1\ndelete-local-after = 0") else { return };
    one_owes(&site);
}

#[test]
fn what_one_storage_node_lacks_of_a_row_that_is_done_it_owes_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_owed", &["a", "b"], "copies = 1") else { return };
    one_owes(&site);
}

fn failures_count_where_they_belong(site: &Site) {
    site.insert(&site.place.sources().join("gone.dat"), [1; 16]);
    site.register(0..3);
    // What is no copy stands where one is to be.
    let in_the_way = site.folder("b").join("00001.dat");
    fs::create_dir_all(in_the_way.join("kept")).unwrap();
    let run = site.start(&[]);
    let row = |of: &str| site.count(&format!("FILES WHERE {of}"));
    wait_until("the missing one is given up", || row("PATH LIKE '%/gone.dat' AND failed_copy_attempts=2") == 1);
    wait_until("so is the refused one, by the node that refuses it", || {
        site.count("fleet_trouble WHERE node='b' AND of_source=0 AND of_node=2") == 1
    });
    wait_until("the rest is done", || site.copied() == 2 && site.proven("a") == 3);
    assert_eq!(row("PATH LIKE '%/00001.dat' AND failed_copy_attempts=0"), 1);
    fs::remove_dir_all(in_the_way).unwrap();
    let told = site.tell(&["retry", "--path", "*/00001.dat"]);
    assert!(told.contains("1 row will be tried again") && told.contains("/00001.dat, at storage node b: "), "{told}");
    wait_until("it is done, too", || site.copied() == 3);
    run.terminate().0.expect(0);
    assert_eq!([row("failed_copy_attempts > 2"), site.count("fleet_trouble WHERE of_node > 0")], [0, 0]);
}

#[test]
fn a_source_that_cannot_be_copied_counts_once_and_what_one_storage_node_refuses_counts_there_alone() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    failures_count_where_they_belong(&site);
}

#[test]
fn failures_count_where_they_belong_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_failed", &["a", "b"], "existing = 'replace'") else { return };
    failures_count_where_they_belong(&site);
}

#[test]
fn a_row_that_is_put_back_is_proven_by_all_storage_nodes_anew() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    site.register(0..6);
    let mut once = site.start(&["--once"]);
    once.wait(PATIENCE).expect(0);
    assert_eq!(site.copied(), 6);
    site.run_sql("UPDATE fleet_proof SET at=1; UPDATE supersync_v0 SET remote_md5sum=NULL WHERE id<=3");
    once = site.start(&["--once"]);
    once.wait(PATIENCE).expect(0);
    assert_eq!([site.copied(), site.count("fleet_proof WHERE at=1")], [6, 6]);
}

#[test]
fn shared_rows_go_to_one_storage_node_each() {
    let Some(site) = Site::make(&["a", "b", "c"], "share = true") else { return };
    shared(&site);
}

#[test]
fn shared_rows_go_to_one_storage_node_each_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_shared", &["a", "b", "c"], "share = true") else { return };
    shared(&site);
}

fn shared(site: &Site) {
    site.register(0..90);
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    assert_eq!([site.copied(), site.count("fleet_proof"), site.count("fleet_owed")], [90, 90, 0]);
    let each: Vec<usize> = ["a", "b", "c"].map(|node| site.expect_whole(node)).into();
    assert!(each.iter().all(|files| *files > 10), "{each:?}");
}

#[test]
fn two_movers_share_the_rows_at_each_storage_node() {
    let Some(site) = Site::make(&["a", "b"], "control = 'none'\nstate-dir = 'none'") else { return };
    two_movers(&site);
}

#[test]
fn two_movers_share_the_rows_at_each_storage_node_by_mariadb() {
    let common = "control = 'none'\nstate-dir = 'none'";
    let Some(site) = Site::on_mariadb("nodes_movers", &["a", "b"], common) else { return };
    two_movers(&site);
}

fn two_movers(site: &Site) {
    site.register(0..20);
    let movers = [site.start(&[]), site.start(&[])];
    wait_until("lanes are shared at each node", || {
        site.count(
            "(SELECT 1 FROM fleet_lane WHERE holder IS NOT NULL GROUP BY table_name, holder HAVING COUNT(*)=4) AS w",
        ) == 4
    });
    site.register(20..400);
    wait_until("all rows are done", || site.copied() == 400);
    let proving = "(SELECT 1 FROM fleet_proof WHERE row_id > 20 GROUP BY node, mover) AS w";
    assert_eq!(site.count(proving), 4, "each of both has proven some at each node");
    let [one, other] = movers;
    one.kill();
    site.register(400..440);
    wait_until("the other one goes on alone", || site.copied() == 440);
    other.terminate().0.expect(0);
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [440, 440]);
    assert_eq!(site.count("fleet_proof"), 880);
}

#[test]
fn a_table_without_room_for_storage_nodes_is_refused_and_so_is_a_mover_without_any() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    let mut other = site.place.program();
    other.args(["init-db", "--fleet", "--db", "sqlite:plain.db"]);
    Run::to_end(other).expect(0);
    let refused = site.start(&["--db", "sqlite:plain.db", "--once"]).wait(PATIENCE).expect(2);
    assert!(refused.log.contains("run `pysmurf-archiver init-db --nodes`"), "{}", refused.log);
    // The tables of a fleet that are there already are taken over.
    let mut taken = site.place.program();
    taken.args(["init-db", "--nodes", "--db", "sqlite:plain.db"]);
    Run::to_end(taken).expect(0);
    site.start(&["--db", "sqlite:plain.db", "--once"]).wait(PATIENCE).expect(0);
    let mut plain = site.place.run();
    plain.args(["--db", "sqlite:plain.db", "--archive-name", ARCHIVE, "--once", "--poll", "0.05"]);
    let refused = Run::to_end(plain).expect(1);
    assert!(refused.log.contains("go to the storage nodes a, b"), "{}", refused.log);
}

/// A node that loses all it had gets it from the files that are here still, and else from the other node.
fn one_is_wiped(site: &Site) {
    const ROWS: usize = 30;
    site.register(0..ROWS as u64);
    if site.table.is_none() {
        site.run_sql("UPDATE FILES SET deletable=0 WHERE id <= 10");
    }
    let run = site.start(&[]);
    wait_until("all rows are done", || site.copied() == ROWS);
    if site.table.is_none() {
        wait_until("most local files go", || site.count("FILES WHERE removed > 0") == ROWS - 10);
    }
    site.sshd("b").kill();
    fs::remove_dir_all(site.at("b")).unwrap();
    fs::create_dir(site.at("b")).unwrap();
    site.register(ROWS as u64..40);
    wait_until("the other one goes on", || site.proven("a") == 40);
    assert_eq!(site.copied(), ROWS);
    let told = site.tell(&["files", "owe", "--node", "b", "--all"]);
    assert!(told.contains("owed"), "{told}");
    assert_eq!([site.proven("b"), site.count("fleet_owed WHERE node='b'")], [0, ROWS]);
    let show = |id: &str| {
        let mut show = site.place.program();
        let name = if site.table.is_some() { ["--target", TARGET] } else { ["--archive-name", ARCHIVE] };
        show.args(["files", "show", "--id", id, "--db", &site.url()]).args(name);
        Run::to_end(show).log
    };
    assert!(show("1").contains("b: owes its copy"), "{}", show("1"));
    site.sshd("b").restart();
    wait_until("it has all again", || site.proven("b") == 40 && site.copied() == 40 && site.count("fleet_owed") == 0);
    assert!(show("1").lines().filter(|line| line.contains("proven on")).count() == 2, "{}", show("1"));
    wait_until("nothing is left of what passed through here", || {
        let left = |folder: PathBuf| folder.read_dir().map_or(0, Iterator::count);
        site.place.path("fill").read_dir().unwrap().map(|one| left(one.unwrap().path())).sum::<usize>() == 0
    });
    let (over, _) = run.terminate();
    // Rows of MySQL no longer say where their files were.
    let from_there = if site.table.is_none() { ROWS - 10 } else { ROWS };
    assert_eq!(over.expect(0).log.matches("to be sent on").count(), from_there);
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [40, 40]);
    assert_eq!(site.count("fleet_trouble"), 0);
}

#[test]
fn a_storage_node_that_was_wiped_is_filled_from_the_files_here_and_from_the_other_node() {
    let Some(site) = Site::make(&["a", "b"], "delete-local-after = 0\nfill-dir = 'fill'") else { return };
    one_is_wiped(&site);
}

#[test]
fn a_storage_node_that_was_wiped_is_filled_from_the_other_one_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_wiped", &["a", "b"], "fill-dir = 'fill'") else { return };
    one_is_wiped(&site);
}

#[test]
fn what_waits_at_a_storage_node_and_what_is_wrong_there_is_told_of_this_one() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    site.sshd("b").kill();
    site.register(0..5);
    let run = site.start(&[]);
    wait_until("the other one has all", || site.proven("a") == 5);
    let told = |words: &[&str], code: i32| {
        let mut command = site.place.program();
        command.args(words).args(["--config", "config.toml"]);
        Run::to_end(command).expect(code).log
    };
    let backlog = || {
        let status: serde_json::Value = serde_json::from_str(&told(&["status", "--json"], 1)).unwrap();
        let archives = status["archives"].as_array().unwrap().clone();
        let of = |archive: &serde_json::Value| {
            (archive["archive"].as_str().unwrap().to_owned(), archive["backlog"]["files"].as_u64())
        };
        let mut all: Vec<_> = archives.iter().map(of).collect();
        all.sort();
        all
    };
    let expected = [("smurf@a".to_owned(), Some(0)), ("smurf@b".to_owned(), Some(5))];
    wait_until("status tells it", || backlog() == expected);
    let checked = told(&["check"], 1);
    let (of_a, of_b) = checked.split_once("Target smurf@b:").unwrap();
    assert!(of_a.contains("Target smurf@a:") && !of_a.contains("FAIL") && of_b.contains("FAIL"), "{checked}");
    assert!(!told(&["check", "--node", "a"], 0).contains("smurf@b"));
    let paused = told(&["pause", "--archive-name", "smurf@b"], 0);
    assert!(paused.contains("smurf@b"), "{paused}");
    run.terminate().0.expect(0);
}

#[test]
fn copies_are_verified_at_each_storage_node_and_it_owes_those_that_are_bad() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    site.register(0..6);
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    let verify = |node: &str, words: &[&str], code: i32| {
        let mut command = site.place.program();
        command.args(["files", "verify", "--all", "--config", "config.toml", "--node", node]).args(words);
        Run::to_end(command).expect(code).log
    };
    fs::remove_file(site.folder("b").join("00001.dat")).unwrap();
    fs::write(site.folder("b").join("00002.dat"), "damaged").unwrap();
    assert!(verify("a", &[], 0).contains("6 copies are right"));
    let found = verify("b", &["--repair"], 1);
    assert!(found.contains("1 different; 1 missing; 2 rows will be copied again"), "{found}");
    assert_eq!(
        [site.copied(), site.proven("a"), site.proven("b"), site.count("fleet_owed WHERE node='b'")],
        [6, 6, 4, 2]
    );
    assert!(verify("b", &[], 0).contains("4 copies are right"));
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    assert!(verify("b", &[], 0).contains("6 copies are right"));
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [6, 6]);
    let mut unclear = site.place.program();
    unclear.args(["files", "verify", "--all", "--config", "config.toml"]);
    let refused = Run::to_end(unclear).expect(2);
    assert!(refused.log.contains("choose it with --node NAME: a, b"), "{}", refused.log);
}

fn a_source_is_gone(site: &Site) {
    site.register(0..4);
    site.sshd("b").kill();
    let run = site.start(&[]);
    wait_until("one copy is enough", || site.copied() == 4 && site.count("fleet_owed") == 4);
    fs::rename(site.place.sources().join("00001.dat"), site.place.path("elsewhere")).unwrap();
    site.sshd("b").restart();
    wait_until("what is gone is known to be", || {
        site.proven("b") == 3 && site.count("fleet_owed WHERE lacking=1") == 1
    });
    assert_eq!([site.count("FILES WHERE failed_copy_attempts > 0"), site.count("fleet_trouble")], [0, 0]);
    fs::rename(site.place.path("elsewhere"), site.place.sources().join("00001.dat")).unwrap();
    site.tell(&["retry", "--path", "*00001.dat"]);
    wait_until("it is looked for again", || site.proven("b") == 4 && site.count("fleet_owed") == 0);
    run.terminate().0.expect(0);
    assert_eq!(site.expect_whole("b"), 4);
}

#[test]
fn an_owed_copy_whose_file_is_gone_is_no_failure_and_waits_for_it_or_for_another_storage_node() {
    let Some(site) = Site::make(&["a", "b"], "copies = 1") else { return };
    a_source_is_gone(&site);
}

#[test]
fn an_owed_copy_whose_file_is_gone_is_no_failure_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_gone", &["a", "b"], "copies = 1") else { return };
    a_source_is_gone(&site);
}

#[test]
fn two_storage_nodes_that_are_one_place_are_refused() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    let text = fs::read_to_string(site.place.path("config.toml")).unwrap();
    let (port, dir) = (format!(":{}", site.sshd("b").port), site.at("b"));
    let text = text.replace(&port, &format!(":{}", site.sshd("a").port));
    fs::write(site.place.path("config.toml"), text.replace(dir.to_str().unwrap(), site.at("a").to_str().unwrap()))
        .unwrap();
    let refused = site.start(&["--once"]).wait(PATIENCE).expect(2);
    assert!(refused.log.contains("are one place"), "{}", refused.log);
}
