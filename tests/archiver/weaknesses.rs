//! Rows and files that stopped a SupRsync, or made it lie: here they stop nothing, and nobody is deceived.

use crate::existing::{ROADS, command};
use crate::support::archiver::{Place, Run};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::upkeep::{Sync, now};
use std::fs;

/// How a row stands: whether it is proven, when it was copied, and how often it failed.
fn row(sync: &Sync<'_>, id: i64) -> (bool, Option<f64>, i64) {
    let query = "SELECT remote_md5sum IS local_md5sum, copied, failed_copy_attempts FROM supersync_v0 WHERE id = ?";
    sync.database.query_row(query, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

/// Places of which a shell, rsync's own syntax, or whoever reads the words of `md5sum` makes something else.
const ODD: [&str; 9] = [
    "17950/plain",
    "17950/a b",
    "17950/back\\slash",
    "17950/new\nline",
    "17950/a;touch X;true",
    "17950/$(touch X)",
    "17950/*",
    "17950/host:path",
    "17950/-e touch X",
];

/// Places where nothing may come to stand.
const IMPOSSIBLE: [&str; 4] = ["/abs", "../up", "17950/../../out", "17950//double"];

#[test]
fn rows_that_stopped_suprsync_stop_no_other_and_none_counts_twice() {
    let (Some(sshd), true) = (Sshd::start("Subsystem sftp internal-sftp"), require("rsync")) else { return };
    for road in ROADS {
        let place = Place::make();
        let sync = Sync::new(&place);
        let files: Vec<_> = ODD
            .iter()
            .enumerate()
            .map(|(n, name)| {
                let source = place.source(format!("odd/{n} ;$(touch X)\n*"), 1000 + n as u64, n as u64);
                (*name, source.0.clone(), sync.add(&source, "smurf", name, true))
            })
            .collect();
        let mut bad: Vec<_> =
            IMPOSSIBLE.iter().map(|name| sync.add(&place.source("bad", 10, 1), "smurf", name, true)).collect();
        bad.push(sync.add(&(place.sources().join("absent"), [1; 16]), "smurf", "17950/absent", true));
        bad.push(sync.add(&(place.source("changed", 10, 1).0, [1; 16]), "smurf", "17950/changed", true));
        let mut run = command(&place, &sshd, road);
        run.args(["--once", "--db", &sync.address, "--archive-name", "smurf"]);
        let log = Run::to_end(run).expect(1).log;
        for (name, source, id) in &files {
            let (proven, copied, attempts) = row(&sync, *id);
            assert!(proven && copied.is_some() && attempts == 0, "{road} {name:?}: {log}");
            let copy =
                fs::read(place.archive().join(name)).unwrap_or_else(|error| panic!("{road} {name:?}: {error}: {log}"));
            assert_eq!(copy, fs::read(source).unwrap(), "{road} {name:?}");
        }
        for id in &bad {
            assert_eq!(row(&sync, *id), (false, None, 1), "{road} row {id}: {log}");
        }
        assert_eq!(place.tree().names().len(), ODD.len(), "{road}: {:?}", place.tree().names());
        for name in ["X", "up", "out", "archive/X", "sources/X"] {
            assert!(!place.path(name).exists(), "{road}: {name}");
        }
        assert!(!std::path::Path::new("/abs").exists());
    }
}

/// Where a file is, no folder can be: of two such rows that come together one is copied, the other fails, and neither is said to
/// be what it is not.
#[test]
fn of_two_places_of_which_one_is_a_folder_of_the_other_one_is_copied() {
    let (Some(sshd), true) = (Sshd::start("Subsystem sftp internal-sftp"), require("rsync")) else { return };
    for road in ROADS {
        let place = Place::make();
        let sync = Sync::new(&place);
        let rows = ["17950/plain", "17950/plain/below", "17950/other"]
            .map(|name| (name, sync.add(&place.source(name.replace('/', "_"), 10, 2), "smurf", name, true)));
        let mut run = command(&place, &sshd, road);
        run.args(["--once", "--db", &sync.address, "--archive-name", "smurf"]);
        let log = Run::to_end(run).expect(1).log;
        for (name, id) in rows {
            assert_eq!(row(&sync, id).0, place.archive().join(name).is_file(), "{road} {name}: {log}");
        }
        assert_eq!(rows.iter().filter(|(_, id)| row(&sync, *id).0).count(), 2, "{road}: {log}");
        assert!(row(&sync, rows[2].1).0, "{road}: {log}");
    }
}

/// SupRsync names all files of a batch on one command line, of which a shell takes 128 KiB.
#[test]
fn fifteen_hundred_rows_of_long_names_are_one_batch_like_any_other() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let sync = Sync::new(&place);
    let source = place.source("same", 10, 1);
    sync.database.execute_batch("BEGIN").unwrap();
    for n in 0..1500 {
        sync.add(&source, "smurf", &format!("17950/{}/{n}", "long".repeat(30)), true);
    }
    sync.database.execute_batch("COMMIT").unwrap();
    sync.run(Some(&sshd), &[], 0);
    let proven = "SELECT COUNT(*) FROM supersync_v0 WHERE remote_md5sum = local_md5sum";
    assert_eq!(sync.database.query_row(proven, [], |row| row.get::<_, i64>(0)).unwrap(), 1500);
}

/// Another archive's newer directory does not complete one, and its files and ignored ones do not hold one up.
#[test]
fn a_timecode_is_its_archives_own() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let today = (now() / 1e5) as i64;
    let old = today - 4;
    sync.add(&place.source("old", 10, 1), "smurf", &format!("{old}/a/old"), true);
    let ignored = sync.add(&(place.sources().join("absent"), [1; 16]), "smurf", &format!("{old}/a/ignored"), true);
    sync.database.execute("UPDATE supersync_v0 SET \"ignore\" = 1 WHERE id = ?", [ignored]).unwrap();
    sync.add(&place.source("open", 10, 2), "smurf", &format!("{today}/a/open"), true);
    sync.add(&(place.sources().join("absent"), [1; 16]), "timestreams", &format!("{old}/a/other"), true);
    let newer = "INSERT INTO timecode_dirs_v0 (timecode, archive_name, completed, synced, finalized) VALUES (?, 'timestreams', 0, 0, 0)";
    sync.database.execute(newer, [today + 1]).unwrap();
    let root = place.path("root");
    sync.run(None, &["--suprsync-file-root", root.to_str().unwrap()], 0);
    let announced: Vec<_> = place.tree().names().into_iter().filter(|name| name.ends_with("_finalized.yaml")).collect();
    assert!(announced.len() == 1 && announced[0].ends_with(&format!("_smurf_{old}_finalized.yaml")), "{announced:?}");
}
