//! `check` as its users see it: the real program against a private MariaDB and a private sshd.

use crate::support;
use crate::support::mariadb::MariaDb;
use crate::support::sshd::{Sshd, keygen};
use crate::support::tools::{find, require};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pysmurf-archiver");

/// What one call of `check` said.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// Status, item, detail.
    lines: Vec<[String; 3]>,
}

impl Said {
    fn new(output: Output) -> Self {
        let stdout = String::from_utf8(output.stdout).unwrap();
        // The columns stand where they stand, whatever the words.
        let cut = |line: &str| [line[..4].trim(), line[6..20].trim(), line[22..].trim()].map(str::to_owned);
        let lines = stdout.lines().map(cut).collect();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), stdout, stderr, lines }
    }

    #[track_caller]
    fn is(&self, item: &str, status: &str, words: &[&str]) {
        let mut found = self.lines.iter().filter(|line| line[1] == item);
        let line = found.next().unwrap_or_else(|| panic!("no line {item}:\n{}{}", self.stdout, self.stderr));
        assert!(found.next().is_none(), "two lines {item}:\n{}", self.stdout);
        assert_eq!(line[0], status, "{item}:\n{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(line[2].contains(word), "{item} lacks {word:?}:\n{}", self.stdout);
        }
    }

    #[track_caller]
    fn not_checked(&self, items: &[&str]) {
        for item in items {
            self.is(item, "skip", &["not checked: "]);
        }
    }

    /// Exit code, and that no other line failed than these.
    #[track_caller]
    fn ends(&self, code: i32, failed: &[&str]) {
        let found: Vec<_> = self.lines.iter().filter(|line| line[0] == "FAIL").map(|line| line[1].as_str()).collect();
        assert_eq!((self.code, &found[..]), (Some(code), failed), "{}{}", self.stdout, self.stderr);
    }
}

/// The program without anything of our surroundings that it would heed.
fn program(args: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(folder).env("HOME", folder).env_remove("SSH_AUTH_SOCK").env_remove("RUST_LOG");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MYSQL_") || name.to_string_lossy().starts_with("ARCHIVER_") {
            command.env_remove(name);
        }
    }
    command
}

/// A folder with a base directory, a source file, and SQLite's database with two rows, of which one is copied.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        // Another account may have to get to the base.
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.base()).unwrap();
        fs::write(place.at("source.g3"), "frames").unwrap();
        let made = program(&["init-db", "--db", &place.sqlite()], place.folder.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let database = rusqlite::Connection::open(place.at("files.db")).unwrap();
        for (remote, sum) in [("a/1.g3", None), ("a/0.g3", Some("00"))] {
            let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                          remote_md5sum, failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'smurf', ?, 0, ?, 0, 1, 0)";
            let source = place.at("source.g3").display().to_string();
            let registered = sum.unwrap_or("d1b8f1ea4d4de0d3b80a9c6d2ab7c9b7");
            database.execute(insert, rusqlite::params![source, registered, remote, sum]).unwrap();
        }
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn base(&self) -> PathBuf {
        self.at("base")
    }

    fn sqlite(&self) -> String {
        format!("sqlite:{}", self.at("files.db").display())
    }

    /// Everything in the folder, with its time and content.
    fn state(&self) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                }
                let bytes = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
                found.push((entry.path(), meta.modified().unwrap(), bytes));
            }
        }
        found.sort();
        found
    }

    /// `check` with these flags, the base and the database here unless named.
    fn check(&self, flags: &[&str]) -> Said {
        let base = self.base().display().to_string();
        let sqlite = self.sqlite();
        let mut args = vec!["check"];
        if !flags.iter().any(|flag| flag.starts_with("--data-dir")) {
            args.extend(["--data-dir", &base]);
        }
        if !flags.contains(&"--db") {
            args.extend(["--db", &sqlite, "--archive-name", "smurf"]);
        }
        args.extend(flags);
        Said::new(program(&args, self.folder.path()).output().unwrap())
    }

    /// `check` with a storage node.
    fn check_at(&self, sshd: &Sshd, flags: &[&str]) -> Said {
        self.check_by("--storage-host", sshd, flags)
    }

    /// `check` with a far end, named by this option.
    fn check_by(&self, option: &str, sshd: &Sshd, flags: &[&str]) -> Said {
        let host = format!("{}@127.0.0.1:{}", sshd.user(), sshd.port);
        let (key, known) = (sshd.client_key().display().to_string(), sshd.known_hosts().display().to_string());
        let mut all = vec![option, &host, "--ssh-config", "/dev/null"];
        for (flag, value) in [("--ssh-key", &key), ("--known-hosts", &known)] {
            if !flags.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        all.extend(flags);
        self.check(&all)
    }
}

