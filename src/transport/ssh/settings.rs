//! Reads the files of ssh_config(5) as `ssh` does: of each setting the first value that applies to the host counts.
//!
//! No parser of others will do: those there are know no `Match`, or only outside of included files, and judge settings that
//! are of no interest here.

use super::tokens::{LocalNames, PercentTokens};
use crate::disk::wild;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files within files; `ssh` draws the same line.
const DEPTH_MOST: usize = 16;

/// The settings that are obeyed, or are refused by name.
const USED: [&str; 25] = [
    "hostname",
    "port",
    "user",
    "identityfile",
    "identitiesonly",
    "identityagent",
    "userknownhostsfile",
    "globalknownhostsfile",
    "hostkeyalias",
    "revokedhostkeys",
    "stricthostkeychecking",
    "hostkeyalgorithms",
    "kexalgorithms",
    "ciphers",
    "macs",
    "tag",
    "proxyjump",
    "proxycommand",
    "pubkeyauthentication",
    "bindaddress",
    "bindinterface",
    "certificatefile",
    "knownhostscommand",
    "pubkeyacceptedalgorithms",
    "requiredrsasize",
];

/// The settings whose values are a command line, which is left as it stands.
const RAW: [&str; 4] = ["proxycommand", "localcommand", "remotecommand", "knownhostscommand"];

/// The settings of which each value counts, not just the first.
const GATHERED: [&str; 2] = ["identityfile", "certificatefile"];

/// The settings that may have several words.
const LISTS: [&str; 2] = ["userknownhostsfile", "globalknownhostsfile"];

/// The value of a setting and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) words: Vec<String>,
    pub(super) place: String,
}

/// What the files say of one host.
#[derive(Debug, Default)]
pub(super) struct SshSettings {
    /// By keyword in small letters.
    values: HashMap<String, Value>,
}

impl SshSettings {
    /// All of a setting.
    pub(super) fn value(&self, keyword: &str) -> Option<&Value> {
        self.values.get(keyword)
    }

    /// The words of a setting.
    pub(super) fn words(&self, keyword: &str) -> Option<&[String]> {
        self.value(keyword).map(|value| &value.words[..])
    }

    /// The one word of a setting.
    pub(super) fn word(&self, keyword: &str) -> Option<&str> {
        self.words(keyword).and_then(|words| words.first()).map(String::as_str)
    }

    /// Whether a setting says yes.
    pub(super) fn is_yes(&self, keyword: &str) -> bool {
        self.word(keyword).is_some_and(|word| word.eq_ignore_ascii_case("yes") || word.eq_ignore_ascii_case("true"))
    }

    fn add(&mut self, keyword: String, words: Vec<String>, place: String) {
        // Of these two the one that comes first shuts out the other, be it only to say `none`.
        let rival = match keyword.as_str() {
            "proxyjump" => "proxycommand",
            "proxycommand" => "proxyjump",
            _ => "",
        };
        if self.values.contains_key(rival) {
            return;
        }
        let gathered = GATHERED.contains(&keyword.as_str());
        match self.values.get_mut(&keyword) {
            None => drop(self.values.insert(keyword, Value { words, place })),
            Some(value) if gathered => {
                let new: Vec<_> = words.into_iter().filter(|word| !value.words.contains(word)).collect();
                value.words.extend(new);
            }
            Some(_) => {}
        }
    }
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettingsOwner {
    /// The user's, which nobody else may change.
    User,
    /// The user's, named on a command line.
    Named,
    /// The machine's.
    Machine,
}

/// Where in the nest of files a line stands.
#[derive(Clone, Copy)]
struct Nesting {
    owner: SettingsOwner,
    /// The file itself applies to the host.
    applies: bool,
    /// How many files have included one another.
    depth: usize,
}

/// Reads files for one host.
pub(super) struct SettingsReader<'a> {
    /// The host as typed.
    pub(super) host: &'a str,
    /// The user as typed.
    pub(super) user: Option<&'a str>,
    /// The port as typed.
    pub(super) port: Option<u16>,
    pub(super) local: &'a LocalNames,
    pub(super) settings: SshSettings,
    /// Read once more, since some section asks for that.
    pub(super) last_pass: bool,
    /// Whether one does.
    pub(super) asks_for_last_pass: bool,
}

