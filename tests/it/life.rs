//! The life of a publication, of the server, and of what it keeps.

use crate::support::live::Live;
use crate::support::sdp;
use crate::support::server::Server;
use crate::support::signalling::{Signal, Whip};
use crate::support::user::{
    Api, SOON, Script, eventually, fake, files_in, on_air, on_air_again, record, runs, sends, whip_on_air,
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// A peer that vanished is noticed after this long (D2).
const VANISHED: Duration = Duration::from_secs(10);
const QUIET: &str = "hooks.on_record=";

fn reasons(manifest: &Value) -> Vec<&str> {
    let gaps = manifest["gaps"].as_array().unwrap();
    gaps.iter().map(|gap| gap["reason"].as_str().unwrap()).collect()
}

fn frames(manifest: &Value) -> u64 {
    manifest["tracks"].as_array().unwrap().iter().map(|track| track["frames"].as_u64().unwrap()).sum()
}

/// An ICE restart may cost packets of sound, which nobody sends again, but no reconnection.
fn went_on(manifest: &Value, sent: u64) {
    let gaps = manifest["gaps"].as_array().unwrap();
    let longest = gaps.iter().map(|gap| gap["to_ms"].as_u64().unwrap() - gap["from_ms"].as_u64().unwrap());
    let longest = longest.max().unwrap_or(0);
    println!("through an ICE restart: {} of {sent} frames, longest gap {longest} ms", frames(manifest));
    assert!(longest <= 1000 && !reasons(manifest).contains(&"reconnect"), "{manifest}");
    assert!(frames(manifest) + 60 >= sent, "{} of {sent} frames", frames(manifest));
}

#[tokio::test]
async fn a_publication_goes_from_pending_to_a_file_that_downloads() {
    let server = Server::start(&[QUIET]);
    let (live, offer) = Live::start(fake).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.send(&json!({ "type": "publish", "stream": "interview 7", "sdp": offer })).await;
    let pending = signal.next().await.unwrap();
    assert_eq!(pending, json!({ "type": "status", "stream": "interview 7", "status": "PENDING" }));
    let answer = signal.next().await.unwrap();
    assert_eq!((&answer["type"], &answer["ice_servers"]), (&json!("answer"), &json!([])));
    assert!(answer["resume"].as_str().unwrap().len() >= 22, "{answer}");
    let candidate = signal.next().await.unwrap();
    assert_eq!(candidate["type"], "candidate", "{candidate}");
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    let listed = Api::of(&server).stream_is("interview 7", "PUBLISHING").await;
    assert_eq!(listed["tracks"], json!(["vp8", "opus"]));
    sends(&live, 100).await;

    let stopped = signal.stop("interview 7").await;
    assert_eq!(stopped["reason"], "stopped", "{stopped}");
    let recording = &stopped["recording"];
    let keys: Vec<_> = recording.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["bytes", "duration_ms", "file", "id", "stream", "url"]);
    assert_eq!(recording["stream"], "interview 7");
    let duration = recording["duration_ms"].as_u64().unwrap();
    assert!((800..4000).contains(&duration), "{duration} ms");

    let url = server.url(recording["url"].as_str().unwrap());
    let whole = Client::new().get(&url).send().await.unwrap();
    assert_eq!(whole.headers()["content-type"], "video/webm");
    let whole = whole.bytes().await.unwrap();
    assert_eq!(whole.len() as u64, recording["bytes"].as_u64().unwrap());
    let part = Client::new().get(&url).header("range", "bytes=100-199").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), whole[100..200]);
    let kept = files_in(&server.records());
    assert!(kept.len() == 2 && kept[0].ends_with(".json") && kept[1].ends_with(".webm"), "{kept:?}");
}

