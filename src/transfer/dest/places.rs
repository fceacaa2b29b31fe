//! The further directories that options name: for temporary files, partial files, backups and alternatives. Each is held
//! open and confined by itself, so that a rename between two of them cannot leave either.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use protocol::args::{AltKind, Info, Options};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Dest;
use crate::disk::beneath::{Beneath, open_beside_missing, open_operand_from};
use crate::disk::confine;
use crate::disk::shown;

/// Suffix of backups without a directory of their own.
const SUFFIX: &[u8] = b"~";
/// Where `--delay-updates` keeps files without a `--partial-dir`.
const DELAY_DIR: &[u8] = b".~tmp~";

/// What the options ask for besides the destination itself.
#[derive(Default)]
pub(super) struct Places {
    pub(super) temp: Option<Place>,
    pub(super) partial: Partial,
    pub(super) backup: Option<Backup>,
    pub(super) alternatives: Vec<Place>,
    /// Devices are written to as files are.
    pub(super) write_devices: bool,
}

/// A directory that an option names, opened when it is first needed.
pub(super) struct Place {
    pub(super) path: Vec<u8>,
    /// Where the destination would be, should it not exist.
    beside: Option<PathBuf>,
    opened: OnceLock<Dest>,
}

/// What becomes of a file that broke off.
#[derive(Default)]
pub(super) enum Partial {
    /// It is removed.
    #[default]
    Nowhere,
    /// It takes the final name (`--partial`).
    Named,
    /// It goes to this directory beside its final name.
    Beside(Vec<u8>),
    /// It goes to one directory for all.
    Elsewhere(Place),
}

/// Where backups go, and what they are called.
pub(super) struct Backup {
    pub(super) dir: Option<Place>,
    pub(super) suffix: Vec<u8>,
    /// Symlinks that lead out of the tree are not kept.
    pub(super) safe_links: bool,
    /// Each is told.
    pub(super) tells: bool,
    /// It was told where they go.
    pub(super) announced: AtomicBool,
}

/// How much of a missing directory is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Nothing,
    /// The last component, for us alone.
    Last,
    All,
}

impl Place {
    pub(super) fn new(path: &[u8]) -> Self {
        Self { path: path.to_vec(), beside: None, opened: OnceLock::new() }
    }

    /// One that is looked for beside `folder`, should the destination there not exist yet.
    fn beside(path: &[u8], folder: &Path) -> Self {
        Self { beside: Some(folder.to_owned()), ..Self::new(path) }
    }

    /// The directory, opened once. A relative one is relative to the destination.
    pub(super) fn dest(&self, base: &Dest, make: Make) -> io::Result<&Dest> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let root = match (base.beneath.dir(b"."), &self.beside) {
            (Err(_), Some(folder)) => {
                let opened = open_beside_missing(folder, &self.path)?.ok_or(Errno::NOENT)?;
                confine::admit(&opened)?;
                return Ok(self.opened.get_or_init(|| base.at(opened)));
            }
            (root, _) => root?,
        };
        let opened = match open_operand_from(root.as_fd(), &self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make != Make::Nothing => {
                made(&root, &self.path, make)?
            }
            opened => opened?,
        };
        confine::admit(&opened)?;
        Ok(self.opened.get_or_init(|| base.at(opened)))
    }
}

/// Makes a directory that is missing, and opens it.
fn made(root: &Arc<OwnedFd>, path: &[u8], make: Make) -> io::Result<OwnedFd> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let cut = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (parent, leaf) = path.split_at(cut);
    let parent = if parent.is_empty() { b"." } else { parent };
    let above = match open_operand_from(root.as_fd(), parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && make == Make::All && parent != b"." => {
            made(root, parent, make)?
        }
        opened => opened?,
    };
    confine::admit(&above)?;
    let mode = if make == Make::Last { Mode::RWXU } else { Mode::RWXU | Mode::RWXG | Mode::RWXO };
    match rustix::fs::mkdirat(&above, leaf, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&above, leaf, flags, Mode::empty())?)
}

/// What a place is wanted for but cannot serve.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// The user should know.
    Warning(String),
    /// Nothing can be received without it.
    Fatal(String),
}

