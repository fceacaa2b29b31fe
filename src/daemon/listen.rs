//! The listener: takes connections, and starts a process for each.

use super::config::{Config, ConfigError, DaemonVariables};
use super::flags::DaemonFlags;
use super::journal::Journal;
use super::journal_of;
use crate::exit;
use crate::lock::{Lock, Taken};
use crate::transport::tcp::{self, SocketOptions};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Connections at once; further ones are told to come again.
const CONNECTIONS_MOST: usize = 512;
/// Of these so many may come from one address and not have said yet what they want: nobody keeps all others out by silence.
const WAITING_MOST: usize = CONNECTIONS_MOST / 8;
/// The port of rsync daemons.
const PORT: u16 = 873;
/// How many that are turned away are heard out at once, and for how long.
const LEAVING_MOST: usize = 64;
const LEAVING: Duration = Duration::from_secs(2);
/// This very program, even when its file has been replaced.
const SELF: &str = "/proc/self/exe";
/// How long to rest when the system has no descriptors left for a client.
const SHORTAGE: Duration = Duration::from_millis(200);

/// Why a daemon does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Its port.
    #[error("Cannot listen on {address} port {port}: {source}")]
    Bind {
        address: String,
        port: u16,
        /// The system's words.
        source: io::Error,
    },
    /// Something of the system's.
    #[error("{what}: {source}")]
    System {
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// A wrong word in an option.
    #[error("{0}")]
    Usage(String),
    /// The daemon in the background says why it does not run.
    #[error("{0}")]
    Background(String),
}

impl ListenError {
    /// The exit code that rsync gives for it.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_) | Self::Usage(_) => exit::SYNTAX,
            Self::Bind { .. } => exit::SOCKET,
            Self::System { .. } | Self::Background(_) => exit::FILE,
        }
    }
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> ListenError {
    let what = what.into();
    move |source| ListenError::System { what, source }
}

/// Listens until a signal ends it; in the background unless the command line says otherwise.
pub(super) fn listen(flags: &DaemonFlags) -> Result<(), ListenError> {
    if !flags.no_detach && !flags.detached {
        return detach();
    }
    let environment = DaemonVariables::of_process();
    let config = flags.config(&environment)?;
    let options = flags.sockopts.clone().or_else(|| config.globals.socket_options.clone());
    let options = SocketOptions::parse(options.as_deref().unwrap_or_default()).map_err(ListenError::Usage)?;
    let listeners = bind(flags, &config, &options)?;
    let journal = journal_of(flags, &config.globals, &environment);
    let pid_file = config.globals.pid_file.as_deref().map(|path| environment.expand(path));
    let pid_file = pid_file.map(|path| PidFile::write(Path::new(&path))).transpose()?;
    let port = listeners.first().and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port());
    let version = env!("CARGO_PKG_VERSION");
    journal.say(&format!("rsyncd version {version} (pysmurf-archiver) starting, listening on port {port}"));
    if config.globals.proxy_protocol && config.globals.proxy_protocol_hosts.is_none() {
        journal.warn(
            "\"proxy protocol = true\" but \"proxy protocol hosts\" is unset: all connections will be rejected as untrusted \
             proxy peers.  Set \"proxy protocol hosts\" to your trusted proxy's address.",
        );
    }
    if flags.detached {
        let _ = rustix::process::setsid();
        let _ = io::stdout().write_all(b"ready\n").and_then(|()| io::stdout().flush());
        nowhere().map_err(system("Cannot leave the terminal"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("Cannot start the clockwork"))?;
    runtime.block_on(serve(flags, listeners, options, journal, environment))?;
    drop(pid_file);
    Ok(())
}

/// Starts us again in the background, and waits until that one listens or says why not.
fn detach() -> Result<(), ListenError> {
    let mut child = std::process::Command::new(SELF)
        .args(std::env::args_os().skip(1))
        .arg("--detached")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(system("Cannot start in the background"))?;
    let mut word = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut word).map_err(system("Cannot hear the background"))?;
    }
    if word.trim() == "ready" {
        return Ok(());
    }
    let mut why = String::new();
    if let Some(stderr) = child.stderr.take() {
        io::Read::read_to_string(&mut BufReader::new(stderr), &mut why)
            .map_err(system("Cannot hear the background"))?;
    }
    let _ = child.wait();
    Err(ListenError::Background(why.trim().trim_start_matches("rsync --daemon: ").to_owned()))
}

