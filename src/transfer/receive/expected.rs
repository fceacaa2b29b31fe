//! What a pull may bring: names that were asked for and that no rule of ours leaves out. A sender is not trusted with
//! either. Counterpart: the checks that rsync's `--trust-sender` leaves out.

use crate::disk::shown;
use crate::transfer::{Refusal, TransferError};
use protocol::args::Options;
use protocol::filter::{Action, ParentDir, Pattern, Rule, RuleSet, RuleSide, Scope};
use protocol::flist::{DirClass, FileEntry, FileList};
use std::collections::HashSet;

/// The names a sender may list. The default takes any.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    asked: Option<RequestedNames>,
    hidden: Option<(RuleSet, Scope)>,
}

/// What a pull names.
#[derive(Debug, Clone, Copy)]
pub enum Operands<'a> {
    /// Arguments, in which the far end's shell, or the far end itself, expands wildcards.
    Arguments(&'a [Vec<u8>]),
    /// The same for a daemon: each begins with its module.
    InModules(&'a [Vec<u8>]),
    /// Names in a list of ours.
    Listed(&'a [Vec<u8>]),
    /// Names in a list over there.
    Unknown,
}

impl Expected {
    /// What the operands, rules and options of a pull let in.
    pub fn new(operands: Operands<'_>, rules: &[Rule], options: &Options) -> Self {
        if options.trust_sender {
            return Self::default();
        }
        Self { asked: RequestedNames::new(operands, options), hidden: hidden(rules) }
    }

    /// Refuses what is not expected. Folders that are only on the way to what was asked for are marked as such, whatever
    /// the sender says of them: what else they hold here is not its business.
    pub(super) fn admit(&self, list: &mut FileList) -> Result<(), TransferError> {
        if self.asked.is_none() && self.hidden.is_none() {
            return Ok(());
        }
        for (_, entry) in list.iter() {
            let name = entry.name.strip_prefix(b"/").unwrap_or(&entry.name);
            let refused = |why: &str| {
                let text = format!("ERROR: rejecting {why} file-list name: {}", shown(&entry.name));
                Err(TransferError::Refused(Refusal::unsigned(text)))
            };
            if let Some((rules, top)) = &self.hidden
                && name != b"."
                && rules.excludes(top, name, entry.is_dir(), ParentDir::Kept)
            {
                return refused("excluded");
            }
            if self.asked.as_ref().is_some_and(|asked| asked.place(entry) == RequestedPlace::Nowhere) {
                return refused("unrequested");
            }
        }
        if let Some(asked) = &self.asked {
            list.each(|entry| {
                if entry.is_dir() && asked.place(entry) == RequestedPlace::OnTheWay {
                    entry.extra.dir_class = DirClass::Implied;
                }
            });
        }
        Ok(())
    }
}

/// Where a name stands to those that were asked for.
#[derive(Debug, PartialEq, Eq)]
enum RequestedPlace {
    /// Among them or beneath them.
    Within,
    /// A folder above one of them.
    OnTheWay,
    Nowhere,
}

/// How far beneath what was asked for names may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SearchDepth {
    Itself,
    Children,
    All,
}

#[derive(Debug, Clone)]
struct RequestedNames {
    names: HashSet<Vec<u8>>,
    parents: HashSet<Vec<u8>>,
    wild: Vec<Pattern>,
    wild_parents: Vec<Pattern>,
    reach: SearchDepth,
}

impl RequestedNames {
    /// `None` where the names cannot be known, or may be any.
    fn new(operands: Operands<'_>, options: &Options) -> Option<Self> {
        let reach = match (options.recurse, options.dirs) {
            (true, _) => SearchDepth::All,
            (false, true) => SearchDepth::Children,
            (false, false) => SearchDepth::Itself,
        };
        let empty = HashSet::new;
        let mut asked = Self { names: empty(), parents: empty(), wild: vec![], wild_parents: vec![], reach };
        let in_module = |path: &[u8]| {
            let slash = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
            path.get(slash + 1..).unwrap_or_default().to_vec()
        };
        match operands {
            Operands::Unknown => return None,
            // Their words may mean anything to the shell over there.
            Operands::Arguments(_) | Operands::Listed(_) if options.old_args => return None,
            Operands::Arguments(paths) if options.secluded_args => {
                paths.iter().for_each(|path| asked.argument(path, options.relative));
            }
            Operands::Arguments(paths) => {
                paths.iter().for_each(|path| asked.argument(&for_shell(path), options.relative))
            }
            Operands::InModules(paths) => {
                paths.iter().for_each(|path| asked.argument(&in_module(path), options.relative))
            }
            Operands::Listed(names) => names.iter().for_each(|name| asked.name(name, options.relative)),
        }
        let any = reach == SearchDepth::All && asked.names.contains(&b"."[..]);
        (!any).then_some(asked)
    }

    fn argument(&mut self, path: &[u8], relative: bool) {
        if !path.iter().any(|byte| b"*?[".contains(byte)) {
            return self.name(path, relative);
        }
        let (name, parents) = match sent_as(path, relative) {
            (name, _) if name == b"." => return self.name(path, relative),
            sent => sent,
        };
        self.parents.extend(parents.first().filter(|first| first[..] == b"."[..]).cloned());
        self.wild.push(Pattern::new(&[b"/", &name[..]].concat()));
        match self.reach {
            SearchDepth::Itself => {}
            SearchDepth::Children => self.wild.push(Pattern::new(&[b"/", &name[..], b"/*"].concat())),
            SearchDepth::All => self.wild.push(Pattern::new(&[b"/", &name[..], b"/**"].concat())),
        }
        self.wild_parents.extend(parents.iter().map(|parent| Pattern::new(&[b"/", &parent[..], b"/"].concat())));
    }

    fn name(&mut self, path: &[u8], relative: bool) {
        let (name, parents) = sent_as(path, relative);
        self.names.insert(name);
        self.parents.extend(parents);
    }

    fn place(&self, entry: &FileEntry) -> RequestedPlace {
        let name = entry.name.strip_prefix(b"/").unwrap_or(&entry.name);
        let name = if name.is_empty() { b"." } else { name };
        let mut above = above(name);
        let within = self.names.contains(name)
            || match self.reach {
                // A list of names brings what is in the folder it is of, `--no-dirs` or not.
                SearchDepth::Itself => above.next() == Some(b".") && self.names.contains(&b"."[..]),
                SearchDepth::Children => above.next().is_some_and(|parent| self.names.contains(parent)),
                SearchDepth::All => above.any(|parent| self.names.contains(parent)),
            }
            || self.wild.iter().any(|pattern| pattern.matches(name, entry.is_dir()));
        let on_the_way = || {
            entry.is_dir()
                && (self.parents.contains(name) || self.wild_parents.iter().any(|pattern| pattern.matches(name, true)))
        };
        match within {
            true => RequestedPlace::Within,
            false if on_the_way() => RequestedPlace::OnTheWay,
            false => RequestedPlace::Nowhere,
        }
    }
}

/// The folders above a name, the nearest first; the last one is `.`.
fn above(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let here = (name != b".").then_some(&b"."[..]);
    let slashes = (0..name.len()).rev().filter(|&at| name[at] == b'/');
    slashes.map(|end| &name[..end]).chain(here)
}

/// The name an argument has in the list, and the folders that come along with `--relative`.
fn sent_as(path: &[u8], relative: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    if !relative {
        let last = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        return (if last.is_empty() { b".".to_vec() } else { last.to_vec() }, Vec::new());
    }
    let inner = path.windows(3).position(|window| window == b"/./");
    let active = inner.map_or(path, |at| &path[at + 3..]);
    let words: Vec<_> = active.split(|&byte| byte == b'/').filter(|word| !matches!(*word, b"" | b".")).collect();
    let mut parents: Vec<_> = (1..words.len()).map(|count| words[..count].join(&b'/')).collect();
    if inner.is_none() && path.starts_with(b"./") {
        parents.insert(0, b".".to_vec());
    }
    (if words.is_empty() { b".".to_vec() } else { words.join(&b'/') }, parents)
}

/// A path as a pattern. Backslashes that make no wildcard literal stand for themselves: they are quoted on their way.
fn for_shell(path: &[u8]) -> Vec<u8> {
    if !path.iter().any(|byte| b"*?[".contains(byte)) {
        return path.to_vec();
    }
    let mut pattern = Vec::with_capacity(path.len());
    let mut bytes = path.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' && !bytes.peek().is_some_and(|next| b"*?[]".contains(next)) {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern
}

/// The rules that the sender should have followed, where they can be judged without its folders.
fn hidden(rules: &[Rule]) -> Option<(RuleSet, Scope)> {
    let elsewhere = |rule: &Rule| match rule {
        Rule::DirMerge(_) => true,
        // What it lets through lies at a path that only the sender knows.
        Rule::Match(rule) => rule.modifiers.absolute && rule.action == Action::Include,
        Rule::Cvs(_) => false,
    };
    if rules.iter().any(elsewhere) {
        return None;
    }
    // What it leaves out there may come here, too: nobody here can say.
    let is_judged = |rule: &&Rule| match rule {
        Rule::Match(rule) => !rule.modifiers.absolute || !(rule.pattern.is_anchored() || rule.negated),
        _ => true,
    };
    let rules: Vec<Rule> = rules.iter().filter(is_judged).cloned().collect();
    let rules = RuleSet::new(RuleSide::Sender, &rules);
    let top = rules.top(b"/");
    (!rules.is_empty()).then_some((rules, top))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(letters: &str) -> Options {
        Options {
            recurse: letters.contains('r'),
            dirs: letters.contains('d'),
            relative: letters.contains('R'),
            secluded_args: letters.contains('s'),
            ..Options::default()
        }
    }

    /// What stock rsync 3.5.0 takes of a sender that lists whatever it likes; a slash at the end makes a folder.
    #[test]
    fn only_what_was_asked_for_comes_in() {
        let all = "src src/ src/x src/x/ src/x/y a a/ a/b a/b/ a/b/x a/b/c b b/ b/x b/c b/c/d x x/y ab abc a/x a/x/y \
                   tmp/ tmp/x tmp/y bc a* a/q/b";
        for (letters, operand, wanted) in [
            ("r", "src", "src src/ src/x src/x/ src/x/y"),
            ("r", "src/", all),
            ("r", "a/b", "b b/ b/x b/c b/c/d"),
            ("r", "s*", "src src/ src/x src/x/ src/x/y"),
            ("r", "a/*", all),
            ("r", "a*/b", "b b/ b/x b/c b/c/d"),
            ("r", "", all),
            ("r", "a/.", all),
            ("r", "/tmp/x", "x x/y"),
            ("r", "a//b", "b b/ b/x b/c b/c/d"),
            ("r", "[ab]c", "bc"),
            ("r", r"a\*", "a*"),
            ("r", "**", all),
            ("rR", "src/", "src src/ src/x src/x/ src/x/y"),
            ("rR", "a/b", "a/ a/b a/b/ a/b/x a/b/c"),
            ("rR", "a/*", "a/ a/b a/b/ a/b/x a/b/c a/x a/x/y a/q/b"),
            ("rR", "a*/b", "a/ a/b a/b/ a/b/x a/b/c"),
            ("rR", ".", all),
            ("rR", "a/.", "a a/ a/b a/b/ a/b/x a/b/c a/x a/x/y a/q/b"),
            ("rR", "/tmp/x", "tmp/ tmp/x"),
            ("rR", "a/./b/c", "b/ b/c b/c/d"),
            ("dR", "src", "src src/ src/x src/x/"),
            ("dR", "a*/b", "a/ a/b a/b/ a/b/x a/b/c"),
            ("dR", ".", "src src/ a a/ b b/ x ab abc tmp/ bc a*"),
            ("dR", "a/.", "a a/ a/b a/b/ a/x"),
        ] {
            let paths = [operand.as_bytes().to_vec()];
            let asked = RequestedNames::new(Operands::Arguments(&paths), &options(letters));
            let comes = |name: &&str| {
                let (name, mode) = name.strip_suffix('/').map_or((*name, 0o100_644), |name| (name, 0o40755));
                let entry = FileEntry::new(name, mode);
                asked.as_ref().is_none_or(|asked| asked.place(&entry) != RequestedPlace::Nowhere)
            };
            let taken: Vec<_> = all.split_whitespace().filter(comes).collect();
            assert_eq!(taken.join(" "), wanted, "-{letters} {operand}");
        }
    }

    #[test]
    fn names_of_a_list_hold_no_wildcards_and_a_module_is_no_folder() {
        let place = |operands: Operands<'_>, letters: &str, name: &str| {
            RequestedNames::new(operands, &options(letters)).map(|asked| asked.place(&FileEntry::new(name, 0o40755)))
        };
        let names = ["e*/f".into(), "/q/./r".into(), "./x/y".into()];
        for (name, wanted) in [
            ("e*", RequestedPlace::OnTheWay),
            ("e*/f", RequestedPlace::Within),
            ("ee/f", RequestedPlace::Nowhere),
            ("q", RequestedPlace::Nowhere),
            ("r", RequestedPlace::Within),
            (".", RequestedPlace::OnTheWay),
            ("/x", RequestedPlace::OnTheWay),
            ("x/z", RequestedPlace::Nowhere),
        ] {
            assert_eq!(place(Operands::Listed(&names), "rR", name), Some(wanted), "{name}");
        }
        assert_eq!(place(Operands::InModules(&["m/a".into()]), "rR", "a/b"), Some(RequestedPlace::Within));
        assert_eq!(place(Operands::InModules(&["m/a".into()]), "rR", "m"), Some(RequestedPlace::Nowhere));
        assert_eq!(place(Operands::InModules(&["m".into()]), "r", "z"), None);
        assert_eq!(place(Operands::Unknown, "r", "z"), None);
        assert_eq!(place(Operands::Arguments(&[r"a\b*".into()]), "r", r"a\bx"), Some(RequestedPlace::Within));
        assert_eq!(place(Operands::Arguments(&[r"a\b*".into()]), "rs", "abx"), Some(RequestedPlace::Within));
    }
}
