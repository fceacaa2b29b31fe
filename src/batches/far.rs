//! What is done at the far end beside the copying: looking what stands where a batch is to go, making its empty folders, and
//! removing what is not to stay. By a shell's commands, or by SFTP where the account runs none.

use crate::catalog::sqlite::batches::BatchPlaces;
use crate::transport::ssh::sftp::Sftp;
use crate::transport::{Connect, ConnectError};
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Bytes of paths in one command.
const COMMAND_MOST: usize = 32 * 1024;
/// Letters behind the name of a file that a receiver has not finished.
const TEMPORARY: usize = 6;
/// What each script says first, so that it is known that it ran; before it stands what the account's shell says at each start.
const RAN: &str = "archiver-ran";

/// Tells of each path what stands there (S), that it is an empty folder (E), unfinished files beside it (T and the letters
/// behind their names), and one that is kept aside (A). The first argument is the name of folders for those.
const LOOK: &str = r#"echo archiver-ran; a=$1; shift; i=0
for f; do d=${f%/*}; n=${f##*/}
if [ -d "$f" ] && ! [ -L "$f" ]; then if [ -n "$(ls -A "$f" | head -n 1)" ]; then echo "$i S"; else echo "$i E"; fi
elif [ -e "$f" ] || [ -L "$f" ]; then echo "$i S"; fi
for t in "$d/.$n."??????; do if [ -f "$t" ] && ! [ -L "$t" ]; then echo "$i T ${t##*.}"; fi; done
if [ -f "$d/$a/$n" ]; then echo "$i A"; fi
i=$((i+1)); done"#;
/// Removes each path, and the folder that it was kept aside in if nothing else is in it.
const REMOVE: &str = r#"echo archiver-ran; a=$1; shift; s=0
for f; do d=${f%/*}; if [ "${d##*/}" = "$a" ]; then if ! [ -L "$d" ]; then rm -f -- "$f"; rmdir -- "$d" 2>/dev/null; fi
else rm -rf -- "$f" || s=1; fi; done; exit $s"#;
/// Removes the folders for unfinished files within each path, and tells how many files there are, and which of them may be
/// unfinished ones.
const SWEEP: &str = r#"echo archiver-ran; a=$1; shift; s=0
for f; do find "$f" -type d -name "$a" -prune -exec rm -rf -- {} + || s=1
find "$f" -type f -name '.*.??????' || s=1
find "$f" -type f -exec sh -c 'echo "files $#"' sh {} + || s=1; done; exit $s"#;
/// Makes folders.
const MAKE: &str = r#"echo archiver-ran; shift; s=0; for f; do mkdir -p -- "$f" || s=1; done; exit $s"#;

/// Among what is spared: nobody could look what stands there, so nothing is ever removed.
pub(super) const UNSEEN: &str = "";

/// Why something could not be done there.
#[derive(Debug, thiserror::Error)]
pub(super) enum FarTrouble {
    /// The far end is out of reach for all batches.
    #[error("{0}")]
    Passing(String),
    /// Something there is in this batch's way.
    #[error("{0}")]
    OfBatch(String),
    /// The account does nothing but serve files.
    #[error("the account at {0} runs no commands and has no SFTP")]
    NothingBut(String),
}

/// What there is of a unit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct PlaceFound {
    /// Something stands at its place, which is more than an empty folder.
    stands: bool,
    /// An empty folder does.
    empty: bool,
    /// Letters behind the names of unfinished files.
    temporary: Vec<String>,
    aside: bool,
}

/// What a batch must not touch.
pub(super) type Spared = BTreeSet<String>;

/// One end of the link, for short errands.
pub(super) struct FarHand {
    connect: Box<dyn Connect>,
    /// The archive's base, without a slash at its end.
    base: String,
    /// What the folders are called in which unfinished files are kept.
    aside: String,
}

/// What a batch is, in places beneath the archive's base.
#[derive(Debug, Clone)]
pub(super) struct BatchExtent {
    /// Each place that was handed over.
    pub(super) units: Vec<String>,
    pub(super) places: BatchPlaces,
    pub(super) spared: Spared,
}

impl FarHand {
    pub(super) fn new(connect: Box<dyn Connect>, base: &str, aside: &str) -> Self {
        Self { connect, base: crate::archiver::base(base), aside: aside.to_owned() }
    }

