//! The archiver's program, run and asked as an operator does: in the demo's folder, with one configuration file.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Enough for a slow laptop; a demo that takes longer is broken.
const LIMIT: Duration = Duration::from_secs(300);

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(10);

/// Its configuration, in the demo's folder.
const CONFIG: &str = "config.toml";

/// The archiver's process while there is one, so that it can be ended from elsewhere.
#[derive(Default)]
pub(crate) struct Running(Mutex<Option<Pid>>);

impl Running {
    fn set(&self, child: Option<&Child>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = child.map(Pid::from_child);
    }

    pub(crate) fn stop(&self) {
        if let Some(process) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended by itself.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// The program, and where it is run.
pub(crate) struct Archiver {
    binary: PathBuf,
    folder: PathBuf,
    running: Arc<Running>,
}

/// A run that came to its end.
pub(crate) struct Ended {
    /// What it printed: its own count.
    pub(crate) json: String,
    /// What it logged.
    pub(crate) log: String,
    pub(crate) status: Option<i32>,
    pub(crate) seconds: f64,
}

impl Archiver {
    /// The program that cargo puts into the folder of this one.
    pub(crate) fn beside(folder: &Path, running: Arc<Running>) -> Result<Self> {
        let own = std::env::current_exe().context("Cannot tell where this program is")?;
        let binary = own.parent().map(|folder| folder.join("pysmurf-archiver"));
        match binary {
            Some(binary) if binary.is_file() => Ok(Self { binary, folder: folder.to_owned(), running }),
            _ => bail!("No pysmurf-archiver beside {}; start it by make demo", own.display()),
        }
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Writes its configuration file; values are in TOML's words.
    pub(crate) fn configure(&self, settings: &[(&str, String)]) -> Result<()> {
        let text: String = settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        std::fs::write(self.folder.join(CONFIG), text).context("Cannot write the configuration file")
    }

    /// A command with the configuration, as it is typed and as it is started.
    pub(crate) fn typed(words: &str) -> String {
        format!("pysmurf-archiver {words} --config {CONFIG}")
    }

    /// Runs `run --once`; `meanwhile` is called again and again.
    pub(crate) fn run(&self, mut meanwhile: impl FnMut()) -> Result<Ended> {
        let began = Instant::now();
        let mut command = self.command("run --once");
        command.args(["--json", "--log-format", "text"]).env("RUST_LOG", "pysmurf_archiver=info");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("Cannot start {}", self.binary.display()))?;
        self.running.set(Some(&child));
        let log = read_aside(child.stderr.take());
        let json = read_aside(child.stdout.take());
        let received = loop {
            match json.recv_timeout(LOOK) {
                Err(mpsc::RecvTimeoutError::Timeout) if began.elapsed() < LIMIT => meanwhile(),
                received => break received,
            }
        };
        if received.is_err() {
            let _ = child.kill();
        }
        self.running.set(None);
        let status = child.wait().context("Cannot wait for the archiver")?;
        let seconds = began.elapsed().as_secs_f64();
        let Ok(json) = received else {
            bail!("The archiver did not end within {} s", LIMIT.as_secs());
        };
        Ok(Ended { json, log: log.recv().unwrap_or_default(), status: status.code(), seconds })
    }

    /// What the program prints when it is asked.
    pub(crate) fn ask(&self, words: &str) -> Result<String> {
        let output = self.command(words).output().with_context(|| format!("Cannot ask for {words}"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.binary);
        let words = shlex::split(words).unwrap_or_default();
        command.args(words).args(["--config", CONFIG]).current_dir(&self.folder).stdin(Stdio::null());
        // Nothing of the operator's own set-up may help or disturb.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["ARCHIVER_", "MYSQL_", "OCS_", "SSH_", "RSYNC_"].iter().any(|family| text.starts_with(family)) {
                command.env_remove(&name);
            }
        }
        command
    }
}

/// All that comes by a pipe, read by a thread of its own.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        send.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    receive
}
