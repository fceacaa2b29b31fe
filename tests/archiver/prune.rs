//! Deleting local files: nothing goes that is not proven, here, itself and alone; and room is made for new files.

use crate::support::archiver::{Place, Run, is_root, md5_of};
use crate::support::processes::descendants;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use crate::upkeep::Sync;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// More than any file system has, so that everything goes that may.
const EVERYTHING: [&str; 2] = ["--delete-when-below", "1000000T"];
const AT_ONCE: [&str; 2] = ["--delete-local-after", "0"];

/// A file that was proven, in a folder of its own.
struct Proven<'a> {
    sync: &'a Sync<'a>,
    path: PathBuf,
    md5: [u8; 16],
    row: i64,
}

impl Proven<'_> {
    fn set(&self, set: &str) {
        self.sync.database.execute(&format!("UPDATE supersync_v0 SET {set} WHERE id = ?"), [self.row]).unwrap();
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap()
    }

    /// A file beside the sources' folder, with the same content.
    fn double(&self, name: &str) -> PathBuf {
        let double = self.sync.place.path(name);
        fs::create_dir_all(double.parent().unwrap()).unwrap();
        fs::copy(&self.path, &double).unwrap();
        double
    }

    /// Another row that names a file with the bytes of this one.
    fn register(&self, path: &Path, archive: &str) {
        let place = format!("17950/also-{}", path.file_name().unwrap().to_str().unwrap());
        self.sync.add(&(path.to_owned(), self.md5), archive, &place, true);
    }
}

/// Each thing that somebody may do to a file or its rows once it is proven, so that it must stay.
type Mischief = (&'static str, fn(&Proven<'_>));

const MISCHIEF: [Mischief; 19] = [
    ("other bytes of the same length and time", |file| {
        let meta = fs::metadata(&file.path).unwrap();
        let mut bytes = fs::read(&file.path).unwrap();
        bytes[100] ^= 1;
        fs::write(&file.path, bytes).unwrap();
        File::options().write(true).open(&file.path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
    }),
    ("appended to", |file| {
        let bytes = [fs::read(&file.path).unwrap(), b"more".to_vec()].concat();
        fs::write(&file.path, bytes).unwrap();
    }),
    ("cut off", |file| fs::write(&file.path, "").unwrap()),
    ("another file under its name", |file| {
        let other = file.double("other");
        fs::write(&other, "other").unwrap();
        fs::rename(other, &file.path).unwrap();
    }),
    ("a link to the same bytes elsewhere", |file| {
        let double = file.double("outside/leaf");
        fs::remove_file(&file.path).unwrap();
        symlink(double, &file.path).unwrap();
    }),
    ("a link to the same bytes beside it", |file| {
        let double = file.folder().join("beside");
        fs::rename(&file.path, &double).unwrap();
        symlink("beside", &file.path).unwrap();
    }),
    ("its folder a link to one outside", |file| {
        let name = format!("outside/{}/{}", file.row, file.path.file_name().unwrap().to_str().unwrap());
        let double = file.double(&name);
        fs::remove_dir_all(file.folder()).unwrap();
        symlink(double.parent().unwrap(), file.folder()).unwrap();
    }),
    ("a folder under its name", |file| {
        fs::remove_file(&file.path).unwrap();
        fs::create_dir(&file.path).unwrap();
    }),
    ("a fifo under its name", |file| {
        fs::remove_file(&file.path).unwrap();
        assert!(Command::new("mkfifo").arg(&file.path).status().unwrap().success());
    }),
    ("a row that forbids it", |file| file.set("deletable = 0")),
    ("a row that does not say whether it may", |file| file.set("deletable = NULL")),
    ("a copy that was found to be different", |file| {
        file.set("remote_md5sum = '00000000000000000000000000000000', failed_copy_attempts = 5")
    }),
    ("a copy that is to be proven again", |file| file.set("remote_md5sum = NULL, failed_copy_attempts = 5")),
    ("a row without a sum", |file| file.set("local_md5sum = '', remote_md5sum = ''")),
    ("another path by way of ..", |file| {
        let double = file.double("outside/dots");
        let odd = format!("{}/../outside/dots", file.sync.place.sources().display());
        assert!(double.exists());
        file.set(&format!("local_path = '{odd}'"));
    }),
    ("another path, outside", |file| {
        let double = file.double("outside/plain");
        file.set(&format!("local_path = '{}'", double.display()));
    }),
    ("another archive that waits for it", |file| file.register(&file.path, "timestreams")),
    ("another archive that waits for it, by way of a link", |file| {
        let way = file.sync.place.path(&format!("way{}", file.row));
        symlink(file.folder(), &way).unwrap();
        file.register(&way.join(file.path.file_name().unwrap()), "timestreams");
    }),
    ("registered anew with other bytes", |file| {
        let (path, place) = (file.path.clone(), format!("17950/anew{}", file.row));
        file.sync.add(&(path, [7; 16]), "smurf", &place, true);
    }),
];

/// All files below the place, with their content, but for databases and logs.
fn contents(place: &Place) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in ["sources", "outside"] {
        let mut waiting = vec![place.path(folder)];
        while let Some(next) = waiting.pop() {
            for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
                let kind = entry.file_type().unwrap();
                match (kind.is_dir(), kind.is_file()) {
                    (true, _) => waiting.push(entry.path()),
                    (_, true) => found.push((entry.path(), fs::read(entry.path()).unwrap())),
                    _ => {}
                }
            }
        }
    }
    found.sort();
    found
}

