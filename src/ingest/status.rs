//! Where a publication stands, in the contract's words.

use crate::base::reason::EndReason;
use crate::record::Manifest;

/// What a publisher is told.
#[derive(Clone, Debug)]
pub enum Status {
    /// Accepted; no media yet.
    Pending,
    /// The recorder has its first frame (or, unrecorded, media flows).
    Publishing,
    /// Over, and the file can't be finished for now: that is tried again.
    Sealing {
        /// What the disk says.
        error: String,
    },
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
            // There is no word for it: nothing has ended for who waits for the file.
            Self::Publishing | Self::Sealing { .. } => "PUBLISHING",
            Self::Unpublished { .. } => "UNPUBLISHED",
            Self::Failed { .. } => "FAILED",
        }
    }

    /// Nothing comes after this.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unpublished { .. } | Self::Failed { .. })
    }
}
