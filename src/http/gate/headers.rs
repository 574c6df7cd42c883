//! How far browsers may trust an answer: the security headers, on every one of them, errors too.
//!
//! One policy for all: an answer that was meant as data is no less of a page once a browser opens it.
//! No HSTS: only what ends TLS knows whether it is there to stay. Not `tower-http`'s header layers: one for each
//! header is longer than a loop.

use crate::http::gate::origin::Origins;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// What is the same on every answer.
static FIXED: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Tokens may be in a page's address, so no other site may see it. Not `no-referrer`: browsers then
    // post forms with `Origin: null`, and a log-in page couldn't be told from a foreign one.
    (header::REFERRER_POLICY, "same-origin"),
    // `self` is also what a page that frames ours can pass on with `allow="camera; microphone"`.
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(self), display-capture=(self), geolocation=(), payment=(), usb=()",
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The headers that configuration decides on.
#[derive(Debug)]
pub struct Policy {
    csp: HeaderValue,
    shared_media: bool,
}

impl Policy {
    /// `ancestors` may frame our pages; if other sites are `listed`, they may show our media.
    pub fn new(ancestors: &Origins, listed: &Origins) -> Option<Self> {
        let csp = HeaderValue::try_from(csp(ancestors)).ok()?;
        Some(Self { csp, shared_media: !listed.is_empty() || !ancestors.is_empty() })
    }

    /// Adds them to those of an answer.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &FIXED {
            // A page that was opened by a link with a token has a stricter one.
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_SECURITY_POLICY, self.csp.clone());
        let resource = HeaderValue::from_static(self.resource_policy(headers));
        headers.insert(RESOURCE_POLICY, resource);
    }

    /// Which pages may load an answer without asking by CORS. Every page may load the library: it is public,
    /// and does nothing that its page may not. `<img>` and `<video>` don't tell the server whose page they are in,
    /// so media is for all pages once some of other sites are listed; its token decides.
    fn resource_policy(&self, headers: &HeaderMap) -> &'static str {
        let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let media = [&b"image/"[..], b"video/", b"audio/", b"multipart/x-mixed-replace"];
        let shared = kind.starts_with(b"text/javascript")
            || (self.shared_media && media.iter().any(|start| kind.starts_with(start)));
        if shared { "cross-origin" } else { "same-origin" }
    }
}

/// Scripts and styles only from files of ours; pictures and media also from memory. `'self'` includes
/// WebSockets of the same host and port (CSP level 3 section 6.7.2.8).
fn csp(ancestors: &Origins) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
         media-src 'self' blob:; connect-src 'self'; worker-src 'self'; object-src 'none'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'self'{}",
        ancestors.csp_sources()
    )
}

#[cfg(test)]
mod tests {
    use crate::auth;
    use crate::http::all_routes;
    use crate::http::testing::{Server, Setup, manifest};
    use reqwest::Response;
    use serde_json::Value;

    const LISTED: &str = "https://app.example.org";
    const FRAMER: &str = "https://portal.example.net";

    /// Every route, with what it answers here: pages, data, errors of each kind.
    const ROUTES: &[(&str, u16)] = &[
        ("GET /", 200),
        ("GET /publish", 200),
        ("GET /record", 200),
        ("GET /camera", 200),
        ("GET /recordings", 200),
        ("GET /watch/cam", 200),
        ("GET /js/onrecord.js", 200),
        ("GET /css/onrecord.css", 200),
        ("GET /img/icon.svg", 200),
        ("GET /js/nothing.js", 404),
        ("GET /dev/reload", 404),
        ("GET /signal", 426),
        ("GET /chunks", 426),
        ("POST /whip/cam", 415),
        ("GET /login", 200),
        ("POST /login", 415),
        ("POST /logout", 204),
        ("OPTIONS /whip/cam", 204),
        ("PATCH /whip/cam/s", 415),
        ("DELETE /whip/cam/s", 200),
        ("OPTIONS /whip/cam/s", 204),
        ("POST /upload", 415),
        ("DELETE /upload", 404),
        ("POST /upload/cam", 415),
        ("DELETE /upload/cam", 404),
        ("GET /stream", 200),
        ("GET /stream/cam", 200),
        ("GET /snapshot/cam.jpg", 404),
        ("GET /live/cam.webm", 404),
        ("GET /api/session", 200),
        ("GET /api/openapi.json", 200),
        ("GET /api/events", 200),
        ("GET /api/streams", 200),
        ("DELETE /api/streams/cam", 204),
        ("POST /api/streams/nobody/recording", 404),
        ("DELETE /api/streams/nobody/recording", 404),
        ("GET /api/recordings", 200),
        ("GET /api/recordings/x", 404),
        ("DELETE /api/recordings/x", 404),
        ("POST /api/recordings/x/hook", 404),
        ("GET /recordings/a.webm", 200),
        ("GET /recordings/nothing.webm", 404),
        ("GET /recordings/a.webm/pictures", 400),
        ("GET /healthz", 200),
        ("GET /readyz", 200),
        ("GET /metrics", 200),
        ("GET /nothing", 404),
        ("PUT /", 405),
    ];

