//! Proves who we are: by the agent and by key files, never by password.

use super::config::{KeyFile, Named, SshTarget};
use super::drive::{CallFailure, await_socket, drive};
use crate::disk::dumps::leave_no_core;
use crate::transport::ConnectError;
use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use libssh2_sys as sys;
use ssh2::{Agent, ErrorCode, PublicKey, Session};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Failures after which many a server ends the connection.
const MANY: usize = 5;

/// libssh2's codes for "the server does not want this key", after which another may be tried.
const REFUSED: [i32; 2] = [sys::LIBSSH2_ERROR_AUTHENTICATION_FAILED, sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED];

/// How much of a server's list of methods is shown; that of a true one has a few dozen characters.
const ALLOWED_SHOWN: usize = 200;

/// How long a hang-up is waited for where there may have been one.
const HANG_UP: Duration = Duration::from_secs(1);

/// Its codes for a key that could not be read or used on this side; the connection is sound.
const UNUSABLE: [i32; 5] = [
    sys::LIBSSH2_ERROR_FILE,
    sys::LIBSSH2_ERROR_INVAL,
    sys::LIBSSH2_ERROR_METHOD_NOT_SUPPORTED,
    sys::LIBSSH2_ERROR_AGENT_PROTOCOL,
    sys::LIBSSH2_ERROR_KEYFILE_AUTH_FAILED,
];

/// Logs in, within the target's limit.
pub(super) fn authenticate(session: &Session, tcp: &TcpStream, target: &SshTarget) -> Result<(), ConnectError> {
    // Keys are read here.
    leave_no_core();
    let mut attempt = LoginAttempt {
        session,
        tcp,
        target,
        deadline: Instant::now() + target.auth_timeout,
        allowed: String::new(),
        tried: Vec::new(),
    };
    if attempt.login()? { Ok(()) } else { Err(attempt.failed("")) }
}

struct LoginAttempt<'a> {
    session: &'a Session,
    tcp: &'a TcpStream,
    target: &'a SshTarget,
    deadline: Instant,
    allowed: String,
    tried: Vec<String>,
}

