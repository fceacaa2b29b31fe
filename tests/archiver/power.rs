//! A storage node that loses its power: whatever of its disk was not flushed is gone, in part or wholly, and each row that
//! says copied has its file all the same.
//!
//! The disk is a loop device over a file that we serve ourselves (`tests/support/disk.rs`). An archiver fills it; then its
//! power is cut at moments drawn from a seed, and what is left is mounted. `make power-cut` has thousands of them.

use crate::fleet::Queue;
use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, hex, is_root};
use crate::support::disk::{Cut, Disk, Replay};
use crate::support::sshd::Sshd;
use crate::support::tools::{find, require};
use crate::support::wait::{PATIENCE, wait_until};
use rusqlite::{Connection, params};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Where copies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    /// Stock rsync that is not let sync anything: shows that the cuts cut.
    Unsynced,
    Stock,
    Ours,
    Sftp,
    Local,
    PullStock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    /// A disk with this file system, which has forgotten how it came to it.
    fn make(self) -> Option<Disk> {
        const LAZY_NOTHING: &str = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
        // XFS has its own blocks of 512 bytes, and sums over them. ext4's superblock is larger and written in place: a disk that
        // tears it leaves what cannot be mounted, whoever writes files to it.
        let (mib, sector, tool, words): (usize, usize, _, &[&str]) = match self {
            Self::Ext4 => (96, 4096, "mkfs.ext4", &["-q", "-F", "-m", "0", "-E", LAZY_NOTHING]),
            Self::Xfs => (300, 512, "mkfs.xfs", &["-q", "-f", "-K"]),
        };
        if !is_root() {
            eprintln!("SKIPPED: may not mount a file system; run as root");
            return None;
        }
        if !require(tool) {
            return None;
        }
        let disk = Disk::make(mib << 20, sector).inspect_err(|why| eprintln!("SKIPPED: {why}")).ok()?;
        let made = Command::new(tool).args(words).arg(disk.device()).output().unwrap();
        assert!(made.status.success(), "{tool}: {}", String::from_utf8_lossy(&made.stderr));
        Some(disk)
    }
}

/// A mounted file system.
struct Mounted(PathBuf);

