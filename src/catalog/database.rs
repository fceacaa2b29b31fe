//! Which database: read from `--db` or from the `MYSQL_*` variables of the old agents.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use super::CatalogError;

mod tls;

pub use tls::{Tls, TlsMode};

/// A database that can hold a table of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// MySQL or MariaDB.
    Mysql(DatabaseServer),
    /// A file of SQLite.
    Sqlite(PathBuf),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl ServerAddress {
    /// Whether it is reached without leaving this machine.
    fn is_here(&self) -> bool {
        let host = self.host.trim_end_matches('.');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// A MySQL or MariaDB server, and the database on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseServer {
    /// Where it listens: one address, or those of several nodes of one Galera cluster, in the order in which they are tried.
    pub addresses: Vec<ServerAddress>,
    /// Account.
    pub user: String,
    /// Its password; `None` for an account without.
    pub password: Option<Secret>,
    /// Name of the database.
    pub name: String,
    /// How the connection is secured.
    pub tls: Tls,
}

impl DatabaseServer {
    /// How the connection is to be secured: what is said, or what is safe.
    ///
    /// A server may ask for the password itself, and not only for a proof that we know it (`caching_sha2_password`). So it
    /// is sent to this very machine, to a server with a certificate that we believe, or where somebody said that the
    /// server can be trusted.
    pub(crate) fn tls_mode(&self) -> TlsMode {
        match self.tls.mode {
            TlsMode::Unsaid if self.password.is_none() || self.addresses.iter().all(ServerAddress::is_here) => {
                TlsMode::Preferred
            }
            TlsMode::Unsaid => TlsMode::VerifyIdentity,
            said => said,
        }
    }
}

/// A text that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who must send it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The address without account and password, as messages show it.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mysql(server) => {
                let addresses = server.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                write!(f, "mysql://{addresses}/{}", server.name)
            }
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

/// The registered port of MySQL.
const DEFAULT_PORT: u16 = 3306;

/// Most addresses of one cluster: all of them are tried within the limit for connecting.
const MOST_ADDRESSES: usize = 5;

/// The name that the old agents had written into their code.
const DEFAULT_NAME: &str = "files";

/// The variables that choose a MySQL database.
const VARIABLES: [&str; 6] =
    ["MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_PASSWORD_FILE", "MYSQL_DATABASE"];

/// Longest password file, in bytes; anything longer is some other file.
const PASSWORD_FILE_LIMIT: u64 = 4096;

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Database {
    /// The database of option `--db` if given, else that of the variables `MYSQL_HOST` (localhost), `MYSQL_PORT` (3306),
    /// `MYSQL_USER`, `MYSQL_PASSWORD` or `MYSQL_PASSWORD_FILE`, and `MYSQL_DATABASE` (files); `None` when nothing is set.
    ///
    /// The connection is secured as the address says after `?` (`ssl-mode=`, `ssl-ca=`), or `MYSQL_SSL_MODE` and
    /// `MYSQL_SSL_CA`. A `mysql://` address that leaves out account or password takes them from the variables, so that a password need
    /// not stand on the command line. An empty variable counts as unset. Errors are [`CatalogError::Setup`].
    pub fn choose(option: Option<&str>, variables: Variables<'_>) -> Result<Option<Self>, CatalogError> {
        let variables = |name: &str| variables(name).filter(|value| !value.is_empty());
        match option {
            Some(address) => Self::from_address(address, &variables).map(Some),
            None if VARIABLES.iter().any(|name| variables(name).is_some()) => {
                Self::from_variables(&variables).map(Some)
            }
            None => Ok(None),
        }
    }

    fn from_address(address: &str, variables: Variables<'_>) -> Result<Self, CatalogError> {
        if let Some(path) = address.strip_prefix("sqlite:") {
            return sqlite_path(path).map(Self::Sqlite);
        }
        // The address itself is not repeated in any message: a mistyped one may hold a password anywhere.
        let Some(rest) = address.strip_prefix("mysql://").or_else(|| address.strip_prefix("mariadb://")) else {
            return Err(wrong_option("starts with neither mysql:// nor sqlite:"));
        };
        // Split at the last @, so that a password may hold any of @ / ? unescaped.
        let (account, place) = rest.rsplit_once('@').map_or((None, rest), |(account, place)| (Some(account), place));
        let (place, parameters) = place.split_once('?').unwrap_or((place, ""));
        let tls = Tls::choose(parameters, variables)?;
        let (place, name) = place.split_once('/').unwrap_or((place, ""));
        if name.contains('/') {
            return Err(wrong_option("has something after the database's name"));
        }
        let addresses = addresses(place, host_and_port)?;
        let name = if name.is_empty() { DEFAULT_NAME.to_owned() } else { decode(name)? };

        let (user, password) = match account.map(|account| account.split_once(':').unwrap_or((account, ""))) {
            Some((user, password)) => (decode(user)?, decode(password)?),
            None => Default::default(),
        };
        let user = if user.is_empty() {
            variables("MYSQL_USER")
                .ok_or_else(|| wrong_option("names no account, and neither does the variable MYSQL_USER"))?
        } else {
            user
        };
        let password = if password.is_empty() { read_password(variables)? } else { Some(Secret(password)) };
        Ok(Self::Mysql(DatabaseServer { addresses, user, password, name, tls }))
    }

    fn from_variables(variables: Variables<'_>) -> Result<Self, CatalogError> {
        let port = match variables("MYSQL_PORT") {
            Some(text) => parse_port(&text).ok_or_else(|| {
                CatalogError::Setup(format!("Variable MYSQL_PORT is {text:?}; give a port number, 1 to 65535"))
            })?,
            None => DEFAULT_PORT,
        };
        let user = variables("MYSQL_USER").ok_or_else(|| {
            CatalogError::Setup(
                "Variable MYSQL_USER is not set; set it to the database account, or use --db".to_owned(),
            )
        })?;
        Ok(Self::Mysql(DatabaseServer {
            addresses: addresses(&variables("MYSQL_HOST").unwrap_or_else(|| "localhost".to_owned()), |host| {
                Ok(ServerAddress { host: host.to_owned(), port })
            })?,
            user,
            password: read_password(variables)?,
            name: variables("MYSQL_DATABASE").unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            tls: Tls::choose("", variables)?,
        }))
    }
}

