//! Tasks on rows: what the verbs of `files` do, of as many rows as one answer holds.

use super::ArchiverAgent;
use super::operations::at_work;
use crate::archiver::Direction;
use crate::archiver::audit::{Auditor, CopyState};
use crate::catalog::at_node::AtNodes;
use crate::catalog::files::{FileQuery, FileRow, FileStates, RowChange};
use crate::catalog::{AnyCatalog, RecordId};
use crate::clock::unix_now;
use crate::console::files::Pages;
use crate::console::files::decision::{Decision, Unfit, accepted, ignored, unignored};
use crate::console::files::replaced::replaced_by;
use crate::console::files::sources::Searched;
use crate::console::files::told::{FIELDS, FilePlaces, NODE_FIELDS, copy_of, node_values, values};
use crate::local::Local;
use crate::ocs::operation::{OpOutcome, Params};
use crate::ocs::session::OpSession;
use crate::transport::Connect;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows of an answer at most, and bytes: session data is to stay below 100 kB.
pub(super) const TOLD_MOST: usize = 200;
pub(super) const TOLD_BYTES: usize = 80_000;
/// Rows of one name that are shown.
const SHOWN_MOST: usize = 20;
/// Rows that one start changes or verifies at most; where there are more, it says so.
const ROWS_MOST: usize = 1000;
/// Rows of one transaction.
const BATCH: usize = 200;
/// After so long no further rows are looked at; where there are more, it says so.
const LIMIT: Duration = Duration::from_secs(120);

/// What became of rows.
#[derive(Default)]
struct ChangeTally {
    seen: usize,
    changed: usize,
    meanwhile: usize,
    left: Vec<Value>,
    more: bool,
}

