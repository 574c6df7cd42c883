//! Recordings of the running server.

use super::browsers::manifest_of;
use super::scene::{self, ROUND, Uneven};
use crate::support::chunks::Chunks;
use crate::support::live::Live;
use crate::support::media::{self, Clip, FPS, OPUS_LOOKAHEAD};
use crate::support::publisher::{Config, Publisher, TrackConfig};
use crate::support::server::Server;
use crate::support::signalling::Signal;
use crate::support::source::Looped;
use crate::support::user::{Api, eventually};
use onrecord::container::Head;
use onrecord::container::webm::{Block, Clusters, head};
use onrecord::media::{Codec, Track};
use serde_json::Value;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use str0m::media::MediaKind;

/// How long most films are.
pub const LENGTH: Duration = Duration::from_secs(10);
/// For what takes so long, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// No whole number of seconds: sound that slips by one would fit its flashes again.
const LATE: Duration = Duration::from_millis(3300);
/// How long the server goes on after the crash of its film.
const FLUSHED: Duration = Duration::from_secs(2);

/// One recording.
pub struct Film {
    pub name: &'static str,
    pub file: PathBuf,
    pub manifest: Value,
    /// How many beeps must have a flash at least.
    pub pairs: usize,
    /// It is too long to be looked through.
    pub sampled: bool,
}

impl Film {
    pub fn of(server: &Server, name: &'static str, pairs: usize, manifest: Value) -> Self {
        let file = server.records().join(manifest["file"].as_str().unwrap());
        Self { name, file, manifest, pairs, sampled: false }
    }

    pub fn duration(&self) -> f64 {
        self.manifest["duration_ms"].as_f64().unwrap() / 1e3
    }

    fn track(&self, kind: &str) -> Option<&Value> {
        self.manifest["tracks"].as_array().unwrap().iter().find(|track| track["kind"] == kind)
    }

    /// How many pictures the server received, if there is such a track.
    pub fn pictures(&self) -> Option<u64> {
        self.track("video")?["frames"].as_u64()
    }

    pub fn has_sound(&self) -> bool {
        self.track("audio").is_some()
    }

    /// Of its pictures.
    pub fn codec(&self) -> &str {
        self.track("video").map_or("none", |track| track["codec"].as_str().unwrap())
    }

    /// Where it is sought to, in seconds.
    pub fn targets(&self) -> Vec<f64> {
        [0.08, 0.3, 0.52, 0.71, 0.93].map(|part| (part * self.duration()).round() + 0.05).to_vec()
    }
}

/// Publishes by str0m for [`LENGTH`].
async fn film(
    server: &Server,
    name: &'static str,
    pairs: usize,
    configure: impl FnOnce(SocketAddr) -> Config,
) -> Film {
    let (live, mut signal) = on_air(server, name, configure).await;
    sent_for(&live, LENGTH).await;
    live.with(Publisher::stop_sending).await;
    let recording = signal.stop(name).await["recording"].clone();
    let manifest = Api::of(server).recording(recording["id"].as_str().unwrap()).await;
    let sent = live.with(|publisher| publisher.sent_of(MediaKind::Video).len() as u64).await;
    let film = Film::of(server, name, pairs, manifest);
    assert_eq!(film.pictures().unwrap_or(0), sent, "{name}: pictures are missing: {:#}", film.manifest);
    film
}

