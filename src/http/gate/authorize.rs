//! Who may come in: what a request shows is traded for a grant before its handler runs.
//!
//! A credential comes in the header `Authorization: Bearer`; with a WebSocket also as the subprotocol
//! `bearer.<token>`, percent-encoded, beside `onrecord`; and where browsers can set neither (sockets of
//! old libraries, live pictures, pages) as `?token=`. People who logged in have a cookie. It speaks for
//! them only from pages of ours: to a page of another origin, listed or not, it is no credential.

use crate::auth::{AccessRequest, Auth, AuthError, Grant, Permission};
use crate::base::id::{Secret, StreamName};
use crate::http::error::ApiError;
use crate::http::gate::forwarded::ClientAddress;
use crate::http::gate::login::{self, Cookie};
use crate::http::gate::same_origin::Guard;
use crate::http::publish::upload::RESUME;
use crate::http::route::{Needs, Route};
use crate::http::socket;
use crate::http::state::State;
use crate::ingest::mjpeg::DEFAULT;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use url::form_urlencoded;

/// The subprotocol of every socket; a browser that offers some wants one of them selected.
pub(in crate::http) const SUBPROTOCOL: &str = "onrecord";
/// What a subprotocol that is a credential begins with.
const BEARER: &str = "bearer.";
/// How often the credential of somebody who is served for longer is looked at again.
const RECHECK: Duration = Duration::from_secs(60);
/// The key of a credential in a query.
pub(in crate::http) const QUERY: &str = "token";

/// What whoever made the request may do.
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

/// A credential, and what kind it is.
#[derive(Clone)]
pub(in crate::http) enum Credential {
    Nothing,
    /// For [`Auth::authorise`].
    Token(String),
    /// A log-in of ours.
    Session(String),
    /// A link to the one file that the request is for.
    Link,
}

impl Access {
    /// Whether its credential, when the request came, allowed that with this stream. For lists.
    pub fn may(&self, permission: Permission, stream: &StreamName) -> bool {
        self.grant.allows(permission, Some(stream))
    }

    /// Comes when what was granted is over, for whoever is served as long as it is: at the grant's end, or when
    /// the credential turns out to be good no more, or for something else.
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
                // Whoever was let in isn't put out because nobody can be asked.
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

impl Credential {
    async fn authorise(
        &self,
        auth: &Auth,
        permission: Permission,
        stream: Option<&StreamName>,
        from: IpAddr,
    ) -> Result<Grant, AuthError> {
        let credential = match self {
            Self::Nothing => None,
            Self::Link => return Ok(Grant::everything("a link")),
            Self::Token(token) => Some(token.as_str()),
            Self::Session(session) => {
                let grant = auth.open_session(session, Timestamp::now())?;
                return if grant.allows(permission, stream) { Ok(grant) } else { Err(AuthError::Forbidden) };
            }
        };
        auth.authorise(AccessRequest { credential, permission, stream, from }).await
    }

    /// The grant, whatever it allows.
    pub async fn identify(&self, auth: &Auth, from: IpAddr) -> Result<Grant, AuthError> {
        match self {
            Self::Session(session) => auth.open_session(session, Timestamp::now()),
            Self::Token(token) => auth.identify(Some(token), from).await,
            Self::Nothing | Self::Link => auth.identify(None, from).await,
        }
    }

