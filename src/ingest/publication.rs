//! A publication: one name's claim by one publisher, over all its sessions.

use crate::base::id::{RecordingId, StreamName};
use crate::media::Codec;
use crate::record::Manifest;
use jiff::Timestamp;
use serde::Serialize;

/// What a publisher is told.
#[derive(Clone, Debug)]
pub enum Status {
    /// Accepted; no media yet.
    Pending,
    /// The recorder has its first frame (or, unrecorded, media flows).
    Publishing,
    /// Over: a file is sealed, or nothing was to be recorded.
    Unpublished {
        /// The sealed recording.
        recording: Option<Box<Manifest>>,
        /// Why it ended.
        reason: crate::base::reason::EndReason,
    },
    /// Over, and nothing was recorded.
    Failed {
        /// The contract's error code.
        code: &'static str,
        /// What to do.
        message: String,
    },
}

impl Status {
    /// The contract's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Publishing => "PUBLISHING",
            Self::Unpublished { .. } => "UNPUBLISHED",
            Self::Failed { .. } => "FAILED",
        }
    }

    /// Whether nothing comes after it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unpublished { .. } | Self::Failed { .. })
    }
}

/// One publication, as `GET /api/streams` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamInfo {
    /// Its name.
    pub stream: StreamName,
    /// [`Status::word`].
    pub status: &'static str,
    /// How it came in: `webrtc`.
    pub via: &'static str,
    /// Wall time of its first offer.
    pub started_at: Timestamp,
    /// The recording under way.
    pub recording: Option<RecordingId>,
    /// What it sends.
    pub tracks: Vec<Codec>,
}
