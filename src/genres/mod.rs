//! The genres: the one table that the manual's API writes.

mod batch;
mod entry;
mod keyed;
mod keyed_lane;
mod lane;
mod stamp;
mod store;

pub use batch::Created;
pub use keyed::{Action, KeyedWrite, Written};
pub use lane::Answered;
pub use store::{Changed, Outcome, Store};
