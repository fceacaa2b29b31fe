//! Task `add`: registers files and trees, as `files add` does.

use super::ArchiverAgent;
use super::files::{TOLD_BYTES, TOLD_MOST, text};
use super::operations::at_work;
use crate::catalog::files::Writing;
use crate::clock::unix_now;
use crate::console::files::adding::{AddObserver, AddTerms, AddWords, Added, Addition, Making, TimeRule};
use crate::console::files::tree::NamedTree;
use crate::ocs::operation::{OpOutcome, Params};
use crate::ocs::session::OpSession;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;

/// Params are called so.
const WORDS: AddWords = AddWords { mark: "Param ", joint: '_' };

/// What a client sees while files are read.
struct AddWatch {
    session: OpSession,
    files: AtomicU64,
    bytes: AtomicU64,
    told: Mutex<ToldLines>,
}

/// Lines about files, as many as session data may hold.
#[derive(Default)]
struct ToldLines {
    lines: Vec<String>,
    bytes: usize,
    more: bool,
}

impl AddWatch {
    fn data(&self, added: Option<&Added>) -> Value {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut data = json!({
            "read_files": self.files.load(Relaxed), "read_bytes": self.bytes.load(Relaxed), "told": told.lines,
            "more_told": told.more, "timestamp": unix_now(),
        });
        if let Some(Added { new, bytes, same, changed, left_out, failed }) = added {
            for (name, count) in [
                ("registered", new),
                ("registered_bytes", bytes),
                ("known", same),
                ("changed", changed),
                ("left_out", left_out),
                ("failed", failed),
            ] {
                data[name] = (*count).into();
            }
        }
        data
    }
}

impl AddObserver for AddWatch {
    fn bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn file(&self) {
        self.files.fetch_add(1, Relaxed);
    }

    fn tell(&self, line: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.lines.len() >= TOLD_MOST || told.bytes + line.len() > TOLD_BYTES {
            told.more = true;
            return;
        }
        told.bytes += line.len();
        told.lines.push(line.to_owned());
    }

    fn goes_on(&self) -> bool {
        self.session.set_data(self.data(None));
        !self.session.is_stop_requested()
    }
}

impl ArchiverAgent {
    pub(super) async fn add(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let catalog = self.console.catalog().map_err(at_work)?;
        let targets = &self.run.service.options.selection.targets;
        let target = match (text(&params, "target"), targets.as_slice()) {
            (Some(target), known) if known.contains(&target) => target,
            (Some(target), known) => {
                return Err(format!("Param target is {target:?}; here it is {}", known.join(" or ")));
            }
            (None, [target]) => target.clone(),
            (None, known) => return Err(format!("Give target: {}", known.join(" or "))),
        };
        let timestamp = match params.get("timestamp").filter(|when| !when.is_null()) {
            Some(when) => {
                let words = when.as_str().map_or_else(|| when.to_string(), str::to_owned);
                Some(TimeRule::parse(&words).map_err(|why| format!("Param timestamp: {why}"))?)
            }
            None => None,
        };
        let terms = AddTerms {
            remote_prefix: text(&params, "remote_prefix"),
            deletable: params.get("deletable").and_then(Value::as_i64).unwrap_or(0) != 0,
            kind: text(&params, "type"),
            pub_id: text(&params, "pub_id"),
            timestamp,
        };
        let making = Making::new(terms, &catalog, &self.run.service.database, &target, WORDS)?;
        let paths = params.get("paths").and_then(Value::as_array).cloned().unwrap_or_default();
        let watch = AddWatch { session, files: AtomicU64::new(0), bytes: AtomicU64::new(0), told: Mutex::default() };
        let runtime = Handle::current();
        // A file system that is slow holds up nobody else.
        let work = move || {
            let roots = paths.iter().map(root).collect::<Result<Vec<_>, _>>()?;
            let addition = Addition { roots: &roots, making: &making, threads: None, writing: Writing::Done };
            let added = addition.run(&runtime, &catalog, &watch);
            watch.session.set_data(watch.data(added.as_ref().ok()));
            let added = added.map_err(|error| error.to_string())?;
            Ok::<_, String>((added, watch.session.is_stop_requested()))
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        let (Added { new, same, changed, left_out, failed, .. }, stopped) = done?;
        self.console.look_again();
        let said = format!(
            "{new} registered, {same} were already, {changed} are with another MD5 and left so, {left_out} left out, \
             {failed} could not be{}",
            if stopped { "; told to stop before all were read" } else { "" }
        );
        if changed + failed > 0 || stopped { Err(said) } else { Ok(said) }
    }
}

/// A file or folder of the params.
fn root(path: &Value) -> Result<NamedTree, String> {
    let path = path.as_str().ok_or("Param paths must be a list of texts")?;
    match Path::new(path).is_absolute() {
        true => NamedTree::new(Path::new(path)).map_err(|error| format!("Cannot find {path}: {error}")),
        false => Err(format!("{path} is no path from / on; the agent has no folder that it could be seen from")),
    }
}
