//! `monitor --watch`: a real tree, real inotify, a real database, and a process that may end at any moment.

use crate::monitor::{Listening, Scene};
use crate::support::archiver::Run;
use crate::support::mariadb::MariaDb;
use crate::support::wait::wait_until;
use crate::tables::{Age, Table};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl Scene {
    /// The folder that is watched.
    fn watched(&self) -> PathBuf {
        let folder = self.place.path("camera");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// A monitor that watches it, and settles fast.
    fn watch(&self, more: &[&str]) -> Listening {
        let folder = self.watched();
        let always = ["--watch", folder.to_str().unwrap(), "--watch-settle", "0.2"];
        let mut command = self.command(&[]);
        command.args(always).args(more);
        if !more.contains(&"--db") {
            command.arg("--db-path").arg(self.database());
        }
        let run = Run::start(command);
        wait_until("it watches", || run.log().contains("Watching ") || run.log().contains("pysmurf-archiver:"));
        Listening { run, address: ([127, 0, 0, 1], 0).into() }
    }

    /// Where rows say that files go, in their order by name.
    fn places(&self) -> Vec<String> {
        let mut places: Vec<_> = self.rows().into_iter().map(|row| row.1).collect();
        places.sort();
        places
    }

    fn wait_for_places(&self, wanted: &[&str]) {
        wait_until(&format!("{wanted:?}"), || self.rows().len() >= wanted.len());
        assert_eq!(self.places(), wanted);
    }
}

fn put(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn each_file_of_a_watched_tree_is_registered_once_and_a_changed_one_again() {
    let scene = Scene::new();
    let folder = scene.watched();
    put(&folder.join("before/deep/a.dat"), "a");
    put(&folder.join(".hidden/x"), "x");
    let outside = scene.file("outside");
    symlink(&outside, folder.join("link")).unwrap();
    symlink(outside.parent().unwrap(), folder.join("links")).unwrap();
    let monitor = scene.watch(&[]);
    scene.wait_for_places(&["before/deep/a.dat"]);
    let row = scene.rows().remove(0);
    assert_eq!(row.0, folder.join("before/deep/a.dat").to_str().unwrap());
    assert_eq!((row.2.as_str(), row.3.as_str(), row.4), ("0cc175b9c0f1b6a831c399e269772661", "camera", false));
    // Written, moved to its name, by a second name, in a folder of today, and in one that was filled elsewhere.
    put(&folder.join("b.dat"), "b");
    put(&scene.place.path("c"), "c");
    fs::rename(scene.place.path("c"), folder.join("c.dat")).unwrap();
    put(&scene.place.path("d"), "d");
    fs::hard_link(scene.place.path("d"), folder.join("d.dat")).unwrap();
    put(&folder.join("today/deep/e.dat"), "e");
    put(&scene.place.path("filled/f.dat"), "f");
    fs::rename(scene.place.path("filled"), folder.join("filled")).unwrap();
    let mut wanted = vec!["b.dat", "before/deep/a.dat", "c.dat", "d.dat", "filled/f.dat", "today/deep/e.dat"];
    scene.wait_for_places(&wanted);
    // A folder by another name has other files; one by another content is another.
    fs::rename(folder.join("filled"), folder.join("moved")).unwrap();
    put(&folder.join("moved/g.dat"), "g");
    fs::write(folder.join("b.dat"), "other").unwrap();
    wanted.extend(["b.dat", "moved/f.dat", "moved/g.dat"]);
    wanted.sort_unstable();
    scene.wait_for_places(&wanted);
    drop(monitor.end());
    // The next start finds what came meanwhile, and nothing else.
    put(&folder.join("between"), "h");
    let touched = fs::File::options().append(true).open(folder.join("c.dat")).unwrap();
    touched.set_modified(std::time::SystemTime::now()).unwrap();
    drop(touched);
    let monitor = scene.watch(&[]);
    put(&folder.join("last"), "i");
    wanted.extend(["between", "last"]);
    wanted.sort_unstable();
    scene.wait_for_places(&wanted);
    let log = monitor.end().log;
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_file_is_finished_by_its_marker_or_once_it_is_settled() {
    let scene = Scene::new();
    let folder = scene.watched();
    put(&folder.join("old"), "1");
    put(&folder.join("old.done"), "");
    put(&folder.join("open"), "2");
    let monitor = scene.watch(&["--watch-finished", "marker", "--watch-skip", "*.tmp"]);
    put(&folder.join("new"), "3");
    put(&folder.join("new.done"), "");
    put(&folder.join("x.tmp"), "4");
    scene.wait_for_places(&["new", "old"]);
    drop(monitor.end());
    let monitor = scene.watch(&["--watch-finished", "settled", "--watch-skip", "*.done", "--watch-skip", "*.tmp"]);
    // Not closed, and settled all the same.
    let held = fs::File::create(folder.join("held")).unwrap();
    scene.wait_for_places(&["held", "new", "old", "open"]);
    drop(held);
    drop(monitor.end());
    assert_eq!(scene.places().len(), 4);
}

/// What the kernel could not tell is found.
#[test]
fn more_than_the_kernel_keeps_for_a_watcher_is_registered_all_the_same() {
    let scene = Scene::new();
    let folder = scene.watched();
    let monitor = scene.watch(&[]);
    put(&folder.join("first"), "1");
    scene.wait_for_places(&["first"]);
    monitor.run.signal("STOP");
    // Two events each, of 16,384 that are kept.
    let files = 9000;
    (0..files).for_each(|n| fs::write(folder.join(format!("f{n:04}")), "x").unwrap());
    put(&folder.join("unseen/deep"), "2");
    monitor.run.signal("CONT");
    monitor.wait_for("max_queued_events");
    wait_until("all rows", || scene.rows().len() >= files + 2);
    drop(monitor.end());
    let mut names = scene.names();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), scene.rows().len()), (files + 2, files + 2));
}

