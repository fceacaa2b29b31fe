//! What people have done to rows.
//!
//! A row that is to be ignored has NULL for its failures: neither we nor the old archiver take such a row, and what the old
//! one adds to NULL stays NULL.

use super::nodes;
use super::note;
use super::table::quote;
use super::{LONGEST_PAUSE, MySqlCatalog, TRIES, is_lost_race};
use crate::catalog::CatalogError;
use crate::catalog::files::{FileRow, RowChange, bytes_of};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, TxOpts, Value};

impl MySqlCatalog {
    pub(in crate::catalog) async fn change(&self, changes: &[(FileRow, RowChange)]) -> Result<Vec<bool>, CatalogError> {
        let table = quote(&self.table.name);
        self.run(async |conn| {
            // Making a table would end the transaction.
            self.notes.prepare(conn, &table).await?;
            let mut tries = 1;
            loop {
                match self.try_to_change(conn, changes).await {
                    Err(Error::Server(error)) if tries < TRIES && is_lost_race(error.code) => {
                        conn.query_drop("ROLLBACK").await?;
                        tries += 1;
                        tokio::time::sleep(LONGEST_PAUSE.mul_f64(fastrand::f64())).await;
                    }
                    result => return result,
                }
            }
        })
        .await
    }

    /// All of them in a transaction, each only if the row is what was read.
    async fn try_to_change(&self, conn: &mut Conn, changes: &[(FileRow, RowChange)]) -> Result<Vec<bool>, Error> {
        let table = quote(&self.table.name);
        let mut transaction = conn.start_transaction(TxOpts::default()).await?;
        let mut done = Vec::with_capacity(changes.len());
        for (row, change) in changes {
            if let RowChange::Owe(node) = change {
                let owed = match row.md5() {
                    Some(md5) => nodes::owe(&mut transaction, &self.table.name, node, (row.id(), &md5)).await?,
                    None => false,
                };
                done.push(owed);
                continue;
            }
            let md5 = || Value::from(row.md5().map(Vec::from));
            let (set, given, more, compared) = match change {
                RowChange::Ignore(_) => {
                    ("failed_copy_attempts=NULL", vec![], "copied=0 AND failed_copy_attempts IS NOT NULL", vec![])
                }
                RowChange::Unignore => (
                    "failed_copy_attempts=0, copied=0",
                    vec![],
                    "(copied IS NULL OR copied=0 AND failed_copy_attempts IS NULL)",
                    vec![],
                ),
                RowChange::Accept(now) => (
                    "md5sum=?, failed_copy_attempts=0",
                    vec![Value::from(&now[..])],
                    "copied=0 AND md5sum=? AND failed_copy_attempts=?",
                    vec![md5(), row.attempts().into()],
                ),
                // Done above.
                RowChange::Owe(_) => continue,
                RowChange::Recopy(source) => (
                    "path=?, failed_copy_attempts=0, copied=0",
                    vec![Value::from(bytes_of(source.as_deref().unwrap_or(row.path())))],
                    "copied<>0 AND md5sum=?",
                    vec![md5()],
                ),
            };
            // `timestamp` is named because older servers declare it ON UPDATE current_timestamp().
            let update = format!(
                "UPDATE {table} SET {set}, `timestamp`=`timestamp` WHERE id=? AND path=? AND {more} AND {}",
                self.targets()
            );
            let values = given
                .into_iter()
                .chain([row.id().0.into(), bytes_of(row.path()).into()])
                .chain(compared)
                .chain(self.target_values());
            transaction.exec_drop(update, Params::Positional(values.collect())).await?;
            let changed = transaction.affected_rows() > 0;
            match change {
                RowChange::Ignore(why) if changed => {
                    note::set_aside(&mut transaction, &table, row.id().0, why).await?;
                }
                _ if changed => note::forget(&mut transaction, &table, row.id().0).await?,
                _ => {}
            }
            done.push(changed);
        }
        transaction.commit().await?;
        Ok(done)
    }
}
