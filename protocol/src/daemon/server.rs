//! The daemon's end of the greeting.

use super::lines::Lines;
use super::{ArgList, Greeting};
use crate::PeerError;
use crate::handshake::VERSION_MOST;

/// Most bytes a client may send for the early command, as stock takes.
pub const EARLY_INPUT_MOST: usize = 5120;

/// What a client says before the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// Its greeting.
    Greeted(Greeting),
    /// Input for the early command.
    EarlyInput(Vec<u8>),
    /// It asks for the list of modules.
    List,
    /// It asks for a module. [`Server::challenge`] or [`Server::accept`] says what comes next.
    Module(Vec<u8>),
    /// Its answer to the challenge. [`Server::accept`] comes next.
    Response {
        /// Who it says it is.
        user: Vec<u8>,
        /// The proof.
        answer: Vec<u8>,
    },
    /// The server's arguments, `--server` first; the session begins.
    Args(Vec<Vec<u8>>),
}

#[derive(Debug)]
enum ServerState {
    Greeting,
    Request {
        early: bool,
    },
    EarlyInput(usize),
    /// Our side is to speak.
    Ours,
    Response,
    Args(ArgList),
    /// What `-s` put aside; the visible arguments are kept.
    Secluded(Vec<Vec<u8>>, ArgList),
    Over,
}

/// What a client says to its daemon until the session begins.
#[derive(Debug)]
pub struct Server {
    lines: Lines,
    state: ServerState,
    /// What stands behind each argument.
    end: u8,
}

impl Default for Server {
    fn default() -> Self {
        Self { lines: Lines::default(), state: ServerState::Greeting, end: 0 }
    }
}

impl Server {
    /// Nothing has been heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.lines.feed(bytes);
    }

    /// A challenge was sent.
    pub fn challenge(&mut self) {
        self.state = ServerState::Response;
    }

    /// The client was accepted.
    pub fn accept(&mut self) {
        self.state = ServerState::Args(ArgList::new(self.end));
    }

    /// The next thing that was said, as far as the bytes go.
    pub fn poll(&mut self) -> Result<Option<ServerEvent>, PeerError> {
        loop {
            match &mut self.state {
                ServerState::Greeting => {
                    let Some(line) = self.lines.line()? else { return Ok(None) };
                    self.state = ServerState::Request { early: true };
                    let greeting = Greeting::parse(&line)?;
                    self.end = ArgList::end_of(greeting.agreed(VERSION_MOST));
                    return Ok(Some(ServerEvent::Greeted(greeting)));
                }
                ServerState::Request { early } => {
                    let early = *early;
                    let Some(line) = self.lines.line()? else { return Ok(None) };
                    if let Some(len) = line.strip_prefix(b"#early_input=").filter(|_| early) {
                        self.state = ServerState::EarlyInput(early_input_len(len)?);
                        continue;
                    }
                    self.state = ServerState::Ours;
                    return match &line[..] {
                        b"" | b"#list" => Ok(Some(ServerEvent::List)),
                        [b'#', ..] => Err(PeerError::Malformed("an unknown command before the session")),
                        _ => Ok(Some(ServerEvent::Module(line))),
                    };
                }
                ServerState::EarlyInput(len) => {
                    let Some(bytes) = self.lines.exact(*len) else { return Ok(None) };
                    self.state = ServerState::Request { early: false };
                    return Ok(Some(ServerEvent::EarlyInput(bytes)));
                }
                ServerState::Response => {
                    let Some(line) = self.lines.line()? else { return Ok(None) };
                    self.state = ServerState::Ours;
                    let space = line.iter().position(|&byte| byte == b' ');
                    let space = space.ok_or(PeerError::Malformed("an answer without a user"))?;
                    let (user, answer) = (line[..space].to_vec(), line[space + 1..].to_vec());
                    return Ok(Some(ServerEvent::Response { user, answer }));
                }
                ServerState::Args(list) => {
                    let Some(mut args) = complete(list, &mut self.lines)? else { return Ok(None) };
                    if ArgList::is_secluded(&args) {
                        // Before protocol 30 stock tells here what is to follow, too, behind a word that is no option.
                        args.truncate(args.iter().take_while(|arg| arg.starts_with(b"-")).count());
                        self.state = ServerState::Secluded(args, ArgList::new(0));
                        continue;
                    }
                    self.state = ServerState::Over;
                    return Ok(Some(ServerEvent::Args(args)));
                }
                ServerState::Secluded(visible, list) => {
                    let Some(hidden) = complete(list, &mut self.lines)? else { return Ok(None) };
                    let mut args = std::mem::take(visible);
                    // The first word is the program's name.
                    args.extend(hidden.into_iter().skip(1));
                    self.state = ServerState::Over;
                    return Ok(Some(ServerEvent::Args(args)));
                }
                ServerState::Ours | ServerState::Over => return Ok(None),
            }
        }
    }

    /// What came behind the arguments: the beginning of the session.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.lines.rest()
    }
}

fn complete(list: &mut ArgList, lines: &mut Lines) -> Result<Option<Vec<Vec<u8>>>, PeerError> {
    let bytes = lines.rest();
    let (used, done) = list.feed(&bytes)?;
    lines.feed(&bytes[used..]);
    Ok(done.then(|| list.take_args()))
}

fn early_input_len(text: &[u8]) -> Result<usize, PeerError> {
    let text = std::str::from_utf8(text).ok();
    let len = text.and_then(|text| text.parse().ok()).filter(|len| (1..=EARLY_INPUT_MOST).contains(len));
    len.ok_or(PeerError::Malformed("an early input of more than 5120 bytes"))
}
