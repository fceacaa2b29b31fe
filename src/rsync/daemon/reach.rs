//! The way to a daemon: straight, through a web proxy, by a program, or by a remote shell.

use super::{Call, DaemonError, Site};
use crate::link::Link;
use crate::transport::child::Child;
use crate::transport::tcp::{self, Dial, SocketOptions};
use crate::transport::{Connect, ConnectError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

/// The port of rsync daemons.
const PORT: u16 = 873;
/// How long a connection that stands still is waited for where nobody sets a limit.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long a proxy may take to answer.
const PROXY_PATIENCE: Duration = Duration::from_secs(60);
/// Connections of others that are put up with while we make our own to ourselves.
const STRANGERS_MOST: usize = 16;
/// Longest answer of a proxy, in bytes.
const PROXY_ANSWER_MOST: usize = 16 * 1024;

pub(super) fn reach(site: &Site, call: &Call) -> Result<Link, DaemonError> {
    let stall_limit = Some(call.timeout.unwrap_or(PATIENCE));
    if site.host.starts_with('-') || site.host.contains(|letter: char| letter.is_control() || letter.is_whitespace()) {
        return Err(DaemonError::Usage(format!("{:?} cannot be a host's name", site.host)));
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let port = site.port.or(call.port).unwrap_or(PORT);
    if let Some(shell) = &call.shell {
        // Some remote shells are none, and want to know where the daemon listens.
        let mut words: Vec<OsString> = vec!["env".into()];
        words.push(format!("RSYNC_PORT={}", site.port.or(call.port).unwrap_or(0)).into());
        words.extend(shell.words.iter().cloned());
        words.push(shell.program.clone());
        words.extend(["--server", "--daemon", "."].map(OsString::from));
        return Ok(Child::local(words).stall_limit(stall_limit).shares_stderr().open(&[])?);
    }
    if let Some(program) = variable("RSYNC_CONNECT_PROG") {
        let line = command_line(&program, &site.host)?;
        let shell = variable("RSYNC_SHELL").unwrap_or_else(|| "/bin/sh".to_owned());
        return Ok(tcp::link(program_at(&shell, &line)?, stall_limit)?);
    }
    let options = SocketOptions::parse(call.sockopts.as_deref().unwrap_or_default()).map_err(DaemonError::Usage)?;
    let dial = Dial { family: call.family, address: call.address.clone(), options, limit: call.contimeout };
    let stream = match variable("RSYNC_PROXY") {
        Some(proxy) => through(&proxy, &dial, &site.host, port)?,
        None => dial.connect(&site.host, port)?,
    };
    Ok(tcp::link(stream, stall_limit)?)
}

/// Starts a program whose standard input and output is one end of a connection, as inetd would, and gives the other end.
/// It is one of this machine's loopback: so a program that asks who is there gets an answer.
fn program_at(shell: &str, line: &str) -> Result<TcpStream, DaemonError> {
    let (ours, theirs) = loopback()?;
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new(shell);
    command.args(["-c", line]).stdin(theirs.try_clone()?).stdout(theirs);
    let mut child = command
        .spawn()
        .map_err(|error| ConnectError::Setup(format!("Cannot run {shell} for RSYNC_CONNECT_PROG: {error}")))?;
    // Nobody asks how it ended, but it is not to stay as a zombie.
    std::thread::spawn(move || child.wait());
    Ok(ours)
}

/// Both ends of a connection from this machine to itself, which nobody else has got between.
fn loopback() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let own = ours.local_addr()?;
    for _ in 0..STRANGERS_MOST {
        let (theirs, from) = listener.accept()?;
        if from == own {
            return Ok((ours, theirs));
        }
    }
    Err(io::Error::other("others connect to the port that was opened for RSYNC_CONNECT_PROG"))
}

/// The operator's command with the host in the place of `%H`. A shell reads it, so the host must be no more than a name.
fn command_line(program: &str, host: &str) -> Result<String, DaemonError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:_-".contains(&byte);
    let mut line = String::new();
    let mut rest = program;
    while let Some(at) = rest.find('%') {
        line.push_str(&rest[..at]);
        let (text, used) = match rest.as_bytes().get(at + 1) {
            Some(b'H') if !host.bytes().all(plain) => {
                let text =
                    format!("RSYNC_CONNECT_PROG: {host:?} cannot stand for %H, a shell would read more than a name");
                return Err(DaemonError::Usage(text));
            }
            Some(b'H') => (host, 2),
            Some(b'%') => ("%", 2),
            _ => ("%", 1),
        };
        line.push_str(text);
        rest = &rest[at + used..];
    }
    line.push_str(rest);
    Ok(line)
}

