//! A private real sshd: own keys, own port, own folder, gone when dropped.

use super::processes::{descendants, is_running, signal};
use super::tools::require;
use pysmurf_archiver::transport::ssh::SshOptions;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(60);

/// A running sshd on 127.0.0.1 that lets the current user in with one key.
pub struct Sshd {
    pub(super) dir: TempDir,
    pub port: u16,
    /// Its process, and the shell that ends it should this process die.
    pub(super) running: Mutex<Option<(Child, u32)>>,
}

impl Sshd {
    /// Starts one with these extra configuration lines; `None` when sshd is not installed.
    pub fn start(extra_config: &str) -> Option<Self> {
        if !require("sshd") || !require("ssh-keygen") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        if current_uid() == "0" {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        keygen(&at("host_ed25519"), "ed25519");
        rsa_key(&at("host_rsa"));
        keygen(&at("id"), "ed25519");
        fs::copy(at("id.pub"), at("authorized_keys")).unwrap();
        fs::create_dir(at("home")).unwrap();
        for _ in 0..10 {
            // Free a moment ago; should somebody take it meanwhile, the next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let show = |name: &str| at(name).display().to_string();
            // The last one counts of this.
            let startups = if extra_config.contains("MaxStartups") { "" } else { "MaxStartups 100\n" };
            let config = format!(
                "{extra_config}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {}\nHostKey {}\nAuthorizedKeysFile {}\n\
                 PidFile {}\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                 PermitRootLogin yes\n{startups}SetEnv HOME={}\nLogLevel VERBOSE\n",
                show("host_ed25519"),
                show("host_rsa"),
                show("authorized_keys"),
                show("pid"),
                show("home"),
            );
            fs::write(at("sshd_config"), config).unwrap();
            if let Some(running) = launch(dir.path(), port) {
                let sshd = Self { dir, port, running: Mutex::new(Some(running)) };
                fs::write(sshd.known_hosts(), sshd.known_hosts_line("ed25519")).unwrap();
                return Some(sshd);
            }
        }
        panic!("sshd does not start: {}", fs::read_to_string(at("log")).unwrap_or_default());
    }

    /// A file or folder among the server's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The private key that is let in.
    pub fn client_key(&self) -> PathBuf {
        self.path("id")
    }

    /// A file that knows the server's ed25519 key, in plain form.
    pub fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// The line for a known hosts file with the server's key of this type (`ed25519` or `rsa`).
    pub fn known_hosts_line(&self, key_type: &str) -> String {
        format!("[127.0.0.1]:{} {}", self.port, fs::read_to_string(self.path(&format!("host_{key_type}.pub"))).unwrap())
    }

    /// The user to log in as: ourselves.
    pub fn user(&self) -> String {
        let uid = current_uid();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[2] == uid);
        entry.unwrap()[0].to_owned()
    }

    /// Options that get in. They read no configuration file and ask no agent.
    pub fn options(&self) -> SshOptions {
        let mut options = SshOptions::new("127.0.0.1");
        options.user = Some(self.user());
        options.port = Some(self.port);
        options.keys = vec![self.client_key()];
        options.known_hosts = Some(self.known_hosts());
        options.config = Some(PathBuf::from("/dev/null"));
        options.agent = false;
        options
    }

    /// Kills the server and all its connections, as a crash of the host would.
    pub fn kill(&self) {
        if let Some((mut shell, pid)) = self.running.lock().unwrap().take() {
            // Whoever connects meanwhile would be missed, so nobody can: it forks no more.
            signal("STOP", &[pid]);
            loop {
                let sessions: Vec<_> = descendants(pid).into_iter().filter(|pid| is_running(*pid)).collect();
                if sessions.is_empty() {
                    break;
                }
                signal("KILL", &sessions);
            }
            signal("KILL", &[pid]);
            let _ = shell.kill();
            let _ = shell.wait();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn current_uid() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// Puts an RSA key pair there, the same for all servers: to make one takes a tenth of a second of work and more.
fn rsa_key(path: &Path) {
    static PAIR: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let public = path.with_extension("pub");
    let [secret, shown] = PAIR.get_or_init(|| {
        keygen(path, "rsa");
        [path, &public].map(|file| fs::read(file).unwrap())
    });
    fs::write(&public, shown).unwrap();
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(secret).unwrap();
}

/// Makes a key pair without a passphrase.
pub fn keygen(path: &Path, key_type: &str) {
    keygen_with(path, key_type, "");
}

/// Makes a key pair with this passphrase.
pub fn keygen_with(path: &Path, key_type: &str, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", key_type, "-N", passphrase, "-C", "test", "-f"]).arg(path);
    if key_type == "rsa" {
        command.args(["-b", "2048"]);
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "ssh-keygen {}", path.display());
}

/// Starts sshd and waits until it answers; `None` when it ended instead.
pub(super) fn launch(dir: &Path, port: u16) -> Option<(Child, u32)> {
    // The shell outlives nobody: it ends sshd when our end of its input closes, however this process ends.
    let script =
        "/usr/sbin/sshd -D -f \"$1\" -E \"$2\" </dev/null >/dev/null 2>&1 & echo $!; read _; kill $! 2>/dev/null";
    let mut shell = Command::new("sh")
        .args(["-c", script, "sshd"])
        .args([dir.join("sshd_config"), dir.join("log")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline && is_running(pid) {
        let ours = fs::read_to_string(dir.join("pid")).is_ok_and(|text| text.trim() == pid.to_string());
        if ours && greets(port) {
            return Some((shell, pid));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    signal("KILL", &[pid]);
    let _ = shell.kill();
    let _ = shell.wait();
    None
}

fn greets(port: u16) -> bool {
    let Ok(mut tcp) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut banner = [0; 4];
    tcp.read_exact(&mut banner).is_ok() && &banner == b"SSH-"
}
