//! Framing: payload and messages share one stream. Counterpart: the multiplexing half of rsync's `io.c`.

use crate::PeerError;
use crate::charset::Charset;
use crate::flist::Ndx;
use crate::wire::{Decode, Decoded, Reader};
use std::collections::VecDeque;

/// Tag of a payload frame; a message's tag is this plus its code.
const TAG_BASE: u32 = 7;
/// Stock writers stay below 64 KiB; half of that is safe with every reader.
const FRAME_MOST: usize = 32 * 1024;
/// Text messages of this length or more are fatal to stock readers, and to us.
const TEXT_MOST: usize = 5120;
/// Bits of an I/O error report that have a meaning.
pub(crate) const IO_ERROR_BITS: i32 = IO_GENERAL | IO_VANISHED | IO_DELETE_LIMIT;
/// Bit of an I/O error: something could not be read or written.
pub const IO_GENERAL: i32 = 1;
/// Bit of an I/O error: something vanished before it could be read.
pub const IO_VANISHED: i32 = 2;
/// Bit of an I/O error: `--max-delete` stopped deletions.
pub const IO_DELETE_LIMIT: i32 = 4;

/// Codes of messages; payload has 0.
pub(crate) mod code {
    crate::listed::listed!(u32 {
        pub(super) ERROR_XFER = 1;
        pub(super) INFO = 2;
        pub(super) ERROR = 3;
        pub(super) WARNING = 4;
        pub(super) IO_ERROR = 22;
        pub(super) IO_TIMEOUT = 33;
        pub(super) NOOP = 42;
        pub(super) ERROR_EXIT = 86;
        pub(super) SUCCESS = 100;
        pub(super) DELETED = 101;
        pub(super) NO_SEND = 102;
    });
}

/// A message beside the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Words for a person; the flag says which kind.
    Text(TextKind, Vec<u8>),
    /// I/O error bits of the sending side (1 read error, 2 vanished, 4 delete limit).
    IoError(i32),
    /// The peer's own time limit in seconds.
    IoTimeout(i32),
    /// Keep-alive without content.
    Noop,
    /// The peer dies with this exit code; `None` acknowledges ours.
    ErrorExit(Option<i32>),
    /// The receiving side finished this file (only with `--remove-source-files`).
    Success(Ndx),
    /// The receiving side deleted this name.
    Deleted(Vec<u8>),
    /// The sending side cannot send this requested file.
    NoSend(Ndx),
}

/// What a text message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// A transfer error: the session ends with exit code 23.
    ErrorXfer,
    /// Ordinary output.
    Info,
    /// An error.
    Error,
    /// A warning.
    Warning,
}

impl TextKind {
    fn code(self) -> u32 {
        match self {
            Self::ErrorXfer => code::ERROR_XFER,
            Self::Info => code::INFO,
            Self::Error => code::ERROR,
            Self::Warning => code::WARNING,
        }
    }

    /// The kind that stands for it before protocol 30, where there are but two.
    fn before_30(self) -> Self {
        match self {
            Self::ErrorXfer | Self::Error => Self::ErrorXfer,
            Self::Info | Self::Warning => Self::Info,
        }
    }
}

impl Message {
    /// Whether it brings the session on: a word or a keep-alive does not.
    #[must_use]
    pub fn brings_on(&self) -> bool {
        match self {
            Self::Success(_) | Self::Deleted(_) | Self::NoSend(_) | Self::ErrorExit(_) => true,
            Self::Text(..) | Self::IoError(_) | Self::IoTimeout(_) | Self::Noop => false,
        }
    }

    /// The same with other words, where it has any.
    fn words(self, change: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        match self {
            Self::Text(kind, text) => Self::Text(kind, change(&text)),
            Self::Deleted(name) => Self::Deleted(change(&name)),
            message => message,
        }
    }

