//! Where a publication stands, in the contract's words.

use crate::base::reason::EndReason;
use crate::record::{Manifest, Progress};

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
        reason: EndReason,
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
    /// The contract's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Publishing => "PUBLISHING",
            Self::Unpublished { .. } => "UNPUBLISHED",
            Self::Failed { .. } => "FAILED",
        }
    }

    /// Nothing comes after this.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unpublished { .. } | Self::Failed { .. })
    }

    /// The end that left this file.
    pub(super) fn unpublished(manifest: Box<Manifest>) -> Self {
        let reason = manifest.end_reason.unwrap_or(EndReason::Stopped);
        Self::Unpublished { recording: Some(manifest), reason }
    }

    /// What the end of a recording means to its publisher; `None` while it goes on.
    pub(super) fn last(progress: Progress) -> Option<Self> {
        match progress {
            Progress::Waiting | Progress::Writing => None,
            Progress::Sealed(manifest) => Some(Self::unpublished(manifest)),
            Progress::Empty(_) => Some(Self::Failed {
                code: "bad_request",
                message: "it ended before any decodable frame came: nothing was recorded".to_owned(),
            }),
            Progress::Failed { code, message } => Some(Self::Failed { code, message }),
        }
    }
}
