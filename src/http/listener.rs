//! The port, and keeping it answered. tiny_http has no time limits and stops listening for good, in
//! one way or another, when it runs out of file descriptors; this goes on all the same.

use super::server::Shared;
use crate::limits;
use crate::own_api;
use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;
use tiny_http::Server;

/// Threads that receive requests. They only sort them, so one would do; two, so that a panic in one
/// is not the end.
const FRONTS: usize = 2;

/// Pulses that may fail before the listener is taken for deaf.
const PULSES_MISSED_MAX: u32 = 2;

/// Deaf listeners that are replaced before the process ends, to be started again by whoever runs it.
const DEAF_MAX: u32 = 5;

/// A listener whose time limits every accepted socket inherits (as Linux does it): a client that
/// sends half a request would hold a thread for ever. Nagle's algorithm is off, because tiny_http
/// writes an answer in pieces.
///
/// # Errors
/// Those of the sockets.
pub(super) fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_read_timeout(Some(limits::CLIENT_SILENCE))?;
    socket.set_write_timeout(Some(limits::CLIENT_STUCK))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Starts answering on the listener, and the pulse that checks it.
///
/// # Errors
/// When a thread cannot be started.
pub(super) fn start(
    shared: &Arc<Shared>,
    address: SocketAddr,
    listener: TcpListener,
) -> std::io::Result<()> {
    let (deaf, is_deaf) = crossbeam_channel::bounded(1);
    let shared = Arc::clone(shared);
    crate::vital::spawn("http-listener".to_string(), move || {
        keep_listening(&shared, &listener, &is_deaf)
    })?;
    let target = own_api::reachable(address);
    crate::vital::spawn("http-pulse".to_string(), move || beat(target, &deaf))?;
    crate::vital::spawn("http-nudge".to_string(), move || {
        loop {
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
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

/// The time limit of the listener holds for its own `accept` too, and tiny_http gives up at the first
/// `accept` that fails. So somebody asks more often than that. It also notices a listener that accepts
/// nothing any more without having failed: tiny_http's thread panics when the last file descriptor
/// went to the connection that it is about to copy.
fn beat(target: SocketAddr, deaf: &Sender<()>) {
    let mut missed = 0;
    loop {
        match own_api::get(target, "/active-node", limits::PULSE_PATIENCE) {
            Ok(_) => missed = 0,
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
    let mut deaf = 0;
    while !shared.is_stopping() {
        match listen_once(shared, listener, is_deaf) {
            Ok(End::Failed(error)) => {
                log::error!("the listener failed and is built again: {error}")
            }
            Ok(End::Deaf) => {
                deaf += 1;
                log::error!("the listener is deaf and another one is built beside it");
                assert!(deaf <= DEAF_MAX, "the API went deaf {deaf} times");
            }
            Err(error) => log::error!("the listener cannot be built: {error:#}"),
        }
        std::thread::sleep(limits::LISTENER_RETRY);
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
    while !shared.is_stopping() {
        let in_order = order.lock().unwrap_or_else(PoisonError::into_inner);
        let received = server.recv_timeout(limits::CLIENT_SILENCE + Duration::from_secs(1));
        match received.map(|request| request.map(|request| shared.receive(request))) {
            Ok(Some(guest)) => {
                drop(in_order);
                if let Some(guest) = guest {
                    shared.sort(guest);
                }
            }
            Ok(None) if retired.load(Ordering::SeqCst) => return,
            Ok(None) => {}
            Err(error) => {
                retired.store(true, Ordering::SeqCst);
                let _ = failed.try_send(error);
            }
        }
    }
}
