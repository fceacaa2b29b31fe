//! `bench`: ourselves against stock rsync, scp and OpenSSH, on this machine or over the user's own link.
//!
//! Every number is a median of interleaved rounds (stock, we, stock, we …), because single times on a shared machine mean
//! little. Programs are measured as processes of their own, started by a small one that asks the kernel what they used.

pub mod delta;
mod far_end;
pub(crate) mod fleet;
pub mod link;
pub(crate) mod measure;
pub(crate) mod plot;
mod progress;
mod queue;
mod report;
pub mod rivals;
pub(crate) mod runner;
pub mod scene;
pub(crate) mod ssh;
mod sshd;
pub mod transfer;
mod wan;

pub use progress::BenchProgress;
pub use report::{Findings, ReceivingEnd, Row, Trial};

use crate::transport::ConnectError;
use std::path::{Path, PathBuf};
use std::{env, io};

/// Why something could not be measured. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A program that is not here.
    #[error("No {tool} here; apt-get install -y --no-install-recommends {package}")]
    Missing {
        /// The program.
        tool: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// A program that failed.
    #[error("{what} failed ({status}): {said}")]
    Failed {
        /// Its command line, shortened.
        what: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// A file or folder on this side.
    #[error("Cannot {doing} {path}: {source}; choose another place with --dir")]
    Local {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The far end.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What cannot be as it was asked for.
    #[error("{0}")]
    Setup(String),
    /// A signal asked for the end.
    #[error("Interrupted")]
    Interrupted,
    /// A copy that is none: its time is worth nothing.
    #[error("The copy made by {by} in {scenario} is not equal to its source; this is a bug, please report it")]
    Unequal {
        /// Whose copy.
        by: &'static str,
        /// In which scenario.
        scenario: &'static str,
    },
}

impl BenchError {
    fn local(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { doing, path: path.to_owned(), source }
    }
}

/// Where a program is; servers live outside the `PATH` of ordinary accounts.
fn find(tool: &'static str) -> Result<PathBuf, BenchError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let package = match tool {
        "sshd" => "openssh-server",
        "ssh" | "scp" | "ssh-keygen" => "openssh-client",
        other => other,
    };
    env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
        .ok_or(BenchError::Missing { tool, package })
}

/// The middle one; of an even number, the mean of both. `None` of nothing.
fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { (values[values.len() / 2 - 1] + upper) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_odd_and_even_many() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let error = find("ssh-nothing").unwrap_err().to_string();
        assert!(error.contains("No ssh-nothing here") && error.contains("apt-get install"), "{error}");
    }
}
