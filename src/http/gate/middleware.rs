//! The middlewares before every route.

use crate::http::gate::same_origin::{is_preflight, is_probe, preflight};
use crate::http::listen::connection::Encrypted;
use crate::http::state::State;
use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;

/// Browsers that have been here ask for `https://` by themselves for so long. Long enough for users who come
/// every few weeks, short enough to leave TLS again.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=2592000");

/// The first one: finds out whose request it is, what it asks for, and where below `server.base_path`.
pub(in crate::http) async fn enter(
    Extract(state): Extract<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let site = &state.site;
    let encrypted = request.extensions().get::<Encrypted>().copied();
    // Supervisors ask the server's bare address, and need to know of no certificate and no path.
    let probe = is_probe(request.uri());
    if encrypted == Some(Encrypted(false)) && !probe {
        return site.encrypted(request.uri(), request.headers(), None);
    }
    let (address, asked) = site.forwarded(peer.ip(), &request);
    site.warn_of_unknown_proxy(peer.ip(), request.headers());
    request.extensions_mut().insert(address);
    request.extensions_mut().insert(asked);
    let mut response = match site.strip_base_path(request.uri()) {
        Some(uri) => {
            *request.uri_mut() = uri;
            next.run(request).await
        }
        // `OPTIONS *` and what else has no path.
        None if site.base().is_empty() || probe => next.run(request).await,
        None => site.not_below(request.uri()),
    };
    if site.hsts && encrypted.is_some() {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// Serves only requests that [`Guard`](crate::http::gate::same_origin::Guard) admits, and puts its headers on every
/// answer.
pub(in crate::http) async fn check(
    Extract(state): Extract<Arc<State>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let guard = &state.guard;
    let listed = guard.listed_origin(request.headers()).cloned();
    let mut response = match guard.admit(peer, &request) {
        Err(refusal) => {
            tracing::debug!(%peer, method = %request.method(), code = %refusal.code, "request refused");
            refusal.into_response()
        }
        Ok(()) if listed.is_some() && is_preflight(&request) => preflight(),
        Ok(()) => next.run(request).await,
    };
    guard.add_headers(&mut response, listed);
    response
}
