//! `files list` where rows go to several storage nodes: what failed at one of them alone, and what one of them lacks.

use super::Site;
use crate::files::{Desk, Ended};
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::TARGET;
use serde_json::Value;
use std::fs;

/// A line of a listing: the row, the storage node, the state there or else of the row, and how often it failed.
type Line = (i64, String, String, i64);

fn line(id: i64, node: &str, state: &str, attempts: i64) -> Line {
    (id, node.to_owned(), state.to_owned(), attempts)
}

fn lines(ended: &Ended) -> Vec<Line> {
    let one = |row: &Value| {
        let id = row["id"].as_i64().unwrap();
        match row["node"].as_str() {
            Some(node) => line(id, node, row["node_state"].as_str().unwrap(), row["node_attempts"].as_i64().unwrap()),
            None => line(id, "", row["state"].as_str().unwrap(), row["attempts"].as_i64().unwrap()),
        }
    };
    ended.objects().iter().map(one).collect()
}

/// What `files list` says where the configuration file says the rest.
fn list_configured(site: &Site, words: &[&str]) -> Vec<Line> {
    let mut command = site.place.program();
    command.args(["files", "list", "--json", "--config", "config.toml"]).args(words);
    lines(&Ended::of(command).expect(0))
}

/// Something that is no copy, where one is to be.
fn put_in_the_way(site: &Site, node: &str, name: &str) {
    fs::create_dir_all(site.folder(node).join(name).join("kept")).unwrap();
}

