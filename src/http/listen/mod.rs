//! Connections: how many there may be, how long each may take, and TLS.

pub(super) mod accept;
pub(super) mod connection;
pub(super) mod in_flight;
pub mod tls;