/// Lets go of the three standard streams.
fn nowhere() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

fn bind(
    flags: &DaemonFlags,
    config: &Config,
    options: &SocketOptions,
) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let configured = u16::try_from(config.globals.port).ok().filter(|&port| port > 0);
    let port = flags.port.or(configured).unwrap_or(PORT);
    let named = flags.address.clone().or_else(|| config.globals.address.clone());
    let address = named.clone().unwrap_or_else(|| "any address".into());
    let failed = |source| ListenError::Bind { address: address.clone(), port, source };
    let wanted = |found: &SocketAddr| (!flags.ipv4 || found.is_ipv4()) && (!flags.ipv6 || found.is_ipv6());
    let places: Vec<SocketAddr> = match &named {
        Some(name) => (name.as_str(), port).to_socket_addrs().map_err(failed)?.filter(wanted).collect(),
        None => [("::", port), ("0.0.0.0", port)]
            .into_iter()
            .flat_map(|place| place.to_socket_addrs().into_iter().flatten())
            .filter(wanted)
            .collect(),
    };
    let backlog = i32::try_from(config.globals.listen_backlog).unwrap_or(5);
    let mut listeners = Vec::new();
    let mut trouble = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address of that kind");
    for place in places {
        match tcp::listen(place, backlog, options) {
            Ok(listener) => listeners.push(listener),
            Err(error) => trouble = error,
        }
    }
    // One family of two may be missing on this machine.
    if listeners.is_empty() { Err(failed(trouble)) } else { Ok(listeners) }
}

async fn serve(
    flags: &DaemonFlags,
    listeners: Vec<std::net::TcpListener>,
    options: SocketOptions,
    mut journal: Journal,
    environment: DaemonVariables,
) -> Result<(), ListenError> {
    let signals = "Cannot listen for signals";
    let mut end = signal(SignalKind::terminate()).map_err(system(signals))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system(signals))?;
    let mut again = signal(SignalKind::hangup()).map_err(system(signals))?;
    let mut accepting = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true).map_err(system("Cannot listen"))?;
        let listener = TcpListener::from_std(listener).map_err(system("Cannot listen"))?;
        accepting.spawn(accept(listener));
    }
    let mut connections: JoinSet<()> = JoinSet::new();
    let waiting = Waiting::default();
    let mut leaving: JoinSet<()> = JoinSet::new();
    loop {
        tokio::select! {
            _ = end.recv() => break,
            _ = interrupt.recv() => break,
            _ = again.recv() => match flags.config(&environment) {
                Ok(config) => journal = journal_of(flags, &config.globals, &environment),
                Err(error) => journal.warn(&format!("The configuration was not read again: {error}")),
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            Some(_) = leaving.join_next(), if !leaving.is_empty() => {}
            Some(Ok((listener, stream))) = accepting.join_next() => {
                accepting.spawn(accept(listener));
                let Ok(stream) = stream else {
                    tokio::time::sleep(SHORTAGE).await;
                    continue;
                };
                if connections.len() >= CONNECTIONS_MOST {
                    journal.warn(&format!("{CONNECTIONS_MOST} connections at once reached"));
                    turn_away(stream, &mut leaving);
                    continue;
                }
                let from = stream.peer_addr().ok().map(|from| from.ip());
                let Some(place) = waiting.place(from) else {
                    let from = from.map_or_else(|| "?".into(), |from| from.to_string());
                    journal.warn(&format!("{WAITING_MOST} connections from {from} at once have not said what they want"));
                    turn_away(stream, &mut leaving);
                    continue;
                };
                match start(flags, stream, &options) {
                    Ok(child) => {
                        connections.spawn(wait(child, place));
                    }
                    Err(error) => journal.warn(&format!("Cannot serve a connection: {error}")),
                }
            }
        }
    }
    journal.say("sent SIGTERM; the daemon ends, its connections go on to theirs");
    // A process that serves a client is not ours to interrupt.
    connections.detach_all();
    Ok(())
}

