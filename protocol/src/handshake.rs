//! Version, compatibility flags, choice of checksum and compression, and seed. Counterpart: rsync's `setup_protocol`.

use crate::PeerError;
use crate::checksum::Checksum;
use crate::compress::{Choice, Compression, Method, Wish};
use crate::listed::listed;
use crate::mux::{Inbox, Outbox};
use crate::sums::MAX_BLOCK_LENGTH;
use crate::wire::{Decode, Decoded, Ints, Reader, put_varint, put_vstring};

/// The oldest protocol version we speak (rsync 2.6.0).
pub const VERSION_LEAST: u8 = 27;
/// The newest; a peer that says more is met here.
pub const VERSION_MOST: u8 = 32;
/// Numbers of versions that some rsync has, or will have; anything else that comes in their place is text.
const VERSIONS: std::ops::RangeInclusive<i64> = 20..=40;
/// Longest negotiation string stock peers accept.
const STRING_MOST: usize = 255;

/// The order in which common checksums are preferred and listed. A stock client takes the first of its own list that the
/// server has, so a server of ours follows its client. A stock server up to 3.4 does so too, one of 3.5 takes its own
/// favourite; a client of ours agrees with both as long as every list keeps this order.
const PREFERENCE: [Checksum; 7] =
    [Checksum::Xxh128, Checksum::Xxh3, Checksum::Xxh64, Checksum::Md5, Checksum::Md4, Checksum::Sha1, Checksum::None];

/// Compatibility flags, one bit each, as the server sends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compat(pub u32);

impl Compat {
    listed!(Self {
        /// The file list comes in segments.
        pub INC_RECURSE = Self(0x001);
        /// The server can set the times of symlinks.
        pub SYMLINK_TIMES = Self(0x002);
        /// What symlinks point to is converted as names are (`--iconv`).
        pub SYMLINK_ICONV = Self(0x004);
        /// The end of the file list may carry I/O errors.
        pub SAFE_FLIST = Self(0x008);
        /// Extended attributes of hard links are not left out.
        pub AVOID_XATTR_OPTIM = Self(0x010);
        /// MD5 block sums take the seed first.
        pub CHECKSUM_SEED_FIX = Self(0x020);
        /// A basis in a partial-dir is updated where it stands.
        pub INPLACE_PARTIAL_DIR = Self(0x040);
        /// File-list flags are varints and names of algorithms are negotiated.
        pub VARINT_FLIST_FLAGS = Self(0x080);
        /// The id lists carry the names of id 0.
        pub ID0_NAMES = Self(0x100);
    });

    /// True when every bit of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What a server answers to a client's capability letters; `incremental` where its own options allow it.
    pub(crate) fn answer(letters: &[u8], incremental: bool) -> Self {
        let mut flags = Self::SYMLINK_TIMES.0;
        if incremental && letters.contains(&b'i') {
            flags |= Self::INC_RECURSE.0;
        }
        for (letter, flag) in [
            (b's', Self::SYMLINK_ICONV),
            (b'f', Self::SAFE_FLIST),
            (b'x', Self::AVOID_XATTR_OPTIM),
            (b'C', Self::CHECKSUM_SEED_FIX),
            (b'I', Self::INPLACE_PARTIAL_DIR),
            (b'v', Self::VARINT_FLIST_FLAGS),
            (b'u', Self::ID0_NAMES),
        ] {
            if letters.contains(&letter) {
                flags |= flag.0;
            }
        }
        Self(flags)
    }
}

/// What both sides agreed on; constant for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// Protocol version, 27 to 32.
    pub version: u8,
    /// The server's flags.
    pub compat: Compat,
    /// Checksum of blocks and of whole files in transfer.
    pub checksum: Checksum,
    /// Checksum of the file list (`-c`).
    pub list_checksum: Checksum,
    /// Seed of block sums.
    pub seed: i32,
    /// Compression of file data.
    pub compression: Compression,
}

/// What versions differ in besides the form of what they say.
impl Negotiated {
    /// How numbers are written.
    pub fn ints(&self) -> Ints {
        Ints::of(self.version)
    }

    /// The phases that the generator ends: transfer, redo, and from 29 on delayed updates.
    pub fn phases(&self) -> u8 {
        if self.version >= 29 { 3 } else { 2 }
    }

