//! `files ignore`, `unignore`, `accept`, `recopy`: what is to become of rows.

use super::super::console::have_looked;
use super::super::flags::TableArgs;
use super::super::flags::files::{AcceptArgs, ChangeArgs, ChoiceArgs, OweArgs, RecopyArgs};
use super::super::output::{json_object, print, printable, say};
use super::super::{SOME_FAILED, plan};
use super::wording::named;
use super::{PAGE, Pages, chosen, no_node, open, rows, tell_strangers};
use crate::catalog::files::{FileRow, FileState, FileStates, RowChange};
use crate::catalog::{AnyCatalog, Catalog};
use crate::console::files::decision::{Decision, Unfit, accepted, ignored, unignored};
use crate::console::files::sources::Searched;
use crate::ocs::site::system_host_name;
use crate::service::runtime;
use anyhow::{Result, anyhow, bail};
use std::io::{self, BufRead, IsTerminal, Write};

/// Rows of one transaction.
const BATCH: usize = 200;
/// Rows that are told one by one.
const TOLD_MOST: u64 = 100;

/// What is done to rows, and how it is said.
struct Doing<'a> {
    table: &'a TableArgs,
    choice: &'a ChoiceArgs,
    states: FileStates,
    /// What a row is then, as in `3 rows are ignored now`.
    done: &'static str,
    json: bool,
}

/// Has rows never copied.
pub(super) fn ignore(args: &ChangeArgs) -> Result<u8> {
    let user = rustix::process::getuid();
    let user = uzers::get_user_by_uid(user.as_raw()).map(|user| user.name().to_string_lossy().into_owned());
    let who = format!("ignored by {} at {}", user.unwrap_or_else(|| "somebody".into()), system_host_name());
    let all = args.choice.all;
    let states = FileStates { pending: !all, failed: true, ..FileStates::default() };
    Doing { states, ..doing(args, "ignored now") }.run(|row| ignored(row, &who, &states))
}

/// Has ignored rows copied after all.
pub(super) fn unignore(args: &ChangeArgs) -> Result<u8> {
    let states = FileStates { ignored: true, ..FileStates::default() };
    Doing { states, ..doing(args, "pending now") }.run(unignored)
}

/// Has files count as they are now.
pub(super) fn accept(args: &AcceptArgs) -> Result<u8> {
    if !args.yes && !agrees("Read the files of these failed rows, and have each that changed count as it is now?")? {
        bail!("Nothing was changed; answer y, or give --yes");
    }
    let states = FileStates { failed: true, ..FileStates::default() };
    Doing { states, ..doing(&args.change, "registered as their files are now") }.run(accepted)
}

/// Has copied rows proven, or copied, again.
pub(super) fn recopy(args: &RecopyArgs) -> Result<u8> {
    let states = FileStates { copied: true, ..FileStates::default() };
    let doing = Doing { states, ..doing(&args.change, "pending now") };
    let source = args.source.as_deref();
    let single = args.change.choice.id.len() == 1;
    doing.run_with(|catalog, rows| {
        Searched::decisions(catalog, rows, source.map(|path| (path, single))).map_err(|why| anyhow!(why))
    })
}

/// Has a storage node owe its copies.
pub(super) fn owe(args: &OweArgs) -> Result<u8> {
    let known = runtime()?.block_on(async {
        let catalog = open(&args.change.table).await?;
        let known = catalog.storage_nodes().await;
        catalog.close().await;
        anyhow::Ok(known?)
    })?;
    if !known.contains(&args.node) {
        return Err(no_node(&args.node, known.iter()));
    }
    let code = doing(&args.change, "owed by it").run(|row| match (row.state, row.md5()) {
        (FileState::Ignored(why), _) => Err(Unfit::NotMeant(why.to_owned())),
        (_, None) => Err(Unfit::Trouble("the row cannot be used as it stands".to_owned())),
        _ => Ok(RowChange::Owe(args.node.clone())),
    });
    have_looked(&plan::table(&args.change.table)?.1.selection.targets);
    code
}