#[tokio::test]
async fn losing_the_socket_ends_nothing_and_its_secret_goes_on_in_the_same_recording() {
    let server = Server::start(&[QUIET]);
    let first = on_air(&server, "moving").await;
    let resume = first.resume.clone();
    drop(first.signal);
    sends(&first.live, 100).await;
    assert_eq!(Api::of(&server).streams().await.len(), 1, "the stream went with its socket");

    // Back with a new peer connection, as a page that was reloaded.
    let (second, offer) = Live::start(fake).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.send(&json!({ "type": "publish", "stream": "moving", "sdp": offer, "resume": resume })).await;
    let status = signal.next().await.unwrap();
    assert_eq!((&status["type"], &status["status"]), (&json!("status"), &json!("PUBLISHING")));
    let answer = signal.next_of(&["answer"]).await;
    assert_eq!(answer["resume"], resume, "the secret changed");
    drop(first.live);
    second.accept(answer["sdp"].as_str().unwrap()).await;
    sends(&second, 100).await;
    let stopped = signal.stop("moving").await;
    let recordings = Api::of(&server).recordings().await;
    assert_eq!(recordings.len(), 1, "{recordings:?}");
    assert_eq!(recordings[0]["id"], stopped["recording"]["id"]);
    assert_eq!(reasons(&recordings[0]), ["reconnect"; 2], "{}", recordings[0]);
    assert!(frames(&recordings[0]) >= 190, "{} frames", frames(&recordings[0]));

    // After the sealing the secret still tells what became of it, and another is expired.
    let mut late = Signal::connect(&server.ws_url("/signal")).await;
    late.send(&json!({ "type": "publish", "stream": "moving", "sdp": offer, "resume": resume })).await;
    let status = late.next().await.unwrap();
    assert_eq!(status, stopped);
    late.send(&json!({ "type": "publish", "stream": "moving", "sdp": offer, "resume": "unknown" })).await;
    assert_eq!(late.next().await.unwrap()["code"], "resume_expired");
}

#[tokio::test]
async fn a_page_reconnects_its_socket_and_keeps_its_peer_connection() {
    let server = Server::start(&[QUIET]);
    let mut on_air = on_air(&server, "same peer").await;
    on_air.sends(60).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let offer = on_air.live.with(|publisher| publisher.restart_ice()).await;
    let message = json!({ "type": "publish", "stream": "same peer", "sdp": offer, "resume": on_air.resume });
    signal.send(&message).await;
    assert_eq!(signal.next().await.unwrap()["status"], "PUBLISHING");
    let answer = signal.next_of(&["answer", "error"]).await;
    on_air.live.accept(answer["sdp"].as_str().unwrap_or_else(|| panic!("{answer}"))).await;
    on_air.sends(60).await;
    on_air.signal = signal;
    let live_sent = on_air.live.with(|publisher| publisher.sent().len() as u64).await;
    let recording = on_air.stop().await;
    let manifest = Api::of(&server).recording(recording["id"].as_str().unwrap()).await;
    went_on(&manifest, live_sent);
}

#[tokio::test]
async fn one_socket_carries_several_publications() {
    let server = Server::start(&[QUIET]);
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let mut all = Vec::new();
    for name in ["left", "right"] {
        let (live, offer) = Live::start(fake).await;
        let answer = signal.publish(name, &offer).await.unwrap();
        live.accept(answer["sdp"].as_str().unwrap()).await;
        all.push(live);
    }
    let api = Api::of(&server);
    for name in ["left", "right"] {
        api.stream_is(name, "PUBLISHING").await;
    }
    // Which one?
    signal.send(&json!({ "type": "stop" })).await;
    assert_eq!(signal.next_of(&["error"]).await["code"], "bad_request");
    sends(&all[1], 60).await;
    assert_eq!(signal.stop("left").await["stream"], "left");
    assert_eq!(api.streams().await.len(), 1);
    // Now there is only one it can mean.
    signal.send(&json!({ "type": "stop" })).await;
    assert_eq!(signal.status("UNPUBLISHED").await["stream"], "right");
    api.nobody_is_on_air().await;
    assert_eq!(api.recordings().await.len(), 2);
}

#[tokio::test]
async fn without_recording_there_is_no_file_and_no_failure() {
    let server = Server::start(&[QUIET]);
    let (live, offer) = Live::start(fake).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.send(&json!({ "type": "publish", "stream": "seen", "sdp": offer, "record": false })).await;
    let answer = signal.next_of(&["answer"]).await;
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    let stopped = signal.stop("seen").await;
    assert_eq!(stopped["recording"], Value::Null, "{stopped}");

    // Nor if it is stopped before anything came.
    signal.send(&json!({ "type": "publish", "stream": "unseen", "sdp": offer, "record": false })).await;
    signal.next_of(&["answer"]).await;
    let stopped = signal.stop("unseen").await;
    assert_eq!(stopped["recording"], Value::Null, "{stopped}");
    Api::of(&server).nobody_is_on_air().await;
    assert_eq!(files_in(&server.records()), Vec::<String>::new());
}

