//! What every layer may use. Nothing here knows of media, files or sockets.

pub mod clock;
pub mod id;
pub mod metrics;
pub mod pattern;
pub mod places;
pub mod pulse;
pub mod reason;
pub mod tasks;
pub mod units;
pub mod vitals;
