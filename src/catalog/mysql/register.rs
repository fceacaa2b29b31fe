//! Files that people register.

use super::indexes::{self, INDEX_MD5, INDEX_PATH};
use super::row::{integer, text};
use super::table::quote;
use super::{MySqlCatalog, is_bad_data};
use crate::catalog::files::{NewRow, Registered, Writing};
use crate::catalog::{Catalog, CatalogError, Layout, RecordId};
use mysql_async::prelude::Queryable;
use mysql_async::{Error, Params, TxOpts, Value};

/// A row that may be of one of the files.
struct KnownRow {
    id: RecordId,
    path: Vec<u8>,
    md5: Vec<u8>,
    copied: bool,
}

impl MySqlCatalog {
    /// What there is of them is looked for before the transaction, which looks only at what has come since. A row that is
    /// copied says no longer where its file was; it is known by its sum and by its place in the archive.
    pub(in crate::catalog) async fn register(
        &self,
        rows: &[NewRow],
        writing: Writing,
    ) -> Result<Vec<Registered>, CatalogError> {
        let [target] = &self.selection.targets[..] else {
            return Err(CatalogError::Setup(
                "A file is registered for one monitor, and several are named; give --target one instance id".to_owned(),
            ));
        };
        let name = &self.table.name;
        let until = self.newest().await?.0;
        let (by_path, by_md5) = self
            .run(async |conn| {
                Ok((indexes::has(conn, name, INDEX_PATH).await?, indexes::has(conn, name, INDEX_MD5).await?))
            })
            .await?;
        let mut known = Vec::new();
        if by_path && by_md5 {
            // Each has an index of its own, and the two together none.
            for condition in [Compared::Path, Compared::Sum] {
                known.extend(self.run(async |conn| self.known(conn, [i64::MIN, until], rows, condition).await).await?);
            }
        } else {
            let mut after = i64::MIN;
            while let Some((last, _)) = self.reach_of_a_look(after).await? {
                known.extend(
                    self.run(async |conn| self.known(conn, [after, last], rows, Compared::Either).await).await?,
                );
                after = last;
            }
        }
        let lock = format!("add {}", self.lock_name(target));
        self.run(async |conn| {
            // Two who register the same files at once would each find nothing. Who goes away gives it back.
            let got: Option<Option<i64>> = conn.exec_first("SELECT GET_LOCK(?, 10)", (&lock,)).await?;
            if got.flatten() != Some(1) {
                return Ok(None);
            }
            let mut transaction = conn.start_transaction(TxOpts::default()).await?;
            known.extend(self.known(&mut transaction, [until, i64::MAX], rows, Compared::Either).await?);
            let mut results: Vec<Registered> = Vec::with_capacity(rows.len());
            for (at, row) in rows.iter().enumerate() {
                let twice = rows[..at].iter().any(|other| other.source == row.source);
                let mut result = if twice { Registered::Same } else { judge(row, &known) };
                if result == Registered::New && writing == Writing::Done {
                    match self.insert(&mut transaction, target, row).await {
                        // Of no concern to the rows beside it.
                        Err(Error::Server(error)) if is_bad_data(error.code) => {
                            result = Registered::Refused(error.message);
                        }
                        inserted => inserted?,
                    }
                }
                results.push(result);
            }
            transaction.commit().await?;
            conn.exec_drop("SELECT RELEASE_LOCK(?)", (&lock,)).await?;
            Ok(Some(results))
        })
        .await?
        .ok_or_else(|| CatalogError::Unavailable {
            database: self.database.to_string(),
            why: format!("somebody else registers files for {target}; try again when that is done"),
        })
    }

