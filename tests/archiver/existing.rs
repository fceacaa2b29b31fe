//! Files that are registered anew: whose copy is replaced, and whose stays.

use crate::support::archiver::{FarEnd, Place, Run, Tree, hex};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::tables::{Age, FOLDER, Row, TARGET, Table};
use crate::upkeep::Sync;
use std::fs;
use std::process::Command;

/// The ways on which a copy gets to its place.
pub(crate) const ROADS: [&str; 5] = ["here", "stock", "ours", "sftp", "pull"];

pub(crate) fn command(place: &Place, sshd: &Sshd, road: &str) -> Command {
    match road {
        "here" => place.run(),
        "stock" => place.run_to(sshd),
        "ours" => FarEnd { rsync_path: crate::support::archiver::PROGRAM.into(), ..place.behind(sshd) }.command(),
        "sftp" => FarEnd { rsync_path: "/nonexistent".into(), ..place.behind(sshd) }.command(),
        _ => place.from(sshd).command(),
    }
}

fn copies(place: &Place) -> Vec<(String, Vec<u8>)> {
    let tree = Tree::read(&place.archive());
    assert!(tree.temporary().is_empty(), "{tree:?}");
    tree.names().into_iter().map(|name| (name.clone(), fs::read(place.archive().join(name)).unwrap())).collect()
}

/// On every road: a file that is registered anew replaces its own earlier copy, and no other file's.
#[test]
fn a_file_registered_anew_replaces_its_own_copy_and_no_other() {
    let (Some(sshd), true) = (Sshd::start("Subsystem sftp internal-sftp"), require("rsync")) else { return };
    for road in ROADS {
        for indexed in [false, true] {
            let place = Place::make();
            let sync = Sync::new(&place);
            if indexed {
                let mut init = place.program();
                init.args(["init-db", "--indexes", "--db", &sync.address]);
                Run::to_end(init).expect(0);
            }
            let run = |more: &[&str]| {
                let mut command = command(&place, &sshd, road);
                command.args(["--once", "--db", &sync.address, "--archive-name", "smurf"]).args(more);
                Run::to_end(command).expect(0).log
            };
            sync.add(&place.source("file", 300_000, 1), "smurf", "17950/a/file", true);
            sync.add(&place.source("loose", 1000, 5), "smurf", "loose", true);
            run(&[]);
            // Mostly as it was, so that the old copy serves as a basis where one can.
            let path = place.sources().join("file");
            let mut bytes = fs::read(&path).unwrap();
            bytes[150_000..150_010].fill(7);
            fs::write(&path, &bytes).unwrap();
            sync.add(&(path.clone(), crate::support::archiver::md5_of(&path)), "smurf", "17950/a/file", true);
            sync.add(&place.source("loose", 1001, 6), "smurf", "loose", true);
            let log = run(&[]);
            let loose = fs::read(place.sources().join("loose")).unwrap();
            let expected = vec![("17950/a/file".to_owned(), bytes.clone()), ("loose".to_owned(), loose.clone())];
            assert!(copies(&place) == expected, "{road} {indexed}: {log}");
            assert!(log.contains("its earlier copy is replaced"), "{log}");
            // Nothing is wrong with what was replaced.
            if road == "here" {
                let mut verify = place.program();
                verify.args(["files", "verify"]).args(command(&place, &sshd, road).get_args().skip(1));
                verify.args(["--all", "--json", "--db", &sync.address, "--archive-name", "smurf"]);
                let told = Run::to_end(verify).expect(0).log;
                assert!(told.contains("\"right\":2,\"replaced\":2,\"different\":0"), "{told}");
            }
            // Another file that goes to the same place, and one of another archive.
            let other = place.source("other/file", 1000, 2);
            let row = sync.add(&other, "smurf", "17950/a/file", true);
            let log = run(&[]);
            let mut expected = expected;
            expected.insert(1, ("17950/a/file.1".to_owned(), fs::read(&other.0).unwrap()));
            assert!(copies(&place) == expected, "{road} {indexed}: {log}");
            let remote: String = sync
                .database
                .query_row("SELECT remote_path FROM supersync_v0 WHERE id = ?", [row], |row| row.get(0))
                .unwrap();
            assert_eq!(remote, "17950/a/file.1");
            // It is registered once more, and is to have a number this time.
            sync.add(&place.source("loose", 1002, 7), "smurf", "loose", true);
            run(&["--existing", "number"]);
            expected.push(("loose.1".to_owned(), fs::read(place.sources().join("loose")).unwrap()));
            assert!(copies(&place) == expected, "{road} {indexed}");
        }
    }
}