    fn code_and_body(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Text(kind, text) => (kind.code(), text.clone()),
            Self::IoError(bits) => (code::IO_ERROR, bits.to_le_bytes().to_vec()),
            Self::IoTimeout(seconds) => (code::IO_TIMEOUT, seconds.to_le_bytes().to_vec()),
            Self::Noop => (code::NOOP, Vec::new()),
            Self::ErrorExit(code) => {
                (code::ERROR_EXIT, code.map(|code| code.to_le_bytes().to_vec()).unwrap_or_default())
            }
            Self::Success(ndx) => (code::SUCCESS, ndx.0.to_le_bytes().to_vec()),
            Self::Deleted(name) => (code::DELETED, name.clone()),
            Self::NoSend(ndx) => (code::NO_SEND, ndx.0.to_le_bytes().to_vec()),
        }
    }

    pub(crate) fn decode(kind: u32, body: Vec<u8>) -> Result<Self, PeerError> {
        let number = || -> Result<i32, PeerError> {
            match <[u8; 4]>::try_from(&body[..]) {
                Ok(bytes) => Ok(i32::from_le_bytes(bytes)),
                Err(_) => Err(PeerError::Malformed("a message of the wrong size")),
            }
        };
        let ndx = || -> Result<Ndx, PeerError> {
            let value = number()?;
            u32::try_from(value).map(Ndx).map_err(|_| PeerError::Range {
                what: "index in a message",
                value: value.into(),
                expected: "0 or more",
            })
        };
        Ok(match kind {
            code::ERROR_XFER => Self::Text(TextKind::ErrorXfer, body),
            code::INFO => Self::Text(TextKind::Info, body),
            code::ERROR => Self::Text(TextKind::Error, body),
            code::WARNING => Self::Text(TextKind::Warning, body),
            code::IO_ERROR => Self::IoError(number()? & IO_ERROR_BITS),
            code::IO_TIMEOUT => Self::IoTimeout(number()?),
            code::NOOP => Self::Noop,
            code::ERROR_EXIT if body.is_empty() => Self::ErrorExit(None),
            code::ERROR_EXIT => Self::ErrorExit(Some(number()?)),
            code::SUCCESS => Self::Success(ndx()?),
            code::DELETED => Self::Deleted(body),
            code::NO_SEND => Self::NoSend(ndx()?),
            _ => return Err(PeerError::Frame { what: "message code", value: kind.into(), expected: "a known code" }),
        })
    }
}

/// Longest acknowledgement of an `ERROR_EXIT`, bytes: its header and a code.
pub const ACKNOWLEDGEMENT_MOST: usize = 8;

/// Whether a stream of messages ends with an `ERROR_EXIT`, which is the last that a peer of protocol 31 or newer says.
#[must_use]
pub fn ends_in_error_exit(stream: &[u8]) -> bool {
    let header = |length: u32| (((TAG_BASE + code::ERROR_EXIT) << 24) | length).to_le_bytes();
    let with_code = stream.len().checked_sub(ACKNOWLEDGEMENT_MOST).map(|start| &stream[start..]);
    stream.ends_with(&header(0)) || with_code.is_some_and(|end| end.starts_with(&header(4)))
}

/// What comes of the words before the file list: filter rules, or names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordEvent {
    /// One of them.
    Word(Vec<u8>),
    /// There are no more.
    End,
    /// A message.
    Message(Message),
}

/// Bytes that have arrived, taken apart into payload and messages.
///
/// A message is handed over only when the payload before it has been used up, or cannot be used without the payload
/// behind it; so the events of a machine do not depend on how the bytes were split.
#[derive(Debug, Default, Clone)]
pub struct Inbox {
    payload: Vec<u8>,
    /// First byte of `payload` that nobody has consumed.
    head: usize,
    /// Messages, each with the place in `payload` where it stood.
    messages: VecDeque<(usize, Message)>,
    muxed: bool,
    /// Nothing that comes is framed, ever.
    bare: bool,
    header: Vec<u8>,
    frame: Option<Frame>,
    /// Framed bytes that nobody has looked at, where frames are taken one at a time.
    held: Option<Vec<u8>>,
    charset: Option<Charset>,
    consumed: u64,
}

