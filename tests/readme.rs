//! The pages for people (README.md and docs/), taken as they stand: site-config entries and compose services of agents, in
//! `pages` what else they say that a program can tell, and in `promises` the tests that they name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "readme/codes.rs"]
mod codes;
#[path = "readme/pages.rs"]
mod pages;
#[path = "readme/promises.rs"]
mod promises;

use pysmurf_archiver::ocs::site::{AgentClass, Resolved, WantedAgent, resolve};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Variables of the shell that calls compose, as its `.env` file has them.
const SHELL: [(&str, &str); 5] =
    [("DB_HOST", "127.0.0.1"), ("DB", "files"), ("DB_USER", "ocs"), ("DB_PW", "secret"), ("CB_HOST", "10.10.10.2")];

/// The folder of the repository.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The pages by their paths beneath the repository's folder.
fn pages() -> Vec<(PathBuf, String)> {
    let root = fs::read_dir(ROOT).unwrap().map(|file| PathBuf::from(file.unwrap().file_name()));
    let is_page = |name: &PathBuf| name.extension().is_some_and(|end| end == "md");
    let mut names: Vec<_> = root.filter(is_page).collect();
    names.push("protocol/PROTOCOL.md".into());
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap();
    names.extend(docs.map(|page| Path::new("docs").join(page.unwrap().file_name())).filter(is_page));
    names.into_iter().map(|name| (name.clone(), fs::read_to_string(Path::new(ROOT).join(name)).unwrap())).collect()
}

/// The one fenced block of the pages whose first line is this comment, without it.
fn block(marker: &str) -> String {
    let text: String = pages().into_iter().map(|(_, text)| text).collect();
    let start = format!("```yaml\n# {marker}\n");
    let mut parts = text.split(&start);
    let block = parts.nth(1).unwrap_or_else(|| panic!("No page has the block {marker:?}"));
    assert!(parts.next().is_none(), "The block {marker:?} is there twice");
    block.split_once("\n```").expect("an end of the block").0.to_owned()
}

/// What of a compose service matters to the program in it.
#[derive(Debug, Default)]
struct Service {
    image: String,
    user: String,
    hostname: Option<String>,
    environment: BTreeMap<String, String>,
    volumes: Vec<String>,
}

impl Service {
    /// Reads one service: keys of one depth, below some of them lists or further keys.
    fn of(block: &str) -> Self {
        let mut service = Self::default();
        let mut section = String::new();
        let mut lines = block.lines();
        assert!(lines.next().unwrap().ends_with(':'), "the service's name comes first: {block}");
        for line in lines {
            let text = expand(line.split(" #").next().unwrap().trim());
            let depth = line.len() - line.trim_start().len();
            if depth == 4 {
                let (key, value) = text.split_once(':').unwrap();
                let value = value.trim().trim_matches('"').to_owned();
                section = key.to_owned();
                match key {
                    "image" => service.image = value,
                    "user" => service.user = value,
                    "hostname" => service.hostname = Some(value),
                    "container_name" | "network_mode" | "environment" | "volumes" => {}
                    other => panic!("This test does not know the key {other} of a service"),
                }
            } else if section == "volumes" {
                service.volumes.push(text.strip_prefix("- ").unwrap().to_owned());
            } else {
                assert_eq!(section, "environment", "{line}");
                let pair = match text.strip_prefix("- ") {
                    Some(item) => item.split_once('='),
                    None => text.split_once(": "),
                };
                let (name, value) = pair.unwrap();
                service.environment.insert(name.to_owned(), value.to_owned());
            }
        }
        service
    }
}

/// What compose makes of `${NAME}`.
fn expand(text: &str) -> String {
    SHELL.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
}

/// The example of one agent, with its site file in the folder that the service mounts.
struct Example {
    folder: TempDir,
    service: Service,
}

