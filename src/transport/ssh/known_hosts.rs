//! Which host keys are known: the known hosts files of sshd(8).
//!
//! Matching is ours because libssh2 takes markers for host names and knows no patterns; only hashed names are asked of
//! libssh2, which has the HMAC.

use super::config::{KnownHostsFile, SshTarget};
use crate::transport::ConnectError;
use ssh2::{CheckResult, KnownHostFileKind, Session};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The lines that speak of one host.
#[derive(Debug)]
pub(super) struct KnownKeys {
    entries: Vec<KnownHostEntry>,
    files: Vec<PathBuf>,
    name: String,
}

#[derive(Debug)]
struct KnownHostEntry {
    file: PathBuf,
    line: usize,
    revoked: bool,
    /// Listed for the host's name with this port, not just for the bare name.
    exact: bool,
    key_type: String,
    key: String,
}

/// Reads the lines about this host. `session` only lends its hash function.
pub(super) fn read(target: &SshTarget, session: &Session) -> Result<KnownKeys, ConnectError> {
    let bare = target.hostname.to_lowercase();
    let mut entries = Vec::new();
    for KnownHostsFile { path, named } in &target.known_hosts {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if !named && e.kind() == ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(ConnectError::Setup(format!(
                    "Cannot read the known hosts file {}: {e}; {}",
                    path.display(),
                    target.remedies.known_hosts()
                )));
            }
        };
        for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            let Some((revoked, names, key_type, key)) = parse(line) else { continue };
            let exact = matches(names, &target.key_name, session);
            if exact || matches(names, &bare, session) {
                entries.push(KnownHostEntry {
                    file: path.clone(),
                    line: index + 1,
                    revoked,
                    exact,
                    key_type: key_type.to_owned(),
                    key: key.to_owned(),
                });
            }
        }
    }
    if let Some(path) = &target.revoked {
        entries.extend(revoked(path)?);
    }
    let files = target.known_hosts.iter().map(|file| file.path.clone()).collect();
    Ok(KnownKeys { entries, files, name: target.key_name.clone() })
}

/// The keys of a file of those that no host may have. While it cannot be read, `ssh` refuses every host.
fn revoked(path: &Path) -> Result<Vec<KnownHostEntry>, ConnectError> {
    let unusable = |why: &str| {
        ConnectError::Setup(format!(
            "Cannot use the file of RevokedHostKeys {}: {why}; every host is refused until then, as by ssh",
            path.display()
        ))
    };
    let bytes = fs::read(path).map_err(|e| unusable(&e.to_string()))?;
    if bytes.starts_with(b"SSHKRL\n\0") {
        return Err(unusable("it is a key revocation list in binary; list the keys as text, one a line"));
    }
    let text = String::from_utf8_lossy(&bytes);
    let keys = text.lines().enumerate().filter_map(|(index, line)| {
        let mut words = line.split_ascii_whitespace().skip_while(|word| !is_key_type(word));
        Some(KnownHostEntry {
            file: path.to_owned(),
            line: index + 1,
            revoked: true,
            exact: false,
            key_type: words.next()?.to_owned(),
            key: words.next()?.to_owned(),
        })
    });
    Ok(keys.filter(|entry| !entry.key.starts_with('#')).collect())
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| word.starts_with(prefix))
}

/// Revoked, names, key type and key of a line; `None` for comments, certificate authorities and nonsense.
fn parse(line: &str) -> Option<(bool, &str, &str, &str)> {
    let mut words = line.split_ascii_whitespace();
    let mut names = words.next().filter(|word| !word.starts_with('#'))?;
    let revoked = names == "@revoked";
    if revoked {
        names = words.next()?;
    } else if names.starts_with('@') {
        return None;
    }
    Some((revoked, names, words.next()?, words.next()?))
}

/// Does the names field of a line cover this host name?
fn matches(names: &str, host: &str, session: &Session) -> bool {
    if names.starts_with("|1|") {
        return matches_hashed(names, host, session);
    }
    let mut found = false;
    for pattern in names.split(',') {
        let pattern = pattern.to_lowercase();
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(pattern.as_bytes(), host.as_bytes()) => return false,
            Some(_) => {}
            None => found |= glob(pattern.as_bytes(), host.as_bytes()),
        }
    }
    found
}

fn matches_hashed(names: &str, host: &str, session: &Session) -> bool {
    // Any well-formed key will do: the answer wanted is "this name, another key".
    let line = format!("{names} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n");
    let Ok(mut known) = session.known_hosts() else { return false };
    known.read_str(&line, KnownHostFileKind::OpenSSH).is_ok()
        && matches!(known.check(host, b"no such key"), CheckResult::Mismatch | CheckResult::Match)
}

