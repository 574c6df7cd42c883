//! L2: runs the operator's scripts.

use crate::base::units;
use serde::Deserialize;
use std::time::Duration;

/// Section `hooks` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The script; empty for none. A relative path begins at the configuration file's folder.
    pub on_record: String,
    /// After this long an attempt is ended (TERM, then KILL, to its process group).
    #[serde(deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// Attempts before a job is kept as `failed`.
    pub max_attempts: u32,
    /// Pause after the first failed attempt; it doubles with each further one.
    #[serde(deserialize_with = "units::duration")]
    pub backoff: Duration,
    /// Scripts that may run at the same time.
    pub concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            on_record: "../hooks/on_record_hook.sh".to_owned(),
            timeout: Duration::from_secs(600),
            max_attempts: 10,
            backoff: Duration::from_secs(5),
            concurrency: 8,
        }
    }
}