impl Example {
    fn new(instance: &str) -> Self {
        let service = Service::of(&block(&format!("compose: {instance}")));
        let example = Self { folder: tempfile::tempdir().unwrap(), service };
        // The entry stands among others of the host that the container's name leads to.
        let host = example.service.hostname.as_deref().unwrap_or("localhost");
        let entry = block(&format!("site-config: {instance}"));
        let site = format!(
            "hub:\n  wamp_server: ws://crossbar:8001/ws\n  wamp_http: http://crossbar:8001/call\n  \
             wamp_realm: test_realm\n  address_root: observatory\n\
             hosts:\n  {host}: {{\n  'agent-instances': [\n\
             {{'agent-class': 'RegistryAgent', 'instance-id': 'registry', 'arguments': []}},\n{entry}\n  ]}}\n"
        );
        fs::write(example.site_file(), site).unwrap();
        assert!(example.service.volumes.contains(&"${OCS_CONFIG_DIR}:/config".to_owned()), "{:?}", example.service);
        example
    }

    fn site_file(&self) -> PathBuf {
        self.folder.path().join("default.yaml")
    }

    /// What the program in the container makes of it. The image sets `OCS_CONFIG_DIR` and `CMD ["run"]`, so that words are
    /// only there if the service has a `command`.
    fn resolve(&self, command: &[&str]) -> Resolved {
        let words: Vec<OsString> = command.iter().map(Into::into).collect();
        let config_dir = self.folder.path().to_str().unwrap();
        let variable = |name: &str| match name {
            "OCS_CONFIG_DIR" => Some(config_dir.to_owned()),
            _ => self.service.environment.get(name).cloned(),
        };
        // Docker's name for a container without `hostname`.
        let host_name = self.service.hostname.as_deref().unwrap_or("0123456789ab");
        resolve(WantedAgent::Any, &words, &variable, host_name).unwrap().expect("an agent")
    }

    /// The real program in the surroundings of the container.
    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pysmurf-archiver"));
        command.env_clear().envs(&self.service.environment).env("HOME", self.folder.path());
        command.env("OCS_CONFIG_DIR", self.folder.path()).current_dir(self.folder.path());
        if let Some(host) = &self.service.hostname {
            command.env("SITE_HOST", host);
        }
        command.stdin(Stdio::null());
        command
    }

    /// The merged arguments, with what may differ from machine to machine exchanged.
    fn check(&self, resolved: &Resolved, exchange: &[(&str, &str)], port: u16) -> (Option<i32>, String) {
        let words = resolved.arguments.iter().map(|word| {
            let word = word.to_str().unwrap().to_owned();
            exchange.iter().fold(word, |word, (from, to)| word.replace(from, to))
        });
        let mut check = self.program();
        let output = check
            .arg("check")
            .args(words)
            .arg(format!("--ssh-port={port}"))
            .env("MYSQL_PORT", port.to_string())
            .output();
        let output = output.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

/// A port of this machine at which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn words(resolved: &Resolved) -> Vec<&str> {
    resolved.arguments.iter().map(|word| word.to_str().unwrap()).collect()
}

#[test]
fn the_archiver_of_old_is_replaced_by_image_and_name() {
    let example = Example::new("pysmurf-archiver");
    assert_eq!((example.service.image.as_str(), example.service.user.as_str()), ("pysmurf-archiver", "9000"));
    let old_command = ["--site-hub=ws://sisock-crossbar:8001/ws", "--site-http=http://sisock-crossbar:8001/call"];
    for (command, router) in [(&[][..], "ws://crossbar:8001/ws"), (&old_command[..], "ws://sisock-crossbar:8001/ws")] {
        let resolved = example.resolve(command);
        assert_eq!(resolved.agent_class, AgentClass::PysmurfArchiverAgent);
        assert_eq!(resolved.agent_address(), "observatory.pysmurf-archiver");
        assert_eq!((resolved.wamp_server.as_str(), resolved.realm.as_str()), (router, "test_realm"));
        assert_eq!((resolved.crossbar_timeout, resolved.notes.as_slice()), (None, &[][..]));
        assert_eq!(
            words(&resolved).join(" "),
            "--data-dir /data/pysmurf/ --host data@smurf-srv --mode run --target pysmurf-monitor"
        );
        let (code, said) = example.check(&resolved, &[("data@smurf-srv", "data@127.0.0.1")], closed_port());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("files") && said.contains("127.0.0.1"), "{said}");
    }
}

