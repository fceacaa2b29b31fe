//! What befalls links and processes, by every road: no wait without an end, no wrong bytes, no row forgotten or blamed.
//!
//! The short form is each kind once on each road. `make faults` goes on for minutes, and prints a table.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, kill_connections, md5_of};
use crate::support::cutter::{Action, Cutter, Fault};
use crate::support::mariadb::MariaDb;
use crate::support::noise::noise;
use crate::support::processes::signal;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, FOLDER, Row, TARGET, Table, expect_all_proven};
use pysmurf_archiver::bench::link::{Relay, Terms};
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Within that something must come on, whatever has befallen: a stalled database is waited for 30 s, pauses grow to 60 s.
const HANG: Duration = Duration::from_secs(150);

/// Sizes of the files of a pair.
const SMALL: u64 = 3000;
const LARGE: usize = 1_200_000;
/// The least that two connections share, over a link with this round trip.
const SHARED: usize = (16 << 20) + 7;
const ROUND_TRIP: Duration = Duration::from_millis(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Road {
    Stock,
    Ours,
    PullStock,
    PullOurs,
    Sftp,
    Local,
    /// Of a large file by several connections.
    Ranges,
    PullRanges,
}

impl Road {
    fn pulls(self) -> bool {
        matches!(self, Self::PullStock | Self::PullOurs | Self::PullRanges)
    }

    fn in_ranges(self) -> bool {
        matches!(self, Self::Ranges | Self::PullRanges)
    }

    /// Bytes of the large file of a pair.
    fn large(self) -> usize {
        if self.in_ranges() { SHARED } else { LARGE }
    }

    fn program(self) -> &'static str {
        if matches!(self, Self::Ours | Self::PullOurs) { PROGRAM } else { "rsync" }
    }
}

/// Where something befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Spot {
    Ssh,
    Database,
    Process,
}

/// What is done to processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    KillOurs,
    KillFarPrograms,
    KillConnections,
    KillDatabase,
    Term,
    TermTwice,
    IntTwice,
}

impl Blow {
    const ALL: [Self; 7] = [
        Self::KillOurs,
        Self::KillFarPrograms,
        Self::KillConnections,
        Self::Term,
        Self::TermTwice,
        Self::IntTwice,
        Self::KillDatabase,
    ];
}

impl Blow {
    /// A database takes its time to come back, and a file of several connections is long.
    fn is_of_the_short_form(self, road: Road) -> bool {
        let few = matches!(self, Self::KillOurs | Self::KillFarPrograms | Self::KillConnections);
        few || !road.in_ranges() && self != Self::KillDatabase
    }
}

/// How much is tried: for so long, from this seed.
#[derive(Clone, Copy)]
struct Effort {
    until: Option<Instant>,
    seed: u64,
}

impl Effort {
    /// `ARCHIVER_FAULTS=MINUTES`, and `ARCHIVER_SEED`.
    fn wanted() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<f64>().ok());
        let until = number("ARCHIVER_FAULTS").map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
        let drawn = if until.is_some() { fastrand::u64(..1 << 32) } else { 18 };
        let seed = number("ARCHIVER_SEED").map_or(drawn, |seed| seed as u64);
        println!("seed {seed}");
        Self { until, seed }
    }

    fn is_long(self) -> bool {
        self.until.is_some()
    }

    fn goes_on(self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// How often what was tried where, how often nothing came on any more, and how often something was wrong.
#[derive(Default)]
struct Scores(Mutex<BTreeMap<(String, Spot, Road), [u64; 3]>>);

impl Scores {
    fn count(&self, what: &dyn std::fmt::Debug, (road, spot): (Road, Spot), [hang, wrong]: [bool; 2]) {
        let mut scores = self.0.lock().unwrap();
        let score = scores.entry((format!("{what:?}"), spot, road)).or_default();
        *score = [score[0] + 1, score[1] + u64::from(hang), score[2] + u64::from(wrong)];
    }

    /// Prints the table; fails if anything hung or was wrong.
    fn show(&self) {
        let scores = self.0.lock().unwrap();
        println!("{:16} {:9} {:10} {:>5} {:>5} {:>5}", "action", "place", "road", "runs", "hangs", "wrong");
        for ((what, spot, road), [runs, hangs, wrong]) in scores.iter() {
            println!("{what:16} {:9} {:10} {runs:5} {hangs:5} {wrong:5}", format!("{spot:?}"), format!("{road:?}"));
        }
        let bad: u64 = scores.values().map(|[_, hangs, wrong]| hangs + wrong).sum();
        assert_eq!(bad, 0, "hangs, and what was wrong");
    }
}

/// An archive by one road, with a relay on the way to one of its servers.
struct Scene<'a> {
    road: Road,
    spot: Spot,
    place: Place,
    table: Table<'a>,
    sshd: &'a Sshd,
    /// Behind the relay, where that is to be far away.
    _long_link: Option<Relay>,
    relay: Cutter,
    rows: Vec<Row>,
    began: Instant,
}

