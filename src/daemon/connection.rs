//! One client at standard input and output: what the listener, inetd and a remote shell start. Counterpart: rsync's
//! `start_daemon`.
//!
//! Each connection has a process of its own. Rights are those of a process, so only so can one client's module be entered
//! as another user and under another root without the next client's being in doubt.

use super::access::{Hosts, Peer, names_matter};
use super::arrival::{Applicant, Rejection};
use super::config::{DaemonVariables, Parameters};
use super::flags::DaemonFlags;
use super::journal::Journal;
use super::module::step_down;
use super::talk::Talk;
use super::{journal_of, request};
use protocol::daemon::Greeting;
use protocol::handshake::VERSION_MOST;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

/// Address space that a connection may have on the smallest machine, in bytes: each thread reserves 64 MiB.
const LEAST_MEMORY: u64 = 2 << 30;

/// Serves the client; returns the exit code. `waiting` is closed once its session begins.
pub(super) fn serve(flags: &DaemonFlags, waiting: Option<OwnedFd>) -> u8 {
    bound_memory();
    let (mut peer, by_socket) = peer();
    let mut environment = DaemonVariables::of_process();
    let mut talk = Talk::start();
    let config = flags.config(&environment);
    if let Ok(config) = &config {
        talk.within(config.globals.timeout);
    }
    let mut journal = match &config {
        Ok(config) => journal_of(flags, &config.globals, &environment),
        Err(_) => Journal::syslog(3, "rsyncd"),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            journal.warn(&error.to_string());
            let _ = talk.say(&Greeting::line(VERSION_MOST));
            let _ = talk.say(b"@ERROR: the server's configuration cannot be used; its log says why\n");
            talk.linger();
            return 1;
        }
    };
    if let Err(no) = step_down(&config.globals, &environment) {
        journal.warn(&no.log);
        let _ = talk.say(&Greeting::line(VERSION_MOST));
        let _ = talk.say(format!("@ERROR: {}\n", no.client).as_bytes());
        talk.linger();
        return 1;
    }
    if by_socket && config.globals.proxy_protocol {
        match behind_proxy(&peer, &mut talk, &config.globals, &environment) {
            Ok(Some(address)) => peer = Peer::at(address),
            Ok(None) => {}
            Err(why) => {
                journal.warn(&why);
                return 5;
            }
        }
    }
    if config.globals.reverse_lookup {
        peer.look_up();
    }
    environment.set("RSYNC_HOST_ADDR", peer.shown_address());
    environment.set("RSYNC_HOST_NAME", peer.shown_name());
    environment.set("RSYNC_PID", std::process::id().to_string());
    journal.say(&format!("connect from {} ({})", peer.shown_name(), peer.shown_address()));
    let arrival =
        Applicant { talk: &mut talk, config: &config, peer: &mut peer, environment, journal: &mut journal, flags };
    match arrival.attend() {
        Ok(Some(mut admitted)) => {
            drop(waiting);
            let after = admitted.after.take();
            let code = request::serve(admitted, &peer, &journal, talk, flags.bwlimit);
            if let Some(after) = after {
                after.ended(code);
            }
            code
        }
        Ok(None) => {
            talk.linger();
            0
        }
        Err(Rejection { client, log }) => {
            if let Some(log) = log {
                journal.warn(&log);
            }
            if let Some(client) = client {
                let _ = talk.say(format!("@ERROR: {client}\n").as_bytes());
            }
            // A client that is not done speaking would lose our last words to its own next ones.
            talk.linger();
            5
        }
    }
}

/// Has a connection that would take more memory than this machine has fail by itself, before others do. Memory that is asked for
/// and not used counts, too, so there is always some.
fn bound_memory() {
    let info = rustix::system::sysinfo();
    let most = (info.totalram as u64).saturating_mul(info.mem_unit.into()).max(LEAST_MEMORY);
    let now = getrlimit(Resource::As);
    let below = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    // What may not be set stays as it is.
    let _ = setrlimit(Resource::As, Rlimit { current: below(now.current), maximum: below(now.maximum) });
}

/// Who is behind the proxy at our socket, which must be one that is believed.
fn behind_proxy(
    proxy: &Peer,
    talk: &mut Talk,
    settings: &Parameters,
    environment: &DaemonVariables,
) -> Result<Option<IpAddr>, String> {
    let list = settings.proxy_protocol_hosts.as_deref().map(|list| environment.expand(list)).unwrap_or_default();
    let mut proxy = proxy.clone();
    if settings.reverse_lookup && names_matter(&list) {
        proxy.look_up();
    }
    let who = format!("{} ({})", proxy.shown_name(), proxy.shown_address());
    if !(Hosts { allow: Some(&list), deny: None, forward: settings.forward_lookup }).admit(&proxy) {
        return Err(format!("proxy protocol rejected from untrusted peer {who}"));
    }
    talk.proxied().map_err(|gone| format!("{gone}: {who}"))
}

/// Who is at our standard input, and whether that is a socket; a remote shell tells in its variables.
fn peer() -> (Peer, bool) {
    let socket = io::stdin().as_fd().try_clone_to_owned().map(TcpStream::from).and_then(|stream| stream.peer_addr());
    if let Ok(address) = socket {
        return (Peer::at(address.ip()), true);
    }
    let told = std::env::var("SSH_CONNECTION").ok();
    let address = told.as_deref().and_then(|told| told.split(' ').next()).and_then(|word| word.parse().ok());
    (address.map(Peer::at).unwrap_or_default(), false)
}
