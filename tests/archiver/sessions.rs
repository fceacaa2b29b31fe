//! As many sessions as pay.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, md5_of};
use crate::support::mariadb::MariaDb;
use crate::support::processes::{descendants, signal};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use crate::tables::{Age, FOLDER, Row, TARGET, Table, expect_all_proven};
use pysmurf_archiver::bench::link::{Relay, Terms};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
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
        command.args([
            "--once",
            "--db",
            &table.url,
            "--target",
            TARGET,
            "--compress",
            compress,
            "--queue",
            "16",
            "--workers",
            "1",
        ]);
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

/// Which way files go.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Push,
    Pull,
}

impl Way {
    /// What is logged of a file that several have moved.
    fn shared(self) -> &'static str {
        match self {
            Self::Push => "Several wrote",
            Self::Pull => "Several read",
        }
    }
}

/// Several workers behind a long link.
struct LongLink {
    way: Way,
    relay: Relay,
    sshd: Sshd,
    place: Place,
    port: u16,
    /// What serves at the far end.
    program: PathBuf,
}

/// An sshd with its defaults: the tenth who has yet to log in may be turned away.
const SFTP: &str = "MaxStartups 10:30:100\nSubsystem sftp internal-sftp";

impl LongLink {
    fn start(program: &'static str, config: &str) -> Option<Self> {
        let sshd = Sshd::start(config).filter(|_| require("rsync"))?;
        let terms = Terms { round_trip: Duration::from_millis(80), rate: 0, loss: 0.0, window: 0 };
        let any = ([127, 0, 0, 1], 0).into();
        let relay = Relay::start(any, ([127, 0, 0, 1], sshd.port).into(), terms).unwrap();
        let port = relay.address().port();
        Some(Self { way: Way::Push, relay, sshd, place: Place::make(), port, program: program.into() })
    }

    fn going(self, way: Way) -> Self {
        Self { way, ..self }
    }

    fn command(&self, table: &Table<'_>) -> Command {
        let far = match self.way {
            Way::Push => self.place.behind(&self.sshd),
            Way::Pull => self.place.from(&self.sshd),
        };
        let far = FarEnd { rsync_path: self.program.clone(), port: self.port, ..far };
        let key = self.sshd.known_hosts_line("ed25519").replace(&self.sshd.port.to_string(), &self.port.to_string());
        fs::write(&far.known_hosts, key).unwrap();
        let mut command = far.command();
        command.args(["--db", &table.url, "--target", TARGET, "--poll", "0.1", "-vv"]);
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

    /// The file that several are moving, once some of it is there.
    fn unfinished(&self) -> Option<PathBuf> {
        let tree = self.place.tree();
        let mut aside = tree.files().filter(|(name, _)| String::from_utf8_lossy(name).contains(".archiver-partial-"));
        let path = self.place.archive().join(OsStr::from_bytes(aside.next()?.0));
        // It may have its length before its bytes.
        let there = fs::metadata(&path).ok()?.blocks() * 512;
        (there > 10 << 20).then_some(path)
    }

    /// Whether several are moving a file.
    fn writes(&self) -> bool {
        self.unfinished().is_some()
    }

    /// The server's processes, one for each connection that is logged in: those for SFTP, or the others; the oldest first.
    fn connections(&self, sftp: bool) -> Vec<u32> {
        let title = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut found = self.sshd.sessions();
        found.retain(|pid| {
            let serves = descendants(*pid).iter().any(|pid| title(pid).contains("internal-sftp"));
            title(pid).contains("@notty") && serves == sftp
        });
        found.sort_unstable();
        found
    }
}

/// KiB that a run may take: eight connections with what each has under way, far less than the largest file.
const MEMORY_MOST: u64 = 160 << 10;

/// Over a long link a large file is moved by several from the first one on, and proven as ever; what is there is the file and
/// nothing else, and nothing was sent twice.
fn goes_over_several_sessions(way: Way, name: &str, program: &'static str) {
    let (Some(server), Some(link), true) = (MariaDb::shared(), LongLink::start(program, SFTP), require("b3sum")) else {
        return;
    };
    let link = link.going(way);
    let table = Table::new(server, name, Age::V1);
    let large = if way == Way::Pull { 200 } else { 40 };
    let rows: Vec<_> = [large, 3, 33].map(|mib| link.row(mib)).into();
    let manifest = link.place.path("manifest");
    let mut command = link.command(&table);
    command.arg("--manifest").arg(&manifest);
    let run = Run::start(command);
    for (at, row) in rows.iter().enumerate() {
        table.insert(std::slice::from_ref(row));
        wait_until("the file is recorded", || table.copied() == at + 1);
        if at == 0 {
            let carried = link.relay.carried();
            assert!(carried < (large + large / 20) << 20, "{carried} bytes for a file of {large} MiB");
        }
    }
    let log = run.log();
    let peak = run.terminate().0.expect(0).peak_kib;
    expect_all_proven(&link.place, &table, &rows);
    assert!(!link.aside() && link.place.tree().names().len() == rows.len(), "{:?}", link.place.tree());
    assert!(log.contains(way.shared()) && log.contains("Helped with"), "{log}");
    assert!(peak < MEMORY_MOST, "{peak} KiB");
    assert!(!log.contains("Resuming"), "{log}");
    let listed = Command::new("b3sum").arg("--check").arg(&manifest).current_dir(link.place.archive()).output();
    assert!(listed.unwrap().status.success());
}

#[test]
fn a_large_file_goes_to_stock_over_several_sessions() {
    goes_over_several_sessions(Way::Push, "split_stock", "rsync");
}

#[test]
fn a_large_file_goes_to_this_program_over_several_sessions() {
    goes_over_several_sessions(Way::Push, "split_ours", PROGRAM);
}

#[test]
fn a_large_file_comes_from_stock_over_several_sessions() {
    goes_over_several_sessions(Way::Pull, "split_pull_stock", "rsync");
}

#[test]
fn a_large_file_comes_from_this_program_over_several_sessions() {
    goes_over_several_sessions(Way::Pull, "split_pull_ours", PROGRAM);
}

/// That several have read all of a file is no proof: one that has changed since it was registered fails.
#[test]
fn a_pull_by_several_is_proven_by_the_registered_sum() {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start("rsync", SFTP)) else { return };
    let link = link.going(Way::Pull);
    let table = Table::new(server, "split_pull_changed", Age::V1);
    let rows = [link.row(33), link.row(34)];
    // As large as before, and another in the middle.
    let mut bytes = fs::read(&rows[1].path).unwrap();
    bytes[20 << 20] ^= 1;
    fs::write(&rows[1].path, bytes).unwrap();
    table.insert(&rows);
    let mut command = link.command(&table);
    command.arg("--once");
    let over = Run::to_end(command);
    assert!(over.log.contains("Several read"), "{}", over.log);
    assert_eq!(table.copied(), 1, "{}", over.log);
    assert!(over.log.contains("it has changed since it was registered"), "{}", over.log);
    assert!(link.place.tree().files().count() == 1, "{:?}", link.place.tree());
}