impl<'a> Scene<'a> {
    /// `of`: what befalls the connection of a number.
    fn new(
        server: &'a MariaDb,
        sshd: &'a Sshd,
        (road, spot): (Road, Spot),
        of: impl Fn(u64) -> Option<Fault> + Send + 'static,
    ) -> Self {
        let table = Table::new(server, &format!("faults_{road:?}_{spot:?}").to_lowercase(), Age::V1);
        let long_link = road.in_ranges().then(|| {
            let terms = Terms { round_trip: ROUND_TRIP, rate: 0, loss: 0.0, window: 0 };
            Relay::start(([127, 0, 0, 1], 0).into(), ([127, 0, 0, 1], sshd.port).into(), terms).unwrap()
        });
        let to = match &long_link {
            Some(link) => link.address().port(),
            None if spot == Spot::Database => server.port,
            None => sshd.port,
        };
        Self {
            road,
            spot,
            place: Place::make(),
            table,
            sshd,
            _long_link: long_link,
            relay: Cutter::faulty(to, of),
            rows: Vec::new(),
            began: Instant::now(),
        }
    }

    fn start(&self) -> Run {
        Run::start(self.command())
    }

    fn command(&self) -> Command {
        let port = if self.spot == Spot::Database { self.sshd.port } else { self.relay.port };
        let far = if self.road.pulls() { self.place.from(self.sshd) } else { self.place.behind(self.sshd) };
        let key = self.sshd.known_hosts_line("ed25519");
        fs::write(&far.known_hosts, key.replace(&self.sshd.port.to_string(), &port.to_string())).unwrap();
        let mut command = match self.road {
            Road::Local => self.place.run(),
            road => FarEnd { rsync_path: road.program().into(), port, ..far }.command(),
        };
        if self.road.in_ranges() {
            command.args(["--stall-timeout", "2", "--connect-timeout", "4", "--split-size", "4m", "-vv"]);
        } else if self.road != Road::Local {
            command.args(["--stall-timeout", "1", "--connect-timeout", "4", "--workers", "1"]);
        }
        let url = match self.spot {
            Spot::Database => {
                let at = |port: u16| format!("@127.0.0.1:{port}/");
                self.table.url.replace(&at(self.table.server.port), &at(self.relay.port))
            }
            _ => self.table.url.clone(),
        };
        command.args(["--db", &url, "--target", TARGET, "--poll", "0.1"]);
        command
    }

    /// Two further files: a small one, and one that takes a while, of which nothing can be had from elsewhere in it.
    fn add_pair(&mut self) {
        let n = self.rows.len() as u64;
        let path = self.place.sources().join(format!("{n:05}_large"));
        fs::write(&path, noise(self.road.large(), n)).unwrap();
        let md5 = md5_of(&path);
        let pair = [Row::new(self.place.source(format!("{n:05}_small"), SMALL, n)), Row::new((path, md5))];
        self.table.insert(&pair);
        self.rows.extend(pair);
    }

    fn all_copied(&self) -> bool {
        self.table.copied() == self.rows.len()
    }

    /// What is wrong of the latest pair, which is copied.
    fn wrong(&self) -> Option<String> {
        let stands = self.table.rows();
        self.rows.iter().zip(&stands).rev().take(2).find_map(|(row, stands)| {
            let copy = self.place.archive().join(FOLDER).join(row.path.file_name().unwrap());
            let whole = copy.exists() && md5_of(&copy) == row.md5;
            (!whole || stands.attempts != Some(0)).then(|| format!("{stands:?}, whole {whole}"))
        })
    }

    /// A new run that nothing befalls moves its file by several as ever.
    fn is_in_ranges_again(&mut self, run: Run) -> Run {
        drop(run.terminate().0.expect(0));
        let run = self.start();
        self.add_pair();
        wait_until("the last pair", || self.all_copied());
        assert!(run.log().contains("Several "), "not in ranges: {}", run.log());
        run
    }

