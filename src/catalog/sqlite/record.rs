//! Writes outcomes back.

use super::table::FILES;
use super::{fleet, note};
use crate::catalog::{Md5, Outcome, Settled};
use crate::clock::unix_now;
use rusqlite::{Connection, Error, TransactionBehavior, params};

/// `mover`: as whom, where several share the rows; `None` comes back where it is none any more.
pub(super) fn write(
    connection: &mut Connection,
    settled: &[Settled],
    mover: Option<&str>,
) -> Result<Option<u64>, Error> {
    let now = unix_now();
    // Immediate: the lock is waited for here, and not refused at the first write.
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(mover) = mover
        && !fleet::fence(&transaction, mover)?
    {
        return Ok(None);
    }
    let mut changed = 0;
    let mut notes = note::DueNotes::default();
    {
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
                        fleet::prove(&transaction, mover, row, now)?;
                    }
                    copied
                }
                Outcome::Failed { why } => {
                    let counted = failed.execute(params![row.id.0, row.attempts])?;
                    if counted > 0 {
                        notes.failed.push((row, why));
                    }
                    counted
                }
            };
            if row.attempts > 0 && matches!(row.outcome, Outcome::Copied { .. }) {
                notes.proven.push(row.id);
            }
        }
    }
    notes.write(&mut transaction, now)?;
    transaction.commit()?;
    Ok(Some(changed as u64))
}

pub(super) fn hex(md5: &Md5) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}
