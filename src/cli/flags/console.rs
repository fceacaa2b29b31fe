//! What the verbs take by which a running archiver is asked and told.

use super::{ConfigArgs, TableArgs};
use crate::console::LimitOrder;
use crate::web::ListenAddress;
use crate::web::places::ControlChoice;
use clap::Args;
use std::path::PathBuf;

/// How operators reach a run.
#[derive(Debug, Clone, PartialEq, Default, Args)]
#[command(next_help_heading = "Operators")]
pub(in crate::cli) struct DoorArgs {
    /// Socket by which `status`, `pause` and others reach this process; none for none. By default one named after what is
    /// archived, in $RUNTIME_DIRECTORY, /run/pysmurf-archiver, $XDG_RUNTIME_DIR/pysmurf-archiver or
    /// /tmp/pysmurf-archiver-UID
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) control: Option<ControlChoice>,

    /// Serve a status page, /metrics, /healthz, /readyz and /status.json here; a port alone is of this machine only
    #[arg(long, value_name = "[ADDRESS:]PORT")]
    pub(in crate::cli) listen: Option<ListenAddress>,

    /// File with the token by which changes are allowed there: pause, resume, bwlimit, retry
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub(in crate::cli) listen_token_file: Option<PathBuf>,

    /// Folder in which a day's history is kept, by which rates over the last hour outlast a restart; none for none. By
    /// default $STATE_DIRECTORY, or pysmurf-archiver in $XDG_STATE_HOME or ~/.local/state
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) state_dir: Option<PathBuf>,
}

/// What `status` takes.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Show it again and again, until Ctrl-C
    #[arg(long, short)]
    pub(in crate::cli) watch: bool,

    /// Print one JSON object, as the service's /status.json has it
    #[arg(long)]
    pub(in crate::cli) json: bool,

    /// Say only whether the running archiver lives and moves, for whoever starts it anew when it does not
    #[arg(long, conflicts_with_all = ["watch", "json", "exact"])]
    pub(in crate::cli) health: bool,

    /// Without a running archiver: count the whole table, however long that takes
    #[arg(long)]
    pub(in crate::cli) exact: bool,

    /// Say how all archivers stand that share the rows, by the tables of their fleet: who lives, who has which lanes, what
    /// waits where. Takes up to two heartbeats (10 s) where one does not live
    #[arg(long, conflicts_with_all = ["health", "exact"])]
    pub(in crate::cli) fleet: bool,

    /// The running archiver's socket; by default all that are found
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) control: Option<ControlChoice>,

    #[command(flatten)]
    pub(in crate::cli) table: TableArgs,
}

/// Which running archiver is meant.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct AimArgs {
    /// The one that archives this; needed where several run
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) target: Vec<String>,

    /// The same, of an archive of SupRsync
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) archive_name: Option<String>,

    /// Its socket; by default what the configuration file or the variable ARCHIVER_CONTROL says, or all that are found
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) control: Option<ControlChoice>,

    #[command(flatten)]
    #[allow(dead_code, reason = "read before the command line is parsed")]
    pub(in crate::cli) config: ConfigArgs,
}

/// What a running archiver is told.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) enum SteerOrder {
    Pause,
    Resume,
    /// This limit; or to say which one there is.
    Limit(Option<String>),
}

/// What `bwlimit` takes.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct LimitArgs {
    /// KiB per second, or with a suffix such as 20M; 0 for no limit; auto or timetable for what the options of run say.
    /// Without it the limit is only told
    #[arg(value_name = "RATE", value_parser = rate)]
    pub(in crate::cli) rate: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) aim: AimArgs,
}

/// The text, if it is a limit.
fn rate(text: &str) -> Result<String, String> {
    LimitOrder::parse(text).map(|_| text.to_owned())
}
