//! A TCP relay that can be told to cut a connection or to let nothing through, in front of a server
//! that may die. Nothing here ends before its process does.

use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// What a relay does with what passes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Resets what is open and refuses what is new.
    Cut,
    /// Takes everything and passes nothing on; what it took goes on its way when it ends.
    Hole,
    /// Holds PostgreSQL's answers to what has changed rows, each with all that comes after it on its
    /// connection. Whoever only asks, a probe for one, notices nothing.
    Mute,
}

/// How long a dead server is left before it is looked for again.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A frozen server's kernel answers at once, so this is only for a machine that is overloaded.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a thread that cannot get rid of its bytes looks whether the connection was cut.
const WRITE_TURN: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 256;

pub struct Relay {
    pub port: u16,
    inner: Arc<Inner>,
}

struct Inner {
    /// Bound all the time and listening only while connections are to be had, so that nobody else
    /// gets the port meanwhile.
    listener: Socket,
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    pairs: Mutex<Vec<Weak<Pair>>>,
}

struct State {
    mode: Mode,
    /// A dead server refuses connections, and so must whoever stands in front of it: to accept and
    /// hang up would look like something else to a client that goes by refusals.
    server_lives: bool,
    listening: bool,
}

impl Relay {
    /// Relays to a server on this machine.
    pub fn start(server_port: u16) -> Result<Relay> {
        let (listener, port) = listen_anywhere()?;
        let inner = Arc::new(Inner {
            listener,
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, server_port)),
            state: Mutex::new(State {
                mode: Mode::Pass,
                server_lives: true,
                listening: true,
            }),
            changed: Condvar::new(),
            pairs: Mutex::default(),
        });
        let (takes, looks) = (Arc::clone(&inner), Arc::clone(&inner));
        thread::spawn(move || takes.take());
        thread::spawn(move || looks.look_for_server());
        Ok(Relay { port, inner })
    }

    pub fn set(&self, mode: Mode) {
        self.inner.change(|state| state.mode = mode);
        if mode == Mode::Cut {
            self.reset();
        }
    }

    /// Resets what is open, with all that it holds, and goes on as before.
    pub fn reset(&self) {
        lock(&self.inner.pairs)
            .drain(..)
            .filter_map(|pair| pair.upgrade())
            .for_each(|pair| pair.reset());
    }
}

impl Inner {
    /// Changes the state, and listens or not as it follows from it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let listen = match state.mode {
            Mode::Pass => state.server_lives,
            Mode::Cut => false,
            Mode::Hole | Mode::Mute => true,
        };
        if listen != state.listening {
            let done = match listen {
                true => self.listener.listen(BACKLOG),
                false => self.listener.shutdown(Shutdown::Read),
            };
            done.unwrap_or_else(|error| {
                panic!("relay to {}: listen {listen}: {error}", self.server)
            });
            state.listening = listen;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn take(self: Arc<Inner>) {
        loop {
            match self.listener.accept() {
                Ok((client, _)) => {
                    let inner = Arc::clone(&self);
                    thread::spawn(move || inner.join(client.into()));
                }
                // It does not listen now.
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn look_for_server(&self) {
        loop {
            let mut state = lock(&self.state);
            while state.server_lives {
                let woken = self.changed.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            match TcpStream::connect_timeout(&self.server, CONNECT) {
                Ok(_) => self.change(|state| state.server_lives = true),
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Connects to the server; notes when it is dead.
    fn connect(&self) -> Result<TcpStream> {
        let connected = TcpStream::connect_timeout(&self.server, CONNECT);
        if connected
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        {
            self.change(|state| state.server_lives = false);
        }
        connected
    }

    /// Waits for as long as nothing passes, or nothing that tells of a change.
    fn wait_out_hole(&self, tells: bool) -> Mode {
        let mut state = lock(&self.state);
        while state.mode == Mode::Hole || (tells && state.mode == Mode::Mute) {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.mode
    }

    fn join(&self, client: TcpStream) {
        // Held until the server is known, and then the two end together.
        let cut = self.wait_out_hole(false) == Mode::Cut;
        let server = match cut {
            true => None,
            false => self.connect().ok(),
        };
        let Some(server) = server else {
            let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            return;
        };
        for end in [&client, &server] {
            let _ = end.set_nodelay(true);
            let _ = end.set_write_timeout(Some(WRITE_TURN));
        }
        let pair = Arc::new(Pair {
            client,
            server,
            broken: AtomicBool::new(false),
        });
        let mut pairs = lock(&self.pairs);
        pairs.retain(|pair| pair.strong_count() > 0);
        pairs.push(Arc::downgrade(&pair));
        drop(pairs);
        // A cut that came between the two looks at the mode has not seen this pair.
        if lock(&self.state).mode == Mode::Cut {
            pair.reset();
        }
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&pair, &pair.server, &pair.client));
            self.pump(&pair, &pair.client, &pair.server);
        });
    }

    fn pump(&self, pair: &Pair, mut from: &TcpStream, to: &TcpStream) {
        let mut piece = [0; 16 * 1024];
        loop {
            let read = from.read(&mut piece);
            if !matches!(read, Ok(1..)) && std::ptr::eq(from, &pair.server) {
                // Before the client hears of it, and looks for the server itself.
                let _ = self.connect();
            }
            let answered = match read {
                Ok(count) if std::ptr::eq(from, &pair.server) => &piece[..count],
                _ => &[],
            };
            // What was held when the connection was cut is lost with it.
            if self.wait_out_hole(tells_of_change(answered)) == Mode::Cut {
                pair.reset();
                return;
            }
            let passed = match read {
                // Woken by the reset, which a farewell must not come before.
                Ok(0) if pair.broken.load(Ordering::SeqCst) => return,
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) => pair.write(to, &piece[..count]),
                Err(error) => Err(error),
            };
            if passed.is_err() {
                pair.reset();
                return;
            }
        }
    }
}

/// Whether rows were changed, as the tag of a command says.
fn tells_of_change(answer: &[u8]) -> bool {
    let tags: [&[u8]; 3] = [b"INSERT 0 ", b"UPDATE ", b"DELETE "];
    tags.iter()
        .any(|tag| answer.windows(tag.len()).any(|part| part == *tag))
}

/// Two connections that are one to their ends.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    broken: AtomicBool,
}

impl Pair {
    /// Ends both with a reset, which goes out when the threads that this wakes have let go of them.
    fn reset(&self) {
        self.broken.store(true, Ordering::SeqCst);
        for end in [&self.client, &self.server] {
            let _ = SockRef::from(end).set_linger(Some(Duration::ZERO));
            let _ = end.shutdown(Shutdown::Read);
        }
    }

    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.broken.load(Ordering::SeqCst) {
                return Err(ErrorKind::ConnectionReset.into());
            }
            match to.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Listens on a port below those that the system gives to outgoing connections, so that none of them
/// takes it once its server is away.
fn listen_anywhere() -> Result<(Socket, u16)> {
    let begin = 20_000 + (std::process::id() % 10_000) as u16;
    let listen = |port: u16| {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // It listens again while connections of the time before are still open.
        listener.set_reuse_address(true)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        listener.listen(BACKLOG)?;
        Ok::<_, std::io::Error>((listener, port))
    };
    let mut ports = begin..begin + 2_000;
    ports
        .find_map(|port| listen(port).ok())
        .ok_or_else(|| ErrorKind::AddrInUse.into())
}

/// Such a port, for a server that is started next.
pub fn free_port() -> Result<u16> {
    listen_anywhere().map(|(_, port)| port)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
