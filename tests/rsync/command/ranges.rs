//! A pull of one large file in ranges (`--parallel`), and what may go wrong with it.

use super::parallel::home_of;
use crate::support::both::STOCK;
use crate::support::cutter::{Action, Cutter, Fault};
use crate::support::sshd::{Sshd, keygen};
use crate::support::stock::{Bench, OURS, Run, ended, limited};
use crate::support::tiny::Tiny;
use crate::support::tree::{self, THEN, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LEN: usize = 40 << 20;
const BY_SFTP: &str = "Subsystem sftp internal-sftp";

/// The file is in `src`, and nothing in `dst`.
fn prepare(work: &Path) {
    tree::put(work, "src/large", &tree::noise(LEN, 5), 0o640, THEN);
    fs::create_dir(work.join("dst")).unwrap();
}

fn pulling(work: &Path, sshd: &Sshd, far: &str, words: &[&str]) -> Command {
    let mut command = limited(&[OURS, "rsync", "--rsync-path", far]);
    command.args(words).current_dir(work);
    command.env("HOME", home_of(work, sshd)).env_remove("SSH_AUTH_SOCK");
    command
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Run { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr }
}

/// Names in the destination.
fn left(work: &Path) -> Vec<String> {
    let names = fs::read_dir(work.join("dst")).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Pulls by four connections; what came must be as by one.
fn pull(work: &Path, sshd: &Sshd, far: &str, (options, place): (&str, &str)) -> Run {
    let source = format!("storage:{}/src/large", work.display());
    let run = run(&mut pulling(work, sshd, far, &[options, "-i", "--stats", "--parallel=4", &source, place]));
    assert_eq!((run.code, &*run.stderr), (0, ""));
    assert_eq!(String::from_utf8_lossy(&run.stdout).lines().next(), Some(">f+++++++++ large"));
    assert_eq!([run.stat("Literal data"), run.stat("Matched data")], [LEN as u64, 0]);
    let there = Tree::of(&work.join("dst"), i64::MAX).0;
    assert_eq!(there.len(), 2, "nothing else is left: {:?}", there.keys());
    let file = there.values().find(|node| node.is_file()).unwrap();
    assert!(file.content == tree::noise(LEN, 5) && file.mtime == Some(THEN));
    let plain = Command::new(OURS).args(["rsync", options, "src/large", "alone"]).current_dir(work).status().unwrap();
    let alone = Tree::of(work, i64::MAX).0.into_iter().find(|(name, _)| name.ends_with(b"alone")).unwrap().1;
    assert!(plain.success() && file.mode == alone.mode, "{:o} {:o}", file.mode, alone.mode);
    run
}

/// Sums of what was found go to the sender.
fn was_in_ranges(run: &Run) -> bool {
    run.stat("Total bytes sent") > 10_000
}

/// A server of SFTP that is this script, in which `$SERVER` is the real one.
fn scripted(bench: &Bench, name: &str, script: &str) -> Option<Sshd> {
    let server = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"];
    let server = server.into_iter().find(|path| Path::new(path).exists())?;
    let script = bench.script(name, &format!("SERVER={server}\n{script}"));
    Sshd::start(&format!("Subsystem sftp {}", script.display()))
}

#[test]
fn one_large_file_is_read_in_ranges() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    for (config, by_ranges) in [(BY_SFTP, true), ("", false)] {
        let Some(sshd) = Sshd::start(config) else { return };
        for (far, how) in
            [(STOCK, ("-a", "dst/")), (OURS, ("-a", "dst/")), (STOCK, ("-rt", "dst/named")), (STOCK, ("-aS", "dst"))]
        {
            let work = bench.fresh("work");
            prepare(work.path());
            let run = pull(work.path(), &sshd, far, how);
            assert_eq!(was_in_ranges(&run), by_ranges && how.0 != "-aS", "{config} {far} {how:?}: {run:?}");
        }
    }
}

/// What is there already, and what is no file, is looked at by the one session alone.
#[test]
fn only_a_new_file_is_read_in_ranges() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let Some(sshd) = Sshd::start(BY_SFTP) else { return };
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let mut old = tree::noise(LEN, 5);
    old[1000..2000].fill(0);
    tree::put(work, "dst/large", &old, 0o600, (THEN.0 - 9, 0));
    let source = format!("storage:{}/src/large", work.display());
    let over = run(&mut pulling(work, &sshd, STOCK, &["-av", "--stats", "--parallel=4", &source, "dst/"]));
    assert_eq!((over.code, &*over.stderr), (0, ""));
    assert!(over.stat("Literal data") < 100_000, "{over:?}");
    assert!(fs::read(work.join("dst/large")).unwrap() == tree::noise(LEN, 5));
    let source = format!("storage:{}/src", work.display());
    let folder = run(&mut pulling(work, &sshd, STOCK, &["-a", "--stats", "--parallel=4", &source, "new"]));
    assert_eq!((folder.code, &*folder.stderr), (0, ""));
    assert!(!was_in_ranges(&folder) && fs::read(work.join("new/src/large")).unwrap() == tree::noise(LEN, 5));
}

