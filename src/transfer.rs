//! One session's file work: listing, sending, receiving.

pub mod dest;
pub mod source;
