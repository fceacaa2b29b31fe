//! The configuration file, variables and the command line, as the program puts them together.

use crate::support::archiver::{Place, Run, hex};
use crate::support::wait::wait_until;
use rusqlite::{Connection, params};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A database with an archive of so many files for each of these names.
fn database(place: &Place, archives: &[&str]) -> Connection {
    let file = place.path("files.db");
    let mut init = place.program();
    init.args(["init-db", "--db", &format!("sqlite:{}", file.display())]);
    Run::to_end(init).expect(0);
    let database = Connection::open(file).unwrap();
    for (seed, archive) in archives.iter().enumerate() {
        insert(place, &database, archive, "first", seed as u64);
    }
    database
}

fn insert(place: &Place, database: &Connection, archive: &str, name: &str, seed: u64) {
    let (path, md5) = place.source(format!("{archive}/{name}"), 5000, seed);
    database
        .execute(
            "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
             failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, ?, ?, 1795350012.25, 0, 1, 0)",
            params![path.to_str().unwrap(), hex(md5).to_lowercase(), archive, format!("17953/{archive}/{name}")],
        )
        .unwrap();
}

fn write(place: &Place, text: &str) {
    let text = text.replace("PLACE", place.path("").to_str().unwrap().trim_end_matches('/'));
    // As an editor does it: whoever reads finds one or the other.
    fs::write(place.path("new.toml"), text).unwrap();
    fs::rename(place.path("new.toml"), place.path("config.toml")).unwrap();
}

fn said(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn config_check(place: &Place, words: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = place.program();
    command.args(["config", "check", "--config", "config.toml"]).args(words).envs(variables.iter().copied());
    said(command)
}

/// Two archives of one database.
const TWO: &str = "\
db = 'sqlite:PLACE/files.db'
poll = 0.2
[[target]]
archive-name = 'one'
data-dir = 'PLACE/archive/of-one'
[[target]]
name = 'second'
archive-name = 'two'
data-dir = 'PLACE/archive/of-two'
";

#[test]
fn a_variable_beats_the_file_and_what_is_typed_beats_both() {
    let place = Place::make();
    write(&place, "db = 'sqlite:x.db'\narchive-name = 'smurf'\ndata-dir = '/in-file'\nqueue = 7\nchmod = 'g+r'\n");
    let variables = [("ARCHIVER_QUEUE", "8"), ("ARCHIVER_CHMOD", "o+r"), ("ARCHIVER_COMPRESS", "auto")];
    let (code, out, err) = config_check(&place, &["--chmod", "a+r"], &variables);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for line in [
        "data-dir = \"/in-file\"  # config.toml, line 3",
        "queue = 8  # Variable ARCHIVER_QUEUE",
        "compress = \"auto\"  # Variable ARCHIVER_COMPRESS",
        "chmod = \"a+r\"  # command line",
    ] {
        assert!(out.lines().any(|other| other == line), "no line {line:?}:\n{out}");
    }
    assert!(!out.contains("poll"), "only what somebody said: {out}");
    let (_, out, _) = config_check(&place, &["--all"], &variables);
    assert!(out.contains("poll = 5"), "{out}");
    // What is shown is itself a configuration that says the same.
    fs::write(place.path("config.toml"), &out).unwrap();
    let (code, again, err) = config_check(&place, &["--all"], &[]);
    assert_eq!(code, Some(0), "{err}");
    let values =
        |text: &str| text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&out));
}

#[test]
fn the_stronger_of_two_that_exclude_each_other_counts() {
    let place = Place::make();
    write(
        &place,
        "db = 'sqlite:x.db'\narchive-name = 'smurf'\ndata-dir = '/a'\nstorage-host = 'node'\ndelete-local-after = 5\n",
    );
    let (code, out, err) = config_check(&place, &["--host", "smurf-srv"], &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("host = \"smurf-srv\"  # command line") && !out.contains("node") && !out.contains("delete"),
        "{out}"
    );
    let (code, out, _) = config_check(&place, &[], &[("ARCHIVER_TARGET", "other")]);
    assert!(code == Some(0) && out.contains("target = [\"other\"]") && !out.contains("archive-name"), "{out}");
    write(&place, "db = 'sqlite:x.db'\narchive-name = 'smurf'\ndata-dir = '/a'\nhost = 'srv'\nstorage-host = 'node'\n");
    let (code, _, err) = config_check(&place, &[], &[]);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("config.toml, line 4: host and storage-host (config.toml, line 5) exclude each other"),
        "{err}"
    );
}

