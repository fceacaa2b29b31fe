//! The command line: which face of the program was called, and with which exit code it ends.

mod server;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with its arguments, its own name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    if args.get(1).is_some_and(|arg| arg == "--server") {
        return server::main(&args[1..]);
    }
    ExitCode::from(1)
}
