//! One error for every route: JSON `{"code", "message"}`, and on WebSockets a close code.
//!
//! The tables below are the only place where the errors of lower layers become codes and statuses.
//! What has no code of its own is `bad_request` (the caller's mistake) or `internal` (ours).

use crate::auth::Denied;
use crate::base::id::BadName;
use crate::base::places::Full;
use crate::catalog::RecordingError;
use crate::http::state::NoReplay;
use crate::ingest::chunks::Fault;
use crate::publish::Refusal;
use crate::publish::publication::NoControl;
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

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::BadSdp(_) => StatusCode::BAD_REQUEST,
            Refusal::UnsupportedCodec => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::StreamBusy(_) => StatusCode::CONFLICT,
            Refusal::ResumeExpired => StatusCode::GONE,
            Refusal::SessionNotFound => StatusCode::NOT_FOUND,
            Refusal::StaleEtag => StatusCode::PRECONDITION_FAILED,
            Refusal::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::LimitReached(_) | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, refusal.code(), refusal.to_string())
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let (status, code) = match &denied {
            Denied::Missing | Denied::Unknown | Denied::Expired => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Denied::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            Denied::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            // The credential may be good, so a client had better keep it and try again.
            Denied::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "limit_reached"),
        };
        let retry_after = if let Denied::TooMany(seconds) = denied { Some(seconds) } else { None };
        Self { retry_after, ..Self::new(status, code, denied.to_string()) }
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        Refusal::from(full).into()
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let status = match &fault {
            Fault::BadRequest(_) | Fault::BadBlob(_) => StatusCode::BAD_REQUEST,
            Fault::UnsupportedCodec(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Fault::OffsetMismatch { .. } | Fault::Replaced => StatusCode::CONFLICT,
            Fault::Refused(refusal) => return refusal.clone().into(),
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

impl From<NoReplay> for ApiError {
    fn from(error: NoReplay) -> Self {
        match error {
            NoReplay::NoHook => Self::bad_request(error.to_string()),
            NoReplay::QueueFull => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "limit_reached", error.to_string())
            }
            NoReplay::Record(error) => error.into(),
        }
    }
}

impl From<NoControl> for ApiError {
    fn from(error: NoControl) -> Self {
        let (status, code) = match error {
            NoControl::NotLive => (StatusCode::NOT_FOUND, "stream_not_found"),
            NoControl::NotRecorded => (StatusCode::NOT_FOUND, "recording_not_found"),
            NoControl::Whole => (StatusCode::UNPROCESSABLE_ENTITY, "unsupported_codec"),
            NoControl::Record(error) => return error.into(),
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
        let busy = Refusal::StreamBusy("a".parse().unwrap());
        let table: Vec<(ApiError, u16, &str)> = vec![
            (Refusal::BadSdp("no media".into()).into(), 400, "bad_sdp"),
            (Refusal::UnsupportedCodec.into(), 422, "unsupported_codec"),
            (busy.into(), 409, "stream_busy"),
            (Refusal::ResumeExpired.into(), 410, "resume_expired"),
            (Refusal::SessionNotFound.into(), 404, "session_not_found"),
            (Refusal::StaleEtag.into(), 412, "bad_request"),
            (Refusal::LimitReached("limits.max_streams").into(), 503, "limit_reached"),
            (Refusal::RateLimited("limits.max_streams_per_address").into(), 429, "rate_limited"),
            (Full::All("limits.max_viewers").into(), 503, "limit_reached"),
            (Full::Own("limits.max_viewers_per_address").into(), 429, "rate_limited"),
            (Refusal::Stopping.into(), 503, "limit_reached"),
            (Refusal::DiskFull.into(), 507, "disk_full"),
            (Fault::BadRequest("this is out of turn").into(), 400, "bad_request"),
            (Fault::BadBlob("no WebM".into()).into(), 400, "bad_blob"),
            (Fault::UnsupportedCodec("A_VORBIS".into()).into(), 422, "unsupported_codec"),
            (Fault::OffsetMismatch { said: 1, arrived: 2 }.into(), 409, "offset_mismatch"),
            (Fault::Replaced.into(), 409, "stream_busy"),
            (Fault::Refused(Refusal::ResumeExpired).into(), 410, "resume_expired"),
            (RecordingError::DiskFull.into(), 507, "disk_full"),
            (RecordingError::NotFound("x".into()).into(), 404, "recording_not_found"),
            (std::io::Error::other("/secret/path").into_api(), 500, "internal"),
            (NoReplay::NoHook.into(), 400, "bad_request"),
            (NoReplay::QueueFull.into(), 503, "limit_reached"),
            (NoControl::NotLive.into(), 404, "stream_not_found"),
            (NoControl::NotRecorded.into(), 404, "recording_not_found"),
            (NoControl::Whole.into(), 422, "unsupported_codec"),
            (NoControl::Record(RecordingError::DiskFull).into(), 507, "disk_full"),
            (BadName::Length(0).into(), 400, "bad_name"),
            (Denied::Missing.into(), 401, "unauthorized"),
            (Denied::Unknown.into(), 401, "unauthorized"),
            (Denied::Expired.into(), 401, "unauthorized"),
            (Denied::Forbidden.into(), 403, "forbidden"),
            (Denied::TooMany(7).into(), 429, "rate_limited"),
            (Denied::Unavailable.into(), 503, "limit_reached"),
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
