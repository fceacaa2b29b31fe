//! What befalls a running sshd.

use super::processes::{descendants, signal};
use super::sshd::{Sshd, launch};
use std::fs;

impl Sshd {
    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts the server again on the same port.
    pub fn restart(&self) {
        self.kill();
        *self.running.lock().unwrap() = Some(launch(self.dir.path(), self.port).expect("sshd starts again"));
    }

    /// Sends a signal to all connections: of `KILL` they die, new ones are accepted; with `STOP` their sockets stay open
    /// and nobody answers, until `CONT`.
    pub fn signal(&self, name: &str) {
        signal(name, &self.sessions());
    }

    /// The processes of the connections and what runs in them.
    pub fn sessions(&self) -> Vec<u32> {
        self.running.lock().unwrap().as_ref().map(|(_, pid)| descendants(*pid)).unwrap_or_default()
    }
}
