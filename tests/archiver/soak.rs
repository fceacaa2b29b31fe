//! A fleet of two that works for long: while a producer adds rows, whatever can befall links and processes does, at random from a
//! seed; or, with nothing befalling it, a million small files, of which memory must not tell. `make soak`.

use crate::fleet::Queue;
use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, hex, is_temporary, kill_connections};
use crate::support::cutter::{Action, Cutter, Fault};
use crate::support::mariadb::MariaDb;
use crate::support::processes::signal;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::tables::TARGET;
use protocol::checksum::{Checksum, FileHasher};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Within that something must come on, whatever has befallen: a stalled database is waited for 30 s, pauses grow to 60 s.
const HANG: Duration = Duration::from_secs(150);
/// The short form.
const SHORT: Duration = Duration::from_secs(8);
/// What memory may grow by with a hundred thousand files, KiB.
const GROWTH_MOST: f64 = 1024.0;
/// Files that share their bytes in the long form, by names of their own: ext4 gives one 65,000 at most.
const SHARING: u64 = 50_000;

/// What is done to processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    KillMover,
    EndMover,
    /// For longer than it is waited for, or shorter.
    FreezeMover,
    KillReceivers,
    KillConnections,
    RestartSshd,
    CrashDatabase,
}

impl Blow {
    const ALL: [Self; 7] = [
        Self::KillMover,
        Self::EndMover,
        Self::FreezeMover,
        Self::KillReceivers,
        Self::KillConnections,
        Self::RestartSshd,
        Self::CrashDatabase,
    ];
}

/// How often what befell.
type Tally = Arc<Mutex<BTreeMap<String, u64>>>;

fn count(tally: &Tally, what: String) {
    *tally.lock().unwrap().entry(what).or_default() += 1;
}

/// What befalls connections, until the `calm`; counted as they are opened.
fn weather(
    seed: u64,
    calm: &Arc<AtomicBool>,
    tally: &Tally,
    to_database: bool,
) -> impl Fn(u64) -> Option<Fault> + Send + 'static {
    let (calm, tally) = (calm.clone(), tally.clone());
    move |number| {
        let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9E37_79B9));
        let odds = if to_database { 8 } else { 3 };
        if calm.load(Relaxed) || random.u8(..odds) > 0 {
            return None;
        }
        let action = random.choice(Action::ALL).unwrap();
        // Nothing guards what a database is told without TLS; one that falls silent is waited for half a minute.
        if to_database && !matches!(action, Action::Cut | Action::Reset | Action::Delay) {
            return None;
        }
        count(&tally, format!("{} {action:?}", if to_database { "database link" } else { "ssh link" }));
        let most = if to_database { 30_000 } else { 400_000 };
        Some(Fault { action, up: random.bool(), at: random.u64(..most) })
    }
}

/// A fleet of two at work.
struct Soak<'a> {
    place: Place,
    sshd: Sshd,
    queue: Queue<'a>,
    server: Option<&'a MariaDb>,
    to_node: Cutter,
    to_database: Option<Cutter>,
    movers: Vec<Run>,
    files: Vec<(PathBuf, [u8; 16])>,
    /// Memory of a mover, KiB, when so many rows were copied.
    memory: Vec<(usize, u64)>,
}

impl<'a> Soak<'a> {
    fn new(
        server: Option<&'a MariaDb>,
        at_node: impl Fn(u64) -> Option<Fault> + Send + 'static,
        at_database: impl Fn(u64) -> Option<Fault> + Send + 'static,
    ) -> Option<Self> {
        let sshd = Sshd::start("MaxStartups 1000").filter(|_| require("rsync"))?;
        let place = Place::make();
        let queue = match server {
            Some(server) => Queue::on_mariadb(server, "soak", &place),
            None => Queue::on_sqlite(&place),
        };
        let to_node = Cutter::faulty(sshd.port, at_node);
        let to_database = server.map(|server| Cutter::faulty(server.port, at_database));
        let (movers, files, memory) = Default::default();
        let mut soak = Self { place, sshd, queue, server, to_node, to_database, movers, files, memory };
        soak.movers = (0..2).map(|number| soak.mover(number)).collect();
        Some(soak)
    }

