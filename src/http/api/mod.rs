//! What programs and operators ask.

pub(super) mod events;
pub mod feed;
pub mod openapi;
pub mod ops;
pub(super) mod process;
pub(super) mod range;
pub(super) mod recordings;
pub(super) mod streams;
