//! Publications: which one has a name, and what becomes of each.

mod limits;
pub mod publication;
pub mod registry;
pub mod status;
mod timeline;

pub use limits::Limits;

use crate::base::error_code::ErrorCode;
use crate::base::id::StreamName;
use crate::base::metrics::metrics;
use crate::base::quota::LimitExceeded;
use serde::Serialize;
use utoipa::ToSchema;

/// How media comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RTP, negotiated over `/signal` or WHIP.
    Webrtc,
    /// MediaRecorder's output, over `/chunks`.
    Chunks,
    /// JPEG images, over `/upload`.
    Mjpeg,
}

impl Transport {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webrtc => "webrtc",
            Self::Chunks => "chunks",
            Self::Mjpeg => "mjpeg",
        }
    }
}

/// Why a publisher is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The SDP can't be used.
    #[error("{0}")]
    BadSdp(String),
    /// No codec of the offer can be recorded.
    #[error("none of the offered codecs can be recorded: offer VP8 for video and Opus for audio")]
    UnsupportedCodec,
    /// Another publisher has the name.
    #[error("stream {0} is being published by somebody else: choose another name, or stop it first")]
    StreamBusy(StreamName),
    /// The publication behind this secret is over.
    #[error("this resume secret is over: publish again without it")]
    ResumeExpired,
    /// No such session.
    #[error("there is no such session: it has ended, or the server was restarted")]
    SessionNotFound,
    /// The ETag is another generation's (412).
    #[error("the session has another ETag by now: restart ICE with If-Match: *")]
    StaleEtag,
    /// A limit of the server; try later.
    #[error("the server has reached {0}: try again later")]
    LimitReached(&'static str),
    /// The client's own share of it.
    #[error("you have reached {0}: end something first, or try again later")]
    RateLimited(&'static str),
    /// No space to record.
    #[error("the server's disk is full: nothing can be recorded until space is freed")]
    DiskFull,
    /// The server shuts down.
    #[error("the server is stopping: try again in a moment")]
    Stopping,
}

impl PublishError {
    /// Counts a publisher that is refused.
    pub fn count(&self) {
        metrics().publications.refused.inc([self.code().as_str()]);
    }

    /// The code to tell it by.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadSdp(_) => ErrorCode::BadSdp,
            Self::UnsupportedCodec => ErrorCode::UnsupportedCodec,
            Self::StreamBusy(_) => ErrorCode::StreamBusy,
            Self::ResumeExpired => ErrorCode::ResumeExpired,
            Self::SessionNotFound => ErrorCode::SessionNotFound,
            Self::StaleEtag => ErrorCode::BadRequest,
            Self::LimitReached(_) | Self::Stopping => ErrorCode::LimitReached,
            Self::RateLimited(_) => ErrorCode::RateLimited,
            Self::DiskFull => ErrorCode::DiskFull,
        }
    }
}

impl From<LimitExceeded> for PublishError {
    fn from(full: LimitExceeded) -> Self {
        match full {
            LimitExceeded::Own(limit) => Self::RateLimited(limit),
            LimitExceeded::All(limit) => Self::LimitReached(limit),
        }
    }
}
