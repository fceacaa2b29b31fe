//! From a message in the spool to its row.

use super::columns::{ColumnError, MonitorAddress, columns};
use super::frame::SpooledMessage;
use super::message::{MessageTopic, PublisherMessage};
use super::notice::{ArchiveName, FileNotice};
use crate::catalog::announced::{AnnouncedFile, PysmurfColumns, SpoolNumber, WatchedMark, watched_key};
use crate::clock::unix_now;
use crate::disk::summed::SummedFile;
use std::time::Duration;

/// How messages are registered.
pub(crate) struct RegistrarRules {
    /// A file that is not there is waited for so long.
    pub(crate) patience: Duration,
    /// Whose rows they are in the pysmurf tables.
    pub(crate) address: Option<MonitorAddress>,
    /// What to do of ids and actions that lead elsewhere.
    pub(crate) names: NameRule,
}

/// Whether parts of a message that name folders may hold slashes and `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// As the Python monitor: who copies them refuses them.
    Any,
    Plain,
}

impl RegistrarRules {
    /// Why a message can have no row in this table, whose paths have so many letters at most.
    pub(super) fn check(&self, notice: &FileNotice, path_limit: usize) -> Result<(), String> {
        if self.names == NameRule::Plain && !notice.is_plain() {
            let remote = &notice.remote;
            return Err(format!("Its id, action or path leads elsewhere: {remote}; --plain-names refuses that"));
        }
        self.columns(notice, path_limit).map(drop).map_err(|error| error.to_string())
    }

    /// The row of a message whose file was read.
    pub(super) fn row(
        &self,
        message: &SpooledMessage,
        summed: &SummedFile,
        path_limit: usize,
    ) -> Result<AnnouncedFile, String> {
        let notice = read_notice(message)?;
        let columns = self.columns(&notice, path_limit).map_err(|error| error.to_string())?;
        let watched = (notice.archive == ArchiveName::Watched)
            .then(|| WatchedMark { key: self.watched_key(&notice.path), stamp: summed.stamp.to_string() });
        Ok(AnnouncedFile {
            watched,
            md5: summed.md5,
            archive: notice.named,
            remote: notice.remote,
            registered: unix_now(),
            deletable: notice.deletable,
            path: notice.path,
            columns,
        })
    }

    /// Whose the files are: the same path of another is another file.
    pub(crate) fn owner(&self) -> String {
        self.address.as_ref().map(|address| format!("{}.{}", address.site, address.instance)).unwrap_or_default()
    }

    /// By what the table knows a watched file.
    pub(super) fn watched_key(&self, path: &str) -> String {
        watched_key(&self.owner(), path.as_bytes())
    }

    fn columns(&self, notice: &FileNotice, path_limit: usize) -> Result<PysmurfColumns, ColumnError> {
        match &self.address {
            None => Ok(PysmurfColumns::default()),
            Some(_) if notice.topic == MessageTopic::G3File => Err(ColumnError::OfStreamer),
            Some(address) => columns(&notice.words, (&notice.path, path_limit), address),
        }
    }
}

/// What a message comes to, or why it can have no row anywhere.
pub(super) fn read_notice(message: &SpooledMessage) -> Result<FileNotice, String> {
    let read = PublisherMessage::read(&message.bytes).map_err(|error| error.to_string())?;
    FileNotice::of(&read, message.received).map_err(|error| error.to_string())
}

/// Under which number the refusal of a watched file is set aside: such a file is found anew at each look, and has one.
pub(super) fn refusal_key(watched_key: String) -> SpoolNumber {
    SpoolNumber { spool: watched_key, number: 0 }
}

/// What a message is about, for people: its file, or its beginning.
pub(super) fn told(message: &SpooledMessage) -> String {
    let read = PublisherMessage::read(&message.bytes).ok();
    let path = read.as_ref().and_then(|read| read.payload("path")?.as_text().map(|path| path.shown()));
    match path {
        Some(path) => path,
        None => {
            let begin: String = String::from_utf8_lossy(&message.bytes).chars().take(100).collect();
            let sender = message.sender.map(|sender| format!(" from {sender}")).unwrap_or_default();
            format!("a datagram{sender} that begins {begin:?}")
        }
    }
}
