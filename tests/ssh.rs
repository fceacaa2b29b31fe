//! The SSH transport against a real sshd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(unreachable_pub)]
#[path = "support"]
mod support {
    pub mod outages;
    pub mod processes;
    pub mod sshd;
    pub mod tools;
    pub mod wait;
}

#[allow(unreachable_pub)]
#[path = "ssh/false_server.rs"]
mod false_server;
#[path = "ssh/hostile.rs"]
mod hostile;
#[path = "ssh/malformed.rs"]
mod malformed;

use pysmurf_archiver::link::{Ending, Link};
use pysmurf_archiver::transport::ssh::{Ssh, SshOptions};
use pysmurf_archiver::transport::{CommandOutput, Connect, ConnectError};
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::sshd::{Sshd, keygen, keygen_with};
use support::wait::wait_until;

const SOON: Duration = Duration::from_secs(60);

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A far end whose `open(&[])` runs this script.
fn with_program(mut options: SshOptions, script: &str) -> Ssh {
    options.rsync_path = words(&["sh", "-c", script]);
    Ssh::new(options).unwrap()
}

fn sh(ssh: &mut Ssh, script: &str) -> Result<CommandOutput, ConnectError> {
    ssh.run(&words(&["sh", "-c", script]))
}

/// Nothing that compresses or repeats within a window.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Sends bytes through a `cat` at the far end, in pieces of these sizes, and compares what comes back.
fn full_duplex(extra_config: &str, len: usize, sizes: impl Iterator<Item = usize> + Send) {
    let Some(sshd) = Sshd::start(extra_config) else { return };
    let mut ssh = with_program(sshd.options(), "exec cat");
    let Link { mut reader, mut writer, remote, .. } = ssh.open(&[]).unwrap();
    let sent = noise(len, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Flushed as rsync would: a flush must lose nothing.
            let mut rest = &sent[..];
            for size in sizes {
                let (piece, later) = rest.split_at(size.min(rest.len()));
                writer.write_all(piece).unwrap();
                writer.flush().unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            drop(writer);
        });
        let mut got = Vec::with_capacity(sent.len());
        reader.read_to_end(&mut got).unwrap();
        assert!(got == sent, "{} bytes came back of {}, or others", got.len(), sent.len());
    });
    assert_eq!(remote.wait(SOON), Some(Ending::Exited(0)));
}

fn uneven() -> impl Iterator<Item = usize> + Send {
    (1..).map(|i: usize| i * 7919 % 150_000 + 1)
}

#[test]
fn full_duplex_bulk() {
    full_duplex("", 64 << 20, uneven());
}

#[test]
fn full_duplex_bulk_while_the_server_rekeys() {
    full_duplex("RekeyLimit 4M", 64 << 20, uneven());
}

/// Every way of encrypting that libssh2 has, with packets of every size modulo a block and new keys under load.
#[test]
fn every_cipher_and_mac_carries_every_size() {
    let integrated = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];
    let macs = ["hmac-sha2-256", "hmac-sha2-512"];
    let etm = macs.map(|mac| format!("{mac}-etm@openssh.com"));
    let macs: Vec<_> = macs.into_iter().map(str::to_owned).chain(etm).collect();
    let ciphers = integrated.map(|cipher| (cipher, "hmac-sha2-256".to_owned())).into_iter().chain(
        ["aes128-ctr", "aes192-ctr", "aes256-ctr"]
            .into_iter()
            .flat_map(|cipher| macs.iter().map(move |mac| (cipher, mac.clone()))),
    );
    for (cipher, mac) in ciphers {
        let config = format!("Ciphers {cipher}\nMACs {mac}\nRekeyLimit 1M");
        full_duplex(&config, 3 << 20, (1..300).chain(uneven()));
    }
}

/// A build that uses libssh2 as shipped says so; on Linux with the sources at hand it must not come to that.
#[test]
fn whole_packets_are_encrypted() {
    let wanted = cfg!(target_os = "linux") && option_env!("ARCHIVER_LIBSSH2_AS_SHIPPED").is_none();
    assert_eq!(cfg!(whole_packets), wanted);
}

