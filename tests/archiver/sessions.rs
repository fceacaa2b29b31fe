//! As many sessions as pay.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use crate::tables::{Age, Row, TARGET, Table, expect_all_proven};
use pysmurf_archiver::bench::link::{Relay, Terms};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// A far end that lets only one session work at a time, behind a limit that leaves others nothing to gain.
#[test]
fn sessions_that_gain_nothing_are_given_back() {
    let lock = tempfile::tempdir().unwrap();
    let command = format!("ForceCommand flock -w 1 {}/lock sh -c \"$SSH_ORIGINAL_COMMAND\"", lock.path().display());
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(&command), require("rsync")) else { return };
    let place = Place::make();
    let table = Table::new(server, "sessions", Age::V1);
    let rows: Vec<_> = (0..90)
        .map(|n| Row::new(place.source(format!("part{n}"), if n % 3 == 0 { 2 << 20 } else { 9000 }, n)))
        .collect();
    table.insert(&rows);
    let mut command = place.run_to(&sshd);
    command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.2", "--queue", "40", "-v"]);
    command.args(["--workers", "auto", "--bwlimit", "8m"]);
    let run = Run::start(command);
    wait_until("more sessions", || run.log().contains("Sessions: 1 until now"));
    wait_until("fewer", || run.log().contains("Sessions: 2 until now") || run.log().contains("One session less"));
    wait_until("all rows", || table.copied() == rows.len());
    let log = run.log();
    run.terminate().0.expect(0);
    assert!(!log.contains("Sessions: 4 until now"), "{log}");
    expect_all_proven(&place, &table, &rows);
}

/// Compressed or not, pushed or pulled, what arrives is what was registered.
#[test]
fn sessions_may_be_compressed() {
    let (Some(server), Some(sshd), true) = (MariaDb::shared(), Sshd::start(""), require("rsync")) else { return };
    for (name, program, pulls, compress, expected) in [
        ("squeezed_stock", "rsync", false, "yes", true),
        ("squeezed_ours", PROGRAM, false, "yes", true),
        ("squeezed_pull", "rsync", true, "yes", true),
        ("squeezed_auto", "rsync", false, "auto", true),
        ("squeezed_never", "rsync", false, "no", false),
    ] {
        let place = Place::make();
        let table = Table::new(server, name, Age::V1);
        let rows: Vec<_> = (0..30)
            .map(|n| {
                let (path, md5) = place.source(format!("part{n}"), 300_000, n);
                if n % 2 == 0 {
                    return Row::new((path, md5));
                }
                std::fs::write(&path, "0.00123 1.5e-7\n".repeat(70_000)).unwrap();
                let md5 = md5_of(&path);
                Row::new((path, md5))
            })
            .collect();
        table.insert(&rows);
        let heard = place.path("heard");
        let script = place.script("server", &format!("echo \"$@\" >>{}\nexec {program} \"$@\"", heard.display()));
        let far = if pulls { place.from(&sshd) } else { place.behind(&sshd) };
        let mut command = FarEnd { rsync_path: script, ..far }.command();
        // Few at a time: one session tells which kind the next one is.
        command.args(["--once", "--db", &table.url, "--target", TARGET, "--compress", compress, "--queue", "16"]);
        Run::to_end(command).expect(0);
        let heard = std::fs::read_to_string(heard).unwrap();
        assert_eq!(heard.contains("--compress-level=1"), expected, "{name}: {heard}");
        assert_eq!(
            compress == "yes",
            !heard.lines().any(|line| line.contains("--server") && !line.contains("--compress-level")),
            "{name}: {heard}"
        );
        expect_all_proven(&place, &table, &rows);
    }
}

/// Three workers behind a long link, with our program at its end.
struct LongLink {
    // Both live as long as the test.
    _relay: Relay,
    sshd: Sshd,
    place: Place,
    port: u16,
}