#[test]
fn whatever_is_done_to_a_proven_file_or_its_rows_nothing_is_lost() {
    for indexed in [false, true] {
        for deleting in [AT_ONCE, EVERYTHING] {
            let place = Place::make();
            let sync = Sync::new(&place);
            if indexed {
                let mut init = place.program();
                init.args(["init-db", "--indexes", "--db", &sync.address]);
                Run::to_end(init).expect(0);
            }
            let files: Vec<_> = (0..=MISCHIEF.len())
                .map(|n| {
                    let name = format!("{n}/file{n}");
                    let source = place.source(&name, 5000 + n as u64, n as u64);
                    let row = sync.add(&source, "smurf", &format!("17950/{name}"), true);
                    Proven { sync: &sync, path: source.0, md5: source.1, row }
                })
                .collect();
            sync.run(None, &[], 0);
            for ((_, mischief), file) in MISCHIEF.iter().zip(&files) {
                mischief(file);
            }
            let plain = files.last().unwrap();
            let mut before = contents(&place);
            before.retain(|(path, _)| *path != plain.path);
            let roots = place.sources();
            let options = [&deleting[..], &["--source-root", roots.to_str().unwrap()]].concat();
            // A row that waits cannot be copied.
            let over = sync.run(None, &options, 1);
            assert!(!plain.path.exists() && sync.removed(plain.row).is_some(), "{indexed} {deleting:?}: {}", over.log);
            let after = contents(&place);
            for ((what, _), file) in MISCHIEF.iter().zip(&files) {
                assert_eq!(sync.removed(file.row), None, "{what}, {indexed} {deleting:?}: {}", over.log);
            }
            let names = |all: &[(PathBuf, Vec<u8>)]| all.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
            assert_eq!(names(&after), names(&before), "{indexed} {deleting:?}: {}", over.log);
            assert!(after == before, "{indexed} {deleting:?}");
        }
    }
}

#[test]
fn without_source_roots_too_no_link_is_followed_to_a_file_that_goes() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let file = place.source("a/file", 100, 1);
    let row = sync.add(&file, "smurf", "17950/a", true);
    sync.run(None, &[], 0);
    let outside = place.path("outside");
    fs::rename(&file.0, &outside).unwrap();
    symlink(&outside, &file.0).unwrap();
    let over = sync.run(None, &AT_ONCE, 0);
    assert!(over.log.contains("it is a symlink"), "{}", over.log);
    assert!(outside.exists() && fs::symlink_metadata(&file.0).is_ok() && sync.removed(row).is_none());
}

