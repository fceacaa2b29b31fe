//! A capture taken apart as far as its framing: options, handshake, and the payload and messages of both directions.

use super::case::Case;
use protocol::checksum::{BlockSeed, Checksum};
use protocol::compress::{Choice, Compression, Method, Wish};
use protocol::flist::ListShape;
use protocol::handshake::{Compat, Negotiated};
use protocol::mux::{Inbox, Message};
use protocol::wire::Reader;

/// What the server's words say.
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) letters: String,
    pub(crate) capabilities: String,
    pub(crate) long: Vec<String>,
    pub(crate) server_sends: bool,
}

impl Words {
    pub(crate) fn new(words: &[String]) -> Self {
        let mut parsed = Self { server_sends: words.iter().any(|word| word == "--sender"), ..Self::default() };
        for word in words.iter().skip(1).take_while(|word| *word != ".") {
            match word.strip_prefix('-') {
                Some(rest) if !rest.starts_with(['-', 'B']) => {
                    let (letters, capabilities) = rest.split_once('e').unwrap_or((rest, ""));
                    parsed.letters += letters;
                    parsed.capabilities += capabilities.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
                }
                _ => parsed.long.push(word.clone()),
            }
        }
        parsed
    }

    pub(crate) fn has(&self, letter: char) -> bool {
        self.letters.contains(letter)
    }

    pub(crate) fn option(&self, name: &str) -> bool {
        self.long.iter().any(|word| word == name || word.starts_with(&format!("{name}=")))
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.long.iter().find_map(|word| word.strip_prefix(&format!("{name}=")))
    }

    pub(crate) fn block_length(&self) -> Option<u32> {
        self.long.iter().find_map(|word| word.strip_prefix("-B")).map(|size| size.parse().unwrap())
    }

    pub(crate) fn choice(&self) -> Option<(Checksum, Checksum)> {
        let (transfer, list) = self.value("--checksum-choice").map(|v| v.split_once(',').unwrap_or((v, v)))?;
        let named = |name: &str| Checksum::from_name(name.as_bytes()).unwrap();
        Some((named(transfer), named(list)))
    }

    pub(crate) fn compression(&self) -> Wish {
        let choice = match self.value("--compress-choice") {
            Some(name) => Choice::Named(Method::from_name(name.as_bytes()).unwrap()),
            None if self.option("--old-compress") => Choice::Named(Method::Zlib),
            None if self.option("--new-compress") => Choice::Named(Method::Zlibx),
            None if self.has('z') => Choice::Negotiated,
            None => Choice::Off,
        };
        Wish { choice, level: self.value("--compress-level").map(|level| level.parse().unwrap()) }
    }

    /// Whether filter rules go to the server.
    pub(crate) fn filters(&self) -> bool {
        self.server_sends || self.has('m') || self.long.iter().any(|word| word.starts_with("--delete"))
    }

    pub(crate) fn shape(&self, list_checksum: Checksum) -> ListShape {
        let devices = self.has('D');
        ListShape {
            owner: self.has('o'),
            group: self.has('g'),
            links: self.has('l'),
            devices,
            specials: devices && !self.option("--no-specials"),
            atimes: self.has('U'),
            acls: self.has('A'),
            xattrs: self.has('X'),
            sum_size: if self.has('c') { list_checksum.size() } else { 0 },
            numeric_ids: self.option("--numeric-ids"),
            relative: self.has('R'),
            missing_args: self.option("--delete-missing-args"),
            hard_links: self.has('H'),
            recurse: self.has('r'),
            charset: None,
        }
    }
}

/// One direction behind the handshake.
#[derive(Default, Clone, PartialEq, Debug)]
pub(crate) struct Direction {
    pub(crate) payload: Vec<u8>,
    /// Each with its place in the payload.
    pub(crate) messages: Vec<(usize, Message)>,
}

impl Direction {
    fn extend(&mut self, framed: &[u8]) {
        let mut inbox = Inbox::new();
        inbox.start_mux().unwrap();
        inbox.feed(framed).unwrap();
        loop {
            self.payload.extend_from_slice(inbox.payload());
            inbox.consume(inbox.payload().len());
            let Some(message) = inbox.message() else { break };
            self.messages.push((self.payload.len(), message));
        }
        assert!(inbox.is_empty(), "a frame is cut off");
    }

    pub(crate) fn of(framed: &[u8]) -> Self {
        let mut direction = Self::default();
        direction.extend(framed);
        direction
    }

    /// Of bytes that are not framed.
    pub(crate) fn bare(payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), messages: Vec::new() }
    }
}

pub(crate) struct Session {
    pub(crate) words: Words,
    pub(crate) n: Negotiated,
    /// What each side announced.
    pub(crate) client_version: u8,
    pub(crate) server_version: u8,
    /// Length of the unframed beginning of each direction.
    pub(crate) c2s_raw: usize,
    pub(crate) s2c_raw: usize,
    pub(crate) to_server: Direction,
    pub(crate) to_client: Direction,
    /// Names of a files-from list that travelled.
    pub(crate) files_from: Option<Vec<Vec<u8>>>,
    pub(crate) filters: Vec<Vec<u8>>,
    /// Where the sender's and the generator's stream begin in the payload.
    pub(crate) to_server_start: usize,
    pub(crate) to_client_start: usize,
}

