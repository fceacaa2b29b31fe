//! SupRsync's database, over SSH and locally.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, hex, md5_of};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// What is to become of a row.
enum Fate {
    /// Copied to its own path, or to this variant of it.
    Copied(&'static str),
    /// Tried once in each run.
    Fails,
    /// Left alone.
    Untouched,
    /// Copied under some name or tried, but decided.
    Decided,
}

type Stands = (i64, String, String, String, Option<String>, Option<i64>, f64);

fn rows(database: &Connection) -> Vec<Stands> {
    let mut statement = database
        .prepare(
            "SELECT id, local_path, local_md5sum, remote_path, remote_md5sum, failed_copy_attempts, timestamp \
             FROM supersync_v0 ORDER BY id",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn archives(place: &Place, command: impl Fn() -> Command) {
    let file = place.path("suprsync.db");
    let address = format!("sqlite:{}", file.display());
    let mut init = place.program();
    Run::to_end({
        init.args(["init-db", "--db", &address]);
        init
    })
    .expect(0);
    let database = Connection::open(&file).unwrap();
    let source = |name: &str, len, seed| place.source(name, len, seed);
    let missing: (PathBuf, [u8; 16]) = (place.sources().join("gone"), [1; 16]);
    let cases = [
        ("17950/a.dat", source("a", 5000, 1), Fate::Copied("")),
        ("17950/a.dat", source("b", 5000, 2), Fate::Copied(".1")),
        ("17950/a.dat", source("c", 5000, 1), Fate::Copied("")),
        ("17950/crate1slot2/with  blanks.g3", source("d", 70_000, 4), Fate::Copied("")),
        ("17950/new\nline's \"☃\".npy", source("e", 0, 5), Fate::Copied("")),
        ("17950/-rf", source("f", 10, 6), Fate::Copied("")),
        ("top", source("g", 11, 7), Fate::Copied("")),
        ("17950/folder", source("h", 12, 8), Fate::Decided),
        ("17950/folder/below", source("i", 13, 9), Fate::Decided),
        ("17950/folder/below/deeper", source("j", 13, 10), Fate::Decided),
        ("/17950/absolute", source("k", 14, 11), Fate::Fails),
        ("17950/../../out", source("l", 15, 12), Fate::Fails),
        ("", source("m", 16, 13), Fate::Fails),
        ("17950/gone", missing, Fate::Fails),
        ("17950/wrong", (source("n", 17, 14).0, [2; 16]), Fate::Fails),
        ("17950/twice.dat", source("o", 3000, 15), Fate::Copied("")),
        ("17950/again.dat", source("o", 3000, 15), Fate::Copied("")),
        ("17950/ignored", source("p", 18, 16), Fate::Untouched),
        ("17950/removed", source("q", 19, 17), Fate::Untouched),
        ("17950/another archive's", source("r", 20, 18), Fate::Untouched),
    ];
    for (remote, (local, md5), _) in &cases {
        let archive = if remote.contains("another") { "timestreams" } else { "smurf" };
        let removed = remote.contains("removed").then_some(1.5);
        database
            .execute(
                "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, removed, \
                 failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, ?, 1795350012.25, ?, 0, 1, ?)",
                params![
                    local.to_str().unwrap(),
                    hex(md5).to_lowercase(),
                    archive,
                    remote,
                    removed,
                    remote.contains("ignored")
                ],
            )
            .unwrap();
    }
    let before = rows(&database);
    let run = || {
        let mut command = command();
        command.args(["--once", "--db", &address, "--archive-name", "smurf", "--manifest", "proven"]);
        Run::to_end(command)
    };
    let over = run().expect(1);
    let after = rows(&database);
    let mut files = BTreeSet::new();
    for ((before, after), (remote, (_, md5), fate)) in before.iter().zip(&after).zip(&cases) {
        let mut want = before.clone();
        match fate {
            Fate::Copied(variant) => {
                want.3 = format!("{remote}{variant}");
                want.4 = Some(want.2.clone());
            }
            Fate::Fails => want.5 = Some(1),
            Fate::Untouched => {}
            Fate::Decided => {
                eprintln!("{remote:?} became {after:?}");
                assert!(after.4.is_some() || after.5 == Some(1), "{after:?}\n{}", over.log);
                want = after.clone();
            }
        }
        assert_eq!(*after, want, "{}", over.log);
        if after.4.is_some() {
            assert_eq!(md5_of(&place.archive().join(&after.3)), *md5, "{after:?}");
            files.insert(after.3.clone());
        }
    }
    let tree = place.tree().without_directories();
    assert_eq!(tree.names().into_iter().collect::<BTreeSet<_>>(), files);
    // Another run tries again what failed, once, and leaves the rest alone.
    assert_eq!(run().status.code(), Some(1));
    let tried_again = after.iter().cloned().map(|mut row| {
        row.5 = row.5.map(|attempts| if attempts == 1 { 2 } else { attempts });
        row
    });
    assert_eq!((rows(&database), place.tree().without_directories()), (tried_again.collect(), tree));

    let listed = || ["proven", "proven.sizes"].map(|name| std::fs::read_to_string(place.path(name)).unwrap());
    let [sums, sizes] = listed();
    assert_eq!((sums.lines().count(), sizes.lines().count()), (files.len(), files.len()), "{sums}");
    assert!(sizes.lines().any(|line| line.ends_with("  70000  17950/crate1slot2/with  blanks.g3")), "{sizes}");
    if require("b3sum") {
        let check =
            Command::new("b3sum").arg("--check").arg(place.path("proven")).current_dir(place.archive()).output();
        assert!(check.as_ref().unwrap().status.success(), "{check:?}\n{sums}");
    }
    // As after a crash between the manifest and the record: the row is proven again, and its copy not listed again.
    database.execute("UPDATE supersync_v0 SET remote_md5sum = NULL WHERE id IN (1, 4)", []).unwrap();
    let over = run().expect(1);
    assert_eq!(rows(&database)[3].4, rows(&database)[3].2.clone().into(), "{}", over.log);
    assert_eq!(listed(), [sums, sizes]);
}

#[test]
fn suprsync_rows_to_stock_rsync() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    archives(&place, || place.run_to(&sshd));
}

#[test]
fn suprsync_rows_to_our_own_far_end() {
    let Some(sshd) = Sshd::start("") else { return };
    let place = Place::make();
    archives(&place, || FarEnd { rsync_path: PROGRAM.into(), ..place.behind(&sshd) }.command());
}

#[test]
fn suprsync_rows_to_a_local_folder() {
    let place = Place::make();
    archives(&place, || place.run());
}

#[test]
fn a_database_that_is_not_there_is_named_and_not_made() {
    let place = Place::make();
    let folder = place.path("no/such");
    let address = format!("sqlite:{}/x.db", folder.display());
    for more in [&["run", "--data-dir", "a"][..], &["run", "--once", "--data-dir", "a"], &["retry", "--all"]] {
        let mut command = place.program();
        command.args(more).args(["--db", &address, "--archive-name", "smurf"]);
        let log = Run::to_end(command).expect(2).log;
        assert!(log.contains("no/such/x.db is not there") && log.contains("init-db"), "{log}");
        assert!(!place.path("no").exists(), "{more:?}");
    }
    // Nobody names a database: the embedded one is meant.
    let mut command = place.run();
    command.args(["--once", "--archive-name", "smurf"]);
    Run::to_end(command).expect(0);
    assert!(place.path("pysmurf-archiver.db").exists());
}

#[test]
fn an_archive_that_no_row_has_is_told_with_those_there_are() {
    let place = Place::make();
    let file = place.path("q.db");
    let address = format!("sqlite:{}", file.display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                  failed_copy_attempts, \"ignore\") VALUES ('/x', 'x', 'smurf', 'x', 1, 9, 0)";
    Connection::open(&file).unwrap().execute(insert, []).unwrap();
    let told = |log: &str| log.contains("--archive-name \"smrf\"") && log.contains("rows for \"smurf\"");
    let mut command = place.run();
    command.args(["--once", "--db", &address, "--archive-name", "smrf"]);
    let over = Run::to_end(command).expect(0);
    assert!(told(&over.log), "{}", over.log);
    let mut command = place.program();
    command.args(["retry", "--all", "--db", &address, "--archive-name", "smrf"]);
    let over = Run::to_end(command).expect(0);
    assert!(told(&over.log), "{}", over.log);
    let mut command = place.run();
    command.args(["--once", "--db", &address, "--archive-name", "smurf"]);
    let over = Run::to_end(command).expect(0);
    assert!(!over.log.contains("mistyped"), "{}", over.log);
}

#[test]
fn files_outside_the_source_roots_are_refused_by_name_and_nothing_of_them_is_told() {
    let place = Place::make();
    let file = place.path("q.db");
    let address = format!("sqlite:{}", file.display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let (inside, sum) = place.source("inside", 100, 1);
    let (changed, _) = place.source("changed", 100, 2);
    let secret = place.path("secret");
    std::fs::write(&secret, "nobody's business").unwrap();
    let link = place.sources().join("link");
    std::os::unix::fs::symlink("../secret", &link).unwrap();
    let (told, other) = (hex(md5_of(&secret)).to_lowercase(), hex(md5_of(&changed)).to_lowercase());
    let database = Connection::open(&file).unwrap();
    let add = |path: &std::path::Path, sum: &str| {
        let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                      failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'smurf', ?, 1, 0, 1, 0)";
        let remote = format!("17950/{}", path.file_name().unwrap().to_str().unwrap());
        database.execute(insert, params![path.to_str().unwrap(), sum, remote]).unwrap();
    };
    let zeros = "0".repeat(32);
    add(&inside, &hex(sum).to_lowercase());
    add(&changed, &zeros);
    // Whoever knows the sum gets no copy either, and nothing is deleted.
    add(&secret, &told);
    add(&link, &told);
    let root = place.sources();
    for (again, row) in [(false, 0), (true, 0)] {
        if again {
            // As if they had been copied: then they were due for deletion.
            database.execute("UPDATE supersync_v0 SET remote_md5sum = local_md5sum", []).unwrap();
        }
        let mut command = place.run();
        command.args(["--once", "--db", &address, "--archive-name", "smurf", "--source-root"]).arg(&root);
        command.args(["--delete-local-after", "0", "-v"]);
        let over = Run::to_end(command).expect(if again { 0 } else { 1 });
        assert!(!over.log.contains(&told) && !over.log.contains(&other), "{row}: {}", over.log);
        assert!(secret.exists() && link.exists(), "{}", over.log);
        if !again {
            assert!(over.log.contains("secret is not beneath --source-root"), "{}", over.log);
            assert!(over.log.contains("leads out of --source-root"), "{}", over.log);
        }
    }
    assert!(!inside.exists(), "proven and deleted");
    assert_eq!(place.tree().names().into_iter().collect::<Vec<_>>(), ["17950/inside"]);
}

#[test]
fn the_last_of_an_option_counts() {
    let place = Place::make();
    let mut command = place.run();
    command.args(["--once", "--once", "--poll", "7", "--poll", "1", "--archive-name", "x", "--archive-name", "smurf"]);
    command.args([
        "--db",
        "sqlite:/no/such",
        "--db",
        "sqlite:/no/other",
        "-q",
        "-q",
        "--log-format",
        "json",
        "--log-format",
        "text",
    ]);
    let over = Run::to_end(command).expect(2);
    assert!(over.log.contains("/no/other is not there"), "{}", over.log);
}

#[test]
fn words_of_a_site_file_cannot_move_the_cursor() {
    let place = Place::make();
    let yaml = |id: &str, more: &str| {
        format!(
            "hub: {{wamp_server: 'ws://127.0.0.1:1/ws', wamp_realm: r, address_root: o}}\nhosts:\n  localhost:\n    \
             agent-instances:\n    - agent-class: SupRsync\n      instance-id: {id}\n      arguments: [{more}]\n"
        )
    };
    for (id, more) in [("\"a\\e[2Jb c\"", ""), ("a", "'--bogus', \"x\\e[2J\""), ("a", "\"--db\", \"\\e[2J\"")] {
        std::fs::write(place.path("default.yaml"), yaml(id, more)).unwrap();
        for verb in ["run", "check", "retry"] {
            let mut command = place.program();
            command.env("OCS_CONFIG_DIR", place.path("")).arg(verb).stdin(std::process::Stdio::null());
            let output = command.output().unwrap();
            assert!(!output.status.success());
            let said = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&said);
            assert!(!said.is_empty() && !said.contains(&0x1b), "{id} {more}: {text}");
        }
    }
}

#[test]
fn what_is_typed_beside_a_site_file_adds_to_it() {
    let place = Place::make();
    let address = format!("sqlite:{}", place.path("q.db").display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let yaml = format!(
        "hub: {{wamp_server: 'ws://127.0.0.1:1/ws', wamp_realm: r, address_root: o}}\nhosts:\n  localhost:\n    \
         agent-instances:\n    - agent-class: SupRsync\n      instance-id: a\n      arguments: [--archive-name, smurf, \
         --remote-basedir, {}, --db-path, {}]\n",
        place.archive().display(),
        place.path("q.db").display()
    );
    std::fs::write(place.path("default.yaml"), yaml).unwrap();
    let run = |words: &[&str], folder: &str| {
        let mut command = place.program();
        command.env("OCS_CONFIG_DIR", folder).args(words);
        let output = command.output().unwrap();
        let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        (output.status.code(), texts[0].clone(), texts[1].clone())
    };
    let folder = place.path("").display().to_string();
    let (code, json, said) = run(&["check", "--json"], &folder);
    assert_eq!(code, Some(0), "{json}{said}");
    let items: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(items[0]["item"], "database");
    let (code, rows, said) = run(&["retry", "--all"], &folder);
    assert_eq!((code, rows.as_str()), (Some(0), "0 rows will be tried again\n"), "{said}");
    let (code, _, said) = run(&["run", "-v", "--once"], &folder);
    assert!(code == Some(2) && said.contains("--site none"), "the agent's own rule: {said}");
    for words in [&["check", "--json"][..], &["retry", "--all"], &["run"], &[]] {
        let (code, _, said) = run(words, "/nonexistent");
        assert!(code == Some(2) && said.contains("no site file at /nonexistent/default.yaml"), "{words:?}: {said}");
    }
}

#[test]
fn a_hangup_has_the_table_looked_at_and_ends_nothing() {
    let place = Place::make();
    let address = format!("sqlite:{}", place.path("q.db").display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let mut command = place.run();
    let log = std::fs::File::create(place.path("log")).unwrap();
    command.args(["--db", &address, "--archive-name", "smurf"]).stdout(std::process::Stdio::null()).stderr(log);
    let mut child = command.spawn().unwrap();
    let log = || std::fs::read_to_string(place.path("log")).unwrap();
    let signal = |name| {
        let process = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(process, name).unwrap();
    };
    wait_until("it watches", || log().contains("Watching"));
    signal(rustix::process::Signal::HUP);
    wait_until("it has heard", || log().contains("SIGHUP"));
    signal(rustix::process::Signal::TERM);
    assert!(child.wait().unwrap().success(), "{}", log());
}

/// A database that is put back as it was before: what was copied since is found in its place, and nothing is sent again.
#[test]
fn an_older_backup_in_the_place_of_the_database_costs_a_comparison() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let (file, backup) = (place.path("suprsync.db"), place.path("backup.db"));
    let address = format!("sqlite:{}", file.display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let database = Connection::open(&file).unwrap();
    for n in 0..20 {
        let (local, md5) = place.source(format!("file{n}"), 5000 + n, n);
        database
            .execute(
                "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                 failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'smurf', ?, 1795350012.25, 0, 1, 0)",
                params![local.to_str().unwrap(), hex(md5).to_lowercase(), format!("17950/file{n}")],
            )
            .unwrap();
    }
    database.execute("VACUUM INTO ?", params![backup.to_str().unwrap()]).unwrap();
    drop(database);
    let run = || {
        let mut command = place.run_to(&sshd);
        command.args(["--once", "--json", "--db", &address, "--archive-name", "smurf"]);
        Run::to_end(command).expect(0).log
    };
    run();
    let copies = place.tree().without_directories();
    assert_eq!(copies.names().len(), 20);
    std::fs::rename(&backup, &file).unwrap();
    let said = run();
    assert!(said.contains("\"copied\":20") && said.contains("\"literal_bytes\":0"), "{said}");
    assert_eq!(place.tree().without_directories(), copies);
    let database = Connection::open(&file).unwrap();
    assert!(rows(&database).iter().all(|row| row.4.as_ref() == Some(&row.2)), "{:?}", rows(&database));
}