    /// One sends to stock rsync, the other to our own.
    fn mover(&self, number: usize) -> Run {
        let far = self.place.behind(&self.sshd);
        let key = self.sshd.known_hosts_line("ed25519");
        let port = self.to_node.port;
        fs::write(&far.known_hosts, key.replace(&self.sshd.port.to_string(), &port.to_string())).unwrap();
        let program = if number == 0 { "rsync" } else { PROGRAM };
        let mut command: Command = FarEnd { rsync_path: program.into(), port, ..far }.command();
        let mut url = self.queue.url();
        if let (Some(server), Some(relay)) = (self.server, &self.to_database) {
            url = url.replace(&format!("@127.0.0.1:{}/", server.port), &format!("@127.0.0.1:{}/", relay.port));
        }
        command.args(["--db", &url, self.queue.chooses(), TARGET, "--poll", "0.2", "--max-copy-attempts", "2"]);
        command.args(["--stall-timeout", "3", "--connect-timeout", "5", "--workers", "2"]);
        Run::start(command)
    }

    /// Registers a few files.
    fn produce(&mut self, random: &mut fastrand::Rng) {
        let first = self.files.len() as u64;
        let some: Vec<_> = (first..first + random.u64(1..=20))
            .map(|n| {
                let len = if random.u8(..40) == 0 { random.u64(200_000..1_500_000) } else { random.u64(..12_000) };
                self.place.source(format!("{}/{n:07}.dat", n / 1000), len, n)
            })
            .collect();
        self.queue.insert(&some);
        self.files.extend(some);
    }

    fn strike(&mut self, blow: Blow, random: &mut fastrand::Rng) {
        let number = random.usize(..2);
        match blow {
            Blow::KillMover => {
                let fresh = self.mover(number);
                std::mem::replace(&mut self.movers[number], fresh).kill();
            }
            Blow::EndMover => {
                let fresh = self.mover(number);
                std::mem::replace(&mut self.movers[number], fresh).terminate().0.expect(0);
            }
            Blow::FreezeMover => {
                self.movers[number].signal("STOP");
                let wakes = Instant::now() + Duration::from_millis(random.u64(200..4000));
                while Instant::now() < wakes {
                    self.produce(random);
                    std::thread::sleep(Duration::from_millis(200));
                }
                self.movers[number].signal("CONT");
            }
            Blow::KillReceivers => {
                let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let programs: Vec<_> =
                    self.sshd.sessions().into_iter().filter(|pid| !comm(pid).starts_with("sshd")).collect();
                signal("KILL", &programs);
            }
            Blow::KillConnections => kill_connections(&self.sshd),
            Blow::RestartSshd => self.sshd.restart(),
            Blow::CrashDatabase => {
                if let Some(server) = self.server {
                    server.crash(0.5);
                    server.wait_until_up();
                }
            }
        }
    }

    fn look(&mut self, copied: usize) {
        let most = self.movers.iter().filter_map(Run::memory_kib).max();
        self.memory.extend(most.map(|kib| (copied, kib)));
    }

    /// Waits until all is copied; false where nothing comes on any more.
    fn settle(&mut self) -> bool {
        let (mut copied, mut since) = (self.queue.copied(), Instant::now());
        while copied < self.files.len() {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.queue.copied();
            self.look(now);
            if now != copied {
                (copied, since) = (now, Instant::now());
            }
            if since.elapsed() > HANG {
                return false;
            }
        }
        true
    }

