//! Before a run: what a server is and has, and what is made there where it is absent.

use super::connections::Connections;
use super::table::{self, CREATE, DEFAULT_TABLES};
use super::{COMMAND_DENIED, fleet, indexes, links, nodes, note, row};
use crate::catalog::fleet::{FleetExtent, FleetRules};
use crate::catalog::{CatalogError, Created, Database, DatabaseServer, NOTES, TlsMode};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

/// ER_TABLE_EXISTS_ERROR.
const TABLE_EXISTS: u16 = 1050;

/// What the tables of a fleet say, where they are there; they must suit the table.
pub(super) async fn fleet_rules(connections: &Connections, table: &str) -> Result<Option<FleetRules>, CatalogError> {
    let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
    let found = async |conn: &mut Conn| {
        Ok(match fleet::find(conn).await? {
            None => Ok(None),
            Some(Err(why)) => Err(why),
            Some(Ok(rules)) => fleet::unfit(conn, table).await?.map_or(Ok(Some(rules)), Err),
        })
    };
    connections.run(conn, found).await?.map_err(|why| CatalogError::Setup(connections.words(&why)))
}

/// Whether there is a table for relayed ones.
pub(super) async fn know_relays(connections: &Connections) -> Result<bool, CatalogError> {
    let conn = connections.connect().await.map_err(|error| connections.unavailable(error))?;
    connections.run(conn, async |conn| nodes::know_relays(conn).await).await
}

/// Whether there are tables for storage nodes.
pub(super) async fn have_nodes(connections: &Connections) -> Result<bool, CatalogError> {
    let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
    connections.run(conn, nodes::exist).await
}

/// Whether there are tables for links.
pub(super) async fn have_links(connections: &Connections) -> Result<bool, CatalogError> {
    let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
    connections.run(conn, links::exist).await
}

/// Creates the tables of a fleet.
pub(in crate::catalog) async fn make_fleet(server: &DatabaseServer) -> Result<Vec<Created>, CatalogError> {
    init_db(server).await?;
    fleet::init(server, FleetExtent::Movers).await
}

/// Creates the tables for several storage nodes beside them.
pub(in crate::catalog) async fn make_node_tables(server: &DatabaseServer) -> Result<Vec<Created>, CatalogError> {
    init_db(server).await?;
    fleet::init(server, FleetExtent::Nodes).await
}