/// What several have written to stock stands where it stands: it is proven there and gets its name, and is not written again.
#[test]
fn what_several_wrote_is_not_written_again() {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start("rsync", SFTP)) else { return };
    let table = Table::new(server, "split_in_place", Age::V1);
    let rows = [40, 41].map(|mib| link.row(mib));
    // Made by a command, and by SFTP.
    for (at, chmod) in [None, Some("F640")].into_iter().enumerate() {
        let mut command = link.command(&table);
        command.args(chmod.map(|chmod| format!("--chmod={chmod}")));
        let run = Run::start(command);
        table.insert(&rows[at..=at]);
        let mut written = None;
        wait_until("several write it", || {
            written = link.unfinished().and_then(|path| fs::metadata(path).ok());
            written.is_some()
        });
        wait_until("it is recorded", || table.copied() == at + 1);
        run.terminate().0.expect(0);
        let copy = link.place.archive().join(FOLDER).join(rows[at].path.file_name().unwrap());
        let (source, copy) = (fs::metadata(&rows[at].path).unwrap(), fs::metadata(copy).unwrap());
        assert_eq!((copy.ino(), copy.mtime()), (written.unwrap().ino(), source.mtime()));
        assert_eq!(copy.mode(), if chmod.is_some() { 0o100640 } else { source.mode() });
    }
    expect_all_proven(&link.place, &table, &rows);
    assert!(!link.aside(), "{:?}", link.place.tree());
}

/// That several have written all of a file is no proof, either: one that has changed since it was registered gets no name.
#[test]
fn what_several_wrote_is_proven_by_the_registered_sum() {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start("rsync", SFTP)) else { return };
    let table = Table::new(server, "split_changed", Age::V1);
    let rows = [link.row(33), link.row(34)];
    let mut bytes = fs::read(&rows[1].path).unwrap();
    bytes[20 << 20] ^= 1;
    fs::write(&rows[1].path, bytes).unwrap();
    table.insert(&rows);
    let mut command = link.command(&table);
    command.arg("--once");
    let over = Run::to_end(command);
    assert!(over.log.contains("Several wrote"), "{}", over.log);
    assert_eq!(table.copied(), 1, "{}", over.log);
    assert!(over.log.contains("it has changed since it was registered"), "{}", over.log);
    assert!(!link.place.archive().join(FOLDER).join("f34.g3").exists());
}

