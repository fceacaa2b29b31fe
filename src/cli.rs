//! The command line: which face of the program was called, and with which exit code it ends.

mod authorize;
mod batch;
mod bench;
mod check;
mod config;
mod console;
mod files;
mod flags;
mod generate;
mod layers;
mod monitor;
mod output;
mod plan;
mod run;
mod server;
mod site;
mod table;
mod version;

use crate::disk::dumps::leave_no_core;
use crate::ocs::site::{AgentClass, Resolved, WantedAgent, absent_default, is_named, resolve, system_host_name};
use flags::Command as Verb;
use flags::config::ConfigVerb;
use layers::{LayerError, Layered, NamedRun};
use std::ffi::OsString;
use std::process::ExitCode;

/// Exit code: something failed.
const SOME_FAILED: u8 = 1;
/// Exit code: the command line, a file it names or the table cannot be used.
const USAGE: u8 = 2;

/// The verbs whose arguments an agent's site file may have.
const OF_AGENTS: [&str; 6] = ["run", "check", "retry", "status", "files", "monitor"];

/// What was typed for a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TypedVerb {
    /// Not a word at all.
    Bare,
    /// Options alone.
    Missing,
    Named,
}

/// Runs the program with its arguments, its own name first.
pub fn main(mut args: Vec<OsString>) -> ExitCode {
    if let Some(code) = as_rsync(&mut args) {
        return code;
    }
    // Most verbs hold a password or a key.
    leave_no_core();
    let typed = name_verb(&mut args);
    let agent = match as_agent(&mut args, typed) {
        Ok(agent) => agent,
        Err(error) => {
            output::say(&format!("pysmurf-archiver: {error:#}"));
            return ExitCode::from(USAGE);
        }
    };
    // What is missing may stand in a site file that is not where it was looked for.
    let absent = absent_default(&|name| std::env::var(name).ok()).filter(|_| agent.is_none());
    let absent = absent.filter(|_| is_of_agents(&args));
    let hint = || {
        if let Some(file) = &absent {
            output::say(&format!("There is no site file at {} (the default in OCS_CONFIG_DIR)", file.display()));
        }
    };
    let layered = match layers::parse(&args) {
        Ok(layered) => layered,
        Err(LayerError::Parser(error)) => {
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
        Err(error) => {
            output::say(&format!("pysmurf-archiver: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    match dispatch(layered, agent, &args) {
        Ok(code) => code,
        Err(error) => {
            output::say(&format!("pysmurf-archiver: {error:#}"));
            hint();
            ExitCode::from(USAGE)
        }
    }
}

/// Does what the verb says; of one that is done for several targets there are as many.
fn dispatch(mut layered: Vec<Layered>, agent: Option<Resolved>, args: &[OsString]) -> anyhow::Result<ExitCode> {
    let first = match layered.first().map(|one| &one.verb) {
        Some(Verb::Run(_)) => {
            let again = || Ok(runs(layers::parse(args)?));
            return run::run(runs(layered), agent, &again).map(ExitCode::from);
        }
        Some(Verb::Relay(_)) => {
            let again = || Ok(runs(layers::parse(args)?));
            return run::relay(runs(layered), &again).map(ExitCode::from);
        }
        Some(Verb::Check(_)) => return check::check(runs(layered)).map(ExitCode::from),
        Some(Verb::Config(command)) => {
            let done = match command.verb {
                ConfigVerb::Example => config::example(),
                ConfigVerb::Check(_) => config::check(&layered),
            };
            return done.map(ExitCode::from);
        }
        Some(Verb::Status(_)) => {
            let each = layered.into_iter().filter_map(Layered::into_status).collect::<Vec<_>>();
            return console::status(&each).map(ExitCode::from);
        }
        Some(Verb::Pause(_) | Verb::Resume(_) | Verb::Bwlimit(_)) => {
            let each = layered.into_iter().filter_map(Layered::into_order).collect::<Vec<_>>();
            return console::steer(&each).map(ExitCode::from);
        }
        _ => layered.pop(),
    };
    let code = match first.map(|one| one.verb) {
        Some(Verb::Monitor(command)) => monitor::monitor(*command, agent)?,
        Some(Verb::InitDb(args)) => table::init_db(args)?,
        Some(Verb::Files(args)) => files::files(args)?,
        Some(Verb::Batch(args)) => batch::batch(args)?,
        Some(Verb::Retry(args)) => table::retry(args)?,
        Some(Verb::Rdiff(words)) => crate::rdiff::main(&words),
        Some(Verb::Bench(args)) => bench::bench(args)?,
        Some(Verb::Authorize(args)) => authorize::authorize(&args)?,
        Some(Verb::Version(args)) => version::version(&args),
        Some(Verb::Generate(args)) => generate::generate(&args)?,
        Some(Verb::Confined(args)) => return Ok(authorize::confined(&args)),
        Some(
            Verb::Run(_)
            | Verb::Relay(_)
            | Verb::Check(_)
            | Verb::Config(_)
            | Verb::Status(_)
            | Verb::Pause(_)
            | Verb::Resume(_)
            | Verb::Bwlimit(_),
        )
        | None => USAGE,
    };
    Ok(ExitCode::from(code))
}

fn runs(layered: Vec<Layered>) -> Vec<NamedRun> {
    layered.into_iter().filter_map(Layered::into_run).collect()
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

/// Flags without a verb mean `run`, and so does nothing at all, which an agent's variables may complete: a container's command
/// stays what it was. What was typed.
fn name_verb(args: &mut Vec<OsString>) -> TypedVerb {
    let asks = ["-h", "--help", "-V", "--version"];
    let verb_missing = match args.get(1) {
        None => true,
        Some(arg) => arg.as_encoded_bytes().starts_with(b"-") && !asks.iter().any(|ask| arg == ask),
    };
    let typed = match verb_missing {
        true if args.len() < 2 => TypedVerb::Bare,
        true => TypedVerb::Missing,
        false => TypedVerb::Named,
    };
    if verb_missing && !args.is_empty() {
        args.insert(1, "run".into());
    }
    typed
}

/// Which agent we are, if any; its arguments take the place of ours. Of one who is none and who typed nothing they become a
/// question for help, unless a configuration says what to run.
fn as_agent(args: &mut Vec<OsString>, typed: TypedVerb) -> anyhow::Result<Option<Resolved>> {
    if !is_of_agents(args) {
        return Ok(None);
    }
    let wanted = match (args[1].to_str(), typed) {
        (Some("monitor"), _) => WantedAgent::Monitor,
        (_, TypedVerb::Named) => WantedAgent::Archiver,
        (_, TypedVerb::Bare | TypedVerb::Missing) => WantedAgent::Any,
    };
    // Behind the verb, and behind that of `files`.
    let behind = if args[1] == "files" { 3 } else { 2 };
    if args.len() < behind {
        return Ok(None);
    }
    let words = [layers::site_words(args)?, args[behind..].to_vec()].concat();
    let agent = match resolve(wanted, &words, &|name| std::env::var(name).ok(), &system_host_name()) {
        // What runs answers by its socket, also where the default site file is not for us.
        Err(_) if args[1] == "status" && !is_named(&words) => None,
        agent => agent?,
    };
    match &agent {
        Some(agent) => {
            if agent.agent_class == AgentClass::PysmurfMonitor {
                args[1] = "monitor".into();
            }
            let verbs: Vec<_> = args[1..behind].iter().filter_map(|verb| verb.to_str()).collect();
            let words = match verbs.as_slice() {
                ["run" | "check" | "monitor"] => agent.arguments.clone(),
                verbs => flags::without_those_of_run(&agent.arguments, verbs),
            };
            args.truncate(behind);
            args.extend(words);
        }
        None if typed == TypedVerb::Bare && !layers::is_configured() => args[1] = "--help".into(),
        None => {}
    }
    Ok(agent)
}

fn is_of_agents(args: &[OsString]) -> bool {
    let is_rejects = || args[1] == "monitor" && args.get(2).is_some_and(|verb| verb == "rejects");
    args.get(1).is_some_and(|verb| OF_AGENTS.iter().any(|of_agents| verb == of_agents)) && !is_rejects()
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