#[test]
fn what_a_file_says_wrongly_is_named_with_its_line_and_nothing_is_done() {
    let place = Place::make();
    let database = database(&place, &["one"]);
    let known = [
        ("poll = 'often'\n", "config.toml, line 3: poll = \"often\": expected seconds, from 0.05 to 86400"),
        ("compress = 'perhaps'\n", "config.toml, line 3: compress = \"perhaps\": expected no, yes, auto"),
        ("storage_host = 'node'\n", "config.toml, line 3: there is no option storage_host; do you mean storage-host?"),
        ("queue = \n", "config.toml, line 3: "),
    ];
    for (line, expected) in known {
        write(&place, &format!("db = 'sqlite:PLACE/files.db'\narchive-name = 'one'\n{line}"));
        for verb in ["run", "check"] {
            let mut command = place.program();
            command.args([verb, "--once", "--data-dir", "archive", "--config", "config.toml"]);
            let (code, out, err) = said(command);
            assert_eq!((code, out.as_str()), (Some(2), ""), "{verb} {line}: {err}");
            assert!(err.contains(expected), "{verb} {line}: {err}");
        }
    }
    let mut command = place.program();
    command.args(["run", "--once", "--data-dir", "archive", "--config", "config.toml"]).env("ARCHIVER_QUEUE", "many");
    write(&place, "db = 'sqlite:PLACE/files.db'\narchive-name = 'one'\n");
    let (code, _, err) = said(command);
    assert!(code == Some(2) && err.contains("Variable ARCHIVER_QUEUE: queue = \"many\": "), "{err}");
    let copied: i64 =
        database.query_row("SELECT count(remote_md5sum) FROM supersync_v0", [], |row| row.get(0)).unwrap();
    assert_eq!((copied, place.tree().names()), (0, vec![]));
}