impl ArchiverAgent {
    pub(super) async fn list(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let catalog = self.console.catalog().map_err(at_work)?;
        let limit = params.get("limit").and_then(Value::as_u64).map_or(50, |limit| limit as usize).clamp(1, TOLD_MOST);
        let before = params.get("older_than").and_then(Value::as_f64).map(|age| unix_now() - age);
        let path = text(&params, "path");
        let states = states(&params)?;
        let at = match states.failed {
            true => AtNodes::failed_at(&catalog.node_names().await.map_err(|error| error.to_string())?),
            false => AtNodes::Nowhere,
        };
        // What there is of several storage nodes alone.
        let nodes = at != AtNodes::Nowhere;
        let query = FileQuery { states, ids: None, path, before, at };
        let began = Instant::now();
        let mut pages = Pages::new(&catalog, query);
        let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
        'pages: loop {
            let page = pages.next(limit + 1 - rows.len()).await.map_err(|error| error.to_string())?;
            if page.is_empty() {
                break;
            }
            for row in &page {
                let row = if nodes { as_line(row) } else { as_object(row) };
                bytes += row.to_string().len();
                if rows.len() >= limit || bytes > TOLD_BYTES || began.elapsed() > LIMIT {
                    more = true;
                    break 'pages;
                }
                rows.push(row);
            }
        }
        let said = format!("{}{}", counted(rows.len()), if more { ", and there are more" } else { "" });
        session.set_data(json!({"files": rows, "more": more, "timestamp": unix_now()}));
        Ok(said)
    }

    pub(super) async fn show(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let catalog = self.console.catalog().map_err(at_work)?;
        let found = match (params.get("id").and_then(Value::as_i64), text(&params, "path")) {
            (Some(id), None) => {
                let query = FileQuery { ids: Some(vec![RecordId(id)]), ..FileQuery::default() };
                catalog.files(&query, RecordId(i64::MIN), 1).await.map(|page| page.rows)
            }
            (None, Some(path)) => catalog.find(&path, SHOWN_MOST + 1).await,
            _ => return Err("Give a path, or the end of one, or an id".to_owned()),
        };
        let found = found.map_err(|error| error.to_string())?;
        let Some(first) = found.first() else {
            return Err("No row is of such a file; one that is not registered is not copied".to_owned());
        };
        let said = format!("Row {}: {}", first.id().0, FilePlaces::of(first).shown());
        let rows: Vec<_> = found.iter().take(SHOWN_MOST).map(as_object).collect();
        session.set_data(json!({"files": rows, "more": found.len() > SHOWN_MOST, "timestamp": unix_now()}));
        Ok(said)
    }

    pub(super) async fn ignore(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let states = FileStates { pending: true, failed: true, ..FileStates::default() };
        let who = format!("ignored by task ignore of {}", self.console.identity().name);
        let decide = move |row: &FileRow| ignored(row, &who, &states);
        self.change(&session, chosen(&params, states)?, each(decide), "ignored now").await
    }

    pub(super) async fn unignore(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let states = FileStates { ignored: true, ..FileStates::default() };
        self.change(&session, chosen(&params, states)?, each(unignored), "pending now").await
    }

    pub(super) async fn accept(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let states = FileStates { failed: true, ..FileStates::default() };
        self.change(&session, chosen(&params, states)?, each(accepted), "registered as their files are now").await
    }

    pub(super) async fn recopy(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let states = FileStates { copied: true, ..FileStates::default() };
        let query = chosen(&params, states)?;
        let single = query.ids.as_ref().is_some_and(|ids| ids.len() == 1);
        let source = text(&params, "source").map(PathBuf::from);
        let decide = move |catalog: &AnyCatalog, rows: &[FileRow]| {
            Searched::decisions(catalog, rows, source.as_deref().map(|path| (path, single)))
        };
        self.change(&session, query, Box::new(decide), "pending now").await
    }

    /// Changes rows as it is decided, and tells which were left.
    async fn change(&self, session: &OpSession, query: FileQuery, decide: Box<Decide>, done: &str) -> OpOutcome {
        let catalog = self.console.catalog().map_err(at_work)?;
        let (named, decide, began) = (query.ids.is_some(), Arc::new(decide), Instant::now());
        let mut tally = ChangeTally::default();
        let mut pages = Pages::new(&catalog, query);
        loop {
            let page = pages.next(BATCH).await.map_err(|error| error.to_string())?;
            if page.is_empty() {
                break;
            }
            if tally.changed + tally.left.len() >= ROWS_MOST || began.elapsed() > LIMIT {
                tally.more = true;
                break;
            }
            tally.seen += page.len();
            // It may read files, on a file system that is slow.
            let (deciding, of, catalog_of) = (decide.clone(), page.clone(), catalog.clone());
            let decisions = tokio::task::spawn_blocking(move || deciding(&catalog_of, &of)).await;
            let decisions = decisions.map_err(|error| error.to_string())??;
            let changes = tally.sort(page, decisions, named);
            let changed = catalog.change(&changes).await.map_err(|error| error.to_string())?;
            tally.changed += changed.iter().filter(|changed| **changed).count();
            tally.meanwhile += changed.iter().filter(|changed| !**changed).count();
        }
        self.console.look_again();
        if tally.seen == 0 {
            return Err("There is no such row".to_owned());
        }
        let are = if tally.changed == 1 { "is" } else { "are" };
        let more = if tally.more { "; there are more, start it again" } else { "" };
        let said = format!("{} {are} {done}, {} left as they are{more}", counted(tally.changed), tally.left.len());
        tally.left.truncate(TOLD_MOST);
        session.set_data(json!({
            "changed": tally.changed, "changed_meanwhile": tally.meanwhile, "left": tally.left, "more": tally.more,
            "timestamp": unix_now(),
        }));
        Ok(said)
    }

    pub(super) async fn verify(self: Arc<Self>, session: OpSession, params: Params) -> OpOutcome {
        let catalog = self.console.catalog().map_err(at_work)?;
        let query = chosen(&params, FileStates { copied: true, ..FileStates::default() })?;
        let (named, repair) = (query.ids.is_some(), params.get("repair").and_then(Value::as_i64).unwrap_or(0) != 0);
        let service = &self.run.service;
        let mut pages = Pages::new(&catalog, query);
        let mut rows = Vec::new();
        let mut more = false;
        while !more {
            let page = pages.next(BATCH).await.map_err(|error| error.to_string())?;
            if page.is_empty() {
                break;
            }
            rows.extend(page);
            more = rows.len() > ROWS_MOST;
        }
        rows.truncate(ROWS_MOST);
        if rows.is_empty() {
            return Err("There is no such row".to_owned());
        }
        let connect: Box<dyn Connect> = match service.direction {
            Direction::Push => service.connect().map_err(|error| error.to_string())?,
            Direction::Pull => Box::new(Local::default()),
        };
        let auditor = Auditor::new(connect, &service.data_dir, service.bootstrap.clone());
        let data_dir = service.data_dir.clone();
        let looking = tokio::task::spawn_blocking(move || look(auditor, rows, &data_dir));
        let looked = looking.await.map_err(|error| error.to_string())??;
        let AuditedCopies { counts, bad, told } = looked.sorted(&catalog).await?;
        let count = |what: &str| counts.get(what).and_then(Value::as_u64).unwrap_or(0);
        let mut reopened = 0;
        // Where nothing at all was found the archive may not be mounted.
        if repair && !bad.is_empty() && (named || count("right") + count("different") > 0) {
            let decisions = Searched::decisions(&catalog, &bad, None)?;
            let changes: Vec<_> =
                bad.into_iter().zip(decisions).filter_map(|(row, to)| Some((row, to.ok()?))).collect();
            let changed = catalog.change(&changes).await.map_err(|error| error.to_string())?;
            reopened = changed.iter().filter(|changed| **changed).count();
            self.console.look_again();
        }
        let said = format!(
            "{} copies are right, {} replaced by later ones, {} different, {} missing, {} unreadable, {} not looked at; {reopened} will be copied again{}",
            count("right"),
            count("replaced"),
            count("different"),
            count("missing"),
            count("unreadable"),
            count("not_looked_at"),
            if more { "; there are more" } else { "" }
        );
        let mut data = counts;
        data.extend([
            ("reopened".to_owned(), reopened.into()),
            ("bad".to_owned(), told.into()),
            ("more".to_owned(), more.into()),
            ("timestamp".to_owned(), unix_now().into()),
        ]);
        let well = data["bad"].as_array().is_some_and(Vec::is_empty);
        session.set_data(data.into());
        if well { Ok(said) } else { Err(said) }
    }
}

