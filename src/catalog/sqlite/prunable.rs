//! Local files that may be deleted: whose copies are proven, and that no other row needs.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error, TransactionBehavior, params};

use super::indexes::{INDEX_LOCAL, INDEX_NAME, NAME, has};
use super::parts::{IdRange, SINCE, prunable};
use super::row::hex;
use super::table::{FILES, PATH_LIMIT};
use super::{SqliteCatalog, row};
use crate::catalog::{CatalogError, Md5, Pending, RecordId};

/// Waiting files of the same name that are told of one; of one with more, nobody looks whether it is one of them, and it stays.
const RIVALS_MOST: usize = 16;
/// Rows of the same path or name that are looked at, the newest ones.
const SAME_MOST: usize = 1000;
/// Folders that are told of the files that come in.
const FOLDERS_MOST: usize = 64;

/// A local file that is proven at its destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Prunable {
    pub id: RecordId,
    pub path: PathBuf,
    /// What was proven.
    pub md5: Md5,
    /// Since when, unix time in seconds; not before it was registered.
    pub since: f64,
    /// Files of the same name, elsewhere, whose rows still wait: by way of a link one of them may be this very file.
    pub rivals: Vec<PathBuf>,
}

/// Why a file must stay, by the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Its row is no longer what it was.
    RowChanged,
    /// Another row waits for it.
    ByRow(RecordId),
    /// So many rows wait for files of its name that none of them is looked at.
    ByMany,
}

impl SqliteCatalog {
    /// The parts of the table in which a file that may be deleted was proven before `until` (unix seconds), those first
    /// that have the oldest proof.
    pub async fn prunable_parts(&self, until: f64) -> Result<Vec<IdRange>, CatalogError> {
        if !self.has_deletable {
            return Ok(Vec::new());
        }
        let mut parts = self
            .survey(|parts| {
                let since = parts.iter().filter_map(|(ids, found)| Some((found.prunable?, ids)));
                since.filter(|(since, _)| *since < until).collect::<Vec<_>>()
            })
            .await?;
        parts.sort_by(|one, other| one.0.total_cmp(&other.0));
        Ok(parts.into_iter().map(|(_, ids)| ids).collect())
    }

