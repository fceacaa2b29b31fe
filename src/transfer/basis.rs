//! Which file the blocks of a request are of, as the generator says it and the sender echoes it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use protocol::flist::Ndx;
use protocol::item::{ItemFlags, ItemHeader};
use protocol::sums::SumHead;

use super::dest::{Dest, DestError, Whole};
use super::stager::StagedFile;

/// Basis type on the wire: what an earlier try left.
const PARTIAL: u8 = 0x81;
/// Basis type on the wire: the backup of a file that is written in place.
const BACKUP: u8 = 0x82;
/// Basis type on the wire: a file of a similar name; from here on, in the alternative destinations.
const FUZZY: u8 = 0x83;

/// The file that is built upon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Basis {
    /// What stands at the name already, if anything.
    #[default]
    Destination,
    /// What an earlier try left in its own place.
    Partial,
    /// What others have written ahead of the session. On the wire it is what an earlier try left.
    Staged(StagedFile),
    /// The backup of a file that is written in place.
    Backup,
    /// The file of the same name in an alternative destination.
    Alternative(u8),
    /// A file of a similar name in the same directory.
    Fuzzy(Vec<u8>),
    /// A file of a similar name in the same directory of an alternative destination.
    FuzzyAlternative(u8, Vec<u8>),
}

impl Basis {
    /// Adds what is said of the basis to a header.
    pub(super) fn put(&self, header: &mut ItemHeader) {
        let (kind, name) = match self {
            Self::Destination => return,
            Self::Partial | Self::Staged(_) => (PARTIAL, None),
            Self::Backup => (BACKUP, None),
            Self::Alternative(number) => (*number, None),
            Self::Fuzzy(name) => (FUZZY, Some(name)),
            Self::FuzzyAlternative(number, name) => (FUZZY.saturating_add(1).saturating_add(*number), Some(name)),
        };
        header.flags = header.flags.and(ItemFlags::BASIS_TYPE).with(ItemFlags::XNAME, name.is_some());
        header.basis = Some(kind);
        header.xname = name.cloned();
    }

    /// Opens the file for `name`; `None` where nothing usable stands.
    pub(super) fn open(&self, dest: &Dest, name: &[u8]) -> Result<Option<File>, DestError> {
        let alternative = |number: u8, name: &[u8]| match dest.alternative(number) {
            Some(there) => there.basis(name),
            None => Ok(None),
        };
        match self {
            Self::Destination => dest.basis(name),
            Self::Partial => dest.open_partial(name),
            Self::Staged(staged) => {
                staged.reader().map(Some).map_err(|source| DestError { action: "open", name: name.to_vec(), source })
            }
            Self::Backup => dest.open_backup(name),
            Self::Alternative(number) => alternative(*number, name),
            Self::Fuzzy(leaf) => dest.basis(&beside(name, leaf)),
            Self::FuzzyAlternative(number, leaf) => alternative(*number, &beside(name, leaf)),
        }
    }
}

fn beside(name: &[u8], leaf: &[u8]) -> Vec<u8> {
    let above = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    [&name[..above], leaf].concat()
}

/// What was asked for; the answer must agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Proposal {
    /// What was said of the basis.
    pub(super) basis: Basis,
    /// The cut of the basis that was announced.
    pub(super) head: SumHead,
    /// Only what lies behind the basis comes.
    pub(super) append: bool,
    /// An earlier try was found in its place.
    pub(super) partial: bool,
    /// The file's length, where its basis was not worth reading.
    pub(super) asked_whole: Option<u64>,
    /// What the basis comes to as a whole, once its sums are out: a file that stays need not be read again.
    pub(super) whole: Option<Arc<OnceLock<Whole>>>,
}

impl Proposal {
    /// Whether an answer builds upon the file that was named. Anything else would let the peer choose what is read here.
    pub(super) fn agrees(&self, answer: &ItemHeader) -> bool {
        // Before protocol 29 nothing is said of it, here or there.
        if answer.flags.has(ItemFlags::UNTOLD) {
            return true;
        }
        let mut said = ItemHeader::default();
        self.basis.put(&mut said);
        let name = |header: &ItemHeader| header.xname.clone().unwrap_or_default();
        said.basis == answer.basis && name(&said) == name(answer)
    }
}

/// What was asked for and has not come yet. The generator adds, the receiver takes.
#[derive(Debug, Default)]
pub(super) struct Proposals(Mutex<HashMap<Ndx, Proposal>>);

impl Proposals {
    pub(super) fn put(&self, ndx: Ndx, asked: Proposal) {
        self.lock().insert(ndx, asked);
    }

    pub(super) fn take(&self, ndx: Ndx) -> Option<Proposal> {
        self.lock().remove(&ndx)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ndx, Proposal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a sender answers decides nothing: a byte or name that was not said is refused.
    #[test]
    fn an_answer_names_the_basis_that_was_asked_for() {
        let bases = [
            Basis::Destination,
            Basis::Partial,
            Basis::Backup,
            Basis::Alternative(1),
            Basis::Fuzzy(b"near".to_vec()),
            Basis::FuzzyAlternative(1, b"near".to_vec()),
        ];
        for asked in &bases {
            for answered in &bases {
                let mut header = ItemHeader::default();
                answered.put(&mut header);
                let order = Proposal { basis: asked.clone(), ..Proposal::default() };
                assert_eq!(order.agrees(&header), asked == answered, "{asked:?} {answered:?}");
            }
        }
        let order = Proposal { basis: Basis::Fuzzy(b"near".to_vec()), ..Proposal::default() };
        for name in [&b"../../etc/passwd"[..], b"", b"near/"] {
            let header = ItemHeader { basis: Some(0x83), xname: Some(name.to_vec()), ..ItemHeader::default() };
            assert!(!order.agrees(&header));
        }
    }
}