#[test]
fn one_of_several_names_of_a_file_is_deleted_after_its_time_and_not_for_room() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let file = place.source("file", 100, 1);
    let other = place.path("other");
    fs::hard_link(&file.0, &other).unwrap();
    sync.add(&file, "smurf", "17950/a", true);
    let over = sync.run(None, &EVERYTHING, 0);
    assert!(file.0.exists() && over.log.contains("it has 2 names"), "{}", over.log);
    sync.run(None, &AT_ONCE, 0);
    assert!(!file.0.exists() && other.exists());
}

#[test]
fn what_would_be_deleted_is_told_and_stays() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let (good, bad) = (place.source("good", 5000, 1), place.source("bad", 5000, 2));
    let rows = [sync.add(&good, "smurf", "17950/good", true), sync.add(&bad, "smurf", "17950/bad", true)];
    sync.run(None, &[], 0);
    fs::write(&bad.0, "changed").unwrap();
    for deleting in [AT_ONCE, EVERYTHING] {
        let over = sync.run(None, &[&deleting[..], &["--delete-dry-run"]].concat(), 0);
        assert!(over.log.contains("Would be deleted") && over.log.contains(good.0.to_str().unwrap()), "{}", over.log);
        assert!(over.log.contains("it has changed since its copy was proven"), "{}", over.log);
        assert!(good.0.exists() && rows.iter().all(|row| sync.removed(*row).is_none()));
    }
    let over = sync.run(None, &["--delete-dry-run"], 2);
    assert!(over.log.contains("--delete-local-after or --delete-when-below"), "{}", over.log);
}

/// Folders stay when their last file is deleted: SupRsync only ever removes files.
#[test]
fn folders_stay() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let file = place.source("a/b/file", 100, 1);
    sync.add(&file, "smurf", "17950/a", true);
    sync.run(None, &AT_ONCE, 0);
    assert!(!file.0.exists() && file.0.parent().unwrap().exists());
}

/// A file system in a file of this place; `None` where none can be mounted.
struct Mounted(PathBuf);

impl Mounted {
    fn ext4(place: &Place, size: u64) -> Option<Self> {
        if !is_root() {
            eprintln!("SKIPPED: only root may mount a file system");
            return None;
        }
        if !require("mkfs.ext4") {
            return None;
        }
        let (image, mounted) = (place.path("image"), place.sources().join("disk"));
        File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(&mounted).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status().unwrap();
        assert!(made.success(), "mkfs.ext4 failed");
        let done = Command::new("mount").args(["-o", "loop"]).args([&image, &mounted]).output().unwrap();
        if !done.status.success() {
            assert!(std::env::var_os("CI").is_none(), "Cannot mount: {}", String::from_utf8_lossy(&done.stderr));
            eprintln!("SKIPPED: cannot mount a file system; {}", String::from_utf8_lossy(&done.stderr));
            return None;
        }
        Some(Self(mounted))
    }

    /// Which share of it is free, per cent.
    fn free(&self) -> f64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail as f64 * 100.0 / stat.f_blocks as f64
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.0).status();
    }
}

