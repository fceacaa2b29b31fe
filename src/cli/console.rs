//! `status`, `pause`, `resume`, `bwlimit`: asks and tells a running archiver.

mod doors;
mod fleet;
mod glance;
mod status;
mod steer;
mod view;

pub(super) use doors::{open_doors, state_dir};
pub(super) use status::status;
pub(super) use steer::{have_looked, steer};
