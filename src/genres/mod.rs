//! The genres: the one table that the manual's API writes.

mod store;

pub use store::{Changed, Created, Store};
