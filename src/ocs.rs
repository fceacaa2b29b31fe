//! The OCS face of the archiver.

pub mod site;
