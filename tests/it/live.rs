//! A stream is watched while it happens: by players, and by any number of viewers, slow ones too.

use crate::support::chunks::{self, Chunks};
use crate::support::judge::{self, Packet, Probe};
use crate::support::live::Live;
use crate::support::media;
use crate::support::proof::{self, KeptFrame};
use crate::support::publisher::{Config, Publisher, TrackConfig};
use crate::support::server::Server;
use crate::support::signalling::Signal;
use crate::support::source::{FakeAudio, FakeVideo, Looped};
use crate::support::user::{Api, SOON, eventually, on_air, on_air_again, sends, stalled};
use crate::support::viewer::{Seen, Viewer};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use str0m::media::MediaKind;
use tokio::io::AsyncReadExt;

const VP8_OPUS: &str = "video/webm;codecs=\"vp8,opus\"";
const OPUS: &str = "audio/webm;codecs=\"opus\"";

/// A publisher of these frames on air, and its socket.
async fn publishing(
    server: &Server,
    name: &str,
    configure: impl FnOnce(SocketAddr) -> Config,
) -> (Live, Signal) {
    let (live, offer) = Live::start(configure).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let answer = signal.publish(name, &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    (live, signal)
}

/// A real camera, whose next keyframe comes when it is asked for.
fn camera(local: SocketAddr) -> Config {
    let (video, audio) = media::camera(10);
    Config {
        video: Some(TrackConfig::new(Looped::new(video))),
        audio: Some(TrackConfig::new(Looped::new(audio))),
        ..Config::new(local)
    }
}

/// What ffmpeg makes of the first seconds of an address, without a word of complaint.
fn ffmpeg_keeps(url: &str, seconds: u32, file: &Path) {
    let seconds = seconds.to_string();
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "warning", "-xerror", "-i", url, "-t", &seconds, "-c", "copy"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "ffmpeg: {complaint}");
}

