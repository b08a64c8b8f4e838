//! Who may change the cluster.

use super::messages::{self as msg, Message};
use crate::config::Secret;
use std::net::IpAddr;
use subtle::ConstantTimeEq;
use url::Url;

/// What of a request decides about it.
#[derive(Debug, Default)]
pub struct Caller<'a> {
    pub address: Option<IpAddr>,
    pub authorization: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub host: Option<&'a str>,
    /// Whether a proxy passed it on, whose own address hides that of the caller.
    pub forwarded: bool,
}

/// Whether this caller may change the cluster. With a token, whoever has it may. Without one, only
/// programs on this machine may: a web page that happens to be open here could send the same
/// request, so a foreign `Origin`, or a `Host` that is a name pointing here, is refused; and so is what
/// a proxy passes on, since it hides who sent it.
///
/// # Errors
/// The message to answer with.
pub fn may_administer(token: Option<&Secret>, caller: &Caller) -> Result<(), &'static Message> {
    let Some(token) = token else {
        let local = caller
            .address
            .is_some_and(|address| address.to_canonical().is_loopback());
        let own_page = caller.origin.is_none_or(is_loopback_origin);
        let own = local && own_page && !caller.forwarded;
        return if own {
            check_host(caller)
        } else {
            Err(msg::FORBIDDEN)
        };
    };
    let given = caller.authorization.and_then(|value| {
        let (scheme, given) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
    });
    match given {
        Some(given) if bool::from(given.as_bytes().ct_eq(token.reveal().as_bytes())) => Ok(()),
        _ => Err(msg::UNAUTHORIZED),
    }
}

/// Refuses a `Host` that is a name of somebody else's: a web page whose name points at this machine
/// may send it anything as its own.
///
/// # Errors
/// The message to answer with.
pub fn check_host(caller: &Caller) -> Result<(), &'static Message> {
    let own = caller
        .host
        .is_none_or(|host| is_loopback_origin(&format!("http://{host}")));
    if own { Ok(()) } else { Err(msg::FORBIDDEN) }
}

fn is_loopback_origin(origin: &str) -> bool {
    let Ok(url) = Url::parse(origin) else {
        return false;
    };
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Values};

    fn token() -> Secret {
        let values = Values::from([("ADMIN_TOKEN", "correct-horse-battery".to_string())]);
        Config::check(&values)
            .expect("valid")
            .admin_token
            .expect("set")
    }

    #[test]
    fn with_a_token_only_the_token_counts() {
        let may = |authorization| {
            let caller = Caller {
                authorization,
                address: Some([127, 0, 0, 1].into()),
                ..Caller::default()
            };
            may_administer(Some(&token()), &caller)
        };
        assert_eq!(may(Some("Bearer correct-horse-battery")), Ok(()));
        assert_eq!(may(Some("bearer  correct-horse-battery ")), Ok(()));
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer correct-horse-batterx"),
            Some("Basic correct-horse-battery"),
            Some("correct-horse-battery"),
            Some("Bearer correct-horse-battery2"),
        ] {
            assert_eq!(may(wrong), Err(msg::UNAUTHORIZED), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_token_only_programs_on_this_machine() {
        let may = |address: [u8; 4], origin, host| {
            may_administer(
                None,
                &Caller {
                    address: Some(address.into()),
                    origin,
                    host,
                    ..Caller::default()
                },
            )
        };
        assert_eq!(may([127, 0, 0, 1], None, Some("127.0.0.1:5000")), Ok(()));
        assert_eq!(
            may(
                [127, 0, 0, 1],
                Some("http://localhost:5000"),
                Some("localhost:5000")
            ),
            Ok(())
        );
        assert_eq!(may([10, 0, 0, 9], None, None), Err(msg::FORBIDDEN));
        assert_eq!(
            may([127, 0, 0, 1], Some("https://evil.example"), None),
            Err(msg::FORBIDDEN)
        );
        assert_eq!(may([127, 0, 0, 1], Some("null"), None), Err(msg::FORBIDDEN));
        assert_eq!(
            may([127, 0, 0, 1], None, Some("evil.example:5000")),
            Err(msg::FORBIDDEN)
        );
        assert_eq!(
            may_administer(None, &Caller::default()),
            Err(msg::FORBIDDEN)
        );
    }
}