    /// Files of a part that were proven before `until` and may be deleted, the oldest proof first.
    pub async fn prunable(&self, [after, last]: IdRange, until: f64) -> Result<Vec<Prunable>, CatalogError> {
        if !self.has_deletable {
            return Ok(Vec::new());
        }
        let query = format!(
            "SELECT id, 0, local_path, 'x', local_md5sum, {SINCE} FROM {FILES} WHERE id > ?2 AND id <= ?3 \
             AND archive_name = ?1 AND {} AND typeof({SINCE}) IN ('real', 'integer') AND {SINCE} < ?4 \
             AND octet_length(local_path) <= {PATH_LIMIT} {} ORDER BY {SINCE}, id",
            prunable(),
            self.not_owed
        );
        let archive = self.archive.clone();
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(params![archive, after, last, until])?;
            let mut files = Vec::new();
            while let Some(row) = rows.next()? {
                // A row that cannot be read is no proof of anything: its file stays.
                if let Pending::Ready(record) = row::read(row)? {
                    let (id, path, md5, since) = (record.id, record.source, record.md5, row.get(5)?);
                    files.push(Prunable { id, path, md5, since, rivals: Vec::new() });
                }
            }
            Ok(files)
        })
        .await
    }

    /// Files of a part that are proven and here, and that their own rows forbid to delete.
    pub async fn forbidden(&self, [after, last]: IdRange) -> Result<Vec<(RecordId, PathBuf)>, CatalogError> {
        let allowed = if self.has_deletable { "deletable IS NOT 1" } else { "1" };
        let query = format!(
            "SELECT id, CAST(local_path AS BLOB) FROM {FILES} WHERE id > ?2 AND id <= ?3 AND archive_name = ?1 \
             AND removed IS NULL AND remote_md5sum = local_md5sum AND {allowed} \
             AND octet_length(local_path) <= {PATH_LIMIT} ORDER BY id"
        );
        let archive = self.archive.clone();
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(params![archive, after, last])?;
            let mut files = Vec::new();
            while let Some(row) = rows.next()? {
                if let Ok(Some(path)) = row.get_ref(1)?.as_blob_or_null() {
                    files.push((RecordId(row.get(0)?), PathBuf::from(OsStr::from_bytes(path))));
                }
            }
            Ok(files)
        })
        .await
    }

    /// The parts of the table that have files of the archive.
    pub async fn parts_of_archive(&self) -> Result<Vec<IdRange>, CatalogError> {
        self.survey(|parts| parts.iter().filter(|(_, found)| found.files > 0).map(|(ids, _)| ids).collect()).await
    }

    /// Says of each file why it must stay: since its row is no longer as it was read, or a row waits for it, of whatever
    /// archive. Files of the same name for which others wait are added to its rivals. Only rows above `above` are looked
    /// at for those that wait, where it is given and there is no index. Says up to which row it has looked.
    pub async fn needed(
        &self,
        files: &mut [Prunable],
        above: Option<RecordId>,
    ) -> Result<(Vec<Option<Needed>>, RecordId), CatalogError> {
        let indexed = self.run(|connection| Ok(has(connection, INDEX_LOCAL)? && has(connection, INDEX_NAME)?)).await?;
        let newest = crate::catalog::Catalog::newest(self).await?;
        let waits = format!("removed IS NULL AND remote_md5sum IS NOT local_md5sum {}", self.not_ignored);
        let mut needs = Needs::of(files);
        match (indexed, above) {
            (true, _) => {
                let wanted = files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
                needs = self
                    .run(move |connection| {
                        for path in &wanted {
                            needs.look_by_index(connection, path, &waits)?;
                        }
                        Ok(needs)
                    })
                    .await?;
            }
            (false, above) => {
                let ranges = match above {
                    Some(above) => vec![[above.0, i64::MAX]],
                    None => self.ranges_that_wait().await?,
                };
                for ids in ranges {
                    let waits = waits.clone();
                    needs = self.run(move |connection| needs.look(connection, ids, &waits).map(|()| needs)).await?;
                }
            }
        }
        let rows = files.iter().map(|file| (file.id.0, file.path.clone(), hex(&file.md5))).collect::<Vec<_>>();
        let (archive, not_owed) = (self.archive.clone(), self.not_owed);
        let same = self.run(move |connection| still_prunable(connection, (&archive, not_owed), &rows)).await?;
        let why = files.iter_mut().zip(same).map(|(file, same)| match same {
            false => Some(Needed::RowChanged),
            true => needs.judge(file),
        });
        Ok((why.collect(), newest))
    }

    /// The parts in which rows wait for their files.
    async fn ranges_that_wait(&self) -> Result<Vec<IdRange>, CatalogError> {
        self.survey(|parts| {
            let waiting = parts.iter().filter(|(_, found)| found.waiting > 0).map(|(ids, _)| ids);
            waiting.chain([[parts.end(), i64::MAX]]).collect()
        })
        .await
    }

    /// Says when these files were removed, in unix seconds; 0 of one that was not there any more. Only of rows that still
    /// are those of these files.
    pub async fn removed(&self, files: Vec<(Prunable, f64)>) -> Result<(), CatalogError> {
        if files.is_empty() {
            return Ok(());
        }
        let update = format!(
            "UPDATE {FILES} SET removed = ?2 WHERE id = ?1 AND removed IS NULL AND CAST(local_path AS BLOB) = ?3"
        );
        let ids = files.iter().map(|(file, _)| file.id).collect::<Vec<_>>();
        let written = self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (file, at) in files {
                let path = file.path.as_os_str().as_bytes();
                transaction.prepare_cached(&update)?.execute(params![file.id.0, at, path])?;
            }
            transaction.commit()
        });
        let written = written.await;
        self.stirred.wrote(ids.into_iter());
        written
    }

    /// Folders of the files that were registered last for the archive.
    pub async fn newest_folders(&self) -> Result<Vec<PathBuf>, CatalogError> {
        let query = format!(
            "SELECT CAST(local_path AS BLOB) FROM (SELECT archive_name, local_path FROM {FILES} ORDER BY id DESC LIMIT {SAME_MOST}) \
             WHERE archive_name = ?1 AND octet_length(local_path) <= {PATH_LIMIT}"
        );
        let archive = self.archive.clone();
        self.run(move |connection| {
            let mut folders = Vec::new();
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query([archive])?;
            while let Some(row) = rows.next()? {
                let Ok(Some(path)) = row.get_ref(0)?.as_blob_or_null() else { continue };
                let folder = Path::new(OsStr::from_bytes(path)).parent().map(Path::to_owned);
                if let Some(folder) = folder.filter(|folder| folders.len() < FOLDERS_MOST && !folders.contains(folder))
                {
                    folders.push(folder);
                }
            }
            Ok(folders)
        })
        .await
    }
}

