//! One error for every route: JSON `{"code", "message"}`, and on WebSockets a close code.
//!
//! The tables below are the only place where the errors of lower layers become codes and statuses.
//! What has no code of its own is `bad_request` (the caller's mistake) or `internal` (ours).

use crate::auth::AuthError;
use crate::base::id::BadName;
use crate::base::quota::LimitExceeded;
use crate::catalog::RecordingError;
use crate::http::state::ReplayError;
use crate::ingest::chunks::UploadError;
use crate::publish::PublishError;
use crate::publish::publication::ControlError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::fmt::Display;

/// Seconds after which a refused client may try again: a stream that ends frees its place at once,
/// a restart takes a few seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// The contract's code.
    pub code: &'static str,
    /// What to do.
    pub message: String,
    /// Seconds after which it may go better, if that is known.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error of the contract.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// 400 `bad_request`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 413 `too_large`.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the message is larger than {} KiB: send a smaller one", limit >> 10),
        )
    }

    /// Our fault: the detail goes to the log, the client learns only that.
    pub fn internal(detail: impl Display) -> Self {
        tracing::error!(%detail, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server failed; its log says why: try again, or ask its operator",
        )
    }

    /// What a client reads.
    pub fn body(&self) -> serde_json::Value {
        json!({ "code": self.code, "message": self.message })
    }

    /// The code a WebSocket is closed with (RFC 6455 section 7.4.2 leaves 4000–4999 to applications).
    pub fn close_code(&self) -> u16 {
        4000 + self.status.as_u16()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
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
        let status = match &refusal {
            PublishError::BadSdp(_) => StatusCode::BAD_REQUEST,
            PublishError::UnsupportedCodec => StatusCode::UNPROCESSABLE_ENTITY,
            PublishError::StreamBusy(_) => StatusCode::CONFLICT,
            PublishError::ResumeExpired => StatusCode::GONE,
            PublishError::SessionNotFound => StatusCode::NOT_FOUND,
            PublishError::StaleEtag => StatusCode::PRECONDITION_FAILED,
            PublishError::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            PublishError::LimitReached(_) | PublishError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            PublishError::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<AuthError> for ApiError {
    fn from(denied: AuthError) -> Self {
        let (status, code) = match &denied {
            AuthError::Missing | AuthError::Unknown | AuthError::Expired => {
                (StatusCode::UNAUTHORIZED, "unauthorized")
            }
            AuthError::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            AuthError::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            // The credential may be good, so a client had better keep it and try again.
            AuthError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "limit_reached"),
        };
        let retry_after = if let AuthError::TooMany(seconds) = denied { Some(seconds) } else { None };
        Self { retry_after, ..Self::new(status, code, denied.to_string()) }
    }
}

impl From<LimitExceeded> for ApiError {
    fn from(full: LimitExceeded) -> Self {
        PublishError::from(full).into()
    }
}

impl From<UploadError> for ApiError {
    fn from(fault: UploadError) -> Self {
        let status = match &fault {
            UploadError::BadRequest(_) | UploadError::BadBlob(_) => StatusCode::BAD_REQUEST,
            UploadError::UnsupportedCodec(_) => StatusCode::UNPROCESSABLE_ENTITY,
            UploadError::OffsetMismatch { .. } | UploadError::Replaced => StatusCode::CONFLICT,
            UploadError::Refused(refusal) => return refusal.clone().into(),
        };
        Self::new(status, fault.code(), fault.to_string())
    }
}

impl From<RecordingError> for ApiError {
    fn from(error: RecordingError) -> Self {
        let (status, code) = match &error {
            RecordingError::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            RecordingError::NotFound(_) => (StatusCode::NOT_FOUND, "recording_not_found"),
            RecordingError::Busy(_) => (StatusCode::CONFLICT, "stream_busy"),
            RecordingError::Io(_) => return Self::internal(error),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::NoHook => Self::bad_request(error.to_string()),
            ReplayError::QueueFull => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "limit_reached", error.to_string())
            }
            ReplayError::Record(error) => error.into(),
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let (status, code) = match error {
            ControlError::NotLive => (StatusCode::NOT_FOUND, "stream_not_found"),
            ControlError::NotRecorded => (StatusCode::NOT_FOUND, "recording_not_found"),
            ControlError::Whole => (StatusCode::UNPROCESSABLE_ENTITY, "unsupported_codec"),
            ControlError::Record(error) => return error.into(),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<BadName> for ApiError {
    fn from(bad: BadName) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_name", bad.to_string())
    }
}

/// Answers a path no route has.
pub async fn no_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "bad_request", "there is nothing under this path")
}

/// Answers a path beside `server.base_path`.
pub fn outside(base: &str) -> ApiError {
    let message = format!(
        "this server lives below {base}/ (server.base_path): a proxy in front has to leave that in the path"
    );
    ApiError::new(StatusCode::NOT_FOUND, "bad_request", message)
}

/// Answers a method the route doesn't have; the router adds `Allow`.
pub async fn no_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "bad_request",
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
            assert_eq!((error.status.as_u16(), error.code), (status, code), "{error:?}");
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