fn sqlite_path(path: &str) -> Result<PathBuf, CatalogError> {
    // sqlite:///data/x.db, as URLs are written elsewhere, means /data/x.db.
    let path = path.strip_prefix("//").unwrap_or(path);
    // SQLite itself would take these two for a database in memory, gone with the process.
    if path.is_empty() || path == ":memory:" {
        return Err(wrong_option("names no file; write sqlite:PATH"));
    }
    Ok(PathBuf::from(path))
}

/// The addresses that stand between commas.
fn addresses(
    places: &str,
    read: impl Fn(&str) -> Result<ServerAddress, CatalogError>,
) -> Result<Vec<ServerAddress>, CatalogError> {
    let places: Vec<&str> = places.split(',').collect();
    let wrong = |why: &str| Err(CatalogError::Setup(format!("The database's addresses (--db, MYSQL_HOST): {why}")));
    if places.len() > 1 && places.iter().any(|place| place.is_empty()) {
        return wrong("there is nothing before or behind a comma; write HOST1,HOST2");
    }
    if places.len() > MOST_ADDRESSES {
        return wrong(&format!("there are {}; name at most {MOST_ADDRESSES} nodes of the cluster", places.len()));
    }
    places.into_iter().map(read).collect()
}

fn host_and_port(place: &str) -> Result<ServerAddress, CatalogError> {
    let no_port = || wrong_option("has a port that is no number from 1 to 65535");
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| wrong_option("lacks the ] after an IPv6 address"))?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(no_port()),
        }
    } else {
        place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let port = port.map_or(Ok(DEFAULT_PORT), |text| parse_port(text).ok_or_else(no_port))?;
    Ok(ServerAddress { host: host.to_owned(), port })
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn read_password(variables: Variables<'_>) -> Result<Option<Secret>, CatalogError> {
    match (variables("MYSQL_PASSWORD"), variables("MYSQL_PASSWORD_FILE")) {
        (Some(_), Some(_)) => Err(CatalogError::Setup(
            "Variables MYSQL_PASSWORD and MYSQL_PASSWORD_FILE are both set; unset one of them".to_owned(),
        )),
        (Some(password), None) => Ok(Some(Secret(password))),
        (None, Some(path)) => read_password_file(&path).map(|password| Some(Secret(password))),
        (None, None) => Ok(None),
    }
}

fn read_password_file(path: &str) -> Result<String, CatalogError> {
    let setup = |why: &str| {
        CatalogError::Setup(format!("Variable MYSQL_PASSWORD_FILE: {path}: {why}; name a file that holds the password"))
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(PASSWORD_FILE_LIMIT + 1).read_to_string(&mut text))
        .map_err(|error| setup(&error.to_string()))?;
    if text.len() as u64 > PASSWORD_FILE_LIMIT {
        return Err(setup(&format!("longer than {PASSWORD_FILE_LIMIT} bytes")));
    }
    // An editor ends the line; the password is what stands before.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(setup("empty"));
    }
    Ok(password.to_owned())
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, CatalogError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = if byte == b'%' {
            hex_digit(rest.next())
                .zip(hex_digit(rest.next()))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(|| wrong_option("has a % without two hex digits after it; write % itself as %25"))?
        } else {
            byte
        };
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| wrong_option("is no UTF-8 text once percent-decoded"))
}

pub(super) fn hex_digit(byte: Option<u8>) -> Option<u8> {
    char::from(byte?).to_digit(16).map(|digit| digit as u8)
}

fn wrong_option(why: &str) -> CatalogError {
    CatalogError::Setup(format!("Option --db {why}; write mysql://USER@HOST:PORT/NAME or sqlite:PATH"))
}

#[cfg(test)]
mod tests;
