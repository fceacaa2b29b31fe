//! A daemon, ours or stock's, on a port of its own.

use super::stock::{OURS, Run, rsync};
use pysmurf_archiver::rsync::daemon::Site;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to listen, or to say what is expected.
pub const START: Duration = Duration::from_secs(60);

/// A daemon on a port of its own; gone when dropped.
pub struct Daemon {
    pub child: Child,
    pub port: u16,
    log: PathBuf,
}

impl Daemon {
    /// Starts ours or stock's with the text behind some global settings.
    pub fn start(program: &str, work: &Path, text: &str) -> Self {
        let text = text.replace("WORK", work.to_str().unwrap());
        let mut said = String::new();
        for _ in 0..10 {
            // Free a moment ago; should somebody take it meanwhile, the next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            match Self::start_at(port, program, work, &text) {
                Ok(daemon) => return daemon,
                Err(why) => said = why,
            }
        }
        panic!("the daemon ends: {said}, with {text}");
    }

    /// What it said when it ended instead.
    fn start_at(port: u16, program: &str, work: &Path, text: &str) -> Result<Self, String> {
        let (config, log) = (work.join(format!("conf-{port}")), work.join(format!("log-{port}")));
        fs::write(&config, format!("log file = {}\n{text}", log.display())).unwrap();
        let mut command = Command::new(program);
        if program == OURS {
            command.arg("rsync");
        }
        command.args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}")]);
        let child = command.arg(format!("--config={}", config.display())).stdin(Stdio::null()).spawn().unwrap();
        let mut daemon = Self { child, port, log };
        let deadline = Instant::now() + START;
        loop {
            let answers = TcpStream::connect(("127.0.0.1", port)).is_ok();
            // One that answers may be another's.
            if daemon.child.try_wait().unwrap().is_some() {
                return Err(daemon.said());
            }
            if answers {
                return Ok(daemon);
            }
            assert!(Instant::now() < deadline, "the daemon does not listen: {}", daemon.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn ours(work: &Path, text: &str) -> Self {
        Self::start(OURS, work, text)
    }

    pub fn url(&self, path: &str) -> String {
        format!("rsync://127.0.0.1:{}/{path}", self.port)
    }

    pub fn site(&self) -> Site {
        Site { host: "127.0.0.1".into(), port: Some(self.port), user: None }
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log is such; a client may be gone before the daemon's last word.
    pub fn has_said(&self, enough: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + START;
        while !enough(&self.said()) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// A stock client with this command; `URL` stands for ours.
    pub fn client(&self, work: &Path, command: &str) -> Run {
        let words: Vec<_> = command.split(' ').map(|word| word.replace("URL/", &self.url(""))).collect();
        rsync(work, &words)
    }

    pub fn raw(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(START)).unwrap();
        stream
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