    /// Whether an index is followed by what is told of the entry, and entries are told of that are not transferred.
    pub fn has_items(&self) -> bool {
        self.version >= 29
    }

    /// Whether the sending side tells of a file that it cannot send, and of its I/O errors, when it finds out.
    pub fn tells_failures(&self) -> bool {
        self.version >= 30
    }

    /// Whether the sum of a file that is appended to covers what was there, too, with `--append` given so many times. Before
    /// 30 it always did.
    pub fn append_covers_all(&self, append: u8) -> bool {
        append > 1 || self.version < 30
    }

    /// The longest block of a basis that a peer may ask about, bytes.
    pub(crate) fn block_length_most(&self) -> u32 {
        if self.version >= 30 { MAX_BLOCK_LENGTH } else { 1 << 29 }
    }

    /// How block sums are seeded in this session.
    pub fn block_seed(&self) -> crate::checksum::BlockSeed {
        // A checksum that is named before 30 needs no flag to be seeded rightly.
        let seed_first = self.version < 30 || self.compat.has(Compat::CHECKSUM_SEED_FIX);
        crate::checksum::BlockSeed::new(self.checksum, self.seed, seed_first)
    }
}

/// What we bring to the handshake.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Which end we are.
    pub side: Side,
    /// The version we announce.
    pub version: u8,
    /// Checksums named on the command line, so that both ends know them: of the transfer, and of the list.
    pub choice: Option<(Checksum, Checksum)>,
    /// Checksums offered when there is no choice.
    pub offer: Offer,
    /// What the options say of compression.
    pub compression: Wish,
    /// The file list may come in segments: as a client we have offered it, as a server we grant it.
    pub incremental: bool,
    /// The client acknowledges what it receives (`--remove-source-files`), for which its words are framed before 30, too.
    pub acknowledges: bool,
}

impl Hello {
    /// What stock brings without any option.
    pub fn new(side: Side, version: u8) -> Self {
        Self {
            side,
            version,
            choice: None,
            offer: Offer::Stock,
            compression: Wish::OFF,
            incremental: false,
            acknowledges: false,
        }
    }
}

/// Which end of the connection.
#[derive(Debug, Clone)]
pub enum Side {
    /// The end that a person started.
    Client,
    /// The end started with `--server`.
    Server {
        /// The client's capability letters, what follows `e` and `.`.
        letters: Vec<u8>,
        /// The seed to announce.
        seed: i32,
    },
}

/// Which checksums we offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// All that stock rsync offers.
    Stock,
    /// The same, and blake3 preferred where the peer is ours. It stands last in the list, and stock peers skip names
    /// they do not know, so nothing changes for them.
    Blake3,
    /// Only this one; a peer that does not know it ends the session.
    Only(Checksum),
    /// What there is where no names are exchanged: MD5, and below 30 MD4.
    Unnamed,
    /// These, the best first, as a user listed them. Stock's two ends may each take another of several; a client of ours
    /// hears the server first and names the one that it takes, a server of ours follows its client.
    These([Option<Checksum>; 8]),
}

impl Offer {
    pub(crate) fn list(self, side: &Side) -> Vec<Checksum> {
        let mut list: Vec<_> = match self {
            Self::Only(checksum) => vec![checksum],
            Self::Unnamed => vec![Checksum::Md5],
            Self::These(checksums) => return checksums.into_iter().flatten().collect(),
            Self::Stock | Self::Blake3 => PREFERENCE.to_vec(),
        };
        match side {
            Side::Client => list.retain(|&checksum| checksum != Checksum::None || self == Self::Only(Checksum::None)),
            Side::Server { .. } if self == Self::Stock => list.push(Checksum::Blake3),
            Side::Server { .. } => {}
        }
        if self == Self::Blake3 {
            list.push(Checksum::Blake3);
        }
        list
    }
}

impl Offer {
    /// Whether this will do where no names are exchanged.
    fn holds_without_names(self, side: &Side, checksum: Checksum) -> bool {
        self == Self::Unnamed || self.list(side).contains(&checksum)
    }
}

