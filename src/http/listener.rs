//! The port, and keeping it answered. tiny_http has no time limits and stops listening for good, in
//! one way or another, when it runs out of file descriptors; this goes on all the same. Nor does it know of an
//! orderly end: it closes the port together with everything that the system has taken for it.

use super::server::Shared;
use crate::limits;
use crate::own_api;
use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};
use tiny_http::Server;

/// Threads that receive requests. They only sort them, so one would do; two, so that a panic in one
/// is not the end.
const FRONTS: usize = 2;

/// Pulses that may fail before the listener is taken for deaf.
const PULSES_MISSED_MAX: u32 = 2;

/// Deaf listeners that are replaced within [`limits::DEAF_WINDOW`] before the process ends, to be started again by whoever runs it.
const DEAF_MAX: usize = 5;

/// Connections that the system takes before tiny_http does.
const BACKLOG: i32 = 1024;

/// The port of the API: first ours, so that one that is taken is told at once, then listened on, and in the end closed to newcomers.
pub struct Port {
    address: SocketAddr,
    socket: Socket,
}

impl Port {
    /// Takes the port, without listening. Every accepted socket inherits its time limits (as Linux does it): a client that sends half a
    /// request would hold a thread for ever. Nagle's algorithm is off, because tiny_http writes an answer in pieces.
    ///
    /// # Errors
    /// When somebody else has it, or may have it alone.
    pub fn take(address: SocketAddr) -> anyhow::Result<Port> {
        let bound = || -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_read_timeout(Some(limits::CLIENT_SILENCE))?;
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

    /// Lets nobody else connect. Whoever is connected by then stays, also if tiny_http has not taken the connection yet; whoever tries
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

    /// Whether connections wait that tiny_http has not taken yet.
    pub(super) fn has_waiting(&self) -> bool {
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Closes it, for whoever has a copy of the socket too. The port is free for another process then.
    pub(super) fn close(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    pub(super) fn number(&self) -> u16 {
        self.address.port()
    }
}

fn explain(address: SocketAddr, error: std::io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => " (choose another with --port)",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("listen on {address}{hint}"))
}

/// Starts answering on the listener, and the pulse that checks it.
///
/// # Errors
/// When a thread cannot be started.
pub(super) fn start(shared: &Arc<Shared>, port: &Port) -> std::io::Result<()> {
    let (deaf, is_deaf) = crossbeam_channel::bounded(1);
    let listener: TcpListener = port.socket.try_clone()?.into();
    let listening = Arc::clone(shared);
    crate::vital::spawn("http-listener".to_string(), move || {
        keep_listening(&listening, &listener, &is_deaf)
    })?;
    let target = own_api::reachable(port.address);
    let beating = Arc::clone(shared);
    crate::vital::spawn("http-pulse".to_string(), move || {
        beat(&beating, target, &deaf)
    })?;
    let nudging = Arc::clone(shared);
    crate::vital::spawn("http-nudge".to_string(), move || {
        while !nudging.is_stopping() {
            nudge(target);
            std::thread::sleep(limits::NUDGE_INTERVAL);
        }
    })
}

/// A connection that comes and goes. When two clients connect at the same moment, tiny_http can put both
/// into the queue of one idle thread, and the second stays there until some other connection ends:
/// with connections that are kept open, for ever. The end of this one sets it free.
fn nudge(target: SocketAddr) {
    if let Ok(stream) = TcpStream::connect_timeout(&target, limits::PULSE_PATIENCE) {
        // Without a farewell, so that the system need not remember some thousand of them.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

/// The time limit of the listener holds for its own `accept` too, and tiny_http gives up at the first
/// `accept` that fails. So somebody asks more often than that. It also notices a listener that accepts
/// nothing any more without having failed: tiny_http's thread panics when the last file descriptor
/// went to the connection that it is about to copy.
fn beat(shared: &Shared, target: SocketAddr, deaf: &Sender<()>) {
    let mut missed = 0;
    while !shared.is_stopping() {
        match own_api::get(target, "/active-node", limits::PULSE_PATIENCE) {
            Ok(_) => missed = 0,
            Err(_) if shared.is_stopping() => return,
            Err(error) => {
                missed += 1;
                log::warn!("the API does not answer on {target}: {error}");
            }
        }
        if missed >= PULSES_MISSED_MAX {
            missed = 0;
            let _ = deaf.try_send(());
        }
        std::thread::sleep(limits::PULSE_INTERVAL);
    }
}

/// Runs tiny_http on the listener, and again when it has failed or gone deaf. The port stays open
/// throughout, because each server gets a copy of the same socket.
fn keep_listening(shared: &Arc<Shared>, listener: &TcpListener, is_deaf: &Receiver<()>) {
    let mut deaf = Lately::default();
    loop {
        match listen_once(shared, listener, is_deaf) {
            // At the stop it fails because the port is closed.
            _ if shared.is_stopping() => return,
            Ok(End::Failed(error)) => {
                log::error!("the listener failed and is built again: {error}")
            }
            Ok(End::Deaf) => {
                log::error!("the listener is deaf and another one is built beside it");
                let times = deaf.note(Instant::now(), limits::DEAF_WINDOW);
                if times > DEAF_MAX {
                    shared.give_up(&format!("the API went deaf {times} times in a short time"));
                }
            }
            Err(error) => log::error!("the listener cannot be built: {error:#}"),
        }
        std::thread::sleep(limits::LISTENER_RETRY);
    }
}

/// Times at which something happened. What lies weeks apart has nothing to do with each other.
#[derive(Default)]
struct Lately(VecDeque<Instant>);

impl Lately {
    /// It has happened once more; returns how often it has within `window`.
    fn note(&mut self, now: Instant, window: Duration) -> usize {
        self.0.push_back(now);
        while self
            .0
            .front()
            .is_some_and(|at| now.duration_since(*at) > window)
        {
            self.0.pop_front();
        }
        self.0.len()
    }
}

/// How a life of tiny_http's listener ended.
enum End {
    /// Its `accept` failed, so it accepts nothing any more.
    Failed(std::io::Error),
    /// It does not answer; it may yet, so its fronts stay.
    Deaf,
}

/// One life of tiny_http's listener. The fronts of a failed one stay a while, for the connections that
/// it has accepted.
fn listen_once(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    is_deaf: &Receiver<()>,
) -> anyhow::Result<End> {
    let server = Server::from_listener(listener.try_clone()?, None)
        .map_err(|error| anyhow::anyhow!("build the server: {error}"))?;
    let server = Arc::new(server);
    let retired = Arc::new(AtomicBool::new(false));
    let order = Arc::new(Mutex::new(()));
    let (failed, failure) = crossbeam_channel::bounded(FRONTS);
    for index in 0..FRONTS {
        let (shared, server) = (Arc::clone(shared), Arc::clone(&server));
        let (order, retired, failed) = (Arc::clone(&order), Arc::clone(&retired), failed.clone());
        Builder::new()
            .name(format!("http-front-{index}"))
            .spawn(move || front(&shared, &server, &order, &retired, &failed))
            .context("start a front")?;
    }
    drop(failed);
    loop {
        match failure.recv_timeout(limits::LISTENER_RETRY) {
            Ok(error) => return Ok(End::Failed(error)),
            Err(RecvTimeoutError::Timeout) if is_deaf.try_recv().is_ok() => return Ok(End::Deaf),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Deaf),
        }
    }
}

/// Life of a front thread. After the failure of its listener it goes on until no request has come
/// for longer than an idle connection lives. `order` is held by the front that takes in a request, so
/// that those of one connection get their turns in the order in which they were sent.
fn front(
    shared: &Arc<Shared>,
    server: &Server,
    order: &Mutex<()>,
    retired: &AtomicBool,
    failed: &Sender<std::io::Error>,
) {
    loop {
        let in_order = order.lock().unwrap_or_else(PoisonError::into_inner);
        let received = server.recv_timeout(limits::CLIENT_SILENCE + Duration::from_secs(1));
        match received.map(|request| request.map(|request| shared.receive(request))) {
            Ok(Some(guest)) => {
                drop(in_order);
                if let Some(guest) = guest {
                    shared.sort(guest);
                }
            }
            // Until the end of a stop, a connection may still bring a request.
            Ok(None) if !shared.is_stopping() && retired.load(Ordering::SeqCst) => return,
            Ok(None) => {}
            Err(error) => {
                retired.store(true, Ordering::SeqCst);
                let _ = failed.try_send(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_happens_weeks_apart_is_not_counted_together() {
        let (window, began) = (limits::DEAF_WINDOW, Instant::now());
        let mut deaf = Lately::default();
        for week in 1..=20 {
            assert_eq!(deaf.note(began + week * 7 * 24 * 6 * window, window), 1);
        }
        let later = began + 100_000 * window;
        let times = (0..=DEAF_MAX as u32).map(|turn| deaf.note(later + turn * window / 10, window));
        assert_eq!(times.last(), Some(DEAF_MAX + 1));
        assert_eq!(deaf.note(later + 3 * window, window), 1);
    }

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
