//! Transfers by SFTP and in ranges, each with one cut on its way. With `ARCHIVER_FAULTS=MINUTES` a small file by SFTP is cut at every
//! byte of its connection, in an order that is drawn, as far as the time goes; an hour is enough for all. Else it is cut at some,
//! and at the ends. Ranges are of files that are too large for every byte.

use crate::support::archiver::{FarEnd, Place, Run, hex, md5_of};
use crate::support::cutter::{Action, Cutter, Fault};
use crate::support::noise::noise;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use pysmurf_archiver::bench::link::{Relay, Terms};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// No case takes longer, however busy the machine is.
const WATCHDOG: Duration = Duration::from_secs(120);
/// The place of the one file.
const NAME: &str = "17950/file";
/// The least that two connections share.
const SHARED: usize = (16 << 20) + 7;
const SMALL: usize = 1500;
/// Bytes in which a connection logs in, each way.
const LOGIN: u64 = 6000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Road {
    Sftp,
    PushRanges,
    PullRanges,
}

/// The number of the connection that is cut, and where.
type Cut = (u64, Fault);

/// A transfer, and what was said of it.
struct Carried {
    cutter: Cutter,
    log: String,
}

/// What the transfers of one road have in common.
struct Course {
    road: Road,
    sshd: Sshd,
    /// Several connections are worth it over a long link alone.
    relay: Option<Relay>,
    /// Where the table without rows is.
    home: Place,
    bytes: Vec<u8>,
}

impl Course {
    fn start(road: Road) -> Option<Self> {
        let path = if road == Road::Sftp { "SetEnv PATH=/nowhere\n" } else { "" };
        let sshd = Sshd::start(&format!("{path}Subsystem sftp internal-sftp\nMaxStartups 1000"));
        let sshd = sshd.filter(|_| require("rsync"))?;
        let long_link = || {
            let terms = Terms { round_trip: Duration::from_millis(30), rate: 0, loss: 0.0, window: 0 };
            Relay::start(([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], sshd.port).into(), terms).unwrap()
        };
        let relay = (road != Road::Sftp).then(long_link);
        let home = Place::make();
        let mut init = home.program();
        init.args(["init-db", "--db", &format!("sqlite:{}", home.path("files.db").display())]);
        Run::to_end(init).expect(0);
        let len = if road == Road::Sftp { SMALL } else { SHARED };
        Some(Self { road, sshd, relay, home, bytes: noise(len, 5) })
    }

    fn command(&self, place: &Place, port: u16) -> Command {
        let far = if self.road == Road::PullRanges { place.from(&self.sshd) } else { place.behind(&self.sshd) };
        let key = self.sshd.known_hosts_line("ed25519");
        fs::write(&far.known_hosts, key.replace(&self.sshd.port.to_string(), &port.to_string())).unwrap();
        let mut command = FarEnd { port, ..far }.command();
        let database = format!("sqlite:{}", place.path("files.db").display());
        command.args(["--once", "--archive-name", "smurf", "--db", &database, "--stall-timeout", "20"]);
        command.args(["-vv", "--split-size", "4m"]);
        command
    }

