//! The command line of `batch` as typed.

use super::ConfigArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

const BATCH_HELP: &str = "\
A batch is files and directories with their exact places at the storage node, of
which all arrive or none. They are handed over in a folder, the spool, and copied
by `run --batches SPOOL`, which need not be at work meanwhile.

Examples:
  pysmurf-archiver batch add night.json --batches /var/spool/batches
  pysmurf-archiver batch status night --batches /var/spool/batches
  pysmurf-archiver run --batches /var/spool/batches --storage-host ocs@storage-b

Exit codes: 0 all is well, 1 a batch is not done, 2 no such batch, or usage.";

const ADD_HELP: &str = "\
FILE, or - for standard input, has one JSON object:
  {\"v\": 1, \"batch\": \"night\", \"link\": \"ocs@storage-b\", \"librarian\": \"here\",
   \"files\": [{\"local\": \"/data/x\", \"remote\": \"/staging/x\", \"dir\": false}]}
link is what `run` has as --storage-host, or --link. A second batch of the same
name is none: it is told how the first one stands.

Exit codes: 0 it is handed over, or was before, 2 usage.";

const STATUS_HELP: &str = "\
Exit codes: 0 it is done, 1 it is not, 2 there is no such batch, or usage.";

const CANCEL_HELP: &str = "\
What was copied of it is removed at the storage node by the `run` that copies it,
which then tells that it failed.

Exit codes: 0 it will be, 1 it is over, 2 there is no such batch, or usage.";

const MANIFEST_HELP: &str = "\
M is what `librarian get-store-manifest` wrote. Beside it M.mended.json is
written, in which this Librarian is the source of each entry, and not whoever
uploaded it: that is whom the other Librarian calls back. The same manifest to
the same place is the same batch. More than 5000 files are several batches.

Example:
  pysmurf-archiver batch from-manifest day.json --link ocs@storage-b \\
      --to /incoming/2026-02-10 --batches /var/spool/batches

Exit codes: 0 all are handed over, or were before, 2 usage.";

/// What `batch` is to do.
#[derive(Debug, Args)]
#[command(after_help = BATCH_HELP)]
pub(in crate::cli) struct BatchArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: BatchVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BatchVerb {
    /// Hand a batch over
    #[command(after_help = ADD_HELP)]
    Add(AddBatchArgs),
    /// Say how a batch stands
    #[command(after_help = STATUS_HELP)]
    Status(NamedBatchArgs),
    /// Have a batch cancelled, and what was copied of it removed
    #[command(after_help = CANCEL_HELP)]
    Cancel(NamedBatchArgs),
    /// List all batches
    List(ListBatchArgs),
    /// Hand over the files of a Librarian's manifest, and write the manifest that the other Librarian is to ingest
    #[command(after_help = MANIFEST_HELP)]
    FromManifest(ManifestArgs),
}

/// Where batches are handed over.
#[derive(Debug, Args)]
pub(in crate::cli) struct BatchSpoolArgs {
    /// Folder in which batches are handed over
    #[arg(long, value_name = "SPOOL", required = true)]
    pub(in crate::cli) batches: PathBuf,

    #[command(flatten)]
    #[allow(dead_code, reason = "read before the command line is parsed")]
    pub(in crate::cli) config: ConfigArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AddBatchArgs {
    /// File with the request, - for standard input
    pub(in crate::cli) file: PathBuf,

    #[command(flatten)]
    pub(in crate::cli) spool: BatchSpoolArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct NamedBatchArgs {
    /// The batch's name
    pub(in crate::cli) id: String,

    /// Print the state as one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    pub(in crate::cli) spool: BatchSpoolArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListBatchArgs {
    /// Print the state of each batch as a JSON object on a line
    #[arg(long)]
    pub(in crate::cli) json: bool,

    #[command(flatten)]
    pub(in crate::cli) spool: BatchSpoolArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ManifestArgs {
    /// The manifest
    #[arg(value_name = "M")]
    pub(in crate::cli) manifest: PathBuf,

    /// What `run` calls the far end: its --storage-host or --link
    #[arg(long, value_name = "NAME", required = true)]
    pub(in crate::cli) link: String,

    /// Folder at the storage node below which the files go, new each time: the --store-root of `librarian ingest-manifest`
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) to: String,

    /// Name of the batch; by default one made of the manifest
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) name: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) spool: BatchSpoolArgs,
}
