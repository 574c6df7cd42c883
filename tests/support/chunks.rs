//! A `/chunks` client, and what it sends: recordings as a browser makes them.

use super::judge::{self, Packet};
use super::media;
use super::server::Server;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Pictures and sound of so many seconds, with these encoders, as MediaRecorder would hand it out: no
/// sizes, no duration, no index, a keyframe a second.
pub fn recording(format: &str, video: &[&str], seconds: u32, size: &str) -> Vec<u8> {
    let (source, seconds) = (format!("testsrc2=s={size}:r=30"), seconds.to_string());
    let input = ["-f", "lavfi", "-i", &source, "-f", "lavfi", "-i", "sine=f=440:r=48000", "-t", &seconds];
    let sound = match format {
        "mp4" => ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov+default_base_moof"],
        _ => ["-c:a", "libopus", "-cluster_time_limit", "500"],
    };
    let live: &[&str] = if format == "mp4" { &[] } else { &["-live", "1"] };
    media::encode(format, &[&input[..], video, &["-g", "30", "-pix_fmt", "yuv420p"], &sound, live].concat())
}

/// The same of VP8 and a microphone that is off between two seconds.
pub fn muted(seconds: u32, from: u32, to: u32) -> Vec<u8> {
    let (length, sound) =
        (seconds.to_string(), format!("sine=f=440:r=48000,aselect='not(between(t,{from},{to}))'"));
    let input = ["-f", "lavfi", "-i", "testsrc2=s=640x360:r=30", "-f", "lavfi", "-i", &sound, "-t", &length];
    let output = ["-g", "30", "-pix_fmt", "yuv420p", "-c:a", "libopus", "-cluster_time_limit", "500"];
    media::encode("webm", &[&input[..], VP8, &output, &["-live", "1"]].concat())
}

/// The same of a camera that gives nothing for 400 ms of every two seconds, around the end of a cluster, with a
/// keyframe before each.
pub fn stuttering(seconds: u32) -> Vec<u8> {
    let (length, video) =
        (seconds.to_string(), "testsrc2=s=640x360:r=30,select='not(between(mod(t,2),0.4,0.8))'");
    let input = ["-f", "lavfi", "-i", video, "-f", "lavfi", "-i", "sine=f=440:r=48000", "-t", &length];
    let times = ["-fps_mode", "vfr", "-g", "1000", "-force_key_frames", "expr:gte(t,n_forced*2)"];
    let output = ["-pix_fmt", "yuv420p", "-c:a", "libopus", "-cluster_time_limit", "500", "-live", "1"];
    media::encode("webm", &[&input[..], VP8, &times, &output].concat())
}

/// A recording's clusters, the header with the first: each with the time at which the next begins.
fn clusters(recording: &[u8]) -> Vec<(Duration, &[u8])> {
    let mut starts = Vec::new();
    for at in 0..recording.len() - 16 {
        let Some([size, rest @ ..]) = recording[at..].strip_prefix(b"\x1f\x43\xb6\x75") else { continue };
        let [0xe7, length, time @ ..] = &rest[size.leading_zeros() as usize..] else { continue };
        let time = &time[..usize::from(length & 0x7f)];
        starts.push((time.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), at));
    }
    let ends = starts[1..].iter().copied().chain([(starts[starts.len() - 1].0 + 500, recording.len())]);
    let mut from = 0;
    ends.map(|(time, to)| (Duration::from_millis(time), &recording[std::mem::replace(&mut from, to)..to]))
        .collect()
}

pub const VP8: &[&str] = &["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"];
pub const VP9: &[&str] = &["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"];
pub const AV1: &[&str] = &["-c:v", "libsvtav1", "-preset", "10"];
pub const H264: &[&str] = &["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0"];

/// Two seconds of small VP8 and Opus.
pub fn small() -> Vec<u8> {
    recording("webm", VP8, 2, "320x180")
}

