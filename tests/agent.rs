//! The archiver as an agent, and the framework of agents beneath it, on a real crossbar router.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "agent/archiver.rs"]
mod archiver;
#[path = "agent/framework.rs"]
mod framework;
#[allow(unreachable_pub)]
#[path = "support"]
mod support {
    pub mod crossbar;
    pub mod processes;
    pub mod tools;
}
