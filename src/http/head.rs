//! The head of a request by RFC 9110 and 9112: whether it is one, and what of it matters here. Pure: from bytes to a verdict.
//! httparse knows the characters of names and values; what it is lenient about (line ends), and what a head means, is here.

use super::Problem;
use super::messages::{self as msg, Language};
use super::target::{self, Target};
use crate::limits;
use httparse::{EMPTY_HEADER, Error, Status};

/// How long the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Nothing,
    Exactly(u64),
    Chunked,
}

/// A request without its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub method: &'static str,
    pub target: Target,
    /// Of HTTP/1.0, where a connection ends with its answer unless the client asks otherwise.
    pub is_old: bool,
    /// Whether the client would send another request.
    pub keeps: bool,
    pub length: Length,
    /// Whether the body is only sent when it is asked for.
    pub waits: bool,
    pub language: Language,
    pub host: Option<String>,
    pub origin: Option<String>,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    /// A `Content-Encoding` that is one.
    pub coding: Option<String>,
    /// Whether a proxy passed it on.
    pub forwarded: bool,
    /// Its `Idempotency-Key`, as often as it is there.
    pub keys: Vec<String>,
}

/// Every method that HTTP knows; another one is 501, and one of these that a path does not take 405.
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT",
];

/// What a proxy adds to a request.
const FORWARDED: &[&str] = &["Forwarded", "X-Forwarded-For", "Via"];

/// Headers that mean nothing when they are there twice.
const SINGLE: [&str; 8] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Content-Type",
    "Content-Encoding",
    "Authorization",
    "Origin",
    "Expect",
];
const HOST: usize = 0;
const LENGTH: usize = 1;
const ENCODING: usize = 2;
const TYPE: usize = 3;
const CODING: usize = 4;
const AUTHORIZATION: usize = 5;
const ORIGIN: usize = 6;
const EXPECT: usize = 7;

/// A problem with what is named.
pub(super) fn invalid(what: &str, why: impl Into<String>) -> Problem {
    Problem::new(msg::REQUEST_INVALID, what).because(why)
}

/// Where the head ends, if all of it has come. What can be known before that is: each line ends with CR LF, and neither of the
/// two is found elsewhere.
///
/// # Errors
/// What is wrong with it already, its size among that.
pub(super) fn end(bytes: &[u8]) -> Result<Option<usize>, Problem> {
    if bytes.first().is_some_and(|byte| !target::is_token(*byte)) {
        return Err(invalid("method", "it begins with no letter"));
    }
    let mut line = 0;
    for at in memchr::memchr2_iter(b'\r', b'\n', bytes) {
        match (bytes[at], bytes.get(at + 1)) {
            (b'\r', None | Some(b'\n')) => {}
            (b'\n', _) if at > 0 && bytes[at - 1] == b'\r' => {
                match line {
                    0 => _ = version(&bytes[..at - 1])?,
                    line if at - 1 == line => return Ok(Some(at + 1)),
                    _ => {}
                }
                line = at + 1;
            }
            _ => return Err(invalid("CR LF", "a line ends with CR LF, both of them")),
        }
        if line > limits::HEAD_MAX_BYTES {
            break;
        }
    }
    match line == 0 && bytes.len() > limits::LINE_MAX_BYTES {
        true => Err(too_long(msg::TARGET_TOO_LONG, limits::LINE_MAX_BYTES)),
        false if bytes.len() >= limits::HEAD_MAX_BYTES => {
            Err(too_long(msg::HEADERS_TOO_LARGE, limits::HEAD_MAX_BYTES))
        }
        false => Ok(None),
    }
}

fn too_long(message: &'static msg::Message, most: usize) -> Problem {
    Problem::new(message, most.to_string())
}

