//! Work that is not a row: files and directories with exact places at the far end, all of them or none. What is handed over
//! becomes rows of a table of their own, and so has the links, limits, retries and proofs of rows; here is what makes one of
//! them: taken, read, completed, cancelled and cleaned up together.

mod far;
mod keeper;
mod reading;
pub(crate) mod request;
pub(crate) mod spool;
pub(crate) mod state;

pub(crate) use keeper::{BatchKeeper, BatchTerms};