impl Dest {
    /// Takes the places that the options name; returns what is missing. `path` is the destination's, for messages, `folder`
    /// the directory that was entered for it.
    pub fn with_places(mut self, options: &Options, path: &[u8], folder: &Path) -> (Dest, Vec<Missing>) {
        let mut missing = Vec::new();
        let temp = options.temp_dir.as_deref().map(|dir| Place::beside(dir, folder));
        if let Some(temp) = &temp
            && let Err(error) = temp.dest(&self, Make::Nothing)
        {
            missing.push(Missing::Fatal(match confine::is_refusal(&error) {
                true => format!("The temp-dir cannot be used: {}: {}", shown(&temp.path), confine::said(&error)),
                false => format!("The temp-dir does not exist: {}", shown(&temp.path)),
            }));
        }
        // It is made when something goes in, which must not turn out to be impossible then.
        let backups = options.backup_dir.as_deref().map(Place::new);
        if let Some(backups) = &backups
            && backups.dest(&self, Make::Nothing).is_err_and(|error| error.kind() == io::ErrorKind::NotADirectory)
        {
            missing.push(Missing::Fatal(format!("The backup-dir is not a directory: {}", shown(&backups.path))));
        }
        let alternatives: Vec<_> = options.alt_dirs.iter().map(|dir| Place::beside(dir, folder)).collect();
        let unusable = alternatives.iter().filter_map(|place| Some((place, place.dest(&self, Make::Nothing).err()?)));
        for (place, error) in unusable {
            let name = match options.alt_kind {
                Some(AltKind::Compare) => "compare",
                Some(AltKind::Copy) => "copy",
                Some(AltKind::Link) | None => "link",
            };
            let at = if place.path.starts_with(b"/") { place.path.clone() } else { [path, &place.path].join(&b'/') };
            missing.push(match confine::is_refusal(&error) {
                true => {
                    Missing::Fatal(format!("--{name}-dest cannot be used: {}: {}", shown(&at), confine::said(&error)))
                }
                false => Missing::Warning(format!("--{name}-dest arg does not exist: {}", shown(&at))),
            });
        }
        let backup = (options.backup || options.backup_dir.is_some()).then(|| Backup {
            dir: options.backup_dir.as_deref().map(Place::new),
            suffix: match &options.suffix {
                Some(suffix) => suffix.clone(),
                None if options.backup_dir.is_some() => Vec::new(),
                None => SUFFIX.to_vec(),
            },
            safe_links: options.safe_links,
            tells: options.level(Info::Backup) > 0,
            announced: AtomicBool::new(false),
        });
        if let Some(Backup { dir: None, suffix, .. }) = &backup
            && (suffix.is_empty() || suffix.contains(&b'/'))
        {
            missing.push(Missing::Fatal("--suffix cannot be empty or contain a slash without a --backup-dir".into()));
        }
        let write_devices = options.write_devices;
        self.places =
            Arc::new(Places { temp, partial: Partial::asked_for(options), backup, alternatives, write_devices });
        (self, missing)
    }

    /// Another directory, with this one's ways and no places of its own.
    fn at(&self, dir: OwnedFd) -> Dest {
        let (beneath, groups, places) = (Beneath::new(Arc::new(dir)), self.groups.clone(), Arc::default());
        let (reach, words) = (self.reach.clone(), Mutex::default());
        Dest { beneath, groups, places, keeps_dirlinks: false, reach, words, ..*self }
    }

    /// An alternative destination, by its number; `None` where it does not exist.
    pub fn alternative(&self, number: u8) -> Option<&Dest> {
        self.places.alternatives.get(usize::from(number))?.dest(self, Make::Nothing).ok()
    }

    /// How many alternative destinations there are.
    pub fn alternatives(&self) -> u8 {
        u8::try_from(self.places.alternatives.len()).unwrap_or(0)
    }
}

impl Partial {
    fn asked_for(options: &Options) -> Partial {
        let plain = |dir: &[u8]| matches!(dir, b"" | b"." | b"./");
        // In place there is nothing else to keep.
        if in_place(options) {
            return Partial::Nowhere;
        }
        match options.partial_dir.as_deref() {
            Some(dir) if !plain(dir) && dir.starts_with(b"/") => Partial::Elsewhere(Place::new(dir)),
            Some(dir) if !plain(dir) => {
                Partial::Beside(dir.strip_prefix(b"./").unwrap_or(dir).strip_suffix(b"/").unwrap_or(dir).to_vec())
            }
            _ if options.delay_updates => Partial::Beside(DELAY_DIR.to_vec()),
            Some(_) => Partial::Named,
            None if options.partial => Partial::Named,
            None => Partial::Nowhere,
        }
    }
}

/// Whether files are written where they stand.
pub(crate) fn in_place(options: &Options) -> bool {
    options.inplace || options.write_devices || options.append > 0
}
