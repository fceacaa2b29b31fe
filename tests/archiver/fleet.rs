//! Several archivers on one table: whatever becomes of them, each row is copied, proven and recorded once.

use crate::support::archiver::{Place, Run, hex, md5_of};
use crate::support::galera::Galera;
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, Row, TARGET, Table};
use rusqlite::{Connection, params, types::ValueRef};
use serde_json::Value;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A table of files with the tables of a fleet beside it.
pub(crate) enum Queue<'a> {
    Mysql(Table<'a>),
    Sqlite(PathBuf),
}

impl<'a> Queue<'a> {
    pub(crate) fn on_mariadb(server: &'a MariaDb, name: &str, place: &Place) -> Self {
        let queue = Self::Mysql(Table::new(server, name, Age::V1));
        queue.init(place);
        queue
    }

    pub(crate) fn on_sqlite(place: &Place) -> Self {
        let queue = Self::Sqlite(place.path("fleet.db"));
        queue.init(place);
        queue
    }

    /// A lease of a second, and witnesses of what is written: a proof by a mover that has no row is refused, each row that
    /// becomes a copied one is noted, and so is a proof that takes the place of another one.
    fn init(&self, place: &Place) {
        let mut init = place.program();
        init.args(["init-db", "--fleet", "--db", &self.url()]);
        Run::to_end(init).expect(0);
        self.run("UPDATE fleet_setting SET value='200' WHERE name='heartbeat_ms'");
        self.run("UPDATE fleet_setting SET value='5' WHERE name='patience'");
        self.run("CREATE TABLE witness (row_id INTEGER NOT NULL, what VARCHAR(10) NOT NULL)");
        match self {
            Self::Mysql(_) => {
                self.run(
                    "CREATE TRIGGER w1 BEFORE INSERT ON fleet_proof FOR EACH ROW \
                     IF NOT EXISTS (SELECT 1 FROM fleet_mover WHERE mover=NEW.mover) THEN \
                     SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='a proof by nobody'; END IF",
                );
                self.run(
                    "CREATE TRIGGER w2 AFTER UPDATE ON pysmurf_files_v1 FOR EACH ROW INSERT INTO witness \
                     SELECT NEW.id, 'copied' FROM DUAL WHERE OLD.copied=0 AND NEW.copied=1",
                );
                self.run(
                    "CREATE TRIGGER w3 AFTER UPDATE ON fleet_proof FOR EACH ROW INSERT INTO witness VALUES (NEW.row_id, 'renewed')",
                );
            }
            Self::Sqlite(_) => {
                self.run(
                    "CREATE TRIGGER w1 BEFORE INSERT ON fleet_proof WHEN NOT EXISTS (SELECT 1 FROM fleet_mover WHERE mover=NEW.mover) \
                     BEGIN SELECT RAISE(ABORT, 'a proof by nobody'); END",
                );
                self.run(
                    "CREATE TRIGGER w2 AFTER UPDATE ON supersync_v0 WHEN OLD.remote_md5sum IS NOT OLD.local_md5sum \
                     AND NEW.remote_md5sum = NEW.local_md5sum BEGIN INSERT INTO witness VALUES (NEW.id, 'copied'); END",
                );
                self.run(
                    "CREATE TRIGGER w3 BEFORE INSERT ON fleet_proof WHEN EXISTS (SELECT 1 FROM fleet_proof WHERE row_id=NEW.row_id) \
                     BEGIN INSERT INTO witness VALUES (NEW.row_id, 'renewed'); END",
                );
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Mysql(table) => table.url.clone(),
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
        }
    }

    pub(crate) fn files(&self) -> &'static str {
        match self {
            Self::Mysql(_) => "pysmurf_files_v1",
            Self::Sqlite(_) => "supersync_v0",
        }
    }

