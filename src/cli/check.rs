//! `check`: one line for each thing that must be in order, with the remedy.

use super::flags::ServiceArgs;
use anyhow::Result;

pub(super) fn check(args: ServiceArgs) -> Result<u8> {
    let _ = super::run::Service::plan(&args)?;
    Ok(0)
}
