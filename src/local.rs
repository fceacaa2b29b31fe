//! A far end in this very process: local copies take the same road as remote ones, two ends joined in memory.

use crate::link::{Closer, Ending, Link};
use crate::pipe;
use crate::transfer::serve::serve;
use crate::transfer::{charset, filters};
use crate::transport::child::Child;
use crate::transport::{CommandOutput, Connect, ConnectError};
use protocol::args::{ArgsError, ServerArgs};
use protocol::filter::Rule;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Reads the arguments of a server.
type Parse = fn(&[&[u8]]) -> Result<ServerArgs, ArgsError>;

/// Serves each link on a thread of its own.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    parse: Parse,
    rules: Vec<Rule>,
}

impl Default for Local {
    fn default() -> Self {
        Self { parse: |words| ServerArgs::parse(words), rules: Vec::new() }
    }
}

impl Local {
    /// Reads the server's arguments so; its client will tell these rules.
    pub(crate) fn reading(parse: Parse, rules: &[Rule]) -> Self {
        Self { parse, rules: rules.to_vec() }
    }
}

impl Connect for Local {
    fn open(&mut self, server_args: &[OsString]) -> Result<Link, ConnectError> {
        let words: Vec<_> = server_args.iter().map(|word| word.as_bytes()).collect();
        let mut args = (self.parse)(&words).map_err(|error| ConnectError::Setup(error.to_string()))?;
        args.known.clone_from(&self.rules);
        charset::of_server(&mut args.options).map_err(|error| ConnectError::Setup(error.to_string()))?;
        // Elsewhere a server that receives has been told all rules.
        if !args.sender && args.options.cvs_exclude && !args.options.delete_excluded {
            args.rules.extend(filters::of_cvs());
        }
        let (near, far) = pipe::pair();
        let remote = near.remote.clone();
        // The client is in this process: nothing will ever be known of its end, so nobody is to wait for it.
        far.remote.end(Ending::Lost("the client closed the connection".into()));
        let thread = std::thread::Builder::new().name("local server".into());
        let spawned = thread.spawn(move || {
            let ending = match serve(&args, far) {
                Ok(served) => served.exit_code(),
                Err(error) => {
                    remote.push_stderr(error.to_string().as_bytes());
                    error.exit_code()
                }
            };
            remote.end(Ending::Exited(ending));
        });
        spawned.map_err(|error| ConnectError::Setup(format!("Cannot start a thread: {error}")))?;
        Ok(near)
    }

    fn run_until(&mut self, argv: &[OsString], began: &mut dyn FnMut(Closer)) -> Result<CommandOutput, ConnectError> {
        if argv.first().is_some_and(|program| program == env!("CARGO_PKG_NAME")) {
            let stdout = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n").into();
            return Ok(CommandOutput { status: Some(0), stdout, stderr: Vec::new() });
        }
        Child::local(Vec::new()).run_until(argv, began)
    }

    fn program(&self) -> Vec<OsString> {
        vec![env!("CARGO_PKG_NAME").into()]
    }

    fn describe(&self) -> String {
        "this machine".into()
    }

    fn disconnect(&mut self) {}
}
