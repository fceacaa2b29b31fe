//! `files verify`: has copies read where they are, and repairs what is found by having rows copied again.

use super::super::flags::files::VerifyArgs;
use super::super::output::{Screen, json_fields, print, printable, say, start_log};
use super::super::{SOME_FAILED, plan};
use super::meter::Meter;
use super::wording::{bytes, named};
use super::{Pages, chosen, open, rows, tell_strangers};
use crate::archiver::Direction;
use crate::archiver::audit::{Auditor, CopyState};
use crate::catalog::files::{FileRow, FileStates, RowChange};
use crate::catalog::nodes::NodeStand;
use crate::catalog::{self, AnyCatalog, Catalog, Spread};
use crate::console::files::decision::Unfit;
use crate::console::files::replaced::replaced_by;
use crate::console::files::sources::Searched;
use crate::console::files::told::{copy_at, copy_of};
use crate::local::Local;
use crate::service::{Service, runtime};
use crate::transport::Connect;
use anyhow::{Result, anyhow, bail};

/// Copies that are looked at together.
const BATCH: usize = 500;
/// Rows of missing copies that wait for a sign that the archive is there at all.
const WAITING_MOST: usize = 100_000;

/// Looks at copies.
pub(super) fn verify(args: &VerifyArgs) -> Result<u8> {
    start_log(&args.service.log, &Screen::default(), None);
    let service = plan::service(&args.service)?;
    if args.source.is_some() && !args.repair {
        bail!("Option --source is for --repair; give both or neither");
    }
    let connect: Box<dyn Connect> = match service.direction {
        Direction::Push => service.connect()?,
        // The copies are on this machine.
        Direction::Pull => Box::new(Local::default()),
    };
    let auditor = Auditor::new(connect, &service.data_dir, service.bootstrap.clone());
    let meter = Meter::new();
    let runtime = runtime()?;
    let tally = runtime.block_on(async {
        let catalog = match &service.options.node {
            // As this one of several storage nodes has the rows.
            Some(_) => {
                let options = catalog::Options { create: false, ..service.options.clone() };
                catalog::open(&service.database, options).await?
            }
            None => open(&args.service.table).await?,
        };
        let audit =
            Audit { args, service: &service, catalog: &catalog, auditor, meter: &meter, tally: AuditTally::default() };
        let tally = audit.run().await;
        if matches!(&tally, Ok(tally) if tally.seen() == 0) {
            tell_strangers(&catalog, &args.service.table).await;
        }
        catalog.close().await;
        tally
    });
    meter.clear();
    let tally = tally?;
    print(&if args.json { tally.json(&meter) } else { tally.summary(&meter) });
    Ok(if tally.is_well() { 0 } else { SOME_FAILED })
}

struct Audit<'a> {
    args: &'a VerifyArgs,
    service: &'a Service,
    catalog: &'a AnyCatalog,
    auditor: Auditor,
    meter: &'a Meter,
    tally: AuditTally,
}

#[derive(Default)]
struct AuditTally {
    right: u64,
    other: u64,
    missing: u64,
    /// Those in whose place a later row of the same file has its copy.
    replaced: u64,
    unreadable: u64,
    /// Those that the storage node does not have yet.
    owed: u64,
    /// Those that cannot be looked for.
    unfit: u64,
    reopened: u64,
    /// Those that were to be, and are not.
    not_reopened: u64,
}

impl AuditTally {
    fn seen(&self) -> u64 {
        self.right + self.replaced + self.owed + self.other + self.missing + self.unreadable + self.unfit
    }

    fn is_well(&self) -> bool {
        self.right + self.replaced + self.owed == self.seen()
    }

    fn summary(&self, meter: &Meter) -> String {
        let right = if self.right == 1 { "1 copy is right".into() } else { format!("{} copies are right", self.right) };
        let mut line = format!("{right}, {}, in {}", bytes(meter.bytes()), meter.took());
        for (count, what) in [
            (self.replaced, "replaced by later ones"),
            (self.owed, "owed"),
            (self.other, "different"),
            (self.missing, "missing"),
            (self.unreadable, "unreadable"),
            (self.unfit, "not looked at"),
        ] {
            if count > 0 {
                line.push_str(&format!("; {count} {what}"));
            }
        }
        if self.reopened > 0 {
            line.push_str(&format!("; {} will be copied again", rows(self.reopened)));
        }
        if self.not_reopened > 0 {
            line.push_str(&format!("; {} could not be reopened", rows(self.not_reopened)));
        }
        line
    }

    fn json(&self, meter: &Meter) -> String {
        // What there is of several storage nodes alone.
        let owed = (self.owed > 0).then(|| ("owed", self.owed.into()));
        let counts = [
            ("right", self.right.into()),
            ("replaced", self.replaced.into()),
            ("different", self.other.into()),
            ("missing", self.missing.into()),
            ("unreadable", self.unreadable.into()),
            ("not_looked_at", self.unfit.into()),
            ("reopened", self.reopened.into()),
            ("not_reopened", self.not_reopened.into()),
            ("right_bytes", meter.bytes().into()),
            ("seconds", ((meter.seconds() * 1000.0).round() / 1000.0).into()),
        ];
        json_fields(counts.into_iter().chain(owed))
    }
}

