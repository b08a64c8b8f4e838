//! TLS to a master, without the async runtime that every ready connector brings: rustls over a
//! blocking socket, and the driver is lent the result through a Unix socket that only this process
//! can take. What passes through it afterwards is encrypted and decrypted by a thread of its own.

mod open;
mod pump;
mod trust;

pub use open::Target;
pub use pump::{SOCKET_PORT, Socket, lend, told};
pub use trust::{Files, Trust};
