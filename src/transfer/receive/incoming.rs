//! One file on its way in: written, verified, and given its name.

use crate::transfer::basis::{Asked, Basis};
use crate::transfer::beneath::{reason, shown};
use crate::transfer::dest::{Attrs, Dest, DestError, Found, Further, Output, Values, in_place};
use crate::transfer::send::Sent;
use protocol::args::Options;
use protocol::checksum::{FileHasher, Sum};
use protocol::flist::FileEntry;
use protocol::handshake::{Compat, Negotiated};
use protocol::sums::{BlockIndex, SumHead};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Bytes read at once of what is there already.
const READ_SIZE: usize = 256 * 1024;

/// The file that is coming in.
pub(super) struct Incoming {
    name: Vec<u8>,
    asked: Asked,
    head: SumHead,
    basis: Option<File>,
    /// `None` once writing has failed: the rest is heard and thrown away.
    output: Option<Output>,
    trouble: Option<String>,
    /// What stood at the name when the file began to be written there.
    existing: Option<Found>,
    /// The basis is the very file that is written.
    same_file: bool,
    hasher: FileHasher,
    pub(super) sent: Sent,
}

/// What became of a file that has come to its end.
pub(super) enum Ending {
    /// It is under its name.
    Done,
    /// It is whole and waits for its name.
    Delayed,
    /// It is not what it should be, and this was done with it.
    Wrong(&'static str),
    /// It could not be written, which has been said unless it is told here.
    Failed(Option<String>),
}

impl Incoming {
    /// Opens what is to be written and what it is built upon.
    pub(super) fn begin(
        n: &Negotiated,
        options: &Options,
        dest: Option<&Dest>,
        name: &[u8],
        entry: &FileEntry,
        asked: Asked,
        head: SumHead,
    ) -> Self {
        let mut incoming = Self {
            name: name.to_vec(),
            head,
            basis: None,
            output: None,
            trouble: None,
            existing: None,
            same_file: false,
            hasher: FileHasher::new(n.checksum),
            sent: Sent::default(),
            asked,
        };
        if let Some(dest) = dest
            && let Err(trouble) = incoming.open(n, options, dest, entry)
        {
            incoming.trouble = Some(trouble);
            incoming.output = None;
        }
        incoming
    }

    fn open(&mut self, n: &Negotiated, options: &Options, dest: &Dest, entry: &FileEntry) -> Result<(), String> {
        let said = |error: DestError| error.to_string();
        let name = self.name.clone();
        if (self.head.count > 0 || self.asked.basis != Basis::Destination) && !self.asked.append {
            self.basis = self.asked.basis.open(dest, &name).unwrap_or_default();
        }
        let resumes = self.asked.basis == Basis::Partial && n.compat.has(Compat::INPLACE_PARTIAL_DIR);
        let output = if in_place(options) {
            self.existing = dest.stat(&name).map_err(said)?;
            self.same_file = self.asked.basis == Basis::Destination;
            dest.open_in_place(&name)
        } else if resumes && let Some(output) = dest.resume_partial(&name).map_err(said)? {
            self.same_file = true;
            Ok(output)
        } else {
            dest.create_temp(&name)
        };
        let mut output = output.map_err(said)?;
        let wrote = |error: io::Error| format!("write failed on \"{}\": {}", shown(&name), reason(&error));
        if options.preallocate && !self.asked.append {
            output.reserve(entry.len).map_err(|error| {
                format!("preallocation of {} bytes for \"{}\" failed: {}", entry.len, shown(&name), reason(&error))
            })?;
        }
        if options.sparse {
            output.make_holes();
        }
        if self.asked.append {
            // Only what was announced: the file may have grown since.
            let there = self.asked.head.basis_len();
            if options.append > 1 {
                hash_beginning(output.file(), there, &mut self.hasher).map_err(wrote)?;
            }
            output.pass(there).map_err(wrote)?;
        }
        self.output = Some(output);
        Ok(())
    }

    /// Why the file cannot be written at all.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// Bytes that came over the wire.
    pub(super) fn literal(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.put(bytes, false)?;
        self.sent.literal_bytes += bytes.len() as u64;
        Ok(())
    }

