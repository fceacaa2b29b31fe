//! Rules as command lines, files and the wire write them. Counterpart: rsync's `parse_rule_tok`.

use super::{Action, Match, MergeFile, Modifiers, Origin, Pattern, RULE_MOST, Rule};

/// How rules are written in some place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// Each line is a pattern of this kind and has no prefix.
    pub bare: Option<Action>,
    /// Nevertheless `+ ` and `- ` are prefixes, and `!` clears (`--exclude`, `--include-from` …).
    pub old_prefixes: bool,
    /// Words, not lines, are rules.
    pub word_split: bool,
    /// As CVS reads its files.
    pub cvs: bool,
    /// Rules end with a zero byte (`--from0`).
    pub from0: bool,
    /// Rules that name no side hold for the sending side only (`--delete-excluded`).
    pub delete_excluded: bool,
    /// What all rules take over.
    pub modifiers: Modifiers,
}

impl Mode {
    /// The way of `--exclude` and `--exclude-from`, or of `--include` and `--include-from`.
    pub fn old_style(action: Action) -> Self {
        Self { bare: Some(action), old_prefixes: true, ..Self::default() }
    }

    /// What becomes of modifiers that name no side.
    pub(super) fn excluded_modifiers(&self) -> Modifiers {
        let mut modifiers = self.modifiers;
        if self.delete_excluded && !modifiers.sender && !modifiers.receiver {
            modifiers.sender = true;
        }
        modifiers
    }
}

/// What a piece of rule text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// One more rule.
    Rule(Rule),
    /// All rules before it are void.
    Clear,
    /// The rules of a file come here. It is named in this line, where a file names it.
    Merge(MergeFile, usize),
}

/// Rule text that means nothing. A command line with such is a usage error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No rule begins so.
    #[error("Unknown filter rule: `{0}'")]
    Unknown(String),
    /// A letter that is no modifier, or not of this rule.
    #[error("invalid modifier '{0}' in filter rule: {1}")]
    Modifier(char, String),
    /// A rule without its pattern or file.
    #[error("unexpected end of filter rule: {0}")]
    Short(String),
    /// A rule that takes nothing has something.
    #[error("unexpected text in filter rule: {0}")]
    Long(String),
    /// Longer than the protocol allows.
    #[error("overlong filter rule of {0} bytes; shorten it below 5120")]
    Overlong(usize),
    /// The same, of a file.
    #[error("overlong filter rule of {0} bytes: {1}; shorten it below 5120")]
    OverlongAt(usize, String),
}

impl FilterError {
    /// Says where the rule stands instead of what it says: who may hear of it need not be one who may read the file.
    fn of_line(self, file: Option<&str>, line: usize) -> Self {
        let Some(file) = file else { return self };
        let place = format!("<rule from {file} line {line}>");
        match self {
            Self::Unknown(_) => Self::Unknown(place),
            Self::Modifier(letter, _) => Self::Modifier(letter, place),
            Self::Short(_) => Self::Short(place),
            Self::Long(_) => Self::Long(place),
            Self::Overlong(len) => Self::OverlongAt(len, place),
            other @ Self::OverlongAt(..) => other,
        }
    }
}

fn shown(text: &[u8]) -> String {
    text.escape_ascii().to_string()
}

/// Parses one rule; an empty text gives nothing.
pub fn parse_rule(text: &[u8], mode: &Mode) -> Result<Vec<Given>, FilterError> {
    if text.is_empty() {
        return Ok(vec![]);
    }
    if text.len() >= RULE_MOST {
        return Err(FilterError::Overlong(text.len()));
    }
    if let Some(action) = mode.bare {
        let (action, pattern) = match text {
            b"!" if mode.old_prefixes || mode.cvs => return Ok(vec![Given::Clear]),
            [b'-', b' ', pattern @ ..] if mode.old_prefixes => (Action::Exclude, pattern),
            [b'+', b' ', pattern @ ..] if mode.old_prefixes => (Action::Include, pattern),
            pattern => (action, pattern),
        };
        if pattern.is_empty() {
            return Err(FilterError::Short(shown(text)));
        }
        let modifiers = mode.excluded_modifiers();
        let (pattern, origin) = (Pattern::new(pattern), Origin::Words);
        let rule = Match { action, pattern, negated: false, modifiers, origin };
        return Ok(vec![Given::Rule(Rule::Match(rule))]);
    }
    prefixed(text, mode)
}

/// The kinds of rule, by their long and short names.
const NAMES: [(&[u8], u8); 9] = [
    (b"exclude", b'-'),
    (b"include", b'+'),
    (b"merge", b'.'),
    (b"dir-merge", b':'),
    (b"hide", b'H'),
    (b"show", b'S'),
    (b"protect", b'P'),
    (b"risk", b'R'),
    (b"clear", b'!'),
];

