//! Attacks over TCP, and offers that nobody follows.

use crate::support::live::Live;
use crate::support::server::Server;
use crate::support::signalling::Signal;
use crate::support::user::{eventually, fake};
use futures_util::{SinkExt, StreamExt, stream};
use reqwest::Client;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

/// Between two bytes of a slow sender.
const DRIP: Duration = Duration::from_millis(500);

fn address(server: &Server) -> SocketAddr {
    ([127, 0, 0, 1], server.base.rsplit(':').next().unwrap().parse().unwrap()).into()
}

/// What one of them sends at once, and then byte by byte.
struct Silent {
    how_many: usize,
    at_once: Vec<u8>,
    slowly: Vec<u8>,
}

/// Connections that wait for the server to give up.
pub struct Attack {
    tasks: JoinSet<()>,
    open: Arc<AtomicUsize>,
}

impl Attack {
    /// Opens them all.
    pub async fn of_silence(server: &Server) -> Self {
        let head = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        let socket = |path: &str| {
            let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            head(path, upgrade).into_bytes()
        };
        // A masked binary frame of 60000 bytes of which a thousand come.
        let half_a_frame = [&[0x82, 0xfe, 0xea, 0x60, 1, 2, 3, 4], &[0; 1000][..]].concat();
        let upload = "POST /upload/slow HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n\
                      Content-Length: 100000\r\n\r\n";
        let slow_head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(1000));
        let kinds = [
            (1000, Vec::new(), Vec::new()),
            (20, b"PRI * HTTP/2.0\r\n\r\nS".to_vec(), Vec::new()),
            (300, Vec::new(), slow_head.into_bytes()),
            (100, head("/healthz", "").into_bytes(), Vec::new()),
            (100, upload.as_bytes().to_vec(), vec![0xff; 1000]),
            (100, socket("/signal"), Vec::new()),
            (100, [socket("/chunks"), half_a_frame].concat(), vec![0; 1000]),
        ];
        let (mut tasks, open) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for (how_many, at_once, slowly) in kinds {
            let silent = Arc::new(Silent { how_many, at_once, slowly });
            for _ in 0..silent.how_many {
                let stream = TcpStream::connect(address(server)).await.unwrap();
                tasks.spawn(silent.clone().waits(stream, open.clone()));
            }
        }
        Self { tasks, open }
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// How many the server has left open after so long.
    pub async fn all_cut(self, within: Duration) -> usize {
        let cut = async { self.tasks.join_all().await };
        let _ = tokio::time::timeout(within, cut).await;
        self.open.load(Ordering::Relaxed)
    }
}