fn kept(packets: &[Packet], kind: &str) -> Vec<KeptFrame> {
    packets.iter().filter(|packet| packet.kind == kind).map(KeptFrame::from).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn players_open_a_stream_while_it_is_published() {
    let server = Server::start(&[]);
    let (live, mut signal) = publishing(&server, "on air", camera).await;
    let url = server.url("/live/on%20air.webm");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("live.mkv");
    let (probe, length) = tokio::task::spawn_blocking({
        let (url, file) = (url.clone(), file.clone());
        move || {
            let probe = Probe::of(Path::new(&url));
            ffmpeg_keeps(&url, 3, &file);
            judge::decode(&file).unwrap();
            (probe, Probe::of(&file).duration().unwrap())
        }
    })
    .await
    .unwrap();
    assert_eq!(probe.format.format_name, "matroska,webm");
    let video = probe.stream("video").unwrap();
    assert_eq!((video.codec_name.as_str(), video.width, video.height), ("vp8", Some(1280), Some(720)));
    assert_eq!(probe.stream("audio").unwrap().codec_name, "opus");
    let packets = judge::packets(&file);
    assert!(packets.iter().find(|packet| packet.kind == "video").unwrap().keyframe);
    assert!(packets[0].time < Duration::from_millis(50), "times begin at {:?}", packets[0].time);
    for (kind, of) in [("video", MediaKind::Video), ("audio", MediaKind::Audio)] {
        let sent = live.with(move |publisher| publisher.sent_of(of)).await;
        let matched = proof::matched(&sent, &kept(&packets, kind)).unwrap();
        let holes = matched.windows(2).filter(|pair| pair[1].index != pair[0].index + 1).count();
        println!("{kind}: {} frames in {length:?}, {holes} holes", matched.len());
        assert_eq!(holes, 0, "{kind}");
    }

    let client = reqwest::Client::new();
    let head = client.head(&url).send().await.unwrap();
    assert_eq!(
        (head.status(), &head.headers()["content-type"]),
        (StatusCode::OK, &VP8_OPUS.parse().unwrap())
    );
    assert_eq!(head.headers()["cache-control"], "no-store");
    // What a player that opened it gets when the stream ends: the end.
    let body = client.get(&url).send().await.unwrap();
    live.with(Publisher::stop_sending).await;
    signal.stop("on air").await;
    let bytes = tokio::time::timeout(SOON, body.bytes()).await.expect("the body ends").unwrap();
    assert!(bytes.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]), "no EBML header in {} bytes", bytes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_joins_late_soon_has_a_picture_and_nothing_older_than_the_newest_keyframe() {
    let server = Server::start(&["webrtc.keyframe_interval=60s"]);
    let fake = |local| Config {
        video: Some(TrackConfig::new(FakeVideo::hd())),
        audio: Some(TrackConfig::new(Box::<FakeAudio>::default())),
        ..Config::new(local)
    };
    let (live, _signal) = publishing(&server, "late", fake).await;
    // The newest keyframe is the first, and long ago; the next one isn't due.
    sends_for(&live, Duration::from_secs(20)).await;
    let url = server.ws_url("/live/late");
    let folder = tempfile::tempdir().unwrap();
    let asked = live.with(|publisher| publisher.keyframe_requests().len()).await;
    for (n, label) in [(0, "the first viewer"), (1, "the next one")] {
        let sent = live.with(|publisher| publisher.sent_of(MediaKind::Video)).await;
        let newest = sent.iter().rposition(|frame| frame.keyframe).unwrap();
        let mut viewer = Viewer::connect(&url, None).await;
        viewer.sees(1).await;
        let first = viewer.clusters[0] - viewer.began;
        viewer.sees(5).await;
        assert_eq!(viewer.mime, VP8_OPUS);
        let file = folder.path().join(format!("{n}.webm"));
        viewer.save(&file);
        let packets = judge::packets(&file);
        let sent = live.with(|publisher| publisher.sent_of(MediaKind::Video)).await;
        let matched = proof::matched(&sent, &kept(&packets, "video")).unwrap();
        println!(
            "{label}: first picture after {first:?}, frame {} ({newest} was the newest keyframe)",
            matched[0].index
        );
        assert!(matched[0].keyframe && matched[0].index >= newest, "frame {}", matched[0].index);
        assert!(matched.windows(2).all(|pair| pair[1].index == pair[0].index + 1), "a hole");
        assert_eq!(packets[0].time, Duration::ZERO, "where times begin");
        assert!(first < Duration::from_millis(500), "{label}: the first picture came after {first:?}");
    }
    // Many who join at once are one request.
    sends(&live, 2 * 80).await;
    let mut many = Vec::new();
    for _ in 0..10 {
        many.push(Viewer::connect(&url, None).await);
    }
    for viewer in &mut many {
        viewer.sees(1).await;
    }
    let requests = live.with(|publisher| publisher.keyframe_requests().to_vec()).await;
    let pauses: Vec<_> = requests[asked..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    println!("{} keyframes asked for, {pauses:?} apart", requests.len() - asked);
    assert!(pauses.iter().all(|pause| *pause > Duration::from_millis(900)), "{pauses:?}");
    assert!(requests.len() - asked <= 3, "{} requests", requests.len() - asked);
}

/// Resident memory of the server, in MiB.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// What a viewer has of one kind, among what was sent.
fn seen_of(viewer: &Viewer, publisher: &Publisher, kind: MediaKind) -> Vec<proof::Matched> {
    let number = if kind == MediaKind::Audio { 1 } else { 2 };
    let mut reader = onrecord::container::webm::Reader::new(None);
    reader.push(&viewer.file);
    reader.finish();
    let mut kept = Vec::new();
    while let Some(item) = reader.read().unwrap() {
        if let onrecord::container::webm::Item::Block(block) = item
            && block.track == number
        {
            // Sound that was put in for a track that lagged is nobody's.
            let frame = block.frames().next().unwrap();
            if frame.len() > 3 {
                kept.push(KeptFrame::new(Duration::from_millis(block.time as u64), frame));
            }
        }
    }
    proof::matched(&publisher.sent_of(kind), &kept).unwrap()
}

fn missing(matched: &[proof::Matched]) -> usize {
    matched[matched.len() - 1].index - matched[0].index + 1 - matched.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_viewers_of_whom_five_do_not_read_harm_nobody() {
    const VIEWERS: usize = 50;
    const STALLED: usize = 5;
    let server = Server::start(&["live.cache=1MiB"]);
    let fake = |local| Config {
        video: Some(TrackConfig::new(FakeVideo::heavy())),
        audio: Some(TrackConfig::new(Box::<FakeAudio>::default())),
        ..Config::new(local)
    };
    let (live, mut signal) = publishing(&server, "crowd", fake).await;
    let alone = memory(&server);
    let url = server.ws_url("/live/crowd");
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut viewer = Viewer::connect(&url, Some(4096)).await;
        viewer.sees(1).await;
        stalled.push(viewer);
    }
    let read = |mut viewer: Viewer| {
        tokio::spawn(async move {
            let end = viewer.until_the_end().await;
            (viewer, end)
        })
    };
    let mut readers = Vec::new();
    for _ in STALLED..VIEWERS {
        let mut viewer = Viewer::connect(&url, None).await;
        viewer.sees(1).await;
        readers.push(read(viewer));
    }
    // More than their connections and the cache take; less than what ends them: 10 s without reading.
    sends_for(&live, Duration::from_secs(5)).await;
    let crowded = memory(&server);
    let stalled: Vec<_> = stalled.into_iter().map(read).collect();
    sends(&live, 3 * 80).await;
    live.with(Publisher::stop_sending).await;
    let recording = signal.stop("crowd").await["recording"].clone();
    let publisher = live.stop().await;

    let file = server.records().join(recording["file"].as_str().unwrap());
    for kind in [MediaKind::Video, MediaKind::Audio] {
        let name = if kind == MediaKind::Video { "video" } else { "audio" };
        let packets: Vec<_> = judge::packets_of(&file, name).iter().map(KeptFrame::from).collect();
        let matched = proof::matched(&publisher.sent_of(kind), &packets).unwrap();
        assert_eq!(missing(&matched), 0, "{name} in the recording");
    }
    let mut frames = 0;
    for reader in readers {
        let (viewer, (word, code)) = reader.await.unwrap();
        assert_eq!((&word["type"], &word["reason"], code), (&json!("end"), &json!("stopped"), Some(1000)));
        let video = seen_of(&viewer, &publisher, MediaKind::Video);
        assert_eq!((missing(&video), viewer.skipped), (0, 0), "frames a reader lacks");
        assert_eq!(video[video.len() - 1].index + 1, publisher.sent_of(MediaKind::Video).len(), "its last");
        frames += video.len();
    }
    let mut skipped = Vec::new();
    for viewer in stalled {
        let (viewer, _) = viewer.await.unwrap();
        let lost =
            [MediaKind::Video, MediaKind::Audio].map(|kind| missing(&seen_of(&viewer, &publisher, kind)));
        skipped.push((viewer.skipped, lost.iter().sum::<usize>()));
    }
    println!(
        "{frames} pictures seen by {} readers; those who stalled were told of, and lack: {skipped:?}",
        VIEWERS - STALLED
    );
    println!("memory: {alone} MiB without viewers, {crowded} MiB with {VIEWERS}");
    for (told, lost) in skipped {
        assert!(told > 0 && told.abs_diff(lost as u64) <= 3, "told of {told}, lost {lost}");
    }
    assert!(crowded < alone + 64, "{crowded} MiB");
}

/// Lets a publisher send for so long.
async fn sends_for(live: &Live, time: Duration) {
    let frames = (time.as_secs_f64() * 80.0) as usize;
    let before = live.with(|publisher| publisher.sent().len()).await;
    eventually("frames sent", 3 * time, async || {
        let sent = live.with(|publisher| publisher.sent().len()).await;
        (sent >= before + frames).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_that_falls_silent_holds_up_nobody() {
    let server = Server::start(&[]);
    let seconds = Duration::from_secs;
    let fake = |local| Config {
        // Muted: sound from 2 s to 5 s, pictures from 6 s to 10 s.
        video: Some(TrackConfig {
            pauses: vec![seconds(6)..seconds(10)],
            ..TrackConfig::new(FakeVideo::small())
        }),
        audio: Some(TrackConfig {
            pauses: vec![seconds(2)..seconds(5)],
            ..TrackConfig::new(Box::<FakeAudio>::default())
        }),
        ..Config::new(local)
    };
    let (live, _signal) = publishing(&server, "muted", fake).await;
    let mut viewer = Viewer::connect(&server.ws_url("/live/muted"), None).await;
    let folder = tempfile::tempdir().unwrap();
    let (url, kept) = (server.url("/live/muted.webm"), folder.path().join("http.mkv"));
    let player = tokio::task::spawn_blocking(move || {
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i", &url, "-t", "9", "-c", "copy"])
            .arg(&kept)
            .output()
            .unwrap();
        (output.status.success(), judge::packets(&kept))
    });
    viewer.sees(1).await;
    let both = folder.path().join("both.webm");
    // Up to the moment when pictures have been away for 2 s.
    while viewer.mime == VP8_OPUS {
        viewer.save(&both);
        if let Seen::Closed(code) = viewer.next().await {
            panic!("closed with {code:?}");
        }
    }
    assert_eq!(viewer.mime, OPUS);
    let away = Instant::now();
    for kind in ["video", "audio"] {
        let packets = judge::packets_of(&both, kind);
        let widest = packets.windows(2).map(|pair| pair[1].time - pair[0].time).max().unwrap();
        println!("{kind}: {} packets, the widest gap {widest:?}", packets.len());
        assert!(widest < Duration::from_millis(100), "{kind}: {widest:?}");
    }
    viewer.sees(10).await;
    viewer.sees_init(VP8_OPUS).await;
    println!("pictures were away for viewers for {:?}", away.elapsed());
    viewer.sees(5).await;
    assert_eq!(viewer.skipped, 0);
    let (ok, packets) = player.await.unwrap();
    assert!(ok);
    let last = |kind: &str| packets.iter().rfind(|packet| packet.kind == kind).unwrap().time;
    println!("a player over HTTP: sound to {:?}, pictures to {:?}", last("audio"), last("video"));
    assert!(last("audio") > seconds(8), "a player's sound ends at {:?}", last("audio"));
    drop(live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_stay_while_their_publisher_is_away_and_learn_of_other_tracks_and_of_the_end() {
    let server = Server::start(&["record.reconnect_grace=1h"]);
    let sound =
        |local| Config { audio: Some(TrackConfig::new(Box::<FakeAudio>::default())), ..Config::new(local) };
    let (live, offer) = Live::start(sound).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let answer = signal.publish("away", &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    let mut viewer = Viewer::connect(&server.ws_url("/live/away"), None).await;
    viewer.sees(2).await;
    assert_eq!(viewer.mime, OPUS);
    let body = reqwest::get(server.url("/live/away.webm")).await.unwrap();
    assert_eq!(body.headers()["content-type"], OPUS);
    live.with(Publisher::close).await;
    drop(live);
    // Back with a camera: other tracks, so another file and another stream.
    let resume = answer["resume"].as_str().unwrap().to_owned();
    let back = on_air_again(&server, "away", Some(&resume)).await;
    viewer.sees_init(VP8_OPUS).await;
    viewer.sees(2).await;
    tokio::time::timeout(SOON, body.bytes()).await.expect("an HTTP viewer's file ends").unwrap();
    // Back with the same: the same stream goes on, without a hole.
    back.live.with(Publisher::close).await;
    drop(back);
    let inits = viewer.inits;
    let again = on_air_again(&server, "away", Some(&resume)).await;
    let before = viewer.clusters.len();
    again.sends(80).await;
    viewer.sees(before + 5).await;
    assert_eq!((viewer.inits, viewer.skipped), (inits, 0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("again.webm");
    viewer.save(&file);
    let video = judge::packets_of(&file, "video");
    let widest = video.windows(2).map(|pair| pair[1].time - pair[0].time).max().unwrap();
    println!("after the publisher's return the widest gap is {widest:?}");
    assert!(widest < Duration::from_secs(1), "{widest:?}");

    let (status, _) = Api::of(&server).call(Method::DELETE, "/api/streams/away").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (word, code) = viewer.until_the_end().await;
    assert_eq!(
        (word["type"].as_str(), word["reason"].as_str(), code),
        (Some("end"), Some("kicked"), Some(1000))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_watch_is_told_why() {
    let server = Server::start(&["limits.max_viewers=1"]);
    let api = Api::of(&server);
    let refused =
        async |path: &str| Viewer::connect(&server.ws_url(path), None).await.until_the_end().await.1;
    assert_eq!(refused("/live/nobody").await, Some(4404));
    let (status, body) = api.call(Method::GET, "/live/nobody.webm").await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &"stream_not_found".into()));
    let (status, body) = api.call(Method::GET, "/live/nobody").await;
    assert_eq!((status, &body["code"]), (StatusCode::UPGRADE_REQUIRED, &"bad_request".into()));
    let (status, body) = api.call(Method::GET, "/live/-x.webm").await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &"bad_name".into()));

    let _on_air = on_air(&server, "one.webm").await;
    let mut only = Viewer::connect(&server.ws_url("/live/one.webm"), None).await;
    only.sees(1).await;
    assert_eq!(refused("/live/one.webm").await, Some(4503));
    let full = reqwest::get(server.url("/live/one.webm.webm")).await.unwrap();
    assert_eq!(
        (full.status(), full.headers().contains_key("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, true)
    );
    // Who looks at a JPEG stream is a viewer like others.
    let image = media::jpegs(1, "320x180").remove(0);
    let upload = reqwest::Client::new().post(server.url("/upload")).header("content-type", "image/jpeg");
    assert_eq!(upload.body(image).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let (status, body) = api.call(Method::GET, "/stream").await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &"limit_reached".into()));
    drop(only);
    eventually("a place that is free again", SOON, async || {
        let status = reqwest::get(server.url("/live/one.webm.webm")).await.unwrap().status();
        (status == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_watched_frame_by_frame_and_a_muted_microphone_holds_up_nobody() {
    let server = Server::start(&[]);
    // A keyframe a second, and a chunk each half.
    let sent = chunks::muted(10, 3, 6);
    let (mut publisher, _) = Chunks::start(&server, "chunks").await;
    let performance = tokio::spawn({
        let sent = sent.clone();
        async move {
            let bytes = publisher.perform(&sent).await;
            publisher.stop(Some(bytes)).await
        }
    });
    Api::of(&server).stream_is("chunks", "PUBLISHING").await;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("http.mkv");
    let (url, socket) = (server.url("/live/chunks.webm"), server.ws_url("/live/chunks"));
    let mut viewer = Viewer::connect(&socket, None).await;
    viewer.sees(1).await;
    let player = tokio::task::spawn_blocking(move || {
        ffmpeg_keeps(&url, 3, &kept);
        judge::decode(&kept).unwrap();
        Probe::of(&kept).duration().unwrap()
    });
    let first = viewer.clusters[0] - viewer.began;
    viewer.sees(5).await;
    let mut second = Viewer::connect(&socket, None).await;
    second.sees(1).await;
    let next = second.clusters[0] - second.began;
    println!("the first picture came after {first:?}, a second viewer's after {next:?}");
    let (word, code) = viewer.until_the_end().await;
    assert_eq!((&word["reason"], code), (&json!("stopped"), Some(1000)));
    performance.await.unwrap();

    let file = folder.path().join("seen.webm");
    viewer.save(&file);
    let silence = judge::sha256(&[0xf8, 0xff, 0xfe]);
    for kind in ["video", "audio"] {
        let packets = judge::packets_of(&file, kind);
        let widest = packets.windows(2).map(|pair| pair[1].time - pair[0].time).max().unwrap();
        let seen: Vec<_> =
            packets.into_iter().map(|packet| packet.sha256).filter(|hash| *hash != silence).collect();
        let sent = chunks::hashes(&sent, "webm", kind);
        println!("{kind}: {} of {} frames seen, the widest gap {widest:?}", seen.len(), sent.len());
        assert!(seen.len() > sent.len() / 2 && sent.ends_with(&seen), "{kind}: other frames than were sent");
        assert!(widest < Duration::from_millis(100), "{kind}: {widest:?}");
    }
    let pause = viewer.clusters.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!("{} skipped, {pause:?} between two clusters at most", viewer.skipped);
    assert_eq!(viewer.skipped, 0);
    assert!(pause < Duration::from_millis(1500), "nothing came for {pause:?}");
    println!("a player over HTTP keeps {:?}", player.await.unwrap());
    // The keyframe has to happen, and its chunk to end.
    for first in [first, next] {
        assert!(first < Duration::from_millis(2000), "the first picture came after {first:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_that_reads_nothing_loses_its_place_and_its_connection() {
    let server = Server::start(&["limits.max_viewers=1"]);
    let fake = |local| Config { video: Some(TrackConfig::new(FakeVideo::heavy())), ..Config::new(local) };
    let (live, _signal) = publishing(&server, "dead", fake).await;
    let mut dead = stalled(&server, "/live/dead.webm").await;
    let status = async || reqwest::get(server.url("/live/dead.webm")).await.unwrap().status();
    eventually("it has the place", SOON, async || {
        (status().await == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    let began = Instant::now();
    eventually("a place that is free again", Duration::from_secs(60), async || {
        (status().await == StatusCode::OK).then_some(())
    })
    .await;
    println!("the place was free again {:?} after it was taken", began.elapsed());
    // The stream goes on, so what ends is the connection.
    let mut rest = Vec::new();
    let end = tokio::time::timeout(SOON, dead.read_to_end(&mut rest)).await.expect("the connection ends");
    println!("{} bytes were on their way: {end:?}", rest.len());
    drop(live);
}
