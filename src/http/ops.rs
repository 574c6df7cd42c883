//! Liveness and readiness.

use crate::http::error::ApiError;
use crate::http::state::State;
use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `GET /healthz`: the process answers.
pub async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: publishers are taken; 503 while starting and stopping.
pub async fn readyz(Extract(state): Extract<Arc<State>>) -> Result<Json<Value>, ApiError> {
    if state.ready.load(Ordering::Relaxed) {
        return Ok(Json(json!({ "status": "ready" })));
    }
    let message = "the server is starting or stopping: try again in a moment";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "limit_reached", message))
}