    /// What stands at or beside these places already, and so is never to be removed.
    pub(super) fn look(&mut self, units: &[String]) -> Result<Spared, FarTrouble> {
        let found = match self.look_by_shell(units)? {
            Some(found) => found,
            None => {
                let sftp = self.sftp()?;
                let look = |unit: &String| {
                    let stands = sftp.stat(Path::new(&self.path(unit))).map_err(passing)?.is_some();
                    Ok(PlaceFound { stands, ..PlaceFound::default() })
                };
                units.iter().map(look).collect::<Result<_, _>>()?
            }
        };
        let mut spared = Spared::new();
        for (unit, found) in units.iter().zip(&found) {
            if found.stands {
                spared.insert(unit.clone());
            }
            spared.extend(found.temporary.iter().map(|letters| temporary(unit, letters)));
        }
        Ok(spared)
    }

    /// All its files are proven: makes the folders that have none, and removes what broken sessions have left among them. False
    /// where files are there no more.
    pub(super) fn complete(&mut self, batch: &BatchExtent) -> Result<bool, FarTrouble> {
        let folders: Vec<_> = batch.places.folders.iter().map(|place| self.path(place)).collect();
        if self.run(MAKE, &folders)?.is_none() {
            let sftp = self.sftp()?;
            for folder in &folders {
                sftp.make_dir(Path::new(folder), 0o755).map_err(passing)?;
            }
            return Ok(true);
        }
        if batch.spared.contains(UNSEEN) {
            return Ok(true);
        }
        let files: HashSet<_> = batch.places.files.iter().map(|place| self.path(place)).collect();
        let dirs: BTreeSet<_> = batch.places.folders.iter().collect();
        let (within, alone): (Vec<_>, Vec<_>) = batch.units.iter().cloned().partition(|unit| dirs.contains(unit));
        let within: Vec<_> = within.into_iter().map(|unit| self.path(&unit)).collect();
        let lines = self.run(SWEEP, &within)?.unwrap_or_default();
        let mut there = 0;
        let mut strays = Vec::new();
        for line in lines.into_iter().flatten() {
            if let Some(count) = line.strip_prefix("files ") {
                there += count.parse().unwrap_or(0);
            } else if within.iter().any(|unit| line.starts_with(&format!("{unit}/"))) && !files.contains(&line) {
                strays.push(line);
            }
        }
        let found = self.look_by_shell(&alone)?.unwrap_or_default();
        there = (there + found.iter().filter(|found| found.stands).count()).saturating_sub(strays.len());
        for (unit, found) in alone.iter().zip(&found) {
            strays.extend(self.beside(unit, found, &batch.spared));
        }
        self.run(REMOVE, &strays)?;
        Ok(there >= files.len())
    }

    /// Removes what there is of it; whether there was something.
    pub(super) fn remove(&mut self, batch: &BatchExtent) -> Result<bool, FarTrouble> {
        if batch.spared.contains(UNSEEN) {
            return Err(FarTrouble::NothingBut(self.connect.describe()));
        }
        let Some(found) = self.look_by_shell(&batch.units)? else { return self.remove_by_sftp(batch).map(|()| false) };
        let mut due = Vec::new();
        for (unit, found) in batch.units.iter().zip(&found) {
            if (found.stands || found.empty) && !batch.spared.contains(unit) {
                due.push(self.path(unit));
            }
            due.extend(self.beside(unit, found, &batch.spared));
        }
        self.run(REMOVE, &due)?;
        Ok(!due.is_empty())
    }

    /// Unfinished files beside a unit.
    fn beside(&self, unit: &str, found: &PlaceFound, spared: &Spared) -> Vec<String> {
        let unfinished = found.temporary.iter().map(|letters| temporary(unit, letters));
        let mut beside: Vec<_> =
            unfinished.filter(|place| !spared.contains(place)).map(|place| self.path(&place)).collect();
        if found.aside {
            beside.push(self.path(&with_leaf(unit, |leaf| format!("{}/{leaf}", self.aside))));
        }
        beside
    }

