//! The client's end of the greeting.

use super::lines::Lines;
use super::{Greeting, MARK};
use crate::PeerError;

/// Lines of a message of the day or a listing that are taken, at most.
const TEXT_LINES_MOST: usize = 100_000;

/// What a daemon says before the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Its greeting; the module may now be named.
    Greeted(Greeting),
    /// A line for the user: of the message of the day, or of the list of modules.
    Text(Vec<u8>),
    /// It wants proof of a secret.
    Challenge(Vec<u8>),
    /// The module is ours; the arguments go next.
    Accepted,
    /// The end of a listing.
    Exit,
    /// It refuses, in these words.
    Refused(Vec<u8>),
}

/// What a daemon says to its client until the session begins.
#[derive(Debug, Default)]
pub struct Client {
    lines: Lines,
    greeted: bool,
    over: bool,
    texts: usize,
}

impl Client {
    /// Nothing has been heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.lines.feed(bytes);
    }

    /// The next thing that was said, as far as the bytes go; nothing more once it is accepted or over.
    pub fn poll(&mut self) -> Result<Option<ClientEvent>, PeerError> {
        if self.over {
            return Ok(None);
        }
        let Some(line) = self.lines.line()? else { return Ok(None) };
        if !self.greeted {
            self.greeted = true;
            return Greeting::parse(&line).map(|greeting| Some(ClientEvent::Greeted(greeting)));
        }
        let event = if let Some(words) = line.strip_prefix(MARK) {
            match words {
                b"OK" => ClientEvent::Accepted,
                b"EXIT" => ClientEvent::Exit,
                _ => match words.strip_prefix(b"AUTHREQD ") {
                    Some(challenge) => ClientEvent::Challenge(challenge.to_vec()),
                    None => return Err(PeerError::Malformed("a word of the daemon that means nothing here")),
                },
            }
        } else if line.starts_with(b"@ERROR") {
            ClientEvent::Refused(line)
        } else {
            self.texts += 1;
            if self.texts > TEXT_LINES_MOST {
                return Err(PeerError::Malformed("an endless message of the day"));
            }
            ClientEvent::Text(line)
        };
        self.over = matches!(event, ClientEvent::Accepted | ClientEvent::Exit | ClientEvent::Refused(_));
        Ok(Some(event))
    }

    /// What came behind the last line: the beginning of the session.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.lines.rest()
    }

    /// The line that asks for a module, or for the list of them.
    pub fn request(module: Option<&[u8]>) -> Vec<u8> {
        [module.unwrap_or(b"#list"), b"\n"].concat()
    }

    /// What goes before that line to be the input of the daemon's early command.
    pub fn early_input(bytes: &[u8]) -> Vec<u8> {
        [format!("#early_input={}\n", bytes.len()).as_bytes(), bytes].concat()
    }

    /// The line that answers a challenge.
    pub fn response(user: &[u8], answer: &str) -> Vec<u8> {
        [user, b" ", answer.as_bytes(), b"\n"].concat()
    }
}
