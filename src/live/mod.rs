//! One publisher's frames, handed to all their readers.
//!
//! A [`Tap`] loses nothing; a [`Viewer`] sees clusters of WebM, made once a stream by the muxer, and
//! loses frames in a defined way when it is slow; a [`FrameReader`] likewise, of the frames themselves.

mod frames;
pub mod mjpeg;
mod mux;
mod stream;
mod tap;
mod viewer;

pub use frames::{FrameItem, FrameReader};
pub use mux::Segment;
pub use stream::Stream;
pub use tap::{Item, Stopper, Tap};
pub use viewer::{View, Viewer};

use crate::base::units;
use serde::Deserialize;

/// Section `live` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What viewers of one stream share, in bytes: the pictures since the newest keyframe, with which one
    /// that joins begins, and how far one may be behind.
    #[serde(deserialize_with = "units::size")]
    pub cache: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache: 1 << 20 }
    }
}