fn refused_by_nodes(site: &Site) {
    site.insert(&site.place.sources().join("gone.dat"), [1; 16]);
    site.register(0..3);
    for (node, name) in [("b", "00001.dat"), ("a", "00002.dat"), ("b", "00002.dat")] {
        put_in_the_way(site, node, name);
    }
    let before = site.list(&["--failed", "--json"]).expect(0);
    assert_eq!(before.out, "");
    let run = site.start(&[]);
    wait_until("all is done or given up", || {
        site.count("fleet_trouble WHERE of_node=2") == 3
            && site.copied() == 1
            && site.count("FILES WHERE PATH LIKE '%/gone.dat' AND failed_copy_attempts=2") == 1
    });
    run.terminate().0.expect(0);
    let given_up = |id, node| line(id, node, "given_up", 2);
    let failed = site.list(&["--failed", "--json"]).expect(0);
    assert_eq!(lines(&failed), [given_up(1, ""), given_up(3, "b"), given_up(4, "a"), given_up(4, "b")]);
    let [of_row, of_node] = [&failed.objects()[0], &failed.objects()[1]].map(Clone::clone);
    assert_eq!(
        (&of_row["node"], &of_row["node_state"], &of_row["node_reason"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert!(of_row["reason"].as_str().unwrap().contains("missing"), "{of_row}");
    // What is said of the row is of the row.
    assert_eq!((of_node["state"].as_str(), of_node["attempts"].as_i64()), (Some("waiting"), Some(0)));
    assert!(of_node["source"].as_str().unwrap().ends_with("/00001.dat") && of_node["reason"].is_null(), "{of_node}");
    assert!(!of_node["node_reason"].as_str().unwrap().is_empty(), "{of_node}");
    assert!(of_node["node_reason_at"].as_f64().unwrap() > 1e9, "{of_node}");

    let table = site.list(&["--failed"]).expect(0).out;
    let told: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(told[0], "ID STATE FAILED AGE NODE FILE", "{table}");
    assert!(told[3].starts_with("3 given up 2 ") && told[3].contains(" b /"), "{table}");
    assert!(told[3].ends_with("/00001.dat") && !told[4].is_empty(), "{table}");
    assert_eq!((told.len(), told[9].as_str()), (10, "4 lines of 3 rows"), "{table}");
    let csv = site.list(&["--failed", "--csv"]).expect(0).out;
    assert!(
        csv.lines()
            .next()
            .unwrap()
            .ends_with(",reason,reason_at,node,node_state,node_attempts,node_reason,node_reason_at")
    );
    assert!(csv.lines().count() == 5 && csv.contains(",b,given_up,2,"), "{csv}");
    // As another limit has it, they will be tried again.
    let tried_on = lines(&site.list_given_up_after("3", &["--failed", "--json"]).expect(0));
    assert_eq!(tried_on[1], line(3, "b", "retrying", 2));
    assert_eq!(lines(&site.list(&["--failed", "--json", "--path", "*/00002.dat"]).expect(0)).len(), 2);
    assert_eq!(lines(&site.list(&["--failed", "--json", "--limit", "3"]).expect(0)).len(), 3);

    let at = |node: &str, more: &[&str]| lines(&site.list(&[&["--json", "--node", node], more].concat()).expect(0));
    assert_eq!(at("a", &["--failed"]), [given_up(1, "a"), given_up(4, "a")]);
    assert_eq!(at("b", &["--failed"]), [given_up(1, "b"), given_up(3, "b"), given_up(4, "b")]);
    assert_eq!((at("a", &[]), at("b", &["--pending"])), (at("a", &["--failed"]), Vec::new()));
    let unknown = site.list(&["--node", "c"]).expect(2).err;
    assert!(unknown.contains("no storage node \"c\"; they have a, b"), "{unknown}");
    assert!(site.list(&["--node", "a", "--copied"]).expect(2).err.contains("cannot be used with"));

    tried_again(site, &failed);
}

/// `files show` says who gave a row up, and what then.
fn shown_as_given_up(site: &Site) {
    let show = |words: &[&str]| {
        let mut command = site.place.program();
        command.args(["files", "show", "--config", "config.toml", "--id", "4"]).args(words);
        Ended::of(command).expect(1)
    };
    let shown = show(&[]).out;
    assert!(shown.starts_with("Not copied to all its storage nodes: a and b gave it up."), "{shown}");
    assert!(shown.contains("next        see to the cause at a and b, then `files retry --id 4`"), "{shown}");
    assert!(shown.contains("b: has no proven copy; gave it up: failed 2 times, the last because "), "{shown}");
    let nodes: Vec<_> = show(&["--json"]).object()["nodes"].as_array().unwrap().clone();
    assert!(nodes.len() == 2 && nodes.iter().all(|node| node["given_up"] == true), "{nodes:?}");
}

/// What was listed as failed is what `retry --all` tries again.
fn tried_again(site: &Site, failed: &Ended) {
    let rows: std::collections::BTreeSet<_> = lines(failed).into_iter().map(|(id, ..)| id).collect();
    shown_as_given_up(site);
    let told = site.tell(&["retry", "--all"]);
    assert!(told.contains(&format!("{} rows will be tried again", rows.len())), "{told}");
    let named: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("row ")).collect();
    let of = |id: &str, place: &str| named.iter().filter(|line| line.starts_with(id) && line.contains(place)).count();
    let named_at = ["/gone.dat: it is missing", "/00001.dat, at storage node b: ", "/00002.dat, at storage node a: "]
        .map(|place| ["1, ", "3, ", "4, "].map(|id| of(id, place)));
    assert_eq!(named_at, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "{told}");
    assert!(named.len() == 4 && !told.contains("more"), "{told}");
    assert_eq!(site.list(&["--failed"]).expect(0).out, "No such row\n");
    for (node, name) in [("b", "00001.dat"), ("a", "00002.dat"), ("b", "00002.dat")] {
        fs::remove_dir_all(site.folder(node).join(name)).unwrap();
    }
    let source = site.place.sources().join("gone.dat");
    fs::write(&source, "here again").unwrap();
    site.run_sql("DELETE FROM FILES WHERE id=1");
    site.start(&["--once"]).wait(PATIENCE).expect(0);
    assert_eq!((site.copied(), site.list(&["--failed", "--json"]).expect(0).out.as_str()), (3, ""));
}

#[test]
fn what_one_storage_node_refused_is_listed_once_for_each_and_retried() {
    let Some(site) = Site::make(&["a", "b"], "") else { return };
    refused_by_nodes(&site);
}

#[test]
fn what_one_storage_node_refused_is_listed_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_listed", &["a", "b"], "existing = 'replace'") else { return };
    refused_by_nodes(&site);
}

fn lacked_by_one(site: &Site) {
    site.sshd("b").kill();
    site.register(0..4);
    let run = site.start(&[]);
    wait_until("one copy is enough", || site.copied() == 4 && site.count("fleet_owed") == 4);
    let at = |node: &str| lines(&site.list(&["--json", "--node", node]).expect(0));
    assert_eq!(at("b"), (1..=4).map(|id| line(id, "b", "owed", 0)).collect::<Vec<_>>());
    assert_eq!((at("a"), list_configured(site, &["--node", "b"])), (Vec::new(), at("b")));
    assert_eq!(site.list(&["--json"]).expect(0).out, "", "the rows themselves are done");
    put_in_the_way(site, "b", "00001.dat");
    fs::remove_file(site.place.sources().join("00002.dat")).unwrap();
    site.sshd("b").restart();
    wait_until("it has the others", || {
        site.proven("b") == 2
            && site.count("fleet_trouble WHERE of_node=2") == 1
            && site.count("fleet_owed WHERE lacking=1") == 1
    });
    assert_eq!(at("b"), [line(2, "b", "given_up", 2), line(3, "b", "lacking", 0)]);
    let failed = site.list(&["--failed", "--json"]).expect(0);
    assert_eq!(lines(&failed), [line(2, "b", "given_up", 2)]);
    assert_eq!(failed.object()["state"], "copied");
    assert_eq!(lines(&site.list(&["--json", "--node", "b", "--pending"]).expect(0)), [line(3, "b", "lacking", 0)]);
    run.terminate().0.expect(0);
    // By the numbers, too.
    let told = site.tell(&["retry", "--id", "1", "2", "3"]);
    assert!(told.contains("2 rows will be tried again") && told.contains("row 2, "), "{told}");
    assert!(told.contains("/00001.dat, at storage node b: "), "{told}");
    assert_eq!(at("b"), [line(2, "b", "owed", 0), line(3, "b", "owed", 0)]);
}

#[test]
fn what_a_storage_node_owes_is_listed_with_what_it_refused() {
    let Some(site) = Site::make(&["a", "b"], "copies = 1") else { return };
    lacked_by_one(&site);
    // Put back: with one copy enough, what was proven is void at both.
    site.run_sql("DELETE FROM fleet_owed; UPDATE supersync_v0 SET remote_md5sum=NULL WHERE id=1");
    for node in ["a", "b"] {
        assert_eq!(list_configured(&site, &["--node", node]), [line(1, node, "waiting", 0)]);
    }
}

#[test]
fn what_a_storage_node_owes_is_listed_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_lacked", &["a", "b"], "copies = 1\nexisting = 'replace'") else { return };
    lacked_by_one(&site);
}