/// The minor version of a request line that is one of HTTP/1.
fn version(line: &[u8]) -> Result<u8, Problem> {
    let at = line.iter().rposition(|byte| *byte == b' ');
    match at.map(|at| &line[at + 1..]) {
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            match major {
                b'1' => Ok(minor - b'0'),
                _ => Err(msg::VERSION_UNSUPPORTED.into()),
            }
        }
        _ => Err(invalid(
            "HTTP/1.1",
            "the request line ends with the version",
        )),
    }
}

/// What a whole head says, up to and with its empty line.
///
/// # Errors
/// What is wrong with it. Nothing behind it is a request then.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Problem> {
    let line = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
    if line > limits::LINE_MAX_BYTES {
        return Err(too_long(msg::TARGET_TOO_LONG, limits::LINE_MAX_BYTES));
    }
    let minor = version(&bytes[..line])?;
    let plain = target::in_ascii(bytes, line, minor)?;
    let mut headers = [EMPTY_HEADER; limits::HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(plain.as_deref().unwrap_or(bytes)) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(invalid("CR LF", "the head does not end")),
        Err(Error::TooManyHeaders) => {
            return Err(too_long(msg::HEADERS_TOO_LARGE, limits::HEADERS_MAX));
        }
        Err(error) => return Err(invalid(part_of(error), error.to_string())),
    }
    let named = request.method.unwrap_or_default();
    let known = METHODS.iter().find(|method| **method == named);
    let fields = Fields::read(request.headers)?;
    let method = known.ok_or_else(|| Problem::from(msg::METHOD_UNKNOWN))?;
    let (target, authority) = target::read(method, request.path.unwrap_or_default())?;
    let is_old = minor == 0;
    let mut host = fields.host(is_old)?;
    if authority.is_some() {
        host = authority;
    }
    Ok(Head {
        method,
        target,
        is_old,
        keeps: !fields.closes && (!is_old || fields.keeps),
        length: fields.length(is_old)?,
        waits: fields.waits(is_old)?,
        language: fields.language,
        host,
        origin: fields.text(ORIGIN),
        authorization: fields.text(AUTHORIZATION),
        content_type: fields.text(TYPE),
        coding: fields
            .text(CODING)
            .filter(|coding| !coding.eq_ignore_ascii_case("identity")),
        forwarded: fields.forwarded,
        keys: fields.keys,
    })
}

fn part_of(error: Error) -> &'static str {
    match error {
        Error::HeaderName => "header name",
        Error::HeaderValue => "header value",
        Error::Token => "request line",
        Error::NewLine => "CR LF",
        _ => "HTTP/1.1",
    }
}

/// The language of an answer to a head that may be none.
pub(super) fn language(bytes: &[u8]) -> Language {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(16)?;
        name.eq_ignore_ascii_case(b"Accept-Language:")
            .then(|| String::from_utf8_lossy(value))
    });
    value.map_or(Language::Spanish, |value| Language::preferred(value.trim()))
}

/// The headers that matter.
struct Fields<'a> {
    single: [Option<&'a [u8]>; SINGLE.len()],
    closes: bool,
    keeps: bool,
    forwarded: bool,
    language: Language,
    keys: Vec<String>,
}

