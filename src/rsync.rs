//! The `rsync` command: stock rsync's command line, and the client's side of its sessions.
//! Owns what a person types and sees; what moves is `transfer`'s, how it gets there `transport`'s.

mod batch;
mod checks;
pub(crate) mod command_line;
pub mod daemon;
pub(crate) mod environment;
mod failure;
mod help;
mod helpers;
pub(crate) mod operands;
mod output;
mod parse;
mod progress;
mod pushed;
mod quoting;
pub(crate) mod served;
mod session;
mod stats;
pub(crate) mod table;
pub(crate) mod until;
pub(crate) mod usage;
mod values;
mod version;
mod wanted;
mod way;

use crate::exit;
use command_line::{Ask, CommandLine};
use environment::Environment;
use protocol::args::{Debug, Info};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use usage::Usage;

/// Runs one command; `words` are those behind the program's name.
pub fn main(words: &[OsString]) -> ExitCode {
    if let [verb, what] = words
        && verb == "--generate"
    {
        return generate(&what.to_string_lossy());
    }
    let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
    let code = run(&words, &Environment::of_process()).unwrap_or_else(|usage| {
        if usage.text.is_empty() {
            say_error(&help::text());
        } else {
            say_error(&usage.text);
        }
        say_error(&exit::line(usage.code, "client"));
        usage.code
    });
    ExitCode::from(exit::status(code))
}

fn run(words: &[&[u8]], environment: &Environment) -> Result<i32, Usage> {
    let line = CommandLine::parse(words, environment)?;
    if let Some(ask) = line.ask {
        print(&match ask {
            Ask::Help => help::text(),
            Ask::Version => version::text(),
            Ask::VersionJson => version::json(),
            Ask::InfoHelp => help::levels::<Info>(),
            Ask::DebugHelp => help::levels::<Debug>(),
        });
        return Ok(0);
    }
    let plan = match line.batch.read {
        Some(_) => operands::playback(&line.operands, line.options.old_args)?,
        None => operands::plan(&line.operands, line.options.old_args)?,
    };
    session::run(&line, &plan)
}

/// What is made of the table of options: `man`, or completions for `bash`, `zsh` or `fish`.
fn generate(what: &str) -> ExitCode {
    match help::generate(what) {
        Some(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        None => {
            say_error("rsync: --generate takes man, bash, zsh or fish");
            ExitCode::from(1)
        }
    }
}

fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn say_error(text: &str) {
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
}
