//! What is wrong with the place that files come from is no file's fault; what is wrong with a file is told to the end.

use crate::support::archiver::{Place, Run, as_ordinary_user, is_root};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use crate::tables::{Age, Row, TARGET, Table, expect_all_proven};
use rustix::fs::{CWD, RenameFlags};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A folder whose file system is at the other end of a connection of its own.
struct FromAfar {
    sshd: Sshd,
    point: PathBuf,
}

impl FromAfar {
    /// Mounts one folder of the sources at another; `None` where none can be mounted.
    fn at(place: &Place, folder: &str, point: &str) -> Option<Self> {
        if !require("sshfs") || !require("ssh") {
            return None;
        }
        let sshd = Sshd::start("Subsystem sftp internal-sftp")?;
        let point = place.sources().join(point);
        fs::create_dir_all(&point).unwrap();
        let from = format!("{}@127.0.0.1:{}", sshd.user(), place.sources().join(folder).display());
        let mut sshfs = Command::new("sshfs");
        sshfs.arg(from).arg(&point).arg("-F/dev/null").arg(format!("-oport={}", sshd.port));
        sshfs.arg(format!("-oIdentityFile={}", sshd.client_key().display()));
        sshfs.arg(format!("-oUserKnownHostsFile={}", sshd.known_hosts().display()));
        let mounted = sshfs.stdin(Stdio::null()).output().unwrap();
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
            assert!(why.contains("fuse"), "{why}{}", sshd.log());
            eprintln!("SKIPPED: may not mount a file system; run as root with /dev/fuse: {why}");
            return None;
        }
        Some(Self { sshd, point })
    }
}

impl Drop for FromAfar {
    fn drop(&mut self) {
        self.sshd.signal("CONT");
        let _ = Command::new("umount").arg("-l").arg(&self.point).status();
    }
}

/// Rows of files below a folder of the sources.
fn rows_in(place: &Place, folder: &str, numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(|n| Row::new(place.source(format!("{folder}/{n:04}"), 500 + n, n))).collect()
}

/// Both ways, with a table each.
fn each_way(name: &str, test: impl Fn(&Place, &Table<'_>, &dyn Fn() -> Command)) {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    for way in ["local", "push", "pull"] {
        let far_end = |place: &Place| match way {
            "local" => place.run(),
            "push" => place.run_to(&sshd),
            _ => place.from(&sshd).command(),
        };
        eprintln!("{name}, {way}");
        let place = Place::make();
        let table = Table::new(server, &format!("{name}_{way}"), Age::V1);
        test(&place, &table, &|| {
            let mut command = far_end(&place);
            command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1"]);
            command
        });
    }
}

fn attempts(table: &Table<'_>) -> Vec<i64> {
    table.rows().iter().map(|row| row.attempts.unwrap()).collect()
}

