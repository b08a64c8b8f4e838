//! Lends a connection over TLS to the driver, which takes a plain one or a Unix socket only: the thread
//! here takes what the driver writes into the socket, encrypts and sends it, and the other way round.
//!
//! The socket is an abstract one, so no file is made and none can be left behind. Its name cannot be
//! guessed, it is accepted once, and only from this very process.

use super::open::Opened;
use crate::limits;
use crate::pg::settings::ConnectError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustls::ClientConnection;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The driver makes the name of a Unix socket from a folder and a port.
pub const SOCKET_PORT: u16 = 5432;

/// Where the driver finds a connection.
pub struct Socket {
    /// What stands for the folder: a zero byte, by which the kernel knows an abstract name, and the rest of it.
    pub folder: PathBuf,
}

/// What ended a connection, if it was TLS itself; the driver sees only that it ended.
pub type Failure = Arc<Mutex<Option<String>>>;

/// What is known of it.
pub fn told(failure: &Failure) -> Option<String> {
    failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// Makes a socket where the driver finds the connection, once and soon, and starts the thread that pumps.
/// It ends with the connection, whichever side ends that.
///
/// # Errors
/// When there is no socket or thread to be had. It says nothing about the server.
pub fn lend(opened: Opened, random: [u8; 16], failure: Failure) -> Result<Socket, ConnectError> {
    let ours = |error: io::Error| ConnectError {
        cause: format!("lend a connection over TLS to the driver: {error}"),
        code: None,
        refused: false,
        stranger: false,
    };
    let folder = format!("imdb-ha-{:032x}", u128::from_be_bytes(random));
    let name = format!("{folder}/.s.PGSQL.{SOCKET_PORT}");
    let address = SocketAddr::from_abstract_name(name.as_bytes()).map_err(ours)?;
    let listener = UnixListener::bind_addr(&address).map_err(ours)?;
    listener.set_nonblocking(true).map_err(ours)?;
    let thread = std::thread::Builder::new().name("pg-tls".to_string());
    let work = move || {
        let address = opened.address;
        if let Err(error) = serve(opened, listener, &failure) {
            log::debug!("TLS to {address}: {error}");
        }
    };
    thread.spawn(work).map_err(ours)?;
    Ok(Socket {
        folder: format!("\0{folder}").into(),
    })
}

fn serve(opened: Opened, listener: UnixListener, failure: &Failure) -> io::Result<()> {
    let driver = accept(&listener)?;
    // From here on nobody finds it any more.
    drop(listener);
    driver.set_nonblocking(true)?;
    let mut pump = Pump {
        tls: opened.tls,
        server: opened.stream,
        driver,
        up: Piece::new(),
        down: Piece::new(),
        server_ended: false,
        server_deaf: false,
        driver_ended: None,
        driver_read: true,
    };
    let ended = pump.run();
    if let Err(error) = &ended {
        // Told before the driver notices, which asks at once.
        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some(error.to_string());
    }
    let _ = pump.server.shutdown(Shutdown::Both);
    ended
}

/// Waits for the driver, which comes at once. Whoever else has found the name is sent away.
fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let deadline = Instant::now() + limits::CONNECT_TIMEOUT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "the driver never came"));
        }
        wait(
            &mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)],
            Some(left),
        )?;
        match listener.accept() {
            Ok((stream, _)) if is_of_this_process(&stream) => return Ok(stream),
            Ok(_) => log::warn!("another process came for a connection over TLS and was sent away"),
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_of_this_process(stream: &UnixStream) -> bool {
    let peer = getsockopt(stream, PeerCredentials);
    peer.is_ok_and(|peer| u32::try_from(peer.pid()) == Ok(std::process::id()))
}

/// Bytes on their way.
struct Piece {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Piece {
    fn new() -> Piece {
        Piece {
            bytes: vec![0; limits::TLS_BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Fills the empty piece; 0 bytes are the end of the source.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        (self.start, self.end) = (0, 0);
        self.end = from.read(&mut self.bytes)?;
        Ok(self.end)
    }

    fn drain(&mut self, into: &mut impl Write) -> io::Result<usize> {
        let count = into.write(&self.bytes[self.start..self.end])?;
        self.start += count;
        Ok(count)
    }
}

struct Pump {
    tls: ClientConnection,
    server: TcpStream,
    driver: UnixStream,
    /// From the driver to the server, not yet encrypted.
    up: Piece,
    /// From the server to the driver, decrypted.
    down: Piece,
    /// The server sends nothing more.
    server_ended: bool,
    /// The server takes nothing more; what it said before is read all the same.
    server_deaf: bool,
    /// The driver is gone; until then its last words may take to be sent.
    driver_ended: Option<Instant>,
    /// Whether the driver may have written something more.
    driver_read: bool,
}

impl Pump {
    /// Pumps until either side has ended. An idle connection is waited for without limit: it ends with
    /// the driver's client, for which somebody answers, or by the kernel's keepalive.
    ///
    /// # Errors
    /// What went wrong with TLS or the connection to the server.
    fn run(&mut self) -> io::Result<()> {
        let (mut server, mut driver) = (PollFlags::empty(), PollFlags::empty());
        loop {
            self.take_from_driver(driver)?;
            self.send();
            self.take_from_server(server)?;
            self.give_to_driver()?;
            if self.server_ended && self.down.is_empty() {
                return Ok(());
            }
            if let Some(deadline) = self.driver_ended {
                let sent = !self.driver_read && self.up.is_empty() && !self.wants_to_send();
                if sent || self.server_deaf || self.server_ended || Instant::now() >= deadline {
                    return Ok(());
                }
            }
            (server, driver) = self.wait()?;
        }
    }

    fn take_from_driver(&mut self, ready: PollFlags) -> io::Result<()> {
        if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.driver_is_ending();
        }
        let may_read = ready.intersects(GONE_OR_READABLE) || self.driver_ended.is_some();
        if may_read && self.driver_read && self.up.is_empty() {
            match self.up.fill(&mut self.driver) {
                Ok(0) => {
                    self.driver_is_ending();
                    self.driver_read = false;
                    self.tls.send_close_notify();
                }
                Ok(_) => {}
                Err(error) if is_later(&error) => {}
                // It went away without a word; nothing of it will come any more.
                Err(_) => {
                    self.driver_is_ending();
                    self.driver_read = false;
                }
            }
        }
        // As much as fits; the rest waits until the server has taken some.
        while !self.up.is_empty() && self.up.drain(&mut self.tls.writer())? > 0 {}
        Ok(())
    }

    fn driver_is_ending(&mut self) {
        self.driver_ended
            .get_or_insert(Instant::now() + limits::TLS_GOODBYE);
    }

    fn send(&mut self) {
        while self.wants_to_send() {
            match self.tls.write_tls(&mut self.server) {
                Ok(_) => {}
                Err(error) if is_later(&error) => return,
                Err(_) => self.server_deaf = true,
            }
        }
    }

    fn take_from_server(&mut self, ready: PollFlags) -> io::Result<()> {
        let wanted = self.wants_server();
        if wanted && ready.intersects(GONE_OR_READABLE) {
            match self.tls.read_tls(&mut self.server) {
                Ok(0) => self.server_ended = true,
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            if let Err(error) = self.tls.process_new_packets() {
                // The last word is an alert that says why.
                let _ = self.tls.write_tls(&mut self.server);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
        Ok(())
    }

    fn give_to_driver(&mut self) -> io::Result<()> {
        if self.driver_ended.is_some() {
            return Ok(());
        }
        loop {
            if self.down.is_empty() {
                match self.down.fill(&mut self.tls.reader()) {
                    // It said goodbye.
                    Ok(0) => self.server_ended = true,
                    Ok(_) => {}
                    Err(error) if is_later(&error) => {}
                    // It hung up without, as it does when it is killed.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        self.server_ended = true;
                    }
                    Err(error) => return Err(error),
                }
            }
            if self.down.is_empty() {
                return Ok(());
            }
            match self.down.drain(&mut self.driver) {
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(_) => {
                    self.driver_is_ending();
                    return Ok(());
                }
            }
        }
    }

    fn wants_to_send(&self) -> bool {
        !self.server_deaf && self.tls.wants_write()
    }

    fn wants_server(&self) -> bool {
        !self.server_ended
            && self.driver_ended.is_none()
            && self.down.is_empty()
            && self.tls.wants_read()
    }

    /// Waits until something can move, and says what the two sockets are ready for.
    fn wait(&self) -> io::Result<(PollFlags, PollFlags)> {
        let flag = |flag, wanted: bool| if wanted { flag } else { PollFlags::empty() };
        let server = flag(PollFlags::POLLIN, self.wants_server())
            | flag(PollFlags::POLLOUT, self.wants_to_send());
        let driver = flag(PollFlags::POLLIN, self.driver_read && self.up.is_empty())
            | flag(PollFlags::POLLOUT, !self.down.is_empty());
        let mut polled = [
            PollFd::new(self.server.as_fd(), server),
            PollFd::new(self.driver.as_fd(), driver),
        ];
        let patience = self
            .driver_ended
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A socket that has hung up is ready without end, so one that is wanted for nothing is left out.
        // The driver's is left out only once it is known to be gone.
        match (server.is_empty(), patience.is_some()) {
            (true, _) => wait(&mut polled[1..], patience)?,
            (false, true) if driver.is_empty() => wait(&mut polled[..1], patience)?,
            (false, _) => wait(&mut polled, patience)?,
        }
        let [server, driver] = polled.map(|one| one.revents().unwrap_or(PollFlags::empty()));
        Ok((server, driver))
    }
}

const GONE_OR_READABLE: PollFlags = PollFlags::POLLIN
    .union(PollFlags::POLLHUP)
    .union(PollFlags::POLLERR);

/// Waits until one of them is ready, a signal comes, or `patience` is over.
fn wait(polled: &mut [PollFd], patience: Option<Duration>) -> io::Result<()> {
    let timeout = match patience {
        None => PollTimeout::NONE,
        // Rounded up, so that a rest of less than a millisecond is no busy loop.
        Some(time) => {
            u16::try_from(time.as_millis() + 1).map_or(PollTimeout::MAX, PollTimeout::from)
        }
    };
    match poll(polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Nothing to be had just now.
fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::tls::{Files, Target, Trust};
    use rcgen::{CertifiedKey, KeyPair};
    use rustls::crypto::ring;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use std::net::TcpListener;
    use std::thread;

    type Served = StreamOwned<ServerConnection, TcpStream>;

    fn certificate() -> CertifiedKey<KeyPair> {
        rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("a certificate")
    }

    fn trust(made: &CertifiedKey<KeyPair>) -> Trust {
        let path = std::env::temp_dir().join(format!(
            "imdb-ha-pump-{}-{:?}.pem",
            std::process::id(),
            thread::current().id()
        ));
        std::fs::write(&path, made.cert.pem()).expect("write");
        let files = Files {
            roots: path.display().to_string(),
            own: None,
        };
        let trust = Trust::load(&files).expect("a CA");
        std::fs::remove_file(&path).expect("remove it");
        trust
    }

    /// A server with a certificate for localhost, which takes one connection, and how it is reached.
    fn server(serve: impl FnOnce(Served) + Send + 'static) -> (Target, thread::JoinHandle<()>) {
        let made = certificate();
        let trust = trust(&made);
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key))
            .expect("a certificate with its key");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.read_exact(&mut [0; 8]).expect("the request");
            stream.write_all(b"S").expect("the answer");
            let tls = ServerConnection::new(Arc::new(config)).expect("TLS");
            serve(StreamOwned::new(tls, stream));
        });
        let target = Target::new("localhost", Some(address.ip()), address.port(), &trust);
        (target.expect("a target"), thread)
    }

    /// Connects as the driver does. What comes with it is held by the thread too, for as long as that lives.
    fn driver(target: &Target) -> (UnixStream, Failure) {
        let opened = target.open(Duration::from_secs(5)).expect("TLS");
        let random = target.random().expect("random bytes");
        let failure = Failure::default();
        let socket = lend(opened, random, Arc::clone(&failure)).expect("a socket");
        let folder = socket.folder.display().to_string();
        let name = format!("{}/.s.PGSQL.{SOCKET_PORT}", &folder[1..]);
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        (
            UnixStream::connect_addr(&address).expect("connect"),
            failure,
        )
    }

    #[test]
    fn what_goes_in_comes_out_both_ways_at_once() {
        let (target, server) = server(|mut stream| {
            let mut piece = [0; 10_000];
            while let Ok(count) = stream.read(&mut piece) {
                if count == 0 {
                    return;
                }
                stream.write_all(&piece[..count]).expect("echo");
            }
        });
        let (mut writing, _) = driver(&target);
        let mut reading = writing.try_clone().expect("the same");
        let sent: Vec<u8> = (0..3_000_000_u32)
            .map(|number| (number % 251) as u8)
            .collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || writing.write_all(&sent).expect("write"));
        // It reads late, so that everything on the way is full meanwhile.
        thread::sleep(Duration::from_millis(100));
        let mut heard = vec![0; expected.len()];
        reading.read_exact(&mut heard).expect("the echo");
        assert!(heard == expected, "the echo is another");
        writer.join().expect("the writer");
        reading.shutdown(Shutdown::Both).expect("close");
        server.join().expect("the server hears the end");
    }

    #[test]
    fn a_server_that_takes_nothing_keeps_no_thread() {
        let (go_on, frozen) = crossbeam_channel::bounded::<()>(0);
        let (target, server) = server(move |mut stream| {
            stream.read_exact(&mut [0; 1]).expect("the handshake");
            let _ = frozen.recv();
        });
        let (mut driver, of_thread) = driver(&target);
        driver.set_nonblocking(true).expect("a setting");
        let piece = vec![7; 100_000];
        let mut full_since = Instant::now();
        while full_since.elapsed() < Duration::from_millis(200) {
            match driver.write(&piece) {
                Ok(_) => full_since = Instant::now(),
                Err(error) => assert!(is_later(&error), "{error}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(Arc::strong_count(&of_thread), 2, "it has ended already");
        drop(driver);
        // Before the kernel gives the connection up, which takes it TCP_USER_TIMEOUT.
        let deadline = Instant::now() + limits::TLS_GOODBYE + Duration::from_secs(2);
        while Arc::strong_count(&of_thread) > 1 {
            assert!(Instant::now() < deadline, "the thread is still there");
            thread::sleep(Duration::from_millis(10));
        }
        drop(go_on);
        server.join().expect("the server");
    }

    #[test]
    fn silence_is_no_refusal_and_ends_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let silent = Target::new(
            "localhost",
            Some([127, 0, 0, 1].into()),
            port,
            &trust(&certificate()),
        );
        let silent = silent.expect("a target");
        let began = Instant::now();
        let error = silent
            .open(Duration::from_millis(300))
            .err()
            .expect("silence");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        assert!(
            !error.is_refusal() && error.to_string().contains("timed out"),
            "{error}"
        );
        drop(listener);
        let error = silent
            .open(Duration::from_millis(300))
            .err()
            .expect("nobody");
        assert!(
            error.is_refusal() && error.to_string().contains("refused"),
            "{error}"
        );
    }
}
