//! What was agreed with a peer, in a few bytes before its own.

use protocol::checksum::Checksum;
use protocol::compress::{Compression, Method};
use protocol::flist::ListShape;
use protocol::handshake::{Compat, Negotiated};

const CHECKSUMS: [Checksum; 8] = [
    Checksum::Md5,
    Checksum::Md4,
    Checksum::Sha1,
    Checksum::Xxh64,
    Checksum::Xxh3,
    Checksum::Xxh128,
    Checksum::None,
    Checksum::Blake3,
];
const METHODS: [Method; 5] = [Method::None, Method::Zlib, Method::Zlibx, Method::Lz4, Method::Zstd];
/// Bytes that it takes.
const LEN: usize = 12;

/// What was agreed, and how the bytes come.
pub(crate) struct Setup {
    pub(crate) n: Negotiated,
    pub(crate) shape: ListShape,
    /// Facts of a machine, by their bits.
    pub(crate) flags: u8,
    /// Bytes that come at once.
    pub(crate) chunk: usize,
}

impl Setup {
    /// Takes it from the beginning.
    pub(crate) fn read(data: &[u8]) -> Option<(Self, &[u8])> {
        let (&[version, c0, c1, c2, c3, sum, list_sum, method, low, high, flags, chunk], rest) =
            data.split_first_chunk::<LEN>()?;
        let version = 27 + version % 6;
        let checksum = |byte: u8| CHECKSUMS[usize::from(byte) % CHECKSUMS.len()];
        let bits = u16::from_le_bytes([low, high]);
        let on = |bit: u32| bits >> bit & 1 != 0;
        let list_checksum = checksum(list_sum);
        let compat = Compat(if version < 30 { 0 } else { u32::from_le_bytes([c0, c1, c2, c3]) });
        let compression = Compression::new(METHODS[usize::from(method) % METHODS.len()], None);
        let n = Negotiated { version, compat, checksum: checksum(sum), list_checksum, seed: 7, compression };
        let shape = ListShape {
            owner: on(0),
            group: on(1),
            links: on(2),
            devices: on(3),
            specials: on(4),
            numeric_ids: on(5),
            relative: on(6),
            missing_args: on(7),
            hard_links: on(8),
            recurse: on(9),
            charset: None,
            atimes: on(10),
            acls: on(11),
            xattrs: on(12),
            sum_size: if on(13) { list_checksum.size() } else { 0 },
        };
        Some((Self { n, shape, flags, chunk: usize::from(chunk) * 16 + 1 }, rest))
    }

    /// The bytes that say so; `None` of what they cannot say.
    pub(crate) fn bytes(&self) -> Option<[u8; LEN]> {
        let n = &self.n;
        let place = |sum: Checksum| CHECKSUMS.iter().position(|known| *known == sum).map(|at| at as u8);
        let method = METHODS.iter().position(|known| *known == n.compression.method)? as u8;
        let shape = &self.shape;
        let on = [
            shape.owner,
            shape.group,
            shape.links,
            shape.devices,
            shape.specials,
            shape.numeric_ids,
            shape.relative,
            shape.missing_args,
            shape.hard_links,
            shape.recurse,
            shape.atimes,
            shape.acls,
            shape.xattrs,
            shape.sum_size > 0,
        ];
        let bits = on.iter().enumerate().fold(0u16, |bits, (at, on)| bits | u16::from(*on) << at);
        let [low, high] = bits.to_le_bytes();
        let [c0, c1, c2, c3] = n.compat.0.to_le_bytes();
        let (sum, list_sum) = (place(n.checksum)?, place(n.list_checksum)?);
        let chunk = (self.chunk / 16).min(255) as u8;
        Some([n.version - 27, c0, c1, c2, c3, sum, list_sum, method, low, high, self.flags, chunk])
    }
}
