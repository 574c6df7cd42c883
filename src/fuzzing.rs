//! Doors to what is private, for the fuzz targets in `tests/fuzz`; only there with `--cfg fuzzing`, and in
//! unit tests, which replay what the fuzzers start from and once found.

#[cfg(test)]
mod corpora;

pub use crate::webrtc::packet_path::fuzzing::PacketPath;

use crate::base::id::StreamName;
use crate::container::mp4;
use crate::http::publish::chunks::{self, Client as ChunksClient};
use crate::http::publish::signal::wire::Client as SignalClient;
use crate::ingest::chunks::demux::{Demuxer, Out};
use crate::ingest::chunks::protocol::Protocol;
use crate::ingest::chunks::{Config, UploadError};
use crate::media::{Frame, Track};
use crate::webrtc::tcp::framing;
use std::time::{Duration, Instant};

/// A message of `/signal`. What can't be read must say so in the contract's words.
pub fn signal(text: &str) {
    match SignalClient::parse(text) {
        Ok(SignalClient::Publish { stream, .. } | SignalClient::Stop { stream }) => name(stream),
        Ok(SignalClient::Candidate { stream, candidate }) => {
            name(stream);
            let again = serde_json::json!({ "type": "candidate", "candidate": candidate }).to_string();
            assert!(SignalClient::parse(&again).is_ok(), "{again}");
        }
        Err(bad) => {
            assert_eq!((bad.error.code.as_str(), bad.error.status.as_u16()), ("bad_request", 400));
            assert!(!bad.error.message.is_empty());
        }
    }
}

/// A text message of `/chunks`; the bytes it brings.
pub fn chunks_text(text: &str) -> Option<Vec<u8>> {
    match serde_json::from_str(text).ok()? {
        ChunksClient::Register { name: full, name_prefix, .. } => {
            name(full);
            name(name_prefix);
        }
        ChunksClient::Blob { blob } => {
            let bytes = chunks::bytes_of(&blob);
            let fits = blob.chars().all(|c| u32::from(c) < 256);
            assert_eq!(bytes.is_ok(), fits);
            return bytes.inspect(|bytes| assert_eq!(bytes.len(), blob.chars().count())).ok();
        }
        ChunksClient::Start {} | ChunksClient::Stop { .. } => {}
    }
    None
}

/// What a TCP connection that brings these parts holds: its frames (RFC 4571), and whether it is then cut.
pub fn frames<'a>(parts: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    framing::frames(parts)
}

fn name(text: Option<String>) {
    let Some(Ok(name)) = text.map(|text| text.parse::<StreamName>()) else { return };
    let text = name.as_str();
    assert!((1..=128).contains(&text.len()) && !text.contains(['/', '\\', '\0', '\n']), "{text:?}");
    assert!(!text.starts_with(['.', '-']), "{text:?}");
}

/// An upload without its task: the order of messages, and what becomes of the bytes.
pub struct Upload {
    protocol: Protocol,
    config: Config,
    began: Instant,
    now: Instant,
    webm: Option<Demuxer>,
    mp4: mp4::FragmentReader,
    taken: u64,
    tracks: Vec<Track>,
    newest: Vec<Option<Duration>>,
    over: bool,
}

impl Upload {
    /// Registered; its bytes will be WebM, or MP4.
    pub fn new(is_webm: bool) -> Self {
        let now = Instant::now();
        Self {
            protocol: Protocol::new(now),
            config: Config::default(),
            began: now,
            now,
            webm: is_webm.then(Demuxer::new),
            mp4: mp4::FragmentReader::default(),
            taken: 0,
            tracks: Vec::new(),
            newest: Vec::new(),
            over: false,
        }
    }

    /// START_REC_BLOB.
    pub fn start(&mut self) {
        let _ = self.protocol.start(self.now);
    }

    /// A message with bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let len = bytes.len() as u64;
        if self.over || self.protocol.expects(len).is_err() {
            return;
        }
        let fed = self.feed(bytes);
        if matches!(fed, Err(UploadError::BadBlob(_) | UploadError::UnsupportedCodec(_))) {
            self.over = true;
            return;
        }
        self.protocol.took(len, self.now);
        self.taken += len;
        assert_eq!(self.protocol.offset(), self.taken);
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let at = self.now - self.began;
        let Some(demuxer) = &mut self.webm else {
            self.mp4.push(bytes);
            assert!(self.mp4.whole() <= self.mp4.len());
            return Ok(());
        };
        let mut out = Vec::new();
        let fed = demuxer.push(bytes, at, &mut out);
        for out in out {
            match out {
                Out::Tracks(tracks) => {
                    assert!(!tracks.is_empty());
                    self.newest = vec![None; tracks.len()];
                    self.tracks = tracks;
                }
                Out::Frame(frame) => self.frame(&frame),
                Out::Gap(gap) => assert!(gap.from < gap.to && gap.track < self.tracks.len()),
            }
        }
        fed
    }

    fn frame(&mut self, frame: &Frame) {
        assert!(frame.track < self.tracks.len(), "a frame of a track that nobody told of");
        assert!(!frame.data.is_empty() && frame.early <= frame.time);
        self.newest[frame.track] = Some(frame.time);
    }

    /// STOP_REC_BLOB.
    pub fn stop(&mut self, bytes: Option<u64>) {
        if self.protocol.stop(bytes, self.now).is_ok() {
            assert!(bytes.is_none_or(|bytes| bytes >= self.taken));
        }
    }

    /// The socket is lost, or another one holds it.
    pub fn socket(&mut self, here: bool) {
        if here { self.protocol.attached(self.now) } else { self.protocol.lost(self.now) }
    }

    /// Time passes, up to the end at most.
    pub fn wait(&mut self, time: Duration) {
        let (end, _) = self.protocol.end(&self.config);
        assert!(end <= self.now + self.config.idle_timeout.max(self.config.resume_grace), "it never ends");
        self.over |= end <= self.now + time;
        self.now += time;
    }
}

/// Every frame that WebM holds, with its tracks, as `/chunks` takes it apart in one piece.
pub fn demux(bytes: &[u8]) -> (Vec<Track>, Vec<Frame>) {
    let (mut out, mut tracks, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    let _ = Demuxer::new().push(bytes, Duration::ZERO, &mut out);
    for out in out {
        match out {
            // Frames of other tracks would belong to another file.
            Out::Tracks(_) if !tracks.is_empty() => break,
            Out::Tracks(told) => tracks = told,
            Out::Frame(frame) => frames.push(frame),
            Out::Gap(_) => {}
        }
    }
    (tracks, frames)
}
