//! Links that several archivers share: what may go over one at once, and who tries it when it is down.

use crate::fleet::{Queue, files};
use crate::support::archiver::{Place, Run};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Sets what a link may have.
fn limit(place: &Place, queue: &Queue<'_>, sshd: &Sshd, words: &[&str]) -> String {
    let mut init = place.program();
    init.args(["init-db", "--link-node", &format!("127.0.0.1:{}", sshd.port), "--db", &queue.url()]).args(words);
    Run::to_end(init).expect(0).log
}

/// Connections that the server has.
fn connections(sshd: &Sshd) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", sshd.port);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let ours = table.lines().map(words).filter(|words| words[1].ends_with(&port) && words[3] == "01");
    // While others come and go the kernel may tell of one twice.
    ours.map(|words| words[2].clone()).collect::<BTreeSet<_>>().len()
}

fn within_its_limits(place: &Place, sshd: &Sshd, queue: &Queue<'_>) {
    const FILES: u64 = 60;
    const LEN: u64 = 100_000;
    const RATE: u64 = 1_000_000;
    let told = limit(place, queue, sshd, &["--link-sessions", "2", "--link-bandwidth", "1000000b"]);
    assert!(told.contains("Link from main to 127.0.0.1:") && told.contains("limited"), "{told}");
    assert_eq!(queue.run("SELECT value FROM fleet_setting WHERE name='schema'").trim(), "3");
    // Nobody is to be taken for dead on a busy machine.
    queue.run("UPDATE fleet_setting SET value='100' WHERE name='patience'");
    let most = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                most.fetch_max(connections(sshd), Relaxed);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        let start = || {
            let mut run = place.run_to(sshd);
            run.args(["--workers", "4", "--control", "none", "--state-dir", "none", "-v"]);
            queue.mover(run)
        };
        let movers = [start(), start()];
        wait_until("both share the lanes", || queue.shares() == [4, 4]);
        wait_until("both share the link", || queue.count("fleet_share WHERE sessions=1") == 2);
        let began = Instant::now();
        queue.insert(&(0..FILES).map(|n| place.source(format!("{n:05}.dat"), LEN, n)).collect::<Vec<_>>());
        wait_until("all are copied", || queue.copied() == FILES as usize);
        let seconds = began.elapsed().as_secs_f64();
        let rate = (FILES * LEN) as f64 / seconds;
        eprintln!("{rate:.0} bytes a second of {RATE}, at most {} connections", most.load(Relaxed));
        assert!(rate <= RATE as f64 * 1.1, "{rate}");
        assert_eq!(queue.count("(SELECT 1 FROM fleet_proof GROUP BY mover) AS w"), 2, "both have worked");
        over.store(true, Relaxed);
        let logs: Vec<_> = movers.into_iter().map(|mover| mover.terminate().0.expect(0).log).collect();
        assert!((1..=2).contains(&most.load(Relaxed)), "{most:?}\n{}", logs.join("\n\n"));
    });
    // Who had no time for a goodbye has left both.
    assert_eq!(queue.count("fleet_share WHERE mover NOT IN (SELECT mover FROM fleet_mover)"), 0);
    queue.expect_each_once(place, 0);
    let told = limit(place, queue, sshd, &["--link-sessions", "0"]);
    assert!(told.contains("limited"), "{told}");
    assert_eq!(queue.count("fleet_link WHERE sessions IS NULL AND bandwidth=1000000"), 1);
}

#[test]
fn archivers_keep_to_the_limits_of_a_link_all_together_by_mariadb() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    within_its_limits(&place, &sshd, &Queue::on_mariadb(server, "links_limits", &place));
}

#[test]
fn archivers_keep_to_the_limits_of_a_link_all_together_by_sqlite() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    within_its_limits(&place, &sshd, &Queue::on_sqlite(&place));
}

/// Stands where a server was, and hangs up on everybody.
struct Dead {
    attempts: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    port: u16,
    standing: Option<std::thread::JoinHandle<()>>,
}