fn lines(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

#[test]
fn a_run_with_an_end_waits_for_no_folder_and_counts_nothing_for_it() {
    each_way("once_away", |place, table, command| {
        let rows = rows_in(place, "mount/17950/a", 0..300);
        table.insert(&rows);
        let (there, away) = (place.sources().join("mount/17950"), place.sources().join("elsewhere"));
        fs::rename(&there, &away).unwrap();
        let once = || {
            let mut command = command();
            command.args(["--once", "-q"]);
            Run::to_end(command)
        };
        let over = once().expect(1);
        assert!(attempts(table).iter().all(|attempts| *attempts == 0), "{}", over.log);
        assert_eq!(over.log.lines().count(), 1, "{}", over.log);
        assert!(over.log.contains("17950") && over.log.contains("no attempt is counted"), "{}", over.log);
        fs::rename(&away, &there).unwrap();
        once().expect(0);
        expect_all_proven(place, table, &rows);
    });
}

#[test]
fn a_service_takes_files_up_by_itself_when_their_folder_is_back() {
    each_way("away", |place, table, command| {
        let mut rows = rows_in(place, "mount/a", 0..4);
        let (there, away) = (place.sources().join("mount"), place.sources().join("elsewhere"));
        fs::rename(&there, &away).unwrap();
        table.insert(&rows);
        let run = Run::start(command());
        wait_until("it is told", || run.log().contains("no attempt is counted"));
        // What comes from elsewhere does not wait, and meanwhile the folder is looked at again and again.
        for n in 10..14 {
            let row = rows_in(place, "other", n..n + 1);
            table.insert(&row);
            rows.extend(row);
            wait_until("a file of another folder", || table.copied() == (n - 9) as usize);
        }
        assert!(attempts(table).iter().all(|attempts| *attempts == 0), "{}", run.log());
        fs::rename(&away, &there).unwrap();
        wait_until("the files are back", || table.copied() == rows.len());
        let log = run.terminate().0.expect(0).log;
        assert_eq!(lines(&log, "no attempt is counted"), 1, "{log}");
        expect_all_proven(place, table, &rows);
    });
}

#[test]
fn most_files_of_a_batch_missing_at_once_are_no_fault_of_theirs() {
    each_way("most", |place, table, command| {
        let rows = rows_in(place, "a", 0..12);
        table.insert(&rows);
        let away = place.path("away");
        fs::create_dir(&away).unwrap();
        let moved: Vec<_> =
            rows[..7].iter().map(|row| (row.path.clone(), away.join(row.path.file_name().unwrap()))).collect();
        for (there, away) in &moved {
            fs::rename(there, away).unwrap();
        }
        let run = Run::start(command());
        wait_until("those that are there", || table.copied() == 5);
        wait_until("it is told", || run.log().contains("no attempt is counted"));
        assert_eq!(attempts(table), [0; 12]);
        // All in one step: a look while some are back would miss the others singly.
        let whole = place.path("whole");
        fs::create_dir(&whole).unwrap();
        for row in &rows {
            let name = row.path.file_name().unwrap();
            let from = if away.join(name).exists() { away.join(name) } else { row.path.clone() };
            fs::hard_link(from, whole.join(name)).unwrap();
        }
        let folder = rows[0].path.parent().unwrap();
        rustix::fs::renameat_with(CWD, &whole, CWD, folder, RenameFlags::EXCHANGE).unwrap();
        wait_until("the others", || table.copied() == 12);
        let log = run.terminate().0.expect(0).log;
        assert!(!log.contains("Not copied") && lines(&log, "no attempt is counted") == 1, "{log}");
        expect_all_proven(place, table, &rows);
    });
}

/// Unmounted when dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.0).status();
    }
}

/// A file system that goes away from under a folder leaves the folder, empty.
#[test]
fn files_wait_for_a_file_system_that_was_there_before() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    let (held, mounted) = (place.sources().join("held"), place.sources().join("mounted"));
    fs::create_dir(&held).unwrap();
    fs::create_dir(&mounted).unwrap();
    let mount = |args: &[&str]| Command::new("mount").args(args).status().is_ok_and(|status| status.success());
    let bind = || mount(&["--bind", held.to_str().unwrap(), mounted.to_str().unwrap()]);
    let _held = Mounted(held.clone());
    let _mounted = Mounted(mounted.clone());
    if !mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs", held.to_str().unwrap()]) {
        assert!(std::env::var_os("CI").is_none(), "Cannot mount a tmpfs; run the tests as root");
        eprintln!("SKIPPED: cannot mount a tmpfs; run as root");
        return;
    }
    assert!(bind());
    let table = Table::new(server, "unmounted", Age::V1);
    let rows: Vec<_> = (0..2).map(|n| Row::new(place.source(format!("mounted/f{n}"), 100 + n, n))).collect();
    table.insert(&rows[..1]);
    let mut command = place.run();
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1"]);
    let run = Run::start(command);
    wait_until("the first file", || table.copied() == 1);
    drop(Mounted(mounted.clone()));
    table.insert(&rows[1..]);
    wait_until("it is told", || run.log().contains("has lost the file system"));
    assert!(bind());
    wait_until("the second file", || table.copied() == 2);
    run.terminate().0.expect(0);
    assert_eq!(attempts(&table), [0, 0]);
}

