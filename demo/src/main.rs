//! The whole road on one machine, with nothing installed: files, catalog, storage node, archiver, judgement.
//!
//! A storage node is played by an SSH server inside this process, whose `rsync` is our own binary. The archiver is that
//! binary too, run and asked as an operator does. Half-way the connection is cut once, and one file is not what was
//! registered. Then every copy is read again.

mod archiver;
mod check;
mod node;
mod sftp;
mod ssh_server;
mod story;
mod tree;
mod voice;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tempfile::TempDir;

use archiver::Running;
use story::Wish;

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
    #[arg(long, value_name = "MB", default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..=100_000))]
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
    let wish = Wish { bytes: options.size * 1_000_000, road: options.no_rsync };
    let running = Arc::new(Running::default());
    let started = Arc::clone(&running);
    std::thread::spawn(move || send.send(Some(story::tell(&folder, &wish, started))));
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

/// Bytes in megabytes, for people.
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