#[test]
fn endings_and_error_output() {
    let Some(sshd) = Sshd::start("") else { return };
    let mut ssh = Ssh::new(sshd.options()).unwrap();
    assert_eq!(ssh.describe(), format!("{}@127.0.0.1:{}", sshd.user(), sshd.port));
    let zero = sh(&mut ssh, "printf '<%s>' \"$HOME\"").unwrap();
    assert_eq!(zero.status, Some(0));
    assert_eq!(String::from_utf8(zero.stdout).unwrap(), format!("<{}>", sshd.path("home").display()));
    assert_eq!(sh(&mut ssh, "exit 3").unwrap().status, Some(3));
    // Its output ends long before it does: the status must not be lost.
    assert_eq!(sh(&mut ssh, "exec >&- 2>&-; sleep 1; exit 7").unwrap().status, Some(7));
    let unknown = ssh.run(&words(&["no-such-command-here"])).unwrap();
    assert_eq!(unknown.status, Some(127));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no-such-command-here"));
    let odd = ssh.run(&words(&["printf", "<%s>", "a b", "$HOME", "", "it's", "~", "*"])).unwrap();
    assert_eq!(String::from_utf8(odd.stdout).unwrap(), "<a b><$HOME><><it's><~><*>");
    let foreign = OsString::from_vec(b"caf\xe9 \xff".to_vec());
    let back = ssh.run(&[OsString::from("printf"), OsString::from("%s"), foreign]).unwrap();
    assert_eq!(back.stdout, b"caf\xe9 \xff");
    assert!(matches!(ssh.run(&words(&["true", "a\0b"])), Err(ConnectError::Setup(_))));
    assert_eq!(sh(&mut ssh, "kill -9 $$").unwrap().status, None);

    let link = with_program(sshd.options(), "kill -9 $$").open(&[]).unwrap();
    assert_eq!(link.remote.wait(SOON), Some(Ending::Signalled("KILL".to_owned())));
}

#[test]
fn aes_gcm_is_preferred_and_other_ciphers_work() {
    for (allowed, chosen) in [
        ("LogLevel DEBUG3", "aes128-gcm@openssh.com"),
        ("LogLevel DEBUG3\nCiphers chacha20-poly1305@openssh.com,aes256-ctr", "aes256-ctr"),
        ("LogLevel DEBUG3\nCiphers chacha20-poly1305@openssh.com", "chacha20-poly1305@openssh.com"),
    ] {
        let Some(sshd) = Sshd::start(allowed) else { return };
        let output = sh(&mut Ssh::new(sshd.options()).unwrap(), "head -c 65536 /dev/zero").unwrap();
        assert_eq!(output.stdout.len(), 65536);
        for direction in ["client->server", "server->client"] {
            let line = format!("kex: {direction} cipher: {chosen}");
            assert!(sshd.log().contains(&line), "no {line} in {}", sshd.log());
        }
        assert!(sshd.log().contains("strict KEX"), "{}", sshd.log());
    }
}

#[test]
fn rsync_answers() {
    let Some(sshd) = Sshd::start("") else { return };
    if !support::tools::require("rsync") {
        return;
    }
    let mut ssh = Ssh::new(sshd.options()).unwrap();
    assert_eq!(ssh.program(), words(&["rsync"]));
    let mut link = ssh.open(&words(&["--server", "--sender", "-e.LsfxCIvu", ".", "."])).unwrap();
    let mut version = [0; 4];
    link.reader.read_exact(&mut version).unwrap();
    assert!(u32::from_le_bytes(version) >= 30, "{version:?}");
    link.writer.write_all(&30u32.to_le_bytes()).unwrap();
    // It cannot do without us, and says so.
    drop(link.writer);
    link.reader.read_to_end(&mut Vec::new()).unwrap();
    assert!(matches!(link.remote.wait(SOON), Some(Ending::Exited(status)) if status != 0));
    assert!(link.remote.stderr().contains("rsync error"), "{}", link.remote.stderr());
}

#[test]
fn a_link_left_early_does_not_hold_up_the_next() {
    let Some(sshd) = Sshd::start("") else { return };
    for stubborn in ["exec yes", "exec sleep 100", "exec cat"] {
        let mut ssh = with_program(sshd.options(), stubborn);
        let Link { reader, writer, remote, .. } = ssh.open(&[]).unwrap();
        drop((reader, writer));
        assert_eq!(sh(&mut ssh, "exit 2").unwrap().status, Some(2), "after {stubborn}");
        let ending = remote.wait(SOON).unwrap();
        assert_eq!(matches!(ending, Ending::Lost(_)), stubborn != "exec cat", "{stubborn}: {ending:?}");
    }
}

#[test]
fn much_error_output_stops_nothing() {
    let Some(sshd) = Sshd::start("") else { return };
    let script = "head -c 5000000 /dev/zero | tr '\\0' e >&2; echo out; echo last >&2";
    let Link { mut reader, remote, writer, .. } = with_program(sshd.options(), script).open(&[]).unwrap();
    let mut out = String::new();
    reader.read_to_string(&mut out).unwrap();
    assert_eq!(out, "out\n");
    assert_eq!(remote.wait(SOON), Some(Ending::Exited(0)));
    assert!(remote.stderr().ends_with("eelast\n"));
    assert_eq!(remote.stderr().len(), 65536);
    drop(writer);
}