    /// Ends it all; what became of the rows.
    fn judge(self, hung: bool) -> Verdict {
        if hung {
            self.movers.iter().for_each(|mover| println!("{}", mover.log()));
        }
        let mut panicked = 0;
        for mover in self.movers {
            panicked += usize::from(mover.terminate().0.log.contains("panicked"));
        }
        let queue = &self.queue;
        let (path, md5) = queue.copy_columns();
        let copies = queue.run(&format!("SELECT {path}, {md5} FROM {} WHERE {}", queue.files(), queue.is_copied()));
        let (mut places, mut wrong, mut same) = (HashSet::new(), 0, 0);
        for copy in copies.lines() {
            let (path, md5) = copy.split_once('\t').unwrap();
            let copy = self.place.archive().join(Path::new(path));
            wrong += usize::from(fs::read(&copy).map_or(true, |bytes| hex(md5_of(&bytes)) != md5));
            same += usize::from(!places.insert(path.to_owned()));
        }
        let tree = self.place.tree();
        let (left, copies) = tree.files().partition::<Vec<_>, _>(|(name, _)| is_temporary(name));
        let witnessed = queue.count("witness WHERE what='copied'") + queue.count("witness WHERE what='renewed'");
        let failed = queue.run(&format!("SELECT SUM(failed_copy_attempts) FROM {}", queue.files()));
        Verdict {
            rows: self.files.len(),
            wrong,
            lost: self.files.len() - places.len(),
            twice: same + copies.len().saturating_sub(places.len()) + witnessed.saturating_sub(places.len()),
            blamed: failed.trim().parse().unwrap_or(0),
            hangs: usize::from(hung),
            panicked,
            left: left.len(),
        }
    }
}

/// What became of all rows.
#[derive(Debug)]
struct Verdict {
    rows: usize,
    wrong: usize,
    lost: usize,
    /// Recorded or copied more than once.
    twice: usize,
    blamed: usize,
    hangs: usize,
    panicked: usize,
    /// Unfinished files of receivers that were killed.
    left: usize,
}

impl Verdict {
    fn show(&self) {
        let Self { rows, wrong, lost, twice, blamed, hangs, panicked, left } = self;
        println!(
            "rows {rows}, wrong {wrong}, lost {lost}, twice {twice}, blamed {blamed}, hangs {hangs}, panics {panicked}"
        );
        println!("unfinished files of killed receivers {left}");
        assert_eq!([*wrong, *lost, *twice, *blamed, *hangs, *panicked], [0; 6]);
    }
}

/// The MD5 of a small file.
fn md5_of(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = FileHasher::new(Checksum::Md5);
    hasher.update(bytes);
    hasher.finish().as_bytes().try_into().unwrap()
}

/// `ARCHIVER_SOAK=MINUTES`, `ARCHIVER_SOAK_ROWS`, `ARCHIVER_SEED`.
fn number(name: &str) -> Option<f64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The most memory in a part of the samples.
fn most(memory: &[(usize, u64)]) -> u64 {
    memory.iter().map(|(_, kib)| *kib).max().unwrap_or(0)
}

#[test]
fn a_fleet_in_bad_weather_loses_no_row_and_copies_none_twice() {
    let minutes = number("ARCHIVER_SOAK");
    if number("ARCHIVER_SOAK_ROWS").is_some() {
        return;
    }
    let seed = number("ARCHIVER_SEED")
        .map_or_else(|| if minutes.is_some() { fastrand::u64(..1 << 32) } else { 18 }, |seed| seed as u64);
    println!("seed {seed}");
    // What a crash must not take away is a row that was inserted.
    let Some(server) = MariaDb::start_with(&["--innodb-flush-log-at-trx-commit=1".to_owned()]) else { return };
    let (calm, tally) = (Arc::new(AtomicBool::new(false)), Tally::default());
    let weathers = [false, true].map(|to_database| weather(seed, &calm, &tally, to_database));
    let [at_node, at_database] = weathers;
    let Some(mut soak) = Soak::new(Some(&server), at_node, at_database) else { return };
    let mut random = fastrand::Rng::with_seed(seed);
    let length = minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0));
    let (began, mut told) = (Instant::now(), Instant::now());
    let (mut copied, mut since) = (0, Instant::now());
    let mut hung = false;
    while began.elapsed() < length && !hung {
        soak.produce(&mut random);
        if random.u8(..12) == 0 {
            let blow = *random.choice(&Blow::ALL).unwrap();
            count(&tally, format!("process {blow:?}"));
            soak.strike(blow, &mut random);
        }
        std::thread::sleep(Duration::from_millis(random.u64(50..400)));
        let now = soak.queue.copied();
        soak.look(now);
        if now != copied || now == soak.files.len() {
            (copied, since) = (now, Instant::now());
        }
        hung = since.elapsed() > HANG;
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!("{:.0} s: {now} of {} copied", began.elapsed().as_secs_f64(), soak.files.len());
        }
    }
    calm.store(true, Relaxed);
    hung = hung || !soak.settle();
    let memory = std::mem::take(&mut soak.memory);
    let fifth = memory.len().div_ceil(5);
    let verdict = soak.judge(hung);
    for (what, often) in tally.lock().unwrap().iter() {
        println!("{what:28} {often:6}");
    }
    println!(
        "{:.0} s; memory of a mover at most: {} KiB in the first fifth, {} KiB in the last",
        began.elapsed().as_secs_f64(),
        most(&memory[..fifth]),
        most(&memory[memory.len() - fifth..])
    );
    verdict.show();
}

