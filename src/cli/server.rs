//! `--server`: the far end of somebody's rsync.

mod secluded;

use crate::disk::{bound, trust_all_links};
use crate::exit;
use crate::report::complain;
use crate::rsync::served;
use crate::rsync::until::Until;
use crate::transfer::copy_as::copy_as;
use crate::transfer::held::hold;
use crate::transfer::serve::serve;
use crate::transfer::{TransferError, charset};
use crate::transport::stdio::{input, stdio};
use protocol::PeerError;
use protocol::args::{Options, ServerArgs};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

/// How long a silent client is waited for where it sets no limit itself; stock rsync waits for ever.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Serves one session on standard input and output. Messages go to standard error, as those of stock rsync do.
pub(super) fn main(args: &[OsString]) -> ExitCode {
    let mut args = args.to_vec();
    let charset = args.iter().find_map(|word| word.as_bytes().strip_prefix(b"--iconv="));
    let charset = match charset.map(charset::at_server).transpose() {
        Ok(charset) => charset,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(exit::status(error.exit_code()));
        }
    };
    if secluded::announced(&args) {
        match secluded::read(&mut input(PATIENCE)).and_then(|more| secluded::expand(more, charset)) {
            Ok(more) => args.extend(more),
            Err(error) => {
                complain(&format!("pysmurf-archiver --server: Cannot read the arguments that -s announces: {error}"));
                return ExitCode::from(exit::status(exit::STREAM));
            }
        }
    }
    let words: Vec<_> = args.iter().map(|arg| arg.as_bytes()).collect();
    let args = match served::operators(&words) {
        Ok(args) => ServerArgs { options: Options { charset, ..args.options }, ..args },
        Err(error) => {
            complain(&format!("rsync: {error}"));
            complain(&exit::line(1, "server"));
            return ExitCode::from(1);
        }
    };
    if args.options.insecure_links {
        trust_all_links();
    }
    args.options.confine_root.as_deref().inspect(|root| bound(root));
    let patience =
        args.options.timeout.filter(|&seconds| seconds > 0).map(|seconds| Duration::from_secs(seconds.into()));
    if let Some(Err(error)) = args.options.copy_as.as_deref().map(copy_as) {
        complain(&error.to_string());
        return ExitCode::from(1);
    }
    hold(&args);
    let link = stdio(patience.unwrap_or(PATIENCE));
    // Without them the session still works; only what it leaves when told to end is not tidied.
    let until = Until::watch(link.closer.clone(), None).ok();
    let served = serve(&args, link);
    if let Some(code) = until.and_then(|until| until.ended()) {
        complain(&exit::line(code, "server"));
        return ExitCode::from(exit::status(code));
    }
    let code = match served {
        Ok(served) => served.exit_code(),
        Err(error) => {
            if !told(&error) {
                complain(&format!("pysmurf-archiver --server: {error}"));
            }
            error.exit_code()
        }
    };
    ExitCode::from(exit::status(code))
}

/// Whether the client has heard of it through the session.
fn told(error: &TransferError) -> bool {
    use TransferError::{Local, Peer, Selection};
    match error {
        Peer(PeerError::Version(_) | PeerError::NoCommonChecksum { .. }) => false,
        Peer(_) | Selection(_) | Local { .. } => true,
        _ => false,
    }
}
