//! str0m and our session over a simulated network, in virtual time: what is promised of times,
//! losses and paths, measured.

mod endings;
mod loss;
mod offers;
mod paths;
mod simulcast;
mod sources;
mod time;
mod trouble;

use crate::support::network::Network;
use crate::support::proof::{self, KeptFrame, Matched};
use crate::support::publisher::{Config, Publisher, TrackConfig};
use crate::support::session::{self, Ours};
use crate::support::source::{FakeAudio, FakeVideo};
use onrecord::media::{Event, Frame, Gap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::media::MediaKind::{self, Audio, Video};

type Net = Network<Publisher, Ours>;

fn inside() -> SocketAddr {
    "10.0.0.2:50000".parse().unwrap()
}

fn outside(port: u16) -> SocketAddr {
    ([198, 51, 100, 7], port).into()
}

fn server() -> SocketAddr {
    "192.0.2.1:8189".parse().unwrap()
}

/// 720p30 at 1.5 Mbit/s and an Opus packet every 20 ms, no two frames alike.
fn fake_media() -> Config {
    Config {
        video: Some(TrackConfig::new(FakeVideo::hd())),
        audio: Some(TrackConfig::new(Box::<FakeAudio>::default())),
        ..Config::new(inside())
    }
}

/// Offered and answered, not connected; `rewrite` is what happens to the offer on its way.
fn answered(seed: u64, config: Config, rewrite: impl Fn(&str) -> String) -> Net {
    let now = Instant::now();
    let (mut publisher, offer) = Publisher::new(config, now);
    let (ours, answer) = Ours::accept(&rewrite(&offer), &session::config(server(), now), now);
    publisher.accept(&answer);
    Network::new(seed, now, publisher, ours)
}

fn connect_with(seed: u64, config: Config, rewrite: impl Fn(&str) -> String) -> Net {
    let mut network = answered(seed, config, rewrite);
    let up = |net: &Net| net.publisher.connected_at().is_some() && net.server.connected_at.is_some();
    let connected = network.run_until_true(Duration::from_secs(10), up);
    assert!(connected, "not connected after {:?}", network.elapsed());
    network
}

fn connect(seed: u64, config: Config) -> Net {
    connect_with(seed, config, str::to_owned)
}

/// Lets what was sent arrive, be asked for again, or be given up.
fn finish(network: &mut Net) {
    network.publisher.stop_sending();
    network.run_for(Duration::from_secs(3));
}

/// Our index of a kind's track: video comes first, if there is any.
fn track(network: &Net, kind: MediaKind) -> usize {
    usize::from(kind == Audio && network.server.session.tracks().len() > 1)
}

fn kept(network: &Net, kind: MediaKind) -> Vec<KeptFrame> {
    network.server.kept(track(network, kind))
}

/// Each kept frame beside the sent one it is; fails on one that was never sent, or not in this order.
fn matched(network: &Net, kind: MediaKind) -> Vec<Matched> {
    proof::matched(&network.publisher.sent_of(kind), &kept(network, kind)).unwrap()
}

/// Frames sent and kept.
fn counts(network: &Net, kind: MediaKind) -> (usize, usize) {
    (network.publisher.sent_of(kind).len(), kept(network, kind).len())
}

/// That at least so many per cent of a kind's frames were kept; prints both numbers.
fn assert_kept(network: &Net, kind: MediaKind, percent: f64) {
    let (sent, kept) = counts(network, kind);
    let share = kept as f64 / sent as f64 * 100.0;
    println!("{kind:?}: {kept} of {sent} frames kept, {share:.2} %");
    assert!(sent > 0 && share >= percent, "{kind:?}: {kept} of {sent} frames kept, {share:.2} %");
}

fn gaps(network: &Net) -> Vec<Gap> {
    let media = network.server.media.iter();
    media.filter_map(|(_, event)| if let Event::Gap(gap) = event { Some(*gap) } else { None }).collect()
}

/// All frames with when they came out.
fn frames(network: &Net) -> impl Iterator<Item = (Instant, &Frame)> {
    network.server.media.iter().filter_map(|(at, event)| match event {
        Event::Frame(frame) => Some((*at, frame)),
        _ => None,
    })
}

/// The longest time in which no frame of a track came out.
fn longest_silence(network: &Net, kind: MediaKind) -> Duration {
    let track = track(network, kind);
    let times: Vec<Instant> =
        frames(network).filter(|(_, frame)| frame.track == track).map(|(at, _)| at).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
}

/// T1, T2: time goes on in each track, and every picture can be decoded.
fn assert_one_stream(network: &Net) {
    for index in 0..network.server.session.tracks().len() {
        let times: Vec<Duration> = network.server.frames(index).map(|frame| frame.time).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "track {index} goes back in time");
    }
    if !network.publisher.sent_of(Video).is_empty() {
        proof::check_decodable(&matched(network, Video)).unwrap();
    }
}