impl Session {
    pub(crate) fn new(case: &Case) -> Self {
        let words = Words::new(&case.words);
        let (mut c, mut s) = (Reader::new(&case.c2s), Reader::new(&case.s2c));
        let (client_version, server_version) = (c.int().unwrap() as u8, s.int().unwrap() as u8);
        let version = client_version.min(server_version);
        let compat = Compat(if version < 30 { 0 } else { s.varint().unwrap() as u32 });
        let choice = words.choice();
        let mut chosen = choice.unwrap_or((Checksum::Md5, Checksum::Md5));
        let mut first_of_both = || {
            let ours: Vec<&[u8]> = c.vstring().unwrap().split(|&byte| byte == b' ').collect();
            let theirs: Vec<&[u8]> = s.vstring().unwrap().split(|&byte| byte == b' ').collect();
            *ours.iter().find(|name| theirs.contains(name)).unwrap()
        };
        if compat.has(Compat::VARINT_FLIST_FLAGS) && choice.is_none() {
            let first = Checksum::from_name(first_of_both()).unwrap();
            chosen = (first, first);
        }
        let method = match words.compression().choice {
            Choice::Off => Method::None,
            Choice::Named(method) => method,
            Choice::Negotiated if compat.has(Compat::VARINT_FLIST_FLAGS) => Method::from_name(first_of_both()).unwrap(),
            Choice::Negotiated | Choice::Among(_) => Method::Zlib,
        };
        let compression = Compression::new(method, words.compression().level);
        let seed = s.int().unwrap();
        if version < 30 && choice.is_none() {
            chosen = (Checksum::SeededMd4(seed), Checksum::Md4);
        }
        let n = Negotiated { version, compat, checksum: chosen.0, list_checksum: chosen.1, seed, compression };
        let mut session = Self {
            n,
            client_version,
            server_version,
            c2s_raw: c.position(),
            s2c_raw: s.position(),
            to_server: Direction::default(),
            to_client: Direction::default(),
            files_from: None,
            filters: Vec::new(),
            to_server_start: 0,
            to_client_start: 0,
            words,
        };
        session.split(case);
        session
    }

    pub(crate) fn seed(&self) -> BlockSeed {
        self.n.block_seed()
    }

    pub(crate) fn compressed(&self) -> bool {
        self.n.compression != Compression::NONE
    }

    pub(crate) fn incremental(&self) -> bool {
        self.n.compat.has(Compat::INC_RECURSE)
    }

    /// The client's words are framed before 30 only where it acknowledges files.
    pub(crate) fn acknowledges(&self) -> bool {
        self.words.server_sends && self.words.option("--remove-source-files")
    }

    /// What a side said behind the handshake.
    pub(crate) fn said(&self, by_client: bool, bytes: &[u8]) -> Direction {
        match by_client && self.n.version < 30 && !self.acknowledges() {
            true => Direction::bare(bytes),
            false => Direction::of(bytes),
        }
    }

    /// Takes off framing, filter rules and files-from names. Below protocol 31 those names are not framed.
    fn split(&mut self, case: &Case) {
        let (mut c2s, mut s2c) = (&case.c2s[self.c2s_raw..], &case.s2c[self.s2c_raw..]);
        let names = self.words.option("--files-from");
        let (names_to_server, names_to_client) = (names && self.words.server_sends, names && !self.words.server_sends);
        if names_to_client && self.n.version < 31 {
            let used = self.names(s2c);
            s2c = &s2c[used..];
        }
        if names_to_server && self.n.version < 31 {
            let frame = 4 + usize::from(c2s[0]);
            self.to_server.extend(&c2s[..frame]);
            let used = self.names(&c2s[frame..]);
            c2s = &c2s[frame + used..];
        }
        match names_to_server && self.n.version < 31 {
            true => self.to_server.extend(c2s),
            false => self.to_server = self.said(true, c2s),
        }
        self.to_client.extend(s2c);
        if self.words.filters() && !self.to_server.payload.is_empty() {
            let payload = self.to_server.payload.clone();
            let mut reader = Reader::new(&payload);
            loop {
                let len = reader.uint().unwrap() as usize;
                if len == 0 {
                    break;
                }
                self.filters.push(reader.take(len).unwrap().to_vec());
            }
            self.to_server_start = reader.position();
        }
        if names_to_server && self.n.version >= 31 {
            let rest = self.to_server.payload[self.to_server_start..].to_vec();
            self.to_server_start += self.names(&rest);
        }
        if names_to_client && self.n.version >= 31 {
            let payload = self.to_client.payload.clone();
            self.to_client_start = self.names(&payload);
        }
    }

    fn names(&mut self, bytes: &[u8]) -> usize {
        let mut names = Vec::new();
        let mut used = 0;
        loop {
            let name: Vec<u8> = bytes[used..].iter().copied().take_while(|&byte| byte != 0).collect();
            used += name.len() + 1;
            if name.is_empty() {
                break;
            }
            names.push(name);
        }
        self.files_from = Some(names);
        used
    }

    /// The sending side's direction.
    pub(crate) fn sending(&self) -> (&Direction, usize) {
        if self.words.server_sends {
            (&self.to_client, self.to_client_start)
        } else {
            (&self.to_server, self.to_server_start)
        }
    }

    /// The receiving side's direction.
    pub(crate) fn receiving(&self) -> (&Direction, usize) {
        if self.words.server_sends {
            (&self.to_server, self.to_server_start)
        } else {
            (&self.to_client, self.to_client_start)
        }
    }

    /// One side gave up before the end.
    pub(crate) fn aborted(&self, case: &Case) -> bool {
        let exits = |direction: &Direction| {
            direction.messages.iter().any(|(_, message)| matches!(message, Message::ErrorExit(Some(_))))
        };
        exits(&self.to_client) || exits(&self.to_server) || (case.exit == 11 && self.words.server_sends)
    }
}
