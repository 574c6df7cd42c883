//! Who may do what, at every door: each route with every kind of credential, each way to show one.

use crate::support::live::Live;
use crate::support::media;
use crate::support::server::Server;
use crate::support::signalling::Signal;
use crate::support::user::{SOON, eventually, fake, sends};
use jiff::{SignedDuration, Timestamp};
use onrecord::http::all_routes;
use onrecord::http::route::Needs;
use reqwest::header::{self, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const ALL: [&str; 4] = ["publish", "view", "recordings", "admin"];
/// What every token of these tests begins with, to be looked for where none may be.
const MARK: &str = "s3cret-";
const UNKNOWN: &str = "s3cret-nobody-knows";

fn token(name: &str) -> String {
    format!("{MARK}{name}")
}

/// An entry of `auth.tokens`.
fn entry(name: &str, permissions: &[&str], streams: &[&str], expires: Option<Timestamp>) -> String {
    let hash = format!("{:x}", Sha256::digest(token(name)));
    let expires = expires.map(|at| format!(", expires=\"{at}\"")).unwrap_or_default();
    format!(
        "{{name=\"{name}\", hash=\"sha256:{hash}\", permissions={permissions:?}, streams={streams:?}{expires}}}"
    )
}

fn tokens(entries: &[String]) -> String {
    format!("auth.tokens=[{}]", entries.join(", "))
}

/// For each permission: one that has it, one that has it for other streams, one that had it, and one that
/// has all others.
fn every_kind() -> String {
    let (mine, others) = (["a-*", "default"], ["b-*"]);
    let past = Timestamp::now() - SignedDuration::from_hours(1);
    let mut entries = Vec::new();
    for permission in ALL {
        let rest: Vec<_> = ALL.into_iter().filter(|one| *one != permission && *one != "admin").collect();
        entries.push(entry(&format!("right-{permission}"), &[permission], &mine, None));
        entries.push(entry(&format!("other-{permission}"), &[permission], &others, None));
        entries.push(entry(&format!("expired-{permission}"), &[permission], &mine, Some(past)));
        entries.push(entry(&format!("lacks-{permission}"), &rest, &mine, None));
    }
    tokens(&entries)
}

/// One client an address, so that none is taken for somebody who tries tokens.
fn client(last: usize) -> Client {
    let address = Ipv4Addr::new(127, 0, 1, u8::try_from(last % 250).unwrap() + 1);
    Client::builder().local_address(IpAddr::V4(address)).redirect(Policy::none()).build().unwrap()
}

/// Status and code.
async fn told(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    if status == 401 {
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }
    // An upgraded or endless answer has no body to wait for.
    let ends = status >= 400;
    let body = if ends { response.bytes().await.unwrap_or_default() } else { Default::default() };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

/// A recording of JPEG pictures: its manifest.
async fn recorded(server: &Server, stream: &str) -> Value {
    let (client, url) = (client(249), server.url(&format!("/upload/{stream}")));
    let bearer = token("right-publish");
    let post = client.post(&url).bearer_auth(&bearer).header(header::CONTENT_TYPE, "image/jpeg");
    let first = post.body(media::jpegs(1, "320x180").remove(0)).send().await.unwrap();
    assert_eq!(first.status(), 204);
    let secret = first.headers()["onrecord-resume"].clone();
    let ended = client.delete(&url).bearer_auth(&bearer).header("onrecord-resume", secret).send().await;
    let ended: Value = ended.unwrap().json().await.unwrap();
    assert_eq!(ended["status"], "UNPUBLISHED", "{ended}");
    ended["recording"].clone()
}

/// What a row asks.
struct Row {
    method: Method,
    route: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    /// What is answered to whoever may: the status, and of an error the code.
    right: (u16, &'static str),
    /// The same with a token for other streams, where that isn't `forbidden`.
    other: Option<(u16, &'static str)>,
}

impl Row {
    fn new(line: &'static str, path: impl Into<String>, right: (u16, &'static str)) -> Self {
        let (method, route) = line.split_once(' ').unwrap();
        let (headers, other) = (Vec::new(), None);
        Self { method: method.parse().unwrap(), route, path: path.into(), headers, body: "", right, other }
    }

    fn with(mut self, headers: &[(&'static str, &'static str)], body: &'static str) -> Self {
        self.headers.extend(headers);
        self.body = body;
        self
    }

    fn socket(self) -> Self {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let version = ("sec-websocket-version", "13");
        self.with(&[("connection", "Upgrade"), ("upgrade", "websocket"), version, key], "")
    }

    fn others(mut self, other: (u16, &'static str)) -> Self {
        self.other = Some(other);
        self
    }

    async fn ask(&self, client: &Client, server: &Server, bearer: Option<&str>) -> Response {
        let mut request = client.request(self.method.clone(), server.url(&self.path)).body(self.body);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        bearer
            .map(|token| request.try_clone().unwrap().bearer_auth(token))
            .unwrap_or(request)
            .send()
            .await
            .unwrap()
    }
}

/// A row for each route. Whatever lies behind a door says so by an answer of its own.
fn rows(recording: &Value, second: &Value) -> Vec<Row> {
    let (id, file) = (recording["id"].as_str().unwrap(), recording["file"].as_str().unwrap());
    let second = second["id"].as_str().unwrap();
    let (sdp, fragment) =
        (("content-type", "application/sdp"), ("content-type", "application/trickle-ice-sdpfrag"));
    let ok = (200, "");
    let nobody = (404, "stream_not_found");
    let mut rows: Vec<_> = ["/", "/publish", "/record", "/camera", "/recordings"]
        .map(|page| Row { route: page, ..Row::new("GET /", page, ok) })
        .into();
    rows.extend([
        Row::new("GET /watch/{name}", "/watch/a-1", ok),
        Row::new("GET /login", "/login", ok),
        Row::new("POST /login", "/login", (401, "unauthorized"))
            .with(&[("content-type", "application/json")], "{\"token\": \"\"}"),
        Row::new("POST /logout", "/logout", (204, "")),
        Row::new("GET /js/{*path}", "/js/pages/ui.js", ok),
        Row::new("GET /css/{*path}", "/css/onrecord.css", ok),
        Row::new("GET /img/{*path}", "/img/icon.svg", ok),
        Row::new("GET /dev/reload", "/dev/reload", (404, "bad_request")),
        // A socket may be for any stream; each publication is asked for by itself.
        Row::new("GET /signal", "/signal", (101, "")).socket().others((101, "")),
        Row::new("GET /chunks", "/chunks", (101, "")).socket().others((101, "")),
        Row::new("POST /whip/{name}", "/whip/a-1", (400, "bad_sdp")).with(&[sdp], "v=0"),
        Row::new("OPTIONS /whip/{name}", "/whip/a-1", (204, "")),
        Row::new("PATCH /whip/{name}/{session}", "/whip/a-1/x", (404, "session_not_found"))
            .with(&[fragment, ("if-match", "\"x\"")], "a=candidate"),
        Row::new("DELETE /whip/{name}/{session}", "/whip/a-1/x", (404, "session_not_found")),
        Row::new("OPTIONS /whip/{name}/{session}", "/whip/a-1/x", (204, "")),
        Row::new("POST /upload", "/upload", (415, "bad_type")),
        Row::new("DELETE /upload", "/upload", nobody),
        Row::new("POST /upload/{name}", "/upload/a-1", (415, "bad_type")),
        Row::new("DELETE /upload/{name}", "/upload/a-1", nobody),
        Row::new("GET /stream", "/stream", ok),
        Row::new("GET /stream/{name}", "/stream/a-1", ok),
        Row::new("GET /snapshot/{file}", "/snapshot/a-1.jpg", nobody),
        Row::new("GET /live/{name}", "/live/a-1.webm", nobody),
        Row::new("GET /live/{name}", "/live/a-1", (101, "")).socket(),
        Row::new("GET /api/session", "/api/session", ok),
        // Lists have what one may see: nothing, here.
        Row::new("GET /api/streams", "/api/streams", ok).others(ok),
        Row::new("DELETE /api/streams/{name}", "/api/streams/a-1", nobody),
        Row::new("POST /api/streams/{name}/recording", "/api/streams/a-1/recording", nobody),
        Row::new("DELETE /api/streams/{name}/recording", "/api/streams/a-1/recording", nobody),
        // It tells each caller what that one may see.
        Row::new("GET /api/events", "/api/events", ok),
        Row::new("GET /api/openapi.json", "/api/openapi.json", ok),
        Row::new("GET /api/recordings", "/api/recordings", ok).others(ok),
        Row::new("GET /api/recordings/{id}", format!("/api/recordings/{id}"), ok),
        Row::new(
            "POST /api/recordings/{id}/hook",
            format!("/api/recordings/{id}/hook"),
            (400, "bad_request"),
        ),
        Row::new("GET /recordings/{file}", format!("/recordings/{file}"), ok),
        Row::new("GET /recordings/{file}/pictures", format!("/recordings/{file}/pictures"), ok),
        Row::new("DELETE /api/recordings/{id}", format!("/api/recordings/{second}"), (204, "")),
        Row::new("GET /healthz", "/healthz", ok),
        Row::new("GET /readyz", "/readyz", ok),
        // No stream's name is in it.
        Row::new("GET /metrics", "/metrics", ok).others(ok),
    ]);
    rows
}

/// The columns: what is shown, and what the contract answers where a permission is needed.
const COLUMNS: [(&str, (u16, &str)); 5] = [
    ("none", (401, "unauthorized")),
    ("wrong", (401, "unauthorized")),
    ("expired", (401, "unauthorized")),
    ("other", (403, "forbidden")),
    ("lacks", (403, "forbidden")),
];

/// What a row must be answered in a column.
fn expected(row: &Row, needs: Needs, column: &str) -> (u16, &'static str) {
    let contract = COLUMNS.iter().find(|(name, _)| *name == column).map(|(_, answer)| *answer);
    match (needs, column) {
        // The one place that takes every caller, and tells whoever shows a bad token so.
        (Needs::Nothing, "wrong" | "expired") if row.route == "/api/session" => (401, "unauthorized"),
        (Needs::Probe | Needs::Nothing, _) => row.right,
        (Needs::Login, "none" | "wrong" | "expired") => (303, ""),
        (Needs::Login, _) | (Needs::Any, "other" | "lacks") => row.right,
        (_, "other") => row.other.unwrap_or(contract.unwrap()),
        _ => contract.unwrap_or(row.right),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_asks_for_what_it_needs_and_the_log_has_no_token() {
    let server = Server::start(&["hooks.on_record=", "log.level=trace", &every_kind()]);
    let (first, second) = (recorded(&server, "a-rec").await, recorded(&server, "a-rec").await);
    let rows = rows(&first, &second);
    let (mut table, mut wrong) = (String::new(), Vec::new());
    let names = COLUMNS.map(|(name, _)| name).into_iter().chain(["right"]);
    let heading: String = names.clone().map(|name| format!("{name:>22}")).collect();
    writeln!(table, "{:34}{:12}{heading}", "route", "needs").unwrap();
    for route in all_routes() {
        let of_route = |row: &&Row| row.method == route.method && row.route == route.path;
        let rows: Vec<_> = rows.iter().filter(of_route).collect();
        assert!(!rows.is_empty(), "no row for {} {}: add one", route.method, route.path);
        for (nth, row) in rows.into_iter().enumerate() {
            let client = client(table.lines().count() + nth);
            let line = format!("{} {}", route.method, route.path);
            write!(table, "{line:34}{:12}", format!("{:?}", route.needs)).unwrap();
            for column in names.clone() {
                let kind = route
                    .needs
                    .permission()
                    .map_or("view".to_owned(), |one| json!(one).as_str().unwrap().to_owned());
                let bearer = match column {
                    "none" => None,
                    "wrong" => Some(UNKNOWN.to_owned()),
                    kept => Some(token(&format!("{kept}-{kind}"))),
                };
                let answer = row.ask(&client, &server, bearer.as_deref()).await;
                let (status, code) = told(answer).await;
                let expected = expected(row, route.needs, column);
                if (status, code.as_str()) != expected {
                    wrong.push(format!("{line} with {column}: {status} {code}, not {expected:?}"));
                }
                write!(table, "{:>22}", format!("{status} {code}")).unwrap();
            }
            table.push('\n');
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(rows.len(), table.lines().count() - 1, "rows for routes that there are not");

    // What others may see of the lists.
    let lists = async |name: &str, path: &str| -> Value {
        let answer = client(0).get(server.url(path)).bearer_auth(token(name)).send().await.unwrap();
        answer.json().await.unwrap()
    };
    assert_eq!(lists("other-recordings", "/api/recordings").await, json!([]));
    let left = lists("right-recordings", "/api/recordings").await;
    assert_eq!(left.as_array().unwrap().len(), 1, "one of two was deleted: {left}");

    let output = server.output();
    assert!(output.matches("request denied").count() > 50, "a log this short proves nothing:\n{output}");
    let leaked: Vec<_> = output.lines().filter(|line| line.contains(MARK)).collect();
    assert!(leaked.is_empty(), "tokens in the log: {leaked:#?}");
    println!("{} lines of log, no token", output.lines().count());
}

/// One token for everything of streams `a-*`.
fn studio() -> String {
    tokens(&[entry("studio", &["publish", "view", "recordings"], &["a-*"], None)])
}

async fn cookie_of(server: &Server) -> String {
    let entered =
        client(0).post(server.url("/login")).json(&json!({ "token": token("studio") })).send().await;
    let entered = entered.unwrap();
    assert_eq!(entered.status(), 200);
    let cookie = entered.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    println!("{} bytes of cookie", cookie.len());
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(attribute), "no {attribute}: {cookie}");
    }
    assert!(!cookie.contains(MARK));
    let who: Value = entered.json().await.unwrap();
    assert_eq!((&who["who"], &who["asked"]), (&json!("studio"), &json!(true)), "{who}");
    cookie.split(';').next().unwrap().to_owned()
}

async fn with(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = client(0).request(method, server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    told(request.send().await.unwrap()).await
}

/// What a handshake is answered: its headers, or status.
async fn handshake(url: &str, headers: &[(&str, &str)]) -> Result<HeaderMap, u16> {
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        let name: header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok((_, response)) => Ok(response.headers().clone()),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(other) => panic!("{url}: {other}"),
    }
}

#[tokio::test]
async fn a_token_is_read_where_a_browser_can_put_it_and_nowhere_else() {
    let server = Server::start(&["hooks.on_record=", "log.level=trace", &studio()]);
    let token = token("studio");
    let offered = format!("onrecord, bearer.{token}");
    for path in ["/signal", "/chunks", "/live/a-1"] {
        let url = server.ws_url(path);
        let selected = handshake(&url, &[("sec-websocket-protocol", &offered)]).await.unwrap();
        assert_eq!(selected["sec-websocket-protocol"], "onrecord", "{path}");
        assert!(handshake(&format!("{url}?token={token}"), &[]).await.is_ok(), "{path}");
        assert!(handshake(&url, &[("authorization", &format!("Bearer {token}"))]).await.is_ok(), "{path}");
        assert_eq!(handshake(&url, &[("sec-websocket-protocol", "onrecord")]).await.err(), Some(401));
        assert_eq!(handshake(&format!("{url}?token={UNKNOWN}"), &[]).await.err(), Some(401));
    }
    let get = Method::GET;
    let with_query =
        async |method, path: &str| with(&server, method, &format!("{path}?token={token}"), &[]).await;
    for path in ["/live/a-1.webm", "/snapshot/a-1.jpg"] {
        assert_eq!(with_query(get.clone(), path).await, (404, "stream_not_found".into()), "{path}");
    }
    assert_eq!(with_query(get.clone(), "/stream/a-1").await.0, 200, "it waits for its camera");
    assert_eq!(with_query(get.clone(), "/publish").await.0, 200);
    // Addresses are kept in histories and logs: what can carry a header must.
    for (method, path) in [
        (Method::POST, "/whip/a-1"),
        (Method::POST, "/upload/a-1"),
        (get.clone(), "/api/recordings"),
        (get.clone(), "/recordings/x.webm"),
    ] {
        assert_eq!(with_query(method, path).await, (401, "unauthorized".into()), "{path}");
    }
    let link = |site: &str| {
        let request = client(0).get(server.url(&format!("/publish?token={token}")));
        if site.is_empty() { request } else { request.header("sec-fetch-site", site) }
    };
    for (site, remembered) in
        [("none", true), ("same-origin", true), ("cross-site", false), ("same-site", false), ("", false)]
    {
        let page = link(site).send().await.unwrap();
        assert_eq!(page.status().as_u16(), 200);
        assert_eq!(page.headers()[header::REFERRER_POLICY], "strict-origin");
        let cookie = page.headers().get(header::SET_COOKIE).map(|cookie| cookie.to_str().unwrap());
        assert_eq!(cookie.is_some_and(|cookie| cookie.starts_with("onrecord=")), remembered, "{site:?}");
    }
    let cookie = cookie_of(&server).await;
    let again = link("none").header(header::COOKIE, cookie).send().await.unwrap();
    assert!(!again.headers().contains_key(header::SET_COOKIE), "a link made its reader somebody else");
    let sent = client(0).get(server.url("/publish?name=x&token=s3cret-old")).send().await.unwrap();
    assert_eq!(sent.headers()[header::LOCATION], "login?next=publish%3Fname%3Dx");
    assert!(!server.output().contains(MARK), "a token in the log");
}

#[tokio::test]
async fn a_cookie_speaks_for_its_owner_from_our_own_pages_only() {
    let server = Server::start(&[
        "hooks.on_record=",
        "server.cors_origins=[\"https://app.example.org\", \"http://127.0.0.1:1\"]",
        &studio(),
    ]);
    let session = cookie_of(&server).await;
    let cookie = ("cookie", session.as_str());
    let list = async |headers: &[(&str, &str)]| with(&server, Method::GET, "/api/recordings", headers).await;
    let (good, denied) = ((200, String::new()), (401, "unauthorized".to_owned()));
    assert_eq!(list(&[cookie]).await, good);
    assert_eq!(list(&[]).await, denied);
    assert_eq!(list(&[("cookie", "onrecord=forged.for.this")]).await, denied);
    assert_eq!(list(&[cookie, ("sec-fetch-site", "same-origin")]).await, good);
    // Listed pages may come with a token of their own; the cookie is not theirs. A page on another port
    // of the host is of the same site, and its requests carry the cookie.
    for origin in ["https://app.example.org", "http://127.0.0.1:1", "https://evil.example", "null"] {
        assert_eq!(list(&[cookie, ("origin", origin)]).await, denied, "{origin}");
        let post = with(&server, Method::POST, "/whip/a-1", &[cookie, ("origin", origin)]).await;
        assert!(matches!(post.0, 401 | 403), "{origin}: {post:?}");
        let socket = handshake(&server.ws_url("/signal"), &[cookie, ("origin", origin)]).await;
        assert!(matches!(socket, Err(401 | 403)), "{origin}: {socket:?}");
    }
    for site in ["same-site", "cross-site"] {
        assert_eq!(list(&[cookie, ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")]).await, denied);
        let link = [
            cookie,
            ("sec-fetch-site", site),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(with(&server, Method::GET, "/publish", &link).await.0, 200, "a link from elsewhere");
        let frame =
            [cookie, ("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        assert_eq!(with(&server, Method::GET, "/publish", &frame).await.0, 303, "a frame elsewhere");
    }
    // Our own pages.
    let own = server.base.clone();
    assert_eq!(with(&server, Method::POST, "/whip/a-1", &[cookie, ("origin", &own)]).await.0, 415);
    assert!(handshake(&server.ws_url("/signal"), &[cookie, ("origin", &own)]).await.is_ok());
    // A form, as browsers send it; a page of another origin can't log anybody in.
    let form = client(0)
        .post(server.url("/login"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(format!("token={}&next=%2F%2Fevil.example%2F", token("studio")));
    let entered = form.try_clone().unwrap().send().await.unwrap();
    assert_eq!(
        (entered.status().as_u16(), &entered.headers()[header::LOCATION]),
        (303, &"./evil.example/".parse().unwrap())
    );
    let foreign = told(form.header("origin", "https://evil.example").send().await.unwrap()).await;
    assert_eq!(foreign, (403, "origin_denied".into()));
    let left = client(0).post(server.url("/logout")).header("cookie", &session).send().await.unwrap();
    assert!(left.headers()[header::SET_COOKIE].to_str().unwrap().starts_with("onrecord=; Max-Age=0"));
}

/// A `/signal` socket for whoever has this token.
async fn signal(server: &Server, token: &str) -> Signal {
    Signal::connect(&format!("{}?token={token}", server.ws_url("/signal"))).await
}

#[tokio::test]
async fn each_publication_of_a_socket_is_asked_for_by_its_name() {
    let server = Server::start(&["hooks.on_record=", &studio()]);
    let token = token("studio");
    let (_live, offer) = Live::start(fake).await;
    let mut socket = signal(&server, &token).await;
    let denied = socket.publish("b-1", &offer).await.unwrap_err();
    assert_eq!((&denied["code"], &denied["stream"]), (&json!("forbidden"), &json!("b-1")), "{denied}");
    assert_eq!(socket.next().await, Err(Some(4403)), "a socket with nothing on it is closed");
    // One with a publication goes on.
    let mut socket = signal(&server, &token).await;
    socket.publish("a-1", &offer).await.unwrap();
    let denied = socket.publish("b-1", &offer).await.unwrap_err();
    assert_eq!(denied["code"], "forbidden", "{denied}");
    socket.publish("a-1", &offer).await.expect("the other publication is still there");

    let registered = async |register: Value| {
        let mut socket = Signal::connect(&format!("{}?token={token}", server.ws_url("/chunks"))).await;
        socket.send(&register).await;
        let answer = socket.next().await.unwrap();
        (answer, socket)
    };
    for refused in [json!({ "name": "b-1" }), json!({ "name_prefix": "b" })] {
        let mut register = json!({ "event": "register", "mime": "video/webm" });
        register.as_object_mut().unwrap().extend(refused.as_object().unwrap().clone());
        let (answer, mut socket) = registered(register).await;
        assert_eq!((&answer["event"], &answer["code"]), (&json!("error"), &json!("forbidden")), "{answer}");
        assert_eq!(socket.next().await, Err(Some(4403)));
    }
    let (answer, _) =
        registered(json!({ "event": "register", "name_prefix": "a", "mime": "video/webm" })).await;
    assert!(answer["name"].as_str().is_some_and(|name| name.starts_with("a-")), "{answer}");
}

#[tokio::test]
async fn a_grant_that_ends_ends_no_recording_but_begins_no_other_and_hears_no_more() {
    let until = Timestamp::now() + SignedDuration::from_secs(15);
    let guest = entry("guest", &["publish", "view"], &["a-*"], Some(until));
    let keeper = entry("keeper", &["recordings"], &[], None);
    let server = Server::start(&["hooks.on_record=", &tokens(&[guest, keeper])]);
    let (live, offer) = Live::start(fake).await;
    let mut socket = signal(&server, &token("guest")).await;
    let answer = socket.publish("a-1", &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    socket.status("PUBLISHING").await;
    let events = client(1).get(server.url("/api/events")).bearer_auth(token("guest")).send().await.unwrap();
    assert_eq!(events.status(), 200);
    eventually("the grant has ended", SOON * 3, async || {
        let bearer = format!("Bearer {}", token("guest"));
        let told = with(&server, Method::POST, "/whip/a-2", &[("authorization", &bearer)]).await;
        (told == (401, "unauthorized".into())).then_some(())
    })
    .await;
    let heard = tokio::time::timeout(SOON, events.bytes()).await.expect("events outlive the grant");
    assert!(heard.is_ok_and(|heard| heard.starts_with(b"id: ")));
    let denied = socket.publish("a-2", &offer).await.unwrap_err();
    assert_eq!(denied["code"], "unauthorized", "{denied}");
    sends(&live, 60).await;
    live.with(|publisher| publisher.stop_sending()).await;
    let stopped = socket.stop("a-1").await;
    let recording = &stopped["recording"];
    println!("{} ms were recorded, beyond the grant's end", recording["duration_ms"]);
    assert!(recording["duration_ms"].as_u64().unwrap() > 3000, "{stopped}");
    assert_eq!(stopped["reason"], "stopped");
}

#[tokio::test]
async fn a_link_opens_its_one_file_and_nothing_else() {
    let server = Server::start(&["hooks.on_record=", "log.level=trace", &every_kind()]);
    let (first, second) = (recorded(&server, "a-rec").await, recorded(&server, "a-rec").await);
    let url = first["url"].as_str().unwrap();
    let (path, query) = url.split_once('?').expect("a link with its token");
    let other = second["url"].as_str().unwrap().split_once('?').unwrap();
    assert_ne!(query, other.1);
    let bytes = first["bytes"].as_u64().unwrap();
    let got = client(0).get(server.url(url)).send().await.unwrap();
    assert_eq!(got.status(), 200);
    assert_eq!(got.bytes().await.unwrap().len() as u64, bytes);
    let part = client(0).get(server.url(url)).header(header::RANGE, "bytes=0-9").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(client(0).head(server.url(url)).send().await.unwrap().status(), 200);
    let listed =
        client(0).get(server.url("/api/recordings")).bearer_auth(token("right-recordings")).send().await;
    let listed: Value = listed.unwrap().json().await.unwrap();
    for recording in listed.as_array().unwrap() {
        let url = server.url(recording["url"].as_str().unwrap());
        assert_eq!(client(0).get(url).send().await.unwrap().status(), 200);
    }
    let last = query.chars().last().unwrap();
    let forged = format!("{}{}", &query[..query.len() - 1], if last == '0' { '1' } else { '0' });
    let unauthorized = (401, "unauthorized".to_owned());
    let id = first["id"].as_str().unwrap();
    for (method, target) in [
        (Method::GET, path.to_owned()),
        (Method::GET, format!("{path}?{}", other.1)),
        (Method::GET, format!("{path}?{forged}")),
        (Method::GET, format!("{path}?token={}", token("right-recordings"))),
        (Method::GET, format!("/api/recordings/{id}?{query}")),
        (Method::GET, format!("/api/recordings?{query}")),
        (Method::GET, format!("/live/a-rec.webm?{query}")),
        (Method::DELETE, format!("/api/recordings/{id}?{query}")),
    ] {
        assert_eq!(with(&server, method, &target, &[]).await, unauthorized, "{target}");
    }
    let bearer = format!("Bearer {}", &query["token=".len()..]);
    assert_eq!(with(&server, Method::GET, path, &[("authorization", &bearer)]).await, unauthorized);
    let output = server.output();
    assert!(!output.contains(&query["token=".len()..]), "a link's token is in the log");
}

/// `onrecord hook replay` with these settings in place of the server's.
fn replay(server: &Server, id: &str, settings: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    command.args(["hook", "replay", id]).current_dir(server.folder());
    let records = format!("record.dir={}", server.records().display());
    for setting in settings.iter().copied().chain([records.as_str()]) {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_replay_on_the_servers_machine_needs_no_token() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let script = folder.path().join("hook.sh");
    std::fs::write(&script, "#!/bin/sh\necho ran >> \"$(dirname \"$0\")/log\"\n").unwrap();
    make_executable(&script);
    let hook = format!("hooks.on_record={}", script.display());
    let keys = every_kind();
    let server = Server::start_in(folder.clone(), Vec::new(), &[&hook, &keys, "log.level=trace"]);
    let recording = recorded(&server, "a-rec").await;
    let id = recording["id"].as_str().unwrap();
    let runs = async |times: usize| {
        let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        eventually("the hook ran", SOON, async || (log().lines().count() == times).then_some(())).await;
    };
    runs(1).await;
    let (code, said) = replay(&server, id, &[&hook, &keys]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("queued"), "{said}");
    runs(2).await;
    let (code, said) = replay(&server, id, &[&hook, &studio()]);
    assert!(code == Some(1) && said.contains("configuration that the server has"), "{said}");
}

#[tokio::test]
async fn who_asks_what_a_token_allows_is_no_failure_and_who_is_turned_away_is_one() {
    let entries = [entry("viewer", &["view"], &[], None), entry("operator", &["admin"], &[], None)];
    let server = Server::start(&["hooks.on_record=", &tokens(&entries)]);
    let get = async |path: &str, name: &str| {
        client(0).get(server.url(path)).bearer_auth(token(name)).send().await.unwrap()
    };
    let forbidden = async || {
        let metrics = get("/metrics", "operator").await.text().await.unwrap();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("onrecord_auth_failures_total{") && line.contains("\"forbidden\""));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    let who: Value = get("/api/session", "viewer").await.json().await.unwrap();
    assert_eq!(who["permissions"], json!(["view"]), "{who}");
    assert_eq!(get("/api/events", "viewer").await.status(), 200);
    assert_eq!(forbidden().await, 0);
    assert_eq!(get("/api/recordings", "viewer").await.status(), 403);
    assert_eq!(forbidden().await, 1);
}

#[tokio::test]
async fn a_log_in_that_would_be_good_for_nothing_says_why() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = format!("auth.url=http://{}/", listener.local_addr().unwrap());
    let yes = axum::Router::new().fallback(async || axum::http::StatusCode::NO_CONTENT);
    tokio::spawn(async move { axum::serve(listener, yes).await.unwrap() });
    let server = Server::start(&["hooks.on_record=", &service]);
    let log_in = client(0).post(server.url("/login")).json(&json!({ "token": "anything" }));
    let answer = log_in.send().await.unwrap();
    assert!(!answer.headers().contains_key(header::SET_COOKIE));
    let status = answer.status();
    let error: Value = answer.json().await.unwrap();
    assert_eq!((status.as_u16(), &error["code"]), (403, &json!("forbidden")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("permissions and streams"), "{error}");
    let bearer = [("authorization", "Bearer anything")];
    assert_eq!(
        with(&server, Method::GET, "/snapshot/a.jpg", &bearer).await,
        (404, "stream_not_found".into())
    );
}

fn make_executable(script: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(script, PermissionsExt::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn with_tokens_proxies_and_other_hosts_are_served_and_without_only_probes_are() {
    let with_tokens = Server::start(&["hooks.on_record=", &studio()]);
    let without = Server::start(&["hooks.on_record="]);
    let bearer = format!("Bearer {}", token("studio"));
    let outside = [("host", "record.example.org"), ("x-forwarded-for", "203.0.113.9")];
    for path in ["/api/recordings", "/publish"] {
        let headers = [&outside[..], &[("authorization", bearer.as_str())]].concat();
        assert_eq!(with(&with_tokens, Method::GET, path, &headers).await.0, 200, "{path}");
        assert_eq!(with(&without, Method::GET, path, &headers).await.0, 401, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(with(&with_tokens, Method::GET, path, &outside).await.0, 200, "{path}");
        assert_eq!(with(&without, Method::GET, path, &outside).await.0, 200, "{path}");
    }
    let recordings = with(&without, Method::GET, "/api/recordings", &[]).await;
    assert_eq!(recordings.0, 200, "this machine is served as ever");
    let who: Value = client(0).get(without.url("/api/session")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&who["asked"], &who["who"]), (&json!(false), &Value::Null));
    let login = client(0).get(without.url("/login")).send().await.unwrap();
    assert_eq!(login.headers()[header::LOCATION], "./");
}