    /// All is copied, once, and nothing else is there but what receivers left that were killed themselves.
    fn finish(mut self, run: Run) {
        let run = if self.road.in_ranges() { self.is_in_ranges_again(run) } else { run };
        println!(
            "{:?} {:?}: {} connections, {:.1} s",
            self.road,
            self.spot,
            self.relay.connections(),
            self.began.elapsed().as_secs_f64()
        );
        let over = run.terminate().0.expect(0);
        let unsound = ["panicked", "Not copied"].iter().any(|words| over.log.contains(words));
        assert!(!unsound, "{:?} {:?}: {}", self.road, self.spot, over.log);
        for (name, _) in self.place.tree().temporary() {
            let _ = fs::remove_file(self.place.archive().join(String::from_utf8_lossy(name).as_ref()));
        }
        expect_all_proven(&self.place, &self.table, &self.rows);
        // Asked again, there is nothing to do.
        let before = self.relay.up() + self.relay.down();
        let mut again = self.command();
        again.arg("--once");
        Run::to_end(again).expect(0);
        let moved = self.relay.up() + self.relay.down() - before;
        assert!(self.spot == Spot::Database || moved < LARGE as u64 / 4, "{moved} bytes for nothing");
    }
}

/// What befalls the connections of a scene, in turn: every second one carries a few files before it is cut.
fn in_turn(faults: Vec<Fault>, road: Road, spot: Spot) -> impl Fn(u64) -> Option<Fault> + Send + 'static {
    let at = match spot {
        Spot::Database => 30_000,
        _ if road.in_ranges() => 6 << 20,
        _ => 1_500_000,
    };
    let plain = Fault { action: Action::Cut, up: !road.pulls() && spot == Spot::Ssh, at };
    move |number| match (faults.get(number as usize / 2), number % 2) {
        (Some(fault), 0) => Some(*fault),
        (Some(_), _) => Some(plain),
        (None, _) => None,
    }
}

/// Faults of a link, each kind once, or that often each way.
fn drawn(random: &mut fastrand::Rng, road: Road, spot: Spot) -> Vec<Fault> {
    let mut faults = Vec::new();
    for action in Action::ALL {
        // Nothing guards what a database is told without TLS, and nothing can.
        if spot == Spot::Database && matches!(action, Action::Flip | Action::Duplicate) {
            continue;
        }
        let up = random.bool();
        // The greeting, the login, and the one way that carries data, of which there is most.
        let most = match (spot, up != road.pulls()) {
            (Spot::Database, _) => 12_000,
            (_, true) if random.bool() && road.in_ranges() => SHARED as u64 / 2,
            (_, true) if random.bool() => LARGE as u64,
            _ => 6000,
        };
        faults.push(Fault { action, up, at: random.u64(..most) });
    }
    random.shuffle(&mut faults);
    faults
}

