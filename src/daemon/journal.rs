//! The daemon's log: a file, or the system's. Counterpart: rsync's `log.c`.

use crate::clock;
use crate::disk::{open_operator_lock, shown};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the system's log listens.
const SYSLOG: &str = "/dev/log";
/// Facilities and their numbers.
const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("security", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
];
const LOCAL7: (&str, u8) = ("local7", 23);

/// How bad a line is; what the system's log sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Warning = 4,
    Info = 6,
}

pub(super) fn facility(name: &str) -> Option<u8> {
    FACILITIES.into_iter().chain([LOCAL7]).find(|(known, _)| *known == name).map(|(_, number)| number)
}

/// Takes lines until it is dropped. What cannot be written is lost: a client is not to wait for a full disk.
#[derive(Debug)]
pub(super) struct Journal {
    sink: JournalSink,
    pid: u32,
}

#[derive(Debug)]
enum JournalSink {
    File(File),
    Syslog { socket: UnixDatagram, facility: u8, tag: String },
    Nowhere,
}

impl Journal {
    /// Appends to a file.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self { sink: JournalSink::File(open_operator_lock(path)?), pid: std::process::id() })
    }

    /// Speaks to the system's log; where there is none, to nobody.
    pub(super) fn syslog(facility: u8, tag: &str) -> Self {
        let connected = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(SYSLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let sink = match connected {
            Ok(socket) => JournalSink::Syslog { socket, facility, tag: shown(tag.as_bytes()) },
            Err(_) => JournalSink::Nowhere,
        };
        Self { sink, pid: std::process::id() }
    }

    /// Writes one line.
    pub(super) fn say(&self, text: &str) {
        self.write(Level::Info, text);
    }

    /// Writes one line about trouble.
    pub(super) fn warn(&self, text: &str) {
        self.write(Level::Warning, text);
    }

    fn write(&self, level: Level, text: &str) {
        // Names come from clients: no line of theirs may look like one of ours.
        let text = shown(text.trim_end_matches('\n').as_bytes());
        match &self.sink {
            JournalSink::File(file) => {
                let line = format!("{} [{}] {text}\n", clock::stamp("%Y/%m/%d %H:%M:%S"), self.pid);
                let mut file = file;
                let _ = file.write_all(line.as_bytes());
            }
            JournalSink::Syslog { socket, facility, tag } => {
                let priority = u16::from(*facility) * 8 + level as u16;
                let now = clock::stamp("%b %e %H:%M:%S");
                let _ = socket.send(format!("<{priority}>{now} {tag}[{}]: {text}", self.pid).as_bytes());
            }
            JournalSink::Nowhere => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let journal = Journal::file(&path).unwrap();
        journal.say("first\n");
        journal.warn("rsync on a\n2026/01/01 [1] forged\x1b[2J");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with(&format!(" [{}] first", std::process::id())), "{text}");
        assert!(lines[1].ends_with(r"rsync on a\#0122026/01/01 [1] forged\#033[2J"), "{text}");
        assert_eq!((facility("local7"), facility("daemon"), facility("x")), (Some(23), Some(3), None));
    }
}
