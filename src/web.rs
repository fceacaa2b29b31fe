//! What operators ask a running archiver and tell it, over HTTP: on a socket of this machine everything, on a TCP port what a
//! token allows.

pub(crate) mod ask;
mod gate;
mod metrics;
pub(crate) mod places;
mod router;
mod serve;
mod socket;

use crate::console::Consoles;
use crate::disk::reason;
use axum::middleware;
use gate::{Gate, admit};
pub(crate) use gate::{ListenAddress, ListenToken};
use places::ControlChoice;
use serve::Door;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The doors of this process; closed when dropped.
pub(crate) struct Doors {
    tasks: Vec<JoinHandle<()>>,
    socket: Option<socket::BoundSocket>,
}

impl Doors {
    /// Opens the socket where it was chosen, for operators of these archives. What cannot be opened is told and done without.
    pub(crate) fn open(consoles: &Consoles, control: &ControlChoice) -> Self {
        let mut doors = Self { tasks: Vec::new(), socket: None };
        let all = consoles.all();
        let names: Vec<_> = all.iter().map(|console| console.identity().name.as_str()).collect();
        let name = places::socket_name(&names);
        match socket::open(control, &name) {
            Ok(Some(bound)) => {
                tracing::debug!("Answers at {}", bound.path().display());
                match bound.listener() {
                    Ok(listener) => {
                        let router = router::router(consoles.clone());
                        doors.tasks.push(tokio::spawn(serve::serve(Door::Unix(listener), router)));
                        doors.socket = Some(bound);
                    }
                    Err(error) => tracing::warn!("{}", without(&error.to_string())),
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("{}", without(&error.to_string())),
        }
        doors
    }

    /// Opens a TCP port besides. Where that cannot be had, it is an error: who asked for it relies on it.
    pub(crate) fn listen(
        &mut self,
        consoles: &Consoles,
        address: ListenAddress,
        token: Option<ListenToken>,
    ) -> Result<(), ListenerError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address.0)?;
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        let listener = bind().map_err(|error| ListenerError { address: address.0, why: reason(&error) })?;
        let at = listener.local_addr().unwrap_or(address.0);
        tracing::info!("The status page is at http://{at}/");
        let gate = Arc::new(Gate { loopback: at.ip().is_loopback(), token });
        let router = router::router(consoles.clone()).layer(middleware::from_fn_with_state(gate, admit));
        self.tasks.push(tokio::spawn(serve::serve(Door::Tcp(listener), router)));
        Ok(())
    }
}

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
#[error("Option --listen: cannot listen at {address}: {why}; name another address")]
pub(crate) struct ListenerError {
    address: SocketAddr,
    why: String,
}

fn without(why: &str) -> String {
    format!(
        "{why}. It goes on without: `pysmurf-archiver status` will not find it; name another place by --control, or none"
    )
}

impl Drop for Doors {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