/// Whoever else gives a file the name meanwhile keeps it: other bytes have the copy go to another name, and the same ones are it.
#[test]
fn a_name_that_is_taken_meanwhile_is_left_alone() {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start("rsync", SFTP)) else { return };
    let table = Table::new(server, "split_taken", Age::V1);
    let folder = link.place.archive().join(FOLDER);
    for (at, (mib, same)) in [(40, false), (41, true)].into_iter().enumerate() {
        // To each the link is new: how the file before went says nothing.
        let run = Run::start(link.command(&table));
        let row = link.row(mib);
        let name = folder.join(row.path.file_name().unwrap());
        table.insert(std::slice::from_ref(&row));
        wait_until("several write it", || link.writes());
        if same {
            let own = link.place.path("own");
            fs::copy(&row.path, &own).unwrap();
            fs::rename(own, &name).unwrap();
        } else {
            fs::write(&name, b"other bytes").unwrap();
        }
        wait_until("it is recorded", || table.copied() == at + 1);
        let copy = if same { name.clone() } else { folder.join("f40.g3.1") };
        assert_eq!(md5_of(&copy), row.md5);
        assert!(same || fs::read(&name).unwrap() == b"other bytes");
        run.terminate().0.expect(0);
    }
    assert!(!link.aside() && link.place.tree().files().count() == 3, "{:?}", link.place.tree());
}

/// A single large file, and then the run is over: it went over several sessions, too, unless one alone is wished for.
#[test]
fn a_run_of_one_file_uses_the_link() {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start("rsync", SFTP)) else { return };
    for (name, workers, several) in [("split_once", "auto", true), ("split_alone", "1", false)] {
        let table = Table::new(server, name, Age::V1);
        let rows = [link.row(if several { 36 } else { 12 })];
        table.insert(&rows);
        let mut command = link.command(&table);
        command.args(["--once", "--workers", workers]);
        let over = Run::to_end(command).expect(0);
        assert_eq!(over.log.contains("Several wrote"), several, "{}", over.log);
        assert_eq!(table.copied(), 1);
    }
    assert!(!link.aside());
}

/// Whoever breaks off while several write, the connections or we ourselves: the file arrives, once, and as it is.
fn a_broken_split_is_mended(way: Way, name: &str, program: &'static str) {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start(program, SFTP)) else { return };
    let link = link.going(way);
    let table = Table::new(server, name, Age::V1);
    let rows = [60, 40, 61].map(|mib| link.row(mib));
    let run = Run::start(link.command(&table));
    table.insert(&rows[..1]);
    wait_until("several move it", || link.writes());
    link.sshd.signal("KILL");
    wait_until("the file all the same", || table.copied() == 1);
    assert!(!link.aside(), "{:?}", link.place.tree());
    let told = run.log().len();
    // A line that broke tells nothing of the next one.
    table.insert(&rows[1..2]);
    wait_until("the next file", || table.copied() == 2);
    let log = run.log();
    assert!(log[told..].contains(way.shared()) && log[told..].contains("Helped with"), "{log}");
    drop(run);
    let run = Run::start(link.command(&table));
    table.insert(&rows[2..]);
    wait_until("several move it again", || link.writes());
    run.kill();
    assert!(table.copied() == 2);
    let run = Run::start(link.command(&table));
    wait_until("the file after a crash", || table.copied() == 3);
    run.terminate().0.expect(0);
    expect_all_proven(&link.place, &table, &rows);
    assert!(!link.aside(), "{:?}", link.place.tree());
}

#[test]
fn a_broken_split_to_stock_is_mended() {
    a_broken_split_is_mended(Way::Push, "split_broken_stock", "rsync");
}

#[test]
fn a_broken_split_to_this_program_is_mended() {
    a_broken_split_is_mended(Way::Push, "split_broken_ours", PROGRAM);
}

#[test]
fn a_broken_split_from_stock_is_mended() {
    a_broken_split_is_mended(Way::Pull, "split_pull_broken", "rsync");
}

#[test]
fn a_broken_split_from_this_program_is_mended() {
    a_broken_split_is_mended(Way::Pull, "split_pull_broken_ours", PROGRAM);
}

