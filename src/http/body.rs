//! Bodies of requests: of the right type, bounded in bytes and in time.

use crate::base::error_code::ErrorCode;
use crate::base::metrics::metrics;
use crate::http::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use std::time::Duration;

/// A body over its bound is read this far and thrown away, so that a client still sending sees the 413
/// rather than a reset connection; beyond it the connection is cut.
const MAX_DISCARD: usize = 16 << 20;

/// Refuses another media type (415).
pub fn expect_type(headers: &HeaderMap, expected: &str) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let message = format!("send {expected}, not {given:?}");
    Err(ApiError::new(ErrorCode::BadType, message))
}

/// The whole body: at most `max` bytes (413), within `time` (408).
pub async fn read(body: Body, max: usize, time: Duration) -> Result<Vec<u8>, ApiError> {
    tokio::time::timeout(time, bytes(body, max)).await.map_err(|_| {
        metrics().refused("time of a body");
        ApiError::with_status(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::BadRequest,
            "the body took too long to arrive",
        )
    })?
}

async fn bytes(body: Body, max: usize) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut seen) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::bad_request("the body broke off"))?;
        seen += chunk.len();
        if seen <= max {
            kept.extend_from_slice(&chunk);
        } else if seen > MAX_DISCARD {
            break;
        }
    }
    if seen <= max {
        return Ok(kept);
    }
    metrics().refused("size of a body");
    Err(ApiError::too_large(max))
}
