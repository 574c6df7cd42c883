//! The real binary over real sockets: what was published is in a file.

use crate::support::judge::{self, Probe};
use crate::support::live::Live;
use crate::support::media::{self, FPS};
use crate::support::proof::{self, KeptFrame};
use crate::support::publisher::{Config, Publisher, TrackConfig};
use crate::support::server::Server;
use crate::support::signalling::{Signal, Whip};
use crate::support::source::Looped;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use str0m::media::MediaKind::{self, Audio, Video};

/// Each test publishes for twice this long, with a new port in between.
const HALF: Duration = Duration::from_secs(4);

/// A camera whose keyframes come when they are asked for.
async fn start() -> (Live, String) {
    let (video, audio) = media::camera(10);
    Live::start(|local| Config {
        video: Some(TrackConfig::new(Looped::new(video))),
        audio: Some(TrackConfig::new(Looped::new(audio))),
        ..Config::new(local)
    })
    .await
}

/// Publishes over a network that loses 2 %, from another port in the second half. These are what the
/// test is about, so it lasts as long as they do.
async fn publish(live: &Live) {
    live.lose(0.02).await;
    tokio::time::sleep(HALF).await;
    live.rebind().await;
    tokio::time::sleep(HALF).await;
    live.lose(0.0).await;
    live.with(Publisher::stop_sending).await;
    // Retransmissions of the last packets.
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// The one recording, once it is sealed.
async fn sealed(server: &Server) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let list: Value = reqwest::get(server.url("/api/recordings")).await.unwrap().json().await.unwrap();
        if let Some(manifest) = list.as_array().unwrap().iter().find(|manifest| manifest["state"] == "sealed")
        {
            return manifest.clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing is sealed: {list}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn judge_file(file: &Path, publisher: &Publisher) {
    judge::decode(file).unwrap();
    let probe = Probe::of(file);
    assert_eq!(probe.stream("video").unwrap().codec_name, "vp8");
    assert_eq!(probe.stream("audio").unwrap().codec_name, "opus");
    for (kind, name) in [(Video, "video"), (Audio, "audio")] {
        judge_track(file, publisher, kind, name);
    }
    let video = judge::packets_of(file, "video");
    let keyframes = video.iter().filter(|packet| packet.keyframe).map(|packet| packet.time);
    assert_eq!(judge::cue_times(file), keyframes.collect::<Vec<_>>(), "a cue for every keyframe");
    let length = 2 * HALF + Duration::from_millis(100);
    let duration = probe.duration().unwrap();
    println!("duration {duration:?}");
    assert!(duration.abs_diff(length) < Duration::from_millis(700), "{duration:?}, published {length:?}");
}

fn judge_track(file: &Path, publisher: &Publisher, kind: MediaKind, name: &str) {
    let kept: Vec<KeptFrame> = judge::packets_of(file, name).iter().map(KeptFrame::from).collect();
    let sent = publisher.sent_of(kind);
    let matched = proof::matched(&sent, &kept).unwrap();
    let share = kept.len() as f64 / sent.len() as f64 * 100.0;
    let longest =
        matched.windows(2).map(|pair| pair[1].captured - pair[0].captured).max().unwrap_or(Duration::MAX);
    println!("{name}: {} of {} frames kept, {share:.1} %; longest gap {longest:?}", kept.len(), sent.len());
    assert!(share >= 95.0, "{name}: {share:.1} % kept");
    assert!(longest <= Duration::from_secs(3), "{name}: a gap of {longest:?}");
    if kind.is_video() {
        proof::check_decodable(&matched).unwrap();
        assert!(kept.len() > 6 * FPS as usize);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whip_publisher_that_loses_packets_and_its_port_is_in_one_sealed_file() {
    let server = Server::start(&[]);
    let (live, offer) = start().await;
    let (session, answer) = Whip::publish(&server.url("/whip/wire"), &offer).await.unwrap();
    live.accept(&answer).await;
    publish(&live).await;
    session.delete().await.unwrap();
    let manifest = sealed(&server).await;
    let publisher = live.stop().await;
    assert_eq!(manifest["end_reason"], "stopped", "{manifest}");
    judge_file(&server.records().join(manifest["file"].as_str().unwrap()), &publisher);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_publisher_that_loses_packets_and_its_port_is_in_one_sealed_file() {
    let server = Server::start(&[]);
    // Encoding takes a while on a busy machine, and a socket has to say something in time.
    let (live, offer) = start().await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let answer = signal.publish("wire", &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    publish(&live).await;
    let status = signal.stop("wire").await;
    let publisher = live.stop().await;
    assert_eq!(status["reason"], "stopped", "{status}");
    let manifest = sealed(&server).await;
    assert_eq!(manifest["id"], status["recording"]["id"], "{manifest}");
    judge_file(&server.records().join(manifest["file"].as_str().unwrap()), &publisher);
}
