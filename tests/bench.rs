//! The `bench` command on little data: that it measures, and says it in the agreed form. How fast anything is, no test says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(unreachable_pub)]
#[path = "support"]
mod support {
    pub mod tools;
}

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::tools::require;
use tempfile::TempDir;

const OURS: &str = env!("CARGO_BIN_EXE_pysmurf-archiver");

const KEYS: [&str; 8] = ["id", "receiver", "ours", "theirs", "unit", "ratio", "cpu_ratio", "peak_rss_bytes"];

/// Runs `bench` with these words, and `--dir` of a folder that must be empty behind it.
fn bench(words: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "300", OURS, "bench"]).args(words).arg("--dir").arg(folder.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "bench {words:?} leaves {left:?}");
    output
}

/// The rows of a run that must succeed, each checked for its form.
fn rows(words: &[&str]) -> Vec<Value> {
    let output = bench(words);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let Value::Array(rows) = serde_json::from_str(&stdout).unwrap() else { panic!("no array: {stdout}") };
    for row in &rows {
        let row_keys: BTreeSet<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(row_keys, BTreeSet::from(KEYS), "{row}");
        assert!(row["id"].is_string() && row["unit"].is_string(), "{row}");
        assert!(row["ours"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["receiver"].is_null() || ["stock", "ours"].contains(&row["receiver"].as_str().unwrap()), "{row}");
        assert!(row["peak_rss_bytes"].is_null() || row["peak_rss_bytes"].as_u64().unwrap() > 1 << 20, "{row}");
    }
    rows
}

fn pairs(rows: &[Value]) -> Vec<(&str, &str)> {
    rows.iter().map(|row| (row["id"].as_str().unwrap(), row["receiver"].as_str().unwrap_or(""))).collect()
}

/// Whether `scripts/goals` is content with these rows, and the first word on each.
fn judged(rows: &[Value]) -> (bool, Vec<String>) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/goals");
    let mut script = Command::new("python3").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    script.stdin.take().unwrap().write_all(json!(rows).to_string().as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), lines.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect())
}

#[test]
fn a_goal_is_met_within_cpu_and_memory_only() {
    if !require("python3") {
        return;
    }
    let row = |id: &str, receiver: Option<&str>, unit: &str| {
        let row = json!({"id": id, "receiver": receiver, "unit": unit, "ours": 1.0, "theirs": 1.0});
        move |ratio: f64, cpu_ratio: Option<f64>, peak: Option<u64>| {
            let mut row = row.clone();
            row["ratio"] = ratio.into();
            row["cpu_ratio"] = cpu_ratio.into();
            row["peak_rss_bytes"] = peak.into();
            row
        }
    };
    let unrelated = row("unrelated", Some("stock"), "s");
    let unrelated = |ratio, cpu, mib: u64| unrelated(ratio, Some(cpu), Some(mib << 20));
    assert_eq!(judged(&[unrelated(4.0, 0.2, 10)]), (true, vec!["yes".to_owned()]));
    let missed = [unrelated(3.9, 0.2, 10), unrelated(8.0, 0.25, 10), unrelated(8.0, 0.05, 65)];
    assert_eq!(judged(&missed), (false, vec!["NO".to_owned(); 3]));
    // Some have no goal, and that of the cores is a share of the memory's rate.
    let core = |id, rate| row(id, None, "GB per CPU second")(rate, None, None);
    let inserted = row("inserted", Some("stock"), "s")(0.1, Some(9.0), None);
    assert_eq!(judged(&[inserted]), (true, vec![]));
    let cores = |sums| [core("core-memory", 10.0), core("core-sums", sums)];
    assert_eq!(judged(&cores(7.0)), (true, vec!["yes".to_owned()]));
    assert_eq!(judged(&cores(6.9)), (false, vec!["NO".to_owned()]));
}