    pub(crate) fn is_copied(&self) -> &'static str {
        match self {
            Self::Mysql(_) => "copied=1",
            Self::Sqlite(_) => "remote_md5sum = local_md5sum",
        }
    }

    /// Rows of the answer, values parted by tabs.
    pub(crate) fn run(&self, sql: &str) -> String {
        match self {
            Self::Mysql(table) => table.execute(&format!("\nDELIMITER ;;\n{sql};;")),
            Self::Sqlite(file) => {
                let database = Connection::open(file).unwrap();
                database.busy_timeout(PATIENCE).unwrap();
                let mut statement = database.prepare(sql).unwrap();
                let columns = statement.column_count();
                let mut rows = statement.query([]).unwrap();
                let mut text = String::new();
                while let Some(row) = rows.next().unwrap() {
                    let words = (0..columns).map(|column| match row.get_ref(column).unwrap() {
                        ValueRef::Integer(number) => number.to_string(),
                        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        _ => "NULL".to_owned(),
                    });
                    text += &(words.collect::<Vec<_>>().join("\t") + "\n");
                }
                text
            }
        }
    }

    pub(crate) fn count(&self, of: &str) -> usize {
        self.run(&format!("SELECT COUNT(*) FROM {of}")).trim().parse().unwrap()
    }

    pub(crate) fn copied(&self) -> usize {
        self.count(&format!("{} WHERE {}", self.files(), self.is_copied()))
    }

    /// Registers files.
    pub(crate) fn insert(&self, files: &[(PathBuf, [u8; 16])]) {
        match self {
            Self::Mysql(table) => table.insert(&files.iter().cloned().map(Row::new).collect::<Vec<_>>()),
            Self::Sqlite(file) => {
                let mut database = Connection::open(file).unwrap();
                database.busy_timeout(PATIENCE).unwrap();
                let transaction = database.transaction().unwrap();
                for (path, md5) in files {
                    let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                                  failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, ?, strftime('%s', 'now'), 0, 1, 0)";
                    let remote = format!("17950/{}", path.file_name().unwrap().to_str().unwrap());
                    let values = params![path.to_str().unwrap(), hex(md5).to_lowercase(), TARGET, remote];
                    transaction.execute(insert, values).unwrap();
                }
                transaction.commit().unwrap();
            }
        }
    }

    /// The option that names whose rows are copied.
    pub(crate) fn chooses(&self) -> &'static str {
        match self {
            Self::Mysql(_) => "--target",
            Self::Sqlite(_) => "--archive-name",
        }
    }

    /// What a row has of its copy: the path, and the sum in capitals.
    pub(crate) fn copy_columns(&self) -> (&'static str, &'static str) {
        match self {
            Self::Mysql(_) => ("path", "HEX(md5sum)"),
            Self::Sqlite(_) => ("remote_path", "upper(local_md5sum)"),
        }
    }

    /// An archiver that takes part.
    pub(crate) fn mover(&self, command: Command) -> Run {
        self.mover_by(command, &self.url())
    }

    /// The same by way of another node.
    pub(crate) fn mover_by(&self, mut command: Command, url: &str) -> Run {
        command.args([
            "--db",
            url,
            self.chooses(),
            TARGET,
            "--poll",
            "0.1",
            "--queue",
            "24",
            "--max-copy-attempts",
            "2",
            "-v",
        ]);
        Run::start(command)
    }

    /// Waits until two have four lanes each, and says how it stands where they do not.
    fn wait_until_shared(&self, what: &str) {
        let began = Instant::now();
        while self.count("fleet_mover") != 2 || self.shares() != [4, 4] {
            let stand = || [self.run("SELECT * FROM fleet_mover"), self.run("SELECT * FROM fleet_lane")].concat();
            assert!(began.elapsed() < PATIENCE, "{what}: {}", stand());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How many lanes each of those has who have some.
    pub(crate) fn shares(&self) -> Vec<usize> {
        let shares = self.run("SELECT COUNT(*) FROM fleet_lane WHERE holder IS NOT NULL GROUP BY holder ORDER BY 1");
        shares.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Fails unless each row is copied, recorded and proven once, and its copy is whole, or else has failed as often as it may.
    pub(crate) fn expect_each_once(&self, place: &Place, hopeless: usize) {
        let rows = self.count(self.files());
        let (path, md5) = self.copy_columns();
        let copies = self.run(&format!("SELECT {path}, {md5} FROM {} WHERE {}", self.files(), self.is_copied()));
        let mut places = HashSet::new();
        for copy in copies.lines() {
            let (path, md5) = copy.split_once('\t').unwrap();
            assert_eq!(hex(md5_of(&place.archive().join(Path::new(path)))), md5, "{path}");
            assert!(places.insert(path.to_owned()), "{path} is the copy of two rows");
        }
        assert_eq!(places.len(), rows - hopeless);
        let witnessed = |what: &str| self.count(&format!("witness WHERE what='{what}'"));
        assert_eq!([witnessed("copied"), witnessed("renewed")], [rows - hopeless, 0]);
        assert_eq!(self.count("fleet_proof"), rows - hopeless);
        let failed = self.run(&format!("SELECT SUM(failed_copy_attempts) FROM {}", self.files()));
        assert_eq!(failed.trim().parse::<usize>().unwrap(), 2 * hopeless);
        assert_eq!(place.tree().files().count(), rows - hopeless, "{:?}", place.tree().names());
    }

    fn expect_nobody_left(&self) {
        assert_eq!([self.count("fleet_mover"), self.count("fleet_target"), self.shares().len()], [0; 3]);
    }
}

/// Files of which some want the same place with other bytes.
pub(crate) fn files(place: &Place, numbers: std::ops::Range<u64>) -> Vec<(PathBuf, [u8; 16])> {
    let file = |n: u64| match n % 4 {
        3 => place.source(format!("again/{:05}.dat", n - 1), 100 + n, n),
        _ => place.source(format!("{n:05}.dat"), n * 37 % 5000, n),
    };
    numbers.map(file).collect()
}

fn killed_again_and_again(place: &Place, sshd: &Sshd, queue: &Queue<'_>) {
    const ROWS: u64 = 600;
    const HOPELESS: u64 = 12;
    let all: Vec<_> = files(place, 0..ROWS).chunks(12).map(<[_]>::to_vec).collect();
    let start = || queue.mover(place.run_to(sshd));
    let mut movers: Vec<Run> = (0..3).map(|_| start()).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, some) in all.iter().enumerate() {
                let mut some = some.clone();
                if (number as u64) < HOPELESS {
                    some.push((place.sources().join(format!("gone{number}.dat")), [1; 16]));
                }
                queue.insert(&some);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for kill in 0..6 {
            let before = queue.copied();
            let done = || queue.copied() >= (before + 30).min(ROWS as usize);
            wait_until("some rows more are copied", done);
            movers.remove(0).kill();
            movers.push(start());
            eprintln!("kill {kill}: {} of {ROWS} copied, shares {:?}", queue.copied(), queue.shares());
        }
    });
    let given_up = format!("{} WHERE failed_copy_attempts=2", queue.files());
    wait_until("all rows are settled", || {
        queue.copied() == ROWS as usize && queue.count(&given_up) == HOPELESS as usize
    });
    wait_until("the dead are gone, and the living share", || {
        queue.count("fleet_mover") == 3 && queue.shares() == [2, 3, 3]
    });
    for mover in movers {
        let (over, _) = mover.terminate();
        over.expect(0);
    }
    queue.expect_each_once(place, HOPELESS as usize);
    queue.expect_nobody_left();
}

