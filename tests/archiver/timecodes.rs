//! Timecode directories: what each waits for, files that come late, and those that are announced anew.

use crate::support::archiver::{Place, Run};
use crate::upkeep::{Sync, now};
use serde_json::Value;
use std::fs;

impl Sync<'_> {
    /// Registers a file so long ago, in seconds.
    fn add_ago(&self, name: &str, seconds: f64) -> i64 {
        let row = self.add(&self.place.source(name, 100, 1), "smurf", name, true);
        self.database.execute("UPDATE supersync_v0 SET timestamp = ?1 WHERE id = ?2", (now() - seconds, row)).unwrap();
        row
    }

    fn announce(&self) {
        let root = self.place.path("root");
        self.run(None, &["--suprsync-file-root", root.to_str().unwrap()], 0);
    }

    /// The files by which the timecode was announced, as they are in the archive.
    fn announcements(&self, timecode: i64) -> Vec<String> {
        let names = self.place.tree().names();
        let end = format!("_smurf_{timecode}_finalized.yaml");
        let files = names.iter().filter(|name| name.ends_with(&end));
        files.map(|name| fs::read_to_string(self.place.archive().join(name)).unwrap()).collect()
    }

    fn files(&self, words: &[&str], status: i32) -> String {
        let mut command = self.place.program();
        command.args(["files", "timecodes", "--db", &self.address, "--archive-name", "smurf"]).args(words);
        Run::to_end(command).expect(status).log
    }

    /// How a timecode stands.
    fn stand(&self, timecode: i64) -> Value {
        let lines = self.files(&["--json", "--all"], 0);
        let objects = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        objects.into_iter().find(|object| object["timecode"] == timecode).unwrap()
    }

    fn finalized(&self, timecode: i64) -> (bool, i64) {
        let query =
            "SELECT finalized, finalize_file_id FROM timecode_dirs_v0 WHERE timecode = ? AND archive_name = 'smurf'";
        self.database.query_row(query, [timecode], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }
}

/// Announcements made within one second have one name.
fn another_second() {
    let second = now() as i64;
    crate::support::wait::wait_until("another second", || now() as i64 != second);
}

#[test]
fn files_that_come_late_are_announced_again_once_all_are_proven_and_no_more_come() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let timecode = (now() / 1e5) as i64 - 3;
    for n in 0..2 {
        sync.add_ago(&format!("{timecode}/crate1slot2/{n}/f"), 250_000.0);
    }
    sync.announce();
    assert_eq!(sync.announcements(timecode).len(), 1);
    let first = sync.finalized(timecode);
    assert_eq!(sync.stand(timecode)["state"], "announced");
    // One comes late, just now: more may follow.
    let late = sync.add_ago(&format!("{timecode}/crate1slot3/2/f"), 5.0);
    sync.announce();
    sync.announce();
    assert_eq!((sync.announcements(timecode).len(), sync.finalized(timecode)), (1, first));
    assert_eq!(sync.stand(timecode)["state"], "late");
    // Another that is not proven holds it up, however long ago it came.
    sync.database.execute("UPDATE supersync_v0 SET timestamp = timestamp - 3600 WHERE id = ?", [late]).unwrap();
    let gone = sync.add_ago(&format!("{timecode}/crate1slot2/3/gone"), 3600.0);
    let set =
        |set: &str| sync.database.execute(&format!("UPDATE supersync_v0 SET {set} WHERE id = {gone}"), []).unwrap();
    set("failed_copy_attempts = 5");
    sync.announce();
    assert_eq!((sync.announcements(timecode).len(), sync.finalized(timecode)), (1, first));
    set("failed_copy_attempts = 0");
    another_second();
    sync.announce();
    let texts = sync.announcements(timecode);
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("num_files: 2") && texts[1].contains("num_files: 4"), "{texts:?}");
    assert!(texts[1].contains("- crate1slot2\n- crate1slot3"), "{texts:?}");
    let second = sync.finalized(timecode);
    assert!(second.0 && second.1 > first.1, "{second:?}");
    // That is all.
    another_second();
    sync.announce();
    assert_eq!((sync.announcements(timecode).len(), sync.finalized(timecode)), (2, second));
}

