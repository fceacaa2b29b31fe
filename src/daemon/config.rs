//! `rsyncd.conf`: modules and their parameters. Counterpart: rsync's `loadparm.c`.
//!
//! What stock passes over with a word in the log is refused here, with its place: a daemon that serves other than its
//! operator wrote is worse than one that does not start.

mod expand;
mod parameters;
#[cfg(test)]
mod tests;

pub(super) use expand::DaemonVariables;
pub(super) use parameters::Parameters;

use crate::disk::{open_operand, open_operator_file, readable, shown};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest configuration file, in bytes.
const FILE_MOST: u64 = 4 << 20;
/// Files within files, at most.
const DEPTH_MOST: usize = 16;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A line that means nothing.
    #[error("{file}:{line}: {text:?} is not understood; expected {expected}")]
    Line {
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What stands there.
        text: String,
        /// What would do.
        expected: String,
    },
    /// A file that cannot be read.
    #[error("Cannot read {file}: {source}")]
    File {
        /// Its path.
        file: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// A parameter of a module that cannot be served.
    #[error("Module [{module}]: {what}")]
    Module {
        /// The module's name.
        module: String,
        /// What is wrong, and what would do.
        what: String,
    },
}

/// A module: a name and what holds for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Module {
    pub(super) name: String,
    pub(super) settings: Parameters,
}

/// All that the file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Config {
    /// What holds for the daemon, and for modules that say nothing else.
    pub(super) globals: Parameters,
    /// In the order of the file.
    pub(super) modules: Vec<Module>,
}

impl Config {
    /// Reads a file, and what it includes. `overrides` are `--dparam`s, which stand at the end of the global settings.
    pub(super) fn read(path: &Path, overrides: &[String], environment: &DaemonVariables) -> Result<Self, ConfigError> {
        let mut parser = Parser { config: Self::default(), section: None, overrides, overridden: false, environment };
        parser.file(path, 0)?;
        parser.finish()?;
        Ok(parser.config)
    }

    pub(super) fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name)
    }
}

struct Parser<'a> {
    config: Config,
    /// The module that parameters go to; `None` for the global ones.
    section: Option<usize>,
    overrides: &'a [String],
    overridden: bool,
    environment: &'a DaemonVariables,
}

