use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Instant;

/// The entry of the old documentation, beside those of others.
const ARCHIVER: &str = "\
hub:

  wamp_server: ws://localhost:8001/ws
  wamp_http: http://localhost:8001/call
  wamp_realm: test_realm
  address_root: observatory
  registry_address: observatory.registry

hosts:

  ocs-docker: {

    # Address of crossbar server accessible on this host.
    'wamp_server': 'ws://crossbar:8001/ws',
    'wamp_http': 'http://crossbar:8001/call',

    # Description of host-attached devices.
    'agent-instances': [
      {'agent-class': 'RegistryAgent', 'instance-id': 'registry', 'arguments': []},
      {'agent-class': 'PysmurfArchiverAgent', 'instance-id': 'pysmurf-archiver',
       'arguments': [['--data-dir', '/data/pysmurf/'],
                     ['--host', 'data@smurf-srv'],
                     ['--mode', 'run'],
                     ['--target', 'pysmurf-monitor']]},
    ]
  }
";

const SUPRSYNC: &str = "\
hub:
  wamp_server: ws://10.10.10.2:8001/ws
  wamp_http: http://10.10.10.2:8001/call
  wamp_realm: test_realm
  address_root: observatory
  access_policy: director:access-dir
hosts:
  smurf-srv20:
    log-dir: /log
    crossbar_timeout: 20
    agent-instances:
    - agent-class: FakeDataAgent
      instance-id: fake
      arguments: {broken: yes}
    - agent-class: SupRsync
      instance-id: timestream-sync
      manage: docker/up
      arguments:
      - --archive-name
      - timestreams
      - --remote-basedir
      - /data/timestreams
      - --db-path
      - /data/so/dbs/suprsync.db
      - --ssh-host
      - cryo@simons1
      - --ssh-key
      - /home/cryo/.ssh/id_rsa
      - [--sleep-time, 20]
      - [--max-copy-attempts, 5]
      - --suprsync-file-root
      - /data/so/suprsync
";

struct Case {
    _dir: tempfile::TempDir,
    path: String,
    variables: HashMap<String, String>,
    host: String,
}

impl Case {
    fn new(yaml: impl AsRef<[u8]>, host: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("default.yaml");
        std::fs::write(&path, yaml).unwrap();
        let variables = [("OCS_CONFIG_DIR".into(), dir.path().to_str().unwrap().into())].into();
        Self { path: path.to_str().unwrap().into(), variables, host: host.into(), _dir: dir }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn resolve(&self, line: &str) -> Result<Option<Resolved>, SiteError> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        resolve(WantedAgent::Archiver, &args, &|name| self.variables.get(name).cloned(), &self.host)
    }

    fn ok(&self, line: &str) -> Resolved {
        self.resolve(line).unwrap().expect("an agent")
    }

    /// The message, with the path of the file cut down to FILE.
    fn wrong(&self, line: &str) -> String {
        self.resolve(line).expect_err("refused").to_string().replace(&self.path, "FILE")
    }
}

