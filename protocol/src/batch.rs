//! The head of a batch file: what a recorded session was like. Behind it stands the sender's stream without its framing.
//! Counterpart: rsync's `batch.c`.

use crate::PeerError;
use crate::args::Options;
use crate::checksum::Checksum;
use crate::compress::{Compression, Method};
use crate::handshake::{Compat, Negotiated, VERSION_LEAST};
use crate::wire::{Decoded, Reader, put_varint};

/// What the stream's form depends on: its option as it is typed, and its bit.
pub(crate) const FLAGS: [(&str, u32); 15] = [
    ("--recurse (-r)", 0),
    ("--owner (-o)", 1),
    ("--group (-g)", 2),
    ("--links (-l)", 3),
    ("--devices (-D)", 4),
    ("--hard-links (-H)", 5),
    ("--checksum (-c)", 6),
    ("--dirs (-d)", 7),
    ("--compress (-z)", 8),
    ("--iconv", ICONV),
    ("--acls (-A)", 10),
    ("--xattrs (-X)", 11),
    ("--inplace", 12),
    ("--append", 13),
    ("--append-verify", 14),
];
const ICONV: u32 = 9;

/// The head of a batch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHead {
    /// One bit for each option that gives the stream its form.
    flags: u32,
    /// Protocol version.
    pub version: u8,
    /// The session's compatibility flags.
    pub compat: Compat,
    /// Seed of block sums.
    pub seed: i32,
}

/// A batch that was made with other options cannot be read with these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BatchMismatch(&'static str);

impl BatchHead {
    /// The head of a recording of this session.
    pub fn new(options: &Options, n: &Negotiated) -> Self {
        Self { flags: flags_of(options), version: n.version, compat: n.compat, seed: n.seed }
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.flags.to_le_bytes().to_vec();
        bytes.extend_from_slice(&u32::from(self.version).to_le_bytes());
        if self.version >= 30 {
            put_varint(&mut bytes, self.compat.0 as i32);
        }
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        bytes
    }

    /// Reads it. A version beyond `newest`, or one that we never spoke, is refused.
    pub fn decode(reader: &mut Reader<'_>, newest: u8) -> Decoded<Self> {
        let flags = reader.uint()?;
        let version = reader.int()?;
        if version > newest.into() {
            return Err(PeerError::BatchTooNew { version: version.into(), newest }.into());
        }
        let version = u8::try_from(version).ok().filter(|&version| version >= VERSION_LEAST);
        let version = version.ok_or(PeerError::Malformed("a batch file of a version that is not spoken any more"))?;
        let compat = Compat(if version < 30 { 0 } else { reader.varint()? as u32 });
        Ok(Self { flags, version, compat, seed: reader.int()? })
    }

    /// Changes the options to those the stream was made with. Returns what was changed, for the user.
    ///
    /// # Errors
    /// Where that cannot be done.
    pub fn apply(&self, options: &mut Options) -> Result<Vec<String>, BatchMismatch> {
        let given = flags_of(options);
        let mut told = Vec::new();
        for (name, bit) in FLAGS {
            let wanted = self.flags >> bit & 1 == 1;
            if wanted == (given >> bit & 1 == 1) {
                continue;
            }
            if bit == ICONV {
                return Err(BatchMismatch(match wanted {
                    true => "Please specify the --iconv option to use this batch file.",
                    false => "Do not specify the --iconv option to use this batch file.",
                }));
            }
            let verb = if wanted { "Setting" } else { "Clearing" };
            told.push(format!("{verb} the {name} option to match the batchfile."));
        }
        let has = |bit: u32| self.flags >> bit & 1 == 1;
        (options.recurse, options.dirs) = (has(0), has(7) && !has(0));
        (options.owner, options.group) = (has(1), has(2));
        (options.links, options.devices) = (has(3), has(4));
        (options.hard_links, options.checksum) = (has(5), has(6));
        if !has(8) {
            (options.compress, options.compress_level, options.compress_choice) = (false, None, None);
        }
        options.compress = has(8);
        options.acls = has(10);
        options.xattrs = if has(11) { options.xattrs.max(1) } else { 0 };
        options.append = if has(14) { 2 } else { u8::from(has(13)) };
        options.inplace = has(12) && options.append == 0;
        if self.compat.has(Compat::INC_RECURSE) && !options.takes_segments() {
            return Err(BatchMismatch("Incompatible options specified for inc-recursive batch file."));
        }
        Ok(told)
    }

