//! `files retry`, `ignore`, `unignore`, `accept`, `recopy`.

use super::{Desk, lower_hex};
use crate::support::archiver::Run;
use crate::support::wait::wait_until;
use std::fs;

#[test]
fn an_ignored_row_is_left_alone_by_all_until_it_is_not_ignored_any_more() {
    for desk in Desk::both("ignore") {
        for number in 1..4 {
            desk.place.source(format!("{number}.dat"), 100, number);
        }
        desk.add_sources();
        let ended = desk.files(&["ignore", "--id", "2"]).expect(0);
        assert!(ended.out.contains("row 2, ") && ended.out.ends_with("1 row is ignored now\n"), "{}", ended.out);
        assert_eq!(desk.taken_by_the_old_agent(), [1, 3]);
        desk.run_here().expect(0);
        let ignored = desk.files(&["list", "--ignored", "--json"]).objects();
        assert_eq!((ignored.len(), &ignored[0]["id"]), (1, &2.into()));
        assert!(ignored[0]["reason"].as_str().unwrap().starts_with("ignored by "), "{}", ignored[0]);
        assert!(desk.files(&["show", "--id", "2"]).expect(1).out.contains("files unignore --id 2"));

        // Of rows that are not what is meant, those that were named are told.
        let ended = desk.files(&["ignore", "--id", "1", "2", "77"]).expect(1);
        assert!(ended.out.ends_with("0 rows are ignored now\n"), "{}", ended.out);
        for told in ["row 1, ", "row 2, ", "row 77: "] {
            assert!(ended.err.contains(told), "{}", ended.err);
        }
        assert!(desk.files(&["ignore", "--path", "*"]).expect(0).out.starts_with("0 rows"));
        // What is retried is not what is ignored.
        assert!(desk.files(&["retry", "--all"]).expect(0).out.starts_with("0 rows"));

        assert!(desk.files(&["unignore", "--all"]).expect(0).out.ends_with("1 row is pending now\n"));
        assert_eq!(desk.taken_by_the_old_agent(), [2]);
        desk.run_here().expect(0);
        assert_eq!(desk.files(&["list", "--copied", "--json"]).objects().len(), 3);
    }
}

#[test]
fn rows_given_up_are_ignored_or_tried_again_at_a_word() {
    for desk in Desk::both("given_up") {
        for number in 1..4 {
            let (path, _) = desk.place.source(format!("{number}.dat"), 100, number);
            desk.files(&["add", path.to_str().unwrap()]).expect(0);
        }
        for number in 1..3 {
            fs::remove_file(desk.place.sources().join(format!("{number}.dat"))).unwrap();
        }
        desk.run_here().expect(1);
        desk.place.source("2.dat", 100, 2);
        let most = ["--max-copy-attempts", "1"];
        let retried = desk.files(&[&["retry", "--path", "*/2.dat"][..], &most].concat()).expect(0).out;
        assert!(retried.contains("row 2, ") && retried.contains("1 row will be tried again"), "{retried}");
        // All that makes sense: those given up, and no others.
        let ignored = desk.files(&[&["ignore", "--all", "--json"][..], &most].concat()).expect(0).object();
        assert_eq!((&ignored["changed"], &ignored["unfit"]), (&1.into(), &0.into()));
        desk.run_here().expect(0);
        let states: Vec<_> = desk.files(&["list", "--copied", "--ignored", "--json"]).objects();
        assert_eq!(
            states.iter().map(|row| row["state"].as_str().unwrap()).collect::<Vec<_>>(),
            ["ignored", "copied", "copied"]
        );
    }
}

#[test]
fn a_file_that_changed_is_accepted_as_it_is_now() {
    for desk in Desk::both("accept") {
        let (path, before) = desk.place.source("f.dat", 1000, 1);
        let (gone, _) = desk.place.source("g.dat", 1000, 2);
        desk.add_sources();
        let (_, now) = desk.place.source("f.dat", 1000, 3);
        fs::remove_file(&gone).unwrap();
        desk.run_here().expect(1);
        let most = ["--max-copy-attempts", "1"];
        let unsaid = desk.files(&[&["accept", "--all"][..], &most].concat()).expect(2);
        assert!(unsaid.err.contains("--yes"), "{}", unsaid.err);
        assert_eq!(desk.md5(1), lower_hex(before));
        let accepted = desk.files(&[&["accept", "--all", "--yes"][..], &most].concat()).expect(1);
        assert!(accepted.out.ends_with("1 row is registered as their files are now\n"), "{}", accepted.out);
        assert!(accepted.err.contains("row 2, ") && accepted.err.contains("cannot be read"), "{}", accepted.err);
        assert_eq!(desk.md5(1), lower_hex(now));
        desk.run_here().expect(0);
        let copied = desk.files(&["list", "--copied", "--json"]).objects();
        assert_eq!((copied.len(), copied[0]["md5"].as_str().unwrap()), (1, &*lower_hex(now)));
        // What did not fail is as it was registered.
        let ended = desk.files(&["accept", "--id", "1", "--yes"]).expect(1);
        assert!(ended.err.contains("copied, and did not fail"), "{}", ended.err);
        assert!(path.exists());
    }
}

