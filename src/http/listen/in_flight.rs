//! Requests under way: a connection of HTTP/2 brings a hundred at a time, and each of them may hold memory,
//! or a file, for as long as its client takes nothing. So each counts as a connection does.

use crate::base::quota::Permit;
use crate::http::error::ApiError;
use crate::http::gate::forwarded::Caller;
use crate::http::state::State;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The middleware: a request has a permit until its answer is taken, or given up.
pub(in crate::http) async fn hold(
    Extract(state): Extract<Arc<State>>,
    Caller(client): Caller,
    request: Request,
    next: Next,
) -> Response {
    match state.requests.enter(client) {
        Ok(permit) => next.run(request).await.map(|body| Body::new(Held { body, _permit: permit })),
        Err(full) => ApiError::from(full).into_response(),
    }
}

/// An answer's body, and its request's permit.
struct Held {
    body: Body,
    _permit: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
