//! Storage nodes that are fed from others: what one has proven goes on to the next, from its archive.

use crate::nodes::Site;
use crate::support::archiver::{Run, hex, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, TARGET, Table};
use serde_json::Value;
use std::fs;

const PAIR: (&[&str], &[(&str, &str)]) = (&["a", "b"], &[("b", "a")]);
/// Several processes of one place answer nobody.
const SILENT: &str = "control = 'none'\nstate-dir = 'none'";

/// Starts what copies from one node to the next.
fn relay(site: &Site, words: &[&str]) -> Run {
    let mut command = site.place.program();
    command.args(["relay", "--config", "config.toml"]).args(words);
    Run::start(command)
}

/// Has a verb done that ends, with this exit code; what it says.
fn told(site: &Site, words: &[&str], code: i32) -> String {
    let mut command = site.place.program();
    command.args(words).args(["--config", "config.toml"]);
    Run::to_end(command).expect(code).log
}

fn next_hop_is_away(site: &Site) {
    const ROWS: usize = 60;
    for node in ["b", "c"] {
        site.sshd(node).kill();
    }
    site.register(0..ROWS as u64);
    let run = site.start(&[]);
    wait_until("rows are done without the next hop", || site.copied() == ROWS && site.proven("a") == ROWS);
    if site.table.is_none() {
        wait_until("local files go", || site.count("FILES WHERE removed > 0") == ROWS);
    }
    let relays = ["b", "c"].map(|node| relay(site, &["--node", node]));
    site.sshd("b").restart();
    wait_until("the next one is filled", || site.proven("b") == ROWS);
    assert_eq!([site.proven("c"), site.count("fleet_owed"), site.count("fleet_trouble")], [0; 3]);
    site.sshd("c").restart();
    wait_until("and the one behind it", || site.proven("c") == ROWS);
    site.register(ROWS as u64..ROWS as u64 + 5);
    wait_until("new rows pass through all", || site.proven("c") == ROWS + 5);
    for relay in relays {
        relay.terminate().0.expect(0);
    }
    let (left, _) = run.terminate();
    assert!(left.expect(0).log.contains("Storage node b is fed from a"));
    assert_eq!(["a", "b", "c"].map(|node| site.expect_whole(node)), [ROWS + 5; 3]);
    assert_eq!(
        [site.count("fleet_owed"), site.count("fleet_mover"), site.count("fleet_lane WHERE holder IS NOT NULL")],
        [0; 3]
    );
}

const CHAIN: (&[&str], &[(&str, &str)]) = (&["a", "b", "c"], &[("b", "a"), ("c", "b")]);

#[test]
fn what_one_storage_node_has_proven_goes_on_to_the_next_which_holds_up_no_row_and_keeps_no_file() {
    let common = format!("{SILENT}\ndelete-local-after = 0");
    let Some(site) = Site::relaying(CHAIN, &common, None) else { return };
    next_hop_is_away(&site);
}

#[test]
fn what_one_storage_node_has_proven_goes_on_to_the_next_by_mariadb() {
    let Some(site) = Site::relaying(CHAIN, SILENT, Some("relay_away")) else { return };
    next_hop_is_away(&site);
}

fn relay_is_killed(site: &Site) {
    const ROWS: usize = 600;
    site.register(0..ROWS as u64);
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    let first = relay(site, &[]);
    wait_until("some have gone on", || site.proven("b") > 20);
    first.kill();
    let before = site.proven("b");
    let (one, other) = (relay(site, &[]), relay(site, &[]));
    wait_until("all have gone on", || site.proven("b") == ROWS);
    site.register(ROWS as u64..ROWS as u64 + 400);
    let run = site.start(&[]);
    wait_until("what came since as well", || site.proven("b") == ROWS + 400);
    run.terminate().0.expect(0);
    let shared = format!("(SELECT 1 FROM fleet_proof WHERE node='b' AND row_id > {ROWS} GROUP BY mover) AS w");
    assert_eq!(site.count(&shared), 2, "each of both has proven some");
    for relay in [one, other] {
        relay.terminate().0.expect(0);
    }
    assert!(before < ROWS, "it was killed in the middle: {before}");
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [ROWS + 400; 2]);
    let left = |node: &str| site.folder(node).read_dir().unwrap().count();
    assert_eq!([left("a"), left("b")], [ROWS + 400; 2], "nothing else is there");
}

