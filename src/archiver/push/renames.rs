//! A file that the far end has proven where several have written it, in the directory for unfinished files: it gets its name by
//! SFTP, beside the end of the session.
//!
//! An ordinary session would take it for what an earlier try has left, sum its blocks, and write it once more, summing it anew.
//! So it is listed under the name that it has there, and the far end finds that it has the registered sum already.

use crate::archiver::shared_file::Sharing;
use crate::archiver::stop::LinkGuard;
use crate::archiver::terms::SessionTerms;
use crate::transport::ssh::sftp::{Sftp, SftpError};
use std::path::PathBuf;
use std::thread::{Builder, JoinHandle};

/// Files that get their names, one after the other.
#[derive(Default)]
pub(super) struct Renames {
    under_way: Option<UnderWay>,
    /// The jobs whose files have them.
    named: Vec<usize>,
}

struct UnderWay {
    job: usize,
    thread: JoinHandle<(Sftp, Result<bool, SftpError>)>,
    _guard: LinkGuard,
}

impl Renames {
    /// Has the file of a job get its name, where nothing has that. It does not where no connection is at hand.
    pub(super) fn begin(
        &mut self,
        job: usize,
        (from, to): (PathBuf, PathBuf),
        sharing: &mut Sharing,
        terms: &SessionTerms,
    ) {
        self.settle(sharing);
        let Some(sftp) = sharing.take_kept() else { return };
        let guard = terms.guard(sftp.closer());
        let rename = move || {
            let renamed = sftp.rename(&from, &to);
            if let Ok(false) = renamed {
                let _ = sftp.remove(&from);
            }
            if renamed.is_ok() {
                // Others may have theirs in it.
                let _ = from.parent().map(|aside| sftp.remove_dir(aside));
            }
            (sftp, renamed)
        };
        if let Ok(thread) = Builder::new().name("naming".into()).spawn(rename) {
            self.under_way = Some(UnderWay { job, thread, _guard: guard });
        }
    }

    /// Waits until all are named that are to be; the jobs whose files have their names.
    pub(super) fn end(mut self, sharing: &mut Sharing) -> Vec<usize> {
        self.settle(sharing);
        self.named
    }

    fn settle(&mut self, sharing: &mut Sharing) {
        let Some(UnderWay { job, thread, _guard }) = self.under_way.take() else { return };
        // One who panics leaves the file where it is, and the connection is gone with it.
        let Ok((sftp, renamed)) = thread.join() else { return };
        match renamed {
            Ok(true) => self.named.push(job),
            Ok(false) => tracing::debug!("Something has the name of a proven file by now"),
            Err(error) => {
                tracing::debug!("A proven file did not get its name: {error}");
                if error.is_of_the_line() {
                    return;
                }
            }
        }
        sharing.keep(sftp);
    }
}