fn words(resolved: &Resolved) -> String {
    resolved.arguments.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_old_archivers_entry_and_command_are_understood() {
    // Command and host name of the documented compose file; no id, so the class decides.
    let case = Case::new(ARCHIVER, "ocs-docker");
    let agent = case.ok("--site-hub=ws://sisock-crossbar:8001/ws --site-http=http://sisock-crossbar:8001/call");
    assert_eq!((agent.agent_class, agent.instance_id.as_str()), (AgentClass::PysmurfArchiverAgent, "pysmurf-archiver"));
    assert_eq!(agent.agent_address(), "observatory.pysmurf-archiver");
    assert_eq!(agent.wamp_server, "ws://sisock-crossbar:8001/ws");
    assert_eq!(agent.realm, "test_realm");
    assert_eq!((agent.access_policy, agent.log_dir, agent.crossbar_timeout), (None, None, None));
    assert_eq!(
        words(&case.ok("--site default")),
        "--data-dir /data/pysmurf/ --host data@smurf-srv --mode run --target pysmurf-monitor"
    );
    assert_eq!(agent.notes, Vec::<String>::new());
}

#[test]
fn suprsyncs_entry_is_translated() {
    let case = Case::new(SUPRSYNC, "smurf-srv20").with("INSTANCE_ID", "timestream-sync");
    let agent = case.ok("");
    assert_eq!((agent.agent_class, agent.instance_id.as_str()), (AgentClass::SupRsync, "timestream-sync"));
    assert_eq!(
        words(&agent),
        "--archive-name timestreams --data-dir=/data/timestreams --db=sqlite:/data/so/dbs/suprsync.db \
         --storage-host=cryo@simons1 --ssh-key /home/cryo/.ssh/id_rsa --poll=20 --max-copy-attempts 5 \
         --suprsync-file-root /data/so/suprsync"
    );
    assert_eq!(agent.wamp_server, "ws://10.10.10.2:8001/ws");
    assert_eq!(agent.access_policy.as_deref(), Some("director:access-dir"));
    assert_eq!(agent.log_dir.as_deref(), Some(Path::new("/log")));
    assert_eq!(agent.crossbar_timeout, Some(Duration::from_secs(20)));
    assert_eq!(agent.notes, Vec::<String>::new());
}

#[test]
fn without_a_name_and_a_site_we_run_alone() {
    let case = Case::new(ARCHIVER, "ocs-docker");
    for line in
        ["--site none --data-dir /d --once", "--site none --instance-id x", "--site none", "--site x --help", "-h"]
    {
        assert_eq!(case.resolve(line).unwrap(), None, "{line}");
    }
    // Else what the site file says, whatever is typed beside.
    for line in ["", "--json", "-v", "--all", "--log-dir /log --data-dir /d"] {
        assert_eq!(case.ok(line).instance_id, "pysmurf-archiver", "{line}");
    }
    let nowhere = case.with("OCS_CONFIG_DIR", "/nonexistent");
    let message = nowhere.wrong("");
    assert!(message.starts_with("There is no site file at /nonexistent/default.yaml"), "{message}");
    assert_eq!(nowhere.resolve("--data-dir /d").unwrap(), None);
    let nowhere = nowhere.with("OCS_CONFIG_DIR", "");
    assert_eq!(nowhere.resolve("").unwrap(), None);
    let message = nowhere.wrong("--instance-id x");
    assert!(message.starts_with("Variable OCS_CONFIG_DIR is not set"), "{message}");
}

#[test]
fn the_file_is_found_by_flag_or_directory() {
    let case = Case::new(ARCHIVER, "ocs-docker");
    let dir = Path::new(&case.path).parent().unwrap().to_path_buf();
    let south = dir.join("south.yaml");
    std::fs::write(&south, ARCHIVER.replace("pysmurf-archiver", "southern")).unwrap();
    assert_eq!(case.ok("--site default").instance_id, "pysmurf-archiver");
    assert_eq!(case.ok("--site south").instance_id, "southern");
    assert_eq!(case.ok(&format!("--site-file {}", south.display())).instance_id, "southern");
    assert_eq!(case.wrong("--site a --site-file b"), "Options --site and --site-file exclude each other; give one");
    let message = case.wrong("--site north");
    let north = dir.join("north.yaml");
    let expected =
        format!("There is no site file at {} (--site north in OCS_CONFIG_DIR={}); ", north.display(), dir.display());
    assert!(message.starts_with(&expected), "{message}");
    let message = case.wrong("--site-file /nonexistent/a.yaml");
    assert!(message.starts_with("There is no site file at /nonexistent/a.yaml (named by --site-file); "), "{message}");
    let message = case.with("OCS_CONFIG_DIR", "/nonexistent").wrong("--instance-id a");
    assert!(message.contains("/nonexistent/default.yaml (the default in OCS_CONFIG_DIR=/nonexistent)"), "{message}");
}

#[test]
fn the_host_is_the_given_one_or_ours_then_localhost() {
    let yaml = |names: &[&str]| {
        let mut text = String::from("hub: {wamp_server: 'ws://a', wamp_realm: r, address_root: o}\nhosts:\n");
        for name in names {
            text += &format!("  {name}:\n    agent-instances: [{{agent-class: SupRsync, instance-id: at-{name}}}]\n");
        }
        text
    };
    let case = Case::new(yaml(&["daq1", "daq2", "localhost"]), "daq1");
    assert_eq!(case.ok("").instance_id, "at-daq1");
    assert_eq!(case.ok("--site-host daq2").instance_id, "at-daq2");
    assert_eq!(case.ok("--site-host other").instance_id, "at-localhost");
    let by_variable = case.with("SITE_HOST", "daq2");
    assert_eq!(by_variable.ok("").instance_id, "at-daq2");
    assert_eq!(by_variable.ok("--site-host daq1").instance_id, "at-daq1");
    assert_eq!(
        Case::new(yaml(&["daq1", "daq2"]), "me").wrong(""),
        "Site file FILE:3:3: Found no host me or localhost; those there are: daq1, daq2; name one with --site-host"
    );
}

/// A file of one agent, with lines of ours in hub, host and entry.
fn site(hub: &str, host: &str, entry: &str) -> Case {
    let yaml = format!(
        "hub: {{wamp_server: ws://hub, wamp_http: http://hub, wamp_realm: hub, address_root: hub{hub}}}\n\
         hosts:\n  localhost:\n{host}    agent-instances:\n    - agent-class: SupRsync\n      instance-id: sync\n{entry}"
    );
    Case::new(yaml, "me")
}

#[test]
fn hub_values_come_from_the_nearest() {
    let all = |case: &Case, line: &str| {
        let agent = case.ok(line);
        [agent.wamp_server, agent.realm, agent.address_root]
    };
    let plain = site("", "", "");
    assert_eq!(all(&plain, ""), ["ws://hub", "hub", "hub"]);
    let host = "    wamp_server: ws://host\n    wamp_http: http://host\n    wamp_realm: host\n    address_root: host\n";
    let on_host = site("", host, "");
    assert_eq!(all(&on_host, ""), ["ws://host", "host", "hub"]);
    let entry = "      arguments: [--site-hub, ws://entry, [[--site-http=http://entry]], --site-realm, entry, --address-root, entry]\n";
    let in_entry = site("", host, entry);
    assert_eq!(all(&in_entry, ""), ["ws://entry", "entry", "entry"]);
    assert_eq!(in_entry.ok("").arguments, Vec::<OsString>::new());
    let typed = "--site-hub wss://typed --site-http=http://typed --realm typed --address-root typed.root";
    assert_eq!(all(&in_entry, typed), ["wss://typed", "typed", "typed.root"]);
    let set = in_entry.with("SITE_HUB", "ws://set").with("SITE_HTTP", "http://set");
    assert_eq!(all(&set, ""), ["ws://set", "entry", "entry"]);
    assert_eq!(all(&set, typed), ["wss://typed", "typed", "typed.root"]);
}

#[test]
fn time_limit_log_and_policy_come_from_the_nearest() {
    let seconds = |case: &Case, line: &str| {
        case.ok(&format!("--instance-id sync {line}")).crossbar_timeout.map(|limit| limit.as_secs_f64())
    };
    assert_eq!(seconds(&site("", "", ""), ""), None);
    assert_eq!(seconds(&site("", "    crossbar-timeout: 7\n", ""), ""), None);
    assert_eq!(seconds(&site("", "    crossbar_timeout: null\n", ""), ""), None);
    assert_eq!(seconds(&site("", "    crossbar_timeout: 2.5\n", ""), ""), Some(2.5));
    let host = "    crossbar_timeout: 20\n    log-dir: logs\n";
    assert_eq!(seconds(&site("", host, ""), ""), Some(20.0));
    let entry = "      arguments: [--crossbar-timeout, 0, --log-dir=/entry, --access-policy, none]\n";
    let case = site(", access_policy: 'override:a,b'", host, entry);
    assert_eq!(seconds(&case, ""), Some(0.0));
    assert_eq!(seconds(&case, "--crossbar-timeout 5"), Some(5.0));
    assert_eq!((case.ok("").log_dir, case.ok("").access_policy), (Some("/entry".into()), Some("none".into())));
    let typed = case.ok("--log-dir typed --working-dir /work --access-policy director:");
    assert_eq!((typed.log_dir, typed.working_dir), (Some("/work/typed".into()), Some("/work".into())));
    assert_eq!(typed.access_policy.as_deref(), Some("director:"));
    let case = case.with("CROSSBAR_TIMEOUT", "30");
    assert_eq!((seconds(&case, ""), seconds(&case, "--crossbar-timeout=5")), (Some(30.0), Some(5.0)));
    let case = site(", access_policy: 'override:a,b'", host, "");
    assert_eq!((case.ok("").log_dir, case.ok("").access_policy), (Some("logs".into()), Some("override:a,b".into())));
}

#[test]
fn arguments_are_flattened_printed_and_merged() {
    let arguments = |yaml: &str, line: &str| {
        words(&site("", "", &format!("      arguments: {yaml}\n")).ok(&format!("--instance-id sync {line}")))
    };
    assert_eq!(
        arguments("[--a, 5, [[--b, [True, ~]], -5, 30.0], '--c', '010', 010]", ""),
        "--a 5 --b True None -5 30.0 --c 010 8"
    );
    assert_eq!(arguments("[--a, 1, --b, 2, --a, 3]", ""), "--b 2 --a 3");
    assert_eq!(arguments("[--a=1, --b, 2, --a, 3]", ""), "--b 2 --a 3");
    assert_eq!(arguments("[--a, 1, --b, 2]", "--a 7 8 --once"), "--a 7 8 --once --b 2");
    assert_eq!(arguments("[--a=1, --b, 2]", "--a 7"), "--a 7 --b 2");
    assert_eq!(arguments("[--a, 1, --b, 2]", "--a=7 --site-host localhost -- x"), "--a=7 --b 2 -- x");
    // Translated before they are compared.
    assert_eq!(arguments("[--ssh-host, file]", "--storage-host typed"), "--storage-host typed");
    assert_eq!(arguments("[--ssh-host, file]", "--ssh-host typed"), "--storage-host=typed");
    assert_eq!(arguments("[--bwlimit, 100]", "--bwlimit 0"), "--bwlimit 0");
    assert_eq!(words(&site("", "", "").ok("--once --site default")), "--once");
}

#[test]
fn a_whole_command_line_is_that_of_the_genuine_parser() {
    // What site_config.parse_args of ocs 0.12.1 makes of the same entry: alpha, beta, site_hub, site_realm, timeout.
    let entry = "      arguments: [[--alpha, 5, [[True, ~]], -5], --beta=1, '--beta', 2, --alpha, on, 010, 30.0, --site-realm, arg]\n";
    let case = site("", "    wamp_server: ws://host\n    crossbar_timeout: 20\n", entry);
    for (line, words_then, server, seconds) in [
        ("--site default", "--beta 2 --alpha True 8 30.0", "ws://host", 20),
        ("--site default --alpha 7", "--alpha 7 --beta 2", "ws://host", 20),
        ("--site default --beta 9", "--beta 9 --alpha True 8 30.0", "ws://host", 20),
        ("--beta=9 --site-hub ws://cl", "--beta=9 --alpha True 8 30.0", "ws://cl", 20),
        ("--crossbar-timeout 3 --instance-id sync", "--beta 2 --alpha True 8 30.0", "ws://host", 3),
    ] {
        let agent = case.ok(line);
        assert_eq!(words(&agent), words_then, "{line}");
        assert_eq!((agent.wamp_server.as_str(), agent.realm.as_str()), (server, "arg"));
        assert_eq!(agent.crossbar_timeout, Some(Duration::from_secs(seconds)));
    }
}

#[test]
fn braces_of_old_files_need_not_be_indented() {
    let yaml = "hub:\n\n  wamp_server: ws://127.0.0.1:8001/ws\n  wamp_realm: test_realm\n  address_root: observatory\nhosts:\n\n  \
                localhost: {\n  'crossbar': {'config-dir': './dot_crossbar/'},\n    'agent-instances': [\n      \
                {'agent-class': 'PysmurfArchiverAgent',\n       'instance-id': 'archiver',\n       \
                'arguments': [['--data-dir', '/data/'],\n                     ['--workers', 2]]},\n    ]\n}\n";
    assert_eq!(words(&Case::new(yaml, "me").ok("")), "--data-dir /data/ --workers 2");
}

#[test]
fn options_that_find_the_entry_have_no_effect_in_it() {
    let case = site("", "", "      arguments: [--instance-id, other, --site-host, x, --registry-address, r]\n");
    let agent = case.ok("");
    assert_eq!((agent.instance_id.as_str(), words(&agent).as_str()), ("sync", ""));
}

#[test]
fn mistakes_in_our_entry_are_refused_with_their_line() {
    for (entry, expected) in [
        (
            "      arguments: text\n",
            "7:18: Found the text \"text\" for arguments; expected a list, such as [--poll, 5]",
        ),
        ("      arguments:\n", "7:16: Found nothing for arguments; expected a list, such as [--poll, 5]"),
        (
            "      arguments:\n        - {a: b}\n",
            "8:11: Found a mapping as an argument; expected text, a number or a list",
        ),
        ("      arguments: [--a, !x y]\n", "7:27: Found the tag !x; expected none"),
        ("      arguments: [--a, '']\n", "7:24: Found \"\" as an argument; expected an option or a value"),
        ("      arguments: [--a, --]\n", "7:24: Found \"--\" as an argument; expected an option or a value"),
        (
            "      arguments: [a, --b]\n",
            "7:19: Found the argument \"a\" before any option; expected an option, such as --poll",
        ),
        (
            "      arguments: [--a, 2020-01-01 10:00:00]\n",
            "7:24: Found the unusual value 2020-01-01 10:00:00 as an argument; put it in quotes to have it as it stands",
        ),
        (
            "      arguments: [--site-hub, http://x]\n",
            "7:19: Option --site-hub: found \"http://x\"; expected the router's URL, ws://HOST:PORT/PATH or wss://…",
        ),
        ("      arguments: [--site-hub]\n", "7:19: Option --site-hub: found 0 values; expected one"),
        (
            "      arguments: [--crossbar-timeout, soon]\n",
            "7:19: Option --crossbar-timeout: found \"soon\"; expected seconds, 0 for never",
        ),
        ("      arguments: [--copy-timeout, soon]\n", "7:19: Option --copy-timeout: found \"soon\"; expected a number"),
        (
            "      arguments: []\n      arguments: []\n",
            "8:7: Found the key arguments twice, first in line 7; remove one of them",
        ),
        (
            "    - agent-class: SupRsync\n      instance-id: two\n",
            "7:7: Found a second instance of our agent-class; choose with --instance-id among sync (SupRsync, line 5), two (SupRsync, line 7)",
        ),
        (
            "    - agent-class: PysmurfArchiverAgent\n      instance-id: two\n",
            "7:7: Found a second instance of our agent-class; choose with --instance-id among sync (SupRsync, line 5), two (PysmurfArchiverAgent, line 7)",
        ),
        ("    - text\n", "7:7: Found the text \"text\" for an agent instance; expected a mapping of keys and values"),
    ] {
        assert_eq!(site("", "", entry).wrong(""), format!("Site file FILE:{expected}"), "{entry}");
    }
    let case = site(
        "",
        "",
        "    - {instance-id: sync}\n    - {agent-class: Fake, instance-id: fake}\n    - {instance-id: bare}\n",
    );
    for (id, expected) in [
        (
            "other",
            "5:7: Found no instance-id \"other\" for host localhost; those there are: sync (SupRsync, line 5), sync (?, line 7), fake (Fake, line 8), bare (?, line 9)",
        ),
        (
            "sync",
            "7:7: Found the instance-id \"sync\" a second time; expected it once: sync (SupRsync, line 5), sync (?, line 7)",
        ),
        ("fake", "8:21: Key agent-class: found \"Fake\"; expected PysmurfArchiverAgent or SupRsync"),
        ("bare", "9:7: The key agent-class is missing"),
    ] {
        assert_eq!(case.wrong(&format!("--instance-id {id}")), format!("Site file FILE:{expected}"));
    }
}

#[test]
fn mistakes_in_hub_and_host_are_refused_with_their_line() {
    let hub = "hub: {wamp_server: 'ws://a', wamp_realm: r, address_root: o}\n";
    let instances = "    agent-instances: [{agent-class: SupRsync, instance-id: a}]\n";
    let hosts = format!("hosts:\n  localhost:\n{instances}");
    let entry = |text: &str| format!("{hub}hosts:\n  localhost:\n    agent-instances: [{text}]\n");
    for (yaml, expected) in [
        ("- a\n".to_owned(), "1:1: Found a list for the whole file; expected a mapping of keys and values"),
        (hosts.clone(), "1:1: The key hub is missing; expected hub and hosts"),
        (hub.to_owned(), "1:1: The key hosts is missing; expected hub and hosts"),
        (format!("hub: 5\n{hosts}"), "1:6: Found the text \"5\" for hub; expected a mapping of keys and values"),
        (format!("{hub}hosts: yes\n"), "2:8: Found the text \"yes\" for hosts; expected a mapping of keys and values"),
        (
            format!("hub: {{}}\n{hosts}"),
            "1:6: The key wamp_server of hub is missing; expected, for example, wamp_server: ws://127.0.0.1:8001/ws",
        ),
        (
            format!("hub: {{wamp_server: 'ws://a'}}\n{hosts}"),
            "1:6: The key wamp_realm of hub is missing; expected, for example, wamp_realm: test_realm",
        ),
        (
            format!("hub: {{wamp_server: 'ws://a', wamp_realm: r}}\n{hosts}"),
            "1:6: The key address_root of hub is missing; expected, for example, address_root: observatory",
        ),
        (format!("hub:\n  wamp_server: [a]\n{hosts}"), "2:16: Found a list for wamp_server; expected text"),
        (
            format!("hub:\n  wamp_server: 127.0.0.1:8001\n{hosts}"),
            "2:16: Key wamp_server: found \"127.0.0.1:8001\"; expected the router's URL, ws://HOST:PORT/PATH or wss://…",
        ),
        (
            format!("hub:\n  wamp_server: ws://a\n  wamp_realm: a b\n{hosts}"),
            "3:15: Key wamp_realm: found \"a b\"; expected the name of a realm, without blanks",
        ),
        (
            format!("hub:\n  wamp_server: ws://a\n  wamp_realm: a\n  address_root: a..b\n{hosts}"),
            "4:17: Key address_root: found \"a..b\"; expected the first part of all addresses, such as observatory, without blanks and empty parts",
        ),
        (
            format!("hub:\n  wamp_server: ws://a\n  wamp_server: ws://b\n{hosts}"),
            "3:3: Found the key wamp_server twice, first in line 2; remove one of them",
        ),
        (
            format!("{hub}hosts:\n  a: {{}}\n  a: {{}}\n"),
            "4:3: Found the key a twice, first in line 3; remove one of them",
        ),
        (
            format!("{hub}hosts:\n  localhost: [a]\n"),
            "3:14: Found a list for host localhost; expected a mapping of keys and values",
        ),
        (
            format!("{hub}hosts:\n  localhost: {{log-dir: a}}\n"),
            "3:14: The key agent-instances of host localhost is missing",
        ),
        (
            format!("{hub}hosts:\n  localhost: {{agent-instances: }}\n"),
            "3:30: Found nothing for agent-instances; expected a list of mappings",
        ),
        (format!("{hosts}    log-dir: {{}}\n{hub}"), "4:14: Found a mapping for log-dir; expected text"),
        (
            format!("{hosts}    crossbar_timeout: yes\n{hub}"),
            "4:23: Key crossbar_timeout: found \"yes\"; expected seconds, 0 for never",
        ),
        (
            format!("{hosts}    crossbar_timeout: -1\n{hub}"),
            "4:23: Key crossbar_timeout: found \"-1\"; expected seconds, 0 for never",
        ),
        (
            format!("{hosts}    crossbar_timeout: .inf\n{hub}"),
            "4:23: Key crossbar_timeout: found \".inf\"; expected seconds, 0 for never",
        ),
        (
            entry("{agent-class: Fake, instance-id: f}"),
            "4:22: Found no agent-class PysmurfArchiverAgent or SupRsync for host localhost; those there are: f (Fake, line 4); name ours with --instance-id, or run alone with --site none",
        ),
        (
            entry(""),
            "4:22: Found no agent-class PysmurfArchiverAgent or SupRsync for host localhost; those there are: none; name ours with --instance-id, or run alone with --site none",
        ),
        (entry("{agent-class: SupRsync}"), "4:23: The key instance-id is missing"),
        (entry("{agent-class: SupRsync, instance-id: []}"), "4:60: Found a list for instance-id; expected text"),
        (
            entry("{agent-class: SupRsync, instance-id: a.b}"),
            "4:60: Key instance-id: found \"a.b\"; expected a name, and a dot would split it",
        ),
        (
            "hub:\n  a: b\nhosts:\n\t localhost: c\n".to_owned(),
            "4:1: Found a tab that indents the line; expected blanks: ",
        ),
    ] {
        let message = Case::new(&yaml, "me").wrong("");
        let expected = format!("Site file FILE:{expected}");
        assert!(
            message == expected || (expected.ends_with(": ") && message.starts_with(&expected)),
            "{yaml}\n{message}\n{expected}"
        );
    }
    assert_eq!(
        Case::new(b"hub: {}\nhosts: \xff\n", "me").wrong(""),
        "Site file FILE:2:8: Found bytes that are no UTF-8; save the file as UTF-8"
    );
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let case = site("", "", "");
    for (line, expected) in [
        (
            "--instance-id a.b",
            "Option --instance-id (or INSTANCE_ID): found \"a.b\"; expected a name, and a dot would split it",
        ),
        (
            "--site-hub x",
            "Option --site-hub (or SITE_HUB): found \"x\"; expected the router's URL, ws://HOST:PORT/PATH or wss://…",
        ),
        (
            "--instance-id sync --crossbar-timeout -1.5",
            "Option --crossbar-timeout (or CROSSBAR_TIMEOUT): found \"-1.5\"; expected seconds, 0 for never",
        ),
        (
            "--address-root a.",
            "Option --address-root: found \"a.\"; expected the first part of all addresses, such as observatory, without blanks and empty parts",
        ),
        ("--instance-id", "Option --instance-id (or INSTANCE_ID): found 0 values; expected one"),
        ("--instance-id sync --copy-timeout soon", "Option --copy-timeout: found \"soon\"; expected a number"),
    ] {
        assert_eq!(case.wrong(line), expected);
    }
}

#[test]
fn entries_of_others_may_say_what_they_like() {
    let others = "    extra: [1, {a: b}]\n    crossbar: null\n";
    let entry = "      manage: docker/up\n      extra: 5\n    - {agent-class: Fake, instance-id: 7, a: 1, a: 2, arguments: {x: y}}\n    - {}\n";
    let case = site(", shutdown: {a: [b]}", others, entry);
    assert_eq!(case.ok("").instance_id, "sync");
}

#[test]
fn bombs_in_our_arguments_are_refused_quickly() {
    let start = Instant::now();
    let mut yaml = String::from("l0: &l0 []\n");
    for n in 1..60 {
        yaml += &format!("l{n}: &l{n} [*l{0}, *l{0}]\n", n - 1);
    }
    yaml +=
        "hub: {wamp_server: 'ws://a', wamp_realm: r, address_root: o}\nhosts:\n  localhost:\n    agent-instances:\n";
    yaml += "    - {agent-class: SupRsync, instance-id: a, arguments: *l59}\n";
    let message = Case::new(&yaml, "me").wrong("");
    assert!(message.contains("Found more than 10000 arguments"), "{message}");
    let case = Case::new("a".repeat(3 << 20), "me");
    assert!(case.wrong("").contains("expected a site file of at most 1048576"), "{}", case.wrong(""));
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn the_log_level_is_one_of_txaios() {
    let level = |text: &'static str| log_level(&move |name| (name == "LOGLEVEL").then(|| text.into()));
    assert_eq!(level("debug").unwrap(), Some(LevelFilter::DEBUG));
    assert_eq!(level("WARN").unwrap(), Some(LevelFilter::WARN));
    assert_eq!(level("none").unwrap(), Some(LevelFilter::OFF));
    assert_eq!(level("").unwrap(), None);
    let message = level("loud").unwrap_err().to_string();
    assert_eq!(
        message,
        "Variable LOGLEVEL: found \"loud\"; expected none, critical, error, warn, info, debug or trace"
    );
}

#[test]
fn the_machine_has_a_name() {
    assert!(!system_host_name().is_empty());
}

/// A site file with one piece damaged.
fn damaged() -> impl Strategy<Value = String> {
    let piece = "([-\\[\\]{}:,&*!<|>'\"%#? \t\nab0~]{0,6})|(\\PC{0,6})";
    (prop::bool::ANY, any::<prop::sample::Index>(), 0..40usize, piece).prop_map(|(which, at, length, piece)| {
        let text = if which { ARCHIVER } else { SUPRSYNC };
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        format!("{}{piece}{}", &text[..at], &text[end..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(9), ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_are_used_or_refused_with_a_line(yaml in damaged(), named in prop::bool::ANY) {
        let case = Case::new(&yaml, "smurf-srv20");
        let line = if named { "--instance-id pysmurf-archiver --site-host ocs-docker" } else { "" };
        if let Err(error) = case.resolve(line) {
            let message = error.to_string();
            prop_assert!(matches!(error, SiteError::YamlContent { .. }), "{message}");
            prop_assert!(message.starts_with(&format!("Site file {}:", case.path)), "{message}");
        }
    }

    #[test]
    fn any_bytes_are_used_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let case = Case::new(&bytes, "me");
        prop_assert!(case.resolve("").is_err());
    }

    #[test]
    fn any_words_are_used_or_refused(words in prop::collection::vec("(--(site|realm|a|db-path|site-file|instance-id|copy-timeout)(=.{0,3})?)|(-{0,3}\\PC{0,4})", 0..8)) {
        let case = site("", "", "      arguments: [--a, 1]\n");
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        let _ = resolve(WantedAgent::Any, &args, &|name| case.variables.get(name).cloned(), "me");
    }
}