/// `*` stands for any bytes, `?` for one. Linear in space, and the last star is the only one retried.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((star_p, star_t)) => {
                    p = star_p + 1;
                    t = star_t + 1;
                    star = Some((star_p, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

impl KnownKeys {
    /// The host key algorithms to ask for: those of the known keys first, so that the server shows a key we can check.
    pub(super) fn preference(&self, supported: &[&str]) -> String {
        let wanted =
            self.entries.iter().filter(|entry| !entry.revoked).flat_map(|entry| match entry.key_type.as_str() {
                "ssh-rsa" => vec!["rsa-sha2-512", "rsa-sha2-256"],
                other => vec![other],
            });
        let mut order: Vec<&str> = Vec::new();
        for algorithm in wanted.chain(supported.iter().copied()) {
            let usable = supported.contains(&algorithm) && !algorithm.contains("-cert-");
            if usable && !order.contains(&algorithm) {
                order.push(algorithm);
            }
        }
        order.join(",")
    }

    /// Is this key, in the form it had on the wire, a known one? `Err` says why not and what to do.
    pub(super) fn check(&self, blob: &[u8], fingerprint: &str, target: &SshTarget) -> Result<(), String> {
        let key = base64(blob);
        let key_type = key_type(blob);
        let same = |entry: &&KnownHostEntry| entry.key == key;
        if let Some(entry) = self.entries.iter().filter(|entry| entry.revoked).find(same) {
            return Err(format!(
                "its {key_type} key {fingerprint} is marked as revoked in {}:{}; do not connect before its administrator \
                 has replaced it",
                entry.file.display(),
                entry.line
            ));
        }
        if self.entries.iter().filter(|entry| !entry.revoked).any(|entry| entry.key == key) {
            return Ok(());
        }
        let known: Vec<&KnownHostEntry> = self.entries.iter().filter(|entry| !entry.revoked && entry.exact).collect();
        if let Some(entry) = known.iter().find(|entry| entry.key_type == key_type) {
            return Err(format!(
                "ITS KEY HAS CHANGED. Someone may be listening in, or the host was reinstalled. It shows the {key_type} key \
                 {fingerprint}, but another is known in {}:{}. Ask its administrator; if the new key is right, remove the \
                 old with: ssh-keygen -f {} -R '{}'",
                entry.file.display(),
                entry.line,
                entry.file.display(),
                self.name
            ));
        }
        let file = self.files.first().map_or_else(|| "known_hosts".to_owned(), |file| file.display().to_string());
        if known.is_empty() && target.accepts_new_keys {
            self.add(&format!("{} {key_type} {key}", self.name), fingerprint, target);
            return Ok(());
        }
        let state = match known.first() {
            Some(entry) => {
                format!("only its {} key is known ({}:{})", entry.key_type, entry.file.display(), entry.line)
            }
            None => format!("no key of it is known in {}", self.files_listed()),
        };
        Err(format!(
            "{state}. It shows the {key_type} key {fingerprint}; if its administrator confirms that, add to {file} the line: \
             {} {key_type} {key} (as does: ssh-keyscan -p {} {} >> {file})",
            self.name, target.port, target.hostname
        ))
    }

    /// Adds a line to the user's file of known hosts. As with `ssh`, a file that cannot be written costs only that the key
    /// is new next time as well.
    fn add(&self, line: &str, fingerprint: &str, target: &SshTarget) {
        static ADDING: Mutex<()> = Mutex::new(());
        let Some(file) = self.files.first() else { return };
        let _alone = ADDING.lock();
        match append(file, line) {
            Ok(()) => tracing::warn!(
                "The key of {} was not known and is from now on: {fingerprint}, added to {} as StrictHostKeyChecking wants",
                target.place(),
                file.display()
            ),
            Err(e) => tracing::warn!(
                "The key {fingerprint} of {} is new, and cannot be added to {}: {e}",
                target.place(),
                file.display()
            ),
        }
    }

    fn files_listed(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        if names.is_empty() { "any file (none is configured)".to_owned() } else { names.join(" or ") }
    }
}

/// Adds a line to a file that is made, with its folder, for its owner alone. Several sessions may have met one new key.
fn append(file: &Path, line: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        fs::DirBuilder::new().mode(0o700).create(folder)?;
    }
    let mut file = fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    if String::from_utf8_lossy(&text).lines().any(|there| there == line) {
        return Ok(());
    }
    let end_of_last = if text.is_empty() || text.ends_with(b"\n") { "" } else { "\n" };
    file.write_all(format!("{end_of_last}{line}\n").as_bytes())
}

/// The type a key names itself by, in its first field.
fn key_type(blob: &[u8]) -> String {
    let name = blob.split_first_chunk::<4>().and_then(|(len, rest)| rest.get(..u32::from_be_bytes(*len) as usize));
    name.map_or_else(|| "unreadable".to_owned(), |name| String::from_utf8_lossy(name).escape_debug().to_string())
}

/// Standard base64, padded.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (i, &b)| bits | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::ssh::SshOptions;
    use crate::transport::ssh::config::resolve;
    use crate::transport::ssh::tokens::LocalNames;

    fn target(host: &str, port: u16, text: &str) -> (SshTarget, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        fs::write(&file, text).unwrap();
        let mut options = SshOptions::new(host);
        options.port = Some(port);
        options.known_hosts = Some(file);
        options.config = Some(PathBuf::from("/dev/null"));
        (resolve(&options, &LocalNames { home: None, user: Some("me".to_owned()) }).unwrap(), dir)
    }

    fn judge(host: &str, port: u16, text: &str, blob: &[u8]) -> Result<(), String> {
        let (target, _dir) = target(host, port, text);
        let known = read(&target, &Session::new().unwrap()).unwrap();
        known.check(blob, "SHA256:x", &target)
    }

    fn blob(key_type: &str, body: u8) -> Vec<u8> {
        let mut blob = (key_type.len() as u32).to_be_bytes().to_vec();
        blob.extend_from_slice(key_type.as_bytes());
        blob.extend_from_slice(&[body; 32]);
        blob
    }

    #[test]
    fn names_are_matched_as_sshd_does() {
        let key = blob("ssh-ed25519", 1);
        let k = format!("ssh-ed25519 {}", base64(&key));
        let cases = [
            ("store", 22, format!("store {k} comment\n"), true),
            ("STORE", 22, format!("a,Store,b {k}\n"), true),
            ("store", 22, format!("# store {k}\nother {k}\n"), false),
            ("s1.lab", 22, format!("*.lab {k}\n"), true),
            ("s1.lab", 22, format!("*.lab,!s1.* {k}\n"), false),
            ("s1.lab", 22, format!("!s1.*,*.lab {k}\n"), false),
            ("s12", 22, format!("s?2 {k}\n"), true),
            ("store", 2222, format!("[store]:2222 {k}\n"), true),
            ("store", 22, format!("[store]:2222 {k}\n"), false),
            ("store", 2222, format!("[store]:* {k}\n"), true),
            // As ssh does, a key known for the bare name is accepted on another port.
            ("store", 2222, format!("store {k}\n"), true),
            ("store", 22, format!("@cert-authority store {k}\n"), false),
            ("store", 22, format!("@revoked store {k}\nstore {k}\n"), false),
            ("store", 22, "store\nstore ssh-ed25519\n\n".to_owned(), false),
        ];
        for (host, port, text, accepted) in cases {
            assert_eq!(judge(host, port, &text, &key).is_ok(), accepted, "{host}:{port} in {text}");
        }
    }

    #[test]
    fn the_reason_is_told_apart() {
        let (ours, other) = (blob("ssh-ed25519", 1), blob("ssh-ed25519", 2));
        let line = |names: &str, key: &[u8]| format!("{names} ssh-ed25519 {}\n", base64(key));
        let changed = judge("store", 22, &format!("x y z\n{}", line("store", &other)), &ours).unwrap_err();
        assert!(changed.contains("CHANGED") && changed.contains("known_hosts:2"), "{changed}");
        let unknown = judge("store", 2222, "", &ours).unwrap_err();
        assert!(unknown.contains("ssh-keyscan -p 2222 store") && unknown.contains("SHA256:x"), "{unknown}");
        assert!(unknown.contains(&format!("[store]:2222 ssh-ed25519 {}", base64(&ours))), "{unknown}");
        // Another key for the bare name says nothing about this port.
        let other_port = judge("store", 2222, &line("store", &other), &ours).unwrap_err();
        assert!(other_port.contains("no key of it is known"), "{other_port}");
        let revoked = judge("store", 22, &format!("@revoked * ssh-ed25519 {}\n", base64(&ours)), &ours).unwrap_err();
        assert!(revoked.contains("revoked"), "{revoked}");
        let rsa_only = judge("store", 22, "store ssh-rsa AAAA\n", &ours).unwrap_err();
        assert!(rsa_only.contains("only its ssh-rsa key"), "{rsa_only}");
    }

    #[test]
    fn known_key_types_are_asked_for_first() {
        let (target, _dir) =
            target("store", 22, "store ssh-rsa AAAA\nstore sk-future AAAA\n@revoked store ecdsa-x A\n");
        let known = read(&target, &Session::new().unwrap()).unwrap();
        let supported = ["ssh-ed25519", "ecdsa-x", "rsa-sha2-256", "rsa-sha2-512", "rsa-cert-v01"];
        assert_eq!(known.preference(&supported), "rsa-sha2-512,rsa-sha2-256,ssh-ed25519,ecdsa-x");
    }

    #[test]
    fn a_named_file_must_exist() {
        let (mut target, _dir) = target("store", 22, "");
        target.known_hosts[0].path = PathBuf::from("/nonexistent/known_hosts");
        let error = read(&target, &Session::new().unwrap()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/known_hosts"), "{error}");
    }

    #[test]
    fn base64_pads() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes), text);
        }
    }
}
