//! Each limit of connections and requests: what exceeds it, and what that is answered.

use crate::http::body;
use crate::http::testing::{Server, Setup, error_of, manifest};
use crate::publish::Limits;
use axum::body::Body;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// The smallest picture: what `media::jpeg` measures, and no more.
const JPEG: &[u8] = &[
    0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0, 16, 0, 16, 1, 1, 0x11, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0,
    0xff, 0xd9,
];

async fn with(limits: Limits) -> Server {
    Server::start(Setup { limits, ..Setup::default() }).await
}

/// Status and code of what raw bytes are answered; the rest of a page that isn't JSON has no code.
async fn raw(server: &Server, request: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    // The server may have hung up before all is written.
    let _ = socket.write_all(request).await;
    answer(&mut socket).await
}

async fn answer(socket: &mut TcpStream) -> (u16, String) {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer));
    let _ = read.await.expect("it is answered and closed");
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

fn upgrade(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

async fn upload(server: &Server, name: &str, image: &[u8]) -> reqwest::Response {
    let request = server.request("POST", &format!("/upload/{name}")).header("content-type", "image/jpeg");
    request.body(image.to_vec()).send().await.unwrap()
}

fn refused(code: &str) -> (u16, String) {
    let status = match code {
        "limit_reached" => 503,
        "rate_limited" => 429,
        _ => 413,
    };
    (status, code.to_owned())
}

#[tokio::test]
async fn streams_viewers_sockets_and_connections_over_their_limit_get_retry_after() {
    let limits = Limits { max_streams: 1, max_viewers: 2, max_viewers_per_stream: 1, ..Limits::default() };
    let server = with(limits).await;
    assert_eq!(upload(&server, "one", JPEG).await.status(), 204);
    let more = upload(&server, "two", JPEG).await;
    assert!(more.headers().contains_key("retry-after"), "{more:?}");
    assert_eq!(error_of(more).await, refused("limit_reached"), "streams by JPEG");
    let viewer = server.request("GET", "/stream/one").send().await.unwrap();
    assert_eq!(viewer.status(), 200);
    let second = server.request("GET", "/stream/one").send().await.unwrap();
    assert_eq!(error_of(second).await, refused("limit_reached"), "viewers of a stream");
    drop(viewer);

    let server = with(Limits { max_streams: 1, ..Limits::default() }).await;
    let mut sockets = Vec::new();
    for expected in ["registered", "error"] {
        let (mut socket, _) = connect_async(format!("ws://{}/chunks", server.address)).await.unwrap();
        let register = json!({ "event": "register", "name_prefix": "a" }).to_string();
        socket.send(Message::text(register)).await.unwrap();
        let said = socket.next().await.unwrap().unwrap().into_text().unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["event"], expected, "{said}");
        assert!(expected != "error" || said["code"] == "limit_reached", "{said}");
        sockets.push(socket);
    }

    let server = with(Limits { max_sockets: 1, ..Limits::default() }).await;
    let held = connect_async(format!("ws://{}/signal", server.address)).await.unwrap();
    for path in ["/signal", "/chunks", "/live/a"] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(&upgrade(path)).await.unwrap();
        let mut start = [0; 12];
        socket.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 503", "sockets: {path}");
    }
    drop(held);

    let server = with(Limits { max_connections: 2, ..Limits::default() }).await;
    let held = [TcpStream::connect(server.address).await, TcpStream::connect(server.address).await];
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(answer(&mut third).await, refused("limit_reached"), "connections");
    drop(held);
    let recovered = async {
        while server.request("GET", "/healthz").send().await.is_ok_and(|answer| answer.status() != 200) {}
    };
    tokio::time::timeout(Duration::from_secs(10), recovered).await.expect("its places are free again");
}

#[tokio::test]
async fn answers_that_no_client_takes_are_bounded_however_few_connections_wait_for_them() {
    let server = with(Limits { max_connections: 2, ..Limits::default() }).await;
    server.add(manifest("a", "a.webm", 1_000), &vec![0; 1 << 20]);
    let client = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(1000);
    let client = client.build().unwrap();
    let get = async |path: &str| client.get(format!("http://{}{path}", server.address)).send().await.unwrap();
    let held = [get("/recordings/a.webm").await, get("/recordings/a.webm").await];
    assert!(held.iter().all(|answer| answer.status() == 200), "{held:?}");
    assert_eq!(error_of(get("/api/streams").await).await, refused("limit_reached"));
    drop(held);
    let recovered = async { while get("/api/streams").await.status() != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), recovered).await.expect("their places are free again");
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_its_size_or_the_heads() {
    let server = with(Limits::default()).await;
    let large = vec![0; 5 << 20];
    assert_eq!(error_of(upload(&server, "a", &large).await).await, refused("too_large"), "a JPEG");
    let head = |extra: &str| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n");
    let many = (0..200).fold(String::new(), |all, n| format!("{all}x-{n}: 1\r\n"));
    assert_eq!(raw(&server, head(&many).as_bytes()).await.0, 431, "headers by count");
    let long = format!("x: {}\r\n", "x".repeat(100 << 10));
    assert_eq!(raw(&server, head(&long).as_bytes()).await.0, 431, "headers by size");
    let uri = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100 << 10));
    assert!(matches!(raw(&server, uri.as_bytes()).await.0, 414 | 431), "the URI");
    let name = format!("/upload/{}", "x".repeat(129));
    let named = server.request("POST", &name).header("content-type", "image/jpeg").body(JPEG);
    assert_eq!(error_of(named.send().await.unwrap()).await, (400, "bad_name".to_owned()));

    let (mut chunks, _) = connect_async(format!("ws://{}/chunks", server.address)).await.unwrap();
    chunks.send(Message::binary(vec![0; 9 << 20])).await.unwrap();
    let said = chunks.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(said.contains("too_large"), "a chunk: {said}");
    let closed = chunks.next().await.unwrap().unwrap();
    assert!(matches!(&closed, Message::Close(Some(close)) if u16::from(close.code) == 4413), "{closed:?}");
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let (mut signal, _) = connect_async(format!("ws://{}/signal", server.address)).await.unwrap();
    signal.send(Message::text(deep)).await.unwrap();
    let said = signal.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(said.contains("bad_request"), "nested JSON: {said}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let slow = futures_util::stream::pending::<Result<Vec<u8>, Infallible>>();
    let told = body::read(Body::from_stream(slow), 1000, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((told.status.as_u16(), told.code.as_str()), (408, "bad_request"));
}