#[test]
fn a_slow_reader_holds_the_far_end_back_and_loses_nothing() {
    let Some(sshd) = Sshd::start("") else { return };
    let link = with_program(sshd.options(), "head -c 40000000 /dev/zero; echo end >&2").open(&[]).unwrap();
    let mut reader = link.reader;
    let mut first = [0; 10];
    reader.read_exact(&mut first).unwrap();
    // More than pipe, window and socket buffers hold is on its way; the far end cannot have ended.
    assert_eq!(link.remote.wait(Duration::from_secs(1)), None);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 40_000_000 - 10);
    assert_eq!(link.remote.wait(SOON), Some(Ending::Exited(0)));
}

/// So looks a server that tells seldom what it has passed on.
#[test]
fn a_far_end_that_takes_nothing_for_long_is_given_its_whole_window() {
    let Some(sshd) = Sshd::start("") else { return };
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let mut ssh = with_program(sshd.options(), &format!("read _ <{}; exec wc -c", gate.display()));
    let Link { mut reader, mut writer, .. } = ssh.open(&[]).unwrap();
    writer.write_all(&noise(2 << 20, 5)).unwrap();
    writer.flush().unwrap();
    fs::write(&gate, "now\n").unwrap();
    drop(writer);
    let mut counted = String::new();
    reader.read_to_string(&mut counted).unwrap();
    assert_eq!(counted.trim(), "2097152");
}

#[test]
fn a_killed_session_is_replaced_at_the_next_call() {
    let Some(sshd) = Sshd::start("") else { return };
    let mut ssh = with_program(sshd.options(), "exec cat");
    assert_eq!(sh(&mut ssh, "exit 0").unwrap().status, Some(0));
    // While idle.
    sshd.signal("KILL");
    let mut link = ssh.open(&[]).unwrap();
    link.writer.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    link.reader.read_exact(&mut back).unwrap();
    // In the middle of a link.
    sshd.signal("KILL");
    let error = link.reader.read(&mut back).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(matches!(link.remote.wait(SOON), Some(Ending::Lost(_))));
    assert!(link.writer.write_all(&[0; 8]).is_err());
    assert_eq!(sh(&mut ssh, "exit 4").unwrap().status, Some(4));
    // The whole server.
    sshd.kill();
    let error = sh(&mut ssh, "exit 0").unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. } | ConnectError::Lost { .. }), "{error}");
    sshd.restart();
    assert_eq!(sh(&mut ssh, "exit 5").unwrap().status, Some(5));
    ssh.disconnect();
    assert_eq!(sh(&mut ssh, "exit 6").unwrap().status, Some(6));
}

#[test]
fn a_frozen_far_end_is_a_timeout() {
    let Some(sshd) = Sshd::start("") else { return };
    let mut options = sshd.options();
    options.stall_timeout = Duration::from_secs(4);
    let mut ssh = with_program(options, "exec cat");
    for writing in [false, true] {
        let mut link = ssh.open(&[]).unwrap();
        link.writer.write_all(b"x").unwrap();
        link.reader.read_exact(&mut [0]).unwrap();
        sshd.signal("STOP");
        let began = Instant::now();
        let error = match writing {
            false => link.reader.read(&mut [0]).unwrap_err(),
            true => link.writer.write_all(&vec![0; 64 << 20]).unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(3900) && took < SOON, "{took:?}");
        drop(link);
        // The frozen session is thrown away, not waited for.
        assert_eq!(sh(&mut ssh, "exit 2").unwrap().status, Some(2));
        sshd.signal("KILL");
    }
}

#[test]
fn a_link_may_wait_long_while_nobody_waits() {
    let Some(sshd) = Sshd::start("") else { return };
    let mut options = sshd.options();
    options.stall_timeout = Duration::from_secs(4);
    let mut link = with_program(options, "exec cat").open(&[]).unwrap();
    // Neither side reads or writes; this is not a stall.
    assert_eq!(link.remote.wait(Duration::from_secs(6)), None);
    link.writer.write_all(b"still here").unwrap();
    let mut back = [0; 10];
    link.reader.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
}

#[test]
fn closing_wakes_a_reader_and_the_next_link_works() {
    let Some(sshd) = Sshd::start("") else { return };
    let mut ssh = with_program(sshd.options(), "exec cat");
    let Link { mut reader, mut writer, closer, remote, .. } = ssh.open(&[]).unwrap();
    let reading = thread::spawn(move || reader.read(&mut [0]).unwrap_err().kind());
    closer.close();
    assert_eq!(reading.join().unwrap(), ErrorKind::ConnectionAborted);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(matches!(remote.wait(SOON), Some(Ending::Lost(_))));
    assert_eq!(sh(&mut ssh, "exit 1").unwrap().status, Some(1));
}

