//! A disk that fails for a moment (S6), under a server that goes on.

use crate::metrics::scrape;
use crate::support::chunks::{self, Chunks};
use crate::support::faults::{EIO, Faults};
use crate::support::judge::{Probe, decode, packets_of};
use crate::support::media;
use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, eventually, on_air};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

fn start(faults: &Faults, script: &Script) -> Server {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    Server::start_in(folder, faults.environment(), &[&script.setting()])
}

fn script() -> Script {
    Script::new("echo \"$1 $ONRECORD_END_REASON\" >> \"$here/log\"")
}

/// Its length, and its pictures.
fn whole(records: &Path, manifest: &Value) -> (Duration, usize) {
    let file = records.join(manifest["file"].as_str().unwrap());
    decode(&file).unwrap_or_else(|complaint| panic!("{}: {complaint}", file.display()));
    let duration = Probe::of(&file).duration().expect("a Duration");
    (duration, packets_of(&file, "video").len())
}

#[tokio::test]
async fn a_write_error_at_four_of_fourteen_seconds_leaves_two_files_of_fourteen_seconds() {
    let (faults, script) = (Faults::build(), script());
    let server = start(&faults, &script);
    let api = Api::of(&server);
    let camera = on_air(&server, "camera").await;
    sleep(Duration::from_secs(4)).await;
    faults.order("write", ".part", EIO, 1);
    sleep(Duration::from_secs(10)).await;
    assert!(faults.are_over(), "no write has failed");
    let sent = camera.live.with(|publisher| publisher.sent().len()).await;
    let last = camera.stop().await;
    let second = api.hook(last["id"].as_str().unwrap(), "done", SOON).await;
    let first = api.hook(second["continues"].as_str().unwrap(), "done", SOON).await;
    assert_eq!(api.recordings().await.len(), 2);
    assert_eq!((&first["end_reason"], &second["end_reason"]), (&json!("write_error"), &json!("stopped")));
    let mut hooks: Vec<_> = script.left("log").lines().map(str::to_owned).collect();
    hooks.sort_unstable();
    assert_eq!(hooks, ["camera stopped", "camera write_error"]);
    let files = [&first, &second].map(|manifest| whole(&server.records(), manifest));
    println!("{files:?}, {sent} frames sent, {:?}", second["gaps"]);
    let all = files[0].0 + files[1].0;
    assert!(all >= Duration::from_millis(13_500), "{all:?} of 14 s in {files:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_renamed_is_sealed_once_the_disk_works_again_without_a_restart() {
    let (faults, script) = (Faults::build(), script());
    let server = start(&faults, &script);
    let api = Api::of(&server);
    let mut camera = on_air(&server, "camera").await;
    camera.sends(60).await;
    faults.order("rename", ".webm.part", EIO, -1);
    camera.signal.send(&json!({ "type": "stop", "stream": "camera" })).await;
    let told = loop {
        let status = camera.signal.status("PUBLISHING").await;
        if status["reason"] == "sealing" {
            break status;
        }
    };
    assert!(told["message"].as_str().unwrap().contains("error 5"), "{told}");
    let listed = eventually("the list says so", SOON, async || {
        api.recordings().await.into_iter().find(|one| one["state"] == "sealing")
    })
    .await;
    assert!(listed["error"].as_str().unwrap().contains("error 5") && listed["url"].is_null(), "{listed}");
    // The name is free meanwhile.
    let other = on_air(&server, "camera").await;
    faults.end();
    let sealed = camera.signal.status("UNPUBLISHED").await;
    assert_eq!((&sealed["reason"], &sealed["recording"]["id"]), (&json!("stopped"), &listed["id"]));
    let manifest = api.hook(listed["id"].as_str().unwrap(), "done", SOON).await;
    assert_eq!((&manifest["state"], manifest.get("error")), (&json!("sealed"), None));
    assert!(whole(&server.records(), &manifest).1 > 20);
    drop(other);
}

#[tokio::test]
async fn who_uploads_chunks_or_pictures_is_told_that_the_disk_refuses_to_finish_the_file_and_an_operator_too()
{
    let (faults, script) = (Faults::build(), script());
    let server = start(&faults, &script);
    let api = Api::of(&server);
    let (mut chunks, _) = Chunks::start(&server, "chunks").await;
    chunks.upload(&chunks::small(), 50_000).await;
    let camera = reqwest::Client::new();
    let request = |method| camera.request(method, server.url("/upload/camera"));
    let image = media::jpegs(1, "320x180").remove(0);
    let first = request(Method::POST).header("content-type", "image/jpeg").body(image).send().await.unwrap();
    let secret = first.headers()["onrecord-resume"].clone();
    eventually("both are recorded", SOON, async || {
        let on_air = api.streams().await.into_iter().filter(|one| one["status"] == "PUBLISHING");
        (on_air.count() == 2).then_some(())
    })
    .await;
    let waiting = async || scrape(&server).await.value("onrecord_recordings_sealing", &[]) as usize;
    assert_eq!(waiting().await, 0);

    faults.order("rename", ".part", EIO, -1);
    chunks.say(json!({ "event": "STOP_REC_BLOB" })).await;
    let told = chunks.next().await.unwrap();
    assert_eq!(told["event"], "sealing", "{told}");
    assert!(told["message"].as_str().unwrap().contains("error 5"), "{told}");
    let end = request(Method::DELETE).header("onrecord-resume", &secret).send().await.unwrap();
    assert_eq!(end.status(), 202);
    let told: Value = end.json().await.unwrap();
    assert_eq!(told["reason"], "sealing", "{told}");
    assert!(told["message"].as_str().unwrap().contains("error 5"), "{told}");
    assert_eq!(waiting().await, 2);
    for stream in api.streams().await {
        let warning = stream["warnings"][0].as_str().unwrap_or_default();
        assert!(warning.contains("tried again") && warning.contains("error 5"), "{stream}");
    }

    faults.end();
    let recording = chunks.stopped().await;
    let manifest = api.hook(recording["id"].as_str().unwrap(), "done", SOON).await;
    assert_eq!(whole(&server.records(), &manifest).1, 60);
    eventually("nothing waits", SOON, async || (waiting().await == 0).then_some(())).await;
    assert!(api.recordings().await.iter().all(|one| one["state"] == "sealed"));
}

#[tokio::test]
async fn a_part_that_somebody_removes_or_cuts_is_never_sealed_as_whole() {
    let (faults, script) = (Faults::build(), script());
    let server = start(&faults, &script);
    let api = Api::of(&server);
    for how in ["removed", "replaced", "cut"] {
        let camera = on_air(&server, how).await;
        camera.sends(150).await;
        let first = api.recordings().await.into_iter().find(|one| one["stream"] == how).unwrap();
        let part = server.records().join(format!("{}.part", first["file"].as_str().unwrap()));
        match how {
            "removed" => std::fs::remove_file(&part).unwrap(),
            "replaced" => {
                let other = part.with_extension("other");
                std::fs::write(&other, "somebody else's").unwrap();
                std::fs::rename(other, &part).unwrap();
            }
            _ => std::fs::File::options().write(true).open(&part).unwrap().set_len(2_000).unwrap(),
        }
        let id = first["id"].as_str().unwrap();
        let manifest = eventually("the file is over", SOON * 2, async || {
            let manifest = api.recording(id).await;
            ["sealed", "quarantined"].iter().any(|over| manifest["state"] == *over).then_some(manifest)
        })
        .await;
        assert_eq!(manifest["end_reason"], "write_error", "{how}: {manifest}");
        camera.sends(60).await;
        let second = camera.stop().await;
        let second = api.recording(second["id"].as_str().unwrap()).await;
        assert_eq!(second["continues"], first["id"], "{how}");
        if manifest["state"] == "sealed" {
            let (duration, pictures) = whole(&server.records(), &manifest);
            println!("{how}: {duration:?}, {pictures} pictures, {}", manifest["tracks"]);
            assert_eq!(manifest["duration_ms"], (duration.as_secs_f64() * 1000.0).round() as u64, "{how}");
            let tracks = manifest["tracks"].as_array().unwrap();
            let video = tracks.iter().find(|track| track["kind"] == "video").unwrap();
            assert_eq!(video["frames"], pictures, "{how}");
            assert!(how == "cut" || pictures > 30, "{how}: what was written is still there");
        }
        whole(&server.records(), &second);
    }
}
