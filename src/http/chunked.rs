//! A body in chunks by RFC 9112 7.1, taken apart byte by byte and strictly: what two programs could read in two ways is refused. Pure.

use super::Problem;
use super::head::invalid;
use super::messages as msg;
use super::target::is_token;
use crate::limits;

/// A body that is being taken apart.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: State,
    /// The line that has come so far, without its end.
    line: Vec<u8>,
    /// Bytes of the body's framing so far.
    framing: usize,
}

#[derive(Debug, Default)]
enum State {
    /// In the line with the size of the next chunk.
    #[default]
    Size,
    Data(u64),
    /// Behind the data of a chunk, with so much of its CR LF.
    Behind(u8),
    /// In a line of the trailer section.
    Trailer,
    Done,
}

impl Chunks {
    /// Takes what has come, up to the end of the body; returns how much of it that was. The data goes to `body`.
    ///
    /// # Errors
    /// When it is not in chunks, or longer than a body may be.
    pub(super) fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Problem> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data(left) = &mut self.state {
                let count = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len() - at);
                if body.len() + count > limits::BODY_MAX_BYTES {
                    return Err(too_large());
                }
                body.extend_from_slice(&bytes[at..at + count]);
                at += count;
                *left -= count as u64;
                if *left == 0 {
                    self.state = State::Behind(0);
                }
                continue;
            }
            let byte = bytes[at];
            at += 1;
            self.framing += 1;
            if self.framing > limits::CHUNKS_FRAMING_MAX_BYTES {
                return Err(too_large());
            }
            self.step(byte)?;
        }
        Ok(at)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// One byte that is no data.
    fn step(&mut self, byte: u8) -> Result<(), Problem> {
        match (&self.state, byte) {
            (State::Behind(0), b'\r') => self.state = State::Behind(1),
            (State::Behind(1), b'\n') => self.state = State::Size,
            (State::Behind(_), _) => return Err(wrong("a chunk is longer than its size")),
            (_, b'\n') if self.line.pop() == Some(b'\r') => self.line_ended()?,
            (_, b'\n') => return Err(wrong("a line ends with CR LF")),
            (_, _) if self.line.last() == Some(&b'\r') => return Err(wrong("a CR without LF")),
            (_, _) if self.line.len() >= limits::CHUNK_LINE_MAX_BYTES => {
                return Err(wrong("a line is too long"));
            }
            (State::Size, byte) if !may_begin(&self.line, byte) => {
                return Err(wrong("the size is not in hexadecimal digits"));
            }
            (_, byte) => self.line.push(byte),
        }
        Ok(())
    }

    fn line_ended(&mut self) -> Result<(), Problem> {
        match self.state {
            State::Size => {
                let size = size(&self.line).ok_or_else(|| wrong("a size or what follows it"))?;
                self.state = match size {
                    0 => State::Trailer,
                    size => State::Data(size),
                };
            }
            State::Trailer if self.line.is_empty() => self.state = State::Done,
            _ if !is_field(&self.line) => return Err(wrong("the trailer section")),
            _ => {}
        }
        self.line.clear();
        Ok(())
    }
}

fn wrong(why: &str) -> Problem {
    invalid("chunk", why)
}

fn too_large() -> Problem {
    Problem::new(msg::BODY_TOO_LARGE, limits::BODY_MAX_BYTES.to_string())
}

/// Whether a size may go on with this byte, so that what is none is refused at once.
fn may_begin(line: &[u8], byte: u8) -> bool {
    match line.is_empty() {
        true => byte.is_ascii_hexdigit(),
        false => byte.is_ascii_hexdigit() || line.contains(&b';') || b"; \t\r".contains(&byte),
    }
}

/// The size of a chunk, of a line with its extensions: `chunk-size *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, mut rest) = line.split_at(digits);
    while !rest.is_empty() {
        rest = skip_blank(skip_blank(rest).strip_prefix(b";")?);
        rest = token(rest)?;
        if let Some(value) = skip_blank(rest).strip_prefix(b"=") {
            let value = skip_blank(value);
            rest = match value.strip_prefix(b"\"") {
                Some(quoted) => quoted_end(quoted)?,
                None => token(value)?,
            };
        }
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

fn skip_blank(bytes: &[u8]) -> &[u8] {
    let blank = bytes
        .iter()
        .take_while(|byte| b" \t".contains(byte))
        .count();
    &bytes[blank..]
}

/// What is behind a token, if one begins here.
fn token(bytes: &[u8]) -> Option<&[u8]> {
    let count = bytes.iter().take_while(|byte| is_token(**byte)).count();
    (count > 0).then(|| &bytes[count..])
}

/// What is behind the end of a quoted string.
fn quoted_end(bytes: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(&bytes[at + 1..]),
            b'\\' if is_text(*bytes.get(at + 1)?) => at += 2,
            b'\\' => return None,
            byte if is_text(*byte) => at += 1,
            _ => return None,
        }
    }
}