impl Parser<'_> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), ConfigError> {
        let shown = || shown(path.as_os_str().as_bytes());
        let cannot = |source| ConfigError::File { file: shown(), source };
        if depth == DEPTH_MOST {
            return Err(cannot(std::io::Error::other("Too many files include each other")));
        }
        let mut bytes = Vec::new();
        open_operator_file(path).and_then(|file| file.take(FILE_MOST).read_to_end(&mut bytes)).map_err(cannot)?;
        if bytes.len() as u64 == FILE_MOST {
            return Err(cannot(std::io::Error::other("The file is longer than 4 MiB")));
        }
        let text = String::from_utf8(bytes).map_err(|_| cannot(std::io::Error::other("The file is not UTF-8")))?;
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let mut line = line.trim().to_owned();
            // A comment ends with its line, whatever it ends with.
            while line.ends_with('\\') && !line.starts_with('#') {
                line.pop();
                match lines.next() {
                    Some((_, more)) => line.push_str(more.trim_end()),
                    None => break,
                }
            }
            let refused =
                |expected: String| ConfigError::Line { file: shown(), line: number + 1, text: line.clone(), expected };
            self.line(&line, path, depth).map_err(|trouble| match trouble {
                ConfigTrouble::Expected(expected) => refused(expected),
                ConfigTrouble::Inner(error) => error,
            })?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, path: &Path, depth: usize) -> Result<(), ConfigTrouble> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').ok_or_else(|| expected("[module]"))?;
            return self.section(name);
        }
        if let Some(directive) = line.strip_prefix('&') {
            return self.directive(directive, path, depth);
        }
        let (name, value) = line.split_once('=').ok_or_else(|| expected("[module], name = value or &include FILE"))?;
        let value = value.trim();
        let settings = match self.section {
            Some(module) => &mut self.config.modules[module].settings,
            None => &mut self.config.globals,
        };
        settings.set(name, value, self.environment).map_err(ConfigTrouble::Expected)?;
        if self.section.is_some() && parameters::is_global(name) {
            return Err(expected("this parameter above all modules, for it holds for the whole daemon"));
        }
        Ok(())
    }

    fn section(&mut self, name: &str) -> Result<(), ConfigTrouble> {
        let words: Vec<_> = name.split_whitespace().collect();
        let name = words.join(" ");
        if name.is_empty() || name.contains(['/', ']']) || name.contains(char::is_control) {
            return Err(expected("a module's name without slashes and brackets"));
        }
        self.override_globals()?;
        self.section = None;
        if !name.eq_ignore_ascii_case("global") {
            let known = self.config.modules.iter().position(|module| module.name == name);
            self.section = Some(known.unwrap_or_else(|| {
                self.config.modules.push(Module { name, settings: self.config.globals.clone() });
                self.config.modules.len() - 1
            }));
        }
        Ok(())
    }

    /// Puts the overrides where the first module begins.
    fn override_globals(&mut self) -> Result<(), ConfigTrouble> {
        if std::mem::replace(&mut self.overridden, true) {
            return Ok(());
        }
        for text in self.overrides {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let bad = |expected| {
                let (file, line, text) = ("--dparam".to_owned(), 1, text.clone());
                ConfigTrouble::Inner(ConfigError::Line { file, line, text, expected })
            };
            self.config.globals.set(name, value.trim(), self.environment).map_err(bad)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ConfigError> {
        self.override_globals().map_err(|trouble| match trouble {
            ConfigTrouble::Inner(error) => error,
            ConfigTrouble::Expected(what) => ConfigError::Module { module: "global".into(), what },
        })
    }

    /// `&include` keeps what it sets to itself, `&merge` stands for its text.
    fn directive(&mut self, directive: &str, path: &Path, depth: usize) -> Result<(), ConfigTrouble> {
        let (word, target) = directive.split_once(char::is_whitespace).unwrap_or((directive, ""));
        let (include, suffix) = match word {
            "include" => (true, "conf"),
            "merge" => (false, "inc"),
            _ => return Err(expected("&include or &merge")),
        };
        let target = self.environment.expand(target.trim());
        if target.is_empty() {
            return Err(expected("a file or folder behind it"));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        for file in files(&folder.join(target), suffix).map_err(ConfigTrouble::Inner)? {
            if include {
                let before = (self.config.globals.clone(), self.section.take(), self.overridden);
                self.file(&file, depth + 1).map_err(ConfigTrouble::Inner)?;
                (self.config.globals, self.section, self.overridden) = before;
            } else {
                self.file(&file, depth + 1).map_err(ConfigTrouble::Inner)?;
            }
        }
        Ok(())
    }
}

enum ConfigTrouble {
    Expected(String),
    Inner(ConfigError),
}

fn expected(what: &str) -> ConfigTrouble {
    ConfigTrouble::Expected(what.to_owned())
}

/// The file itself, or the files of a folder that end so, in order.
fn files(path: &Path, suffix: &str) -> Result<Vec<PathBuf>, ConfigError> {
    let cannot = |source| ConfigError::File { file: shown(path.as_os_str().as_bytes()), source };
    // What cannot be entered is taken for a file, and whoever opens it says what is wrong with it.
    let Ok(folder) = open_operand(path).and_then(|folder| readable(&folder)) else { return Ok(vec![path.to_owned()]) };
    let mut files = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder).map_err(|error| cannot(error.into()))? {
        let entry = entry.map_err(|error| cannot(error.into()))?;
        let file = path.join(OsStr::from_bytes(entry.file_name().to_bytes()));
        if file.extension().is_some_and(|found| found == suffix) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
