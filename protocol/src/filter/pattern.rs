//! What a rule's pattern matches. Counterpart: rsync's `rule_matches` and `wildmatch`.

/// A compiled pattern. Matching takes time proportional to pattern times name, whatever either holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Vec<u8>,
    anchored: bool,
    dirs_only: bool,
    /// Matched against the whole path and not only the last component.
    whole: bool,
    /// Ends in `***`: a directory matches as if its name ended in a slash.
    contents: bool,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Literal(Vec<u8>),
    Wild {
        tokens: Vec<Token>,
        deep_prefix: bool,
    },
    /// A bracket without an end, or a last backslash that escapes nothing.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**`
    Deep,
    Class(Box<[bool; 256]>),
}

impl Pattern {
    /// Compiles a pattern as rules write it.
    pub fn new(text: &[u8]) -> Self {
        let mut rest = text;
        let dirs_only = rest.len() > 1 && rest.ends_with(b"/");
        if dirs_only {
            rest = &rest[..rest.len() - 1];
        }
        let contents = rest.ends_with(b"***");
        let anchored = rest.starts_with(b"/");
        if anchored {
            rest = &rest[1..];
        }
        let whole = anchored || rest.contains(&b'/') || rest.windows(2).any(|pair| pair == b"**");
        let wild = rest.iter().any(|byte| b"*?[".contains(byte));
        let body = match wild {
            false => Body::Literal(rest.to_vec()),
            true => match tokens(rest) {
                Some(tokens) => Body::Wild { deep_prefix: !anchored && tokens.first() == Some(&Token::Deep), tokens },
                None => Body::Never,
            },
        };
        Self { text: text.to_vec(), anchored, dirs_only, whole, contents, body }
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
        match &self.body {
            Body::Never => false,
            Body::Literal(literal) if self.anchored || !self.whole => literal == name,
            Body::Literal(literal) => {
                let before = name.len().checked_sub(literal.len()).map(|at| &name[..at]);
                name.ends_with(literal) && before.is_some_and(|before| before.is_empty() || before.ends_with(b"/"))
            }
            Body::Wild { tokens, deep_prefix } => {
                run(tokens, name, self.whole && !self.anchored)
                    // A slash before the first component lets `**/x` match `x` at the top.
                    || (*deep_prefix && run(tokens, &[b"/", name].concat(), false))
            }
        }
    }
}

/// Runs all the ways a name may match side by side; with `anywhere` from each component on.
fn run(tokens: &[Token], name: &[u8], anywhere: bool) -> bool {
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
                Token::Byte(wanted) => (false, *wanted == byte),
                Token::Any => (false, byte != b'/'),
                Token::Class(holds) => (false, byte != b'/' && holds[usize::from(byte)]),
                Token::Star => (byte != b'/', false),
                Token::Deep => (true, false),
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
fn skip_stars(tokens: &[Token], states: &mut [bool]) {
    for (at, token) in tokens.iter().enumerate() {
        if states[at] && matches!(token, Token::Star | Token::Deep) {
            states[at + 1] = true;
        }
    }
}

fn tokens(mut text: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    while let Some((&byte, rest)) = text.split_first() {
        text = rest;
        tokens.push(match byte {
            b'?' => Token::Any,
            b'*' => {
                let more = text.iter().take_while(|&&byte| byte == b'*').count();
                text = &text[more..];
                if more > 0 { Token::Deep } else { Token::Star }
            }
            b'[' => {
                let (class, rest) = class(text)?;
                text = rest;
                Token::Class(class)
            }
            b'\\' => {
                let (&escaped, rest) = text.split_first()?;
                text = rest;
                Token::Byte(escaped)
            }
            byte => Token::Byte(byte),
        });
    }
    Some(tokens)
}

/// Reads a bracket expression, whose `[` has been taken; returns what it holds and what follows it.
fn class(mut text: &[u8]) -> Option<(Box<[bool; 256]>, &[u8])> {
    let mut holds = Box::new([false; 256]);
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    if negated {
        text = &text[1..];
    }
    let mut first = true;
    let mut previous = None;
    loop {
        let (&byte, mut rest) = text.split_first()?;
        if byte == b']' && !first {
            if negated {
                holds.iter_mut().for_each(|held| *held = !*held);
            }
            return Some((holds, rest));
        }
        first = false;
        let range = byte == b'-' && previous.is_some() && rest.first().is_some_and(|&next| next != b']');
        if byte == b'[' && rest.first() == Some(&b':') {
            let end = rest.windows(2).position(|pair| pair == b":]");
            if let Some(end) = end.filter(|&end| end >= 1 && !rest[1..end].contains(&b']')) {
                let test = named(&rest[1..end])?;
                (0..=255u8).filter(test).for_each(|byte| holds[usize::from(byte)] = true);
                previous = None;
                text = &rest[end + 2..];
                continue;
            }
        }
        let mut take = |byte: u8| match byte {
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
            for byte in previous.take().unwrap_or(end)..=end {
                holds[usize::from(byte)] = true;
            }
        } else {
            let byte = take(byte)?;
            holds[usize::from(byte)] = true;
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
