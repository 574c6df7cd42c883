//! Authorising: what a request shows is traded for a grant before its handler runs.

use crate::auth::{Auth, AuthError, Grant, Permission};
use crate::base::id::{Secret, StreamName};
use crate::http::error::ApiError;
use crate::http::gate::credential::{Credential, RESUME, query};
use crate::http::gate::forwarded::ClientAddress;
use crate::http::gate::login;
use crate::http::gate::same_origin::Guard;
use crate::http::route::{FoundStream, Needs, Route, param};
use crate::http::state::State;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often the credential behind an answer that goes on is checked again.
const RECHECK: Duration = Duration::from_secs(60);

/// What the caller may do.
#[derive(Clone)]
pub struct Access {
    auth: Auth,
    shown: Credential,
    from: IpAddr,
    /// What its credential was asked for when the request came: a permission, with the stream that the path
    /// names; or whatever it allows.
    asked: Option<(Permission, Option<StreamName>)>,
    grant: Grant,
}

impl Access {
    /// Whether its credential, when the request came, allowed that with this stream. For lists.
    pub fn may(&self, permission: Permission, stream: &StreamName) -> bool {
        self.grant.allows(permission, Some(stream))
    }

    /// Resolves when what was granted is over, for answers that go on as long: at the grant's end, or when the
    /// credential turns out to be good no more, or for something else.
    pub async fn over(&self) {
        let mut grant = self.grant.clone();
        while self.auth.asks() && !matches!(self.shown, Credential::Link) {
            let left = grant.expires.map(|expires| expires.duration_since(Timestamp::now()));
            let left = left.map_or(RECHECK, |left| Duration::try_from(left).unwrap_or_default());
            tokio::time::sleep(left.min(RECHECK)).await;
            if grant.expired(Timestamp::now()) {
                return;
            }
            let found = match &self.asked {
                Some((permission, stream)) => {
                    self.shown.authorise(&self.auth, *permission, stream.as_ref(), self.from).await
                }
                None => self.shown.identify(&self.auth, self.from).await,
            };
            match found {
                Ok(now) if (&now.permissions, &now.streams) == (&grant.permissions, &grant.streams) => {
                    grant = now;
                }
                // An answer isn't ended because auth.url can't be asked.
                Err(AuthError::Unavailable | AuthError::TooMany(_)) => {}
                Ok(_) | Err(_) => return,
            }
        }
        std::future::pending().await
    }

    /// Asks what the credential allows now that the stream is known: by a handler, or by a socket, which
    /// outlives grants, for each stream that is begun on it.
    pub async fn asks(&self, permission: Permission, stream: &StreamName) -> Result<(), ApiError> {
        if self.auth.asks() {
            self.shown.authorise(&self.auth, permission, Some(stream), self.from).await?;
        }
        Ok(())
    }
}

/// The middleware before each handler: no request passes without what its route needs.
pub(in crate::http) async fn admit(
    Extract((state, route)): Extract<(Arc<State>, Arc<Route>)>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let (mut request, body) = request.into_parts();
    let from = ClientAddress::of(&request.extensions).0;
    let params = params.ok();
    let stream = route.stream.read(params.as_ref(), &request.headers);
    // What can be no name is left to the handler, which refuses it.
    let name = stream.as_ref().and_then(|found| found.as_ref().ok());
    let access = match authorise(&state, &route, params.as_ref(), name, &request, from).await {
        Ok(access) => access,
        Err(denied @ (AuthError::Missing | AuthError::Unknown | AuthError::Expired))
            if route.needs == Needs::Login =>
        {
            tracing::debug!(%from, path = route.path, %denied, "sent to log in");
            return login::redirect(&request.uri);
        }
        Err(denied) => {
            tracing::debug!(%from, method = %route.method, path = route.path, %denied, "request denied");
            return ApiError::from(denied).into_response();
        }
    };
    // After a link that brought its token the next page knows the user by a cookie. It replaces no other, nor is
    // there one for a link in a page of another site: either could log the user in as somebody else. That page's
    // own requests bring the token.
    let linked = route.needs == Needs::Login && state.auth.asks() && query(&request).is_some();
    let deliberate = linked && Guard::is_deliberate(&request);
    let cookie = if deliberate { login::remember_new(&state, &request, &access.grant) } else { None };
    request.extensions.insert(access);
    stream.map(|found| request.extensions.insert(FoundStream(found)));
    let mut response = next.run(Request::from_parts(request, body)).await;
    if linked {
        let headers = response.headers_mut();
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin"));
        cookie.map(|cookie| headers.append(header::SET_COOKIE, cookie));
    }
    response
}

async fn authorise(
    state: &State,
    route: &Route,
    params: Option<&RawPathParams>,
    stream: Option<&StreamName>,
    request: &Parts,
    from: IpAddr,
) -> Result<Access, AuthError> {
    let auth = &state.auth;
    let access = |shown, asked, grant| Access { auth: auth.clone(), shown, from, asked, grant };
    if !auth.asks() {
        return Ok(access(Credential::Nothing, None, Grant::everything("anybody")));
    }
    let shown = Credential::by(state, route.needs, request);
    let Some(permission) = route.needs.permission() else {
        let grant = match route.needs {
            Needs::Login | Needs::Any => shown.identify(auth, from).await?,
            _ => nothing(),
        };
        return Ok(access(shown, None, grant));
    };
    if let Some(stream) = stream.filter(|_| route.needs == Needs::PublishOrSecret)
        && has_secret(state, stream, &request.headers)
    {
        return Ok(access(shown, None, nothing()));
    }
    if let Some(file) = param(params, "file").filter(|_| route.needs == Needs::RecordingOrLink)
        && let Some(token) = query(request)
    {
        if auth.opens_file(file, &token, Timestamp::now()) {
            return Ok(access(Credential::Link, None, nothing()));
        }
        if matches!(shown, Credential::Nothing) {
            return Err(AuthError::Unknown);
        }
    }
    let grant = shown.authorise(auth, permission, stream, from).await?;
    Ok(access(shown, Some((permission, stream.cloned())), grant))
}

fn nothing() -> Grant {
    Grant { permissions: Vec::new(), streams: Vec::new(), ..Grant::everything("nobody") }
}

/// Whether an image belongs to a stream under way, by the secret that only its publisher has.
fn has_secret(state: &State, stream: &StreamName, headers: &HeaderMap) -> bool {
    let secret = headers.get(RESUME).and_then(|secret| secret.to_str().ok());
    let mut secret = secret.into_iter().filter(|secret| !secret.is_empty()).map(Secret::from_client);
    secret.any(|secret| state.mjpeg.is_held_by(stream, &secret))
}
