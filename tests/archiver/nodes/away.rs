//! A storage node of two that is away while rows come, for `ARCHIVER_AWAY` seconds (2), and comes back with an empty disk.

use super::Site;
use crate::support::wait::{wait_until, wait_within};
use std::fs;
use std::time::{Duration, Instant};

/// Rows that both have before.
const BEFORE: usize = 30;
/// Rows that come meanwhile, at least.
const MEANWHILE: usize = 20;
/// Between two of them.
const PACE: Duration = Duration::from_millis(100);
/// What they are caught up within: a node that was away for long is tried each minute.
const CATCHING_UP: Duration = Duration::from_secs(300);

fn away_and_wiped(site: &Site) {
    let seconds = std::env::var("ARCHIVER_AWAY").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let deletes = site.table.is_none();
    if deletes {
        // A local file that is said to be deleted while a node has no proven copy of it.
        site.run_sql(
            "CREATE TABLE early (row_id INTEGER NOT NULL); \
             CREATE TRIGGER w1 AFTER UPDATE ON supersync_v0 WHEN NEW.removed > 0 AND OLD.removed IS NULL \
             AND (SELECT COUNT(*) FROM fleet_proof WHERE row_id=NEW.id) < 2 BEGIN INSERT INTO early VALUES (NEW.id); END",
        );
    }
    site.register(0..BEFORE as u64);
    let run = site.start(&[]);
    wait_until("all rows are done", || site.copied() == BEFORE);
    if deletes {
        wait_until("local files go", || site.count("FILES WHERE removed > 0") == BEFORE);
    }
    let here = || site.place.sources().read_dir().unwrap().count();
    let kept_before = here();
    site.sshd("b").kill();
    let (began, mut rows) = (Instant::now(), BEFORE);
    while rows < BEFORE + MEANWHILE || began.elapsed().as_secs_f64() < seconds {
        site.register(rows as u64..rows as u64 + 1);
        rows += 1;
        if rows.is_multiple_of(10) {
            wait_until("the node that is there has it", || site.proven("a") == rows);
            assert_eq!([site.copied(), here() - kept_before], [BEFORE, rows - BEFORE], "{}", run.log());
        }
        std::thread::sleep(PACE);
    }
    wait_until("the node that is there has all", || site.proven("a") == rows);
    assert_eq!([site.copied(), site.proven("b"), here() - kept_before], [BEFORE, BEFORE, rows - BEFORE]);
    assert_eq!(site.count("FILES WHERE failed_copy_attempts > 0"), 0);
    fs::remove_dir_all(site.at("b")).unwrap();
    fs::create_dir(site.at("b")).unwrap();
    let told = site.tell(&["files", "owe", "--node", "b", "--all"]);
    assert!(told.contains("owed"), "{told}");
    let (away, back) = (began.elapsed(), Instant::now());
    site.sshd("b").restart();
    wait_within(CATCHING_UP, "both have all", || {
        site.proven("b") == rows && site.copied() == rows && site.count("fleet_owed") == 0
    });
    println!(
        "{rows} rows, {} of them while it was away for {away:.0?}: caught up after {:.1?}",
        rows - BEFORE,
        back.elapsed()
    );
    if deletes {
        wait_until("local files go, and only now", || site.count("FILES WHERE removed > 0") == rows && here() == 0);
        assert_eq!(site.run_sql("SELECT row_id FROM early"), "");
    }
    run.terminate().0.expect(0);
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [rows, rows]);
    assert_eq!([site.count("fleet_trouble"), site.count("FILES WHERE failed_copy_attempts > 0")], [0, 0]);
}

#[test]
fn a_storage_node_that_was_away_and_then_wiped_is_completed_and_nothing_is_deleted_early() {
    let Some(site) = Site::make(&["a", "b"], "delete-local-after = 0\nfill-dir = 'fill'") else { return };
    away_and_wiped(&site);
}

#[test]
fn a_storage_node_that_was_away_and_then_wiped_is_completed_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_long_away", &["a", "b"], "fill-dir = 'fill'") else { return };
    away_and_wiped(&site);
}
