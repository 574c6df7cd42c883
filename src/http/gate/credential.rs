//! What a request shows of its caller.
//!
//! A credential comes in the header `Authorization: Bearer`; with a WebSocket also as the subprotocol
//! `bearer.<token>`, percent-encoded, beside `onrecord`; and where browsers can set neither (sockets of
//! old libraries, live pictures, pages) as `?token=`. People who logged in have a cookie. It counts only from
//! pages of ours: to a page of another origin, listed or not, it is no credential.
//!
//! Not `axum-extra`: of two cookies of a name its jar keeps the last, where browsers send the more specific one
//! first (RFC 6265 section 5.4), and for the header alone it saves no line.

use crate::auth::{AccessRequest, Auth, AuthError, Grant, Permission};
use crate::base::id::StreamName;
use crate::http::route::{Needs, wants_websocket};
use crate::http::state::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use std::net::IpAddr;
use url::form_urlencoded;

/// The subprotocol of every socket; a browser that offers some wants one of them selected.
pub(in crate::http) const SUBPROTOCOL: &str = "onrecord";
/// What a subprotocol that is a credential begins with.
const BEARER: &str = "bearer.";
/// The key of a credential in a query.
pub(in crate::http) const QUERY: &str = "token";
/// A JPEG stream's secret: in the answer to its first image, and in the requests after that.
pub(in crate::http) const RESUME: HeaderName = HeaderName::from_static("onrecord-resume");

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

impl Credential {
    pub async fn authorise(
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

    /// What a request shows in one of the ways that its route takes, the more deliberate first.
    pub fn by(state: &State, needs: Needs, request: &Parts) -> Self {
        let headers = &request.headers;
        let upgrade = wants_websocket(headers);
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

/// The session's cookie, as this request's browser keeps it.
pub(in crate::http) struct Cookie {
    name: &'static str,
    attributes: String,
}

/// The cookie's names: over TLS browsers let no plain-text page set it (RFC 6265bis section
/// 4.1.3), and at the root no sibling's.
const NAMES: [&str; 3] = ["onrecord", "__Secure-onrecord", "__Host-onrecord"];

/// A `Cookie` header with this session, whichever of its names the server goes by.
pub fn cookies(session: &str) -> String {
    NAMES.map(|name| format!("{name}={session}")).join("; ")
}

impl Cookie {
    pub fn of(state: &State, request: &Parts) -> Self {
        let path = state.site.path("/");
        let (name, secure) = match state.guard.is_https(request) {
            true if path == "/" => (2, "; Secure"),
            true => (1, "; Secure"),
            false => (0, ""),
        };
        Self { name: NAMES[name], attributes: format!("; Path={path}; HttpOnly; SameSite=Lax{secure}") }
    }

    /// What a request has under that name.
    pub fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let lists = headers.get_all(header::COOKIE).iter().filter_map(|list| list.to_str().ok());
        let mut pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find_map(|(name, value)| (name == self.name && !value.is_empty()).then_some(value))
    }

    pub fn set(&self, value: &str, seconds: i64) -> Option<HeaderValue> {
        let name = self.name;
        HeaderValue::try_from(format!("{name}={value}; Max-Age={seconds}{}", self.attributes)).ok()
    }
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

pub(in crate::http) fn query(request: &Parts) -> Option<String> {
    let mut pairs = form_urlencoded::parse(request.uri.query()?.as_bytes());
    pairs.find_map(|(key, value)| (key == QUERY && !value.is_empty()).then(|| value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::extract::Request;

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
}