#[test]
fn the_cores_are_measured_at_each_level_of_vectors() {
    if !require("rsync") {
        return;
    }
    let rows = rows(&["delta", "--quick", "--size", "1M", "--json"]);
    for id in ["core-sums", "core-identical", "core-miss", "core-miss-fast-rsync", "core-miss-stock"] {
        let row = rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("no {id}"));
        assert!(row["theirs"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["unit"].as_str().unwrap().starts_with("GB per CPU second"), "{row}");
        let itself = !["core-miss-fast-rsync", "core-miss-stock"].contains(&id);
        assert_eq!(row["ratio"] == row["ours"], itself, "{row}");
    }
    for id in ["core-memory", "core-sums-plain", "core-miss-first-plain"] {
        let row = rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("no {id}"));
        assert!(row["ratio"].as_f64().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn transfers_are_measured_against_stock_with_both_receivers() {
    if !["rsync", "ssh", "scp", "sshd", "ssh-keygen"].into_iter().all(require) {
        return;
    }
    let rows = rows(&["transfer", "--quick", "--size", "300k", "--scenario", "new,changed,small", "--json"]);
    let expected = [
        ("new-default", "stock"),
        ("new-default", "ours"),
        ("new-scp", "stock"),
        ("new-gcm", "stock"),
        ("new-gcm", "ours"),
        ("changed", "stock"),
        ("changed", "ours"),
        ("small", "stock"),
        ("small", "ours"),
    ];
    assert_eq!(pairs(&rows), expected);
    for row in &rows {
        assert!(row["theirs"].as_f64().unwrap() > 0.0 && row["cpu_ratio"].as_f64().unwrap() > 0.0, "{row}");
        let (ratio, of_times) =
            (row["ratio"].as_f64().unwrap(), row["theirs"].as_f64().unwrap() / row["ours"].as_f64().unwrap());
        assert!((ratio / of_times - 1.0).abs() < 0.02, "{row}");
    }
}

#[test]
fn the_archiver_is_measured_on_a_queue_that_it_proves() {
    if !["rsync", "ssh", "sshd", "ssh-keygen"].into_iter().all(require) {
        return;
    }
    let rows = rows(&["transfer", "--quick", "--receiver", "stock", "--scenario", "trickle,wan", "--json"]);
    assert_eq!(pairs(&rows), [("trickle-agent", "stock"), ("trickle-suprsync", "stock"), ("wan", "stock")]);
    assert_eq!(rows[0]["unit"], "ms per file");
    assert_eq!(rows[0]["ours"], rows[1]["ours"]);
}

#[test]
fn rivals_take_turns_and_what_fails_is_left_out() {
    if !["rsync", "ssh", "scp", "sshd", "ssh-keygen", "tar"].into_iter().all(require) {
        return;
    }
    let tools = [
        "--tool",
        "cat=ssh -F {config} {host} 'cat >{target}/00000.g3' <{source}",
        "--tool",
        "bad=false {source} {target}",
    ];
    let words = ["rivals", "--quick", "--size", "300k", "--race", "new,wan-one", "--json"];
    let output = bench(&[&words[..], &tools].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("SKIPPED bad (new): ") && stderr.contains("SKIPPED bad (wan-one): "), "{stderr}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    for race in ["new", "wan-one"] {
        for tool in ["ours to stock", "ours to ours", "archiver to stock", "rsync", "scp", "tar through ssh", "cat"] {
            let row = rows.iter().find(|row| row["race"] == race && row["tool"] == tool);
            let row = row.unwrap_or_else(|| panic!("no {tool} in {race}: {stderr}"));
            let rounds = row["rounds"].as_array().unwrap();
            let walls: Vec<_> = rounds.iter().map(|round| round["wall"].as_f64().unwrap()).collect();
            assert!(walls.len() == 1 && walls[0] > 0.0 && row["wall"] == rounds[0]["wall"], "{row}");
            assert!(rounds.iter().all(|round| (0.0..=1.0).contains(&round["others"].as_f64().unwrap())), "{row}");
            assert!(!row["command"].as_str().unwrap().is_empty() && row["far_cpu"].is_number(), "{row}");
        }
    }
    assert!(!rows.iter().any(|row| row["tool"] == "bad"));
}

#[test]
fn the_table_names_bytes_and_both_ends() {
    if !["rsync", "ssh", "sshd", "ssh-keygen"].into_iter().all(require) {
        return;
    }
    let output = bench(&["transfer", "--quick", "--size", "100k", "--scenario", "appended", "--receiver", "ours"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for wanted in ["scenario", "appended", "CPU s there", "bytes on the wire", "MiB"] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
}

#[test]
fn the_ssh_link_is_measured_by_cipher() {
    if !["ssh", "sshd", "ssh-keygen"].into_iter().all(require) {
        return;
    }
    let rows = rows(&["ssh", "--quick", "--size", "500k", "--json"]);
    let ids: Vec<_> = pairs(&rows).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["ssh-connect", "ssh-aes128-gcm", "ssh-aes256-gcm", "ssh-aes256-ctr", "ssh-chacha20-poly1305"]);
    assert!(rows.iter().all(|row| row["theirs"].as_f64().unwrap() > 0.0));
}

#[test]
fn curves_are_drawn_into_a_file() {
    if !["rsync", "ssh", "sshd", "ssh-keygen"].into_iter().all(require) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let svg = folder.path().join("plots.svg");
    let words = ["transfer", "--quick", "--size", "100k", "--scenario", "new-gcm", "--receiver", "stock", "--svg"];
    let output = bench(&[&words[..], &[svg.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture = std::fs::read_to_string(svg).unwrap();
    for wanted in ["<svg", "by its size", "round-trip time", "stock rsync", "8 sessions"] {
        assert!(picture.contains(wanted), "no {wanted}");
    }
}

/// A day is the same each time, and as many lines as were asked for.
#[test]
fn a_day_of_a_fleet_is_told_and_drawn() {
    let folder = TempDir::new().unwrap();
    let svg = folder.path().join("day.svg");
    let day = |more: &[&str]| {
        let mut command = Command::new(OURS);
        let output = command.args(["bench", "fleet", "--servers", "1,2", "--movers", "2"]).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = day(&["--svg", svg.to_str().unwrap()]);
    assert_eq!(table.lines().count(), 3, "{table}");
    let Value::Array(days) = serde_json::from_str(&day(&["--json"])).unwrap() else { panic!("no array") };
    assert_eq!(days.len(), 2);
    for day in days {
        // Two hours without the node are waited for, and all is copied in the end.
        assert!(
            day["wait_most_s"].as_f64().unwrap() > 7000.0 && day["behind_after_h"].as_f64().unwrap() < 1.0,
            "{day}"
        );
        assert!(day["evicted"].as_u64().unwrap() > 0, "{day}");
    }
    assert!(std::fs::read_to_string(svg).unwrap().contains("What waits of 2 servers"));
}

#[test]
fn what_is_not_there_is_said_and_left_out() {
    if !["sshd", "ssh-keygen"].into_iter().all(require) {
        return;
    }
    // A machine with sshd, and without rsync, ssh and scp: a PATH of its own.
    let folder = TempDir::new().unwrap();
    for tool in ["sh", "sshd", "ssh-keygen", "mktemp", "true"] {
        if let Some(found) = support::tools::find(tool) {
            std::os::unix::fs::symlink(found, folder.path().join(tool)).unwrap();
        }
    }
    let output = Command::new(OURS)
        .args(["bench", "delta", "--quick", "--size", "100k", "--json"])
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("SKIPPED core-miss-stock: No rsync here; apt-get install"), "{stderr}");
}

#[test]
fn what_cannot_be_is_refused() {
    let output = bench(&["transfer", "--scenario", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nonsense"));
    let output = bench(&["ssh", "no-such-host.invalid", "--quick"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-host.invalid"));
}

#[test]
fn a_signal_leaves_nothing_behind() {
    if !["rsync", "ssh", "sshd", "ssh-keygen"].into_iter().all(require) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(OURS);
    command.args(["bench", "transfer", "--size", "1M", "--rounds", "1000", "--scenario", "new-gcm", "--dir"]);
    let mut bench = command.arg(folder.path()).stderr(Stdio::piped()).spawn().unwrap();
    let scratch = || folder.path().read_dir().unwrap().next().map(|entry| entry.unwrap().path());
    let deadline = Instant::now() + Duration::from_secs(120);
    // A first copy has been made.
    while !scratch().is_some_and(|scratch| scratch.join("far/dst/data").exists()) {
        assert!(Instant::now() < deadline && bench.try_wait().unwrap().is_none(), "it does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-TERM", &bench.id().to_string()]).status().unwrap().success());
    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "pysmurf-archiver: Interrupted\n");
    assert_eq!(scratch(), None);
}

#[test]
fn the_relay_relays_until_it_is_told_to_stop() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    let mut relay = Command::new(OURS)
        .args(["bench", "link", "--to", &to, "--rtt", "10", "--rate", "10M"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(relay.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let mut client = TcpStream::connect(address.trim()).unwrap();
    client.write_all(b"through").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    server.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
    let pid = relay.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(relay.wait().unwrap().code(), Some(0));
}
