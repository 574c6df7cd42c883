//! L4: who pushes frames in.

pub mod publication;
pub mod publications;
mod timeline;
pub mod webrtc;

use serde::Deserialize;

/// Section `limits` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Publications at the same time.
    pub max_streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_streams: 500 }
    }
}