#[test]
fn relays_share_what_goes_on_and_lose_nothing_when_one_is_killed() {
    let Some(site) = Site::relaying(PAIR, SILENT, None) else { return };
    relay_is_killed(&site);
}

#[test]
fn relays_share_what_goes_on_by_mariadb() {
    let Some(site) = Site::relaying(PAIR, SILENT, Some("relay_killed")) else { return };
    relay_is_killed(&site);
}

fn copy_is_bad(site: &Site) {
    site.register(0..12);
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    let at_a = |name: &str| site.folder("a").join(name);
    fs::remove_file(at_a("00001.dat")).unwrap();
    let damaged = fs::read(at_a("00002.dat")).unwrap().iter().map(|byte| !byte).collect::<Vec<_>>();
    fs::write(at_a("00002.dat"), damaged).unwrap();
    let listed = |words: &[&str]| {
        let rows = site.list(&[&["--json"], words].concat()).expect(0).objects();
        let line = |row: &Value| (row["id"].as_i64().unwrap(), row["node"].clone(), row["node_state"].clone());
        rows.iter().map(line).collect::<Vec<_>>()
    };
    let line = |id: i64, state: &str| (id, Value::from("b"), Value::from(state));
    assert_eq!(listed(&["--node", "b"]), (1..=12).map(|id| line(id, "waiting")).collect::<Vec<_>>());
    let relay = relay(site, &[]);
    wait_until("the others go on, and these are given up", || {
        site.proven("b") == 10 && site.count("fleet_trouble WHERE node='b' AND of_node=2") == 2
    });
    assert_eq!([site.copied(), site.count("FILES WHERE failed_copy_attempts > 0")], [12, 0]);
    assert!(!site.folder("b").join("00002.dat").exists());
    let given_up = [2, 3].map(|id| line(id, "given_up"));
    for words in [&["--failed"][..], &["--node", "b"], &["--node", "b", "--failed"]] {
        assert_eq!(listed(words), given_up, "{words:?}");
    }
    let table = site.list(&["--failed"]).expect(0).out;
    assert!(table.matches("the copy of a cannot be used").count() == 2 && table.ends_with("2 rows\n"), "{table}");
    let show = |id: &str| {
        let mut show = site.place.program();
        let name = if site.table.is_some() { ["--target", TARGET] } else { ["--archive-name", "smurf"] };
        show.args(["files", "show", "--id", id, "--db", &site.url()]).args(name);
        Run::to_end(show).log
    };
    let status = || -> serde_json::Value {
        let report = told(site, &["status", "--fleet", "--json"], 0);
        serde_json::from_str::<serde_json::Value>(&report).unwrap()["fleets"][0]["nodes"].clone()
    };
    assert_eq!([0, 1].map(|at| status()[at]["owed"].as_u64()), [Some(0), Some(2)]);
    let checked = told(site, &["check", "--node", "b"], 0);
    assert!(
        checked.contains("0 pending, 2 given up, 10 copied") && checked.contains("the copy of a cannot be used"),
        "{checked}"
    );
    for id in ["2", "3"] {
        let shown = show(id);
        assert!(
            shown.contains("b: has no proven copy; it comes from a") && shown.contains("--node a --repair"),
            "{shown}"
        );
    }
    if site.table.is_none() {
        let found = told(site, &["files", "verify", "--all", "--node", "a", "--repair"], 1);
        assert!(found.contains("1 different; 1 missing; 2 rows will be copied again"), "{found}");
    } else {
        // Its rows no longer say where the files were.
        let sources = site.place.sources();
        let from = ["--source", sources.to_str().unwrap()];
        site.tell(&[&["files", "recopy", "--id", "2", "3"], &from[..]].concat());
    }
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    wait_until("what was made again goes on by itself", || site.proven("b") == 12);
    assert_eq!([listed(&["--failed"]), listed(&["--node", "b"])], [const { Vec::new() }; 2]);
    assert!(told(site, &["files", "verify", "--all", "--node", "b"], 0).contains("12 copies are right"));
    let (relay, _) = relay.terminate();
    assert!(relay.expect(0).log.contains("the copy of a cannot be used"));
    assert_eq!([site.expect_whole("a"), site.expect_whole("b"), site.count("fleet_trouble")], [12, 12, 0]);
}

