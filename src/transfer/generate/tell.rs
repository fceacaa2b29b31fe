//! What the other side, and the user, hear of an entry.

use super::Work;
use crate::report::format;
use crate::transfer::dest::{Attrs, Dest, Found, Further, Preserve};
use crate::transfer::observer::Item;
use protocol::args::{Info, ItemDetail};
use protocol::flist::{DirClass, FileEntry, Ndx};
use protocol::item::{ItemFlags, ItemHeader, XattrLists};
use protocol::mux::{Message, TextKind};
use protocol::xattr::{XattrList, XattrListKind};

impl Work<'_> {
    /// Tells of a change made here; where nothing changed, only if the client wants to hear of that too.
    pub(super) fn report(&mut self, ndx: Ndx, flags: Option<ItemFlags>, unknown: Vec<u32>) {
        self.tell_item(ndx, ItemHeader { flags: flags.unwrap_or_default(), ..ItemHeader::default() }, unknown);
    }

    /// The same, with a name or basis to tell; `unknown` are the values of extended attributes that are wanted.
    pub(super) fn tell_item(&mut self, ndx: Ndx, header: ItemHeader, unknown: Vec<u32>) {
        self.pass_words();
        let changed = format::is_told(&header);
        if self.agreed.has_items() && (self.tells_all() || changed) {
            self.tell_attributes(ndx, &header);
            let header = self.with_values(header, unknown);
            self.speaker.item(ndx, &header, &mut self.writer.out);
        } else if changed {
            self.tell_user(ndx, &header);
        }
    }

    /// Tells the client's user the name of what only gets other attributes: the sender, who hears of it, does not say it.
    fn tell_attributes(&mut self, ndx: Ndx, header: &ItemHeader) {
        let asked =
            self.options.level(Info::Name) > 1 && matches!(self.options.detail, ItemDetail::None | ItemDetail::Names);
        if !self.server || !asked {
            return;
        }
        let Some(list) = self.lists.find(ndx).cloned() else { return };
        if let Some(entry) = list.get(ndx).filter(|entry| format::is_attributes(entry, header)) {
            self.send_words(self.target.name(entry).to_vec());
        }
    }

    /// Tells the user of a change where the sender cannot be told, who would say it.
    pub(super) fn tell_user(&mut self, ndx: Ndx, header: &ItemHeader) {
        let Some(list) = self.lists.find(ndx).cloned() else { return };
        let Some(entry) = list.get(ndx) else { return };
        // Of the folder that was made for all of it, the user has heard.
        let itemizes = matches!(self.options.detail, ItemDetail::Changed | ItemDetail::All);
        let heard = self.target.made && entry.name == b"." && !itemizes;
        if self.server || !heard {
            self.observer.item(&Item { ndx, entry, header });
        }
        if format::is_attributes(entry, header) {
            self.tell_attributes(ndx, header);
        } else if self.server && !heard && self.options.level(Info::Name) > 0 {
            self.send_words(format::named(self.target.name(entry), entry, header));
        }
    }

    /// A header with the values of extended attributes that are wanted with it.
    pub(super) fn with_values(&self, header: ItemHeader, unknown: Vec<u32>) -> ItemHeader {
        // Values go into a batch file, though nothing is changed here.
        let dry_run = self.options.dry_run && !self.options.only_write_batch;
        let lists = XattrLists::of(self.agreed, self.options.xattrs > 0, dry_run, XattrListKind::Wanted);
        ItemHeader { xattrs: Some(XattrList::Wanted(unknown)), ..header }.with_list(lists)
    }

    /// Sets ACLs and extended attributes of what stands here, as far as their values are known. Returns what is to be
    /// told of them with `flags`, and the numbers of the values that are wanting. What has not `existed` is new with all it has.
    pub(super) fn further(
        &mut self,
        dest: Option<&Dest>,
        name: &[u8],
        entry: &FileEntry,
        existed: bool,
        flags: Option<ItemFlags>,
    ) -> (Option<ItemFlags>, Vec<u32>) {
        let Some(further) = Further::of(entry, self.options) else { return (flags, Vec::new()) };
        if entry.extra.dir_class == DirClass::Implied && self.options.no_implied_dirs {
            return (flags, Vec::new());
        }
        let values = &self.board.values;
        let done = match dest.filter(|_| existed || !self.options.dry_run) {
            None => Ok(further.all()),
            Some(dest) => dest.further_change(name, &further, values).and_then(|change| {
                // What the receiver will complete is left to it whole.
                if !self.options.dry_run && change.unknown.is_empty() {
                    dest.set_further(name, &further, values)?;
                }
                Ok(change)
            }),
        };
        match self.board.or_complain(done) {
            Some(change) => {
                let told = ItemFlags::default()
                    .with(ItemFlags::ACL, change.acl && existed)
                    .with(ItemFlags::XATTR, change.xattrs);
                let flags = flags.map(|flags| flags.and(told)).or((told != ItemFlags::default()).then_some(told));
                (flags, values.ask(&further, change.unknown))
            }
            None => (flags, Vec::new()),
        }
    }

    /// Whether the client wants to hear of what did not change, too.
    pub(super) fn tells_all(&self) -> bool {
        self.options.detail == ItemDetail::All || self.options.level(Info::Name) > 1
    }

    /// Says that an entry is here whole, under its name, so that its source may go.
    pub(super) fn acknowledge(&mut self, ndx: Ndx) {
        if self.options.remove_source_files && !self.options.dry_run {
            self.writer.out.message(&Message::Success(ndx));
        }
    }

    /// What of an existing entry's attributes is not yet as the options want it.
    pub(super) fn change(&self, dest: &Dest, entry: &FileEntry, found: &Found) -> Attrs {
        let wanted = dest.wanted(entry, &Preserve::of(self.options), Some(found));
        wanted.differing_from(found, self.options.modify_window)
    }

    /// Tells the client's user something.
    pub(super) fn tell(&mut self, words: &[&[u8]]) {
        self.say(&Message::Text(TextKind::Info, [words.concat(), b"\n".to_vec()].concat()));
    }

    /// Lets the user hear of backups.
    pub(super) fn pass_words(&mut self) {
        let words = self.dest.as_ref().map(|dest| dest.take_words()).unwrap_or_default();
        words.iter().for_each(|words| self.tell(&[words.as_bytes()]));
    }

    /// Words for the user go over the wire only where the user is at the other end.
    pub(super) fn say(&mut self, message: &Message) {
        match message {
            Message::Text(..) | Message::Deleted(_) if !self.server => self.observer.message(message),
            Message::Deleted(name) if !self.agreed.has_items() => {
                self.observer.told(message);
                self.tell_deleted(name);
            }
            message => {
                self.observer.told(message);
                self.writer.out.message(message);
            }
        }
    }

    /// Tells a client that cannot be told otherwise: in plain words, or as stock does whose format there lacks the name.
    fn tell_deleted(&mut self, name: &[u8]) {
        let (name, mark): (_, &[u8]) = match name.strip_suffix(b"\0") {
            Some(dir) => (dir, b"/"),
            None => (name, b""),
        };
        let words = match self.options.detail {
            ItemDetail::None if self.options.level(Info::Del).max(self.options.level(Info::Name)) == 0 => return,
            ItemDetail::None | ItemDetail::Names => [b"deleting ", name, mark].concat(),
            ItemDetail::Changed => b"*deleting  ".to_vec(),
            ItemDetail::All => b"*deleting  %I".to_vec(),
        };
        self.send_words(words);
    }

    /// Tells the client what our own log has heard in its way.
    fn send_words(&mut self, mut words: Vec<u8>) {
        words.push(b'\n');
        self.writer.out.message(&Message::Text(TextKind::Info, words));
    }

    pub(super) fn tell_up_to_date(&mut self, name: &[u8]) {
        if self.options.level(Info::Name) > 1 && matches!(self.options.detail, ItemDetail::None | ItemDetail::Names) {
            let words = [name, b" is uptodate"].concat();
            match self.server {
                true => self.send_words(words),
                false => self.observer.aside(&words),
            }
        }
    }
}

/// What is told of an entry by flags alone.
pub(super) fn header(flags: ItemFlags) -> ItemHeader {
    ItemHeader { flags, ..ItemHeader::default() }
}

/// What is told of an entry that was there already; nothing when it needed no change.
pub(super) fn reported(change: &Attrs) -> Option<ItemFlags> {
    (!change.is_empty()).then(|| report(change))
}

/// The report bits of attributes that differ.
pub(super) fn report(attrs: &Attrs) -> ItemFlags {
    ItemFlags::default()
        .with(ItemFlags::TIME, attrs.mtime.is_some())
        .with(ItemFlags::ATIME, attrs.atime.is_some())
        .with(ItemFlags::PERMS, attrs.mode.is_some())
        .with(ItemFlags::OWNER, attrs.uid.is_some())
        .with(ItemFlags::GROUP, attrs.gid.is_some())
}
