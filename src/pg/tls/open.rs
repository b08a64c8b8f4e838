//! Opens a connection to a master over TLS: finds its addresses, connects, asks for TLS, and has the
//! server prove that it is the one whose name was given. All of it within one deadline.

use super::trust::Trust;
use crate::limits;
use crate::pg::settings::ConnectError;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConnection, Error};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The message by which a client asks PostgreSQL for TLS: its length, and a number that is no version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A server that must prove its name.
#[derive(Clone)]
pub struct Target {
    host: String,
    name: ServerName<'static>,
    address: Option<IpAddr>,
    port: u16,
    trust: Trust,
}

/// A connection over TLS, right after the handshake.
pub struct Opened {
    pub(super) tls: ClientConnection,
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
}

/// Why one address led nowhere. Silence proves nothing; everything else the server, or the kernel
/// of its machine, has said.
struct Failed {
    cause: String,
    silent: bool,
}

impl Target {
    /// The server at `port` of `host`, or of `address` if that is given, with a certificate for `host`.
    ///
    /// # Errors
    /// A host that can be the name of no certificate.
    pub fn new(
        host: &str,
        address: Option<IpAddr>,
        port: u16,
        trust: &Trust,
    ) -> Result<Target, String> {
        let name = ServerName::try_from(host.to_string())
            .map_err(|_| format!("no certificate can be for the host {host:?}"))?;
        Ok(Target {
            host: host.to_string(),
            name,
            address,
            port,
            trust: trust.clone(),
        })
    }

    /// Connects within `patience`, of which each address of the host gets its share. Only the system's
    /// resolver has limits of its own, as it has without TLS.
    ///
    /// # Errors
    /// What came of each address.
    pub fn open(&self, patience: Duration) -> Result<Opened, ConnectError> {
        let addresses = self.addresses().map_err(|error| ConnectError {
            cause: format!("look up {}: {error}", self.host),
            code: None,
            refused: true,
            stranger: false,
        })?;
        let deadline = Instant::now() + patience;
        let mut causes = Vec::new();
        let mut silent = false;
        for (index, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / (addresses.len() - index) as u32;
            match self.open_at(*address, Instant::now() + share) {
                Ok(opened) => return Ok(opened),
                Err(failed) => {
                    silent |= failed.silent;
                    causes.push(format!("TLS to {address}: {}", failed.cause));
                }
            }
        }
        Err(ConnectError {
            cause: causes.join("; "),
            code: None,
            refused: !silent,
            stranger: false,
        })
    }

    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Some(address) = self.address {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let found = (self.host.as_str(), self.port).to_socket_addrs()?;
        let found: Vec<SocketAddr> = found.take(limits::ADDRESSES_MAX).collect();
        match found.is_empty() {
            true => Err(io::Error::new(ErrorKind::NotFound, "it has no address")),
            false => Ok(found),
        }
    }

    fn open_at(&self, address: SocketAddr, deadline: Instant) -> Result<Opened, Failed> {
        let mut stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
        configure(&stream)?;
        limit(&stream, deadline)?;
        stream.write_all(&SSL_REQUEST)?;
        // One byte and no more: what came along with it would be taken for part of the handshake,
        // which it breaks, and never for something that the server said under TLS.
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        match answer[0] {
            b'S' => {}
            b'N' => return Err(Failed::said("it offers no TLS (see its setting ssl)")),
            // Whoever is on the way could have written the text of an error, so it is not shown.
            b'E' => {
                return Err(Failed::said(
                    "it answered the request for TLS with an error",
                ));
            }
            _ => return Err(Failed::said("it does not speak PostgreSQL's protocol")),
        }
        let tls = self.shake_hands(&mut stream, deadline)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        stream.set_nonblocking(true)?;
        Ok(Opened {
            tls,
            stream,
            address,
        })
    }

    fn shake_hands(
        &self,
        stream: &mut TcpStream,
        deadline: Instant,
    ) -> Result<ClientConnection, Failed> {
        let refused = |error: Error| Failed::said(&self.explain(&error));
        let mut tls = ClientConnection::new(Arc::clone(self.trust.config()), self.name.clone())
            .map_err(refused)?;
        tls.set_buffer_limit(Some(limits::TLS_BUFFER_BYTES));
        while tls.is_handshaking() || tls.wants_write() {
            limit(stream, deadline)?;
            let moved = match tls.wants_write() {
                true => tls.write_tls(stream),
                false => tls.read_tls(stream),
            };
            match moved {
                Ok(0) => return Err(Failed::said("it hung up during the TLS handshake")),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                moved => moved?,
            };
            if let Err(error) = tls.process_new_packets() {
                // The server logs what the alert says; whether it still hears it changes nothing here.
                let _ = tls.write_tls(stream);
                return Err(refused(error));
            }
        }
        Ok(tls)
    }

    /// An error of the handshake in words that lead to its remedy.
    fn explain(&self, error: &Error) -> String {
        let Error::InvalidCertificate(why) = error else {
            return format!("the TLS handshake failed: {error}");
        };
        let (host, roots) = (&self.host, self.trust.roots());
        match why {
            CertificateError::NotValidForName => format!("its certificate is not for {host}"),
            CertificateError::NotValidForNameContext { presented, .. } => format!(
                "its certificate is not for {host}, only for {}",
                match presented.is_empty() {
                    true => "nobody: it has no subjectAltName".to_string(),
                    false => presented.join(", "),
                }
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("no CA in {roots} has signed its certificate")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("its certificate, or that of a CA, has expired ({why})")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("its certificate is not valid yet ({why}); is a clock wrong?")
            }
            other => format!("its certificate cannot be used: {other}"),
        }
    }

    /// Bytes that nobody can guess, for the name of a socket.
    ///
    /// # Errors
    /// When the system has none.
    pub fn random(&self) -> Result<[u8; 16], ConnectError> {
        let mut bytes = [0; 16];
        let random = self.trust.config().crypto_provider().secure_random;
        random.fill(&mut bytes).map_err(|_| ConnectError {
            cause: "the system gave no random bytes".to_string(),
            code: None,
            refused: false,
            stranger: false,
        })?;
        Ok(bytes)
    }
}

impl Failed {
    fn said(cause: &str) -> Failed {
        Failed {
            cause: cause.to_string(),
            silent: false,
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        match error.kind() {
            // A time limit of the socket ends with the first of these.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failed {
                cause: "timed out".to_string(),
                silent: true,
            },
            ErrorKind::UnexpectedEof => Failed::said("it hung up"),
            _ => Failed::said(&error.to_string()),
        }
    }
}

/// What is left until the deadline; nothing left is a time-out.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

fn limit(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = Some(left(deadline)?);
    stream.set_read_timeout(left)?;
    stream.set_write_timeout(left)
}

/// The same settings that the driver gives to a plain connection.
fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(limits::TCP_USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new()
        .with_time(limits::KEEPALIVE_IDLE)
        .with_interval(limits::KEEPALIVE_INTERVAL)
        .with_retries(limits::KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}