#[test]
fn a_second_link_waits_for_the_first_and_a_dropped_connection_spares_it() {
    let Some(sshd) = Sshd::start("") else { return };
    let mut options = sshd.options();
    options.connect_timeout = Duration::from_secs(10);
    let mut ssh = with_program(options, "exec cat");
    let mut first = ssh.open(&[]).unwrap();
    let error = ssh.open(&[]).err().unwrap();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
    drop(ssh);
    first.writer.write_all(b"alive").unwrap();
    drop(first.writer);
    let mut back = String::new();
    first.reader.read_to_string(&mut back).unwrap();
    assert_eq!(back, "alive");
    assert_eq!(first.remote.wait(SOON), Some(Ending::Exited(0)));
}

/// Which process serves, each line of a file says.
#[test]
fn a_program_started_ahead_is_taken_over_by_who_asks_for_the_same() {
    let Some(sshd) = Sshd::start("") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let list = scratch.path().join("started");
    let mut ssh = with_program(sshd.options(), &format!("echo $0 >>{}; cat", list.display()));
    let started =
        || fs::read_to_string(&list).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let serve = |ssh: &mut Ssh, arg: &str| {
        let mut link = ssh.open(&words(&[arg])).unwrap();
        link.writer.write_all(b"and back").unwrap();
        drop(link.writer);
        let mut back = Vec::new();
        link.reader.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"and back");
    };
    ssh.open_ahead();
    assert!(ssh.ahead_since().is_none(), "nothing has served yet");
    serve(&mut ssh, "a");
    ssh.open_ahead();
    wait_until("it is started ahead", || started() == ["a", "a"]);
    assert!(ssh.ahead_since().is_some());
    serve(&mut ssh, "a");
    assert_eq!((started().len(), ssh.ahead_since()), (2, None), "it was taken over");
    // Whoever asks for something else has it ended.
    ssh.open_ahead();
    wait_until("it is started ahead", || started().len() == 3);
    serve(&mut ssh, "b");
    assert_eq!(started(), ["a", "a", "a", "b"]);
    // What has ended meanwhile serves nobody.
    ssh.open_ahead();
    wait_until("it is started ahead", || started().len() == 5);
    ssh.leave_ahead();
    serve(&mut ssh, "b");
    assert_eq!((started().len(), ssh.ahead_since()), (6, None));
}

#[test]
fn a_session_that_froze_while_idle_is_replaced() {
    let Some(sshd) = Sshd::start("LogLevel DEBUG1") else { return };
    let mut options = sshd.options();
    options.connect_timeout = Duration::from_secs(10);
    assert_eq!(options.trusted_idle, Duration::from_secs(5));
    // It is asked each time before it is trusted.
    options.trusted_idle = Duration::ZERO;
    let mut ssh = Ssh::new(options).unwrap();
    assert_eq!(sh(&mut ssh, "exit 1").unwrap().status, Some(1));
    assert_eq!(sh(&mut ssh, "exit 2").unwrap().status, Some(2));
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1);
    // It is idle once it has a channel for the next command.
    wait_until("a third channel", || sshd.log().matches("channel_open: confirm session").count() == 3);
    sshd.signal("STOP");
    assert_eq!(sh(&mut ssh, "exit 3").unwrap().status, Some(3));
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 2);
}

#[test]
fn an_idle_connection_answers_the_server() {
    let Some(sshd) = Sshd::start("LogLevel DEBUG1\nClientAliveInterval 1\nClientAliveCountMax 1") else { return };
    let mut ssh = Ssh::new(sshd.options()).unwrap();
    assert_eq!(sh(&mut ssh, "exit 1").unwrap().status, Some(1));
    // Its thread must answer the server's questions, or the server leaves after the second.
    wait_until("it has answered three times", || sshd.log().matches("for keepalive").count() >= 3);
    assert_eq!(sh(&mut ssh, "exit 2").unwrap().status, Some(2));
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());
}

/// The outcome of a connection that believes these lines only.
fn with_known_hosts(sshd: &Sshd, lines: &str) -> Result<CommandOutput, ConnectError> {
    let file = sshd.path("case");
    fs::write(&file, lines).unwrap();
    let mut options = sshd.options();
    options.known_hosts = Some(file);
    sh(&mut Ssh::new(options).unwrap(), "exit 0")
}