/// Connects through a web proxy, `[user:password@]host:port`.
fn through(proxy: &str, dial: &Dial, host: &str, port: u16) -> Result<TcpStream, DaemonError> {
    let (login, place) = proxy.rsplit_once('@').map_or((None, proxy), |(login, place)| (Some(login), place));
    let (proxy_host, proxy_port) = place.rsplit_once(':').unwrap_or((place, ""));
    let usage = || DaemonError::Usage(format!("RSYNC_PROXY is {place:?}: expected host:port"));
    let proxy_port: u16 = proxy_port.parse().map_err(|_| usage())?;
    let stream = dial.connect(proxy_host.trim_matches(['[', ']']), proxy_port)?;
    stream.set_nonblocking(false)?;
    let patience = Some(dial.limit.unwrap_or(PROXY_PATIENCE));
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(patience)?;
    (&stream).write_all(request(host, port, login).as_bytes())?;
    let answer = answer(&mut &stream)?;
    let lost = |why: String| ConnectError::Lost { host: place.to_owned(), why };
    let status = answer.lines().next().unwrap_or_default();
    let mut words = status.split(' ');
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/"));
    if !http || !words.next().is_some_and(|code| code.len() == 3 && code.starts_with('2')) {
        let status = crate::disk::shown(status.as_bytes());
        return Err(lost(format!("the proxy does not connect to {host}:{port}: {status}")).into());
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// The request to a proxy. `host` holds neither spaces nor control characters, so it stays where it stands.
fn request(host: &str, port: u16, login: Option<&str>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let login = login.map(|login| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(login)));
    format!("CONNECT {host}:{port} HTTP/1.0\r\n{}\r\n", login.unwrap_or_default())
}

/// The proxy's answer up to its empty line, and not a byte more.
fn answer(stream: &mut impl Read) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && !answer.ends_with(b"\n\n") {
        if answer.len() == PROXY_ANSWER_MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer has no end"));
        }
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_to_every_shell_and_proxy() {
        let line = |program: &str, host: &str| command_line(program, host).ok();
        assert_eq!(line("ssh proxy nc %H 873 %% 5%", "a.example").unwrap(), "ssh proxy nc a.example 873 % 5%");
        assert_eq!(line("nc %H", "2001:db8::1").unwrap(), "nc 2001:db8::1");
        assert_eq!(line("nc fixed", "a;b").unwrap(), "nc fixed");
        for host in ["a;b", "$(id)", "a b", "a\nb", "a'b", "a`b`"] {
            assert!(line("nc %H", host).is_none(), "{host:?}");
            // The shell that would run it is never asked.
        }
        for host in ["-oProxyCommand=x", "a\r\nX: y", "a b"] {
            let site = Site { host: host.into(), ..Site::default() };
            assert!(matches!(reach(&site, &Call::default()), Err(DaemonError::Usage(_))), "{host:?}");
        }
        assert_eq!(
            request("::1", 873, Some("joe:pw")),
            "CONNECT [::1]:873 HTTP/1.0\r\nProxy-Authorization: Basic am9lOnB3\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_ends_with_its_empty_line() {
        let mut stream = &b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n@RSYNCD"[..];
        assert_eq!(answer(&mut stream).unwrap().lines().count(), 3);
        assert_eq!(stream, b"@RSYNCD");
        assert!(answer(&mut io::repeat(b'x')).is_err());
    }
}