/// One connection of several breaks: what it had to write others write, and who waits for the ordinary session connects anew.
fn one_lost_connection_costs_little(way: Way, cases: [(&str, usize); 4]) {
    let Some(server) = MariaDb::shared() else { return };
    for (name, which) in cases {
        let Some(link) = LongLink::start("rsync", SFTP).map(|link| link.going(way)) else { return };
        let table = Table::new(server, name, Age::V1);
        let rows = [link.row(60)];
        let mut command = link.command(&table);
        command.args(["--stall-timeout", "5"]);
        let run = Run::start(command);
        table.insert(&rows);
        wait_until("several move it", || link.writes());
        let found = link.connections(!name.ends_with("_main"));
        assert!(!found.is_empty(), "{name}");
        let one = found[which.min(found.len() - 1)];
        // The connection, or only the SFTP server behind it, which nobody tells us.
        let connection = (!name.ends_with("_server")).then_some(one);
        signal("KILL", &descendants(one).into_iter().chain(connection).collect::<Vec<_>>());
        wait_until("the file all the same", || table.copied() == 1);
        let log = run.log();
        run.terminate().0.expect(0);
        expect_all_proven(&link.place, &table, &rows);
        assert!(!link.aside(), "{name}: {:?}", link.place.tree());
        let carried = link.relay.carried();
        assert!(carried < 90 << 20, "{name}: {carried} bytes\n{log}");
    }
}

#[test]
fn one_lost_connection_of_several_costs_little() {
    let cases = [("split_first", 0), ("split_last", usize::MAX), ("split_main", 0), ("split_server", 1)];
    one_lost_connection_costs_little(Way::Push, cases);
}

#[test]
fn one_lost_connection_of_several_that_pull_costs_little() {
    let cases = [("pulled_first", 0), ("pulled_last", usize::MAX), ("pulled_main", 0), ("pulled_server", 1)];
    one_lost_connection_costs_little(Way::Pull, cases);
}

/// Where there is no SFTP, one session moves it.
fn a_large_file_moves_without_sftp(way: Way, name: &str) {
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start("rsync", "")) else { return };
    let link = link.going(way);
    let table = Table::new(server, name, Age::V1);
    let rows = [20, 21].map(|mib| link.row(mib));
    table.insert(&rows);
    let mut command = link.command(&table);
    command.arg("--once");
    let over = Run::to_end(command).expect(0);
    expect_all_proven(&link.place, &table, &rows);
    let alone = if way == Way::Push { "Not written by several" } else { "Not read by several" };
    assert!(over.log.contains(alone) && !over.log.contains(way.shared()), "{}", over.log);
}

#[test]
fn a_large_file_goes_without_sftp() {
    a_large_file_moves_without_sftp(Way::Push, "split_refused");
}

#[test]
fn a_large_file_comes_without_sftp() {
    a_large_file_moves_without_sftp(Way::Pull, "split_pull_refused");
}

/// An sshd that lets nobody log in while another does: those who are turned away are done without.
fn whoever_is_turned_away_is_not_missed(way: Way, name: &str) {
    let config = "MaxStartups 1:100:1\nSubsystem sftp internal-sftp";
    let (Some(server), Some(link)) = (MariaDb::shared(), LongLink::start("rsync", config)) else { return };
    let link = link.going(way);
    let table = Table::new(server, name, Age::V1);
    let rows = [60, 3].map(|mib| link.row(mib));
    let run = Run::start(link.command(&table));
    for (at, row) in rows.iter().enumerate() {
        table.insert(std::slice::from_ref(row));
        wait_until("the file is recorded", || table.copied() == at + 1);
    }
    let log = run.log();
    run.terminate().0.expect(0);
    expect_all_proven(&link.place, &table, &rows);
    let turned_away = log.contains("Cannot help with a large file") || log.contains(" by several: ");
    assert!(turned_away && !link.aside(), "{log}");
}

#[test]
fn whoever_is_turned_away_is_done_without() {
    whoever_is_turned_away_is_not_missed(Way::Push, "split_turned_away");
}

#[test]
fn whoever_is_turned_away_from_a_pull_is_done_without() {
    whoever_is_turned_away_is_not_missed(Way::Pull, "split_pull_turned_away");
}

/// The option by which each file is acknowledged.
const EACH_FILE: &str = "--remove-source-files";

