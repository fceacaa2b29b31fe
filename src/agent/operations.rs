//! The operations of the agent: the process `run`, and tasks beside it.

use super::ArchiverAgent;
use crate::catalog::{RecordId, Retry, Totals};
use crate::clock::unix_now;
use crate::console::{ConsoleError, LimitOrder};
use crate::ocs::agent::AgentHandle;
use crate::ocs::operation::{OpOutcome, Operation, Param, ParamKind, Params};
use crate::ocs::session::OpSession;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn operations(agent: &Arc<ArchiverAgent>, handle: &AgentHandle) -> Vec<Operation> {
    let (run, feed) = (agent.clone(), handle.clone());
    let run = Operation::process("run", move |session, _| run.clone().work(session, feed.clone()))
        .docstring(RUN)
        .at_start(Params::new());
    let retry = agent.clone();
    let retry = Operation::task("retry", move |session, params| retry.clone().retry(session, params))
        .docstring(RETRY)
        .param(Param::optional("ids", ParamKind::List, Value::Null))
        .param(Param::optional("pattern", ParamKind::Text, Value::Null));
    let pending = agent.clone();
    let pending = Operation::task("pending", move |session, _| pending.clone().pending(session)).docstring(PENDING);
    let pause = agent.clone();
    let pause = Operation::task("pause", move |_, _| pause.clone().set_paused(true)).docstring(PAUSE);
    let bwlimit = agent.clone();
    let bwlimit = Operation::task("bwlimit", move |session, params| bwlimit.clone().bwlimit(session, params))
        .docstring(BWLIMIT)
        .param(Param::optional("rate", ParamKind::Any, Value::Null));
    let resume = agent.clone();
    let resume = Operation::task("resume", move |_, _| resume.clone().set_paused(false)).docstring(RESUME);
    let status = agent.clone();
    let status = Operation::task("status", move |session, _| status.clone().status(session)).docstring(STATUS);
    let mut all = vec![run, retry, pending, pause, resume, bwlimit, status];
    all.extend(of_files(agent));
    all
}

/// The verbs of `files`.
fn of_files(agent: &Arc<ArchiverAgent>) -> [Operation; 8] {
    let ids = || Param::optional("ids", ParamKind::List, Value::Null);
    let word = |name: &str| Param::optional(name, ParamKind::Text, Value::Null);
    let of = agent.clone();
    let list = Operation::task("list", move |session, params| of.clone().list(session, params))
        .docstring(LIST)
        .param(word("state"))
        .param(word("path"))
        .param(Param::optional("older_than", ParamKind::Float, Value::Null))
        .param(Param::optional("limit", ParamKind::Int, 50));
    let of = agent.clone();
    let show = Operation::task("show", move |session, params| of.clone().show(session, params))
        .docstring(SHOW)
        .param(word("path"))
        .param(Param::optional("id", ParamKind::Int, Value::Null));
    let of = agent.clone();
    let add = Operation::task("add", move |session, params| of.clone().add(session, params))
        .docstring(ADD)
        .param(Param::required("paths", ParamKind::List))
        .param(word("target"))
        .param(word("remote_prefix"))
        .param(word("type"))
        .param(word("pub_id"))
        .param(Param::optional("timestamp", ParamKind::Any, Value::Null))
        .param(Param::optional("deletable", ParamKind::Int, 0))
        .abortable();
    let of = agent.clone();
    let ignore = Operation::task("ignore", move |session, params| of.clone().ignore(session, params))
        .docstring(IGNORE)
        .param(ids())
        .param(word("pattern"));
    let of = agent.clone();
    let unignore = Operation::task("unignore", move |session, params| of.clone().unignore(session, params))
        .docstring(UNIGNORE)
        .param(ids())
        .param(word("pattern"));
    let of = agent.clone();
    let accept = Operation::task("accept", move |session, params| of.clone().accept(session, params))
        .docstring(ACCEPT)
        .param(ids())
        .param(word("pattern"));
    let of = agent.clone();
    let recopy = Operation::task("recopy", move |session, params| of.clone().recopy(session, params))
        .docstring(RECOPY)
        .param(ids())
        .param(word("pattern"))
        .param(word("source"));
    let of = agent.clone();
    let verify = Operation::task("verify", move |session, params| of.clone().verify(session, params))
        .docstring(VERIFY)
        .param(ids())
        .param(word("pattern"))
        .param(Param::optional("repair", ParamKind::Int, 0));
    [list, show, add, ignore, unignore, accept, recopy, verify]
}

const RUN: &str = "\
run()

**Process** - Watches the table of files, copies every waiting file to the archive, and records what the storage node has
confirmed. Degraded while database, storage node or the files' own folders are out of reach, and while rows are given up;
the messages say why.

