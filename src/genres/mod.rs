//! The genres: the one table that the manual's API writes.

mod batch;
mod entry;
mod lane;
mod stamp;
mod store;

pub use batch::Created;
pub use lane::Answered;
pub use store::{Changed, Store};
