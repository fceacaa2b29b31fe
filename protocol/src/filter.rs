//! Filter rules: which names are sent, and which are safe from deletion. Counterpart: rsync's `exclude.c`.
//!
//! Reads no files: where a rule names one, the caller gives its bytes.

use crate::PeerError;
use crate::wire::{Decoded, Reader};

mod parse;
mod pattern;
mod set;
#[cfg(test)]
mod tests;

pub use parse::{FilterError, Given, Mode, parse_file, parse_rule};
pub use pattern::Pattern;
pub use set::{AttributeRules, ParentDir, ReadFile, RuleSet, RuleVerdict, Scope, ScopeError};

/// A rule on the wire, and so anywhere, must be shorter than this.
pub(crate) const RULE_MOST: usize = 5120;

/// What a rule says of the names it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// They are sent; they may be deleted.
    Include,
    /// They are not sent; they are not deleted.
    Exclude,
}

/// One end of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleSide {
    /// The sending side: rules hide names.
    Sender,
    /// The receiving side: rules protect names from deletion.
    Receiver,
}

/// What rules have in common, and the rules of a merge file take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modifiers {
    /// `/`: matched against the absolute path.
    pub absolute: bool,
    /// `s`: for the sending side.
    pub sender: bool,
    /// `r`: for the receiving side.
    pub receiver: bool,
    /// `p`: of no account in a directory that is being deleted.
    pub perishable: bool,
    /// `x`: for names of extended attributes.
    pub xattr: bool,
    /// Another option brought the rule, not the user.
    pub implied: bool,
}

impl Modifiers {
    /// Whether a rule with these holds on a side; without a word on sides it holds on both.
    pub(crate) fn hold_on(&self, side: RuleSide) -> bool {
        let asked = if side == RuleSide::Sender { self.sender } else { self.receiver };
        asked || !(self.sender || self.receiver)
    }
}

/// One rule of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Includes or excludes what a pattern matches.
    Match(Match),
    /// Reads further rules in each directory.
    DirMerge(MergeFile),
    /// The rules of `-C`, in short: to be replaced by [`cvs_rules`].
    Cvs(Match),
}

/// Where a rule was read; what is told of it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Among the words of a command line or of a peer.
    #[default]
    Words,
    /// In a file, whose text is not for everybody's eyes.
    File,
    /// In the fixed list of `-C`, or in the variable that adds to it.
    Cvs,
    /// In the file that adds to it.
    CvsFile,
}

/// A rule that includes or excludes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// What it says.
    pub action: Action,
    /// Of which names.
    pub pattern: Pattern,
    /// `!`: of all other names.
    pub negated: bool,
    /// The other modifiers.
    pub modifiers: Modifiers,
    /// Where it was read.
    pub origin: Origin,
}

/// A file of rules that another rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeFile {
    /// Its name, as given.
    pub name: Vec<u8>,
    /// How its lines are read.
    pub mode: Mode,
    /// `n`: its rules do not hold in subdirectories.
    pub no_inherit: bool,
}

impl MergeFile {
    /// The path from which on the name is looked for, where it was given with one: in the folder that this leads to from
    /// the root of the transfer, and in each below.
    pub fn path_from(&self, root: &[u8]) -> Option<Vec<u8>> {
        if !self.name.contains(&b'/') {
            return None;
        }
        let all = if self.name.starts_with(b"/") { self.name.clone() } else { [root, &self.name].join(&b'/') };
        let mut words: Vec<&[u8]> = Vec::new();
        for word in all.split(|&byte| byte == b'/') {
            match word {
                b"" | b"." => {}
                b".." => drop(words.pop()),
                word => words.push(word),
            }
        }
        Some([b"/", &words.join(&b'/')[..]].concat())
    }

    /// The name it has in each directory.
    pub fn leaf(&self) -> &[u8] {
        let slash = self.name.iter().rposition(|&byte| byte == b'/');
        slash.map_or(&self.name[..], |slash| &self.name[slash + 1..])
    }
}

impl Rule {
    /// Whether the rule holds on a side.
    pub(crate) fn holds_on(&self, side: RuleSide) -> bool {
        match self {
            Self::Match(rule) | Self::Cvs(rule) => rule.modifiers.hold_on(side),
            // What its file says may concern either side, unless it is of bare patterns.
            Self::DirMerge(file) if file.mode.delete_excluded && file.mode.bare.is_some() => {
                file.mode.excluded_modifiers().hold_on(side)
            }
            Self::DirMerge(file) => file.mode.modifiers.hold_on(side),
        }
    }

    /// Bytes of memory that it takes in a list, about.
    pub fn memory(&self) -> usize {
        let text = match self {
            Self::Match(rule) | Self::Cvs(rule) => rule.pattern.text().len(),
            Self::DirMerge(file) => file.name.len(),
        };
        // A list that grows has room to spare, and each text its own place.
        2 * size_of::<Self>() + 3 * size_of::<usize>() + text
    }