/// Logs in and asks which server that is.
pub(in crate::catalog) async fn reach(server: &DatabaseServer) -> Result<String, CatalogError> {
    let connections = Connections::new(server);
    let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
    let (version, cipher): (Option<Row>, Option<Row>) = connections
        .run(conn, async |conn| {
            let version = conn.query_first("SELECT VERSION()").await?;
            Ok((version, conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_version'").await?))
        })
        .await?;
    let unserved = connections.unserved().await;
    connections.close().await;
    let version = version.and_then(|row| row::text(row.as_ref(0)).ok().flatten()).unwrap_or_default();
    let product = if version.contains("MariaDB") { "MariaDB" } else { "MySQL" };
    let secured = cipher.and_then(|row| row::text(row.as_ref(1)).ok().flatten()).filter(|tls| !tls.is_empty());
    let secured = match (secured, server.tls_mode()) {
        (None, _) => "not encrypted".to_owned(),
        (Some(tls), TlsMode::VerifyIdentity) => format!("encrypted by {tls}, its certificate verified"),
        (Some(tls), _) => format!("encrypted by {tls}, its certificate not verified"),
    };
    let of_several = match (server.addresses.len(), unserved.len()) {
        (1, _) => String::new(),
        (all, 0) => format!(", by all {all} addresses"),
        (all, not) => format!(", by {} of {all} addresses; {}", all - not, unserved.join("; ")),
    };
    Ok(format!("{product} {}, {secured}{of_several}", version.split('-').next().unwrap_or_default()))
}

/// By how much the server's ids grow.
pub(super) async fn id_step(conn: &mut Conn) -> Result<i64, Error> {
    let row: Option<Row> = conn.query_first("SELECT @@auto_increment_increment").await?;
    Ok(row.and_then(|row| row::integer(row.as_ref(0)).ok().flatten()).unwrap_or(1))
}

/// Servers of the Galera cluster to which this one belongs; 0 where it belongs to none.
pub(super) async fn cluster_size(conn: &mut Conn) -> Result<i64, Error> {
    let row: Option<Row> = conn.query_first("SHOW GLOBAL STATUS LIKE 'wsrep_cluster_size'").await?;
    let size = row.and_then(|row| row::text(row.as_ref(1)).ok().flatten());
    Ok(size.and_then(|size| size.parse().ok()).unwrap_or(0))
}

pub(super) fn of_a_cluster(database: &Database, nodes: i64) -> String {
    format!(
        "Database {database} is one of {nodes} nodes of a cluster, and our lock on the --target holds on this node alone: see \
         to it that no second archiver of the same --target works through another node, or all is copied twice; or have several share \
         its rows on all nodes, by init-db --fleet"
    )
}

/// Creates `pysmurf_files_v1` unless a table of files is there.
pub(in crate::catalog) async fn init_db(server: &DatabaseServer) -> Result<Vec<Created>, CatalogError> {
    let connections = Connections::new(server);
    let conn = connections.connect().await.map_err(|error| connections.refusal(error))?;
    let created = connections
        .run(conn, async |conn| {
            let files = match table::find(conn, &DEFAULT_TABLES).await? {
                Some(table) => Created { table: table.name, new: false },
                None => {
                    let created = |new| Created { table: DEFAULT_TABLES[0].to_owned(), new };
                    match conn.query_drop(CREATE).await {
                        Ok(()) => created(true),
                        // Somebody else was quicker.
                        Err(Error::Server(error)) if error.code == TABLE_EXISTS => created(false),
                        Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => {
                            return Ok(Err(error.message));
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let notes = note::init(conn).await?.map(|new| Created { table: NOTES.to_owned(), new });
            Ok(Ok([files].into_iter().chain(notes).collect()))
        })
        .await?;
    connections.close().await;
    created.map_err(|why| {
        let database = Database::Mysql(server.clone());
        CatalogError::Setup(format!("Database {database}: {why}; grant CREATE on it to user {}", server.user))
    })
}

/// Makes our indexes where they are absent. A large table takes longer than a call is waited for, so nothing limits it.
pub(in crate::catalog) async fn make_indexes(server: &DatabaseServer) -> Result<Vec<Created>, CatalogError> {
    let connections = Connections::new(server);
    let mut conn = connections.alone().await.map_err(|error| connections.refusal(error))?.conn;
    let made = async {
        let Some(table) = table::find(&mut conn, &DEFAULT_TABLES).await? else { return Ok(None) };
        indexes::create(&mut conn, &table.name).await.map(Some)
    };
    let made = made.await;
    let database = Database::Mysql(server.clone());
    match made {
        Ok(Some(made)) => Ok(made.into_iter().map(|(table, new)| Created { table, new }).collect()),
        Ok(None) => Err(no_table(&database, &DEFAULT_TABLES)),
        Err(Error::Server(error)) if COMMAND_DENIED.contains(&error.code) => Err(CatalogError::Setup(format!(
            "Database {database}: {}; grant INDEX on the table to user {}",
            error.message, server.user
        ))),
        Err(error) => Err(connections.unavailable(error)),
    }
}

pub(super) fn no_table(database: &Database, names: &[&str]) -> CatalogError {
    CatalogError::Setup(format!(
        "Database {database} has no table {}, or the user may not see it; create one with init-db, name another with \
         --table, or grant SELECT and UPDATE on it",
        names.join(" or ")
    ))
}
