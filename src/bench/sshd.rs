//! A private sshd for measuring: own keys, own port, an empty home, gone when dropped.

use super::{BenchError, find};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);
/// How long sessions may take to end after their client has.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A running sshd on 127.0.0.1 that lets the current user in with one key.
pub(super) struct Sshd {
    folder: PathBuf,
    pub(super) port: u16,
    shell: Child,
    pid: u32,
}

impl Sshd {
    /// Starts one in this folder, which is empty.
    pub(super) fn start(folder: PathBuf) -> Result<Self, BenchError> {
        let sshd = find("sshd")?;
        let keygen = find("ssh-keygen")?;
        let at = |name: &str| folder.join(name);
        if rustix::process::getuid().is_root() {
            // Where sshd drops its privileges; a machine without a running one lacks it.
            let _ = fs::create_dir_all("/run/sshd");
        }
        for name in ["host", "id"] {
            let mut command = Command::new(&keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f"]).arg(at(name)).stdout(Stdio::null());
            let status = command.status().map_err(BenchError::local("start", &keygen))?;
            if !status.success() {
                return Err(BenchError::Setup(format!("ssh-keygen cannot make a key in {}", folder.display())));
            }
        }
        // A slow login shell's start-up files would be measured with every channel.
        fs::create_dir(at("home")).map_err(BenchError::local("make a folder in", &folder))?;
        for _ in 0..10 {
            // Free a moment ago; should somebody take it meanwhile, the next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            let port = port.map_err(BenchError::local("listen on", Path::new("127.0.0.1")))?.port();
            let show = |name: &str| at(name).display().to_string();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile {}\nUsePAM no\n\
                 StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
                 MaxStartups 100\nSetEnv HOME={}\nSubsystem sftp internal-sftp\n",
                show("host"),
                show("id.pub"),
                show("pid"),
                show("home"),
            );
            fs::write(at("sshd_config"), config).map_err(BenchError::local("write in", &folder))?;
            if let Some((shell, pid)) = launch(&sshd, &folder, port)? {
                return Ok(Self { folder, port, shell, pid });
            }
        }
        let log = fs::read_to_string(at("log")).unwrap_or_default();
        Err(BenchError::Setup(format!("A private sshd does not start: {}", log.trim())))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// CPU seconds of all sessions that have ended. Waits until no more than `living` are left.
    pub(super) fn ended_cpu(&self, living: usize) -> Option<f64> {
        let deadline = Instant::now() + END_LIMIT;
        while self.sessions() > living && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let fields = stat(self.pid)?;
        let ticks: f64 = fields.get(13)?.parse::<f64>().ok()? + fields.get(14)?.parse::<f64>().ok()?;
        Some(ticks / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Connections now.
    pub(super) fn sessions(&self) -> usize {
        let pid = self.pid;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().count()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // The shell ends sshd when its input closes.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The fields of `/proc/PID/stat` behind the name, the state first.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Starts sshd and waits until it answers; `None` when it ended instead.
fn launch(sshd: &Path, folder: &Path, port: u16) -> Result<Option<(Child, u32)>, BenchError> {
    // The shell outlives nobody: it ends sshd when our end of its input closes, however this process ends.
    let script = "\"$1\" -D -f \"$2\" -E \"$3\" </dev/null >/dev/null 2>&1 & echo $!; read _; kill $! 2>/dev/null";
    let mut shell = Command::new("sh")
        .args(["-c", script, "sshd"])
        .args([sshd.to_owned(), folder.join("sshd_config"), folder.join("log")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(BenchError::local("start", sshd))?;
    let mut line = String::new();
    if let Some(stdout) = shell.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(BenchError::local("start", sshd))?;
    }
    let pid: u32 = line.trim().parse().map_err(|_| BenchError::Setup("sh does not start sshd".to_owned()))?;
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline && stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
    {
        let ours = fs::read_to_string(folder.join("pid")).is_ok_and(|text| text.trim() == pid.to_string());
        if ours && greets(port) {
            return Ok(Some((shell, pid)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(shell.stdin.take());
    let _ = shell.wait();
    Ok(None)
}

fn greets(port: u16) -> bool {
    let Ok(mut tcp) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut banner = [0; 4];
    tcp.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && tcp.read_exact(&mut banner).is_ok()
        && &banner == b"SSH-"
}
