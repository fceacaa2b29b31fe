//! `monitor`: real datagrams, a real database, and a process that may end at any moment.

use crate::support::archiver::{Over, PROGRAM, Place, Run, hex};
use crate::support::mariadb::MariaDb;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, Table};
use rusqlite::{Connection, OpenFlags};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// MD5 of "abc\n".
const ABC: &str = "0bee89b07a248e27c83fc3d5951213c1";
/// What files of these messages are named by.
const USUAL: &str = "15895/crate1slot2/1589517264_save_tune";

/// Fields of a payload, as JSON has them.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// A place with a spool and a database, and what is sent there.
pub(crate) struct Scene {
    pub(crate) place: Place,
    publisher: UdpSocket,
    number: Cell<u64>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let publisher = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self { place: Place::make(), publisher, number: Cell::new(0) }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.place.path("so.db")
    }

    pub(crate) fn command(&self, verb: &[&str]) -> Command {
        let mut command = self.place.program();
        command.arg("monitor").args(verb).arg("--spool").arg(self.place.path("spool"));
        command
    }

    pub(crate) fn monitor_with(&self, more: &[&str]) -> Listening {
        let mut command = self.command(&[]);
        command.args(["--udp-bind", "127.0.0.1", "--udp-port", "0"]).args(more);
        if !more.contains(&"--db") {
            command.arg("--db-path").arg(self.database());
        }
        Listening::start(command)
    }

    fn monitor(&self) -> Listening {
        self.monitor_with(&[])
    }

    pub(crate) fn rejects(&self, more: &[&str]) -> Over {
        let mut command = self.command(&["rejects"]);
        command.args(more);
        Run::to_end(command)
    }

    /// Writes a file with "abc\n" in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let path = self.place.sources().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "abc\n").unwrap();
        path
    }

    /// The message that announces a file, with these fields of its payload in the place of the usual ones.
    fn message(&self, path: &str, changed: &[(&str, &str)]) -> Vec<u8> {
        let number = self.number.replace(self.number.get() + 1);
        let mut fields = vec![
            ("path", format!("{path:?}")),
            ("type", "\"tune\"".into()),
            ("format", "\"txt\"".into()),
            ("timestamp", "1589517264.5".into()),
            ("action", "\"save_tune\"".into()),
            ("action_ts", "1589517264".into()),
            ("plot", "false".into()),
            ("pysmurf_version", "\"7.0.0\"".into()),
        ];
        for (name, value) in changed {
            fields.retain(|(field, _)| field != name);
            if !value.is_empty() {
                fields.push((name, (*value).to_owned()));
            }
        }
        let payload: Vec<_> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        let payload = payload.join(",");
        format!("{{\"host\":\"h\",\"id\":\"crate1slot2\",\"script\":\"undeclared\",\"time\":1589517264.71,\"seq_no\":{number},\"type\":\"data_file\",\"payload\":{{{payload}}}}}").into_bytes()
    }

    fn send(&self, to: &Listening, message: &[u8]) {
        self.publisher.send_to(message, to.address).unwrap();
    }

    /// Announces a file.
    pub(crate) fn announce(&self, to: &Listening, path: &Path, changed: &[(&str, &str)]) {
        self.send(to, &self.message(path.to_str().unwrap(), changed));
    }

    /// Source, place, sum, archive, and whether it may be deleted, of all rows in their order.
    pub(crate) fn rows(&self) -> Vec<(String, String, String, String, bool)> {
        rows_of(&self.database())
    }

    fn wait_for_rows(&self, count: usize) {
        wait_until(&format!("{count} rows"), || self.rows().len() >= count);
        assert_eq!(self.rows().len(), count);
    }

    /// How often each file name stands in the table.
    pub(crate) fn names(&self) -> Vec<String> {
        let rows = self.rows().into_iter();
        rows.map(|row| Path::new(&row.0).file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }
}

fn rows_of(database: &Path) -> Vec<(String, String, String, String, bool)> {
    let Ok(connection) = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY) else {
        return Vec::new();
    };
    let query = "SELECT local_path, remote_path, local_md5sum, archive_name, deletable FROM supersync_v0 \
                 WHERE failed_copy_attempts = 0 AND \"ignore\" = 0 AND timestamp > 1e9 AND coalesce(copied, removed, remote_md5sum) IS NULL ORDER BY id";
    let Ok(mut statement) = connection.prepare(query) else { return Vec::new() };
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)));
    rows.and_then(Iterator::collect).unwrap_or_default()
}

