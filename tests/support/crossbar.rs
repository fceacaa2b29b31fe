//! A private real crossbar router and the genuine `ocs` of PyPI, in a virtual environment of their own.

use super::processes::{descendants, is_running, signal};
use super::tools::require;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(240);
const REALM: &str = "test_realm";

/// A running router on 127.0.0.1, configured as OCS does it.
pub struct Crossbar {
    dir: TempDir,
    venv: PathBuf,
    pub port: u16,
    /// Its process, and the shell that ends it should this process die.
    running: Mutex<Option<(Child, u32)>>,
}

impl Crossbar {
    /// That of all tests which leave it alone: a start takes ten seconds of a processor. The shell around it ends it with this
    /// process.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Crossbar>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// Starts one; `None` when there is no Python to run it.
    pub fn start() -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), &Value::Null)
    }

    /// Starts one that speaks TLS, with a certificate of its own in `cert.pem`.
    pub fn start_tls() -> Option<Self> {
        if !require("openssl") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        certificate(dir.path());
        let tls = json!({"certificate": at("cert.pem"), "key": at("key.pem")});
        Self::start_in(dir, &tls)
    }

    fn start_in(dir: TempDir, tls: &Value) -> Option<Self> {
        let venv = venv()?;
        for _ in 0..5 {
            // Free a moment ago; should somebody take it meanwhile, the next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            configure(dir.path(), port, tls);
            if let Some(running) = launch(&venv, dir.path(), port) {
                return Some(Self { dir, venv, port, running: Mutex::new(Some(running)) });
            }
        }
        panic!("crossbar does not start: {}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// Where agents connect.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// The genuine Python with the genuine ocs, configured for this router.
    pub fn python(&self) -> Command {
        let mut command = Command::new(self.venv.join("bin/python"));
        command.env("OCS_CONFIG_DIR", self.dir.path()).env("PYTHONUNBUFFERED", "1").env_remove("LOGLEVEL");
        command
    }

    /// One of the snippets in `tests/agent`.
    pub fn snippet(&self, name: &str) -> Command {
        let mut command = self.python();
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent").join(name));
        command
    }

    /// A file or folder among the router's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Freezes the router (`SIGSTOP`): its sockets stay open and it does not answer.
    pub fn freeze(&self) {
        if let Some((_, pid)) = self.running.lock().unwrap().as_ref() {
            signal("STOP", &[*pid]);
            signal("STOP", &descendants(*pid));
        }
    }

    /// Kills the router and its workers, as a crash of the host would.
    pub fn kill(&self) {
        if let Some((mut shell, pid)) = self.running.lock().unwrap().take() {
            let workers = descendants(pid);
            signal("KILL", &[pid]);
            signal("KILL", &workers);
            let _ = shell.kill();
            let _ = shell.wait();
            // Left by the killed one; the next one would take it for a running node.
            let _ = fs::remove_file(self.dir.path().join(".crossbar/node.pid"));
        }
    }

    /// Starts the router again on the same port.
    pub fn restart(&self) {
        self.kill();
        let Some(again) = launch(&self.venv, self.dir.path(), self.port) else {
            panic!("crossbar does not start again: {}", fs::read_to_string(self.dir.path().join("log")).unwrap());
        };
        *self.running.lock().unwrap() = Some(again);
    }
}

impl Drop for Crossbar {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes a certificate for 127.0.0.1 that vouches for itself: `cert.pem` and `key.pem`.
pub fn certificate(dir: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=router", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The virtual environment: `OCS_TEST_VENV`, or `target/ocs-venv`, which is made when it is not there.
fn venv() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("OCS_TEST_VENV").filter(|given| !given.is_empty()) {
        let given = PathBuf::from(given);
        assert!(given.join("bin/crossbar").is_file(), "OCS_TEST_VENV={} has no bin/crossbar", given.display());
        return Some(given);
    }
    if !require("python3") {
        return None;
    }
    // What failed once in this process would only fail again, minutes later.
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match MADE.get_or_init(make_venv) {
        Ok(venv) => Some(venv.clone()),
        Err(words) => {
            let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            assert!(!set("CI") && !set("ARCHIVER_REQUIRE_PEERS"), "No crossbar and ocs from PyPI: {words}");
            eprintln!("SKIPPED: no crossbar and ocs from PyPI: {words}");
            None
        }
    }
}

/// Makes it, unless it is there; the error is what its makers said.
fn make_venv() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = root.join("target/ocs-venv");
    let of_list = |file: PathBuf| fs::read(file).ok();
    if of_list(venv.join("ready")) != of_list(root.join("tests/agent/requirements.txt")) {
        // Past the harness, which would keep it to itself until the end.
        let _ = writeln!(std::io::stderr(), "Installing crossbar and ocs from PyPI, for a few minutes at most");
        let done = Command::new(root.join("scripts/ocs-venv")).output().unwrap();
        if !done.status.success() {
            let words = [done.stderr, done.stdout].concat();
            return Err(format!("{}: {}", done.status, String::from_utf8_lossy(&words).trim()));
        }
    }
    Ok(venv)
}

fn configure(dir: &Path, port: u16, tls: &Value) {
    let role = |name: &str, register: bool| {
        let allow = json!({"call": true, "register": register, "publish": true, "subscribe": true});
        let disclose = json!({"caller": false, "publisher": false});
        let permission =
            json!({"uri": "observatory.", "match": "prefix", "allow": allow, "disclose": disclose, "cache": true});
        json!({"name": name, "permissions": [permission]})
    };
    let options = json!({"open_handshake_timeout": 2500, "close_handshake_timeout": 1000, "auto_ping_interval": 10000,
        "auto_ping_timeout": 5000, "auto_ping_size": 12});
    let paths = json!({
        "ws": {"type": "websocket", "auth": {"anonymous": {"type": "static", "role": "iocs_agent"}}, "options": options},
        "call": {"type": "caller", "realm": REALM, "role": "iocs_controller", "options": {}},
    });
    let mut endpoint = json!({"type": "tcp", "interface": "127.0.0.1", "port": port});
    if !tls.is_null() {
        endpoint["tls"] = tls.clone();
    }
    let worker = json!({
        "type": "router",
        "realms": [{"name": REALM, "roles": [role("iocs_agent", true), role("iocs_controller", false)]}],
        "transports": [{"type": "web", "endpoint": endpoint, "paths": paths}],
    });
    let config: Value = json!({"version": 2, "workers": [worker]});
    fs::create_dir_all(dir.join(".crossbar")).unwrap();
    fs::write(dir.join(".crossbar/config.json"), config.to_string()).unwrap();
    let instance = |class: &str, id: &str, arguments: &[&str]| json!({"agent-class": class, "instance-id": id, "arguments": arguments});
    let site = json!({
        "hub": {"wamp_server": format!("ws://127.0.0.1:{port}/ws"), "wamp_http": format!("http://127.0.0.1:{port}/call"),
            "wamp_realm": REALM, "address_root": "observatory"},
        "hosts": {"localhost": {"agent-instances": [
            instance("RegistryAgent", "registry", &[]),
            instance("AccessDirector", "access-dir", &["--config-file", "access.yaml"])]}},
    });
    // JSON is YAML too.
    fs::write(dir.join("default.yaml"), site.to_string()).unwrap();
}

/// Starts crossbar and waits until it serves; `None` when it ended instead.
fn launch(venv: &Path, dir: &Path, port: u16) -> Option<(Child, u32)> {
    // The shell outlives nobody: it ends crossbar, and removes the folder, when our end of its input closes, however this process ends.
    let script = "\"$1\" start --cbdir \"$2\" --loglevel info </dev/null >\"$3\" 2>&1 & echo $!; read _; kill $! 2>/dev/null; \
                  wait; rm -rf \"${2%/.crossbar}\"";
    let mut shell = Command::new("sh")
        .args(["-c", script, "crossbar"])
        .args([venv.join("bin/crossbar"), dir.join(".crossbar"), dir.join("log")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline && is_running(pid) {
        let booted = fs::read_to_string(dir.join("log")).is_ok_and(|log| log.contains("NODE_BOOT_COMPLETE"));
        if booted && TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some((shell, pid));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let workers = descendants(pid);
    signal("KILL", &[pid]);
    signal("KILL", &workers);
    let _ = shell.kill();
    let _ = shell.wait();
    None
}
