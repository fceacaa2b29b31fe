//! Goes through the rows that are asked for, page by page.

use crate::catalog::files::{FileQuery, FileRow};
use crate::catalog::{AnyCatalog, CatalogError, RecordId};

/// Goes through the rows that are asked for, page by page.
pub(crate) struct Pages<'a> {
    catalog: &'a AnyCatalog,
    query: FileQuery,
    after: RecordId,
    ended: bool,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(catalog: &'a AnyCatalog, query: FileQuery) -> Self {
        Self { catalog, query, after: RecordId(i64::MIN), ended: false }
    }

    /// The next rows, `most` of them at most; none at the end.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Vec<FileRow>, CatalogError> {
        while !self.ended {
            let page = self.catalog.files(&self.query, self.after, most).await?;
            (self.after, self.ended) = (page.until, page.ended);
            if !page.rows.is_empty() {
                return Ok(page.rows);
            }
        }
        Ok(Vec::new())
    }
}
