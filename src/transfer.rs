//! One session's file work: listing, sending, receiving.

mod beneath;
pub mod dest;
pub mod source;
