//! This program, uploaded to a far end where no rsync serves.

use super::far_end::{FarProgram, far_end, version};
use crate::disk::digest::sum_of;
use crate::transfer::dest::temp_name;
use crate::transport::Connect;
use crate::transport::ssh::sftp::{Sftp, SftpError};
use protocol::checksum::{Checksum, FileHasher, Sum};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where an upload goes unless another place is named; relative to where a login begins.
pub(crate) const UPLOAD_DIR: &str = ".cache/pysmurf-archiver";

/// A program to be uploaded where none serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bootstrap {
    /// The program: one that needs nothing of the machine it runs on.
    pub file: PathBuf,
    /// The directory over there; a relative one begins where a login does.
    pub dir: PathBuf,
    /// Remove it when the work is done.
    pub remove: bool,
}

/// Whether the uploaded program runs there.
pub(super) fn runs(connect: &mut dyn Connect, path: &Path) -> Result<(), String> {
    let output = version(connect).map_err(|error| error.to_string())?;
    if far_end(&output.stdout) == Some(FarProgram::Ours) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().escape_debug().to_string();
    let how = output.status.map_or("no exit status".to_owned(), |status| format!("exit status {status}"));
    Err(format!(
        "the uploaded program {} does not run there ({how}: {said}); is the directory mounted noexec, or is it of another kind of machine? Name another directory with --bootstrap-dir, or another program with --bootstrap",
        path.display()
    ))
}

/// Puts the program there under the name of its sum, unless it is there, and gives its path. What stands under that name
/// was read back whole before it is run.
pub(super) fn upload(sftp: &mut Sftp, bootstrap: &Bootstrap) -> Result<PathBuf, String> {
    let local =
        |error: io::Error| format!("{} cannot be read ({error}); correct --bootstrap", bootstrap.file.display());
    let (sum, len) = sum_of(&mut File::open(&bootstrap.file).map_err(local)?, Checksum::Blake3).map_err(local)?;
    let there = |error: SftpError| format!("the upload to {} failed: {error}", bootstrap.dir.display());
    let dir = sftp.home().map_err(there)?.join(&bootstrap.dir);
    let mut way = PathBuf::new();
    for part in dir.components() {
        way.push(part);
        sftp.make_dir(&way, 0o700).map_err(there)?;
    }
    // Whoever else could write here could have us run what they like.
    sftp.set(&dir, Some(0o700), None).map_err(there)?;
    let path = dir.join(sum.to_string());
    if stands(sftp, &path, &sum, len).map_err(there)? {
        return Ok(path);
    }
    sftp.remove(&path).map_err(there)?;
    let temp_name = temp_name(sum.to_string().as_bytes(), || fastrand::alphanumeric() as u8);
    let temp = dir.join(OsString::from_vec(temp_name));
    let mut file = File::open(&bootstrap.file).map_err(local)?;
    let written = sftp.create(&temp, 0o600, &mut |buffer| file.read(buffer));
    let whole = written.map_err(there).and_then(|written| {
        written.map_err(local)?;
        let mut hasher = FileHasher::new(Checksum::Blake3);
        let back = sftp.read(&temp, &mut |bytes| hasher.update(bytes)).map_err(there)?;
        if (back, hasher.finish()) != (len, sum) {
            return Err(format!("the upload to {} arrived with other bytes; is the disk in order?", dir.display()));
        }
        sftp.set(&temp, Some(0o700), None).map_err(there)?;
        if sftp.rename(&temp, &path).map_err(there)? || stands(sftp, &path, &sum, len).map_err(there)? {
            return Ok(());
        }
        Err(format!("another file stands at {} and cannot be replaced", path.display()))
    });
    // After a rename nothing has the temporary name any more.
    let _ = sftp.remove(&temp);
    whole.map(|()| path)
}

/// Whether the program stands there as it should, for us alone to change, ready to be run.
fn stands(sftp: &mut Sftp, path: &Path, sum: &Sum, len: u64) -> Result<bool, SftpError> {
    match sftp.stat(path)? {
        Some(found) if found.is_file && found.len == len && found.perms & 0o077 == 0 => {}
        _ => return Ok(false),
    }
    let mut hasher = FileHasher::new(Checksum::Blake3);
    let back = sftp.read(path, &mut |bytes| hasher.update(bytes))?;
    if (back, hasher.finish()) != (len, *sum) {
        return Ok(false);
    }
    sftp.set(path, Some(0o700), None)?;
    Ok(true)
}

/// Whether a program needs no loader and no libraries of its machine; an ELF file without an interpreter.
pub(crate) fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let word = |at: usize, len: usize| -> Option<u64> {
        let bytes = program.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let headers = || -> Option<Vec<u32>> {
        // 64 bits, least byte first, as all machines are on which this program is built.
        if !program.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let (start, size, count) = (usize::try_from(word(32, 8)?).ok()?, word(54, 2)? as usize, word(56, 2)? as usize);
        (0..count).map(|n| word(start.checked_add(n * size)?, 4).map(|kind| kind as u32)).collect()
    };
    headers().is_some_and(|kinds| !kinds.is_empty() && !kinds.contains(&INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_a_loader_are_told_apart() {
        // The tests themselves need the machine's libraries; what is no program is not static either.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut elf = own[..64].to_vec();
        assert_eq!(is_static(&own), cfg!(target_feature = "crt-static"));
        assert!(!is_static(&elf) && !is_static(b"#!/bin/sh\n") && !is_static(b""));
        // One header, of a part to be loaded.
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[56..58].copy_from_slice(&1u16.to_le_bytes());
        elf.extend(1u32.to_le_bytes());
        assert!(is_static(&elf));
        elf[64] = 3;
        assert!(!is_static(&elf));
    }
}
