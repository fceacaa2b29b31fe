//! Several storage nodes for the rows of one target: each is filled by itself, and a row is done when enough have proven it.

use crate::support::archiver::{Place, Run, hex, md5_of};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

const ARCHIVE: &str = "smurf";

/// Storage nodes with a server each, and a database whose rows go to them.
struct Site {
    place: Place,
    nodes: Vec<(&'static str, Sshd)>,
}

impl Site {
    /// With nodes of these names; `None` where tools are missing. `common` stands above all in the configuration.
    fn make(names: &[&'static str], common: &str) -> Option<Self> {
        if !require("rsync") {
            return None;
        }
        let nodes = names.iter().map(|&name| Some((name, Sshd::start("")?))).collect::<Option<Vec<_>>>()?;
        let site = Self { place: Place::make(), nodes };
        for (name, _) in &site.nodes {
            fs::create_dir(site.at(name)).unwrap();
        }
        site.configure(common);
        let mut init = site.place.program();
        init.args(["init-db", "--nodes", "--db", "sqlite:files.db"]);
        Run::to_end(init).expect(0);
        site.run_sql("UPDATE fleet_setting SET value='200' WHERE name='heartbeat_ms'");
        Some(site)
    }

    fn configure(&self, common: &str) {
        let mut text = format!(
            "db = 'sqlite:files.db'\narchive-name = '{ARCHIVE}'\npoll = 0.1\nmax-copy-attempts = 2\nssh-config = '/dev/null'\n\
             log-format = 'text'\n{common}\n"
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
        }
        fs::write(self.place.path("config.toml"), text).unwrap();
    }

    /// The archive of a node.
    fn at(&self, node: &str) -> PathBuf {
        self.place.path(&format!("archive-{node}"))
    }

    fn sshd(&self, node: &str) -> &Sshd {
        &self.nodes.iter().find(|(name, _)| *name == node).unwrap().1
    }

    fn database(&self) -> Connection {
        let database = Connection::open(self.place.path("files.db")).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database
    }

    fn run_sql(&self, sql: &str) {
        self.database().execute_batch(sql).unwrap();
    }

    fn count(&self, of: &str) -> usize {
        let query = format!("SELECT COUNT(*) FROM {of}");
        self.database().query_row(&query, [], |row| row.get::<_, i64>(0)).unwrap() as usize
    }

    fn copied(&self) -> usize {
        self.count("supersync_v0 WHERE remote_md5sum = local_md5sum")
    }

    fn proven(&self, node: &str) -> usize {
        self.count(&format!("fleet_proof WHERE node='{node}'"))
    }

    fn register(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let (path, md5) = self.place.source(format!("{number:05}.dat"), number * 37 % 5000 + 1, number);
            self.insert(&path, md5);
        }
    }

    fn insert(&self, path: &std::path::Path, md5: [u8; 16]) {
        let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                      failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, ?, strftime('%s', 'now'), 0, 1, 0)";
        let remote = format!("17950/{}", path.file_name().unwrap().to_str().unwrap());
        self.database()
            .execute(insert, params![path.to_str().unwrap(), hex(md5).to_lowercase(), ARCHIVE, remote])
            .unwrap();
    }

    fn start(&self, words: &[&str]) -> Run {
        let mut command = self.place.program();
        command.args(["run", "--config", "config.toml"]).args(words);
        Run::start(command)
    }

    /// Fails unless this node has whole copies of all these rows.
    fn expect_whole(&self, node: &str, of: &str) -> BTreeSet<String> {
        let database = self.database();
        let query = format!(
            "SELECT path, upper(local_md5sum) FROM fleet_proof JOIN supersync_v0 ON id=row_id WHERE node='{node}' AND {of}"
        );
        let mut query = database.prepare(&query).unwrap();
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
        let mut places = BTreeSet::new();
        for (path, md5) in rows.map(Result::unwrap) {
            assert_eq!(hex(md5_of(&self.at(node).join(&path))), md5, "{path} at {node}");
            assert!(places.insert(path.clone()), "{path} is the copy of two rows");
        }
        places
    }
}

#[test]
fn a_row_is_done_when_all_storage_nodes_have_proven_it_and_one_that_is_away_holds_up_no_other() {
    let Some(site) = Site::make(&["a", "b"], "delete-local-after = 0") else { return };
    const ROWS: usize = 60;
    site.sshd("b").kill();
    site.register(0..ROWS as u64);
    let run = site.start(&[]);
    wait_until("the node that is there has all", || site.proven("a") == ROWS);
    assert_eq!([site.copied(), site.proven("b")], [0, 0]);
    assert_eq!(site.count("supersync_v0 WHERE failed_copy_attempts > 0 OR removed IS NOT NULL"), 0);
    site.sshd("b").restart();
    wait_until("all rows are done", || site.copied() == ROWS);
    wait_until("local files go, and only now", || site.count("supersync_v0 WHERE removed > 0") == ROWS);
    run.terminate().0.expect(0);
    for node in ["a", "b"] {
        assert_eq!(site.expect_whole(node, "1").len(), ROWS);
    }
    assert_eq!(site.count("fleet_owed"), 0);
    assert_eq!([site.count("fleet_mover"), site.count("fleet_lane WHERE holder IS NOT NULL")], [0, 0]);
}