#[test]
fn a_bad_copy_is_not_spread_and_goes_on_once_it_was_made_again() {
    let Some(site) = Site::relaying(PAIR, SILENT, None) else { return };
    copy_is_bad(&site);
}

#[test]
fn a_bad_copy_is_not_spread_by_mariadb() {
    let common = format!("{SILENT}\nexisting = 'replace'");
    let Some(site) = Site::relaying(PAIR, &common, Some("relay_bad")) else { return };
    copy_is_bad(&site);
}

#[test]
fn a_relay_reads_where_it_sees_the_other_archive_and_writes_by_our_own_far_end() {
    let Some(site) = Site::relaying(PAIR, SILENT, Some("relay_seen")) else { return };
    site.register(0..30);
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    fs::rename(site.at("a"), site.place.path("mounted")).unwrap();
    let mut text = fs::read_to_string(site.place.path("config.toml")).unwrap();
    let program = env!("CARGO_BIN_EXE_pysmurf-archiver");
    text += &format!("from-dir = '{}'\nrsync-path = '{program}'\n", site.place.path("mounted").display());
    fs::write(site.place.path("config.toml"), text).unwrap();
    let copied = relay(&site, &["--once"]).wait(PATIENCE).expect(0);
    assert!(copied.log.contains("Ended: Drained"), "{}", copied.log);
    assert_eq!(site.expect_whole("b"), 30);
    fs::rename(site.place.path("mounted"), site.at("a")).unwrap();
    let checked = told(&site, &["check"], 0);
    assert!(checked.contains("node b") && checked.contains("`check --node b` there looks at it"), "{checked}");
    let configured = told(&site, &["config", "check"], 0);
    assert!(configured.contains("# All 2 targets can be used"), "{configured}");
    assert!(configured.contains("from-data-dir"), "{configured}");
}

fn file_is_registered_anew(site: &Site) {
    let register = |bytes: &[u8], number: u64| {
        let (path, _) = site.place.source("00001.dat", 10, number);
        fs::write(&path, bytes).unwrap();
        site.insert(&path, md5_of(&path));
        site.start(&["--once"]).wait(PATIENCE).expect(0);
    };
    register(b"first", 1);
    relay(site, &["--once"]).wait(PATIENCE).expect(0);
    register(b"second", 2);
    register(b"third", 3);
    let copied = relay(site, &["--once"]).wait(PATIENCE).expect(0);
    assert!(!copied.log.contains("Not copied"), "{}", copied.log);
    assert_eq!(fs::read(site.folder("b").join("00001.dat")).unwrap(), b"third");
    assert_eq!([site.proven("a"), site.proven("b"), site.count("fleet_trouble")], [3, 2, 0]);
    let checked = told(site, &["check", "--node", "b"], 0);
    assert!(checked.contains("0 pending, 0 given up"), "{checked}");
}

#[test]
fn of_a_file_that_was_registered_anew_the_copy_that_is_there_goes_on() {
    let Some(site) = Site::relaying(PAIR, SILENT, None) else { return };
    file_is_registered_anew(&site);
}

#[test]
fn of_a_file_that_was_registered_anew_the_copy_that_is_there_goes_on_by_mariadb() {
    let common = format!("{SILENT}\nexisting = 'replace'");
    let Some(site) = Site::relaying(PAIR, &common, Some("relay_anew")) else { return };
    file_is_registered_anew(&site);
}