#[derive(Debug, Clone)]
enum Frame {
    Payload { left: usize },
    Message { code: u32, len: usize, body: Vec<u8> },
}

impl Inbox {
    /// An inbox for an unframed stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// An inbox for a stream that is never framed: a batch file's.
    pub fn bare() -> Self {
        Self { bare: true, ..Self::default() }
    }

    /// Nothing that comes is framed, ever: a client's words before protocol 30.
    pub fn stay_bare(&mut self) {
        self.bare = true;
    }

    /// Everything from here on is framed, including what has arrived and not been consumed. Where it is so already,
    /// nothing happens.
    pub fn start_mux(&mut self) -> Result<(), PeerError> {
        if self.muxed || self.bare {
            return Ok(());
        }
        let raw = self.payload.split_off(self.head);
        self.payload.clear();
        self.head = 0;
        self.muxed = true;
        self.feed(&raw)
    }

    /// Words and names in messages come in UTF-8, and are to be had in this set (`--iconv`).
    pub fn convert(&mut self, charset: Option<Charset>) {
        self.charset = charset;
    }

    /// Frames are to be taken one at a time, by `Inbox::next_frame`: the framing will end where only their content tells.
    pub fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Takes the next of the frames that are held, or what there is of it; false when nothing is.
    pub(crate) fn next_frame(&mut self) -> Result<bool, PeerError> {
        let Some(mut held) = self.held.take_if(|held| !held.is_empty()) else { return Ok(false) };
        let parsed = self.parse(&held, true)?;
        held.drain(..parsed);
        self.held = Some(held);
        Ok(true)
    }

    /// Nothing from here on is framed. Refused in the midst of a frame.
    pub(crate) fn stop_mux(&mut self) -> Result<(), PeerError> {
        let held = self.held.take().unwrap_or_default();
        if std::mem::take(&mut self.muxed) && !self.is_empty() {
            return Err(PeerError::Malformed("more in a frame than what comes before the names of --files-from"));
        }
        self.feed(&held)
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        self.compact();
        match &mut self.held {
            _ if !self.muxed => self.payload.extend_from_slice(bytes),
            Some(held) => held.extend_from_slice(bytes),
            None => {
                self.parse(bytes, false)?;
            }
        }
        Ok(())
    }

    /// Takes frames apart, all of them or one; returns how many bytes were looked at.
    fn parse(&mut self, all: &[u8], only_one: bool) -> Result<usize, PeerError> {
        let mut bytes = all;
        while !bytes.is_empty() {
            match &mut self.frame {
                Some(Frame::Payload { left }) => {
                    let now = bytes.len().min(*left);
                    self.payload.extend_from_slice(&bytes[..now]);
                    bytes = &bytes[now..];
                    *left -= now;
                    if *left == 0 {
                        self.frame = None;
                    }
                }
                Some(Frame::Message { len, body, .. }) => {
                    let now = bytes.len().min(*len - body.len());
                    body.extend_from_slice(&bytes[..now]);
                    bytes = &bytes[now..];
                    self.finish_message()?;
                }
                None => {
                    let now = bytes.len().min(4 - self.header.len());
                    self.header.extend_from_slice(&bytes[..now]);
                    bytes = &bytes[now..];
                    if let Ok(header) = <[u8; 4]>::try_from(&self.header[..]) {
                        self.header.clear();
                        self.start_frame(u32::from_le_bytes(header))?;
                    }
                }
            }
            if only_one && self.frame.is_none() && self.header.is_empty() {
                break;
            }
        }
        Ok(all.len() - bytes.len())
    }