#[test]
fn host_keys_are_checked() {
    let Some(sshd) = Sshd::start("") else { return };
    let ed25519 = sshd.known_hosts_line("ed25519");
    with_known_hosts(&sshd, &ed25519).unwrap();
    // The server has an ed25519 key too, and would show that unless asked.
    with_known_hosts(&sshd, &sshd.known_hosts_line("rsa")).unwrap();
    with_known_hosts(&sshd, &ed25519.replacen("[127.0.0.1]", "other,[127.0.0.*]", 1)).unwrap();

    let hashed = sshd.path("hashed");
    fs::write(&hashed, &ed25519).unwrap();
    assert!(Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&hashed).output().unwrap().status.success());
    let hashed = fs::read_to_string(&hashed).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    with_known_hosts(&sshd, &format!("# other\n{}{hashed}", sshd.known_hosts_line("ed25519").replace("127", "128")))
        .unwrap();

    let refusal = |lines: &str| match with_known_hosts(&sshd, lines) {
        Err(ConnectError::HostKey { why, .. }) => why,
        other => panic!("not refused: {other:?}"),
    };
    let unknown = refusal("");
    let fingerprint = Command::new("ssh-keygen").arg("-lf").arg(sshd.path("host_ed25519.pub")).output().unwrap();
    let fingerprint = String::from_utf8(fingerprint.stdout).unwrap();
    assert!(unknown.contains(fingerprint.split(' ').nth(1).unwrap()), "{unknown}");
    assert!(unknown.contains(&format!("ssh-keyscan -p {} 127.0.0.1", sshd.port)), "{unknown}");
    // The remedy it names works.
    let line = ed25519.trim_end().strip_suffix(" test").unwrap();
    assert!(unknown.contains(line), "{unknown}");

    keygen(&sshd.path("stranger"), "ed25519");
    let stranger = fs::read_to_string(sshd.path("stranger.pub")).unwrap();
    let changed = refusal(&format!("# one\n[127.0.0.1]:{} {stranger}", sshd.port));
    assert!(changed.contains("CHANGED") && changed.contains("case:2"), "{changed}");
    let revoked = refusal(&format!("{ed25519}@revoked * {}", ed25519.split_once(' ').unwrap().1));
    assert!(revoked.contains("revoked") && revoked.contains("case:2"), "{revoked}");
    let authority = refusal(&format!("@cert-authority {ed25519}"));
    assert!(authority.contains("no key of it is known"), "{authority}");
    // Nobody was asked to let us in.
    let log = sshd.log();
    assert_eq!(log.matches("Accepted publickey").count(), 4, "{log}");
}

/// Whether we asked the server what it allows before we were let in with so many keys.
fn asked_before(keys: &[&str]) -> Option<bool> {
    let sshd = Sshd::start("LogLevel DEBUG1")?;
    keygen(&sshd.path("other"), "ed25519");
    let mut options = sshd.options();
    options.keys = keys.iter().map(|key| sshd.path(key)).collect();
    assert_eq!(sh(&mut Ssh::new(options).unwrap(), "exit 3").unwrap().status, Some(3));
    let log = sshd.log();
    assert!(log.contains("method publickey"), "{log}");
    Some(log.contains("method none"))
}

#[test]
fn one_key_alone_is_tried_unasked() {
    let (Some(one), Some(two)) = (asked_before(&["id"]), asked_before(&["id", "other"])) else { return };
    assert!(!one && two);
}

#[test]
fn logins_that_fail_say_why() {
    let Some(sshd) = Sshd::start("") else { return };
    let attempt = |keys: Vec<PathBuf>| {
        let mut options = sshd.options();
        options.keys = keys;
        sh(&mut Ssh::new(options).unwrap(), "exit 0").unwrap_err()
    };
    keygen(&sshd.path("wrong"), "ed25519");
    keygen_with(&sshd.path("locked"), "ed25519", "secret");
    let refused = attempt(vec![sshd.path("wrong")]);
    let text = refused.to_string();
    assert!(matches!(refused, ConnectError::Auth { .. }), "{text}");
    assert!(text.contains("wrong (refused)") && text.contains("the server allows publickey"), "{text}");
    let both = attempt(vec![sshd.path("wrong"), sshd.path("locked")]).to_string();
    assert!(both.contains("wrong (refused), ") && both.contains("the server allows publickey"), "{both}");
    let locked = attempt(vec![sshd.path("locked")]).to_string();
    assert!(locked.contains("locked (encrypted") && locked.contains("the server allows publickey"), "{locked}");
    let absent = attempt(vec![sshd.path("absent")]);
    assert!(matches!(absent, ConnectError::Setup(_)) && absent.to_string().contains("absent"), "{absent}");
    fs::write(sshd.path("garbage"), "not a key\n").unwrap();
    fs::set_permissions(sshd.path("garbage"), fs::Permissions::from_mode(0o600)).unwrap();
    let garbage = attempt(vec![sshd.path("garbage")]).to_string();
    assert!(garbage.contains("garbage (not usable"), "{garbage}");
    // The right key, and everybody may read it.
    fs::copy(sshd.client_key(), sshd.path("open")).unwrap();
    for mode in [0o644, 0o640] {
        fs::set_permissions(sshd.path("open"), fs::Permissions::from_mode(mode)).unwrap();
        let open = attempt(vec![sshd.path("open")]).to_string();
        assert!(open.contains(&format!("permissions {mode:04o} are too open")) && open.contains("chmod 600"), "{open}");
    }

    let mut options = sshd.options();
    options.user = Some("no-such-user".to_owned());
    let stranger = sh(&mut Ssh::new(options).unwrap(), "exit 0").unwrap_err();
    assert!(matches!(stranger, ConnectError::Auth { .. }), "{stranger}");
    // A wrong key before the right one does no harm; nor does RSA, which needs SHA-2 signatures.
    keygen(&sshd.path("rsa"), "rsa");
    let keys = fs::read_to_string(sshd.path("rsa.pub")).unwrap();
    fs::write(sshd.path("authorized_keys"), keys).unwrap();
    let mut options = sshd.options();
    options.keys = vec![sshd.path("wrong"), sshd.path("rsa")];
    assert_eq!(sh(&mut Ssh::new(options).unwrap(), "exit 9").unwrap().status, Some(9));
}

