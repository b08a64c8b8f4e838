//! Values that are never printed.

use super::tls;
use crate::pg::tls::Trust;
use std::fmt;
use url::Url;

/// A connection string whose password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl {
    pub(super) url: Url,
    pub(super) trust: Option<Trust>,
}

/// A token or password that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(super) String);

/// What may be shown of a secret value: a URL without its password, of anything else its length.
pub(super) fn mask(value: &str) -> String {
    match Url::parse(value) {
        Ok(url) if url.has_host() => format!("{:?}", SecretUrl::new(url)),
        _ => format!("a secret of {} characters", value.chars().count()),
    }
}

impl SecretUrl {
    /// Wraps a URL; what its parameters say of TLS is for the check to read.
    pub fn new(url: Url) -> SecretUrl {
        SecretUrl { url, trust: None }
    }

    /// The string without what it says of TLS, of which the driver knows less.
    pub fn for_driver(&self) -> String {
        tls::stripped(&self.url)
    }

    /// By what the server has to prove who it is, if the connection is to be by TLS.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// The whole string, password included, for a driver or a child's environment.
    pub fn reveal(&self) -> &str {
        self.url.as_str()
    }

    /// Its port, or the usual one of its kind.
    pub fn port(&self) -> u16 {
        self.url.port().unwrap_or(match self.url.scheme() {
            "redis" | "rediss" => 6379,
            _ => 5432,
        })
    }

    /// `host:port`, for messages.
    pub fn address(&self) -> String {
        format!("{}:{}", self.url.host_str().unwrap_or("?"), self.port())
    }

    /// The password in it, if there is one.
    pub fn password(&self) -> Option<Secret> {
        Some(Secret(percent_decode(self.url.password()?)))
    }

    /// The user in it.
    pub fn user(&self) -> String {
        percent_decode(self.url.username())
    }

    /// The database's name, as PostgreSQL knows it.
    pub fn database(&self) -> String {
        percent_decode(self.url.path().trim_start_matches('/'))
    }
}

pub(super) fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        if url.password().is_some() {
            // A URL with a password has a host, and then setting one cannot fail.
            let _ = url.set_password(Some("***"));
        }
        // A password may also come as a parameter of the query.
        url.set_query(None);
        f.write_str(url.as_str())
    }
}

impl Secret {
    /// Wraps a value that this program knows by itself.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
