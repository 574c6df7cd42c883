//! Ways in: signalling, WHIP, chunks, JPEG images.

pub(crate) mod chunks;
pub mod signal;
pub(super) mod upload;
pub(super) mod whip;
