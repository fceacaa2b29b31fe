//! The archiver and the monitor as agents, and the framework of agents beneath it, on a real crossbar router.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "agent/archiver.rs"]
mod archiver;
#[path = "agent/faults.rs"]
mod faults;
#[path = "agent/framework.rs"]
mod framework;
#[path = "agent/monitor.rs"]
mod monitor;
#[allow(unreachable_pub)]
#[path = "support"]
mod support {
    pub mod crossbar;
    pub mod cutter;
    pub mod processes;
    pub mod tools;
}
