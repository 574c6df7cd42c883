//! A viewer of `/live/{name}` over a WebSocket.

use futures_util::StreamExt;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long the server may be silent when something is due.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a viewer is sent.
#[derive(Clone, Debug)]
pub enum Seen {
    Text(Value),
    Binary(Vec<u8>),
    /// The close code.
    Closed(Option<u16>),
}

/// A viewer's socket.
pub struct Viewer {
    socket: WebSocketStream<TcpStream>,
    /// When it began to connect.
    pub began: Instant,
    /// The newest `init`, and the bytes that followed: a file.
    pub mime: String,
    pub file: Vec<u8>,
    pub inits: usize,
    /// When each cluster of the newest `init` came.
    pub clusters: Vec<Instant>,
    pub skipped: u64,
}

impl Viewer {
    /// `url` begins with `ws://`; the kernel keeps `buffer` bytes for it.
    pub async fn connect(url: &str, buffer: Option<u32>) -> Self {
        let began = Instant::now();
        let authority = url.trim_start_matches("ws://").split('/').next().unwrap();
        let authority = authority.replace("localhost", "127.0.0.1");
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(buffer) = buffer {
            socket.set_recv_buffer_size(buffer).unwrap();
        }
        let stream = socket.connect(authority.parse().unwrap()).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("the server upgrades");
        Self {
            socket,
            began,
            mime: String::new(),
            file: Vec::new(),
            inits: 0,
            clusters: Vec::new(),
            skipped: 0,
        }
    }

    /// The next message, taken note of.
    pub async fn next(&mut self) -> Seen {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.socket.next()).await;
            match next.unwrap_or_else(|_| panic!("silence for {PATIENCE:?}")) {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    match message["type"].as_str() {
                        Some("init") => {
                            self.mime = message["mime"].as_str().unwrap().to_owned();
                            self.inits += 1;
                            self.file.clear();
                            self.clusters.clear();
                        }
                        Some("skipped") => self.skipped += message["frames"].as_u64().unwrap(),
                        _ => {}
                    }
                    return Seen::Text(message);
                }
                Some(Ok(Message::Binary(bytes))) => {
                    if !self.file.is_empty() {
                        self.clusters.push(Instant::now());
                    }
                    self.file.extend_from_slice(&bytes);
                    return Seen::Binary(bytes.to_vec());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Seen::Closed(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Seen::Closed(None),
            }
        }
    }

    /// Watches until there are so many clusters.
    pub async fn sees(&mut self, clusters: usize) {
        while self.clusters.len() < clusters {
            if let Seen::Closed(code) = self.next().await {
                panic!("closed with {code:?}");
            }
        }
    }

    /// Watches until there is this `init`.
    pub async fn sees_init(&mut self, mime: &str) {
        let inits = self.inits;
        while self.inits == inits || self.mime != mime {
            if let Seen::Closed(code) = self.next().await {
                panic!("closed with {code:?}");
            }
        }
    }

    /// Watches to the end; gives the word and the close code.
    pub async fn until_the_end(&mut self) -> (Value, Option<u16>) {
        let mut word = Value::Null;
        loop {
            match self.next().await {
                Seen::Text(message) => word = message,
                Seen::Binary(_) => {}
                Seen::Closed(code) => return (word, code),
            }
        }
    }

    /// Keeps what was seen since the newest `init`, for a judge.
    pub fn save(&self, path: &Path) {
        std::fs::write(path, &self.file).unwrap();
    }
}
