//! The connections that are open, and how each of them is, for the bound on their number and for the stop.

use super::server::Shared;
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing of a next request has come.
    Idle,
    /// A part of one has.
    Reading,
    /// One is being served or answered.
    Busy,
    /// No other one is taken.
    Over,
}

/// A client's connection.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    standing: AtomicU8,
    moves: AtomicU32,
}

impl Client {
    /// Says how it is, and that something has happened.
    pub(super) fn stands(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::SeqCst);
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn standing(&self) -> Standing {
        let all = [Standing::Idle, Standing::Reading, Standing::Busy];
        let standing = self.standing.load(Ordering::SeqCst);
        all.into_iter()
            .find(|other| *other as u8 == standing)
            .unwrap_or(Standing::Over)
    }

    /// A number that is another one whenever something has happened.
    pub(super) fn moves(&self) -> u32 {
        self.moves.load(Ordering::SeqCst)
    }

    /// Its thread finds the end, once what has come is read.
    pub(super) fn end_reading(&self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }
}

/// All of them.
pub(super) struct Clients {
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    open: HashMap<u64, Arc<Client>>,
}

/// The place of one of them, which is free again when this is dropped.
pub(super) struct Seat {
    shared: Arc<Shared>,
    number: u64,
    pub(super) client: Arc<Client>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.clients.state().open.remove(&self.number);
    }
}

impl Clients {
    pub(super) fn new(most: usize) -> Clients {
        Clients {
            most,
            state: Mutex::default(),
        }
    }

    /// A place for a new one, or the connection back when there is none.
    pub(super) fn seat(
        shared: &Arc<Shared>,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<Seat, TcpStream> {
        let clients = &shared.clients;
        let mut state = clients.state();
        if state.open.len() >= clients.most {
            return Err(stream);
        }
        let client = Arc::new(Client {
            stream,
            address,
            standing: AtomicU8::new(Standing::Idle as u8),
            moves: AtomicU32::new(0),
        });
        state.last += 1;
        let number = state.last;
        state.open.insert(number, Arc::clone(&client));
        Ok(Seat {
            shared: Arc::clone(shared),
            number,
            client,
        })
    }

    pub(super) fn all(&self) -> Vec<(u64, Arc<Client>)> {
        let state = self.state();
        let open = state.open.iter();
        open.map(|(number, client)| (*number, Arc::clone(client)))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
