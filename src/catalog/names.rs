//! Which of the chosen names no row has: mistyped, most likely, and nothing would ever be copied.

use super::{AnyCatalog, Catalog, CatalogError, RecordId};
use std::collections::BTreeSet;

/// Rows of one look. The producer's newest rows come first, so one look is enough where all is well.
const LOOK: usize = 10_000;
/// Names that are told.
const TOLD: usize = 20;
/// Names that are remembered while looking.
const KNOWN: usize = 1000;

/// In words, which of `chosen` no row of the table has, and what there is instead; `None` where each has rows, or the
/// table is empty. Goes through the table in short looks, as far as it must.
pub async fn strangers(catalog: &AnyCatalog, chosen: &[String]) -> Result<Option<String>, CatalogError> {
    // As MySQL's usual collations compare.
    let folded = |name: &str| match catalog {
        AnyCatalog::Mysql(_) => name.trim_end().to_lowercase(),
        AnyCatalog::Sqlite(_) => name.to_owned(),
    };
    let mut missing: Vec<&String> = chosen.iter().collect();
    let mut known = BTreeSet::new();
    let mut below = RecordId(i64::MAX);
    while !missing.is_empty() {
        let Some((names, lowest)) = catalog.names(below, LOOK).await? else { break };
        below = lowest;
        missing.retain(|name| names.iter().all(|other| folded(other) != folded(name)));
        known.extend(names.into_iter().take(KNOWN.saturating_sub(known.len())));
    }
    if missing.is_empty() || below.0 == i64::MAX {
        return Ok(None);
    }
    let option = match catalog {
        AnyCatalog::Mysql(_) => "--target",
        AnyCatalog::Sqlite(_) => "--archive-name",
    };
    let quoted = |name: &String| format!("{name:?}");
    let missing = missing.into_iter().map(quoted).collect::<Vec<_>>().join(", ");
    let more = if known.len() > TOLD { " and more" } else { "" };
    let known = known.iter().take(TOLD).map(quoted).collect::<Vec<_>>().join(", ");
    let place = catalog.describe();
    Ok(Some(format!("No row of {place} is for {option} {missing}; there are rows for {known}{more}. Is it mistyped?")))
}
