//! Recording at an operator's word, and what onlookers hear of it.

use crate::support::chunks::{Chunks, H264, VP8, hashes, hashes_of, recording};
use crate::support::events::Events;
use crate::support::judge;
use crate::support::live::Live;
use crate::support::media;
use crate::support::proof::{self, KeptFrame};
use crate::support::publisher::Publisher;
use crate::support::server::Server;
use crate::support::signalling::Signal;
use crate::support::user::{Api, SOON, Script, eventually, fake, on_air, record, sends};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use str0m::media::MediaKind::{Audio, Video};

const QUIET: &str = "hooks.on_record=";

/// `POST` or `DELETE` of a stream's recording.
async fn say(api: &Api, method: Method, name: &str) -> (StatusCode, Value) {
    api.call(method, &format!("/api/streams/{}/recording", name.replace(' ', "%20"))).await
}

fn file(server: &Server, manifest: &Value) -> PathBuf {
    server.records().join(manifest["file"].as_str().unwrap())
}

/// That these files together hold every frame that was sent, from the first one's first to the last one's
/// last: pictures and sound, and each file can be decoded by itself.
fn hold_all(server: &Server, manifests: &[Value], publisher: &Publisher) {
    for (kind, name) in [(Video, "video"), (Audio, "audio")] {
        let kept: Vec<Vec<KeptFrame>> = manifests
            .iter()
            .map(|manifest| {
                judge::packets_of(&file(server, manifest), name).iter().map(KeptFrame::from).collect()
            })
            .collect();
        let matched = proof::matched(&publisher.sent_of(kind), &kept.concat()).unwrap();
        let holes = proof::holes(&matched);
        println!("{name}: {:?} frames in {} files, {} holes", matched.len(), kept.len(), holes.count);
        let mut last = 0;
        for frames in &kept[..kept.len() - 1] {
            last += frames.len();
            let (before, after) = (matched[last - 1], matched[last]);
            assert_eq!(before.index + 1, after.index, "{name} fell between two files");
            assert!(!kind.is_video() || after.keyframe, "a file begins with what can't be decoded");
        }
        assert_eq!(holes.frames, 0, "{name}: {holes:?}");
        if kind.is_video() {
            proof::check_decodable(&matched).unwrap();
        }
    }
    for manifest in manifests {
        judge::decode(&file(server, manifest)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_loses_no_frame_and_each_file_has_its_hook() {
    let script = Script::new("echo \"$ONRECORD_ID $ONRECORD_END_REASON\" >> \"$here/ran\"");
    let server = Server::start(&[&script.setting(), "webrtc.keyframe_interval=30s"]);
    let api = Api::of(&server);
    let mut on_air = on_air(&server, "long talk").await;
    on_air.sends(100).await;
    let asked = Instant::now();
    let (status, cut) = say(&api, Method::POST, "long talk").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{cut}");
    let (first, second) = (cut["continues"].as_str().unwrap(), cut["recording"].as_str().unwrap());
    eventually("it goes on in the second file", SOON, async || {
        (api.stream_is("long talk", "PUBLISHING").await["recording"] == second).then_some(())
    })
    .await;
    // Far less than the interval: a keyframe was asked for.
    println!("cut {:?} after the word", asked.elapsed());
    on_air.sends(100).await;
    on_air.live.with(|publisher| publisher.stop_sending()).await;
    let told = on_air.signal.stop("long talk").await;
    assert_eq!(told["recording"]["id"], second, "the last file is told: {told}");
    let manifests = [api.hook(first, "done", SOON).await, api.hook(second, "done", SOON).await];
    let facts: Vec<_> = manifests.iter().map(|m| (&m["end_reason"], &m["continues"])).collect();
    assert_eq!(facts, [(&json!("rotated"), &Value::Null), (&json!("stopped"), &json!(first))]);
    assert_eq!(script.left("ran"), format!("{first} rotated\n{second} stopped\n"));
    hold_all(&server, &manifests, &on_air.live.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_meets_a_cut_loses_no_frame_and_leaves_no_file_open() {
    let script = Script::new("echo \"$ONRECORD_ID\" >> \"$here/ran\"");
    let server = Server::start(&[&script.setting(), "webrtc.keyframe_interval=30s"]);
    let api = Api::of(&server);
    let mut files = Vec::new();
    // The keyframe that the cut waits for comes some 20 to 60 ms after it.
    for (round, wait) in [0, 0, 10, 20, 30, 40, 60, 90].into_iter().enumerate() {
        let name = format!("race {round}");
        let mut on_air = on_air(&server, &name).await;
        on_air.sends(30).await;
        let stop = async {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            on_air.signal.stop(&name).await
        };
        let ((status, cut), told) = tokio::join!(say(&api, Method::POST, &name), stop);
        let late = status == StatusCode::NOT_FOUND;
        assert!(late || status == StatusCode::ACCEPTED, "{cut}");
        let publisher = on_air.live.stop().await;
        let mut ids = vec![told["recording"]["id"].as_str().unwrap().to_owned()];
        if let Some(before) = api.recording(&ids[0]).await["continues"].as_str() {
            assert_eq!((&cut["continues"], &cut["recording"]), (&json!(before), &json!(ids[0])));
            ids.insert(0, before.to_owned());
        }
        println!("stopped {wait} ms after the cut: {} files", ids.len());
        let mut manifests = Vec::new();
        for id in &ids {
            manifests.push(api.hook(id, "done", SOON).await);
        }
        hold_all(&server, &manifests, &publisher);
        files.extend(ids);
    }
    let listed = api.recordings().await;
    assert!(listed.iter().all(|one| one["state"] == "sealed"), "{listed:?}");
    let mut known: Vec<_> = listed.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    let mut ran: Vec<_> = script.left("ran").lines().map(str::to_owned).collect();
    [&mut known, &mut ran, &mut files].into_iter().for_each(|ids| ids.sort());
    assert_eq!((&known, &ran), (&files, &files), "each file is known, and has had its hook once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_not_recorded_is_recorded_on_demand_and_outlives_its_recordings() {
    let server = Server::start(&[QUIET, "webrtc.keyframe_interval=30s"]);
    let api = Api::of(&server);
    let (live, offer) = Live::start(fake).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.send(&json!({ "type": "publish", "stream": "seen", "sdp": offer, "record": false })).await;
    let answer = signal.next_of(&["answer"]).await;
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    sends(&live, 60).await;
    let (status, nothing) = say(&api, Method::DELETE, "seen").await;
    assert_eq!((status, &nothing["code"]), (StatusCode::NOT_FOUND, &json!("recording_not_found")));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (status, begun) = say(&api, Method::POST, "seen").await;
        assert_eq!((status, &begun["continues"]), (StatusCode::CREATED, &Value::Null), "{begun}");
        let id = begun["recording"].as_str().unwrap().to_owned();
        eventually("its first frame", SOON, async || {
            let (status, _) = api.call(Method::GET, &format!("/api/recordings/{id}")).await;
            (status == StatusCode::OK).then_some(())
        })
        .await;
        sends(&live, 60).await;
        let (status, stopped) = say(&api, Method::DELETE, "seen").await;
        assert_eq!((status, &stopped["recording"]), (StatusCode::ACCEPTED, &json!(id)));
        let sealed = eventually("it is sealed", SOON, async || {
            let manifest = api.recording(&id).await;
            (manifest["state"] == "sealed").then_some(manifest)
        })
        .await;
        assert_eq!((&sealed["end_reason"], &sealed["gaps"]), (&json!("stopped"), &json!([])), "{sealed}");
        assert_eq!(api.stream_is("seen", "PUBLISHING").await["recording"], Value::Null);
        ids.push(id);
        sends(&live, 20).await;
    }
    let told = signal.stop("seen").await;
    assert_eq!((&told["reason"], &told["recording"]["id"]), (&json!("stopped"), &json!(ids[1])));
    let publisher = live.stop().await;
    for id in &ids {
        hold_all(&server, &[api.recording(id).await], &publisher);
    }
    for method in [Method::POST, Method::DELETE] {
        let (status, error) = say(&api, method, "seen").await;
        assert_eq!((status, &error["code"]), (StatusCode::NOT_FOUND, &json!("stream_not_found")));
    }
}

#[tokio::test]
async fn jpeg_pictures_and_chunks_are_cut_as_well_and_mp4_says_why_not() {
    let server = Server::start(&[QUIET]);
    let api = Api::of(&server);
    let images = media::jpegs(6, "320x180");
    let client = Client::new();
    let post = async |image: &[u8]| {
        let request = client.post(server.url("/upload")).header("content-type", "image/jpeg");
        assert_eq!(request.body(image.to_vec()).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    };
    post(&images[0]).await;
    api.stream_is("default", "PUBLISHING").await;
    post(&images[1]).await;
    let (status, cut) = say(&api, Method::POST, "default").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{cut}");
    for image in &images[2..] {
        post(image).await;
    }
    let listed = api.streams().await.remove(0);
    assert_eq!((&listed["video"]["width"], &listed["video"]["frames"]), (&json!(320), &json!(6)), "{listed}");
    let bytes: usize = images.iter().map(Vec::len).sum();
    assert_eq!(listed["bytes"], bytes, "{listed}");
    client.delete(server.url("/upload")).send().await.unwrap();
    let counts = eventually("two files", SOON, async || {
        let files = api.recordings().await;
        let sealed = files.len() == 2 && files.iter().all(|file| file["state"] == "sealed");
        sealed.then(|| files.iter().map(|file| file["tracks"][0]["frames"].clone()).collect::<Vec<_>>())
    })
    .await;
    assert_eq!(counts, [json!(4), json!(2)], "newest first");

    let (one, two) = (recording("webm", VP8, 2, "320x180"), recording("webm", VP8, 2, "320x180"));
    let (mut chunks, _) = Chunks::start(&server, "chunked").await;
    chunks.upload(&one, 20_000).await;
    api.stream_is("chunked", "PUBLISHING").await;
    let (status, cut) = say(&api, Method::POST, "chunked").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{cut}");
    let sent = chunks.upload(&two, 20_000).await;
    let last = chunks.stop(Some(sent)).await;
    assert_eq!(last["id"], cut["recording"], "{last}");
    let first = eventually("the first file is sealed", SOON, async || {
        let manifest = api.recording(cut["continues"].as_str().unwrap()).await;
        (manifest["state"] == "sealed").then_some(manifest)
    })
    .await;
    for kind in ["video", "audio"] {
        let kept = [hashes_of(&file(&server, &first), kind), hashes_of(&file(&server, &last), kind)].concat();
        assert!(kept == [hashes(&one, "webm", kind), hashes(&two, "webm", kind)].concat(), "{kind} was lost");
    }

    let (mut chunks, _) = Chunks::start(&server, "whole").await;
    chunks.upload(&recording("mp4", H264, 2, "320x180"), 20_000).await;
    for method in [Method::POST, Method::DELETE] {
        let (status, error) = say(&api, method, "whole").await;
        assert_eq!((status, &error["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("unsupported_codec")));
    }
    assert!(api.streams().await[0]["bytes"].as_u64().unwrap() > 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn onlookers_hear_of_every_step_in_its_order_and_go_on_where_they_were() {
    let script = Script::new("true");
    let mut server = Server::start(&[&script.setting()]);
    let mut events = Events::open(&server).await;
    let first = events.next().await.unwrap();
    assert_eq!(first.words(), "reset", "who comes anew reads the lists");
    let mut other = Events::from(&server, "?stream=other", None).await;
    other.until("reset").await;
    let recording = record(&server, "cam", 60).await;
    let sealed = events.until("recording sealed").await;
    let api = Api::of(&server);
    assert_eq!(sealed.data["id"], recording["id"]);
    let done = loop {
        let event = events.until("recording hook").await;
        if event.data["hook"]["state"] == "done" {
            break event;
        }
    };
    let mut listed = api.recording(recording["id"].as_str().unwrap()).await;
    listed["change"] = json!("hook");
    assert_eq!(done.data, listed, "an event has what the list has");
    let words = events.words();
    let order = ["recording started", "stream live", "recording sealed", "stream ended"];
    let places: Vec<_> = order.map(|step| words.iter().position(|word| word == step)).to_vec();
    assert!(places.iter().all(Option::is_some), "{words:?}");
    assert!(places[0] < places[2] && places[1] < places[3], "{words:?}");

    // Who was away hears what came meanwhile, and nothing twice.
    drop(events);
    let (status, _) =
        api.call(Method::DELETE, &format!("/api/recordings/{}", recording["id"].as_str().unwrap())).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let mut again = Events::from(&server, "", Some(&sealed.id)).await;
    again.until("recording deleted").await;
    assert!(!again.words().contains(&"reset".to_owned()), "{:?}", again.words());
    assert!(!again.words().contains(&"recording sealed".to_owned()), "{:?}", again.words());
    for unknown in ["another-7", "nonsense", &format!("{}9", sealed.id)] {
        let mut lost = Events::from(&server, "", Some(unknown)).await;
        assert_eq!(lost.next().await.unwrap().words(), "reset", "{unknown}");
    }
    let on_air = on_air(&server, "other").await;
    let live = other.until("stream live").await;
    assert_eq!((&live.data["stream"], &live.data["via"]), (&json!("other"), &json!("webrtc")));
    assert!(other.words().iter().all(|word| !word.contains("deleted")), "{:?}", other.words());
    drop(on_air);
    // A server that stops ends them too.
    assert!(server.stop(Duration::from_secs(60)).is_some_and(|status| status.success()));
    while again.next().await.is_some() {}
}
