//! What an operator's tools ask: liveness, readiness, metrics.
//!
//! The first two need no credential, so they name what is wrong and never where.

use crate::base::error_code::ErrorCode;
use crate::base::metrics::{Answered, Format, Scrape, metrics as counts};
use crate::http::api::process;
use crate::http::error::ApiError;
use crate::http::state::State;
use crate::record::Condition;
use axum::Json;
use axum::extract::{MatchedPath, Request, State as Extract};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// `GET /healthz`: the process answers and its loops turn; 503 names the one that hangs.
pub async fn healthz(Extract(state): Extract<Arc<State>>) -> Response {
    let now = Instant::now();
    let stuck: Vec<_> = state
        .diagnostics
        .heartbeats
        .iter()
        .filter(|heartbeat| heartbeat.is_stuck(now))
        .map(|heartbeat| heartbeat.name)
        .collect();
    if stuck.is_empty() {
        return Json(json!({ "status": "ok" })).into_response();
    }
    let message = format!("the server hangs ({}): restart it", stuck.join(", "));
    tracing::error!(?stuck, "a loop does not turn any more");
    unavailable(json!({ "code": ErrorCode::Internal, "message": message, "stuck": stuck }))
}

/// `GET /readyz`: publishers are taken, and what they send can be recorded; 503 gives the reasons.
pub async fn readyz(Extract(state): Extract<Arc<State>>) -> Response {
    let condition = state.recordings.condition().await;
    let why: Vec<_> = reasons(&state, condition)
        .into_iter()
        .map(|(reason, message)| json!({ "reason": reason, "message": message }))
        .collect();
    if why.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    let message = "the server takes no publishers at the moment: see the reasons, or try again later";
    unavailable(json!({ "code": ErrorCode::LimitReached, "message": message, "reasons": why }))
}

fn reasons(state: &State, condition: Condition) -> Vec<(&'static str, &'static str)> {
    let hooks_full = state.diagnostics.hooks_full.as_ref().is_some_and(|full| full());
    let all = [
        (!state.ready.load(Ordering::Relaxed), "not_running", "the server is starting or stopping"),
        (!condition.writable, "not_writable", "recordings can't be written: see the log"),
        // A folder that does not answer does not say how full it is.
        (
            condition.writable && !condition.has_space,
            "disk_full",
            "less than record.min_free is free: free some",
        ),
        (hooks_full, "hook_queue_full", "too many hooks wait: see hook_queue in /metrics, and the log"),
    ];
    all.into_iter().filter(|(is, ..)| *is).map(|(_, reason, message)| (reason, message)).collect()
}

fn unavailable(body: Value) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], Json(body)).into_response()
}

/// `GET /metrics`: all counts and present values, as OpenMetrics where that is accepted, else as Prometheus'
/// older text.
pub async fn metrics(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let condition = state.recordings.condition().await;
    // Some milliseconds where thousands of files are open, since each is listed.
    let text = tokio::task::spawn_blocking(move || scrape(&state, condition).text(format)).await;
    let text = text.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    let headers = [(header::CONTENT_TYPE, format.content_type()), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, text).into_response())
}

fn scrape(state: &State, condition: Condition) -> Scrape {
    let mut scrape = Scrape::new(counts());
    let to = &mut scrape;
    to.gauges("build_info", "Always 1", "version", [(env!("CARGO_PKG_VERSION"), 1)]);
    to.gauge("ready", "Whether publishers are taken (1), as /readyz says", {
        u64::from(reasons(state, condition).is_empty())
    });
    let help = "Whether recordings can be written (1)";
    to.gauge("record_dir_writable", help, u64::from(condition.writable));
    if let Some((free, all)) = condition.space {
        to.gauge("record_dir_free_bytes", "Free space where recordings go", free);
        to.gauge("record_dir_size_bytes", "All space where recordings go", all);
    }
    state.viewers.gauges(to);
    state.sockets.gauges(to);
    state.diagnostics.owners.iter().for_each(|add| add(to));
    process::gauges(to);
    scrape
}

/// The middleware that counts requests when they are answered: a WebSocket, or an endless download, as
/// soon as it begins.
pub async fn count(request: Request, next: Next) -> Response {
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => "none".to_owned(),
    };
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let response = next.run(request).await;
    let status = match response.status().as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    counts().http.requests.get_or_create(&Answered { route, method, status }).inc();
    response
}
