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
        Ok(url) if url.has_host() && check_encoding(value).is_ok() => {
            format!("{:?}", SecretUrl::new(url))
        }
        _ => format!("a secret of {} characters", value.chars().count()),
    }
}

/// Sees that a URL is split where whoever wrote it means it to be. A password with a `/`, `?` or `#` of its own ends before its
/// time: what is left of it is then taken for a database's name, and told in errors.
///
/// # Errors
/// What must be written otherwise; nothing of the URL itself.
pub(super) fn check_encoding(text: &str) -> Result<(), String> {
    let (_, rest) = text.split_once("://").unwrap_or(("", text));
    let code = |letter: char| match letter {
        '/' => "%2F",
        '?' => "%3F",
        _ => "%23",
    };
    let mut ends = rest.char_indices();
    let end = ends.find(|(_, letter)| ['/', '?', '#'].contains(letter));
    if let Some((_, letter)) = end.filter(|(at, _)| rest[*at..].contains('@')) {
        return Err(format!(
            "has a {letter} before its last @: where it is part of a password or a user's name, percent-encode it, as {}; \
             where the @ is not the one before the host, write that as %40",
            code(letter)
        ));
    }
    if rest.contains('#') {
        return Err("has a #, after which nothing is read: percent-encode it, as %23".to_string());
    }
    let hex = |piece: &str| piece.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !rest.split('%').skip(1).all(hex) {
        return Err(
            "has a % that is not followed by two hexadecimal digits: percent-encode it, as %25"
                .to_string(),
        );
    }
    let decoded = percent_encoding::percent_decode_str(rest).decode_utf8();
    decoded.map_err(|_| "is not UTF-8 where it is percent-encoded")?;
    Ok(())
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
        url.set_fragment(None);
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
