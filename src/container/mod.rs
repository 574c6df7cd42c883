//! Files of media, as bytes: what is written, read and repaired.

pub mod webm;