fn shared_by_nodes(site: &Site) {
    site.sshd("b").kill();
    site.register(0..40);
    let run = site.start(&[]);
    let lacked = || list_configured(site, &["--node", "b"]).len();
    wait_until("the node that is there has its part", || site.copied() > 0 && site.copied() + lacked() == 40);
    assert_eq!(list_configured(site, &["--node", "a"]), []);
    run.terminate().0.expect(0);
}

#[test]
fn of_rows_that_storage_nodes_share_each_lacks_its_own() {
    let Some(site) = Site::make(&["a", "b"], "share = true") else { return };
    shared_by_nodes(&site);
}

#[test]
fn of_rows_that_storage_nodes_share_each_lacks_its_own_by_mariadb() {
    let Some(site) = Site::on_mariadb("nodes_shares", &["a", "b"], "share = true") else { return };
    shared_by_nodes(&site);
}

/// Rows of which a third is done; every seventh failed at a, every eleventh at b, which owes every fifth of those that are done.
fn fill(desk: &Desk, rows: i64) {
    let mut init = desk.place.program();
    init.args(["init-db", "--nodes", "--db", desk.url()]);
    Ended::of(init).expect(0);
    let third = rows / 3;
    desk.execute(
        &format!(
            "INSERT INTO pysmurf_files_v1 (path, timestamp, instance_id, copied, failed_copy_attempts, md5sum) \
             SELECT CONCAT('/d/', seq), FROM_UNIXTIME(1589517384), '{TARGET}', seq <= {third}, 0, UNHEX(MD5(seq)) \
             FROM seq_1_to_{rows}"
        ),
        &format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows}) \
             INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, remote_md5sum, \
             failed_copy_attempts, deletable, \"ignore\") SELECT '/d/' || n, printf('%032d', n), '{TARGET}', 'd/' || n, 1.5, \
             iif(n <= {third}, printf('%032d', n), NULL), 0, 1, 0 FROM n"
        ),
    );
    let common = |table: &str| {
        format!(
            "INSERT INTO fleet_node (table_name, target, node) VALUES ('{table}', '{TARGET}', 'a'), ('{table}', '{TARGET}', 'b');\
             INSERT INTO fleet_owed (table_name, node, row_id, source) SELECT '{table}', 'b', id, 'x' FROM {table} WHERE id <= {third} AND id % 5 = 0;\
             INSERT INTO fleet_trouble (table_name, node, row_id, of_source, of_node, noted_at, why) \
             SELECT '{table}', 'a', id, 0, 1, CURRENT, 'refused' FROM {table} WHERE id % 7 = 0;\
             INSERT INTO fleet_trouble (table_name, node, row_id, of_source, of_node, noted_at, why) \
             SELECT '{table}', 'b', id, 0, 5, CURRENT, 'refused' FROM {table} WHERE id % 11 = 0"
        )
    };
    desk.execute(
        &common("pysmurf_files_v1").replace("CURRENT", "CURRENT_TIMESTAMP(6)"),
        &common("supersync_v0").replace("CURRENT", "1.5"),
    );
}

