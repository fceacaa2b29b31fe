//! What a daemon's module keeps from its clients. Counterpart: rsync's `daemon_filter_list`.
//!
//! The rules are the operator's: no client hears them, and they hold beside its own whichever way the files go.

use protocol::filter::{Match, ParentDir, Pattern, Rule, RuleSet, RuleSide, Scope};

/// The rules of a module, for names as they lie within it.
#[derive(Debug, Clone)]
pub struct Guard {
    rules: RuleSet,
    top: Scope,
    /// The folder of the module in which names lie.
    folder: Vec<u8>,
    /// What cannot be read is not there at all (`ignore nonreadable`).
    pub(crate) readable_only: bool,
}

impl Guard {
    /// Nothing, where there is nothing to keep: no rule, and what cannot be read may be seen (not `readable_only`).
    pub(crate) fn new(rules: &[Rule], readable_only: bool) -> Option<Self> {
        let rules = RuleSet::of(RuleSide::Sender, rules.iter().map(with_contents).collect());
        let top = rules.top(b"/");
        (!rules.is_empty() || readable_only).then_some(Self { rules, top, folder: Vec::new(), readable_only })
    }

    /// The same for names that are counted from a folder of the module.
    pub(crate) fn within(self, folder: &[u8]) -> Self {
        Self { folder: self.path(folder), ..self }
    }

    fn path(&self, name: &[u8]) -> Vec<u8> {
        let words = self.folder.split(|&byte| byte == b'/').chain(name.split(|&byte| byte == b'/'));
        words.filter(|word| !matches!(*word, b"" | b".")).collect::<Vec<_>>().join(&b'/')
    }

    /// Whether the name itself, counted from the module's root, is kept from clients.
    pub(crate) fn hides(&self, name: &[u8], is_dir: bool) -> bool {
        let name = self.path(name);
        !name.is_empty() && self.rules.excludes(&self.top, &name, is_dir, ParentDir::Kept)
    }

    /// The same, or any folder on the way to it.
    pub(crate) fn bars(&self, path: &[u8], is_dir: bool) -> bool {
        let mut slashes = (0..path.len()).filter(|&at| path[at] == b'/');
        slashes.any(|end| self.hides(&path[..end], true)) || self.hides(path, is_dir)
    }
}

/// A rule for directories (`/secret/`) holds for all that is in them, whatever path a client names.
fn with_contents(rule: &Rule) -> Rule {
    match rule {
        Rule::Match(found) if found.pattern.text().len() > 1 && found.pattern.text().ends_with(b"/") => {
            let pattern = Pattern::new(&[found.pattern.text(), b"***"].concat());
            Rule::Match(Match { pattern, ..found.clone() })
        }
        rule => rule.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::filters::Rules;
    use protocol::args::Options;
    use protocol::filter::Action;

    #[test]
    fn a_folder_bars_what_is_in_it() {
        let mut rules = Rules::new(&Options::default());
        rules.words(None, b"- /secret + /sub/keep.o").unwrap();
        rules.words(Some(Action::Exclude), b"*.o + x.tmp *.tmp only-dir/").unwrap();
        let rules = rules.finish(&Options::default()).unwrap();
        let guard = Guard::new(&rules, false).unwrap();
        assert!(guard.hides(b"secret", true) && guard.hides(b"./secret/", true) && !guard.hides(b"secret/s", false));
        assert!(guard.bars(b"secret/s", false) && guard.bars(b"secret/deep/", true) && !guard.bars(b"a/secret", false));
        assert!(guard.hides(b"a/b.o", false) && !guard.hides(b"sub/keep.o", false));
        assert!(guard.hides(b"y.tmp", false) && !guard.hides(b"x.tmp", false));
        assert!(guard.hides(b"only-dir", true) && !guard.hides(b"only-dir", false));
        assert!(
            guard.hides(b"only-dir/x", false) && guard.hides(b"a/only-dir/b/c", true) && !guard.hides(b"a/only", true)
        );
        assert!(!guard.bars(b".", true) && !guard.bars(b"", true));
        let within = guard.clone().within(b"sub/");
        assert!(!within.hides(b"keep.o", false) && within.hides(b"drop.o", false) && !within.hides(b"secret", true));
        assert!(Guard::new(&[], false).is_none() && Guard::new(&[], true).is_some());
    }
}