fn prefixed(text: &[u8], mode: &Mode) -> Result<Vec<Given>, FilterError> {
    let long = |(name, letter): &(&[u8], u8)| {
        let rest = text.strip_prefix(*name)?;
        matches!(rest.first(), None | Some(b',' | b' ' | b'_')).then_some((*letter, rest))
    };
    let short = || Some((text[0], &text[1..])).filter(|(letter, _)| NAMES.iter().any(|(_, known)| known == letter));
    let (letter, rest) = NAMES.iter().find_map(long).or_else(short).ok_or_else(|| FilterError::Unknown(shown(text)))?;
    let rest = rest.strip_prefix(b",").unwrap_or(rest);
    let end = rest.iter().position(|byte| b" _".contains(byte)).unwrap_or(rest.len());
    let (letters, name) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    if letter == b'!' {
        return if rest.is_empty() { Ok(vec![Given::Clear]) } else { Err(FilterError::Long(shown(text))) };
    }
    let merge = matches!(letter, b'.' | b':');
    let side_given = matches!(letter, b'H' | b'S' | b'P' | b'R');
    let mut file = Mode { from0: mode.from0, delete_excluded: mode.delete_excluded, ..Mode::default() };
    let mut modifiers = mode.modifiers;
    let sides_fixed = modifiers.sender || modifiers.receiver;
    match letter {
        b'H' | b'S' => modifiers.sender = true,
        b'P' | b'R' => modifiers.receiver = true,
        _ => {}
    }
    let (mut negated, mut no_inherit, mut exclude_self, mut cvs) = (false, false, false, false);
    for &modifier in letters {
        let bad = || FilterError::Modifier(char::from(modifier), shown(text));
        match modifier {
            b'/' => modifiers.absolute = true,
            b'p' => modifiers.perishable = true,
            b'x' => modifiers.xattr = true,
            b's' | b'r' if side_given || sides_fixed => return Err(bad()),
            b's' => modifiers.sender = true,
            b'r' => modifiers.receiver = true,
            b'!' if !merge => negated = true,
            b'C' if !side_given => cvs = true,
            b'-' | b'+' if merge => {
                file.bare = Some(if modifier == b'-' { Action::Exclude } else { Action::Include });
            }
            b'e' if merge => exclude_self = true,
            b'n' if merge => no_inherit = true,
            b'w' if merge => file.word_split = true,
            _ => return Err(bad()),
        }
    }
    if sides_fixed && side_given {
        return Err(FilterError::Modifier(char::from(letter), shown(text)));
    }
    if merge {
        file.modifiers = modifiers;
        if cvs {
            (file.cvs, file.word_split, file.bare) = (true, true, file.bare.or(Some(Action::Exclude)));
            no_inherit = true;
        }
        let name = if name.is_empty() && cvs { b".cvsignore" } else { name };
        if name.is_empty() {
            return Err(FilterError::Short(shown(text)));
        }
        let file = MergeFile { name: name.to_vec(), mode: file, no_inherit };
        let mut given = Vec::new();
        if exclude_self {
            // The file stays out of the transfer at both ends, whichever of them its rules are for.
            let own = Mode { delete_excluded: mode.delete_excluded, ..Mode::default() };
            let modifiers = Modifiers { xattr: modifiers.xattr, ..own.excluded_modifiers() };
            let (action, pattern, origin) = (Action::Exclude, Pattern::new(file.leaf()), Origin::Words);
            given.push(Given::Rule(Rule::Match(Match { action, pattern, negated: false, modifiers, origin })));
        }
        given.push(if letter == b'.' { Given::Merge(file, 0) } else { Given::Rule(Rule::DirMerge(file)) });
        return Ok(given);
    }
    let action = if matches!(letter, b'+' | b'S' | b'R') { Action::Include } else { Action::Exclude };
    let modifiers = Mode { modifiers, ..*mode }.excluded_modifiers();
    let rule = Match { action, pattern: Pattern::new(name), negated, modifiers, origin: Origin::Words };
    match (cvs, name.is_empty()) {
        (true, _) => Ok(vec![Given::Rule(Rule::Cvs(Match { pattern: Pattern::new(b""), ..rule }))]),
        (false, true) => Err(FilterError::Short(shown(text))),
        (false, false) => Ok(vec![Given::Rule(Rule::Match(rule))]),
    }
}

/// Parses the rules of a file, or of standard input. Errors name the file and the line, where the file has a name.
pub fn parse_file(bytes: &[u8], mode: &Mode, file: Option<&str>) -> Result<Vec<Given>, FilterError> {
    let mut given = Vec::new();
    let mut take = |text: &[u8], line: usize| {
        let rules = parse_rule(text, mode).map_err(|error| error.of_line(file, line))?;
        let origin = if file.is_some() { Origin::File } else { Origin::Words };
        given.extend(rules.into_iter().map(|rule| match rule {
            Given::Merge(merge, _) => Given::Merge(merge, line),
            Given::Rule(Rule::Match(rule)) => Given::Rule(Rule::Match(Match { origin, ..rule })),
            rule => rule,
        }));
        Ok(())
    };
    if mode.word_split {
        let lines = bytes.split(|&byte| byte == b'\n').enumerate();
        let words = lines.flat_map(|(at, line)| line.split(u8::is_ascii_whitespace).map(move |word| (word, at + 1)));
        let mut words = words.filter(|(word, _)| !word.is_empty()).peekable();
        while let Some((word, line)) = words.next() {
            // The space behind a prefix ends no rule.
            let alone = match mode.bare {
                None => !word.contains(&b'_') && !matches!(word, b"!" | b"clear"),
                Some(_) => mode.old_prefixes && matches!(word, b"+" | b"-"),
            };
            let alone = alone && !matches!(word, b"-C" | b"+C" | b":C" | b".C");
            match words.next_if(|_| alone) {
                Some((name, _)) => take(&[word, name].join(&b' '), line)?,
                None => take(word, line)?,
            }
        }
        return Ok(given);
    }
    let mut line = 1;
    let ends = |byte: &u8| if mode.from0 { *byte == 0 } else { matches!(byte, b'\n' | b'\r') };
    for text in bytes.split_inclusive(ends) {
        let ended = text.last().filter(|byte| ends(byte)).copied();
        let rule = if ended.is_some() { &text[..text.len() - 1] } else { text };
        if !rule.is_empty() && !matches!(rule[0], b'#' | b';') {
            take(rule, line)?;
        }
        line += usize::from(mode.from0 || ended == Some(b'\n'));
    }
    Ok(given)
}
