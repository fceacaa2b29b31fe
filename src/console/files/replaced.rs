//! Copies that a later row of the same file has replaced (`--existing replace`): what they were is not to be had any more, and
//! nothing is wrong with them.

use super::told::FilePlaces;
use crate::catalog::files::FileRow;
use crate::catalog::{AnyCatalog, Catalog, CatalogError, CopyPlace, RecordId};

/// The later row whose copy is where this one's was.
pub(crate) async fn replaced_by(catalog: &AnyCatalog, row: &FileRow) -> Result<Option<RecordId>, CatalogError> {
    let places = FilePlaces::of(row);
    let Some(path) = places.copy else { return Ok(None) };
    let copy = CopyPlace { id: row.id(), source: places.source.unwrap_or_default().into(), path };
    Ok(catalog.last_copy(&copy).await?.filter(|last| *last > row.id()))
}