/// The disk is filled to 95 % while files arrive of which some cannot be proven: it is freed to the mark, and whatever is not
/// proven is there to the end.
#[test]
fn a_disk_that_fills_is_freed_to_the_mark_and_no_unproven_file_is_lost() {
    const FILE: u64 = 256 << 10;
    let place = Place::make();
    let Some(disk) = Mounted::ext4(&place, 32 << 20) else { return };
    let sync = Sync::new(&place);
    let mut rows = Vec::new();
    let mut put = |n: u64, wrong: bool| {
        let name = format!("disk/{n:04}");
        let (path, md5) = place.source(&name, FILE, n);
        let row = sync.add(&(path.clone(), if wrong { [7; 16] } else { md5 }), "smurf", &format!("17950/{name}"), true);
        rows.push((row, path, wrong));
    };
    // Every fifth cannot be proven: its sum is another one.
    let mut n = 0;
    while disk.free() > 5.0 {
        put(n, n % 5 == 0);
        n += 1;
    }
    let mut command = place.run();
    let roots = place.sources();
    command.args(["--db", &sync.address, "--archive-name", "smurf", "--poll", "0.1", "--delete-when-below", "25%"]);
    command.args(["--source-root", roots.to_str().unwrap(), "--source-root", disk.0.to_str().unwrap()]);
    let run = Run::start(command);
    wait_until("room is made", || disk.free() >= 25.0);
    // More arrive, as long as there is room, and it is made again.
    for more in 0..12 {
        wait_until("there is room for one more", || disk.free() >= 5.0);
        put(n + more, more % 5 == 0);
    }
    let all_right = "SELECT COUNT(*) FROM supersync_v0 WHERE remote_md5sum = local_md5sum";
    let proven = |sync: &Sync<'_>| sync.database.query_row(all_right, [], |row| row.get::<_, i64>(0)).unwrap();
    let right = rows.iter().filter(|(_, _, wrong)| !wrong).count();
    wait_until("all that can be is proven", || proven(&sync) == right as i64);
    wait_until("the mark is kept", || disk.free() >= 25.0);
    let (over, _) = run.terminate();
    assert!(over.log.contains("the oldest proven files go"), "{}", over.log);
    for (row, path, wrong) in &rows {
        let removed = sync.removed(*row);
        if *wrong {
            assert!(path.exists() && removed.is_none(), "{path:?} was lost");
        } else {
            // One that went at the very end is recorded with the next round.
            assert!(removed.is_none() || !path.exists(), "{path:?}");
            assert_eq!(
                fs::metadata(
                    place.archive().join(format!("17950/disk/{}", path.file_name().unwrap().to_str().unwrap()))
                )
                .unwrap()
                .len(),
                FILE
            );
        }
    }
    // The oldest went, and not all: room is made to the mark and a little beyond.
    let gone: Vec<_> = rows.iter().map(|(row, _, _)| sync.removed(*row).is_some()).collect();
    assert!(gone[1] && gone.iter().filter(|gone| **gone).count() < right, "{gone:?}");
    assert!(disk.free() < 45.0, "{}", disk.free());
}

/// Where nothing more may go, that is said once.
#[test]
fn a_disk_that_cannot_be_freed_is_told_once() {
    let place = Place::make();
    let sync = Sync::new(&place);
    sync.add(&place.source("kept", 100, 1), "smurf", "17950/kept", false);
    let mut command = place.run();
    command.args(["--db", &sync.address, "--archive-name", "smurf", "--poll", "0.1"]).args(EVERYTHING);
    let run = Run::start(command);
    wait_until("it is told", || run.log().contains("no further file there may be deleted"));
    let (over, _) = run.terminate();
    assert_eq!(over.log.matches("no further file there may be deleted").count(), 1, "{}", over.log);
}