#[test]
fn relayed_storage_nodes_count_if_more_copies_are_wanted_than_the_others_make() {
    let Some(site) = Site::relaying(PAIR, &format!("{SILENT}\ncopies = 2\ndelete-local-after = 0"), None) else {
        return;
    };
    site.register(0..10);
    let run = site.start(&[]);
    wait_until("the first one has all", || site.proven("a") == 10);
    assert_eq!(site.copied(), 0);
    let relay = relay(&site, &[]);
    wait_until("rows are done with the second one", || site.copied() == 10);
    wait_until("and only then local files go", || site.count("FILES WHERE removed > 0") == 10);
    for run in [run, relay] {
        run.terminate().0.expect(0);
    }
    assert_eq!([site.expect_whole("a"), site.expect_whole("b"), site.count("fleet_owed")], [10, 10, 0]);
}

#[test]
fn a_relayed_storage_node_that_was_wiped_is_filled_again_from_the_one_that_feeds_it() {
    let Some(site) = Site::relaying(PAIR, &format!("{SILENT}\ndelete-local-after = 0"), None) else { return };
    site.register(0..8);
    let run = site.start(&[]);
    let other = relay(&site, &[]);
    wait_until("both have all", || site.proven("b") == 8 && site.count("FILES WHERE removed > 0") == 8);
    fs::remove_dir_all(site.at("b")).unwrap();
    fs::create_dir(site.at("b")).unwrap();
    site.register(8..10);
    let owed = site.tell(&["files", "owe", "--node", "b", "--all"]);
    assert!(owed.contains("owed by it"), "{owed}");
    assert_eq!(site.count("fleet_owed"), 0);
    wait_until("it has all again", || site.proven("b") == 10);
    for run in [run, other] {
        run.terminate().0.expect(0);
    }
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [10, 10]);
}

fn first_one_is_wiped(site: &Site) {
    site.register(0..8);
    let run = site.start(&[]);
    let other = relay(site, &[]);
    wait_until("both have all", || site.proven("b") == 8 && site.copied() == 8);
    if site.table.is_none() {
        wait_until("local files go", || site.count("FILES WHERE removed > 0") == 8);
    }
    fs::remove_dir_all(site.at("a")).unwrap();
    fs::create_dir(site.at("a")).unwrap();
    let long_ago = if site.table.is_some() { "'2001-01-01'" } else { "1" };
    site.run_sql(&format!("UPDATE fleet_proof SET at={long_ago} WHERE node='b'"));
    site.tell(&["files", "owe", "--node", "a", "--all"]);
    wait_until("it has all again", || site.proven("a") == 8 && site.count("fleet_owed") == 0);
    for run in [run, other] {
        run.terminate().0.expect(0);
    }
    assert_eq!([site.expect_whole("a"), site.expect_whole("b")], [8, 8]);
    assert_eq!(
        site.count(&format!("fleet_proof WHERE node='b' AND at={long_ago}")),
        8,
        "what is there is not sent anew"
    );
}

#[test]
fn a_storage_node_that_was_wiped_is_filled_from_the_one_that_it_feeds() {
    let common = format!("{SILENT}\nfill-dir = 'fill'\ndelete-local-after = 0");
    let Some(site) = Site::relaying(PAIR, &common, None) else { return };
    first_one_is_wiped(&site);
}

#[test]
fn a_storage_node_that_was_wiped_is_filled_from_the_one_that_it_feeds_by_mariadb() {
    let common = format!("{SILENT}\nfill-dir = 'fill'");
    let Some(site) = Site::relaying(PAIR, &common, Some("relay_wiped")) else { return };
    first_one_is_wiped(&site);
}