impl Mounted {
    /// Where it could not be, why.
    fn of(device: &str, at: &Path, how: &str) -> Result<Self, String> {
        let done = Command::new("mount").args(["-o", how, device]).arg(at).output().unwrap();
        match done.status.success() {
            true => Ok(Self(at.to_owned())),
            false => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What still looks at it goes away by itself.
        let unmount = |words: &[&str]| Command::new("umount").args(words).arg(&self.0).status().unwrap().success();
        let deadline = Instant::now() + PATIENCE;
        while !unmount(&["-q"]) {
            if Instant::now() > deadline {
                unmount(&["-q", "-l"]);
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// A row, and since when it says that it is copied.
struct Watched {
    id: i64,
    name: String,
    md5: [u8; 16],
    /// So often the disk had been told something when it was seen.
    copied: Option<usize>,
}

/// How much is tried.
struct Effort {
    points: usize,
    seed: u64,
    rows: usize,
}

impl Effort {
    /// `ARCHIVER_POINTS`, and `ARCHIVER_SEED`.
    fn wanted() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let points = number("ARCHIVER_POINTS");
        let seed =
            number("ARCHIVER_SEED").unwrap_or_else(|| if points.is_some() { fastrand::u64(..1 << 32) } else { 18 });
        let rows = if points.is_some() { 150 } else { 24 };
        Self { points: points.map_or(12, |points| points as usize), seed, rows }
    }
}

/// What cuts came to.
#[derive(Debug, Default)]
struct Toll {
    points: usize,
    /// Rows that were copied, of all points.
    copied: usize,
    /// Such whose file is not there, or not whole.
    lost: usize,
    /// Points with such rows.
    hit: usize,
    /// Files with wrong bytes under the names of rows that were not copied yet.
    half: usize,
    open: usize,
    hurt: usize,
    /// The first loss.
    first: Option<String>,
}

/// What was recorded: rows, and what the disk was told meanwhile.
struct Recording {
    rows: Vec<Watched>,
    replay: Replay,
}

/// Has an archiver fill the disk; `None` where tools are missing.
fn record(road: Road, disk: Disk, effort: &Effort) -> Option<Recording> {
    let mut random = fastrand::Rng::with_seed(effort.seed + road as u64);
    let place = Place::make();
    let config = if road == Road::Sftp { "SetEnv PATH=/nowhere\n" } else { "" };
    let sshd = Sshd::start(&format!("{config}Subsystem sftp internal-sftp")).filter(|_| require("rsync"))?;
    let mounted = Mounted::of(disk.device(), &place.archive(), "rw").inspect_err(|why| {
        assert!(std::env::var_os("CI").is_none(), "Cannot mount: {why}");
        eprintln!("SKIPPED: cannot mount a file system; {why}");
    });
    let mounted = mounted.ok()?;
    assert!(Command::new("sync").arg("-f").arg(&mounted.0).status().unwrap().success());
    let begun = disk.forget();

    let address = format!("sqlite:{}", place.path("files.db").display());
    let mut init = place.program();
    init.args(["init-db", "--db", &address]);
    Run::to_end(init).expect(0);
    let database = Connection::open(place.path("files.db")).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    let unsynced = "for word do shift; [ \"$word\" = --fsync ] || set -- \"$@\" \"$word\"; done; exec rsync \"$@\"";
    let program = match road {
        Road::Ours => PathBuf::from(PROGRAM),
        Road::Unsynced => place.script("unsynced", unsynced),
        _ => "rsync".into(),
    };
    let mut command = match road {
        Road::Local => place.run(),
        Road::PullStock => FarEnd { rsync_path: program, ..place.from(&sshd) }.command(),
        _ => FarEnd { rsync_path: program, ..place.behind(&sshd) }.command(),
    };
    command.args(["--db", &address, "--archive-name", "smurf", "--poll", "0.1"]);
    let run = Run::start(command);

    let mut rows: Vec<Watched> = Vec::new();
    while rows.len() < effort.rows {
        let before = rows.len();
        for n in before..before + random.usize(1..=9) {
            // A folder for every few, so that folders come, too; now and then a large file.
            let name = format!("17950/part{}/{n:04}.g3", n / 5);
            let len = if random.u8(..12) == 0 { random.u64(1 << 20..3 << 20) } else { random.u64(..30_000) };
            let (path, md5) = place.source(format!("{n:04}.g3"), len, effort.seed + n as u64);
            let insert = "INSERT INTO supersync_v0 (local_path, local_md5sum, archive_name, remote_path, timestamp, \
                          failed_copy_attempts, deletable, \"ignore\") VALUES (?, ?, 'smurf', ?, 1795350012.25, 0, 1, 0)";
            database.execute(insert, params![path.to_str().unwrap(), hex(md5).to_lowercase(), name]).unwrap();
            rows.push(Watched { id: database.last_insert_rowid(), name, md5, copied: None });
        }
        let mut copied =
            database.prepare_cached("SELECT id FROM supersync_v0 WHERE remote_md5sum IS NOT NULL").unwrap();
        wait_until("the rows are copied", || {
            let seen: Vec<i64> = copied.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            let now = disk.told();
            for row in rows.iter_mut().filter(|row| row.copied.is_none() && seen.contains(&row.id)) {
                row.copied = Some(now);
            }
            rows.iter().all(|row| row.copied.is_some())
        });
    }
    let over = run.terminate().0.expect(0);
    drop(mounted);
    let replay = disk.end(begun).unwrap_or_else(|why| panic!("{why}: {}", over.log));
    Some(Recording { rows, replay })
}

/// The moments of the cuts: half of them just when rows were recorded, the others any.
fn moments(rows: &[Watched], told: usize, points: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    let mut moments: Vec<usize> = (0..points)
        .map(|point| match point % 2 {
            0 => rows[random.usize(..rows.len())].copied.unwrap() + random.usize(..3),
            _ => random.usize(..=told),
        })
        .map(|at| at.min(told))
        .collect();
    moments.sort_unstable();
    moments
}

/// Cuts the power again and again.
fn cuts(recording: &mut Recording, at: &Path, effort: &Effort) -> Toll {
    let mut random = fastrand::Rng::with_seed(effort.seed);
    let Recording { rows, replay } = recording;
    let mut toll = Toll::default();
    for moment in moments(rows, replay.told().0, effort.points, &mut random) {
        let Cut { open, hurt } = replay.cut(moment, &mut random);
        toll.points += 1;
        toll.open += open;
        toll.hurt += hurt;
        // Mounted to be read, it is recovered all the same.
        let mounted = Mounted::of(replay.device(), at, "ro")
            .unwrap_or_else(|why| panic!("cut at {moment}, seed {}: it cannot be mounted: {why}", effort.seed));
        let lost = toll.lost;
        for row in rows.iter() {
            let path = mounted.0.join(&row.name);
            let whole = fs::read(&path).ok().map(|bytes| md5(&bytes) == row.md5);
            match (row.copied.is_some_and(|copied| copied <= moment), whole) {
                (true, Some(true)) => toll.copied += 1,
                (true, stands) => {
                    toll.copied += 1;
                    toll.lost += 1;
                    let what = if stands.is_none() { "is not there" } else { "has wrong bytes" };
                    let told = || format!("cut at {moment}: {} {what}, copied at {:?}", row.name, row.copied);
                    toll.first.get_or_insert_with(told);
                }
                (false, Some(false)) => toll.half += 1,
                (false, _) => {}
            }
        }
        toll.hit += usize::from(toll.lost > lost);
    }
    toll
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    use protocol::checksum::{Checksum, FileHasher};
    let mut hasher = FileHasher::new(Checksum::Md5);
    hasher.update(bytes);
    hasher.finish().as_bytes().try_into().unwrap()
}

/// What becomes of rows by this road on such a disk; `None` where it cannot be tried.
fn try_out(road: Road, kind: Kind, effort: &Effort) -> Option<Toll> {
    let began = Instant::now();
    let mut recording = record(road, kind.make()?, effort)?;
    let recorded = began.elapsed().as_secs_f64();
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let (told, flushes) = recording.replay.told();
    let toll = cuts(&mut recording, folder.path(), effort);
    println!(
        "{:10} {:5} {:5} {told:6} {flushes:6} {:6} {:8} {:8} {:8} {:6} {:6} {:6}   {recorded:.1} s, {:.1} s",
        format!("{road:?}"),
        format!("{kind:?}"),
        recording.rows.len(),
        toll.points,
        toll.open,
        toll.hurt,
        toll.copied,
        toll.hit,
        toll.lost,
        toll.half,
        began.elapsed().as_secs_f64(),
    );
    Some(toll)
}

fn heading(effort: &Effort) {
    println!("seed {}", effort.seed);
    println!(
        "{:10} {:5} {:>5} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8} {:>6} {:>6} {:>6}",
        "road", "disk", "rows", "told", "flush", "cuts", "open", "taken", "copied", "hit", "lost", "half"
    );
}

#[test]
fn a_power_cut_takes_no_row_that_says_copied() {
    let effort = Effort::wanted();
    heading(&effort);
    let kinds = match std::env::var("ARCHIVER_FS").as_deref() {
        Ok("xfs") => vec![Kind::Xfs],
        Ok("ext4") => vec![Kind::Ext4],
        _ if effort.rows < 100 => vec![Kind::Ext4],
        _ => vec![Kind::Ext4, Kind::Xfs],
    };
    let roads = [Road::Unsynced, Road::Stock, Road::Ours, Road::Sftp, Road::Local, Road::PullStock];
    let mut broken = Vec::new();
    for kind in kinds {
        for road in roads {
            let Some(toll) = try_out(road, kind, &effort) else { return };
            match road {
                Road::Unsynced => assert!(toll.lost > 0, "a cut that takes nothing shows nothing: {toll:?}"),
                _ if toll.lost > 0 => broken.push(format!("{road:?} {kind:?}: {toll:?}")),
                _ => {}
            }
        }
    }
    assert!(broken.is_empty(), "seed {}: {}", effort.seed, broken.join("\n"));
}

/// Where `sync` cannot be run copies count all the same, and it is told, once for all sessions.
#[test]
fn a_storage_node_that_cannot_sync_is_told_of_and_takes_files() {
    let place = Place::make();
    let programs = place.path("bin");
    fs::create_dir(&programs).unwrap();
    let (Some(rsync), true) = (find("rsync"), require("rsync")) else { return };
    std::os::unix::fs::symlink(rsync, programs.join("rsync")).unwrap();
    let Some(sshd) = Sshd::start(&format!("SetEnv PATH={}", programs.display())) else { return };
    let queue = Queue::on_sqlite(&place);
    let run = queue.mover(place.run_to(&sshd));
    for n in 0..3u64 {
        queue.insert(&[place.source(format!("{n:04}.dat"), 3000, n)]);
        wait_until("it is copied", || queue.copied() as u64 == n + 1);
    }
    let over = run.terminate().0.expect(0);
    assert_eq!(over.log.matches("sync cannot be run there").count(), 1, "{}", over.log);
    queue.expect_each_once(&place, 0);
}
