//! One file on its way: read once, summed, and taken apart into tokens.

use super::lists::SentLists;
use super::{FileContent, OUT_MOST, Source};
use crate::disk::digest::Digest;
use crate::transfer::TransferError;
use crate::transfer::conversation::{LinkReader, LinkWriter};
use crate::transfer::observer::SendObserver;
use crate::transfer::plan::SendPlan;
use crate::transfer::sent::Sent;
use protocol::PeerError;
use protocol::checksum::{Checksum, FileHasher, Sum};
use protocol::delta::{Lead, Search, Token};
use protocol::flist::FileEntry;
use protocol::handshake::{Compat, Negotiated};
use protocol::item::ItemHeader;
use protocol::mux::{IO_GENERAL, Message};
use protocol::sender::{FileReply, Request, Sender};
use protocol::sums::SumTable;
use std::fs::Metadata;
use std::io::{self, Read, SeekFrom, Take};
use std::ops::Range;

/// Bytes of a file whose tokens may wait in the outbox: of known blocks they are few, but the receiving side has work
/// with each.
const SPAN_MOST: u64 = 4 << 20;

/// What it takes to answer a request.
pub(super) struct Reply<'a, S> {
    pub(super) agreed: &'a Negotiated,
    pub(super) plan: &'a SendPlan,
    pub(super) lists: &'a SentLists,
    pub(super) source: &'a S,
    pub(super) reader: &'a mut LinkReader,
    pub(super) observer: &'a mut dyn SendObserver,
    pub(super) buffer: &'a mut [u8],
}

pub(super) struct Content<F> {
    pub(super) file: F,
    /// The sum that goes out whatever the bytes are.
    pub(super) promised: Option<Sum>,
    /// The bytes would not shrink.
    pub(super) store: bool,
}

