//! Files with several names (`-H`): one name is brought up to date like any file, the others are linked to it once it is
//! there. Counterpart: rsync's `hlink.c`.

use protocol::flist::{FileList, LinkId, Ndx};
use std::collections::{HashMap, VecDeque};

/// How far each file with several names has come.
#[derive(Debug, Default)]
pub(super) struct Links {
    files: HashMap<LinkId, LinkNames>,
}

#[derive(Debug, Default)]
struct LinkNames {
    /// Names in the lists that have come which have not been looked at.
    ahead: usize,
    lead: LinkLead,
    /// Names to be linked when one is here.
    waiting: VecDeque<Ndx>,
}

#[derive(Debug, Default)]
enum LinkLead {
    #[default]
    None,
    /// One name was asked for.
    Coming,
    /// The file is here under this name.
    Here(Box<[u8]>),
}

/// What to do with a name of a file that has several.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// Bring it up to date as if it were a file of its own.
    Lead,
    /// It will be taken up again.
    Wait,
    /// Link it to this name.
    Link(Vec<u8>),
}

impl Links {
    pub(super) fn expect(&mut self, list: &FileList) {
        for link in list.iter().filter_map(|(_, entry)| entry.extra.link) {
            self.files.entry(link).or_default().ahead += 1;
        }
    }

    /// What to do with a name, given whether something `exists` there: a file that is here under any of its known names
    /// need not be sent.
    pub(super) fn meet(&mut self, id: LinkId, ndx: Ndx, exists: bool) -> Meeting {
        let names = self.files.entry(id).or_default();
        names.ahead = names.ahead.saturating_sub(1);
        match &names.lead {
            LinkLead::Here(name) => Meeting::Link(name.to_vec()),
            LinkLead::Coming => {
                names.waiting.push_back(ndx);
                Meeting::Wait
            }
            LinkLead::None if !exists && names.ahead > 0 => {
                names.waiting.push_front(ndx);
                Meeting::Wait
            }
            LinkLead::None => Meeting::Lead,
        }
    }

    /// A name is none of ours to change; returns those that waited for it if no other can lead.
    pub(super) fn pass(&mut self, id: LinkId) -> VecDeque<Ndx> {
        let names = self.files.entry(id).or_default();
        names.ahead = names.ahead.saturating_sub(1);
        if names.ahead == 0 && matches!(names.lead, LinkLead::None) {
            std::mem::take(&mut names.waiting)
        } else {
            VecDeque::new()
        }
    }

    /// A name of the file was asked for.
    pub(super) fn coming(&mut self, id: LinkId) {
        self.files.entry(id).or_default().lead = LinkLead::Coming;
    }

    /// The file is here under this name; returns those that waited for it.
    pub(super) fn here(&mut self, id: LinkId, name: &[u8]) -> VecDeque<Ndx> {
        let names = self.files.entry(id).or_default();
        names.lead = LinkLead::Here(name.into());
        std::mem::take(&mut names.waiting)
    }

    /// The name that was to lead will not be here; returns those that waited for it unless further names are still to
    /// come.
    pub(super) fn gone(&mut self, id: LinkId) -> VecDeque<Ndx> {
        let names = self.files.entry(id).or_default();
        names.lead = LinkLead::None;
        if names.ahead > 0 { VecDeque::new() } else { std::mem::take(&mut names.waiting) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::flist::{Extras, FileEntry};

    const ID: LinkId = LinkId { dev: 1, ino: 2 };

    fn three() -> Links {
        let entry = |name: &str| FileEntry {
            extra: Extras { link: Some(ID), ..Extras::default() }.into(),
            ..FileEntry::new(name, 0o100644)
        };
        let mut links = Links::default();
        links.expect(&FileList::new(["a", "b", "c"].map(entry).into()));
        links
    }

    #[test]
    fn the_last_leads_when_none_is_here() {
        let mut links = three();
        assert_eq!(links.meet(ID, Ndx(0), false), Meeting::Wait);
        assert_eq!(links.meet(ID, Ndx(1), false), Meeting::Wait);
        assert_eq!(links.meet(ID, Ndx(2), false), Meeting::Lead);
        links.coming(ID);
        assert_eq!(links.meet(ID, Ndx(9), true), Meeting::Wait);
        assert_eq!(links.here(ID, b"c"), [Ndx(1), Ndx(0), Ndx(9)]);
        assert_eq!(links.meet(ID, Ndx(10), false), Meeting::Link(b"c".to_vec()));
    }

    #[test]
    fn one_that_is_here_leads() {
        let mut links = three();
        assert_eq!(links.meet(ID, Ndx(0), false), Meeting::Wait);
        assert_eq!(links.meet(ID, Ndx(1), true), Meeting::Lead);
        assert_eq!(links.here(ID, b"b"), [Ndx(0)]);
        assert_eq!(links.meet(ID, Ndx(2), false), Meeting::Link(b"b".to_vec()));
    }

    #[test]
    fn what_waits_for_a_name_left_alone_is_taken_up() {
        let mut links = three();
        assert_eq!(links.meet(ID, Ndx(0), false), Meeting::Wait);
        assert_eq!(links.pass(ID), []);
        assert_eq!(links.pass(ID), [Ndx(0)]);
        assert_eq!(links.meet(ID, Ndx(0), false), Meeting::Lead);
    }

    #[test]
    fn another_leads_when_the_leader_fails() {
        let mut links = three();
        assert_eq!(links.meet(ID, Ndx(0), true), Meeting::Lead);
        links.coming(ID);
        assert_eq!(links.meet(ID, Ndx(1), false), Meeting::Wait);
        assert_eq!(links.gone(ID), [], "the third may be here");
        assert_eq!(links.meet(ID, Ndx(2), false), Meeting::Lead);
        assert_eq!(links.gone(ID), [Ndx(1)]);
        assert_eq!(links.meet(ID, Ndx(1), false), Meeting::Lead);
    }
}
