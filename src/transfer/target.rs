//! Where a session's files go, as its destination argument says it.

use super::dest::{Dest, Missing};
use super::guard::Guard;
use super::plan::ReceivePlan;
use super::{Refusal, TransferError};
use crate::disk::beneath;
use crate::disk::{reason, shown};
use protocol::args::Options;
use protocol::filter::RuleSet;
use protocol::flist::FileEntry;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where received files go.
pub(super) struct Target {
    /// `None` in a dry run whose destination does not exist.
    pub(super) dest: Option<Dest>,
    /// The destination was not there before this session.
    pub(super) made: bool,
    /// Absolute path of the folder, for filter rules and messages.
    pub(super) root: Vec<u8>,
    /// What was made for the session, or would be in a dry run, in words.
    pub(super) created: Vec<Vec<u8>>,
    /// The name for the only entry of a list, where the destination is not the folder that it comes into.
    single: Option<Vec<u8>>,
    /// What a daemon's module keeps to itself, by names at this end.
    pub(super) guard: Option<Guard>,
}

impl Target {
    fn new(dest: Option<Dest>, root: Vec<u8>) -> Self {
        Self { dest, made: false, root, created: Vec::new(), single: None, guard: None }
    }

    /// The name of an entry at this end.
    pub(super) fn name<'a>(&'a self, entry: &'a FileEntry) -> &'a [u8] {
        self.single.as_deref().unwrap_or(&entry.name)
    }