#[test]
fn movers_killed_again_and_again_copy_each_row_once_by_mariadb() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    killed_again_and_again(&place, &sshd, &Queue::on_mariadb(server, "fleet_killed", &place));
}

#[test]
fn movers_killed_again_and_again_copy_each_row_once_by_sqlite() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    killed_again_and_again(&place, &sshd, &Queue::on_sqlite(&place));
}

/// One that stood still for longer than its lease finds the others at its rows, and records nothing of what it had.
fn a_frozen_mover(place: &Place, sshd: &Sshd, queue: &Queue<'_>) {
    queue.insert(&files(place, 0..40));
    let mut slow = place.run_to(sshd);
    slow.args(["--bwlimit", "20"]);
    let frozen = queue.mover(slow);
    wait_until("it has recorded something", || queue.copied() > 0);
    let who = queue.run("SELECT mover FROM fleet_mover").trim().to_owned();
    frozen.signal("STOP");
    let before = queue.count(&format!("fleet_proof WHERE mover='{who}'"));
    let other = queue.mover(place.run_to(sshd));
    wait_until("the other one has done all", || queue.copied() == 40);
    assert!(other.log().contains(&format!("Mover {who} has not been heard of")), "{}", other.log());
    frozen.signal("CONT");
    wait_until("it joins anew, and the lanes are shared", || queue.shares() == [4, 4]);
    assert!(frozen.log().contains("event=evicted") || frozen.log().contains("Others took over"), "{}", frozen.log());
    frozen.terminate().0.expect(0);
    other.terminate().0.expect(0);
    assert_eq!(queue.count(&format!("fleet_proof WHERE mover='{who}'")), before);
    queue.expect_each_once(place, 0);
    queue.expect_nobody_left();
}