#[test]
fn a_row_that_is_put_back_goes_on_anew() {
    let Some(site) = Site::relaying(PAIR, SILENT, None) else { return };
    site.register(0..6);
    let both = || {
        site.start(&["--once"]).wait(PATIENCE).expect(0);
        relay(&site, &["--once"]).wait(PATIENCE).expect(0);
    };
    both();
    assert_eq!([site.proven("a"), site.proven("b")], [6, 6]);
    site.run_sql("UPDATE fleet_proof SET at=1; UPDATE supersync_v0 SET remote_md5sum=NULL WHERE id<=3");
    both();
    assert_eq!([site.copied(), site.count("fleet_proof WHERE at=1")], [6, 6]);
}

#[test]
fn what_cannot_be_relayed_is_refused_with_what_to_do() {
    let Some(site) = Site::relaying(PAIR, SILENT, None) else { return };
    let text = fs::read_to_string(site.place.path("config.toml")).unwrap();
    let with = |from: &str, to: &str, words: &[&str]| {
        fs::write(site.place.path("config.toml"), text.replace(from, to)).unwrap();
        let refused = relay(&site, words).wait(PATIENCE).expect(2).log;
        fs::write(site.place.path("config.toml"), &text).unwrap();
        refused
    };
    for (from, to, words, expected) in [
        ("from = 'a'", "", &[][..], "has no storage node that is fed from another one"),
        ("from = 'a'", "from = 'b'", &[], "fed from itself"),
        ("from = 'a'", "from = 'x'", &[], "which is none; there are a, b"),
        ("from = 'a'", "from = 1", &[], "from is the name of another node"),
        ("zzz", "", &["--node", "a"], "`run` copies to it"),
        (site.at("a").to_str().unwrap(), "archive", &[], "--from-dir"),
        ("archive-b", "archive-b'\nbatches = 'spool", &[], "does not go with several storage nodes"),
    ] {
        let refused = with(from, to, words);
        assert!(refused.contains(expected), "{expected}: {refused}");
    }
    let [place_of_a, place_of_b] = ["a", "b"].map(|node| {
        let (port, dir) = (site.sshd(node).port, site.at(node));
        format!(":{port}'\ndata-dir = '{}'", dir.display())
    });
    let refused = with(&place_of_b, &place_of_a, &[]);
    assert!(refused.contains("the nodes b and a are one place"), "{refused}");
    // Tables of an older version are taken over.
    site.run_sql("DROP TABLE fleet_relay");
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    let refused = relay(&site, &["--once"]).wait(PATIENCE).expect(2).log;
    assert!(refused.contains("run `pysmurf-archiver init-db --nodes` once more"), "{refused}");
    let mut init = site.place.program();
    init.args(["init-db", "--nodes", "--db", &site.url()]);
    assert!(Run::to_end(init).expect(0).log.contains("fleet_relay"));
    relay(&site, &["--once"]).wait(PATIENCE).expect(0);
}

/// So many rows that both have, and proofs of long ago.
fn fill(site: &Site, rows: usize) {
    let (files, long_ago) = match &site.table {
        Some(_) => {
            site.run_sql(&format!(
                "INSERT INTO pysmurf_files_v1 (path, timestamp, instance_id, copied, failed_copy_attempts, md5sum) \
                 SELECT CONCAT('/d/', seq), FROM_UNIXTIME(1589517384), '{TARGET}', 1, 0, UNHEX(MD5(seq)) FROM seq_1_to_{rows}"
            ));
            ("pysmurf_files_v1", "'2020-01-01'")
        }
        None => {
            site.run_sql(&format!(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows}) \
                 INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, remote_md5sum, removed, \
                 failed_copy_attempts, deletable, \"ignore\") SELECT '/d/' || n, printf('%032d', n), 'smurf', 'd/' || n, 1.5, \
                 printf('%032d', n), 1.5, 0, 1, 0 FROM n"
            ));
            ("supersync_v0", "1.5")
        }
    };
    let sum = if site.table.is_some() { "md5sum" } else { "unhex(local_md5sum)" };
    for node in ["a", "b"] {
        site.run_sql(&format!(
            "INSERT INTO fleet_proof (table_name, row_id, node, mover, gen, path, sum, at) \
             SELECT '{files}', id, '{node}', 'm', 0, PATH, {sum}, {long_ago} FROM {files}"
        ));
    }
}