impl<S: Source> Reply<'_, S> {
    /// Sends one file, or tells why it could not be read to its end, in which case the sum that goes out is wrong on
    /// purpose and the receiving side discards what it got.
    pub(super) fn send(
        &mut self,
        sender: &mut Sender,
        writer: &mut LinkWriter,
        request: &mut Request,
        entry: &FileEntry,
        content: Content<S::File>,
    ) -> Result<io::Result<Sent>, TransferError> {
        let promised = content.promised;
        let hasher = promised.is_none().then(|| FileHasher::new(self.agreed.checksum));
        let mut reading = FileReading::new(content.file, entry, hasher, self.plan.digests);
        // What the receiving side has already: it may ask that the sum covers it.
        let mut there = if request.append { request.sums.head().basis_len() } else { 0 };
        if there > 0 && !self.agreed.append_covers_all(self.plan.append) {
            reading.skip(there);
            there = 0;
        }
        let before = writer.out.put_bytes();
        let reply = sender.begin(request, content.store, &mut writer.out);
        let mut tokens = Tokens { reply, writer, sent: Sent::default(), span: 0 };
        let sums = &mut request.sums;
        let mut lead = Lead::new(self.agreed.block_seed());
        self.take_in(sums, &mut tokens)?;
        let unsettled = self.lead(&mut lead, sums, &mut reading, &mut tokens)?;
        while sums.remaining() > 0 {
            self.wait(sums, &mut tokens)?;
        }
        let mut search = Search::behind(sums, &lead);
        if overwrites_basis(self.agreed, self.plan, &request.header) {
            search = search.in_place();
        }
        search.push(&self.buffer[unsettled], |token| tokens.emit(token))?;
        while !reading.is_over {
            let n = reading.fill(self.buffer);
            let known = usize::try_from(there).unwrap_or(usize::MAX).min(n);
            there -= known as u64;
            search.push(&self.buffer[known..n], |token| tokens.emit(token))?;
            self.observer.progress(n as u64);
        }
        tokens.sent.false_alarms = search.false_alarms();
        search.finish(|token| tokens.emit(token))?;

        let Tokens { reply, writer, mut sent, .. } = tokens;
        let out = &mut writer.out;
        let FileReading { hasher, blake3, bytes, trouble, .. } = reading;
        let sum = promised.or_else(|| hasher.map(FileHasher::finish));
        let sum = sum.unwrap_or_else(|| Sum::zero(self.agreed.checksum.size()));
        match trouble {
            None => {
                reply.end(&sum, out)?;
                sent.wire_bytes = out.put_bytes() - before;
                self.observer.sent(entry, request, &sent, &sum);
                if let Some(blake3) = blake3 {
                    self.observer.digest(request.ndx, &Digest { len: bytes, blake3: blake3.finish() });
                }
                Ok(Ok(sent))
            }
            Some(error) => {
                reply.end(&other_than(&sum, self.agreed.checksum), out)?;
                out.message(&Message::IoError(IO_GENERAL));
                Ok(Err(error))
            }
        }
    }

    /// Goes through the file from its beginning, block by block, while their sums come. Returns what of it in the buffer is
    /// not settled, for a search: that a block is not where it was expected tells only the whole table.
    fn lead(
        &mut self,
        lead: &mut Lead,
        sums: &mut SumTable,
        reading: &mut FileReading<S::File>,
        tokens: &mut Tokens<'_, '_>,
    ) -> Result<Range<usize>, TransferError> {
        let mut unsettled = 0..0;
        while sums.remaining() > 0 && !lead.is_over() {
            if lead.has_sums_for(unsettled.len(), sums) {
                // Moved at once, so that blocks are seen as many at a time as fit.
                self.buffer.copy_within(unsettled.clone(), 0);
                unsettled = 0..unsettled.len();
                let n = reading.fill(&mut self.buffer[unsettled.end..]);
                self.observer.progress(n as u64);
                unsettled.end += n;
                if n == 0 {
                    break;
                }
            } else {
                self.wait(sums, tokens)?;
            }
            let bytes = &self.buffer[unsettled.clone()];
            unsettled.start += lead.push(bytes, sums, |token| tokens.emit(token))?;
        }
        Ok(unsettled)
    }

    /// Waits for sums. What the receiving side can do meanwhile, it is told before.
    fn wait(&mut self, sums: &mut SumTable, tokens: &mut Tokens<'_, '_>) -> Result<(), TransferError> {
        tokens.flush()?;
        tokens.reply.feed(self.reader.read()?)?;
        let before = sums.remaining();
        self.take_in(sums, tokens)?;
        if sums.remaining() < before {
            self.reader.brought_on();
        }
        Ok(())
    }

    /// Takes the sums that are here, and hears what is said between them.
    fn take_in(&mut self, sums: &mut SumTable, tokens: &mut Tokens<'_, '_>) -> Result<(), TransferError> {
        while let Some(message) = tokens.reply.poll_sums(sums, &mut tokens.writer.out)? {
            hear_message(&message, self.lists, self.source, self.observer)?;
        }
        Ok(())
    }
}

pub(super) fn hear_message<S: Source>(
    message: &Message,
    lists: &SentLists,
    source: &S,
    observer: &mut dyn SendObserver,
) -> Result<(), TransferError> {
    let Message::Success(ndx) = *message else {
        observer.message(message);
        return Ok(());
    };
    let expected = "an index within the file list";
    let unknown = PeerError::Range { what: "acknowledged index", value: ndx.0.into(), expected };
    source.finished(ndx, lists.segments.get(ndx).ok_or(unknown)?);
    observer.finished(ndx);
    Ok(())
}

/// Tokens on their way out.
struct Tokens<'a, 's> {
    reply: FileReply<'s>,
    writer: &'a mut LinkWriter,
    sent: Sent,
    /// Bytes of the file whose tokens may still be in the outbox.
    span: u64,
}