const FAR_ITEMS: [&str; 6] = ["rsync", "fsync", "protocol", "directory", "writable", "free space"];

/// Free space depends on the machine.
fn space_is_said(said: &Said) {
    let line = said.lines.iter().find(|line| line[1] == "free space").unwrap();
    assert!(["ok", "warn"].contains(&line[0].as_str()) && line[2].contains("iB of "), "{}", said.stdout);
}

#[test]
fn all_is_well_where_files_are_pulled_from() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::new();
    let said = place.check_by("--host", &sshd, &[]);
    said.ends(0, &[]);
    said.is("source", "skip", &["at the far end"]);
    said.is("connection", "ok", &["127.0.0.1"]);
    said.is("rsync", "ok", &["rsync 3"]);
    said.is("fsync", "ok", &["done here"]);
    said.is("protocol", "ok", &["md5"]);
    said.is("directory", "ok", &["this machine"]);
    said.is("writable", "ok", &[]);
    // What is wrong here is said also where nobody can log in over there.
    let said = place.check_by("--host", &sshd, &["--known-hosts", "/dev/null", "--data-dir", "/no/such/archive"]);
    said.is("host key", "FAIL", &[]);
    said.is("directory", "FAIL", &["/no/such/archive"]);
}

#[test]
fn all_is_well_on_this_machine() {
    let place = Place::new();
    let before = place.state();
    let said = place.check(&[]);
    said.ends(0, &[]);
    said.is("database", "ok", &[&place.sqlite(), "SQLite 3."]);
    said.is("table", "ok", &["supersync_v0"]);
    said.is("rows", "ok", &["1 pending, 0 given up, 1 copied"]);
    said.is("source", "ok", &["the only pending row"]);
    said.is("connection", "skip", &["not needed", "--storage-host"]);
    said.is("rsync", "ok", &["pysmurf-archiver"]);
    said.is("fsync", "ok", &[]);
    said.is("protocol", "ok", &["protocol 32", "md5"]);
    said.is("directory", "ok", &["this machine"]);
    said.is("writable", "ok", &[]);
    space_is_said(&said);
    assert!(!said.stdout.contains('\x1b'), "colour without a terminal: {}", said.stdout);
    assert_eq!(said.stderr, "");
    assert!(place.state() == before, "something was changed");
}

#[test]
fn all_is_well_at_a_storage_node() {
    let (Some(sshd), true, Some(server)) = (Sshd::start(""), require("rsync"), MariaDb::shared()) else { return };
    let place = Place::new();
    let url = server.database("check_well");
    server.execute(&format!(
        "USE check_well; {} INSERT INTO pysmurf_files_v1 (path, action, timestamp, pub_id, plot, instance_id, copied, \
         failed_copy_attempts, md5sum) VALUES ('{}', 'tune', FROM_UNIXTIME(1589517264), 'crate1slot2', 0, 'm1', 0, 0, \
         UNHEX('00112233445566778899AABBCCDDEEFF'))",
        include_str!("catalog/v1.sql"),
        place.at("source.g3").display()
    ));
    let before = (place.state(), server.execute("USE check_well; CHECKSUM TABLE pysmurf_files_v1; SHOW TABLES"));
    // Every flag of `run` is accepted, and those without a meaning here have none.
    let said =
        place.check_at(&sshd, &["--db", &url, "--target", "m1", "m2", "--once", "--workers", "4", "--poll", "1"]);
    said.ends(0, &[]);
    said.is("database", "ok", &["mysql://check_well@127.0.0.1:", "/check_well", "MariaDB 1"]);
    said.is("table", "ok", &["pysmurf_files_v1, layout action", "260 characters"]);
    said.is("rows", "warn", &["1 pending, 0 given up, 0 copied", "--target \"m2\"", "mistyped"]);
    said.is("source", "ok", &[]);
    said.is("connection", "ok", &["127.0.0.1"]);
    said.is("host key", "ok", &[]);
    said.is("authentication", "ok", &[]);
    said.is("rsync", "ok", &["rsync 3."]);
    said.is("protocol", "ok", &["protocol 3", "md5"]);
    said.is("directory", "ok", &[&place.base().display().to_string()]);
    said.is("writable", "ok", &["drwx"]);
    space_is_said(&said);
    assert!(!said.stdout.contains("p%40ss") && !said.stdout.contains("p@ss"), "a password: {}", said.stdout);
    let after = (place.state(), server.execute("USE check_well; CHECKSUM TABLE pysmurf_files_v1; SHOW TABLES"));
    assert!(before == after, "something was changed");

    let ours = place.check_at(&sshd, &["--rsync-path", PROGRAM]);
    ours.ends(0, &[]);
    ours.is("rsync", "ok", &["pysmurf-archiver 0.", PROGRAM]);
    ours.is("fsync", "ok", &[]);
    ours.is("protocol", "ok", &["protocol 32, checksum md5"]);
    assert!(place.state() == before.0, "something was changed");
}

