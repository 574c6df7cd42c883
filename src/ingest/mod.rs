//! L4: who pushes frames in.

pub mod chunks;
pub mod mjpeg;
