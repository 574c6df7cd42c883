//! Transcripts of `/signal` over a real socket.

use super::MAX_PUBLICATIONS;
use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use crate::http::socket::{MAX_ERRORS, Timing};
use crate::http::testing::{Server, Setup, manifest};
use crate::publish::PublishError;
use crate::publish::status::Status;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn open(server: &Server) -> Self {
        Self(connect_async(format!("ws://{}/signal", server.address)).await.unwrap().0)
    }

    async fn say(&mut self, message: Value) {
        self.text(&message.to_string()).await;
    }

    async fn text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// The next frame that isn't a ping.
    async fn frame(&mut self) -> Message {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(5), self.0.next()).await;
            match frame.expect("the server said nothing for 5 s").expect("the server hung up").unwrap() {
                Message::Ping(_) => {}
                other => return other,
            }
        }
    }

    async fn hear(&mut self) -> Value {
        match self.frame().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a message, found {other:?}"),
        }
    }

    /// Type, and the part of the message a test usually looks at.
    async fn brief(&mut self) -> String {
        let heard = self.hear().await;
        let detail = match heard["type"].as_str().unwrap() {
            "status" => &heard["status"],
            "error" => &heard["code"],
            _ => &heard["stream"],
        };
        format!("{} {}", heard["type"].as_str().unwrap(), detail.as_str().unwrap())
    }

    async fn close_code(&mut self) -> u16 {
        match self.frame().await {
            Message::Close(Some(close)) => close.code.into(),
            other => panic!("expected a close, found {other:?}"),
        }
    }

    async fn publish(&mut self, stream: &str) {
        self.say(json!({ "type": "publish", "stream": stream, "sdp": "v=0" })).await;
        assert_eq!(self.brief().await, "status PENDING");
        assert_eq!(self.brief().await, format!("answer {stream}"));
        assert_eq!(self.brief().await, format!("candidate {stream}"));
    }
}

fn sealed(stream: &str, file: &str) -> Status {
    let recording = Some(Box::new(manifest(stream, file, 1_000_000)));
    Status::Unpublished { recording, reason: EndReason::Stopped }
}

#[tokio::test]
async fn a_publisher_hears_every_status_up_to_its_recording() {
    let server = Server::start(Setup::default()).await;
    let mut client = Client::open(&server).await;
    client.say(json!({ "type": "publish", "stream": "cam 1", "sdp": "v=0 offer", "record": true })).await;
    assert_eq!(client.hear().await, json!({ "type": "status", "stream": "cam 1", "status": "PENDING" }));
    let answer = json!({ "type": "answer", "stream": "cam 1", "sdp": "v=0 answer", "resume": "resume-1",
                         "ice_servers": [] });
    assert_eq!(client.hear().await, answer);
    let candidate = json!({ "candidate": "candidate:1 1 udp 1 127.0.0.1 8189 typ host", "sdpMid": "0",
                            "sdpMLineIndex": 0 });
    let expected = json!({ "type": "candidate", "stream": "cam 1", "candidate": candidate });
    assert_eq!(client.hear().await, expected);

    server.ingest.set_status("cam 1", Status::publishing());
    assert_eq!(client.hear().await, json!({ "type": "status", "stream": "cam 1", "status": "PUBLISHING" }));
    client.say(json!({ "type": "stop" })).await;
    server.ingest.set_status("cam 1", sealed("cam 1", "cam 1_x.webm"));
    let last = client.hear().await;
    assert_eq!((&last["status"], &last["reason"]), (&json!("UNPUBLISHED"), &json!("stopped")));
    let recording = &last["recording"];
    assert_eq!(recording["url"], "/recordings/cam%201_x.webm");
    assert_eq!(recording["file"], "cam 1_x.webm");
    assert_eq!((&recording["bytes"], &recording["duration_ms"]), (&json!(1000), &json!(2000)));
    assert_eq!(recording["stream"], "cam 1");
    assert!(recording["id"].as_str().is_some_and(|id| id.len() == 26), "{recording}");
}

