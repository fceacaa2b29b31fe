//! The segments of a file list that are in flight, and which indexes are theirs. Counterpart: the chain of `file_list`s
//! in rsync's `flist.c`.

use super::{FileList, Ndx};
use crate::PeerError;
use std::collections::VecDeque;

/// What of a list is alive, oldest segment first; the only segment is the whole list without incremental recursion.
/// With each segment goes whatever its holder keeps of it.
#[derive(Debug, Clone)]
pub struct Segments<T = ()> {
    live: VecDeque<(Span, T)>,
    incremental: bool,
    next: u32,
}

/// The indexes of a segment.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
    parent: bool,
}

impl<T> Segments<T> {
    /// None yet; more than one if `incremental`.
    pub fn new(incremental: bool) -> Self {
        Self { live: VecDeque::new(), incremental, next: incremental.into() }
    }

    /// The index of the first entry of the segment that comes next. Number 0 is the root's own with incremental
    /// recursion, and so is the number before each segment the directory's that it lists.
    pub fn next_start(&self) -> u32 {
        self.next
    }

    /// Adds the segment that comes next. Refused beyond the indexes there are.
    pub fn add(&mut self, list: &FileList, kept: T) -> Result<(), PeerError> {
        let many = PeerError::Malformed("a file list with more entries than there are indexes");
        let len = u32::try_from(list.len()).map_err(|_| many.clone())?;
        let next = self.next.checked_add(len).and_then(|next| next.checked_add(self.incremental.into()));
        let start = std::mem::replace(&mut self.next, next.filter(|next| *next < i32::MAX as u32).ok_or(many)?);
        self.live.push_back((Span { start, len, parent: list.parent().is_some() }, kept));
        Ok(())
    }

    /// What is kept of the segment that an index belongs to, which may be that of the directory it lists.
    pub fn find(&self, ndx: Ndx) -> Option<&T> {
        self.place(ndx).and_then(|at| self.live.get(at)).map(|(_, kept)| kept)
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, ndx: Ndx) -> Option<&mut T> {
        self.place(ndx).and_then(|at| self.live.get_mut(at)).map(|(_, kept)| kept)
    }

    fn place(&self, ndx: Ndx) -> Option<usize> {
        let next = self.live.partition_point(|(span, _)| span.start <= ndx.0);
        let within = |at: &usize| self.live.get(*at).is_some_and(|(span, _)| ndx.0 - span.start < span.len);
        let heads = self.live.get(next).is_some_and(|(span, _)| span.parent && span.start == ndx.0 + 1);
        next.checked_sub(1).filter(within).or(heads.then_some(next))
    }

    /// Lets go of the oldest segment, which both sides have finished.
    pub fn release(&mut self) -> Option<T> {
        self.live.pop_front().map(|(_, kept)| kept)
    }

    /// What is kept of each living segment, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.live.iter().map(|(_, kept)| kept)
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.live.iter_mut().map(|(_, kept)| kept)
    }

    /// How many are alive.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// True when none is alive.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Entries of all segments but the oldest.
    pub fn ahead(&self) -> usize {
        self.live.iter().skip(1).map(|(span, _)| span.len as usize).sum()
    }
}

impl Segments<std::sync::Arc<FileList>> {
    /// A living entry of a living segment.
    pub fn get(&self, ndx: Ndx) -> Option<&super::FileEntry> {
        self.find(ndx)?.get(ndx)
    }
}
