//! A few connections to one server, kept between calls, with a time limit on everything.
//!
//! Not the driver's own pool: that one cleans a connection which was left in the middle of a result without any limit,
//! so each call that times out on a mute server would take one of its places for ever.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, IoError, Opts, OptsBuilder, ServerError, SslOpts};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::super::{CatalogError, Database, DatabaseServer, ServerAddress, Tls, TlsMode};
use super::row::text;

/// Limit for connecting and logging in: a name service's usual 5 s and as much again; the driver has none of its own.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Limit for one call. A scan of ten million rows takes some seconds; what takes longer is a server in trouble.
pub(super) const QUERY_LIMIT: Duration = Duration::from_secs(30);

/// Limit for an idle connection's word that it lives: many times the way to any server and back, and little beside what a new
/// one may take.
const IDLE_LIMIT: Duration = Duration::from_secs(2);

/// Poller, recorder, and status page, and one to spare.
const MOST: usize = 4;

/// What every session begins with. The zone, for `DATETIME` columns; strict mode, so that a path too long is refused and
/// not cut, and nothing else of the server's mode, which could change what our statements mean; locks are waited for
/// briefly, since the caller tries again. Servers of MariaDB also end a query that we have given up.
const SESSION: &str = "SET time_zone='+00:00', sql_mode='STRICT_ALL_TABLES', innodb_lock_wait_timeout=3 \
                       /*M!100101 , max_statement_time=30 */";

/// The default, REPEATABLE READ, would lock gaps and with them the producer's INSERTs.
const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// Of nodes of a cluster: others do not know the variable.
const IN_STEP: &str = "SET SESSION wsrep_sync_wait=1";

/// What a node of a cluster says of itself, even while it answers nothing else.
const STAND: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_state_uuid')";

pub(super) struct Connections {
    addresses: Vec<AddressOpts>,
    /// By which of them we come at present.
    at: AtomicUsize,
    /// The cluster to which the first node belonged, where there are several.
    cluster: OnceLock<String>,
    server: DatabaseServer,
    idle: Mutex<Vec<MadeConnection>>,
    places: Semaphore,
    /// Kept for one short question after another.
    asking: tokio::sync::Mutex<Option<MadeConnection>>,
}

/// A connection that knows by which address it was made: what it meets says nothing of the others.
pub(super) struct MadeConnection {
    pub(super) conn: Conn,
    pub(super) at: usize,
}

/// How one address is connected to.
struct AddressOpts {
    address: ServerAddress,
    opts: Opts,
    /// Without TLS, for a server that does not offer it where it is not insisted upon.
    plain: Option<Opts>,
    /// That it does not offer it.
    is_plain: AtomicBool,
}

impl AddressOpts {
    fn new(address: &ServerAddress, server: &DatabaseServer, setup: Vec<&str>) -> Self {
        let mode = server.tls_mode();
        let opts = OptsBuilder::default()
            .ip_or_hostname(address.host.as_str())
            .tcp_port(address.port)
            .user(Some(server.user.as_str()))
            .pass(server.password.as_ref().map(|password| password.reveal()))
            .db_name(Some(server.name.as_str()))
            // Otherwise the driver leaves TCP for a socket file that the server names: another account, and in a
            // container perhaps another server.
            .prefer_socket(false)
            .tcp_keepalive(Some(CONNECT_LIMIT))
            .setup(setup);
        Self {
            address: address.clone(),
            plain: (mode == TlsMode::Preferred).then(|| opts.clone().into()),
            is_plain: AtomicBool::new(false),
            opts: opts.ssl_opts(ssl(mode, &server.tls)).into(),
        }
    }

    async fn log_in(&self) -> Result<Conn, Error> {
        let Some(plain) = &self.plain else { return Conn::new(self.opts.clone()).await };
        if !self.is_plain.load(Ordering::Relaxed) {
            match Conn::new(self.opts.clone()).await {
                Err(Error::Driver(DriverError::NoClientSslFlagFromServer)) => {}
                connected => return connected,
            }
        }
        let conn = Conn::new(plain.clone()).await?;
        self.is_plain.store(true, Ordering::Relaxed);
        Ok(conn)
    }
}

/// A server that is none of the cluster: its rows are others.
#[derive(Debug)]
struct Stranger(String);

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stranger {}

/// A connection in use, and its place among the few.
pub(super) struct TakenConnection<'a> {
    made: MadeConnection,
    _place: SemaphorePermit<'a>,
}

impl Connections {
    pub(super) fn new(server: &DatabaseServer) -> Self {
        Self::with(server, vec![SESSION, ISOLATION])
    }

