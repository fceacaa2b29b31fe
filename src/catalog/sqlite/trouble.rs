//! What goes wrong with a file of SQLite, as a catalog says it.

use crate::catalog::CatalogError;
use rusqlite::{Error, ErrorCode};
use std::time::Duration;
use tokio::time::timeout;

/// Limit for one call, also when the disk hangs. A scan of ten million rows takes some seconds.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The thread of a call given up goes on until the disk answers.
pub(super) async fn in_time<T>(
    database: &str,
    calling: impl Future<Output = Result<T, CatalogError>>,
) -> Result<T, CatalogError> {
    timeout(CALL_LIMIT, calling).await.unwrap_or_else(|_| {
        Err(unavailable(database, format!("no answer within {} s; look at the disk", CALL_LIMIT.as_secs())))
    })
}

pub(super) async fn on_own_thread<T: Send + 'static>(
    database: &str,
    work: impl FnOnce(&str) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    let name = database.to_owned();
    tokio::task::spawn_blocking(move || work(&name))
        .await
        .unwrap_or_else(|error| Err(unavailable(database, error.to_string())))
}

/// What SQLite's words mean for us.
pub(super) fn trouble(database: &str, error: Error) -> CatalogError {
    let remedy = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "name another file in --db",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "grant writing to the file and its folder"
        }
        _ => return unavailable(database, error.to_string()),
    };
    CatalogError::Setup(format!("Database {database}: {error}; {remedy}"))
}

pub(super) fn unavailable(database: &str, why: String) -> CatalogError {
    CatalogError::Unavailable { database: database.to_owned(), why }
}