/// Half of them, or few, or all of fewer than ten: each is missed by itself.
#[test]
fn single_files_that_are_missing_count() {
    each_way("few", |place, table, command| {
        let rows = rows_in(place, "a", 0..12);
        table.insert(&rows);
        for row in &rows[..6] {
            fs::remove_file(&row.path).unwrap();
        }
        let mut once = command();
        once.arg("--once");
        let over = Run::to_end(once).expect(1);
        assert_eq!(attempts(table), [[1; 6], [0; 6]].concat(), "{}", over.log);
        assert_eq!(lines(&over.log, "it is missing"), 6, "{}", over.log);
        // What is left of them is fewer than ten.
        let mut once = command();
        once.arg("--once");
        Run::to_end(once).expect(1);
        assert_eq!(attempts(table), [[2; 6], [0; 6]].concat());
    });
}

/// A folder that nobody may enter, as a file system that has lost its keys: the files wait. A single file that nobody may
/// read is its own fault.
#[test]
fn a_folder_that_cannot_be_entered_is_no_files_fault() {
    let Some(server) = MariaDb::shared() else { return };
    if !is_root() {
        eprintln!("SKIPPED: needs root, to become somebody who may not read");
        return;
    }
    let place = Place::make();
    fs::set_permissions(place.archive(), Permissions::from_mode(0o777)).unwrap();
    let table = Table::new(server, "closed", Age::V1);
    let rows = [rows_in(&place, "closed/below", 0..3), rows_in(&place, "open", 3..6)].concat();
    table.insert(&rows);
    let closed = place.sources().join("closed");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&rows[5].path, Permissions::from_mode(0o600)).unwrap();
    let mut command = place.run();
    command.args(["--once", "--db", &table.url, "--target", TARGET]);
    let over = Run::to_end(as_ordinary_user(command)).expect(1);
    assert_eq!(attempts(&table), [0, 0, 0, 0, 0, 1], "{}", over.log);
    assert!(over.log.contains(&format!("Folder {} cannot be entered", closed.display())), "{}", over.log);
    assert_eq!(table.copied(), 2);
}

/// Pauses double, also for rows that cannot be used; each failure names file and row, and giving up has a line of its own,
/// which is said even where only errors are. The reason can be read again, until the row gets a new chance or is proven.
#[test]
fn giving_up_is_told_with_its_reason_which_is_kept() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    let table = Table::new(server, "given_up", Age::V1);
    let keep = Row::new(place.source("a/kept", 10, 1));
    let missing = Row { path: place.sources().join("a/gone"), ..keep.clone() };
    let unusable = Row { pub_id: None, ..Row::new(place.source("a/no id", 10, 2)) };
    table.insert(&[missing.clone(), unusable.clone(), keep]);
    let mut command = place.run();
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1", "--max-copy-attempts", "3", "-q"]);
    let run = Run::start(command);
    wait_until("both are given up", || attempts(&table) == [3, 3, 0] && lines(&run.log(), "Given up") == 2);
    let over = run.terminate().0.expect(0);
    assert!(over.seconds > 0.1 * (2.0 + 4.0), "pauses double: {}", over.seconds);
    assert_eq!(over.log.lines().count(), 2, "{}", over.log);
    for (row, words) in [(&missing, "it is missing"), (&unusable, "column pub_id is empty")] {
        let line = over.log.lines().find(|line| line.contains(row.path.to_str().unwrap())).unwrap();
        assert!(line.contains("ERROR") && line.contains("after 3 failed attempts"), "{line}");
        assert!(line.to_lowercase().contains(words) && line.contains("retry"), "{line}");
    }
    let notes = || {
        table.execute("SELECT id, attempts, why FROM archiver_note WHERE table_name = 'pysmurf_files_v1' ORDER BY id")
    };
    let kept = notes();
    assert!(kept.starts_with("1\t3\tit is missing\n2\t3\t"), "{kept}");
    let retry = |more: &[&str]| {
        let mut command = place.program();
        command.args(["retry", "--db", &table.url, "--target", TARGET, "--max-copy-attempts", "3"]).args(more);
        Run::to_end(command).expect(0).log
    };
    let said = retry(&["--id", "1"]);
    assert!(said.contains(&format!("row 1, {}: it is missing", missing.path.display())), "{said}");
    assert!(said.contains("1 row will be tried again"), "{said}");
    assert!(notes().starts_with("2\t3\t"), "{}", notes());
    // Proven, it has no note any more.
    table.execute("UPDATE pysmurf_files_v1 SET pub_id = 'crate1slot2', failed_copy_attempts = 1 WHERE id = 2");
    let mut command = place.run();
    command.args(["--once", "--db", &table.url, "--target", TARGET]);
    Run::to_end(command).expect(1);
    assert_eq!(notes(), "1\t1\tit is missing\n");
}

