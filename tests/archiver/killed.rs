//! Killed at any moment and started again.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, Tree, is_temporary, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, FOLDER, Row, TARGET, Table, expect_all_proven, small_files};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

type Moment<'a> = &'a dyn Fn(&Run) -> bool;

const LARGE: u64 = 64 << 20;

/// Fails if anything stands under a final name that is not whole, or a row says more than is true.
fn expect_nothing_wrong(place: &Place, table: &Table<'_>, rows: &[Row]) {
    let sums: HashMap<_, _> = rows.iter().map(|row| ([FOLDER.as_bytes(), &row.name()].concat(), row.md5)).collect();
    let stands = table.rows();
    let tree = place.tree();
    for (name, _) in tree.files().filter(|(name, _)| !is_temporary(name)) {
        let shown = String::from_utf8_lossy(name);
        let sum = sums.get(name).unwrap_or_else(|| panic!("{shown} has no business there"));
        assert_eq!(md5_of(&place.archive().join(OsStr::from_bytes(name))), *sum, "{shown} is not whole");
    }
    for (stands, row) in stands.iter().zip(rows) {
        assert_eq!(stands.attempts, Some(0), "row {}", stands.id);
        let name = [FOLDER.as_bytes(), &row.name()].concat();
        match stands.copied {
            0 => assert_eq!(stands.path, row.path.as_os_str().as_bytes(), "row {}", stands.id),
            _ => assert!(tree.0.contains_key(&name), "row {} is copied, and {name:?} is not there", stands.id),
        }
    }
}

/// Whether this large file is on its way, with some megabytes done.
fn halfway(tree: &Tree, name: &str) -> bool {
    let (temporary, kept) = (format!("/.{name}."), format!("/{name}"));
    let ours = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        path.contains(&temporary) || path.ends_with(&kept)
    };
    tree.temporary().iter().any(|(path, stand)| ours(path) && stand.len > LARGE / 3)
}

fn killed_and_started_again(name: &str, place: &Place, sshd: Option<&Sshd>, far_end: impl Fn() -> Command) {
    let Some(server) = MariaDb::shared() else { return };
    let table = Table::new(server, name, Age::V1);
    let writes_here = !far_end().get_args().any(|arg| arg == "--storage-host");
    let mut rows = small_files(place, 0..150);
    let large: Vec<_> = (0..2).map(|n| Row::new(place.source(format!("large{n}"), LARGE, n))).collect();
    rows.extend(large);
    rows.extend(small_files(place, 150..300));
    table.insert(&rows);
    let start = || {
        let mut command = far_end();
        // In small portions, one after the other, so that there is something recorded to lose.
        command.args(["--once", "--db", &table.url, "--target", TARGET, "--queue", "64", "--workers", "1"]);
        Run::start(command)
    };
    let began = |_: &Run| sshd.is_none_or(|sshd| !sshd.sessions().is_empty());
    let some_recorded = |_: &Run| table.copied() > 10;
    let moments: [(&str, Moment<'_>); 5] = [
        ("a connection", &began),
        ("first file", &|_| place.tree().files().next().is_some()),
        ("some rows recorded", &some_recorded),
        ("a large file halfway", &|_| halfway(&place.tree(), "large0")),
        ("another large file halfway", &|_| halfway(&place.tree(), "large1")),
    ];
    let mut lasting = 0;
    for (what, moment) in moments {
        let run = start();
        wait_until(what, || moment(&run) || run.log().contains("Ended"));
        let over = run.kill();
        expect_nothing_wrong(place, &table, &rows);
        let copied = table.copied();
        eprintln!("{name}: killed at {what}: {copied} of {} rows copied", rows.len());
        assert!(!over.log.contains("Ended"), "{what} came too late: {}", over.log);
        assert!(copied >= lasting, "rows were lost");
        lasting = copied;
    }
    start().wait(PATIENCE).expect(0);
    // The far end's processes of the killed runs go when they notice, and take their unfinished files along.
    if let Some(sshd) = sshd {
        wait_until("the far end's processes are gone", || sshd.sessions().is_empty());
    }
    if writes_here {
        // The receiver was in the killed process itself.
        for (name, _) in place.tree().temporary() {
            std::fs::remove_file(place.archive().join(OsStr::from_bytes(name))).unwrap();
        }
    }
    expect_all_proven(place, &table, &rows);
}

#[test]
fn killed_and_started_again_with_stock_rsync() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    killed_and_started_again("killed_stock", &place, Some(&sshd), || place.run_to(&sshd));
}

#[test]
fn killed_and_started_again_with_our_own_far_end() {
    let Some(sshd) = Sshd::start("") else { return };
    let place = Place::make();
    let far_end = || FarEnd { rsync_path: PROGRAM.into(), ..place.behind(&sshd) }.command();
    killed_and_started_again("killed_ours", &place, Some(&sshd), far_end);
}

#[test]
fn killed_and_started_again_with_a_local_folder() {
    let place = Place::make();
    killed_and_started_again("killed_local", &place, None, || place.run());
}

#[test]
fn killed_and_started_again_while_pulling() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    killed_and_started_again("killed_pull", &place, Some(&sshd), || place.from(&sshd).command());
}
