//! The port, and letting clients in. At a stop it is closed to newcomers before those that are connected already are sent away.

use super::Problem;
use super::answer;
use super::clients::Clients;
use super::front;
use super::messages::{self as msg, Language};
use super::server::Shared;
use crate::limits;
use crate::quiet::Quiet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockFilter, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Builder;

/// Connections that the system takes before this program does.
const BACKLOG: i32 = 1024;

/// The port of the API: first ours, so that one that is taken is told at once, then listened on, and in the end closed to newcomers.
pub struct Port {
    address: SocketAddr,
    socket: Socket,
}

impl Port {
    /// Takes the port, without listening. Every accepted socket inherits its options (as Linux does it): a client that does not read
    /// its answer would hold a thread for ever, and an answer must not wait for the client to confirm the one before it.
    ///
    /// # Errors
    /// When somebody else has it, or may have it alone.
    pub fn take(address: SocketAddr) -> anyhow::Result<Port> {
        let bound = || -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_write_timeout(Some(limits::CLIENT_STUCK))?;
            socket.set_tcp_nodelay(true)?;
            socket.set_keepalive(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = bound().map_err(|error| explain(address, error))?;
        Ok(Port { address, socket })
    }

    /// From now on clients can connect.
    ///
    /// # Errors
    /// When somebody else has come to listen on it meanwhile.
    pub(super) fn listen(&self) -> anyhow::Result<()> {
        let listening = self.socket.listen(BACKLOG);
        listening.map_err(|error| explain(self.address, error))
    }

    /// Lets nobody else connect. Whoever is connected by then stays, also if the connection was not accepted yet; whoever tries
    /// now hears nothing, and tries again a second later: then the port is closed, or the next process listens on it.
    ///
    /// # Errors
    /// Those of the system; then anybody can still connect.
    pub(super) fn refuse_newcomers(&self) -> std::io::Result<()> {
        // In words of the kernel's packet filter: a segment of TCP whose flags (byte 13) have SYN in them is dropped, and all others pass.
        // On a listening socket that is the first one of every connection, and no other. (Were `listen` or `shutdown` used for this, the
        // system would throw those away that it has taken already.)
        let filter = [
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x45, 0, 1, 0x02),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        self.socket.attach_filter(&filter)
    }

    /// Whether connections wait that were not accepted yet.
    pub(super) fn has_waiting(&self) -> bool {
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Closes it, for whoever has a copy of the socket too. The port is free for another process then.
    pub(super) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn explain(address: SocketAddr, error: std::io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => " (choose another with --port)",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("listen on {address}{hint}"))
}

/// Starts the thread that lets clients in.
///
/// # Errors
/// When it cannot be started.
pub(super) fn start(shared: &Arc<Shared>, port: &Port) -> std::io::Result<()> {
    let listener: TcpListener = port.socket.try_clone()?.into();
    let accepting = Arc::clone(shared);
    crate::vital::spawn("http-accept".to_string(), move || {
        accept_all(&accepting, &listener)
    })
}

/// Lets clients in until the port is closed. Nothing that goes wrong with one of them, or for want of descriptors, memory or threads,
/// is the end of it.
fn accept_all(shared: &Arc<Shared>, listener: &TcpListener) {
    let quiet = Quiet::default();
    loop {
        match listener.accept() {
            Ok((stream, address)) => {
                let Err(why) = welcome(shared, stream, address) else {
                    continue;
                };
                if let Some(more) = quiet.admit(&why) {
                    log::warn!("a client is turned away: {why} ({more} more like the last)");
                }
            }
            Err(_) if shared.is_stopping() => return,
            Err(error) => {
                if let Some(more) = quiet.admit(&error.to_string()) {
                    log::error!("a client cannot be let in: {error} ({more} more like the last)");
                }
                std::thread::sleep(limits::ACCEPT_RETRY);
            }
        }
    }
}

/// Gives a client a thread of its own, or sends it away and returns why.
fn welcome(shared: &Arc<Shared>, stream: TcpStream, address: SocketAddr) -> Result<(), String> {
    let seat = match Clients::seat(shared, stream, address) {
        Ok(seat) => seat,
        Err(stream) => {
            return turn_away(&stream, "too many clients are connected".to_string());
        }
    };
    let (serving, client) = (Arc::clone(shared), Arc::clone(&seat.client));
    let serve = move || {
        if catch_unwind(AssertUnwindSafe(|| front::serve(&serving, &seat))).is_err() {
            log::error!("the thread of a client panicked; please report it");
        }
    };
    let thread = Builder::new().name("http-client".to_string());
    match thread.stack_size(limits::CLIENT_STACK_BYTES).spawn(serve) {
        Ok(_) => Ok(()),
        Err(error) => turn_away(&client.stream, format!("no thread for a client: {error}")),
    }
}

/// Answers a client that cannot be served, without waiting for it.
fn turn_away(stream: &TcpStream, why: String) -> Result<(), String> {
    let reply = Problem::from(msg::OVERLOADED).because(&why);
    let mut bytes = answer::printed(&reply.into_reply(Language::Spanish), false);
    answer::mark(&mut bytes, true, false);
    let mut stream = stream;
    // Were its request left unread, the system would break the connection off before the answer was read.
    let _ = stream.set_nonblocking(true);
    let _ = stream.read(&mut [0; 16 * 1024]);
    let _ = stream.write(&bytes);
    let _ = stream.shutdown(Shutdown::Both);
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn whoever_is_connected_stays_and_nobody_else_gets_in() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut port = Port::take(any).expect("a port");
        port.listen().expect("listen");
        let bound = port.socket.local_addr().expect("its address");
        port.address = bound.as_socket().expect("an address");
        let connect = |patience: u64| {
            TcpStream::connect_timeout(&port.address, Duration::from_millis(patience))
        };
        let mut early = connect(5_000).expect("connect");
        assert!(port.has_waiting());
        port.refuse_newcomers().expect("the filter");
        let late = connect(300).expect_err("nobody else gets in");
        assert!(late.kind() != ErrorKind::ConnectionRefused, "{late}");

        let listener: TcpListener = port.socket.try_clone().expect("a copy").into();
        let (mut taken, _) = listener.accept().expect("it was kept");
        assert!(!port.has_waiting());
        early.write_all(b"asks").expect("send");
        taken.read_exact(&mut [0; 4]).expect("it arrives");
        port.close();
        taken.write_all(b"answers").expect("send");
        early.read_exact(&mut [0; 7]).expect("it arrives");
        assert!(listener.accept().is_err(), "the copy is closed as well");
        let refused = connect(5_000).expect_err("closed");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let next = Port::take(port.address).expect("it is free for the next process");
        next.listen().expect("listen");
        let taken = Port::take(port.address).err().expect("it is taken");
        assert!(format!("{taken:#}").contains("choose another"), "{taken:#}");
    }
}
