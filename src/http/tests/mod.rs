//! The routes as clients see them, over real sockets.

mod limits;
mod protocol;

use crate::auth;
use crate::base::heartbeat::{self, Heartbeat};
use crate::catalog::RecordingState;
use crate::http::END_TIME;
use crate::http::state::Diagnostics;
use crate::http::testing::{Server, Setup, error_of, manifest};
use crate::publish::PublishError;
use crate::record::Condition;
use crate::webrtc::IceServer;
use reqwest::header;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SDP: (&str, &str) = ("content-type", "application/sdp");
const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");

type Headers<'a> = &'a [(&'a str, &'a str)];

async fn ask(
    server: &Server,
    line: &str,
    headers: Headers<'_>,
    body: impl Into<reqwest::Body>,
) -> reqwest::Response {
    let (method, path) = line.split_once(' ').unwrap();
    let mut request = server.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).send().await.unwrap()
}

fn head<'a>(response: &'a reqwest::Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// Sends bytes as they are, for what no client library would send.
async fn raw(server: &Server, request: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_whip_client_publishes_trickles_restarts_and_stops() {
    let turn = IceServer {
        urls: vec!["turn:turn.example.org?transport=udp".into()],
        username: Some("us\"er".into()),
        credential: Some("pass".into()),
    };
    let stun =
        IceServer { urls: vec!["stun:a:1".into(), "stun:b:2".into()], username: None, credential: None };
    let server = Server::start(Setup { ice_servers: vec![stun, turn], ..Setup::default() }).await;

    let created = ask(
        &server,
        "POST /whip/my%20cam",
        &[("content-type", "Application/SDP; charset=utf-8"), ("authorization", "bearer t0ken")],
        "v=0",
    )
    .await;
    assert_eq!(created.status(), 201);
    assert_eq!(head(&created, "content-type"), "application/sdp");
    assert_eq!(head(&created, "etag"), "\"gen-1\"");
    assert_eq!(head(&created, "accept-patch"), "application/trickle-ice-sdpfrag");
    let session = head(&created, "location").to_owned();
    assert_eq!(session, "/whip/my%20cam/session-my-cam");
    let links: Vec<_> = created.headers().get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
    assert_eq!(
        links,
        [
            "<stun:a:1>; rel=\"ice-server\"",
            "<stun:b:2>; rel=\"ice-server\"",
            "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"us\\\"er\"; \
             credential=\"pass\"; credential-type=\"password\"",
        ]
    );
    assert_eq!(created.text().await.unwrap(), "v=0 answer");
    assert_eq!(server.ingest.calls(), ["accept my cam sdp=v=0 record=true resume=- bearer=t0ken session=-"]);

    let trickled =
        ask(&server, &format!("PATCH {session}"), &[FRAGMENT, ("if-match", "\"gen-1\"")], "a=candidate")
            .await;
    assert_eq!(trickled.status(), 204);
    let restarted =
        ask(&server, &format!("PATCH {session}"), &[FRAGMENT, ("if-match", "*")], "a=ice-ufrag:x").await;
    assert_eq!(restarted.status(), 200);
    assert_eq!(head(&restarted, "etag"), "\"gen-2\"");
    assert_eq!(head(&restarted, "content-type"), "application/trickle-ice-sdpfrag");
    assert_eq!(restarted.text().await.unwrap(), "a=ice-ufrag:new");
    assert_eq!(ask(&server, &format!("DELETE {session}"), &[], "").await.status(), 200);
    assert_eq!(server.ingest.calls().last().unwrap(), "stop session-my-cam stopped");
}

#[tokio::test]
async fn whip_refuses_with_the_codes_of_the_contract() {
    let server = Server::start(Setup::default()).await;
    let large = "x".repeat(5 << 20);
    let text = ("content-type", "text/plain");
    let stale = ("if-match", "\"gen-0\"");
    let long = format!("POST /whip/{}", "x".repeat(129));
    let cases: &[(&str, Headers<'_>, &str, u16, &str)] = &[
        ("POST /whip/cam", &[text], "v=0", 415, "bad_type"),
        ("POST /whip/cam", &[], "v=0", 415, "bad_type"),
        ("POST /whip/cam", &[SDP], &large, 413, "too_large"),
        ("POST /whip/..%2F..%2Fetc%2Fpasswd", &[SDP], "v=0", 400, "bad_name"),
        ("POST /whip/.hidden", &[SDP], "v=0", 400, "bad_name"),
        ("POST /whip/%FF", &[SDP], "v=0", 400, "bad_name"),
        (&long, &[SDP], "v=0", 400, "bad_name"),
        ("PATCH /whip/cam/s", &[FRAGMENT], "a", 428, "bad_request"),
        ("PATCH /whip/cam/s", &[FRAGMENT, stale], "a", 412, "bad_request"),
        ("PATCH /whip/cam/s", &[FRAGMENT, ("if-match", "\"*\"")], "a", 412, "bad_request"),
        ("PATCH /whip/cam/s", &[SDP, stale], "a", 415, "bad_type"),
        ("PATCH /whip/cam/s", &[FRAGMENT, stale], &large, 413, "too_large"),
        ("GET /whip/cam", &[], "", 405, "bad_request"),
        ("PUT /whip/cam", &[], "", 405, "bad_request"),
        ("GET /whip/cam/s", &[], "", 405, "bad_request"),
        ("POST /whip/cam/s", &[SDP], "v=0", 405, "bad_request"),
    ];
    for (line, headers, body, status, code) in cases {
        let got = error_of(ask(&server, line, headers, (*body).to_owned()).await).await;
        assert_eq!(got, (*status, (*code).to_owned()), "{line} {headers:?}");
    }
    assert_eq!(server.ingest.calls(), [""; 0], "a bad request reached ingest");
    let allow = ask(&server, "GET /whip/cam", &[], "").await;
    assert!(head(&allow, "allow").contains("POST"), "{allow:?}");

    let refusals = [
        (PublishError::BadSdp("the offer has no media".into()), 400, "bad_sdp"),
        (PublishError::UnsupportedCodec, 422, "unsupported_codec"),
        (PublishError::StreamBusy("cam".parse().unwrap()), 409, "stream_busy"),
        (PublishError::Stopping, 503, "limit_reached"),
        (PublishError::DiskFull, 507, "disk_full"),
    ];
    for (refusal, status, code) in refusals {
        *server.ingest.refuse.lock() = Some(refusal);
        let answer = ask(&server, "POST /whip/cam", &[SDP], "v=0").await;
        assert_eq!(head(&answer, "retry-after").is_empty(), status != 503, "{answer:?}");
        assert_eq!(error_of(answer).await, (status, code.to_owned()));
    }
    *server.ingest.refuse.lock() = Some(PublishError::SessionNotFound);
    let gone = error_of(ask(&server, "DELETE /whip/cam/s", &[], "").await).await;
    assert_eq!(gone, (404, "session_not_found".to_owned()));
}

#[tokio::test]
async fn a_listed_page_passes_the_preflight_and_may_read_the_session() {
    let server =
        Server::start(Setup { origins: vec!["https://app.example.org".into()], ..Setup::default() }).await;
    let (listed, evil) = (("origin", "https://app.example.org"), ("origin", "https://evil.example"));
    let asks = ("access-control-request-method", "PATCH");

    let preflight = ask(&server, "OPTIONS /whip/cam", &[listed, asks], "").await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(head(&preflight, "access-control-allow-origin"), "https://app.example.org");
    for method in ["POST", "PATCH", "DELETE"] {
        assert!(head(&preflight, "access-control-allow-methods").contains(method), "{preflight:?}");
    }
    for header in ["Authorization", "Content-Type", "If-Match"] {
        assert!(head(&preflight, "access-control-allow-headers").contains(header), "{preflight:?}");
    }
    let created = ask(&server, "POST /whip/cam", &[listed, SDP], "v=0").await;
    assert_eq!(created.status(), 201);
    assert_eq!(head(&created, "access-control-allow-origin"), "https://app.example.org");
    for header in ["Location", "ETag", "Link"] {
        assert!(head(&created, "access-control-expose-headers").contains(header), "{created:?}");
    }
    let refused = ask(&server, "POST /whip/cam", &[listed], "v=0").await;
    assert_eq!(
        head(&refused, "access-control-allow-origin"),
        "https://app.example.org",
        "errors are readable too"
    );

    let foreign = ask(&server, "OPTIONS /whip/cam", &[evil, asks], "").await;
    assert_eq!(head(&foreign, "access-control-allow-origin"), "");
    let denied = error_of(ask(&server, "POST /whip/cam", &[evil, SDP], "v=0").await).await;
    assert_eq!(denied, (403, "origin_denied".to_owned()));
    let plain = ask(&server, "OPTIONS /whip/cam", &[], "").await;
    assert_eq!((plain.status().as_u16(), head(&plain, "accept-post")), (204, "application/sdp"));
    let session = ask(&server, "OPTIONS /whip/cam/s", &[], "").await;
    assert_eq!(head(&session, "accept-patch"), "application/trickle-ice-sdpfrag");
}

#[tokio::test]
async fn a_foreign_host_and_a_proxy_get_401_before_any_route() {
    let server = Server::start(Setup::default()).await;
    for headers in [&[("host", "evil.example")], &[("x-forwarded-for", "1.2.3.4")]] {
        for line in ["GET /", "GET /nothing", "GET /login", "POST /whip/cam", "GET /recordings/x.webm"] {
            let answer = ask(&server, line, headers, "").await;
            assert_eq!(head(&answer, "www-authenticate"), "Bearer");
            assert_eq!(error_of(answer).await, (401, "unauthorized".to_owned()), "{line} {headers:?}");
        }
    }
    let old = |path: &str| format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let told = raw(&server, &old("/")).await;
    assert!(told.starts_with("HTTP/1.0 401"), "{told}");
    let probe = raw(&server, &old("/healthz")).await;
    assert!(probe.starts_with("HTTP/1.0 200"), "containers are probed by whatever there is: {probe}");
    let open = Server::start(Setup {
        auth: auth::Config { mode: auth::Mode::Open, ..Default::default() },
        ..Setup::default()
    })
    .await;
    assert_eq!(ask(&open, "GET /healthz", &[("host", "record.example.org")], "").await.status(), 200);
}

#[tokio::test]
async fn a_trusted_proxy_on_this_machine_makes_no_client_local() {
    let trusted_proxies = vec!["127.0.0.1".to_owned()];
    let server = Server::start(Setup { trusted_proxies, ..Setup::default() }).await;
    let local = ("host", "localhost");
    let cases: [Headers<'_>; 4] = [
        &[local, ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", "localhost")],
        &[local, ("forwarded", "for=127.0.0.1;host=localhost")],
        &[local, ("x-forwarded-proto", "https")],
        // It may say nothing of whom it brings.
        &[local],
    ];
    for headers in cases {
        let answer = ask(&server, "GET /api/recordings", headers, "").await;
        assert_eq!(error_of(answer).await, (401, "unauthorized".to_owned()), "{headers:?}");
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_ones_own_pages_are_known_by_what_it_says() {
    let trusted = || Setup { trusted_proxies: vec!["127.0.0.0/8".to_owned()], ..Setup::default() };
    let server = Server::start(Setup {
        auth: auth::Config { mode: auth::Mode::Open, ..Default::default() },
        ..trusted()
    })
    .await;
    let open = Server::start(Setup {
        auth: auth::Config { mode: auth::Mode::Open, ..Default::default() },
        ..Setup::default()
    })
    .await;
    let (https, host) = (("x-forwarded-proto", "https"), ("x-forwarded-host", "rec.example.org"));
    for (server, headers, expected) in [
        (&server, [https, host, ("origin", "https://rec.example.org")], 404),
        (&server, [https, host, ("origin", "http://rec.example.org")], 403),
        (&server, [https, host, ("origin", "https://evil.example")], 403),
        (&open, [https, host, ("origin", "https://rec.example.org")], 403),
    ] {
        let answer = ask(server, "DELETE /api/recordings/x", &headers, "").await;
        assert_eq!(answer.status(), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn below_a_base_path_every_address_begins_with_it() {
    let server = Server::start(Setup { base_path: "/a/onrecord/", ..Setup::default() }).await;
    server.add(manifest("a", "a 1.webm", 1_000), b"content");
    let list = ask(&server, "GET /a/onrecord/api/recordings", &[], "").await;
    let list: Value = list.json().await.unwrap();
    let url = list[0]["url"].as_str().unwrap();
    assert_eq!(url, "/a/onrecord/recordings/a%201.webm");
    assert_eq!(ask(&server, &format!("GET {url}?inline"), &[], "").await.text().await.unwrap(), "content");
    let created = ask(&server, "POST /a/onrecord/whip/cam", &[SDP], "v=0").await;
    assert_eq!(head(&created, "location"), "/a/onrecord/whip/cam/session-cam");
    assert_eq!(ask(&server, "DELETE /a/onrecord/whip/cam/session-cam", &[], "").await.status(), 200);
    for path in ["/", "/publish", "/watch/a", "/js/onrecord.js", "/js/client/session.js", "/healthz"] {
        assert_eq!(ask(&server, &format!("GET /a/onrecord{path}"), &[], "").await.status(), 200, "{path}");
        let beside = ask(&server, &format!("GET {path}"), &[], "").await;
        // Whoever keeps the server alive need not know of the path.
        let status = if path == "/healthz" { 200 } else { 404 };
        assert_eq!(beside.status(), status, "{path}");
        let told = beside.text().await.unwrap();
        assert!(status == 200 || told.contains("below /a/onrecord/"), "{path}: {told}");
    }
    let bare =
        raw(&server, "GET /a/onrecord?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(bare.contains("308") && bare.to_lowercase().contains("location: /a/onrecord/?x=1"), "{bare}");
    // A proxy may ask with the whole address; the host in it counts as any.
    for (host, status) in [("localhost", "200"), ("evil.example", "401")] {
        let line = format!(
            "GET http://{host}/a/onrecord/api/streams HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(&server, &line).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn every_error_is_json() {
    let server = Server::start(Setup::default()).await;
    let cases = [
        ("GET /nothing", 404, "bad_request"),
        ("GET /js/nothing.js", 404, "bad_request"),
        ("GET /js/%FF", 404, "bad_request"),
        ("GET /dev/reload", 404, "bad_request"),
        ("POST /", 405, "bad_request"),
        ("DELETE /healthz", 405, "bad_request"),
        ("GET /signal", 426, "bad_request"),
        ("POST /signal", 405, "bad_request"),
        ("GET /api/recordings?limit=many", 400, "bad_request"),
        ("GET /api/recordings?before=x", 400, "bad_request"),
        ("GET /api/recordings/x", 404, "recording_not_found"),
        ("DELETE /api/recordings/%FF", 404, "recording_not_found"),
        ("POST /api/recordings/01k0x700000000000000000000/hook", 404, "recording_not_found"),
        ("DELETE /api/streams/..%2Fx", 400, "bad_name"),
        ("GET /recordings/nothing.webm", 404, "recording_not_found"),
    ];
    for (line, status, code) in cases {
        assert_eq!(error_of(ask(&server, line, &[], "").await).await, (status, code.to_owned()), "{line}");
    }
    let head_only = ask(&server, "HEAD /recordings/nothing.webm", &[], "").await;
    assert_eq!(head_only.status(), 404);
}

#[tokio::test]
async fn the_catalogue_is_listed_filtered_and_paged() {
    let server = Server::start(Setup::default()).await;
    for (n, stream) in ["a", "b", "a"].into_iter().enumerate() {
        server.add(manifest(stream, &format!("{stream} {n}.webm"), 1_000_000 + n as i64), b"x");
    }
    let list = async |path: &str| -> Vec<Value> {
        ask(&server, &format!("GET {path}"), &[], "").await.json().await.unwrap()
    };
    let files = |list: &[Value]| -> Vec<String> {
        list.iter().map(|entry| entry["file"].as_str().unwrap().to_owned()).collect()
    };
    let all = list("/api/recordings").await;
    assert_eq!(files(&all), ["a 2.webm", "b 1.webm", "a 0.webm"]);
    assert_eq!(all[0]["url"], "/recordings/a%202.webm");
    assert_eq!(files(&list("/api/recordings?stream=a").await), ["a 2.webm", "a 0.webm"]);
    assert_eq!(files(&list("/api/recordings?limit=1").await), ["a 2.webm"]);
    let before = all[0]["id"].as_str().unwrap();
    assert_eq!(files(&list(&format!("/api/recordings?limit=1&before={before}")).await), ["b 1.webm"]);

    let path = format!("/api/recordings/{before}");
    let one = ask(&server, &format!("GET {path}"), &[], "").await;
    assert_eq!(head(&one, "cache-control"), "no-store");
    assert_eq!(one.json::<Value>().await.unwrap(), all[0]);
    let replay = ask(&server, &format!("POST {path}/hook"), &[], "").await;
    assert_eq!(replay.status(), 202);
    assert_eq!(server.replayed.lock()[0].as_str(), before);
    assert_eq!(ask(&server, &format!("DELETE {path}"), &[], "").await.status(), 204);
    let deleted = ask(&server, &format!("GET {path}"), &[], "").await.json::<Value>().await.unwrap();
    assert_eq!((&deleted["state"], &deleted["url"]), (&Value::from("deleted"), &Value::Null));
    let replay = error_of(ask(&server, &format!("POST {path}/hook"), &[], "").await).await;
    assert_eq!(replay, (410, "recording_not_found".to_owned()));
}

#[tokio::test]
async fn a_replay_without_a_hook_or_of_an_open_recording_is_refused() {
    let server = Server::start(Setup { hook: false, ..Setup::default() }).await;
    let mut open = manifest("a", "a.webm", 1_000_000);
    open.state = RecordingState::Recording;
    let sealed = manifest("b", "b.webm", 1_000_001);
    let path = |id: &crate::base::id::RecordingId| format!("POST /api/recordings/{id}/hook");
    let (busy, none) = (path(&open.id), path(&sealed.id));
    server.add(open, b"");
    server.add(sealed, b"");
    assert_eq!(error_of(ask(&server, &busy, &[], "").await).await, (409, "stream_busy".to_owned()));
    assert_eq!(error_of(ask(&server, &none, &[], "").await).await, (400, "bad_request".to_owned()));
}

#[tokio::test]
async fn a_sealed_file_is_downloaded_whole_or_in_ranges() {
    let server = Server::start(Setup::default()).await;
    let content: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
    server.add(manifest("собес \"7\"", "собес 7.webm", 1_000_000), &content);
    let path = "/recordings/%D1%81%D0%BE%D0%B1%D0%B5%D1%81%207.webm";
    let get = async |headers: Headers<'_>| ask(&server, &format!("GET {path}"), headers, "").await;

    let whole = get(&[]).await;
    assert_eq!(whole.status(), 200);
    assert_eq!(head(&whole, "content-type"), "video/webm");
    assert_eq!(head(&whole, "accept-ranges"), "bytes");
    assert_eq!(head(&whole, "x-content-type-options"), "nosniff");
    let expected =
        "attachment; filename=\"_____ 7.webm\"; filename*=UTF-8''%D1%81%D0%BE%D0%B1%D0%B5%D1%81%207.webm";
    assert_eq!(head(&whole, "content-disposition"), expected);
    let (etag, modified) = (head(&whole, "etag").to_owned(), head(&whole, "last-modified").to_owned());
    assert_eq!(whole.bytes().await.unwrap(), content);
    let shown = ask(&server, &format!("GET {path}?inline=1"), &[], "").await;
    assert!(head(&shown, "content-disposition").starts_with("inline;"), "{shown:?}");

    let ranges: &[(&str, std::ops::Range<usize>)] = &[
        ("bytes=0-0", 0..1),
        ("bytes=100-199", 100..200),
        ("bytes=990-", 990..1000),
        ("bytes=-10", 990..1000),
        ("bytes=-2000", 0..1000),
        ("Bytes=0-9", 0..10),
        ("bytes=0-9,", 0..10),
    ];
    for (range, part) in ranges {
        let answer = get(&[("range", range)]).await;
        assert_eq!(answer.status(), 206, "{range}");
        let expected = format!("bytes {}-{}/1000", part.start, part.end - 1);
        assert_eq!(head(&answer, "content-range"), expected, "{range}");
        assert_eq!(answer.bytes().await.unwrap(), content[part.clone()], "{range}");
    }
    let beyond = get(&[("range", "bytes=1000-")]).await;
    assert_eq!(head(&beyond, "content-range"), "bytes */1000");
    assert_eq!(error_of(beyond).await, (416, "bad_request".to_owned()));
    for ignored in ["bytes=0-1,5-6", "items=0-5", "bytes=9-0"] {
        let all = get(&[("range", ignored)]).await;
        assert_eq!((all.status().as_u16(), all.bytes().await.unwrap().len()), (200, 1000), "{ignored}");
    }

    assert_eq!(get(&[("if-none-match", &etag)]).await.status(), 304);
    assert_eq!(get(&[("if-match", "\"other\"")]).await.status(), 412);
    for (validator, status) in [(etag.as_str(), 206), (&modified, 206), ("\"other\"", 200)] {
        let answer = get(&[("range", "bytes=0-9"), ("if-range", validator)]).await;
        assert_eq!(answer.status(), status, "If-Range: {validator}");
    }
    for headers in [&[][..], &[("range", "bytes=0-9")]] {
        let head_only = ask(&server, &format!("HEAD {path}"), headers, "").await;
        assert_eq!((head_only.status().as_u16(), head(&head_only, "content-length")), (200, "1000"));
    }
}

#[tokio::test]
async fn nothing_but_sealed_catalogued_files_can_be_fetched() {
    let server = Server::start(Setup::default()).await;
    let sealed = manifest("a", "a.webm", 1_000_000);
    server.add(sealed.clone(), b"x");
    let mut open = manifest("b", "b.webm.part", 1_000_001);
    open.state = RecordingState::Recording;
    server.add(open, b"x");
    let mut moved = manifest("c", "c.webm", 1_000_002);
    moved.file_present = false;
    server.add(moved, b"x");
    server.add(manifest("d", "d.webm", 1_000_003), b"x");
    std::fs::remove_file(server.folder().join("d.webm")).unwrap();
    server.catalogue.list.lock().push(manifest("e", "../e.webm", 1_000_004));
    std::fs::write(server.folder().join("a.webm.json"), "{}").unwrap();

    let cases = [
        ("a.webm.json", 404),
        ("b.webm.part", 404),
        ("c.webm", 410),
        ("d.webm", 410),
        ("..%2Fe.webm", 404),
        ("..%2F..%2Fetc%2Fpasswd", 404),
        ("%2Fetc%2Fpasswd", 404),
        ("a.webm%00", 404),
        ("%FF", 404),
    ];
    for (file, status) in cases {
        let (got, code) = error_of(ask(&server, &format!("GET /recordings/{file}"), &[], "").await).await;
        assert_eq!(got, status, "{file} {code}");
    }
    for path in ["/recordings/../Cargo.toml", "/js/../../Cargo.toml", "/recordings//etc/passwd"] {
        let answer =
            raw(&server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
                .await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn streams_are_listed_and_kicked() {
    let server = Server::start(Setup::default()).await;
    let list = ask(&server, "GET /api/streams", &[], "").await.json::<Value>().await.unwrap();
    assert_eq!(
        (&list[0]["stream"], &list[0]["status"], &list[0]["tracks"][0]),
        (&Value::from("cam"), &Value::from("PUBLISHING"), &Value::from("vp8"))
    );
    assert_eq!(ask(&server, "DELETE /api/streams/cam", &[], "").await.status(), 204);
    assert_eq!(server.ingest.calls(), ["kick cam"]);
    *server.ingest.refuse.lock() = Some(PublishError::SessionNotFound);
    let gone = error_of(ask(&server, "DELETE /api/streams/cam", &[], "").await).await;
    assert_eq!(gone, (404, "stream_not_found".to_owned()));
}

#[tokio::test]
async fn a_stopping_server_is_alive_but_not_ready() {
    let server = Server::start(Setup::default()).await;
    assert_eq!(ask(&server, "GET /readyz", &[], "").await.status(), 200);
    server.not_ready();
    assert_eq!(ask(&server, "GET /healthz", &[], "").await.status(), 200);
    assert_eq!(error_of(ask(&server, "GET /readyz", &[], "").await).await, (503, "limit_reached".to_owned()));
    let idle = tokio::net::TcpStream::connect(server.address).await.unwrap();
    server.shutdown.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(8), server.ended).await;
    ended.expect("an idle connection held the server").unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_loop_that_hangs_is_named_by_healthz_and_what_keeps_publishers_out_by_readyz() {
    let hung = Instant::now().checked_sub(heartbeat::STUCK).unwrap();
    let heartbeats = vec![Heartbeat::since("media engine", hung), Heartbeat::new("runtime")];
    let (engine, full) = (heartbeats[0].clone(), Arc::new(AtomicBool::new(true)));
    let hooks_full = full.clone();
    let hooks_full: Box<dyn Fn() -> bool + Send + Sync> =
        Box::new(move || hooks_full.load(Ordering::Relaxed));
    let diagnostics = Diagnostics { heartbeats, hooks_full: Some(hooks_full), ..Diagnostics::default() };
    let server = Server::start(Setup { diagnostics, ..Setup::default() }).await;
    let answer = ask(&server, "GET /healthz", &[], "").await;
    assert_eq!(answer.status(), 503);
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told["stuck"], serde_json::json!(["media engine"]), "{told}");
    engine.beat(Instant::now());
    assert_eq!(ask(&server, "GET /healthz", &[], "").await.status(), 200);

    let reasons = async || {
        let told: Value = ask(&server, "GET /readyz", &[], "").await.json().await.unwrap();
        let reasons = told["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().map(|reason| reason["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let silent = Condition { writable: false, has_space: false, space: None };
    *server.catalogue.condition.lock() = silent;
    server.not_ready();
    assert_eq!(reasons().await, ["not_running", "not_writable", "hook_queue_full"]);
    *server.catalogue.condition.lock() = Condition { writable: true, ..silent };
    full.store(false, Ordering::Relaxed);
    assert_eq!(reasons().await, ["not_running", "disk_full"]);
}

#[tokio::test]
async fn a_stalled_download_is_cut_so_that_the_server_ends() {
    let server = Server::start(Setup::default()).await;
    server.add(manifest("a", "a.webm", 1_000_000), b"");
    std::fs::File::create(server.folder().join("a.webm")).unwrap().set_len(64 << 20).unwrap();
    let stalled = ask(&server, "GET /recordings/a.webm", &[], "").await;
    assert_eq!(stalled.status(), 200);
    server.shutdown.cancel();
    let ended = tokio::time::timeout(END_TIME * 2, server.ended).await;
    ended.expect("a stalled download held the server").unwrap().unwrap();
    stalled.bytes().await.expect_err("64 MiB were sent to nobody");
}

fn site() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in [
        ("pages/index.html", "<!doctype html><title>home</title>"),
        ("pages/publish.html", "<!doctype html><title>publish</title>"),
        ("pages/recordings.html", "<!doctype html><title>recordings</title>"),
        ("lib/onrecord.js", "export {};"),
        ("pages/css/.secret", "no"),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

#[tokio::test]
async fn pages_come_with_a_policy_and_are_sent_once() {
    let folder = site();
    let server = Server::start(Setup { assets: Some(folder.path().to_owned()), ..Setup::default() }).await;
    for (path, title) in [("/", "home"), ("/publish", "publish"), ("/recordings", "recordings")] {
        let page = ask(&server, &format!("GET {path}"), &[], "").await;
        assert_eq!(page.status(), 200);
        assert_eq!(head(&page, "content-type"), "text/html; charset=utf-8");
        assert!(head(&page, "content-security-policy").contains("script-src 'self'"), "{page:?}");
        assert_eq!(
            (head(&page, "x-content-type-options"), head(&page, "referrer-policy")),
            ("nosniff", "same-origin")
        );
        assert!(page.text().await.unwrap().contains(title));
    }
    let script = ask(&server, "GET /js/onrecord.js", &[], "").await;
    assert_eq!(head(&script, "content-type"), "text/javascript; charset=utf-8");
    assert_eq!(head(&script, "cache-control"), "no-cache");
    let etag = head(&script, "etag").to_owned();
    assert_eq!(script.text().await.unwrap(), "export {};");
    let again = ask(&server, "GET /js/onrecord.js", &[("if-none-match", &etag)], "").await;
    assert_eq!((again.status().as_u16(), head(&again, "etag")), (304, etag.as_str()));
    for path in [
        "/css/.secret",
        "/js/pages/index.html",
        "/js/..%2Findex.html",
        "/js/%2e%2e/index.html",
        "/js/%2Fetc%2Fpasswd",
    ] {
        let (status, _) = error_of(ask(&server, &format!("GET {path}"), &[], "").await).await;
        assert_eq!(status, 404, "{path}");
    }
}

#[tokio::test]
async fn in_development_open_pages_reload_when_a_file_changes() {
    let folder = site();
    let server = Server::start(Setup { assets: Some(folder.path().to_owned()), ..Setup::default() }).await;
    let page = ask(&server, "GET /", &[], "").await.text().await.unwrap();
    assert!(page.contains(" src=\"js/dev-reload.js\""), "{page}");
    assert_eq!(ask(&server, "GET /js/dev-reload.js", &[], "").await.status(), 200);
    let mut events = ask(&server, "GET /dev/reload", &[], "").await;
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");
    std::fs::write(folder.path().join("lib/new.js"), "//").unwrap();
    let event = events.chunk().await.unwrap().unwrap();
    assert!(event.starts_with(b"event: change"), "{event:?}");
    server.shutdown.cancel();
    server.ended.await.unwrap().unwrap();
}
