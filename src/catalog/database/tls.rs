//! How the connection to a MySQL server is secured, in the words of its own tools.

use std::fs::File;
use std::path::PathBuf;

use super::{CatalogError, Variables};

/// Encryption of the connection, and what is asked of the server's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// What is asked.
    pub mode: TlsMode,
    /// File (PEM) of the authorities to believe; the public ones without it.
    pub ca: Option<PathBuf>,
}

/// `ssl-mode` of MySQL's tools, without `verify-ca`: the driver's way to skip the host name does not work with its
/// present rustls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Nothing is said. Encryption where the server offers it; and where a password could leave this machine, only to a
    /// server whose certificate is verified.
    #[default]
    Unsaid,
    /// No encryption.
    Disabled,
    /// Encryption where the server offers it, whoever it is.
    Preferred,
    /// Encryption, whoever the server is.
    Required,
    /// The certificate must come from an authority we believe, and be made out to the host we asked for.
    VerifyIdentity,
}

const MODES: [(&str, TlsMode); 4] = [
    ("disabled", TlsMode::Disabled),
    ("preferred", TlsMode::Preferred),
    ("required", TlsMode::Required),
    ("verify-identity", TlsMode::VerifyIdentity),
];

impl Tls {
    /// From the part of an address after `?`, each half else from `MYSQL_SSL_MODE` and `MYSQL_SSL_CA`. An authority
    /// without a mode means the strictest.
    pub(super) fn choose(parameters: &str, variables: Variables<'_>) -> Result<Self, CatalogError> {
        let (mut mode, mut ca) = (variables("MYSQL_SSL_MODE"), variables("MYSQL_SSL_CA"));
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("ssl-mode", value)) => mode = Some(value.to_owned()),
                Some(("ssl-ca", value)) => ca = Some(super::decode(value)?),
                _ => return Err(super::wrong_option("has after ? something other than ssl-mode=… and ssl-ca=…")),
            }
        }
        if let Some(ca) = &ca {
            File::open(ca).map_err(|error| {
                CatalogError::Setup(format!(
                    "Certificate file {ca}: {error}; name a readable one by ssl-ca in --db, or by MYSQL_SSL_CA"
                ))
            })?;
        }
        let mode = match mode {
            // MySQL's tools write VERIFY_IDENTITY.
            Some(text) => MODES
                .into_iter()
                .find(|(name, _)| text.replace('_', "-").eq_ignore_ascii_case(name))
                .map(|(_, mode)| mode)
                .ok_or_else(|| {
                    CatalogError::Setup(format!(
                        "The ssl-mode {text:?} is none; give {} by ssl-mode in --db, or by MYSQL_SSL_MODE",
                        MODES.map(|(name, _)| name).join(", ")
                    ))
                })?,
            None if ca.is_some() => TlsMode::VerifyIdentity,
            None => TlsMode::Unsaid,
        };
        Ok(Self { mode, ca: ca.map(PathBuf::from) })
    }
}
