//! The command line of `files` as typed.

use super::{DatabaseArgs, SITE, ServiceArgs, TableArgs, link_site};
use crate::catalog::SESSIONS_MOST;
use crate::console::files::adding::TimeRule;
use crate::throttle::parse_rate;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

const FILES_HELP: &str = "\
All of these work on the database, whether a `run` is at work on it or not. Which
rows: --archive-name with SQLite, --target with MySQL, as `run` has them.

Examples:
  pysmurf-archiver files list --failed --db sqlite:so.db --archive-name smurf
  pysmurf-archiver files show 1589517264_tuning.npy --db sqlite:so.db --archive-name smurf
  pysmurf-archiver files add ~/data --db sqlite:mine.db --archive-name mine

Exit codes: 0 all is well, 1 something is not (each verb says what), 2 usage.";

const LIST_HELP: &str = "\
On a terminal a table of at most --limit rows; --json gives an object on each
line, --csv a header and a line for each row, both of all rows unless --limit
says otherwise. Times there are unix seconds.

A row with several storage nodes has a line more for each node that alone failed
to take its copy, with the node's name, how often and why; `retry` tries these
again, too. What all nodes meet, such as a missing file, counts in the row itself.";

const SHOW_HELP: &str = "\
A file is named by its source path, the path of its copy, or the end of either:
the name alone is enough.

Exit codes: 0 the copy is proven, 1 it is not, 2 there is no such row, or usage.";

const ADD_HELP: &str = "\
A folder is taken with all that is below it. Each file is read once, for its MD5,
by several cores. What is registered with the same MD5 is left out; what is
registered with another is told, and left as it is. Symlinks and special files
are told and left out. The table must be there; init-db makes it.

In SQLite a file of FOLDER goes to FOLDER's name and its path below it; of
FOLDER/ to that path alone, as with rsync. In MySQL the place comes of the file's
time, the publisher and the type, by default the suffix of its name.

Exit codes: 0 all are registered, 1 some are not, 2 usage.";

const ACCEPT_HELP: &str = "\
Each file is read anew. Only rows that failed, and whose file has another MD5
now, are changed; what was registered before counts no more. Asks first, unless
--yes is given.

Exit codes: 0 done, 1 some could not be read, 2 usage.";

const RECOPY_HELP: &str = "\
The next `run` looks at the copy: where it is right it is proven anew, where it is
missing it is made. A copy with other bytes is never written over: the good one
gets the next free name, .1 or .2 behind it, and the row says so.

In MySQL a copied row says no longer where its file was; --source does.";

const PRUNABLE_HELP: &str = "\
Files whose copy is proven and that are here still, those first that were proven
first. `run` deletes of them what --delete-local-after or --delete-when-below
says, and reads each once more before it does; --read does that here, too.
Nothing is deleted.

Exit codes: 0 done, 2 usage.";

const TIMECODES_HELP: &str = "\
A timecode directory is complete once a later one has begun, or its time is over
(a timecode is 100,000 seconds). It is announced, by `run --suprsync-file-root`,
once all its files are proven; and again once files that came late are, and no
more came for ten minutes.

--rebuild makes the row of a timecode anew, if it has files, and has `run`
announce it again.

Exit codes: 0 done, 2 no such timecode, or usage.";

const VERIFY_HELP: &str = "\
The storage node reads its copies, and their MD5s are compared with those
registered: by its own rsync, by this program there, or where it has neither by
reading them back. Nothing is written there. --repair makes rows of missing and
different copies pending again, so that `run` brings them.

Exit codes: 0 all are right, 1 some are not, or could not be read, 2 usage.";

#[derive(Debug, Clone, Args)]
#[command(after_help = FILES_HELP)]
pub(in crate::cli) struct FilesArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: FilesVerb,
}