#[test]
fn a_password_is_shown_to_nobody_and_a_file_with_one_is_nobody_elses() {
    let place = Place::make();
    write(&place, "db = 'mysql://ocs:hunter2@127.0.0.1/files'\ntarget = 'm'\ndata-dir = '/a'\n");
    fs::set_permissions(place.path("config.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, out, err) = config_check(&place, &["--all"], &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("db = \"mysql://ocs:***@127.0.0.1/files\"") && out.contains("chmod o-r config.toml"), "{out}");
    assert!(!format!("{out}{err}").contains("hunter2"));
    fs::set_permissions(place.path("config.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(!config_check(&place, &[], &[]).1.contains("chmod"));
    let mut help = place.program();
    help.args(["run", "--help", "--config", "config.toml"]);
    let (code, out, err) = said(help);
    assert!(code == Some(0) && !format!("{out}{err}").contains("hunter2") && out.contains("--db <URL>"), "{out}{err}");
}

#[test]
fn every_key_of_the_example_can_be_used() {
    let place = Place::make();
    let mut command = place.program();
    command.args(["config", "example"]);
    let (code, out, err) = said(command);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let keys: Vec<_> = out.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = ")).collect();
    assert!(keys.len() > 40, "{out}");
    for (key, value) in keys.iter().filter(|(key, _)| !["name", "once"].contains(key)) {
        write(&place, &format!("db = 'sqlite:x.db'\narchive-name = 'smurf'\ndata-dir = '/a'\n{key} = {value}\n"));
        let (_, _, err) = config_check(&place, &[], &[]);
        let wrong = err.contains("no option") || err.contains(" is string; expected") || err.contains("is array;");
        assert!(!wrong, "{key} = {value}: {err}");
    }
}

#[test]
fn one_process_copies_for_all_targets_of_a_file_or_for_those_that_are_chosen() {
    let place = Place::make();
    let database = database(&place, &["one", "two"]);
    for folder in ["of-one", "of-two"] {
        fs::create_dir(place.archive().join(folder)).unwrap();
    }
    write(&place, TWO);
    let run = |words: &[&str]| {
        let mut command = place.program();
        command.args(["run", "--once", "--config", "config.toml"]).args(words);
        Run::to_end(command)
    };
    run(&["--only", "second"]).expect(0);
    assert_eq!(place.tree().names(), ["of-two/17953/two/first"]);
    let over = run(&["--only", "third"]).expect(2);
    assert!(over.log.contains("config.toml has no target \"third\"; it has one, second"), "{}", over.log);
    insert(&place, &database, "two", "next", 7);
    let over = run(&["--json"]).expect(0);
    assert_eq!(place.tree().names(), ["of-one/17953/one/first", "of-two/17953/two/first", "of-two/17953/two/next"]);
    for name in ["one", "second"] {
        assert!(over.log.contains(&format!("{{\"target\":\"{name}\",\"copied\":1,\"failed\":0")), "{}", over.log);
    }
    // A verb for one of them, and who names rows means the target that has them.
    let mut command = place.program();
    command.args(["retry", "--all", "--config", "config.toml"]);
    let (code, _, err) = said(command);
    assert!(code == Some(2) && err.contains("choose it with --only NAME: one, second"), "{err}");
    let mut command = place.program();
    command.args(["retry", "--all", "--config", "config.toml", "--archive-name", "two"]);
    assert_eq!(said(command).0, Some(0));
    let mut command = place.program();
    command.args(["check", "--json", "--config", "config.toml"]);
    let (code, out, _) = said(command);
    let lines: serde_json::Value = serde_json::from_str(&out).unwrap();
    let named = |name: &str| lines.as_array().unwrap().iter().filter(|line| line["target"] == name).count();
    assert!(code == Some(0) && named("one") > 5 && named("one") == named("second"), "{out}");
}

#[test]
fn of_several_targets_one_that_cannot_be_run_holds_up_no_other_and_is_tried_again() {
    let place = Place::make();
    let _one = database(&place, &["one"]);
    for folder in ["of-one", "of-two"] {
        fs::create_dir(place.archive().join(folder)).unwrap();
    }
    // Its database is there, and has no table yet.
    let second = Connection::open(place.path("second.db")).unwrap();
    second.execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
    write(&place, &TWO.replace("name = 'second'", "name = 'second'\ndb = 'sqlite:PLACE/second.db'"));
    let mut command = place.program();
    command.args(["run", "--config", "config.toml"]);
    let run = Run::start(command);
    wait_until("the other one", || place.tree().names() == ["of-one/17953/one/first"]);
    wait_until("it is told", || run.log().contains("Target second cannot be run: "));
    let mut init = place.program();
    init.args(["init-db", "--db", &format!("sqlite:{}", place.path("second.db").display())]);
    Run::to_end(init).expect(0);
    insert(&place, &second, "two", "first", 3);
    wait_until("it is tried again", || place.tree().names().len() == 2);
    run.terminate().0.expect(0);
}

#[test]
fn what_an_operator_told_a_target_holds_when_it_begins_anew() {
    let place = Place::make();
    let database = database(&place, &["one"]);
    let text = "db = 'sqlite:PLACE/files.db'\narchive-name = 'one'\ndata-dir = 'PLACE/archive'\npoll = 0.2\ncontrol = 'PLACE/a.sock'\n";
    write(&place, text);
    let mut command = place.program();
    command.args(["run", "--config", "config.toml"]);
    let run = Run::start(command);
    wait_until("the first file", || place.tree().names() == ["17953/one/first"]);
    let tell = |words: &[&str]| {
        let mut command = place.program();
        command.args(words).args(["--config", "config.toml"]);
        said(command)
    };
    assert_eq!([tell(&["pause"]).0, tell(&["bwlimit", "5M"]).0], [Some(0); 2]);
    write(&place, &format!("{text}queue = 100\n"));
    run.signal("HUP");
    let watching = || run.log().matches("Watching").count();
    wait_until("it has begun anew", || watching() == 2);
    insert(&place, &database, "one", "next", 4);
    let status: serde_json::Value = serde_json::from_str(&tell(&["status", "--json"]).1).unwrap();
    let archive = &status["archives"][0];
    assert_eq!(
        (&archive["paused"], &archive["limit"]["bytes_per_second"]),
        (&true.into(), &(5 << 20).into()),
        "{status}"
    );
    assert_eq!(place.tree().names(), ["17953/one/first"]);
    assert_eq!(tell(&["resume"]).0, Some(0));
    wait_until("the next file", || place.tree().names().len() == 2);
    run.terminate().0.expect(0);
}

#[test]
fn a_hangup_has_the_file_read_again() {
    let place = Place::make();
    let database = database(&place, &["one", "two", "three"]);
    for folder in ["of-one", "of-two", "of-three", "elsewhere"] {
        fs::create_dir(place.archive().join(folder)).unwrap();
    }
    write(&place, TWO);
    let mut command = place.program();
    command.args(["run", "--config", "config.toml"]);
    let run = Run::start(command);
    let copied = |names: &[&str]| {
        wait_until("these files", || place.tree().names() == names);
    };
    copied(&["of-one/17953/one/first", "of-two/17953/two/first"]);
    let hang_up = |words: &str| {
        run.signal("HUP");
        wait_until(words, || run.log().contains(words));
    };
    // What cannot be used changes nothing.
    write(&place, &format!("{TWO}zzz = 1\n"));
    hang_up("going on as before");
    insert(&place, &database, "one", "next", 11);
    copied(&["of-one/17953/one/first", "of-one/17953/one/next", "of-two/17953/two/first"]);
    // One is as before, one has changed, one is new.
    let third = "[[target]]\nname = 'third'\narchive-name = 'three'\ndata-dir = 'PLACE/archive/of-three'\n";
    write(&place, &format!("{}{third}", TWO.replace("of-two", "elsewhere")));
    hang_up("third is new");
    assert!(run.log().contains("target one stays as it is") && run.log().contains("target second has changed"));
    insert(&place, &database, "two", "next", 12);
    let all = [
        "elsewhere/17953/two/next",
        "of-one/17953/one/first",
        "of-one/17953/one/next",
        "of-three/17953/three/first",
        "of-two/17953/two/first",
    ];
    copied(&all);
    // One is gone: its rows wait.
    write(&place, &format!("db = 'sqlite:PLACE/files.db'\npoll = 0.2\n{third}"));
    hang_up("target one is no longer there");
    insert(&place, &database, "three", "next", 13);
    wait_until("the one that is left", || place.archive().join("of-three/17953/three/next").exists());
    run.terminate().0.expect(0);
}
