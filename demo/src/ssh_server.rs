//! Lets one key in and runs its commands, as sshd would; the word `rsync` means our own binary, or nothing at all.

use russh::keys::PrivateKey;
use russh::keys::ssh_key::public::KeyData;
use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Preferred, cipher};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

use crate::node::Counters;
use crate::sftp::Files;

/// Packets on their way into a command, 32 KiB each at most.
const INPUT_QUEUE: usize = 64;

/// What may log in, and what it may do then.
pub(crate) struct Login {
    pub(crate) key: KeyData,
    /// The program that `rsync` means; without one, no program is found by its name alone.
    pub(crate) binary: Option<PathBuf>,
    /// Where a login begins.
    pub(crate) home: PathBuf,
    pub(crate) counters: Arc<Counters>,
}

impl Login {
    /// The server's side of one connection.
    pub(crate) fn handler(&self) -> Connection {
        Connection {
            key: self.key.clone(),
            binary: self.binary.clone(),
            home: self.home.clone(),
            channels: HashMap::new(),
            counters: Arc::clone(&self.counters),
            inputs: HashMap::new(),
        }
    }
}

/// Keys only, and ciphers of `ring`, which are fast in every build.
pub(crate) fn config(host_key: PrivateKey) -> Config {
    Config {
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(50),
        keys: vec![host_key],
        preferred: Preferred {
            cipher: Cow::Borrowed(&[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]),
            ..Preferred::DEFAULT
        },
        ..Config::default()
    }
}

/// One connection. Commands lose their input when it goes, and so they end.
pub(crate) struct Connection {
    key: KeyData,
    binary: Option<PathBuf>,
    home: PathBuf,
    counters: Arc<Counters>,
    /// Channels of which nobody knows yet what they are for.
    channels: HashMap<ChannelId, Channel<Msg>>,
    /// By channel, the way to the command's standard input.
    inputs: HashMap<ChannelId, mpsc::Sender<Vec<u8>>>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        if *key.public_key.key_data() != self.key {
            return Ok(Auth::reject());
        }
        self.counters.logins.fetch_add(1, Ordering::Relaxed);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        match start(command, self.binary.as_deref(), &self.home) {
            Ok(child) => {
                session.channel_success(channel)?;
                self.inputs.insert(channel, attend(child, channel, session.handle()));
            }
            Err(error) => {
                eprintln!("Storage node: {}: {error}", String::from_utf8_lossy(command));
                session.channel_failure(channel)?;
            }
        }
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        match self.channels.remove(&id).filter(|_| name == "sftp") {
            Some(channel) => {
                session.channel_success(id)?;
                russh_sftp::server::run(channel.into_stream(), Files::new(self.home.clone())).await;
            }
            None => session.channel_failure(id)?,
        }
        Ok(())
    }

    /// Waiting here holds up the whole connection, and that is the back-pressure. It cannot hold it up for ever, since
    /// a command's output is taken from it without any limit.
    async fn data(&mut self, channel: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Self::Error> {
        let ended = match self.inputs.get(&channel) {
            Some(input) => input.send(data.to_vec()).await.is_err(),
            None => false,
        };
        if ended {
            self.inputs.remove(&channel);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.inputs.remove(&channel);
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.inputs.remove(&channel);
        Ok(())
    }
}

/// Starts a command: ours for `rsync`, anything else by the shell.
fn start(command: &[u8], binary: Option<&Path>, home: &Path) -> std::io::Result<Child> {
    let line = std::str::from_utf8(command).map_err(std::io::Error::other)?;
    let words = shlex::split(line).unwrap_or_default();
    let mut child = match (words.split_first(), binary) {
        (Some((program, rest)), Some(binary)) if program == "rsync" => {
            let mut child = Command::new(binary);
            child.args(rest);
            child
        }
        _ => {
            let mut child = Command::new("/bin/sh");
            child.arg("-c").arg(line).current_dir(home);
            if binary.is_none() {
                child.env("PATH", "/nowhere");
            }
            child
        }
    };
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Output of a command, on its way to the client.
enum Output {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// Joins a command with its channel: threads at its pipes, a task at the connection.
fn attend(mut child: Child, channel: ChannelId, connection: Handle) -> mpsc::Sender<Vec<u8>> {
    let (input, mut incoming) = mpsc::channel::<Vec<u8>>(INPUT_QUEUE);
    let (outgoing, mut output) = mpsc::unbounded_channel();
    let (ended, end) = oneshot::channel();
    if let Some(mut stdin) = child.stdin.take() {
        std::thread::spawn(move || {
            while let Some(bytes) = incoming.blocking_recv() {
                if stdin.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
    }
    if let Some(stdout) = child.stdout.take() {
        let outgoing = outgoing.clone();
        std::thread::spawn(move || drain(stdout, &outgoing, Output::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        std::thread::spawn(move || drain(stderr, &outgoing, Output::Stderr));
    }
    std::thread::spawn(move || ended.send(child.wait()));
    tokio::spawn(async move {
        // Ends when both pipes have ended.
        while let Some(piece) = output.recv().await {
            let sent = match piece {
                Output::Stdout(bytes) => connection.data(channel, bytes).await,
                Output::Stderr(bytes) => connection.extended_data(channel, 1, bytes).await,
            };
            if sent.is_err() {
                return;
            }
        }
        let _ = connection.eof(channel).await;
        if let Ok(Ok(status)) = end.await {
            let _ = connection.exit_status_request(channel, code(status)).await;
        }
        let _ = connection.close(channel).await;
    });
    input
}

fn drain(mut pipe: impl Read, outgoing: &mpsc::UnboundedSender<Output>, wrap: fn(Vec<u8>) -> Output) {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(read) = pipe.read(&mut buffer) {
        if read == 0 || outgoing.send(wrap(buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}

/// The exit status as shells count it.
fn code(status: ExitStatus) -> u32 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u32::try_from(code).unwrap_or(255)
}