#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum FilesVerb {
    /// List rows: those that wait and those that failed, unless others are asked for
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Where is my file? Its row, its copy, what proves it, and what to do next
    #[command(after_help = SHOW_HELP)]
    Show(ShowArgs),
    /// Register files, or all files of folders
    #[command(after_help = ADD_HELP)]
    Add(AddArgs),
    /// Give rows that were given up a new chance: as `retry`
    Retry(super::RetryArgs),
    /// Have rows never copied, and told as ignored; what is copied stays so
    Ignore(ChangeArgs),
    /// Have ignored rows copied after all
    Unignore(ChangeArgs),
    /// Have files that changed since they were registered count as they are now
    #[command(after_help = ACCEPT_HELP)]
    Accept(AcceptArgs),
    /// Have copied rows proven, or copied, again
    #[command(after_help = RECOPY_HELP)]
    Recopy(RecopyArgs),
    /// Have a storage node owe its copies: what it has is proven anew, what it has not is copied; after it was wiped, or is new
    Owe(OweArgs),
    /// Which local files may be deleted now, for how many bytes, and why the others may not (SQLite)
    #[command(after_help = PRUNABLE_HELP)]
    Prunable(PrunableArgs),
    /// What each timecode directory waits for, and which are announced (SQLite)
    #[command(after_help = TIMECODES_HELP)]
    Timecodes(TimecodesArgs),
    /// Have copies read where they are, and compared with what was registered
    #[command(after_help = VERIFY_HELP)]
    Verify(Box<VerifyArgs>),
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    /// Rows that wait, also those that failed and will be tried again
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) pending: bool,

    /// Rows that failed, also those given up, and why; and what failed at a storage node alone, once for each such node
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) failed: bool,

    /// Rows whose copy is proven
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) copied: bool,

    /// Rows that nobody will copy, and why
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) ignored: bool,

    /// Only what this one of several storage nodes lacks: what waits there, what it owes and what failed there; with --failed
    /// only the last, with --pending what is still tried
    // Not `node`: that one has a configuration file's targets parted by their nodes.
    #[arg(id = "at_node", long = "node", value_name = "NAME", conflicts_with_all = ["copied", "ignored"], help_heading = "Storage nodes")]
    pub(in crate::cli) node: Option<String>,

    /// With --node, as `run` has it: a row is done once this many nodes have proven their copies. A configuration file says it by itself
    #[arg(long, value_name = "N", conflicts_with = "share", help_heading = "Storage nodes")]
    pub(in crate::cli) copies: Option<usize>,

    /// With --node, as `run` has it: each row goes to one of the nodes. A configuration file says it by itself
    #[arg(long, help_heading = "Storage nodes")]
    pub(in crate::cli) share: bool,

    /// Only rows registered (MySQL: of files written) so long ago, such as 90s, 20m, 2h, 3d, 1w
    #[arg(long, value_name = "AGE", value_parser = age, help_heading = "Rows")]
    pub(in crate::cli) older_than: Option<Duration>,

    /// Only rows one of whose paths is like this; * stands for anything, ? for one character
    #[arg(long, value_name = "PATTERN", help_heading = "Rows")]
    pub(in crate::cli) path: Option<String>,

    /// Rows at most; 0 for all. By default 1000 in a table, else all
    #[arg(long, value_name = "N", help_heading = "Rows")]
    pub(in crate::cli) limit: Option<u64>,

    /// An object on each line
    #[arg(long, conflicts_with = "csv", help_heading = "Output")]
    pub(in crate::cli) json: bool,

    /// A header and a line for each row
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) csv: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    /// The file: its path, the path of its copy, or the end of either
    #[arg(value_name = "PATH", required_unless_present = "id")]
    pub(in crate::cli) path: Option<String>,

    /// The row of this id
    #[arg(long, value_name = "ID", conflicts_with = "path")]
    pub(in crate::cli) id: Option<i64>,

    /// An object on each line
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct AddArgs {
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    /// Files and folders
    #[arg(value_name = "PATH", required = true)]
    pub(in crate::cli) paths: Vec<PathBuf>,

    /// SQLite: put this before their places in the archive
    #[arg(long, value_name = "DIR", help_heading = "Rows")]
    pub(in crate::cli) remote_prefix: Option<String>,

    /// SQLite: local files may be deleted once they are proven, where `run` is told --delete-local-after
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) deletable: bool,

    /// MySQL: their type, or action; by default the suffix of each name, or `files`
    #[arg(long = "type", value_name = "TYPE", help_heading = "Rows")]
    pub(in crate::cli) kind: Option<String>,

    /// MySQL: their publisher; by default the target
    #[arg(long, value_name = "ID", help_heading = "Rows")]
    pub(in crate::cli) pub_id: Option<String>,

    /// Their time: mtime, now, or unix seconds; by default mtime in MySQL, and now in SQLite, where deletion counts from it
    #[arg(long, value_name = "WHEN", value_parser = TimeRule::parse, help_heading = "Rows")]
    pub(in crate::cli) timestamp: Option<TimeRule>,

    /// Files that are read at once; by default as many as there are cores, up to 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Work")]
    pub(in crate::cli) threads: Option<u16>,

    /// Read and compare, and register nothing
    #[arg(long, help_heading = "Work")]
    pub(in crate::cli) dry_run: bool,

    /// Print a summary as one JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