impl<'a> Fields<'a> {
    fn read(headers: &[httparse::Header<'a>]) -> Result<Fields<'a>, Problem> {
        let mut fields = Fields {
            single: [None; SINGLE.len()],
            closes: false,
            keeps: false,
            forwarded: false,
            language: Language::Spanish,
            keys: Vec::new(),
        };
        for header in headers {
            let (name, value) = (header.name, header.value.trim_ascii());
            let same = |other: &&str| name.eq_ignore_ascii_case(other);
            if let Some(index) = SINGLE.iter().position(same) {
                if fields.single[index].replace(value).is_some() {
                    return Err(match index {
                        LENGTH | ENCODING => msg::FRAMING_INVALID.into(),
                        _ => invalid(SINGLE[index], "it is there twice"),
                    });
                }
            } else if same(&"Connection") {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    fields.closes |= option.eq_ignore_ascii_case(b"close");
                    fields.keeps |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if same(&"Accept-Language") {
                fields.language = Language::preferred(&String::from_utf8_lossy(value));
            } else if same(&"Idempotency-Key") {
                fields
                    .keys
                    .push(String::from_utf8_lossy(value).into_owned());
            } else if FORWARDED.iter().any(same) {
                fields.forwarded = true;
            }
        }
        Ok(fields)
    }

    /// The value as text. Other bytes are no part of any that is compared with it here.
    fn text(&self, index: usize) -> Option<String> {
        self.single[index].map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// RFC 9112 3.2: exactly one, and a valid one; only before HTTP/1.1 there may be none.
    fn host(&self, is_old: bool) -> Result<Option<String>, Problem> {
        match self.single[HOST] {
            None if is_old => Ok(None),
            None => Err(invalid("Host", "it is missing")),
            Some(value) if target::is_authority(value) => Ok(self.text(HOST)),
            Some(_) => Err(invalid("Host", "it is no host with an optional port")),
        }
    }

    /// RFC 9112 6.3: a length that two programs could read in two ways is none.
    fn length(&self, is_old: bool) -> Result<Length, Problem> {
        let unclear = || Err(Problem::from(msg::FRAMING_INVALID));
        match (self.single[LENGTH], self.single[ENCODING]) {
            (None, None) => Ok(Length::Nothing),
            (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") && !is_old => {
                Ok(Length::Chunked)
            }
            // A zero before other digits is of another base to some.
            (Some(digits), None)
                if !digits.is_empty()
                    && digits.iter().all(u8::is_ascii_digit)
                    && (digits[0] != b'0' || digits.len() == 1) =>
            {
                let length = std::str::from_utf8(digits)
                    .ok()
                    .and_then(|text| text.parse().ok());
                length.map_or_else(unclear, |length| Ok(Length::Exactly(length)))
            }
            _ => unclear(),
        }
    }

    fn waits(&self, is_old: bool) -> Result<bool, Problem> {
        match self.single[EXPECT] {
            None => Ok(false),
            Some(_) if is_old => Ok(false),
            Some(value) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
            Some(_) => Err(msg::EXPECTATION_FAILED.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST_LINE: &str = "Host: localhost:5000\r\n";

    fn parsed(text: &[u8]) -> Result<Head, Problem> {
        let at = end(text)?;
        assert_eq!(at, Some(text.len()), "{}", String::from_utf8_lossy(text));
        parse(text)
    }

    fn get(headers: &str) -> Result<Head, Problem> {
        parsed(format!("GET /x HTTP/1.1\r\n{headers}\r\n").as_bytes())
    }

    fn code(result: Result<Head, Problem>, what: &str) -> &'static str {
        result.expect_err(what).fault.message.code
    }

    #[test]
    fn a_head_says_what_matters() {
        let head = get(
            "hOST: localhost:5000\r\nUser-Agent: Caf\u{e9}\r\nAccept-Language: en\r\nVia: x\r\n\
             Origin: null\r\nAuthorization:Bearer x \r\nContent-Type:\tapplication/json\r\n\
             Content-Length:\t7 \r\nContent-Encoding: gzip\r\nExpect: 100-Continue\r\n\
             Idempotency-Key: a b \r\nidempotency-key:\r\n",
        )
        .expect("a head");
        let text = |text: &str| Some(text.to_string());
        let expected = Head {
            method: "GET",
            target: Target {
                path: "/x".to_string(),
                query: String::new(),
            },
            is_old: false,
            keeps: true,
            length: Length::Exactly(7),
            waits: true,
            language: Language::English,
            host: text("localhost:5000"),
            origin: text("null"),
            authorization: text("Bearer x"),
            content_type: text("application/json"),
            coding: text("gzip"),
            forwarded: true,
            keys: vec!["a b".to_string(), String::new()],
        };
        assert_eq!(head, expected);
        let raw = "GET /generos?genero=acción HTTP/1.1\r\nHost: h\r\n\r\n";
        let head = parsed(raw.as_bytes()).expect("a head");
        assert_eq!(head.target.query, "genero=acci%C3%B3n");
        let later = parsed(b"GET / HTTP/1.7\r\nHost: h\r\n\r\n");
        assert!(!later.expect("a head").is_old);
        let named = parsed(b"GET http://a:1/x HTTP/1.1\r\nHost: b\r\n\r\n");
        assert_eq!(named.expect("a head").host, text("a:1"));
    }

    #[test]
    fn a_connection_goes_on_as_its_client_wants() {
        for (version, headers, keeps) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, Close\r\n", false),
            (
                "1.1",
                "Connection: keep-alive\r\nConnection: close\r\n",
                false,
            ),
            ("1.1", "Connection: Upgrade\r\nUpgrade: h2c\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\n{HOST_LINE}{headers}\r\n");
            let head = parsed(text.as_bytes()).expect("a head");
            assert_eq!(head.keeps, keeps, "{text}");
        }
    }

    #[test]
    fn a_length_is_one_number_or_chunked() {
        let length = |headers: &str| get(&format!("{HOST_LINE}{headers}")).map(|head| head.length);
        for (headers, expected) in [
            ("", Length::Nothing),
            ("Content-Length: 0\r\n", Length::Exactly(0)),
            (
                "Content-Length: 18446744073709551615\r\n",
                Length::Exactly(u64::MAX),
            ),
            ("Transfer-Encoding: ChunkeD\r\n", Length::Chunked),
            ("Content_Length: 7\r\n", Length::Nothing),
        ] {
            assert_eq!(length(headers).expect(headers), expected, "{headers}");
        }
        for value in [
            "abc",
            "-1",
            "-0",
            "+17",
            "5, 5",
            "5,6",
            "0x10",
            "",
            "1e1",
            "1_0",
            "1 0",
            "0o5",
            "05",
            "00",
            "18446744073709551616",
            "99999999999999999999999",
            "5;",
            "\u{b2}",
        ] {
            let problem = length(&format!("Content-Length: {value}\r\n")).expect_err(value);
            assert_eq!(problem.fault.message, msg::FRAMING_INVALID, "{value}");
        }
        for headers in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked;x=y\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: chunked,\r\n",
        ] {
            let problem = length(headers).expect_err(headers);
            assert_eq!(problem.fault.message, msg::FRAMING_INVALID, "{headers}");
        }
        let old = format!("POST / HTTP/1.0\r\n{HOST_LINE}Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(code(parsed(old.as_bytes()), &old), "framing_invalid");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (text, expected) in [
            ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", "version_unsupported"),
            ("PRI * HTTP/2.0\r\n\r\n", "version_unsupported"),
            ("GET / HTTP/0.9\r\n\r\n", "version_unsupported"),
            ("GET / HTTP/1.10\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET / HTTP/1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET / HTTP/01.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET / http/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET / HTTP/ 1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET /\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET /  HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("GET /a\0 HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            (
                "GET /a\u{7f} HTTP/1.1\r\nHost: h\r\n\r\n",
                "request_invalid",
            ),
            (" GET / HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("G(T / HTTP/1.1\r\nHost: h\r\n\r\n", "request_invalid"),
            ("get / HTTP/1.1\r\nHost: h\r\n\r\n", "method_unknown"),
            ("BREW / HTTP/1.1\r\nHost: h\r\n\r\n", "method_unknown"),
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", "request_invalid"),
            ("GET / HTTP/1.1\r\nHost: h\n\r\n", "request_invalid"),
            ("GET / HTTP/1.1\r\nHost: h\r\n\n", "request_invalid"),
            ("GET / HTTP/1.1\rHost: h\r\r", "request_invalid"),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n",
                "request_invalid",
            ),
            ("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", "request_invalid"),
        ] {
            assert_eq!(code(parsed(text.as_bytes()), text), expected, "{text:?}");
        }
        let garbled = b"GET /generos?genero=acci\xf3n HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(code(parsed(garbled), "Latin-1"), "request_invalid");
    }

    #[test]
    fn headers_are_names_and_values() {
        for headers in [
            "",
            "Host: h\r\nHost: h\r\n",
            "Host:\r\n",
            "Host: a b\r\n",
            "Host: a/b\r\n",
            "Host: c@d\r\n",
            "Host: a, b\r\n",
            "Host: h\r\nA : b\r\n",
            "Host: h\r\nContent-Length : 5\r\n",
            "Host: h\r\nBad[Name: b\r\n",
            "Host: h\r\n: b\r\n",
            "Host: h\r\nA\r\n",
            "Host: h\r\nA\tB: c\r\n",
            "Host: h\r\n\u{f1}: b\r\n",
            "Host: h\r\nA: b\0\r\n",
            "Host: h\r\nA: b\u{b}\r\n",
            "Host: h\r\nA: b\u{7f}\r\n",
            "Host: h\r\nTransfer-Encoding: \u{c}chunked\r\n",
            // A folded line, whatever it holds, and before the first one.
            "Host: h\r\nA: b\r\n c\r\n",
            "Host: h\r\nA: b\r\n\tContent-Length: 5\r\n",
            "Host: h\r\nTransfer-Encoding:\r\n chunked\r\n",
            " Host: h\r\n",
            "Host: h\r\nAuthorization: a\r\nAuthorization: b\r\n",
            "Host: h\r\nOrigin: a\r\nOrigin: b\r\n",
        ] {
            assert_eq!(
                code(get(headers), headers),
                "request_invalid",
                "{headers:?}"
            );
        }
        assert_eq!(
            code(get("Host: h\r\nExpect: x\r\n"), "Expect"),
            "expectation_failed"
        );
        let old = parsed(b"GET / HTTP/1.0\r\nExpect: x\r\n\r\n").expect("no Host");
        assert_eq!((old.host, old.waits), (None, false));
    }

    #[test]
    fn a_head_has_bounds() {
        let many = HOST_LINE.to_string() + &"A: b\r\n".repeat(limits::HEADERS_MAX);
        assert_eq!(code(get(&many), "many"), "headers_too_large");
        let some = HOST_LINE.to_string() + &"A: b\r\n".repeat(limits::HEADERS_MAX - 1);
        assert!(get(&some).is_ok());
        let refused = |text: String| {
            end(text.as_bytes())
                .expect_err("its size")
                .fault
                .message
                .code
        };
        let long = "x".repeat(limits::HEAD_MAX_BYTES);
        assert_eq!(
            refused(format!("GET / HTTP/1.1\r\nA: {long}")),
            "headers_too_large"
        );
        assert_eq!(refused(format!("GET /{long}")), "target_too_long");
        assert_eq!(refused(long.clone()), "target_too_long");
        let long = "x".repeat(limits::LINE_MAX_BYTES);
        let line = format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(code(parsed(line.as_bytes()), "its line"), "target_too_long");
    }

    #[test]
    fn what_can_be_known_early_is() {
        for early in [
            "\x16\x03\x01",
            "\n",
            " ",
            "GET / HTTP/3.0\r\n",
            "GET /\r\n",
            "GET / HTTP/1.1\n",
        ] {
            assert!(end(early.as_bytes()).is_err(), "{early:?}");
        }
        let whole = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for count in 1..whole.len() {
            assert!(
                matches!(end(&whole.as_bytes()[..count]), Ok(None)),
                "{count}"
            );
        }
        let more = format!("{whole}GET");
        assert_eq!(end(more.as_bytes()).expect("a head"), Some(whole.len()));
        assert_eq!(language(b"x\r\naccept-language: en\r\n"), Language::English);
        assert_eq!(language(b"x\r\nHost: h\r\n"), Language::Spanish);
    }
}
