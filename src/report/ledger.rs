//! What a server does, line by line, for its own log: `--log-file` of a server, `transfer logging` of a daemon.

use super::format::{self, Event, KeptAttributes};
use super::log_file::{self, LogFile};
use super::peer::LoggedPeer;
use crate::disk::names;
use crate::disk::reason;
use protocol::args::{Info, Options, ServerArgs};
use protocol::checksum::{Checksum, Sum};
use protocol::flist::{FileEntry, FileList, Kind};
use protocol::handshake::Negotiated;
use protocol::item::ItemHeader;
use protocol::mux::Message;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes a finished line.
type LineSink<'a> = Box<dyn Fn(&[u8]) + Sync + 'a>;

/// The log of one session that is served.
pub(crate) struct Ledger<'a> {
    /// For each entry; `None` when nothing is said of them.
    format: Option<Vec<u8>>,
    /// The format asks what changed, so every change is worth a line.
    itemizes: bool,
    /// Changes without data are told by their names alone.
    names: bool,
    /// New folders as well.
    new_folders: bool,
    sends: bool,
    kept: KeptAttributes,
    /// Paths as the client named them, for `%f`.
    paths: Vec<Vec<u8>>,
    site: Option<LoggedPeer>,
    sink: LineSink<'a>,
    total_size: AtomicU64,
    /// Those of the session, once it has begun.
    checksums: OnceLock<[Checksum; 2]>,
}

/// A file whose data went over.
pub(crate) struct Transferred<'a> {
    pub(crate) entry: &'a FileEntry,
    pub(crate) header: &'a ItemHeader,
    /// Bytes of its data on the wire.
    pub(crate) bytes: u64,
    /// Bytes of its block sums on the wire, where we send.
    pub(crate) sums: u64,
    pub(crate) sum: &'a Sum,
}

impl<'a> Ledger<'a> {
    /// Nothing written yet. Without a `format` single files are not mentioned.
    pub(crate) fn new(
        args: &ServerArgs,
        format: Option<Vec<u8>>,
        site: Option<LoggedPeer>,
        sink: LineSink<'a>,
    ) -> Self {
        let options = &args.options;
        let itemizes = format.as_ref().is_some_and(|format| format::holds(format, b'i'));
        // Nothing happens to any file in a dry run.
        let format = format.filter(|format| !format.is_empty() && !options.dry_run && !options.list_only);
        Self {
            itemizes: itemizes && format.is_some(),
            new_folders: format::logs_new_folders(options),
            names: !itemizes && !args.sender && options.level(Info::Name) > 0,
            format,
            sends: args.sender,
            kept: KeptAttributes::of(options),
            paths: args.paths.clone(),
            site,
            sink,
            total_size: AtomicU64::new(0),
            checksums: OnceLock::new(),
        }
    }

