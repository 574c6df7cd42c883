//! The wall clock of a running server is set back.

use super::SETTINGS;
use crate::support::server::{Environment, Server};
use crate::support::user::{Api, SOON, Script, on_air, record};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A wall clock that can be set (`libfaketime`); the monotonic one goes on.
struct Clock {
    folder: TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap() };
        clock.set("+0");
        clock
    }

    /// So far from the true time.
    fn set(&self, offset: &str) {
        // In one step: it is read at every look at the clock.
        let (new, file) = (self.folder.path().join("new"), self.file());
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    fn environment(&self) -> Environment {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        let variables = [
            ("LD_PRELOAD", path(library())),
            ("FAKETIME_TIMESTAMP_FILE", path(self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Its name in older and in newer releases.
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let folders = folders.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")]);
    let mut found =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime is installed")
}

fn text<'a>(recording: &'a Value, key: &str) -> &'a str {
    recording[key].as_str().unwrap_or_else(|| panic!("no {key} in {recording}"))
}

fn millis(recording: &Value, key: &str) -> i64 {
    text(recording, key).parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// The streams of a list, in its order.
async fn listed(api: &Api, query: &str) -> Vec<String> {
    let list = api.get(&format!("/api/recordings{query}")).await;
    list.as_array().unwrap().iter().map(|recording| text(recording, "stream").to_owned()).collect()
}

#[tokio::test]
async fn a_wall_clock_set_back_an_hour_changes_no_duration_and_no_order() {
    let (clock, script) = (Clock::new(), Script::new("echo \"$ONRECORD_STREAM\" >> \"$here/log\""));
    let hook = script.setting();
    let settings = [&[hook.as_str()], &SETTINGS[..]].concat();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let server = Server::start_in(folder, clock.environment(), &settings);
    let mut ids = vec![text(&record(&server, "before", 60).await, "id").to_owned()];

    let across = on_air(&server, "across").await;
    across.sends(100).await;
    clock.set("-3600");
    across.sends(100).await;
    let sent = across.live.with(|publisher| publisher.sent().last().unwrap().captured).await;
    ids.push(text(&across.stop().await, "id").to_owned());
    ids.push(text(&record(&server, "after", 60).await, "id").to_owned());
    // Else it would be right to run it again.
    Api::of(&server).hook(&ids[2], "done", SOON).await;
    let server = server.killed_and_started(&settings);
    ids.push(text(&record(&server, "restarted", 60).await, "id").to_owned());

    let api = Api::of(&server);
    let mut starts = Vec::new();
    for id in &ids {
        let recording = api.hook(id, "done", SOON).await;
        let duration = recording["duration_ms"].as_i64().unwrap();
        let on_the_clock = millis(&recording, "ended_at") - millis(&recording, "started_at");
        println!(
            "{:<10} began {}, {duration} ms long, {on_the_clock} ms on the clock, gaps {}",
            text(&recording, "stream"),
            text(&recording, "started_at"),
            recording["gaps"],
        );
        // It ends when the stop is heard, a little after its last frame.
        assert!((0..1000).contains(&(on_the_clock - duration)), "{recording}");
        assert_eq!(recording["gaps"], serde_json::json!([]));
        starts.push(millis(&recording, "started_at"));
    }
    let hour = starts[1] - starts[2];
    assert!((3_500_000..3_600_000).contains(&hour), "the clock was not set: {starts:?}");
    let across = api.recording(&ids[1]).await["duration_ms"].as_u64().unwrap();
    assert!(across.abs_diff(sent.as_millis() as u64) < 500, "{across} ms of {sent:?}");

    assert_eq!(listed(&api, "").await, ["restarted", "after", "across", "before"], "newest first");
    assert_eq!(listed(&api, &format!("?before={}", ids[2])).await, ["across", "before"], "the next page");
    assert_eq!(script.left("log"), "before\nacross\nafter\nrestarted\n");
    assert!(ids.is_sorted(), "{ids:?}");
}
