//! One error for every route: JSON `{"code", "message"}`, and on WebSockets a close code.
//!
//! Only here the errors of lower layers, and codes, become statuses. What has no code of its own is
//! `bad_request` (the caller's mistake) or `internal` (ours).

use crate::auth::AuthError;
use crate::base::error_code::ErrorCode;
use crate::base::id::BadName;
use crate::base::quota::LimitExceeded;
use crate::catalog::RecordingError;
use crate::hook::ReplayError;
use crate::ingest::chunks::UploadError;
use crate::publish::PublishError;
use crate::publish::publication::ControlError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::fmt::Display;
use utoipa::ToSchema;

/// Seconds after which a refused client may try again: a stream that ends frees its place at once,
/// a restart takes a few seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What a client is told of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ApiError {
    /// HTTP status.
    #[serde(skip)]
    pub status: StatusCode,
    /// For programs.
    pub code: ErrorCode,
    /// What to do.
    pub message: String,
    /// Seconds after which it may go better, if that is known.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error with the status of its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::with_status(status_of(code), code, message)
    }

    /// An error that has a status of its own.
    pub fn with_status(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// 400 `bad_request`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// 413 `too_large`.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the message is larger than {} KiB: send a smaller one", limit >> 10);
        Self::new(ErrorCode::TooLarge, message)
    }

    /// Our fault: the detail goes to the log, the client learns only that.
    pub fn internal(detail: impl Display) -> Self {
        tracing::error!(%detail, "request failed");
        let message = "the server failed; its log says why: try again, or ask its operator";
        Self::new(ErrorCode::Internal, message)
    }

    /// The code a WebSocket is closed with (RFC 6455 section 7.4.2 leaves 4000–4999 to applications).
    pub fn close_code(&self) -> u16 {
        4000 + self.status.as_u16()
    }
}