    async fn server(origins: &[&str], ancestors: &[&str]) -> Server {
        let text = |list: &[&str]| list.iter().map(|&entry| entry.to_owned()).collect();
        let setup = Setup {
            auth: auth::Config { mode: auth::Mode::Open, ..Default::default() },
            origins: text(origins),
            ancestors: text(ancestors),
            ..Setup::default()
        };
        let server = Server::start(setup).await;
        server.add(manifest("a", "a.webm", 1_000_000), b"media");
        server
    }

    async fn ask(server: &Server, line: &str, headers: &[(&str, &str)]) -> Response {
        let (method, path) = line.split_once(' ').unwrap();
        let request = server.request(method, path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap()
    }

    fn head<'a>(answer: &'a Response, name: &str) -> &'a str {
        answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Whether a path is one of `/whip/{name}`'s.
    fn is_of(path: &str, template: &str) -> bool {
        let (mut parts, mut wanted) = (path.split('/'), template.split('/'));
        loop {
            match (parts.next(), wanted.next()) {
                (None, None) => return true,
                (Some(_), Some("{*path}")) => return true,
                (Some(part), Some(name)) if part == name || name.starts_with('{') => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn no_route_is_left_out() {
        for route in all_routes() {
            let asked = ROUTES.iter().filter_map(|(line, _)| line.split_once(' '));
            let mut of_route =
                asked.filter(|(method, path)| route.method == *method && is_of(path, route.path));
            assert!(of_route.next().is_some(), "{} {} is not asked", route.method, route.path);
        }
    }

    #[tokio::test]
    async fn every_answer_of_every_route_says_how_far_to_trust_it() {
        let server = server(&[LISTED], &[FRAMER]).await;
        for (line, status) in ROUTES {
            let answer = ask(&server, line, &[]).await;
            assert_eq!(answer.status(), *status, "{line}");
            let csp = head(&answer, "content-security-policy");
            let directives: Vec<_> = csp.split("; ").collect();
            for directive in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "connect-src 'self'",
                "object-src 'none'",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'self' https://portal.example.net",
            ] {
                assert!(directives.contains(&directive), "{line}: no {directive} in {csp:?}");
            }
            assert!(!csp.contains("unsafe") && !csp.contains('*'), "{line}: {csp}");
            assert_eq!(head(&answer, "x-content-type-options"), "nosniff", "{line}");
            assert_eq!(head(&answer, "referrer-policy"), "same-origin", "{line}");
            assert_eq!(head(&answer, "cross-origin-opener-policy"), "same-origin", "{line}");
            assert!(
                head(&answer, "permissions-policy").contains("camera=(self), microphone=(self)"),
                "{line}"
            );
            assert_eq!(head(&answer, "strict-transport-security"), "", "{line}");
            let expected = match line.strip_prefix("GET /") {
                Some("js/onrecord.js" | "img/icon.svg" | "recordings/a.webm" | "stream" | "stream/cam") => {
                    "cross-origin"
                }
                _ => "same-origin",
            };
            assert_eq!(head(&answer, "cross-origin-resource-policy"), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn without_listed_origins_other_sites_load_the_library_and_frame_nothing() {
        let server = server(&[], &[]).await;
        for (line, _) in ROUTES {
            let answer = ask(&server, line, &[]).await;
            let csp = head(&answer, "content-security-policy");
            assert!(csp.ends_with("frame-ancestors 'self'"), "{line}: {csp}");
            let expected = if *line == "GET /js/onrecord.js" { "cross-origin" } else { "same-origin" };
            assert_eq!(head(&answer, "cross-origin-resource-policy"), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn an_origin_that_may_publish_may_not_frame_our_pages_for_that() {
        let server = server(&[LISTED], &[]).await;
        let page = ask(&server, "GET /publish", &[]).await;
        assert!(!head(&page, "content-security-policy").contains("example.org"), "{page:?}");
    }

    #[tokio::test]
    async fn only_listed_origins_are_let_in_by_cors_on_any_route() {
        let server = server(&[LISTED], &[FRAMER]).await;
        let preflight = ("access-control-request-method", "POST");
        for (line, _) in ROUTES {
            let path = line.split_once(' ').unwrap().1;
            for origin in ["", "null", "https://evil.example", "http://app.example.org", FRAMER, LISTED] {
                let from = [("origin", origin)];
                let from = if origin.is_empty() { &from[..0] } else { &from[..] };
                let asked = [from, &[preflight]].concat();
                let allowed = if origin == LISTED { LISTED } else { "" };
                for answer in
                    [ask(&server, line, from).await, ask(&server, &format!("OPTIONS {path}"), &asked).await]
                {
                    assert_eq!(head(&answer, "access-control-allow-origin"), allowed, "{line} of {origin:?}");
                    // A cookie of ours never speaks for a page of another site.
                    assert_eq!(head(&answer, "access-control-allow-credentials"), "", "{line} of {origin:?}");
                    assert!(head(&answer, "vary").contains("origin"), "{line}: a cache would mix origins up");
                    if allowed.is_empty() {
                        let told = ["methods", "headers"].map(|what| format!("access-control-allow-{what}"));
                        assert!(
                            told.iter().all(|name| head(&answer, name).is_empty()),
                            "{line} of {origin:?}"
                        );
                    }
                }
            }
        }
        let denied = ask(&server, "POST /api/recordings/x/hook", &[("origin", FRAMER)]).await;
        let denied: Value = denied.json().await.unwrap();
        assert_eq!(denied["code"], "origin_denied", "to frame is not to publish");
    }
}
