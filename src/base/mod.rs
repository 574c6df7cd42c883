//! What every layer may use. Nothing here knows of media, files or sockets.

pub mod clock;
pub mod critical_task;
pub mod end_reason;
pub mod error_code;
pub mod heartbeat;
pub mod id;
pub mod metrics;
pub mod quota;
pub mod stream_pattern;
pub mod tasks;
pub mod tombstones;
pub mod units;
