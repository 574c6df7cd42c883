//! What every layer may use. Nothing here knows of media, files or sockets.

pub mod clock;
pub mod critical;
pub mod error_code;
pub mod heartbeat;
pub mod id;
pub mod metrics;
pub mod pattern;
pub mod quota;
pub mod reason;
pub mod tasks;
pub mod tombstones;
pub mod units;
