//! The ways in: what pushes frames to publications.

pub mod chunks;
pub mod mjpeg;
pub mod webrtc;
