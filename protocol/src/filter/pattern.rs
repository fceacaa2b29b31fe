//! What a rule's pattern matches. Counterpart: rsync's `rule_matches` and `wildmatch`.

use std::sync::Arc;

/// A pattern. Matching takes time proportional to pattern times name, whatever either holds.
///
/// A peer may send very many: nothing is kept but the text, which is read anew for each name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Arc<[u8]>,
    anchored: bool,
    dirs_only: bool,
    /// Matched against the whole path and not only the last component.
    whole: bool,
    /// Ends in `***`: a directory matches as if its name ended in a slash.
    contents: bool,
    wild: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PatternToken<'t> {
    Byte(u8),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**`
    Deep,
    /// A bracket expression: the text behind its `[`.
    Class(&'t [u8]),
}

impl Pattern {
    /// Reads a pattern as rules write it.
    pub fn new(text: &[u8]) -> Self {
        let mut pattern = Self {
            text: text.into(),
            anchored: text.starts_with(b"/"),
            dirs_only: text.len() > 1 && text.ends_with(b"/"),
            whole: false,
            contents: false,
            wild: false,
        };
        let body = pattern.body();
        let whole = pattern.anchored || body.contains(&b'/') || body.windows(2).any(|pair| pair == b"**");
        let (contents, wild) = (body.ends_with(b"***"), body.iter().any(|byte| b"*?[".contains(byte)));
        (pattern.whole, pattern.contents, pattern.wild) = (whole, contents, wild);
        pattern
    }

    /// What is matched, without the slashes that say how.
    fn body(&self) -> &[u8] {
        let end = self.text.len() - usize::from(self.dirs_only);
        &self.text[usize::from(self.anchored)..end]
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// True when the pattern stands for a path from some directory on.
    pub fn is_anchored(&self) -> bool {
        self.anchored
    }

    /// Whether the pattern matches a path; an anchored one begins where the path begins.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        if self.dirs_only && !is_dir {
            return false;
        }
        let start = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) if !self.whole => slash + 1,
            _ => 0,
        };
        let with_slash;
        let mut name = &path[start..];
        if self.contents && is_dir {
            with_slash = [name, b"/"].concat();
            name = &with_slash;
        }
        match self.body() {
            body if self.wild => self.runs(body, name),
            literal if self.anchored || !self.whole => literal == name,
            literal => {
                let before = name.len().checked_sub(literal.len()).map(|at| &name[..at]);
                name.ends_with(literal) && before.is_some_and(|before| before.is_empty() || before.ends_with(b"/"))
            }
        }
    }

    fn runs(&self, body: &[u8], name: &[u8]) -> bool {
        // Most names are told apart by their last letter alone.
        let last = body.last().filter(|last| !b"*?]".contains(last));
        if last.is_some_and(|last| name.last() != Some(last)) {
            return false;
        }
        let Some(tokens) = tokens(body) else { return false };
        run(&tokens, name, self.whole && !self.anchored)
            // A slash before the first component lets `**/x` match `x` at the top.
            || (!self.anchored && tokens.first() == Some(&PatternToken::Deep) && run(&tokens, &[b"/", name].concat(), false))
    }
}

/// Runs all the ways a name may match side by side; with `anywhere` from each component on.
fn run(tokens: &[PatternToken<'_>], name: &[u8], anywhere: bool) -> bool {
    let mut here = vec![false; tokens.len() + 1];
    let mut next = here.clone();
    here[0] = true;
    for (place, &byte) in name.iter().enumerate() {
        if anywhere && place > 0 && name[place - 1] == b'/' {
            here[0] = true;
        }
        skip_stars(tokens, &mut here);
        next.fill(false);
        for (at, token) in tokens.iter().enumerate().filter(|&(at, _)| here[at]) {
            let (stays, goes) = match token {
                PatternToken::Byte(wanted) => (false, *wanted == byte),
                PatternToken::Any => (false, byte != b'/'),
                PatternToken::Class(text) => (false, byte != b'/' && class(text, byte).is_some_and(|(holds, _)| holds)),
                PatternToken::Star => (byte != b'/', false),
                PatternToken::Deep => (true, false),
            };
            next[at] |= stays;
            next[at + 1] |= goes;
        }
        std::mem::swap(&mut here, &mut next);
    }
    skip_stars(tokens, &mut here);
    here[tokens.len()]
}

/// Stars may match nothing.
fn skip_stars(tokens: &[PatternToken<'_>], states: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if states[at] && matches!(token, PatternToken::Star | PatternToken::Deep) {
            states[at + 1] = true;
        }
    }
}

/// The parts of a pattern. One with a bracket that has no end, or with a last backslash that escapes nothing, has none and
/// matches nothing.
fn tokens(mut text: &[u8]) -> Option<Vec<PatternToken<'_>>> {
    let mut tokens = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        tokens.push(match byte {
            b'?' => PatternToken::Any,
            b'*' => {
                let more = text.iter().take_while(|&&byte| byte == b'*').count();
                text = &text[more..];
                if more > 0 { PatternToken::Deep } else { PatternToken::Star }
            }
            b'[' => {
                let begin = text;
                (_, text) = class(begin, 0)?;
                PatternToken::Class(begin)
            }
            b'\\' => {
                let (&escaped, rest) = text.split_first()?;
                text = rest;
                PatternToken::Byte(escaped)
            }
            byte => PatternToken::Byte(byte),
        });
    }
    Some(tokens)
}

/// Reads a bracket expression, whose `[` has been taken; returns whether it holds a byte, and what follows it.
fn class(mut text: &[u8], wanted: u8) -> Option<(bool, &[u8])> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    if negated {
        text = &text[1..];
    }
    let mut holds = false;
    let mut first = true;
    let mut previous = None;
    // How many bytes the next closing bracket and what is behind it come to, once somebody has asked.
    let mut close = usize::MAX;
    loop {
        let (&byte, mut rest) = text.split_first()?;
        if byte == b']' && !first {
            return Some((holds != negated, rest));
        }
        first = false;
        let range = byte == b'-' && previous.is_some() && rest.first().is_some_and(|&next| next != b']');
        if byte == b'[' && rest.first() == Some(&b':') {
            if close > rest.len() {
                close = rest.len() - rest.iter().position(|&byte| byte == b']')?;
            }
            let end = (rest.len() - close).saturating_sub(1);
            if end >= 1 && rest[end] == b':' {
                holds |= named(&rest[1..end])?(&wanted);
                previous = None;
                text = &rest[end + 2..];
                continue;
            }
        }
        // A backslash takes the next byte for itself.
        let mut plain = |byte: u8| match byte {
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                Some(escaped)
            }
            byte => Some(byte),
        };
        if range {
            let (&end, after) = rest.split_first()?;
            rest = after;
            let end = if end == b'\\' {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                escaped
            } else {
                end
            };
            holds |= (previous.take().unwrap_or(end)..=end).contains(&wanted);
        } else {
            let byte = plain(byte)?;
            holds |= byte == wanted;
            previous = Some(byte);
        }
        text = rest;
    }
}

/// A named class such as `alpha`.
fn named(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}
