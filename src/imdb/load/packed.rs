//! A file packed by gzip: one member or several, one after the other, and zeros behind the last one, with which tapes and some programs fill up a
//! file. Anything else behind it is named.

use flate2::bufread::GzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// How a packed file begins, and each member of it.
pub const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file from the beginning of a member on. The first two bytes of one that is not the first have been read already.
type Rest<R> = Chain<Cursor<Vec<u8>>, R>;

/// What was packed.
pub struct Packed<R: BufRead = BufReader<File>> {
    /// None at the end.
    member: Option<GzDecoder<Rest<R>>>,
}

impl<R: BufRead> Packed<R> {
    pub fn new(file: R) -> Packed<R> {
        Packed {
            member: Some(GzDecoder::new(Cursor::new(Vec::new()).chain(file))),
        }
    }
}

impl Packed {
    /// Whether a file that begins so is packed.
    pub fn begins(start: &[u8]) -> bool {
        start.starts_with(&GZIP)
    }
}

impl<R: BufRead> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let ended = self.member.take();
            self.member = match ended {
                Some(ended) => next_member(ended.into_inner())?.map(GzDecoder::new),
                None => None,
            };
        }
        Ok(0)
    }
}

/// What begins where a member has ended.
fn next_member<R: BufRead>(mut rest: Rest<R>) -> io::Result<Option<Rest<R>>> {
    loop {
        let start = rest.fill_buf()?;
        if start.is_empty() {
            return Ok(None);
        }
        let zeros = start.iter().take_while(|byte| **byte == 0).count();
        let all = zeros == start.len();
        rest.consume(zeros);
        if !all {
            break;
        }
    }
    let mut start = Vec::new();
    rest.by_ref().take(2).read_to_end(&mut start)?;
    if start == GZIP {
        // All of the first part has been read, or this would not be the second member.
        let (_, file) = rest.into_inner();
        return Ok(Some(Cursor::new(start).chain(file)));
    }
    let count = start.len() as u64 + io::copy(&mut rest, &mut io::sink())?;
    let why = format!("{count} bytes that are no gzip come after the packed data");
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn packed(text: &str) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text.as_bytes()).expect("in memory");
        packed.finish().expect("in memory")
    }

    /// What is read, from a buffer so small that everything lies across the end of one now and then.
    fn read(parts: &[&[u8]], buffer: usize) -> Result<String, String> {
        let file = BufReader::with_capacity(buffer, Cursor::new(parts.concat()));
        let mut text = String::new();
        let read = Packed::new(file).read_to_string(&mut text);
        read.map(|_| text).map_err(|error| error.to_string())
    }

    #[test]
    fn members_and_zeros_are_read_and_what_else_follows_is_counted() {
        let (one, two, none) = (packed("uno\n"), packed("dos\n"), packed(""));
        for buffer in 1..40 {
            assert_eq!(read(&[&one], buffer).as_deref(), Ok("uno\n"));
            let both = read(&[&one, &none, &two, &[0; 100]], buffer);
            assert_eq!(both.as_deref(), Ok("uno\ndos\n"));
            assert_eq!(read(&[&one, &[0; 7], &two], buffer), both);
            for (rest, count) in [
                (&b"x"[..], 1),
                (b"<html>\n", 7),
                (b"\x1f", 1),
                (b"\0\0\x1fx", 2),
            ] {
                let told = read(&[&one, &two, rest], buffer).expect_err("no gzip");
                let expected = format!("{count} bytes that are no gzip");
                assert!(told.starts_with(&expected), "{told}");
            }
            assert!(read(&[&one, &two[..two.len() - 1]], buffer).is_err());
            assert!(read(&[&one, b"\x1f\x8b"], buffer).is_err());
        }
    }
}