#[tokio::test]
async fn stopped_before_any_media_it_has_failed_and_left_nothing() {
    let server = Server::start(&[QUIET]);
    let (_live, offer) = Live::start(fake).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.publish("never", &offer).await.unwrap();
    signal.send(&json!({ "type": "stop", "stream": "never" })).await;
    let failed = signal.status("FAILED").await;
    assert!(failed["reason"].is_string(), "{failed}");
    assert_eq!(files_in(&server.records()), Vec::<String>::new());
}

#[tokio::test]
async fn a_kicked_stream_is_sealed_and_its_publisher_is_told() {
    let server = Server::start(&[QUIET]);
    let mut on_air = on_air(&server, "rude one").await;
    on_air.sends(60).await;
    let api = Api::of(&server);
    let (status, _) = api.call(Method::DELETE, "/api/streams/rude%20one").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let told = on_air.signal.status("UNPUBLISHED").await;
    assert_eq!(told["reason"], "kicked", "{told}");
    let manifest = api.recording(told["recording"]["id"].as_str().unwrap()).await;
    assert_eq!((&manifest["state"], &manifest["end_reason"]), (&json!("sealed"), &json!("kicked")));
    api.nobody_is_on_air().await;
    let (status, _) = api.call(Method::DELETE, "/api/streams/rude%20one").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    record(&server, "rude one", 30).await;
}

#[tokio::test]
async fn the_same_bearer_takes_over_a_silent_whip_session() {
    let server = Server::start(&[QUIET]);
    let api = Api::of(&server);
    let (first, _whip, _) = whip_on_air(&server, "encoder", Some("secret")).await;
    sends(&first, 60).await;
    let url = server.url("/whip/encoder");
    let (second, offer) = Live::start(fake).await;
    let busy = Whip::publish_as(&url, &offer, Some("secret")).await.map(drop).unwrap_err();
    assert_eq!(busy.status, StatusCode::CONFLICT, "it was not silent: {}", busy.body);
    first.with(|publisher| publisher.stop_sending()).await;
    let silent = Instant::now();
    for stranger in [None, Some("other")] {
        let busy = Whip::publish_as(&url, &offer, stranger).await.map(drop).unwrap_err();
        assert_eq!(busy.status, StatusCode::CONFLICT, "{stranger:?}: {}", busy.body);
    }
    let (whip, answer) =
        eventually("a takeover", SOON, async || Whip::publish_as(&url, &offer, Some("secret")).await.ok())
            .await;
    let took = silent.elapsed();
    println!("taken over {took:?} after the last frame");
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(4), "{took:?}");
    for stranger in [None, Some("other")] {
        let busy = Whip::publish_as(&url, &offer, stranger).await.map(drop).unwrap_err();
        assert_eq!(busy.status, StatusCode::CONFLICT, "{stranger:?} after silence: {}", busy.body);
    }
    second.accept(&answer).await;
    sends(&second, 60).await;
    whip.delete().await.unwrap();
    let manifest = api.sealed(SOON).await;
    assert_eq!(api.recordings().await.len(), 1);
    assert_eq!(manifest["end_reason"], "stopped");
    assert_eq!(reasons(&manifest), ["reconnect"; 2], "{manifest}");
}

#[tokio::test]
async fn a_whip_client_that_has_just_stopped_may_publish_again_under_the_same_name() {
    let server = Server::start(&[QUIET, "limits.max_streams_per_address=1"]);
    let url = server.url("/whip/again");
    for round in 0..6 {
        let (live, offer) = Live::start(fake).await;
        let (whip, answer) = Whip::publish(&url, &offer)
            .await
            .unwrap_or_else(|refused| panic!("round {round}: {} {}", refused.status, refused.body));
        live.accept(&answer).await;
        sends(&live, 60).await;
        whip.delete().await.unwrap();
    }
    let api = Api::of(&server);
    api.nobody_is_on_air().await;
    let recordings = eventually("six files", SOON, async || {
        let all = api.recordings().await;
        let sealed = all.iter().filter(|recording| recording["state"] == "sealed").count();
        (sealed == 6).then_some(all)
    })
    .await;
    for recording in &recordings {
        assert_eq!(recording["end_reason"], "stopped", "{recording}");
        assert!(recording["duration_ms"].as_u64() > Some(300), "{recording}");
    }
}