    /// To a node of a cluster: what has been committed by way of another node is there before anything is read.
    pub(super) fn in_step(server: &DatabaseServer) -> Self {
        Self::with(server, vec![SESSION, ISOLATION, IN_STEP])
    }

    fn with(server: &DatabaseServer, setup: Vec<&str>) -> Self {
        let opts = |address| AddressOpts::new(address, server, setup.clone());
        Self {
            addresses: server.addresses.iter().map(opts).collect(),
            at: AtomicUsize::new(0),
            cluster: OnceLock::new(),
            server: server.clone(),
            idle: Mutex::default(),
            places: Semaphore::new(MOST),
            asking: tokio::sync::Mutex::default(),
        }
    }

    fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    /// After an error on a connection made by the address `at`: where it shows that the node does not serve, new connections are
    /// made by the next. One that was lost shows nothing: to log in does.
    pub(super) fn move_on(&self, at: usize, error: &Error) {
        if self.addresses.len() > 1 && does_not_serve(error) && !is_gone(error) {
            let next = (at + 1) % self.addresses.len();
            if self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
                && let (Some(from), Some(to)) = (self.addresses.get(at), self.addresses.get(next))
            {
                tracing::warn!(
                    "The database is asked by way of {} now: {}: {}",
                    to.address,
                    from.address,
                    words_of(error)
                );
            }
            self.forget_idle(at);
        }
    }