impl Dead {
    fn stand_at(port: u16) -> Self {
        let mut bound = None;
        wait_until("the port is free", || {
            bound = TcpListener::bind(("127.0.0.1", port)).ok();
            bound.is_some()
        });
        let (listener, attempts, over) = (bound.unwrap(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counted, ends) = (attempts.clone(), over.clone());
        let standing = std::thread::spawn(move || {
            for near in listener.incoming() {
                if ends.load(Relaxed) {
                    return;
                }
                drop(near);
                counted.fetch_add(1, Relaxed);
            }
        });
        Self { attempts, over, port, standing: Some(standing) }
    }

    fn leave(mut self) {
        self.over.store(true, Relaxed);
        let _ = std::net::TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
        self.standing.take().unwrap().join().unwrap();
    }
}

fn tried_by_one(place: &Place, sshd: &Sshd, queue: &Queue<'_>) {
    let start = || {
        let mut run = place.run_to(sshd);
        run.args(["--workers", "2", "--control", "none", "--state-dir", "none", "--connect-timeout", "5"]);
        queue.mover(run)
    };
    // Whose turn it is to try, for long.
    queue.run("UPDATE fleet_setting SET value='100' WHERE name='patience'");
    let mut movers = vec![start(), start(), start()];
    wait_until("all share the lanes", || queue.shares() == [2, 3, 3]);
    queue.insert(&files(place, 0..8));
    wait_until("some are copied", || queue.copied() == 8);
    sshd.kill();
    let dead = Dead::stand_at(sshd.port);
    queue.insert(&files(place, 8..120));
    let mark = || queue.run("SELECT down_by FROM fleet_link").trim().to_owned();
    let waiting = "fleet_share JOIN fleet_link ON down_by <> mover WHERE fleet_share.sessions=0";
    wait_until("one tries it, the others wait", || mark() != "NULL" && queue.count(waiting) == 2);
    let prober = mark();
    let joins = |line: &str| line.contains("Working with others") && line.contains(&prober);
    let is_prober = |mover: &Run| mover.log().lines().any(joins);
    // What the database makes us do once more is no try of the link.
    let is_try = |line: &&str| line.contains("link_trouble");
    let tries = |mover: &Run| mover.log().lines().filter(is_try).count();
    // In this order: what is tried meanwhile counts in both.
    let attempts = dead.attempts.load(Relaxed);
    let before: Vec<_> = movers.iter().map(tries).collect();
    let at = movers.iter().position(is_prober).unwrap();
    wait_until("it tries again and again", || tries(&movers[at]) >= before[at] + 3);
    assert!(dead.attempts.load(Relaxed) >= attempts + 3);
    assert_eq!(mark(), prober);
    for (other, mover) in movers.iter().enumerate().filter(|(other, _)| *other != at) {
        assert_eq!(tries(mover), before[other], "{}", mover.log());
        assert!(mover.log().contains("as mover"), "{}", mover.log());
    }
    // Whose row is gone is evicted; without waiting for that.
    movers.remove(at).kill();
    queue.run(&format!("DELETE FROM fleet_mover WHERE mover='{prober}'"));
    wait_until("another one tries", || mark() != prober && mark() != "NULL");
    let attempts = dead.attempts.load(Relaxed);
    wait_until("time and again", || dead.attempts.load(Relaxed) >= attempts + 2);
    assert_eq!(queue.count(&format!("{} WHERE failed_copy_attempts > 0", queue.files())), 0);
    dead.leave();
    sshd.restart();
    wait_until("all go on", || queue.copied() == 120);
    assert_eq!(mark(), "NULL");
    let proving = "(SELECT 1 FROM fleet_proof WHERE row_id > 8 GROUP BY mover) AS w";
    assert_eq!(queue.count(proving), 2, "both have worked");
    for mover in movers {
        mover.terminate().0.expect(0);
    }
    queue.expect_each_once(place, 0);
}

#[test]
fn a_link_that_is_down_is_tried_by_one_archiver_for_all_by_mariadb() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    tried_by_one(&place, &sshd, &Queue::on_mariadb(server, "links_down", &place));
}

