//! Every kind of row ends as the contract says, and a second run finds nothing to do.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, as_ordinary_user, is_root, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::tables::{Age, Row, STARTED, Stands, TARGET, TIME, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// What is to become of a row.
#[derive(Debug, Clone)]
enum Fate {
    /// Copied to this path below the archive.
    Copied(Vec<u8>),
    /// Tried once in each run, path as it was.
    Fails,
    /// Left alone.
    Untouched,
}

struct Case {
    what: String,
    row: Row,
    fate: Fate,
}

const ODD: [&str; 16] = [
    "plain",
    "with  blanks ",
    "quote'\"`",
    "new\nline",
    "naïve ☃ 文件 🔭",
    "$(touch pwned)",
    "back\\slash\\n",
    "semi;colon&|",
    "*?[a]",
    "~",
    "tab\t",
    "host:colon",
    "%s %n",
    "\u{1}\u{7f}",
    "e\u{301} combining",
    "#hash!",
];

/// Where the contract puts a row, relative to the archive.
fn belongs(row: &Row, age: Age) -> Vec<u8> {
    let digits = row.timestamp.to_string()[..5].to_owned();
    let name = row.name();
    let folder = match age {
        Age::V0 => format!("{digits}/{}/", row.action.as_ref().unwrap()),
        Age::V1 => {
            let text = String::from_utf8_lossy(&name).into_owned();
            let in_name = text.split('_').next().unwrap().parse::<i64>().ok();
            let started = row.action_timestamp.or(in_name).unwrap_or(row.timestamp);
            let action = row.action.as_deref().unwrap_or("None");
            let kind = if row.plot { "plots" } else { "outputs" };
            format!("{digits}/{}/{started}_{action}/{kind}/", row.pub_id.as_ref().unwrap())
        }
    };
    [folder.as_bytes(), &name].concat()
}

/// `count` rows of every kind.
fn cases(place: &Place, age: Age, count: usize, large: &[u64]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |what: &str, row: Row, fate: Option<Fate>| {
        let fate = fate.unwrap_or_else(|| Fate::Copied(belongs(&row, age)));
        cases.push(Case { what: what.to_owned(), row, fate });
    };
    let plain = |name: &str, len: u64, seed: u64| Row::new(place.source(name, len, seed));
    let fails = || Some(Fate::Fails);

    let missing = Row { path: place.sources().join("never-was.npy"), ..plain("x-missing", 1, 1) };
    add("missing", missing, fails());
    add("first of a name", plain("a/1589517300_dup.npy", 5000, 2), None);
    add("sum is wrong", Row { md5: [7; 16], ..plain("wrong-sum.npy", 70_000, 3) }, fails());
    let other = plain("b/1589517300_dup.npy", 5000, 4);
    let path = [&belongs(&other, age)[..], b".1"].concat();
    add("second of a name", other, Some(Fate::Copied(path)));
    let third = plain("c/1589517300_dup.npy", 5001, 5);
    let path = [&belongs(&third, age)[..], b".2"].concat();
    add("third of a name", third, Some(Fate::Copied(path)));
    add(
        "same name, same bytes",
        plain("d/1589517300_dup.npy", 5000, 2),
        Some(Fate::Copied(belongs(&plain("a/1589517300_dup.npy", 5000, 2), age))),
    );
    let folder = place.sources().join("a-folder.npy");
    fs::create_dir(&folder).unwrap();
    add("a directory", Row { path: folder, ..plain("y", 1, 1) }, fails());
    let unreadable = plain("unreadable.npy", 100, 6);
    fs::set_permissions(&unreadable.path, Permissions::from_mode(if is_root() { 0o600 } else { 0 })).unwrap();
    add("unreadable", unreadable, fails());
    // The table takes the path of the file, but not that of its copy.
    let long = "l".repeat(250 - place.sources().as_os_str().len());
    add("path too long", plain(&long, 10, 7), fails());
    let none = Row { path: place.sources().join("../"), ..plain("z", 1, 1) };
    add("no file name", none, fails());
    if age == Age::V1 {
        add("no pub_id", Row { pub_id: None, ..plain("no-pub-id.npy", 10, 8) }, fails());
        add("pub_id leaves", Row { pub_id: Some("..".into()), ..plain("dots-id.npy", 10, 8) }, fails());
        add("action leaves", Row { action: Some("../../../x".into()), ..plain("dots.npy", 10, 9) }, fails());
        add("no action", Row { action: None, ..plain("no-action.npy", 10, 10) }, None);
        add("time in the name", Row { action_timestamp: None, ..plain("1589517300_n.npy", 10, 11) }, None);
        add("no time of action", Row { action_timestamp: None, ..plain("noats.npy", 10, 12) }, None);
    } else {
        add("type leaves", Row { action: Some("..".into()), ..plain("dots.npy", 10, 9) }, fails());
    }
    add("copied before", Row { copied: 1, ..plain("old.npy", 10, 13) }, Some(Fate::Untouched));
    add("given up before", Row { attempts: Some(5), ..plain("dead.npy", 10, 14) }, Some(Fate::Untouched));
    add("attempts are NULL", Row { attempts: None, ..plain("null.npy", 10, 15) }, Some(Fate::Untouched));
    add("another monitor's", Row { instance: "other".into(), ..plain("other.npy", 10, 16) }, Some(Fate::Untouched));
    add("failed before", Row { attempts: Some(4), ..plain("fourth.npy", 10, 17) }, None);
    for (n, name) in ["-leading", "--rsh=touch pwned", "-", ".hidden", "...", " ", "\n"].iter().enumerate() {
        add("odd name", plain(name, 900 + n as u64, 20 + n as u64), None);
    }
    for (n, &len) in large.iter().enumerate() {
        add("large", plain(&format!("158951{n}000_large.g3"), len, 50 + n as u64), None);
    }
    let sizes = [0, 1, 699, 700, 701, 1023, 4096, 33_000, 65_536, 262_145, 1_000_003];
    for n in cases.len()..count {
        let row =
            plain(&format!("{}_{n}{}.npy", STARTED + n as i64, ODD[n % ODD.len()]), sizes[n % sizes.len()], n as u64);
        let row = Row {
            timestamp: TIME + (n % 5) as i64 * 100_000,
            plot: n % 3 == 0,
            pub_id: Some(format!("crate1slot{}", n % 7)),
            action: Some(["take_iv", "tracking setup", "it's", "é"][n % 4].into()),
            ..row
        };
        cases.push(Case { what: "many".into(), fate: Fate::Copied(belongs(&row, age)), row });
    }
    for (n, case) in cases.iter().enumerate() {
        let Ok(file) = File::open(&case.row.path) else { continue };
        // The one that is there already for another one's sake gets the latter's times.
        let n = if case.what == "same name, same bytes" { 1 } else { n as u64 };
        if file.metadata().unwrap().is_file() {
            file.set_modified(UNIX_EPOCH + Duration::new(1_500_000_000 + n * 86_399, 123_456_789)).unwrap();
            if case.what != "unreadable" {
                let mode = [0o644, 0o664, 0o444, 0o755][n as usize % 4];
                fs::set_permissions(&case.row.path, Permissions::from_mode(mode)).unwrap();
            }
        }
    }
    cases
}