#[test]
fn only_an_earlier_copy_of_the_same_row_or_file_is_replaced() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let file = place.source("file", 1000, 1);
    let row = sync.add(&file, "smurf", "17950/file", true);
    sync.run(None, &[], 0);
    // The producer changes the row itself.
    let anew = place.source("file", 1000, 2);
    let set = format!("UPDATE supersync_v0 SET local_md5sum = '{}' WHERE id = {row}", hex(anew.1).to_lowercase());
    sync.database.execute(&set, []).unwrap();
    sync.run(None, &[], 0);
    assert_eq!(place.tree().names(), ["17950/file"]);
    assert!(fs::read(place.archive().join("17950/file")).unwrap() == fs::read(&anew.0).unwrap());
    // Bytes that nobody knows stay, whoever comes.
    fs::write(place.archive().join("17950/stranger"), "stranger").unwrap();
    sync.add(&place.source("stranger", 1000, 3), "smurf", "17950/stranger", true);
    // So does the copy of another archive's row.
    let elsewhere = place.source("elsewhere", 1000, 4);
    sync.add(&elsewhere, "timestreams", "17950/elsewhere", true);
    fs::copy(&elsewhere.0, place.archive().join("17950/elsewhere")).unwrap();
    sync.database
        .execute("UPDATE supersync_v0 SET remote_md5sum = local_md5sum WHERE archive_name = 'timestreams'", [])
        .unwrap();
    sync.add(&place.source("elsewhere", 1000, 5), "smurf", "17950/elsewhere", true);
    sync.run(None, &[], 0);
    assert_eq!(fs::read(place.archive().join("17950/stranger")).unwrap(), b"stranger");
    let names = ["17950/elsewhere", "17950/elsewhere.1", "17950/file", "17950/stranger", "17950/stranger.1"];
    assert_eq!(place.tree().names(), names);
    // An older row that comes late does not undo what a newer one brought.
    let late = place.source("late", 1000, 6);
    let older = sync.add(&late, "smurf", "17950/late", true);
    sync.database.execute("UPDATE supersync_v0 SET failed_copy_attempts = 5 WHERE id = ?", [older]).unwrap();
    let newer = place.source("late", 1000, 7);
    sync.add(&newer, "smurf", "17950/late", true);
    sync.run(None, &[], 0);
    place.source("late", 1000, 6);
    sync.database.execute("UPDATE supersync_v0 SET failed_copy_attempts = 0 WHERE id = ?", [older]).unwrap();
    sync.run(None, &[], 0);
    assert!(place.archive().join("17950/late.1").exists());
    assert_eq!(crate::support::archiver::md5_of(&place.archive().join("17950/late")), newer.1);
}

/// The old archiver gave numbers; by option an earlier copy of the same name, of the same action, is replaced.
#[test]
fn in_mysql_a_file_registered_anew_gets_a_number_unless_it_is_to_replace() {
    let Some(server) = MariaDb::shared() else { return };
    for (way, name) in [("number", "anew_number"), ("replace", "anew_replace"), ("indexed", "anew_indexed")] {
        let place = Place::make();
        let table = Table::new(server, name, Age::V1);
        let run = |more: &[&str]| {
            let mut command = place.run();
            command.args(["--once", "--db", &table.url, "--target", TARGET]).args(more);
            Run::to_end(command).expect(0);
        };
        if way == "indexed" {
            let mut init = place.program();
            init.args(["init-db", "--indexes", "--db", &table.url]);
            Run::to_end(init).expect(0);
        }
        table.insert(&[Row::new(place.source("file.npy", 1000, 1))]);
        run(&[]);
        let first = fs::read(place.archive().join(format!("{FOLDER}file.npy"))).unwrap();
        table.insert(&[Row::new(place.source("file.npy", 1000, 2))]);
        run(if way == "number" { &[] } else { &["--existing", "replace"] });
        let second = fs::read(place.sources().join("file.npy")).unwrap();
        let copies: Vec<_> = copies(&place).into_iter().map(|(_, bytes)| bytes).collect();
        assert!(copies == if way == "number" { vec![first, second] } else { vec![second] }, "{way}");
    }
}
