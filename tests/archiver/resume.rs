//! Links that break before a file is through: what came stays, and the next session goes on from there.

use crate::support::archiver::{FarEnd, PROGRAM, Place, Run, md5_of};
use crate::support::cutter::Cutter;
use crate::support::mariadb::MariaDb;
use crate::support::noise::noise;
use crate::support::sshd::Sshd;
use crate::support::tools::require;
use crate::support::wait::{PATIENCE, wait_until};
use crate::tables::{Age, FOLDER, Row, TARGET, Table, expect_all_proven};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bytes of the file, and of one connection.
const LEN: u64 = 24 << 20;
const CUT: u64 = 6 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Road {
    Push,
    Pull,
    Sftp,
}

struct Scene {
    sshd: Sshd,
    cutter: Cutter,
    place: Place,
}

impl Scene {
    fn start(road: Road, cut: u64) -> Option<Self> {
        let config = if road == Road::Sftp { "SetEnv PATH=/nowhere\n" } else { "" };
        let sshd = Sshd::start(&format!("{config}Subsystem sftp internal-sftp"))?;
        let cutter = Cutter::start(sshd.port, cut);
        Some(Self { sshd, cutter, place: Place::make() })
    }

    fn run(&self, road: Road, program: &str, table: &Table<'_>, more: &[&str]) -> Run {
        let far = if road == Road::Pull { self.place.from(&self.sshd) } else { self.place.behind(&self.sshd) };
        let far = FarEnd { rsync_path: program.into(), port: self.cutter.port, ..far };
        let key = self.sshd.known_hosts_line("ed25519");
        fs::write(&far.known_hosts, key.replace(&self.sshd.port.to_string(), &far.port.to_string())).unwrap();
        let mut command = far.command();
        command.args(["--once", "--db", &table.url, "--target", TARGET, "--stall-timeout", "20", "-v"]);
        Run::start({
            command.args(more);
            command
        })
    }

    /// A large file without any repetition: nothing of it can be had from elsewhere in it.
    fn large(&self, seed: u64) -> Row {
        let path = self.place.sources().join("large");
        fs::write(&path, noise(LEN as usize, seed)).unwrap();
        let md5 = md5_of(&path);
        Row::new((path, md5))
    }

    /// Everything that has to do with unfinished files.
    fn aside(&self) -> Vec<PathBuf> {
        let names = self.place.tree().0.into_keys().map(|name| String::from_utf8_lossy(&name).into_owned());
        names.filter(|name| name.contains(".archiver-partial-")).map(|name| self.place.archive().join(name)).collect()
    }
}

fn arrives(name: &str, road: Road, program: &str, more: &[&str]) {
    let (Some(server), Some(scene), true) = (MariaDb::shared(), Scene::start(road, CUT), require("rsync")) else {
        return;
    };
    let table = Table::new(server, name, Age::V1);
    let rows = [Row::new(scene.place.source("small", 3000, 1)), scene.large(2)];
    table.insert(&rows);
    let over = scene.run(road, program, &table, more).wait(PATIENCE).expect(0);
    let (up, down, cuts) = (scene.cutter.up(), scene.cutter.down(), scene.cutter.cuts());
    eprintln!("{name}: {up} bytes up, {down} down, {cuts} cuts, {:.1} s", over.seconds);
    expect_all_proven(&scene.place, &table, &rows);
    assert!(cuts >= LEN / CUT, "{cuts} cuts");
    // What is on its way when a connection ends is lost, about a megabyte each time.
    let bound = LEN + LEN / 4;
    match road {
        Road::Push => assert!(up < bound, "{up}"),
        Road::Pull => assert!(down < bound, "{down}"),
        // It is read back whole.
        Road::Sftp => assert!(up < bound && down < bound, "{up} {down}"),
    }
    assert!(scene.aside().is_empty(), "{:?}", scene.aside());
    let told = over.log.lines().filter(|line| line.contains("Resuming") && line.contains("large at ")).count();
    assert_eq!(told, 1, "{}", over.log);
    assert!(!over.log.contains("trying again"), "It waited though the file came on: {}", over.log);
}