/// Has a row be one that the first node has proven just now; its copy.
fn prove_late(site: &Site, row: usize) -> std::path::PathBuf {
    let name = format!("late{row}.dat");
    let copy = site.folder("a").join(&name);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, "late").unwrap();
    let md5 = hex(md5_of(&copy)).to_lowercase();
    let (place, set, now) = match &site.table {
        Some(_) => (copy.display().to_string(), format!("md5sum=UNHEX('{md5}')"), "CURRENT_TIMESTAMP(6)"),
        None => {
            (format!("17950/{name}"), format!("local_md5sum='{md5}', remote_md5sum='{md5}'"), "unixepoch('subsec')")
        }
    };
    let sum = if site.table.is_some() { format!("UNHEX('{md5}')") } else { format!("unhex('{md5}')") };
    site.run_sql(&format!(
        "BEGIN; UPDATE FILES SET {set} WHERE id={row}; DELETE FROM fleet_proof WHERE node='b' AND row_id={row}; \
         UPDATE fleet_proof SET path='{place}', sum={sum}, at={now} WHERE node='a' AND row_id={row}; COMMIT"
    ));
    site.folder("b").join(name)
}

/// What the server has done: statements of ours, and rows read for them by indexes.
fn done_by(server: &MariaDb) -> [u64; 2] {
    let told = server
        .execute("SHOW GLOBAL STATUS WHERE Variable_name='Com_stmt_execute' OR Variable_name IN ('Handler_read_key', 'Handler_read_next', 'Handler_read_prev')");
    told.lines().fold([0; 2], |[statements, reads], line| {
        let (name, count) = line.split_once('\t').unwrap();
        let count: u64 = count.trim().parse().unwrap();
        if name == "Com_stmt_execute" { [statements + count, reads] } else { [statements, reads + count] }
    })
}

#[test]
fn what_is_proven_late_is_found_without_going_through_the_table() {
    // Nobody else is to ask it.
    let Some(server) = MariaDb::start() else { return };
    let server: &'static MariaDb = Box::leak(Box::new(server));
    let reads = [30_000, 120_000].map(|rows| {
        let table = Table::new(server, &format!("late_{rows}"), Age::V1);
        let site = Site::with(PAIR, SILENT, Some(table))?;
        fill(&site, rows);
        let relay = relay(&site, &["--poll", "1"]);
        wait_until("it has gone through all", || {
            let before = done_by(server);
            let mut now = before;
            wait_until("it asks on", || {
                now = done_by(server);
                now[0] > before[0] + 60
            });
            site.count("fleet_mover") > 0 && (now[1] - before[1]) / (now[0] - before[0]) < 1500
        });
        let [_, before] = done_by(server);
        let copy = prove_late(&site, rows / 2);
        wait_until("it goes on", || copy.exists());
        let [_, reads] = done_by(server);
        relay.terminate().0.expect(0);
        assert_eq!(site.count("fleet_trouble"), 0);
        Some(reads - before)
    });
    let [Some(few), Some(many)] = reads else { return };
    eprintln!("{few} and {many} rows were read");
    assert!(many < 2 * few, "{few} and {many}");
}

#[test]
fn what_is_proven_late_is_found_at_once_by_sqlite() {
    let Some(site) = Site::relaying(PAIR, SILENT, None) else { return };
    fill(&site, 30_000);
    let relay = relay(&site, &[]);
    wait_until("it works", || site.count("fleet_mover") > 0);
    let copy = prove_late(&site, 15_000);
    wait_until("it goes on", || copy.exists());
    // Rounds through all come each five minutes.
    let copy = prove_late(&site, 14_000);
    wait_until("it goes on at once", || copy.exists());
    relay.terminate().0.expect(0);
}
