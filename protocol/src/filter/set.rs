//! Rules at work: verdicts on names, with the rules that directories bring along. Counterpart: rsync's `check_filter`,
//! `push_local_filters` and `pop_local_filters`.

use super::parse::parse_file;
use super::{Action, FilterError, Given, Match, MergeFile, Origin, Rule, RuleSide, cvs_rules};
use std::cell::RefCell;
use std::sync::Arc;

/// Merge files within merge files are followed this deep.
const DEPTH_MOST: usize = 32;
/// Kinds of per-directory files at work at once, so that files which name others cannot multiply.
const FILES_MOST: usize = 64;
/// Rules that hold in one directory by files of one kind, those of the directories above included.
const RULES_MOST: usize = 100_000;

/// The rules of one side of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    side: RuleSide,
    rules: Vec<Rule>,
    attributes: Arc<AttributeRules>,
    /// The same, and the files of directories that may bring more, in their order.
    of_attributes: Vec<Rule>,
}

/// The rules of one side for names of extended attributes (`x`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttributeRules(Vec<Match>);

impl AttributeRules {
    /// Whether an attribute of this name is hidden, or protected.
    pub fn exclude(&self, name: &[u8]) -> bool {
        let rule = self.0.iter().find(|rule| rule.pattern.matches(name, false) != rule.negated);
        rule.is_some_and(|rule| rule.action == Action::Exclude)
    }
}

/// What holds in one directory: the per-directory rules there and above.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Absolute path of the transfer's root.
    root: Arc<[u8]>,
    lists: Arc<Vec<List>>,
}

/// The rules that one kind of per-directory file has brought.
#[derive(Debug, Clone)]
struct List {
    file: Arc<MergeFile>,
    rules: Arc<Vec<Placed>>,
}

/// A rule and the directory whose file it stands in.
#[derive(Debug, Clone)]
struct Placed {
    rule: Rule,
    /// Absolute path.
    base: Arc<[u8]>,
}

/// A per-directory file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// It says something that is no rule.
    #[error("{0}")]
    Rule(#[from] FilterError),
    /// It could not be read.
    #[error("{0}")]
    Read(String),
    /// Files name files without end, or there are too many rules.
    #[error("Filter files name too many others, or hold too many rules, in {0}; take some out")]
    TooMany(String),
}

/// Reads a per-directory file, by its name in the directory; `None` where there is none.
pub type ReadFile<'r> = &'r mut dyn FnMut(&[u8]) -> Result<Option<Vec<u8>>, String>;

impl RuleSet {
    /// Rules as they hold on one side. What stands for `-C` must have been replaced.
    pub fn new(side: RuleSide, rules: &[Rule]) -> Self {
        Self::of(side, rules.iter().filter(|rule| rule.holds_on(side)).cloned().collect())
    }

    /// The same out of a list that nobody needs any more.
    pub fn of(side: RuleSide, mut rules: Vec<Rule>) -> Self {
        let mut attributes = Vec::new();
        // A file that directories bring may hold some for attributes, too.
        let for_attributes = |rule: &&Rule| match rule {
            Rule::Match(rule) => rule.modifiers.xattr,
            rule => matches!(rule, Rule::DirMerge(_)),
        };
        let held = rules.iter().filter(|rule| rule.holds_on(side));
        let of_attributes = held.filter(for_attributes).cloned().collect();
        rules.retain(|rule| match rule {
            rule if !rule.holds_on(side) => false,
            Rule::Match(rule) if rule.modifiers.xattr => {
                attributes.push(rule.clone());
                false
            }
            Rule::Cvs(rule) => !rule.modifiers.xattr,
            _ => true,
        });
        Self { side, rules, attributes: Arc::new(AttributeRules(attributes)), of_attributes }
    }

