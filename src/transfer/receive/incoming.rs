//! One file on its way in: written, verified, and given its name.

use crate::disk::{reason, shown};
use crate::transfer::Sent;
use crate::transfer::TransferError;
use crate::transfer::basis::{Basis, Proposal};
use crate::transfer::dest::{
    Attrs, Dest, DestError, Found, Fsync, Further, OutputFile, Preserve, Stamp, Values, in_place,
};
use crate::transfer::receive::group::Unsynced;
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
/// A basis that is worth the question whether the file system can share its bytes.
const SHARED_LEAST: u64 = 128 * 1024;

pub(super) struct Incoming<'a> {
    agreed: &'a Negotiated,
    options: &'a Options,
    name: Vec<u8>,
    asked: Proposal,
    head: SumHead,
    basis: Option<File>,
    /// `None` where it could not be opened: what comes is heard and thrown away. Also while the file may stay.
    output: Option<OutputFile>,
    /// Nothing has come but the basis from its beginning, and nothing is written.
    stays: Option<Staying>,
    /// Bytes of the basis that come next, neither hashed nor written yet.
    run: MatchedRun,
    /// What stood at the name when the file began to be written there.
    existing: Option<Found>,
    /// The basis is the very file that is written.
    same_file: bool,
    hasher: FileHasher,
    pub(super) sent: Sent,
}

/// A file of which nothing new has come so far.
#[derive(Clone, Copy)]
struct Staying {
    stamp: Stamp,
    /// Bytes from the beginning that are hashed.
    hashed: u64,
}

/// Bytes of the basis, one block behind the other.
#[derive(Clone, Copy, Default)]
struct MatchedRun {
    offset: u64,
    len: u64,
}

/// Why a file cannot be written.
pub(super) enum WriteFailure {
    /// For a reason of its own.
    File(String),
    /// What takes the bytes takes no more of them, and would take none of the next file either.
    Disk(TransferError),
}

/// What became of a file that has come to its end.
pub(super) enum FileEnding {
    /// It is under its name.
    Done,
    /// It is whole and waits for its name.
    Delayed,
    /// It is whole, and is to be on the disk before it gets its name.
    Unsynced(Unsynced),
    /// It is not what it should be, and this was done with it.
    Wrong(&'static str),
    /// It could not be written, which has been said unless it is told here.
    Failed(Option<String>),
    /// Nothing more can be written.
    Full(TransferError),
}

impl<'a> Incoming<'a> {
    /// A file that is built as the sender's head says, which answers what was asked; neither is open yet.
    pub(super) fn new(
        agreed: &'a Negotiated,
        options: &'a Options,
        name: &[u8],
        asked: Proposal,
        head: SumHead,
    ) -> Self {
        Self {
            agreed,
            options,
            name: name.to_vec(),
            head,
            basis: None,
            output: None,
            stays: None,
            run: MatchedRun::default(),
            existing: None,
            same_file: false,
            hasher: FileHasher::new(agreed.checksum),
            sent: Sent::default(),
            asked,
        }
    }
}

impl Incoming<'_> {
    /// Opens what is to be written and what it is built upon; where that fails, what comes is heard and thrown away.
    pub(super) fn open(&mut self, dest: &Dest, entry: &FileEntry) -> Result<(), String> {
        let opened = self.open_both(dest, entry);
        if opened.is_err() {
            self.output = None;
        }
        opened
    }

    fn open_both(&mut self, dest: &Dest, entry: &FileEntry) -> Result<(), String> {
        let Self { agreed, options, .. } = *self;
        let said = |error: DestError| error.to_string();
        let name = self.name.clone();
        if (self.head.count > 0 || self.asked.basis != Basis::Destination) && !self.asked.append {
            self.basis = self.asked.basis.open(dest, &name).unwrap_or_default();
        }
        let resumes = self.asked.basis == Basis::Partial && agreed.compat.has(Compat::INPLACE_PARTIAL_DIR);
        let replaces = self.asked.basis == Basis::Destination && !in_place(options) && !self.asked.append;
        if let (true, Some(basis)) = (replaces && !self.asked.partial, &self.basis) {
            let stamp = dest.may_stay(basis, entry, options, &Preserve::of(options));
            self.stays = stamp.map(|stamp| Staying { stamp, hashed: 0 });
            if self.stays.is_some() {
                return Ok(());
            }
        }
        let staged = if let Basis::Staged(staged) = &self.asked.basis { staged.take() } else { None };
        let output = if let Some(output) = staged {
            self.same_file = true;
            Ok(output)
        } else if in_place(options) {
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
            if agreed.append_covers_all(options.append) {
                hash_beginning(output.file(), there, &mut self.hasher).map_err(wrote)?;
            }
            output.pass(there).map_err(wrote)?;
        }
        self.output = Some(output);
        Ok(())
    }

