//! A clock that jumps by more than a year, either way, while the archiver works.
//!
//! What the program asks the C library for the time of day is answered by a shim of ours that adds what a file says.

use crate::fleet::Queue;
use crate::support::archiver::{Place, Run, md5_of};
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::wait_until;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

/// 400 days, in seconds.
const JUMP: i64 = 400 * 24 * 3600;

/// Puts itself before the C library, for the time of day alone: what waits goes by the other clock.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *jump;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_JUMP");
    int file = path ? open(path, O_RDONLY) : -1;
    void *there = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (there != MAP_FAILED)
        jump = there;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = syscall(SYS_clock_gettime, clock, now);
    if (!done && jump && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *jump;
    return done;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int done = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return done;
}

time_t time(time_t *there) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (there)
        *there = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A clock for programs of this place.
struct Clock {
    shim: PathBuf,
    file: File,
    path: PathBuf,
}

impl Clock {
    /// `None` where there is no compiler.
    fn make(place: &Place) -> Option<Self> {
        if !require("cc") {
            return None;
        }
        let (source, shim, path) = (place.path("clock.c"), place.path("clock.so"), place.path("jump"));
        fs::write(&source, SHIM).unwrap();
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&shim, &source]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(&path, 0i64.to_ne_bytes()).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        Some(Self { shim, file, path })
    }

    /// Has this program go by it.
    fn rules(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", &self.shim).env("CLOCK_JUMP", &self.path);
        command
    }

    /// So many seconds before or behind the time that it is.
    fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

/// The clocks of the archivers jump, at rest and in the middle of a file; each row is copied and recorded once and blamed of nothing.
#[test]
fn clocks_that_jump_by_400_days_lose_no_row_and_blame_none() {
    let (Some(sshd), true) = (Sshd::start(""), require("rsync")) else { return };
    let place = Place::make();
    let Some(clock) = Clock::make(&place) else { return };
    let date = clock.rules(Command::new("date"));
    clock.set(JUMP);
    let mut date = date;
    let said = String::from_utf8(date.arg("+%s").output().unwrap().stdout).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((said.trim().parse::<i64>().unwrap() - now - JUMP).abs() < 60, "the shim works: {said}");
    clock.set(0);

    let queue = Queue::on_sqlite(&place);
    // Of the two one has a clock that jumps, and slowly enough a far end that a file is under way meanwhile.
    let mut jumping = clock.rules(place.run_to(&sshd));
    jumping.args(["--bwlimit", "600"]);
    let movers = [queue.mover(jumping), queue.mover(place.run_to(&sshd))];
    wait_until("both have their lanes", || queue.count("fleet_mover") == 2);
    let mut files = Vec::new();
    for (turn, jump) in [0, JUMP, 0, -JUMP, JUMP, -JUMP].into_iter().enumerate() {
        let some: Vec<_> = (0..12u64)
            .map(|n| {
                let number = turn as u64 * 12 + n;
                place.source(format!("{number:05}.dat"), if n < 4 { 300_000 } else { n * 301 }, number)
            })
            .collect();
        queue.insert(&some);
        files.extend(some);
        wait_until("something of it is copied", || queue.copied() > files.len() - 12);
        clock.set(jump);
        wait_until(&format!("all is copied, the clock at {jump}"), || queue.copied() == files.len());
    }
    for mover in movers {
        let over = mover.terminate().0.expect(0);
        assert!(!over.log.contains("panicked") && !over.log.contains("Not copied"), "{}", over.log);
    }
    for (path, md5) in &files {
        assert_eq!(md5_of(&place.archive().join("17950").join(path.file_name().unwrap())), *md5, "{}", path.display());
    }
    queue.expect_each_once(&place, 0);
}

/// Alone as well: to a folder of this machine, whose places go by what rows say and not by the clock.
#[test]
fn a_clock_that_jumps_changes_no_place() {
    let place = Place::make();
    let Some(clock) = Clock::make(&place) else { return };
    let queue = Queue::on_sqlite(&place);
    let run: Run = queue.mover(clock.rules(place.run()));
    let mut files = Vec::new();
    for (turn, jump) in [JUMP, -JUMP, 0].into_iter().enumerate() {
        clock.set(jump);
        let some: Vec<_> = (0..10u64)
            .map(|n| place.source(format!("{:05}.dat", turn as u64 * 10 + n), n * 301, turn as u64 * 10 + n))
            .collect();
        queue.insert(&some);
        files.extend(some);
        wait_until(&format!("all is copied, the clock at {jump}"), || queue.copied() == files.len());
    }
    run.terminate().0.expect(0);
    queue.expect_each_once(&place, 0);
}
