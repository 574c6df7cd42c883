//! Where a publication stands, as the contract has it.

use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::catalog::Manifest;
use crate::media::{GapReason, Kind};

/// What a publisher is told.
#[derive(Clone, Debug)]
pub enum Status {
    /// Accepted; no media yet.
    Pending(Troubles),
    /// The recorder has its first frame (or, unrecorded, media flows).
    Publishing(Troubles),
    /// Over, and the file can't be finished for now: that is tried again.
    Sealing {
        /// The operating system's message.
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
        /// The error's code.
        code: ErrorCode,
        /// A sentence that says what to do.
        message: String,
    },
}

/// Tracks that should bring something and don't: of pictures and of sound, with the reason of the hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    video: Option<GapReason>,
    audio: Option<GapReason>,
}

impl Troubles {
    /// With this of a kind's track.
    pub fn with(self, kind: Kind, reason: Option<GapReason>) -> Self {
        match kind {
            Kind::Video => Self { video: reason, ..self },
            Kind::Audio => Self { audio: reason, ..self },
        }
    }

    /// What to tell the publisher; `None` where all is well.
    pub fn warning(self) -> Option<&'static str> {
        use GapReason::Undecodable;
        Some(match (self.video, self.audio) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                "Neither picture nor sound reaches the server: check camera and microphone."
            }
            (Some(Undecodable), None) => {
                "The picture that reaches the server can't be used: nothing is seen."
            }
            (None, Some(Undecodable)) => "The sound that reaches the server can't be used: nothing is heard.",
            (Some(_), None) => "No picture reaches the server: check the camera.",
            (None, Some(_)) => "No sound reaches the server: check the microphone.",
        })
    }
}

impl Status {
    /// Nothing has come yet.
    pub const fn pending() -> Self {
        Self::Pending(Troubles { video: None, audio: None })
    }

    /// Media flows.
    pub const fn publishing() -> Self {
        Self::Publishing(Troubles { video: None, audio: None })
    }

    /// What is missing of the media, while there should be some.
    pub fn warning(&self) -> Option<&'static str> {
        let (Self::Pending(troubles) | Self::Publishing(troubles)) = self else { return None };
        troubles.warning()
    }

    /// All that is wrong with it, for operators and publishers.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::Sealing { error } => {
                vec![format!("Its file can't be finished for now, which is tried again: {error}")]
            }
            _ => self.warning().map(str::to_owned).into_iter().collect(),
        }
    }

    /// Notes what a kind's track lacks; whether that is new.
    pub fn note(&mut self, kind: Kind, reason: Option<GapReason>) -> bool {
        let (Self::Pending(troubles) | Self::Publishing(troubles)) = self else { return false };
        let before = std::mem::replace(troubles, troubles.with(kind, reason));
        before != *troubles
    }

    /// As publishers are sent it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending(_) => "PENDING",
            // Sealing has none of its own: for a publisher that waits for the file nothing has ended.
            Self::Publishing(_) | Self::Sealing { .. } => "PUBLISHING",
            Self::Unpublished { .. } => "UNPUBLISHED",
            Self::Failed { .. } => "FAILED",
        }
    }

    /// Nothing comes after this.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unpublished { .. } | Self::Failed { .. })
    }
}
