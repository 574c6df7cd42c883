//! Logging in: a page takes a token and gives a cookie that stands for it.
//!
//! The cookie is sealed by the server (nothing is kept here), holds what the token allowed, and ends with
//! it, or after [`SESSION`]. Scripts can't read it, other sites' requests don't carry it (`SameSite`), and
//! where they might, it doesn't count: see [`Guard::is_ours`](crate::http::gate::same_origin::Guard::is_ours).

use crate::auth::{AuthError, Grant};
use crate::base::error_code::ErrorCode;
use crate::http::body;
use crate::http::error::ApiError;
use crate::http::gate::credential::{Cookie, Credential, QUERY};
use crate::http::gate::forwarded::ClientAddress;
use crate::http::pages::assets;
use crate::http::percent_encode;
use crate::http::route::Needs;
use crate::http::state::State;
use axum::Json;
use axum::extract::{Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use url::form_urlencoded;

/// How long a user stays logged in: a working day.
const SESSION: SignedDuration = SignedDuration::from_hours(12);
/// A signed token with many patterns is 2 KiB.
const MAX_BODY: usize = 16 << 10;
const BODY_TIME: Duration = Duration::from_secs(10);

/// The cookie that stands for a grant.
pub(in crate::http) fn remember(state: &State, request: &Parts, grant: &Grant) -> Option<HeaderValue> {
    let now = Timestamp::now();
    let until = grant.expires.map_or(now + SESSION, |expires| expires.min(now + SESSION));
    let seconds = until.as_second() - now.as_second();
    Cookie::of(state, request).set(&state.auth.seal_session(grant, until), seconds.max(0))
}

/// The same, unless the browser has a good one.
pub(in crate::http) fn remember_new(state: &State, request: &Parts, grant: &Grant) -> Option<HeaderValue> {
    let known = Cookie::of(state, request).value(&request.headers);
    let good = known.is_some_and(|session| state.auth.open_session(session, Timestamp::now()).is_ok());
    // One for no stream at all is good for what was asked now, and not for the next page.
    if good || grant.streams.is_empty() { None } else { remember(state, request, grant) }
}

/// Sends a browser to log in, and then to where it wanted. Relative, so that it holds below a path of a
/// proxy.
pub(in crate::http) fn redirect(uri: &Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let up = "../".repeat(path.matches('/').count());
    let query = uri.query().map_or_else(String::new, |query| {
        let kept: Vec<_> = query.split('&').filter(|pair| !is_token(pair)).collect();
        if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) }
    });
    let next = percent_encode(&format!("{path}{query}"));
    to(&if next.is_empty() { format!("{up}login") } else { format!("{up}login?next={next}") })
}

fn is_token(pair: &str) -> bool {
    form_urlencoded::parse(pair.as_bytes()).any(|(key, _)| key == QUERY)
}

fn to(location: &str) -> Response {
    let no_store = (header::CACHE_CONTROL, "no-store");
    (StatusCode::SEE_OTHER, [(header::LOCATION, location), no_store]).into_response()
}

/// `next` as a path below this server, whatever it is.
fn local(next: &str) -> String {
    let clean = |c: &char| !c.is_control() && *c != '\\';
    let next: String = next.chars().filter(clean).collect();
    // "./" makes a path even of what looks like a scheme or a host.
    format!("./{}", next.trim_start_matches('/'))
}

/// `GET /login`.
pub async fn page(state: Extract<Arc<State>>, headers: HeaderMap) -> Response {
    if state.auth.asks() { assets::login(state, headers).await } else { to("./") }
}

/// What a form or a script sends.
#[derive(Deserialize)]
struct Entry {
    token: String,
    #[serde(default)]
    next: Option<String>,
}

/// The user who is logged in.
#[derive(Serialize)]
struct Session {
    /// Whether users have to log in.
    asked: bool,
    /// Whose token it is; `null` without a log-in.
    who: Option<String>,
    permissions: Vec<crate::auth::Permission>,
    streams: Vec<crate::auth::Pattern>,
    expires: Option<Timestamp>,
}

impl Session {
    fn of(asked: bool, grant: Option<Grant>) -> Json<Self> {
        Json(match grant {
            Some(Grant { who, permissions, streams, expires }) => {
                Self { asked, who: Some(who.to_string()), permissions, streams, expires }
            }
            None => Self { asked, who: None, permissions: Vec::new(), streams: Vec::new(), expires: None },
        })
    }
}