#[test]
fn what_failed_at_storage_nodes_comes_page_by_page_in_order_and_whole() {
    const ROWS: i64 = 25_000;
    for desk in Desk::both("nodes_long") {
        fill(&desk, ROWS);
        let owed = |id: i64| id <= ROWS / 3 && id % 5 == 0;
        let (done, mut failed, mut lacked) = (|id: i64| id <= ROWS / 3, Vec::new(), Vec::new());
        for id in 1..=ROWS {
            // Of rows that are done the first one lacks nothing.
            if id % 7 == 0 && !done(id) {
                failed.push(line(id, "a", "retrying", 1));
            }
            let given_up = id % 11 == 0 && (!done(id) || owed(id));
            if given_up {
                failed.push(line(id, "b", "given_up", 5));
                lacked.push(line(id, "b", "given_up", 5));
            } else if !done(id) {
                lacked.push(line(id, "b", "waiting", 0));
            } else if owed(id) {
                lacked.push(line(id, "b", "owed", 0));
            }
        }
        let check = || {
            let listed = |words: &[&str]| lines(&desk.files(&[&["list", "--json"], words].concat()).expect(0));
            assert!(listed(&["--failed"]) == failed, "{}", listed(&["--failed"]).len());
            assert_eq!(listed(&["--failed", "--limit", "5"]), failed[..5]);
            assert!(listed(&["--node", "b"]) == lacked, "{}", listed(&["--node", "b"]).len());
            let given_up: Vec<_> = failed.iter().filter(|(_, node, ..)| node == "b").cloned().collect();
            assert!(listed(&["--node", "b", "--failed"]) == given_up);
            let rows: Vec<_> =
                listed(&[]).into_iter().filter(|(_, node, ..)| node.is_empty()).map(|(id, ..)| id).collect();
            assert_eq!(rows, (ROWS / 3 + 1..=ROWS).collect::<Vec<_>>());
            assert_eq!(listed(&[]).len(), rows.len() + failed.len());
        };
        check();
        let mut init = desk.place.program();
        init.args(["init-db", "--indexes", "--db", desk.url()]);
        Ended::of(init).expect(0);
        check();
    }
}
