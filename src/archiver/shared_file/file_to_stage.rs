//! The file that several are to write, made where an ordinary session will find it.

use crate::archiver::arguments::base;
use crate::archiver::flight::Job;
use crate::archiver::sftp::make_way;
use crate::archiver::terms::SessionTerms;
use crate::transport::Connect;
use crate::transport::ssh::sftp::{OpenedFile, Sftp, SftpError};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Makes `$3`, and the directory `$2` for unfinished files that it is in, where the base `$1` is there, and nothing has its name
/// `$4`: 0, or 3 where it is not to be made. Directories are nobody else's to write to; the account's own mask may take away more.
const SCRIPT: &str = "[ -d \"$1\" ] || exit 3; for f in \"$3\" \"$4\"; do [ -e \"$f\" ] || [ -L \"$f\" ] && exit 3; done; \
                      (umask g-w,o-w && mkdir -p -- \"${2%/*}\") && { mkdir -m 700 -- \"$2\" 2>/dev/null || [ -d \"$2\" ]; } && \
                      umask 077 && set -C && : >\"$3\"";
/// How it says that the file is not to be made.
const NOT_MADE: i32 = 3;

/// A file of a job that is to be made.
pub(super) struct FileToStage<'a> {
    pub(super) job: &'a Job,
    pub(super) path: &'a Path,
    pub(super) terms: &'a SessionTerms,
}

impl FileToStage<'_> {
    /// By a command over the connection that is there, while those for SFTP still log in: whether it was made, or is not to
    /// be, as something stands at its place already or an earlier session has begun. `None` where commands cannot be run.
    pub(super) fn make_by_command(&self, connect: &mut dyn Connect) -> Option<bool> {
        let Self { job, path, terms } = self;
        let settings = &terms.settings;
        // Those that are to have certain permissions are made otherwise.
        if settings.chmod.is_some() {
            return None;
        }
        let base = PathBuf::from(base(&settings.data_dir));
        let within = |path: &Path| base.join(path.strip_prefix(&settings.data_dir).unwrap_or(path));
        let name = base.join(job.place.variant(job.variant));
        let aside = within(path.parent()?);
        let mut words: Vec<OsString> = ["sh", "-c", SCRIPT, "sh"].map(Into::into).into();
        words.extend([base.clone(), aside, within(path), name].map(PathBuf::into_os_string));
        let mut guard = None;
        let output = connect.run_until(&words, &mut |closer| guard = Some(terms.guard(closer))).ok()?;
        match output.status {
            Some(0) => Some(true),
            Some(NOT_MADE) => Some(false),
            _ => None,
        }
    }

    /// By SFTP, in as few round trips as it takes; `None` where it is not to be made.
    pub(super) fn make(&self, sftp: &mut Sftp) -> Result<Option<OpenedFile>, SftpError> {
        const MODE: Option<u32> = Some(0o600);
        let Self { job, path, terms } = self;
        let settings = &terms.settings;
        let name = job.place.variant(job.variant);
        let base = PathBuf::from(&settings.data_dir);
        let aside = path.parent().unwrap_or(&base);
        match sftp.new_dir(aside, 0o700) {
            // Where its directory is not there, nor is the file.
            Err(SftpError::Absent) => {
                let above = aside.parent().unwrap_or(&base);
                if above == base || !make_way(sftp, &base, above, settings.chmod.as_ref())? {
                    return Ok(None);
                }
                sftp.make_dir_blindly(aside, 0o700)?;
            }
            Err(error) if error.is_of_the_line() => return Err(error),
            made => {
                if sftp.stat(&base.join(&name))?.is_some() {
                    if made.is_ok() {
                        let _ = sftp.remove_dir(aside);
                    }
                    return Ok(None);
                }
            }
        }
        match sftp.open_to_write(path, MODE) {
            Err(error) if !error.is_of_the_line() && sftp.stat(path)?.is_some() => Ok(None),
            file => file.map(Some),
        }
    }
}