#[test]
fn an_unknown_host_key_and_a_wrong_key() {
    let Some(sshd) = Sshd::start("") else { return };
    let place = Place::new();
    fs::write(place.at("nobody"), "").unwrap();
    let unknown = place.check_at(&sshd, &["--known-hosts", place.at("nobody").to_str().unwrap()]);
    unknown.ends(1, &["host key"]);
    unknown.is("connection", "ok", &[]);
    unknown.is("host key", "FAIL", &["no key of it is known", "SHA256:", "ssh-keyscan"]);
    unknown.not_checked(&["authentication"]);
    unknown.not_checked(&FAR_ITEMS);
    // The database does not depend on it.
    unknown.is("rows", "ok", &[]);

    keygen(&place.at("stranger"), "ed25519");
    let stranger = place.check_at(&sshd, &["--ssh-key", place.at("stranger").to_str().unwrap()]);
    stranger.ends(1, &["authentication"]);
    stranger.is("host key", "ok", &[]);
    stranger.is("authentication", "FAIL", &["stranger (refused)", "authorized_keys", "--ssh-key"]);
    stranger.not_checked(&FAR_ITEMS);

    let absent = place.check_at(&sshd, &["--ssh-key", "/no/such/key"]);
    assert_eq!(absent.code, Some(2));
    assert!(absent.stderr.contains("cannot read /no/such/key"), "{}", absent.stderr);
}

#[test]
fn nobody_answers() {
    let place = Place::new();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port().to_string();
    let began = Instant::now();
    let flags = ["--storage-host", "x@127.0.0.1", "--ssh-config", "/dev/null", "--connect-timeout", "1", "--ssh-port"];
    let said = place.check(&[&flags[..], &[&port]].concat());
    said.ends(1, &["connection"]);
    said.is("connection", "FAIL", &["SSH handshake", "--connect-timeout"]);
    said.not_checked(&["host key", "authentication"]);
    said.not_checked(&FAR_ITEMS);
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
    drop(mute);
    let closed = place.check(&[&flags[..], &[&port]].concat());
    closed.ends(1, &["connection"]);
    closed.is("connection", "FAIL", &["Connection refused", "listens on port"]);
}