    /// Bytes that came over the wire.
    pub(super) fn literal(
        &mut self,
        dest: Option<&Dest>,
        bytes: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), WriteFailure> {
        self.differs(dest)?;
        self.catch_up(buffer)?;
        self.put(bytes, false)?;
        self.sent.literal_bytes += bytes.len() as u64;
        Ok(())
    }

    /// A block of the basis; returns its length. It is read and written together with those that follow it.
    pub(super) fn copy(
        &mut self,
        dest: Option<&Dest>,
        block: BlockIndex,
        buffer: &mut Vec<u8>,
    ) -> Result<u64, WriteFailure> {
        let len = u64::from(self.head.block_len(block));
        let offset = self.head.offset(block);
        match self.asked.basis {
            // All of it was brought for this.
            Basis::Staged(_) => self.sent.literal_bytes += len,
            _ => self.sent.matched_bytes += len,
        }
        if self.run.offset + self.run.len == offset && self.run.len > 0 {
            self.run.len += len;
        } else {
            if self.stays.as_ref().is_some_and(|stays| stays.hashed + self.run.len != offset) {
                self.differs(dest)?;
            }
            self.catch_up(buffer)?;
            self.run = MatchedRun { offset, len };
        }
        // What the generator has summed already may not have to be read at all.
        let waits = self.stays.is_some() && self.asked.whole.is_some();
        if self.run.len >= READ_SIZE as u64 && !waits {
            self.catch_up(buffer)?;
        }
        Ok(len)
    }

    /// The bytes of a block, zeros where there are none.
    pub(super) fn block(&self, block: BlockIndex, buffer: &mut Vec<u8>) {
        buffer.resize(self.head.block_len(block) as usize, 0);
        self.read(self.head.offset(block), buffer);
    }