#[test]
fn a_mover_that_was_frozen_records_nothing_by_mariadb() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    a_frozen_mover(&place, &sshd, &Queue::on_mariadb(server, "fleet_frozen", &place));
}

#[test]
fn a_mover_that_was_frozen_records_nothing_by_sqlite() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    a_frozen_mover(&place, &sshd, &Queue::on_sqlite(&place));
}

/// All of it at one look, by the tables alone and by who works on them.
fn seen_as_one(place: &Place, queue: &Queue<'_>) {
    let look = || {
        let mut status = place.program();
        status.args(["status", "--fleet", "--json", "--max-copy-attempts", "2", "--db", &queue.url()]);
        let said = status.output().unwrap();
        let told: Value = serde_json::from_slice(&said.stdout).unwrap();
        (said.status.code(), told["fleets"][0].clone())
    };
    queue.run("UPDATE fleet_setting SET value='100' WHERE name='patience'");
    queue.insert(&files(place, 0..3));
    let (code, told) = look();
    assert_eq!(
        (code, &told["backlog"][0]["files"], &told["backlog"][0]["target"]),
        (Some(1), &3.into(), &TARGET.into())
    );
    let start = |name: &str| {
        let mut run = place.run();
        run.args(["--listen", "0", "--control", place.path(name).to_str().unwrap()]);
        queue.mover(run)
    };
    let [one, other] = ["one.sock", "other.sock"].map(start);
    wait_until("both share", || queue.shares() == [4, 4] && queue.copied() == 3);
    let (code, told) = look();
    let held =
        |of: &Value| of["lanes"].as_array().unwrap().iter().map(|held| held["lanes"].as_u64().unwrap()).sum::<u64>();
    let movers = |told: &Value| told["movers"].as_array().unwrap().clone();
    assert_eq!((code, movers(&told).iter().map(held).collect::<Vec<_>>()), (Some(0), vec![4, 4]), "{told}");
    assert!(movers(&told).iter().all(|mover| mover["silent"] == 0), "{told}");
    let port = one
        .log()
        .split_once("The status page is at http://127.0.0.1:")
        .unwrap()
        .1
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    other.kill();
    let (code, told) = look();
    let silent: Vec<_> = movers(&told).into_iter().filter(|mover| mover["silent"] == 2).collect();
    assert_eq!((code, silent.len(), held(&silent[0])), (Some(1), 1, 4), "{told}");
    // The one that lives says the same.
    let metrics = || {
        let mut asking = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
        asking.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        asking.read_to_string(&mut text).unwrap();
        text
    };
    let has = |line: &str| metrics().lines().any(|found| found == line.replace("ARCHIVE", TARGET));
    wait_until("it is silent there, too", || has(r#"archiver_fleet_silent_movers{archive="ARCHIVE"} 1.0"#));
    queue.run("DELETE FROM fleet_mover WHERE beat IN (SELECT b FROM (SELECT MIN(beat) AS b FROM fleet_mover) AS w)");
    queue.insert(&files(place, 3..6));
    wait_until("the living one has it all", || queue.shares() == [8] && queue.copied() == 6);
    for line in [
        r#"archiver_fleet_movers{archive="ARCHIVE"} 1.0"#,
        r#"archiver_fleet_lanes{archive="ARCHIVE",kind="ours"} 8"#,
        r#"archiver_fleet_lanes{archive="ARCHIVE",kind="free"} 0"#,
        r#"archiver_fleet_backlog_files{archive="ARCHIVE",target="ARCHIVE",node=""} 0"#,
    ] {
        wait_until(line, || has(line));
    }
    one.terminate().0.expect(0);
    queue.run("DROP TABLE fleet_lane");
    let mut status = place.program();
    status.args(["status", "--fleet", "--db", &queue.url()]);
    let said = Run::to_end(status).expect(2).log;
    assert!(said.contains("table fleet_lane is not there"), "{said}");
}

#[test]
fn a_fleet_is_seen_as_one_by_sqlite() {
    let place = Place::make();
    seen_as_one(&place, &Queue::on_sqlite(&place));
}

#[test]
fn a_fleet_is_seen_as_one_by_mariadb() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    seen_as_one(&place, &Queue::on_mariadb(server, "fleet_seen", &place));
}

#[test]
fn one_that_lost_its_lanes_with_a_full_queue_joins_anew() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let queue = Queue::on_sqlite(&place);
    queue.insert(&files(&place, 0..600));
    let mover = queue.mover(place.run_to(&sshd));
    for copied in [50, 250] {
        wait_until("it is at work", || queue.copied() > copied);
        queue.run("DELETE FROM fleet_mover");
    }
    wait_until("all are copied", || queue.copied() == 600);
    assert!(mover.log().contains("evicted"), "{}", mover.log());
    mover.terminate().0.expect(0);
    queue.expect_each_once(&place, 0);
    queue.expect_nobody_left();
}

