//! `files add`.

use super::{Desk, lower_hex};
use crate::support::archiver::md5_of;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

#[test]
fn a_tree_is_registered_and_then_copied() {
    for desk in Desk::both("add") {
        let place = &desk.place;
        let (first, md5) = place.source("tree/a/1.npy", 300_000, 1);
        place.source("tree/a/plot.png", 1000, 2);
        place.source("tree/b/line\nend and \u{1b}[31m.dat", 0, 3);
        place.source("tree/no suffix", 10, 4);
        let tree = place.sources().join("tree");
        std::os::unix::fs::symlink("a/1.npy", tree.join("link")).unwrap();
        assert!(Command::new("mkfifo").arg(tree.join("fifo")).status().unwrap().success());
        let bytes_name = tree.join(OsStr::from_bytes(b"\xff\xfe"));
        fs::write(&bytes_name, "x").unwrap();
        let tree = tree.to_str().unwrap();

        let dry = desk.files(&["add", tree, "--dry-run"]).expect(1);
        assert!(dry.out.starts_with("Would register 4 files, "), "{}{}", dry.out, dry.err);
        assert_eq!(desk.files(&["list", "--json"]).objects().len(), 0);

        let added = desk.files(&["add", tree, "--json"]).expect(1);
        let summary = added.object();
        let counts =
            ["registered", "known", "changed", "left_out", "failed"].map(|name| summary[name].as_i64().unwrap());
        assert_eq!(counts, [4, 0, 0, 2, 1], "{summary}\n{}", added.err);
        assert_eq!(summary["registered_bytes"], 301_010);
        for told in ["link: it is a symlink", "fifo: it is no regular file", "no UTF-8 text"] {
            assert!(added.err.contains(told), "{told}: {}", added.err);
        }
        assert!(!added.err.contains('\u{1b}'), "{:?}", added.err);
        fs::remove_file(&bytes_name).unwrap();

        let rows = desk.files(&["list", "--json"]).expect(0).objects();
        let row = rows.iter().find(|row| row["source"] == first.to_str().unwrap()).unwrap();
        assert_eq!(row["md5"], lower_hex(md5));
        let place_of = row["place"].as_str().unwrap();
        match desk.is_mysql() {
            true => assert!(place_of.contains("/monitor/") && place_of.ends_with("_npy/outputs/1.npy"), "{place_of}"),
            false => assert_eq!(place_of, "tree/a/1.npy"),
        }

        // Again: nothing new. Changed: told, and left as it is.
        let again = desk.files(&["add", tree]).expect(0);
        assert!(
            again.out.starts_with("Registered 0 files, ") && again.out.contains("; 4 registered already"),
            "{}",
            again.out
        );
        desk.run_here().expect(0);
        assert!(desk.files(&["add", tree]).expect(0).out.contains("; 4 registered already"));
        assert_eq!(desk.files(&["list", "--copied", "--json"]).objects().len(), 4);
        assert_eq!(desk.files(&["list", "--json"]).objects().len(), 0);
        assert_eq!(desk.place.tree().files().count(), 4);
    }
}

#[test]
fn a_file_that_is_registered_with_another_sum_is_told_and_left() {
    for desk in Desk::both("add_changed") {
        let (path, md5) = desk.place.source("f.dat", 1000, 1);
        let path = path.to_str().unwrap();
        desk.files(&["add", path]).expect(0);
        desk.place.source("f.dat", 1000, 2);
        let ended = desk.files(&["add", path]).expect(1);
        assert!(ended.err.contains("registered with another MD5, in row 1"), "{}", ended.err);
        assert_eq!(desk.md5(1), lower_hex(md5));
        assert_eq!(desk.files(&["list", "--json"]).objects().len(), 1);
    }
}

#[test]
fn many_files_are_registered_once_by_several_that_add_at_once() {
    for desk in Desk::both("add_many") {
        for number in 0..500 {
            desk.place.source(format!("many/{}/{number}.dat", number % 7), number * 13 % 900, number);
        }
        let many = desk.place.sources().join("many");
        let many = many.to_str().unwrap();
        std::thread::scope(|scope| {
            let one = scope.spawn(|| desk.files(&["add", many, "--json"]));
            let other = desk.files(&["add", many, "--json", "--threads", "2"]).expect(0).object();
            let one = one.join().unwrap().expect(0).object();
            let sum = |name: &str| one[name].as_i64().unwrap() + other[name].as_i64().unwrap();
            assert_eq!((sum("registered"), sum("known")), (500, 500));
        });
        desk.files(&["add", many]).expect(0);
        assert_eq!(desk.files(&["list", "--json"]).objects().len(), 500);
    }
}

