//! `files prunable`: which local files may be deleted now.

use super::super::flags::files::PrunableArgs;
use super::super::output::{json_fields, print, printable, say};
use super::wording::{age, bytes};
use super::{inspect, suprsync, tell_strangers};
use crate::archiver::{PruneReading, Sources, would_free};
use crate::catalog::sqlite::{Needed, Prunable, SqliteCatalog};
use crate::catalog::{Catalog, RecordId};
use crate::clock::unix_now;
use crate::service::runtime;
use anyhow::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Files that are listed in a table, unless it is said.
const SHOWN: u64 = 1000;
/// Files of which the table is asked together.
const PAGE: usize = 500;

/// Lists what may go, and why the rest may not.
pub(super) fn prunable(args: &PrunableArgs) -> Result<u8> {
    let sources = Sources::beneath(&args.source_root).map_err(Error::msg)?;
    runtime()?.block_on(async {
        let catalog = inspect(&args.table).await?;
        let listed = match suprsync(&catalog, "files prunable") {
            Ok(table) => PrunableList::new(args, sources).run(table).await,
            Err(error) => Err(error),
        };
        if matches!(listed, Ok(0)) {
            tell_strangers(&catalog, &args.table).await;
        }
        catalog.close().await;
        listed.map(|_| 0)
    })
}

struct PrunableList<'a> {
    args: &'a PrunableArgs,
    sources: Sources,
    limit: u64,
    now: f64,
    listed: u64,
    may_go: (u64, u64),
    stay: u64,
}

impl<'a> PrunableList<'a> {
    fn new(args: &'a PrunableArgs, sources: Sources) -> Self {
        let limit = match args.limit {
            Some(0) => u64::MAX,
            Some(limit) => limit,
            None if args.json => u64::MAX,
            None => SHOWN,
        };
        Self { args, sources, limit, now: unix_now(), listed: 0, may_go: (0, 0), stay: 0 }
    }

    /// How many files there are.
    async fn run(mut self, table: &SqliteCatalog) -> Result<u64> {
        let age = self.args.older_than.unwrap_or_default();
        let until = self.now - age.as_secs_f64();
        for ids in table.prunable_parts(until).await? {
            let mut files = table.prunable(ids, until).await?;
            while !files.is_empty() {
                let mut page: Vec<_> = files.drain(..PAGE.min(files.len())).collect();
                let (needed, _) = table.needed(&mut page, None).await?;
                for (file, needed) in page.iter().zip(needed) {
                    self.judge(file, needed);
                }
            }
        }
        for ids in table.parts_of_archive().await? {
            for (id, path) in table.forbidden(ids).await? {
                self.tell(id, &path, None, Err("its row says that it is not to be deleted".to_owned()));
            }
        }
        let (files, room) = self.may_go;
        if !self.args.json {
            if self.listed > self.limit {
                say(&format!("The first {} are listed; --limit N for more, 0 for all", self.limit));
            }
            let stay = self.stay;
            let each = if self.args.read { "" } else { ", each of which is read before it goes" };
            print(&format!("{files} files of {} may go{each}; {stay} may not", bytes(room)));
        }
        Ok(files + self.stay)
    }

    fn judge(&mut self, file: &Prunable, needed: Option<Needed>) {
        let reading = if self.args.read { PruneReading::Bytes } else { PruneReading::Nothing };
        let verdict = match needed {
            Some(Needed::RowChanged) => Err("its row has just changed".to_owned()),
            Some(Needed::ByRow(id)) => Err(format!("row {} still waits for it", id.0)),
            Some(Needed::ByMany) => Err("many rows still wait for files of its name".to_owned()),
            None => would_free(&self.sources, file, reading),
        };
        self.tell(file.id, &file.path, Some(file.since), verdict);
    }

    fn tell(&mut self, id: RecordId, path: &Path, since: Option<f64>, verdict: Result<u64, String>) {
        match &verdict {
            Ok(bytes) => self.may_go = (self.may_go.0 + 1, self.may_go.1 + bytes),
            Err(_) => self.stay += 1,
        }
        self.listed += 1;
        if self.listed > self.limit {
            return;
        }
        let path = path.to_string_lossy();
        if self.listed == 1 && !self.args.json {
            print("      ID       ROOM  PROVEN  FILE");
        }
        if self.args.json {
            let fields = [
                ("id", id.0.into()),
                ("path", path.into_owned().into()),
                ("may_go", verdict.is_ok().into()),
                ("bytes", verdict.as_ref().ok().copied().into()),
                ("proven_at", since.into()),
                ("reason", verdict.err().into()),
            ];
            return print(&json_fields::<'_>(fields.into_iter().map(|(name, value): (&str, Value)| (name, value))));
        }
        let proven = since.map(|since| age(self.now - since)).unwrap_or_default();
        let path = printable(&path);
        print(&match verdict {
            Ok(room) => format!("{:>8}  {:>9}  {proven:>6}  {path}", id.0, bytes(room)),
            Err(why) => format!("{:>8}  {:>9}  {proven:>6}  {path}\n{:29}{}", id.0, "stays", "", printable(&why)),
        });
    }
}
