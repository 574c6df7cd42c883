//! From where requests are served, and from which pages.
//!
//! With `auth.mode = "off"` and no tokens a request must come from this machine, ask for this machine, and show
//! no sign of a proxy: a proxy in front, or a page that points its own name at 127.0.0.1 (DNS
//! rebinding), must not open the server to the world. In every mode a page of a foreign origin can
//! neither open a WebSocket nor change anything. What isn't a browser sends no `Origin` and passes. What the
//! caller may do is [`crate::http::gate::authorize`]'s.
//!
//! Not `tower-http`'s CORS layer: it answers every OPTIONS request itself, WHIP's own (RFC 9725 section 4.2) too,
//! and gives methods and headers to origins that aren't listed.

use crate::auth;
use crate::base::error_code::ErrorCode;
use crate::http::Config;
use crate::http::error::ApiError;
use crate::http::gate::forwarded::Requested;
use crate::http::gate::headers::Policy;
use crate::http::gate::origin::{self, Origins};
use crate::http::route::{HEALTHZ, READYZ};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use url::{Origin, Url};

/// Headers that only proxies send, besides all of `X-Forwarded-*`.
const PROXY_HEADERS: [&str; 6] =
    ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];

/// What a listed origin's scripts may read of an answer, beyond its body: WHIP's session, its
/// generation, its ICE servers, a JPEG stream's secret.
const EXPOSED: &str =
    "Location, ETag, Link, Retry-After, Content-Disposition, Content-Range, Onrecord-Resume";
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PATCH, DELETE, OPTIONS";
const ALLOWED_HEADERS: &str = "Authorization, Content-Type, If-Match, If-None-Match, Range, Onrecord-Resume";
/// Seconds a browser may reuse a preflight: Chromium's own upper bound.
const PREFLIGHT_AGE: &str = "7200";

/// Decides which requests are served.
pub struct Guard {
    local_only: bool,
    origins: Origins,
    public: Option<Origin>,
    policy: Policy,
}

impl Guard {
    /// Reads the settings it needs; the error lists every one that can't be used.
    pub fn new(config: &Config, auth: &auth::Config) -> Result<Self, Vec<String>> {
        let public = public_origin(&config.public_url);
        let mut problems = Vec::new();
        let mut listed = |key: &str, entries: &[String]| {
            Origins::parse(key, entries).unwrap_or_else(|bad| {
                problems.extend(bad);
                Origins::default()
            })
        };
        let origins = listed("server.cors_origins", &config.cors_origins);
        let ancestors = listed("server.frame_ancestors", &config.frame_ancestors);
        if public.is_none() && !config.public_url.is_empty() {
            problems.push(format!(
                "server.public_url: expected \"https://record.example.org\", found {:?}",
                config.public_url
            ));
        }
        match Policy::new(&ancestors, &origins) {
            Some(policy) if problems.is_empty() => {
                let local_only = auth.mode == auth::Mode::Off && !auth.asks();
                Ok(Self { local_only, origins, public, policy })
            }
            _ => Err(problems),
        }
    }

    pub(super) fn admit(&self, peer: SocketAddr, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let asked = Requested::of(request);
        if self.local_only && !is_local(peer, &asked, request) && !is_probe(request.uri()) {
            return Err(ApiError::new(
                ErrorCode::Unauthorized,
                "this server serves only its own machine: open it as http://localhost without a proxy, or \
                 let its operator set auth.tokens for those who may, or auth.mode = \"open\" to serve everybody",
            ));
        }
        let foreign = headers.contains_key(header::ORIGIN) && !self.is_own(&asked, headers);
        if changes_something(request) && foreign && self.listed_origin(headers).is_none() {
            return Err(ApiError::new(
                ErrorCode::OriginDenied,
                "pages of this origin may do nothing here: add it to server.cors_origins, or if it is this \
                 server's own behind a proxy, set server.public_url",
            ));
        }
        Ok(())
    }