#[test]
fn while_somebody_else_registers_for_long_nothing_is_registered_twice() {
    let Some(desk) = Desk::mysql("add_locked") else { return };
    let (path, _) = desk.place.source("f.dat", 1000, 1);
    let database = desk.url.rsplit('/').next().unwrap();
    let name = format!("{database}\0pysmurf_files_v1\0{}\0", crate::tables::TARGET);
    fs::write(desk.place.path("name"), name).unwrap();
    let lock = format!("add pysmurf-archiver {}", lower_hex(md5_of(&desk.place.path("name"))));
    std::thread::scope(|scope| {
        // Longer than it is waited for.
        let holds = scope.spawn(|| desk.execute(&format!("SELECT GET_LOCK('{lock}', 0), SLEEP(15)"), ""));
        crate::support::wait::wait_until("it is held", || {
            desk.table.as_ref().unwrap().execute(&format!("SELECT IS_USED_LOCK('{lock}') IS NOT NULL")).trim() == "1"
        });
        let ended = desk.files(&["add", path.to_str().unwrap()]).expect(2);
        assert!(ended.err.contains("somebody else registers files for"), "{}", ended.err);
        holds.join().unwrap();
    });
    assert_eq!(desk.files(&["list", "--json"]).objects().len(), 0);
    desk.files(&["add", path.to_str().unwrap()]).expect(0);
}

#[test]
fn what_cannot_be_registered_says_why() {
    let desk = Desk::sqlite();
    let (path, _) = desk.place.source("f.dat", 1000, 1);
    let path = path.to_str().unwrap();
    assert!(desk.files(&["add", "no/such"]).expect(2).err.contains("no/such"));
    assert!(desk.files(&["add", path, "--type", "x"]).expect(2).err.contains("--type is for MySQL"));
    assert!(desk.files(&["add", path, "--remote-prefix", "a/../b"]).expect(2).err.contains("--remote-prefix"));
    assert!(desk.files(&["add"]).expect(2).err.contains("<PATH>"));
    // Another file that goes to the same place is not registered beside it.
    desk.files(&["add", path]).expect(0);
    let (other, _) = desk.place.source("other/f.dat", 1000, 2);
    let ended = desk.files(&["add", other.to_str().unwrap()]).expect(1);
    assert!(ended.err.contains("another file goes to f.dat, see row 1"), "{}", ended.err);
    desk.files(&["add", other.to_str().unwrap(), "--remote-prefix", "17950/x/"]).expect(0);
    assert_eq!(desk.files(&["show", "--id", "2", "--json"]).object()["place"], "17950/x/f.dat");
    // The database in the middle of what is registered is no file of it.
    let inside = desk.files(&["add", desk.place.path("").to_str().unwrap(), "--dry-run"]).expect(0);
    assert!(inside.err.contains("q.db: it is the database itself"), "{}", inside.err);

    let mut absent = desk.place.program();
    absent.args(["files", "add", path, "--db", "sqlite:none.db", "--archive-name", "x"]);
    let ended = super::Ended::of(absent).expect(2);
    assert!(ended.err.contains("init-db") && !desk.place.path("none.db").exists(), "{}", ended.err);

    let Some(desk) = Desk::mysql("add_refused") else { return };
    let (path, _) = desk.place.source(format!("{}/f.dat", ["long"; 60].join("/")), 10, 1);
    let ended = desk.files(&["add", path.to_str().unwrap()]).expect(1);
    assert!(ended.err.contains("more than the 260 letters"), "{}", ended.err);
    assert!(desk.files(&["add", path.to_str().unwrap(), "--deletable"]).expect(2).err.contains("SupRsync"));
    let long = "x".repeat(33);
    assert!(desk.files(&["add", path.to_str().unwrap(), "--type", &long]).expect(2).err.contains("32 letters"));
}