The session data, with what the SupRsync agent has for a SupRsync archive::

    {\"archiver\": {\"copied\": 17, \"failed_attempts\": 0, \"read_bytes\": 3400000, \"literal_bytes\": 3400000,
                  \"matched_bytes\": 0, \"pending\": 2, \"given_up\": 0, \"link_troubles\": 0, \"database_troubles\": 0,
                  \"link\": null, \"database\": null, \"road\": null, \"source\": null, \"paused\": false,
                  \"failures\": {\"missing\": 0, \"unreadable\": 0, \"changed\": 0, \"refused\": 0, \"row\": 0},
                  \"session_bytes\": [3400000], \"last_proven\": {\"time\": 1795350041.9, \"path\": \"17953/a/b.npy\"}},
     \"activity\": \"idle\",
     \"last_copy\": {\"start_time\": 1795350042.0, \"files\": [[\"/data/b.npy\", true]], \"stop_time\": 1795350042.1},
     \"counters\": {\"iterations\": 9, \"copies\": 10, \"errors_timeout\": 0, \"errors_nonzero\": 0, \"errors_sqlite\": 0},
     \"archive_stats\": {\"finalized_until\": 1795350012.2, \"num_files\": 9, \"uncopied_files\": 1,
                       \"last_file_added\": \"/data/c.npy\", \"last_file_copied\": \"/data/b.npy\"},
     \"timestamp\": 1795350042.1}

Counts are of this run, `pending` and `given_up` of the table; `link`, `database` and\n`source` (where the files come from) say what is wrong now, `road` how files go where the storage node has no rsync.";
const RETRY: &str = "\
retry(ids=None, pattern=None)

**Task** - Gives rows that failed too often a new chance: those with the ids, or whose source path is like the pattern (`*`
for anything, `?` for one character), or all.

The session data::

    {\"rows\": 1, \"reasons\": [{\"id\": 17, \"path\": \"/data/c.npy\", \"why\": \"it is missing\"}]}

`reasons` says why they had failed, where that was kept, for the first hundred.";
const PENDING: &str = "\
pending()

**Task** - Counts the rows of the table.

The session data::

    {\"pending\": 2, \"given_up\": 0, \"copied\": 17031, \"timestamp\": 1795350042.1}";
const PAUSE: &str = "\
pause()

**Task** - Takes up no further rows until `resume`; what is under way is finished. Outlasts a restart of `run`, not of the
agent.";
const BWLIMIT: &str = "\
bwlimit(rate=None)

**Task** - Limits what all sessions move together from now on, files under way included: KiB per second, or a text with a
suffix as rsync's --bwlimit has it; 0 for no limit; `auto` for what the options and their timetable say. Without a rate it
only tells. Outlasts a restart of `run`, not of the agent.

The session data, in bytes per second, 0 for no limit::

    {\"bwlimit\": 1048576}";
const STATUS: &str = "\
status()

**Task** - Tells how the archive stands, as `pysmurf-archiver status --json` does. Asks neither table nor storage node: rows
were counted at most a minute ago.

The session data, among others::

    {\"archive\": \"smurf\", \"running\": true, \"paused\": false, \"road\": null,
     \"backlog\": {\"files\": 2, \"bytes\": 400000, \"oldest_seconds\": 3.1, \"given_up\": 0, \"copied\": 17031},
     \"speed\": {\"bytes_now\": 1.2e8, \"files_now\": 41.5, \"bytes_hour\": 8.0e7, \"seconds_left\": 0.1},
     \"limit\": {\"bytes_per_second\": 0, \"held\": false, \"timetable\": false, \"until\": null},
     \"troubles\": [{\"kind\": \"link\", \"why\": \"Cannot reach storage\", \"remedy\": \"Look whether it is up\"}]}";
const LIST: &str = "\
list(state=None, path=None, older_than=None, limit=50)

**Task** - Lists rows, as `pysmurf-archiver files list --json` does: those that wait and those that failed, or of one state
(`pending`, `failed`, `copied`, `ignored`); those whose path is like this (`*` for anything, `?` for one character); those
registered so many seconds ago. At most 200; `more` says that there are more.

The session data, with one of the rows::

    {\"files\": [{\"id\": 17, \"state\": \"given_up\", \"source\": \"/data/c.npy\", \"attempts\": 5, \"reason\": \"it is missing\"}],
     \"more\": false, \"timestamp\": 1795350042.1}";
const SHOW: &str = "\
show(path=None, id=None)

**Task** - Where is my file? Its rows, by its path, that of its copy, or the end of either; or by id.

The session data are as those of `list`; it fails where there is no such row.";
const ADD: &str = "\
add(paths, target=None, remote_prefix=None, type=None, pub_id=None, timestamp=None, deletable=False)

**Task** - Registers files, and all files of folders, with the MD5 that they have now; what is registered already is left as it
is. `paths` are absolute, on the agent's machine; the others are as the options of `pysmurf-archiver files add`. Fails where
one could not be registered. Can be aborted.

The session data::

    {\"registered\": 2, \"registered_bytes\": 400000, \"known\": 1, \"changed\": 0, \"left_out\": 0, \"failed\": 0,
     \"read_files\": 3, \"read_bytes\": 600000, \"told\": [], \"more_told\": false, \"timestamp\": 1795350042.1}";
const IGNORE: &str = "\
ignore(ids=None, pattern=None)

**Task** - Has rows never copied: those with the ids, or one of whose paths is like the pattern. At most a thousand; `more`
says that there are more.

The session data::

    {\"changed\": 1, \"changed_meanwhile\": 0, \"left\": [{\"id\": 17, \"path\": \"/data/c.npy\", \"why\": \"copied\"}],
     \"more\": false, \"timestamp\": 1795350042.1}";
const UNIGNORE: &str = "\
unignore(ids=None, pattern=None)

**Task** - Has ignored rows copied after all. Session data: as of `ignore`.";
const ACCEPT: &str = "\
accept(ids=None, pattern=None)

**Task** - Reads the files of rows that failed, and has those that changed since they were registered count as they are now.
Session data: as of `ignore`.";
const RECOPY: &str = "\
recopy(ids=None, pattern=None, source=None)

**Task** - Has copied rows proven, or copied, again. In MySQL a copied row no longer says where its file was: `source` is the
folder below which it is looked for. Session data: as of `ignore`.";
const VERIFY: &str = "\
verify(ids=None, pattern=None, repair=False)

**Task** - Has the storage node read copies, and compares them with what was registered; a thousand at most. With `repair`
those that are missing or different are copied again. Fails where one is not right; one that a later row of the same file has
replaced is.

The session data::

    {\"right\": 1, \"replaced\": 0, \"different\": 0, \"missing\": 1, \"unreadable\": 0, \"not_looked_at\": 0, \"reopened\": 1,
     \"bad\": [{\"id\": 17, \"path\": \"/data/c.npy\", \"why\": \"missing: there is nothing under its name\"}],
     \"more\": false, \"timestamp\": 1795350042.1}";
const RESUME: &str = "\
resume()

**Task** - Goes on after `pause`.";

impl ArchiverAgent {
    async fn retry(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let which = match (params.get("ids").and_then(Value::as_array), params.get("pattern").and_then(Value::as_str)) {
            (Some(_), Some(_)) => return Err("Give ids or a pattern, not both".to_owned()),
            (Some(ids), None) => {
                let numbers: Option<Vec<_>> = ids.iter().map(|id| id.as_i64().map(RecordId)).collect();
                Retry::Ids(numbers.ok_or("Param 'ids' must be a list of whole numbers")?)
            }
            (None, Some(pattern)) => Retry::Pattern(pattern.to_owned()),
            (None, None) => Retry::All,
        };
        let retried = self.console.retry(&which).await.map_err(at_work)?;
        session.set_data(json!({"rows": retried.rows, "reasons": retried.reasons()}));
        Ok(Retry::told(retried.rows))
    }

    async fn pending(self: Arc<Self>, session: OpSession) -> OpOutcome {
        let Totals { pending, given_up, copied } = self.console.totals().await.map_err(at_work)?;
        session.set_data(json!({"pending": pending, "given_up": given_up, "copied": copied, "timestamp": unix_now()}));
        Ok(format!("{pending} rows wait, {given_up} were given up"))
    }

    async fn set_paused(self: Arc<Self>, paused: bool) -> OpOutcome {
        if paused {
            self.console.pause()
        } else {
            self.console.resume()
        }
        Ok(if paused { "Paused" } else { "Resumed" }.to_owned())
    }

    async fn bwlimit(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        match params.get("rate").unwrap_or(&Value::Null) {
            Value::Null => {}
            Value::String(text) => self.console.limit(LimitOrder::parse(text)?),
            other => self.console.limit(LimitOrder::parse(&other.to_string())?),
        }
        let now = self.console.limit_now().bytes_per_second;
        session.set_data(json!({"bwlimit": now}));
        Ok(match now {
            0 => "No limit".to_owned(),
            now => format!("At most {now} bytes per second"),
        })
    }

    async fn status(self: Arc<Self>, session: OpSession) -> OpOutcome {
        let report = self.console.status();
        let files =
            report.backlog.files.map_or("files not counted yet".to_owned(), |files| format!("{files} files wait"));
        let troubles: Vec<_> = report.troubles.iter().map(|trouble| trouble.why.as_str()).collect();
        let words = if troubles.is_empty() { "all is well".to_owned() } else { troubles.join("; ") };
        session.set_data(serde_json::to_value(&report).map_err(|error| error.to_string())?);
        Ok(format!("{files}; {words}"))
    }
}

/// In the words of an agent.
pub(super) fn at_work(error: ConsoleError) -> String {
    match error {
        ConsoleError::NotRunning => "The process run has no table open; start it first".to_owned(),
        ConsoleError::Catalog(error) => error.to_string(),
    }
}