#[test]
fn no_rsync_and_an_old_one() {
    let Some(sshd) = Sshd::start("") else { return };
    let place = Place::new();
    let none = place.check_at(&sshd, &["--rsync-path", "/no/such/rsync"]);
    none.ends(1, &["rsync"]);
    none.is("rsync", "FAIL", &["/no/such/rsync", "127", "install rsync", "--rsync-path"]);
    none.not_checked(&["fsync", "protocol"]);
    none.is("writable", "ok", &[]);

    if let Some(sshd) = Sshd::start("Subsystem sftp internal-sftp") {
        let detour = place.check_at(&sshd, &["--rsync-path", "/no/such/rsync"]);
        detour.ends(0, &[]);
        detour.is("rsync", "warn", &["/no/such/rsync", "127", "files go by SFTP", "--bootstrap"]);
    }

    if require("rsync") {
        let rsync = find("rsync").unwrap();
        let script = format!(
            "[ \"$1\" = --version ] && echo 'rsync  version 3.1.3  protocol version 31' || exec {} \"$@\"",
            rsync.display()
        );
        support::script::script(&place.at("old"), &script);
        let old = place.check_at(&sshd, &["--rsync-path", place.at("old").to_str().unwrap()]);
        old.ends(0, &[]);
        old.is("rsync", "ok", &["rsync 3.1.3"]);
        old.is("fsync", "warn", &["3.2.4"]);
        old.is("protocol", "ok", &[]);
        let quiet = place.check_at(&sshd, &["--quiet", "--rsync-path", place.at("old").to_str().unwrap()]);
        assert!(quiet.lines.iter().all(|line| line[0] == "warn"), "{}", quiet.stdout);
        quiet.is("fsync", "warn", &[]);
    }

    let noise = place.check_at(&sshd, &["--rsync-path", "echo \x1b[31mWelcome"]);
    noise.ends(1, &["protocol"]);
    noise.is("rsync", "warn", &["Welcome"]);
    noise.is("protocol", "FAIL", &["instead of speaking the rsync protocol"]);
    assert!(!noise.stdout.contains('\x1b'), "the far end's escapes reach the terminal: {:?}", noise.stdout);
}

#[test]
fn a_program_that_never_answers() {
    let Some(sshd) = Sshd::start("") else { return };
    let place = Place::new();
    let began = Instant::now();
    let mute = place.check_at(&sshd, &["--stall-timeout", "1", "--rsync-path", "sh -c 'exec sleep 600'"]);
    mute.ends(1, &["rsync"]);
    mute.is("rsync", "FAIL", &["did not answer within 1s"]);
    mute.not_checked(&["fsync", "protocol"]);
    mute.is("writable", "ok", &[]);

    let version = "sh -c '[ $0 = --version ] && echo rsync version 3.2.7 || exec sleep 600'";
    let deaf = place.check_at(&sshd, &["--stall-timeout", "1", "--rsync-path", version]);
    deaf.ends(1, &["protocol"]);
    deaf.is("fsync", "ok", &[]);
    deaf.is("protocol", "FAIL", &["stalled"]);
    deaf.is("writable", "ok", &[]);
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
}

#[test]
fn an_account_that_runs_no_commands() {
    let Some(sshd) = Sshd::start("ForceCommand echo Only rsync here >&2; exit 1") else { return };
    let said = Place::new().check_at(&sshd, &[]);
    said.ends(1, &["protocol"]);
    said.is("authentication", "ok", &[]);
    said.is("rsync", "warn", &["Only rsync here"]);
    said.is("protocol", "FAIL", &["exit status 1", "Only rsync here"]);
    said.not_checked(&["directory", "writable", "free space"]);
}

#[test]
fn a_base_that_is_missing_or_taken_or_unwritable() {
    let Some(sshd) = Sshd::start("") else { return };
    let place = Place::new();
    let missing = place.at("not yet/there");
    let said = place.check_at(&sshd, &["--data-dir", missing.to_str().unwrap()]);
    said.ends(1, &["directory"]);
    said.is("directory", "FAIL", &["not yet/there", "is not there", "--data-dir"]);
    said.not_checked(&["writable", "free space"]);
    said.is("protocol", "ok", &[]);
    // Also where rsync would make the last folder itself.
    let next = place.at("next");
    place.check_at(&sshd, &["--data-dir", next.to_str().unwrap()]).ends(1, &["directory"]);
    place.check(&["--data-dir", next.to_str().unwrap()]).ends(1, &["directory"]);
    assert!(!missing.exists() && !place.at("not yet").exists() && !next.exists(), "check made the base directory");

    let under_file = place.at("source.g3").join("base");
    place.check_at(&sshd, &["--data-dir", under_file.to_str().unwrap()]).ends(1, &["directory"]);
    let file = place.check_at(&sshd, &["--data-dir", place.at("source.g3").to_str().unwrap()]);
    file.is("directory", "FAIL", &["is no directory"]);

    let odd = place.at("it's a $(touch x) dir");
    fs::create_dir(&odd).unwrap();
    place.check_at(&sshd, &["--data-dir", odd.to_str().unwrap()]).ends(0, &[]);
    fs::create_dir(place.at("-archive")).unwrap();
    let relative = place.check(&["--data-dir=-archive"]);
    relative.ends(0, &[]);
    relative.is("directory", "warn", &["-archive", "relative", "absolute"]);
    relative.is("writable", "ok", &[]);
}