#[test]
fn the_program_serves_with_the_variables_alone() {
    let example = Example::new("pysmurf-archiver");
    let (router, database) = (closed_port(), closed_port());
    let mut program = example.program();
    program.arg("run").env("SITE_HUB", format!("ws://127.0.0.1:{router}/ws")).env("MYSQL_PORT", database.to_string());
    let mut child = program.stderr(Stdio::piped()).spawn().unwrap();
    let (tell, told) = mpsc::channel();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let reading = thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
    let mut said = String::new();
    let wanted = [
        "Agent observatory.pysmurf-archiver of class PysmurfArchiverAgent",
        "trying again",
        "Connection to the router",
    ];
    let until = Instant::now() + Duration::from_secs(60);
    while !wanted.iter().all(|words| said.contains(words)) {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => said += &format!("{line}\n"),
            Err(error) => {
                child.kill().unwrap();
                panic!("{error}, after\n{said}");
            }
        }
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    reading.join().unwrap();
}

#[test]
fn suprsync_is_replaced_by_image_and_name() {
    let example = Example::new("timestream-sync");
    assert_eq!((example.service.image.as_str(), example.service.user.as_str()), ("pysmurf-archiver", "cryo:smurf"));
    assert_eq!(example.service.hostname.as_deref(), Some("ocs-docker"));
    let resolved = example.resolve(&[]);
    assert_eq!(resolved.agent_class, AgentClass::SupRsync);
    assert_eq!(resolved.agent_address(), "observatory.timestream-sync");
    assert_eq!(resolved.wamp_server, "ws://10.10.10.2:8001/ws");
    assert_eq!(
        words(&resolved).join(" "),
        "--archive-name timestreams --data-dir=/path/to/base/dir/timestreams --db=sqlite:/data/so/dbs/suprsync.db \
         --storage-host=user@storage --ssh-key /home/cryo/.ssh/id_ed25519 --delete-local-after 604800 --max-copy-attempts 10 --stall-timeout=60 \
         --suprsync-file-root /data/so/suprsync"
    );
    assert_eq!(resolved.notes.len(), 1, "{:?}", resolved.notes);
    assert!(resolved.notes[0].contains("Option --cmd-timeout of SupRsync has no effect"), "{:?}", resolved.notes);
    // The key must be there.
    let key = example.folder.path().join("id_ed25519");
    fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let key = key.to_str().unwrap();
    let here = [("/home/cryo/.ssh/id_ed25519", key), ("/data/so/dbs", "/nowhere"), ("user@storage", "user@127.0.0.1")];
    let (code, said) = example.check(&resolved, &here, closed_port());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/nowhere/suprsync.db"), "{said}");
}

#[test]
fn check_and_retry_know_the_site_file_too() {
    let example = Example::new("pysmurf-archiver");
    let output = example.program().arg("check").env("MYSQL_PORT", closed_port().to_string()).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("/files") && said.contains("smurf-srv") && said.contains("/data/pysmurf"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let example = Example::new("timestream-sync");
    let site = fs::read_to_string(example.site_file()).unwrap();
    let database = example.folder.path().join("suprsync.db");
    fs::write(example.site_file(), site.replace("/data/so/dbs/suprsync.db", database.to_str().unwrap())).unwrap();
    let retry = || {
        let output = example.program().args(["retry", "--all"]).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = retry();
    assert!(code == Some(2) && said.contains(database.to_str().unwrap()), "{said}");
    let init = example.program().args(["init-db", "--db"]).arg(format!("sqlite:{}", database.display())).status();
    assert!(init.unwrap().success());
    assert_eq!(retry(), (Some(0), "0 rows will be tried again\n".to_owned()));
}