#[test]
fn a_run_with_an_end_waits_for_the_rows_of_the_dead() {
    let place = Place::make();
    let queue = Queue::on_sqlite(&place);
    let killed = queue.mover(place.run());
    wait_until("it has all lanes", || queue.shares() == [8]);
    killed.kill();
    queue.insert(&files(&place, 0..20));
    let mut once = place.run();
    once.arg("--once");
    queue.mover(once).wait(PATIENCE).expect(0);
    queue.expect_each_once(&place, 0);
    queue.expect_nobody_left();
}

#[test]
fn a_directory_is_announced_once_by_all_movers_together() {
    let place = Place::make();
    let queue = Queue::on_sqlite(&place);
    queue.insert(&files(&place, 0..20));
    let start = || {
        let mut once = place.run();
        once.arg("--once").arg("--suprsync-file-root").arg(place.path("root"));
        queue.mover(once)
    };
    let movers = [start(), start()];
    for mover in movers {
        mover.wait(PATIENCE).expect(0);
    }
    let announced = "supersync_v0 WHERE remote_path LIKE '%/suprsync/%'";
    assert!(queue.count(announced) <= 1);
    // Whose duty it was may have ended while the other one still copied.
    start().wait(PATIENCE).expect(0);
    assert_eq!(queue.count(announced), 1);
    queue.expect_each_once(&place, 0);
    queue.expect_nobody_left();
}

#[test]
fn a_producer_is_not_held_up_by_an_open_transaction() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    let queue = Queue::on_mariadb(server, "fleet_producer", &place);
    // Each record stands still behind its updates, with all its locks.
    queue.run("CREATE TRIGGER slow BEFORE INSERT ON fleet_proof FOR EACH ROW SET NEW.path=CONCAT(NEW.path, LEFT(SLEEP(3), 0))");
    let Queue::Mysql(table) = &queue else { return };
    let some = files(&place, 0..4);
    queue.insert(&some[..1]);
    let mover = queue.mover(place.run());
    let sleeping = "information_schema.processlist WHERE db='fleet_producer' AND state='User sleep'";
    wait_until("a transaction stands", || queue.count(sleeping) > 0);
    for one in &some[1..] {
        let insertion = table.insertion(&[Row::new(one.clone())]);
        table.execute(&format!("SET innodb_lock_wait_timeout=1; {insertion}"));
    }
    assert!(queue.count(sleeping) > 0, "the transaction is over, which shows nothing");
    queue.run("DROP TRIGGER slow");
    wait_until("all are copied", || queue.copied() == 4);
    mover.terminate().0.expect(0);
    queue.expect_each_once(&place, 0);
}

#[test]
fn a_table_that_a_fleet_cannot_share_is_refused() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    let table = Table::new(server, "fleet_myisam", Age::V1);
    table.execute("ALTER TABLE pysmurf_files_v1 ENGINE=MyISAM");
    let mut init = place.program();
    init.args(["init-db", "--fleet", "--db", &table.url]);
    let over = Run::to_end(init).expect(2);
    assert!(over.log.contains("ALTER TABLE pysmurf_files_v1 ENGINE=InnoDB"), "{}", over.log);
    let fleet =
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema=DATABASE() AND table_name LIKE 'fleet%'";
    assert_eq!(table.execute(fleet).trim(), "0");
}