#[test]
fn a_base_that_takes_nothing() {
    let forced = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \"$SSH_ORIGINAL_COMMAND\"";
    let root = fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).unwrap() == 0;
    if root && !require("setpriv") {
        return;
    }
    let Some(sshd) = Sshd::start(&if root { format!("ForceCommand {forced}") } else { String::new() }) else { return };
    let place = Place::new();
    fs::set_permissions(place.base(), fs::Permissions::from_mode(0o555)).unwrap();
    let said = place.check_at(&sshd, &[]);
    said.ends(1, &["writable"]);
    said.is("directory", "ok", &[]);
    said.is("writable", "FAIL", &["cannot be written to", "dr-xr-xr-x", "--user"]);
    space_is_said(&said);
}

#[test]
fn a_database_that_is_down_or_refuses() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let down = format!("mysql://ocs:hush@127.0.0.1:{port}/files");
    let said = place.check(&["--db", &down, "--target", "m1"]);
    said.ends(1, &["database"]);
    said.is("database", "FAIL", &["Connection refused", "--db"]);
    said.not_checked(&["table", "rows", "source"]);
    said.is("writable", "ok", &[]);
    assert!(!said.stdout.contains("hush"), "a password: {}", said.stdout);

    let Some(server) = MariaDb::shared() else { return };
    server.database("check_refuse");
    let url = format!("mysql://check_refuse:wrong@127.0.0.1:{}/check_refuse", server.port);
    let said = place.check(&["--db", &url, "--target", "m1"]);
    said.ends(1, &["database"]);
    said.is("database", "FAIL", &["Access denied", "MYSQL_PASSWORD"]);
}

#[test]
fn a_table_that_is_missing_or_closed_to_us() {
    let Some(server) = MariaDb::shared() else { return };
    let place = Place::new();
    let url = server.database("check_table");
    let check = |flags: &[&str]| place.check(&[&["--db", &url, "--target", "m1"], flags].concat());
    let missing = check(&[]);
    missing.ends(1, &["table"]);
    missing.is("database", "ok", &[]);
    missing.is("table", "FAIL", &["no table pysmurf_files_v1", "init-db", "--table"]);
    missing.not_checked(&["rows", "source"]);
    assert_eq!(server.execute("USE check_table; SHOW TABLES"), "", "check made a table");

    server.execute(&format!("USE check_table; {}", include_str!("catalog/v1.sql")));
    let empty = check(&[]);
    empty.ends(0, &[]);
    empty.is("rows", "warn", &["0 pending", "m1", "--target"]);
    empty.not_checked(&["source"]);
    server.execute(
        "USE check_table; INSERT INTO pysmurf_files_v1 (path, action, timestamp, pub_id, plot, instance_id, copied, \
         failed_copy_attempts, md5sum) VALUES ('/no/such/file', 'a', NOW(), 'p', 0, 'm1', 0, 0, ''), \
         ('/x', 'a', NOW(), 'p', 0, 'm1', 0, 5, '')",
    );
    let given_up = check(&[]);
    given_up.ends(1, &["source"]);
    given_up.is("rows", "warn", &["1 pending, 1 given up", "--max-copy-attempts", "row 2, /x: why", "retry --all"]);
    given_up.is("table", "ok", &["why rows fail will be kept in archiver_note"]);
    server
        .execute("REVOKE ALL ON check_table.* FROM check_table; GRANT SELECT, UPDATE ON check_table.* TO check_table");
    check(&[]).is("table", "ok", &["only in the log", "may not CREATE", "init-db"]);
    given_up.is("source", "FAIL", &["/no/such/file", "No such file", "mounted"]);

    server.execute("REVOKE ALL ON check_table.* FROM check_table; GRANT SELECT ON check_table.* TO check_table");
    let read_only = check(&[]);
    read_only.ends(1, &["table"]);
    read_only.is("table", "FAIL", &["may not write", "grant UPDATE"]);
    let other = check(&["--table", "elsewhere"]);
    other.is("table", "FAIL", &["no table elsewhere"]);
}