async fn accept(listener: TcpListener) -> (TcpListener, io::Result<TcpStream>) {
    let accepted = listener.accept().await.map(|(stream, _)| stream);
    (listener, accepted)
}

/// Waits for the end of a connection, and gives its place among those that wait back as soon as its session begins.
async fn wait(mut child: Child, place: ConnectionPlace) {
    if let Some(mut told) = child.stdout.take() {
        // Its end is all that is ever told.
        let _ = told.read(&mut [0]).await;
    }
    drop(place);
    let _ = child.wait().await;
}

/// How many connections from each address have not come to their session.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<HashMap<Option<IpAddr>, usize>>>);

impl Waiting {
    fn counts(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, usize>> {
        // A number is never half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more; `None` where the address has all that it may have.
    fn place(&self, from: Option<IpAddr>) -> Option<ConnectionPlace> {
        let from = from.map(neighbourhood);
        let mut counts = self.counts();
        let count = counts.entry(from).or_default();
        if *count == WAITING_MOST {
            return None;
        }
        *count += 1;
        Some(ConnectionPlace { from, all: self.clone() })
    }
}

struct ConnectionPlace {
    from: Option<IpAddr>,
    all: Waiting,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.from);
            }
        }
    }
}

/// What counts as one address: with IPv6 all that one household has.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

fn start(flags: &DaemonFlags, stream: TcpStream, options: &SocketOptions) -> io::Result<Child> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    options.apply(&stream)?;
    let mut command = Command::new(SELF);
    command.args(flags.for_connection()).stdin(OwnedFd::from(stream)).stdout(Stdio::piped());
    command.spawn()
}

/// Says in few words that there is no room, and hears the client out for a moment: a connection that is closed while it
/// speaks is reset, and the words are lost.
fn turn_away(mut stream: TcpStream, leaving: &mut JoinSet<()>) {
    let greeting = protocol::daemon::Greeting::line(protocol::handshake::VERSION_MOST);
    let text = format!("@ERROR: max connections ({CONNECTIONS_MOST}) reached -- try again later\n");
    let _ = stream.try_write(&[&greeting[..], text.as_bytes()].concat());
    if leaving.len() < LEAVING_MOST {
        leaving.spawn(async move {
            let _ = stream.shutdown().await;
            let hear_out = async { while let Ok(1..) = stream.read(&mut [0; 1024]).await {} };
            let _ = tokio::time::timeout(LEAVING, hear_out).await;
        });
    }
}

/// Our process id in a file, for as long as we run.
struct PidFile {
    path: std::path::PathBuf,
    _lock: Lock,
}

impl PidFile {
    fn write(path: &Path) -> Result<Self, ListenError> {
        let what = || format!("Cannot write the pid file {}", path.display());
        let file = crate::disk::open_operator_lock(path).map_err(system(what()))?;
        let lock = Lock::take(file).map_err(|taken| match taken {
            Taken::ByAnother => {
                system(format!("{}; another daemon holds it", what()))(io::ErrorKind::WouldBlock.into())
            }
            Taken::NoLocks(_, error) => system(what())(error),
        })?;
        lock.file().set_len(0).map_err(system(what()))?;
        lock.file().write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(system(what()))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_some_of_the_places() {
        let waiting = Waiting::default();
        let place = |from: &str| waiting.place(Some(from.parse().unwrap()));
        for (one, same, other) in
            [("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")]
        {
            let mut held: Vec<_> = (0..WAITING_MOST).map(|_| place(one).unwrap()).collect();
            assert!(place(one).is_none() && place(same).is_none());
            assert!(place(other).is_some());
            held.pop();
            assert!(place(same).is_some());
            drop(held);
        }
        assert!(waiting.counts().is_empty());
    }
}