impl SettingsReader<'_> {
    /// Reads one file; one that is not there is fine where nobody named it. The error names file and line.
    pub(super) fn file(&mut self, path: &Path, owner: SettingsOwner) -> Result<(), String> {
        self.nested(path, Nesting { owner, applies: true, depth: 0 })
    }

    fn nested(&mut self, path: &Path, at: Nesting) -> Result<(), String> {
        let Nesting { owner, depth, applies } = at;
        let wrong = |why: &dyn Display| format!("{}: {why}", path.display());
        let text = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == ErrorKind::NotFound && (owner != SettingsOwner::Named || depth > 0) => return Ok(()),
            Err(_) if depth > 0 && owner == SettingsOwner::Machine => return Ok(()),
            Err(e) => return Err(wrong(&e)),
        };
        if owner == SettingsOwner::User {
            let meta = fs::metadata(path).map_err(|e| wrong(&e))?;
            let ours = [0, rustix::process::getuid().as_raw()].contains(&meta.uid());
            if !ours || meta.mode() & 0o022 != 0 {
                let whose = if ours { "others may write to it" } else { "it belongs to somebody else" };
                return Err(wrong(&format!(
                    "bad owner or permissions: {whose}, and ssh would not use it either; chmod go-w it"
                )));
            }
        }
        let mut here = applies;
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            self.line(line, &place, at, &mut here).map_err(|why| format!("{place}: {why}"))?;
        }
        Ok(())
    }

    /// `here`: what stands at this line applies to the host.
    fn line(&mut self, line: &str, place: &str, at: Nesting, here: &mut bool) -> Result<(), String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let end = line.find(|c: char| c.is_ascii_whitespace() || c == '=').unwrap_or(line.len());
        let (keyword, rest) = (line[..end].trim_matches('"').to_ascii_lowercase(), line[end..].trim_start());
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
        match keyword.as_str() {
            "host" => *here = at.applies && self.is_host(&words(rest)?),
            "match" => {
                let words = words(rest)?;
                *here = self.is_match(&words, at.applies)?;
            }
            "include" => {
                for word in words(rest)? {
                    self.include(&word, Nesting { applies: *here, ..at })?;
                }
            }
            _ if !*here => {}
            raw if RAW.contains(&raw) => self.settings.add(keyword, vec![rest.to_owned()], place.to_owned()),
            // Nothing is asked of settings that are not used, and theirs may be no words.
            used if USED.contains(&used) => {
                let words = words(rest)?;
                if words.is_empty() || words[0].is_empty() {
                    return Err(format!("{} has no value", &line[..end]));
                }
                if words.len() > 1 && !LISTS.contains(&used) {
                    return Err(format!("{} has more than one value; quote one with blanks", &line[..end]));
                }
                self.settings.add(keyword, words, place.to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn include(&mut self, word: &str, at: Nesting) -> Result<(), String> {
        if at.depth >= DEPTH_MOST {
            return Err(format!("more than {DEPTH_MOST} files include one another"));
        }
        let word = self.tokens().expand_home(word);
        let path = match at.owner {
            _ if word.starts_with('/') => PathBuf::from(word),
            SettingsOwner::Machine => Path::new("/etc/ssh").join(word),
            SettingsOwner::User | SettingsOwner::Named => self.local.below_home(".ssh").unwrap_or_default().join(word),
        };
        for path in glob(&path) {
            self.nested(&path, Nesting { depth: at.depth + 1, ..at })?;
        }
        Ok(())
    }

    fn is_host(&self, patterns: &[String]) -> bool {
        let said_no = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(|no| is_like(no, self.host));
        !said_no && patterns.iter().any(|pattern| is_like(pattern, self.host))
    }

    /// Whether a `Match` line applies. What cannot be judged here is an error, unless it does not matter.
    fn is_match(&mut self, words: &[String], outer: bool) -> Result<bool, String> {
        let mut all = outer;
        let mut words = words.iter();
        let mut any = false;
        while let Some(word) = words.next() {
            any = true;
            let (word, negated) = word.strip_prefix('!').map_or((word.as_str(), false), |word| (word, true));
            let (attribute, value) = word.split_once('=').map_or((word, None), |(word, value)| (word, Some(value)));
            let attribute = attribute.to_ascii_lowercase();
            let met = match attribute.as_str() {
                "all" => true,
                "canonical" => self.last_pass,
                "final" => {
                    self.asks_for_last_pass |= outer;
                    self.last_pass
                }
                _ => {
                    let value = value.map(str::to_owned).or_else(|| words.next().cloned());
                    let value = value.ok_or_else(|| format!("Match {attribute} has no value"))?;
                    all && self.meets(&attribute, &value)?
                }
            };
            all &= met != negated;
        }
        if any { Ok(all) } else { Err("Match has no condition".to_owned()) }
    }

    fn meets(&self, attribute: &str, value: &str) -> Result<bool, String> {
        let tokens = self.tokens();
        let user = || self.local.user.clone().unwrap_or_default();
        Ok(match attribute {
            "host" => in_list(value, &tokens.hostname.to_lowercase(), true),
            "originalhost" => in_list(value, &self.host.to_lowercase(), true),
            "user" => in_list(value, tokens.user, false),
            "localuser" => in_list(value, &user(), false),
            "tagged" => in_list(value, self.settings.word("tag").unwrap_or_default(), false),
            "exec" => {
                let command = tokens.expand(value)?;
                let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
                let mut command = {
                    let mut child = Command::new(shell);
                    child.arg("-c").arg(command);
                    child
                };
                let run = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
                run.map_err(|e| format!("Match exec cannot be run: {e}"))?.success()
            }
            other => {
                return Err(format!(
                    "Match {other} cannot be judged by the built-in SSH; write the section with Host, or Match exec"
                ));
            }
        })
    }

    /// What is known so far.
    fn tokens(&self) -> PercentTokens<'_> {
        PercentTokens::so_far(self.host, self.user, self.port, self.local, |name| self.settings.word(name))
    }
}

/// Whether a name is like a pattern, in which `*` and `?` alone stand for others.
pub(super) fn is_like(pattern: &str, name: &str) -> bool {
    let quiet: Vec<u8> =
        pattern.bytes().flat_map(|b| if b"[\\".contains(&b) { vec![b'\\', b] } else { vec![b] }).collect();
    wild::matches(&quiet, name.as_bytes())
}

/// Whether a name is in a list of patterns between commas.
fn in_list(list: &str, name: &str, small: bool) -> bool {
    let list = if small { list.to_lowercase() } else { list.to_owned() };
    let mut found = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(no) if is_like(no, name) => return false,
            Some(_) => {}
            None => found |= is_like(pattern, name),
        }
    }
    found
}