    /// True when every name passes.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.attributes.0.is_empty()
    }

    /// The rules for names of extended attributes.
    pub fn attributes(&self) -> Arc<AttributeRules> {
        Arc::clone(&self.attributes)
    }

    /// The same for what lies in a directory, with the rules that directories have brought along.
    pub fn attributes_in(&self, scope: &Scope) -> Arc<AttributeRules> {
        let mut brought = scope.lists.iter().flat_map(|list| list.rules.iter());
        if !brought.any(|placed| matches!(&placed.rule, Rule::Match(rule) if rule.modifiers.xattr)) {
            return self.attributes();
        }
        let (mut rules, mut passed) = (Vec::new(), vec![false; scope.lists.len()]);
        for rule in &self.of_attributes {
            match rule {
                Rule::DirMerge(file) => scope.attributes((file, 0), &mut passed, &mut rules),
                Rule::Match(rule) => rules.push(rule.clone()),
                Rule::Cvs(_) => {}
            }
        }
        Arc::new(AttributeRules(rules))
    }

    /// True when directories may bring further rules.
    pub fn has_dir_merges(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule, Rule::DirMerge(_)))
    }

    /// The per-directory files that are also looked for in the directories above the transfer, by their full names.
    pub fn merges_from_above(&self) -> impl Iterator<Item = &MergeFile> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::DirMerge(file) if file.name.contains(&b'/') => Some(file),
            _ => None,
        })
    }

    /// What holds before the first directory is entered. `root` is the absolute path of the transfer's root.
    pub fn top(&self, root: &[u8]) -> Scope {
        let empty = Arc::new(Vec::new());
        let lists = self.rules.iter().filter_map(|rule| match rule {
            Rule::DirMerge(file) => Some(List { file: Arc::new(file.clone()), rules: Arc::clone(&empty) }),
            _ => None,
        });
        let mut root = root;
        while let [before @ .., b'/'] = root {
            root = before;
        }
        Scope { root: root.into(), lists: Arc::new(lists.collect()) }
    }

    /// What holds in a directory of the transfer, given what holds in the one above it.
    pub fn enter(&self, above: &Scope, dir: &[u8], read: ReadFile<'_>) -> Result<Scope, ScopeError> {
        if above.lists.is_empty() {
            return Ok(above.clone());
        }
        let base = above.absolute(dir);
        self.enter_at(above, &base, &|_| true, read)
    }

    /// The same for a directory above the transfer, where only files given with a path are looked for.
    pub fn enter_above(&self, above: &Scope, path: &[u8], read: ReadFile<'_>) -> Result<Scope, ScopeError> {
        let path_here = if path.ends_with(b"/") { path.to_vec() } else { [path, b"/"].concat() };
        let within =
            |file: &MergeFile| file.path_from(&above.root).is_some_and(|file| path_here.starts_with(parent(&file)));
        self.enter_at(above, path, &within, read)
    }

    fn enter_at(
        &self,
        above: &Scope,
        base: &[u8],
        looked_for: &dyn Fn(&MergeFile) -> bool,
        read: ReadFile<'_>,
    ) -> Result<Scope, ScopeError> {
        let base: Arc<[u8]> = base.into();
        let too_many = || ScopeError::TooMany(base.escape_ascii().to_string());
        let mut lists = Vec::clone(&above.lists);
        let mut at = 0;
        // Grows while files name others.
        while let Some(list) = lists.get(at) {
            let file = Arc::clone(&list.file);
            let inherited = if file.no_inherit { Arc::default() } else { Arc::clone(&list.rules) };
            let mut found = FoundRule { own: Vec::new(), cleared: false };
            if looked_for(&file)
                && let Some(bytes) = read(file.leaf()).map_err(ScopeError::Read)?
            {
                let from = [&base, file.leaf()].join(&b'/').escape_ascii().to_string();
                found.take(&bytes, &file, &from, read, 0).map_err(|error| error.unwrap_or_else(too_many))?;
            }
            let own = found.own;
            if own.len() > RULES_MOST {
                return Err(too_many());
            }
            for rule in &own {
                let Rule::DirMerge(inner) = rule else { continue };
                if !lists.iter().any(|known| *known.file == *inner) {
                    if lists.len() == FILES_MOST {
                        return Err(too_many());
                    }
                    lists.push(List { file: Arc::new(inner.clone()), rules: Arc::default() });
                }
            }
            let rules = match (own.is_empty() && !found.cleared, found.cleared) {
                (true, _) => inherited,
                (false, cleared) => {
                    let placed = own.into_iter().filter(|rule| rule.holds_on(self.side));
                    let mut rules: Vec<_> = placed.map(|rule| Placed { rule, base: Arc::clone(&base) }).collect();
                    if !cleared {
                        rules.extend(inherited.iter().cloned());
                    }
                    if rules.len() > RULES_MOST {
                        return Err(too_many());
                    }
                    Arc::new(rules)
                }
            };
            lists[at].rules = rules;
            at += 1;
        }
        Ok(Scope { root: Arc::clone(&above.root), lists: Arc::new(lists) })
    }

    /// What the rules say of a name of the transfer; nothing when no rule matches.
    pub fn verdict<'r>(
        &'r self,
        scope: &'r Scope,
        name: &[u8],
        is_dir: bool,
        parent: ParentDir,
    ) -> Option<RuleVerdict<'r>> {
        if self.rules.is_empty() {
            return None;
        }
        let passed = RefCell::new(vec![false; scope.lists.len()]);
        let asked = NameInQuestion { scope, name, is_dir, parent, absolute: scope.absolute(name), passed };
        let (rule, list) = self.rules.iter().find_map(|rule| asked.rule(rule, None, 0))?;
        Some(RuleVerdict { side: self.side, rule, list })
    }

    /// Whether a name is hidden, or protected.
    pub fn excludes(&self, scope: &Scope, name: &[u8], is_dir: bool, parent: ParentDir) -> bool {
        self.verdict(scope, name, is_dir, parent).is_some_and(|verdict| verdict.excludes())
    }
}

