//! The command line: which face of the program was called, and with which exit code it ends.

mod authorize;
mod bench;
mod check;
mod files;
mod flags;
mod output;
mod plan;
mod run;
mod server;
mod table;

use crate::ocs::site::{self, Resolved, SiteError};
use clap::Parser;
use flags::{Command, Flags};
use std::ffi::OsString;
use std::process::ExitCode;

/// Exit code: something failed.
const SOME_FAILED: u8 = 1;
/// Exit code: the command line, a file it names or the table cannot be used.
const USAGE: u8 = 2;

/// The verbs whose arguments an agent's site file may have.
const OF_AGENTS: [&str; 3] = ["run", "check", "retry"];

/// Runs the program with its arguments, its own name first.
pub fn main(mut args: Vec<OsString>) -> ExitCode {
    if let Some(code) = as_rsync(&mut args) {
        return code;
    }
    let agent = match as_agent(&mut args) {
        Ok(agent) => agent,
        Err(error) => {
            output::say(&format!("pysmurf-archiver: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    // What is missing may stand in a site file that is not where it was looked for.
    let absent = site::absent_default(&|name| std::env::var(name).ok()).filter(|_| agent.is_none());
    let absent = absent.filter(|_| is_of_agents(&args));
    let hint = || {
        if let Some(file) = &absent {
            output::say(&format!("There is no site file at {} (the default in OCS_CONFIG_DIR)", file.display()));
        }
    };
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            match &agent {
                // Words of a site file may hold anything.
                Some(_) => output::say(error.render().to_string().trim_end()),
                None => drop(error.print()),
            }
            if error.use_stderr() {
                hint();
            }
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let result = match flags.command {
        Command::Run(args) => run::run(args, agent),
        Command::Check(args) => check::check(args),
        Command::InitDb(args) => table::init_db(args),
        Command::Files(args) => files::files(args),
        Command::Retry(args) => table::retry(args),
        Command::Rdiff(words) => Ok(crate::rdiff::main(&words)),
        Command::Bench(args) => bench::bench(args),
        Command::Authorize(args) => authorize::authorize(&args),
        Command::Confined(args) => return authorize::confined(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::say(&format!("pysmurf-archiver: {error:#}"));
            hint();
            ExitCode::from(USAGE)
        }
    }
}

/// Runs the rsync command, its server or its daemon where one of these was called. A link of that name is rsync; so is the
/// verb, whose words are rsync's own.
fn as_rsync(args: &mut Vec<OsString>) -> Option<ExitCode> {
    let called = args.first().map(std::path::Path::new).and_then(std::path::Path::file_name);
    if called.is_some_and(|name| name == "rsync") {
        args.insert(1, "rsync".into());
    }
    if let Some(rest) = daemon_words(args) {
        return Some(crate::daemon::main(rest));
    }
    if args.get(1).is_some_and(|verb| verb == "rsync") {
        args.remove(1);
        if !is_server(&args[1..]) {
            return Some(crate::rsync::main(&args[1..]));
        }
    }
    is_server(args.get(1..).unwrap_or_default()).then(|| server::main(&args[1..]))
}

/// Which agent we are, if any; its arguments take the place of ours. Flags without a verb mean `run`, and so do an agent's
/// variables without any flag: a container's command stays what it was.
fn as_agent(args: &mut Vec<OsString>) -> Result<Option<Resolved>, SiteError> {
    let asks = ["-h", "--help", "-V", "--version"];
    let verb_missing = match args.get(1) {
        None => true,
        Some(arg) => arg.as_encoded_bytes().starts_with(b"-") && !asks.iter().any(|ask| arg == ask),
    };
    let bare = args.len() < 2;
    if verb_missing && !args.is_empty() {
        args.insert(1, "run".into());
    }
    if !is_of_agents(args) {
        return Ok(None);
    }
    let agent = site::resolve(&args[2..], &|name| std::env::var(name).ok(), &site::system_host_name())?;
    match &agent {
        Some(agent) => {
            let words = match args[1] == "retry" {
                true => flags::without_those_of_run(&agent.arguments, "retry"),
                false => agent.arguments.clone(),
            };
            args.truncate(2);
            args.extend(words);
        }
        None if bare => args[1] = "--help".into(),
        None => {}
    }
    Ok(agent)
}

fn is_of_agents(args: &[OsString]) -> bool {
    args.get(1).is_some_and(|verb| OF_AGENTS.iter().any(|of_agents| verb == of_agents))
}

/// Whether these are a server's arguments. Who starts it may say a word of its own first (`--rsync-path='rsync --fake-super'`).
fn is_server(args: &[OsString]) -> bool {
    let options = args.iter().take_while(|arg| *arg != "." && *arg != "--");
    args.first().is_some_and(|arg| arg.as_encoded_bytes().starts_with(b"-"))
        && options.into_iter().any(|arg| arg == "--server")
}

/// What stands behind the program's name where a daemon is asked for, among whatever other options.
fn daemon_words(args: &[OsString]) -> Option<&[OsString]> {
    let start = if args.get(1).is_some_and(|arg| arg == "rsync") { 2 } else { 1 };
    let words = args.get(start..)?;
    let mut options = words.iter().take_while(|arg| *arg != "." && *arg != "--");
    let begins = words.first().is_some_and(|arg| arg.as_encoded_bytes().starts_with(b"-"));
    (begins && options.any(|arg| arg == "--daemon")).then_some(words)
}
