//! MediaRecorder's output over `/chunks`: what was sent is in a file, whatever happens on the way.

use crate::support::chunks::{AV1, Chunks, H264, VP8, VP9, hashes, hashes_of, recording, small};
use crate::support::judge::{self, Probe};
use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, eventually, files_in, on_air};
use onrecord::container::webm::{Item, Reader};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const QUIET: &str = "hooks.on_record=";

fn file(server: &Server, recording: &Value) -> PathBuf {
    server.records().join(recording["file"].as_str().unwrap())
}

/// The file holds the frames of these recordings, one after the other, and no others.
fn holds(file: &std::path::Path, sent: &[&[u8]]) {
    let suffix = file.extension().unwrap().to_str().unwrap();
    for kind in ["video", "audio"] {
        let sent: Vec<_> = sent.iter().flat_map(|bytes| hashes(bytes, suffix, kind)).collect();
        let kept = hashes_of(file, kind);
        assert!(!sent.is_empty() && kept == sent, "{kind}: {} of {} frames", kept.len(), sent.len());
    }
    let packets = judge::packets_of(file, "video");
    assert!(packets.windows(2).all(|pair| pair[0].time < pair[1].time), "times grow");
    judge::decode(file).unwrap();
}

#[tokio::test]
async fn what_was_sent_is_in_a_file_that_seeks_and_the_hook_has_run() {
    let script = Script::new("echo \"$1 $2\" >> \"$here/ran\"");
    let server = Server::start(&[&script.setting()]);
    let sent = recording("webm", VP8, 4, "640x360");
    let (mut chunks, registered) = Chunks::start(&server, "interview 7").await;
    assert_eq!((&registered["name"], &registered["offset"]), (&json!("interview 7"), &json!(0)));
    assert_eq!(registered["uid"].as_str().unwrap().len(), 26, "{registered}");
    let offset = chunks.upload(&sent, 7000).await;
    assert_eq!(offset, sent.len() as u64, "every byte is acked");
    let recording = chunks.stop(Some(offset)).await;
    let keys: Vec<_> = recording.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["bytes", "duration_ms", "file", "id", "stream", "url"]);
    let file = file(&server, &recording);
    holds(&file, &[&sent]);
    let duration = Probe::of(&file).duration().unwrap();
    assert!(duration.abs_diff(Duration::from_secs(4)) < Duration::from_millis(60), "{duration:?}");
    let keyframes = judge::packets_of(&file, "video").into_iter().filter(|packet| packet.keyframe);
    assert_eq!(judge::cue_times(&file), keyframes.map(|packet| packet.time).collect::<Vec<_>>());
    let manifest = Api::of(&server).hook(recording["id"].as_str().unwrap(), "done", SOON).await;
    assert_eq!((&manifest["end_reason"], &manifest["gaps"]), (&json!("stopped"), &json!([])));
    assert_eq!(manifest["tracks"][0]["width"], 640, "{manifest}");
    assert_eq!(script.left("ran"), format!("interview 7 {}\n", file.display()));
}

#[tokio::test]
async fn every_codec_that_browsers_record_is_kept_frame_by_frame() {
    let server = Server::start(&[QUIET]);
    for (format, codec, name, suffix) in
        [("webm", VP9, "vp9", "webm"), ("webm", AV1, "av1", "webm"), ("matroska", H264, "h264", "mkv")]
    {
        let sent = recording(format, codec, 2, "320x180");
        let (mut chunks, _) = Chunks::start(&server, name).await;
        let offset = chunks.upload(&sent, 30_000).await;
        let recording = chunks.stop(Some(offset)).await;
        let file = file(&server, &recording);
        assert_eq!(file.extension().unwrap(), suffix);
        holds(&file, &[&sent]);
        let probe = Probe::of(&file);
        let video = probe.stream("video").unwrap();
        assert_eq!((video.codec_name.as_str(), video.width, video.height), (name, Some(320), Some(180)));
    }
}