    /// Rows with ids above the first and up to the second that may be of one of these files.
    async fn known(
        &self,
        conn: &mut impl Queryable,
        [after, last]: [i64; 2],
        rows: &[NewRow],
        compared: Compared,
    ) -> Result<Vec<KnownRow>, Error> {
        let marks = vec!["?"; rows.len()].join(", ");
        let condition = match compared {
            Compared::Path => format!("path IN ({marks})"),
            Compared::Sum => format!("md5sum IN ({marks})"),
            Compared::Either => format!("(path IN ({marks}) OR md5sum IN ({marks}))"),
        };
        let paths = rows.iter().map(|row| Value::from(&row.source)).filter(|_| compared != Compared::Sum);
        let sums = rows.iter().map(|row| Value::from(&row.md5[..])).filter(|_| compared != Compared::Path);
        let values = paths.chain(sums).chain(self.target_values()).chain([after.into(), last.into()]);
        let query = format!(
            "SELECT id, path, md5sum, copied FROM {} WHERE {condition} AND {} AND id > ? AND id <= ?",
            quote(&self.table.name),
            self.targets()
        );
        let found: Vec<mysql_async::Row> = conn.exec(query, Params::Positional(values.collect())).await?;
        let bytes = |value: Option<&Value>| match value {
            Some(Value::Bytes(bytes)) => bytes.clone(),
            _ => Vec::new(),
        };
        let found = found.iter().map(|row| KnownRow {
            id: RecordId(integer(row.as_ref(0)).ok().flatten().unwrap_or(0)),
            path: bytes(row.as_ref(1)),
            md5: bytes(row.as_ref(2)),
            copied: text(row.as_ref(3)).ok().flatten().is_some_and(|copied| copied != "0"),
        });
        Ok(found.collect())
    }

    async fn insert(&self, conn: &mut impl Queryable, target: &str, row: &NewRow) -> Result<(), Error> {
        let time = (row.time.max(1.0)) as i64;
        let mut columns = vec![
            ("path", Value::from(&row.source)),
            ("timestamp", time.into()),
            ("instance_id", target.into()),
            ("copied", 0.into()),
            ("failed_copy_attempts", 0.into()),
            ("md5sum", Value::from(&row.md5[..])),
            (if self.layout == Layout::Action { "action" } else { "type" }, Value::from(&row.kind)),
            ("action_timestamp", time.into()),
            ("format", Value::from(&row.format)),
            ("plot", i64::from(row.plot).into()),
            ("pub_id", Value::from(&row.publisher)),
        ];
        columns.retain(|(name, _)| self.table.has(name));
        let mark = |name: &str| if name == "timestamp" { "FROM_UNIXTIME(?)" } else { "?" };
        let query = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            quote(&self.table.name),
            columns.iter().map(|(name, _)| quote(name)).collect::<Vec<_>>().join(", "),
            columns.iter().map(|(name, _)| mark(name)).collect::<Vec<_>>().join(", ")
        );
        conn.exec_drop(query, Params::Positional(columns.into_iter().map(|(_, value)| value).collect())).await
    }
}

/// By what rows are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Path,
    Sum,
    Either,
}

fn judge(row: &NewRow, known: &[KnownRow]) -> Registered {
    let here = || known.iter().filter(|known| !known.copied && known.path == row.source.as_bytes());
    let archived = known.iter().any(|known| known.copied && known.md5 == row.md5 && is_at(&known.path, &row.remote));
    if archived || here().any(|known| known.md5 == row.md5) {
        return Registered::Same;
    }
    here().next_back().map_or(Registered::New, |known| Registered::Changed(known.id))
}

/// Whether a copy is at this place beneath some base, or at a numbered variant of it.
fn is_at(path: &[u8], place: &str) -> bool {
    let ends = |path: &[u8]| path.strip_suffix(place.as_bytes()).is_some_and(|base| base.ends_with(b"/"));
    let number = path.iter().rposition(|&byte| byte == b'.').filter(|dot| {
        let digits = &path[dot + 1..];
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    });
    !place.is_empty() && (ends(path) || number.is_some_and(|dot| ends(&path[..dot])))
}

#[cfg(test)]
mod tests {
    use super::is_at;

    #[test]
    fn a_copy_is_known_by_its_place() {
        assert!(is_at(b"/data/15895/t/a.npy", "15895/t/a.npy"));
        assert!(is_at(b"/data/15895/t/a.npy.12", "15895/t/a.npy"));
        assert!(!is_at(b"/data/15895/t/a.npy.x", "15895/t/a.npy"));
        assert!(!is_at(b"/data/115895/t/a.npy", "15895/t/a.npy"));
        assert!(!is_at(b"/data/a", ""));
    }
}