#[test]
fn each_watched_file_is_registered_once_wherever_the_process_was_killed() {
    let scene = Scene::new();
    let folder = scene.watched();
    let mut made = 0;
    for round in 0..8_u64 {
        let monitor = scene.watch(&[]);
        // Killed at another moment in each round, while files come.
        let until = Instant::now() + Duration::from_millis(30 + 70 * round);
        while Instant::now() < until {
            put(&folder.join(format!("{}/{}/f{made:05}", made % 7, made % 3)), &made.to_string());
            made += 1;
        }
        monitor.run.kill();
    }
    let monitor = scene.watch(&[]);
    wait_until("all rows", || scene.rows().len() >= made);
    put(&folder.join("last"), "x");
    wait_until("the last", || scene.names().iter().any(|name| name == "last"));
    drop(monitor.end());
    let mut names = scene.names();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), scene.rows().len()), (made + 1, made + 1));
}

#[test]
fn what_cannot_be_watched_is_told_and_a_folder_that_comes_back_is_looked_at() {
    let scene = Scene::new();
    let folder = scene.watched();
    for n in 0..3 {
        fs::create_dir(folder.join(n.to_string())).unwrap();
    }
    let monitor = scene.watch(&["--watch-folders", "3"]);
    let log = monitor.run.wait(Duration::from_secs(60)).log;
    assert!(log.contains("more than 3 folders below") && !log.contains("panicked"), "{log}");
    let monitor = scene.watch(&["--watch-folders", "4"]);
    put(&scene.place.path("filled/x"), "x");
    fs::rename(scene.place.path("filled"), folder.join("4")).unwrap();
    monitor.wait_for("more than 4 folders below");
    // What is in it is found all the same.
    scene.wait_for_places(&["4/x"]);
    fs::rename(&folder, scene.place.path("away")).unwrap();
    monitor.wait_for("is gone");
    put(&scene.place.path("away/y"), "y");
    fs::rename(scene.place.path("away"), &folder).unwrap();
    monitor.wait_for("is there again");
    scene.wait_for_places(&["4/x", "y"]);
    drop(monitor.end());
    let absent = scene.place.path("absent");
    let mut command = scene.command(&["--watch", absent.to_str().unwrap()]);
    command.arg("--db-path").arg(scene.database());
    let log = Run::to_end(command).expect(2).log;
    assert!(log.contains("Option --watch") && log.contains("absent") && log.contains("No such file"), "{log}");
}

