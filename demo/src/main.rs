//! The whole road on one machine, with nothing installed: files, catalog, storage node, archiver, judgement.
//!
//! A storage node is played by an SSH server inside this process, whose `rsync` is our own binary. The archiver is that
//! binary too, run as an operator runs it. Half-way the connection is cut once. Then every copy is read again.

mod check;
mod node;
mod sftp;
mod ssh_server;
mod tree;

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use check::Report;
use node::Node;

/// Enough for a slow laptop; a demo that takes longer is broken.
const LIMIT: Duration = Duration::from_secs(300);

/// How long after Ctrl-C the work may take to notice.
const PARTING: Duration = Duration::from_secs(5);

/// The exit code after Ctrl-C, as shells count it.
const INTERRUPTED: u8 = 130;

/// Shows the archiver at work on a machine without database, sshd or rsync.
#[derive(Parser)]
#[command(name = "demo")]
struct Options {
    /// Leave the files where they are at the end
    #[arg(long)]
    keep: bool,
    /// Size of all files together
    #[arg(long, value_name = "MB", default_value_t = 600, value_parser = clap::value_parser!(u64).range(20..=100_000))]
    size: u64,
    /// Let the storage node have no rsync: the archiver uploads itself, or writes by SFTP
    #[arg(long, value_enum, value_name = "ROAD")]
    no_rsync: Option<Road>,
    /// Where to make the temporary folder
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
}

/// The way to a storage node without rsync.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Road {
    Bootstrap,
    Sftp,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let temp = match make_folder(options.temp_dir.as_deref()) {
        Ok(temp) => temp,
        Err(error) => return complain(&error),
    };
    let folder = temp.path().to_owned();
    // The work is done on a thread of its own, so that Ctrl-C can clean up whatever the work is waiting for.
    let (send, receive) = mpsc::channel();
    let interrupted = send.clone();
    let (size, road) = (options.size, options.no_rsync);
    let running = Arc::new(Running::default());
    let started = Arc::clone(&running);
    std::thread::spawn(move || send.send(Some(demonstrate(&folder, size, road, &started))));
    std::thread::spawn(move || {
        if node::interrupted().is_ok() {
            let _ = interrupted.send(None);
        }
    });
    let verdict = receive.recv().ok().flatten();
    let code = match verdict {
        Some(Ok(true)) => ExitCode::SUCCESS,
        Some(Ok(false)) => ExitCode::FAILURE,
        Some(Err(error)) => complain(&error),
        None => {
            running.stop();
            // The work sees its archiver gone and ends; else the folder is taken away under its feet.
            let _ = receive.recv_timeout(PARTING);
            ExitCode::from(INTERRUPTED)
        }
    };
    if options.keep {
        println!("Kept: {}", temp.keep().display());
    } else if let Err(error) = fs::remove_dir_all(temp.path()).or_else(|_| temp.close()) {
        eprintln!("Cannot remove the temporary folder: {error}");
    }
    code
}

fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("demo: {error:#}");
    ExitCode::FAILURE
}

fn make_folder(parent: Option<&Path>) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("pysmurf-archiver-demo-");
    match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    }
    .context("Cannot make a temporary folder; name another place with --temp-dir")
}

/// The archiver's process while there is one, so that it can be ended from elsewhere.
#[derive(Default)]
struct Running(Mutex<Option<Pid>>);

impl Running {
    fn set(&self, child: Option<&Child>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = child.map(Pid::from_child);
    }

