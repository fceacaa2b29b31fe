//! Proves who we are: by the agent and by key files, never by password.

use super::config::{KeyFile, Target};
use super::dial::{Stop, drive};
use crate::transport::ConnectError;
use libssh2_sys as sys;
use ssh2::{ErrorCode, Session};
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

/// Servers allow six failures; identities beyond this many in an agent are not tried.
const AGENT_KEYS: usize = 5;

/// libssh2's codes for "the server does not want this key", after which another may be tried.
const REFUSED: [i32; 2] = [sys::LIBSSH2_ERROR_AUTHENTICATION_FAILED, sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED];

/// Its codes for a key that could not be read or used on this side; the connection is sound.
const UNUSABLE: [i32; 5] = [
    sys::LIBSSH2_ERROR_FILE,
    sys::LIBSSH2_ERROR_INVAL,
    sys::LIBSSH2_ERROR_METHOD_NOT_SUPPORTED,
    sys::LIBSSH2_ERROR_AGENT_PROTOCOL,
    sys::LIBSSH2_ERROR_KEYFILE_AUTH_FAILED,
];

/// Logs in, within the target's limit. Keys named by the caller go before the agent, as each failure counts.
pub(super) fn authenticate(session: &Session, tcp: &TcpStream, target: &Target) -> Result<(), ConnectError> {
    let mut attempt = Attempt {
        session,
        tcp,
        target,
        deadline: Instant::now() + target.auth_timeout,
        allowed: String::new(),
        tried: Vec::new(),
    };
    // Asks with the method `none`; that the server lets us in at once is allowed.
    match drive(session, tcp, attempt.deadline, || session.auth_methods(&target.user).map(str::to_owned)) {
        Ok(methods) => attempt.allowed = methods,
        Err(_) if session.authenticated() => return Ok(()),
        Err(stop) => return Err(attempt.broken(stop)),
    }
    let named = target.keys.iter().any(|key| key.named);
    let done = (named && attempt.keys()?) || attempt.agent()? || (!named && attempt.keys()?);
    if done { Ok(()) } else { Err(attempt.failed("")) }
}

struct Attempt<'a> {
    session: &'a Session,
    tcp: &'a TcpStream,
    target: &'a Target,
    deadline: Instant,
    allowed: String,
    tried: Vec<String>,
}

impl Attempt<'_> {
    fn agent(&mut self) -> Result<bool, ConnectError> {
        if !self.target.agent || std::env::var_os("SSH_AUTH_SOCK").is_none() {
            return Ok(false);
        }
        let identities = self.session.agent().and_then(|mut agent| {
            agent.connect()?;
            agent.list_identities()?;
            agent.identities().map(|identities| (agent, identities))
        });
        let (agent, identities) = match identities {
            Ok(found) => found,
            Err(e) => {
                self.tried.push(format!("agent (not usable: {})", e.message()));
                return Ok(false);
            }
        };
        if identities.is_empty() {
            self.tried.push("agent (holds no key)".to_owned());
        }
        for identity in identities.iter().take(AGENT_KEYS) {
            let what = format!("agent key {}", identity.comment());
            if self.attempt(what, || agent.userauth(&self.target.user, identity))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn keys(&mut self) -> Result<bool, ConnectError> {
        for KeyFile { path, named } in &self.target.keys {
            match readable(path) {
                Ok(Key::Usable) => {}
                Ok(Key::Encrypted) => {
                    self.tried.push(format!(
                        "{} (encrypted, and nobody is here to ask for its passphrase: load it into ssh-agent, or use a \
                         key without one)",
                        path.display()
                    ));
                    continue;
                }
                Err(e) if !named && e.kind() == ErrorKind::NotFound => continue,
                Err(e) => {
                    return Err(ConnectError::Setup(format!(
                        "Cannot read the key file {}: {e}; name another with --ssh-key",
                        path.display()
                    )));
                }
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
            Err(Stop::Failed(e)) => {
                let ErrorCode::Session(code) = e.code() else { return Err(self.broken(Stop::Failed(e))) };
                let local = UNUSABLE.contains(&code);
                if !REFUSED.contains(&code) && !local {
                    return Err(self.broken(Stop::Failed(e)));
                }
                let why = if local { format!("not usable: {}", e.message()) } else { "refused".to_owned() };
                self.tried.push(format!("{what} ({why})"));
                Ok(false)
            }
            Err(stop) => Err(self.broken(stop)),
        }
    }

    fn broken(&self, stop: Stop) -> ConnectError {
        match stop {
            Stop::TimedOut => ConnectError::Timeout {
                host: self.target.place(),
                limit: self.target.auth_timeout,
                stage: "authentication",
            },
            Stop::Failed(e) => self.failed(&format!("the server ended the attempt ({}); ", e.message())),
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
                 there, or name the right key with --ssh-key"
            ),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Key {
    Usable,
    Encrypted,
}

/// libssh2 says "unsupported format" of an encrypted key; this says it plainly.
fn readable(path: &Path) -> std::io::Result<Key> {
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    // The OpenSSH container names its cipher right after its magic: base64 of "openssh-key-v1\0", length 4, "none".
    const OPENSSH_PLAIN: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";
    let openssh = text.contains("BEGIN OPENSSH PRIVATE KEY");
    let plain = text.lines().any(|line| line.starts_with(OPENSSH_PLAIN));
    Ok(if text.contains("ENCRYPTED") || (openssh && !plain) { Key::Encrypted } else { Key::Usable })
}
