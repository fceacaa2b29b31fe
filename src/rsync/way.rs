//! The way to a server: the words it is started with, and the link that comes of it.

use super::command_line::CommandLine;
use super::failure::SessionFailure;
use super::operands::{Host, Plan, RemoteHost};
use super::quoting::{self, Use};
use super::served;
use crate::exit;
use crate::link::{Link, SignOfLife};
use crate::local::Local;
use crate::transfer::charset;
use crate::transport::Connect;
use crate::transport::child::Child;
use crate::transport::ssh::{Remedies, Ssh, SshOptions};
use protocol::args::{Options, ServerArgs, table};
use protocol::filter::Rule;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// How long a silent far end is waited for without `--timeout`; stock rsync waits for ever.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long one that only helps is.
pub(super) const HELPERS_PATIENCE: Duration = Duration::from_secs(60);

/// Who goes this way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traveller {
    /// The session of the command.
    Client,
    /// One that helps it, of whose troubles nobody is told.
    Helper,
}

/// The way to a server.
pub(super) struct Way<'a> {
    pub(super) line: &'a CommandLine,
    pub(super) plan: &'a Plan,
    pub(super) pull: bool,
    /// The protocol version to speak.
    pub(super) version: u8,
    /// The names of what to send are here (`--files-from`).
    pub(super) names_here: bool,
    /// The user's rules, for a server within this process.
    pub(super) rules: &'a [Rule],
    pub(super) traveller: Traveller,
}