/// Which rows are meant.
#[derive(Debug, Clone, Args)]
#[group(id = "choice", required = true, multiple = false)]
pub(in crate::cli) struct ChoiceArgs {
    /// All rows for which it makes sense
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) all: bool,

    /// Rows with these ids
    #[arg(long, value_name = "ID", num_args = 1.., help_heading = "Rows")]
    pub(in crate::cli) id: Vec<i64>,

    /// Rows one of whose paths is like this; * stands for anything, ? for one character
    #[arg(long, value_name = "PATTERN", help_heading = "Rows")]
    pub(in crate::cli) path: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ChangeArgs {
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    #[command(flatten)]
    pub(in crate::cli) choice: ChoiceArgs,

    /// Print a summary as one JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct AcceptArgs {
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,

    /// Do not ask
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RecopyArgs {
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,

    /// MySQL: the folder here below which the files are looked for, by name and MD5; of one row by --id also the file
    /// itself, wherever it is
    #[arg(long, value_name = "PATH", help_heading = "Rows")]
    pub(in crate::cli) source: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct OweArgs {
    #[command(flatten)]
    pub(in crate::cli) change: ChangeArgs,

    /// Which storage node
    #[arg(long, value_name = "NAME", required = true, help_heading = "Rows")]
    pub(in crate::cli) node: String,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PrunableArgs {
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    /// Only files beneath these folders may go, as for run; may be repeated
    #[arg(long, value_name = "DIR", num_args = 1.., help_heading = "Rows")]
    pub(in crate::cli) source_root: Vec<PathBuf>,

    /// Only files proven so long ago, such as 90s, 20m, 2h, 3d, 1w
    #[arg(long, value_name = "AGE", value_parser = age, help_heading = "Rows")]
    pub(in crate::cli) older_than: Option<Duration>,

    /// Read each file, and compare it with what was proven
    #[arg(long, help_heading = "Work")]
    pub(in crate::cli) read: bool,

    /// Files that are listed at most; 0 for all. By default 1000 in a table, else all. All are counted
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub(in crate::cli) limit: Option<u64>,

    /// An object on each line
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct TimecodesArgs {
    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,

    /// All of them; else those that wait for something, and the last five announced
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) all: bool,

    /// Have these announced anew
    #[arg(long, value_name = "TIMECODE", num_args = 1.., help_heading = "Rows")]
    pub(in crate::cli) rebuild: Vec<i64>,

    /// An object on each line
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    pub(in crate::cli) service: ServiceArgs,

    #[command(flatten)]
    pub(in crate::cli) choice: ChoiceArgs,

    /// Make rows of missing and different copies pending again
    #[arg(long, help_heading = "Rows")]
    pub(in crate::cli) repair: bool,

    /// MySQL, with --repair: the folder here below which the files are looked for, by name and MD5
    #[arg(long, value_name = "PATH", help_heading = "Rows")]
    pub(in crate::cli) source: Option<PathBuf>,

    /// Print a summary as one JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

/// What `init-db` needs.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct InitDbArgs {
    #[command(flatten)]
    pub(in crate::cli) database: DatabaseArgs,

    /// Add indexes of ours to the table of files, so that questions to a large one are answered at once; takes some seconds
    /// for each million rows, and the database grows by about a half
    #[arg(long)]
    pub(in crate::cli) indexes: bool,

    /// Add the tables by which several archivers, on one host or many, share the rows of a target; those that are running take
    /// them up when they are restarted
    #[arg(long)]
    pub(in crate::cli) fleet: bool,

    /// Add the tables by which the rows of a target go to several storage nodes, and with them those of --fleet
    #[arg(long)]
    pub(in crate::cli) nodes: bool,

    /// Set what all archivers together may have of the link from --link-site to this storage node: the name of a [[node]], or
    /// without any the host of --storage-host (HOST:PORT where the port is not 22). Takes --fleet with it
    #[arg(long, value_name = "NODE")]
    pub(in crate::cli) link_node: Option<String>,

    /// Where these archivers stand, as they say in `run`
    #[arg(long, value_name = "NAME", default_value = SITE, value_parser = link_site)]
    pub(in crate::cli) link_site: String,

    /// Sessions of that link at most; 0 for no limit
    #[arg(long, value_name = "N", requires = "link_node", value_parser = clap::value_parser!(u32).range(0..=i64::from(SESSIONS_MOST)))]
    pub(in crate::cli) link_sessions: Option<u32>,

    /// What goes over that link at most, in KiB per second, or with a suffix such as 100M; 0 for no limit
    #[arg(long, value_name = "RATE", requires = "link_node", value_parser = parse_rate)]
    pub(in crate::cli) link_bandwidth: Option<u64>,
}

/// A number with one of the letters s, m, h, d, w.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected an age such as 90s, 20m, 2h, 3d or 1w".to_owned();
    let (number, unit) = match text.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => (&text[..at], letter),
        _ => (text, 's'),
    };
    let seconds = match unit {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        'd' => 86_400.0,
        'w' => 604_800.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).ok().filter(|age| age.as_secs() < 4_000_000_000).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        for (text, seconds) in [("90s", 90), ("7", 7), ("20m", 1200), ("2h", 7200), ("3d", 259_200), ("1w", 604_800)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "3x", "-1s", "1e300d", "NaN", "3ü"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
