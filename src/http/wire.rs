//! The socket beneath a request. tiny_http shows no way to close a connection, nor whether its client is still there, so the socket
//! is looked up among the descriptors of this process, by its two ends.

use crate::limits;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{
    MsgFlags, Shutdown, SockaddrStorage, getpeername, getsockname, recv, shutdown,
};
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// A socket, by a descriptor of our own: tiny_http closes its own ones when it likes, and the system gives their numbers away again.
pub(super) struct Wire(RawFd);

impl Wire {
    /// The connection of a client with this port, whose request is still held; none when it is over.
    ///
    /// # Errors
    /// When it cannot be told from another one, and those of the system.
    pub(super) fn find(client: SocketAddr, port: u16) -> std::io::Result<Option<Wire>> {
        let mut found: Option<(RawFd, IpAddr)> = None;
        for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let own = number.and_then(|number| Some((number, local_end(number, client, port)?)));
            match (found, own) {
                // From one port to two addresses of this machine: either may be the one.
                (Some((_, one)), Some((_, other))) if one != other => {
                    return Err(Error::other("there are two"));
                }
                (_, Some(own)) => found = Some(own),
                (_, None) => {}
            }
        }
        let Some((number, _)) = found else {
            return Ok(None); // the system does not remember the other end of one that is over
        };
        let wire = Wire(fcntl(number, FcntlArg::F_DUPFD_CLOEXEC(0))?);
        // By now the number may have been another's, if this one is over.
        Ok(local_end(wire.0, client, port).map(|_| wire))
    }

    /// Every connection to this port of ours, and who is at the other end. tiny_http has several descriptors for each.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn all(port: u16) -> std::io::Result<HashMap<SocketAddr, Wire>> {
        let mut all = HashMap::new();
        for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some((number, client)) =
                number.and_then(|number| Some((number, client_of(number, port)?)))
            else {
                continue;
            };
            if all.contains_key(&client) {
                continue;
            }
            let wire = Wire(fcntl(number, FcntlArg::F_DUPFD_CLOEXEC(0))?);
            // By now the number may have been another's, if this one is over.
            if client_of(wire.0, port) == Some(client) {
                all.insert(client, wire);
            }
        }
        Ok(all)
    }

    /// Whether something has come that nobody has read.
    pub(super) fn has_unread(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.0, &mut [0], flags).is_ok_and(|count| count > 0)
    }

    /// Waits until there is more to read, up to the time limit of the socket; false when nothing comes any more.
    ///
    /// # Errors
    /// Those of the socket, a time limit that has passed among them.
    fn has_more(&self) -> std::io::Result<bool> {
        Ok(recv(self.0, &mut [0], MsgFlags::MSG_PEEK)? > 0)
    }

    /// Whoever reads there finds the end, once what has come is read.
    pub(super) fn end_reading(&self) {
        let _ = shutdown(self.0, Shutdown::Read);
    }

    /// Tells the client that the answer is complete.
    pub(super) fn end_answer(&self) {
        let _ = shutdown(self.0, Shutdown::Write);
    }

    /// Throws away what the client still sends, so that it comes to read its answer: the system breaks off a connection that is
    /// closed while something arrives. Ends with the connection, after some silence, or when `patience` is over.
    pub(super) fn linger(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut heard = Instant::now();
        let mut piece = [0; 16 * 1024];
        while Instant::now() < deadline && heard.elapsed() < limits::LINGER_SILENCE {
            match recv(self.0, &mut piece, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return,
                Ok(_) => heard = Instant::now(),
                Err(Errno::EAGAIN) => std::thread::sleep(limits::LINGER_PAUSE),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Ends the connection; whoever reads or writes there waits no longer.
    pub(super) fn close(&self) {
        let _ = shutdown(self.0, Shutdown::Both);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = nix::unistd::close(self.0);
    }
}

/// This machine's end of a socket, if it is the one from `client` to our port.
fn local_end(number: RawFd, client: SocketAddr, port: u16) -> Option<IpAddr> {
    let theirs = address(&getpeername(number).ok()?)?;
    let ours = address(&getsockname(number).ok()?)?;
    let same = (theirs.ip(), theirs.port()) == (client.ip(), client.port()) && ours.port() == port;
    same.then(|| ours.ip())
}

/// Who is at the other end of a socket, if it is a connection to our port.
fn client_of(number: RawFd, port: u16) -> Option<SocketAddr> {
    let theirs = address(&getpeername(number).ok()?)?;
    let ours = address(&getsockname(number).ok()?)?;
    (ours.port() == port).then_some(theirs)
}

fn address(of_system: &SockaddrStorage) -> Option<SocketAddr> {
    match (of_system.as_sockaddr_in(), of_system.as_sockaddr_in6()) {
        (Some(four), _) => Some(SocketAddr::V4((*four).into())),
        (_, Some(six)) => Some(SocketAddr::V6((*six).into())),
        _ => None,
    }
}

/// A long body that fails when its client has gone. Were it read to that end, tiny_http would allocate all that is missing of it,
/// and end the process when it cannot.
pub(super) struct Watched<'a> {
    pub(super) body: &'a mut dyn Read,
    /// None for a body that may be in tiny_http's memory already, where nobody else sees it.
    pub(super) wire: Option<Wire>,
}

impl Read for Watched<'_> {
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        match self.wire.as_ref().map(Wire::has_more) {
            Some(Ok(false)) => Err(Error::from(ErrorKind::UnexpectedEof)),
            Some(Err(error)) => Err(error),
            Some(Ok(true)) | None => self.body.read(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_body_whose_client_has_gone_is_not_read_to_its_end() {
        /// Where tiny_http would allocate.
        struct Body;
        impl Read for Body {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("it was read");
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let (_server, address) = listener.accept().expect("accept");
        drop(client);
        let mut watched = Watched {
            body: &mut Body,
            wire: Wire::find(address, port).expect("no other"),
        };
        let error = watched.read(&mut [0; 9]).expect_err("its end");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_connection_is_found_by_its_ends_and_closed_for_everyone() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connect = || {
            let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
            let (server, address) = listener.accept().expect("accept");
            let patience = Some(Duration::from_millis(50));
            server.set_read_timeout(patience).expect("a time limit");
            client.set_read_timeout(patience).expect("a time limit");
            (client, server, address)
        };
        let (mut one, mut served, address) = connect();
        let (mut other, mut kept, _) = connect();
        let find = |port: u16| Wire::find(address, port).expect("no other");
        assert!(find(port.wrapping_add(1)).is_none());
        let wire = find(port).expect("there");
        assert!(wire.has_more().is_err(), "silence is no end");
        one.write_all(b"abc").expect("send");
        assert!(wire.has_more().expect("open"));
        let mut piece = [0; 3];
        served.read_exact(&mut piece).expect("it is still there");
        wire.close();
        assert_eq!(one.read(&mut piece).expect("its end"), 0);
        assert_eq!(served.read(&mut piece).expect("its end"), 0);
        assert!(!wire.has_more().expect("its end"));
        other.write_all(b"abc").expect("send");
        kept.read_exact(&mut piece).expect("another's goes on");
        drop((one, served, wire));
        assert!(find(port).is_none());
    }
}
