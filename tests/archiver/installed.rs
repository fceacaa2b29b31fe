//! The program as a service of its machine: what is put where, the unit, and what systemd is told.

use crate::support::archiver::{PROGRAM, Place, Run};
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn what_is_installed_is_found_where_it_belongs_and_a_configuration_stays() {
    let place = Place::make();
    let root = place.path("root");
    let install = || {
        let mut command = Command::new(Path::new(ROOT).join("scripts/install-files"));
        let output = command.arg(PROGRAM).arg(&root).arg("/usr").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    install();
    for file in [
        "usr/bin/pysmurf-archiver",
        "usr/share/man/man1/pysmurf-archiver.1.gz",
        "usr/share/man/man1/pysmurf-archiver-run.1.gz",
        "usr/share/man/man1/pysmurf-archiver-rsync.1.gz",
        "usr/share/bash-completion/completions/pysmurf-archiver",
        "usr/share/zsh/vendor-completions/_pysmurf-archiver",
        "usr/share/fish/vendor_completions.d/pysmurf-archiver.fish",
        "usr/share/doc/pysmurf-archiver/operating.md",
        "lib/systemd/system/pysmurf-archiver.service",
    ] {
        assert!(fs::metadata(root.join(file)).is_ok_and(|meta| meta.len() > 0), "{file}");
    }
    let completions = root.join("usr/share/bash-completion/completions/pysmurf-archiver");
    assert!(Command::new("bash").arg("-n").arg(&completions).status().unwrap().success());
    let config = root.join("etc/pysmurf-archiver/config.toml");
    // As it comes it says nothing; what somebody made of it is his.
    let mut check = place.program();
    check
        .args(["config", "check", "--db", "sqlite:x.db", "--archive-name", "a", "--data-dir", "/a", "--config"])
        .arg(&config);
    Run::to_end(check).expect(0);
    fs::write(&config, "poll = 3\n").unwrap();
    install();
    assert_eq!(fs::read_to_string(&config).unwrap(), "poll = 3\n");
}

#[test]
fn the_unit_lets_it_do_no_more_than_it_needs() {
    if !require("systemd-analyze") {
        return;
    }
    let unit = Path::new(ROOT).join("deploy/pysmurf-archiver.service");
    let mut command = Command::new("systemd-analyze");
    // Ten times the figure that it prints.
    let output =
        command.args(["security", "--offline=true", "--no-pager", "--threshold=20"]).arg(&unit).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    words.filter(|word| word.starts_with("archiver_")).collect()
}

#[test]
fn what_watches_it_asks_for_metrics_that_there_are() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/operating.md")).unwrap();
    let known = metrics_in(&page);
    for file in ["alerts.yml", "alerts-test.yml", "grafana-dashboard.json"] {
        let text = fs::read_to_string(Path::new(ROOT).join("deploy").join(file)).unwrap();
        let asked = metrics_in(&text);
        assert!(asked.len() > 5, "{file}: {asked:?}");
        assert!(asked.is_subset(&known), "{file}: {:?}", asked.difference(&known).collect::<Vec<_>>());
        if file.ends_with(".json") {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
    if !require("promtool") {
        return;
    }
    for words in [["test", "rules", "alerts-test.yml"], ["check", "config", "prometheus.yml"]] {
        let output = Command::new("promtool").args(words).current_dir(Path::new(ROOT).join("deploy")).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_container_is_healthy_while_the_archiver_lives_and_its_metrics_are_in_order() {
    let place = Place::make();
    let address = format!("sqlite:{}", place.path("q.db").display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let socket = place.path("control.sock");
    let health = || {
        let mut command = place.program();
        command.args(["status", "--health", "--control"]).arg(&socket);
        command.status().unwrap().code()
    };
    assert_eq!(health(), Some(2), "there is no such socket");
    let mut command = place.run();
    command.args(["--db", &address, "--archive-name", "smurf", "--control"]).arg(&socket);
    let run = Run::start(command);
    wait_until("it watches", || run.log().contains("Watching"));
    assert_eq!(health(), Some(0), "{}", run.log());
    if require("promtool") && require("curl") {
        let words = "curl --silent --fail --unix-socket control.sock http://localhost/metrics | promtool check metrics";
        let output = Command::new("sh").args(["-c", words]).current_dir(place.path("")).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success() && said == ["", ""], "{said:?}");
    }
    run.terminate().0.expect(0);
    assert_ne!(health(), Some(0));
}

#[test]
fn systemd_is_told_that_it_is_ready_alive_and_about_to_end() {
    let place = Place::make();
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("sqlite:{}", place.path("q.db").display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let mut command = place.run();
    command.args(["--db", &address, "--archive-name", "smurf"]);
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "600000").env_remove("WATCHDOG_PID");
    let run = Run::start(command);
    let hear = || {
        let mut message = [0; 4096];
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1\n");
    let alive = "WATCHDOG=1\nSTATUS=0 copied, 0 on their way\n";
    assert_eq!([hear(), hear()], [alive, alive]);
    wait_until("it watches", || run.log().contains("Watching"));
    run.terminate().0.expect(0);
    let mut last = hear();
    while last == alive {
        last = hear();
    }
    assert_eq!(last, "STOPPING=1\n");
}