    /// A block of the basis.
    pub(super) fn copy(&mut self, block: BlockIndex, buffer: &mut Vec<u8>) -> Result<(), String> {
        let len = self.head.block_len(block) as usize;
        let offset = self.head.offset(block);
        buffer.resize(len, 0);
        // A basis that shrank or went away gives wrong bytes, and so a wrong sum and a second try.
        let read = self.basis.as_ref().is_some_and(|basis| basis.read_exact_at(buffer, offset).is_ok());
        if !read {
            buffer.fill(0);
        }
        let stays = read && self.same_file && self.output.as_ref().is_some_and(|output| output.position() == offset);
        self.put(&buffer[..len], stays)?;
        self.sent.matched_bytes += len as u64;
        Ok(())
    }

    /// Writes bytes, or passes over them where they stand already.
    fn put(&mut self, bytes: &[u8], stays: bool) -> Result<(), String> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let done = if stays { output.pass(bytes.len() as u64) } else { output.write_all(bytes) };
        if let Err(error) = done {
            let trouble = format!("write failed on \"{}\": {}", shown(&self.name), reason(&error));
            self.output = None;
            return Err(trouble);
        }
        self.hasher.update(bytes);
        Ok(())
    }

    fn attrs(&self, dest: &Dest, options: &Options, entry: &FileEntry) -> Result<Attrs, DestError> {
        let existing = if in_place(options) { self.existing } else { dest.stat(&self.name)? };
        // Without -p a new file has the permissions of the one it is built upon.
        let basis = || self.basis.as_ref().and_then(|file| Some(Found::from(rustix::fs::fstat(file).ok()?)));
        let existing = existing.filter(|found| found.kind() == entry.kind()).or_else(basis);
        Ok(dest.wanted(entry, &super::preserve(options), existing.as_ref()))
    }

    /// Verifies the file and gives it its name and attributes.
    pub(super) fn end(
        mut self,
        dest: &Dest,
        options: &Options,
        entry: &FileEntry,
        values: &Values,
        sum: &Sum,
    ) -> Ending {
        let Some(output) = self.output.take() else { return Ending::Failed(None) };
        let hasher = std::mem::replace(&mut self.hasher, FileHasher::new(protocol::checksum::Checksum::None));
        let attrs = match self.attrs(dest, options, entry) {
            Ok(attrs) => attrs,
            Err(error) => return Ending::Failed(Some(error.to_string())),
        };
        if hasher.finish() != *sum {
            let aside = options.partial_dir.is_some() || options.delay_updates;
            return match output.keep(dest, &attrs) {
                Ok(true) if in_place(options) || !aside => Ending::Wrong("retained"),
                Ok(true) => Ending::Wrong("put into partial-dir"),
                Ok(false) => Ending::Wrong("discarded"),
                Err(error) => Ending::Failed(Some(error.to_string())),
            };
        }
        let further = Further::of(entry, options);
        let further = further.as_ref().map(|further| (further, values));
        // Other names of the file are made as soon as it is whole.
        if options.delay_updates && !in_place(options) && entry.link.is_none() {
            return match output.delay(dest, &attrs, further, options.fsync) {
                Ok(()) => Ending::Delayed,
                Err(error) => Ending::Failed(Some(error.to_string())),
            };
        }
        match output.commit(dest, &attrs, further, options.fsync) {
            Ok(()) => {
                dest.forget_partial(&self.name, self.asked.partial);
                Ending::Done
            }
            Err(error) => Ending::Failed(Some(error.to_string())),
        }
    }

    /// The session ended before the file did: what there is of it is kept, if the options ask for it.
    pub(super) fn break_off(mut self, dest: &Dest, options: &Options, entry: &FileEntry) -> Result<(), DestError> {
        let Some(output) = self.output.take().filter(|_| self.sent.literal_bytes > 0) else { return Ok(()) };
        let attrs = self.attrs(dest, options, entry)?;
        output.keep(dest, &attrs).map(drop)
    }
}

/// Hashes the first bytes of a file. One that has become shorter gives a wrong sum.
fn hash_beginning(file: &File, len: u64, hasher: &mut FileHasher) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    let mut at = 0;
    while at < len {
        let most = READ_SIZE.min(usize::try_from(len - at).unwrap_or(READ_SIZE));
        match file.read_at(&mut buffer[..most], at) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