#[test]
fn what_one_storage_node_lacks_of_a_row_that_is_done_it_owes() {
    let Some(site) = Site::make(&["a", "b"], "copies = 1\ndelete-local-after = 0") else { return };
    site.sshd("b").kill();
    site.register(0..20);
    let run = site.start(&[]);
    wait_until("one copy is enough", || site.copied() == 20);
    assert_eq!(site.count("fleet_owed WHERE node='b'"), 20);
    // A round of deletion looks at rows that are done: new ones here are those by which it is seen to have gone by.
    site.run_sql("UPDATE supersync_v0 SET deletable=0");
    site.sshd("b").restart();
    wait_until("the other one gets its own", || site.proven("b") == 20 && site.count("fleet_owed") == 0);
    assert_eq!(site.count("supersync_v0 WHERE removed IS NOT NULL"), 0);
    site.run_sql("UPDATE supersync_v0 SET deletable=1");
    wait_until("local files go", || site.count("supersync_v0 WHERE removed > 0") == 20);
    run.terminate().0.expect(0);
    assert_eq!([site.expect_whole("a", "1").len(), site.expect_whole("b", "1").len()], [20, 20]);
}

#[test]
fn a_source_that_cannot_be_copied_counts_once_and_what_one_storage_node_refuses_counts_there_alone() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    site.insert(&site.place.sources().join("gone.dat"), [1; 16]);
    site.register(0..3);
    // What is no copy stands where one is to be.
    fs::create_dir_all(site.at("b").join("17950/00001.dat/kept")).unwrap();
    let run = site.start(&[]);
    let row = |of: &str| site.count(&format!("supersync_v0 WHERE {of}"));
    wait_until("the missing one is given up", || row("local_path LIKE '%/gone.dat' AND failed_copy_attempts=2") == 1);
    wait_until("so is the refused one, by the node that refuses it", || {
        site.count("fleet_trouble WHERE node='b' AND of_source=0 AND of_node=2") == 1
    });
    wait_until("the rest is done", || site.copied() == 2 && site.proven("a") == 3);
    assert_eq!(row("local_path LIKE '%/00001.dat' AND failed_copy_attempts=0 AND remote_md5sum IS NULL"), 1);
    fs::remove_dir_all(site.at("b").join("17950/00001.dat")).unwrap();
    let mut retry = site.place.program();
    retry.args([
        "retry",
        "--db",
        "sqlite:files.db",
        "--archive-name",
        ARCHIVE,
        "--max-copy-attempts",
        "2",
        "--path",
        "*/00001.dat",
    ]);
    let told = Run::to_end(retry).expect(0);
    assert!(told.log.contains("1 row will be tried again"), "{}", told.log);
    wait_until("it is done, too", || site.copied() == 3);
    run.terminate().0.expect(0);
    assert_eq!([row("failed_copy_attempts > 2"), site.count("fleet_trouble WHERE node='b' AND of_node > 0")], [0, 0]);
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
    site.register(0..90);
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    assert_eq!([site.copied(), site.count("fleet_proof"), site.count("fleet_owed")], [90, 90, 0]);
    let each: Vec<usize> = ["a", "b", "c"].map(|node| site.expect_whole(node, "1").len()).into();
    assert!(each.iter().all(|files| *files > 10), "{each:?}");
}

#[test]
fn two_movers_share_the_rows_at_each_storage_node() {
    let Some(site) = Site::make(&["a", "b"], "control = 'none'\nstate-dir = 'none'") else { return };
    site.register(0..20);
    let movers = [site.start(&[]), site.start(&[])];
    wait_until("lanes are shared at each node", || {
        site.count("(SELECT 1 FROM fleet_lane WHERE holder IS NOT NULL GROUP BY table_name, holder HAVING COUNT(*)=4)")
            == 4
    });
    site.register(20..400);
    wait_until("all rows are done", || site.copied() == 400);
    let proving = "(SELECT 1 FROM fleet_proof WHERE row_id > 20 GROUP BY node, mover)";
    assert_eq!(site.count(proving), 4, "each of both has proven some at each node");
    let [one, other] = movers;
    one.kill();
    site.register(400..440);
    wait_until("the other one goes on alone", || site.copied() == 440);
    other.terminate().0.expect(0);
    assert_eq!([site.expect_whole("a", "1").len(), site.expect_whole("b", "1").len()], [440, 440]);
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
