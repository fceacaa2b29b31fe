//! The file list at the receiving side, as it comes and as long as it is needed.

use super::Received;
use crate::disk::links;
use crate::transfer::TransferError;
use crate::transfer::chmod;
use crate::transfer::dest::umask;
use crate::transfer::generate::{Board, BoardNote};
use crate::transfer::ids::IdMap;
use crate::transfer::plan::ReceivePlan;
use crate::transfer::source::NO_SUCH_LETTER;
use crate::transfer::target::Coming;
use protocol::args::Options;
use protocol::chmod::Chmod;
use protocol::filter::{ParentDir, RuleSet};
use protocol::flist::{Arrived, FileEntry, FileList, Segments};
use protocol::handshake::{Compat, Negotiated};
use protocol::mux::{IO_GENERAL, Message, TextKind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A name as it came, which is in no set of ours: letter by letter where it is not plain ASCII.
fn spelt(name: &[u8]) -> String {
    let letter = |&byte: &u8| {
        if byte.is_ascii_graphic() || byte == b' ' { char::from(byte).into() } else { format!("\\#{byte:03o}") }
    };
    name.iter().map(letter).collect()
}

/// The lists that are in use.
pub(super) struct ReceivedLists {
    pub(super) segments: Segments<Arc<FileList>>,
    ids: IdMap,
    chmod: Option<Chmod>,
    pub(super) complete: bool,
    /// What the user is to hear of the lists.
    words: Vec<Message>,
    /// Who we are in these words: rsync has another name once the generator runs.
    who: &'static str,
}

impl ReceivedLists {
    pub(super) fn new(agreed: &Negotiated, options: &Options) -> Result<Self, TransferError> {
        let segments = Segments::new(agreed.compat.has(Compat::INC_RECURSE));
        let ids = IdMap::new(options)?;
        for trouble in &ids.unknown {
            crate::report::complain(trouble);
        }
        Ok(Self { segments, ids, chmod: chmod::asked(options)?, complete: false, words: Vec::new(), who: "Receiver" })
    }

    /// Takes a list that has arrived.
    pub(super) fn take(
        &mut self,
        arrived: Arrived,
        plan: &ReceivePlan,
        received: &mut Received,
    ) -> Result<Arc<FileList>, TransferError> {
        let Arrived { mut list, names, io_error, unconverted, .. } = arrived;
        received.io_error |= io_error;
        for lost in &unconverted {
            received.io_error |= IO_GENERAL;
            let who = self.who;
            let text = match lost.target {
                false => format!("[{who}] cannot convert filename: {}{NO_SUCH_LETTER}\n", spelt(&lost.name)),
                true => {
                    let path = plan.destination.join(OsStr::from_bytes(&lost.name));
                    let path = spelt(path.as_os_str().as_bytes());
                    format!("[{who}] cannot convert symlink data for: \"{path}\"{NO_SUCH_LETTER}\n")
                }
            };
            self.words.push(Message::Text(TextKind::ErrorXfer, text.into()));
        }
        list.join_contents();
        plan.expected.admit(&mut list)?;
        self.ids.learn(&names);
        self.ids.apply(&mut list)?;
        if let Some(chmod) = &self.chmod {
            let umask = umask();
            list.each(|entry| chmod.change(entry, umask));
        }
        if plan.options.munge_links {
            list.each(|entry| {
                if let Some(target) = &entry.extra.target {
                    entry.extra.target = Some(links::munged(target));
                }
            });
        }
        if plan.options.sanitize_links {
            list.each(|entry| {
                if let Some(target) = &entry.extra.target {
                    entry.extra.target = Some(links::sanitized(target, &entry.name));
                }
            });
        }
        let list = Arc::new(list);
        self.segments.add(&list, Arc::clone(&list))?;
        Ok(list)
    }

    /// Drops directories that hold nothing (`--prune-empty-dirs`), of a list that has come whole.
    pub(super) fn prune(&mut self, rules: Option<&RuleSet>, root: &[u8]) {
        let top = rules.map(|rules| (rules, rules.top(root)));
        let safe = |entry: &FileEntry| {
            top.as_ref().is_some_and(|(rules, top)| rules.excludes(top, &entry.name, true, ParentDir::Kept))
        };
        for list in self.segments.iter_mut() {
            Arc::make_mut(list).prune(safe);
        }
    }

    /// Passes on what is to be said.
    pub(super) fn say(&mut self, board: &Board) {
        self.words.drain(..).for_each(|message| board.note(BoardNote::Say(message)));
    }

    /// Shows the generator what has come so far.
    pub(super) fn show(&mut self, board: &Board) -> Result<(), TransferError> {
        self.say(board);
        self.who = "receiver";
        for list in self.segments.iter() {
            board.list(list)?;
        }
        if self.complete {
            board.note(BoardNote::ListEnd);
        }
        Ok(())
    }

    fn len(&self) -> usize {
        self.segments.iter().map(|list| list.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn known_to_be_many(&self) -> bool {
        self.segments.len() > 1 || self.len() > 1
    }

    /// What is to come; an only entry is one, be it pruned.
    pub(super) fn coming(&self) -> Coming<'_> {
        let first = self.segments.iter().flat_map(|list| list.entries()).next();
        match first {
            None => Coming::Nothing,
            Some(single) if self.len() == 1 && single.name != b"." => Coming::Single(single),
            _ => Coming::Many,
        }
    }
}
