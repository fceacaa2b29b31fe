//! The rsync daemon. Counterpart: rsync's `clientserver.c`.

mod access;
mod arrival;
mod auth;
mod config;
mod connection;
mod flags;
mod hooks;
mod journal;
mod listen;
mod module;
mod proxy;
mod refuse;
mod request;
mod slots;
mod talk;

pub(crate) use config::ConfigError;

use crate::exit;
use crate::report::complain;
use config::{Config, DaemonVariables, Parameters};
use flags::DaemonFlags;
use journal::Journal;
use protocol::daemon::AuthDigest;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// Runs `rsync --daemon` with these arguments, the program's name left out: listens, or serves the client that inetd or a
/// remote shell has put at standard input.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    crate::clock::remember_zone();
    let name = std::iter::once(OsString::from("rsync"));
    let flags = match DaemonFlags::of(name.chain(args.iter().cloned())) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() {
                complain("(Type \"rsync --daemon --help\" for assistance with daemon mode.)");
            }
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    if flags.announced {
        let waiting = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3).ok();
        let _ = rustix::stdio::dup2_stdout(io::stdin());
        return ExitCode::from(connection::serve(&flags, waiting));
    }
    if flags.server {
        return ExitCode::from(connection::serve(&flags, None));
    }
    if is_socket() {
        quiet_socket();
        return ExitCode::from(connection::serve(&flags, None));
    }
    match listen::listen(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("rsync --daemon: {error}"));
            ExitCode::from(exit::status(error.exit_code()))
        }
    }
}

/// Whether inetd has started us: standard input is the client's socket.
fn is_socket() -> bool {
    rustix::net::sockopt::socket_type(io::stdin()).is_ok()
}

/// Started by inetd, all we say goes to the client: it is to hear the protocol and nothing else.
fn quiet_socket() {
    let _ = rustix::stdio::dup2_stdout(io::stdin());
    let error_is_socket = rustix::net::sockopt::socket_type(io::stderr().as_fd()).is_ok();
    if let Ok(nowhere) = std::fs::OpenOptions::new().write(true).open("/dev/null")
        && error_is_socket
    {
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
}

/// The log that the settings ask for. One that cannot be opened is no reason to serve nobody: the system's takes over.
fn journal_of(flags: &DaemonFlags, settings: &Parameters, environment: &DaemonVariables) -> Journal {
    let named = settings.log_file.as_deref().map(|path| environment.expand(path));
    let path = flags.log_file.as_deref().or(named.as_deref().map(Path::new));
    let facility = settings.syslog_facility.as_deref().and_then(journal::facility);
    let tag = settings.syslog_tag.as_deref().map(|tag| environment.expand(tag));
    let system = || Journal::syslog(facility.unwrap_or(3), tag.as_deref().unwrap_or("rsyncd"));
    match path.map(|path| (path, Journal::file(path))) {
        Some((_, Ok(journal))) => journal,
        Some((path, Err(error))) => {
            let journal = system();
            journal
                .warn(&format!("failed to open log-file {}: {error}; ignoring \"log file\" setting", path.display()));
            journal
        }
        None => system(),
    }
}

/// Refuses what parses and cannot be served.
fn check(config: &mut Config) -> Result<(), ConfigError> {
    let proxies = config.globals.proxy_protocol_hosts.as_deref().unwrap_or_default();
    if let Some(pattern) = access::malformed(proxies).filter(|pattern| !pattern.contains('%')) {
        let what = format!("proxy protocol hosts: {pattern:?} is no address, address/mask or host name");
        return Err(ConfigError::Module { module: "global".into(), what });
    }
    for module in &config.modules {
        let no = |what: String| Err(ConfigError::Module { module: module.name.clone(), what });
        let settings = &module.settings;
        if settings.path.is_none() {
            return no("it has no path; add path = /folder".into());
        }
        for list in [&settings.hosts_allow, &settings.hosts_deny].into_iter().flatten() {
            if let Some(pattern) = access::malformed(list).filter(|pattern| !pattern.contains('%')) {
                return no(format!("{pattern:?} is no address, address/mask or host name"));
            }
        }
        if let Some(Err(what)) = settings.auth_users.as_deref().map(auth::rules) {
            return no(what);
        }
        if settings.auth_users.is_some() && settings.secrets_file.is_none() {
            return no("auth users needs a secrets file; add secrets file = /path".into());
        }
        if let Some(digest) = settings.auth_digest.as_deref().filter(|name| AuthDigest::from_name(name).is_none()) {
            return no(format!("auth digest = {digest}: expected sha512, sha256, sha1, md5 or md4"));
        }
        if let Some(name) = settings.syslog_facility.as_deref().filter(|name| journal::facility(name).is_none()) {
            return no(format!("syslog facility = {name}: no such facility"));
        }
    }
    Ok(())
}