/// An account that may not make our table copies all the same, and says why nothing is kept.
#[test]
fn reasons_are_only_in_the_log_where_no_table_can_be_made() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    let table = Table::new(server, "no_notes", Age::V1);
    let row = Row::new(place.source("a/kept", 10, 1));
    table.insert(&[Row { path: place.sources().join("a/gone"), ..row.clone() }, row]);
    server.execute("REVOKE ALL ON no_notes.* FROM no_notes; GRANT SELECT, UPDATE ON no_notes.* TO no_notes");
    let mut command = place.run();
    command.args(["--once", "--db", &table.url, "--target", TARGET]);
    let over = Run::to_end(command).expect(1);
    assert_eq!((attempts(&table), table.copied()), (vec![1, 0], 1), "{}", over.log);
    assert_eq!(lines(&over.log, "Why rows fail is said only in this log"), 1, "{}", over.log);
}

/// What hangs in the kernel cannot be called back. It is left to itself, and everything else goes on.
#[test]
fn a_file_system_that_stops_answering_holds_up_its_own_files_alone() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    for way in ["local", "push"] {
        let place = Place::make();
        let table = Table::new(server, &format!("hung_{way}"), Age::V1);
        // What is there has been read, and the rest of the large file has not, when nothing answers any more.
        let real = |name: &str, len: u64, seed: u64| place.source(format!("real/{name}"), len, seed);
        let hung: Vec<_> =
            (0..12).map(|n| real(&format!("f{n:02}"), if n == 0 { 40 << 20 } else { 100 + n }, n)).collect();
        let Some(mounted) = FromAfar::at(&place, "real", "mnt") else { return };
        let hung: Vec<_> = hung
            .into_iter()
            .map(|(path, md5)| Row::new((mounted.point.join(path.file_name().unwrap()), md5)))
            .collect();
        table.insert(&hung[..1]);
        let mut command = if way == "local" { place.run() } else { place.run_to(&sshd) };
        command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1", "--source-timeout", "1"]);
        command.args(["--bwlimit", "8m"]);
        let run = Run::start(command);
        wait_until("the large file on its way", || place.tree().files().any(|(_, stand)| stand.len > 1 << 20));
        mounted.sshd.signal("STOP");
        table.insert(&hung[1..]);
        let others = rows_in(&place, "elsewhere", 100..120);
        table.insert(&others);
        wait_until(&format!("the others, {way}"), || table.copied() == others.len());
        wait_until(&format!("the trouble is told, {way}"), || lines(&run.log(), "has not answered within 1 s") > 0);
        assert!(attempts(&table).iter().all(|attempts| *attempts == 0), "{}", run.log());
        mounted.sshd.signal("CONT");
        wait_until(&format!("all, {way}: {}", run.log()), || table.copied() == hung.len() + others.len());
        let log = run.log();
        run.terminate().0.expect(0);
        let all: Vec<_> = hung.into_iter().chain(others).collect();
        expect_all_proven(&place, &table, &all);
        assert!(attempts(&table).iter().all(|attempts| *attempts == 0), "{log}");
        let told = |words| lines(&log, words);
        assert_eq!((told("has not answered within 1 s;"), told("taken up again")), (1, 1), "{way}: {log}");
    }
}
