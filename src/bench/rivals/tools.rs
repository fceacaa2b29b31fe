//! The tools that race, and how each is told to copy the files.

use super::super::far_end::SshReach;
use super::super::queue::Queue;
use super::super::report::ReceivingEnd;
use super::super::runner::Runner;
use super::super::{BenchError, find};
use std::path::Path;
use std::process::Command;

/// The cipher of the second run of stock.
const GCM: &str = "aes128-gcm@openssh.com";

/// A tool of the user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherTool {
    /// What it is called in the table.
    pub name: String,
    /// A command line for `sh`, with `{source}`, `{host}`, `{target}` and `{config}` in it.
    pub line: String,
}

impl OtherTool {
    /// Reads `NAME=COMMAND`.
    ///
    /// # Errors
    /// What it lacks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, line) = text.split_once('=').unwrap_or_default();
        if name.is_empty() || !line.contains("{source}") || !line.contains("{target}") {
            return Err(
                "write NAME=COMMAND, with {source}, {host}, {target} and {config} where these belong".to_owned()
            );
        }
        Ok(Self { name: name.to_owned(), line: line.to_owned() })
    }
}

/// What all of them are told.
pub(super) struct RaceWay<'w> {
    pub(super) reach: &'w SshReach,
    pub(super) queue: &'w Queue,
    /// The folder over there.
    pub(super) to: String,
    pub(super) far: bool,
}

/// One of those that race.
#[derive(Debug, Clone)]
pub(super) enum Tool {
    Ours(ReceivingEnd),
    Archiver(ReceivingEnd),
    Rsync(Option<&'static str>),
    Scp,
    Tar,
    Rclone,
    Mscp,
    Other(OtherTool),
}

impl Tool {
    pub(super) fn all(others: &[OtherTool]) -> Vec<Self> {
        let known = [
            Self::Ours(ReceivingEnd::Stock),
            Self::Ours(ReceivingEnd::Ours),
            Self::Archiver(ReceivingEnd::Stock),
            Self::Archiver(ReceivingEnd::Ours),
            Self::Rsync(None),
            Self::Rsync(Some(GCM)),
            Self::Scp,
            Self::Tar,
            Self::Rclone,
            Self::Mscp,
        ];
        known.into_iter().chain(others.iter().cloned().map(Self::Other)).collect()
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Ours(end) => format!("ours to {}", end.name()),
            Self::Archiver(end) => format!("archiver to {}", end.name()),
            Self::Rsync(None) => "rsync".to_owned(),
            Self::Rsync(Some(_)) => "rsync, aes128-gcm".to_owned(),
            Self::Scp => "scp".to_owned(),
            Self::Tar => "tar through ssh".to_owned(),
            Self::Rclone => "rclone".to_owned(),
            Self::Mscp => "mscp".to_owned(),
            Self::Other(tool) => tool.name.clone(),
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_) | Self::Archiver(_))
    }

    /// How it is told; the error says why it cannot be.
    pub(super) fn command(&self, way: &RaceWay<'_>, runner: &Runner<'_>) -> Result<Command, BenchError> {
        let RaceWay { reach, queue, to, far } = way;
        let folder = queue.folder.display().to_string();
        let lone = queue.lone().map(|file| file.display().to_string());
        // Of a lone file our command may write ranges; to all others it is the same.
        let source = lone.clone().unwrap_or_else(|| format!("{folder}/"));
        let target = format!("{}:{to}/", reach.host());
        let ssh = format!("ssh {}", reach.words().join(" "));
        let by_shell = |line: String| {
            let mut command = reach.command(Path::new("sh"));
            command.args(["-c", &line]);
            command
        };
        Ok(match self {
            Self::Ours(end) => {
                let mut command = reach.ours(runner.far.server(*end)?)?;
                command.args(["-rt", "--parallel=auto", &source, &target]);
                command
            }
            Self::Archiver(end) => queue.archiver(reach, runner.far.server(*end)?, to, "auto")?,
            Self::Rsync(cipher) => {
                let mut command = reach.stock(&find("rsync")?, *cipher);
                command.args(["-rt", &source, &target]);
                command
            }
            Self::Scp => {
                let mut command = reach.command(&find("scp")?);
                let source = lone.unwrap_or_else(|| format!("{folder}/."));
                command.args(["-q", "-r"]).args(reach.words()).args([&source, &target]);
                command
            }
            Self::Tar => {
                let host = reach.host();
                by_shell(format!("{} -C {folder} -cf - . | {ssh} {host} 'tar -C {to} -xf -'", find("tar")?.display()))
            }
            Self::Rclone => {
                let mut command = reach.command(&find("rclone")?);
                command.args(["copy", "--config", "", "--transfers", "8", "--checkers", "8"]);
                command.args(["--sftp-concurrency", "64", "--sftp-disable-hashcheck"]);
                for (option, setting) in [
                    ("--sftp-host", "HostName"),
                    ("--sftp-port", "Port"),
                    ("--sftp-user", "User"),
                    ("--sftp-key-file", "IdentityFile"),
                ] {
                    command.arg(option).args(reach.setting(setting));
                }
                command.args([&folder, &format!(":sftp:{to}")]);
                command
            }
            Self::Mscp => {
                let (connections, config) = (if *far { 8 } else { 2 }, reach.config().unwrap_or_default());
                // No distribution of ours has it.
                let missing =
                    |_| BenchError::Setup("No mscp here; https://github.com/upa/mscp has packages".to_owned());
                let mscp = find("mscp").map_err(missing)?;
                let (mscp, config) = (mscp.display(), config.display());
                by_shell(format!("{mscp} -q -n {connections} -F {config} {folder}/* {target}"))
            }
            Self::Other(tool) => {
                let config = reach.config().unwrap_or_default().display().to_string();
                let line = tool.line.replace("{source}", &source).replace("{host}", reach.host());
                by_shell(line.replace("{target}", to).replace("{config}", &config))
            }
        })
    }
}
