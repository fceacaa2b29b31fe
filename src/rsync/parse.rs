//! Reads a command line as stock rsync reads it: its words in their order. What the words are stands in `table`, what may
//! not stand together in `checks`. Counterpart: rsync's `parse_arguments`, popt included.

use super::checks;
use super::command_line::{Ask, CommandLine};
use super::environment::Environment;
use super::table::{self, Apply, Meant};
use super::usage::Usage;

impl CommandLine {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// What stock rsync refuses, in its words.
    pub(crate) fn parse<A: AsRef<[u8]>>(words: &[A], environment: &Environment) -> Result<Self, Usage> {
        let mut line = Self::default();
        let all = words;
        let mut words = words.iter().map(AsRef::as_ref);
        let alone = words.len() == 1;
        while let Some(word) = words.next() {
            let left = words.len();
            match word {
                b"--" => {
                    line.given.push((word.to_vec(), None));
                    line.operands.extend(words.by_ref().map(<[u8]>::to_vec));
                }
                b"-h" if alone => line.ask = Some(Ask::Help),
                [b'-', b'-', name @ ..] => line.long(word, name, &mut words)?,
                [b'-', letters @ ..] if !letters.is_empty() => line.letters(word, letters, &mut words)?,
                operand => {
                    line.operands.push(operand.to_vec());
                    continue;
                }
            }
            if word != b"--" {
                let value = (words.len() < left).then(|| all[all.len() - left].as_ref().to_vec());
                line.given.push((word.to_vec(), value));
            }
        }
        if line.ask.is_none() {
            checks::finish(&mut line, environment)?;
        }
        Ok(line)
    }

    /// Takes one word of options and, where it stands apart, its value.
    pub(super) fn option(&mut self, word: &[u8], more: &mut dyn Iterator<Item = &[u8]>) -> Result<(), Usage> {
        let mut more = more;
        match word {
            [b'-', b'-', name @ ..] => self.long(word, name, &mut more),
            [b'-', letters @ ..] => self.letters(word, letters, &mut more),
            _ => Err(unknown(word)),
        }
    }

    fn long<'w>(&mut self, word: &[u8], text: &[u8], more: &mut impl Iterator<Item = &'w [u8]>) -> Result<(), Usage> {
        let equals = text.iter().position(|&byte| byte == b'=');
        let name = &text[..equals.unwrap_or(text.len())];
        let option = table::by_name(name).ok_or_else(|| unknown(word))?;
        self.take(option, word, equals.map(|at| &text[at + 1..]), more)
    }

    fn letters<'w>(
        &mut self,
        word: &[u8],
        mut letters: &[u8],
        more: &mut impl Iterator<Item = &'w [u8]>,
    ) -> Result<(), Usage> {
        while let [letter, rest @ ..] = letters {
            let option = table::by_letter(*letter).ok_or_else(|| unknown(word))?;
            if !option.takes_value() {
                if rest.first() == Some(&b'=') {
                    return Err(takes_none(word));
                }
                self.take(option, word, None, more)?;
                letters = rest;
                continue;
            }
            let value = match rest {
                [] => None,
                [b'=', value @ ..] => Some(value),
                value => Some(value),
            };
            return self.take(option, word, value, more);
        }
        Ok(())
    }

    fn take<'w>(
        &mut self,
        option: Meant,
        word: &[u8],
        value: Option<&[u8]>,
        more: &mut impl Iterator<Item = &'w [u8]>,
    ) -> Result<(), Usage> {
        self.word = String::from_utf8_lossy(word).into_owned();
        let value = match (option.takes_value(), value) {
            (false, Some(_)) => return Err(takes_none(word)),
            (false, None) => &b""[..],
            (true, Some(value)) => value,
            (true, None) => more
                .next()
                .ok_or_else(|| Usage::syntax(format!("rsync: {}: missing argument", String::from_utf8_lossy(word))))?,
        };
        match option.apply() {
            Apply::Told(option) => {
                option.set(&mut self.options, value).map_err(|error| Usage::syntax(format!("rsync: {error}")))?;
            }
            Apply::Untold(option) => option.unset(&mut self.options),
            Apply::Set(flag, on) => *flag(self) = on,
            Apply::Choose(choice, on) => *choice(self) = Some(on),
            Apply::Count(count) => {
                let count = count(self);
                *count = count.saturating_add(1);
            }
            Apply::Zero(count) => *count(self) = 0,
            Apply::Text(text) => *text(self) = Some(value.to_vec()),
            Apply::Path(path) => {
                use std::os::unix::ffi::OsStrExt;
                *path(self) = Some(std::ffi::OsStr::from_bytes(value).into());
            }
            Apply::Do(act) => act(self),
            Apply::Take(act) => act(self, value)?,
        }
        Ok(())
    }
}

fn unknown(word: &[u8]) -> Usage {
    let given = String::from_utf8_lossy(word);
    let hint = table::resembling(&given).map(|name| format!("; did you mean --{name}?")).unwrap_or_default();
    Usage::syntax(format!("rsync: {given}: unknown option{hint}"))
}

fn takes_none(word: &[u8]) -> Usage {
    Usage::syntax(format!("rsync: {}: option does not take an argument", String::from_utf8_lossy(word)))
}
