//! The codes by which programs tell errors apart, the same over HTTP, WebSockets and in the OpenAPI document.

use serde::Serialize;
use std::fmt;
use utoipa::ToSchema;

macro_rules! error_codes {
    ($($variant:ident $code:tt $description:literal)*) => {
        /// What an error is, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        pub enum ErrorCode {
            $(#[doc = $description] #[serde(rename = $code)] $variant,)*
        }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it is sent.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }

            /// What it means.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)*
                }
            }
        }
    };
}

error_codes! {
    BadRequest "bad_request" "the request can't be taken as it is"
    BadName "bad_name"
        "a stream name has 1 to 128 bytes, no / and no \\, no control characters, no leading . or -"
    BadSdp "bad_sdp" "the SDP can't be used"
    BadBlob "bad_blob" "the bytes are no media of the announced kind"
    Unauthorized "unauthorized" "a token is needed, or this one is unknown or over"
    Forbidden "forbidden" "this token is for something else"
    OriginDenied "origin_denied" "the page's origin is neither this server nor in server.cors_origins"
    StreamNotFound "stream_not_found" "nobody is publishing this stream"
    RecordingNotFound "recording_not_found" "there is no such recording"
    SessionNotFound "session_not_found" "there is no such session"
    StreamBusy "stream_busy" "somebody else publishes this stream, or writes this recording"
    OffsetMismatch "offset_mismatch" "the count of bytes doesn't fit what has arrived"
    ResumeExpired "resume_expired" "the publication behind this secret is over"
    TooLarge "too_large" "the body is larger than the server takes"
    BadType "bad_type" "the body is of another media type"
    UnsupportedCodec "unsupported_codec" "the media can't be recorded, or not cut"
    RateLimited "rate_limited" "too many requests from this address: wait"
    LimitReached "limit_reached" "a limit of the server: try again after Retry-After"
    DiskFull "disk_full" "the server's disk is full: nothing can be recorded until space is freed"
    WriteError "write_error" "the server could not write the recording"
    Internal "internal" "the server failed; its log says why"
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
