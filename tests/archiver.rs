//! The whole archiver: the real binary between real databases, a real sshd and stock rsync.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(unreachable_pub)]
#[path = "support"]
mod support {
    pub mod archiver;
    pub mod browser;
    pub mod cutter;
    pub mod disk;
    pub mod galera;
    pub mod mariadb;
    pub mod noise;
    pub mod outages;
    pub mod processes;
    pub mod script;
    pub mod sshd;
    pub mod tools;
    pub mod wait;
}

#[path = "archiver/tables.rs"]
mod tables;

#[path = "archiver/authorized.rs"]
mod authorized;
#[path = "archiver/batches.rs"]
mod batches;
#[path = "archiver/bootstrap.rs"]
mod bootstrap;
#[path = "archiver/catalog.rs"]
mod catalog;
#[path = "archiver/check.rs"]
mod check;
#[path = "archiver/clock.rs"]
mod clock;
#[path = "archiver/configuration.rs"]
mod configuration;
#[path = "archiver/console.rs"]
mod console;
#[path = "archiver/cuts.rs"]
mod cuts;
#[path = "archiver/existing.rs"]
mod existing;
#[path = "archiver/faults.rs"]
mod faults;
#[path = "archiver/files.rs"]
mod files;
#[path = "archiver/fleet.rs"]
mod fleet;
#[path = "archiver/installed.rs"]
mod installed;
#[path = "archiver/killed.rs"]
mod killed;
#[path = "archiver/links.rs"]
mod links;
#[path = "archiver/load.rs"]
mod load;
#[path = "archiver/monitor.rs"]
mod monitor;
#[path = "archiver/nodes.rs"]
mod nodes;
#[path = "archiver/origins.rs"]
mod origins;
#[path = "archiver/outages.rs"]
mod outages;
#[path = "archiver/power.rs"]
mod power;
#[path = "archiver/prune.rs"]
mod prune;
#[path = "archiver/refusals.rs"]
mod refusals;
#[path = "archiver/relays.rs"]
mod relays;
#[path = "archiver/resume.rs"]
mod resume;
#[path = "archiver/rows.rs"]
mod rows;
#[path = "archiver/sessions.rs"]
mod sessions;
#[path = "archiver/soak.rs"]
mod soak;
#[path = "archiver/sqlite.rs"]
mod sqlite;
#[path = "archiver/timecodes.rs"]
mod timecodes;
#[path = "archiver/told.rs"]
mod told;
#[path = "archiver/trickle.rs"]
mod trickle;
#[path = "archiver/upkeep.rs"]
mod upkeep;
#[path = "archiver/watch.rs"]
mod watch;
#[path = "archiver/watched.rs"]
mod watched;
#[path = "archiver/weaknesses.rs"]
mod weaknesses;