    fn forget_idle(&self, at: usize) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).retain(|idle| idle.at != at);
    }

    /// An idle connection that still answers, or a new one.
    pub(super) async fn connect(&self) -> Result<TakenConnection<'_>, Error> {
        let place = async { self.places.acquire().await.map_err(|closed| Error::Other(closed.into())) };
        let place = within(CONNECT_LIMIT, "connection", place).await?;
        let made = match self.idle_one().await {
            Some(made) => made,
            None => self.alone().await?,
        };
        Ok(TakenConnection { made, _place: place })
    }

    /// An idle connection that still answers. Who does not within the limit is not asked again on the others by its address.
    async fn idle_one(&self) -> Option<MadeConnection> {
        while let Some(mut made) = self.pop() {
            match within(IDLE_LIMIT, "answer", made.conn.ping()).await {
                Ok(()) => return Some(made),
                // The server has closed this one meanwhile.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    self.forget_idle(made.at);
                    self.move_on(made.at, &error);
                }
            }
        }
        None
    }

    /// A connection beside the few, for a caller who keeps it: by the address at hand, or the first of the others that serves.
    pub(super) async fn alone(&self) -> Result<MadeConnection, Error> {
        if let [only] = &self.addresses[..] {
            let conn = within(CONNECT_LIMIT, "connection", only.log_in()).await?;
            return Ok(MadeConnection { conn, at: 0 });
        }
        let first = self.at();
        let limit = CONNECT_LIMIT / u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        let mut unserved = Vec::new();
        for number in (0..self.addresses.len()).map(|step| (first + step) % self.addresses.len()) {
            let Some(opts) = self.addresses.get(number) else { break };
            let why = match within(limit, "connection", self.log_in_to_cluster(opts)).await {
                Ok(conn) => {
                    if !unserved.is_empty() {
                        tracing::warn!("The database is asked by way of {} now: {}", opts.address, unserved.join("; "));
                        self.at.store(number, Ordering::Relaxed);
                    }
                    return Ok(MadeConnection { conn, at: number });
                }
                Err(error) if does_not_serve(&error) => words_of(&error),
                Err(error) => return Err(error),
            };
            unserved.push(format!("{}: {why}", opts.address));
        }
        Err(Error::Io(IoError::Io(io::Error::other(unserved.join("; ")))))
    }

    /// Why nobody serves at which of several addresses. All are asked at once.
    pub(super) async fn unserved(&self) -> Vec<String> {
        let several = self.addresses.iter().skip_while(|_| self.addresses.len() == 1);
        let asked =
            several.map(async |opts| match within(CONNECT_LIMIT, "connection", self.log_in_to_cluster(opts)).await {
                Ok(conn) => {
                    let _ = timeout(Duration::from_secs(1), conn.disconnect()).await;
                    None
                }
                Err(error) => Some(format!("{}: {}", opts.address, words_of(&error))),
            });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Logs in where there are several addresses: they must be nodes of one cluster, or rows would be read from one server and
    /// recorded at another.
    async fn log_in_to_cluster(&self, opts: &AddressOpts) -> Result<Conn, Error> {
        let mut conn = opts.log_in().await?;
        let stand: Vec<mysql_async::Row> = conn.query(STAND).await?;
        let of = |name: &str| {
            let word = |row: &mysql_async::Row, index| text(row.as_ref(index)).ok().flatten().unwrap_or_default();
            stand.iter().find(|row| word(row, 0) == name).map(|row| word(row, 1)).filter(|value| !value.is_empty())
        };
        let Some(cluster) = of("wsrep_cluster_state_uuid") else {
            let why = format!(
                "{} is no node of a Galera cluster, and several addresses are for the nodes of one; name one address",
                opts.address
            );
            return Err(Error::Other(Stranger(why).into()));
        };
        // Until it has joined, a node may not know of which cluster it is one.
        if of("wsrep_ready").as_deref() != Some("ON") {
            return Err(Error::Io(IoError::Io(io::Error::other("it is not in step with its cluster"))));
        }
        let known = self.cluster.get_or_init(|| cluster.clone());
        if *known != cluster {
            let why =
                format!("{} is a node of another cluster ({cluster}, not {known}); name nodes of one", opts.address);
            return Err(Error::Other(Stranger(why).into()));
        }
        Ok(conn)
    }

    /// Runs `work`. The connection is kept only after success: nothing else says in which state it is.
    pub(super) async fn run<T>(
        &self,
        mut taken: TakenConnection<'_>,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, Error>,
    ) -> Result<T, CatalogError> {
        match within(QUERY_LIMIT, "answer", work(&mut taken.made.conn)).await {
            Ok(value) => {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(taken.made);
                Ok(value)
            }
            Err(error) => {
                self.move_on(taken.made.at, &error);
                Err(self.unavailable(error))
            }
        }
    }

    /// The first row of the answer to a question that is put often: on a connection kept for it, and without asking before
    /// whether that still lives, which would cost as much again. One that does not is replaced.
    pub(super) async fn ask(&self, query: &str) -> Result<Option<mysql_async::Row>, CatalogError> {
        let mut kept = self.asking.lock().await;
        if let Some(mut made) = kept.take() {
            match first_row(&mut made.conn, query).await {
                Ok(row) => {
                    *kept = Some(made);
                    return Ok(row);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) if is_not_ready(&error) => self.move_on(made.at, &error),
                Err(error) => {
                    self.move_on(made.at, &error);
                    return Err(self.unavailable(error));
                }
            }
        }
        let answer = async {
            let mut made = self.alone().await?;
            let row = first_row(&mut made.conn, query).await.inspect_err(|error| self.move_on(made.at, error))?;
            *kept = Some(made);
            Ok(row)
        };
        answer.await.map_err(|error| self.unavailable(error))
    }

    /// Says goodbye on all idle connections.
    pub(super) async fn close(&self) {
        let asking = self.asking.try_lock().ok().and_then(|mut kept| kept.take());
        for made in asking.into_iter().chain(std::iter::from_fn(|| self.pop())) {
            // The server notices by itself when the goodbye does not reach it.
            let _ = timeout(Duration::from_secs(1), made.conn.disconnect()).await;
        }
    }

    fn pop(&self) -> Option<MadeConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn unavailable(&self, error: Error) -> CatalogError {
        let database = Database::Mysql(self.server.clone()).to_string();
        CatalogError::Unavailable { database, why: words_of(&error) }
    }

    /// What is wrong with the database, with its name.
    pub(super) fn words(&self, why: &str) -> String {
        format!("Database {}: {why}", Database::Mysql(self.server.clone()))
    }

    /// The server is there, and something else is in the way.
    pub(super) fn busy(&self, why: String) -> CatalogError {
        CatalogError::Unavailable { database: Database::Mysql(self.server.clone()).to_string(), why }
    }

    /// Why the first connection failed: a refusal that will not pass by itself says what to do about it.
    pub(super) fn refusal(&self, error: Error) -> CatalogError {
        let unsaid = self.server.tls.mode == TlsMode::Unsaid;
        let remedy = match &error {
            // ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR, ER_HOST_NOT_PRIVILEGED
            Error::Server(ServerError { code: 1045 | 1698 | 1130, .. }) => {
                "check account and password in --db, or in MYSQL_USER and MYSQL_PASSWORD or MYSQL_PASSWORD_FILE; an \
                 account that requires TLS needs ?ssl-mode=required"
            }
            // ER_DBACCESS_DENIED_ERROR, ER_BAD_DB_ERROR
            Error::Server(ServerError { code: 1044 | 1049, .. }) => {
                "create the database or grant rights on it, or name another in --db or MYSQL_DATABASE"
            }
            Error::Driver(DriverError::NoClientSslFlagFromServer) if unsaid => TRUST_REMEDY,
            Error::Driver(DriverError::NoClientSslFlagFromServer) => {
                "set the server up for TLS, or say ?ssl-mode=disabled"
            }
            Error::Io(IoError::Tls(_)) if unsaid => TRUST_REMEDY,
            Error::Io(IoError::Io(error)) if error.kind() == ErrorKind::InvalidData && unsaid => TRUST_REMEDY,
            Error::Io(IoError::Tls(_)) => CERTIFICATE_REMEDY,
            // As which the driver hands on a certificate it does not believe.
            Error::Io(IoError::Io(error)) if error.kind() == ErrorKind::InvalidData => CERTIFICATE_REMEDY,
            Error::Other(why) if why.is::<Stranger>() => return CatalogError::Setup(self.words(&why.to_string())),
            _ => return self.unavailable(error),
        };
        CatalogError::Setup(format!("{}; {remedy}", self.unavailable(error)))
    }
}

