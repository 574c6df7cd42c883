//! The server as its users meet it: somebody on air, the API, a hook script, and waiting for what was
//! promised.

use super::live::Live;
use super::publisher::{Config, TrackConfig};
use super::server::Server;
use super::signalling::{Signal, Whip};
use super::source::{FakeAudio, FakeVideo};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// How long anything that is due at once is waited for: long, since a disk may be busy with other tests'
/// gibibytes, but less than the minute after which the server gives up who is silent.
pub const SOON: Duration = Duration::from_secs(45);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until there is something to see; fails when it takes longer.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Small video and audio, every frame different.
pub fn fake(local: SocketAddr) -> Config {
    Config {
        video: Some(TrackConfig::new(FakeVideo::small())),
        audio: Some(TrackConfig::new(Box::<FakeAudio>::default())),
        ..Config::new(local)
    }
}

/// The HTTP API.
pub struct Api {
    client: Client,
    base: String,
}

impl Api {
    pub fn of(server: &Server) -> Self {
        Self { client: Client::new(), base: server.base.clone() }
    }

    /// Status and body; a body that isn't JSON is null.
    pub async fn call(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let response = self.client.request(method, format!("{}{path}", self.base)).send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub async fn streams(&self) -> Vec<Value> {
        self.get("/api/streams").await.as_array().unwrap().clone()
    }

    /// Newest first.
    pub async fn recordings(&self) -> Vec<Value> {
        self.get("/api/recordings").await.as_array().unwrap().clone()
    }

    pub async fn recording(&self, id: &str) -> Value {
        self.get(&format!("/api/recordings/{id}")).await
    }

    /// The manifest once its hook has come to this state.
    pub async fn hook(&self, id: &str, state: &str, within: Duration) -> Value {
        eventually(&format!("hook {state}"), within, async || {
            let manifest = self.recording(id).await;
            (manifest["hook"]["state"] == state).then_some(manifest)
        })
        .await
    }

    /// The one recording, once it is sealed.
    pub async fn sealed(&self, within: Duration) -> Value {
        eventually("a sealed recording", within, async || {
            self.recordings().await.into_iter().find(|recording| recording["state"] == "sealed")
        })
        .await
    }

    /// Waits until a stream has this status.
    pub async fn stream_is(&self, name: &str, status: &str) -> Value {
        eventually(&format!("{name} is {status}"), SOON, async || {
            let of_name = |stream: &Value| stream["stream"] == name && stream["status"] == status;
            self.streams().await.into_iter().find(of_name)
        })
        .await
    }

    pub async fn nobody_is_on_air(&self) {
        eventually("no streams", SOON, async || self.streams().await.is_empty().then_some(())).await;
    }
}

/// A publisher on air over `/signal`.
pub struct OnAir {
    pub live: Live,
    pub signal: Signal,
    pub name: String,
    pub resume: String,
    /// The server's answer.
    pub answer: Value,
}

/// Publishes fake media until the server says `PUBLISHING`.
pub async fn on_air(server: &Server, name: &str) -> OnAir {
    on_air_again(server, name, None).await
}

/// The same with the secret of an earlier publication.
pub async fn on_air_again(server: &Server, name: &str, resume: Option<&str>) -> OnAir {
    let (live, offer) = Live::start(fake).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let message = json!({ "type": "publish", "stream": name, "sdp": offer, "resume": resume });
    signal.send(&message).await;
    let answer = signal.next_of(&["answer", "error"]).await;
    assert_eq!(answer["type"], "answer", "{answer}");
    live.accept(answer["sdp"].as_str().unwrap()).await;
    if resume.is_none() {
        signal.status("PUBLISHING").await;
    }
    let resume = answer["resume"].as_str().unwrap().to_owned();
    OnAir { live, signal, name: name.to_owned(), resume, answer }
}

impl OnAir {
    /// Waits until it has sent so many frames (of both kinds) from now on.
    pub async fn sends(&self, frames: usize) {
        sends(&self.live, frames).await;
    }

    /// Stops as a page does; gives the recording.
    pub async fn stop(mut self) -> Value {
        self.live.with(|publisher| publisher.stop_sending()).await;
        let recording = self.signal.stop(&self.name).await["recording"].clone();
        assert!(recording.is_object(), "no recording");
        recording
    }
}

/// Waits until a publisher has sent so many frames from now on.
pub async fn sends(live: &Live, frames: usize) {
    let before = live.with(|publisher| publisher.sent().len()).await;
    eventually("frames sent", SOON, async || {
        let sent = live.with(|publisher| publisher.sent().len()).await;
        (sent >= before + frames).then_some(())
    })
    .await;
}

/// Records so many frames under this name; gives the recording as the socket told it.
pub async fn record(server: &Server, name: &str, frames: usize) -> Value {
    let on_air = on_air(server, name).await;
    on_air.sends(frames).await;
    on_air.stop().await
}

/// Publishes fake media over WHIP until it is recorded.
pub async fn whip_on_air(server: &Server, name: &str, bearer: Option<&str>) -> (Live, Whip, String) {
    let (live, offer) = Live::start(fake).await;
    let url = server.url(&format!("/whip/{name}"));
    let (whip, answer) = Whip::publish_as(&url, &offer, bearer).await.unwrap();
    live.accept(&answer).await;
    Api::of(server).stream_is(name, "PUBLISHING").await;
    (live, whip, answer)
}

/// A hook script in a folder of its own, where it may leave things.
pub struct Script {
    folder: TempDir,
}

impl Script {
    /// `$here` is its folder.
    pub fn new(body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("#!/bin/sh\nhere=\"$(dirname \"$0\")\"\n{body}\n");
        Self::verbatim(folder, &text)
    }

    /// The whole text, its first line too.
    pub fn verbatim(folder: TempDir, text: &str) -> Self {
        let path = folder.path().join("hook.sh");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// For `--set`.
    pub fn setting(&self) -> String {
        format!("hooks.on_record={}", self.file("hook.sh").display())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it left; empty if nothing.
    pub fn left(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }
}

/// The files in a folder but the hidden ones, which are the server's own; sorted; none if there is no
/// folder.
pub fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// Whether a process still does anything.
pub fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// A connection that asks for a stream and reads nothing of it.
pub async fn stalled(server: &Server, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let port: u16 = server.base.rsplit(':').next().unwrap().parse().unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    stream
}