    /// The page's origin, if it is listed.
    pub(super) fn listed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let listed = foreign_origin(headers).is_some_and(|origin| self.origins.lists(&origin));
        headers.get(header::ORIGIN).filter(|_| listed)
    }

    /// Whether a request comes from a page of ours, or from an address bar or a link: only then a cookie says
    /// what its user wants. Requests of other pages carry it too, if those are of the same site
    /// (RFC 6265bis section 5.2), such as another port or a sibling domain.
    pub(in crate::http) fn is_ours(&self, request: &Parts) -> bool {
        let headers = &request.headers;
        if headers.contains_key(header::ORIGIN) && !self.is_own(&Requested::of_parts(request), headers) {
            return false;
        }
        let value = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        match value("sec-fetch-site") {
            // Browsers don't send it on plain HTTP.
            None | Some(b"same-origin" | b"none") => true,
            Some(_) => {
                value("sec-fetch-mode") == Some(b"navigate") && value("sec-fetch-dest") == Some(b"document")
            }
        }
    }

    /// Whether a page of ours leads here, or the address bar: browsers send that, except on plain HTTP off their
    /// own machine.
    pub(in crate::http) fn is_deliberate(request: &Parts) -> bool {
        let site = request.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        matches!(site, Some(b"same-origin" | b"none"))
    }

    /// Whether browsers reach the server over TLS.
    pub(in crate::http) fn is_https(&self, request: &Parts) -> bool {
        let public = matches!(&self.public, Some(Origin::Tuple(scheme, ..)) if scheme == "https");
        public || Requested::of_parts(request).is_encrypted()
    }

    /// Whether the page that asks was served from here. Behind a TLS proxy that is not trusted only
    /// `server.public_url` knows the scheme; without it HTTP and HTTPS of the same host and port both count.
    fn is_own(&self, asked: &Requested, headers: &HeaderMap) -> bool {
        let Some(origin @ Origin::Tuple(scheme, ..)) = &foreign_origin(headers) else { return false };
        let host = asked.host.as_deref();
        let scheme = asked.scheme.unwrap_or(scheme);
        let Some(asked) = host.and_then(|host| origin::web_origin(&format!("{scheme}://{host}"))) else {
            return self.public.as_ref() == Some(origin);
        };
        match &self.public {
            Some(public) if public == origin => true,
            Some(public) if same_authority(public, host) => false,
            _ => asked == *origin,
        }
    }

    /// Adds what browsers must know: CORS for listed origins, and how far to trust the answer.
    pub(super) fn add_headers(&self, response: &mut Response, origin: Option<HeaderValue>) {
        let headers = response.headers_mut();
        if !self.origins.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
        self.policy.add_to(headers);
        let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if kind.starts_with(b"application/json") {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

/// Whether a request only asks how the server is.
pub(super) fn is_probe(uri: &Uri) -> bool {
    matches!(uri.path(), HEALTHZ | READYZ)
}

/// Whether a request comes from this machine, as far as can be seen: a proxy that adds no header, asks by the
/// server's own name and keeps to HTTP/1.1 looks like a browser here.
fn is_local(peer: SocketAddr, asked: &Requested, request: &Request) -> bool {
    let headers = request.headers();
    let named = headers
        .keys()
        .any(|name| name.as_str().starts_with("x-forwarded") || PROXY_HEADERS.contains(&name.as_str()));
    // nginx, as it comes, forwards with a Host of its own and no header of its own, but in
    // HTTP/1.0, which no browser and no WHIP client has spoken for decades.
    let old = request.version() < Version::HTTP_11;
    // Set up for WebSockets it marks every connection as one.
    let lists = |name, value: &str| {
        let lists = headers.get_all(name).iter().filter_map(|list: &HeaderValue| list.to_str().ok());
        lists.flat_map(|list| list.split(',')).any(|one| one.trim().eq_ignore_ascii_case(value))
    };
    let forced = lists(header::CONNECTION, "upgrade") && !headers.contains_key(header::UPGRADE);
    let here = asked.host.as_deref().is_some_and(origin::is_local_host);
    peer.ip().to_canonical().is_loopback() && here && !named && !asked.proxied && !old && !forced
}

/// The page's origin; `None` for `null`, for several, and for what isn't a web page.
fn foreign_origin(headers: &HeaderMap) -> Option<Origin> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next()?.to_str().ok()?;
    origins.next().is_none().then(|| origin::web_origin(origin))?
}

fn same_authority(public: &Origin, host: Option<&str>) -> bool {
    let Origin::Tuple(scheme, ..) = public else { return false };
    host.and_then(|host| origin::web_origin(&format!("{scheme}://{host}"))).as_ref() == Some(public)
}

/// A WebSocket upgrade, or any method that isn't safe (RFC 9110 section 9.2.1).
fn changes_something(request: &Request) -> bool {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    upgrade || !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

pub(super) fn is_preflight(request: &Request) -> bool {
    *request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

pub(super) fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn public_origin(url: &str) -> Option<Origin> {
    let url = Url::parse(url).ok()?;
    origin::web_origin(&url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn guard(mode: auth::Mode, public_url: &str, origins: &[&str]) -> Guard {
        let config = Config {
            public_url: public_url.to_owned(),
            cors_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            ..Config::default()
        };
        Guard::new(&config, &auth::Config { mode, ..Default::default() }).unwrap()
    }

    type Headers<'a> = &'a [(&'a str, &'a str)];

    /// What a request with these headers is refused with.
    fn refused(guard: &Guard, peer: &str, line: &str, headers: Headers<'_>) -> Option<&'static str> {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        guard.admit(peer.parse().unwrap(), &request).err().map(|error| error.code.as_str())
    }

    #[test]
    fn with_auth_off_only_this_machine_is_served() {
        let guard = guard(auth::Mode::Off, "", &[]);
        let local = "127.0.0.1:50000";
        let host = ("host", "localhost:8080");
        let cases: &[(&str, &str, Headers<'_>, bool)] = &[
            (local, "GET /", &[host], true),
            ("[::1]:50000", "GET /", &[("host", "[::1]:8080")], true),
            ("[::ffff:127.0.0.1]:5", "GET /", &[("host", "127.0.0.1")], true),
            ("10.0.0.7:50000", "GET /", &[host], false),
            (local, "GET /", &[("host", "evil.example")], false),
            (local, "GET /", &[("host", "record.example.org")], false),
            (local, "GET /", &[], false),
            (local, "GET /", &[host, ("host", "evil.example")], false),
            (local, "GET http://evil.example/", &[host], false),
            (local, "GET http://localhost:8080/", &[host], true),
            (local, "GET /", &[host, ("forwarded", "for=1.2.3.4")], false),
            (local, "GET /", &[host, ("x-forwarded-for", "127.0.0.1")], false),
            (local, "GET /", &[host, ("X-Forwarded-Proto", "https")], false),
            (local, "GET /", &[host, ("x-real-ip", "127.0.0.1")], false),
            (local, "GET /", &[host, ("via", "1.1 proxy")], false),
            (local, "GET /", &[host, ("connection", "keep-alive, Upgrade")], false),
            (local, "GET /signal", &[host, ("connection", "upgrade"), ("upgrade", "websocket")], true),
            (local, "GET /x", &[host, ("cf-connecting-ip", "1.2.3.4")], false),
            // Containers are probed from other addresses.
            ("10.0.0.7:50000", "GET /healthz", &[("host", "10.0.0.8:8080")], true),
            ("10.0.0.7:50000", "GET /readyz", &[("host", "10.0.0.8:8080")], true),
            ("10.0.0.7:50000", "GET /healthz/x", &[("host", "10.0.0.8:8080")], false),
        ];
        for (peer, line, headers, served) in cases {
            let expected = (!served).then_some("unauthorized");
            assert_eq!(refused(&guard, peer, line, headers), expected, "{peer} {line} {headers:?}");
        }
        let mut old = Request::builder().uri("/").version(Version::HTTP_10).header("host", "localhost");
        old = old.header("connection", "close");
        let old = old.body(Body::empty()).unwrap();
        assert!(guard.admit(local.parse().unwrap(), &old).is_err(), "nginx as it comes opened the server");
    }

    #[test]
    fn open_serves_all_callers_but_foreign_pages_may_only_read() {
        let guard = guard(auth::Mode::Open, "", &["https://app.example.org", "https://*.example.net"]);
        let host = ("host", "record.example.org:8080");
        let from = |origin| ("origin", origin);
        let upgrade = ("upgrade", "websocket");
        let denied = Some("origin_denied");
        let cases: &[(&str, Headers<'_>, Option<&str>)] = &[
            ("GET /", &[host, ("x-forwarded-for", "1.2.3.4")], None),
            ("POST /whip/a", &[host], None),
            ("POST /whip/a", &[host, from("http://record.example.org:8080")], None),
            ("POST /whip/a", &[host, from("https://record.example.org:8080")], None),
            ("POST /whip/a", &[host, from("http://record.example.org")], denied),
            ("POST /whip/a", &[host, from("http://evil.example")], denied),
            ("POST /whip/a", &[host, from("null")], denied),
            ("POST /whip/a", &[host, from("")], denied),
            ("POST /whip/a", &[host, from("https://app.example.org"), from("https://evil.example")], denied),
            ("POST /whip/a", &[host, from("https://app.example.org")], None),
            ("DELETE /api/recordings/x", &[host, from("https://a.example.net")], None),
            ("DELETE /api/recordings/x", &[host, from("https://evil.example")], denied),
            ("PATCH /whip/a/b", &[host, from("https://evil.example")], denied),
            ("PUT /x", &[host, from("https://evil.example")], denied),
            ("GET /api/recordings", &[host, from("https://evil.example")], None),
            ("GET /signal", &[host, upgrade, from("https://evil.example")], denied),
            ("GET /signal", &[host, upgrade, from("null")], denied),
            ("GET /signal", &[host, upgrade, from("https://record.example.org:8080")], None),
            ("GET /signal", &[host, upgrade], None),
            ("OPTIONS /whip/a", &[host, from("https://evil.example")], None),
        ];
        for (line, headers, expected) in cases {
            assert_eq!(refused(&guard, "192.0.2.1:5", line, headers), *expected, "{line} {headers:?}");
        }
    }

    #[test]
    fn a_public_url_settles_the_scheme() {
        let guard = guard(auth::Mode::Open, "https://record.example.org", &[]);
        let post = |host, origin| {
            refused(&guard, "10.0.0.1:5", "POST /whip/a", &[("host", host), ("origin", origin)])
        };
        assert_eq!(post("record.example.org", "https://record.example.org"), None);
        assert_eq!(post("record.example.org", "http://record.example.org"), Some("origin_denied"));
        assert_eq!(post("127.0.0.1:8080", "https://record.example.org"), None, "a proxy that rewrites Host");
        assert_eq!(post("127.0.0.1:8080", "http://127.0.0.1:8080"), None, "past the proxy");
    }

    #[test]
    fn settings_that_cannot_be_used_are_all_named() {
        let config = Config {
            public_url: "record.example.org".to_owned(),
            cors_origins: vec!["*".to_owned(), "https://ok.example".to_owned()],
            frame_ancestors: vec!["https://*".to_owned()],
            ..Config::default()
        };
        let problems = Guard::new(&config, &auth::Config::default()).err().unwrap();
        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(problems[1].starts_with("server.frame_ancestors: "), "{problems:#?}");
    }
}
