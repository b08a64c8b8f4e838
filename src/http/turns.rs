//! One request of a connection at a time. tiny_http hands out the next request of a connection before
//! the last one is answered, and whoever answers it then blocks until that has happened. With answers
//! that come in an order of their own, threads would wait for each other for ever.

use std::collections::{HashMap, HashSet, VecDeque};
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
    /// Connections whose clients have been told that they end.
    over: HashSet<SocketAddr>,
}

/// What a request may do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission<T> {
    Go(T),
    /// It is kept until the one before it ends.
    Parked,
    /// Too many are kept already.
    Refused(T),
    /// Its client knows by now that it is not answered.
    Over(T),
}

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A request of it is under way.
    Busy,
    /// None is.
    Idle,
    /// None is, and no other one is taken.
    Over,
}

impl<T> Turns<T> {
    pub(super) fn new() -> Turns<T> {
        Turns(Mutex::new(State {
            busy: HashMap::new(),
            parked: 0,
            over: HashSet::new(),
        }))
    }

    /// Asks for the turn of a request. It ends with [`Turns::next`].
    pub(super) fn ask(&self, client: SocketAddr, request: T) -> Admission<T> {
        let mut state = self.state();
        let State { busy, parked, over } = &mut *state;
        if over.contains(&client) {
            return Admission::Over(request);
        }
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

    /// Whether the request under way is the last one of its connection, because none waits behind it. From now on none is taken.
    pub(super) fn is_last(&self, client: SocketAddr) -> bool {
        let mut state = self.state();
        let last = state.busy.get(&client).is_none_or(VecDeque::is_empty);
        if last {
            state.over.insert(client);
        }
        last
    }

    pub(super) fn standing(&self, client: SocketAddr) -> Standing {
        let state = self.state();
        match state.over.contains(&client) {
            _ if state.busy.contains_key(&client) => Standing::Busy,
            true => Standing::Over,
            false => Standing::Idle,
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

    #[test]
    fn a_connection_ends_with_the_last_request_that_was_taken() {
        let turns = Turns::new();
        let [one, two] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(turns.ask(one, 1), Admission::Go(1));
        assert_eq!(turns.ask(one, 2), Admission::Parked);
        assert!(!turns.is_last(one), "another one was taken");
        assert_eq!(turns.next(one), Some(2));
        assert!(turns.is_last(one));
        assert_eq!(turns.standing(one), Standing::Busy);
        assert_eq!(turns.ask(one, 3), Admission::Over(3));
        assert_eq!(turns.next(one), None);
        assert_eq!(turns.ask(one, 4), Admission::Over(4));
        assert_eq!(turns.standing(one), Standing::Over);
        assert_eq!(turns.standing(two), Standing::Idle);
    }
}
