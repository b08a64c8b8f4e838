//! The films: IMDb's files and how they get into both masters.

pub mod format;
pub mod jobs;
pub mod load;
