//! An option as a server is told it.

use super::{AltKind, ArgsError, For, Options};

/// How one option is spelt, which servers hear it, and what it sets.
#[derive(Clone, Copy)]
pub struct ServerOption {
    /// Its long name, without dashes; empty for a letter alone.
    pub name: &'static str,
    /// Older names of it.
    pub also: &'static [&'static str],
    /// Its letter; 0 for none.
    pub letter: u8,
    /// How a server is told.
    pub(super) form: Form,
    /// Which servers our client tells.
    pub(super) told: For,
    /// What it sets.
    pub(super) field: Field,
}

/// How a server is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By the letter, in the bundle.
    Letter,
    /// By the letter, the value close behind it.
    Close,
    /// By the long name, a value behind `=`.
    Long,
    /// The same; what is negative, by the letter.
    LongOrClose,
    /// By the long name; the value may be a word of its own, as stock clients send it, so that a shell may expand `~`.
    Apart,
    /// The same, but that `-`, which is no file's name, stands behind `=`.
    ApartUnlessDash,
}

/// What an option sets.
#[derive(Clone, Copy)]
pub(super) enum Field {
    /// It is switched on.
    Flag(fn(&mut Options) -> &mut bool),
    /// It is counted.
    Count(fn(&mut Options) -> &mut u8),
    /// Its value is kept.
    Text(fn(&mut Options) -> &mut Option<Vec<u8>>),
    /// Its value is one of several directories.
    Dir(AltKind),
    /// It does something without a value; and whether it is to be said.
    Word(fn(&mut Options), fn(&Options) -> bool),
    /// It reads its value; and which value is to be said.
    Value(Read, fn(&Options) -> Option<String>),
}

/// Reads a value, or says what would do.
type Read = fn(&mut Options, &[u8]) -> Result<(), &'static str>;

impl ServerOption {
    /// As a server is told it, without a value.
    pub fn word(&self) -> String {
        match self.form {
            Form::Letter | Form::Close => format!("-{}", char::from(self.letter)),
            Form::Long | Form::LongOrClose | Form::Apart | Form::ApartUnlessDash => format!("--{}", self.name),
        }
    }

    /// Whether a server knows it by this long name.
    pub(super) fn is_named(&self, name: &[u8]) -> bool {
        let is_long = !matches!(self.form, Form::Letter | Form::Close);
        is_long && std::iter::once(&self.name).chain(self.also).any(|known| known.as_bytes() == name)
    }

    /// Whether its value may stand close behind this letter.
    pub(crate) fn is_close_behind(&self, letter: u8) -> bool {
        matches!(self.form, Form::Close | Form::LongOrClose) && self.letter == letter
    }

    /// Whether it comes with a value.
    pub(super) fn takes_value(&self) -> bool {
        matches!(self.field, Field::Text(_) | Field::Dir(_) | Field::Value(..))
    }

    /// Sets what it sets; `value` is of no matter to one that takes none.
    ///
    /// # Errors
    /// The value cannot be used.
    pub fn set(&self, options: &mut Options, value: &[u8]) -> Result<(), ArgsError> {
        match self.field {
            Field::Flag(flag) => *flag(options) = true,
            Field::Count(count) => *count(options) = count(options).saturating_add(1),
            Field::Text(text) => *text(options) = Some(value.to_vec()),
            Field::Dir(kind) => return options.alternative(kind, value),
            Field::Word(act, _) => act(options),
            Field::Value(read, _) => read(options, value).map_err(|expected| {
                let value = String::from_utf8_lossy(value).into_owned();
                ArgsError::Value { option: self.word(), value, expected }
            })?,
        }
        Ok(())
    }

    /// Takes back a switch, a count or a text.
    pub fn unset(&self, options: &mut Options) {
        match self.field {
            Field::Flag(flag) => *flag(options) = false,
            Field::Count(count) => *count(options) = 0,
            Field::Text(text) => *text(options) = None,
            Field::Dir(_) | Field::Word(..) | Field::Value(..) => {}
        }
    }

    /// How often its letter or its word is to be said.
    pub(super) fn times(&self, options: &mut Options) -> usize {
        match self.field {
            Field::Flag(flag) => usize::from(*flag(options)),
            Field::Count(count) => usize::from(*count(options)),
            Field::Word(_, is_said) => usize::from(is_said(options)),
            Field::Text(_) | Field::Dir(_) | Field::Value(..) => 0,
        }
    }

    /// Adds the words that say it.
    pub(super) fn say(&self, options: &mut Options, words: &mut Vec<Vec<u8>>) {
        match self.field {
            Field::Flag(_) | Field::Count(_) | Field::Word(..) => {
                words.extend(std::iter::repeat_n(self.word().into_bytes(), self.times(options)));
            }
            Field::Text(text) => text(options).iter().for_each(|text| self.say_value(text, words)),
            Field::Dir(kind) if options.alt_kind != Some(kind) => {}
            Field::Dir(_) => options.alt_dirs.iter().for_each(|dir| self.say_value(dir, words)),
            Field::Value(_, said) => said(options).iter().for_each(|value| self.say_value(value.as_bytes(), words)),
        }
    }

    fn say_value(&self, value: &[u8], words: &mut Vec<Vec<u8>>) {
        let word = self.word().into_bytes();
        match self.form {
            Form::Letter | Form::Close => words.push([&word, value].concat()),
            Form::LongOrClose if value.starts_with(b"-") => words.push([&[b'-', self.letter], value].concat()),
            Form::Apart => words.extend([word, value.to_vec()]),
            Form::ApartUnlessDash if value != b"-" => words.extend([word, value.to_vec()]),
            Form::Long | Form::LongOrClose | Form::ApartUnlessDash => words.push([&word, &b"="[..], value].concat()),
        }
    }
}