/// Many small files to a stock rsync that writes down how it is called, and to whose sessions this is done that acknowledge
/// their files together; what it wrote down.
fn many_small_files(
    name: &str,
    files: u64,
    together: &str,
    spoil: impl Fn(&LongLink, &[Row]),
) -> Option<(String, usize)> {
    let (server, mut link) = (MariaDb::shared()?, LongLink::start("rsync", "")?);
    let heard = link.place.path("heard");
    let text = format!(
        "echo \"$@\" >>{}\ncase \"$*\" in *--version*|*{EACH_FILE}*) exec rsync \"$@\";; esac\n{}",
        heard.display(),
        together.replace("ARCHIVE", link.place.archive().to_str().unwrap())
    );
    link.program = link.place.script("server", &text);
    let table = Table::new(server, name, Age::V1);
    let rows: Vec<_> = (0..files).map(|n| Row::new(link.place.source(format!("s{n:04}.npy"), 300 + n, n))).collect();
    table.insert(&rows);
    spoil(&link, &rows);
    let mut command = link.command(&table);
    command.args(["--once", "--workers", "1"]);
    let run = Run::to_end(command);
    let copied = table.copied();
    if copied == rows.len() {
        run.expect(0);
        expect_all_proven(&link.place, &table, &rows);
    }
    assert!(!link.aside(), "{:?}", link.place.tree());
    let heard = fs::read_to_string(heard).unwrap();
    Some((heard.lines().filter(|line| line.contains("--server")).collect::<Vec<_>>().join("\n"), copied))
}

#[test]
fn many_small_files_over_a_long_link_are_acknowledged_together() {
    let all = |_: &LongLink, _: &[Row]| {};
    let Some((heard, copied)) = many_small_files("together_many", 300, "exec rsync \"$@\"", all) else { return };
    assert!(copied == 300 && heard.lines().count() == 1 && !heard.contains(EACH_FILE), "{copied} {heard}");
    let Some((heard, copied)) = many_small_files("together_few", 20, "exec rsync \"$@\"", all) else { return };
    assert!(copied == 20 && heard.contains(EACH_FILE), "a few are told at once: {copied} {heard}");
}

/// Batches of few small files go together in one session over a long link: there are fewer sessions than batches, and each file
/// arrives.
#[test]
fn small_batches_go_together_over_a_long_link() {
    let (Some(server), Some(mut link)) = (MariaDb::shared(), LongLink::start("rsync", SFTP)) else { return };
    let heard = link.place.path("heard");
    link.program = link.place.script("server", &format!("echo \"$@\" >>{}\nexec rsync \"$@\"", heard.display()));
    let table = Table::new(server, "joined", Age::V1);
    let rows: Vec<_> = (0..300).map(|n| Row::new(link.place.source(format!("s{n:04}.npy"), 300 + n, n))).collect();
    table.insert(&rows);
    let mut command = link.command(&table);
    // Eight sessions, and so batches of 20.
    command.args(["--once", "--workers", "auto", "--queue", "320"]);
    Run::to_end(command).expect(0);
    expect_all_proven(&link.place, &table, &rows);
    let heard = fs::read_to_string(heard).unwrap();
    let sessions = heard.lines().filter(|line| line.contains("--server")).count();
    assert!(sessions < rows.len() / 20, "{sessions} sessions\n{heard}");
}

/// What we cannot or will not send is no trouble of the others.
#[test]
fn files_with_trouble_of_their_own_leave_the_others_acknowledged_together() {
    let spoil = |_: &LongLink, rows: &[Row]| {
        fs::remove_file(&rows[7].path).unwrap();
        fs::write(&rows[70].path, "changed since").unwrap();
    };
    let Some((heard, copied)) = many_small_files("together_spoilt", 100, "exec rsync \"$@\"", spoil) else { return };
    assert!(copied == 98 && heard.lines().count() == 1 && !heard.contains(EACH_FILE), "{copied} {heard}");
}

/// A session that does not end with 0, ends too early, or complains acknowledges nothing: each file is asked for again.
#[test]
fn a_session_that_does_not_end_well_acknowledges_nothing() {
    let loses = "rm -f \"$(find ARCHIVE -name s0042.npy)\"";
    for (name, together) in [
        ("together_ended_badly", format!("rsync \"$@\"\n{loses}\nexit 23")),
        ("together_killed", format!("rsync \"$@\"\n{loses}\nkill -9 $$")),
        ("together_refused", "exit 1".to_owned()),
    ] {
        let Some((heard, copied)) = many_small_files(name, 100, &together, |_, _| {}) else { return };
        let sessions: Vec<_> = heard.lines().map(|line| line.contains(EACH_FILE)).collect();
        assert!(copied == 100 && !sessions[0] && sessions[1..].contains(&true), "{name}: {copied} {heard}");
    }
}