/// What announces a timecode lies in the timecode of its day, which need not be announced again for it.
#[test]
fn what_announces_is_no_late_file() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let today = (now() / 1e5) as i64;
    for timecode in [today - 2, today, today + 1, today + 2] {
        sync.add_ago(&format!("{timecode}/f"), 3600.0);
    }
    for _ in 0..3 {
        sync.announce();
        sync.database.execute("UPDATE supersync_v0 SET timestamp = timestamp - 3600", []).unwrap();
        another_second();
    }
    for timecode in [today - 2, today, today + 1] {
        assert_eq!(sync.announcements(timecode).len(), 1, "{timecode}");
    }
}

#[test]
fn each_timecode_says_what_it_waits_for() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let today = (now() / 1e5) as i64;
    for (timecode, ago) in [(today - 6, 500_000.0), (today - 5, 450_000.0), (today - 4, 400_000.0), (today, 50.0)] {
        for n in 0..2 {
            sync.add_ago(&format!("{timecode}/{n}"), ago - n as f64);
        }
    }
    fs::remove_file(place.sources().join(format!("{}/0", today - 5))).unwrap();
    fs::remove_file(place.sources().join(format!("{}/1", today - 4))).unwrap();
    sync.run(None, &[], 1);
    let none: Vec<Value> = Vec::new();
    let states = |sync: &Sync<'_>| {
        let lines = sync.files(&["--json", "--max-copy-attempts", "2"], 0);
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["state"].clone()).collect::<Vec<_>>()
    };
    assert_ne!(states(&sync), none);
    assert_eq!(states(&sync), ["complete", "waiting", "waiting", "open"]);
    sync.database
        .execute(&format!("UPDATE supersync_v0 SET failed_copy_attempts = 2 WHERE remote_path = '{}/0'", today - 5), [])
        .unwrap();
    assert_eq!(states(&sync), ["complete", "failed", "waiting", "open"]);
    let root = place.path("root");
    sync.run(None, &["--suprsync-file-root", root.to_str().unwrap(), "--max-copy-attempts", "1"], 0);
    assert_eq!(states(&sync), ["announced", "failed", "waiting", "open"]);
    let stand = sync.stand(today - 4);
    assert_eq!((stand["waiting"].as_i64(), stand["files"].as_i64()), (Some(1), Some(2)));
    assert!(stand["oldest"].as_str().unwrap().ends_with(&format!("{}/1", today - 4)), "{stand}");
    assert!(stand["oldest_reason"].as_str().unwrap().contains("missing"), "{stand}");
    let text = sync.files(&["--max-copy-attempts", "2"], 0);
    for part in [
        "announced on",
        "1 are proven, 1 are not, 1 of them given up",
        "the oldest of these is row",
        "missing",
        "more files may come",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// As wished for in socs#506.
#[test]
fn a_timecode_is_announced_anew_on_request() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let timecode = (now() / 1e5) as i64 - 3;
    sync.add_ago(&format!("{timecode}/f"), 250_000.0);
    sync.announce();
    let first = sync.finalized(timecode);
    another_second();
    let text = sync.files(&["--rebuild", &timecode.to_string()], 0);
    assert!(text.contains("its 1 files are looked at anew"), "{text}");
    sync.announce();
    assert_eq!(sync.announcements(timecode).len(), 2);
    assert!(sync.finalized(timecode).1 > first.1);
    // Also where its row is gone, or never was.
    sync.database.execute("DELETE FROM timecode_dirs_v0 WHERE timecode = ?", [timecode]).unwrap();
    another_second();
    sync.files(&["--rebuild", &timecode.to_string()], 0);
    sync.announce();
    assert_eq!(sync.announcements(timecode).len(), 3);
    assert!(sync.files(&["--rebuild", "12345"], 2).contains("No file of archive smurf belongs to timecode 12345"));
}

#[test]
fn timecodes_and_deletion_are_of_suprsyncs_tables() {
    let Some(server) = crate::support::mariadb::MariaDb::shared() else { return };
    let place = Place::make();
    let table = crate::tables::Table::new(server, "no_timecodes", crate::tables::Age::V1);
    for verb in ["timecodes", "prunable"] {
        let mut command = place.program();
        command.args(["files", verb, "--db", &table.url, "--target", "monitor"]);
        assert!(Run::to_end(command).expect(2).log.contains("is for databases of SupRsync"), "{verb}");
    }
}