#[test]
fn movers_of_a_cluster_share_rows_by_any_node() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let Some(cluster) = Galera::start() else { return };
    let place = Place::make();
    let [first, second, third] = &cluster.nodes[..] else { panic!("not three nodes") };
    let queue = Queue::on_mariadb(first, "fleet_cluster", &place);
    // A cluster that loses a node stands still for about six seconds, as these nodes are set up.
    queue.run("UPDATE fleet_setting SET value='12' WHERE name='patience'");
    let at = |node: &MariaDb| queue.url().replace(&format!(":{}/", first.port), &format!(":{}/", node.port));
    let start = |node: &MariaDb| queue.mover_by(place.run_to(&sshd), &at(node));
    let (by_second, by_third) = (start(second), start(third));
    wait_until("both have lanes", || queue.shares() == [4, 4]);
    let all: Vec<_> = files(&place, 0..400).chunks(10).map(<[_]>::to_vec).collect();
    let insert = |some: &[Vec<(PathBuf, [u8; 16])>]| some.iter().for_each(|some| queue.insert(some));
    insert(&all[..20]);
    wait_until("some are copied", || queue.copied() > 20);
    by_second.kill();
    let by_second = start(second);
    insert(&all[20..30]);
    wait_until("more are copied", || queue.copied() > 100);
    third.crash(1.0);
    insert(&all[30..]);
    third.wait_until_up();
    wait_until("all are copied", || queue.copied() == 400);
    queue.wait_until_shared("both share again");
    by_third.terminate().0.expect(0);
    // One that knows several addresses does not wait for its node, which stays away.
    let several =
        at(third).replace(&format!(":{}/", third.port), &format!(":{},127.0.0.1:{}/", third.port, first.port));
    let by_either = queue.mover_by(place.run_to(&sshd), &several);
    queue.wait_until_shared("both share once more");
    cluster.signal(2, "STOP");
    insert(&files(&place, 400..440).chunks(10).map(<[_]>::to_vec).collect::<Vec<_>>());
    wait_until("all are copied while it is silent", || queue.copied() == 440);
    queue.wait_until_shared("both share while it is silent");
    let moved = format!("The database is asked by way of 127.0.0.1:{} now: ", first.port);
    assert!(by_either.log().contains(&moved), "{}", by_either.log());
    cluster.signal(2, "CONT");
    by_either.terminate().0.expect(0);
    wait_until("it is in step again", || third.execute("SHOW STATUS LIKE 'wsrep_ready'").contains("ON"));
    let by_either = queue.mover_by(place.run_to(&sshd), &several);
    queue.wait_until_shared("both share by it again");
    third.kill();
    insert(&files(&place, 440..480).chunks(10).map(<[_]>::to_vec).collect::<Vec<_>>());
    wait_until("all are copied without it", || queue.copied() == 480);
    assert!(!third.is_up());
    let check = |db: &str| {
        let mut check = place.run_to(&sshd);
        check.args(["--db", db, "--target", TARGET]);
        let arguments: Vec<_> = check.get_args().skip(1).map(|word| word.to_owned()).collect();
        let mut checked = place.program();
        checked.arg("check").args(arguments);
        Run::to_end(checked)
    };
    let said = check(&several).log;
    assert!(said.contains(&format!("by 1 of 2 addresses; 127.0.0.1:{}: ", third.port)), "{said}");
    // Nor does it take another server for one of them.
    if let Some(stranger) = MariaDb::shared() {
        let table = Table::new(stranger, "fleet_stranger", Age::V1);
        let two = table
            .url
            .replace(&format!(":{}/", stranger.port), &format!(":{},127.0.0.1:{}/", stranger.port, first.port));
        let said = check(&two).log;
        assert!(said.contains("is no node of a Galera cluster"), "{said}");
    }
    for mover in [by_second, by_either] {
        mover.terminate().0.expect(0);
    }
    queue.expect_each_once(&place, 0);
    queue.expect_nobody_left();
}