    /// Without a shell only that is removed whose name is known.
    fn remove_by_sftp(&mut self, batch: &BatchExtent) -> Result<(), FarTrouble> {
        let sftp = self.sftp()?;
        let is_spared =
            |place: &str| batch.spared.iter().any(|spared| place == spared || place.starts_with(&format!("{spared}/")));
        for place in batch.places.files.iter().filter(|place| !is_spared(place)) {
            sftp.remove(Path::new(&self.path(place))).map_err(passing)?;
            let aside = PathBuf::from(self.path(&with_leaf(place, |leaf| format!("{}/{leaf}", self.aside))));
            for done in [sftp.remove(&aside), aside.parent().map_or(Ok(()), |folder| sftp.remove_dir(folder))] {
                match done {
                    Err(error) if error.is_of_the_line() => return Err(passing(error)),
                    _ => {}
                }
            }
        }
        // The deepest first.
        for place in batch.places.folders.iter().rev().filter(|place| !is_spared(place)) {
            match sftp.remove_dir(Path::new(&self.path(place))) {
                Err(error) if error.is_of_the_line() => return Err(passing(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, place: &str) -> String {
        format!("{}/{place}", self.base)
    }

    fn sftp(&mut self) -> Result<Sftp, FarTrouble> {
        // Once may be the link's trouble.
        let opened = self.connect.sftp().or_else(|_| self.connect.sftp());
        opened.map_err(|error| match error {
            ConnectError::Setup(_) | ConnectError::NoCommand { .. } | ConnectError::Lost { .. } => {
                FarTrouble::NothingBut(self.connect.describe())
            }
            error => FarTrouble::Passing(error.to_string()),
        })
    }

    fn look_by_shell(&mut self, units: &[String]) -> Result<Option<Vec<PlaceFound>>, FarTrouble> {
        let paths: Vec<_> = units.iter().map(|unit| self.path(unit)).collect();
        let Some(outputs) = self.run(LOOK, &paths)? else { return Ok(None) };
        let mut found = vec![PlaceFound::default(); units.len()];
        let mut begin = 0;
        for (lines, part) in outputs.into_iter().zip(parts(&paths)) {
            for line in lines {
                let mut words = line.split(' ');
                let at = words.next().and_then(|at| at.parse::<usize>().ok()).filter(|at| *at < part.len());
                let Some(found) = at.and_then(|at| found.get_mut(begin + at)) else { continue };
                match (words.next(), words.next()) {
                    (Some("S"), None) => found.stands = true,
                    (Some("E"), None) => found.empty = true,
                    (Some("A"), None) => found.aside = true,
                    (Some("T"), Some(letters)) if is_temporary(letters) => found.temporary.push(letters.to_owned()),
                    _ => {}
                }
            }
            begin += part.len();
        }
        Ok(Some(found))
    }

    /// Runs a script over paths, in as many commands as it takes; what each of them said, or `None` where there is no shell.
    fn run(&mut self, script: &str, paths: &[String]) -> Result<Option<Vec<Vec<String>>>, FarTrouble> {
        let mut outputs = Vec::new();
        for part in parts(paths) {
            let start = ["sh", "-c", script, "sh", &self.aside].map(OsString::from);
            let words: Vec<OsString> = start.into_iter().chain(part.iter().map(OsString::from)).collect();
            let connect = self.connect.as_mut();
            // The connection may be the one that broke; the next is new.
            let output = match connect.run(&words) {
                Err(ConnectError::Lost { .. } | ConnectError::NoCommand { .. }) => connect.run(&words),
                output => output,
            };
            let output = match output {
                Ok(output) => output,
                Err(ConnectError::NoCommand { .. }) => return Ok(None),
                Err(error) => return Err(FarTrouble::Passing(error.to_string())),
            };
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned);
            if !lines.any(|line| line == RAN) {
                return Ok(None);
            }
            if output.status != Some(0) {
                let why = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it was ended").to_owned();
                return Err(FarTrouble::OfBatch(format!(
                    "at {}: {}",
                    connect.describe(),
                    crate::disk::shown(why.as_bytes())
                )));
            }
            outputs.push(lines.collect());
        }
        Ok(Some(outputs))
    }
}

fn passing(error: impl std::fmt::Display) -> FarTrouble {
    FarTrouble::Passing(error.to_string())
}

/// The paths in parts that fit into a command.
fn parts(paths: &[String]) -> Vec<&[String]> {
    let mut parts = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (at, path) in paths.iter().enumerate() {
        if bytes + path.len() > COMMAND_MOST && at > begin {
            parts.push(&paths[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += path.len();
    }
    if begin < paths.len() {
        parts.push(&paths[begin..]);
    }
    parts
}

fn is_temporary(letters: &str) -> bool {
    letters.len() == TEMPORARY && letters.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The name of an unfinished file beside a place.
fn temporary(place: &str, letters: &str) -> String {
    with_leaf(place, |leaf| format!(".{leaf}.{letters}"))
}

fn with_leaf(place: &str, change: impl Fn(&str) -> String) -> String {
    match place.rsplit_once('/') {
        Some((folder, leaf)) => format!("{folder}/{}", change(leaf)),
        None => change(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::Local;
    use std::fs;

    fn extent(units: &[&str], files: &[&str], folders: &[&str], spared: Spared) -> BatchExtent {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        BatchExtent { units: all(units), places: BatchPlaces { files: all(files), folders: all(folders) }, spared }
    }

    #[test]
    fn what_was_there_before_stays_and_what_came_since_goes() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("it's a base");
        for dir in ["b/book/sub", "b/old", "b/.aside"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        let write = |names: &[&str]| names.iter().for_each(|name| fs::write(base.join(name), name).unwrap());
        write(&["b/f.config", "b/.f.backup", "b/there", "b/old/x"]);
        let mut hand = FarHand::new(Box::new(Local::default()), base.to_str().unwrap(), ".aside");
        // The account may run commands by now, and did not when there was something to be seen.
        let unseen = extent(&["b/f", "b/there", "b/old"], &[], &[], Spared::from([UNSEEN.to_owned()]));
        assert!(matches!(hand.remove(&unseen), Err(FarTrouble::NothingBut(_))));
        assert!(base.join("b/there").exists() && base.join("b/old/x").exists() && base.join("b/.f.backup").exists());
        let units = ["b/f", "b/book", "b/there", "b/none $x `y`", "b/old"].map(str::to_owned);
        let spared = hand.look(&units).unwrap();
        let expected = ["b/.f.backup", "b/book", "b/old", "b/there"].map(str::to_owned);
        assert_eq!(spared, Spared::from(expected), "a folder in it is something");
        let spared = Spared::from([".f.backup", "there", "old"].map(|name| format!("b/{name}")));
        write(&["b/f", "b/.f.aB3dE6", "b/.aside/f", "b/.aside/other", "b/book/sub/x", "b/none $x `y`"]);
        let batch = extent(&["b/f", "b/book", "b/there", "b/none $x `y`", "b/old"], &[], &[], spared);
        assert!(hand.remove(&batch).unwrap() && !hand.remove(&batch).unwrap());
        let mut left: Vec<_> = fs::read_dir(base.join("b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".aside", ".f.backup", "f.config", "old", "there"]);
        assert!(base.join("b/.aside/other").exists() && !base.join("b/.aside/f").exists());
    }

    #[test]
    fn a_complete_batch_has_all_its_folders_and_nothing_of_broken_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        for dir in ["book/sub/.aside", ".aside"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        let write = |names: &[&str]| names.iter().for_each(|name| fs::write(base.join(name), name).unwrap());
        write(&["book/.x.mpgbak", "book/.x.aB3dE6", "book/sub/.aside/y", "book/sub/y", "f", ".f.aB3dE6", ".aside/f"]);
        let mut hand = FarHand::new(Box::new(Local::default()), base.to_str().unwrap(), ".aside");
        let files = ["book/.x.mpgbak", "book/sub/y", "f"];
        let batch = extent(&["book", "f"], &files, &["book", "book/sub", "book/em pty/é"], Spared::new());
        assert!(hand.complete(&batch).unwrap());
        for there in ["book/.x.mpgbak", "book/sub/y", "f", "book/em pty/é"] {
            assert!(base.join(there).exists(), "{there}");
        }
        for gone in ["book/.x.aB3dE6", "book/sub/.aside", ".f.aB3dE6", ".aside"] {
            assert!(!base.join(gone).exists(), "{gone}");
        }
        for gone in ["f", "book/sub/y"] {
            let kept = fs::read(base.join(gone)).unwrap();
            fs::remove_file(base.join(gone)).unwrap();
            assert!(!hand.complete(&batch).unwrap(), "{gone} is there no more");
            fs::write(base.join(gone), kept).unwrap();
        }
    }

    #[test]
    fn many_paths_take_several_commands() {
        let folder = tempfile::tempdir().unwrap();
        let mut hand = FarHand::new(Box::new(Local::default()), folder.path().to_str().unwrap(), ".aside");
        let units: Vec<_> = (0..2000).map(|at| format!("{}{at}", "x".repeat(60))).collect();
        fs::write(folder.path().join(&units[1500]), "").unwrap();
        assert_eq!(hand.look(&units).unwrap(), Spared::from([units[1500].clone()]));
    }
}
