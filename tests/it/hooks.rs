//! The hook, through the server, with real publishers.

use crate::support::bucket::{self, Bucket};
use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, eventually, on_air, record, runs};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Leaves everything it is given.
const NOTES: &str = r#"
echo "$#" > "$here/count"
printf %s "$1" > "$here/name"
printf %s "$2" > "$here/file"
wc -c < "$2" > "$here/size"
cat > "$here/input"
cat "$ONRECORD_MANIFEST" > "$here/manifest"
env | grep ^ONRECORD_ | sort > "$here/variables"
echo "took over $1"
"#;

fn id(recording: &Value) -> &str {
    recording["id"].as_str().unwrap()
}

/// What the hook itself doesn't change.
fn stable(mut manifest: Value) -> Value {
    let fields = manifest.as_object_mut().unwrap();
    fields.remove("hook");
    fields.remove("url");
    manifest
}

#[tokio::test]
async fn a_hook_is_told_everything_and_any_name_is_one_argument() {
    let script = Script::new(NOTES);
    let server = Server::start(&[&script.setting()]);
    let name = r#"$HOME "two words" 'q' *; Собеседование №7"#;
    let recording = record(&server, name, 100).await;
    let api = Api::of(&server);
    let manifest = api.hook(id(&recording), "done", SOON).await;

    assert_eq!((script.left("count").trim(), script.left("name").as_str()), ("2", name));
    let path = script.left("file");
    assert!(Path::new(&path).is_absolute(), "{path}");
    assert_eq!(Path::new(&path), server.records().join(manifest["file"].as_str().unwrap()));
    assert_eq!(script.left("size").trim(), manifest["bytes"].to_string(), "it was not whole yet");
    assert_eq!(script.left("input"), "");
    let read: Value = serde_json::from_str(&script.left("manifest")).unwrap();
    assert_eq!(stable(read), stable(manifest.clone()));

    let text = |key: &str| manifest[key].as_str().unwrap().to_owned();
    let expected = [
        ("ATTEMPT", "1".to_owned()),
        ("BYTES", manifest["bytes"].to_string()),
        ("DURATION_MS", manifest["duration_ms"].to_string()),
        ("ENDED_AT", text("ended_at")),
        ("END_REASON", "stopped".to_owned()),
        ("FILE", path.clone()),
        ("HEIGHT", manifest["tracks"][0]["height"].to_string()),
        ("ID", text("id")),
        ("MANIFEST", Path::new(&path).with_extension("json").display().to_string()),
        ("MIME", "video/webm".to_owned()),
        ("STARTED_AT", text("started_at")),
        ("STREAM", name.to_owned()),
        ("WIDTH", manifest["tracks"][0]["width"].to_string()),
    ];
    let lines: String = expected.iter().map(|(key, value)| format!("ONRECORD_{key}={value}\n")).collect();
    assert_eq!(script.left("variables"), lines);
    let attempts = &manifest["hook"]["attempts"];
    assert_eq!(attempts.as_array().unwrap().len(), 1, "{attempts}");
    assert_eq!((&attempts[0]["n"], &attempts[0]["exit"]), (&json!(1), &json!(0)));
    assert_eq!(attempts[0]["tail"].as_str().unwrap().trim(), format!("took over {name}"));
}

#[tokio::test]
async fn a_hook_reads_the_manifest_on_its_standard_input_if_it_is_told_to() {
    let script = Script::new("cat > \"$here/input\"\necho \"$ONRECORD_WIDTH,$ONRECORD_HEIGHT\"");
    let server = Server::start(&[&script.setting(), "hooks.stdin=manifest"]);
    let recording = record(&server, "piped", 60).await;
    let manifest = Api::of(&server).hook(id(&recording), "done", SOON).await;
    let piped: Value = serde_json::from_str(&script.left("input")).unwrap();
    assert_eq!(stable(piped), stable(manifest));
}

/// Written for another server: two unquoted arguments, a working folder with the keys and an uploader that
/// takes the file's path, a line in a log once it is uploaded.
const FLASHPHONER: &str = r#"#!/bin/bash
STREAM_NAME=$1
FILE_PATH=$2