/// Connections that are cut, a server that reads nothing, one that has another file there, longer or shorter: all of it comes
/// right.
#[test]
fn trouble_with_ranges_only_takes_time() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let other = bench.fresh("other");
    tree::put(other.path(), "src/large", &tree::noise(LEN, 6), 0o640, THEN);
    tree::put(other.path(), "longer/large", &tree::noise(LEN + 5000, 5), 0o640, THEN);
    tree::put(other.path(), "shorter/large", &tree::noise(LEN - 5000, 5), 0o640, THEN);
    let elsewhere = |name: &str| format!("cd {}/{name} && exec $SERVER -d $PWD", other.path().display());
    // Only the first one lives.
    let first = format!("mkdir {}/first && exec $SERVER\n$SERVER | head -c 900000", other.path().display());
    for (name, script) in [
        ("cut", "$SERVER | head -c 5000000".to_owned()),
        ("first", first),
        ("gone", "exit 1".to_owned()),
        ("silent", "$SERVER -P read".to_owned()),
        ("closed", "$SERVER -P open".to_owned()),
        ("other", elsewhere("src")),
        ("longer", elsewhere("longer")),
        ("shorter", elsewhere("shorter")),
    ] {
        let Some(sshd) = scripted(&bench, name, &script) else { return };
        let work = bench.fresh("work");
        prepare(work.path());
        if name == "other" || name.ends_with("er") {
            // By a relative name, which is another's where SFTP begins.
            let source = "storage:large";
            let begin = bench.script("rsync-there", &format!("cd {}/src && exec rsync \"$@\"", work.path().display()));
            let begin = begin.to_str().unwrap();
            let run = run(&mut pulling(work.path(), &sshd, begin, &["-a", "--stats", "--parallel=4", source, "dst/"]));
            assert_eq!((run.code, &*run.stderr), (0, ""), "{name}");
            // What has come is built upon, also where its end was not to be had.
            assert!(was_in_ranges(&run), "{name}: {run:?}");
            assert!(fs::read(work.path().join("dst/large")).unwrap() == tree::noise(LEN, 5), "{name}");
            assert_eq!(left(work.path()), ["large"], "{name}");
        } else {
            let run = pull(work.path(), &sshd, STOCK, ("-a", "dst/"));
            assert_eq!(was_in_ranges(&run), name == "first", "{name}: {run:?}");
        }
    }
}