/// `POST /login`: a token as JSON (`{"token"}`, answered with whose it is) or as a form (`token`, `next`,
/// answered with the way there); the answer sets the cookie.
pub async fn enter(Extract(state): Extract<Arc<State>>, request: Request) -> Result<Response, ApiError> {
    let (request, body) = request.into_parts();
    let bytes = body::read(body, MAX_BODY, BODY_TIME).await?;
    let is_form = body::expect_type(&request.headers, "application/x-www-form-urlencoded").is_ok();
    let entry = if is_form { form(&bytes) } else { json(&request.headers, &bytes)? };
    if !state.auth.asks() {
        return Err(ApiError::bad_request("nobody has to log in here: auth is off"));
    }
    let token = entry.token.trim().to_owned();
    let shown = if token.is_empty() { Credential::Nothing } else { Credential::Token(token) };
    let grant = shown.identify(&state.auth, ClientAddress::of(&request.extensions).0).await?;
    if grant.streams.is_empty() {
        let message = "auth.url knows this token, but doesn't say for which streams, and a log-in has to last \
                       without asking again: let it answer with permissions and streams";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    tracing::info!(who = %grant.who, from = %ClientAddress::of(&request.extensions).0, "logged in");
    let cookie = remember(&state, &request, &grant);
    let mut response = match &entry.next {
        Some(next) if is_form => to(&local(next)),
        _ if is_form => to("./"),
        _ => Session::of(true, Some(grant)).into_response(),
    };
    cookie.map(|cookie| response.headers_mut().append(header::SET_COOKIE, cookie));
    Ok(response)
}

fn form(bytes: &[u8]) -> Entry {
    let find = |wanted| form_urlencoded::parse(bytes).find(|(key, _)| key == wanted);
    let value = |wanted| find(wanted).map(|(_, value)| value.into_owned());
    Entry { token: value("token").unwrap_or_default(), next: value("next") }
}

fn json(headers: &HeaderMap, bytes: &[u8]) -> Result<Entry, ApiError> {
    body::expect_type(headers, "application/json")?;
    // The parser's own message would quote the token.
    serde_json::from_slice(bytes).map_err(|_| ApiError::bad_request("send {\"token\": \"…\"}"))
}

/// `POST /logout`: the browser forgets. A copy of the cookie would be good until it ends.
pub async fn leave(Extract(state): Extract<Arc<State>>, request: Parts) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let cookie = Cookie::of(&state, &request).set("", 0);
    cookie.map(|cookie| response.headers_mut().append(header::SET_COOKIE, cookie));
    response
}

/// `GET /api/session`: who the user is. A cookie that is good no more is none; any other credential that isn't good
/// is refused, so one can be tried here.
pub async fn session(Extract(state): Extract<Arc<State>>, request: Parts) -> Result<Response, ApiError> {
    if !state.auth.asks() {
        return Ok(Session::of(false, None).into_response());
    }
    let shown = Credential::by(&state, Needs::Nothing, &request);
    let grant = match shown.identify(&state.auth, ClientAddress::of(&request.extensions).0).await {
        Ok(grant) => Some(grant),
        Err(AuthError::Missing) => None,
        Err(_) if matches!(shown, Credential::Session(_)) => None,
        Err(denied) => return Err(denied.into()),
    };
    Ok(Session::of(true, grant).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(uri: &str) -> String {
        let response = redirect(&uri.parse().unwrap());
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        response.headers()[header::LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_browser_is_sent_to_log_in_and_its_token_stays_behind() {
        assert_eq!(location("/"), "login");
        assert_eq!(location("/publish?name=a%20b"), "login?next=publish%3Fname%3Da%2520b");
        assert_eq!(location("/watch/cam"), "../login?next=watch%2Fcam");
        assert_eq!(location("/publish?token=secret"), "login?next=publish");
        assert_eq!(location("/publish?a=1&token=secret&b=2"), "login?next=publish%3Fa%3D1%26b%3D2");
    }

    #[test]
    fn what_follows_a_log_in_is_always_a_place_of_ours() {
        let table = [
            ("publish", "./publish"),
            ("/watch/cam?x=1", "./watch/cam?x=1"),
            ("//evil.example/x", "./evil.example/x"),
            ("/\\evil.example", "./evil.example"),
            ("\\\\evil.example", "./evil.example"),
            ("https://evil.example", "./https://evil.example"),
            ("javascript:alert(1)", "./javascript:alert(1)"),
            ("a\r\nset-cookie: x=1", "./aset-cookie: x=1"),
            ("/\t/evil.example", "./evil.example"),
        ];
        for (next, expected) in table {
            assert_eq!(local(next), expected, "{next:?}");
            let base = url::Url::parse("https://here.example/base/login").unwrap();
            let there = base.join(&local(next)).unwrap();
            assert!(there.as_str().starts_with("https://here.example/"), "{next:?} leads to {there}");
        }
    }
}
