//! Addresses as people write them: with or without a port, and with IPv6, whose colons are not those before a port.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use url::Url;

const WRITE_IT: &str = "must be a host with or without a port, such as db1, db1:5432, 192.0.2.1:5432 or [2001:db8::1]:5432";

/// The host, without brackets, and the port if one is named.
///
/// # Errors
/// Why it cannot be that.
pub(super) fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let text = text.trim();
    if text.parse::<Ipv6Addr>().is_ok() {
        // `::1:5433` is an address; whoever writes it means another and a port.
        let split = text.rsplit_once(':').filter(|(_, last)| is_number(last));
        return match split.filter(|(first, _)| first.parse::<Ipv6Addr>().is_ok()) {
            Some((first, port)) => Err(format!(
                "can be one address or an address and a port: write [{text}] or [{first}]:{port}"
            )),
            None => Ok((text.to_string(), None)),
        };
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(WRITE_IT)?;
            let address = host.split('%').next().unwrap_or_default();
            address.parse::<Ipv6Addr>().map_err(|_| WRITE_IT)?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':').ok_or(WRITE_IT)?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let unusable = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '@';
    if host.is_empty() || host.contains(unusable) {
        return Err(WRITE_IT.to_string());
    }
    let port = match port {
        None => None,
        Some(port) if is_number(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err("names a port that there is not (1 to 65535)".to_string()),
        },
        Some(_) => return Err(WRITE_IT.to_string()),
    };
    Ok((host.to_string(), port))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A host as it stands in a URL.
fn in_url(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_string(),
    }
}

/// The URL of an API that is given as one, or as a host with or without a port.
///
/// # Errors
/// Why others could not reach it there.
pub(super) fn api(text: &str, port: u16) -> Result<String, String> {
    const NO_URL: &str =
        "must be a host with or without a port, or a URL such as https://api.example/imdb";
    let text = text.trim();
    let whole = match text.contains("://") {
        true => text.to_string(),
        false => {
            let (host, named) = host_and_port(text)?;
            if host.contains('/') {
                return Err(NO_URL.to_string());
            }
            format!("http://{}:{}", in_url(&host), named.unwrap_or(port))
        }
    };
    let url = Url::parse(&whole).map_err(|error| format!("{NO_URL} ({error})"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("must begin with http:// or https://".to_string());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must name no user: everybody who asks is told it".to_string());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end before a ? or #".to_string());
    }
    let anywhere = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_unspecified(),
        Some(url::Host::Ipv6(address)) => address.is_unspecified(),
        Some(url::Host::Domain(_)) => false,
        None => return Err(NO_URL.to_string()),
    };
    if anywhere {
        return Err("names no machine; others cannot go there".to_string());
    }
    Ok(whole.trim_end_matches('/').to_string())
}

/// Where an API that listens on `bind` is reached by others, if nobody says otherwise: there, or by the name of its machine if it
/// listens on all addresses, of which none is said to be the right one.
pub(super) fn usual(bind: IpAddr, port: u16, machine: &str) -> String {
    let there = format!("http://{}", SocketAddr::new(bind, port));
    match bind.is_unspecified() {
        true => api(machine, port).unwrap_or(there),
        false => there,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_told_apart_also_with_ipv6() {
        for (text, host, port) in [
            ("db1", "db1", None),
            ("db1:5433", "db1", Some(5433)),
            (" 192.0.2.1:5433 ", "192.0.2.1", Some(5433)),
            ("::1", "::1", None),
            ("::", "::", None),
            ("[::1]", "::1", None),
            ("[::1]:5433", "::1", Some(5433)),
            ("2001:db8::a:b", "2001:db8::a:b", None),
            ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", None),
            ("[fe80::1%eth0]:5433", "fe80::1%eth0", Some(5433)),
            ("/run/postgresql:5433", "/run/postgresql", Some(5433)),
        ] {
            assert_eq!(host_and_port(text), Ok((host.to_string(), port)), "{text}");
        }
        let unclear = host_and_port("::1:5433").expect_err("either");
        assert!(
            unclear.ends_with("write [::1:5433] or [::1]:5433"),
            "{unclear}"
        );
        for wrong in [
            "",
            ":",
            ":5433",
            "db1:",
            "db1:x",
            "db1:0",
            "db1:65536",
            "db1:+5",
            "a b:1",
            "[::1",
            "[db1]:5",
            "[::1]5433",
            "fe80::1%eth0:5433",
            "root@db1:5432",
            "postgresql://db1:5432",
        ] {
            host_and_port(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn the_url_of_an_api_is_one_that_others_can_go_to() {
        for (text, told) in [
            ("api1", "http://api1:5710"),
            ("api1.example:80", "http://api1.example:80"),
            ("::1", "http://[::1]:5710"),
            ("[2001:db8::1]:5000", "http://[2001:db8::1]:5000"),
            ("https://api.example", "https://api.example"),
            ("https://api.example/imdb/", "https://api.example/imdb"),
        ] {
            assert_eq!(api(text, 5710).as_deref(), Ok(told));
        }
        for wrong in [
            "",
            "0.0.0.0",
            "::",
            "http://0.0.0.0:5710",
            "http://[::]/",
            "ftp://api1",
            "http://",
            "http://a b/",
            "http://root:hunter2@api1",
            "http://api1/?x",
            "http://api1/#x",
            "api1:x",
            "api1/imdb:5000",
        ] {
            api(wrong, 5710).expect_err(wrong);
        }
    }

    #[test]
    fn an_api_on_all_addresses_is_reached_by_the_name_of_its_machine() {
        let of = |bind: &str, machine| usual(bind.parse().expect("an address"), 5710, machine);
        assert_eq!(of("127.0.0.1", "m"), "http://127.0.0.1:5710");
        assert_eq!(of("::1", "m"), "http://[::1]:5710");
        assert_eq!(of("0.0.0.0", "m"), "http://m:5710");
        assert_eq!(of("::", "m.example"), "http://m.example:5710");
        // Without a usable name there is nothing better to say.
        assert_eq!(of("0.0.0.0", ""), "http://0.0.0.0:5710");
        assert_eq!(of("::", "a b"), "http://[::]:5710");
    }
}
