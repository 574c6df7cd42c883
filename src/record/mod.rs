//! L3: frames → files → catalogue. Emits events, knows no hook.

mod manifest;

pub use manifest::{
    HookAttempt, HookRecord, HookState, Manifest, ManifestGap, ManifestTrack, RecordingState,
};

use crate::base::id::RecordingId;
use crate::base::reason::EndReason;
use crate::base::units;
use crate::live::Stream;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

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
        }
    }
}

/// How far one recording has come. Each state follows the one above it.
#[derive(Clone, Debug)]
pub enum Progress {
    /// No frame yet.
    Waiting,
    /// The recorder has its first frame.
    Writing,
    /// Sealed, under its final name, its manifest durable.
    Sealed(Box<Manifest>),
    /// The stream ended without a single frame: no file.
    Empty(EndReason),
    /// Nothing could be recorded; the code is the contract's (`disk_full`, …).
    Failed {
        /// The contract's error code.
        code: &'static str,
        /// What to do.
        message: String,
    },
}

/// A recording under way; it ends by itself when its stream ends.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its identifier.
    pub id: RecordingId,
    /// How far it has come.
    pub progress: watch::Receiver<Progress>,
}

/// Why a recording can't start, or a request about one can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space to record.
    #[error("the disk is full: free some space under record.dir")]
    DiskFull,
    /// No such recording.
    #[error("there is no recording {0}")]
    NotFound(String),
    /// Still being written.
    #[error("recording {0} is still being written: stop its stream first")]
    Busy(RecordingId),
    /// Input or output failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The recordings of one folder: starts them, lists them, removes them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recordings {}

impl Recordings {
    /// Starts recording `stream` into a new file.
    pub fn start(&self, _stream: &Stream) -> Result<Recording, Error> {
        unimplemented!()
    }

    /// All recordings, newest first.
    pub fn list(&self) -> Vec<Manifest> {
        unimplemented!()
    }

    /// One recording.
    pub fn get(&self, _id: &RecordingId) -> Option<Manifest> {
        unimplemented!()
    }

    /// The sealed, catalogued recording whose file has this name, and the file's path.
    pub fn by_file(&self, _file: &str) -> Option<(Manifest, PathBuf)> {
        unimplemented!()
    }

    /// Removes a sealed recording's file; the manifest stays, saying `deleted`.
    pub async fn delete(&self, _id: &RecordingId) -> Result<Manifest, Error> {
        unimplemented!()
    }

    /// Changes what the manifest says of the hook, durably.
    pub async fn set_hook(&self, _id: &RecordingId, _hook: HookRecord) -> Result<Manifest, Error> {
        unimplemented!()
    }
}