#[test]
fn a_push_to_stock_goes_on_where_the_link_broke() {
    arrives("resume_push_stock", Road::Push, "rsync", &[]);
}

/// Far behind its beginning a file is not read again for each session: what is missing is appended. A far end that does not
/// want that is not made to.
fn is_appended(name: &str, program: &str, refusal: &str) {
    let willing = refusal.is_empty();
    const LEN: usize = 150 << 20;
    const CUT: u64 = 40 << 20;
    let (Some(server), Some(scene), true) = (MariaDb::shared(), Scene::start(Road::Push, CUT), require("rsync")) else {
        return;
    };
    let (asked, wrapper) = (scene.place.path("asked"), scene.place.path("far-rsync"));
    let answer = format!("case \"$*\" in *--append*) {};; esac", if willing { ":" } else { refusal });
    let script = format!("#!/bin/sh\necho \"$*\" >> {}\n{answer}\nexec {program} \"$@\"\n", asked.display());
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let table = Table::new(server, name, Age::V1);
    let source = scene.place.sources().join("large");
    fs::write(&source, noise(LEN, 6)).unwrap();
    let md5 = md5_of(&source);
    let rows = [Row::new((source, md5))];
    table.insert(&rows);
    let far = wrapper.to_str().unwrap();
    // Several connections would be cut as well.
    let over = scene.run(Road::Push, far, &table, &["--split-size", "0"]).wait(PATIENCE).expect(0);
    let (up, cuts) = (scene.cutter.up(), scene.cutter.cuts());
    let asked = fs::read_to_string(&asked).unwrap();
    eprintln!("{name}: {up} bytes up, {cuts} cuts, {:.1} s\n{asked}", over.seconds);
    expect_all_proven(&scene.place, &table, &rows);
    assert!(scene.aside().is_empty(), "{:?}", scene.aside());
    let lines: Vec<_> = asked.lines().collect();
    let appends = |line: &&str| line.contains("--append");
    let (first, last) = (lines.iter().position(appends), lines.iter().rposition(appends));
    let (Some(first), Some(last)) = (first, last) else { panic!("{asked}") };
    // An ordinary session comes before so much is there, and when all is. One that appends may bring it so far that the
    // ordinary one behind it brings the rest.
    let end = if last > first { last } else { lines.len() - 1 };
    let ordinary = lines[first..=end].iter().any(|line| line.contains("--partial-dir"));
    assert!((last > first || refusal.starts_with("ulimit")) && ordinary != willing, "{asked}");
    assert!(up < (LEN + LEN / 8) as u64, "{up}");
}

#[test]
fn a_large_push_to_stock_appends_to_what_is_there() {
    is_appended("resume_append_stock", "rsync", "");
    is_appended("resume_append_refused", "rsync", "exit 1");
    // Its disk is full, for who appends: no trouble of the file.
    is_appended("resume_append_full", "rsync", "ulimit -f 184320");
}

#[test]
fn a_large_push_to_this_program_appends_to_what_is_there() {
    is_appended("resume_append_ours", PROGRAM, "");
}

#[test]
fn a_push_to_this_program_goes_on_where_the_link_broke() {
    arrives("resume_push_ours", Road::Push, PROGRAM, &[]);
}

#[test]
fn a_compressed_push_goes_on_where_the_link_broke() {
    arrives("resume_push_squeezed", Road::Push, "rsync", &["--compress", "yes"]);
}

#[test]
fn a_pull_from_stock_goes_on_where_the_link_broke() {
    arrives("resume_pull_stock", Road::Pull, "rsync", &[]);
}

#[test]
fn a_pull_from_this_program_goes_on_where_the_link_broke() {
    arrives("resume_pull_ours", Road::Pull, PROGRAM, &[]);
}

#[test]
fn files_by_sftp_go_on_where_the_link_broke() {
    arrives("resume_sftp", Road::Sftp, "rsync", &[]);
}