/// Has faults befall the connections of a scene until all did.
fn storm(server: &MariaDb, sshd: &Sshd, (road, spot): (Road, Spot), effort: Effort, scores: &Scores) {
    let mut random = fastrand::Rng::with_seed(effort.seed + road as u64 * 100 + spot as u64);
    let mut faults = drawn(&mut random, road, spot);
    if effort.is_long() {
        faults = (0..2000).flat_map(|_| drawn(&mut random, road, spot)).collect();
    } else if spot == Spot::Database {
        // A server that falls silent is waited for half a minute.
        faults.retain(|fault| !matches!(fault.action, Action::Stall | Action::Trickle));
    }
    let mut scene = Scene::new(server, sshd, (road, spot), in_turn(faults.clone(), road, spot));
    let run = scene.start();
    let mut told = 0;
    loop {
        scene.add_pair();
        let mut seen = (scene.relay.connections(), 0, Instant::now());
        let hung = loop {
            let now = (scene.relay.connections(), scene.table.copied());
            if now.1 == scene.rows.len() {
                break false;
            }
            if now != (seen.0, seen.1) {
                seen = (now.0, now.1, Instant::now());
            }
            if seen.2.elapsed() > HANG {
                break true;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let wrong = if hung { None } else { scene.wrong() };
        let befallen = (scene.relay.connections() as usize).div_ceil(2).min(faults.len());
        for fault in &faults[told..befallen] {
            scores.count(&fault.action, (road, spot), [hung, wrong.is_some()]);
        }
        if hung || wrong.is_some() {
            let at = &faults[told..befallen];
            println!("{road:?} {spot:?} {at:?}: hung {hung}, {wrong:?}, seed {}\n{}", effort.seed, run.log());
            return;
        }
        told = befallen;
        if told == faults.len() || effort.is_long() && !effort.goes_on() {
            break;
        }
    }
    scene.finish(run);
}

/// Strikes processes in the middle of files.
fn strikes(server: &MariaDb, sshd: &Sshd, road: Road, effort: Effort, scores: &Scores) {
    let mut random = fastrand::Rng::with_seed(effort.seed + 7000 + road as u64);
    let mut scene = Scene::new(server, sshd, (road, Spot::Process), |_| None);
    let mut run = scene.start();
    loop {
        for blow in Blow::ALL {
            if !effort.is_long() && !blow.is_of_the_short_form(road) {
                continue;
            }
            scene.add_pair();
            let carried = || scene.relay.up() + scene.relay.down();
            let enough = carried() + random.u64(..road.large() as u64);
            wait_until("something is on its way", || carried() >= enough || road == Road::Local || scene.all_copied());
            run = strike(blow, &scene, run);
            let deadline = Instant::now() + HANG;
            while !scene.all_copied() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            let hung = !scene.all_copied();
            let wrong = if hung { None } else { scene.wrong() };
            scores.count(&blow, (road, Spot::Process), [hung, wrong.is_some()]);
            if hung || wrong.is_some() {
                println!("{road:?} {blow:?}: hung {hung}, {wrong:?}, seed {}\n{}", effort.seed, run.log());
                return;
            }
        }
        if !effort.goes_on() {
            break;
        }
    }
    scene.finish(run);
}

/// Deals a blow; gives the archiver that runs behind it.
fn strike(blow: Blow, scene: &Scene<'_>, run: Run) -> Run {
    let sshd = scene.sshd;
    match blow {
        Blow::KillFarPrograms => {
            let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let programs: Vec<_> = sshd.sessions().into_iter().filter(|pid| !comm(pid).starts_with("sshd")).collect();
            signal("KILL", &programs);
            return run;
        }
        Blow::KillConnections => {
            kill_connections(sshd);
            return run;
        }
        Blow::KillDatabase => {
            scene.table.server.crash(0.5);
            scene.table.server.wait_until_up();
            return run;
        }
        Blow::KillOurs => drop(run.kill()),
        Blow::Term => drop(run.terminate().0.expect(0)),
        Blow::TermTwice | Blow::IntTwice => {
            let name = if blow == Blow::TermTwice { "TERM" } else { "INT" };
            run.signal(name);
            run.signal(name);
            drop(run.wait(PATIENCE));
        }
    }
    let run = scene.start();
    wait_until("it runs", || run.log().contains("Watching"));
    run
}

/// Servers of the scenes: MariaDB, and an sshd with rsync and one without.
fn servers() -> Option<(MariaDb, Sshd, Sshd)> {
    let sftp = "Subsystem sftp internal-sftp\nMaxStartups 1000";
    let bare = format!("SetEnv PATH=/nowhere\n{sftp}");
    Some((MariaDb::start()?, Sshd::start(sftp)?, Sshd::start(&bare).filter(|_| require("rsync"))?))
}

#[test]
fn whatever_befalls_a_link_nothing_hangs_and_nothing_is_wrong() {
    let Some((server, sshd, bare)) = servers() else { return };
    let (effort, scores) = (Effort::wanted(), Scores::default());
    let mut roads = vec![Road::Stock, Road::Ours, Road::PullStock, Road::PullOurs, Road::Sftp];
    roads.extend([Road::Ranges, Road::PullRanges]);
    let mut scenes: Vec<_> = roads.into_iter().map(|road| (road, Spot::Ssh)).collect();
    scenes.extend([(Road::Local, Spot::Database), (Road::Stock, Spot::Database)]);
    std::thread::scope(|scope| {
        for (road, spot) in scenes {
            let sshd = if road == Road::Sftp { &bare } else { &sshd };
            let (server, scores) = (&server, &scores);
            scope.spawn(move || storm(server, sshd, (road, spot), effort, scores));
        }
    });
    scores.show();
}

#[test]
fn whatever_befalls_processes_nothing_hangs_and_nothing_is_wrong() {
    let (effort, scores) = (Effort::wanted(), Scores::default());
    let mut roads = vec![Road::Stock, Road::Ours, Road::PullStock, Road::PullOurs, Road::Sftp, Road::Local];
    roads.extend([Road::Ranges, Road::PullRanges]);
    std::thread::scope(|scope| {
        for road in roads {
            let scores = &scores;
            scope.spawn(move || {
                let config = if road == Road::Sftp { "SetEnv PATH=/nowhere\n" } else { "" };
                let sshd = Sshd::start(&format!("{config}Subsystem sftp internal-sftp"));
                // What a crash must not take away is a row that was inserted.
                let durable = ["--innodb-flush-log-at-trx-commit=1".to_owned()];
                let own = if effort.is_long() { MariaDb::start_with(&durable) } else { None };
                let server = own.as_ref().or_else(|| MariaDb::shared());
                let (Some(server), Some(sshd), true) = (server, sshd, require("rsync")) else { return };
                strikes(server, &sshd, road, effort, scores);
            });
        }
    });
    scores.show();
}