impl LongLink {
    fn start() -> Option<Self> {
        let sshd = Sshd::start("Subsystem sftp internal-sftp")?;
        let terms = Terms { round_trip: Duration::from_millis(80), rate: 0, loss: 0.0 };
        let any = ([127, 0, 0, 1], 0).into();
        let relay = Relay::start(any, ([127, 0, 0, 1], sshd.port).into(), terms).unwrap();
        let port = relay.address().port();
        Some(Self { _relay: relay, sshd, place: Place::make(), port })
    }

    fn command(&self, table: &Table<'_>) -> Command {
        let far = FarEnd { rsync_path: PROGRAM.into(), port: self.port, ..self.place.behind(&self.sshd) };
        let key = self.sshd.known_hosts_line("ed25519").replace(&self.sshd.port.to_string(), &self.port.to_string());
        fs::write(&far.known_hosts, key).unwrap();
        let mut command = far.command();
        command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1", "-vv", "--workers", "3"]);
        command.args(["--split-size", "4m"]);
        command
    }

    fn row(&self, mib: u64) -> Row {
        Row::new(self.place.source(format!("f{mib}.g3"), (mib << 20) + 7, mib))
    }

    /// Whether something lies where earlier tries are looked for, or only the place for it.
    fn aside(&self) -> bool {
        self.place.tree().0.keys().any(|name| String::from_utf8_lossy(name).contains(".archiver-partial-"))
    }

    /// Whether several are writing.
    fn writes(&self) -> bool {
        self.place
            .tree()
            .files()
            .any(|(name, stand)| String::from_utf8_lossy(name).contains(".archiver-partial-") && stand.len > 10 << 20)
    }
}

/// Over a long link the second large file is written by all who are idle, and proven as ever; what is there is the file and
/// nothing else.
#[test]
fn a_large_file_goes_over_several_sessions() {
    let (Some(server), Some(link), true) = (MariaDb::shared(), LongLink::start(), require("b3sum")) else { return };
    let table = Table::new(server, "split", Age::V1);
    let rows: Vec<_> = [5, 40, 33].map(|mib| link.row(mib)).into();
    let manifest = link.place.path("manifest");
    let mut command = link.command(&table);
    command.arg("--manifest").arg(&manifest);
    let run = Run::start(command);
    for (at, row) in rows.iter().enumerate() {
        table.insert(std::slice::from_ref(row));
        wait_until("the file is recorded", || table.copied() == at + 1);
    }
    let log = run.log();
    run.terminate().0.expect(0);
    expect_all_proven(&link.place, &table, &rows);
    assert!(!link.aside() && link.place.tree().names().len() == rows.len(), "{:?}", link.place.tree());
    assert_eq!(log.matches("Several wrote").count(), 2, "{log}");
    assert!(log.contains("Helped with"), "{log}");
    let listed = Command::new("b3sum").arg("--check").arg(&manifest).current_dir(link.place.archive()).output();
    assert!(listed.unwrap().status.success());
}

/// Whoever breaks off while several write, the connections or we ourselves: the file arrives, once, and as it is.
#[test]
fn a_broken_split_is_sent_as_ever() {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start()) else { return };
    let table = Table::new(server, "split_broken", Age::V1);
    let rows = [5, 60, 6, 61].map(|mib| link.row(mib));
    let run = Run::start(link.command(&table));
    table.insert(&rows[..1]);
    wait_until("the link is known", || table.copied() == 1);
    table.insert(&rows[1..2]);
    wait_until("several write", || link.writes());
    link.sshd.signal("KILL");
    wait_until("the file all the same", || table.copied() == 2);
    assert!(!link.aside(), "{:?}", link.place.tree());
    drop(run);
    // Another run has to learn what the link is like.
    let run = Run::start(link.command(&table));
    table.insert(&rows[2..3]);
    wait_until("the link is known again", || table.copied() == 3);
    table.insert(&rows[3..]);
    wait_until("several write again", || link.writes());
    run.kill();
    assert!(table.copied() == 3);
    let run = Run::start(link.command(&table));
    wait_until("the file after a crash", || table.copied() == 4);
    run.terminate().0.expect(0);
    expect_all_proven(&link.place, &table, &rows);
}
