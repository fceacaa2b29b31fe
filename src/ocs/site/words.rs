//! Words of a command line in groups: an option with its values. Counterpart: `ArgContainer` of ocs.
//!
//! Where Python keeps groups apart by their spelling and leaves it to `argparse` that the last one counts, we compare the
//! options themselves, so that `--x=v` and `--x v` replace each other too and every flag reaches our parser once.

use super::error::{SiteError, SitePlace, cut};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Flags of ours that may be given several times. In a site file that takes the spelling `--x=v`, of which Python too
/// keeps all; of `--x v` it keeps the last.
const REPEATED: [&str; 2] = ["--ssh-key", "--udp-allow"];

/// Options, and the variables of `ocs-agent-cli` that count where they are not given.
pub(super) const VARIABLES: [(&str, &str); 5] = [
    ("--instance-id", "INSTANCE_ID"),
    ("--site-host", "SITE_HOST"),
    ("--site-hub", "SITE_HUB"),
    ("--site-http", "SITE_HTTP"),
    ("--crossbar-timeout", "CROSSBAR_TIMEOUT"),
];

/// An option with its values, or a key of the site file with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// With its dashes; empty for what stands before any option.
    pub(super) name: String,
    /// What hangs on the name with `=`.
    pub(super) attached: Option<OsString>,
    pub(super) values: Vec<OsString>,
    /// Where a site file says so; `None` on the command line.
    pub(super) place: Option<SitePlace>,
}

impl Group {
    /// The words again.
    pub(super) fn into_words(self) -> impl Iterator<Item = OsString> {
        let name = match self.attached {
            Some(value) => {
                let mut word = self.name.into_bytes();
                word.push(b'=');
                word.extend(value.as_bytes());
                Some(OsString::from_vec(word))
            }
            None => Some(OsString::from(self.name)).filter(|name| !name.is_empty()),
        };
        name.into_iter().chain(self.values)
    }

    /// An error at this group.
    pub(super) fn wrong(&self, what: &str) -> SiteError {
        let name = &self.name;
        match &self.place {
            Some(place) if name.starts_with('-') => SiteError::content(place, format!("Option {name}: {what}")),
            Some(place) => SiteError::content(place, format!("Key {name}: {what}")),
            None => match VARIABLES.iter().find(|(option, _)| option == name) {
                Some((_, variable)) => SiteError::Usage(format!("Option {name} (or {variable}): {what}")),
                None => SiteError::Usage(format!("Option {name}: {what}")),
            },
        }
    }

    /// An error about its text.
    pub(super) fn found(&self, text: &str, expected: &str) -> SiteError {
        self.wrong(&format!("found {:?}; expected {expected}", cut(text)))
    }

    /// The one value of an option that takes one.
    pub(super) fn value(&self) -> Result<&OsStr, SiteError> {
        match (&self.attached, self.values.as_slice()) {
            (Some(value), []) => Ok(value),
            (None, [value]) => Ok(value),
            (attached, values) => {
                let count = values.len() + usize::from(attached.is_some());
                Err(self.wrong(&format!("found {count} values; expected one")))
            }
        }
    }

    /// The one value as text.
    pub(super) fn text(&self) -> Result<&str, SiteError> {
        self.value()?.to_str().ok_or_else(|| self.wrong("its value is no UTF-8"))
    }
}

/// Whether a word is an option: a dash, and a letter after all dashes. So `-5` is a value, as in Python.
pub(super) fn opens_group(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let name = bytes.iter().position(|byte| *byte != b'-').unwrap_or(bytes.len());
    name > 0 && String::from_utf8_lossy(&bytes[name..]).chars().next().is_some_and(char::is_alphabetic)
}

/// Sorts words into groups. The first group has no name and holds what stands before any option.
pub(super) fn group(words: impl IntoIterator<Item = (OsString, Option<SitePlace>)>) -> Vec<Group> {
    let mut groups = vec![Group { name: String::new(), attached: None, values: Vec::new(), place: None }];
    for (word, place) in words {
        let name = word.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        match std::str::from_utf8(name) {
            Ok(name) if opens_group(&word) => {
                let attached = word.as_bytes().get(name.len() + 1..).map(|value| OsStr::from_bytes(value).into());
                groups.push(Group { name: name.into(), attached, values: Vec::new(), place });
            }
            _ => {
                if let Some(last) = groups.last_mut() {
                    if last.name.is_empty() && last.values.is_empty() {
                        last.place = place;
                    }
                    last.values.push(word);
                }
            }
        }
    }
    groups
}

/// Of the groups of one command line, those that count: of each option the last one.
pub(super) fn last_ones(groups: Vec<Group>) -> Vec<Group> {
    let mut kept: Vec<Group> = Vec::new();
    for group in groups.into_iter().rev() {
        let repeated = REPEATED.contains(&group.name.as_str());
        let replaces = |later: &Group| later.name == group.name && (!repeated || later.attached == group.attached);
        if !kept.iter().any(replaces) {
            kept.push(group);
        }
    }
    kept.reverse();
    kept
}

/// The command line, then what the site file adds to it: options that are in both come from the command line.
pub(super) fn merge(mut typed: Vec<Group>, mut file: Vec<Group>) -> Vec<Group> {
    file.retain(|group| typed.iter().all(|other| other.name != group.name));
    typed.append(&mut file);
    typed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(line: &str) -> Vec<Group> {
        group(line.split_whitespace().map(|word| (word.into(), None)))
    }

    fn words(groups: Vec<Group>) -> String {
        let words: Vec<OsString> = groups.into_iter().flat_map(Group::into_words).collect();
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn words_become_groups_and_words_again() {
        let line = "lone --a 1 -5 --b=2=3 -v --c --5 -";
        let found = groups(line);
        let names: Vec<&str> = found.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["", "--a", "--b", "-v", "--c"]);
        assert_eq!(found[1].values, ["1", "-5"]);
        assert_eq!(found[2].attached.as_deref(), Some(OsStr::new("2=3")));
        assert_eq!(found[4].values, ["--5", "-"]);
        assert_eq!(words(found), line);
    }

    #[test]
    fn the_last_of_a_flag_counts_whatever_its_spelling() {
        assert_eq!(words(last_ones(groups("--a 1 --b 2 --a 3 4"))), "--b 2 --a 3 4");
        assert_eq!(words(last_ones(groups("--a=1 --a 2"))), "--a 2");
        assert_eq!(words(last_ones(groups("--a 1 --a=2"))), "--a=2");
        let keys = "--ssh-key=one --ssh-key=two --ssh-key a --ssh-key b";
        assert_eq!(words(last_ones(groups(keys))), "--ssh-key=one --ssh-key=two --ssh-key b");
    }

    #[test]
    fn the_command_line_wins_in_every_mix() {
        for (typed, file) in [("--a 1", "--a 2"), ("--a=1", "--a 2"), ("--a 1", "--a=2"), ("--a=1", "--a=2 --a 3")] {
            let merged = words(merge(groups(typed), groups(&format!("--x y {file} --z"))));
            assert_eq!(merged, format!("{typed} --x y --z"), "{typed} over {file}");
        }
    }
}