impl Audit<'_> {
    async fn run(mut self) -> Result<AuditTally> {
        let states = FileStates { copied: true, ..FileStates::default() };
        if self.meter.is_drawn() && self.args.choice.all {
            let totals = self.catalog.totals().await?;
            self.meter.expect(totals.copied, None);
        }
        let mut absent: Vec<i64> = self.args.choice.id.clone();
        let mut pages = Pages::new(self.catalog, chosen(&self.args.choice, states));
        // Rows of missing copies, as long as no copy at all was found: the archive may not be mounted.
        let mut waiting = Vec::new();
        loop {
            let page = pages.next(BATCH).await?;
            if page.is_empty() {
                break;
            }
            absent.retain(|id| page.iter().all(|row| row.id().0 != *id));
            waiting.extend(self.look(&page).await?);
            let found = self.tally.right + self.tally.other > 0 || !self.args.choice.id.is_empty();
            if found {
                self.reopen(std::mem::take(&mut waiting)).await?;
            } else if self.args.repair && waiting.len() > WAITING_MOST {
                break;
            }
            if !self.args.repair {
                waiting.clear();
            }
            self.meter.draw();
        }
        for id in absent {
            self.tally.unfit += 1;
            self.meter.tell(&format!("row {id}: there is no such row of these"));
        }
        if !waiting.is_empty() {
            self.tally.not_reopened += waiting.len() as u64;
            self.meter.clear();
            say(&format!(
                "Not one copy was found below {} at {}: is it mounted, is --data-dir right? Nothing was reopened; \
                 --repair with --id reopens single rows all the same",
                self.service.data_dir,
                self.auditor.describe()
            ));
        }
        Ok(self.tally)
    }

    /// Looks at the copies of these rows; gives the rows whose copy is to be made again.
    async fn look(&mut self, page: &[FileRow]) -> Result<Vec<FileRow>> {
        let (mut copies, mut of) = (Vec::new(), Vec::new());
        for row in page {
            let copy = match self.stand(row).await? {
                None => copy_of(row, &self.service.data_dir),
                Some(NodeStand { owes: true, .. } | NodeStand { proof: None, from: Some(_), .. }) => {
                    self.tally.owed += 1;
                    continue;
                }
                Some(NodeStand { proof: Some((path, _)), .. }) => copy_at(row, path, &self.service.data_dir),
                // Another one has it, of those that share the rows.
                Some(_) if self.is_shared() => continue,
                Some(_) => copy_of(row, &self.service.data_dir),
            };
            match copy {
                Ok(copy) => {
                    copies.push(copy);
                    of.push(row);
                }
                Err(why) => {
                    self.tally.unfit += 1;
                    self.meter.tell(&format!("{}: not looked at: {}", named(row), printable(&why)));
                }
            }
        }
        let mut unlike = Vec::new();
        let (tally, meter) = (&mut self.tally, self.meter);
        let looked = self.auditor.look(&copies, &mut |at, state| {
            meter.count_files(1);
            let (what, why) = match state {
                CopyState::Right(len) => {
                    tally.right += 1;
                    meter.count_bytes(len);
                    return meter.draw();
                }
                CopyState::Other(why) => ("different", why),
                CopyState::Missing => ("missing", "there is nothing under its name".into()),
                CopyState::Unreadable(why) => ("unreadable", why),
            };
            unlike.push((at, what, why));
        });
        looked.map_err(|why| anyhow!("Copies cannot be looked at: {}", printable(&why)))?;
        let mut bad = Vec::new();
        for (at, what, why) in unlike {
            let row = of[at];
            if what != "unreadable" && replaced_by(self.catalog, row).await?.is_some() {
                self.tally.replaced += 1;
                continue;
            }
            match what {
                "different" => self.tally.other += 1,
                "missing" => self.tally.missing += 1,
                _ => self.tally.unreadable += 1,
            }
            if what != "unreadable" {
                bad.push(row.clone());
            }
            let place = printable(&copies[at].place);
            meter.tell(&format!("{what}: {place}, row {}: {}", row.id().0, printable(&why)));
        }
        Ok(bad)
    }

    /// How the storage node stands to a row, where there are several.
    async fn stand(&self, row: &FileRow) -> Result<Option<NodeStand>> {
        let Some(node) = &self.service.options.node else { return Ok(None) };
        let stands = self.catalog.stands(row.id()).await?;
        Ok(stands.into_iter().find(|stand| stand.node == node.name()))
    }

    fn is_shared(&self) -> bool {
        self.service.options.node.as_ref().is_some_and(|node| node.spread() == Spread::Share)
    }

    /// Has rows copied again, where that is wanted.
    async fn reopen(&mut self, bad: Vec<FileRow>) -> Result<()> {
        if !self.args.repair {
            return Ok(());
        }
        for some in bad.chunks(200) {
            if let Some(node) = &self.service.options.node {
                // Of several storage nodes this one alone has it copied again.
                let owe = |row: &FileRow| (row.clone(), RowChange::Owe(node.name().to_owned()));
                let changed = self.catalog.change(&some.iter().map(owe).collect::<Vec<_>>()).await?;
                let owed = changed.iter().filter(|changed| **changed).count();
                self.tally.reopened += owed as u64;
                self.tally.not_reopened += (changed.len() - owed) as u64;
                continue;
            }
            let decisions =
                Searched::decisions(self.catalog, some, self.args.source.as_deref().map(|path| (path, false)))
                    .map_err(|why| anyhow!(why))?;
            let mut changes: Vec<(FileRow, RowChange)> = Vec::new();
            for (row, decision) in some.iter().zip(decisions) {
                match decision {
                    Ok(change) => changes.push((row.clone(), change)),
                    Err(Unfit::NotMeant(why) | Unfit::Trouble(why)) => {
                        self.tally.not_reopened += 1;
                        self.meter.tell(&format!("{}: not reopened: {}", named(row), printable(&why)));
                    }
                }
            }
            if changes.is_empty() {
                continue;
            }
            let changed = self.catalog.change(&changes).await?;
            let reopened = changed.iter().filter(|changed| **changed).count();
            self.tally.reopened += reopened as u64;
            self.tally.not_reopened += (changed.len() - reopened) as u64;
        }
        Ok(())
    }
}
