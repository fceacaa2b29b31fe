//! Rows as people ask for them, page by page: those of the table of files, and with them, or in their place, how rows stand at
//! storage nodes.

use super::at_node::{AtNode, AtNodes, FoundKeys, NodeKeys};
use super::files::{FilePage, FileQuery, FileRow, FileState, FileStates};
use super::nodes::StorageNode;
use super::{AnyCatalog, CatalogError, RecordId};
use std::collections::{BTreeMap, BTreeSet};

/// So many keys of a node's rows are looked at together, also where fewer rows are asked for: most may be of others.
const KEYS: usize = 1000;

impl AnyCatalog {
    /// A bounded look at the rows above `after`, for at most `limit` that are asked for, and as many at each storage node.
    pub(crate) async fn files(
        &self,
        query: &FileQuery,
        after: RecordId,
        limit: usize,
    ) -> Result<FilePage, CatalogError> {
        match &query.at {
            AtNodes::Nowhere => self.files_themselves(query, after, limit).await,
            AtNodes::FailedAt(nodes) => self.files_and_failures(query, nodes, after, limit).await,
            AtNodes::LackedBy(node) => self.files_lacked(query, node, after, limit).await,
        }
    }

    /// Rows, and behind each what failed of it at these nodes alone.
    async fn files_and_failures(
        &self,
        query: &FileQuery,
        nodes: &[StorageNode],
        after: RecordId,
        limit: usize,
    ) -> Result<FilePage, CatalogError> {
        let page = self.files_themselves(query, after, limit).await?;
        let (mut until, mut rows) = (last_of(&page), page.rows);
        for node in nodes {
            let keys = self.node_keys((node, NodeKeys::Troubled), [after.0, until], limit.max(KEYS)).await?;
            until = keys.until;
            let found = self.at_node(node, &keys.ids).await?;
            let found = found.into_iter().filter(|(_, at)| at.alone && at.failed()).collect();
            rows.extend(self.files_at(query, found).await?);
        }
        Ok(page_of(rows, until))
    }

    /// Only what a node lacks.
    async fn files_lacked(
        &self,
        query: &FileQuery,
        node: &StorageNode,
        after: RecordId,
        limit: usize,
    ) -> Result<FilePage, CatalogError> {
        let (failed, relayed) = (query.states.only_failed(), node.feed().is_some());
        let page = match relayed {
            true => FilePage { rows: Vec::new(), until: after, ended: true },
            false => {
                let states = FileStates { pending: !failed, failed: true, ..FileStates::default() };
                self.files_themselves(&FileQuery { states, ..query.clone() }, after, limit).await?
            }
        };
        let which = match (failed, relayed) {
            (true, _) => NodeKeys::Troubled,
            (false, true) => NodeKeys::Fed,
            (false, false) => NodeKeys::Owed,
        };
        let keys = self.node_keys((node, which), [after.0, last_of(&page)], limit.max(KEYS)).await?;
        let ids: BTreeSet<_> = page.rows.iter().map(FileRow::id).chain(keys.ids).collect();
        let ids: Vec<_> = ids.into_iter().filter(|id| id.0 <= keys.until).collect();
        let mut found = self.at_node(node, &ids).await?;
        found.retain(|(_, at)| query.states.failed && at.failed() || query.states.pending && at.is_tried());
        Ok(page_of(self.files_at(query, found).await?, keys.until))
    }

    /// The rows of what was found, as far as they are asked for, and nobody has had them ignored.
    async fn files_at(&self, query: &FileQuery, found: Vec<(RecordId, AtNode)>) -> Result<Vec<FileRow>, CatalogError> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: BTreeMap<_, _> = found.into_iter().collect();
        let ids: Vec<_> = found.keys().copied().collect();
        let most = ids.len();
        let query = FileQuery { states: FileStates::default(), ids: Some(ids), ..query.clone() };
        let mut rows = self.files_themselves(&query, RecordId(i64::MIN), most).await?.rows;
        rows.retain(|row| !matches!(row.state, FileState::Ignored(_)));
        for row in &mut rows {
            row.at = found.remove(&row.id());
        }
        Ok(rows)
    }

    /// Keys of a node's rows above the first id and up to the second, `limit` at most.
    async fn node_keys(
        &self,
        (node, which): (&StorageNode, NodeKeys),
        within: [i64; 2],
        limit: usize,
    ) -> Result<FoundKeys, CatalogError> {
        match self {
            Self::Mysql(catalog) => catalog.node_keys((node, which), within, limit).await,
            Self::Sqlite(catalog) => catalog.node_keys((node, which), within, limit).await,
        }
    }

    /// How those of these rows stand at the node which it lacks.
    async fn at_node(&self, node: &StorageNode, ids: &[RecordId]) -> Result<Vec<(RecordId, AtNode)>, CatalogError> {
        match self {
            _ if ids.is_empty() => Ok(Vec::new()),
            Self::Mysql(catalog) => catalog.at_node(node, ids).await,
            Self::Sqlite(catalog) => catalog.at_node(node, ids).await,
        }
    }
}

/// Up to which id a page has all.
fn last_of(page: &FilePage) -> i64 {
    if page.ended { i64::MAX } else { page.until.0 }
}

/// What stands up to that id, in order: first each row itself, then as it stands at nodes.
fn page_of(mut rows: Vec<FileRow>, until: i64) -> FilePage {
    rows.retain(|row| row.id().0 <= until);
    rows.sort_by_key(FileRow::id);
    FilePage { rows, until: RecordId(until), ended: until == i64::MAX }
}