/// What is to be done to each of some rows.
type Decide = dyn Fn(&AnyCatalog, &[FileRow]) -> Result<Vec<Decision>, String> + Send + Sync;

/// Decides of each row alone.
fn each(decide: impl Fn(&FileRow) -> Decision + Send + Sync + 'static) -> Box<Decide> {
    Box::new(move |_, rows| Ok(rows.iter().map(&decide).collect()))
}

impl ChangeTally {
    /// The changes to be made; tells of the rows that are left. Who named rows (`named`) hears of each.
    fn sort(&mut self, rows: Vec<FileRow>, decisions: Vec<Decision>, named: bool) -> Vec<(FileRow, RowChange)> {
        let mut changes = Vec::new();
        for (row, decision) in rows.into_iter().zip(decisions) {
            match decision {
                Ok(change) => changes.push((row, change)),
                Err(Unfit::NotMeant(_)) if !named => {}
                Err(Unfit::NotMeant(why) | Unfit::Trouble(why)) => self.left.push(told(&row, &why)),
            }
        }
        changes
    }
}

/// Copies that were looked at.
struct LookedAt {
    right: u64,
    /// Rows whose copy cannot be looked for, and why.
    unfit: Vec<(FileRow, String)>,
    /// Rows whose copy is not what it should be: in a word, and in more.
    unlike: Vec<(FileRow, &'static str, String)>,
}

impl LookedAt {
    /// Tells those apart that later rows have replaced.
    async fn sorted(self, catalog: &AnyCatalog) -> Result<AuditedCopies, String> {
        let names = ["right", "replaced", "different", "missing", "unreadable", "not_looked_at"];
        let mut counts = names.map(|name| (name, 0u64));
        let mut count = |what: &str, by: u64| {
            counts.iter_mut().filter(|(name, _)| *name == what).for_each(|(_, count)| *count += by);
        };
        count("right", self.right);
        count("not_looked_at", self.unfit.len() as u64);
        let mut all: Vec<_> = self.unfit.iter().map(|(row, why)| told(row, why)).collect();
        let mut bad = Vec::new();
        for (row, what, why) in self.unlike {
            let readable = what != "unreadable";
            if readable && replaced_by(catalog, &row).await.map_err(|error| error.to_string())?.is_some() {
                count("replaced", 1);
                continue;
            }
            count(what, 1);
            all.push(told(&row, &format!("{what}: {why}")));
            if readable {
                bad.push(row);
            }
        }
        all.truncate(TOLD_MOST);
        let counts = counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        Ok(AuditedCopies { counts, bad, told: all })
    }
}

/// What was found of copies.
struct AuditedCopies {
    /// How many are right, different and so on.
    counts: Map<String, Value>,
    /// Those to be made again.
    bad: Vec<FileRow>,
    told: Vec<Value>,
}

/// Looks at the copies of rows where they are.
fn look(mut auditor: Auditor, rows: Vec<FileRow>, data_dir: &str) -> Result<LookedAt, String> {
    let mut looked = LookedAt { right: 0, unfit: Vec::new(), unlike: Vec::new() };
    let (mut copies, mut of) = (Vec::new(), Vec::new());
    for row in rows {
        match copy_of(&row, data_dir) {
            Ok(copy) => {
                copies.push(copy);
                of.push(row);
            }
            Err(why) => looked.unfit.push((row, why)),
        }
    }
    auditor.look(&copies, &mut |at, state| {
        let (what, why) = match state {
            CopyState::Right(_) => return looked.right += 1,
            CopyState::Other(why) => ("different", why),
            CopyState::Missing => ("missing", "there is nothing under its name".to_owned()),
            CopyState::Unreadable(why) => ("unreadable", why),
        };
        looked.unlike.push((of[at].clone(), what, why));
    })?;
    Ok(looked)
}

/// Which rows are meant. Of those named by id any state is asked for, so that it can be told why one does not fit.
fn chosen(params: &Params, states: FileStates) -> Result<FileQuery, String> {
    match (params.get("ids").and_then(Value::as_array), text(params, "pattern")) {
        (Some(ids), None) if ids.len() > ROWS_MOST => Err(format!("Give at most {ROWS_MOST} ids")),
        (Some(ids), None) => {
            let ids: Option<Vec<_>> = ids.iter().map(|id| id.as_i64().map(RecordId)).collect();
            let ids = ids.ok_or("Param 'ids' must be a list of whole numbers")?;
            Ok(FileQuery { ids: Some(ids), ..FileQuery::default() })
        }
        (None, Some(pattern)) => Ok(FileQuery { states, path: Some(pattern), ..FileQuery::default() }),
        _ => Err("Give ids or a pattern; '*' is for all".to_owned()),
    }
}

fn states(params: &Params) -> Result<FileStates, String> {
    let none = FileStates::default();
    match text(params, "state").as_deref() {
        None => Ok(FileStates { pending: true, failed: true, ..none }),
        Some("pending") => Ok(FileStates { pending: true, ..none }),
        Some("failed") => Ok(FileStates { failed: true, ..none }),
        Some("copied") => Ok(FileStates { copied: true, ..none }),
        Some("ignored") => Ok(FileStates { ignored: true, ..none }),
        Some(_) => Err("Param 'state' must be pending, failed, copied or ignored".to_owned()),
    }
}

pub(super) fn text(params: &Params, name: &str) -> Option<String> {
    params.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// As it is listed where there are storage nodes.
fn as_line(row: &FileRow) -> Value {
    let fields = FIELDS.into_iter().zip(values(row)).chain(NODE_FIELDS.into_iter().zip(node_values(row)));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn as_object(row: &FileRow) -> Value {
    let fields = FIELDS.into_iter().map(str::to_owned).zip(values(row));
    Value::Object(fields.collect())
}

fn told(row: &FileRow, why: &str) -> Value {
    json!({"id": row.id().0, "path": FilePlaces::of(row).shown(), "why": why})
}

fn counted(rows: usize) -> String {
    if rows == 1 { "1 row".into() } else { format!("{rows} rows") }
}
