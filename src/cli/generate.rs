//! `generate`: manual pages and completions, out of the same table that the command line is read by.

use super::flags::{Flags, GenerateArgs, GeneratedText};
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io;
use std::path::Path;

/// Prints completions, or writes manual pages.
pub(super) fn generate(args: &GenerateArgs) -> Result<u8> {
    let shell = match args.what {
        GeneratedText::Man => return pages(args.dir.as_deref().unwrap_or(Path::new("."))),
        GeneratedText::Bash => Shell::Bash,
        GeneratedText::Zsh => Shell::Zsh,
        GeneratedText::Fish => Shell::Fish,
    };
    clap_complete::generate(shell, &mut Flags::command(), "pysmurf-archiver", &mut io::stdout());
    Ok(0)
}

/// A page for the program and one for each verb that is shown.
fn pages(dir: &Path) -> Result<u8> {
    let unwritten = || format!("Cannot write manual pages to {}; name a directory", dir.display());
    clap_mangen::generate_to(Flags::command(), dir).with_context(unwritten)?;
    Ok(0)
}
