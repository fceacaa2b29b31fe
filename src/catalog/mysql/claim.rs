//! One archiver to a target: named locks of the server, held by a connection of their own.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connections::{Connections, MadeConnection, QUERY_LIMIT, within};
use crate::catalog::CatalogError;

/// How often the connection is used, so that it stays.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// After so many seconds without a word the server ends the connection and frees the locks: a host that lost its power
/// must not keep its successor waiting for hours.
const SILENCE: u32 = 90;
/// Limit for an answer to a heartbeat.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The connection that holds the locks, while there is one.
#[derive(Clone, Default)]
pub(super) struct Claim(Arc<Mutex<Option<Conn>>>);

impl Claim {
    /// Takes a lock for each name, unless that is done already.
    pub(super) async fn take(&self, connections: &Connections, names: &[String]) -> Result<(), CatalogError> {
        let mut held = self.0.lock().await;
        if held.is_some() {
            return Ok(());
        }
        let MadeConnection { mut conn, at } =
            connections.alone().await.map_err(|error| connections.unavailable(error))?;
        let taking = async {
            conn.query_drop(format!("SET SESSION wait_timeout={SILENCE}")).await?;
            for name in names {
                let got: Option<Option<i64>> = conn.exec_first("SELECT GET_LOCK(?, 0)", (name,)).await?;
                if got.flatten() != Some(1) {
                    let holder: Option<Option<u64>> = conn.exec_first("SELECT IS_USED_LOCK(?)", (name,)).await?;
                    conn.disconnect().await?;
                    return Ok(Err(holder.flatten()));
                }
            }
            Ok::<_, Error>(Ok(conn))
        };
        match within(QUERY_LIMIT, "answer to the claim of our targets", taking).await {
            Ok(Ok(conn)) => {
                *held = Some(conn);
                drop(held);
                tokio::spawn(self.clone().keep());
                Ok(())
            }
            Ok(Err(holder)) => {
                let holder = holder.map(|id| format!(" (connection {id} of the server)")).unwrap_or_default();
                Err(connections.busy(format!(
                    "another archiver{holder} works on the same --target; stop one of the two, give them different targets, or have them share it by init-db --fleet"
                )))
            }
            Err(error) => {
                connections.move_on(at, &error);
                Err(connections.unavailable(error))
            }
        }
    }

    /// Keeps the connection alive for as long as it answers; what is lost is taken anew by the next [`Claim::take`].
    async fn keep(self) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let mut held = self.0.lock().await;
            let Some(conn) = held.as_mut() else { return };
            if within(ANSWER_LIMIT, "answer", conn.ping()).await.is_err() {
                *held = None;
                return;
            }
        }
    }

    /// Frees the locks.
    pub(super) async fn release(&self) {
        if let Some(mut conn) = self.0.lock().await.take() {
            let goodbye = async {
                // A server frees the locks of a connection that ends only a moment later; one that does not know these words
                // does it then.
                let _ = conn.query_drop("DO RELEASE_ALL_LOCKS()").await;
                conn.disconnect().await
            };
            // The server notices by itself when the goodbye does not reach it.
            let _ = timeout(Duration::from_secs(1), goodbye).await;
        }
    }
}
