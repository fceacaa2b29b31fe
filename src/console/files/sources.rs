//! Where the files of copied rows are, for those that no longer say it.

use super::decision::{Decision, Unfit};
use super::told::state_words;
use super::tree::{NamedTree, Sight, leaf};
use crate::catalog::AnyCatalog;
use crate::catalog::files::{FileRow, FileState, RowChange};
use crate::disk::summed::{SymlinkRule, sum};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The files that rows are of, as far as they were found.
pub(crate) struct Searched {
    found: HashMap<i64, PathBuf>,
}

impl Searched {
    /// What is to be done to have rows copied again. `source`: where their files are to be looked for; and whether one row
    /// alone is meant, so that it may be the very file.
    pub(crate) fn decisions(
        catalog: &AnyCatalog,
        rows: &[FileRow],
        source: Option<(&Path, bool)>,
    ) -> Result<Vec<Decision>, String> {
        let named = catalog.layout().is_none();
        let searched = match source {
            _ if named => Self { found: HashMap::new() },
            None => Self { found: HashMap::new() },
            Some((path, true)) if !path.is_dir() => {
                let path = std::path::absolute(path).map_err(|error| cannot_find(path, &error))?;
                Self { found: rows.iter().map(|row| (row.id().0, path.clone())).collect() }
            }
            Some((path, _)) => Self::search(path, rows)?,
        };
        Ok(rows.iter().map(|row| searched.decision(row, (named, source.is_some()))).collect())
    }

    /// `named`: whether rows say where their files are; and whether a place was given where they are not.
    fn decision(&self, row: &FileRow, (named, given): (bool, bool)) -> Decision {
        match row.state {
            FileState::Copied => {}
            state => return Err(Unfit::NotMeant(format!("{}, and not copied", state_words(state)))),
        }
        if row.removed_at.is_some() {
            return Err(Unfit::Trouble("its local file was deleted after it was copied".into()));
        }
        if row.md5().is_none() {
            return Err(Unfit::Trouble("the row cannot be used as it stands".into()));
        }
        match (named, self.found.get(&row.id().0)) {
            (true, _) => Ok(RowChange::Recopy(None)),
            (false, Some(path)) => Ok(RowChange::Recopy(Some(path.clone()))),
            (false, None) if given => {
                Err(Unfit::Trouble("no file of that name and MD5 was found below --source".into()))
            }
            (false, None) => Err(Unfit::Trouble("the row does not say where its file was; give --source".into())),
        }
    }

    /// Looks below a folder for files by their names, and reads those that have one.
    fn search(folder: &Path, rows: &[FileRow]) -> Result<Self, String> {
        let root = NamedTree::new(folder).map_err(|error| cannot_find(folder, &error))?;
        let mut wanted: HashMap<&[u8], Vec<&FileRow>> = HashMap::new();
        for row in rows {
            for name in names(leaf(row.path())) {
                wanted.entry(name).or_default().push(row);
            }
        }
        let mut found = HashMap::new();
        root.walk(&mut |sight| {
            if let Sight::File(file) = sight
                && let Some(of) = wanted.get(leaf(&file.path))
                && of.iter().any(|row| !found.contains_key(&row.id().0))
                && let Ok(summed) = sum(&file.path, SymlinkRule::Refused, &|_| {})
            {
                for row in of.iter().filter(|row| row.md5() == Some(summed.md5)) {
                    found.entry(row.id().0).or_insert_with(|| file.path.clone());
                }
            }
            found.len() < rows.len()
        });
        Ok(Self { found })
    }
}

fn cannot_find(path: &Path, error: &std::io::Error) -> String {
    format!("Option --source: cannot find {}: {error}", path.display())
}

/// The names that the file of a copy may have: its own, and that without a number behind it.
fn names(copy: &[u8]) -> impl Iterator<Item = &[u8]> {
    let dot = copy.iter().rposition(|&byte| byte == b'.').filter(|dot| {
        let digits = &copy[dot + 1..];
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    });
    [Some(copy), dot.map(|dot| &copy[..dot])].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_copy_may_have_a_number_behind_its_name() {
        let names = |copy: &'static str| super::names(copy.as_bytes()).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(names("a.npy"), [5]);
        assert_eq!(names("a.npy.12"), [8, 5]);
        assert_eq!(names("a."), [2]);
    }
}