#[tokio::test]
async fn what_a_client_says_reaches_ingest_in_order() {
    let server = Server::start(Setup::default()).await;
    let mut client = Client::open(&server).await;
    client.say(json!({ "type": "publish", "stream": "a", "sdp": "v=0", "record": false })).await;
    client
        .say(json!({ "type": "candidate", "candidate": { "candidate": "candidate:1", "sdpMid": "0" } }))
        .await;
    client.say(json!({ "type": "candidate", "stream": "a", "candidate": "candidate:2" })).await;
    client.say(json!({ "type": "candidate", "candidate": null })).await;
    client.say(json!({ "type": "publish", "stream": "a", "sdp": "v=0 again" })).await;
    client.say(json!({ "type": "stop" })).await;
    let mut heard = Vec::new();
    for _ in 0..5 {
        heard.push(client.brief().await);
    }
    assert_eq!(heard, ["status PENDING", "answer a", "candidate a", "answer a", "candidate a"]);
    client.say(json!({ "type": "dance" })).await;
    assert_eq!(client.brief().await, "error bad_request", "stop was not done before");
    assert_eq!(
        server.ingest.calls(),
        [
            "accept a sdp=v=0 record=false resume=- bearer=- session=-",
            "candidate session-a \"candidate:1\"",
            "candidate session-a \"candidate:2\"",
            "candidate session-a \"\"",
            "accept a sdp=v=0 again record=true resume=resume-1 bearer=- session=session-a",
            "stop session-a stopped",
        ]
    );
}

#[tokio::test]
async fn a_lost_socket_ends_nothing_and_a_resuming_one_first_hears_the_status() {
    let server = Server::start(Setup::default()).await;
    let mut first = Client::open(&server).await;
    first.publish("a").await;
    drop(first);
    server.ingest.set_status("a", Status::publishing());

    let mut second = Client::open(&server).await;
    let resume = json!({ "type": "publish", "stream": "a", "sdp": "v=0", "resume": "resume-1" });
    second.say(resume.clone()).await;
    assert_eq!(second.brief().await, "status PUBLISHING");
    assert_eq!(second.brief().await, "answer a");
    let calls = server.ingest.calls();
    assert_eq!(calls.last().unwrap(), "accept a sdp=v=0 record=true resume=resume-1 bearer=- session=-");
    assert_eq!(calls.len(), 2, "losing the socket did something: {calls:?}");

    server.ingest.set_status("a", sealed("a", "a.webm"));
    let mut third = Client::open(&server).await;
    third.say(resume).await;
    assert_eq!(third.brief().await, "status UNPUBLISHED");
    third.say(json!({ "type": "stop", "stream": "a" })).await;
    assert_eq!(third.brief().await, "error session_not_found", "an ended publication was held");
}

#[tokio::test]
async fn one_socket_holds_several_publications_up_to_a_bound() {
    let server = Server::start(Setup::default()).await;
    let mut client = Client::open(&server).await;
    for n in 0..MAX_PUBLICATIONS {
        client.publish(&format!("cam {n}")).await;
    }
    client.say(json!({ "type": "stop" })).await;
    assert_eq!(client.brief().await, "error bad_request", "which of them was stopped?");
    client.say(json!({ "type": "publish", "stream": "one more", "sdp": "v=0" })).await;
    assert_eq!(client.brief().await, "error limit_reached");
    server
        .ingest
        .set_status("cam 3", Status::Failed { code: ErrorCode::DiskFull, message: "free some space".into() });
    let failed = client.hear().await;
    let expected = json!({ "type": "status", "stream": "cam 3", "status": "FAILED", "reason": "disk_full",
                           "message": "free some space" });
    assert_eq!(failed, expected);
    client.publish("one more").await;
}

#[tokio::test]
async fn a_bad_message_is_answered_and_the_socket_stays() {
    let server = Server::start(Setup::default()).await;
    let mut client = Client::open(&server).await;
    let name = "../../etc/passwd";
    client.say(json!({ "type": "publish", "stream": name, "sdp": "v=0" })).await;
    let error = client.hear().await;
    assert_eq!((&error["code"], &error["stream"]), (&json!("bad_name"), &json!(name)));
    for (message, code) in [
        (json!({ "type": "dance" }), "bad_request"),
        (json!({ "type": "publish", "stream": "a" }), "bad_request"),
        (json!([]), "bad_request"),
        (json!({ "type": "candidate", "stream": "a", "candidate": "c" }), "session_not_found"),
        (json!({ "type": "stop" }), "bad_request"),
    ] {
        client.say(message.clone()).await;
        assert_eq!(client.brief().await, format!("error {code}"), "{message}");
    }
    for (refusal, code) in [
        (PublishError::BadSdp("no media".into()), "bad_sdp"),
        (PublishError::UnsupportedCodec, "unsupported_codec"),
        (PublishError::StreamBusy("a".parse().unwrap()), "stream_busy"),
        (PublishError::ResumeExpired, "resume_expired"),
    ] {
        *server.ingest.refuse.lock() = Some(refusal);
        client.say(json!({ "type": "publish", "stream": "a", "sdp": "v=0" })).await;
        assert_eq!(client.brief().await, format!("error {code}"));
    }
    *server.ingest.refuse.lock() = None;
    client.publish("a").await;
}

