//! What stands before every route: whose request it is, from where it may come, and what it may do.

pub(super) mod authorize;
pub mod credential;
pub mod forwarded;
pub(super) mod headers;
pub(super) mod login;
pub(super) mod middleware;
pub(super) mod origin;
pub mod same_origin;
