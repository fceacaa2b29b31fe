//! What a file comes to, read once from where it stands to its end.

use protocol::checksum::{Checksum, FileHasher, Sum};
use std::io::{self, ErrorKind, Read};

/// Bytes asked for by one read.
const PIECE: usize = 256 * 1024;

/// A file's length and BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Length, bytes.
    pub len: u64,
    /// BLAKE3 of all bytes.
    pub blake3: Sum,
}

/// Hands over the bytes piece by piece; returns how many they were.
pub(crate) fn each_piece(file: &mut impl Read, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut len = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(n) => {
                take(&buffer[..n]);
                len += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The whole-file sum, and the length.
pub(crate) fn sum_of(file: &mut impl Read, checksum: Checksum) -> io::Result<(Sum, u64)> {
    let mut hasher = FileHasher::new(checksum);
    let len = each_piece(file, |bytes| hasher.update(bytes))?;
    Ok((hasher.finish(), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and is interrupted before each.
    struct Halting<'a>(&'a [u8], bool);

    impl Read for Halting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            let most = buffer.len().min(3);
            if self.1 { Err(ErrorKind::Interrupted.into()) } else { self.0.read(&mut buffer[..most]) }
        }
    }

    #[test]
    fn a_file_is_summed_to_its_end_however_it_comes() {
        let (sum, len) = sum_of(&mut Halting(b"message digest", false), Checksum::Md5).unwrap();
        assert_eq!((sum.to_string().as_str(), len), ("f96b697d7cb7938d525a2f31aaf161d0", 14));
    }
}