    /// The rule as the wire had it before protocol 30, when nothing was perishable, and before 29, when there were but
    /// patterns to include and to exclude. A server that sends loses nothing where a rule is not perishable: it deletes
    /// nothing.
    fn text_before_30(&self, server: RuleSide, version: u8) -> Result<Vec<u8>, PeerError> {
        let lasting =
            |modifiers: Modifiers| match modifiers.perishable && server == RuleSide::Receiver && !modifiers.implied {
                true => Err(PeerError::RulesTooModern),
                false => Ok(Modifiers { perishable: false, ..modifiers }),
            };
        Ok(match self {
            Self::Match(rule) if version < 29 => {
                let Modifiers { absolute, xattr, .. } = lasting(rule.modifiers)?;
                if absolute || xattr || rule.negated {
                    return Err(PeerError::RulesTooModern);
                }
                let pattern = rule.pattern.text();
                // What begins like a prefix needs one.
                let prefix: &[u8] = match rule.action {
                    Action::Include => b"+ ",
                    Action::Exclude if pattern.starts_with(b"+ ") || pattern.starts_with(b"- ") => b"- ",
                    Action::Exclude => b"",
                };
                [prefix, pattern].concat()
            }
            _ if version < 29 => return Err(PeerError::RulesTooModern),
            Self::Match(rule) => Self::Match(Match { modifiers: lasting(rule.modifiers)?, ..rule.clone() }).text(),
            Self::Cvs(rule) => Self::Cvs(Match { modifiers: lasting(rule.modifiers)?, ..rule.clone() }).text(),
            Self::DirMerge(file) => {
                let mode = Mode { modifiers: lasting(file.mode.modifiers)?, ..file.mode };
                Self::DirMerge(MergeFile { mode, ..file.clone() }).text()
            }
        })
    }

    /// The rule as the wire and `--filter` write it.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut put = |letter: u8, wanted: bool| {
            if wanted {
                text.push(letter);
            }
        };
        let sides = |put: &mut dyn FnMut(u8, bool), modifiers: &Modifiers| {
            put(b'x', modifiers.xattr);
            put(b's', modifiers.sender);
            put(b'r', modifiers.receiver);
            put(b'p', modifiers.perishable);
        };
        let name = match self {
            Self::Match(rule) | Self::Cvs(rule) => {
                put(if rule.action == Action::Include { b'+' } else { b'-' }, true);
                put(b'/', rule.modifiers.absolute);
                put(b'!', rule.negated);
                put(b'C', matches!(self, Self::Cvs(_)));
                sides(&mut put, &rule.modifiers);
                rule.pattern.text()
            }
            Self::DirMerge(file) => {
                put(b':', true);
                put(b'/', file.mode.modifiers.absolute);
                if file.mode.cvs {
                    put(b'C', true);
                } else {
                    put(b'n', file.no_inherit);
                    put(b'w', file.mode.word_split);
                    put(b'+', file.mode.bare == Some(Action::Include));
                    put(b'-', file.mode.bare == Some(Action::Exclude));
                }
                sides(&mut put, &file.mode.modifiers);
                &file.name
            }
        };
        text.push(b' ');
        text.extend_from_slice(name);
        text
    }
}

/// The filter list as a client writes it to a server of this version: the rules that hold on the server's side, and the
/// end. Refused where a rule means something that the version cannot say.
pub fn encode(rules: &[Rule], server: RuleSide, version: u8) -> Result<Vec<u8>, PeerError> {
    let mut bytes = Vec::new();
    for rule in rules.iter().filter(|rule| rule.holds_on(server)) {
        let texts = match rule {
            rule if version >= 30 => vec![rule.text()],
            // What `-C` adds of these cannot be said, and stock leaves it out.
            Rule::DirMerge(file) if version < 29 && file.mode.modifiers.implied => vec![],
            Rule::Cvs(like) if version < 29 => {
                let words = cvs_rules(like, &[]);
                words.iter().map(|rule| rule.text_before_30(server, version)).collect::<Result<_, _>>()?
            }
            rule => vec![rule.text_before_30(server, version)?],
        };
        for text in texts {
            if text.len() < RULE_MOST {
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(&text);
            }
        }
    }
    bytes.extend_from_slice(&0u32.to_le_bytes());
    Ok(bytes)
}

/// Reads one rule of the list on the wire; `None` at its end.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Option<Vec<u8>>> {
    let len = reader.uint()? as usize;
    if len >= RULE_MOST {
        return Err(PeerError::Malformed("a filter rule of 5120 bytes or more").into());
    }
    let rule = reader.take(len)?;
    Ok((len > 0).then(|| rule.to_vec()))
}

/// What `-C` leaves out.
const CVS_DEFAULTS: &str = "RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* _$* *$ \
                            *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core \
                            .svn/ .git/ .hg/ .bzr/";

/// The rules of `-C` themselves: the fixed list, then the user's `~/.cvsignore` and `CVSIGNORE`.
pub fn cvs_rules(like: &Match, user: &[(Origin, Vec<u8>)]) -> Vec<Rule> {
    let mut modifiers = like.modifiers;
    (modifiers.perishable, modifiers.implied) = (true, true);
    let rule = |text: &[u8], modifiers, origin| {
        let pattern = Pattern::new(text);
        Rule::Match(Match { action: like.action, pattern, negated: false, modifiers, origin })
    };
    let mut rules: Vec<_> = CVS_DEFAULTS.split(' ').map(|word| rule(word.as_bytes(), modifiers, Origin::Cvs)).collect();
    for (origin, words) in user {
        for word in words.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            match word {
                b"!" => rules.clear(),
                word => rules.push(rule(word, like.modifiers, *origin)),
            }
        }
    }
    rules
}