    fn stop(&self) {
        if let Some(process) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended by itself.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// Does it all; true when all is as it should be.
fn demonstrate(folder: &Path, megabytes: u64, road: Option<Road>, running: &Running) -> Result<bool> {
    let binary = binary()?;
    let bytes = room_for(folder, megabytes * 1_000_000)?;
    println!("pysmurf-archiver demo in {}", folder.display());

    let began = Instant::now();
    let files = tree::write(&folder.join("smurf-server/data"), bytes)?;
    let total: u64 = files.iter().map(|file| file.size).sum();
    println!("Written:   {} files, {:.0} MB ({:.1} s)", files.len(), mega(total), began.elapsed().as_secs_f64());

    let catalog = folder.join("smurf-server/suprsync.db");
    check::register(&catalog, &files)?;
    println!("Catalog:   {} rows in table supersync_v0 of {}", files.len(), catalog.display());

    let archive = folder.join("storage-node/data");
    fs::create_dir_all(&archive)?;
    let rsync = if road.is_some() { None } else { Some(binary.clone()) };
    let whose = rsync.as_ref().map_or("it has no rsync".into(), |rsync| format!("its rsync is {}", rsync.display()));
    // What is uploaded first is not to be what the cut interrupts.
    let uploaded = if road == Some(Road::Bootstrap) { binary.metadata()?.len() } else { 0 };
    let node = Node::start(&folder.join("keys"), rsync, folder.join("storage-node"), Some(uploaded + total / 2))?;
    println!(
        "Node:      SSH on 127.0.0.1:{}, {whose}; it will cut the connection after {:.0} MB",
        node.port(),
        mega(uploaded + total / 2)
    );

    let began = Instant::now();
    let report = archive_files(&binary, &catalog, &archive, &node, road, running)?;
    let seconds = began.elapsed().as_secs_f64();
    println!("Archiver:  ended after {seconds:.1} s; now every copy is read again");

    let judgement = check::judge(&catalog, &archive, &files, &report, &node.told())?;
    let answer = |yes| if yes { "yes" } else { "NO" };
    for (claim, holds) in &judgement.claims {
        println!("{:<10} {claim}", format!("{}:", answer(*holds)));
    }
    println!(
        "Result:    {} files, {total} bytes, {:.1} MB/s, {} reconnect(s), all MD5s equal: {}",
        files.len(),
        mega(total) / seconds,
        report.reconnects,
        answer(judgement.all_equal)
    );
    Ok(judgement.claims.iter().all(|(_, holds)| *holds))
}

/// The archiver, which cargo puts into the same folder.
fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe().context("Cannot tell where this program is")?;
    let binary = own.parent().map(|folder| folder.join("pysmurf-archiver"));
    match binary {
        Some(binary) if binary.is_file() => Ok(binary),
        _ => bail!("No pysmurf-archiver beside {}; start it by make demo", own.display()),
    }
}

/// How much of the wished size fits twice, with something left over.
fn room_for(folder: &Path, wished: u64) -> Result<u64> {
    let space = rustix::fs::statvfs(folder).context("Cannot ask for free space")?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let fits = (free / 5).saturating_mul(2);
    ensure!(fits >= 20_000_000, "Only {:.0} MB are free in {}; use --temp-dir", mega(free), folder.display());
    if fits < wished {
        println!("Only {:.0} MB are free: {:.0} MB of files instead of {:.0}", mega(free), mega(fits), mega(wished));
    }
    Ok(fits.min(wished))
}

/// Runs `pysmurf-archiver run --once` as an operator would.
fn archive_files(
    binary: &Path,
    catalog: &Path,
    archive: &Path,
    node: &Node,
    road: Option<Road>,
    running: &Running,
) -> Result<Report> {
    let mut address = std::ffi::OsString::from("sqlite:");
    address.push(catalog);
    let mut command = Command::new(binary);
    command
        .args(["run", "--once", "--json", "--archive-name", check::ARCHIVE, "--db"])
        .arg(address)
        .arg("--data-dir")
        .arg(archive)
        .args(["--storage-host", "ocs@127.0.0.1", "--ssh-port", &node.port().to_string()])
        .arg("--ssh-key")
        .arg(node.client_key())
        .arg("--known-hosts")
        .arg(node.known_hosts())
        .args(["--ssh-config", "/dev/null"]);
    if road == Some(Road::Bootstrap) {
        // The node is this machine: a program that needs its libraries will do.
        command.arg("--bootstrap").arg(binary);
    }
    // Nothing of the operator's own set-up may help or disturb.
    for name in ["SSH_AUTH_SOCK", "MYSQL_HOST", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_PASSWORD_FILE"] {
        command.env_remove(name);
    }
    command.env("RUST_LOG", "pysmurf_archiver=warn");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let child = child.with_context(|| format!("Cannot start {}", binary.display()))?;
    let (json, status) = output_of(child, running)?;
    println!("Archiver:  says {}", json.trim());
    Report::read(json.trim(), status)
}

/// What it printed, and its exit code; killed when it takes too long.
fn output_of(mut child: Child, running: &Running) -> Result<(String, Option<i32>)> {
    let stdout = child.stdout.take().context("No pipe from the archiver")?;
    running.set(Some(&child));
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(std::io::read_to_string(stdout)));
    let received = receive.recv_timeout(LIMIT);
    if received.is_err() {
        let _ = child.kill();
    }
    running.set(None);
    let status = child.wait().context("Cannot wait for the archiver")?;
    let Ok(text) = received else {
        bail!("The archiver did not end within {} s", LIMIT.as_secs());
    };
    Ok((text.context("Cannot read what the archiver prints")?, status.code()))
}

/// Bytes in megabytes, for people.
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