/// The words and the exit code are those of one connection, and nothing is left.
#[test]
fn a_disk_that_is_full_is_told_as_by_one_connection() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let Some(sshd) = Sshd::start(BY_SFTP) else { return };
    let told = |parallel: &str| {
        let work = bench.fresh("work");
        let work = work.path();
        prepare(work);
        let tiny = Tiny::mount(work.join("dst"), "20m")?;
        let source = format!("storage:{}/src/large", work.display());
        let run = run(&mut pulling(work, &sshd, STOCK, &["-a", parallel, &source, "dst/"]));
        assert_eq!(left(work), [""; 0]);
        drop(tiny);
        Some((run.code, run.stderr.replace(work.to_str().unwrap(), "WORK")))
    };
    let (Some(one), Some(four)) = (told("--parallel=1"), told("--parallel=4")) else {
        eprintln!("SKIPPED: may not mount a tmpfs; run as root with CAP_SYS_ADMIN");
        return;
    };
    assert_eq!(one.0, 11, "{one:?}");
    assert!(one.1.contains("No space left"), "{one:?}");
    assert_eq!(one.0, four.0, "{four:?}");
    assert!(four.1.contains("No space left"), "{four:?}");
}

/// While ranges are read, a signal ends it all, and nothing is left.
#[test]
fn a_signal_ends_a_pull_in_ranges() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let Some(sshd) = scripted(&bench, "hangs", "$SERVER | (head -c 3000000; cat >/dev/null)") else { return };
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let source = format!("storage:{}/src/large", work.display());
    let mut command = Command::new(OURS);
    command.args(["rsync", "-a", "--parallel=4", &source, "dst/"]).current_dir(work).stdin(Stdio::null());
    command.env("HOME", home_of(work, &sshd)).env_remove("SSH_AUTH_SOCK");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let written = |path: PathBuf| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    while !left(work).into_iter().any(|name| written(work.join("dst").join(name))) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "nothing comes");
        std::thread::yield_now();
    }
    let sent = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(sent.success() && output.status.code() == Some(20), "{output:?}");
    assert_eq!(left(work), [""; 0]);
}

/// Servers count failures and shut those out who have many: nobody tries a key before the one session was let in by it.
#[test]
fn a_key_that_is_refused_is_tried_once() {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let Some(sshd) = Sshd::start(BY_SFTP) else { return };
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let key = work.join("key");
    keygen(&key, "ed25519");
    let config = home_of(work, &sshd).join(".ssh/config");
    let text = fs::read_to_string(&config).unwrap();
    let ours = sshd.client_key();
    let pull = [format!("storage:{}/src/large", work.display()), "dst/".to_owned()];
    let push = ["src/large".to_owned(), format!("storage:{}/dst/", work.display())];
    for operands in [pull, push] {
        let before = fs::read_to_string(sshd.path("log")).unwrap().len();
        let mut command = limited(&[OURS, "rsync", "-a", "--parallel=6"]);
        command.args(operands).current_dir(work).env_remove("SSH_AUTH_SOCK");
        command.env("HOME", home_of(work, &sshd));
        let other = text.replace(ours.to_str().unwrap(), key.to_str().unwrap());
        fs::write(&config, format!("{other} IdentitiesOnly yes\n")).unwrap();
        let run = run(&mut command);
        assert_ne!(run.code, 0, "{run:?}");
        let log = fs::read_to_string(sshd.path("log")).unwrap().split_off(before);
        let tried = log.lines().filter(|line| line.contains("Failed publickey") || line.contains("Accepted")).count();
        assert!(tried <= 1 && run.stderr.contains("Authentication"), "{run:?}\n{log}");
    }
}

/// As [`home_of`], by way of a relay.
fn home_behind(work: &Path, sshd: &Sshd, port: u16) -> PathBuf {
    let home = home_of(work, sshd);
    let there = |text: &str| text.replace(&sshd.port.to_string(), &port.to_string());
    let known = work.join(format!("known-{port}"));
    fs::write(&known, there(&sshd.known_hosts_line("ed25519"))).unwrap();
    let config = fs::read_to_string(home.join(".ssh/config")).unwrap();
    let config = there(&config).replace(sshd.known_hosts().to_str().unwrap(), known.to_str().unwrap());
    fs::write(home.join(".ssh/config"), config).unwrap();
    home
}