#[tokio::test]
async fn a_socket_that_is_cut_three_times_costs_no_frame() {
    let server = Server::start(&[QUIET]);
    let sent = recording("webm", VP8, 4, "640x360");
    let (mut chunks, registered) = Chunks::start(&server, "cut").await;
    let (uid, mut from) = (&registered["uid"], 0);
    for cut in [0.13, 0.471, 0.802] {
        let to = (sent.len() as f64 * cut) as usize;
        // Without waiting for acks: which of them arrive is the network's business.
        for piece in sent[from as usize..to].chunks(9001) {
            chunks.send(piece).await;
        }
        (chunks, from) = Chunks::resume(&server, uid).await;
    }
    drop(chunks);
    let (mut chunks, offset) = Chunks::resume(&server, uid).await;
    println!("{offset} of {} bytes had arrived", sent.len());
    assert_eq!(chunks.upload(&sent[offset as usize..], 9001).await, sent.len() as u64);
    let recording = chunks.stop(Some(sent.len() as u64)).await;
    holds(&file(&server, &recording), &[&sent]);
    assert_eq!(Api::of(&server).recordings().await.len(), 1);
}

#[tokio::test]
async fn a_recorder_that_starts_again_goes_on_in_the_same_file() {
    let server = Server::start(&[QUIET]);
    let (one, two) = (small(), recording("webm", VP8, 2, "640x360"));
    let (mut chunks, _) = Chunks::start(&server, "switched").await;
    for sent in [&one, &two, &one] {
        chunks.upload(sent, 20_000).await;
    }
    let recording = chunks.stop(None).await;
    let file = file(&server, &recording);
    holds(&file, &[&one, &two, &one]);
    let duration = Probe::of(&file).duration().unwrap();
    assert!(duration.abs_diff(Duration::from_secs(6)) < Duration::from_millis(400), "{duration:?}");
    assert_eq!(judge::picture_sizes(&file).len(), 2);
    assert_eq!(Api::of(&server).recordings().await.len(), 1);
}

