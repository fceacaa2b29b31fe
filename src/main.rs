//! Parse, wire, run, exit.

use pysmurf_archiver::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os().collect())
}
