//! The text that comes before a daemon's session: greeting, module, challenge and answer, arguments. Counterpart: rsync's
//! `clientserver.c` and `authenticate.c`.
//!
//! [`Client`] and [`Server`] are the two ends. Like every machine here they take bytes as they come, and bound what an
//! unknown peer may make them keep.

mod args;
mod client;
mod digest;
mod lines;
mod server;
#[cfg(test)]
mod tests;

pub use args::ArgList;
pub use client::{Client, ClientEvent};
pub use digest::{AuthDigest, matches};
pub use server::{EARLY_INPUT_MOST, Server, ServerEvent};

use crate::PeerError;
use crate::handshake::{VERSION_MOST, peer_version};

/// What stands before everything that is not meant for a user's eyes.
const MARK: &[u8] = b"@RSYNCD: ";
/// From this version on a peer must list its digests.
const DIGESTS_REQUIRED: u8 = 32;

/// The first line of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The protocol version it announces.
    pub version: u8,
    /// The digests it has for challenges, in its order; `None` where it lists none, as before rsync 3.2.7.
    pub digests: Option<Vec<AuthDigest>>,
}

impl Greeting {
    /// Our own line for a version.
    pub fn line(version: u8) -> Vec<u8> {
        let names: Vec<_> = AuthDigest::ALL.into_iter().map(AuthDigest::name).collect();
        [MARK, format!("{version}.0 {}\n", names.join(" ")).as_bytes()].concat()
    }

    /// Reads a line without its end.
    pub fn parse(line: &[u8]) -> Result<Self, PeerError> {
        let malformed = || PeerError::Malformed("no rsync daemon's greeting (is another service on that port?)");
        let text = std::str::from_utf8(line.strip_prefix(MARK).ok_or_else(malformed)?).map_err(|_| malformed())?;
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let version = words.next().ok_or_else(malformed)?;
        let (main, sub) = version.split_once('.').map_or((version, None), |(main, sub)| (main, Some(sub)));
        let main: i64 = main.parse().map_err(|_| malformed())?;
        let sub: u8 = sub.map_or(Ok(0), str::parse).map_err(|_| malformed())?;
        // A pre-release of a version that both name is met one below.
        let version = peer_version(if sub > 0 { main - 1 } else { main })?;
        let names: Vec<_> = words.collect();
        let digests = (!names.is_empty()).then(|| names.into_iter().filter_map(AuthDigest::from_name).collect());
        if digests.is_none() && main >= i64::from(DIGESTS_REQUIRED) {
            return Err(PeerError::Malformed("the greeting lacks the list of digests"));
        }
        Ok(Self { version, digests })
    }

    /// The version of a session with this peer, where we announce `ours`.
    pub fn agreed(&self, ours: u8) -> u8 {
        self.version.min(ours).min(VERSION_MOST)
    }

    /// The digest of a challenge with this peer, where we announce `ours`; `None` where the lists have nothing in common.
    pub fn digest(&self, ours: u8) -> Option<AuthDigest> {
        match &self.digests {
            // Both ends list in the same order, so the first of ours that is theirs is the first of theirs that is ours.
            Some(theirs) => AuthDigest::ALL.into_iter().find(|digest| theirs.contains(digest)),
            None if self.agreed(ours) < 30 => Some(AuthDigest::OldMd4),
            None => Some(AuthDigest::Md5),
        }
    }
}
