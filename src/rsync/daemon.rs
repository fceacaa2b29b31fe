//! A client's way to a daemon: by TCP, through a proxy, or by a remote shell. Counterpart: rsync's `start_socket_client`
//! and `start_inband_exchange`.

mod password;
mod reach;

use crate::exit;
use crate::link::Link;
use crate::transport::ConnectError;
use crate::transport::tcp::Family;
use protocol::PeerError;
use protocol::args::ServerArgs;
use protocol::daemon::{ArgList, AuthDigest, Client, ClientEvent, Greeting};
use std::ffi::OsString;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::time::Duration;

/// The newest protocol whose daemons know nothing better than MD4.
const LAST_WITH_MD4: u8 = 29;

/// Where a daemon is: of `rsync://[user@]host[:port]/` or `[user@]host::`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Site {
    /// Name or address, without brackets.
    pub host: String,
    /// The port of the URL.
    pub port: Option<u16>,
    /// Whom to log in as.
    pub user: Option<String>,
}

/// A remote shell that starts a daemon for us alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shell {
    /// The words of `-e`, with the login's options and the host.
    pub words: Vec<OsString>,
    /// `--rsync-path`: text for the shell over there.
    pub program: OsString,
}

/// How to reach it.
#[derive(Debug, Clone)]
pub struct Call {
    /// `--port`; a port of the [`Site`] goes first.
    pub port: Option<u16>,
    /// `--address`: our own.
    pub address: Option<String>,
    /// `-4` or `-6`.
    pub family: Family,
    /// `--sockopts`.
    pub sockopts: Option<String>,
    /// `--contimeout`: until the connection stands and the daemon has greeted.
    pub contimeout: Option<Duration>,
    /// `--timeout`: no byte moves for so long.
    pub timeout: Option<Duration>,
    /// `--no-motd`.
    pub no_motd: bool,
    /// `--password-file`; `-` is standard input.
    pub password_file: Option<PathBuf>,
    /// `--early-input`.
    pub early_input: Option<PathBuf>,
    /// The remote shell of an explicit `-e`, instead of TCP.
    pub shell: Option<Shell>,
    /// The protocol version we announce (`--protocol`).
    pub version: u8,
    /// The user is told which connection is opened.
    pub tells_connection: bool,
    /// The user is told the words that the daemon gets.
    pub tells_words: bool,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            port: None,
            address: None,
            family: Family::Any,
            sockopts: None,
            contimeout: None,
            timeout: None,
            no_motd: false,
            password_file: None,
            early_input: None,
            shell: None,
            version: protocol::handshake::VERSION_MOST,
            tells_connection: false,
            tells_words: false,
        }
    }
}

/// A module that has let us in: next on the wire is what the server says in the handshake.
pub struct Connected {
    /// The way there.
    pub link: Link,
    /// The version agreed on.
    pub version: u8,
}

/// Why no session came of it.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The daemon says so, in these words.
    #[error("{0}")]
    Refused(String),
    /// There is no way to it.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// It is no rsync daemon, or a broken one.
    #[error("{0}")]
    Peer(#[from] PeerError),
    /// The connection broke or stood still.
    #[error("Connection to the daemon lost: {0}")]
    Link(#[from] io::Error),
    /// An option, file or variable on this side cannot be used.
    #[error("{0}")]
    Usage(String),
}

impl DaemonError {
    /// The exit code that rsync gives for it.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Refused(_) => exit::START,
            Self::Connect(ConnectError::Timeout { .. }) => exit::CONNECT_TIMEOUT,
            Self::Connect(ConnectError::Setup(_)) | Self::Usage(_) => exit::SYNTAX,
            Self::Connect(_) => exit::SOCKET,
            Self::Peer(PeerError::Version(_) | PeerError::TooOld(_)) => exit::PROTOCOL,
            Self::Link(error) if error.kind() == io::ErrorKind::TimedOut => exit::TIMEOUT,
            // It hung up before there was a session.
            Self::Peer(_) | Self::Link(_) => exit::START,
        }
    }
}

/// Connects, logs in to the module that the first path of `args` begins with, and hands over the arguments. `say` gets the
/// lines of the message of the day.
pub fn connect(
    site: &Site,
    call: &Call,
    args: &ServerArgs,
    say: &mut dyn FnMut(&[u8]),
) -> Result<Connected, DaemonError> {
    let path = args.paths.first().map(Vec::as_slice).unwrap_or_default();
    let module = path.split(|&byte| byte == b'/').next().unwrap_or_default();
    if module.is_empty() || module.starts_with(b"#") || module.iter().any(u8::is_ascii_control) {
        let text = String::from_utf8_lossy(module).escape_debug().to_string();
        return Err(DaemonError::Usage(format!("{text:?} cannot be a module's name; write host::module/path")));
    }
    let mut exchange = Exchange::start(site, call, say)?;
    let version = exchange.log_in(site, call, Some(module), say)?;
    let words = ServerArgs { old: version < 30, ..args.clone() }.to_words();
    if call.tells_words {
        let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        say(format!("sending daemon args: {}  ({} args)", shown.join(" "), words.len()).as_bytes());
    }
    let visible = words.iter().position(|word| word.starts_with(b"-") && !word.starts_with(b"--"));
    let end = ArgList::end_of(version);
    let bytes = match visible.filter(|_| ArgList::is_secluded(&words)) {
        Some(last) => {
            let hidden: Vec<_> = std::iter::once(b"rsync".to_vec()).chain(words[last + 1..].iter().cloned()).collect();
            [ArgList::encode(&words[..=last], end), ArgList::encode(&hidden, 0)].concat()
        }
        None => match words.iter().find(|word| word.contains(&end)) {
            None => ArgList::encode(&words, end),
            Some(word) => {
                let word = String::from_utf8_lossy(word).escape_debug().to_string();
                let text =
                    format!("protocol {version} ends arguments with lines, and cannot tell of \"{word}\"; use -s");
                return Err(DaemonError::Usage(text));
            }
        },
    };
    exchange.say(&bytes)?;
    Ok(Connected { version, link: exchange.into_link() })
}