impl Scope {
    /// The rules for attributes that a per-directory file has come to. Each list is gone through once, whoever names it.
    fn attributes(&self, (file, depth): (&MergeFile, usize), passed: &mut [bool], rules: &mut Vec<Match>) {
        let Some(at) = self.lists.iter().position(|list| *list.file == *file) else { return };
        if depth == DEPTH_MOST || std::mem::replace(&mut passed[at], true) {
            return;
        }
        for placed in self.lists[at].rules.iter() {
            match &placed.rule {
                Rule::Match(rule) if rule.modifiers.xattr => rules.push(rule.clone()),
                Rule::DirMerge(inner) => self.attributes((inner, depth + 1), passed, rules),
                _ => {}
            }
        }
    }

    fn absolute(&self, name: &[u8]) -> Vec<u8> {
        let name = name.strip_prefix(b"/").unwrap_or(name);
        if name == b"." { self.root.to_vec() } else { [&self.root, name].join(&b'/') }
    }
}

/// The directory part of a path, slash included.
fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    slash.map_or(&[], |slash| &path[..=slash])
}

/// What a directory's file says, the files it names included.
struct FoundRule {
    own: Vec<Rule>,
    cleared: bool,
}

impl FoundRule {
    /// `Err(None)`: too deep.
    ///
    /// `from` is what the file is called.
    fn take(
        &mut self,
        bytes: &[u8],
        file: &MergeFile,
        from: &str,
        read: ReadFile<'_>,
        depth: usize,
    ) -> Result<(), Option<ScopeError>> {
        if depth == DEPTH_MOST || self.own.len() > RULES_MOST {
            return Err(None);
        }
        for given in parse_file(bytes, &file.mode, Some(from)).map_err(|error| Some(error.into()))? {
            match given {
                Given::Rule(Rule::Cvs(like)) => self.own.extend(cvs_rules(&like, &[])),
                Given::Rule(rule) => self.own.push(rule),
                Given::Clear => {
                    self.own.clear();
                    self.cleared = true;
                }
                Given::Merge(inner, line) => match read(&inner.name).map_err(|text| Some(ScopeError::Read(text)))? {
                    Some(bytes) => {
                        let from = format!("a file named at {from} line {line}");
                        self.take(&bytes, &inner, &from, read, depth + 1)?;
                    }
                    None => {
                        let text = format!("failed to open exclude file <rule from {from} line {line}>");
                        return Err(Some(ScopeError::Read(text)));
                    }
                },
            }
        }
        Ok(())
    }
}

