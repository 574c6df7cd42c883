//! Recorders other than browsers' over `/chunks`: what they say of their tracks, and how they tell time.

use crate::metrics::scrape;
use crate::support::chunks::{Chunks, recording, small};
use crate::support::judge::{self, Probe};
use crate::support::server::Server;
use crate::support::user::{Api, SOON, eventually};
use crate::support::viewer::Viewer;
use onrecord::container::webm::{Item, Reader};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const QUIET: &str = "hooks.on_record=";
/// H.264 whose pictures are not shown in the order they are sent in.
const REORDERED: &[&str] = &["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-b_strategy", "0"];

/// Uploads it; gives the file and the manifest.
async fn recorded(server: &Server, name: &str, bytes: &[u8]) -> (PathBuf, Value) {
    let (mut chunks, _) = Chunks::start(server, name).await;
    let offset = chunks.upload(bytes, 20_000).await;
    let recording = chunks.stop(Some(offset)).await;
    let manifest = Api::of(server).recording(recording["id"].as_str().unwrap()).await;
    (server.records().join(recording["file"].as_str().unwrap()), manifest)
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    // mkvmerge exits with 1 after a warning.
    let fine = output.status.code().is_some_and(|code| code == 0 || (code == 1 && program == "mkvmerge"));
    assert!(fine, "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two seconds, whose tracks say all that a track can: written by mkvmerge.
fn eloquent(folder: &Path) -> PathBuf {
    let (plain, file) = (folder.join("plain.webm"), folder.join("eloquent.webm"));
    let mut sent = small();
    // An output gain of -6 dB (RFC 7845 section 5.1), and what follows of the header.
    let head = sent.windows(8).position(|window| window == b"OpusHead").unwrap();
    sent[head + 16..head + 18].copy_from_slice(&(-6i16 * 256).to_le_bytes());
    fs::write(&plain, sent).unwrap();
    let video = "--language 0:de --track-name 0:Tafel --default-track-flag 0:0 --hearing-impaired-flag 0:1 \
                 --cropping 0:2,4,6,8 --display-dimensions 0:400x180 --stereo-mode 0:1 \
                 --projection-type 0:0 --projection-pose-roll 0:90 \
                 --colour-matrix-coefficients 0:1 --colour-range 0:1 --colour-transfer-characteristics 0:1 \
                 --colour-primaries 0:1 --max-luminance 0:600 --white-colour-coordinates 0:0.3,0.3";
    let sound = "--language 1:fr --track-name 1:Rede --forced-display-flag 1:1 --original-flag 1:1";
    let options: Vec<&str> = [video, sound].iter().flat_map(|options| options.split_whitespace()).collect();
    let output = ["-q", "-w", "-o", file.to_str().unwrap()];
    run("mkvmerge", &[&output[..], &options[..], &[plain.to_str().unwrap()]].concat());
    file
}

/// What mkvinfo reads of a file's tracks, but for what each file has of its own: a line a fact.
fn said(file: &Path) -> BTreeSet<String> {
    let text = run("mkvinfo", &["--all", file.to_str().unwrap()]);
    let tracks = text.lines().skip_while(|line| !line.starts_with("|+ Tracks"));
    let tracks = tracks.skip(1).take_while(|line| line.starts_with("| "));
    let (mut facts, mut track) = (BTreeSet::new(), 0);
    let own = ["Track number", "Track UID", "Default duration", "EBML void", "\"Lacing\" flag", "Cache"];
    for line in tracks.map(|line| line.trim_start_matches(['|', ' ', '+'])) {
        track += usize::from(line == "Track");
        if !own.iter().any(|own| line.contains(own)) {
            facts.insert(format!("{track} {line}"));
        }
    }
    facts
}

/// Each track's description, as mkvmerge reads it.
fn descriptions(file: &Path) -> Vec<Value> {
    let listing: Value = serde_json::from_str(&run("mkvmerge", &["-J", file.to_str().unwrap()])).unwrap();
    let own = ["number", "uid", "default_duration", "minimum_timestamp", "num_index_entries", "tag_encoder"];
    let track = |track: &Value| {
        let mut properties: Map<String, Value> = track["properties"].as_object().unwrap().clone();
        own.iter().for_each(|own| drop(properties.remove(*own)));
        json!([track["codec"], properties])
    };
    listing["tracks"].as_array().unwrap().iter().map(track).collect()
}

fn rotation(file: &Path) -> Vec<String> {
    entries(file, "v", "stream_side_data=rotation")
}

/// Samples of sound that a player cuts off, packet by packet.
fn discarded(file: &Path) -> Vec<String> {
    entries(file, "a", "packet_side_data=discard_padding")
}

/// What ffprobe shows of one field, where it shows anything.
fn entries(file: &Path, stream: &str, field: &str) -> Vec<String> {
    let args = ["-v", "error", "-select_streams", stream, "-show_entries", field, "-of", "csv=p=0"];
    let text = run("ffprobe", &[&args[..], &[file.to_str().unwrap()]].concat());
    let lines = text.lines().map(|line| line.trim_end_matches(',').to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[tokio::test]
async fn what_a_recorder_says_of_its_tracks_is_said_of_the_recording_and_of_a_repaired_file() {
    let (server, folder) = (Server::start(&[QUIET]), tempfile::tempdir().unwrap());
    let source = eloquent(folder.path());
    let (mut chunks, _) = Chunks::start(&server, "tablet").await;
    let sent = fs::read(&source).unwrap();
    let (begin, end) = sent.split_at(sent.len() / 2);
    chunks.upload(begin, 20_000).await;
    let mut viewer = Viewer::connect(&server.ws_url("/live/tablet"), None).await;
    let watches = async || {
        (scrape(&server).await.value("onrecord_viewers", &[("kind", "websocket")]) > 0.0).then_some(())
    };
    eventually("it watches", SOON, watches).await;
    chunks.upload(end, 20_000).await;
    viewer.sees(1).await;
    let recording = chunks.stop(None).await;
    let ours = server.records().join(recording["file"].as_str().unwrap());

    let (told, kept) = (said(&source), said(&ours));
    let lost: Vec<_> = told.difference(&kept).collect();
    println!("{} facts: {told:?}", told.len());
    assert!(told.len() > 35 && lost.is_empty(), "lost: {lost:?}\nkept: {kept:?}");
    assert_eq!(descriptions(&ours), descriptions(&source));
    assert_eq!((rotation(&source), rotation(&ours)), (vec!["90".to_owned()], vec!["90".to_owned()]));
    assert_eq!((discarded(&source), discarded(&ours)), (vec!["648".to_owned()], vec!["648".to_owned()]));
    judge::decode(&ours).unwrap();

    // A live viewer's browser knows fewer fields, but all that change what is seen.
    let live = folder.path().join("live.webm");
    viewer.save(&live);
    assert_eq!(rotation(&live), ["90"]);
    let pictures = descriptions(&live).pop().unwrap()[1].clone();
    for (field, value) in [
        ("cropping", json!("2,4,6,8")),
        ("display_dimensions", json!("400x180")),
        ("stereo_mode", json!(1)),
        ("color_primaries", json!(1)),
        ("track_name", json!("Tafel")),
    ] {
        assert_eq!(pictures[field], value, "{field}: {pictures}");
    }

    // Half of the same, copied by repair; and ours, as a crash leaves it, mended where it is.
    let (half, part) = (folder.path().join("half.webm"), folder.path().join("cut.webm"));
    fs::write(&half, &sent[..sent.len() / 2]).unwrap();
    let kept = fs::read(&ours).unwrap();
    // In the middle of its index: all clusters are there.
    fs::write(&part, &kept[..kept.len() - 10]).unwrap();
    for (file, how) in [(half, "repaired"), (part, "in place")] {
        let said_so = run(env!("CARGO_BIN_EXE_onrecord"), &["repair", file.to_str().unwrap()]);
        assert!(said_so.contains(how), "{said_so}");
        let lost: Vec<_> = told.difference(&said(&file)).cloned().collect();
        assert!(lost.is_empty(), "{}: lost {lost:?}", file.display());
        assert_eq!(rotation(&file), ["90"]);
    }
}

/// Its blocks, each as a whole element, and the bytes before the first cluster.
fn blocks(bytes: &[u8]) -> (Vec<u8>, Vec<(i128, Range<u64>)>) {
    let (mut reader, mut head, mut blocks) = (Reader::new(None), bytes.len(), Vec::new());
    reader.push(bytes);
    reader.finish();
    while let Some(item) = reader.read().unwrap() {
        match item {
            Item::Cluster { at, .. } => head = head.min(at as usize),
            Item::Block(block) => blocks.push((block.time, block.at)),
            _ => {}
        }
    }
    (bytes[..head].to_vec(), blocks)
}

#[tokio::test]
async fn elements_that_nobody_knows_are_passed_over_wherever_they_stand() {
    let (server, sent) = (Server::start(&[QUIET]), small());
    let strange = [&[0x4f, 0xfe, 0x88][..], &[7; 8]].concat();
    let large = [&[0x4f, 0xfd, 0x10, 0x03, 0, 0][..], &[7; 0x3_0000]].concat();
    let (head, blocks) = blocks(&sent);
    let mut bytes = [&head[..], &strange, &large].concat();
    for (time, at) in blocks {
        // A cluster each: the block's offset is in the time.
        let mut block = sent[at.start as usize..at.end as usize].to_vec();
        let header = |bytes: &[u8]| 2 + bytes[1].leading_zeros() as usize;
        let mut track = header(&block);
        if block[0] == 0xa0 {
            track += header(&block[track..]);
        }
        block[track + 1..track + 3].fill(0);
        bytes.extend(b"\x1f\x43\xb6\x75\xff\xe7\x88");
        bytes.extend((time as u64).to_be_bytes());
        bytes.extend([&strange[..], &strange, &block, &strange].concat());
    }
    bytes.extend(&large);
    let (file, manifest) = recorded(&server, "strange", &bytes).await;
    assert_eq!(manifest["end_reason"], "stopped");
    let of = |kind| judge::packets_of(&file, kind).len();
    assert_eq!((of("video"), of("audio")), (60, 101));
    judge::decode(&file).unwrap();
}

#[tokio::test]
async fn pictures_that_are_shown_in_another_order_keep_it_and_their_times() {
    let server = Server::start(&[QUIET]);
    let sent = recording("matroska", REORDERED, 4, "320x180");
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.mkv");
    fs::write(&source, &sent).unwrap();
    let (file, manifest) = recorded(&server, "reordered", &sent).await;
    let (before, after) = (times(&source), times(&file));
    assert!(before.windows(2).any(|pair| pair[0] > pair[1]), "nothing is reordered: {before:?}");
    assert_eq!(before.len(), 120);
    assert_eq!(after, before);
    assert_eq!(manifest["gaps"], json!([]));
    let duration = Probe::of(&file).duration().unwrap();
    assert!(duration.abs_diff(Duration::from_secs(4)) < Duration::from_millis(60), "{duration:?}");
    judge::decode(&file).unwrap();
}

/// When its pictures are shown, in the order of the file.
fn times(file: &Path) -> Vec<String> {
    entries(file, "v", "packet=pts_time")
}

#[tokio::test]
async fn a_clock_that_is_set_goes_on_by_arrival_and_the_gap_is_named() {
    let server = Server::start(&[QUIET]);
    let sent = small();
    let (head, _) = blocks(&sent);
    let again = &sent[head.len()..];
    let hours = shifted(&sent, "10800");
    let (hours_head, _) = blocks(&hours);
    for (name, then) in [("back", again), ("ahead", &hours[hours_head.len()..])] {
        let (file, manifest) = recorded(&server, name, &[&sent[..], then].concat()).await;
        let duration = Probe::of(&file).duration().unwrap();
        assert!(
            duration.abs_diff(Duration::from_secs(4)) < Duration::from_millis(200),
            "{name}: {duration:?}"
        );
        let gaps = manifest["gaps"].as_array().unwrap();
        let named = |gap: &Value| gap["reason"] == "clock" && gap["from_ms"].as_u64().unwrap() > 1_900;
        assert!(gaps.len() == 2 && gaps.iter().all(named), "{name}: {gaps:?}");
        let times: Vec<_> = judge::packets_of(&file, "video").iter().map(|packet| packet.time).collect();
        let widest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(times.len() == 120 && widest < Duration::from_millis(150), "{name}: {widest:?}");
        let log = server.output();
        let line = log.lines().find(|line| line.contains("clock was set") && line.contains(name));
        assert!(line.is_some(), "{log}");
    }
    let counted = scrape(&server).await.value("onrecord_recordings_gaps_total", &[("reason", "clock")]);
    assert_eq!(counted, 4.0);
}

/// The same by a clock that is so many seconds ahead.
fn shifted(bytes: &[u8], seconds: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.webm"), folder.path().join("to.webm"));
    fs::write(&from, bytes).unwrap();
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let shift = ["-c", "copy", "-output_ts_offset", seconds, "-f", "webm", "-live", "1", to];
    run("ffmpeg", &[&["-nostdin", "-v", "error", "-i", from][..], &shift].concat());
    fs::read(to).unwrap()
}

#[tokio::test]
async fn a_recorder_whose_clock_began_long_ago_is_recorded_from_0() {
    let server = Server::start(&[QUIET]);
    for (name, seconds) in [("epoch", "1795000000"), ("far", "9000000000")] {
        let (file, manifest) = recorded(&server, name, &shifted(&small(), seconds)).await;
        let probe = Probe::of(&file);
        let duration = probe.duration().unwrap();
        assert!(
            duration.abs_diff(Duration::from_secs(2)) < Duration::from_millis(60),
            "{name}: {duration:?}"
        );
        assert_eq!(manifest["gaps"], json!([]), "{name}");
        let first = judge::packets(&file)[0].time;
        assert!(first < Duration::from_millis(10), "{name}: {first:?}");
    }
}
