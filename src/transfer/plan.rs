//! How to send, and how to receive.

use super::dest::in_place;
use super::filters::ClientRules;
use super::guard::Guard;
use super::help::{Help, OfferedFile};
use super::receive::Expected;
use super::stager::Stager;
use super::suffixes::Suffixes;
use protocol::args::{Debug, Options};
use protocol::filter::Rule;
use protocol::flist::{ListLimits, ListShape};
use protocol::handshake::Negotiated;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Block sums kept of one file: 24 MiB of memory, enough for a basis of 128 GiB. Beyond, a file is sent whole.
const SUMS_MOST: u32 = 1 << 20;
/// Memory for the sums of one block, bytes.
const SUM_SIZE: u64 = 24;

/// How to send.
#[derive(Debug, Clone, Default)]
pub struct SendPlan {
    /// What the entries of the list carry.
    pub shape: ListShape,
    /// How those rules are read.
    pub client_rules: ClientRules,
    /// Nothing is transferred.
    pub dry_run: bool,
    /// No search for known blocks.
    pub whole_file: bool,
    /// The receiving side writes over its own basis.
    pub in_place: bool,
    /// The receiving side has the beginning of each file already; 2: and proves it.
    pub append: u8,
    /// Most bytes of memory for one purpose (`--max-alloc`), where that is less than our own bounds; 0 for none.
    pub max_alloc: u64,
    /// Names whose files are not worth compressing.
    pub skip_compress: Suffixes,
    /// The user's filter rules, for a server that hears them (see [`Options::receiver_hears_rules`]); else nothing.
    ///
    /// [`Options::receiver_hears_rules`]: protocol::args::Options::receiver_hears_rules
    pub rules: Option<Vec<Rule>>,
    /// The names of what to send come from the peer (`--files-from`).
    pub names_from_peer: bool,
    /// File data goes into the batch file only (`--only-write-batch`).
    pub only_batch: bool,
    /// The user is told what the search for known blocks came to.
    pub tells_matches: bool,
    /// The observer is told the BLAKE3 of each file sent.
    pub digests: bool,
    /// Others who may send files in the place of this session.
    pub help: Option<Arc<Help<OfferedFile>>>,
    /// The ends' time limit in seconds (`--timeout`).
    pub timeout: Option<u32>,
}

impl SendPlan {
    /// What the options ask of a sender, whichever end it is.
    pub(crate) fn of(options: &Options, agreed: &Negotiated) -> Self {
        Self {
            shape: options.list_shape(agreed.list_checksum.size()),
            dry_run: options.dry_run,
            whole_file: options.whole_file,
            in_place: in_place(options),
            append: options.append,
            max_alloc: options.max_alloc.unwrap_or(0),
            skip_compress: options.skip_compress.as_deref().map(Suffixes::new).unwrap_or_default(),
            tells_matches: options.level(Debug::Deltasum) > 0,
            timeout: options.timeout.filter(|&seconds| seconds > 0),
            ..Self::default()
        }
    }

    /// How long the peer may hear nothing while others are at work.
    pub(super) fn silence_most(&self) -> Duration {
        const LONG: Duration = Duration::from_secs(30);
        self.timeout.map_or(LONG, |seconds| (Duration::from_secs(seconds.into()) / 3).min(LONG))
    }

    pub(super) fn sums_most(&self) -> u32 {
        match self.max_alloc {
            0 => SUMS_MOST,
            bytes => u32::try_from(bytes / SUM_SIZE).unwrap_or(u32::MAX).min(SUMS_MOST),
        }
    }
}

/// How to receive.
#[derive(Debug, Clone, Default)]
pub struct ReceivePlan {
    /// What the options ask for.
    pub options: Options,
    /// Where to, as rsync's destination argument: an existing directory is entered; with several files, or a slash at the end, a missing
    /// one is made; otherwise it names the single file.
    pub destination: PathBuf,
    /// How much file list is accepted.
    pub limits: ListLimits,
    /// The filter rules as the user gave them; of a server those for it alone, it hears the others from its client.
    pub rules: Vec<Rule>,
    /// Those that a server will hear, where its client is in the same process.
    pub known: Vec<Rule>,
    /// The names to ask for, where `--files-from=-` tells the server that the client has them.
    pub asked: Option<Vec<u8>>,
    /// What the sender may list.
    pub expected: Expected,
    /// What a daemon's module keeps to itself.
    pub guard: Option<Guard>,
    /// Others who may bring a large file.
    pub stager: Option<Arc<dyn Stager>>,
}

impl ReceivePlan {
    /// What the options ask of a receiving side, whichever end it is.
    pub(crate) fn of(options: &Options, destination: &[u8]) -> Self {
        // What goes into a batch file only changes nothing here; a server asks for what its client would send.
        let dry_run = options.dry_run || options.only_write_batch;
        Self {
            options: Options { dry_run, ..options.clone() },
            destination: PathBuf::from(OsStr::from_bytes(destination)),
            limits: ListLimits::within(options.max_alloc.unwrap_or(0)),
            ..Self::default()
        }
    }
}