    /// The log that a server's own arguments ask for; `Err` says why it cannot be kept.
    pub(crate) fn of_server(args: &ServerArgs) -> Result<Option<Ledger<'static>>, String> {
        let Options { log_file: Some(path), log_file_format, .. } = &args.options else { return Ok(None) };
        let file = LogFile::open(Path::new(OsStr::from_bytes(path))).map_err(|error| {
            let path = crate::disk::shown(path);
            format!(
                "rsync: [server] failed to open log-file {path}: {}\nIgnoring \"log file\" setting.",
                reason(&error)
            )
        })?;
        let format = log_file_format.clone().unwrap_or_else(|| log_file::FORMAT.to_vec());
        Ok(Some(Ledger::new(args, Some(format), None, Box::new(move |line| file.line(line)))))
    }

    /// A line that is not about a file.
    pub(crate) fn line(&self, text: &str) {
        (self.sink)(text.as_bytes());
    }

    pub(crate) fn begins(&self, agreed: &Negotiated) {
        let _ = self.checksums.set([agreed.checksum, agreed.list_checksum]);
        self.line(if self.sends { "building file list" } else { "receiving file list" });
    }

    /// A list, or the next segment of it, is here.
    pub(crate) fn listed(&self, list: &FileList) {
        let sized = |entry: &FileEntry| matches!(entry.kind(), Some(Kind::File | Kind::Symlink));
        let bytes = list.entries().iter().filter(|entry| sized(entry)).map(|entry| entry.len).sum();
        self.total_size.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An entry was changed without data.
    pub(crate) fn changed(&self, entry: &FileEntry, header: &ItemHeader) {
        if self.itemizes && format::is_change(header) {
            self.write(Some(entry), &entry.name, header, (0, 0), None);
        } else if self.names && format::is_logged_by_name(entry, header, self.new_folders) {
            self.put(&format::named(&entry.name, entry, header));
        }
    }

    /// Data of a file went over.
    pub(crate) fn transferred(&self, done: &Transferred<'_>) {
        let bytes = (done.bytes, done.sums);
        self.write(Some(done.entry), &done.entry.name, done.header, bytes, Some(done.sum));
    }

    /// Words go to the client.
    pub(crate) fn told(&self, message: &Message) {
        match message {
            Message::Deleted(name) => {
                // A directory's name comes with a zero byte at its end.
                let name = match name.strip_suffix(b"\0") {
                    Some(name) => [name, b"/"].concat(),
                    None => name.clone(),
                };
                self.write(None, &name, &ItemHeader::default(), (0, 0), None);
            }
            Message::Text(_, text) => {
                let text = text.strip_suffix(b"\n").unwrap_or(text);
                text.split(|&byte| byte == b'\n').for_each(|line| self.put(line));
            }
            _ => {}
        }
    }

    /// The session is over, so many bytes later.
    pub(crate) fn ends(&self, sent: u64, received: u64) {
        let total = self.total_size.load(Ordering::Relaxed);
        self.line(&format!("sent {sent} bytes  received {received} bytes  total size {total}"));
    }

    fn write(
        &self,
        entry: Option<&FileEntry>,
        name: &[u8],
        header: &ItemHeader,
        (sent, sums): (u64, u64),
        sum: Option<&Sum>,
    ) {
        let Some(format) = &self.format else { return };
        let path = self.path(name);
        let event = Event {
            entry,
            name,
            header,
            sends: self.sends,
            local: false,
            sent,
            sums,
            sum: sum.copied(),
            checksums: self.checksums.get().copied().unwrap_or([Checksum::Md5; 2]),
            path: path.as_deref(),
            site: self.site.as_ref(),
            kept: self.kept,
            human: 0,
        };
        self.put(&if entry.is_some() { format::expand(format, &event) } else { format::deleted(format, &event) });
    }

    fn put(&self, text: &[u8]) {
        let mut line = Vec::with_capacity(text.len());
        // The lines of a daemon stand in the system's log, too.
        names::put(text, self.site.is_none(), &mut line);
        (self.sink)(&line);
    }

    /// The path of a name here, as far as the arguments tell it. A daemon's is that within the module.
    fn path(&self, name: &[u8]) -> Option<Vec<u8>> {
        if self.sends {
            return format::path_by_arguments(&self.paths, name);
        }
        let folder = self.paths.first().filter(|_| self.site.is_some())?;
        let folder = folder.strip_suffix(b"/").unwrap_or(folder);
        let name = name.strip_suffix(b"/").unwrap_or(name);
        Some(if matches!(folder, b"" | b".") { name.to_vec() } else { [folder, name].join(&b'/') })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::item::ItemFlags;
    use protocol::mux::TextKind;
    use std::sync::Mutex;

    fn lines(words: &str, format: &str, act: impl Fn(&Ledger<'_>)) -> Vec<String> {
        let said = Mutex::new(Vec::new());
        let args = ServerArgs::parse(&words.split(' ').collect::<Vec<_>>()).unwrap();
        let site = LoggedPeer { address: "::1".into(), module: "m".into(), path: "/p".into(), ..LoggedPeer::default() };
        let sink = |line: &[u8]| said.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
        act(&Ledger::new(&args, Some(format.into()), Some(site), Box::new(sink)));
        said.into_inner().unwrap()
    }

    #[test]
    fn only_what_is_asked_for_is_a_line() {
        let (mut file, dir) = (FileEntry::new("d/f", 0o100_644), FileEntry::new("d", 0o040_755));
        file.len = 9;
        let made = ItemHeader { flags: ItemFlags::LOCAL_CHANGE.and(ItemFlags::NEW), ..ItemHeader::default() };
        let sent = ItemHeader { flags: ItemFlags::TRANSFER.and(ItemFlags::NEW), ..ItemHeader::default() };
        let sum = Sum::zero(16);
        let act = |ledger: &Ledger<'_>| {
            ledger.changed(&dir, &made);
            ledger.changed(&dir, &ItemHeader::default());
            ledger.transferred(&Transferred { entry: &file, header: &sent, bytes: 9, sums: 16, sum: &sum });
            ledger.told(&Message::Deleted(b"old\0".to_vec()));
            ledger.told(&Message::Text(TextKind::Info, b"so\n".to_vec()));
            ledger.told(&Message::Text(TextKind::ErrorXfer, b"this\nand \x1bthat\n".to_vec()));
        };
        assert_eq!(
            lines("--server -te. . sub/", "%i|%n", act),
            ["cd+++++++++|d/", ">f+++++++++|d/f", "*deleting  |old/", "so", "this", r"and \#033that"]
        );
        assert_eq!(
            lines("--server -te. . sub/", "%o %n %m[%-4a]%u %P/%f %l %b %h", act),
            ["recv d/f m[::1 ] /p/sub/d/f 9 9 ", "del. old/ m[::1 ] /p/sub/old 0 0 ", "so", "this", r"and \#033that"]
        );
        assert_eq!(lines("--server --sender -te. . x/d", "%o %f %c", act)[0], "send x/d/f 16");
        assert_eq!(lines("--server -tne. . sub/", "%o", act).len(), 3);
        assert_eq!(
            lines("--server -vte. . sub/", "%l", act),
            ["d/", "9", "deleting old/", "so", "this", r"and \#033that"]
        );
    }
}