/// Fails unless table and archive are as the cases say after so many runs.
fn expect(place: &Place, before: &[Stands], after: &[Stands], cases: &[Case], runs: i64) {
    let archive = place.archive();
    assert_eq!((before.len(), after.len()), (cases.len(), cases.len()));
    let mut files = BTreeMap::new();
    for ((case, before), after) in cases.iter().zip(before).zip(after) {
        let what = format!("{}: row {} {:?}", case.what, before.id, case.row.path);
        let mut want = before.clone();
        match &case.fate {
            Fate::Copied(path) => {
                want.copied = 1;
                want.path = [archive.as_os_str().as_bytes(), b"/", path].concat();
                files.insert(path.clone(), &case.row);
            }
            Fate::Fails => want.attempts = Some(runs),
            Fate::Untouched => {}
        }
        assert_eq!(*after, want, "{what}; is at {}", String::from_utf8_lossy(&after.path));
    }
    expect_tree(place, &files);
}

fn expect_tree(place: &Place, files: &BTreeMap<Vec<u8>, &Row>) {
    let archive = place.archive();
    let tree = place.tree();
    let names: BTreeSet<_> = tree.files().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    let wanted: BTreeSet<_> = files.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, wanted);
    for (name, row) in files {
        let path = archive.join(OsStr::from_bytes(name));
        let source = fs::metadata(&row.path).unwrap();
        let copy = fs::metadata(&path).unwrap();
        assert_eq!(md5_of(&path), row.md5, "{path:?}");
        assert_eq!(copy.mode(), source.mode(), "{path:?}");
        assert_eq!((copy.mtime(), copy.mtime_nsec()), (source.mtime(), source.mtime_nsec()), "{path:?}");
    }
    for folder in tree.0.keys().filter(|name| name.ends_with(b"/")) {
        assert!(files.keys().any(|name| name.starts_with(folder)), "{}", String::from_utf8_lossy(folder));
    }
    assert!(!place.path("pwned").exists() && !archive.join("pwned").exists());
}