#[test]
fn a_copied_row_is_copied_again_at_a_word() {
    for desk in Desk::both("recopy") {
        let (path, md5) = desk.place.source("f.dat", 1000, 1);
        desk.add_sources();
        desk.run_here().expect(0);
        let copy = desk.files(&["show", "--id", "1", "--json"]).object()["copy"].as_str().unwrap().to_owned();
        let copy = desk.place.archive().join(copy);
        fs::remove_file(&copy).unwrap();
        if desk.is_mysql() {
            let ended = desk.files(&["recopy", "--id", "1"]).expect(1);
            assert!(ended.err.contains("give --source"), "{}", ended.err);
            let elsewhere = desk.place.archive();
            let ended = desk.files(&["recopy", "--id", "1", "--source", elsewhere.to_str().unwrap()]).expect(1);
            assert!(ended.err.contains("no file of that name"), "{}", ended.err);
        }
        let source = desk.place.sources();
        let reopened = desk.files(&["recopy", "--all", "--source", source.to_str().unwrap()]).expect(0).out;
        assert!(reopened.ends_with("1 row is pending now\n"), "{reopened}");
        assert_eq!(desk.taken_by_the_old_agent(), [1]);
        assert_eq!(desk.files(&["show", "--id", "1", "--json"]).expect(1).object()["source"], path.to_str().unwrap());
        desk.run_here().expect(0);
        assert_eq!(crate::support::archiver::md5_of(&copy), md5);
        let ended = desk.files(&["recopy", "--id", "1", "--source", path.to_str().unwrap()]).expect(0);
        assert!(ended.out.ends_with("1 row is pending now\n"), "{}", ended.out);
        desk.run_here().expect(0);
        assert_eq!(desk.place.tree().files().count(), 1);
    }
}

#[test]
fn rows_are_ignored_and_accepted_beside_a_running_archiver() {
    for desk in Desk::both("beside") {
        let (first, _) = desk.place.source("first.dat", 10, 1);
        desk.files(&["add", first.to_str().unwrap()]).expect(0);
        let mut command = desk.named(desk.place.run());
        command.args(["--poll", "0.1", "--max-copy-attempts", "100000"]);
        let run = Run::start(command);
        let copied = || desk.files(&["list", "--copied", "--json"]).objects().len();
        wait_until("the first row is copied", || copied() == 1);
        for number in 0..60 {
            desk.place.source(format!("tree/{number:02}.dat"), 2000, number);
        }
        desk.files(&["add", desk.place.sources().join("tree").to_str().unwrap()]).expect(0);
        let ignored = desk.files(&["ignore", "--path", "*5.dat", "--json"]).expect(0).object();
        // One changes behind the archiver's back, fails, and is accepted while it is tried again and again.
        let (late, before) = desk.place.source("late.dat", 10, 9);
        desk.execute(
            &format!(
                "INSERT INTO pysmurf_files_v1 (path, timestamp, action, pub_id, instance_id, copied, failed_copy_attempts, plot, md5sum) \
                 VALUES ('{}', FROM_UNIXTIME(1589517384), 'a', 'p', 'monitor', 0, 0, 0, UNHEX('{}'))",
                late.display(),
                "00".repeat(16)
            ),
            &format!(
                "PRAGMA busy_timeout=5000; INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                 failed_copy_attempts, deletable, \"ignore\") VALUES ('{}', '{}', 'monitor', 'late.dat', 1.5, 0, 1, 0)",
                late.display(),
                "00".repeat(16)
            ),
        );
        let wanted = 62 - ignored["changed"].as_u64().unwrap() as usize;
        wait_until("the late row has failed", || {
            !desk.files(&["list", "--failed", "--path", "*late.dat", "--json"]).out.is_empty()
        });
        wait_until("it is accepted", || {
            desk.files(&["accept", "--path", "*late.dat", "--yes", "--json"]).object()["changed"] == 1
        });
        // Rows that it has seen before it sees again within minutes, or at once when it is told to.
        run.signal("HUP");
        // An ignored row that was on its way at that moment may be copied all the same.
        let late = || desk.files(&["list", "--copied", "--path", "*late.dat", "--json"]);
        wait_until("the late one and all the others are copied", || copied() >= wanted && !late().out.is_empty());
        assert_eq!(late().object()["md5"], lower_hex(before));
        let left = desk.files(&["list", "--ignored", "--json"]).objects().len();
        assert!(left as u64 <= ignored["changed"].as_u64().unwrap());
        drop(run.terminate());
    }
}
