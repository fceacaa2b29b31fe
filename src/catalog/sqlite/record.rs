//! Writes outcomes back.

use super::row::hex;
use super::table::FILES;
use super::{fleet, nodes, note};
use crate::catalog::{FailedSide, Outcome, Settled, StorageNode};
use crate::clock::unix_now;
use rusqlite::{Connection, Error, Transaction, TransactionBehavior, params};

/// `mover`: as whom, where several share the rows; `None` comes back where it is none any more. `node`: for which storage
/// node, where there are several.
pub(super) fn write(
    connection: &mut Connection,
    settled: &[Settled],
    mover: Option<&str>,
    node: Option<&StorageNode>,
) -> Result<Option<u64>, Error> {
    let now = unix_now();
    // Immediate: the lock is waited for here, and not refused at the first write.
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(mover) = mover
        && !fleet::fence(&transaction, mover)?
    {
        return Ok(None);
    }
    let mut notes = note::DueNotes::default();
    let changed = match node.zip(mover) {
        Some(by) => write_for(&transaction, settled, by, (&mut notes, now))?,
        None => write_for_all(&transaction, settled, mover, (&mut notes, now))?,
    };
    notes.write(&mut transaction, now)?;
    transaction.commit()?;
    Ok(Some(changed as u64))
}

/// Where the rows have one destination.
fn write_for_all<'a>(
    transaction: &Transaction<'_>,
    settled: &'a [Settled],
    mover: Option<&str>,
    (notes, now): (&mut note::DueNotes<'a>, f64),
) -> Result<usize, Error> {
    let mut changed = 0;
    let mut copied = transaction.prepare_cached(&format!(
        "UPDATE {FILES} SET remote_md5sum = local_md5sum, copied = ?2, remote_path = ?3 \
         WHERE id = ?1 AND lower(local_md5sum) = ?4 AND remote_md5sum IS NOT local_md5sum"
    ))?;
    let mut failed = transaction.prepare_cached(&format!(
        "UPDATE {FILES} SET failed_copy_attempts = ?2 + 1 \
         WHERE id = ?1 AND failed_copy_attempts = ?2 AND remote_md5sum IS NOT local_md5sum"
    ))?;
    for row in settled {
        changed += match &row.outcome {
            Outcome::Copied { path, md5 } => {
                let copied = copied.execute(params![row.id.0, now, path, hex(md5)])?;
                if let Some(mover) = mover.filter(|_| copied > 0) {
                    fleet::prove(transaction, mover, row, now)?;
                }
                copied
            }
            Outcome::Failed { why, .. } => {
                let counted = failed.execute(params![row.id.0, row.attempts])?;
                if counted > 0 {
                    notes.failed.push((row.id, row.attempts.saturating_add(1), why));
                }
                counted
            }
        };
        if row.attempts > 0 && matches!(row.outcome, Outcome::Copied { .. }) {
            notes.proven.push(row.id);
        }
    }
    Ok(changed)
}

/// Where this is one of several storage nodes.
fn write_for<'a>(
    transaction: &Transaction<'_>,
    settled: &'a [Settled],
    by: (&StorageNode, &str),
    (notes, now): (&mut note::DueNotes<'a>, f64),
) -> Result<usize, Error> {
    let mut changed = 0;
    for row in settled {
        match &row.outcome {
            Outcome::Copied { path, md5 } => {
                changed += usize::from(nodes::prove(transaction, by, row, (path, md5, now))?);
                if row.attempts > 0 {
                    notes.proven.push(row.id);
                }
            }
            Outcome::Failed { why, side } => {
                let side = by.0.side(*side);
                if let Some(counted) = nodes::fail(transaction, by.0, row, (side, why, now))? {
                    changed += 1;
                    if side == FailedSide::Source {
                        notes.failed.push((row.id, counted, why));
                    }
                }
            }
        }
    }
    Ok(changed)
}
