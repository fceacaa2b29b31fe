//! Owners and permissions of what is held by a descriptor, set by way of libc: of the library for the other calls these
//! alone go past it, and then fakeroot and its like, which stand in between, know nothing of them.

use nix::sys::stat::Mode;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use std::fs::Permissions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Gives an open file or folder an owner and a group; `None` leaves one alone.
pub(crate) fn fchown(fd: impl AsFd, uid: Option<Uid>, gid: Option<Gid>) -> Result<(), Errno> {
    let done = std::os::unix::fs::fchown(fd, uid.map(Uid::as_raw), gid.map(Gid::as_raw));
    done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Gives an open file or folder permissions.
pub(crate) fn fchmod(fd: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(nix::sys::stat::fchmod(fd, Mode::from_bits_truncate(mode))?)
}

/// Gives permissions to what a path leads to.
pub(crate) fn chmod(path: &str, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(Path::new(path), Permissions::from_mode(mode))
}