#[test]
fn what_may_go_is_listed_and_why_the_rest_may_not() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let [good, changed, forbidden, shared, gone] =
        ["good", "changed", "forbidden", "shared", "gone"].map(|name| place.source(name, 10_000, 1));
    for (file, name) in [(&good, "good"), (&changed, "changed"), (&shared, "shared"), (&gone, "gone")] {
        sync.add(file, "smurf", &format!("17950/{name}"), true);
    }
    sync.add(&forbidden, "smurf", "17950/forbidden", false);
    sync.run(None, &[], 0);
    let waiting = sync.add(&shared, "timestreams", "17950/shared", true);
    fs::write(&changed.0, "changed").unwrap();
    fs::remove_file(&gone.0).unwrap();
    let list = |words: &[&str]| {
        let mut command = place.program();
        command.args(["files", "prunable", "--db", &sync.address, "--archive-name", "smurf"]).args(words);
        Run::to_end(command).expect(0).log
    };
    let by_name = |words: &[&str]| {
        let lines = list(&[words, &["--json"]].concat());
        let objects = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        let reason = |object: &serde_json::Value| object["reason"].as_str().unwrap_or("may go").to_owned();
        objects
            .map(|object| (name(object["path"].as_str().unwrap()), reason(&object)))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let listed = by_name(&[]);
    assert_eq!(listed["good"], "may go");
    assert_eq!(listed["changed"], "may go", "it was not read");
    assert_eq!(listed["forbidden"], "its row says that it is not to be deleted");
    assert_eq!(listed["shared"], format!("row {waiting} still waits for it"));
    assert_eq!(listed["gone"], "it is not there any more");
    assert_eq!(by_name(&["--read"])["changed"], "it has changed since its copy was proven");
    assert_eq!(by_name(&["--older-than", "1d"]).len(), 1, "the one that is forbidden at any time");
    let text = list(&["--read"]);
    assert!(text.contains("1 files of") && text.contains("4 may not"), "{text}");
    let roots = list(&["--source-root", "/nowhere"]);
    assert!(roots.contains("0 files of") && roots.contains("is not beneath --source-root"), "{roots}");
    assert!(good.0.exists() && changed.0.exists());
}

/// The first page of files is not all that is looked at.
#[test]
fn what_another_row_waits_for_stays_however_many_files_go() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let files: Vec<_> = (0..200).map(|n| place.source(format!("file{n}"), 10 + n, n)).collect();
    for (n, file) in files.iter().enumerate() {
        sync.add(file, "smurf", &format!("17950/file{n}"), true);
    }
    let way = place.path("way");
    symlink(place.sources(), &way).unwrap();
    let is_wanted = |n: usize| n % 20 == 7;
    for (n, (path, md5)) in files.iter().enumerate().filter(|(n, _)| is_wanted(*n)) {
        // Under its own path, or by way of a link.
        let path = if n < 100 { path.clone() } else { way.join(path.file_name().unwrap()) };
        sync.add(&(path, *md5), "timestreams", &format!("17950/also{n}"), true);
    }
    let over = sync.run(None, &AT_ONCE, 0);
    let left: Vec<_> = (0..files.len()).filter(|n| files[*n].0.exists()).collect();
    assert_eq!(left, (0..files.len()).filter(|n| is_wanted(*n)).collect::<Vec<_>>(), "{}", over.log);
}

/// What was decided before a machine slept is not done after it woke up.
#[test]
fn a_file_that_is_wanted_again_while_it_is_read_stays() {
    let place = Place::make();
    let sync = Sync::new(&place);
    let large = place.sources().join("large");
    File::create(&large).unwrap().set_len(1 << 30).unwrap();
    let large = (large.clone(), md5_of(&large));
    let small = place.source("small", 100, 1);
    for (file, name) in [(&large, "large"), (&small, "small")] {
        sync.add(file, "smurf", &format!("17950/{name}"), true);
    }
    sync.database.execute("UPDATE supersync_v0 SET remote_md5sum = local_md5sum, copied = 1000 + id", []).unwrap();
    let mut command = place.run();
    command.args(["--db", &sync.address, "--archive-name", "smurf", "--poll", "0.1"]).args(AT_ONCE);
    let run = Run::start(command);
    let opens = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|name| name == large.0)
    };
    wait_until("it is read", || descendants(std::process::id()).into_iter().any(opens));
    run.signal("STOP");
    sync.add(&large, "timestreams", "17950/large", true);
    let asleep = Instant::now();
    wait_until("it has slept for long", || asleep.elapsed() > Duration::from_secs(11));
    run.signal("CONT");
    wait_until("what nobody else wants goes", || !small.0.exists());
    assert!(large.0.exists(), "{}", run.log());
    run.terminate().0.expect(0);
}