/// The hashes of a recording's pictures, or of its sound, in order.
pub fn hashes(bytes: &[u8], suffix: &str, kind: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("sent.{suffix}"));
    std::fs::write(&path, bytes).unwrap();
    hashes_of(&path, kind)
}

pub fn hashes_of(file: &Path, kind: &str) -> Vec<String> {
    judge::packets_of(file, kind).into_iter().map(|packet: Packet| packet.sha256).collect()
}

/// A `/chunks` socket.
pub struct Chunks {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Chunks {
    /// How long the server may be silent when an answer is due.
    const PATIENCE: Duration = Duration::from_secs(60);

    pub async fn connect(server: &Server) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(server.ws_url("/chunks")).await.unwrap();
        Self { socket }
    }

    /// Connects, registers and starts.
    pub async fn start(server: &Server, name: &str) -> (Self, Value) {
        let mut chunks = Self::connect(server).await;
        let registered = chunks.register(json!({ "name": name })).await;
        chunks.say(json!({ "event": "START_REC_BLOB" })).await;
        (chunks, registered)
    }

    /// Connects and goes on.
    pub async fn resume(server: &Server, uid: &Value) -> (Self, u64) {
        let mut chunks = Self::connect(server).await;
        let offset = chunks.register(json!({ "uid": uid })).await["offset"].as_u64().unwrap();
        if offset == 0 {
            // The first one may be lost with its socket.
            chunks.say(json!({ "event": "START_REC_BLOB" })).await;
        }
        (chunks, offset)
    }

    pub async fn register(&mut self, mut message: Value) -> Value {
        message["event"] = json!("register");
        self.say(message).await;
        let registered = self.next().await.unwrap();
        assert_eq!(registered["event"], "registered", "{registered}");
        registered
    }

    pub async fn say(&mut self, message: Value) {
        self.text(message.to_string()).await;
    }

    pub async fn text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// Sends bytes without waiting for the ack; false if the socket is closed.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.send(Message::binary(bytes.to_vec())).await.is_ok()
    }

    /// Sends bytes in messages of at most this many, each once the one before is acked.
    pub async fn upload(&mut self, bytes: &[u8], each: usize) -> u64 {
        let mut offset = 0;
        for piece in bytes.chunks(each) {
            self.send(piece).await;
            offset = self.ack().await;
        }
        offset
    }

    /// Sends a recording in its own time, a cluster each time as soon as all of it has happened.
    pub async fn perform(&mut self, recording: &[u8]) -> u64 {
        let (began, mut offset) = (tokio::time::Instant::now(), 0);
        for (time, cluster) in clusters(recording) {
            tokio::time::sleep_until(began + time).await;
            self.send(cluster).await;
            offset = self.ack().await;
        }
        offset
    }

    pub async fn ack(&mut self) -> u64 {
        let ack = self.next().await.unwrap();
        assert_eq!(ack["event"], "ack", "{ack}");
        ack["offset"].as_u64().unwrap()
    }

    /// Stops; gives the recording.
    pub async fn stop(&mut self, bytes: Option<u64>) -> Value {
        self.say(json!({ "event": "STOP_REC_BLOB", "bytes": bytes })).await;
        self.stopped().await
    }

    pub async fn stopped(&mut self) -> Value {
        let stopped = self.next().await.unwrap();
        assert_eq!(stopped["event"], "stopped", "{stopped}");
        stopped["recording"].clone()
    }

    /// The code of the error that must come next.
    pub async fn error(&mut self) -> String {
        let error = self.next().await.unwrap();
        assert_eq!(error["event"], "error", "{error}");
        assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
        error["code"].as_str().unwrap().to_owned()
    }

    /// The next message, or the close code.
    pub async fn next(&mut self) -> Result<Value, Option<u16>> {
        let deadline = tokio::time::Instant::now() + Self::PATIENCE;
        loop {
            let next = tokio::time::timeout_at(deadline, self.socket.next()).await;
            match next.unwrap_or_else(|_| panic!("silence for {:?}", Self::PATIENCE)) {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}