    /// A table of one row, whose file is in the sources.
    fn one_row(&self, place: &Place) -> Connection {
        let source = place.sources().join("file");
        fs::write(&source, &self.bytes).unwrap();
        let file = place.path("files.db");
        fs::copy(self.home.path("files.db"), &file).unwrap();
        let table = Connection::open(file).unwrap();
        table.busy_timeout(WATCHDOG).unwrap();
        let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                      failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'smurf', ?, 1795350012.25, 0, 1, 0)";
        let row = params![source.to_str().unwrap(), hex(md5_of(&source)).to_lowercase(), NAME];
        table.execute(insert, row).unwrap();
        table
    }

    /// Carries one file, whatever befalls it: in the end it is there, its row says so and is blamed for nothing, and nothing was
    /// ever under its name but the file, nor a row copied without it.
    fn carry(&self, cut: Option<Cut>) -> Carried {
        let case = format!("{:?}, {cut:?}", self.road);
        let place = Place::make();
        let table = self.one_row(&place);
        let to = self.relay.as_ref().map_or(self.sshd.port, |relay| relay.address().port());
        let cutter = Cutter::faulty(to, move |number| cut.filter(|cut| cut.0 == number).map(|cut| cut.1));
        let mut run = Run::start(self.command(&place, cutter.port));
        let select = "SELECT remote_md5sum = local_md5sum, failed_copy_attempts, count(*) FROM supersync_v0";
        let row = || table.query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let copy = place.archive().join(NAME);
        let deadline = Instant::now() + WATCHDOG;
        let mut seen = false;
        while !run.is_over() {
            assert!(Instant::now() < deadline, "{case}: a hang: {}", run.log());
            let (copied, attempts, _): (Option<bool>, u32, u32) = row();
            let there = copy.exists();
            assert!((there || copied.is_none()) && attempts == 0, "{case}: {}", run.log());
            if there && !seen {
                assert!(fs::read(&copy).unwrap() == self.bytes, "{case}: wrong bytes: {}", run.log());
                seen = true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let log = run.wait(WATCHDOG).expect(0).log;
        assert_eq!(row(), (Some(true), 0, 1), "{case}: {log}");
        assert!(fs::read(&copy).unwrap() == self.bytes, "{case}: {log}");
        assert_eq!(place.tree().names(), [NAME], "{case}: {log}");
        let unsound = ["panicked", "Not copied"].iter().any(|words| log.contains(words));
        assert!(!unsound, "{case}: {log}");
        Carried { cutter, log }
    }

    /// What a cut costs beyond a whole transfer: what was on its way, and one more login for each who had to come again.
    fn expect_least_work(&self, cut: Cut, carried: &Carried, whole: &Cutter) {
        let len = self.bytes.len() as u64;
        // Of a large one a range may have to be written again, which is four megabytes here, and what was under way.
        let lost = len.min(8 << 20);
        let more = (whole.up() + whole.down()).saturating_sub(len) + lost;
        let Carried { cutter, log } = carried;
        let (bytes, least) = (cutter.up() + cutter.down(), whole.up() + whole.down());
        let case = format!("{:?}, {cut:?}, {:?}: {log}", self.road, cutter.each());
        assert!(bytes <= least + more, "{bytes} bytes, and {least} are a whole transfer, {case}");
        let (came, all) = (cutter.connections(), whole.connections());
        assert!(came <= 2 * all, "{came} connections instead of {all}, {case}");
    }

    /// Cuts at these bytes of each way of a connection, as `places` says for its number and length.
    fn cut(&self, at_once: usize, places: impl Fn(u64, u64) -> BTreeSet<u64>) {
        let whole = self.carry(None).cutter;
        let mut cuts = Vec::new();
        for (number, ways) in whole.each() {
            for (up, len) in [true, false].into_iter().zip(ways) {
                cuts.extend(places(number, len).into_iter().map(|at| (number, Fault { action: Action::Cut, up, at })));
            }
        }
        let until = minutes().map(|minutes| Instant::now() + minutes);
        if until.is_some() {
            fastrand::Rng::with_seed(18).shuffle(&mut cuts);
        }
        let (next, befallen) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let time_is_left = || until.is_none_or(|until| Instant::now() < until);
        let another = || if time_is_left() { cuts.get(next.fetch_add(1, Relaxed)) } else { None };
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(&cut) = another() {
                        let carried = self.carry(Some(cut));
                        self.expect_least_work(cut, &carried, &whole);
                        befallen.fetch_add(carried.cutter.cuts() as usize, Relaxed);
                    }
                });
            }
        });
        println!(
            "{:?}: {} of {} cases, {} cut, {:.0} s; {:?} bytes of connections up and down",
            self.road,
            next.load(Relaxed).min(cuts.len()),
            cuts.len(),
            befallen.load(Relaxed),
            began.elapsed().as_secs_f64(),
            whole.each().values().collect::<Vec<_>>()
        );
    }
}

/// How long it is gone on with all the bytes there are, instead of some.
fn minutes() -> Option<Duration> {
    let minutes: f64 = std::env::var("ARCHIVER_FAULTS").ok()?.parse().ok()?;
    Some(Duration::from_secs_f64(minutes * 60.0))
}

/// Every so many bytes, and both ends.
fn every(step: u64, len: u64) -> BTreeSet<u64> {
    let ends = [0, 1, len.saturating_sub(2), len.saturating_sub(1)];
    (0..len).step_by(step as usize).chain(ends).collect()
}

#[test]
fn a_small_file_by_sftp_cut_at_bytes() {
    let Some(course) = Course::start(Road::Sftp) else { return };
    // By the first connection it is learnt that there is no rsync. Of the second as much is a login.
    let steps = if minutes().is_some() { [11, 1] } else { [1999, 907] };
    course.cut(12, |number, len| every(steps[usize::from(number > 0)], len));
}

/// One large file over several connections, of which one is cut: while it logs in, on its way, at its end.
fn ranges_are_cut(road: Road) {
    let Some(course) = Course::start(road) else { return };
    course.cut(6, |number, len| match (minutes().is_some(), number) {
        (true, _) => every((len / 20).max(1), len).into_iter().chain((0..LOGIN.min(len)).step_by(199)).collect(),
        // Of the session that proves it, and of one of those who help.
        (false, 0 | 1) => [0, len / 2, len.saturating_sub(1)].into(),
        (false, _) => BTreeSet::new(),
    });
}

#[test]
fn a_large_file_written_in_ranges_cut_at_bytes() {
    ranges_are_cut(Road::PushRanges);
}

#[test]
fn a_large_file_read_in_ranges_cut_at_bytes() {
    ranges_are_cut(Road::PullRanges);
}