impl LoginAttempt<'_> {
    /// The agent, if one is to be asked and answers, and the keys it holds.
    fn agent(&mut self) -> Option<(Agent, Vec<PublicKey>)> {
        let wanted = &self.target.agent;
        if wanted.none || (wanted.socket.is_none() && std::env::var_os("SSH_AUTH_SOCK").is_none()) {
            return None;
        }
        let found = self.session.agent().and_then(|mut agent| {
            if let Some(socket) = &wanted.socket {
                agent.set_identity_path(socket)?;
            }
            agent.connect()?;
            agent.list_identities()?;
            agent.identities().map(|identities| (agent, identities))
        });
        match found {
            Ok((_, identities)) if identities.is_empty() => self.tried.push("agent (holds no key)".to_owned()),
            Err(e) => self.tried.push(format!("agent (not usable: {})", e.message())),
            Ok(found) => return Some(found),
        }
        None
    }

    /// Asks with the method `none` what is allowed; that the server lets us in at once is.
    fn ask(&mut self) -> Result<bool, CallFailure> {
        let Self { session, target, .. } = *self;
        match drive(session, self.tcp, self.deadline, || session.auth_methods(&target.user).map(str::to_owned)) {
            Ok(methods) => self.allowed = methods.chars().take(ALLOWED_SHOWN).collect(),
            Err(_) if session.authenticated() => return Ok(true),
            Err(stop) => return Err(stop),
        }
        Ok(false)
    }

    /// In the order of `ssh`, but that files which somebody has named go before keys of the agent which nobody has: servers
    /// count failures, and end a connection after a few. One key alone is tried unasked, which saves a round trip.
    fn login(&mut self) -> Result<bool, ConnectError> {
        let target = self.target;
        let files: Vec<_> = target.keys.iter().map(|key| (key, public_half(&key.path))).collect();
        let (agent, identities) = self.agent().unzip();
        let identities = identities.unwrap_or_default();
        let is_filed = |identity: &&PublicKey| files.iter().any(|(_, half)| half.as_deref() == Some(identity.blob()));
        let is_held = |half: &Option<Vec<u8>>| {
            half.as_ref().is_some_and(|half| identities.iter().any(|identity| identity.blob() == half))
        };
        let (filed, others): (Vec<_>, Vec<_>) = identities.iter().partition(is_filed);
        let (named, unnamed): (Vec<_>, Vec<_>) = files
            .iter()
            .filter(|(_, half)| !is_held(half))
            .map(|(key, _)| *key)
            .partition(|key| key.named != Named::Default);
        let others = if target.agent.named_keys_only { Vec::new() } else { others };
        let there_are = named.iter().chain(&unnamed).filter(|key| key.path.exists()).count();
        let unasked = filed.len() + others.len() + there_are == 1;
        if !unasked && self.ask().map_err(|stop| self.broken(stop))? {
            return Ok(true);
        }
        let let_in = self.by_agent(agent.as_ref(), &filed)?
            || self.by_files(&named)?
            || self.by_agent(agent.as_ref(), &others)?
            || self.by_files(&unnamed)?;
        // Why we are kept out is known already: that it ends here says nothing more.
        Ok(let_in || (unasked && self.ask().unwrap_or(false)))
    }

    fn by_agent(&mut self, agent: Option<&Agent>, identities: &[&PublicKey]) -> Result<bool, ConnectError> {
        let Some(agent) = agent else { return Ok(false) };
        for identity in identities {
            let what = format!("agent key {}", identity.comment());
            if self.attempt(what, || agent.userauth(&self.target.user, identity))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn by_files(&mut self, keys: &[&KeyFile]) -> Result<bool, ConnectError> {
        for KeyFile { path, named } in keys {
            let unfit = match fitness(path) {
                Ok(Fitness::Usable) => None,
                Ok(Fitness::Encrypted) => Some(
                    "encrypted, and nobody is here to ask for its passphrase: load it into ssh-agent, or use a key without one"
                        .to_owned(),
                ),
                Ok(Fitness::Public) => Some("a public key, and no agent holds its private one".to_owned()),
                Ok(Fitness::Open(mode)) => Some(format!(
                    "ignored, as its permissions {mode:04o} are too open: nobody else may be able to read a private key; \
                     chmod 600 {}",
                    path.display()
                )),
                Err(e) if *named != Named::Here && e.kind() == ErrorKind::NotFound => continue,
                Err(e) if *named != Named::Here => Some(format!("not readable: {e}")),
                Err(e) => {
                    return Err(ConnectError::Setup(format!(
                        "Cannot read the key file {}: {e}; {}",
                        path.display(),
                        self.target.remedies.key()
                    )));
                }
            };
            if let Some(why) = unfit {
                self.tried.push(format!("{} ({why})", path.display()));
                continue;
            }
            let login = || self.session.userauth_pubkey_file(&self.target.user, None, path, None);
            if self.attempt(path.display().to_string(), login)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True when the server took it; false when it wants another.
    fn attempt(&mut self, what: String, call: impl FnMut() -> Result<(), ssh2::Error>) -> Result<bool, ConnectError> {
        match drive(self.session, self.tcp, self.deadline, call) {
            Ok(()) => Ok(true),
            Err(CallFailure::Failed(e)) => {
                let ErrorCode::Session(code) = e.code() else { return Err(self.broken(CallFailure::Failed(e))) };
                let local = UNUSABLE.contains(&code);
                if !local
                    && (!REFUSED.contains(&code)
                        || (code == sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED && self.has_ended()))
                {
                    return Err(self.broken(CallFailure::Failed(e)));
                }
                let why = if local { format!("not usable: {}", e.message()) } else { "refused".to_owned() };
                self.tried.push(format!("{what} ({why})"));
                Ok(false)
            }
            Err(stop) => Err(self.broken(stop)),
        }
    }

    /// Whether the server hung up. libssh2 gives a connection that ends while an answer is due the code of a signature that was
    /// refused, and at once for every key that follows; the socket shows the end a moment later.
    fn has_ended(&self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if await_socket(self.tcp, None, false, left.min(HANG_UP)).is_err() {
            return true;
        }
        match self.tcp.peek(&mut [0]) {
            Ok(bytes) => bytes == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn broken(&self, stop: CallFailure) -> ConnectError {
        match stop {
            CallFailure::TimedOut => ConnectError::Timeout {
                host: self.target.place(),
                limit: self.target.auth_timeout,
                stage: "authentication",
            },
            CallFailure::Failed(e) if self.tried.len() >= MANY => self.failed(&format!(
                "the server ended the attempt ({}), having been shown so many keys; name the right one, and have others left \
                 out by IdentitiesOnly yes in ~/.ssh/config; ",
                e.message()
            )),
            CallFailure::Failed(e) => self.failed(&format!("the server ended the attempt ({}); ", e.message())),
        }
    }

    fn failed(&self, before: &str) -> ConnectError {
        let tried =
            if self.tried.is_empty() { "nothing, as no key was found".to_owned() } else { self.tried.join(", ") };
        let allowed = if self.allowed.is_empty() { "nothing it named" } else { &self.allowed };
        let user = &self.target.user;
        ConnectError::Auth {
            user: user.clone(),
            host: self.target.place(),
            why: format!(
                "{before}tried {tried}; the server allows {allowed}. Add the public key to ~/.ssh/authorized_keys of {user} \
                 there, or {}",
                self.target.remedies.key()
            ),
        }
    }
}

/// What a key file is good for.
#[derive(Debug, PartialEq, Eq)]
enum Fitness {
    Usable,
    Encrypted,
    /// It holds the public half alone.
    Public,
    /// Others may read it: the permissions.
    Open(u32),
}

/// More than any key file holds.
const KEY_FILE_MOST: u64 = 1 << 20;

/// How an OpenSSH container begins, and how one that is not encrypted goes on: the name `none` of its cipher behind its length.
const MAGIC: &[u8] = b"openssh-key-v1\0";

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(KEY_FILE_MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// libssh2 says "unsupported format" of an encrypted key, and would use one that all may read; this does as `ssh` does.
fn fitness(path: &Path) -> io::Result<Fitness> {
    let text = read(path)?;
    if public_line(&text).is_some() {
        return Ok(Fitness::Public);
    }
    let meta = fs::metadata(path)?;
    if meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 != 0 {
        return Ok(Fitness::Open(meta.mode() & 0o7777));
    }
    let plain =
        container(&text).is_none_or(|blob| blob.get(MAGIC.len()..).is_some_and(|b| b.starts_with(b"\0\0\0\x04none")));
    Ok(if text.contains("ENCRYPTED") || !plain { Fitness::Encrypted } else { Fitness::Usable })
}

/// The public half of a key: in the file itself, or beside it with `.pub` behind its name. No passphrase guards it.
fn public_half(path: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let text = read(path).unwrap_or_default();
        if let Some(half) = container(&text).and_then(|blob| half_of(&blob)).or_else(|| public_line(&text)) {
            return Some(half);
        }
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    public_line(&read(Path::new(&beside)).ok()?)
}

/// The key of a line as in `id.pub`.
fn public_line(text: &str) -> Option<Vec<u8>> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name =
            words.next().filter(|name| ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| name.starts_with(prefix)))?;
        let blob = STANDARD.decode(words.next()?).ok()?;
        (string(&blob)?.0 == name.as_bytes()).then_some(blob)
    })
}

/// What an OpenSSH private key file holds.
fn container(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END")?;
    let blob = STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()?;
    blob.starts_with(MAGIC).then_some(blob)
}

/// Behind the magic: cipher, key derivation and its options, how many keys there are, and the public half of the first.
fn half_of(blob: &[u8]) -> Option<Vec<u8>> {
    let mut rest = blob.get(MAGIC.len()..)?;
    for _ in 0..3 {
        rest = string(rest)?.1;
    }
    string(rest.get(4..)?).map(|(half, _)| half.to_owned())
}

/// A string behind its length, and what follows.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    fn keys_are_judged_as_by_ssh() {
        if Command::new("ssh-keygen").arg("-?").output().is_err() {
            println!("SKIPPED: ssh-keygen is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, more: &[&str]| {
            let path = dir.path().join(name);
            let made = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&path).args(more).output().unwrap();
            assert!(made.status.success(), "{made:?}");
            path
        };
        let pem = ["-t", "rsa", "-b", "2048", "-m", "PEM"];
        let (plain, locked) =
            (make("plain", &["-t", "ed25519", "-N", ""]), make("locked", &["-t", "ed25519", "-N", "secret"]));
        let (old, old_locked) = (
            make("old", &[&pem[..], &["-N", ""]].concat()),
            make("old_locked", &[&pem[..], &["-N", "secret"]].concat()),
        );
        let public = dir.path().join("plain.pub");
        for (path, fit) in [
            (&plain, Fitness::Usable),
            (&locked, Fitness::Encrypted),
            (&old, Fitness::Usable),
            (&old_locked, Fitness::Encrypted),
            (&public, Fitness::Public),
        ] {
            assert_eq!(fitness(path).unwrap(), fit, "{path:?}");
            let beside = path.with_extension("pub");
            let half = public_line(&read(&beside).unwrap()).unwrap();
            assert_eq!(public_half(path), Some(half.clone()), "{path:?}");
            if path != &public && !path.ends_with("old") && !path.ends_with("old_locked") {
                // The private file tells it as well.
                let moved = dir.path().join("alone");
                fs::copy(path, &moved).unwrap();
                assert_eq!(public_half(&moved), Some(half), "{path:?}");
            }
        }
        for mode in [0o644, 0o640, 0o601] {
            fs::set_permissions(&plain, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(fitness(&plain).unwrap(), Fitness::Open(mode));
        }
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(fitness(&plain).unwrap(), Fitness::Usable);
        assert_eq!((public_half(&dir.path().join("none")), public_line("nonsense AAAA")), (None, None));
    }
}
