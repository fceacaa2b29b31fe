//! Where a session's files go, as its destination argument says it.

use super::ReceivePlan;
use super::lists::Lists;
use crate::transfer::TransferError;
use crate::transfer::beneath::{self, reason, shown};
use crate::transfer::dest::{Dest, Missing};
use crate::transfer::guard::Guard;
use protocol::args::Options;
use protocol::flist::FileEntry;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where received files go.
pub(in crate::transfer) struct Target {
    /// `None` in a dry run whose destination does not exist.
    pub(in crate::transfer) dest: Option<Dest>,
    /// The destination was not there before this session.
    pub(in crate::transfer) made: bool,
    /// Absolute path of the folder, for filter rules and messages.
    pub(in crate::transfer) root: Vec<u8>,
    /// It would have been made, were this no dry run.
    would_make: bool,
    /// The name for the only file of a list, where the destination is a file name.
    single: Option<Vec<u8>>,
    /// What a daemon's module keeps to itself, by names at this end.
    pub(in crate::transfer) guard: Option<Guard>,
}

impl Target {
    /// Nothing of it was there before this session.
    pub(super) fn is_new(&self) -> bool {
        self.made || self.would_make
    }

    /// The name of an entry at this end.
    pub(in crate::transfer) fn name<'a>(&'a self, entry: &'a FileEntry) -> &'a [u8] {
        self.single.as_deref().unwrap_or(&entry.name)
    }

    /// Takes the further directories that the options name; returns what the user should know.
    pub(super) fn with_places(mut self, plan: &ReceivePlan) -> Result<(Self, Vec<String>), TransferError> {
        let folder = match self.single {
            Some(_) => plan.destination.parent().unwrap_or(Path::new("")),
            None => &plan.destination,
        };
        self.guard = plan.guard.clone().map(|guard| guard.within(folder.as_os_str().as_bytes()));
        let path = std::path::absolute(&plan.destination).unwrap_or_else(|_| plan.destination.clone());
        let path = path.as_os_str().as_bytes();
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut warnings = Vec::new();
        if let Some(dest) = self.dest.take() {
            let (dest, missing) = dest.with_places(&plan.options, path);
            self.dest = Some(dest);
            for missing in missing {
                match missing {
                    Missing::Warning(text) => warnings.push(text),
                    Missing::Fatal(text) => return Err(TransferError::Usage(text)),
                }
            }
        }
        Ok((self, warnings))
    }

    pub(in crate::transfer) fn again(&self) -> Option<Dest> {
        self.dest.as_ref().map(Dest::handle)
    }
}

/// Enters the destination as rsync does: an existing directory is entered; with several files, or a slash at the end, a
/// missing one is made; otherwise the argument names the single file. rsync: get_local_name
pub(super) fn enter(plan: &ReceivePlan, lists: &Lists) -> Result<Target, TransferError> {
    let path = match plan.destination.as_os_str().is_empty() {
        true => Path::new("."),
        false => plan.destination.as_path(),
    };
    let bytes = path.as_os_str().as_bytes();
    let options = &plan.options;
    if options.list_only {
        return Ok(Target { dest: None, made: false, would_make: false, root: root(path), single: None, guard: None });
    }
    let cannot_make = |source: io::Error| {
        let what = format!("mkdir \"{}\" failed (make its parent first, or use --mkpath)", path.display());
        TransferError::Local { what, source }
    };
    let make_parents = |path: &Path| match options.mkpath && !options.dry_run {
        true => beneath::make_operands(path).map_err(cannot_make),
        false => Ok(()),
    };
    let barred = |guard: &Guard| guard.hides(bytes, bytes.ends_with(b"/") || path.is_dir());
    if plan.guard.as_ref().is_some_and(barred) {
        let text = format!("ERROR: daemon has excluded destination \"{}\"", shown(bytes));
        return Err(TransferError::Selection(text));
    }
    if path.is_dir() {
        let (root, dest) = (root(path), Some(entered(path, options)?));
        return Ok(Target { dest, made: false, would_make: false, root, single: None, guard: None });
    }
    // Nothing comes, so nothing is made for it.
    if lists.is_empty() && !bytes.ends_with(b"/") {
        return Ok(Target { dest: None, made: false, would_make: false, root: root(path), single: None, guard: None });
    }
    let single_file = lists.has_single_file() && !bytes.ends_with(b"/");
    if !single_file {
        if path.exists() {
            let text = format!("\"{}\" must be a directory to receive more than one file", path.display());
            return Err(TransferError::Selection(text));
        }
        if options.dry_run {
            return Ok(Target {
                dest: None,
                made: false,
                would_make: true,
                root: root(path),
                single: None,
                guard: None,
            });
        }
        make_parents(path)?;
        let dest = Dest::open(path, true).map_err(cannot_make)?.with(options);
        return Ok(Target {
            dest: Some(dest),
            made: true,
            would_make: false,
            root: root(path),
            single: None,
            guard: None,
        });
    }
    let cut = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let parent = if cut == 0 { Path::new(".") } else { Path::new(OsStr::from_bytes(&bytes[..cut])) };
    make_parents(parent)?;
    let (root, single) = (root(parent), Some(bytes[cut..].to_vec()));
    Ok(Target { dest: Some(entered(parent, options)?), made: false, would_make: false, root, single, guard: None })
}

pub(super) fn root(path: &Path) -> Vec<u8> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.into_os_string().into_encoded_bytes()
}

fn entered(path: &Path, options: &Options) -> Result<Dest, TransferError> {
    Dest::open(path, false)
        .map(|dest| dest.with(options))
        .map_err(|error| TransferError::Selection(format!("Cannot enter \"{}\": {}", path.display(), reason(&error))))
}
