//! What the release before left, opened by this one: recordings, an unfinished one, a hook that is owed,
//! the key and the configuration. `fixtures/release_before` is what version 0.1.0 had when it was killed.

use crate::support::judge::{Probe, decode};
use crate::support::server::{Environment, Server};
use crate::support::user::{SOON, Script, eventually};
use reqwest::{Client, StatusCode};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TOKEN: &str = "onr_2agt410rsq8kat8we2092raf2b4tejfc8j05rmx2vxmp9ntjmdw3";
/// Signed by the key beside the recordings; good for a day from [`THEN`] on.
const LINK: &str = "/recordings/caf%C3%A9_20261127T175029Z_01m8f22kwzwg1bt3pcp7aparx8.webm\
                    ?token=6b0b0890-19a9f469f54d6332ad221948cee08591";
const THEN: &str = "@2026-11-27 18:00:00";

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The wall clock begins at [`THEN`].
fn then() -> Environment {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let library: PathBuf = libraries.find(|path| path.exists()).expect("libfaketime is installed");
    let variables = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME", THEN),
        ("TZ", "UTC"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

async fn recordings(server: &Server) -> Vec<Value> {
    let asked = Client::new().get(server.url("/api/recordings")).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::OK, "the token of before is good");
    asked.json().await.unwrap()
}

#[tokio::test]
async fn the_folder_of_the_release_before_is_opened_and_goes_on() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let before = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/release_before");
    copy_all(&before, folder.path());
    let key = std::fs::read(folder.path().join("records/.key")).unwrap();
    let script = Script::new("echo \"$1|$ONRECORD_ATTEMPT|$ONRECORD_END_REASON\" >> \"$here/log\"");
    let server = Server::start_in(folder.clone(), then(), &[&script.setting()]);
    let all = eventually("all are sealed, and their hooks have run", SOON * 3, async || {
        let all = recordings(&server).await;
        let over = |one: &Value| one["state"] == "sealed" && one["hook"]["state"] == "done";
        all.iter().all(over).then_some(all)
    })
    .await;
    let mut told: Vec<_> = all
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap();
            let attempts = one["hook"]["attempts"].as_array().unwrap().len();
            (text("stream"), text("end_reason"), attempts)
        })
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("cafe\u{301}", "stopped", 1),
            ("garden", "stopped", 1),
            ("owed", "stopped", 2),
            ("under way", "server_crashed", 1)
        ]
    );
    let mut ran: Vec<_> = script.left("log").lines().map(str::to_owned).collect();
    ran.sort_unstable();
    assert_eq!(ran, ["owed|2|stopped", "under way|1|server_crashed"], "only what was owed");
    for one in &all {
        let file = server.records().join(one["file"].as_str().unwrap());
        decode(&file).unwrap_or_else(|complaint| panic!("{}: {complaint}", file.display()));
        let duration = Probe::of(&file).duration().expect("a Duration").as_millis() as u64;
        assert!(duration.abs_diff(one["duration_ms"].as_u64().unwrap()) <= 1, "{one}");
        let link = server.url(one["url"].as_str().unwrap());
        let bytes = reqwest::get(link).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, std::fs::read(&file).unwrap());
    }
    let old = reqwest::get(server.url(LINK)).await.unwrap();
    assert_eq!(old.status(), StatusCode::OK, "a link of before");
    let forged = reqwest::get(server.url(&LINK.replace("19a9f469", "19a9f460"))).await.unwrap();
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(std::fs::read(server.records().join(".key")).unwrap(), key);
}