impl Silent {
    /// Until it is cut.
    async fn waits(self: Arc<Self>, mut stream: TcpStream, open: Arc<AtomicUsize>) {
        open.fetch_add(1, Ordering::Relaxed);
        let (mut read, mut write) = stream.split();
        let sends = async {
            let mut fine = write.write_all(&self.at_once).await.is_ok();
            for byte in &self.slowly {
                tokio::time::sleep(DRIP).await;
                fine = fine && write.write_all(&[*byte]).await.is_ok();
            }
            std::future::pending::<()>().await;
        };
        let (mut buffer, mut hears) = ([0; 4096], true);
        tokio::select! {
            () = sends => {}
            () = async {
                while hears {
                    hears = read.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0);
                }
            } => {}
        }
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Valid offers under names of their own, and nothing after; how many were answered, how many refused.
pub async fn half_open_handshakes(server: &Server, offers: usize) -> (usize, usize) {
    let offer = Live::start(fake).await.1;
    let client = Client::new();
    let answered = stream::iter(0..offers).map(|n| {
        let request = client.post(server.url(&format!("/whip/half-open-{n}")));
        let request = request.header("content-type", "application/sdp").body(offer.clone());
        async move {
            let answer = request.send().await.unwrap();
            let taken = answer.status().as_u16() == 201;
            let told = answer.text().await.unwrap();
            assert!(taken || told.contains("limit_reached"), "{told}");
            taken
        }
    });
    let answered: Vec<bool> = answered.buffer_unordered(16).collect().await;
    let taken = answered.iter().filter(|taken| **taken).count();
    (taken, offers - taken)
}

/// Sends as much of a request as is taken; gives the status of the answer, 0 if there is none.
async fn raw(server: &Server, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(address(server)).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut answer = [0; 12];
    // Half a connection closed is the whole of it to the server: nobody waits for the answer then.
    let sent = async { drop(write.write_all(request).await) };
    let told = async {
        let told = tokio::time::timeout(Duration::from_secs(20), read.read_exact(&mut answer)).await;
        told.expect("it is answered or closed").is_ok()
    };
    let (told, ()) = tokio::join!(told, sent);
    let status = std::str::from_utf8(&answer[9..]).ok().and_then(|status| status.parse().ok());
    status.filter(|_| told && answer.starts_with(b"HTTP/1.1 ")).unwrap_or(0)
}

/// One of everything that is too large, or no HTTP at all.
pub async fn oversize(server: &Server) {
    let get = |head: &str| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n").into_bytes();
    let post = |path: &str, kind: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let offer = Live::start(fake).await.1;
    let candidates = "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n".repeat(10_000);
    let lines = "a=ssrc:1\r\n".repeat(20_000);
    let large = vec![0xff; 32 << 20];
    let jpeg = post("/upload/large", "image/jpeg", &[&[0xff, 0xd8][..], &large[..5 << 20]].concat());
    let rubbish: Vec<u8> = (0..100_000).map(|_| rand::random()).collect();
    let sdp = |more: &str| post("/whip/large", "application/sdp", format!("{offer}{more}").as_bytes());
    for (what, request, expected) in [
        ("a megabyte of header", get(&format!("X: {}\r\n", "x".repeat(1 << 20))), &[431, 0][..]),
        ("ten thousand headers", get(&"X: 1\r\n".repeat(10_000)), &[431, 0]),
        (
            "a megabyte of URI",
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
            &[414, 431, 0],
        ),
        ("an SDP of a megabyte", sdp(&"x=1\r\n".repeat(200_000)), &[413]),
        ("ten thousand candidates", sdp(&candidates), &[413]),
        ("twenty thousand lines", sdp(&lines), &[400]),
        ("a JPEG of five megabytes", jpeg, &[413]),
        ("an endless body", post("/upload/large", "image/jpeg", &large), &[413, 0]),
        ("no HTTP", rubbish, &[400, 0]),
        ("half of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\0".repeat(100), &[0]),
    ] {
        let status = raw(server, &request).await;
        assert!(expected.contains(&status), "{what} was answered {status}, not {expected:?}");
    }
    messages(server, &offer).await;
}

async fn messages(server: &Server, offer: &str) {
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let large = format!("{offer}{}", "a=x\r\n".repeat(200_000));
    assert_eq!(signal.publish("large", &large).await.unwrap_err()["code"], "too_large");
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.send_text(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))).await;
    assert_eq!(signal.next_of(&["error"]).await["code"], "bad_request");

    // The sixty-fifth candidate is one too many, and the hundredth error the last.
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.publish("trickles", offer).await.unwrap();
    let line = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host";
    let mut errors = 0;
    for _ in 0..400 {
        let candidate = json!({ "type": "candidate", "candidate": { "candidate": line } }).to_string();
        if signal.try_send(&candidate).await.is_err() {
            break;
        }
    }
    while let Ok(message) = signal.next().await {
        errors += usize::from(message["code"] == "rate_limited");
    }
    assert_eq!(errors, 100, "candidates refused");

    let (mut chunks, _) = tokio_tungstenite::connect_async(server.ws_url("/chunks")).await.unwrap();
    chunks.send(Message::binary(vec![0; 9 << 20])).await.unwrap();
    let told = chunks.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(told.contains("too_large"), "{told}");
}

/// Messages that never end; how many of their senders were cut.
pub async fn unfinished_messages(server: &Server) -> usize {
    let mut sockets = Vec::new();
    for _ in 0..64 {
        let (socket, _) = tokio_tungstenite::connect_async(server.ws_url("/signal")).await.unwrap();
        let mut stream = socket.into_inner();
        // A masked text frame of eight million bytes.
        stream.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 0x7a, 0x12, 0, 1, 2, 3, 4]).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&vec![0; 7 << 20])).await;
        sockets.push(stream);
    }
    let mut cut = 0;
    for socket in &mut sockets {
        let mut told = [0; 16];
        let read = tokio::time::timeout(Duration::from_millis(20), socket.read(&mut told)).await;
        cut += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    cut
}

/// More connections than there is room for; how many were turned away. All of them go again.
pub async fn crowd(server: &Server, how_many: usize) -> usize {
    let mut streams = Vec::new();
    for _ in 0..how_many {
        streams.push(TcpStream::connect(address(server)).await.unwrap());
    }
    let mut all = 0;
    eventually("many are turned away", Duration::from_secs(20), async || {
        let told = |stream: &TcpStream| {
            let mut start = [0; 12];
            stream.try_read(&mut start).is_ok_and(|read| start[..read].starts_with(b"HTTP/1.1 503"))
        };
        all += streams.iter().filter(|stream| told(stream)).count();
        (all >= how_many / 8).then_some(all)
    })
    .await
}