#[test]
fn a_watched_file_that_the_table_refuses_stands_among_the_rejects_once_until_it_is_registered() {
    let Some(server) = MariaDb::shared() else { return };
    let scene = Scene::new();
    let table = Table::new(server, "watched_refused", Age::V1);
    let folder = scene.watched();
    table.execute("ALTER TABLE pysmurf_files_v1 ADD CONSTRAINT no_darks CHECK (path NOT LIKE '%dark.fits')");
    put(&folder.join("dark.fits"), "abc\n");
    let watch = ["--watch", folder.to_str().unwrap(), "--watch-settle", "0.2", "--watch-rescan", "1"];
    let more = [&["--db", &table.url, "--register-as", "observatory.camera-monitor"], &watch[..]].concat();
    let monitor = scene.monitor_with(&more);
    // What comes later is registered meanwhile, and each time all was looked at.
    for n in 0..4 {
        put(&folder.join(format!("{n}.fits")), "abc\n");
        wait_until("the next row", || table.rows().len() == n + 1);
        put(&folder.join("dark.fits"), "abc\n");
        monitor.wait_for("no_darks");
    }
    let rejects = scene.rejects(&[]).expect(1).log;
    assert!(rejects.matches("dark.fits").count() == 1 && rejects.contains("no_darks"), "{rejects}");
    table.execute("ALTER TABLE pysmurf_files_v1 DROP CONSTRAINT no_darks");
    wait_until("the refused file is registered", || table.rows().len() == 5);
    wait_until("it is no reject any more", || !scene.rejects(&[]).log.contains("dark.fits"));
    let log = monitor.run.log();
    assert_eq!(log.matches("no_darks").count(), 1, "{log}");
    drop(monitor.end());
}

#[test]
fn publishers_are_listened_to_beside_and_the_pysmurf_tables_get_watched_files_too() {
    let Some(server) = MariaDb::shared() else { return };
    let scene = Scene::new();
    let table = Table::new(server, "watched_rows", Age::V1);
    let folder = scene.watched();
    put(&folder.join("before.fits"), "abc\n");
    let watch = ["--watch", folder.to_str().unwrap(), "--watch-settle", "0.2"];
    let more = [&["--db", &table.url, "--register-as", "observatory.camera-monitor"], &watch[..]].concat();
    let monitor = scene.monitor_with(&more);
    wait_until("one row", || table.rows().len() == 1);
    put(&folder.join("a.fits"), "abc\n");
    scene.announce(&monitor, &scene.file("announced"), &[]);
    wait_until("three rows", || table.rows().len() == 3);
    monitor.run.kill();
    let monitor = scene.monitor_with(&more);
    put(&folder.join("last.fits"), "abc\n");
    wait_until("four rows", || table.rows().len() == 4);
    drop(monitor.end());
    let rows = table.execute(
        "SELECT path, action, action_timestamp = FLOOR(UNIX_TIMESTAMP(timestamp)), format, plot, site, pub_id, instance_id \
         FROM pysmurf_files_v1 WHERE path LIKE '%.fits' ORDER BY path",
    );
    let row = |name: &str| {
        let path = folder.join(name);
        format!("{}\twatched\t1\tfits\t0\tobservatory\tcamera\tcamera-monitor\n", path.display())
    };
    assert_eq!(rows, [row("a.fits"), row("before.fits"), row("last.fits")].concat());
}
