//! Rows that were given up: why, and another chance for them.

use super::indexes::{self, INDEX_FAILED};
use super::table::FILES;
use super::walk::BOTTOM;
use super::{SqliteCatalog, nodes, note};
use crate::catalog::{CatalogError, Note, RecordId, Retry};
use rusqlite::{Connection, TransactionBehavior, params};

impl SqliteCatalog {
    pub(super) async fn retry_rows(&self, ids: &[RecordId]) -> Result<u64, CatalogError> {
        let update = format!(
            "UPDATE {FILES} SET failed_copy_attempts = 0 WHERE id = ?3 AND {} AND failed_copy_attempts >= ?2",
            self.waiting()
        );
        let (archive, max_attempts, ids) = (self.archive.clone(), self.max_attempts, ids.to_vec());
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut changed = 0;
            for id in ids {
                let values = params![archive, max_attempts, id.0];
                changed += nodes::forget(&transaction, "archive_name = ?1 AND id = ?3 AND (1 OR ?2)", values)?;
                changed += transaction.prepare_cached(&update)?.execute(values)?;
            }
            transaction.commit()?;
            Ok(changed as u64)
        })
        .await
    }

    /// What makes a row one of those given up that are meant, with the values of parameters 2 and 5; the ids it is looked
    /// for among are 3 and 4.
    fn meant(&self, pattern: Option<&String>) -> (String, String) {
        let (more, given) = match pattern {
            None => ("", String::new()),
            Some(pattern) => ("AND local_path LIKE ?5 ESCAPE '|'", Retry::like(pattern)),
        };
        // The fifth parameter is named in any case, so that both forms take five.
        let condition =
            format!("id > ?3 AND id <= ?4 AND {} AND failed_copy_attempts >= ?2 {more} AND (1 OR ?5)", self.waiting());
        (condition, given)
    }

    pub(super) async fn retry_all(&self, pattern: Option<&String>) -> Result<u64, CatalogError> {
        let (condition, given) = self.meant(pattern);
        let update = format!("UPDATE {FILES} SET failed_copy_attempts = 0 WHERE {condition}");
        let like = if pattern.is_some() { "AND local_path LIKE ?5 ESCAPE '|'" } else { "" };
        let at_nodes = format!("id > ?3 AND id <= ?4 AND archive_name = ?1 {like} AND (1 OR ?2 OR ?5)");
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let look = move |connection: &mut Connection, [after, last]: [i64; 2], changed: &mut u64| {
            let values = params![archive, max_attempts, after, last, given];
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let now = nodes::forget(&transaction, &at_nodes, values)?;
            *changed += (now + transaction.prepare_cached(&update)?.execute(values)?) as u64;
            transaction.commit()?;
            Ok(true)
        };
        Ok(self.walk(BOTTOM, 0, look).await?.0)
    }

    /// What is noted of those given up, also by a storage node alone: that which is worked for, or any.
    pub(super) async fn notes(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        let mut notes = match self.relayed() {
            Some(_) => Vec::new(),
            None => self.notes_of_rows(which, limit).await?,
        };
        let (node, of, which) = (self.node.clone(), (self.archive.clone(), self.max_attempts), which.clone());
        let room = limit.saturating_sub(notes.len());
        let more =
            self.run(move |connection| nodes::given_up(connection, node.as_ref(), (&of.0, of.1), (&which, room)));
        notes.extend(more.await?);
        Ok(notes)
    }

    async fn notes_of_rows(&self, which: &Retry, limit: usize) -> Result<Vec<Note>, CatalogError> {
        let (pattern, ids) = match which {
            Retry::All => (None, None),
            Retry::Pattern(pattern) => (Some(pattern), None),
            Retry::Ids(ids) => (None, Some(ids.clone())),
        };
        let (condition, given) = self.meant(pattern);
        let indexed = ids.is_none() && self.run(|connection| indexes::has(connection, INDEX_FAILED)).await?;
        let condition = match indexed {
            // Word for word as the index has it.
            true => format!("INDEXED BY {INDEX_FAILED} WHERE {condition} AND failed_copy_attempts > 0"),
            false => format!("WHERE {condition}"),
        };
        let (archive, max_attempts) = (self.archive.clone(), self.max_attempts);
        let read = move |connection: &Connection, [after, last]: [i64; 2], notes: &mut Vec<Note>| {
            let values = params![archive, max_attempts, after, last, given];
            notes.extend(note::read(connection, &condition, values, limit.saturating_sub(notes.len()))?);
            Ok(notes.len() < limit)
        };
        if indexed {
            return self
                .run(move |connection| {
                    let mut notes = Vec::new();
                    read(connection, [i64::MIN, i64::MAX], &mut notes)?;
                    Ok(notes)
                })
                .await;
        }
        if let Some(ids) = ids {
            return self
                .run(move |connection| {
                    let mut notes = Vec::new();
                    for id in ids {
                        if !read(connection, [id.0.saturating_sub(1), id.0], &mut notes)? {
                            break;
                        }
                    }
                    Ok(notes)
                })
                .await;
        }
        let look =
            move |connection: &mut Connection, ids: [i64; 2], notes: &mut Vec<Note>| read(connection, ids, notes);
        Ok(self.walk(BOTTOM, Vec::new(), look).await?.0)
    }
}
