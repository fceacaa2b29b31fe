//! Lines out of bytes, each bounded.

use crate::PeerError;

/// Longest line of either side, without its end.
pub(crate) const LINE_MOST: usize = 8192;

/// Bytes that have arrived and not been used.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end and without carriage returns.
    pub(super) fn line(&mut self) -> Result<Option<Vec<u8>>, PeerError> {
        let end = self.bytes.iter().take(LINE_MOST + 1).position(|&byte| byte == b'\n');
        let seen = &self.bytes[..end.unwrap_or(self.bytes.len().min(LINE_MOST + 1))];
        if seen.contains(&0) {
            return Err(PeerError::Malformed("a zero byte before the session"));
        }
        let Some(end) = end else {
            return match seen.len() > LINE_MOST {
                true => Err(PeerError::Malformed("an endless line before the session")),
                false => Ok(None),
            };
        };
        let line = seen.iter().copied().filter(|&byte| byte != b'\r').collect();
        self.bytes.drain(..=end);
        Ok(Some(line))
    }

    /// Exactly `len` bytes.
    pub(super) fn exact(&mut self, len: usize) -> Option<Vec<u8>> {
        (self.bytes.len() >= len).then(|| self.bytes.drain(..len).collect())
    }

    /// All that waits.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}
