//! What a request is sent to, by RFC 9112 3.2 and RFC 3986: the four forms of a target, and one spelling for each path. Pure.

use super::Problem;
use super::head::invalid;
use super::messages as msg;

/// The path and the query of a request, in one spelling: letters are not percent-encoded, and what is no ASCII is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `*` for the server as a whole.
    pub path: String,
    /// Without its question mark; none and an empty one are the same here.
    pub query: String,
}

/// Whether a byte may be in a method or in the name of a header.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The head in a form that httparse takes, if it is none yet: whatever is no ASCII in its first line is percent-encoded, as if the
/// client had done it (curl and browsers do not always), and a later HTTP/1 is taken for HTTP/1.1, as RFC 9110 2.5 has it.
///
/// # Errors
/// When it is no text.
pub(super) fn in_ascii(bytes: &[u8], line: usize, minor: u8) -> Result<Option<Vec<u8>>, Problem> {
    let (first, rest) = bytes.split_at(line);
    if first.is_ascii() && minor <= 1 {
        return Ok(None);
    }
    if std::str::from_utf8(first).is_err() {
        return Err(invalid("target", "it is neither percent-encoded nor UTF-8"));
    }
    let mut plain = Vec::with_capacity(bytes.len() + 64);
    for byte in first {
        push(&mut plain, *byte, byte.is_ascii());
    }
    if minor > 1 {
        plain.pop();
        plain.push(b'1');
    }
    plain.extend_from_slice(rest);
    Ok(Some(plain))
}

/// Adds a byte, as it is or percent-encoded.
fn push(to: &mut Vec<u8>, byte: u8, as_it_is: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    match as_it_is {
        true => to.push(byte),
        false => to.extend([
            b'%',
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]),
    }
}

/// Reads a target; returns the authority that it names, too.
///
/// # Errors
/// When it is in no form that the method takes.
pub(super) fn read(method: &str, target: &str) -> Result<(Target, Option<String>), Problem> {
    let wrong = |why: &str| Err(invalid("target", why));
    if method == "CONNECT" {
        let port = target
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.is_empty());
        return match port && is_authority(target.as_bytes()) {
            true => Err(msg::METHOD_UNKNOWN.into()),
            false => wrong("CONNECT takes a host and a port"),
        };
    }
    if target == "*" && method == "OPTIONS" {
        let (path, query) = ("*".to_string(), String::new());
        return Ok((Target { path, query }, None));
    }
    if target.contains('#') {
        return wrong("a fragment is not sent");
    }
    if target.starts_with('/') {
        return Ok((split(target)?, None));
    }
    let scheme = ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = scheme else {
        return wrong("it begins with / or http://");
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(at);
    if !is_authority(authority.as_bytes()) {
        return wrong("its host is none");
    }
    let target = match rest.starts_with('/') {
        true => split(rest)?,
        false => split(&format!("/{rest}"))?,
    };
    Ok((target, Some(authority.to_string())))
}

fn split(target: &str) -> Result<Target, Problem> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = spelled(path).ok_or_else(|| invalid("target", "its path is not percent-encoded"))?;
    // A parameter with a `%` in it that stands for itself has always been taken.
    let query = query.to_string();
    Ok(Target { path, query })
}

/// A path in one spelling (RFC 3986 6.2.2.2); none for one with a `%` that begins nothing, or with a control character.
fn spelled(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_string());
    }
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            plain.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        let byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
        if byte.is_ascii_control() {
            return None;
        }
        let is_letter = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        push(&mut plain, byte, is_letter);
        rest = after;
    }
    String::from_utf8(plain).ok()
}

/// Whether it is a host, with a port or without: a name, an IPv4 address, or one of IPv6 in brackets. No user may be named.
pub(super) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.strip_prefix(b"[") {
        Some(rest) => match rest.iter().position(|byte| *byte == b']') {
            Some(at) if std::str::from_utf8(&rest[..at]).is_ok_and(is_ipv6) => {
                (&b"v6"[..], &rest[at + 1..])
            }
            _ => return false,
        },
        None => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let digits = port.strip_prefix(b":");
    !host.is_empty() && host.iter().all(is_host) && (port.is_empty() || digits.is_some_and(is_port))
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// RFC 3986 lets the port be empty.
fn is_port(digits: &[u8]) -> bool {
    let text = std::str::from_utf8(digits).unwrap_or("x");
    digits.is_empty() || (digits.iter().all(u8::is_ascii_digit) && text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_target_leads_to_a_path_and_a_query() {
        for (method, target, path, query, authority) in [
            ("GET", "/generos", "/generos", "", None),
            ("GET", "/generos?a=b?c", "/generos", "a=b?c", None),
            ("GET", "/generos/%37", "/generos/7", "", None),
            ("GET", "/%67eneros/%7E%2e%2D%5F", "/generos/~.-_", "", None),
            ("GET", "/a%2fb%c3%b1", "/a%2Fb%C3%B1", "", None),
            ("GET", "/generos?x=100%", "/generos", "x=100%", None),
            ("GET", "http://h/x?y", "/x", "y", Some("h")),
            ("GET", "HTTPS://h:81?y", "/", "y", Some("h:81")),
            ("GET", "http://[::1]:81", "/", "", Some("[::1]:81")),
            ("OPTIONS", "*", "*", "", None),
            ("OPTIONS", "/x", "/x", "", None),
        ] {
            let (read, named) = read(method, target).expect(target);
            assert_eq!((&*read.path, &*read.query), (path, query), "{target}");
            assert_eq!(named.as_deref(), authority, "{target}");
        }
        for (method, target) in [
            ("GET", "*"),
            ("GET", "x"),
            ("GET", "/x#y"),
            ("GET", "ftp://h/x"),
            ("GET", "http:///x"),
            ("GET", "http://u@h/x"),
            ("GET", "http://u:p@h/x"),
            ("GET", "h:81"),
            ("GET", "/%"),
            ("GET", "/%4"),
            ("GET", "/%zz"),
            ("GET", "/%+1"),
            ("GET", "/%00"),
            ("GET", "/%0d%0a"),
            ("CONNECT", "/x"),
            ("CONNECT", "h"),
            ("CONNECT", "h:"),
        ] {
            let problem = read(method, target).expect_err(target);
            assert_eq!(problem.fault.message, msg::REQUEST_INVALID, "{target}");
        }
        let problem = read("CONNECT", "h:81").expect_err("no proxy");
        assert_eq!(problem.fault.message, msg::METHOD_UNKNOWN);
    }

    #[test]
    fn authorities() {
        for good in [
            "h",
            "h:5000",
            "h:",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:80",
            "a_b.c-d~",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "u@h", "h:x", "h:99999", "h:+1", "h:1:2", "::1", "[::1",
            "[x]", "[::1]x", "a,b", "a?b", "a#b", "a\\b", "h\u{f1}",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