#[test]
fn a_link_that_is_down_is_tried_by_one_archiver_for_all_by_sqlite() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    tried_by_one(&place, &sshd, &Queue::on_sqlite(&place));
}

/// One with what the log says of its links.
fn mover_of_links(place: &Place, sshd: &Sshd, queue: &Queue<'_>, url: &str) -> Run {
    let mut run = place.run_to(sshd);
    run.args(["--control", "none", "--state-dir", "none"]);
    queue.mover_by(run, url)
}

#[test]
fn who_may_not_use_the_tables_of_links_is_told_so_and_goes_on_without_a_share_until_he_may() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let queue = Queue::on_mariadb(server, "links_denied", &place);
    let tables = queue.run("SELECT table_name FROM information_schema.tables WHERE table_schema='links_denied'");
    let may = |table: &str| format!("GRANT INSERT, UPDATE, DELETE ON links_denied.{table} TO 'links_guest'@'%'; ");
    let others: String = tables.lines().filter(|name| !["fleet_link", "fleet_share"].contains(name)).map(may).collect();
    server.execute(&format!(
        "CREATE USER 'links_guest'@'%' IDENTIFIED BY 'p'; GRANT SELECT ON links_denied.* TO 'links_guest'@'%'; {others}"
    ));
    queue.insert(&files(&place, 0..8));
    let url = format!("mysql://links_guest:p@127.0.0.1:{}/links_denied", server.port);
    let mover = mover_of_links(&place, &sshd, &queue, &url);
    wait_until("it works without a share", || queue.copied() == 8);
    let log = mover.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("link_not_shared")).collect();
    let says = |line: &str| {
        line.contains("denied")
            && line.contains("grant SELECT, INSERT, UPDATE and DELETE on tables fleet_link and fleet_share")
    };
    assert!(told.len() == 1 && says(told[0]), "{log}");
    assert_eq!(queue.count("fleet_share"), 0);
    server.execute(&[may("fleet_link"), may("fleet_share")].concat());
    wait_until("it has its share", || queue.count("fleet_share") == 1);
    mover.terminate().0.expect(0);
    queue.expect_each_once(&place, 0);
}

/// `away` and `back`: what makes each turn fail that no right would help with, and what ends it.
fn nothing_goes_over_an_unknown_link(place: &Place, sshd: &Sshd, queue: &Queue<'_>, [away, back]: [&str; 2]) {
    queue.run(away);
    queue.insert(&files(place, 0..8));
    let mover = mover_of_links(place, sshd, queue, &queue.url());
    wait_until("that is told", || mover.log().contains("link_unknown"));
    assert!(mover.log().contains("Nothing goes over the link"), "{}", mover.log());
    assert!(!mover.log().contains("rant "), "{}", mover.log());
    assert_eq!([queue.copied(), connections(sshd)], [0, 0]);
    queue.run(back);
    wait_until("all are copied", || queue.copied() == 8);
    assert_eq!(queue.count("fleet_share"), 1);
    mover.terminate().0.expect(0);
    queue.expect_each_once(place, 0);
}

#[test]
fn nothing_goes_over_a_link_of_which_the_database_tells_no_share_by_mariadb() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let queue = Queue::on_mariadb(server, "links_unknown", &place);
    let away =
        "CREATE TRIGGER away BEFORE INSERT ON fleet_share FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='away'";
    nothing_goes_over_an_unknown_link(&place, &sshd, &queue, [away, "DROP TRIGGER away"]);
}

#[test]
fn nothing_goes_over_a_link_of_which_the_database_tells_no_share_by_sqlite() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let queue = Queue::on_sqlite(&place);
    let away = "CREATE TRIGGER away BEFORE INSERT ON fleet_share BEGIN SELECT RAISE(ABORT, 'away'); END";
    nothing_goes_over_an_unknown_link(&place, &sshd, &queue, [away, "DROP TRIGGER away"]);
}
