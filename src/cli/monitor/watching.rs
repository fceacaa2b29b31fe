//! What the options say of watched folders.

use super::super::flags::monitor::{FinishArg, WatchArgs};
use crate::monitor::{FinishRule, MarkerName, WatchRoot, WatchTerms};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Letters of a name in the pysmurf tables.
const COLUMN: usize = 32;

/// The terms, where a folder is to be watched; `owner` is whose rows they are.
pub(super) fn terms(args: &WatchArgs, owner: String) -> Result<Option<WatchTerms>> {
    if args.watch.is_empty() {
        return Ok(None);
    }
    let roots = args.watch.iter().map(|folder| root(args, folder)).collect::<Result<Vec<_>>>()?;
    for (index, root) in roots.iter().enumerate() {
        if roots[..index].iter().any(|other| other.folder == root.folder) {
            bail!("Option --watch names {} twice; give it once", root.folder.display());
        }
    }
    let finish = match args.watch_finished {
        FinishArg::Closed => FinishRule::Closed,
        FinishArg::Settled => FinishRule::Settled,
        FinishArg::Marker => FinishRule::Marker(
            MarkerName::parse(&args.watch_marker)
                .map_err(|why| anyhow!("Option --watch-marker cannot be {:?}: {why}", args.watch_marker))?,
        ),
    };
    fits("--watch-type", &args.watch_type)?;
    Ok(Some(WatchTerms {
        roots,
        finish,
        settle: Duration::from_secs_f64(args.watch_settle),
        skip: args.watch_skip.clone(),
        rescan: Duration::from_secs_f64(args.watch_rescan),
        folders_most: args.watch_folders as usize,
        file_type: args.watch_type.clone(),
        deletable: args.watch_deletable,
        owner,
    }))
}

fn root(args: &WatchArgs, folder: &Path) -> Result<WatchRoot> {
    let option = || format!("Option --watch: {}", folder.display());
    let whole: PathBuf = std::path::absolute(folder).with_context(option)?.components().collect();
    if !std::fs::metadata(&whole).with_context(option)?.is_dir() {
        bail!("{} is no folder; name one whose files are to be registered", option());
    }
    let name = whole.file_name().and_then(|name| name.to_str());
    let named = |option: &str, given: &Option<String>| {
        let text = given.as_deref().or(name).filter(|text| !text.is_empty());
        let text =
            text.with_context(|| format!("Option {option} is missing: {} has no name of its own", whole.display()))?;
        fits(option, text)?;
        Ok::<_, anyhow::Error>(text.to_owned())
    };
    let shares = args.watch_archive.is_some() && args.watch.len() > 1;
    Ok(WatchRoot {
        archive: named("--watch-archive", &args.watch_archive)?,
        publisher: named("--watch-id", &args.watch_id)?,
        // Of several folders in one archive each has a place of its own.
        prefix: if shares { name.map(str::to_owned) } else { None },
        folder: whole,
    })
}

fn fits(option: &str, text: &str) -> Result<()> {
    let letters = text.chars().count();
    if (1..=COLUMN).contains(&letters) {
        return Ok(());
    }
    bail!("Option {option} cannot be {text:?}: give 1 to {COLUMN} letters")
}
