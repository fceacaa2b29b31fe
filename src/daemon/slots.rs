//! `max connections`: one lock in a shared file for each connection. Counterpart: rsync's `claim_connection`.

use crate::disk::open_operator_lock;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::io;
use std::path::Path;

/// Claims one of `most` slots; `None` where all are taken. The slot is free again when the file is dropped, or the
/// process gone. Stock daemons that share the file count with us.
pub(super) fn claim(path: &Path, most: i64) -> io::Result<Option<File>> {
    let file = open_operator_lock(path)?;
    for slot in 0..most {
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: (slot * 4) as libc::off_t,
            l_len: 4,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_SETLK(&lock)) {
            Ok(_) => return Ok(Some(file)),
            Err(Errno::EACCES | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