cd WORK_DIR
./upload.sh $FILE_PATH &&
echo "$STREAM_NAME is in the bucket: $FILE_PATH" >> WORK_DIR/log.txt
"#;
const FLASHPHONER_UPLOADER: &str = r#"#!/bin/bash
FILE_TO_UPLOAD=$1
NAME=$(basename $FILE_TO_UPLOAD)
KEYS=$(cat AWS_ACCESS_KEY):$(cat AWS_SECRET_KEY)
curl -sS --fail -T $FILE_TO_UPLOAD -u $KEYS --aws-sigv4 aws:amz:eu-central-1:s3 \
  -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" ENDPOINT/BUCKET/$NAME
"#;

#[tokio::test]
async fn a_script_written_for_flashphoner_works_as_it_is() {
    let (bucket, folder) = (Bucket::start(), tempfile::tempdir().unwrap());
    let here = folder.path().to_owned();
    let uploader =
        FLASHPHONER_UPLOADER.replace("ENDPOINT", &bucket.endpoint).replace("BUCKET", bucket::BUCKET);
    std::fs::write(here.join("upload.sh"), uploader).unwrap();
    std::fs::set_permissions(here.join("upload.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(here.join("AWS_ACCESS_KEY"), bucket::ACCESS_KEY).unwrap();
    std::fs::write(here.join("AWS_SECRET_KEY"), bucket::SECRET_KEY).unwrap();
    let script = Script::verbatim(folder, &FLASHPHONER.replace("WORK_DIR", here.to_str().unwrap()));
    let server = Server::start(&[&script.setting()]);
    let recording = record(&server, "stream222", 60).await;
    let manifest = Api::of(&server).hook(id(&recording), "done", SOON).await;
    let file = manifest["file"].as_str().unwrap();
    let path = server.records().join(file);
    assert!(std::fs::read(bucket.object(file)).unwrap() == std::fs::read(&path).unwrap(), "other bytes");
    assert_eq!(script.left("log.txt"), format!("stream222 is in the bucket: {}\n", path.display()));
}

#[tokio::test]
async fn a_hook_that_hangs_is_ended_with_its_children_and_the_manifest_says_so() {
    let script = Script::new(
        "trap '' TERM\nsleep 300 & echo $! > \"$here/child\"\necho $$ > \"$here/parent\"\necho stuck\nwait\nsleep 300",
    );
    let limits = ["hooks.timeout=1s", "hooks.kill_after=500ms", "hooks.max_attempts=1"];
    let server = Server::start(&[&[script.setting().as_str()], &limits[..]].concat());
    let recording = record(&server, "hangs", 60).await;
    let manifest = Api::of(&server).hook(id(&recording), "failed", SOON).await;
    let (parent, child) = (script.left("parent"), script.left("child"));
    assert!(!parent.is_empty() && !child.is_empty(), "it has not run");
    assert!(!runs(&parent) && !runs(&child), "still there: {parent} {child}");
    let attempt = &manifest["hook"]["attempts"][0];
    assert_eq!(attempt["exit"], Value::Null, "{attempt}");
    assert!(attempt["error"].as_str().unwrap().contains("hooks.timeout"), "{attempt}");
    assert_eq!(attempt["tail"].as_str().unwrap().trim(), "stuck");
    let took = attempt["ms"].as_u64().unwrap();
    assert!((1000..4000).contains(&took), "{took} ms");
}

#[tokio::test]
async fn a_hook_that_fails_twice_is_run_three_times_as_the_same_recording() {
    let script = Script::new(
        "echo \"$ONRECORD_ID $ONRECORD_ATTEMPT\" >> \"$here/log\"\n[ \"$ONRECORD_ATTEMPT\" -ge 3 ] || exit 7",
    );
    let server = Server::start(&[&script.setting(), "hooks.backoff=50ms"]);
    let recording = record(&server, "third time", 60).await;
    let manifest = Api::of(&server).hook(id(&recording), "done", SOON).await;
    let expected: String = (1..=3).map(|n| format!("{} {n}\n", id(&recording))).collect();
    assert_eq!(script.left("log"), expected);
    let attempts = manifest["hook"]["attempts"].as_array().unwrap();
    let ends: Vec<_> = attempts.iter().map(|attempt| (&attempt["n"], &attempt["exit"])).collect();
    assert_eq!(json!(ends), json!([[1, 7], [2, 7], [3, 0]]));
}

#[tokio::test]
async fn ten_streams_stopped_at_once_have_run_their_two_second_hooks_within_ten_seconds() {
    let script = Script::new("sleep 2; echo \"$1\" >> \"$here/log\"");
    let server = Server::start(&[&script.setting()]);
    let names: Vec<String> = (0..10).map(|n| format!("camera {n}")).collect();
    let publishers = futures_util::future::join_all(names.iter().map(|name| on_air(&server, name))).await;
    publishers[0].sends(60).await;
    let began = Instant::now();
    let recordings = futures_util::future::join_all(publishers.into_iter().map(|one| one.stop())).await;
    let sealed = began.elapsed();
    let api = Api::of(&server);
    for recording in &recordings {
        api.hook(id(recording), "done", SOON).await;
    }
    let done = began.elapsed();
    println!("ten streams: sealed and told after {sealed:?}, hooks done after {done:?}");
    assert!(done < Duration::from_secs(10), "{done:?}");
    assert_eq!(script.left("log").lines().count(), 10);
}

#[tokio::test]
async fn a_hook_may_move_the_file_away() {
    let script = Script::new("mv \"$2\" \"$here/moved.webm\"");
    let server = Server::start(&[&script.setting()]);
    let recording = record(&server, "moved", 60).await;
    let api = Api::of(&server);
    let manifest = api.hook(id(&recording), "done", SOON).await;
    assert_eq!((&manifest["file_present"], &manifest["url"]), (&json!(false), &Value::Null));
    let (status, body) = api.call(Method::GET, recording["url"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::GONE, "{body}");
    assert!(script.file("moved.webm").is_file());
}

#[tokio::test]
async fn a_failed_hook_is_run_again_on_request() {
    let script =
        Script::new("[ -e \"$here/mended\" ] || exit 3\ncat > /dev/null\necho \"$ONRECORD_ATTEMPT\"");
    let server = Server::start(&[&script.setting(), "hooks.max_attempts=1"]);
    let recording = record(&server, "replayed", 60).await;
    let api = Api::of(&server);
    api.hook(id(&recording), "failed", SOON).await;
    std::fs::write(script.file("mended"), "").unwrap();
    let path = format!("/api/recordings/{}/hook", id(&recording));
    let (status, body) = api.call(Method::POST, &path).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let manifest = api.hook(id(&recording), "done", SOON).await;
    let attempts = manifest["hook"]["attempts"].as_array().unwrap();
    let ends: Vec<_> = attempts.iter().map(|attempt| (&attempt["n"], &attempt["exit"])).collect();
    assert_eq!(json!(ends), json!([[1, 3], [2, 0]]));
    assert_eq!(attempts[1]["tail"].as_str().unwrap().trim(), "2");

    let unknown = format!("/api/recordings/{}/hook", "0".repeat(26));
    let (status, body) = api.call(Method::POST, &unknown).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("recording_not_found")));
    let on_air = on_air(&server, "still going").await;
    let open = eventually("its manifest", SOON, async || {
        api.recordings().await.into_iter().find(|recording| recording["state"] == "recording")
    })
    .await;
    let (status, body) = api.call(Method::POST, &format!("/api/recordings/{}/hook", id(&open))).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("stream_busy")));
    on_air.stop().await;
}

#[tokio::test]
async fn without_a_hook_the_manifest_says_none_and_a_replay_says_what_to_set() {
    let server = Server::start(&["hooks.on_record="]);
    let recording = record(&server, "quiet", 60).await;
    let api = Api::of(&server);
    let manifest = api.recording(id(&recording)).await;
    assert_eq!(manifest["hook"], json!({ "state": "none", "attempts": [] }));
    let (status, body) = api.call(Method::POST, &format!("/api/recordings/{}/hook", id(&recording))).await;
    assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("bad_request")));
    assert!(body["message"].as_str().unwrap().contains("hooks.on_record"), "{body}");
}

#[tokio::test]
async fn of_a_flood_of_output_the_manifest_keeps_the_last_four_kibibytes() {
    let script = Script::new("i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo \"line $i\"; done; exit 0");
    let server = Server::start(&[&script.setting()]);
    let recording = record(&server, "talkative", 60).await;
    let manifest = Api::of(&server).hook(id(&recording), "done", SOON).await;
    let tail = manifest["hook"]["attempts"][0]["tail"].as_str().unwrap();
    assert!(tail.trim_end().ends_with("line 3000"), "{tail}");
    assert!((2048..=4096).contains(&tail.len()), "{} bytes", tail.len());
}