/// What becomes of the directory that a name in question stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentDir {
    /// It stays.
    Kept,
    /// It is being deleted: perishable rules do not count.
    Deleted,
}

/// What a rule says of a name.
#[derive(Debug, Clone, Copy)]
pub struct RuleVerdict<'r> {
    side: RuleSide,
    rule: &'r Match,
    /// The kind of file that brought it, where directories did.
    list: Option<&'r MergeFile>,
}

impl RuleVerdict<'_> {
    /// Whether the name is hidden, or protected.
    pub fn excludes(&self) -> bool {
        self.rule.action == Action::Exclude
    }

    /// What is told of it: `shown` is the name as messages have it. rsync: report_filter_result
    pub fn said(&self, shown: &str, is_dir: bool) -> String {
        let (who, verb) = match (self.side, self.excludes()) {
            (RuleSide::Sender, true) => ("sender", "hiding"),
            (RuleSide::Sender, false) => ("sender", "showing"),
            (RuleSide::Receiver, true) => ("generator", "protecting"),
            (RuleSide::Receiver, false) => ("generator", "risking"),
        };
        let what = if is_dir { "directory" } else { "file" };
        let pattern = match self.rule.origin {
            Origin::File | Origin::CvsFile => "<rule from a file read earlier>".into(),
            Origin::Words | Origin::Cvs => String::from_utf8_lossy(self.rule.pattern.text()),
        };
        let list = match self.list {
            Some(file) => format!(" [per-dir {}]", String::from_utf8_lossy(file.leaf())),
            None if matches!(self.rule.origin, Origin::Cvs | Origin::CvsFile) => " [global CVS]".to_owned(),
            None => String::new(),
        };
        format!("[{who}] {verb} {what} {shown} because of pattern {pattern}{list}")
    }
}

/// A name on which rules are asked.
struct NameInQuestion<'r, 'n> {
    scope: &'r Scope,
    name: &'n [u8],
    is_dir: bool,
    parent: ParentDir,
    absolute: Vec<u8>,
    /// Which of the scope's lists were asked: what says nothing once says nothing when another file names it, too.
    passed: RefCell<Vec<bool>>,
}

/// A rule that matches, and the kind of file that brought it.
type Matched<'r> = (&'r Match, Option<&'r MergeFile>);

impl<'r> NameInQuestion<'r, '_> {
    /// `base` is the directory of the file in which the rule stands, if it stands in one.
    fn rule(&self, rule: &'r Rule, base: Option<&[u8]>, depth: usize) -> Option<Matched<'r>> {
        match rule {
            Rule::Match(rule) => self.matches(rule, base).then_some((rule, None)),
            Rule::Cvs(_) => None,
            Rule::DirMerge(file) if depth < DEPTH_MOST => {
                let at = self.scope.lists.iter().position(|list| *list.file == *file)?;
                if std::mem::replace(self.passed.borrow_mut().get_mut(at)?, true) {
                    return None;
                }
                let mut rules = self.scope.lists[at].rules.iter();
                let (rule, inner) = rules.find_map(|placed| self.rule(&placed.rule, Some(&placed.base), depth + 1))?;
                Some((rule, inner.or(Some(file))))
            }
            Rule::DirMerge(_) => None,
        }
    }

    fn matches(&self, rule: &Match, base: Option<&[u8]>) -> bool {
        if rule.modifiers.xattr || (self.parent == ParentDir::Deleted && rule.modifiers.perishable) {
            return false;
        }
        let path = match base {
            _ if rule.modifiers.absolute => Some(self.absolute.strip_prefix(b"/").unwrap_or(&self.absolute)),
            Some(base) if rule.pattern.is_anchored() => {
                self.absolute.strip_prefix(base).and_then(|rest| rest.strip_prefix(b"/"))
            }
            _ => Some(self.name.strip_prefix(b"/").unwrap_or(self.name)),
        };
        path.is_some_and(|path| rule.pattern.matches(path, self.is_dir)) != rule.negated
    }
}
