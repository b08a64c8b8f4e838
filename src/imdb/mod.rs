//! The films: tables in the shape of IMDb's files.

pub mod ids;
pub mod queries;
pub mod search;
