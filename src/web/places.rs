//! Where the sockets of running archivers are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How the name of a socket ends.
pub(super) const SUFFIX: &str = ".sock";
/// The longest name of a socket, without its ending.
const NAME_MOST: usize = 64;
/// The folder of services, and those of users in their runtime directories.
const FOLDER: &str = "pysmurf-archiver";

/// Where a process is to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ControlChoice {
    /// In the first of the default folders that can be used.
    #[default]
    Default,
    At(PathBuf),
    Nowhere,
}

/// A path, or `none`.
impl FromStr for ControlChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("name a path, or none".into()),
            "none" => Ok(Self::Nowhere),
            path => Ok(Self::At(path.into())),
        }
    }
}

/// The folder of a service, where we are within one.
fn service_folder() -> Option<PathBuf> {
    let list = set("RUNTIME_DIRECTORY")?;
    std::env::split_paths(&list).next()
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Where running archivers are looked for: within a service its own are meant.
pub(super) fn folders_to_ask() -> Vec<PathBuf> {
    service_folder().map_or_else(folders, |folder| vec![folder])
}

/// The default folders, the best one first.
pub(super) fn folders() -> Vec<PathBuf> {
    let service = service_folder();
    let user = set("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join(FOLDER));
    let uid = rustix::process::geteuid().as_raw();
    let always = [Path::new("/run").join(FOLDER)];
    let last = PathBuf::from(format!("/tmp/{FOLDER}-{uid}"));
    service.into_iter().chain(always).chain(user).chain([last]).filter(|path| path.is_absolute()).collect()
}

/// What the socket of a process is called: as what it archives.
pub(crate) fn socket_name(archives: &[&str]) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() || "-_+".contains(char) { char } else { '_' };
    let name: String = archives.join("+").chars().map(plain).take(NAME_MOST).collect();
    if name.is_empty() { "archiver".to_owned() } else { name }
}