/// No password was sent.
const TRUST_REMEDY: &str = "the password is not sent to a server that nobody has verified: name the authority of its \
                            certificate by ssl-ca=FILE, or say ssl-mode=required (encrypted, whoever the server is) or \
                            ssl-mode=disabled (not encrypted), behind a ? in --db or by MYSQL_SSL_CA and MYSQL_SSL_MODE";
const CERTIFICATE_REMEDY: &str = "check ssl-ca and ssl-mode in --db, or MYSQL_SSL_CA and MYSQL_SSL_MODE";

fn ssl(mode: TlsMode, tls: &Tls) -> Option<SslOpts> {
    let roots = tls.ca.iter().map(|file| file.clone().into()).collect::<Vec<_>>();
    let opts = SslOpts::default().with_disable_built_in_roots(!roots.is_empty()).with_root_certs(roots);
    match mode {
        TlsMode::Disabled => None,
        TlsMode::Preferred | TlsMode::Required => Some(opts.with_danger_accept_invalid_certs(true)),
        TlsMode::Unsaid | TlsMode::VerifyIdentity => Some(opts),
    }
}

/// What a short question gives first.
async fn first_row(conn: &mut Conn, query: &str) -> Result<Option<mysql_async::Row>, Error> {
    within(CONNECT_LIMIT, "answer", conn.exec_first(query, ())).await
}

/// Whether the server has closed the connection, and not just failed to answer.
pub(super) fn is_gone(error: &Error) -> bool {
    match error {
        Error::Server(_) => false,
        Error::Io(IoError::Io(error)) => error.kind() != ErrorKind::TimedOut,
        _ => true,
    }
}

/// ER_UNKNOWN_COM_ERROR, by which a node of a cluster says that it has no quorum or is not yet in step.
pub(super) fn is_not_ready(error: &Error) -> bool {
    matches!(error, Error::Server(ServerError { code: 1047, .. }))
}

/// Whether the server itself is in the way, so that another node of its cluster may do: not what it says of our account or
/// statements, and no certificate that is not believed.
fn does_not_serve(error: &Error) -> bool {
    match error {
        // ER_CON_COUNT_ERROR, ER_SERVER_SHUTDOWN, ER_UNKNOWN_COM_ERROR, and ER_OPTION_PREVENTS_STATEMENT of one that is read-only.
        Error::Server(error) => matches!(error.code, 1040 | 1053 | 1047 | 1290),
        Error::Io(IoError::Io(error)) => error.kind() != ErrorKind::InvalidData,
        Error::Io(IoError::Tls(_)) => false,
        Error::Driver(DriverError::NoClientSslFlagFromServer) => false,
        Error::Driver(_) => true,
        _ => false,
    }
}

/// The driver's own words repeat themselves.
fn words_of(error: &Error) -> String {
    match error {
        Error::Server(ServerError { code, message, .. }) => format!("{message} (error {code})"),
        Error::Io(IoError::Io(error)) => error.to_string(),
        error => error.to_string(),
    }
}

/// What a server is waited for. At words that no server of MySQL has, such as a column more than there can be, the driver
/// panics, and so does what makes Rust's values of them: that is the end of this connection and of nothing else.
pub(super) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut work = pin!(work);
    let heard = poll_fn(|context| {
        let poll = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        poll.unwrap_or_else(|_| Poll::Ready(Err(Error::Other("it answers as no server of MySQL does".into()))))
    });
    timeout(limit, heard).await.unwrap_or_else(|_| Err(late(what, limit)))
}

fn late(what: &str, limit: Duration) -> Error {
    Error::Io(IoError::Io(io::Error::new(ErrorKind::TimedOut, format!("no {what} within {} s", limit.as_secs()))))
}

#[cfg(test)]
mod tests;
