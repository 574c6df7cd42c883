//! What stands before every route: whose request it is, from where it may come, and what it may do.

pub(super) mod authorize;
pub mod forwarded;
pub(super) mod headers;
pub mod login;
pub(super) mod origin;
pub mod same_origin;