/// The status of a code's errors, unless HTTP has a more precise one for what happened.
pub const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::BadName | ErrorCode::BadSdp | ErrorCode::BadBlob => {
            StatusCode::BAD_REQUEST
        }
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::OriginDenied => StatusCode::FORBIDDEN,
        ErrorCode::StreamNotFound | ErrorCode::RecordingNotFound | ErrorCode::SessionNotFound => {
            StatusCode::NOT_FOUND
        }
        ErrorCode::StreamBusy | ErrorCode::OffsetMismatch => StatusCode::CONFLICT,
        ErrorCode::ResumeExpired => StatusCode::GONE,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::BadType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::UnsupportedCodec => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::LimitReached => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::WriteError | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            // RFC 9110 section 15.5.2 demands a challenge.
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<PublishError> for ApiError {
    fn from(refusal: PublishError) -> Self {
        let (code, message) = (refusal.code(), refusal.to_string());
        match refusal {
            PublishError::StaleEtag => Self::with_status(StatusCode::PRECONDITION_FAILED, code, message),
            _ => Self::new(code, message),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(denied: AuthError) -> Self {
        let (code, retry_after) = match denied {
            AuthError::Missing | AuthError::Unknown | AuthError::Expired => (ErrorCode::Unauthorized, None),
            AuthError::Forbidden => (ErrorCode::Forbidden, None),
            AuthError::TooMany(seconds) => (ErrorCode::RateLimited, Some(seconds)),
            // The credential may be good, so a client had better keep it and try again.
            AuthError::Unavailable => (ErrorCode::LimitReached, None),
        };
        Self { retry_after, ..Self::new(code, denied.to_string()) }
    }
}

impl From<LimitExceeded> for ApiError {
    fn from(full: LimitExceeded) -> Self {
        PublishError::from(full).into()
    }
}

impl From<UploadError> for ApiError {
    fn from(fault: UploadError) -> Self {
        match fault {
            UploadError::Refused(refusal) => refusal.into(),
            fault => Self::new(fault.code(), fault.to_string()),
        }
    }
}

impl From<RecordingError> for ApiError {
    fn from(error: RecordingError) -> Self {
        let code = match &error {
            RecordingError::DiskFull => ErrorCode::DiskFull,
            RecordingError::NotFound(_) => ErrorCode::RecordingNotFound,
            RecordingError::Busy(_) => ErrorCode::StreamBusy,
            RecordingError::Io(_) => return Self::internal(error),
        };
        Self::new(code, error.to_string())
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::NoHook => Self::bad_request(error.to_string()),
            ReplayError::QueueFull => Self::new(ErrorCode::LimitReached, error.to_string()),
            ReplayError::Record(error) => error.into(),
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::NotLive => ErrorCode::StreamNotFound,
            ControlError::NotRecorded => ErrorCode::RecordingNotFound,
            ControlError::Whole => ErrorCode::UnsupportedCodec,
            ControlError::Record(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

impl From<BadName> for ApiError {
    fn from(bad: BadName) -> Self {
        Self::new(ErrorCode::BadName, bad.to_string())
    }
}

/// Answers a path no route has.
pub async fn no_route() -> ApiError {
    ApiError::with_status(StatusCode::NOT_FOUND, ErrorCode::BadRequest, "there is nothing under this path")
}

/// Answers a path beside `server.base_path`.
pub fn outside(base: &str) -> ApiError {
    let message = format!(
        "this server lives below {base}/ (server.base_path): a proxy in front has to leave that in the path"
    );
    ApiError::with_status(StatusCode::NOT_FOUND, ErrorCode::BadRequest, message)
}

/// Answers a method the route doesn't have; the router adds `Allow`.
pub async fn no_method() -> ApiError {
    ApiError::with_status(
        StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::BadRequest,
        "this path doesn't take this method: see the Allow header",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_status_and_code_of_the_contract() {
        let busy = PublishError::StreamBusy("a".parse().unwrap());
        let table: Vec<(ApiError, u16, &str)> = vec![
            (PublishError::BadSdp("no media".into()).into(), 400, "bad_sdp"),
            (PublishError::UnsupportedCodec.into(), 422, "unsupported_codec"),
            (busy.into(), 409, "stream_busy"),
            (PublishError::ResumeExpired.into(), 410, "resume_expired"),
            (PublishError::SessionNotFound.into(), 404, "session_not_found"),
            (PublishError::StaleEtag.into(), 412, "bad_request"),
            (PublishError::LimitReached("limits.max_streams").into(), 503, "limit_reached"),
            (PublishError::RateLimited("limits.max_streams_per_address").into(), 429, "rate_limited"),
            (LimitExceeded::All("limits.max_viewers").into(), 503, "limit_reached"),
            (LimitExceeded::Own("limits.max_viewers_per_address").into(), 429, "rate_limited"),
            (PublishError::Stopping.into(), 503, "limit_reached"),
            (PublishError::DiskFull.into(), 507, "disk_full"),
            (UploadError::BadRequest("this is out of turn").into(), 400, "bad_request"),
            (UploadError::BadBlob("no WebM".into()).into(), 400, "bad_blob"),
            (UploadError::UnsupportedCodec("A_VORBIS".into()).into(), 422, "unsupported_codec"),
            (UploadError::OffsetMismatch { said: 1, arrived: 2 }.into(), 409, "offset_mismatch"),
            (UploadError::Replaced.into(), 409, "stream_busy"),
            (UploadError::Refused(PublishError::ResumeExpired).into(), 410, "resume_expired"),
            (RecordingError::DiskFull.into(), 507, "disk_full"),
            (RecordingError::NotFound("x".into()).into(), 404, "recording_not_found"),
            (std::io::Error::other("/secret/path").into_api(), 500, "internal"),
            (ReplayError::NoHook.into(), 400, "bad_request"),
            (ReplayError::QueueFull.into(), 503, "limit_reached"),
            (ControlError::NotLive.into(), 404, "stream_not_found"),
            (ControlError::NotRecorded.into(), 404, "recording_not_found"),
            (ControlError::Whole.into(), 422, "unsupported_codec"),
            (ControlError::Record(RecordingError::DiskFull).into(), 507, "disk_full"),
            (BadName::Length(0).into(), 400, "bad_name"),
            (AuthError::Missing.into(), 401, "unauthorized"),
            (AuthError::Unknown.into(), 401, "unauthorized"),
            (AuthError::Expired.into(), 401, "unauthorized"),
            (AuthError::Forbidden.into(), 403, "forbidden"),
            (AuthError::TooMany(7).into(), 429, "rate_limited"),
            (AuthError::Unavailable.into(), 503, "limit_reached"),
        ];
        for (error, status, code) in table {
            assert_eq!((error.status.as_u16(), error.code.as_str()), (status, code), "{error:?}");
            assert_eq!(error.close_code(), 4000 + status);
            assert!(!error.message.contains("/secret"), "a detail got out: {error:?}");
            let retry = error.into_response().headers().contains_key(header::RETRY_AFTER);
            assert_eq!(retry, matches!(status, 429 | 503), "Retry-After on {status}");
        }
    }

    trait IntoApi {
        fn into_api(self) -> ApiError;
    }

    impl IntoApi for std::io::Error {
        fn into_api(self) -> ApiError {
            RecordingError::Io(self).into()
        }
    }
}