impl Tokens<'_, '_> {
    fn emit(&mut self, token: Token<'_>) -> Result<(), TransferError> {
        let len = match token {
            Token::Literal(bytes) => {
                self.sent.literal_bytes += bytes.len() as u64;
                self.reply.literal(bytes, &mut self.writer.out)?;
                bytes.len()
            }
            Token::Copy(block, bytes) => {
                self.sent.matched_bytes += bytes.len() as u64;
                self.sent.matches += 1;
                self.reply.copy(block, bytes, &mut self.writer.out)?;
                bytes.len()
            }
        };
        self.span += len as u64;
        if self.writer.out.len() > OUT_MOST || self.span > SPAN_MOST { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), TransferError> {
        self.span = 0;
        self.writer.flush()
    }
}

/// A file that is read from where it stands to its end, and summed.
struct FileReading<F> {
    file: Take<F>,
    /// How much of it there is to read.
    len: u64,
    is_file: bool,
    position: u64,
    bytes: u64,
    /// Nothing where a sum was promised: whether these bytes have it, the receiving side finds.
    hasher: Option<FileHasher>,
    blake3: Option<FileHasher>,
    is_over: bool,
    trouble: Option<io::Error>,
}

impl<F: FileContent> FileReading<F> {
    fn new(file: F, entry: &FileEntry, hasher: Option<FileHasher>, digests: bool) -> Self {
        // What it holds now is sent and nothing that comes later, or a file that grows would have no end. Nor may a device.
        let held = file.metadata().ok().filter(Metadata::is_file).map(|meta| meta.len());
        let len = held.unwrap_or(entry.len);
        Self {
            file: file.take(len),
            len,
            is_file: held.is_some(),
            position: 0,
            bytes: 0,
            hasher,
            blake3: digests.then(|| FileHasher::new(Checksum::Blake3)),
            is_over: false,
            trouble: None,
        }
    }

    /// Leaves the first bytes out.
    fn skip(&mut self, bytes: u64) {
        self.position = bytes;
        match self.file.get_mut().seek(SeekFrom::Start(bytes)) {
            Ok(_) => self.file.set_limit(self.len.saturating_sub(bytes)),
            Err(error) => self.fail(error),
        }
    }

    /// Reads until the buffer is full or the file at its end; returns how many bytes that are.
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < buffer.len() && !self.is_over {
            match self.file.read(&mut buffer[filled..]) {
                // Somebody has cut it off meanwhile: what is left is no version of the file.
                Ok(0) if self.is_file && self.position < self.len => self.fail(cut_off()),
                Ok(0) => self.is_over = true,
                Ok(n) => {
                    filled += n;
                    self.position += n as u64;
                    // What was listed is here; to ask for more would cost small files as much as their bytes.
                    self.is_over = filled < buffer.len() && self.position == self.len;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.fail(error),
            }
        }
        self.bytes += filled as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..filled]);
        }
        if let Some(blake3) = &mut self.blake3 {
            blake3.update(&buffer[..filled]);
        }
        filled
    }

    fn fail(&mut self, error: io::Error) {
        self.is_over = true;
        self.trouble = Some(error);
    }
}

/// A file had less to read than it had when it was opened.
fn cut_off() -> io::Error {
    // In the system's words, as stock rsync gives them.
    io::Error::new(io::ErrorKind::UnexpectedEof, "No data available (61)")
}

fn other_than(sum: &Sum, checksum: Checksum) -> Sum {
    let zero = Sum::zero(checksum.size());
    let mut wrong = zero.as_bytes().to_vec();
    if let Some(byte) = wrong.last_mut() {
        *byte = u8::from(zero == *sum);
    }
    Sum::new(&wrong).unwrap_or(zero)
}

/// Whether the receiving side writes over the very file whose blocks are sought.
fn overwrites_basis(agreed: &Negotiated, plan: &SendPlan, header: &ItemHeader) -> bool {
    match header.basis {
        None | Some(0x80) => plan.in_place,
        Some(0x81) => agreed.compat.has(Compat::INPLACE_PARTIAL_DIR),
        Some(_) => false,
    }
}