impl Way<'_> {
    /// Whether the far end is a server that we start by a remote shell.
    pub(super) fn starts_server(&self) -> bool {
        self.plan.remote.as_ref().is_some_and(|remote| !remote.daemon)
    }

    /// Sends the arguments that the far end's shell is not to see (`-s`).
    pub(super) fn send_arguments(&self, link: &mut Link) -> Result<(), SessionFailure> {
        let words = self.words();
        let mut block = b"rsync\0".to_vec();
        for word in &words[secluded_from(&words)..] {
            let word = charset::to_peer(word, &self.line.options);
            block.extend_from_slice(if word.is_empty() { b"." } else { &word });
            block.push(0);
        }
        block.push(0);
        link.writer.write_all(&block).map_err(|error| SessionFailure {
            text: format!("rsync: Cannot send the arguments: {error}"),
            code: exit::STREAM,
        })
    }

    pub(super) fn shell_words(&self, shell: &[u8]) -> Result<Vec<Vec<u8>>, SessionFailure> {
        quoting::split(shell).map_err(|quote| SessionFailure {
            text: format!("Missing trailing-{} in remote-shell command.", char::from(quote)),
            code: exit::SYNTAX,
        })
    }

    /// What the server is told; `path` and `word` quote for whoever reads it first.
    pub(super) fn server_args(
        &self,
        path: &dyn Fn(&[u8], &Options) -> Vec<u8>,
        word: &dyn Fn(&[u8], &Options) -> Vec<u8>,
    ) -> ServerArgs {
        let mut options = self.line.options.clone();
        // Who receives lists what it would receive.
        options.list_only &= !self.pull;
        if self.names_here {
            options.files_from = None;
        }
        let mut words = self.line.peer_words.clone();
        words.append(&mut options.remote_options);
        options.remote_options = words.iter().map(|given| word(given, &options)).collect();
        // A local copy is two ends of one command: what keeps to its own end by a remote shell holds for both, unless what
        // is said of the other alone says otherwise.
        if self.plan.remote.is_none() {
            let both = [(options.fake_super, table::FAKE_SUPER), (options.super_user == Some(false), table::NO_SUPER)];
            let both = both.into_iter().filter(|(holds, _)| *holds).map(|(_, option)| option.word());
            let info = std::mem::take(&mut options.info).in_full(options.verbose).whole_word();
            let debug = options.debug.in_full(options.verbose).whole_word();
            let both = both.chain(info).chain(debug).map(String::into_bytes);
            options.remote_options.splice(..0, both);
        }
        let there = if self.pull { &self.plan.sources[..] } else { self.plan.destination.as_slice() };
        let paths = there.iter().map(|given| path(given, &options)).collect();
        ServerArgs { sender: self.pull, paths, options, old: self.version < 30, ..ServerArgs::default() }
    }

    /// What the server is told, `--server` first.
    fn words(&self) -> Vec<Vec<u8>> {
        let how = if self.pull { Use::Source } else { Use::Destination };
        let local = self.plan.remote.is_none();
        let path = |path: &[u8], options: &Options| match (local, path.is_empty()) {
            (true, false) => path.to_vec(),
            _ => quoting::path(path, how, options),
        };
        if local {
            return self.server_args(&path, &|word, _| word.to_vec()).to_words();
        }
        let args = self.server_args(&path, &quoting::option);
        let mut words = args.to_words();
        let given = self.line.options.remote_options.len() + self.line.peer_words.len();
        let end = words.len() - args.paths.len() - 1;
        for word in &mut words[1..end - given] {
            *word = quoting::option(word, &args.options);
        }
        if args.options.secluded_args {
            let bundle = if self.pull { 2 } else { 1 };
            words[bundle].insert(1, b's');
        }
        words
    }

    /// How long a silent far end is waited for.
    fn patience(&self) -> Duration {
        let limit = self.line.options.timeout.filter(|&seconds| seconds > 0);
        let limit = limit.map_or(PATIENCE, |seconds| Duration::from_secs(seconds.into()));
        if self.traveller == Traveller::Helper { limit.min(HELPERS_PATIENCE) } else { limit }
    }

    /// The SSH within, where this way goes by it.
    pub(super) fn ssh_within(&self) -> Result<Option<Ssh>, SessionFailure> {
        let remote = self.plan.remote.as_ref().filter(|remote| !remote.daemon && self.line.rsh.is_none());
        remote.map(|RemoteHost { host, .. }| Self::ssh(host, self.patience())).transpose()
    }

    /// Starts the server; `tell` hears the words that do, and `kept` is the connection for further servers.
    pub(super) fn connect(&self, kept: &mut Option<Ssh>, tell: &dyn Fn(&[Vec<u8>])) -> Result<Link, SessionFailure> {
        let words = self.words();
        let limit = self.patience();
        let Some(RemoteHost { host, .. }) = &self.plan.remote else {
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            let far = Local::reading(served::operators, self.rules).open(&words);
            // Whoever else takes these words for a server ends before it has spoken.
            return far.map_err(|error| SessionFailure { text: format!("rsync: {error}"), code: exit::STREAM });
        };
        let cut = if self.line.options.secluded_args { secluded_from(&words) } else { words.len() };
        let visible = &words[..cut];
        let program = self.line.rsync_path.clone().unwrap_or_else(|| b"rsync".to_vec());
        let Some(shell) = &self.line.rsh else {
            let mut told = vec![b"ssh".to_vec(), host.name.clone(), program.clone()];
            told.extend(visible.iter().cloned());
            tell(&told);
            let mut ssh = kept.take().map_or_else(|| Self::ssh(host, limit), Ok)?;
            let link = ssh.open_line(&shell_line(&program, visible))?;
            *kept = Some(ssh);
            return Ok(link);
        };
        let mut command = self.shell_words(shell)?;
        if let Some(user) = &host.user {
            command.extend([b"-l".to_vec(), user.clone()]);
        }
        command.extend([host.name.clone(), program]);
        command.extend(visible.iter().cloned());
        tell(&command);
        let command = command.into_iter().map(OsString::from_vec).collect();
        let child = Child::local(command).stall_limit(Some(limit));
        let mut child = if self.traveller == Traveller::Client { child.shares_stderr() } else { child };
        let link = child.open(&[]);
        link.map_err(|error| SessionFailure { text: format!("rsync: {error}"), code: exit::IPC })
    }

    /// The SSH within.
    pub(super) fn ssh(host: &Host, limit: Duration) -> Result<Ssh, SessionFailure> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut options = SshOptions::new(text(&host.name));
        options.user = host.user.as_deref().map(text);
        options.stall_timeout = limit;
        options.alive = SignOfLife::AnyByte;
        options.remedies = Remedies::Command;
        Ok(Ssh::new(options)?)
    }
}

/// The words as one line for the shell over there, which are quoted already.
fn shell_line(program: &[u8], words: &[Vec<u8>]) -> String {
    let mut line = String::from_utf8_lossy(program).into_owned();
    for word in words {
        line.push(' ');
        for chunk in word.utf8_chunks() {
            line.push_str(chunk.valid());
            // The bindings of libssh2 take only UTF-8; the shell over there makes the other bytes.
            for byte in chunk.invalid() {
                line.push_str(&format!("\"$(printf '\\{byte:03o}')\""));
            }
        }
    }
    line
}

/// How many words a server sees when the others travel by the connection.
fn secluded_from(words: &[Vec<u8>]) -> usize {
    let sender = words.get(1).is_some_and(|word| word == b"--sender");
    let bundle = if sender { 3 } else { 2 };
    bundle + words[bundle.min(words.len())..].iter().take_while(|word| word.starts_with(b"--iconv=")).count()
}