/// A monitor that listens.
pub(crate) struct Listening {
    pub(crate) run: Run,
    pub(crate) address: SocketAddr,
}

impl Listening {
    fn start(command: Command) -> Self {
        let run = Run::start(command);
        let mut address = None;
        wait_until("it listens", || {
            let log = run.log();
            let said = log.split("Listening at UDP ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
            address = said;
            address.is_some() || log.contains("pysmurf-archiver:")
        });
        let address = address.unwrap_or_else(|| panic!("{}", run.log()));
        Self { run, address }
    }

    pub(crate) fn wait_for(&self, words: &str) {
        wait_until(words, || self.run.log().contains(words));
    }

    pub(crate) fn end(self) -> Over {
        self.run.terminate().0.expect(0)
    }
}

#[test]
fn what_publishers_announce_becomes_the_rows_that_the_python_monitor_makes() {
    let scene = Scene::new();
    let monitor = scene.monitor();
    let known: &[(&str, &str, Fields<'_>, &str)] = &[
        ("a1_plain.npy", "a1_plain", &[("format", "\"npy\"")], "{}/outputs/a1_plain.npy"),
        ("a2_x.npy", "a2_x.npy", &[("format", "\"npy\"")], "{}/outputs/a2_x.npy"),
        ("b9.NPY.npy", "b9.NPY", &[("format", "\"npy\"")], "{}/outputs/b9.NPY.npy"),
        ("a3.txt", "a3.txt", &[("plot", "\"no\"")], "{}/plots/a3.txt"),
        (
            "a5.txt",
            "a5.txt",
            &[("action", "null"), ("action_ts", "null")],
            "15895/crate1slot2/None_None/outputs/a5.txt",
        ),
        (
            "d2.txt",
            "d2.txt",
            &[("action", "5"), ("action_ts", "1589517264.9")],
            "15895/crate1slot2/1589517264.9_5/outputs/d2.txt",
        ),
        ("b5.txt", "b5.txt", &[("action", "\"../x\"")], "15895/crate1slot2/1589517264_../x/outputs/b5.txt"),
        ("nan", "nan", &[("timestamp", "NaN")], "nan/crate1slot2/1589517264_save_tune/outputs/nan"),
        ("a \u{e9}\u{f1}", "a \u{e9}\u{f1}", &[], "{}/outputs/a \u{e9}\u{f1}"),
    ];
    let mut wanted = Vec::new();
    for (name, said, changed, remote) in known {
        let path = scene.file(name);
        scene.announce(&monitor, &path.with_file_name(said), changed);
        wanted.push((
            path.to_str().unwrap().to_owned(),
            remote.replace("{}", USUAL),
            ABC.to_owned(),
            "smurf".to_owned(),
            false,
        ));
    }
    // The same once more, and in another encoding, is another row each; what is no file is none.
    let again = wanted[1].clone();
    let message = scene.message(&again.0, &[("format", "\"npy\"")]);
    scene.send(&monitor, &message);
    let wide: Vec<u8> = String::from_utf8(message).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    scene.send(&monitor, &wide);
    wanted.extend([again.clone(), again]);
    scene.send(&monitor, b"{\"id\":\"i\",\"type\":\"log\",\"seq_no\":0,\"payload\":{\"message\":\"m\"}}");
    let stream = scene.file("15895/x/y.g3");
    let g3 = format!(
        "{{\"id\":\"STREAMER:s\",\"type\":\"g3_file\",\"payload\":{{\"path\":{stream:?},\"archive_name\":\"timestreams\"}}}}"
    );
    scene.send(&monitor, g3.as_bytes());
    wanted.push((stream.to_str().unwrap().to_owned(), "15895/x/y.g3".into(), ABC.into(), "timestreams".into(), true));
    scene.wait_for_rows(wanted.len());
    let mut rows = scene.rows();
    // The order holds within an archive.
    rows.sort_by_key(|row| row.3.clone());
    assert_eq!(rows, wanted);
    let over = monitor.end();
    assert!(over.log.contains("12 registered"), "{}", over.log);
}

/// M1, M5 to M9.
#[test]
fn what_the_python_monitor_loses_is_registered_or_told() {
    let scene = Scene::new();
    let monitor = scene.monitor_with(&["--patience", "1"]);
    // M1: longer than 8192 bytes, and as long as datagrams get.
    let long = scene.file("long");
    let filling = "x".repeat(65_507 - scene.message(long.to_str().unwrap(), &[("more", "\"\"")]).len());
    scene.announce(&monitor, &long, &[("more", &format!("{filling:?}"))]);
    // M5, M7.
    let bare = scene.file("bare");
    scene.announce(&monitor, &bare, &[("action", ""), ("action_ts", ""), ("plot", ""), ("timestamp", "")]);
    let short = tempfile::Builder::new().prefix("monitor").tempfile_in("/tmp").unwrap();
    scene.announce(&monitor, short.path(), &[]);
    // M6: what is not there does not keep those behind it.
    let absent = scene.place.sources().join("absent");
    scene.announce(&monitor, &absent, &[]);
    let behind = scene.file("behind");
    scene.announce(&monitor, &behind, &[]);
    scene.wait_for_rows(4);
    let remote = |at: usize| scene.rows()[at].1.clone();
    assert_eq!(remote(1), "15895/crate1slot2/None_None/outputs/bare");
    assert!(scene.names().last().unwrap() == "behind");
    // M8, M9, and what is no message.
    let unknown =
        format!("{{\"id\":\"i\",\"type\":\"g3_file\",\"payload\":{{\"path\":{behind:?},\"archive_name\":\"other\"}}}}");
    scene.send(&monitor, unknown.as_bytes());
    scene.send(&monitor, b"{\"id\":\"i\",\"type\":\"data_file\",\"payload\":{\"path\":\"/a/b/\\udc80\"}}");
    scene.send(&monitor, b"\xffnonsense");
    scene.send(&monitor, b"\xffand more of it");
    monitor.wait_for("nonsense");
    monitor.wait_for("also after 1 s");
    let told = scene.rejects(&[]).expect(1).log;
    for words in ["No such file", "archive is \"other\"", "\\udc80", "no text in UTF-8", "5 messages rejected, 0 wait"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(
        scene.rejects(&["--json"]).log.lines().filter(|line| line.contains("\"state\":\"rejected\"")).count(),
        5
    );
    // Of what is no message at all a sender's first is told, and the others are counted.
    assert!(!monitor.run.log().contains("and more of it"));
    // It is there at last.
    scene.file("absent");
    let ordered = scene.rejects(&["--retry"]).expect(0).log;
    assert_eq!(ordered, "5 messages will be tried again now\n");
    scene.wait_for_rows(5);
    assert_eq!(scene.names().last().unwrap(), "absent");
    wait_until("the others are rejected again", || scene.rejects(&[]).log.contains("4 messages rejected, 0 wait"));
    drop(monitor.end());
}

#[test]
fn a_file_that_comes_late_is_registered_once_also_over_a_restart() {
    let scene = Scene::new();
    let monitor = scene.monitor();
    let late = scene.place.sources().join("late");
    scene.announce(&monitor, &late, &[]);
    monitor.wait_for("Waiting for");
    scene.announce(&monitor, &scene.file("next"), &[]);
    scene.wait_for_rows(1);
    monitor.run.kill();
    scene.file("late");
    let monitor = scene.monitor();
    scene.wait_for_rows(2);
    drop(monitor.end());
    let monitor = scene.monitor();
    scene.announce(&monitor, &scene.file("last"), &[]);
    scene.wait_for_rows(3);
    assert_eq!(scene.names(), ["next", "late", "last"]);
    assert!(scene.rejects(&[]).expect(0).log.contains("0 messages rejected, 0 wait"));
}

/// M2, M3: what arrived is registered once, whenever the process was killed. What is sent while nobody listens is lost to UDP.
#[test]
fn each_message_that_arrived_is_registered_once_wherever_the_process_was_killed() {
    let scene = Scene::new();
    let files: Vec<_> = (0..40).map(|n| scene.file(&format!("f{n:03}"))).collect();
    let mut sent = 0;
    for round in 0..12 {
        let monitor = scene.monitor();
        let spool = scene.place.path("spool");
        let held = || -> u64 {
            let files = fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap());
            files
                .filter(|file| file.path().extension().is_some_and(|end| end == "spool"))
                .map(|file| file.metadata().unwrap().len())
                .sum()
        };
        let (before, rows) = (held(), scene.rows().len());
        for n in 0..200 {
            scene.announce(&monitor, &files[n % files.len()], &[("n", &sent.to_string())]);
            sent += 1;
        }
        // All are in the spool for good; registering is under way, further on from round to round.
        let whole = 200 * scene.message(files[0].to_str().unwrap(), &[]).len() as u64;
        wait_until("they are in the spool", || held() >= before + whole || scene.rows().len() >= sent);
        wait_until("some are registered", || scene.rows().len() >= (rows + round * 15).min(sent));
        monitor.run.kill();
    }
    let monitor = scene.monitor();
    scene.wait_for_rows(sent);
    drop(monitor.end());
    let names = scene.names();
    let each = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap());
    assert!(each.into_iter().all(|file| names.iter().filter(|name| *name == file).count() == sent / files.len()));
}

/// M4, M10: locked, and no database at all.
#[test]
fn files_wait_for_a_database_that_is_locked_or_none_and_stopping_loses_none() {
    let scene = Scene::new();
    drop(scene.monitor().end());
    let lock = Connection::open(scene.database()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let monitor = scene.monitor();
    (0..3).for_each(|n| scene.announce(&monitor, &scene.file(&format!("locked{n}")), &[]));
    monitor.wait_for("locked");
    drop(monitor.end());
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    let kept = scene.place.path("kept.db");
    fs::rename(scene.database(), &kept).unwrap();
    for end in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", scene.database().display()));
    }
    fs::write(scene.database(), "this is no database, and long enough to be looked at".repeat(100)).unwrap();
    let monitor = scene.monitor();
    scene.announce(&monitor, &scene.file("unfit"), &[]);
    monitor.wait_for("not a database");
    fs::rename(&kept, scene.database()).unwrap();
    scene.wait_for_rows(4);
    assert_eq!(scene.names(), ["locked0", "locked1", "locked2", "unfit"]);
    drop(monitor.end());
}

/// M11.
#[test]
fn a_database_that_was_taken_away_or_replaced_is_noticed() {
    let scene = Scene::new();
    let monitor = scene.monitor();
    scene.announce(&monitor, &scene.file("one"), &[]);
    // The row alone is not enough: until its writer has the answer it does not know that it is registered.
    monitor.wait_for("Registered ");
    scene.wait_for_rows(1);
    let aside = scene.place.path("aside.db");
    for end in ["", "-wal", "-shm"] {
        let from = format!("{}{end}", scene.database().display());
        let _ = fs::rename(from, format!("{}{end}", aside.display()));
    }
    scene.announce(&monitor, &scene.file("two"), &[]);
    monitor.wait_for("not there any more");
    // Another one in its place: what the former had is not registered once more.
    let fresh = Command::new(PROGRAM)
        .args(["init-db", "--db"])
        .arg(format!("sqlite:{}", scene.place.path("new.db").display()))
        .output();
    assert!(fresh.unwrap().status.success());
    fs::rename(scene.place.path("new.db"), scene.database()).unwrap();
    scene.wait_for_rows(1);
    assert_eq!(scene.names(), ["two"]);
    assert_eq!(rows_of(&aside).len(), 1);
    // The former one once more: it gets what it lacks, for as long as the spool has it.
    monitor.wait_for("takes files again");
    for end in ["", "-wal", "-shm"] {
        let to = format!("{}{end}", scene.database().display());
        let _ = fs::remove_file(&to);
        let _ = fs::rename(format!("{}{end}", aside.display()), to);
    }
    scene.announce(&monitor, &scene.file("three"), &[]);
    scene.wait_for_rows(3);
    assert_eq!(scene.names(), ["one", "two", "three"]);
    drop(monitor.end());
}

#[test]
fn a_full_spool_has_messages_wait_in_memory_and_tells_how_many_are_lost_beyond() {
    let scene = Scene::new();
    drop(scene.monitor().end());
    let lock = Connection::open(scene.database()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let monitor = scene.monitor_with(&["--spool-mib", "16", "--memory-mib", "4"]);
    let file = scene.file("f");
    let filling = format!("{:?}", "x".repeat(60_000));
    let mut sent = 0;
    let mut send = || {
        scene.announce(&monitor, &file, &[("n", &sent.to_string()), ("more", &filling)]);
        sent += 1;
    };
    wait_until("a full spool", || {
        send();
        monitor.run.log().contains("holds the 16777216 bytes that it may")
    });
    // More than the memory holds.
    (0..100).for_each(|_| send());
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    monitor.wait_for("The spool takes messages again");
    let rows = || scene.rows().len();
    // There is room for it now, and it is registered behind all that was not lost.
    scene.announce(&monitor, &scene.file("last"), &[]);
    wait_until("the last", || scene.names().last().is_some_and(|name| name == "last"));
    let log = monitor.end().log;
    let count = |what: &str| {
        let ended = log.lines().last().unwrap();
        let before = ended.split(what).next().unwrap().trim_end().rsplit([' ', ',']).next().unwrap();
        if ended.contains(what) { before.parse::<usize>().unwrap() } else { 0 }
    };
    let (dropped, lost) = (count(" dropped by the kernel"), count(" lost"));
    assert_eq!(rows() + dropped + lost, sent + 1, "{}", log.lines().last().unwrap());
    assert!(lost > 0, "{}", log.lines().last().unwrap());
}

#[test]
fn only_networks_that_are_allowed_are_listened_to_and_missing_numbers_are_told() {
    let scene = Scene::new();
    let monitor = scene.monitor_with(&["--udp-allow", "10.0.0.0/8"]);
    scene.announce(&monitor, &scene.file("one"), &[]);
    monitor.wait_for("which no --udp-allow names");
    assert!(monitor.end().log.contains("1 of strangers"));
    let monitor = scene.monitor_with(&["--udp-allow", "10.0.0.0/8", "--udp-allow", "127.0.0.1/32"]);
    scene.announce(&monitor, &scene.file("two"), &[]);
    scene.number.set(scene.number.get() + 100);
    scene.announce(&monitor, &scene.file("three"), &[]);
    scene.wait_for_rows(2);
    let log = monitor.end().log;
    assert!(log.contains("messages of publisher crate1slot2 at 127.0.0.1"), "{log}");
}

#[test]
fn names_that_lead_elsewhere_are_rejected_where_that_is_asked_for() {
    let scene = Scene::new();
    let monitor = scene.monitor_with(&["--plain-names"]);
    scene.announce(&monitor, &scene.file("up"), &[("action", "\"../x\"")]);
    scene.announce(&monitor, &scene.file("down"), &[("action", "\"a/b\"")]);
    scene.announce(&monitor, &scene.file("plain"), &[]);
    scene.wait_for_rows(1);
    assert_eq!(scene.names(), ["plain"]);
    drop(monitor.end());
    let told = scene.rejects(&[]).expect(1).log;
    assert!(told.contains("leads elsewhere") && told.contains("2 messages rejected"), "{told}");
}

#[test]
fn a_burst_is_registered_in_the_order_of_its_arrival() {
    let scene = Scene::new();
    let monitor = scene.monitor();
    let files: Vec<_> = (0..2000).map(|n| scene.file(&format!("f{n:05}"))).collect();
    for file in &files {
        scene.announce(&monitor, file, &[]);
    }
    scene.wait_for_rows(files.len());
    let wanted: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(scene.names(), wanted);
    // One spool, one monitor.
    let other = Run::to_end({
        let mut command = scene.command(&[]);
        command.args(["--udp-port", "0", "--db-path"]).arg(scene.database());
        command
    });
    assert!(other.expect(2).log.contains("Another monitor uses the spool"));
    drop(monitor.end());
}

#[test]
fn the_pysmurf_tables_get_the_rows_of_the_monitor_before_suprsync() {
    let Some(server) = MariaDb::shared() else { return };
    let scene = Scene::new();
    let table = Table::new(server, "monitor_rows", Age::V1);
    let monitor = scene.monitor_with(&["--db", &table.url, "--register-as", "observatory.pysmurf-monitor"]);
    let path = scene.file("a.npy");
    scene.announce(
        &monitor,
        &path.with_file_name("a"),
        &[("format", "\"npy\""), ("timestamp", "1589517264.6"), ("action_ts", "\"1589517264.9\""), ("plot", "true")],
    );
    let plain = scene.file("plain");
    scene.announce(&monitor, &plain, &[("action", "null"), ("action_ts", "null")]);
    // What the Python monitor loses, or a lenient server cuts.
    let long = "x".repeat(33);
    scene.announce(&monitor, &plain, &[("action", &format!("{long:?}"))]);
    let deep = scene.file(&format!("{0}/{0}/x", "d".repeat(150)));
    scene.announce(&monitor, &deep, &[]);
    scene.announce(&monitor, &plain, &[("action_ts", "\"abc\"")]);
    let last = scene.file("last");
    scene.announce(&monitor, &last, &[]);
    wait_until("three rows", || table.rows().len() == 3);
    let rows = table.execute(
        "SELECT HEX(path), IFNULL(action, '-'), UNIX_TIMESTAMP(timestamp), IFNULL(action_timestamp, '-'), format, plot, site, pub_id, \
         IFNULL(script_id, '-'), instance_id, copied, failed_copy_attempts, HEX(md5sum), IFNULL(pysmurf_version, '-') FROM pysmurf_files_v1 ORDER BY id",
    );
    let sum = ABC.to_uppercase();
    let row = |path: &Path, what: &str| {
        let path = hex(path.to_str().unwrap());
        format!("{path}\t{what}\tobservatory\tcrate1slot2\t-\tpysmurf-monitor\t0\t0\t{sum}\t-\n")
    };
    let wanted = [
        row(&path, "save_tune\t1589517264\t1589517265\tnpy\t1"),
        row(&plain, "-\t1589517264\t-\ttxt\t0"),
        row(&last, "save_tune\t1589517264\t1589517264\ttxt\t0"),
    ];
    assert_eq!(rows, wanted.concat());
    let told = scene.rejects(&[]).expect(1).log;
    for words in ["action has 33 letters", "path has ", "action_ts is \"abc\"", "3 messages rejected"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    monitor.run.kill();
    let monitor = scene.monitor_with(&["--db", &table.url, "--register-as", "observatory.pysmurf-monitor"]);
    scene.announce(&monitor, &last, &[]);
    wait_until("one more row", || table.rows().len() == 4);
    drop(monitor.end());
}

/// What the log tells an administrator to run, is all that is lacking.
#[test]
fn an_account_that_may_make_no_table_is_told_the_statements_and_served_once_they_were_run() {
    let Some(server) = MariaDb::shared() else { return };
    let scene = Scene::new();
    let table = Table::new(server, "monitor_rights", Age::V1);
    server.execute(
        "REVOKE ALL ON monitor_rights.* FROM monitor_rights; \
         GRANT SELECT, INSERT, UPDATE ON monitor_rights.pysmurf_files_v1 TO monitor_rights",
    );
    let monitor = scene.monitor_with(&["--db", &table.url, "--register-as", "observatory.pysmurf-monitor"]);
    scene.announce(&monitor, &scene.file("one"), &[]);
    monitor.wait_for("have an administrator run: ");
    let log = monitor.run.log();
    let told =
        log.split("have an administrator run: ").nth(1).and_then(|rest| rest.split("; files wait").next()).unwrap();
    server.execute(&format!("USE monitor_rights; {}", told.replace("; and: ", "; ")));
    wait_until("a row", || table.rows().len() == 1);
    drop(monitor.end());
}

/// 2000 messages a second for a minute and bursts of 10,000, with the database locked, and the process killed in between.
#[test]
fn no_message_is_lost_or_doubled_under_load() {
    if std::env::var_os("ARCHIVER_SLOW").is_none() {
        return;
    }
    let scene = Scene::new();
    let files: Vec<_> = (0..10_000).map(|n| scene.file(&format!("{}/f{n:05}", n % 100))).collect();
    let mut monitor = scene.monitor();
    let (mut sent, mut total) = (0, 0);
    let began = std::time::Instant::now();
    let mut lock: Option<Connection> = None;
    let mut send = |scene: &Scene, monitor: &Listening| {
        scene.announce(monitor, &files[sent % files.len()], &[("n", &sent.to_string())]);
        sent += 1;
        sent
    };
    for second in 0..60 {
        for tenth in 0..10 {
            (0..200).for_each(|_| total = send(&scene, &monitor));
            let due = Duration::from_millis(second * 1000 + tenth * 100 + 100);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        match second {
            10 => {
                let held = Connection::open(scene.database()).unwrap();
                held.busy_timeout(PATIENCE).unwrap();
                held.execute_batch("BEGIN IMMEDIATE").unwrap();
                lock = Some(held);
            }
            25 => drop(lock.take()),
            _ => {}
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    for _ in 0..3 {
        (0..10_000).for_each(|_| total = send(&scene, &monitor));
        wait_until("the burst is registered", || scene.rows().len() >= total);
        monitor.run.kill();
        monitor = scene.monitor();
    }
    scene.wait_for_rows(total);
    let over = monitor.end();
    let names: BTreeSet<_> = scene.rows().into_iter().map(|row| row.0).collect();
    assert_eq!(names.len(), files.len());
    eprintln!(
        "{total} messages, 120,000 of them in {seconds:.1} s; peak {} KiB: {}",
        over.peak_kib,
        over.log.lines().last().unwrap()
    );
}