    fn start_frame(&mut self, header: u32) -> Result<(), PeerError> {
        let (tag, len) = (header >> 24, (header & 0xff_ffff) as usize);
        let code = tag.checked_sub(TAG_BASE).ok_or(PeerError::Frame {
            what: "frame tag",
            value: tag.into(),
            expected: "7 or more (is the remote shell clean?)",
        })?;
        if code == 0 {
            self.frame = (len > 0).then_some(Frame::Payload { left: len });
            return Ok(());
        }
        if len >= TEXT_MOST {
            return Err(PeerError::Frame { what: "message length", value: len as i64, expected: "below 5120" });
        }
        self.frame = Some(Frame::Message { code, len, body: Vec::with_capacity(len) });
        self.finish_message()
    }

    fn finish_message(&mut self) -> Result<(), PeerError> {
        if let Some(Frame::Message { len, body, .. }) = &self.frame {
            if body.len() < *len {
                return Ok(());
            }
            if let Some(Frame::Message { code, body, .. }) = self.frame.take() {
                let message = Message::decode(code, body)?;
                let message = match self.charset {
                    Some(set) => message.words(|text| set.text_from_utf8(text)),
                    None => message,
                };
                self.messages.push_back((self.payload.len(), message));
            }
        }
        Ok(())
    }

    /// The payload that may be decoded now: up to the next message.
    pub fn payload(&self) -> &[u8] {
        let end = self.messages.front().map_or(self.payload.len(), |(at, _)| *at);
        self.payload.get(self.head..end.max(self.head)).unwrap_or_default()
    }

    /// A cursor over [`Inbox::payload`].
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self.payload())
    }

    /// Marks `n` bytes of payload as used.
    pub fn consume(&mut self, n: usize) {
        let head = (self.head + n).min(self.payload.len());
        self.consumed += (head - self.head) as u64;
        self.head = head;
    }

    /// How much payload has been consumed.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The next message, when the payload before it did not suffice.
    pub fn message(&mut self) -> Option<Message> {
        self.messages.pop_front().map(|(_, message)| message)
    }

    /// The same, where the peer's word that it ends is an error.
    pub(crate) fn message_or_exit(&mut self) -> Result<Option<Message>, PeerError> {
        match self.message() {
            Some(Message::ErrorExit(Some(code))) => Err(PeerError::Exit(code)),
            message => Ok(message),
        }
    }

    /// The next of the words that come before the file list, as `decode` reads them; `None` means: feed me.
    pub(crate) fn poll_word(
        &mut self,
        decode: impl FnOnce(&mut Reader<'_>) -> Decoded<Option<Vec<u8>>>,
    ) -> Result<Option<WordEvent>, PeerError> {
        let mut reader = self.reader();
        match decode(&mut reader) {
            Ok(word) => {
                let used = reader.position();
                self.consume(used);
                Ok(Some(word.map_or(WordEvent::End, WordEvent::Word)))
            }
            Err(Decode::Bad(error)) => Err(error),
            Err(Decode::Incomplete) => Ok(self.message_or_exit()?.map(WordEvent::Message)),
        }
    }

    /// True when nothing at all is waiting.
    pub fn is_empty(&self) -> bool {
        self.head == self.payload.len() && self.messages.is_empty() && self.frame.is_none() && self.header.is_empty()
    }

    /// Drops used payload, so that memory follows what waits and not what has passed.
    fn compact(&mut self) {
        if self.head == 0 {
            return;
        }
        self.payload.drain(..self.head);
        for (at, _) in &mut self.messages {
            *at = at.saturating_sub(self.head);
        }
        self.head = 0;
    }
}

/// Bytes to be sent, framed as they are written.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    muxed: bool,
    /// The peer is older than 30, and knows fewer messages.
    old: bool,
    /// Where the header of the open payload frame stands.
    open: Option<usize>,
    charset: Option<Charset>,
    /// A copy of the payload, for a batch file.
    record: Option<Vec<u8>>,
    /// Payload goes to the record only.
    diverted: bool,
    put: u64,
}

impl Outbox {
    /// An outbox for an unframed stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Words and names in messages are in this set, and go in UTF-8 (`--iconv`).
    pub fn convert(&mut self, charset: Option<Charset>) {
        self.charset = charset;
    }

