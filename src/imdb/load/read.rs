//! Reading a file, packed or not, in pieces of whole lines and in bounded memory.

use crate::limits;
use flate2::bufread::MultiGzDecoder;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// How a packed file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The lines of a file.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
}

impl Lines {
    /// Opens a file; whether it is packed, its first bytes say.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open(path: &Path) -> io::Result<Lines> {
        let mut file = BufReader::with_capacity(limits::LOAD_READ_BYTES, fs::File::open(path)?);
        let packed = file.fill_buf()?.starts_with(&GZIP);
        let reader: Box<dyn BufRead + Send> = match packed {
            true => Box::new(BufReader::with_capacity(
                limits::LOAD_READ_BYTES,
                MultiGzDecoder::new(file),
            )),
            false => Box::new(file),
        };
        Ok(Lines { reader })
    }

    /// The next whole lines in `block`, about [`limits::LOAD_BLOCK_BYTES`] of them; none at the end. A last line without an end of
    /// line gets one.
    ///
    /// # Errors
    /// Those of the file, and a line of more than [`limits::LOAD_LINE_BYTES`].
    pub fn next_block(&mut self, block: &mut Vec<u8>) -> io::Result<bool> {
        next_block(&mut self.reader, block)
    }
}

/// The same of whatever can be read.
///
/// # Errors
/// Those of the reader, and a line of more than [`limits::LOAD_LINE_BYTES`].
pub fn next_block(reader: &mut impl BufRead, block: &mut Vec<u8>) -> io::Result<bool> {
    block.clear();
    let most = limits::LOAD_BLOCK_BYTES as u64;
    reader.by_ref().take(most).read_to_end(block)?;
    if block.is_empty() {
        return Ok(false);
    }
    if !block.ends_with(b"\n") {
        let most = limits::LOAD_LINE_BYTES as u64;
        let more = reader.by_ref().take(most).read_until(b'\n', block)?;
        if more == limits::LOAD_LINE_BYTES && !block.ends_with(b"\n") {
            let why = format!("a line is longer than {more} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if !block.ends_with(b"\n") {
            block.push(b'\n');
        }
    }
    Ok(true)
}

/// The lines of a block, without their ends.
pub fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', rest)?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let found: Vec<&[u8]> = lines(b"a\tb\t\r\n\n x \n").collect();
        assert_eq!(found, [&b"a\tb\t"[..], b"", b" x "]);
    }
}
