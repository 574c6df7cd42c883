//! From a request to a WebSocket.

use crate::base::error_code::ErrorCode;
use crate::base::quota::ClientKey;
use crate::http::error::ApiError;
use crate::http::gate::authorize::Access;
use crate::http::gate::credential::SUBPROTOCOL;
use crate::http::gate::forwarded::Caller;
use crate::http::listen::accept::ReassemblyBudget;
use crate::http::socket::Socket;
use crate::http::state::State;
use axum::Extension;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use std::sync::Arc;

/// A request that becomes a WebSocket.
pub struct Upgrade {
    state: Arc<State>,
    access: Access,
    client: Option<ClientKey>,
    unfinished: ReassemblyBudget,
    upgrade: WebSocketUpgrade,
}

/// A WebSocket, and its client.
pub(super) struct Opened {
    pub socket: Socket,
    pub state: Arc<State>,
    pub access: Access,
    pub client: Option<ClientKey>,
}

impl FromRequestParts<Arc<State>> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, ApiError> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await.map_err(|_| {
            let message = format!("open {} as a WebSocket", parts.uri.path());
            ApiError::with_status(StatusCode::UPGRADE_REQUIRED, ErrorCode::BadRequest, message)
        })?;
        type Found = (Caller, Extension<Access>, Extension<ReassemblyBudget>);
        let found = Found::from_request_parts(parts, state).await;
        let (Caller(client), Extension(access), Extension(unfinished)) =
            found.map_err(|_| ApiError::internal("a WebSocket came past the middlewares"))?;
        Ok(Self { state: state.clone(), access, client, unfinished, upgrade })
    }
}

impl Upgrade {
    /// Opens it for messages of so many bytes; what `serve` does with it has a task of this name. A client over
    /// its bound is refused before.
    pub(super) fn open<F: Future<Output = ()> + Send + 'static>(
        self,
        task: &'static str,
        max_message: usize,
        serve: impl FnOnce(Opened) -> F + Send + 'static,
    ) -> Result<Response, ApiError> {
        let Self { state, access, client, unfinished, upgrade } = self;
        let permit = state.sockets.enter(client)?;
        let upgrade =
            upgrade.protocols([SUBPROTOCOL]).max_message_size(max_message).max_frame_size(max_message);
        Ok(upgrade.on_upgrade(async move |socket| {
            state.clone().sockets.tasks.spawn(task, async move {
                let socket = Socket::new(socket, &state.sockets, unfinished);
                serve(Opened { socket, state, access, client }).await;
                drop(permit);
            });
        }))
    }
}