/// A version that a peer says, if we speak it.
pub(crate) fn peer_version(version: i64) -> Result<u8, PeerError> {
    if !VERSIONS.contains(&version) {
        return Err(PeerError::Version(version));
    }
    u8::try_from(version).ok().filter(|&known| known >= VERSION_LEAST).ok_or(PeerError::TooOld(version))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandshakeState {
    Version,
    Compat,
    Strings,
    Seed,
}

/// The handshake of either side.
#[derive(Debug)]
pub struct Handshake {
    hello: Hello,
    state: HandshakeState,
    inbox: Inbox,
    agreed: Negotiated,
}

impl Handshake {
    /// Starts, writing our version.
    pub fn new(hello: Hello, out: &mut Outbox) -> Self {
        out.put(&i32::from(hello.version).to_le_bytes());
        Self::at(HandshakeState::Version, hello)
    }

    /// Starts where `hello.version` is agreed on already, by a daemon's greeting: neither side writes a version.
    pub fn agreed(hello: Hello, out: &mut Outbox) -> Self {
        let mut handshake = Self::at(HandshakeState::Version, hello);
        handshake.state = handshake.met(out);
        handshake
    }

    fn at(state: HandshakeState, hello: Hello) -> Self {
        let (checksum, list_checksum) = hello.choice.unwrap_or((Checksum::Md5, Checksum::Md5));
        let compression = hello.compression.outright();
        let version = hello.version;
        let agreed = Negotiated { version, compat: Compat(0), checksum, list_checksum, seed: 0, compression };
        Self { hello, state, inbox: Inbox::new(), agreed }
    }

    /// The versions have met: a server says all the rest of its own.
    fn met(&mut self, out: &mut Outbox) -> HandshakeState {
        match &self.hello.side {
            _ if self.agreed.version < 30 => {
                if let Side::Server { seed, .. } = self.hello.side {
                    self.agreed.seed = seed;
                    out.put(&seed.to_le_bytes());
                }
                HandshakeState::Seed
            }
            Side::Client => HandshakeState::Compat,
            Side::Server { letters, seed } => {
                let seed = *seed;
                self.agreed.compat = Compat::answer(letters, self.hello.incremental);
                self.agreed.seed = seed;
                let mut bytes = Vec::new();
                put_varint(&mut bytes, self.agreed.compat.0 as i32);
                out.put(&bytes);
                self.offer(out);
                out.put(&seed.to_le_bytes());
                HandshakeState::Strings
            }
        }
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        self.inbox.feed(bytes)
    }

    /// Goes on as far as the bytes allow. With the result the stream is framed in both directions; who goes on reading
    /// begins with that.
    pub fn poll(&mut self, out: &mut Outbox) -> Result<Option<Negotiated>, PeerError> {
        loop {
            match self.step(out) {
                Ok(false) => {}
                Ok(true) => {
                    self.begin(out)?;
                    return Ok(Some(self.agreed));
                }
                Err(Decode::Incomplete) => return Ok(None),
                Err(Decode::Bad(error)) => return Err(error),
            }
        }
    }

    /// The session begins: what is said and heard from here on is framed, but for an old client's words.
    fn begin(&mut self, out: &mut Outbox) -> Result<(), PeerError> {
        let client_is_framed = self.agreed.version >= 30 || self.hello.acknowledges;
        if client_is_framed || self.is_server() {
            out.start_mux(self.agreed.version);
        }
        if self.is_server() && !client_is_framed {
            self.inbox.stay_bare();
        }
        if self.agreed.version < 30
            && let Choice::Among(methods) = self.hello.compression.choice
            && !methods.contains(&Some(Method::Zlib))
        {
            let ours = self.hello.compression.list(self.is_server());
            return Err(PeerError::NoCommonCompression { ours, theirs: Method::Zlib.name().into() });
        }
        if self.agreed.version < 30 && self.hello.choice.is_none() {
            if !self.hello.offer.holds_without_names(&self.hello.side, Checksum::Md4) {
                return Err(self.none_common(Checksum::Md4.name().as_bytes()));
            }
            self.agreed.checksum = Checksum::SeededMd4(self.agreed.seed);
            self.agreed.list_checksum = Checksum::Md4;
        }
        Ok(())
    }

    /// The inbox, with what came after the handshake, not yet taken apart.
    pub fn into_inbox(self) -> Inbox {
        self.inbox
    }

    /// The version, once both have said theirs.
    pub fn version(&self) -> Option<u8> {
        (self.state != HandshakeState::Version).then_some(self.agreed.version)
    }

    /// True once the peer has said anything.
    pub fn heard(&self) -> bool {
        self.state != HandshakeState::Version || !self.inbox.is_empty()
    }

    /// The bytes that have arrived and could not be used, for a message about a talkative remote shell.
    pub fn unread(&self) -> &[u8] {
        self.inbox.payload()
    }

    fn step(&mut self, out: &mut Outbox) -> Result<bool, Decode> {
        let mut reader = self.inbox.reader();
        let next = match self.state {
            HandshakeState::Version => {
                self.agreed.version = self.hello.version.min(peer_version(reader.int()?.into())?);
                let used = reader.position();
                self.inbox.consume(used);
                self.state = self.met(out);
                return Ok(false);
            }
            HandshakeState::Compat => {
                let compat = Compat(reader.varint()? as u32);
                if compat.has(Compat::INC_RECURSE) && !self.hello.incremental {
                    return Err(PeerError::NotOffered("incremental recursion").into());
                }
                self.agreed.compat = compat;
                if !self.hears_first() {
                    self.offer(out);
                }
                HandshakeState::Strings
            }
            HandshakeState::Strings => {
                let mut said = Vec::new();
                if self.negotiates_checksum() {
                    let chosen = self.choose(names(&mut reader)?)?;
                    (self.agreed.checksum, self.agreed.list_checksum) = (chosen, chosen);
                    put_vstring(&mut said, chosen.name().as_bytes());
                } else if self.hello.choice.is_none()
                    && !self.hello.offer.holds_without_names(&self.hello.side, Checksum::Md5)
                {
                    // What there is without negotiation.
                    return Err(self.none_common(Checksum::Md5.name().as_bytes()).into());
                }
                if self.negotiates_compression() {
                    let theirs = names(&mut reader)?;
                    let agreed = self.hello.compression.agree(theirs, self.is_server());
                    self.agreed.compression = agreed.ok_or_else(|| PeerError::NoCommonCompression {
                        ours: self.hello.compression.list(self.is_server()),
                        theirs: String::from_utf8_lossy(theirs).into_owned(),
                    })?;
                    put_vstring(&mut said, self.agreed.compression.method.name().as_bytes());
                }
                if self.hears_first() {
                    out.put(&said);
                }
                HandshakeState::Seed
            }
            HandshakeState::Seed => {
                if let Side::Client = self.hello.side {
                    self.agreed.seed = reader.int()?;
                }
                let used = reader.position();
                self.inbox.consume(used);
                return Ok(true);
            }
        };
        let used = reader.position();
        self.inbox.consume(used);
        self.state = next;
        Ok(false)
    }

    fn negotiates_checksum(&self) -> bool {
        self.hello.choice.is_none() && self.agreed.compat.has(Compat::VARINT_FLIST_FLAGS)
    }

    fn negotiates_compression(&self) -> bool {
        let open = matches!(self.hello.compression.choice, Choice::Negotiated | Choice::Among(_));
        open && self.agreed.compat.has(Compat::VARINT_FLIST_FLAGS)
    }

    /// Whether we name what we take only when we have heard what there is.
    fn hears_first(&self) -> bool {
        let listed =
            matches!(self.hello.offer, Offer::These(_)) || matches!(self.hello.compression.choice, Choice::Among(_));
        listed && !self.is_server()
    }

    fn is_server(&self) -> bool {
        matches!(self.hello.side, Side::Server { .. })
    }

    /// Writes the lists of what we know, each where it is asked for.
    fn offer(&self, out: &mut Outbox) {
        let mut bytes = Vec::new();
        if self.negotiates_checksum() {
            let names: Vec<_> = self.hello.offer.list(&self.hello.side).into_iter().map(Checksum::name).collect();
            // So stock says that nothing will do.
            let names = if names.is_empty() { "INVALID".into() } else { names.join(" ") };
            put_vstring(&mut bytes, names.as_bytes());
        }
        if self.negotiates_compression() {
            put_vstring(&mut bytes, self.hello.compression.list(self.is_server()).as_bytes());
        }
        out.put(&bytes);
    }

    fn choose(&self, theirs: &[u8]) -> Result<Checksum, PeerError> {
        let ours = self.hello.offer.list(&self.hello.side);
        let peer: Vec<_> = theirs.split(|&byte| byte == b' ').filter_map(Checksum::from_name).collect();
        let (wanted, had) = match self.hello.side {
            Side::Client => (&ours, &peer),
            Side::Server { .. } => (&peer, &ours),
        };
        // Blake3 stands last in every list and still comes first.
        std::iter::once(&Checksum::Blake3)
            .chain(wanted)
            .find(|checksum| wanted.contains(checksum) && had.contains(checksum))
            .copied()
            .ok_or_else(|| self.none_common(theirs))
    }

    fn none_common(&self, theirs: &[u8]) -> PeerError {
        let ours: Vec<_> = self.hello.offer.list(&self.hello.side).into_iter().map(Checksum::name).collect();
        PeerError::NoCommonChecksum { ours: ours.join(" "), theirs: String::from_utf8_lossy(theirs).into_owned() }
    }
}

/// A list of names from the peer.
fn names<'a>(reader: &mut Reader<'a>) -> Decoded<&'a [u8]> {
    let names = reader.vstring()?;
    if names.len() > STRING_MOST {
        return Err(PeerError::Malformed("a negotiation string of more than 255 bytes").into());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(
        client: Offer,
        letters: &[u8],
        server: Offer,
        choice: Option<(Checksum, Checksum)>,
    ) -> (Negotiated, Negotiated) {
        let mut to_server = Outbox::new();
        let mut to_client = Outbox::new();
        let hello = |side, offer, version| Hello { choice, offer, incremental: true, ..Hello::new(side, version) };
        let mut client = Handshake::new(hello(Side::Client, client, 32), &mut to_server);
        let side = Side::Server { letters: letters.to_vec(), seed: -5 };
        let mut server = Handshake::new(hello(side, server, 31), &mut to_client);
        let (mut a, mut b) = (None, None);
        for _ in 0..200 {
            // One byte at a time: nothing may depend on how the bytes come.
            let bytes = to_client.bytes().to_vec();
            to_client.clear();
            for byte in bytes {
                client.feed(&[byte]).unwrap();
                a = a.or(client.poll(&mut to_server).unwrap());
            }
            let bytes = to_server.bytes().to_vec();
            to_server.clear();
            for byte in bytes {
                server.feed(&[byte]).unwrap();
                b = b.or(server.poll(&mut to_client).unwrap());
            }
        }
        (a.unwrap(), b.unwrap())
    }

    #[test]
    fn both_sides_agree() {
        for letters in [&b"LsfxCIvu"[..], b"Lsf", b"LsfxC"] {
            for offer in [Offer::Stock, Offer::Blake3, Offer::Only(Checksum::Md5)] {
                let (a, b) = meet(offer, letters, Offer::Stock, None);
                assert_eq!(a, b);
                assert_eq!((a.version, a.seed), (31, -5));
                let expected = match offer {
                    _ if !letters.contains(&b'v') => Checksum::Md5,
                    Offer::Stock => Checksum::Xxh128,
                    Offer::Blake3 => Checksum::Blake3,
                    Offer::Only(checksum) => checksum,
                    Offer::These(_) | Offer::Unnamed => unreachable!(),
                };
                assert_eq!(a.checksum, expected);
            }
        }
        let choice = Some((Checksum::Sha1, Checksum::Md4));
        let (a, b) = meet(Offer::Stock, b"v", Offer::Stock, choice);
        assert_eq!((a.checksum, a.list_checksum), (Checksum::Sha1, Checksum::Md4));
        assert_eq!(a, b);
    }

    #[test]
    fn versions_agreed_before_are_not_said_again() {
        let (mut to_server, mut to_client) = (Outbox::new(), Outbox::new());
        let hello = |side| Hello::new(side, 31);
        let mut client = Handshake::agreed(hello(Side::Client), &mut to_server);
        let side = Side::Server { letters: b"LsfxCIvu".to_vec(), seed: -5 };
        let mut server = Handshake::agreed(hello(side), &mut to_client);
        assert_eq!((to_server.len(), to_client.bytes()[0] & 0x80), (0, 0x80));
        client.feed(to_client.bytes()).unwrap();
        let a = client.poll(&mut to_server).unwrap().unwrap();
        server.feed(to_server.bytes()).unwrap();
        let b = server.poll(&mut to_client).unwrap().unwrap();
        assert_eq!((a, a.version, a.checksum), (b, 31, Checksum::Xxh128));
    }

    #[test]
    fn a_server_follows_its_client() {
        let mut out = Outbox::new();
        let side = Side::Server { letters: b"v".to_vec(), seed: 1 };
        let hello = Hello::new(side, 32);
        let mut server = Handshake::new(hello, &mut out);
        server.feed(b"\x20\0\0\0\x10sha512 md5 xxh64").unwrap();
        assert_eq!(server.poll(&mut out).unwrap().unwrap().checksum, Checksum::Md5);
    }

    #[test]
    fn stock_lists_are_never_reordered() {
        let names =
            |offer: Offer, side| offer.list(&side).into_iter().map(Checksum::name).collect::<Vec<_>>().join(" ");
        let server = || Side::Server { letters: Vec::new(), seed: 0 };
        assert_eq!(names(Offer::Stock, Side::Client), "xxh128 xxh3 xxh64 md5 md4 sha1");
        assert_eq!(names(Offer::Blake3, Side::Client), "xxh128 xxh3 xxh64 md5 md4 sha1 blake3");
        assert_eq!(names(Offer::Stock, server()), "xxh128 xxh3 xxh64 md5 md4 sha1 none blake3");
    }

    /// A client with a list of its own agrees with servers that follow it and with servers that follow their own list.
    #[test]
    fn a_list_of_the_users_is_followed() {
        let these = |checksums: &[Checksum]| {
            let mut list = [None; 8];
            list.iter_mut().zip(checksums).for_each(|(place, &checksum)| *place = Some(checksum));
            Offer::These(list)
        };
        let (ours, theirs) = (these(&[Checksum::Md5, Checksum::Xxh64]), these(&[Checksum::Xxh64, Checksum::Md5]));
        for (client, server, wanted) in [
            (ours, Offer::Stock, Checksum::Md5),
            (ours, theirs, Checksum::Md5),
            (Offer::Stock, theirs, Checksum::Xxh64),
            (these(&[Checksum::None]), Offer::Stock, Checksum::None),
        ] {
            let (a, b) = meet(client, b"v", server, None);
            assert_eq!((a, a.checksum), (b, wanted));
        }
        let hello =
            |offer, choice| Hello { offer, compression: Wish { choice, level: None }, ..Hello::new(Side::Client, 32) };
        let mut methods = [None; 5];
        (methods[0], methods[1]) = (Some(Method::Lz4), Some(Method::Zlib));
        let mut out = Outbox::new();
        let mut client = Handshake::new(hello(ours, Choice::Among(methods)), &mut out);
        out.clear();
        client.feed(b"\x20\0\0\0\x80\x80\x15xxh128 xxh3 xxh64 md5\x0dzstd lz4 zlib\0\0\0\0").unwrap();
        let agreed = client.poll(&mut out).unwrap().unwrap();
        assert_eq!((agreed.checksum, agreed.compression.method), (Checksum::Md5, Method::Lz4));
        assert_eq!(out.bytes()[..8], *b"\x03md5\x03lz4");
        // Without negotiation there is only MD5.
        for (offer, agrees) in [(ours, true), (these(&[Checksum::Xxh64]), false), (these(&[]), false)] {
            let mut client = Handshake::new(hello(offer, Choice::Off), &mut Outbox::new());
            client.feed(&[31, 0, 0, 0, 0x02, 7, 0, 0, 0]).unwrap();
            assert_eq!(client.poll(&mut Outbox::new()).is_ok(), agrees);
        }
    }

    #[test]
    fn old_and_talkative_peers_are_refused() {
        for (bytes, too_old) in
            [(26i32.to_le_bytes(), true), (20i32.to_le_bytes(), true), (*b"Welc", false), (41i32.to_le_bytes(), false)]
        {
            let mut out = Outbox::new();
            let hello = Hello::new(Side::Client, 32);
            let mut client = Handshake::new(hello, &mut out);
            client.feed(&bytes).unwrap();
            match client.poll(&mut out) {
                Err(PeerError::TooOld(_)) => assert!(too_old),
                other => assert!(matches!(other, Err(PeerError::Version(_))) && !too_old),
            }
        }
    }

    #[test]
    fn a_peer_of_33_is_met_at_32() {
        let mut out = Outbox::new();
        let hello = Hello::new(Side::Client, 32);
        let mut client = Handshake::new(hello, &mut out);
        client.feed(&[33, 0, 0, 0, 0x02, 7, 0, 0, 0]).unwrap();
        let agreed = client.poll(&mut out).unwrap().unwrap();
        assert_eq!((agreed.version, agreed.seed, agreed.checksum), (32, 7, Checksum::Md5));
    }
}
