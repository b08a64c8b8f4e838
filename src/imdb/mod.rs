//! The films: IMDb's files, how they get into both masters, and what is asked of them.

pub mod format;
pub mod ids;
pub mod jobs;
pub mod load;
pub mod queries;
pub mod search;
mod suggest;