#[test]
fn files_of_sqlite_that_cannot_serve() {
    let place = Place::new();
    let before = place.state();
    let absent = place.at("new folder/absent.db");
    let url = format!("sqlite:{}", absent.display());
    let said = place.check(&["--db", &url, "--archive-name", "smurf"]);
    said.ends(1, &["database"]);
    said.is("database", "FAIL", &["is not there", "init-db --db"]);
    said.not_checked(&["table", "rows", "source"]);
    // The embedded default as well.
    let base = place.base().display().to_string();
    let args = ["check", "--archive-name", "smurf", "--data-dir", &base];
    let embedded = Said::new(program(&args, place.folder.path()).output().unwrap());
    embedded.ends(1, &["database"]);
    assert!(place.state() == before, "something was made");

    fs::write(place.at("empty.db"), "").unwrap();
    fs::write(place.at("noise.db"), vec![7; 8192]).unwrap();
    let before = place.state();
    let check =
        |name: &str| place.check(&["--db", &format!("sqlite:{}", place.at(name).display()), "--archive-name", "smurf"]);
    let empty = check("empty.db");
    empty.ends(1, &["table"]);
    empty.is("table", "FAIL", &["no table supersync_v0", "init-db"]);
    let noise = check("noise.db");
    noise.ends(1, &["database"]);
    noise.is("database", "FAIL", &["not a database"]);
    check("base").ends(1, &["database"]);
    assert!(place.state() == before, "something was changed");
}

#[test]
fn retry_makes_no_file_of_a_mistyped_name() {
    let folder = TempDir::new().unwrap();
    let absent = folder.path().join("new folder/absent.db");
    let url = format!("sqlite:{}", absent.display());
    let output =
        Command::new(PROGRAM).args(["retry", "--all", "--archive-name", "smurf", "--db", &url]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("absent.db") && words.contains("init-db"), "{words}");
    assert!(!absent.exists() && !absent.parent().unwrap().exists());
}

#[test]
fn wrong_usage() {
    let place = Place::new();
    for (flags, words) in [
        (&["--db", "postgres://u:hush@h/x", "--target", "m1"][..], "starts with neither mysql:// nor sqlite:"),
        (&["--db", "mysql://u:hush@h:port/x", "--target", "m1"], "port"),
        (&["--db", "mysql://u:hush@h/x"], "--target is missing"),
        (&["--data-dir", "/"], "--data-dir"),
        (&["--bogus"], "--bogus"),
    ] {
        let said = place.check(flags);
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{flags:?}: {}", said.stderr);
        assert!(said.stderr.contains(words) && !said.stderr.contains("hush"), "{flags:?}: {}", said.stderr);
    }
}

#[test]
fn json_for_machines() {
    let place = Place::new();
    let odd = format!("{}/no \"such\\ base", place.base().display());
    let args = ["check", "--json", "--db", &place.sqlite(), "--archive-name", "smurf", "--data-dir", &odd];
    let output = program(&args, place.folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    // SQLite reads JSON.
    let database = rusqlite::Connection::open_in_memory().unwrap();
    let mut rows =
        database.prepare("SELECT value->>'item', value->>'status', value->>'detail' FROM json_each(?)").unwrap();
    let found: Vec<(String, String, String)> = rows
        .query_map([&text], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(found.len(), 11, "{text}");
    assert_eq!((found[0].0.as_str(), found[0].1.as_str()), ("database", "ok"));
    let directory = found.iter().find(|(item, ..)| item == "directory").unwrap();
    assert!(directory.1 == "fail" && directory.2.contains(&odd), "{directory:?}");
}

#[test]
fn help_keeps_secrets() {
    let place = Place::new();
    for verb in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["init-db", "--help"], &["run"], &["-V"]] {
        let output = program(verb, place.folder.path())
            .env("ARCHIVER_DB", "mysql://ocs:hush@db/files")
            .env("MYSQL_PASSWORD", "hush")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&text).contains("hush"), "{verb:?}");
    }
}