    /// Everything written from here on is framed, as this version knows it.
    pub fn start_mux(&mut self, version: u8) {
        self.muxed = true;
        self.old = version < 30;
    }

    /// Whether what is written is framed, so that there can be messages.
    pub(crate) fn is_muxed(&self) -> bool {
        self.muxed
    }

    /// Keeps a copy of all payload from here on, to be taken by [`Outbox::take_record`].
    pub fn record(&mut self) {
        self.record.get_or_insert_default();
    }

    /// Whether payload goes to the record only, and not to the peer.
    pub(crate) fn set_only_recorded(&mut self, diverted: bool) {
        self.diverted = diverted;
    }

    /// The payload recorded since this was last asked for.
    pub fn take_record(&mut self) -> Vec<u8> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Writes payload.
    pub fn put(&mut self, mut payload: &[u8]) {
        self.put += payload.len() as u64;
        if let Some(record) = &mut self.record {
            record.extend_from_slice(payload);
        }
        if self.diverted {
            return;
        }
        if !self.muxed {
            self.bytes.extend_from_slice(payload);
            return;
        }
        while !payload.is_empty() {
            let start = *self.open.get_or_insert_with(|| {
                self.bytes.extend_from_slice(&[0; 4]);
                self.bytes.len() - 4
            });
            let room = FRAME_MOST - (self.bytes.len() - start - 4);
            let (now, later) = payload.split_at(room.min(payload.len()));
            self.bytes.extend_from_slice(now);
            payload = later;
            if now.len() == room {
                self.close_frame();
            }
        }
    }

    /// Writes a message between payload frames, where the peer knows it. Nothing before framing has begun: stock peers
    /// know no messages then.
    pub fn message(&mut self, message: &Message) {
        let Some(kind) = self.known(message) else { return };
        self.close_frame();
        let converted = self.charset.map(|set| message.clone().words(|text| set.text_to_utf8(text)));
        let (mut code, mut body) = converted.as_ref().unwrap_or(message).code_and_body();
        code = kind.map_or(code, TextKind::code);
        body.truncate(TEXT_MOST - 1);
        self.bytes.extend_from_slice(&((TAG_BASE + code) << 24 | body.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&body);
    }

    /// The kind of words a message is written as, where it has any; `None` where the peer knows no such message.
    fn known(&self, message: &Message) -> Option<Option<TextKind>> {
        match message {
            _ if !self.muxed => None,
            Message::Text(kind, _) if self.old => Some(Some(kind.before_30())),
            Message::Text(kind, _) => Some(Some(*kind)),
            Message::Success(_) | Message::Deleted(_) => Some(None),
            _ => (!self.old).then_some(None),
        }
    }

    /// Writes an empty payload frame, which says only that we are still there.
    pub fn keep_alive(&mut self) {
        if self.muxed {
            self.close_frame();
            self.bytes.extend_from_slice(&(TAG_BASE << 24).to_le_bytes());
        }
    }

    fn close_frame(&mut self) {
        if let Some(start) = self.open.take() {
            let len = (self.bytes.len() - start - 4) as u32;
            self.bytes[start..start + 4].copy_from_slice(&(TAG_BASE << 24 | len).to_le_bytes());
        }
    }

    /// How many bytes wait, for the peer or for the record.
    pub fn len(&self) -> usize {
        self.bytes.len().max(self.record.as_ref().map_or(0, Vec::len))
    }

    /// True when nothing waits for the peer.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Closes the open frame and gives all bytes that wait; they count as sent once [`Outbox::clear`] is called.
    pub fn bytes(&mut self) -> &[u8] {
        self.close_frame();
        &self.bytes
    }

    /// Closes the open frame and gives all bytes that wait to `take`, which may keep the buffer and leave another in its place.
    /// What it leaves is thrown away where it succeeds; otherwise all still waits.
    pub fn hand_over<E>(&mut self, take: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.close_frame();
        take(&mut self.bytes)?;
        self.bytes.clear();
        Ok(())
    }

    /// How much payload was put in, ever.
    pub fn put_bytes(&self) -> u64 {
        self.put
    }

    /// Forgets the bytes that [`Outbox::bytes`] gave.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_look_like_stock_rsyncs() {
        let mut out = Outbox::new();
        out.put(&[1, 2]);
        out.start_mux(31);
        out.put(&[3]);
        out.put(&[4]);
        out.message(&Message::Success(Ndx(5)));
        out.put(&[6]);
        assert_eq!(out.bytes(), [1, 2, 2, 0, 0, 7, 3, 4, 4, 0, 0, 107, 5, 0, 0, 0, 1, 0, 0, 7, 6]);
    }

