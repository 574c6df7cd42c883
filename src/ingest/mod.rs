//! L4: who pushes frames in.

pub mod publication;
pub mod webrtc;