/// One run over the cases, and a second one.
fn archive_twice(place: &Place, table: &Table<'_>, cases: &[Case], command: impl Fn() -> Command) {
    table.insert(&cases.iter().map(|case| case.row.clone()).collect::<Vec<_>>());
    let before = table.rows();
    let over = Run::to_end(as_ordinary_user(command())).expect(1);
    eprintln!("{}: {} rows in {:.1} s, {} KiB", table.name, cases.len(), over.seconds, over.peak_kib);
    expect(place, &before, &table.rows(), cases, 1);
    let failing = cases.iter().filter(|case| matches!(case.fate, Fate::Fails)).count();
    let said = over.log.lines().filter(|line| line.contains("ERROR") && line.contains("Not copied")).count();
    assert_eq!(said, failing, "{}", over.log);
    let changed = |line: &&str| line.contains("wrong-sum.npy") && line.contains("its MD5 is another one now");
    assert_eq!(over.log.lines().filter(changed).count(), 1, "{}", over.log);
    let tree = place.tree().without_directories();
    let again = Run::to_end(as_ordinary_user(command()));
    eprintln!("{}: a second run ends with {:?} after {:.1} s", table.name, again.status.code(), again.seconds);
    // What fails has one attempt more, and nothing else is touched.
    assert_eq!(again.status.code(), Some(1), "{}", again.log);
    expect(place, &before, &table.rows(), cases, 2);
    assert_eq!(place.tree().without_directories(), tree);
}

#[test]
fn three_hundred_rows_to_stock_rsync() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "rows300", Age::V1);
    let cases = cases(&place, Age::V1, 300, &[200 << 20, (10 << 20) + 1, 25_000_000, 50 << 20]);
    archive_twice(&place, &table, &cases, || {
        let mut command = place.run_to(&sshd);
        command.args(["--once", "--db", &table.url, "--target", TARGET, "second"]);
        command
    });
}

#[test]
fn rows_of_the_older_table_to_our_own_far_end() {
    let (Some(server), Some(sshd)) = (MariaDb::shared(), Sshd::start("")) else { return };
    let place = Place::make();
    let table = Table::new(server, "rows_v0", Age::V0);
    let cases = cases(&place, Age::V0, 80, &[5 << 20]);
    archive_twice(&place, &table, &cases, || {
        let mut command = FarEnd { rsync_path: PROGRAM.into(), ..place.behind(&sshd) }.command();
        command.args(["--once", "--db", &table.url, "--target", TARGET, "--workers", "2"]);
        command
    });
}

#[test]
fn rows_to_a_local_folder() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::make();
    if is_root() {
        fs::set_permissions(place.archive(), Permissions::from_mode(0o777)).unwrap();
    }
    let table = Table::new(server, "rows_local", Age::V1);
    let cases = cases(&place, Age::V1, 80, &[5 << 20]);
    archive_twice(&place, &table, &cases, || {
        let mut command = place.run();
        command.args(["--once", "--db", &table.url, "--target", TARGET]);
        command
    });
}

/// The sources are root's, who reads everything, and the archive is the ordinary user's.
fn pulled(name: &str, age: Age, count: usize, large: &[u64], far_end: impl Fn(&Place, &Sshd) -> Command) {
    let (Some(server), Some(sshd)) = (MariaDb::shared(), Sshd::start("")) else { return };
    let place = Place::make();
    let table = Table::new(server, name, age);
    let mut cases = cases(&place, age, count, large);
    if is_root() {
        fs::set_permissions(place.archive(), Permissions::from_mode(0o777)).unwrap();
        for case in cases.iter_mut().filter(|case| case.what == "unreadable") {
            case.fate = Fate::Copied(belongs(&case.row, age));
        }
    }
    archive_twice(&place, &table, &cases, || {
        let mut command = far_end(&place, &sshd);
        command.args(["--once", "--db", &table.url, "--target", TARGET]);
        command
    });
}

#[test]
fn three_hundred_rows_pulled_from_stock_rsync() {
    if require("rsync") {
        let large = [100 << 20, (10 << 20) + 1, 25_000_000];
        pulled("pull300", Age::V1, 300, &large, |place, sshd| place.from(sshd).command());
    }
}

#[test]
fn rows_pulled_from_our_own_server() {
    pulled("pullours", Age::V0, 60, &[30 << 20], |place, sshd| {
        FarEnd { rsync_path: PROGRAM.into(), ..place.from(sshd) }.command()
    });
}