    /// What a request shows, by whatever of the ways that its route knows; the more deliberate first.
    pub fn by(state: &State, needs: Needs, request: &Parts) -> Self {
        let headers = &request.headers;
        let upgrade = socket::is_wanted(headers);
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        if let Some(token) = bearer(headers) {
            return Self::Token(token);
        }
        if upgrade && let Some(token) = subprotocol(headers) {
            return Self::Token(token);
        }
        if (upgrade || reads && matches!(needs, Needs::View | Needs::Login | Needs::Any))
            && let Some(token) = query(request)
        {
            return Self::Token(token);
        }
        let cookie = Cookie::of(state, request).value(headers).map(str::to_owned);
        cookie.filter(|_| state.guard.is_ours(request)).map_or(Self::Nothing, Self::Session)
    }
}

/// The middleware before each handler: nobody passes without what the route needs.
pub(in crate::http) async fn admit(
    Extract((state, route)): Extract<(Arc<State>, Arc<Route>)>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let (mut request, body) = request.into_parts();
    let from = ClientAddress::of(&request.extensions).0;
    let admitted = enter(&state, &route, params.ok().as_ref(), &request, from).await;
    let access = match admitted {
        Ok(admitted) => admitted,
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
    // Of a link that brought its token: the next page knows its reader by a cookie. It replaces no other,
    // or a link could make its reader somebody else; nor is there one for a link in a page of another site,
    // which could log its reader in as somebody else. That page's own requests bring the token.
    let linked = route.needs == Needs::Login && state.auth.asks() && query(&request).is_some();
    let deliberate = linked && Guard::is_deliberate(&request);
    let cookie = if deliberate { login::remember_new(&state, &request, &access.grant) } else { None };
    request.extensions.insert(access);
    let mut response = next.run(Request::from_parts(request, body)).await;
    if linked {
        let headers = response.headers_mut();
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin"));
        cookie.map(|cookie| headers.append(header::SET_COOKIE, cookie));
    }
    response
}

async fn enter(
    state: &State,
    route: &Route,
    params: Option<&RawPathParams>,
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
    let stream = stream_of(route.path, params, &request.headers);
    if let Some(stream) = &stream
        && resumes(state, route, stream, &request.headers)
    {
        return Ok(access(shown, None, nothing()));
    }
    if let Some(file) = param(params, "file").filter(|_| route.needs == Needs::Recordings)
        && let Some(token) = query(request)
    {
        if auth.opens_file(file, &token, Timestamp::now()) {
            return Ok(access(Credential::Link, None, nothing()));
        }
        if matches!(shown, Credential::Nothing) {
            return Err(AuthError::Unknown);
        }
    }
    let grant = shown.authorise(auth, permission, stream.as_ref(), from).await?;
    Ok(access(shown, Some((permission, stream)), grant))
}

fn nothing() -> Grant {
    Grant { permissions: Vec::new(), streams: Vec::new(), ..Grant::everything("nobody") }
}

/// The stream a path names. One that can be no name is left to the handler, which says so.
fn stream_of(path: &str, params: Option<&RawPathParams>, headers: &HeaderMap) -> Option<StreamName> {
    let name = match path {
        "/upload" | "/stream" => DEFAULT,
        "/snapshot/{file}" => param(params, "file")?.strip_suffix(".jpg")?,
        "/live/{name}" if !socket::is_wanted(headers) => param(params, "name")?.strip_suffix(".webm")?,
        _ => param(params, "name")?,
    };
    name.parse().ok()
}

fn param<'a>(params: Option<&'a RawPathParams>, wanted: &str) -> Option<&'a str> {
    params?.iter().find_map(|(key, value)| (key == wanted).then_some(value))
}

/// Whether an image belongs to a stream under way, by the secret that only its publisher has: each one is
/// a request, and a grant that ends must not end a recording.
fn resumes(state: &State, route: &Route, stream: &StreamName, headers: &HeaderMap) -> bool {
    let secret =
        headers.get(RESUME).and_then(|secret| secret.to_str().ok()).filter(|secret| !secret.is_empty());
    route.path.starts_with("/upload")
        && secret.is_some_and(|secret| state.mjpeg.is_held_by(stream, &Secret::from_client(secret)))
}

/// The token of the header `Authorization`.
pub(in crate::http) fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn subprotocol(headers: &HeaderMap) -> Option<String> {
    let lists = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
    let token = lists.flat_map(|list| list.split(',')).find_map(|one| one.trim().strip_prefix(BEARER))?;
    let token = percent_decode_str(token).decode_utf8().ok()?;
    (!token.is_empty()).then(|| token.into_owned())
}

fn query(request: &Parts) -> Option<String> {
    let mut pairs = form_urlencoded::parse(request.uri.query()?.as_bytes());
    pairs.find_map(|(key, value)| (key == QUERY && !value.is_empty()).then(|| value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut request = Request::builder();
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap().headers().clone()
    }

    #[test]
    fn a_bearer_is_read_from_its_header_and_nothing_else_is_one() {
        let read = |value| bearer(&headers(&[("authorization", value)]));
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("bearer  abc ").as_deref(), Some("abc"));
        for no in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(read(no), None, "{no:?}");
        }
    }

    #[test]
    fn a_subprotocol_brings_a_token_percent_encoded_or_plain() {
        let name = "sec-websocket-protocol";
        let read = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| (name, *value)).collect();
            subprotocol(&headers(&pairs))
        };
        assert_eq!(read(&["onrecord, bearer.abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer.a%2Fb%3D%3D,onrecord"]).as_deref(), Some("a/b=="));
        assert_eq!(read(&["onrecord", "bearer.abc"]).as_deref(), Some("abc"));
        for no in [&["onrecord"][..], &["onrecord, bearer."], &[], &["bearer.%ff"], &["bearer abc"]] {
            assert_eq!(read(no), None, "{no:?}");
        }
    }

    #[test]
    fn a_query_brings_a_token_wherever_it_stands() {
        let read =
            |uri: &str| query(&Request::builder().uri(uri).body(Body::empty()).unwrap().into_parts().0);
        assert_eq!(read("/live/a?x=1&token=a%2Bb").as_deref(), Some("a+b"));
        for no in ["/live/a", "/live/a?token=", "/live/a?tokens=a", "/live/a?mytoken=a"] {
            assert_eq!(read(no), None, "{no}");
        }
    }

    #[test]
    fn the_stream_is_read_from_the_path_as_its_handler_reads_it() {
        let plain = HeaderMap::new();
        assert_eq!(stream_of("/upload", None, &plain).unwrap().as_str(), "default");
        assert_eq!(stream_of("/stream", None, &plain).unwrap().as_str(), "default");
        assert_eq!(stream_of("/signal", None, &plain), None);
    }
}
