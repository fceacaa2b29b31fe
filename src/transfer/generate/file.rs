//! What is done about a regular file: nothing, something here, or a request.

use super::Work;
use super::delta_choice::{AskFor, Judgement};
use super::sums::SummedBasis;
use super::tell::{report, reported};
use crate::disk::digest::sum_of;
use crate::transfer::TransferError;
use crate::transfer::basis::{Basis, Proposal};
use crate::transfer::dest::{Attrs, Dest, DestError, Found, Further, Preserve, Stamp, in_place, same_mtime};
use protocol::args::Debug;
use protocol::checksum::Checksum;
use protocol::flist::{FileEntry, Kind, Ndx};
use protocol::item::{ItemFlags, ItemHeader};
use protocol::sums::{StrongSums, SumHead};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;

/// What a request is built upon and compared with.
#[derive(Default)]
struct BasisChoice {
    basis: Basis,
    /// What is told of ACLs and extended attributes where the basis is an alternative's.
    further: Option<ItemFlags>,
    /// What the report compares with, where nothing stands at the name itself.
    compared: Option<Found>,
    /// An earlier try was found in its place.
    partial: bool,
}

/// Whether a file is asked for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    First,
    /// What came was not what it should be.
    Redo,
}

impl Work<'_> {
    pub(super) fn file(
        &mut self,
        dest: Option<&Dest>,
        name: &[u8],
        ndx: Ndx,
        entry: &FileEntry,
        found: Option<Found>,
    ) -> Result<(), TransferError> {
        let Some(dest) = dest else {
            let (told, unknown) = self.wanted_further(None, name, entry);
            let flags = ItemFlags::TRANSFER.and(ItemFlags::NEW).and(told);
            let header = self.with_values(ItemHeader { flags, ..ItemHeader::default() }, unknown);
            self.only_tell(ndx, &header);
            return Ok(());
        };
        let device = self.options.write_devices && found.is_some_and(|found| found.kind() == Some(Kind::Device));
        let usable = device || found.is_some_and(|found| found.kind() == Some(Kind::File));
        // What is no file gives way in the same step in which the file comes, unless that is written where it stands.
        let in_the_way = found.is_some_and(|found| found.kind() != Some(Kind::Dir)) && !usable;
        let cleared = match (self.options.dry_run, in_place(self.options)) {
            (true, _) if in_the_way => dest.would_back_up(name),
            (false, true) if in_the_way => dest.back_up(name).map(drop),
            _ => Ok(()),
        };
        if self.board.or_complain(cleared).is_none() {
            return Ok(());
        }
        let found = found.filter(|_| usable);
        if let Some(done) = self.alternatives(dest, name, entry, found.as_ref()) {
            if let Some(taken) = self.board.or_complain(done) {
                self.tell_taken(ndx, name, false, taken);
                self.acknowledge(ndx);
            }
            return Ok(());
        }
        if let Some(found) = found.filter(|found| self.is_up_to_date(dest, name, entry, found)) {
            let change = self.change(dest, entry, &found);
            // Told by its bytes, a file gets its exact time too, though a fraction of a second is not worth a word.
            let wanted = dest.wanted(entry, &Preserve::of(self.options), Some(&found));
            let exact = wanted.differing_from(&found, -1);
            if !self.options.dry_run {
                let attrs = if self.options.checksum { &exact } else { &change };
                let parted = self.part_from_alternatives(dest, name, entry, &found, attrs);
                let set = parted.and_then(|()| dest.set_attrs(name, Kind::File, attrs));
                if self.board.or_complain(set).is_none() {
                    return Ok(());
                }
                if dest.partial(name).is_ok_and(|kept| kept.is_some()) {
                    dest.drop_partial(name);
                }
            }
            // Who asks for a word on it counts it as a copy; whoever brought it may have been killed before it was on the disk.
            if self.options.fsync && self.options.remove_source_files && !self.options.dry_run {
                let synced = dest.sync_standing(name);
                if self.board.or_complain(synced).is_none() {
                    return Ok(());
                }
            }
            let (flags, unknown) = self.further(Some(dest), name, entry, true, reported(&change));
            // The ACL brings the permissions, and stock's report of them with it.
            let by_acl =
                !self.options.dry_run && dest.acls_are_real() && flags.is_some_and(|flags| flags.has(ItemFlags::ACL));
            let flags = flags.map(|flags| if by_acl { flags.without(ItemFlags::PERMS) } else { flags });
            self.report(ndx, flags, unknown);
            if flags.is_none() {
                self.tell_up_to_date(name);
            }
            self.acknowledge(ndx);
            return Ok(());
        }
        // There is nothing to append to a file that is as long or longer.
        if self.options.append > 0 && found.is_some_and(|found| found.len >= entry.len && !device) {
            return Ok(());
        }
        self.request(dest, ndx, entry, found.as_ref(), Turn::First)
    }

    /// Before attributes of a file change that an alternative has under this name, too: it becomes a file of its own.
    fn part_from_alternatives(
        &self,
        dest: &Dest,
        name: &[u8],
        entry: &FileEntry,
        found: &Found,
        attrs: &Attrs,
    ) -> Result<(), DestError> {
        if !self.is_of_alternative(dest, name, found) {
            return Ok(());
        }
        let further = Further::of(entry, self.options).map(|further| {
            let change = dest.further_change(name, &further, &self.board.values);
            change.map_or(true, |change| change.acl || change.xattrs)
        });
        if attrs.is_empty() && further != Some(true) { Ok(()) } else { dest.part(name) }
    }

    /// rsync's quick check, or the sum of the list.
    pub(super) fn is_up_to_date(&mut self, there: &Dest, name: &[u8], entry: &FileEntry, found: &Found) -> bool {
        if found.len != entry.len {
            return false;
        }
        if self.options.checksum {
            return match there.basis(name) {
                Ok(Some(mut file)) => {
                    entry.extra.sum.is_some()
                        && sum_of(&mut file, self.agreed.list_checksum).ok().map(|(sum, _)| sum) == entry.extra.sum
                }
                _ => false,
            };
        }
        if self.options.size_only {
            return true;
        }
        let (here, there) = ((found.mtime, found.nsec), (entry.mtime, entry.nsec));
        !self.options.ignore_times && same_mtime(self.options.modify_window, here, there)
    }

    /// What is told of a file's ACL and extended attributes when its data is asked for, and the values wanted with it.
    /// `dest` where the file exists.
    fn wanted_further(&self, dest: Option<&Dest>, name: &[u8], entry: &FileEntry) -> (ItemFlags, Vec<u32>) {
        let Some(further) = Further::of(entry, self.options) else { return Default::default() };
        let values = &self.board.values;
        let change = dest.map_or_else(|| Ok(further.all()), |dest| dest.further_change(name, &further, values));
        let change = change.unwrap_or_else(|_| further.all());
        let told = ItemFlags::default().with(ItemFlags::ACL, change.acl).with(ItemFlags::XATTR, change.xattrs);
        (told, values.ask(&further, change.unknown))
    }

    pub(super) fn request(
        &mut self,
        dest: &Dest,
        ndx: Ndx,
        entry: &FileEntry,
        found: Option<&Found>,
        turn: Turn,
    ) -> Result<(), TransferError> {
        let (name, redo) = (self.target.name(entry), turn == Turn::Redo);
        let mut choice = self.choose(dest, name, entry, found);
        let mut bringing = None;
        if found.is_none()
            && !redo
            && choice.basis == Basis::Destination
            && let Some((staged, begun)) = self.stage(dest, name, entry)?
        {
            (choice.basis, bringing) = (Basis::Staged(staged), Some(begun));
        }
        let mut header = ItemHeader { flags: ItemFlags::TRANSFER, ..ItemHeader::default() };
        header.flags = match found.or(choice.compared.as_ref()) {
            None => header.flags.and(ItemFlags::NEW),
            Some(found) => header
                .flags
                .and(report(&self.change(dest, entry, found)))
                .with(ItemFlags::TIME, !self.options.times)
                .with(ItemFlags::SIZE, found.len != entry.len)
                .with(ItemFlags::CHANGE, self.options.checksum && !redo),
        };
        choice.basis.put(&mut header);
        let (told, unknown) = self.wanted_further(found.map(|_| dest), name, entry);
        header.flags = header.flags.and(choice.further.unwrap_or(told));
        let header = self.with_values(header, unknown);
        if self.options.dry_run && !self.options.only_write_batch {
            self.only_tell(ndx, &header);
            return Ok(());
        }
        if let Some(found) =
            found.filter(|_| in_place(self.options) && !redo && !self.options.dry_run && !self.options.only_write_batch)
            && self.board.or_complain(self.before_in_place(dest, name, found)).is_none()
        {
            return Ok(());
        }
        let append = self.options.append > 0 && !redo;
        let usable = !self.options.whole_file && self.agreed.checksum != Checksum::None;
        let there = found.is_some() || choice.basis != Basis::Destination;
        let opens = there && (usable || append);
        let mut basis = if opens { choice.basis.open(dest, name).unwrap_or_default() } else { None };
        let asked_whole = !redo && self.is_asked_whole(name, entry, &choice, found);
        if asked_whole {
            basis = None;
        }
        let head = match basis.as_mut().map(length) {
            Some(Ok(len)) => {
                let strong = if redo { StrongSums::Whole } else { StrongSums::Short };
                SumHead::for_basis(len, self.agreed.checksum.size(), strong, self.options.block_length)
            }
            _ => SumHead::NONE,
        };
        let may_stay =
            choice.basis == Basis::Destination && head.count > 0 && !append && !redo && is_quick(self.agreed.checksum);
        let stamp = basis.as_ref().filter(|_| may_stay && !in_place(self.options)).and_then(|basis| {
            dest.may_stay(basis, entry, self.options, &Preserve::of(self.options)).filter(Stamp::is_settled)
        });
        let whole = stamp.map(|stamp| (stamp, Arc::default()));
        let told = whole.as_ref().map(|(_, whole)| Arc::clone(whole));
        let asked_whole = asked_whole.then_some(entry.len);
        if basis.is_none() || head.count == 0 {
            // The answer may be here at once.
            bringing = None;
        }
        let asked = Proposal { basis: choice.basis, head, append, partial: choice.partial, asked_whole, whole: told };
        self.board.proposals.put(ndx, asked);
        self.pass_words();
        self.board.ask(ndx);
        self.speaker.request(ndx, &header, &head, &mut self.writer.out);
        if let (Some(basis), 1.., false) = (basis, head.count, append) {
            self.sums(ndx, SummedBasis { file: basis, whole, bringing }, &head)?;
        }
        Ok(())
    }

    /// What is written where it stands is kept first, if that is asked for, and no alternative is written to.
    fn before_in_place(&self, dest: &Dest, name: &[u8], found: &Found) -> Result<(), DestError> {
        dest.back_up_copy(name, self.options)?;
        if found.kind() == Some(Kind::File) && self.is_of_alternative(dest, name, found) {
            dest.part(name)
        } else {
            Ok(())
        }
    }

    /// Whether a file is asked for whole because its basis is not worth reading. What an earlier try may have left always
    /// is, and so is what had to be looked for.
    fn is_asked_whole(&mut self, name: &[u8], entry: &FileEntry, choice: &BasisChoice, found: Option<&Found>) -> bool {
        let old = match choice.basis {
            Basis::Destination => found,
            Basis::Alternative(_) => choice.compared.as_ref(),
            Basis::Partial | Basis::Staged(_) | Basis::Backup | Basis::Fuzzy(_) | Basis::FuzzyAlternative(..) => None,
        };
        let Some(old) = old.filter(|old| old.kind() == Some(Kind::File) && !choice.partial) else { return false };
        if self.options.partial && old.len < entry.len {
            return false;
        }
        let judgement = {
            let choice = &mut self.board.lock().delta_choice;
            let judgement = choice.judge(old.len, entry.len);
            if judgement.way == AskFor::Whole {
                choice.asked_whole(entry.len);
            }
            judgement
        };
        if judgement.way == AskFor::Delta {
            return false;
        }
        if self.options.level(Debug::Deltasum) > 0 {
            let Judgement { sums, news, whole, .. } = judgement;
            let why = format!(
                " is asked for whole: {whole:.3}s on the link, instead of {sums:.3}s for sums and {news:.3}s on the link"
            );
            self.tell(&[name, why.as_bytes()]);
        }
        true
    }

    /// Tells in a dry run what would be asked for; a batch file gets it all the same.
    fn only_tell(&mut self, ndx: Ndx, header: &ItemHeader) {
        self.pass_words();
        if self.options.only_write_batch {
            self.board.proposals.put(ndx, Proposal::default());
            self.board.ask(ndx);
            self.speaker.request(ndx, header, &SumHead::NONE, &mut self.writer.out);
        } else {
            self.speaker.item(ndx, header, &mut self.writer.out);
        }
    }

    /// Chooses what a request builds upon.
    fn choose(&mut self, dest: &Dest, name: &[u8], entry: &FileEntry, found: Option<&Found>) -> BasisChoice {
        if in_place(self.options) && found.is_some_and(|found| found.kind() == Some(Kind::File)) {
            let basis = if dest.backs_up() && self.options.append == 0 { Basis::Backup } else { Basis::Destination };
            return BasisChoice { basis, ..BasisChoice::default() };
        }
        // What is appended to is the file itself, or nothing.
        if self.options.append > 0 {
            return BasisChoice::default();
        }
        let partial = dest.partial(name).is_ok_and(|kept| kept.is_some());
        let mut choice = BasisChoice { partial, ..BasisChoice::default() };
        if found.is_none()
            && let Some((number, there, flags)) = self.alternative_basis(dest, name, entry)
        {
            choice.basis = Basis::Alternative(number);
            choice.compared = Some(there);
            choice.further = Some(flags);
        } else if found.is_none() && self.options.fuzzy > 0 && !partial && !self.options.whole_file {
            choice.basis = self.fuzzy.find(dest, name, entry, self.options.fuzzy).unwrap_or_default();
        }
        if partial && !self.options.whole_file {
            choice.basis = Basis::Partial;
        }
        choice
    }
}

/// Whether to sum a file on the chance that it stays costs less than to read it again.
fn is_quick(checksum: Checksum) -> bool {
    matches!(checksum, Checksum::Xxh128 | Checksum::Xxh3 | Checksum::Xxh64)
}

/// Bytes of a file, or of a device, which is left at its beginning.
fn length(file: &mut File) -> io::Result<u64> {
    let meta = file.metadata()?;
    if meta.is_file() {
        return Ok(meta.len());
    }
    let len = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    Ok(len)
}
