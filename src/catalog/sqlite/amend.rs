//! What people have done to rows.

use super::indexes::UNCOPIED;
use super::row::hex;
use super::table::{CREATE_NOTES, FILES};
use super::{SqliteCatalog, nodes, note};
use crate::catalog::files::{FileRow, IGNORED, RowChange, bytes_of};
use crate::catalog::note::short;
use crate::catalog::{CatalogError, Md5};
use crate::clock::unix_now;
use rusqlite::{Connection, Error, Transaction, TransactionBehavior, params};

impl SqliteCatalog {
    pub(in crate::catalog) async fn change(&self, changes: &[(FileRow, RowChange)]) -> Result<Vec<bool>, CatalogError> {
        let has_ignore = !self.not_ignored.is_empty();
        if !has_ignore && changes.iter().any(|(_, change)| matches!(change, RowChange::Ignore(_))) {
            return Err(CatalogError::Setup(format!(
                "Table {FILES} of {} has no column ignore, it is older than that; nothing can be ignored in it",
                self.database
            )));
        }
        let statements = Statements::new(&self.archive, has_ignore);
        let changes = changes.to_vec();
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut done = Vec::with_capacity(changes.len());
            for (row, change) in &changes {
                let changed = statements.change(&transaction, row, change)?;
                if changed {
                    tell(&transaction, row, change)?;
                }
                done.push(changed);
            }
            transaction.commit()?;
            Ok(done)
        })
        .await
    }
}

struct Statements {
    archive: String,
    /// What leads no archiver past a row, of what can be set.
    unignored: &'static str,
    left_out: &'static str,
}

impl Statements {
    fn new(archive: &str, has_ignore: bool) -> Self {
        let (unignored, left_out) = match has_ignore {
            true => ("\"ignore\" = 0, ", "(\"ignore\" IS NOT 0 OR failed_copy_attempts IS NULL)"),
            false => ("", "failed_copy_attempts IS NULL"),
        };
        Self { archive: archive.to_owned(), unignored, left_out }
    }

    /// Each changes a row only if it is what was read.
    fn change(&self, transaction: &Transaction<'_>, row: &FileRow, change: &RowChange) -> Result<bool, Error> {
        let same = "WHERE id = ?1 AND archive_name = ?2 AND CAST(local_path AS BLOB) = ?3 AND removed IS NULL";
        let Self { archive, unignored, left_out } = self;
        let (id, path) = (row.id().0, bytes_of(row.path()));
        let md5 = |md5: Option<Md5>| md5.as_ref().map(hex);
        let run = |set: &str, more: &str, [one, two]: [&dyn rusqlite::ToSql; 2]| {
            // The last two are named in any case, so that all take five.
            let update = format!("UPDATE {FILES} SET {set} {same} AND {more} AND (1 OR ?4 OR ?5)");
            transaction.prepare_cached(&update)?.execute(params![id, archive, path, one, two]).map(|rows| rows > 0)
        };
        match change {
            RowChange::Ignore(_) => run("\"ignore\" = 1", &format!("\"ignore\" = 0 AND {UNCOPIED}"), [&0, &0]),
            RowChange::Unignore => {
                run(&format!("{unignored}failed_copy_attempts = 0"), &format!("{left_out} AND {UNCOPIED}"), [&0, &0])
            }
            RowChange::Accept(now) => {
                // What was last read at the destination is no proof of what counts from now on.
                let set = "local_md5sum = ?4, remote_md5sum = NULL, failed_copy_attempts = 0";
                let more =
                    format!("{UNCOPIED} AND lower(local_md5sum) = ?5 AND failed_copy_attempts = {}", row.attempts());
                run(set, &more, [&hex(now), &md5(row.md5())])
            }
            RowChange::Owe(node) => match row.md5() {
                Some(md5) if nodes::exist(transaction)? => nodes::owe(transaction, node, (row.id(), &hex(&md5))),
                _ => Ok(false),
            },
            RowChange::Recopy(_) => {
                let set = "remote_md5sum = NULL, failed_copy_attempts = 0";
                run(set, "remote_md5sum = local_md5sum AND lower(local_md5sum) = ?4", [&md5(row.md5()), &0])
            }
        }
    }
}

/// Notes who has had a row ignored; what was noted before is void after any other change.
fn tell(connection: &Connection, row: &FileRow, change: &RowChange) -> Result<(), Error> {
    let id = row.id().0;
    match change {
        RowChange::Ignore(why) => {
            connection.execute_batch(CREATE_NOTES)?;
            let put =
                "INSERT OR REPLACE INTO archiver_note (table_name, id, attempts, noted_at, why) VALUES (?, ?, ?, ?, ?)";
            connection.prepare_cached(put)?.execute(params![FILES, id, IGNORED, unix_now(), short(why)])?;
        }
        _ if note::exist(connection)? => {
            let forget = "DELETE FROM archiver_note WHERE table_name = ? AND id = ?";
            connection.prepare_cached(forget)?.execute(params![FILES, id])?;
        }
        _ => {}
    }
    Ok(())
}
