//! One request of a connection at a time. tiny_http hands out the next request of a connection before
//! the last one is answered, and whoever answers it then blocks until that has happened. With answers
//! that come in an order of their own, threads would wait for each other for ever.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Requests that may wait for their connection's turn, over all connections: some 20 MB of them.
const PARKED_MAX: usize = 10_000;

/// Whose turn it is on each connection. A connection is known by the address of its client.
pub(super) struct Turns<T>(Mutex<State<T>>);

struct State<T> {
    /// Connections with a request under way, and what came after it.
    busy: HashMap<SocketAddr, VecDeque<T>>,
    parked: usize,
}

/// What a request may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<T> {
    Go(T),
    /// It is kept until the one before it ends.
    Parked,
    /// Too many are kept already.
    Refused(T),
}

impl<T> Turns<T> {
    pub(super) fn new() -> Turns<T> {
        Turns(Mutex::new(State {
            busy: HashMap::new(),
            parked: 0,
        }))
    }

    /// Asks for the turn of a request. It ends with [`Turns::next`].
    pub(super) fn ask(&self, client: SocketAddr, request: T) -> Admission<T> {
        let mut state = self.state();
        let State { busy, parked } = &mut *state;
        match busy.get_mut(&client) {
            None => {
                busy.insert(client, VecDeque::new());
                Admission::Go(request)
            }
            Some(_) if *parked >= PARKED_MAX => Admission::Refused(request),
            Some(waiting) => {
                waiting.push_back(request);
                *parked += 1;
                Admission::Parked
            }
        }
    }

    /// Ends a turn; returns the request whose turn is next.
    pub(super) fn next(&self, client: SocketAddr) -> Option<T> {
        let mut state = self.state();
        let next = state.busy.get_mut(&client)?.pop_front();
        match next {
            Some(_) => state.parked -= 1,
            None => drop(state.busy.remove(&client)),
        }
        next
    }

    /// Ends the last turn of a connection that is over; returns the requests that waited for theirs.
    pub(super) fn end(&self, client: SocketAddr) -> VecDeque<T> {
        let mut state = self.state();
        let left = state.busy.remove(&client).unwrap_or_default();
        state.parked -= left.len();
        left
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_one_request_under_way() {
        let turns = Turns::new();
        let [one, two] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(turns.ask(one, 1), Admission::Go(1));
        assert_eq!(turns.ask(one, 2), Admission::Parked);
        assert_eq!(turns.ask(one, 3), Admission::Parked);
        assert_eq!(turns.ask(two, 4), Admission::Go(4));
        assert_eq!((turns.next(one), turns.next(two)), (Some(2), None));
        assert_eq!((turns.next(one), turns.next(one)), (Some(3), None));
        assert_eq!(turns.ask(one, 5), Admission::Go(5));
        for number in 0..PARKED_MAX {
            assert_eq!(turns.ask(one, number), Admission::Parked);
        }
        assert_eq!(turns.ask(one, 6), Admission::Refused(6));
        assert_eq!(turns.ask(two, 7), Admission::Go(7));
        assert_eq!(turns.next(one), Some(0));
        assert_eq!(turns.ask(two, 8), Admission::Parked);
        assert_eq!(turns.end(two), [8]);
        assert_eq!(turns.ask(two, 7), Admission::Go(7));
        assert_eq!(turns.ask(two, 8), Admission::Parked);
    }
}