/// Whether it is a line of a trailer section.
fn is_field(line: &[u8]) -> bool {
    let value = token(line).and_then(|rest| rest.strip_prefix(b":"));
    value.is_some_and(|value| value.iter().all(|byte| is_text(*byte)))
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, and what is left behind it; none when more is to come. However it is cut, it is the same.
    fn read(text: &str) -> Result<Option<(String, usize)>, Problem> {
        let whole = read_in(text.as_bytes(), usize::MAX);
        let shown = |read: &Result<Option<(String, usize)>, Problem>| format!("{read:?}");
        for size in [1, 2, 3] {
            let pieces = read_in(text.as_bytes(), size);
            assert_eq!(shown(&pieces), shown(&whole), "{text:?} by {size}");
        }
        whole
    }

    fn read_in(bytes: &[u8], size: usize) -> Result<Option<(String, usize)>, Problem> {
        let (mut chunks, mut body, mut at) = (Chunks::default(), Vec::new(), 0);
        while at < bytes.len() && !chunks.is_done() {
            let to = at.saturating_add(size).min(bytes.len());
            at += chunks.take(&bytes[at..to], &mut body)?;
        }
        let body = String::from_utf8(body).expect("text");
        Ok(chunks.is_done().then_some((body, bytes.len() - at)))
    }

    #[test]
    fn a_body_in_chunks_is_put_together() {
        for (text, body, left) in [
            ("0\r\n\r\n", "", 0),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", 0),
            ("3\r\nabc\r\n02\r\nde\r\n000\r\n\r\nGET", "abcde", 3),
            ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789", 0),
            ("3;a\r\nabc\r\n0;b=c\r\n\r\n", "abc", 0),
            ("3 ; a = \"b\\\"\t;\" ;c\r\nabc\r\n0\r\n\r\n", "abc", 0),
            ("3\r\n\r\n0\r\n0\r\n\r\n", "\r\n0", 0),
            ("0\r\nA: b\r\nContent-Length: 9\r\n\r\nGET", "", 3),
        ] {
            let read = read(text).unwrap_or_else(|problem| panic!("{text:?}: {problem:?}"));
            assert_eq!(read, Some((body.to_string(), left)), "{text:?}");
        }
        for part in [
            "",
            "3",
            "3\r",
            "3\r\n",
            "3\r\nab",
            "3\r\nabc\r\n",
            "0\r\n",
            "0\r\nA: b\r\n",
        ] {
            assert_eq!(read(part).expect(part), None, "{part:?}");
        }
    }

    #[test]
    fn what_two_programs_could_read_in_two_ways_is_refused() {
        for text in [
            "\r\n",
            "+11",
            "-1",
            " 11",
            "\t1",
            "0x3",
            "3_0",
            "g",
            "3 \r\n",
            "3;\r\n",
            "3;;a\r\n",
            "3;bad[=x\r\n",
            "3;a=\r\n",
            "3;a=\"b\r\n",
            "3;a=\"b\"c\r\n",
            "3;a b\r\n",
            "3;a\0\r\n",
            "3;a=\"\0\"\r\n",
            "3;a\rb\r\n",
            "3\nabc",
            "3;a\nabc",
            "3\rabc",
            "3\r\nabcd",
            "3\r\nabc\n0",
            "3\r\nabc0\r\n\r\n",
            "3\r\nabc\rx",
            "11111111111111111\r\n",
            "ffffffffffffffff1\r\n",
            "0\r\n\n",
            "0\r\nA\r\n",
            "0\r\nA : b\r\n",
            "0\r\n A: b\r\n",
            "0\r\nA: b\n",
            "0\r\nA: \0\r\n",
            "0\r\n: b\r\n",
        ] {
            let problem = read(text).expect_err(text);
            assert_eq!(problem.fault.message, msg::REQUEST_INVALID, "{text:?}");
        }
    }

    #[test]
    fn a_body_has_bounds() {
        let refused = |text: &str| read(text).expect_err("its size").fault.message.code;
        let most = limits::BODY_MAX_BYTES;
        let body = "x".repeat(most);
        let fits = format!("{most:x}\r\n{body}\r\n0\r\n\r\n");
        assert!(read(&fits).is_ok_and(|read| read.is_some()));
        assert_eq!(
            refused(&format!("{most:x}\r\n{body}\r\n1\r\nx")),
            "body_too_large"
        );
        assert_eq!(refused(&format!("ffffffff\r\n{body}x")), "body_too_large");
        let line = ";a".repeat(limits::CHUNK_LINE_MAX_BYTES);
        assert_eq!(refused(&format!("1{line}")), "request_invalid");
        let tiny = format!("1;{}\r\nx\r\n", "a".repeat(900)).repeat(1_000);
        assert_eq!(refused(&tiny), "body_too_large");
    }
}
