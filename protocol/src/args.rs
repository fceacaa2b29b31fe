//! The `--server` argument vector, written and parsed. Counterpart: rsync's `server_options` and `parse_arguments`.

mod options;
mod server_option;
mod size;
pub mod table;
#[cfg(test)]
mod tests;
mod verbosity;

use crate::filter::Rule;
pub use options::{AltKind, DeleteWhen, ItemDetail, Options};
use server_option::Form;
pub use server_option::ServerOption;
pub use size::parse_size;
pub use verbosity::{Debug, Flag, Info, Levels, Row};

/// Capability letters we send as a client, behind an `i` where the file list may come in segments.
pub(crate) const CAPABILITIES: &str = "LsfxCIvu";

/// What a server is told by its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerArgs {
    /// The server sends (`--sender`).
    pub sender: bool,
    /// Bundled letters and long options.
    pub options: Options,
    /// The client's capability letters.
    pub capabilities: Vec<u8>,
    /// The client announces a version below 30, and has no capabilities.
    pub old: bool,
    /// What stands behind the lone dot.
    pub paths: Vec<Vec<u8>>,
    /// Filter rules for this server alone, which its client passed on.
    pub rules: Vec<Rule>,
    /// Those that it will hear of its client, if that is in the same process: where they were read goes over no wire.
    pub known: Vec<Rule>,
}

/// What understands an option that is not among those a server is told by itself: given the options so far, its word and
/// the words behind it.
pub type Understand<'a> =
    dyn FnMut(&mut Options, &[u8], &mut dyn Iterator<Item = &'a [u8]>) -> Result<(), ArgsError> + 'a;

/// An argument vector that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// An option we do not have.
    #[error("on remote machine: {0}: unknown option")]
    Unsupported(String),
    /// A value that cannot be used.
    #[error("Option {option} cannot be {value:?}: expected {expected}")]
    Value {
        /// The option.
        option: String,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// Something is missing or out of place.
    #[error("{0}")]
    Shape(&'static str),
    /// What the command line would be refused for.
    #[error("{0}")]
    Refused(String),
}

/// Understands none.
fn unknown(_: &mut Options, word: &[u8], _: &mut dyn Iterator<Item = &[u8]>) -> Result<(), ArgsError> {
    Err(ArgsError::Unsupported(String::from_utf8_lossy(word).into_owned()))
}

/// Which servers are told of something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Both,
    Receiver,
    Sender,
    Nobody,
}

impl For {
    /// Whether a server is told that sends, or one that receives.
    fn hears(self, sender: bool) -> bool {
        match self {
            For::Both => true,
            For::Receiver => !sender,
            For::Sender => sender,
            For::Nobody => false,
        }
    }
}

impl ServerArgs {
    /// Parses what follows the program's name. Nothing is ignored that would change the bytes on the wire or on the disk.
    pub fn parse<A: AsRef<[u8]>>(args: &[A]) -> Result<Self, ArgsError> {
        Self::parse_with(args, &mut unknown)
    }

    /// The same with somebody who understands the options that a server is not told by itself.
    pub fn parse_with<'a, A: AsRef<[u8]>>(args: &'a [A], understand: &mut Understand<'a>) -> Result<Self, ArgsError> {
        let parsed = Self::parse_any(args, understand)?;
        if parsed.options.crtimes {
            return Err(ArgsError::Shape("The server does not support --crtimes (-N)"));
        }
        if parsed.options.fake_super && parsed.options.xattrs > 1 {
            return Err(ArgsError::Shape("--fake-super conflicts with -XX"));
        }
        if parsed.options.insecure_links && parsed.options.confine_root.is_some() {
            return Err(ArgsError::Shape("--insecure-links cannot be combined with --confine-root"));
        }
        if parsed.options.confine_root.as_ref().is_some_and(|root| !root.starts_with(b"/")) {
            return Err(ArgsError::Shape("--confine-root must be an absolute path"));
        }
        Ok(parsed)
    }

    /// Parses without asking what goes together.
    fn parse_any<'a, A: AsRef<[u8]>>(args: &'a [A], understand: &mut Understand<'a>) -> Result<Self, ArgsError> {
        let mut parsed = Self::default();
        let mut args = args.iter().map(AsRef::as_ref);
        let mut server = false;
        let mut dot = false;
        while let Some(arg) = args.next() {
            match arg {
                b"." => {
                    dot = true;
                    break;
                }
                // Wrappers end the options so.
                b"--" => {
                    dot = args.next() == Some(b".");
                    break;
                }
                b"--server" => server = true,
                b"--sender" => parsed.sender = true,
                [b'-', b'-', text @ ..] => match option_and_value(text) {
                    Some((option, Some(value))) => option.set(&mut parsed.options, value)?,
                    Some((option, None)) => {
                        let missing = ArgsError::Shape("The last server option lacks its value");
                        option.set(&mut parsed.options, args.next().ok_or(missing)?)?;
                    }
                    None => understand(&mut parsed.options, arg, &mut args)?,
                },
                [b'-', letters @ ..] => match letters.split_first().and_then(|(letter, value)| {
                    Some((table::ALL.iter().find(|option| option.is_close_behind(*letter))?, value))
                }) {
                    Some((option, value)) => option.set(&mut parsed.options, value)?,
                    None => {
                        if let Some(unknown) = parsed.letters(letters)? {
                            understand(&mut parsed.options, &[b"-", unknown].concat(), &mut args)?;
                        }
                    }
                },
                _ => return Err(ArgsError::Shape("Server arguments must be options up to the lone dot")),
            }
        }
        if !server {
            return Err(ArgsError::Shape("Server arguments must hold --server"));
        }
        if !dot {
            return Err(ArgsError::Shape("Server arguments lack the lone dot before the paths"));
        }
        parsed.paths = args.map(<[u8]>::to_vec).collect();
        if parsed.paths.is_empty() || (!parsed.sender && parsed.paths.len() != 1) {
            return Err(ArgsError::Shape("Server arguments need one destination, or at least one source"));
        }
        Ok(parsed)
    }

    /// Takes a bundle of letters; gives what is left of it where one is unknown.
    fn letters<'l>(&mut self, letters: &'l [u8]) -> Result<Option<&'l [u8]>, ArgsError> {
        for (at, &byte) in letters.iter().enumerate() {
            if byte == b'e' {
                let rest = letters.get(at + 1..).unwrap_or_default();
                // A dot, or the digits of a pre-release version, stand before the capability letters.
                let start = rest.iter().take_while(|byte| **byte == b'.' || byte.is_ascii_digit()).count();
                self.capabilities = rest[start..].to_vec();
                return Ok(None);
            }
            match bundled().find(|option| option.letter == byte) {
                Some(option) => option.set(&mut self.options, b"")?,
                None => return Ok(letters.get(at..)),
            }
        }
        Ok(None)
    }

    /// The words to start a server with, without the program's name.
    pub fn to_words(&self) -> Vec<Vec<u8>> {
        let mut options = self.options.clone();
        let mut words = vec![b"--server".to_vec()];
        if self.sender {
            words.push(b"--sender".to_vec());
        }
        // Before protocol 30 there may be no letter to say.
        words.extend(Some(self.bundle(&mut options)).filter(|bundle| bundle.len() > 1));
        for option in table::ALL.iter().filter(|option| option.form != Form::Letter && option.told.hears(self.sender)) {
            option.say(&mut options, &mut words);
        }
        words.extend(options.info.word_for(self.sender).map(String::into_bytes));
        words.extend(options.remote_options);
        words.push(b".".to_vec());
        words.extend(self.paths.iter().cloned());
        words
    }

    fn bundle(&self, options: &mut Options) -> Vec<u8> {
        let mut bundle = vec![b'-'];
        for option in bundled().filter(|option| option.told.hears(self.sender)) {
            bundle.extend(std::iter::repeat_n(option.letter, option.times(options)));
        }
        if self.old {
            return bundle;
        }
        bundle.extend_from_slice(b"e.");
        // The client receives from a server that sends.
        let incremental = if self.sender { options.takes_segments() } else { options.sends_segments() };
        bundle.extend_from_slice(if incremental { b"i" } else { b"" });
        bundle.extend_from_slice(CAPABILITIES.as_bytes());
        bundle
    }
}