async fn on_air(server: &Server, name: &str, configure: impl FnOnce(SocketAddr) -> Config) -> (Live, Signal) {
    let (live, offer) = Live::start(configure).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let answer = signal.publish(name, &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    (live, signal)
}

async fn sent_for(live: &Live, time: Duration) {
    eventually("what is to be sent", PATIENCE, async || {
        let last = live.with(|publisher| publisher.sent().last().map(|frame| frame.captured)).await;
        last.is_some_and(|last| last >= time).then_some(())
    })
    .await;
}

fn video(clip: Clip) -> Option<TrackConfig> {
    Some(TrackConfig::new(Looped::steady(clip)))
}

/// The films of a publisher that isn't a browser, all at once.
pub async fn by_str0m(server: &Server, (pictures, sound): (Clip, Clip), growing: Clip) -> Vec<Film> {
    let both = |local| Config::playing(local, (pictures.clone(), sound.clone()));
    let uneven = |local| {
        let source = Box::new(Uneven(*Looped::steady(pictures.clone()), 0));
        Config { video: Some(TrackConfig::new(source)), ..both(local) }
    };
    let dtx = |local| {
        let mut config = both(local);
        config.audio.as_mut().unwrap().pauses = (0..ROUND * 2).flat_map(silences).collect();
        config
    };
    let late = |local| {
        let mut config = both(local);
        config.audio.as_mut().unwrap().starts_after = LATE;
        config
    };
    let (uneven, dtx, climbs, sound_alone, pictures_alone, late) = tokio::join!(
        film(server, "uneven camera", 9, uneven),
        film(server, "DTX", 9, dtx),
        film(server, "size climbs", 9, |local| Config { video: video(growing), ..both(local) }),
        film(server, "audio only", 0, |local| Config { video: None, ..both(local) }),
        film(server, "video only", 0, |local| Config { audio: None, ..both(local) }),
        film(server, "audio 3 s late", 6, late),
    );
    vec![uneven, dtx, climbs, sound_alone, pictures_alone, late]
}

/// When a microphone with DTX sends nothing in a second that has its beep in the middle: a packet each
/// 400 ms says that it is still there.
fn silences(second: u32) -> [Range<Duration>; 2] {
    [(640, 1040), (1060, 1460)].map(|(from, to)| {
        let at = |ms| Duration::from_millis(u64::from(second) * 1000 + ms);
        at(from)..at(to)
    })
}

/// What a killed server had of a film, as the next one found it, which goes on with all of them.
pub async fn repaired(server: Server, settings: &[&str]) -> (Server, Film) {
    let (pictures, sound) = scene::round();
    let (live, _signal) =
        on_air(&server, "repaired", |local| Config::playing(local, (pictures, sound))).await;
    sent_for(&live, LENGTH + FLUSHED).await;
    let server = server.killed_and_started(settings);
    let manifest = manifest_of(&server, "repaired").await;
    assert_eq!(manifest["end_reason"], "server_crashed");
    let film = Film::of(&server, "repaired", 9, manifest);
    (server, film)
}

/// An hour by chunks, in seconds: a round that was encoded once, and is repeated.
pub async fn hour(server: &Server) -> Film {
    let video = media::vp8(&scene::picture(320, 180, FPS, 0), ROUND, "60k", 2 * FPS);
    let audio = media::opus(&scene::sound(OPUS_LOOKAHEAD), ROUND);
    let mut frames: Vec<_> = video.frames.iter().map(|frame| (0, frame)).collect();
    frames.extend(audio.frames.iter().map(|frame| (1, frame)));
    frames.sort_by_key(|(track, frame)| (frame.time, *track));
    let tracks = [Track::video(Codec::Vp8), Track::opus(2)];
    let (mut bytes, _) = head(&Head { tracks: &tracks, sizes: &[], uid: 1, unix_nanos: 0, title: "" });
    let mut clusters = Clusters::new(&tracks, Duration::from_secs(1));
    for round in 0..3600 / ROUND {
        for (track, frame) in &frames {
            let time = Duration::from_secs((round * ROUND).into()) + frame.time;
            let (track, keyframe, data) = (*track, frame.keyframe, &frame.data[..]);
            clusters.push(&Block { time, keyframe, ..Block::of(track, data) });
        }
        clusters.finish();
        bytes.extend_from_slice(clusters.bytes());
        clusters.clear();
    }
    let (mut chunks, _) = Chunks::start(server, "1 hour").await;
    let offset = chunks.upload(&bytes, 1 << 20).await;
    let recording = chunks.stop(Some(offset)).await;
    let manifest = Api::of(server).recording(recording["id"].as_str().unwrap()).await;
    Film { sampled: true, ..Film::of(server, "1 hour", 12, manifest) }
}