#[tokio::test]
async fn another_codec_or_another_container_goes_on_in_another_file() {
    let server = Server::start(&[QUIET]);
    let sent = [small(), recording("webm", VP9, 2, "320x180"), recording("mp4", H264, 2, "320x180"), small()];
    let (mut chunks, _) = Chunks::start(&server, "mixed").await;
    for sent in &sent {
        chunks.upload(sent, 1 << 20).await;
    }
    let last = chunks.stop(None).await;
    let mut list = eventually("four files", SOON, async || {
        let list = Api::of(&server).recordings().await;
        (list.len() == 4 && list.iter().all(|manifest| manifest["state"] == "sealed")).then_some(list)
    })
    .await;
    list.reverse();
    for (manifest, sent) in list.iter().zip(&sent) {
        holds(&file(&server, manifest), &[sent]);
    }
    let reasons: Vec<_> = list.iter().map(|manifest| manifest["end_reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["rotated", "rotated", "rotated", "stopped"]);
    assert_eq!(list[3]["id"], last["id"]);
}

#[tokio::test]
async fn text_blobs_are_taken_like_bytes_and_one_may_trail_the_stop() {
    let server = Server::start(&[QUIET]);
    let sent = small();
    let half = sent.len() / 2;
    let (mut chunks, _) = Chunks::start(&server, "text").await;
    for part in [&sent[..half], &sent[half..]] {
        if part.len() != half || part.as_ptr() != sent.as_ptr() {
            chunks.say(json!({ "event": "STOP_REC_BLOB" })).await;
        }
        let blob: String = part.iter().map(|byte| char::from(*byte)).collect();
        chunks.say(json!({ "event": "REC_BLOB", "blob": blob })).await;
        chunks.ack().await;
    }
    let stopped = Instant::now();
    let recording = chunks.stopped().await;
    println!("sealed {:?} after the last message", stopped.elapsed());
    assert!(stopped.elapsed() > Duration::from_millis(900), "a Blob may trail the stop by a second");
    holds(&file(&server, &recording), &[&sent]);
    // The socket takes another.
    chunks.register(json!({ "name": "text" })).await;
    chunks.say(json!({ "event": "START_REC_BLOB" })).await;
    chunks.send(&sent[..half]).await;
    chunks.ack().await;
    chunks.say(json!({ "event": "STOP_REC_BLOB", "bytes": sent.len() })).await;
    chunks.send(&sent[half..]).await;
    chunks.ack().await;
    holds(&file(&server, &chunks.stopped().await), &[&sent]);
}

#[tokio::test]
async fn messages_out_of_turn_are_answered_and_change_nothing() {
    let server = Server::start(&[QUIET]);
    let sent = small();
    let mut chunks = Chunks::connect(&server).await;
    for (message, code) in [
        (json!({ "event": "START_REC_BLOB" }), "bad_request"),
        (json!({ "event": "STOP_REC_BLOB" }), "bad_request"),
        (json!({ "event": "REC_BLOB", "blob": "a" }), "bad_request"),
        (json!({ "event": "dance" }), "bad_request"),
        (json!({ "event": "register" }), "bad_request"),
        (json!({ "event": "register", "name": "../x" }), "bad_name"),
        (json!({ "event": "register", "name_prefix": "-rf" }), "bad_name"),
        (json!({ "event": "register", "name": "a", "name_prefix": "b" }), "bad_request"),
    ] {
        chunks.say(message.clone()).await;
        assert_eq!(chunks.error().await, code, "{message}");
    }
    chunks.send(&sent).await;
    assert_eq!(chunks.error().await, "bad_request");
    chunks.register(json!({ "name": "turns" })).await;
    chunks.send(&sent).await;
    assert_eq!(chunks.error().await, "bad_request", "no START yet");
    chunks.say(json!({ "event": "STOP_REC_BLOB" })).await;
    assert_eq!(chunks.error().await, "bad_request");
    chunks.say(json!({ "event": "START_REC_BLOB" })).await;
    chunks.say(json!({ "event": "START_REC_BLOB" })).await;
    assert_eq!(chunks.error().await, "bad_request");
    chunks.say(json!({ "event": "register", "name": "more" })).await;
    assert_eq!(chunks.error().await, "bad_request");
    let mut other = Chunks::connect(&server).await;
    other.say(json!({ "event": "register", "name": "turns" })).await;
    assert_eq!(other.error().await, "stream_busy");
    let offset = chunks.upload(&sent, 10_000).await;
    chunks.say(json!({ "event": "STOP_REC_BLOB", "bytes": offset - 1 })).await;
    assert_eq!(chunks.error().await, "offset_mismatch");
    let recording = chunks.stop(Some(offset)).await;
    holds(&file(&server, &recording), &[&sent]);
}

#[tokio::test]
async fn rubbish_ends_with_its_code_and_what_came_before_is_sealed() {
    let server = Server::start(&[QUIET, "chunks.max_message=64KiB"]);
    let sent = small();
    let unknown = replaced(&sent, b"A_OPUS", b"A_XPUS");
    for (name, rubbish, code, close) in [
        ("noise", vec![0xaa; 5000], "bad_blob", 4400),
        ("zeros", vec![0; 5000], "bad_blob", 4400),
        ("codec", unknown[..2000].to_vec(), "unsupported_codec", 4422),
    ] {
        let (mut chunks, _) = Chunks::start(&server, name).await;
        chunks.upload(&sent, 60_000).await;
        chunks.send(&rubbish).await;
        assert_eq!(chunks.error().await, code, "{name}");
        let recording = chunks.stopped().await;
        assert_eq!(chunks.next().await, Err(Some(close)), "{name}");
        holds(&file(&server, &recording), &[&sent]);
        let manifest = Api::of(&server).recording(recording["id"].as_str().unwrap()).await;
        assert_eq!(manifest["end_reason"], "bad_media", "{name}");
    }
    let (mut chunks, _) = Chunks::start(&server, "first").await;
    chunks.send(&[0xaa; 5000]).await;
    assert_eq!(chunks.error().await, "bad_blob");
    assert_eq!(chunks.next().await, Err(Some(4400)));

    // A message that isn't taken leaves the upload where it was.
    for (name, code, close) in [("large", "too_large", 4413), ("wide", "bad_blob", 4400)] {
        let (mut chunks, registered) = Chunks::start(&server, name).await;
        let offset = chunks.upload(&sent[..50_000], 50_000).await;
        if name == "large" {
            chunks.send(&vec![1; (64 << 10) + 1]).await;
        } else {
            chunks.say(json!({ "event": "REC_BLOB", "blob": "a\u{100}" })).await;
        }
        assert_eq!(chunks.error().await, code);
        assert_eq!(chunks.next().await, Err(Some(close)));
        let (mut chunks, resumed) = Chunks::resume(&server, &registered["uid"]).await;
        assert_eq!(resumed, offset);
        chunks.upload(&sent[offset as usize..], 60_000).await;
        holds(&file(&server, &chunks.stop(None).await), &[&sent]);
    }
    let mut chunks = Chunks::connect(&server).await;
    chunks.text("rubbish".to_owned()).await;
    assert_eq!(chunks.error().await, "bad_request");
    assert_eq!(chunks.next().await, Err(Some(4400)));
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[tokio::test]
async fn an_upload_is_one_sockets_at_a_time_and_waits_for_its_grace() {
    let server = Server::start(&[QUIET, "chunks.resume_grace=1s"]);
    let sent = small();
    let (mut first, registered) = Chunks::start(&server, "moving").await;
    let offset = first.upload(&sent[..sent.len() / 2], 10_000).await;
    let (mut second, resumed) = Chunks::resume(&server, &registered["uid"]).await;
    assert_eq!(resumed, offset);
    assert_eq!(first.error().await, "stream_busy");
    assert_eq!(first.next().await, Err(Some(4409)));
    second.upload(&sent[offset as usize..], 10_000).await;
    drop(second);
    let lost = Instant::now();
    let manifest = Api::of(&server).sealed(SOON).await;
    println!("sealed {:?} after the socket was lost", lost.elapsed());
    assert!(lost.elapsed() > Duration::from_millis(900));
    assert_eq!(manifest["end_reason"], "publisher_lost");
    holds(&file(&server, &manifest), &[&sent]);
    // Who comes late hears what became of it, and a stranger nothing.
    let mut late = Chunks::connect(&server).await;
    late.register(json!({ "uid": registered["uid"] })).await;
    assert_eq!(late.stopped().await["id"], manifest["id"]);
    let mut stranger = Chunks::connect(&server).await;
    stranger.say(json!({ "event": "register", "uid": "0123456789abcdefghjkmnpqrs" })).await;
    assert_eq!(stranger.error().await, "resume_expired");
    assert_eq!(stranger.next().await, Err(Some(4410)));
}

#[tokio::test]
async fn two_pages_of_one_prefix_have_two_streams() {
    let server = Server::start(&[QUIET]);
    let sent = small();
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut chunks = Chunks::connect(&server).await;
        let registered = chunks.register(json!({ "name_prefix": "interview", "mime": "" })).await;
        chunks.say(json!({ "event": "START_REC_BLOB" })).await;
        chunks.upload(&sent, 1 << 20).await;
        let recording = chunks.stop(None).await;
        assert_eq!(recording["stream"], registered["name"]);
        names.push(registered["name"].as_str().unwrap().to_owned());
    }
    let right = |name: &String| name.starts_with("interview-") && name.len() == "interview-".len() + 6;
    assert!(names.iter().all(right) && names[0] != names[1], "{names:?}");
}

#[tokio::test]
async fn mp4_is_kept_byte_for_byte_and_cut_to_whole_fragments() {
    let script = Script::new("cp \"$2\" \"$here/copy\"");
    let server = Server::start(&[&script.setting()]);
    let sent = recording("mp4", H264, 4, "320x180");
    let (mut chunks, _) = Chunks::start(&server, "safari").await;
    let offset = chunks.upload(&sent, 5000).await;
    let recording = chunks.stop(Some(offset)).await;
    assert_eq!(std::fs::read(file(&server, &recording)).unwrap(), sent);
    let duration = recording["duration_ms"].as_u64().unwrap();
    assert!(duration.abs_diff(4000) < 60, "{duration} ms");
    let manifest = Api::of(&server).hook(recording["id"].as_str().unwrap(), "done", SOON).await;
    assert_eq!(std::fs::read(script.file("copy")).unwrap(), sent, "what the hook saw");
    assert_eq!((&manifest["mime"], &manifest["tracks"][0]["frames"]), (&json!("video/mp4"), &json!(120)));
    assert_eq!(manifest["tracks"][1]["codec"], "aac");

    // Cut off in the middle of a fragment: by a stop, and by a crash.
    let part = &sent[..sent.len() * 7 / 10];
    let (mut chunks, _) = Chunks::start(&server, "cut").await;
    chunks.upload(part, 5000).await;
    let cut = std::fs::read(file(&server, &chunks.stop(None).await)).unwrap();
    let (mut chunks, _) = Chunks::start(&server, "killed").await;
    chunks.upload(part, 5000).await;
    let server = server.killed_and_started(&[&script.setting()]);
    let manifest = eventually("repaired", SOON, async || {
        let list = Api::of(&server).recordings().await;
        list.into_iter().find(|one| one["stream"] == "killed" && one["state"] == "sealed")
    })
    .await;
    assert_eq!(manifest["end_reason"], "server_crashed");
    let path = file(&server, &manifest);
    let repaired = std::fs::read(&path).unwrap();
    println!("{} of {} bytes are whole fragments", repaired.len(), part.len());
    assert!(repaired == cut && part.starts_with(&cut) && cut.len() > part.len() / 2);
    judge::decode(&path).unwrap();
    Api::of(&server).hook(manifest["id"].as_str().unwrap(), "done", SOON).await;
}

/// How many pictures the file has that is being written.
fn pictures_of_part(server: &Server) -> usize {
    let parts = files_in(&server.records()).into_iter().filter(|name| name.ends_with(".part"));
    let words = "-v quiet -select_streams v -show_entries packet=pts -of csv=p=0".split(' ');
    let listed = |name| Command::new("ffprobe").args(words.clone()).arg(server.records().join(name)).output();
    parts.map(|name| String::from_utf8_lossy(&listed(name).unwrap().stdout).lines().count()).sum()
}

#[tokio::test]
async fn a_killed_server_loses_at_most_one_flush_interval_of_chunks() {
    let server = Server::start(&[QUIET, "record.flush_interval=500ms"]);
    let sent = recording("webm", VP8, 4, "640x360");
    let (mut chunks, registered) = Chunks::start(&server, "killed").await;
    chunks.upload(&sent, 20_000).await;
    // What the promise is about: from the last ack on, one interval, and the time to write.
    let (all, acked) = (hashes(&sent, "webm", "video"), Instant::now());
    eventually("all but the last picture are on the disk", Duration::from_secs(5), async || {
        (pictures_of_part(&server) + 1 >= all.len()).then_some(())
    })
    .await;
    println!("on the disk {:?} after the last ack", acked.elapsed());
    let server = server.killed_and_started(&[QUIET]);
    let manifest = Api::of(&server).sealed(SOON).await;
    assert_eq!(manifest["end_reason"], "server_crashed");
    let path = file(&server, &manifest);
    let kept = hashes_of(&path, "video");
    println!("{} of {} pictures are kept", kept.len(), all.len());
    assert_eq!(kept, all[..kept.len()]);
    assert!(kept.len() >= all.len() - 1, "the last may still wait for its sound");
    judge::decode(&path).unwrap();
    let mut late = Chunks::connect(&server).await;
    late.say(json!({ "event": "register", "uid": registered["uid"] })).await;
    assert_eq!(late.error().await, "resume_expired");
}

#[tokio::test]
async fn a_stream_that_webrtc_began_goes_on_in_chunks_with_its_secret() {
    let server = Server::start(&[QUIET]);
    let on_air = on_air(&server, "ladder").await;
    on_air.sends(100).await;
    let mut chunks = Chunks::connect(&server).await;
    chunks.say(json!({ "event": "register", "name": "ladder" })).await;
    assert_eq!(chunks.error().await, "stream_busy");
    chunks.register(json!({ "name": "ladder", "resume": on_air.resume })).await;
    chunks.say(json!({ "event": "START_REC_BLOB" })).await;
    let sent = small();
    chunks.upload(&sent, 10_000).await;
    let listed = Api::of(&server).stream_is("ladder", "PUBLISHING").await;
    assert_eq!(listed["via"], "chunks");
    let path = file(&server, &chunks.stop(None).await);
    let (kept, sent) = (hashes_of(&path, "video"), hashes(&sent, "webm", "video"));
    println!("{} pictures came by WebRTC, {} in chunks", kept.len() - sent.len(), sent.len());
    assert!(kept.ends_with(&sent) && kept.len() > sent.len(), "one file holds both");
}

/// A recording whose clusters can be said again and again, each round later.
struct Rounds {
    head: Vec<u8>,
    clusters: Vec<(u64, Vec<Vec<u8>>)>,
    length: u64,
}

impl Rounds {
    fn of(bytes: &[u8], length: Duration) -> Self {
        let mut reader = Reader::new(None);
        reader.push(bytes);
        reader.finish();
        let (mut head, mut clusters) = (Vec::new(), Vec::<(u64, Vec<Vec<u8>>)>::new());
        while let Some(item) = reader.read().unwrap() {
            match item {
                Item::Cluster { at, .. } if head.is_empty() => head = bytes[..at as usize].to_vec(),
                Item::Time(time) => clusters.push((time, Vec::new())),
                Item::Block(block) => {
                    let (_, blocks) = clusters.last_mut().unwrap();
                    blocks.push(bytes[block.at.start as usize..block.at.end as usize].to_vec());
                }
                _ => {}
            }
        }
        Self { head, clusters, length: length.as_millis() as u64 }
    }

    /// Clusters without a size, like a browser's.
    fn round(&self, number: u64) -> Vec<u8> {
        let mut out = if number == 0 { self.head.clone() } else { Vec::new() };
        for (time, blocks) in &self.clusters {
            out.extend([0x1f, 0x43, 0xb6, 0x75, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe7, 0x88]);
            out.extend((number * self.length + time).to_be_bytes());
            blocks.iter().for_each(|block| out.extend(block));
        }
        out
    }
}

/// In KiB: `VmRSS` or `VmHWM`.
fn memory(server: &Server, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|found| found.starts_with(line)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn two_hours_faster_than_real_time_keep_the_memory_flat_and_the_file_seeks() {
    const ROUND: Duration = Duration::from_secs(10);
    const ALL: u64 = 720;
    let server = Server::start(&[QUIET]);
    let rounds = Rounds::of(
        &recording("webm", &[VP8, &["-b:v", "2M", "-minrate", "2M"]].concat(), 10, "640x360"),
        ROUND,
    );
    let (mut chunks, _) = Chunks::start(&server, "marathon").await;
    let (began, mut sent, mut after_a_tenth) = (Instant::now(), 0, 0);
    for number in 0..ALL {
        let round = rounds.round(number);
        sent += round.len() as u64;
        assert_eq!(chunks.upload(&round, 1 << 20).await, sent);
        if number == ALL / 10 {
            after_a_tenth = memory(&server, "VmHWM");
        }
    }
    let took = began.elapsed();
    let (peak, mib) = (memory(&server, "VmHWM"), sent >> 20);
    println!("2 h, {mib} MiB in {took:?}: {after_a_tenth} KiB at most in the first tenth, {peak} KiB in all");
    assert!(peak < after_a_tenth + (24 << 10), "memory grew from {after_a_tenth} to {peak} KiB");
    let recording = chunks.stop(None).await;
    let duration = recording["duration_ms"].as_u64().unwrap();
    assert!(duration.abs_diff(7_200_000) < 200, "{duration} ms");
    let manifest = Api::of(&server).recording(recording["id"].as_str().unwrap()).await;
    assert_eq!((&manifest["gaps"], &manifest["tracks"][0]["frames"]), (&json!([]), &json!(216_000)));
    let seek = Instant::now();
    let picture = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-ss", "6543", "-i"])
        .arg(file(&server, &recording))
        .args(["-frames:v", "1", "-f", "framemd5", "-"])
        .output()
        .unwrap();
    println!("a picture at 6543 s in {:?}", seek.elapsed());
    assert!(picture.status.success() && picture.stderr.is_empty());
    assert_eq!(files_in(&server.records()).len(), 2);
}