/// The options that are letters of the bundle.
fn bundled() -> impl Iterator<Item = &'static ServerOption> {
    table::ALL.iter().filter(|option| option.form == Form::Letter)
}

/// The option that this word without its dashes gives, and its value; `None` where that is the next word.
fn option_and_value(text: &[u8]) -> Option<(&'static ServerOption, Option<&[u8]>)> {
    let equals = text.iter().position(|&byte| byte == b'=');
    let name = &text[..equals.unwrap_or(text.len())];
    let option = table::ALL.iter().find(|option| option.is_named(name))?;
    match (equals, option.takes_value()) {
        (Some(at), true) => Some((option, Some(&text[at + 1..]))),
        (None, true) => matches!(option.form, Form::Apart | Form::ApartUnlessDash).then_some((option, None)),
        (None, false) => Some((option, Some(b""))),
        (Some(_), false) => None,
    }
}

impl Options {
    /// Takes another alternative destination.
    fn alternative(&mut self, kind: AltKind, dir: &[u8]) -> Result<(), ArgsError> {
        /// As many as stock takes.
        const DIRS_MOST: usize = 20;
        if self.alt_kind.is_some_and(|earlier| earlier != kind) {
            return Err(ArgsError::Shape("--compare-dest, --copy-dest and --link-dest cannot be mixed"));
        }
        if self.alt_dirs.len() == DIRS_MOST {
            return Err(ArgsError::Shape("At most 20 --compare-dest, --copy-dest or --link-dest options can be given"));
        }
        self.alt_kind = Some(kind);
        self.alt_dirs.push(dir.to_vec());
        Ok(())
    }
}
