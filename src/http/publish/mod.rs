//! Ways in: signalling, WHIP, chunks.

pub(crate) mod chunks;
pub mod signal;
pub(super) mod whip;