#[tokio::test]
async fn media_goes_on_through_an_ice_restart_over_whip() {
    let server = Server::start(&[QUIET]);
    let (live, mut whip, answer) = whip_on_air(&server, "restarted", None).await;
    let before = whip.etag.clone();
    let offer = live.with(|publisher| publisher.restart_ice()).await;
    let fragment = whip.restart(&sdp::fragment(&offer)).await.unwrap();
    assert_ne!(whip.etag, before, "the ETag stayed");
    live.accept(&sdp::restarted(&answer, &fragment)).await;
    sends(&live, 150).await;
    live.with(|publisher| publisher.stop_sending()).await;
    let sent = live.with(|publisher| publisher.sent().len() as u64).await;
    whip.delete().await.unwrap();
    went_on(&Api::of(&server).sealed(SOON).await, sent);
}

#[tokio::test]
async fn a_publisher_that_is_back_after_its_grace_makes_two_files_with_two_hooks() {
    let script = Script::new("echo \"$ONRECORD_ID\" >> \"$here/log\"");
    let server = Server::start(&[&script.setting(), "record.reconnect_grace=1s"]);
    let mut on_air = on_air(&server, "train").await;
    on_air.sends(60).await;
    drop(on_air.live);
    let vanished = Instant::now();
    let told = on_air.signal.status("UNPUBLISHED").await;
    let took = vanished.elapsed();
    println!("sealed {took:?} after the publisher vanished");
    assert_eq!(told["reason"], "publisher_lost", "{told}");
    assert!(took < VANISHED * 2, "{took:?}");
    // Too late for this file: what comes now is another one.
    let second = record(&server, "train", 30).await;
    let api = Api::of(&server);
    let ids = [&told["recording"]["id"], &second["id"]].map(|id| id.as_str().unwrap());
    for id in ids {
        api.hook(id, "done", SOON).await;
    }
    let recordings = api.recordings().await;
    assert_eq!(recordings.len(), 2, "{recordings:?}");
    assert_eq!([&recordings[1]["id"], &recordings[0]["id"]], ids);
    assert_eq!(script.left("log").lines().collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn a_publisher_that_is_back_within_its_grace_goes_on_in_one_file_with_one_hook() {
    let script = Script::new("echo \"$ONRECORD_ID\" >> \"$here/log\"");
    let server = Server::start(&[&script.setting()]);
    let first = on_air(&server, "tunnel").await;
    first.sends(60).await;
    drop(first.live);
    eventually("its loss noticed", VANISHED + SOON, async || {
        server.output().contains("the session is over").then_some(())
    })
    .await;
    assert_eq!(Api::of(&server).streams().await.len(), 1, "the name was not kept");
    let back = on_air_again(&server, "tunnel", Some(&first.resume)).await;
    back.sends(60).await;
    let recording = back.stop().await;
    let api = Api::of(&server);
    let manifest = api.hook(recording["id"].as_str().unwrap(), "done", SOON).await;
    assert_eq!(api.recordings().await.len(), 1);
    assert_eq!(script.left("log").lines().count(), 1, "{}", script.left("log"));
    assert_eq!(reasons(&manifest), ["reconnect"; 2], "{manifest}");
    for gap in manifest["gaps"].as_array().unwrap() {
        let length = gap["to_ms"].as_u64().unwrap() - gap["from_ms"].as_u64().unwrap();
        assert!((9_000..20_000).contains(&length), "{gap}");
    }
}

#[tokio::test]
async fn stop_is_heard_while_the_publisher_is_waited_for() {
    let server = Server::start(&[QUIET, "record.reconnect_grace=1h"]);
    let mut on_air = on_air(&server, "gone").await;
    on_air.sends(60).await;
    drop(on_air.live);
    eventually("its loss noticed", VANISHED + SOON, async || {
        server.output().contains("the session is over").then_some(())
    })
    .await;
    let told = on_air.signal.stop("gone").await;
    assert_eq!(told["reason"], "stopped", "{told}");
    assert!(told["recording"].is_object(), "{told}");
}

#[tokio::test]
async fn sigterm_seals_every_file_runs_every_hook_and_tells_every_publisher() {
    let script = Script::new("sleep 1; echo \"$ONRECORD_STREAM $ONRECORD_END_REASON\" >> \"$here/log\"");
    let mut server = Server::start(&[&script.setting()]);
    let (mut first, second) = (on_air(&server, "first").await, on_air(&server, "second").await);
    second.sends(60).await;
    server.signal("TERM");
    eventually("not ready", SOON, async || {
        let ready = Client::new().get(server.url("/readyz")).send().await;
        (ready.ok()?.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    let told = first.signal.status("UNPUBLISHED").await;
    assert_eq!(told["reason"], "server_stopped", "{told}");
    assert!(told["recording"]["id"].is_string(), "{told}");
    let (_late, offer) = Live::start(fake).await;
    let refused = Whip::publish(&server.url("/whip/late"), &offer).await.map(drop).unwrap_err();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert_eq!(first.signal.next().await, Err(Some(1001)), "the socket's farewell");
    let mut unread = second.signal;
    assert_eq!(unread.status("UNPUBLISHED").await["reason"], "server_stopped");

    let status = server.ended(SOON).await.expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.output());
    let mut log: Vec<_> = script.left("log").lines().map(str::to_owned).collect();
    log.sort();
    assert_eq!(log, ["first server_stopped", "second server_stopped"]);
    let kept = files_in(&server.records());
    assert_eq!(kept.iter().filter(|name| name.ends_with(".webm")).count(), 2, "{kept:?}");
    assert_eq!(kept.len(), 4, "{kept:?}");
    for name in kept.iter().filter(|name| name.ends_with(".json")) {
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(server.records().join(name)).unwrap()).unwrap();
        assert_eq!(manifest["hook"]["state"], "done", "{manifest}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let script = Script::new("sleep 60 & echo $! > \"$here/pid\"; wait");
    let mut server = Server::start(&[&script.setting()]);
    record(&server, "slow hook", 30).await;
    eventually("the hook runs", SOON, async || (!script.left("pid").is_empty()).then_some(())).await;
    server.signal("TERM");
    eventually("it stops", SOON, async || server.output().contains("SIGTERM").then_some(())).await;
    let began = Instant::now();
    server.signal("INT");
    let status = server.ended(SOON).await;
    assert!(status.is_some() && began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let child = script.left("pid");
    eventually("the hook's child ended", SOON, async || (!runs(&child)).then_some(())).await;
}

#[tokio::test]
async fn after_a_kill_the_list_is_there_and_the_hooks_that_were_owed_are_run() {
    // Hangs until it is told, so that the kill finds it running.
    let script = Script::new(
        "echo \"$ONRECORD_ID\" >> \"$here/log\"\n\
         i=0; while [ ! -e \"$here/go\" ] && [ $i -lt 200 ]; do i=$((i+1)); sleep 0.1; done",
    );
    let hook = script.setting();
    let settings = [hook.as_str(), "hooks.concurrency=1"];
    let server = Server::start(&settings);
    let (running, queued) = (record(&server, "running", 30).await, record(&server, "queued", 30).await);
    let deleted = record(&server, "deleted", 30).await;
    let api = Api::of(&server);
    api.hook(running["id"].as_str().unwrap(), "running", SOON).await;
    api.hook(queued["id"].as_str().unwrap(), "queued", SOON).await;
    api.call(Method::DELETE, &format!("/api/recordings/{}", deleted["id"].as_str().unwrap())).await;

    let server = server.killed_and_started(&settings);
    std::fs::write(script.file("go"), "").unwrap();
    let api = Api::of(&server);
    let ids: Vec<_> = api.recordings().await.iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [queued["id"].clone(), running["id"].clone()]);
    for recording in [&running, &queued] {
        let manifest = api.hook(recording["id"].as_str().unwrap(), "done", SOON).await;
        assert_eq!(manifest["stream"], recording["stream"]);
    }
    let expected = [&running, &running, &queued].map(|one| format!("{}\n", one["id"].as_str().unwrap()));
    assert_eq!(script.left("log"), expected.concat(), "who ran, in which order");
    let url = running["url"].as_str().unwrap();
    let bytes = Client::new().get(server.url(url)).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, running["bytes"].as_u64().unwrap());
}

#[tokio::test]
async fn a_manifest_torn_in_the_middle_loses_neither_its_recording_nor_another() {
    let server = Server::start(&[QUIET]);
    let (torn, whole) = (record(&server, "torn", 30).await, record(&server, "whole", 30).await);
    let file = server.records().join(torn["file"].as_str().unwrap()).with_extension("json");
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let server = server.killed_and_started(&[QUIET]);
    let api = Api::of(&server);
    let recordings = eventually("both are sealed", SOON, async || {
        let all = api.recordings().await;
        (all.len() == 2 && all.iter().all(|one| one["state"] == "sealed")).then_some(all)
    })
    .await;
    // Newest first: what is left of the torn one is its file, which has its id and stream in its name.
    assert_eq!([&recordings[0]["id"], &recordings[1]["id"]], [&whole["id"], &torn["id"]]);
    assert_eq!((&recordings[1]["file"], &recordings[1]["stream"]), (&torn["file"], &torn["stream"]));
    assert_eq!(recordings[1]["end_reason"], "server_crashed");
    assert!(server.output().contains(file.file_name().unwrap().to_str().unwrap()), "nobody was told");
    assert!(server.records().join(torn["file"].as_str().unwrap()).exists());
    record(&server, "next", 30).await;
}

/// Bytes in a pipe before the server writes to it.
const NEARLY_FULL: usize = 60_000;

#[tokio::test]
async fn a_log_that_nobody_reads_costs_no_recording() {
    for is_gone in [true, false] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut reader = (!is_gone).then_some(reader);
        if !is_gone {
            // It takes 64 KiB: a few lines more, and it is full.
            writer.write_all(&[b'\n'; NEARLY_FULL]).unwrap();
        }
        let mut server = Server::start_logging(writer, &[QUIET, "log.level=trace,onrecord=trace"]);
        let recording = record(&server, "unheard", 200).await;
        let file = server.records().join(recording["file"].as_str().unwrap());
        assert_eq!(std::fs::metadata(&file).unwrap().len(), recording["bytes"], "{recording}");
        let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with("onrecord_log_lines_left_out_total"));
        println!("the reader is gone: {is_gone}; {}", line.unwrap());
        let status = server.stop(Duration::from_secs(20)).expect("it waits for who reads its log");
        assert!(status.success(), "{status}");
        if let Some(reader) = &mut reader {
            let mut unread = Vec::new();
            reader.read_to_end(&mut unread).unwrap();
            // Its pages are not all full when it takes no more.
            println!("{} bytes are in the pipe", unread.len());
            assert!(unread.len() > NEARLY_FULL + 3_000, "{} bytes don't fill a pipe", unread.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_publishes_by_whip_sees_in_the_list_of_streams_what_does_not_reach_the_server() {
    let server = Server::start(&[]);
    let (live, offer) = Live::start(|local| {
        let mut config = fake(local);
        config.video.as_mut().unwrap().starts_after = Duration::from_secs(8);
        config
    })
    .await;
    let (_whip, answer) = Whip::publish(&server.url("/whip/dark"), &offer).await.unwrap();
    live.accept(&answer).await;
    let api = Api::of(&server);
    assert_eq!(api.stream_is("dark", "PUBLISHING").await["warnings"], json!([]));
    let warnings = async || api.streams().await[0]["warnings"].clone();
    let told = eventually("a warning", SOON, async || Some(warnings().await).filter(|all| all != &json!([])));
    assert_eq!(told.await, json!(["No picture reaches the server: check the camera."]));
    eventually("no warning", SOON, async || (warnings().await == json!([])).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_offer_sends_and_is_not_recorded_is_logged() {
    let server = Server::start(&[]);
    let (_live, offer) = Live::start(fake).await;
    let second = "m=video 9 UDP/TLS/RTP/SAVPF 102\r\nc=IN IP4 0.0.0.0\r\na=mid:cam2\r\na=sendonly\r\na=rtpmap:102 H264/90000\r\n";
    let (_whip, answer) = Whip::publish(&server.url("/whip/two"), &(offer + second)).await.unwrap();
    assert!(answer.contains("m=video 0 "), "{answer}");
    let logged = |line: &&str| line.contains("cam2") && line.contains("none of its codecs is recorded");
    eventually("a line in the log", SOON, async || server.output().lines().find(logged).map(drop)).await;
}