fn doing<'a>(args: &'a ChangeArgs, done: &'static str) -> Doing<'a> {
    Doing { table: &args.table, choice: &args.choice, states: FileStates::default(), done, json: args.json }
}

/// Asks at the terminal.
fn agrees(question: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("Nobody can be asked here; give --yes if you mean it");
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[derive(Default)]
struct Counts {
    seen: u64,
    changed: u64,
    meanwhile: u64,
    unfit: u64,
    told: u64,
}

impl Doing<'_> {
    fn run(self, decide: impl Fn(&FileRow) -> Decision) -> Result<u8> {
        self.run_with(|_, rows| Ok(rows.iter().map(&decide).collect()))
    }

    fn run_with(self, decide: impl Fn(&AnyCatalog, &[FileRow]) -> Result<Vec<Decision>>) -> Result<u8> {
        runtime()?.block_on(async {
            let catalog = open(self.table).await?;
            let counts = self.change_all(&catalog, decide).await;
            if matches!(&counts, Ok(counts) if counts.seen == 0) {
                tell_strangers(&catalog, self.table).await;
            }
            catalog.close().await;
            Ok(self.conclude(&counts?))
        })
    }

    async fn change_all(
        &self,
        catalog: &AnyCatalog,
        decide: impl Fn(&AnyCatalog, &[FileRow]) -> Result<Vec<Decision>>,
    ) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut missing: Vec<i64> = self.choice.id.clone();
        let mut pages = Pages::new(catalog, chosen(self.choice, self.states));
        loop {
            let page = pages.next(PAGE).await?;
            if page.is_empty() {
                break;
            }
            for some in page.chunks(BATCH) {
                let decisions = decide(catalog, some)?;
                self.change_some(catalog, some, decisions, &mut counts).await?;
            }
            missing.retain(|id| page.iter().all(|row| row.id().0 != *id));
        }
        for id in missing {
            counts.unfit += 1;
            say(&format!("row {id}: there is no such row of these"));
        }
        Ok(counts)
    }

    async fn change_some(
        &self,
        catalog: &AnyCatalog,
        some: &[FileRow],
        decisions: Vec<Decision>,
        counts: &mut Counts,
    ) -> Result<()> {
        counts.seen += some.len() as u64;
        let mut changes = Vec::new();
        for (row, decision) in some.iter().zip(decisions) {
            match decision {
                Ok(change) => changes.push((row.clone(), change)),
                Err(Unfit::NotMeant(why)) if !self.choice.id.is_empty() => {
                    counts.unfit += 1;
                    say(&format!("{}: left as it is: {}", named(row), printable(&why)));
                }
                Err(Unfit::NotMeant(_)) => {}
                Err(Unfit::Trouble(why)) => {
                    counts.unfit += 1;
                    say(&format!("{}: left as it is: {}", named(row), printable(&why)));
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        for ((row, _), changed) in changes.iter().zip(catalog.change(&changes).await?) {
            if !changed {
                counts.meanwhile += 1;
                continue;
            }
            counts.changed += 1;
            counts.told += 1;
            match counts.told {
                _ if self.json => {}
                ..=TOLD_MOST => print(&named(row)),
                told if told == TOLD_MOST + 1 => print("… and more"),
                _ => {}
            }
        }
        Ok(())
    }

    fn conclude(&self, counts: &Counts) -> u8 {
        if self.json {
            print(&json_object([
                ("changed", counts.changed.into()),
                ("changed_meanwhile", counts.meanwhile.into()),
                ("unfit", counts.unfit.into()),
            ]));
        } else {
            let are = if counts.changed == 1 { "is" } else { "are" };
            print(&format!("{} {are} {}", rows(counts.changed), self.done));
            if counts.meanwhile > 0 {
                print(&format!("{} changed meanwhile, and left so; ask again", rows(counts.meanwhile)));
            }
        }
        if counts.unfit > 0 { SOME_FAILED } else { 0 }
    }
}