    #[test]
    fn peers_before_30_get_the_messages_they_know() {
        let told = |message: &Message, version: u8| {
            let mut out = Outbox::new();
            out.start_mux(version);
            out.message(message);
            out.bytes().get(3).map(|tag| tag - 7)
        };
        let text = |kind| Message::Text(kind, b"words".to_vec());
        for (message, old, new) in [
            (text(TextKind::Error), Some(1), Some(3)),
            (text(TextKind::Warning), Some(2), Some(4)),
            (text(TextKind::ErrorXfer), Some(1), Some(1)),
            (text(TextKind::Info), Some(2), Some(2)),
            (Message::Success(Ndx(1)), Some(100), Some(100)),
            (Message::Deleted(b"gone".to_vec()), Some(101), Some(101)),
            (Message::NoSend(Ndx(1)), None, Some(102)),
            (Message::IoError(1), None, Some(22)),
            (Message::IoTimeout(1), None, Some(33)),
            (Message::Noop, None, Some(42)),
            (Message::ErrorExit(Some(1)), None, Some(86)),
        ] {
            assert_eq!((told(&message, 29), told(&message, 30)), (old, new), "{message:?}");
        }
    }

    #[test]
    fn hostile_frames_are_errors() {
        for bytes in
            [&b"Wel"[..], b"come to host\n", &[0, 0x20, 0, 8], &[1, 0, 0, 107, 0], &[4, 0, 0, 107, 0, 0, 0, 0x80]]
        {
            let mut inbox = Inbox::new();
            inbox.start_mux().unwrap();
            let result = inbox.feed(bytes);
            assert!(result.is_err() || bytes.len() < 4, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            parts in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..100)), 0..20),
            chunk in 1usize..50,
            appetite in 1usize..20,
        ) {
            let mut out = Outbox::new();
            out.start_mux(31);
            for (message, bytes) in &parts {
                if *message { out.message(&Message::Text(TextKind::Info, bytes.clone())) } else { out.put(bytes) }
            }
            let wire = out.bytes().to_vec();
            // Between two meals at most `appetite` bytes and messages are taken; the rest is left for the end.
            let collect = |chunk: usize, appetite: usize| {
                let mut inbox = Inbox::new();
                inbox.start_mux().unwrap();
                let mut seen = Vec::new();
                let mut run = Vec::new();
                let mut take = |inbox: &mut Inbox, most: usize| {
                    for _ in 0..most {
                        if let Some(&byte) = inbox.payload().first() {
                            run.push(byte);
                            inbox.consume(1);
                        } else if let Some(message) = inbox.message() {
                            seen.push((std::mem::take(&mut run), message));
                        } else {
                            break;
                        }
                    }
                };
                for bytes in wire.chunks(chunk) {
                    inbox.feed(bytes).unwrap();
                    take(&mut inbox, appetite);
                }
                take(&mut inbox, usize::MAX);
                prop_assert!(inbox.is_empty());
                Ok((seen, run))
            };
            prop_assert_eq!(collect(chunk, appetite)?, collect(wire.len().max(1), usize::MAX)?);
        }
    }
}