/// Asks for the list of modules. `say` gets its lines, and before them those of the message of the day.
pub fn list_modules(site: &Site, call: &Call, say: &mut dyn FnMut(&[u8])) -> Result<(), DaemonError> {
    Exchange::start(site, call, say)?.log_in(site, call, None, say).map(|_| ())
}

/// The conversation before the session.
struct Exchange {
    link: Link,
    client: Client,
}

impl Exchange {
    fn start(site: &Site, call: &Call, say: &mut dyn FnMut(&[u8])) -> Result<Self, DaemonError> {
        if call.tells_connection && call.shell.is_none() {
            let port = site.port.or(call.port).unwrap_or(reach::PORT);
            say(format!("opening tcp connection to {} port {port}", site.host).as_bytes());
        }
        Ok(Self { link: reach::reach(site, call)?, client: Client::new() })
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), DaemonError> {
        let said = self.link.writer.write_all(bytes).and_then(|()| self.link.writer.flush());
        said.map_err(|error| self.why_deaf().unwrap_or(error.into()))
    }

    /// What a daemon has said that does not listen any more.
    fn why_deaf(&mut self) -> Option<DaemonError> {
        loop {
            match self.hear() {
                Ok(ClientEvent::Refused(line)) => {
                    return Some(DaemonError::Refused(crate::disk::shown(&line)));
                }
                Ok(ClientEvent::Exit) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn hear(&mut self) -> Result<ClientEvent, DaemonError> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(event) = self.client.poll()? {
                return Ok(event);
            }
            match self.link.reader.read(&mut buffer) {
                Ok(0) => {
                    let said = self.link.remote.stderr();
                    let why = if said.trim().is_empty() { "it hung up".to_owned() } else { said.trim().to_owned() };
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why).into());
                }
                Ok(n) => self.client.feed(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Talks until the module is ours, or the list of modules has been said; returns the version agreed on.
    fn log_in(
        &mut self,
        site: &Site,
        call: &Call,
        module: Option<&[u8]>,
        say: &mut dyn FnMut(&[u8]),
    ) -> Result<u8, DaemonError> {
        self.say(&Greeting::line(call.version))?;
        let ClientEvent::Greeted(greeting) = self.hear()? else {
            return Err(PeerError::Malformed("no greeting").into());
        };
        let mut request = Vec::new();
        if let Some(path) = &call.early_input {
            request.extend(Client::early_input(&password::early_input(path)?));
        }
        request.extend(Client::request(module));
        self.say(&request)?;
        loop {
            match self.hear()? {
                // A listing looks like a message of the day, and goes with it, as in stock.
                ClientEvent::Text(line) if !call.no_motd => say(&line),
                ClientEvent::Text(_) => {}
                ClientEvent::Challenge(challenge) => {
                    let digest = greeting.digest(call.version);
                    let digest = digest.ok_or(PeerError::NotOffered("a digest that we know for its challenge"))?;
                    // Who names an old protocol asks for what belongs to it.
                    if digest > AuthDigest::WEAKEST && call.version > LAST_WITH_MD4 {
                        return Err(DaemonError::Refused(format!(
                            "The daemon takes no better proof of the password than {}, from which others could find it \
                             out; if that is to be, say --protocol={LAST_WITH_MD4}",
                            digest.name()
                        )));
                    }
                    let user = password::user(site)?;
                    let secret = password::password(call)?;
                    self.say(&Client::response(user.as_bytes(), &digest.answer(&secret, &challenge)))?;
                }
                ClientEvent::Accepted if module.is_some() => return Ok(greeting.agreed(call.version)),
                ClientEvent::Exit if module.is_none() => return Ok(greeting.agreed(call.version)),
                ClientEvent::Refused(line) => {
                    return Err(DaemonError::Refused(crate::disk::shown(&line)));
                }
                ClientEvent::Greeted(_) | ClientEvent::Accepted | ClientEvent::Exit => {
                    return Err(PeerError::Malformed("an answer to another question").into());
                }
            }
        }
    }

    fn into_link(self) -> Link {
        let Link { reader, writer, closer, remote, patience } = self.link;
        let rest = Cursor::new(self.client.into_rest());
        Link { reader: Box::new(rest.chain(reader)), writer, closer, remote, patience }
    }
}