/// Where an unfinished file of this row would be kept.
fn kept(scene: &Scene, name: &str) -> PathBuf {
    let dir = scene.aside().into_iter().find(|path| path.to_string_lossy().ends_with('/')).expect("a directory for it");
    dir.join(name)
}

/// Breaks one session of a row, and gives where its unfinished file is.
fn broken_off(scene: &Scene, road: Road, program: &str, table: &Table<'_>) -> PathBuf {
    let run = scene.run(road, program, table, &[]);
    wait_until("an unfinished file", || {
        scene.aside().iter().any(|path| path.is_file() && path.metadata().is_ok_and(|meta| meta.len() > 100_000))
    });
    run.kill();
    wait_until("the far end has gone", || scene.sshd.sessions().is_empty());
    kept(scene, "large")
}

/// What is there is used and not trusted: other bytes in it are found and sent again.
fn is_not_trusted(name: &str, road: Road, program: &str) {
    let (Some(server), Some(scene), true) = (MariaDb::shared(), Scene::start(road, CUT), require("rsync")) else {
        return;
    };
    let table = Table::new(server, name, Age::V1);
    let rows = [scene.large(3)];
    table.insert(&rows);
    let kept = broken_off(&scene, road, program, &table);
    let mut bytes = fs::read(&kept).unwrap();
    bytes[50_000..50_100].copy_from_slice(&noise(100, 9));
    fs::write(&kept, bytes).unwrap();
    scene.run(road, program, &table, &[]).wait(PATIENCE).expect(0);
    expect_all_proven(&scene.place, &table, &rows);
    assert!(scene.aside().is_empty(), "{:?}", scene.aside());
}

#[test]
fn what_came_is_found_by_another_run_and_not_trusted() {
    is_not_trusted("resume_untrusted_stock", Road::Push, "rsync");
    is_not_trusted("resume_untrusted_ours", Road::Push, PROGRAM);
    is_not_trusted("resume_untrusted_pull", Road::Pull, "rsync");
    is_not_trusted("resume_untrusted_sftp", Road::Sftp, "rsync");
}

/// A row that is given up leaves nothing, and what is not ours stays; `spoil` sees to it that its last attempt fails.
fn is_cleared(name: &str, road: Road, program: &str, spoil: impl Fn(&Path)) {
    let (Some(server), Some(scene), true) = (MariaDb::shared(), Scene::start(road, CUT), require("rsync")) else {
        return;
    };
    let table = Table::new(server, name, Age::V1);
    let rows = [scene.large(4)];
    table.insert(&rows);
    let kept = broken_off(&scene, road, program, &table);
    let others = scene.place.archive().join(FOLDER).join(".archiver-partial-deadbeef");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("large"), "of another archiver").unwrap();
    spoil(&scene.place.sources().join("large"));
    table.execute(&format!("UPDATE {} SET timestamp=timestamp, failed_copy_attempts=4", table.table()));
    let over = scene.run(road, program, &table, &[]).wait(PATIENCE);
    assert!(
        !kept.exists() && !kept.parent().unwrap().exists(),
        "{name}: {:?}: {} {}",
        scene.aside(),
        over.log,
        scene.sshd.log()
    );
    assert!(others.join("large").exists() && Path::new(&others).exists());
}

#[test]
fn what_came_of_a_row_that_is_given_up_goes() {
    let another_file = |source: &Path| fs::write(source, noise(4 << 20, 5)).unwrap();
    is_cleared("resume_cleared_stock", Road::Push, "rsync", another_file);
    is_cleared("resume_cleared_pull", Road::Pull, "rsync", another_file);
    is_cleared("resume_cleared_sftp", Road::Sftp, "rsync", another_file);
}

#[test]
fn what_came_of_a_row_whose_source_is_gone_goes_when_it_is_given_up() {
    let gone = |source: &Path| fs::remove_file(source).unwrap();
    is_cleared("resume_gone_stock", Road::Push, "rsync", gone);
    is_cleared("resume_gone_ours", Road::Push, PROGRAM, gone);
    is_cleared("resume_gone_pull", Road::Pull, "rsync", gone);
    is_cleared("resume_gone_sftp", Road::Sftp, "rsync", gone);
}