/// One file that goes in ranges, and at most one cut of one of its connections: no wrong bytes under the final name, success only
/// with all of them, and the next time all comes. What passed on each connection, and whether it was cut.
fn goes_in_ranges(
    (bench, sshd): (&Bench, &Sshd),
    push: bool,
    cut: Option<(u64, Fault)>,
) -> (BTreeMap<u64, [u64; 2]>, u64) {
    let work = bench.fresh("work");
    let work = work.path();
    prepare(work);
    let cutter = Cutter::faulty(sshd.port, move |number| cut.filter(|cut| cut.0 == number).map(|cut| cut.1));
    let home = home_behind(work, sshd, cutter.port);
    let far = format!("storage:{}", work.display());
    let operands = match push {
        true => ["src/large".to_owned(), format!("{far}/dst/")],
        false => [format!("{far}/src/large"), "dst/".to_owned()],
    };
    let run = || {
        let mut command = limited(&[OURS, "rsync", "-a", "--parallel=4"]);
        ended(command.args(&operands).current_dir(work).env("HOME", &home).env_remove("SSH_AUTH_SOCK"))
    };
    let copy = work.join("dst/large");
    let is_whole = || fs::read(&copy).is_ok_and(|bytes| bytes == tree::noise(LEN, 5));
    let first = run();
    assert_eq!((copy.exists(), first.code == 0), (is_whole(), is_whole()), "push {push}, {cut:?}: {first:?}");
    let came = (cutter.each(), cutter.cuts());
    let last = if first.code == 0 { first } else { run() };
    assert!(last.code == 0 && is_whole(), "push {push}, {cut:?}: {last:?}");
    assert_eq!(left(work), ["large"], "push {push}, {cut:?}");
    came
}

/// Where a connection of this number is cut, that carries so many bytes one way.
fn places(number: u64, len: u64) -> BTreeSet<u64> {
    match (std::env::var_os("ARCHIVER_FAULTS").is_some(), number) {
        (true, _) => {
            let all = (0..len).step_by((len / 10).max(1) as usize).chain((0..len.min(6000)).step_by(499));
            all.chain([len.saturating_sub(1)]).collect()
        }
        // Of the session, and of one of those who help.
        (false, 0) => [len / 2].into(),
        (false, 1) => [len / 2, len.saturating_sub(1)].into(),
        (false, _) => BTreeSet::new(),
    }
}

fn ranges_are_cut(push: bool) {
    let Some(bench) = Bench::with(&["rsync"]) else { return };
    let Some(sshd) = Sshd::start(BY_SFTP) else { return };
    let between = (&bench, &sshd);
    let whole = goes_in_ranges(between, push, None).0;
    assert!(whole.len() > 2, "push {push}: {whole:?}");
    let mut cuts = Vec::new();
    for (number, ways) in whole {
        for (up, len) in [true, false].into_iter().zip(ways) {
            cuts.extend(places(number, len).into_iter().map(|at| (number, Fault { action: Action::Cut, up, at })));
        }
    }
    let befallen: u64 = cuts.chunks(3).map(|some| all_go(between, push, some)).sum();
    println!("push {push}: {} cases, {befallen} cut", cuts.len());
}

#[test]
fn a_push_in_ranges_cut_at_bytes() {
    ranges_are_cut(true);
}

#[test]
fn a_pull_in_ranges_cut_at_bytes() {
    ranges_are_cut(false);
}

/// These cuts at once; how many befell.
fn all_go(between: (&Bench, &Sshd), push: bool, cuts: &[(u64, Fault)]) -> u64 {
    std::thread::scope(|scope| {
        let case = |&cut| scope.spawn(move || goes_in_ranges(between, push, Some(cut)).1);
        let cases: Vec<_> = cuts.iter().map(case).collect();
        cases.into_iter().map(|case| case.join().unwrap()).sum()
    })
}