/// Whether each row, with its path and sum, is one whose file may be deleted.
fn still_prunable(
    connection: &Connection,
    (archive, not_owed): (&str, &str),
    rows: &[(i64, PathBuf, String)],
) -> Result<Vec<bool>, Error> {
    let query = format!(
        "SELECT COUNT(*) FROM {FILES} WHERE id = ?1 AND archive_name = ?2 AND CAST(local_path AS BLOB) = ?3 \
         AND lower(local_md5sum) = ?4 AND {} {not_owed}",
        prunable()
    );
    let mut statement = connection.prepare_cached(&query)?;
    let mut same = |(id, path, md5): &(i64, PathBuf, String)| {
        let given = params![id, archive, path.as_os_str().as_bytes(), md5];
        statement.query_row(given, |row| row.get::<_, i64>(0)).map(|count| count > 0)
    };
    rows.iter().map(&mut same).collect()
}

/// Waiting rows that may need files.
struct Needs {
    /// Which paths and names matter.
    wanted: HashSet<Vec<u8>>,
    names: HashSet<Vec<u8>>,
    by_path: HashMap<Vec<u8>, RecordId>,
    by_name: HashMap<Vec<u8>, Vec<PathBuf>>,
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

impl Needs {
    fn of(files: &[Prunable]) -> Self {
        let paths = || files.iter().map(|file| file.path.as_os_str().as_bytes());
        let (by_path, by_name) = Default::default();
        Self {
            wanted: paths().map(<[u8]>::to_vec).collect(),
            names: paths().map(|path| name_of(path).to_vec()).collect(),
            by_path,
            by_name,
        }
    }

    fn enter(&mut self, id: i64, path: &[u8]) {
        if self.wanted.contains(path) {
            self.by_path.insert(path.to_vec(), RecordId(id));
        }
        let name = name_of(path);
        if self.names.contains(name) {
            let rivals = self.by_name.entry(name.to_vec()).or_default();
            let rival = PathBuf::from(OsStr::from_bytes(path));
            if rivals.len() <= RIVALS_MOST && !rivals.contains(&rival) {
                rivals.push(rival);
            }
        }
    }

    fn look(&mut self, connection: &Connection, [after, last]: IdRange, waits: &str) -> Result<(), Error> {
        let query = format!(
            "SELECT id, CAST(local_path AS BLOB) FROM {FILES} WHERE id > ?1 AND id <= ?2 AND {waits} \
             AND octet_length(local_path) <= {PATH_LIMIT}"
        );
        let mut statement = connection.prepare_cached(&query)?;
        let mut rows = statement.query(params![after, last])?;
        while let Some(row) = rows.next()? {
            if let Ok(Some(path)) = row.get_ref(1)?.as_blob_or_null() {
                self.enter(row.get(0)?, path);
            }
        }
        Ok(())
    }

    fn look_by_index(&mut self, connection: &Connection, path: &Path, waits: &str) -> Result<(), Error> {
        let bytes = path.as_os_str().as_bytes();
        let text = std::str::from_utf8(bytes).ok();
        let name = std::str::from_utf8(name_of(bytes)).ok();
        let same = |index: &str, of: &str| {
            format!(
                "SELECT id, CAST(local_path AS BLOB) FROM (SELECT * FROM {FILES} INDEXED BY {index} WHERE {of} \
                 ORDER BY id DESC LIMIT {SAME_MOST}) WHERE {waits} AND octet_length(local_path) <= {PATH_LIMIT}"
            )
        };
        let by_path = same(INDEX_LOCAL, "local_path IN (?1, ?2)");
        let by_name = same(INDEX_NAME, &format!("{NAME} IN (?1, ?2)"));
        for (query, given) in [(by_path, params![text, bytes]), (by_name, params![name, name])] {
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(given)?;
            while let Some(row) = rows.next()? {
                if let Ok(Some(path)) = row.get_ref(1)?.as_blob_or_null() {
                    self.enter(row.get(0)?, path);
                }
            }
        }
        Ok(())
    }

    /// Why a file must stay; else enters its rivals.
    fn judge(&self, file: &mut Prunable) -> Option<Needed> {
        let path = file.path.as_os_str().as_bytes();
        if let Some(id) = self.by_path.get(path) {
            return Some(Needed::ByRow(*id));
        }
        let rivals = self.by_name.get(name_of(path)).into_iter().flatten();
        for rival in rivals.filter(|rival| rival.as_path() != file.path) {
            if !file.rivals.contains(rival) {
                file.rivals.push(rival.clone());
            }
        }
        (file.rivals.len() > RIVALS_MOST).then_some(Needed::ByMany)
    }
}
