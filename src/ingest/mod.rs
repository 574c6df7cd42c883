//! Who pushes frames in.

pub mod chunks;
pub mod mjpeg;
pub mod webrtc;
