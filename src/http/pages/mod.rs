//! The pages, and what they load.

pub mod assets;
