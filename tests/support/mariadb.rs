//! A private MariaDB: own data folder, own port on the loopback, gone with the test process.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::processes::{descendants, is_running};
use super::tools::{find, require};

/// Runs the server until the end of its standard input, kills it, and removes its folder: the pipe closes however the
/// test process ends, also by SIGKILL. (A signal at the parent's death would come with the death of the *thread* that
/// started it, which is that of the first test.) Each line read kills the server and starts it anew after so many seconds.
const KEEPER: &str = r#"folder=$1; shift
start() {
    "$@" </dev/null >>"$folder/log" 2>&1 &
    server=$!
}
start "$@"
while read -r pause; do
    kill -KILL $server
    wait $server 2>/dev/null
    if [ "$pause" = never ]; then break; fi
    sleep $pause
    start "$@"
done
kill -KILL $server
wait $server 2>/dev/null
rm -rf "$folder""#;

/// One that starts beside ten others on two cores takes some seconds.
const START_LIMIT: Duration = Duration::from_secs(240);

/// Password of every account made by [`MariaDb::database`]; full of letters that a URL must encode.
pub const PASSWORD: &str = "p@ss/w:r d#1%";
const ENCODED: &str = "p%40ss%2Fw%3Ar%20d%231%25";

/// A running server.
pub struct MariaDb {
    keeper: Child,
    pub(super) folder: PathBuf,
    /// TCP port on 127.0.0.1.
    pub port: u16,
}

impl MariaDb {
    /// The server of this test process; `None` when MariaDB is not installed and may be absent.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<MariaDb>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// A server of one's own, stopped when dropped.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// As [`MariaDb::start`], with options of `mariadbd` in addition.
    pub fn start_with(options: &[String]) -> Option<Self> {
        let tools = ["mariadbd", "mariadb-install-db", "mariadb"];
        if !tools.iter().all(|tool| require(tool)) {
            return None;
        }
        // Somebody may take the free port before the server does.
        Some(Self::start_on(&template(), options))
    }

    /// A server that begins with a copy of this data folder.
    pub(super) fn start_on(template: &Path, options: &[String]) -> Self {
        for _ in 0..5 {
            if let Some(server) = Self::try_start(template, options) {
                return server;
            }
        }
        panic!("MariaDB does not start");
    }

    fn try_start(template: &Path, options: &[String]) -> Option<Self> {
        // Not deeper: the path of a socket takes 107 bytes at most.
        let folder = tempfile::Builder::new().prefix("archiver-db").tempdir().unwrap().keep();
        run(Command::new("cp").arg("-a").arg(template.join(".")).arg(folder.join("data")));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = folder.join("data");
        // The first word of it counts.
        let user = options.iter().find(|option| option.starts_with("--user=")).map_or("--user=root", String::as_str);
        if user == "--user=mysql" {
            run(Command::new("chown").args(["-R", "mysql"]).arg(&folder));
        }
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(&folder)
            .arg(find("mariadbd").unwrap())
            .args(["--no-defaults", user, "--bind-address=127.0.0.1", "--skip-name-resolve"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", folder.join("s").display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .arg(format!("--port={port}"))
            .args(["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"])
            .args(["--skip-log-bin", "--performance-schema=OFF", "--default-time-zone=+00:00"])
            .arg("--character-set-server=utf8mb4")
            .args(options)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let server = Self { keeper, folder, port };
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() && server.client("SELECT 1").status.success() {
                return Some(server);
            }
            let log = fs::read_to_string(server.folder.join("log")).unwrap_or_default();
            if log.contains("[ERROR] Aborting") || log.contains("mariadbd: Terminated.") {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "MariaDB is not ready after {START_LIMIT:?}: {}",
            fs::read_to_string(server.folder.join("log")).unwrap()
        );
    }

    /// Creates an empty database, and an account of the same name that owns it; gives the address for `--db`.
    pub fn database(&self, name: &str) -> String {
        self.execute(&format!(
            "CREATE DATABASE `{name}`; CREATE USER '{name}'@'%' IDENTIFIED BY '{PASSWORD}'; \
             GRANT ALL ON `{name}`.* TO '{name}'@'%';"
        ));
        format!("mysql://{name}:{ENCODED}@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs statements as root in one session; gives the rows, values parted by tabs. Panics when one fails.
    pub fn execute(&self, sql: &str) -> String {
        let output = self.client(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills the server as a crash would, and starts it again on the same port and data after `pause` seconds.
    pub fn crash(&self, pause: f64) {
        writeln!(self.keeper.stdin.as_ref().unwrap(), "{pause}").unwrap();
    }

    /// Kills the server for good.
    pub fn kill(&self) {
        writeln!(self.keeper.stdin.as_ref().unwrap(), "never").unwrap();
    }

    /// Whether the server answers.
    pub fn is_up(&self) -> bool {
        self.client("SELECT 1").status.success()
    }

    /// Waits until the server answers. One that has ended by itself is started again, as a service would be: a node of a cluster
    /// does when it does not find the others in time, or somebody has taken one of its ports meanwhile.
    pub fn wait_until_up(&self) {
        let deadline = Instant::now() + START_LIMIT;
        while !self.is_up() {
            if !descendants(self.keeper.id()).into_iter().any(is_running) {
                self.crash(0.5);
            }
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let last =
                || log().lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            assert!(Instant::now() < deadline, "MariaDB does not come back: {}", last());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn client(&self, sql: &str) -> Output {
        let mut client = Command::new(find("mariadb").unwrap())
            .args(["--no-defaults", "--user=root", "--default-character-set=utf8mb4", "--batch", "--skip-column-names"])
            .arg(format!("--socket={}", self.folder.join("s").display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A client that cannot connect does not read; its status says so.
        let _ = client.stdin.take().unwrap().write_all(sql.as_bytes());
        client.wait_with_output().unwrap()
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// As whom nodes of a cluster run: not as root, as whom their rsync cannot write.
pub(super) fn own() -> Option<&'static str> {
    rustix::process::getuid().is_root().then_some("mysql")
}

/// A fresh data folder to copy from, made once per machine and version: making takes seconds, copying does not.
pub(super) fn template() -> PathBuf {
    let output = Command::new(find("mariadbd").unwrap()).args(["--no-defaults", "--version"]).output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    let version = version.split_whitespace().nth(2).unwrap().to_owned();
    let template = PathBuf::from(format!("/tmp/archiver-mariadb-template-{version}"));
    if !template.is_dir() {
        let folder = tempfile::Builder::new().prefix("archiver-template").tempdir_in("/tmp").unwrap();
        let data = folder.path().join("data");
        run(Command::new(find("mariadb-install-db").unwrap())
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", data.display())));
        // Whoever comes first wins, with a complete folder in any case.
        if fs::rename(&data, &template).is_err() {
            assert!(template.is_dir());
        }
    }
    template
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