#[tokio::test]
async fn rubbish_and_five_megabytes_are_closed_with_the_reason() {
    let server = Server::start(Setup::default()).await;
    let mut client = Client::open(&server).await;
    client.text("rubbish").await;
    assert_eq!(client.brief().await, "error bad_request");
    assert_eq!(client.close_code().await, 4400);

    let mut client = Client::open(&server).await;
    client.say(json!({ "type": "publish", "stream": "a", "sdp": "x".repeat(5 << 20) })).await;
    assert_eq!(client.brief().await, "error too_large");
    assert_eq!(client.close_code().await, 4413);

    let mut client = Client::open(&server).await;
    client.0.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.brief().await, "error bad_request");
    assert_eq!(client.close_code().await, 4400);

    let mut client = Client::open(&server).await;
    for _ in 0..MAX_ERRORS {
        client.text("{}").await;
        assert_eq!(client.brief().await, "error bad_request");
    }
    assert_eq!(client.brief().await, "error bad_request");
    assert_eq!(client.close_code().await, 4400);
    assert_eq!(server.ingest.calls(), [""; 0]);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_and_one_that_publishes_stays() {
    let timing = Timing { first_publish: Duration::from_millis(50), ..Timing::default() };
    let server = Server::start(Setup { timing, ..Setup::default() }).await;
    let mut publisher = Client::open(&server).await;
    publisher.publish("a").await;
    let mut silent = Client::open(&server).await;
    assert_eq!(silent.brief().await, "error bad_request");
    assert_eq!(silent.close_code().await, 4400);
    server.ingest.set_status("a", Status::publishing());
    assert_eq!(publisher.brief().await, "status PUBLISHING");
}

#[tokio::test]
async fn a_dead_socket_is_dropped() {
    let timing =
        Timing { ping: Duration::from_millis(20), silence: Duration::from_millis(60), ..Timing::default() };
    let server = Server::start(Setup { timing, ..Setup::default() }).await;
    // A handshake, and then not even a pong.
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /signal HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address
    );
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest);
    tokio::time::timeout(Duration::from_secs(5), read).await.expect("a dead socket was kept").unwrap();
    // Whoever answers pings lives longer than that.
    let mut alive = Client::open(&server).await;
    for _ in 0..8 {
        let ping = alive.0.next().await.unwrap().unwrap();
        assert!(matches!(ping, Message::Ping(_)), "{ping:?}");
    }
}

#[tokio::test]
async fn a_stopping_server_sends_the_last_status_and_says_goodbye() {
    let server = Server::start(Setup::default()).await;
    let mut client = Client::open(&server).await;
    client.publish("a").await;
    server.ingest.set_status("a", sealed("a", "a.webm"));
    server.shutdown.cancel();
    assert_eq!(client.brief().await, "status UNPUBLISHED");
    assert_eq!(client.close_code().await, 1001);
    drop(client);
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_publication_that_vanishes_is_reported_as_failed() {
    let server = Server::start(Setup::default()).await;
    let mut client = Client::open(&server).await;
    client.publish("a").await;
    server.ingest.statuses.lock().clear();
    let failed = client.hear().await;
    assert_eq!((&failed["status"], &failed["reason"]), (&json!("FAILED"), &json!("internal")));
}

#[tokio::test]
async fn a_foreign_page_cannot_open_a_socket() {
    let server = Server::start(Setup::default()).await;
    let open = async |origin: &str| {
        let mut request = format!("ws://{}/signal", server.address).into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        match connect_async(request).await {
            Ok(_) => 101,
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(open("https://evil.example").await, 403);
    assert_eq!(open("null").await, 403);
    assert_eq!(open(&format!("http://{}", server.address)).await, 101);
}
