//! Reading from a client and writing to it, always with a deadline, and the end of its connection.

use super::clients::{Client, Standing};
use crate::limits;
use nix::sys::socket::{MsgFlags, recv};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

/// A connection, and what has come on it and was not used yet.
pub(super) struct Wire {
    pub(super) client: Arc<Client>,
    buffer: Box<[u8]>,
    /// What is held lies between these two.
    start: usize,
    end: usize,
    /// Whether the time limit of the socket is another one than [`limits::CLIENT_SILENCE`].
    hurries: bool,
}

impl Wire {
    /// # Errors
    /// Those of the socket.
    pub(super) fn new(client: Arc<Client>) -> Result<Wire> {
        client
            .stream
            .set_read_timeout(Some(limits::CLIENT_SILENCE))?;
        Ok(Wire {
            client,
            buffer: vec![0; limits::HEAD_MAX_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            hurries: false,
        })
    }

    /// What has come and was not used yet.
    pub(super) fn held(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So much of it has been used.
    pub(super) fn used(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits for more, until this time or for [`limits::CLIENT_SILENCE`]; returns how much has come, and 0 at the end.
    ///
    /// # Errors
    /// Those of the socket; see [`is_late`]. When what is held fills the buffer.
    pub(super) fn fill(&mut self, until: Option<Instant>) -> Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            return Err(Error::from(ErrorKind::OutOfMemory));
        }
        self.hurry(until)?;
        let count = read(&self.client, &mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    fn hurry(&mut self, until: Option<Instant>) -> Result<()> {
        let patience = match until {
            None if !self.hurries => return Ok(()),
            None => limits::CLIENT_SILENCE,
            Some(until) => until.saturating_duration_since(Instant::now()),
        };
        if patience.is_zero() {
            return Err(Error::from(ErrorKind::TimedOut));
        }
        self.hurries = until.is_some();
        self.client.stream.set_read_timeout(Some(patience))
    }

    /// Whether more has come than was used.
    pub(super) fn has_more(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let number = self.client.stream.as_raw_fd();
        !self.held().is_empty() || recv(number, &mut [0], flags).is_ok_and(|count| count > 0)
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// Those of the socket, and when the client does not read.
    pub(super) fn send(&self, mut bytes: &[u8]) -> Result<()> {
        let until = Instant::now() + limits::CLIENT_STUCK_ALL;
        while !bytes.is_empty() {
            match (&self.client.stream).write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= until && !bytes.is_empty() {
                return Err(Error::from(ErrorKind::TimedOut));
            }
        }
        Ok(())
    }

    /// Ends the connection. What the client still sends is thrown away for a while, so that it comes to read its answer: the system
    /// breaks off a connection that is closed while something arrives.
    pub(super) fn end(&mut self) {
        self.client.stands(Standing::Over);
        let _ = self.client.stream.shutdown(Shutdown::Write);
        let silence = Some(limits::LINGER_SILENCE);
        if self.client.stream.set_read_timeout(silence).is_err() {
            return;
        }
        let until = Instant::now() + limits::LINGER_MAX;
        while Instant::now() < until && read(&self.client, &mut self.buffer).is_ok_and(|n| n > 0) {}
    }
}

impl Read for Wire {
    /// A body that is passed on as it comes.
    fn read(&mut self, piece: &mut [u8]) -> Result<usize> {
        if !self.held().is_empty() {
            let count = self.held().len().min(piece.len());
            piece[..count].copy_from_slice(&self.held()[..count]);
            self.used(count);
            return Ok(count);
        }
        self.hurry(None)?;
        self.client.stands(Standing::Reading);
        read(&self.client, piece)
    }
}

fn read(client: &Client, piece: &mut [u8]) -> Result<usize> {
    loop {
        match (&client.stream).read(piece) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Whether it is a time limit that has passed.
pub(super) fn is_late(error: &Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind())
}
