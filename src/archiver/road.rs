//! Which road files take to the far end: its own rsync, this program uploaded, or plain SFTP. Found once per connection.

use super::bootstrap::{Bootstrap, runs, upload};
use super::far_end::{Answer, FarEnd, ask};
use crate::status::Progress;
use crate::transport::ssh::sftp::Sftp;
use crate::transport::{Connect, ConnectError};
use std::ffi::OsString;
use std::path::PathBuf;

/// The road that was found.
pub(super) enum Road {
    /// A program serves there.
    Program {
        /// It knows `--fsync`.
        syncs: bool,
        /// It is this program.
        ours: bool,
    },
    /// Nothing serves there; files are written one by one.
    Sftp(Box<Sftp>),
}

/// Finds the road. What serves there from now on is set in `connect`; `uploaded` is where an upload stands then.
pub(super) fn find(
    connect: &mut dyn Connect,
    server_args: &[OsString],
    bootstrap: Option<&Bootstrap>,
    uploaded: &mut Option<PathBuf>,
    progress: &Progress,
) -> Result<Road, ConnectError> {
    connect.serve_with(None);
    let (why, unclear) = match ask(connect, server_args)? {
        Answer::Serves(found, _) => {
            progress.set_road(None);
            return Ok(Road::Program { syncs: found.is_some_and(FarEnd::syncs), ours: found == Some(FarEnd::Ours) });
        }
        Answer::Nothing(why) => (why, false),
        Answer::Unclear(why) => (why, true),
    };
    let host = connect.describe();
    let mut sftp = match connect.sftp() {
        Ok(sftp) => sftp,
        // Its sessions say best what is wrong there.
        Err(_) if unclear => {
            progress.set_road(None);
            return Ok(Road::Program { syncs: false, ours: false });
        }
        Err(error @ (ConnectError::Timeout { .. } | ConnectError::Unreachable { .. })) => return Err(error),
        Err(error) => {
            let why = format!(
                "{why}; nor can files be written by SFTP: {error}. Install rsync there, or name it with --rsync-path"
            );
            return Err(ConnectError::Lost { host, why });
        }
    };
    let mut remedy = "install rsync there, or let this program be uploaded with --bootstrap".to_owned();
    if let Some(bootstrap) = bootstrap {
        match upload(&mut sftp, bootstrap).and_then(|path| {
            connect.serve_with(Some(vec![path.clone().into()]));
            runs(connect, &path).map(|()| path)
        }) {
            Ok(path) => {
                tracing::info!(host, program = %path.display(), "{why}; our own was uploaded and serves there");
                progress.set_road(Some(format!("uploaded program {}: {why}", path.display())));
                *uploaded = Some(path);
                return Ok(Road::Program { syncs: true, ours: true });
            }
            Err(trouble) => {
                connect.serve_with(None);
                remedy = trouble;
            }
        }
    }
    // Not again after each loss of the connection.
    if progress.set_road(Some(format!("SFTP, slower: {why}; {remedy}"))) {
        tracing::warn!(host, "{why}; files are written by SFTP, which is slower and read back to be proven; {remedy}");
    }
    Ok(Road::Sftp(Box::new(sftp)))
}