/// The words of a line: blanks part them, quotes hold them together, and `#` begins a comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (_, '\\') => {
                let escaped = chars.next_if(|&next| "\"'\\".contains(next) || (quote.is_none() && next == ' '));
                word.get_or_insert_default().push(escaped.unwrap_or('\\'));
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_ascii_whitespace() => found.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    found.extend(word);
    Ok(found)
}

/// The files that a pattern names, in order; a path without wildcards names itself.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str().as_bytes();
        if !wild::is_wild(name) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        found = found
            .iter()
            .flat_map(|dir| {
                let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
                let hidden = name.starts_with(b".");
                let mut names: Vec<_> = entries
                    .filter(|entry| {
                        wild::matches(name, entry.as_bytes()) && hidden == entry.as_bytes().starts_with(b".")
                    })
                    .collect();
                names.sort();
                names.into_iter().map(|name| dir.join(name)).collect::<Vec<_>>()
            })
            .collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parted_as_ssh_does() {
        for (line, expected) in [
            ("a b", vec!["a", "b"]),
            ("\"a b\" 'c d' # e", vec!["a b", "c d"]),
            (r#"a\ b "c\"d" e\f"#, vec!["a b", "c\"d", r"e\f"]),
            ("a#b \"\"", vec!["a#b", ""]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert!(words("\"a").is_err());
    }

    #[test]
    fn names_are_like_patterns() {
        assert!(is_like("s?[1]*", "sx[1]y") && !is_like("s[12]", "s1"));
        assert!(in_list("a*,!ab", "ac", true) && !in_list("a*,!ab", "ab", true) && in_list("A", "a", true));
    }
}