    /// What the recorded session had agreed on. Names of algorithms are not in the file: it is one of MD5 and zlib unless
    /// the options say otherwise.
    pub fn negotiated(&self, options: &Options) -> Negotiated {
        let unnamed = match self.version {
            ..30 => (Checksum::SeededMd4(self.seed), Checksum::Md4),
            _ => (Checksum::Md5, Checksum::Md5),
        };
        let (checksum, list_checksum) = options.checksum_choice.unwrap_or(unnamed);
        let method = match (options.compress, options.compress_choice.as_deref().and_then(Method::from_name)) {
            (false, _) => Method::None,
            (true, Some(method)) => method,
            (true, None) => Method::Zlib,
        };
        let compression = Compression::new(method, None);
        Negotiated { version: self.version, compat: self.compat, checksum, list_checksum, seed: self.seed, compression }
    }
}

fn flags_of(options: &Options) -> u32 {
    let set = [
        options.recurse,
        options.owner,
        options.group,
        options.links,
        options.devices,
        options.hard_links,
        options.checksum,
        options.recurse || options.dirs,
        options.compress || options.compress_level.is_some(),
        options.iconv.is_some(),
        options.acls,
        options.xattrs > 0,
        options.inplace || options.append > 0 || options.write_devices,
        options.append == 1,
        options.append > 1,
    ];
    set.into_iter().enumerate().fold(0, |flags, (bit, set)| flags | u32::from(set) << bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decode;
    use proptest::prelude::*;

    /// As stock rsync 3.5.0 wrote it for `-aH`.
    const STOCK: [u8; 14] = [0xbf, 0, 0, 0, 0x20, 0, 0, 0, 0x81, 0xff, 0xb4, 0xae, 0x0f, 0x6b];

    fn archive() -> Options {
        let on = true;
        Options { recurse: on, owner: on, group: on, links: on, devices: on, hard_links: on, ..Options::default() }
    }

    #[test]
    fn a_head_is_stock_rsyncs() {
        let head = BatchHead::decode(&mut Reader::new(&STOCK), 32).unwrap();
        assert_eq!((head.version, head.compat, head.seed), (32, Compat(0x1ff), 0x6b0f_aeb4));
        let n = head.negotiated(&archive());
        assert_eq!(BatchHead::new(&archive(), &n).encode(), STOCK);
        assert!(matches!(
            BatchHead::decode(&mut Reader::new(&STOCK), 31),
            Err(Decode::Bad(PeerError::BatchTooNew { version: 32, newest: 31 }))
        ));
    }

    #[test]
    fn options_follow_the_batch() {
        let head = BatchHead::decode(&mut Reader::new(&STOCK), 32).unwrap();
        let mut options = Options { checksum: true, xattrs: 2, compress: true, append: 1, ..archive() };
        let told = head.apply(&mut options).unwrap();
        assert_eq!(options, archive());
        let names: Vec<_> = told.iter().map(|text| text.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
        let clearing = ["--checksum", "--compress", "--xattrs", "--inplace", "--append"];
        assert_eq!(names, clearing.map(|name| format!("Clearing the {name}")));
        assert!(head.apply(&mut Options { iconv: Some(b".".to_vec()), ..archive() }).is_err());
        assert!(head.apply(&mut Options { delay_updates: true, ..archive() }).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_a_head_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            if let Ok(head) = BatchHead::decode(&mut Reader::new(&bytes), 32) {
                prop_assert!((27..=32).contains(&head.version));
                let mut options = Options::default();
                if head.apply(&mut options).is_ok() {
                    prop_assert!(head.apply(&mut options).is_ok_and(|told| told.is_empty() || head.flags >> 12 & 7 > 0));
                }
            }
        }
    }
}