#[test]
fn the_agent_is_asked() {
    if std::env::var_os("SSH_AGENT_TEST").is_none() {
        if !support::tools::require("ssh-agent") || !support::tools::require("ssh-add") {
            return;
        }
        let status = Command::new("ssh-agent")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "the_agent_is_asked", "--nocapture"])
            .env("SSH_AGENT_TEST", "1")
            .env("HOME", "/nonexistent")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let Some(sshd) = Sshd::start("") else { return };
    let mut options = sshd.options();
    options.agent = true;
    options.keys.clear();
    let empty = sh(&mut Ssh::new(options.clone()).unwrap(), "exit 0").unwrap_err().to_string();
    assert!(empty.contains("agent (holds no key)"), "{empty}");
    for key in ["other", "id"] {
        if key == "other" {
            keygen(&sshd.path(key), "ed25519");
        }
        assert!(Command::new("ssh-add").arg(sshd.path(key)).output().unwrap().status.success());
    }
    assert_eq!(sh(&mut Ssh::new(options.clone()).unwrap(), "exit 3").unwrap().status, Some(3));
    // A key that is locked on disk and open in the agent.
    keygen_with(&sshd.path("locked"), "ed25519", "secret");
    options.keys = vec![sshd.path("locked")];
    assert_eq!(sh(&mut Ssh::new(options.clone()).unwrap(), "exit 4").unwrap().status, Some(4));

    // More keys than a server has patience for, the right one last, and known by its public half.
    let add = |key: &str| Command::new("ssh-add").arg(sshd.path(key)).output().unwrap().status.success();
    assert!(Command::new("ssh-add").arg("-D").output().unwrap().status.success());
    for n in 0..8 {
        keygen(&sshd.path(&format!("other{n}")), "ed25519");
        assert!(add(&format!("other{n}")));
    }
    assert!(add("id"));
    fs::rename(sshd.path("id"), sshd.path("id_elsewhere")).unwrap();
    options.keys.clear();
    let many = sh(&mut Ssh::new(options.clone()).unwrap(), "exit 0").unwrap_err().to_string();
    assert!(many.contains("the server ended the attempt") && many.contains("IdentitiesOnly"), "{many}");
    options.config = Some(sshd.path("config"));
    for (n, text) in ["IdentityFile DIR/id\nIdentitiesOnly yes", "IdentityFile DIR/id", "IdentityFile DIR/id.pub"]
        .into_iter()
        .enumerate()
    {
        fs::write(sshd.path("config"), text.replace("DIR", sshd.path("").to_str().unwrap())).unwrap();
        let status = sh(&mut Ssh::new(options.clone()).unwrap(), &format!("exit {n}")).unwrap().status;
        assert_eq!(status, i32::try_from(n).ok(), "{text}");
    }
    // A file that is named and not in the agent goes before all that nobody has named; with IdentitiesOnly nothing else.
    let text = format!("IdentityFile {}", sshd.path("id_elsewhere").display());
    fs::rename(sshd.path("id.pub"), sshd.path("public")).unwrap();
    assert!(Command::new("ssh-add").arg("-d").arg(sshd.path("public")).output().unwrap().status.success());
    fs::write(sshd.path("config"), &text).unwrap();
    assert_eq!(sh(&mut Ssh::new(options.clone()).unwrap(), "exit 5").unwrap().status, Some(5));
    fs::write(sshd.path("config"), "IdentitiesOnly yes\nIdentityFile /no/such/key\n").unwrap();
    let none = sh(&mut Ssh::new(options).unwrap(), "exit 0").unwrap_err().to_string();
    assert!(!none.contains("agent key"), "{none}");
}

