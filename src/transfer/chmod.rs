//! `--chmod`, at either side.

use super::TransferError;
use protocol::args::Options;
use protocol::chmod::Chmod;

pub(super) fn asked(options: &Options) -> Result<Option<Chmod>, TransferError> {
    let Some(text) = &options.chmod else { return Ok(None) };
    let bad =
        || TransferError::Usage(format!("Invalid argument passed to --chmod ({})", String::from_utf8_lossy(text)));
    Chmod::parse(text).map(Some).ok_or_else(bad)
}
