//! A private Galera cluster of MariaDB: three nodes on the loopback, gone with the test process.

use super::mariadb::{MariaDb, own, run, template};
use super::processes::signal;
use super::tools::{find, require};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's galera-4 has it.
const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

/// Ports of a node beside that for SQL: of the cluster, for what it lacks little of, and for what it lacks all of.
const PORTS: usize = 3;

/// A cluster; the first node is the one by which it began.
pub struct Galera {
    pub nodes: Vec<MariaDb>,
}

impl Galera {
    /// Three nodes in step; `None` where Galera is not installed and may be absent.
    pub fn start() -> Option<Self> {
        if !["mariadbd", "mariadb-install-db", "mariadb", "mariadb-admin", "rsync"].iter().all(|tool| require(tool)) {
            return None;
        }
        if !Path::new(PROVIDER).exists() {
            assert!(std::env::var_os("CI").is_none(), "{PROVIDER} is not there; install galera-4");
            eprintln!("SKIPPED: {PROVIDER} is not there; install galera-4");
            return None;
        }
        let left = left_in_order();
        let listeners: Vec<_> = (0..3 * PORTS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        drop(listeners);
        let first = MariaDb::start_on(&left, &options(&ports, 0, &["--wsrep-new-cluster"]));
        // They wait for each other as it is: one that is in step gives the others what they lack.
        let mut nodes = vec![first];
        nodes.extend((1..3).map(|node| MariaDb::start_on(&left, &options(&ports, node, &[]))));
        Some(Self { nodes })
    }

    /// Freezes a node (`STOP`), or lets it go on (`CONT`): its sockets stay open meanwhile, and it does not answer.
    pub fn signal(&self, node: usize, name: &str) {
        let pid = fs::read_to_string(self.nodes[node].folder.join("pid")).unwrap();
        signal(name, &[pid.trim().parse().unwrap()]);
    }
}

/// What makes a node of a server; `ports` are those of all nodes.
fn options(ports: &[u16], node: usize, more: &[&str]) -> Vec<String> {
    let of = |node: usize| ports[node * PORTS];
    let all: Vec<_> = (0..ports.len() / PORTS).map(|node| format!("127.0.0.1:{}", of(node))).collect();
    let [cluster, little, all_of_it] = [0, 1, 2].map(|port| ports[node * PORTS + port]);
    // Galera's own limits: on a busy machine nodes that give each other less time lose one another, and the producer with them.
    let provider = format!(
        "gmcast.listen_addr=tcp://127.0.0.1:{cluster};ist.recv_addr=127.0.0.1:{little};gcache.size=16M;\
         evs.keepalive_period=PT0.5S;evs.suspect_timeout=PT5S;evs.inactive_timeout=PT15S;evs.inactive_check_period=PT0.5S"
    );
    let options = [
        format!("--user={}", own().unwrap_or("root")),
        "--binlog-format=ROW".into(),
        "--innodb-autoinc-lock-mode=2".into(),
        "--wsrep-on=ON".into(),
        format!("--wsrep-provider={PROVIDER}"),
        "--wsrep-cluster-name=fleet".into(),
        format!("--wsrep-cluster-address=gcomm://{}", all.join(",")),
        format!("--wsrep-node-name=n{node}"),
        format!("--wsrep-node-address=127.0.0.1:{cluster}"),
        "--wsrep-sst-method=rsync".into(),
        format!("--wsrep-sst-receive-address=127.0.0.1:{all_of_it}"),
        format!("--wsrep-provider-options={provider}"),
    ];
    options.into_iter().chain(more.iter().map(|option| (*option).to_owned())).collect()
}

/// The data folder of a node that has left its cluster in order, made once per machine and version: nodes that all begin with
/// it know that they lack next to nothing, and need not be sent everything, which takes them seconds each.
fn left_in_order() -> PathBuf {
    let name = template().file_name().unwrap().to_str().unwrap().replace("template", "galera");
    let left = Path::new("/tmp").join(name);
    if !left.is_dir() {
        let ports: Vec<u16> =
            (0..PORTS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()).collect();
        let node = MariaDb::start_on(&template(), &options(&ports, 0, &["--wsrep-new-cluster"]));
        let copy = tempfile::Builder::new().prefix("archiver-galera").tempdir_in("/tmp").unwrap();
        let admin = find("mariadb-admin").unwrap();
        let socket = format!("--socket={}", node.folder.join("s").display());
        run(Command::new(admin).args(["--no-defaults", "--user=root", &socket, "shutdown"]));
        let data = node.folder.join("data");
        super::wait::wait_until("the node has left", || {
            fs::read_to_string(data.join("grastate.dat")).is_ok_and(|state| state.contains("safe_to_bootstrap: 1"))
                && !node.folder.join("pid").exists()
        });
        for file in ["galera.cache", "gvwstate.dat"] {
            let _ = fs::remove_file(data.join(file));
        }
        run(Command::new("cp").arg("-a").arg(&data).arg(copy.path().join("data")));
        if fs::rename(copy.path().join("data"), &left).is_err() {
            assert!(left.is_dir());
        }
    }
    left
}