#[test]
fn the_configuration_file_is_honoured() {
    let Some(sshd) = Sshd::start("") else { return };
    let config = sshd.path("config");
    let text = format!(
        "Host storage\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  UserKnownHostsFile {}\n",
        sshd.port,
        sshd.user(),
        sshd.client_key().display(),
        sshd.known_hosts().display()
    );
    fs::write(&config, text).unwrap();
    let mut options = SshOptions::new("storage");
    options.config = Some(config);
    options.agent = false;
    let mut ssh = Ssh::new(options).unwrap();
    assert_eq!(ssh.describe(), format!("{}@127.0.0.1:{}", sshd.user(), sshd.port));
    assert_eq!(sh(&mut ssh, "exit 8").unwrap().status, Some(8));
}

#[test]
fn algorithms_and_revoked_keys_of_the_configuration_are_obeyed() {
    let Some(sshd) = Sshd::start("LogLevel DEBUG3") else { return };
    let attempt = |text: &str| {
        fs::write(sshd.path("config"), text).unwrap();
        let mut options = sshd.options();
        options.config = Some(sshd.path("config"));
        Ssh::new(options).and_then(|mut ssh| sh(&mut ssh, "exit 0")).map_err(|error| error.to_string())
    };
    let text = "Ciphers aes256-ctr\nMACs hmac-sha2-512\nKexAlgorithms -*,\nHostKeyAlgorithms ssh-ed25519\n";
    attempt(&text.replace("-*,", "ecdh-sha2-nistp384")).unwrap();
    for said in ["cipher: aes256-ctr MAC: hmac-sha2-512", "kex: algorithm: ecdh-sha2-nistp384"] {
        assert!(sshd.log().contains(said), "no {said} in {}", sshd.log());
    }
    attempt("Ciphers -aes*\nMACs ^hmac-sha2-256\nKexAlgorithms +ecdh-sha2-nistp256\n").unwrap();
    assert!(sshd.log().contains("cipher: chacha20-poly1305@openssh.com"), "{}", sshd.log());
    for (text, name) in [
        (text, "KexAlgorithms"),
        ("Ciphers 3des-cbc-of-old\n", "Ciphers"),
        ("\nMACs nonsense\n", "MACs"),
        ("HostKeyAlgorithms none-such\n", "HostKeyAlgorithms"),
    ] {
        let error = attempt(text).unwrap_err();
        assert!(error.contains("config:") && error.contains(name), "{error}");
    }

    let list = sshd.path("revoked");
    let revoking = format!("RevokedHostKeys {}\n", list.display());
    let missing = attempt(&revoking).unwrap_err();
    assert!(missing.contains("RevokedHostKeys") && missing.contains("revoked"), "{missing}");
    fs::copy(sshd.path("host_rsa.pub"), &list).unwrap();
    attempt(&revoking).unwrap();
    fs::copy(sshd.path("host_ed25519.pub"), &list).unwrap();
    let refused = attempt(&revoking).unwrap_err();
    assert!(refused.contains("marked as revoked in") && refused.contains("revoked:1"), "{refused}");
    let binary = Command::new("ssh-keygen").arg("-kqf").arg(&list).arg(sshd.path("host_rsa.pub")).output().unwrap();
    assert!(binary.status.success(), "{binary:?}");
    assert!(attempt(&revoking).unwrap_err().contains("revocation list"));
}

#[test]
fn a_new_key_is_added_where_the_configuration_wants_it_and_a_changed_one_never() {
    let Some(sshd) = Sshd::start("") else { return };
    let file = sshd.path("new/known_hosts");
    let attempt = |word: &str| {
        let known = format!("UserKnownHostsFile {}\nGlobalKnownHostsFile none\n", file.display());
        fs::write(sshd.path("config"), format!("{known}StrictHostKeyChecking {word}\n")).unwrap();
        let mut options = sshd.options();
        options.known_hosts = None;
        options.config = Some(sshd.path("config"));
        Ssh::new(options).and_then(|mut ssh| sh(&mut ssh, "exit 0")).map_err(|error| error.to_string())
    };
    for word in ["yes", "ask"] {
        assert!(attempt(word).unwrap_err().contains("no key of it is known"), "{word}");
        assert!(!file.exists(), "{word}");
    }
    assert!(attempt("perhaps").unwrap_err().contains("StrictHostKeyChecking perhaps"));
    for word in ["accept-new", "no", "OFF"] {
        let _ = fs::remove_file(&file);
        attempt(word).unwrap();
        attempt("yes").unwrap();
        attempt(word).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1, "{word}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let line = fs::read_to_string(&file).unwrap();
    fs::write(&file, "other.example ssh-ed25519 AAAA").unwrap();
    attempt("accept-new").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("other.example ssh-ed25519 AAAA\n{line}"));

    let (_, key) = line.trim_end().rsplit_once(' ').unwrap();
    let changed = format!("{}B{}", &key[..key.len() - 2], &key[key.len() - 1..]);
    fs::write(&file, line.replace(key, &changed)).unwrap();
    for word in ["accept-new", "no"] {
        assert!(attempt(word).unwrap_err().contains("ITS KEY HAS CHANGED"), "{word}");
    }
}