    /// Takes the rules for names of extended attributes.
    pub(super) fn filtering(mut self, rules: Option<&RuleSet>) -> Self {
        if let Some(rules) = rules {
            self.dest = self.dest.map(|dest| dest.filtering(rules.attributes()));
        }
        self
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
            let (dest, missing) = dest.with_places(&plan.options, path, folder);
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

    pub(super) fn again(&self) -> Option<Dest> {
        self.dest.as_ref().map(Dest::handle)
    }
}

/// What is to come into a destination.
#[derive(Debug, Clone, Copy)]
pub(super) enum Coming<'a> {
    Nothing,
    Single(&'a FileEntry),
    /// More than one, or a folder's own contents.
    Many,
}

/// Enters the destination as rsync does: an existing directory is entered; with several things to come, or a slash at the
/// end, a missing one is made; otherwise the argument names the only thing that comes. rsync: get_local_name
pub(super) fn enter(plan: &ReceivePlan, coming: Coming<'_>) -> Result<Target, TransferError> {
    let path = match plan.destination.as_os_str().is_empty() {
        true => Path::new("."),
        false => plan.destination.as_path(),
    };
    let bytes = path.as_os_str().as_bytes();
    let options = &plan.options;
    if options.list_only {
        return Ok(Target::new(None, root(path)));
    }
    let barred = |guard: &Guard| guard.hides(bytes, bytes.ends_with(b"/") || path.is_dir());
    if plan.guard.as_ref().is_some_and(barred) {
        let text = format!("ERROR: daemon has excluded destination \"{}\"", shown(bytes));
        return Err(TransferError::Selection(Refusal::unsigned(text)));
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            // Without the right to search it, nothing in it could be looked at.
            fs::metadata(path.join(".")).map_err(|error| TransferError::Selection(unentered(path, &error).into()))?;
            return Ok(Target::new(Some(entered(path, options)?), root(path)));
        }
        Ok(_) if matches!(coming, Coming::Single(entry) if entry.is_dir()) => {
            let text = format!("ERROR: cannot overwrite non-directory \"{}\" with a directory", shown(bytes));
            return Err(TransferError::Selection(Refusal::unsigned(text)));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound && !options.mkpath => {
            let text = format!("ERROR: cannot stat destination \"{}\": {}", shown(bytes), reason(&error));
            return Err(TransferError::Selection(text.into()));
        }
        _ => {}
    }
    if bytes.ends_with(b"/") || matches!(coming, Coming::Many) {
        return folder(path, options);
    }
    let cut = bytes.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let parent = if cut == 0 { Path::new(".") } else { Path::new(OsStr::from_bytes(&bytes[..cut])) };
    let created = make_way(parent, path, options)?;
    if let Err(error) = fs::metadata(parent.join("."))
        && created.is_empty()
    {
        let text = format!("{}; make it first, or use --mkpath", unentered(parent, &error));
        return Err(TransferError::Selection(text.into()));
    }
    // Nothing comes, so nothing is made for it.
    if matches!(coming, Coming::Nothing) {
        return Ok(Target { created, ..Target::new(None, root(path)) });
    }
    let dest = match options.dry_run && !created.is_empty() {
        true => Dest::absent().with(options),
        false => entered(parent, options)?,
    };
    Ok(Target { created, single: Some(bytes[cut..].to_vec()), ..Target::new(Some(dest), root(parent)) })
}

/// Makes the folder that files are to come into, and enters it.
fn folder(path: &Path, options: &Options) -> Result<Target, TransferError> {
    if path.exists() {
        let text = format!("\"{}\" must be a directory to receive more than one file", path.display());
        return Err(TransferError::Selection(text.into()));
    }
    let bare = bare(path);
    let mut created = make_way(bare, path, options)?;
    let said = [b"created directory ", bare.as_os_str().as_bytes()].concat();
    if options.dry_run {
        if bare.exists() {
            return Err(cannot_make(path, rustix::io::Errno::NOTDIR.into()));
        }
        created.push(said);
        return Ok(Target { created, ..Target::new(Some(Dest::absent().with(options)), root(path)) });
    }
    // A name that ends in a dot is one of a folder that is there.
    if bare.as_os_str().as_bytes().ends_with(b"/.") && created.is_empty() {
        return Err(cannot_make(path, rustix::io::Errno::NOENT.into()));
    }
    // What `--mkpath` made was there when the destination was entered.
    let made = created.is_empty();
    if made {
        created.push(said);
    }
    let dest = Dest::open_or_make(path).map_err(|error| cannot_make(path, error))?.with(options);
    Ok(Target { made, created, ..Target::new(Some(dest), root(path)) })
}

/// Makes `folder` and all above it (`--mkpath`), for the destination `path`; returns what is to be said of that.
fn make_way(folder: &Path, path: &Path, options: &Options) -> Result<Vec<Vec<u8>>, TransferError> {
    if !options.mkpath {
        return Ok(Vec::new());
    }
    let count = beneath::make_operands(folder, options.dry_run).map_err(|error| cannot_make(path, error))?;
    let what = match count {
        0 => return Ok(Vec::new()),
        1 => "created 1 directory for ".to_owned(),
        count => format!("created {count} directories for "),
    };
    Ok(vec![[what.as_bytes(), bare(folder).as_os_str().as_bytes()].concat()])
}

fn unentered(folder: &Path, error: &io::Error) -> String {
    format!("change_dir \"{}\" failed: {}", shown(&root(folder)), reason(error))
}

fn cannot_make(path: &Path, source: io::Error) -> TransferError {
    let what = format!("mkdir \"{}\" failed (make its parent first, or use --mkpath)", path.display());
    TransferError::Local { what, source }
}

/// A path without the slash at its end.
fn bare(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    match bytes.strip_suffix(b"/") {
        Some(bare) if !bare.is_empty() => Path::new(OsStr::from_bytes(bare)),
        _ => path,
    }
}

pub(super) fn root(path: &Path) -> Vec<u8> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.into_os_string().into_encoded_bytes()
}

fn entered(path: &Path, options: &Options) -> Result<Dest, TransferError> {
    Dest::open(path).map(|dest| dest.with(options)).map_err(|error| {
        let text = format!("Cannot enter \"{}\": {}", path.display(), reason(&error));
        TransferError::Selection(text.into())
    })
}