/// By how much memory grows with a hundred thousand rows, KiB: the line through the samples.
fn growth(memory: &[(usize, u64)]) -> f64 {
    let n = memory.len() as f64;
    let mean = |of: &dyn Fn(&(usize, u64)) -> f64| memory.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(&|(rows, _)| *rows as f64), mean(&|(_, kib)| *kib as f64));
    let xy = mean(&|(rows, kib)| (*rows as f64 - x) * (*kib as f64 - y));
    let xx = mean(&|(rows, _)| (*rows as f64 - x).powi(2));
    xy / xx * 1e5
}

#[test]
fn memory_does_not_grow_with_the_files() {
    let rows = number("ARCHIVER_SOAK_ROWS").map(|rows| rows as u64);
    if rows.is_none() && number("ARCHIVER_SOAK").is_some() {
        return;
    }
    // By SQLite in the short form, which says little of the line.
    let server = if rows.is_some() { MariaDb::start() } else { None };
    if rows.is_some() && server.is_none() {
        return;
    }
    let total = rows.unwrap_or(2000);
    let Some(mut soak) = Soak::new(server.as_ref(), |_| None, |_| None) else { return };
    let began = Instant::now();
    let mut shared = (PathBuf::new(), [0; 16]);
    while (soak.files.len() as u64) < total {
        let first = soak.files.len() as u64;
        let some: Vec<_> = (first..total.min(first + 1000))
            .map(|n| {
                let name = format!("{}/{n:07}.dat", n / 1000);
                if n.is_multiple_of(SHARING) {
                    shared = soak.place.source(&name, 500, n);
                    return shared.clone();
                }
                let path = soak.place.sources().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::hard_link(&shared.0, &path).unwrap();
                (path, shared.1)
            })
            .collect();
        soak.queue.insert(&some);
        soak.files.extend(some);
        // No further ahead than a producer would be, so that what is waited for does not grow.
        let mut since = Instant::now();
        let mut last = soak.queue.copied();
        while last + 5000 < soak.files.len() {
            std::thread::sleep(Duration::from_millis(200));
            let now = soak.queue.copied();
            assert!(now != last || since.elapsed() < HANG, "it hangs at {now} rows");
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        soak.look(last);
        if first.is_multiple_of(20_000) {
            println!("{:.0} s: {last} copied, {:?} KiB", began.elapsed().as_secs_f64(), soak.memory.last());
        }
    }
    let hung = !soak.settle();
    let memory = std::mem::take(&mut soak.memory);
    let verdict = soak.judge(hung);
    // What a program needs at first is no growth.
    let steady: Vec<_> = memory.iter().copied().filter(|(copied, _)| *copied as u64 >= total / 10).collect();
    let growth = growth(&steady);
    println!(
        "{total} files in {:.0} s; memory {:?} to {:?} KiB, {growth:.0} KiB more with 100,000 files",
        began.elapsed().as_secs_f64(),
        steady.first(),
        steady.last()
    );
    verdict.show();
    assert!(rows.is_none() || growth < GROWTH_MOST, "{growth} KiB with 100,000 files");
}
