//! Files that are whole and are synced together: a file system writes out many at once for hardly more than one costs.
//! None gets its name, and so none is told of, before it is on the disk.

use crate::disk::{reason, shown};
use crate::transfer::dest::{Attrs, Dest, DestError, OutputFile, sync_dir};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Files that wait at most: each holds a descriptor.
pub(super) const FILES_MOST: usize = 64;
/// Syncs under way at a time.
const AT_ONCE: usize = 8;

/// A file that has its bytes and attributes, under a temporary name.
pub(super) struct Unsynced {
    pub(super) output: OutputFile,
    pub(super) attrs: Attrs,
    /// What lacks an attribute is better than nothing, but the user hears of it.
    pub(super) dressed: Result<(), DestError>,
    /// An earlier try was found in its place.
    pub(super) partial: bool,
}

/// Syncs the files, gives them their names, and syncs their directories; tells of each, in order, what went wrong.
pub(super) fn place(dest: &Dest, names: &[Vec<u8>], files: Vec<Unsynced>) -> Vec<Result<(), String>> {
    let synced = at_once(&files.iter().collect::<Vec<_>>(), |file| file.output.sync());
    let mut dirs: Vec<Arc<OwnedFd>> = Vec::new();
    let mut placed = Vec::with_capacity(files.len());
    for ((file, synced), name) in files.into_iter().zip(synced).zip(names) {
        let Unsynced { output, attrs, dressed, partial } = file;
        placed.push(synced.and_then(|()| output.place(dest, &attrs)).map_err(|error| error.to_string()).map(|dir| {
            let known = dirs.iter().position(|known| Arc::ptr_eq(known, &dir));
            let at = known.unwrap_or_else(|| {
                dirs.push(dir);
                dirs.len() - 1
            });
            if partial {
                dest.drop_partial(name);
            }
            (at, dressed)
        }));
    }
    let synced = at_once(&dirs, |dir| sync_dir(dir).map_err(|error| reason(&error)));
    let results = placed.into_iter().zip(names).map(|(placed, name)| {
        let (at, dressed) = placed?;
        match synced.get(at) {
            Some(Err(why)) => Err(format!("fsync directory of \"{}\" failed: {why}", shown(name))),
            _ => dressed.map_err(|error| error.to_string()),
        }
    });
    results.collect()
}

/// Does the same with all, several at a time: what waits for the disk waits together.
fn at_once<T: Sync, R: Send>(all: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if all.len() < 2 {
        return all.iter().map(act).collect();
    }
    let act = &act;
    std::thread::scope(|scope| {
        let shares = all.chunks(all.len().div_ceil(AT_ONCE));
        let threads: Vec<_> =
            shares.map(|share| (share, scope.spawn(move || share.iter().map(act).collect::<Vec<R>>()))).collect();
        // A thread that did not come back is no answer; what it had is done here.
        let done = threads
            .into_iter()
            .map(|(share, thread)| thread.join().unwrap_or_else(|_| share.iter().map(act).collect()));
        done.flatten().collect()
    })
}
