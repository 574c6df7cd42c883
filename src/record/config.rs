//! How recordings are written.

use crate::base::units;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Section `record` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where recordings go.
    pub dir: PathBuf,
    /// The longest a frame stays in memory before it is handed to the operating system.
    #[serde(deserialize_with = "units::duration")]
    pub flush_interval: Duration,
    /// How often open files are synced in the background; 0 leaves it to the operating system.
    #[serde(deserialize_with = "units::duration")]
    pub sync_interval: Duration,
    /// Below this much free space recordings end and new ones are refused; 0 waits for the real end.
    #[serde(deserialize_with = "units::size")]
    pub min_free: u64,
    /// How long a publisher that vanished may take to come back into the same recording.
    #[serde(deserialize_with = "units::duration")]
    pub reconnect_grace: Duration,
    /// A longer recording goes on in a new file; 0 is no limit.
    #[serde(deserialize_with = "units::duration")]
    pub max_duration: Duration,
    /// A larger recording goes on in a new file; 0 is no limit.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: u64,
    /// Permissions of recordings and manifests, in octal.
    pub mode: String,
    /// Whether holes of sound are filled with silence, and sound is kept in step for players that put one packet behind
    /// the other.
    pub fill_silence: bool,
    /// How long sound may take to come after pictures of its time, before a hole is filled: the time for
    /// which lost packets are waited for (`webrtc.reorder_window`).
    #[serde(skip)]
    pub reorder_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: "records".into(),
            flush_interval: Duration::from_secs(1),
            sync_interval: Duration::from_secs(5),
            min_free: 512 << 20,
            reconnect_grace: Duration::from_secs(10),
            max_duration: Duration::ZERO,
            max_bytes: 0,
            mode: "0640".to_owned(),
            fill_silence: true,
            reorder_window: Duration::from_secs(1),
        }
    }
}
