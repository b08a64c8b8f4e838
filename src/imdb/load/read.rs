//! Reading a file, packed or not, in pieces of whole lines and in bounded memory.

use super::packed::Packed;
use crate::limits;
use nix::fcntl::OFlag;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// What is said of a last line without an end of line.
pub const CUT_OFF: &str = "the last line has no end, so the file was cut off; get it again, or end the line if it is whole";

/// The lines of a file.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    unended: bool,
}

impl Lines {
    /// Opens a file; whether it is packed, its first bytes say.
    ///
    /// # Errors
    /// Those of the file, and what it is instead of one.
    pub fn open(path: &Path) -> io::Result<Lines> {
        let mut file = BufReader::with_capacity(limits::LOAD_READ_BYTES, open(path)?);
        let packed = Packed::begins(file.fill_buf()?);
        let reader: Box<dyn BufRead + Send> = match packed {
            true => Box::new(BufReader::with_capacity(
                limits::LOAD_READ_BYTES,
                Packed::new(file),
            )),
            false => Box::new(file),
        };
        Ok(Lines {
            reader,
            unended: false,
        })
    }

    /// The next whole lines in `block`, about [`limits::LOAD_BLOCK_BYTES`] of them; none at the end. A last line without an end of
    /// line gets one.
    ///
    /// # Errors
    /// Those of the file, and a line of more than [`limits::LOAD_LINE_BYTES`].
    pub fn next_block(&mut self, block: &mut Vec<u8>) -> io::Result<bool> {
        let more = next_block(&mut self.reader, block)?;
        if more && !block.ends_with(b"\n") {
            block.push(b'\n');
            self.unended = true;
        }
        Ok(more)
    }

    /// Whether the last line that was read had no end of its own.
    pub fn is_unended(&self) -> bool {
        self.unended
    }
}

/// Opens a file that can be read to its end. A FIFO would keep whoever opens it waiting for somebody to write, whatever signals come; and
/// opening a device may do something to it.
fn open(path: &Path) -> io::Result<fs::File> {
    let must_be_file = |found: fs::Metadata| match what_is(found.file_type()) {
        None => Ok(()),
        Some(what) => {
            let why = format!("it is {what} and no file");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    };
    must_be_file(fs::metadata(path)?)?;
    let mut options = fs::OpenOptions::new();
    // No difference to a file; somebody may put something else there at this moment.
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path)?;
    must_be_file(file.metadata()?)?;
    Ok(file)
}

/// What something is that is no file.
fn what_is(kind: fs::FileType) -> Option<&'static str> {
    let kinds = [
        (kind.is_dir(), "a folder"),
        (kind.is_fifo(), "a FIFO (a named pipe)"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device() || kind.is_block_device(), "a device"),
        (!kind.is_file(), "something else"),
    ];
    kinds.iter().find(|(is, _)| *is).map(|(_, what)| *what)
}

/// The same of whatever can be read; a last line without an end of line stays as it is.
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

/// What a file is by its first bytes, when it is none that can be read.
pub fn known_as(start: &[u8]) -> Option<&'static str> {
    const KINDS: &[(&[u8], &str)] = &[
        (b"PK\x03\x04", "a ZIP archive; unpack it"),
        (&super::packed::GZIP, "packed twice; unpack it once"),
        (b"BZh", "packed by bzip2; unpack it"),
        (b"\xfd7zXZ\0", "packed by xz; unpack it"),
        (b"\x28\xb5\x2f\xfd", "packed by zstd; unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
        (b"\xff\xfe", "in UTF-16 and not in UTF-8"),
        (b"\xfe\xff", "in UTF-16 and not in UTF-8"),
    ];
    let found = KINDS.iter().find(|(magic, _)| start.starts_with(magic));
    found.map(|(_, what)| *what)
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