fn options_for_port(port: u16) -> SshOptions {
    let mut options = SshOptions::new("nobody@127.0.0.1");
    options.port = Some(port);
    options.config = Some(PathBuf::from("/dev/null"));
    options.agent = false;
    options
}

#[test]
fn a_mute_server_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = options_for_port(listener.local_addr().unwrap().port());
    options.connect_timeout = Duration::from_secs(1);
    let began = Instant::now();
    let error = sh(&mut Ssh::new(options).unwrap(), "true").unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { stage: "SSH handshake", .. }), "{error}");
    assert!(began.elapsed() < SOON);
}

#[test]
fn a_server_of_another_kind_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = sh(&mut Ssh::new(options_for_port(port)).unwrap(), "true").unwrap_err();
    assert!(matches!(error, ConnectError::Lost { .. } | ConnectError::Timeout { .. }), "{error}");
    serving.join().unwrap();
}

#[test]
fn a_closed_port_is_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = sh(&mut Ssh::new(options_for_port(port)).unwrap(), "true").unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
}

/// Is this test in a process of its own, where no other test's doings are counted? If not, runs it in one.
fn alone(test: &str) -> bool {
    if std::env::var_os("SSH_TEST_ALONE").is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("SSH_TEST_ALONE", "1");
    assert!(command.status().unwrap().success(), "{test}, in a process of its own");
    false
}

#[test]
fn waiting_costs_no_cpu() {
    if !alone("waiting_costs_no_cpu") {
        return;
    }
    let Some(sshd) = Sshd::start("") else { return };
    let ticks = || {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // Nothing to do; output nobody takes; input the far end does not take.
    let mut idle = with_program(sshd.options(), "exec sleep 100").open(&[]).unwrap();
    let full = with_program(sshd.options(), "exec head -c 100000000 /dev/zero").open(&[]).unwrap();
    let stuck = with_program(sshd.options(), "exec sleep 100").open(&[]).unwrap();
    let Link { mut writer, closer, .. } = stuck;
    thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&vec![0; 16 << 20]).unwrap_err());
        scope.spawn(|| idle.reader.read(&mut [0]).unwrap_err());
        // Until all windows and buffers are full, work is being done.
        let deadline = Instant::now() + SOON;
        let quiet = loop {
            let before = ticks();
            thread::sleep(Duration::from_secs(1));
            let used = ticks() - before;
            if used <= 5 || Instant::now() > deadline {
                break used;
            }
        };
        closer.close();
        idle.closer.close();
        assert!(quiet <= 5, "{quiet} hundredths of a second of CPU in a second of waiting");
    });
    full.closer.close();
}

/// Our descriptors, and the threads of the transport.
fn held() -> (usize, usize) {
    let names = |dir: &str| fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let fds = names("/proc/self/fd").iter().filter_map(|fd| fs::read_link(fd).ok()).count();
    let comm = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap_or_default();
    let threads = names("/proc/self/task").iter().filter(|task| comm(task).trim() == "ssh-pump").count();
    (fds, threads)
}

#[test]
fn many_connections_and_links_leak_nothing() {
    if !alone("many_connections_and_links_leak_nothing") {
        return;
    }
    let Some(sshd) = Sshd::start("") else { return };
    let (fds_before, _) = held();
    let mut rss = Vec::new();
    for round in 0..30 {
        let mut ssh = with_program(sshd.options(), "exec cat");
        for _ in 0..3 {
            let mut link = ssh.open(&[]).unwrap();
            link.writer.write_all(b"ping").unwrap();
            link.reader.read_exact(&mut [0; 4]).unwrap();
        }
        // One is left in the middle, one is closed, the rest end by themselves.
        let link = ssh.open(&[]).unwrap();
        match round % 3 {
            0 => link.closer.close(),
            1 => ssh.disconnect(),
            _ => {}
        }
        if round % 10 == 9 {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            rss.push(line.trim().trim_end_matches(" kB").parse::<usize>().unwrap());
        }
    }
    let deadline = Instant::now() + SOON;
    while held() != (fds_before, 0) {
        assert!(Instant::now() < deadline, "held {:?}, at first {fds_before} descriptors", held());
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("Resident after 10, 20 and 30 connections, kB: {rss:?}");
    // One leaked session would be some 84 kB; twenty came between the first count and the last.
    assert!(rss[2] < rss[0] + 700, "memory grows: {rss:?}");
}