    /// A basis that shrank or went away gives wrong bytes, and so a wrong sum and a second try.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let read = self.basis.as_ref().is_some_and(|basis| basis.read_exact_at(buffer, offset).is_ok());
        if !read {
            buffer.fill(0);
        }
        read
    }

    /// The file does not stay what it was: it is written anew from here on.
    fn differs(&mut self, dest: Option<&Dest>) -> Result<(), WriteFailure> {
        let (Some(staying), Some(dest)) = (self.stays.take(), dest) else { return Ok(()) };
        let mut output = dest.create_temp(&self.name).map_err(|error| WriteFailure::File(error.to_string()))?;
        let Some(basis) = &self.basis else { return Ok(()) };
        self.same_file = staying.stamp.bytes() >= SHARED_LEAST && output.share(basis, staying.stamp.bytes());
        let done = match self.same_file {
            true => output.pass(staying.hashed),
            false => output.copy_beginning(basis, staying.hashed),
        };
        done.map_err(|error| self.write_failed(&error))?;
        self.output = Some(output);
        Ok(())
    }

    /// Hashes and writes what is due of the basis.
    fn catch_up(&mut self, buffer: &mut Vec<u8>) -> Result<(), WriteFailure> {
        let MatchedRun { mut offset, mut len } = std::mem::take(&mut self.run);
        while len > 0 && (self.output.is_some() || self.stays.is_some()) {
            let now = len.min(READ_SIZE as u64);
            buffer.resize(now as usize, 0);
            let read = self.read(offset, buffer);
            match &mut self.stays {
                Some(stays) => {
                    self.hasher.update(buffer);
                    stays.hashed += now;
                }
                None => {
                    let at = self.output.as_ref().map(OutputFile::position);
                    self.put(buffer, read && self.same_file && at == Some(offset))?;
                }
            }
            (offset, len) = (offset + now, len - now);
        }
        Ok(())
    }

    /// Writes bytes, or passes over them where they stand already.
    fn put(&mut self, bytes: &[u8], stays: bool) -> Result<(), WriteFailure> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let done = if stays { output.pass_over(bytes) } else { output.write_all(bytes) };
        done.map_err(|error| self.write_failed(&error))?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn write_failed(&self, error: &io::Error) -> WriteFailure {
        let what = format!("write failed on \"{}\"", shown(&self.name));
        WriteFailure::Disk(TransferError::Local { what, source: io::Error::new(error.kind(), reason(error)) })
    }

    fn attrs(&self, dest: &Dest, entry: &FileEntry) -> Result<Attrs, DestError> {
        let options = self.options;
        // What stands there decides only where permissions are not carried over.
        let existing = match (in_place(options), options.perms) {
            (true, _) => self.existing,
            (false, true) => None,
            (false, false) => dest.stat(&self.name)?,
        };
        // Without -p a new file has the permissions of the one it is built upon.
        let built = self.basis.as_ref().filter(|_| !matches!(self.asked.basis, Basis::Staged(_)));
        let basis = || built.and_then(|file| Some(Found::from(rustix::fs::fstat(file).ok()?)));
        let existing = existing.filter(|found| found.kind() == entry.kind()).or_else(basis);
        Ok(dest.wanted(entry, &Preserve::of(options), existing.as_ref()))
    }

    /// Verifies the file and gives it its name and attributes.
    pub(super) fn end(
        mut self,
        dest: &Dest,
        entry: &FileEntry,
        values: &Values,
        sum: &Sum,
        buffer: &mut Vec<u8>,
    ) -> FileEnding {
        let options = self.options;
        if self.output.is_none() && self.stays.is_none() {
            return FileEnding::Failed(None);
        }
        let attrs = match self.attrs(dest, entry) {
            Ok(attrs) => attrs,
            Err(error) => return FileEnding::Failed(Some(error.to_string())),
        };
        let further = Further::of(entry, options);
        let further = further.as_ref().map(|further| (further, values));
        match self.stay(dest, &attrs, further, sum, buffer) {
            Ok(true) => return FileEnding::Done,
            Ok(false) => {}
            Err(error) => return FileEnding::Failed(Some(error.to_string())),
        }
        match self.differs(Some(dest)).and_then(|()| self.catch_up(buffer)) {
            Ok(()) => {}
            Err(WriteFailure::File(trouble)) => return FileEnding::Failed(Some(trouble)),
            Err(WriteFailure::Disk(error)) => {
                // As after a lost link: what there is of it is kept if the options ask for it.
                let _ = self.output.take().map(|output| output.keep(dest, &attrs));
                return FileEnding::Full(error);
            }
        }
        let Some(mut output) = self.output.take() else { return FileEnding::Failed(None) };
        let hasher = std::mem::replace(&mut self.hasher, FileHasher::new(self.agreed.checksum));
        if hasher.finish() != *sum {
            // What is written in place has all but its time, which would have it taken for whole.
            if in_place(options)
                && let Err(error) = output.settle(dest, &Attrs { mtime: None, ..attrs }, further, Fsync::No)
            {
                return FileEnding::Failed(Some(error.to_string()));
            }
            let aside = options.partial_dir.is_some() || options.delay_updates;
            return match output.keep(dest, &attrs) {
                Ok(true) if in_place(options) || !aside => FileEnding::Wrong("retained"),
                Ok(true) => FileEnding::Wrong("put into partial-dir"),
                Ok(false) => FileEnding::Wrong("discarded"),
                Err(error) => FileEnding::Failed(Some(error.to_string())),
            };
        }
        // Other names of the file are made as soon as it is whole.
        if options.delay_updates && !in_place(options) && entry.extra.link.is_none() {
            return match output.delay(dest, &attrs, further, Fsync::asked(options)) {
                Ok(()) => FileEnding::Delayed,
                Err(error) => FileEnding::Failed(Some(error.to_string())),
            };
        }
        if options.fsync {
            return match output.settle(dest, &attrs, further, Fsync::No) {
                Ok(dressed) => FileEnding::Unsynced(Unsynced { output, attrs, dressed, partial: self.asked.partial }),
                Err(error) => FileEnding::Failed(Some(error.to_string())),
            };
        }
        match output.commit(dest, &attrs, further, Fsync::No) {
            Ok(()) => {
                if self.asked.partial {
                    dest.drop_partial(&self.name);
                }
                FileEnding::Done
            }
            Err(error) => FileEnding::Failed(Some(error.to_string())),
        }
    }

    /// Leaves the file that is there where it is, if its content is what it should be; false when it is to be written.
    fn stay(
        &mut self,
        dest: &Dest,
        attrs: &Attrs,
        further: Option<(&Further<'_>, &Values)>,
        sum: &Sum,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, DestError> {
        let Some(Staying { stamp, hashed }) = self.stays else { return Ok(false) };
        if hashed + self.run.len != stamp.bytes() {
            return Ok(false);
        }
        let known = self.asked.whole.as_ref().and_then(|whole| whole.get()).filter(|whole| whole.stamp == stamp);
        let verified = match known {
            Some(whole) if hashed == 0 => whole.sum == *sum,
            _ => {
                // Only what is written can fail.
                let _ = self.catch_up(buffer);
                std::mem::replace(&mut self.hasher, FileHasher::new(self.agreed.checksum)).finish() == *sum
            }
        };
        if let (true, Some(basis)) = (verified, &self.basis)
            && dest.leave(&self.name, (basis, &stamp), attrs, further, Fsync::asked(self.options))?
        {
            return Ok(true);
        }
        // It goes the usual way, from the beginning.
        self.hasher = FileHasher::new(self.agreed.checksum);
        (self.run, self.stays) = (MatchedRun { offset: 0, len: stamp.bytes() }, Some(Staying { stamp, hashed: 0 }));
        Ok(false)
    }

    /// The session ended before the file did: what there is of it is kept, if the options ask for it.
    pub(super) fn break_off(mut self, dest: &Dest, entry: &FileEntry) -> Result<(), DestError> {
        if self.sent.literal_bytes == 0 {
            return Ok(());
        }
        // Of what broke off the last blocks may be missing.
        let _ = self.catch_up(&mut Vec::new());
        let Some(output) = self.output.take() else { return Ok(()) };
        let attrs = self.attrs(dest, entry)?;
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
