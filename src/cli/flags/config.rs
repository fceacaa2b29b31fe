//! The flags of `config`.

use super::RunArgs;
use clap::{Args, Subcommand};

pub(in crate::cli) const CONFIG_HELP: &str = "\
A file that holds an option stands behind the variable of the same name
(ARCHIVER_DATA_DIR for data-dir), and both behind what is typed. A running
archiver reads the file again at SIGHUP.

Examples:
  pysmurf-archiver config example > config.toml
  pysmurf-archiver config check --config config.toml
  pysmurf-archiver run --config config.toml";

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigCommand {
    #[command(subcommand)]
    pub(in crate::cli) verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigVerb {
    /// Say whether it can be used, what is in force for each target, and where each value comes from; secrets are not shown
    Check(Box<ConfigCheckArgs>),
    /// Print a configuration file with all options, each with its help and its default
    Example,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigCheckArgs {
    /// Show defaults, too
    #[arg(long)]
    pub(in crate::cli) all: bool,

    #[command(flatten)]
    pub(in crate::cli) run: RunArgs,
}
