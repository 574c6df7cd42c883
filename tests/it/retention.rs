//! Retention: what goes, what stays whatever the rules say, and the dry run.

use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, eventually, record};
use onrecord::base::id::RecordingId;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const BODY: &str = "[ \"$1\" != unhooked ]";
const DAY: &str = "retention.max_age=1d";

fn manifest_path(server: &Server, recording: &Value) -> PathBuf {
    server.records().join(recording["file"].as_str().unwrap()).with_extension("json")
}

fn manifest(server: &Server, recording: &Value) -> Value {
    serde_json::from_slice(&std::fs::read(manifest_path(server, recording)).unwrap()).unwrap()
}

fn is_there(server: &Server, recording: &Value) -> bool {
    server.records().join(recording["file"].as_str().unwrap()).exists()
}

/// As if it had been recorded two days earlier: its id tells the time as well.
fn age(server: &Server, recording: &mut Value) {
    let (json, mut aged) = (manifest_path(server, recording), manifest(server, recording));
    let media = server.records().join(recording["file"].as_str().unwrap());
    let earlier = |at: &Value| {
        let at: jiff::Timestamp = at.as_str().unwrap().parse().unwrap();
        at - jiff::SignedDuration::from_hours(48)
    };
    for key in ["started_at", "ended_at"] {
        aged[key] = json!(earlier(&aged[key]).to_string());
    }
    let id = RecordingId::new(aged["started_at"].as_str().unwrap().parse().unwrap()).to_string();
    let file = recording["file"].as_str().unwrap().replace(recording["id"].as_str().unwrap(), &id);
    for value in [&mut aged, recording] {
        (value["id"], value["file"]) = (json!(id), json!(file));
    }
    std::fs::remove_file(json).unwrap();
    std::fs::rename(media, server.records().join(file)).unwrap();
    std::fs::write(manifest_path(server, &aged), aged.to_string()).unwrap();
}

fn retention(server: &Server, args: &[&str]) -> (i32, String) {
    let records = format!("record.dir={}", server.records().display());
    let output = Command::new(env!("CARGO_BIN_EXE_onrecord"))
        .args(["retention", "--set", &records])
        .args(args)
        .current_dir(server.folder())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

#[tokio::test]
async fn old_recordings_go_but_none_whose_hook_has_not_succeeded() {
    let script = Script::new(BODY);
    let settings = [script.setting(), "hooks.max_attempts=1".to_owned()];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut server = Server::start(&settings);
    let (mut old, mut kept) = (Vec::new(), Vec::new());
    for (name, hook) in [("old", "done"), ("unhooked", "failed"), ("exam 1", "done"), ("new", "done")] {
        let recording = record(&server, name, 20).await;
        Api::of(&server).hook(recording["id"].as_str().unwrap(), hook, SOON).await;
        if name == "old" { old.push(recording) } else { kept.push(recording) }
    }
    assert!(server.stop(SOON).is_some_and(|status| status.success()));
    for recording in old.iter_mut().chain(&mut kept[..2]) {
        age(&server, recording);
    }

    let rule = "retention.streams=[{ name = \"exam*\", max_age = \"365d\" }]";
    let mut server = server.killed_and_started(&[&settings[..], &["retention.max_age=7d"]].concat());
    let (code, said) = retention(&server, &["--dry-run", "--set", DAY, "--set", rule]);
    assert_eq!(code, 0, "{said}");
    println!("{said}");
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines[0].starts_with(old[0]["id"].as_str().unwrap()) && lines[0].contains("ended 48 h ago"),
        "{said}"
    );
    assert_eq!((lines[1..].len(), lines[1].starts_with("would go: 1 recordings")), (1, true), "{said}");
    assert!(is_there(&server, &old[0]), "a dry run removed it");
    let (code, said) = retention(&server, &["--set", DAY]);
    assert!(code == 1 && said.contains("in use by another onrecord"), "{code} {said}");

    assert!(server.stop(SOON).is_some());
    let server = server.killed_and_started(&[&settings[..], &[DAY, rule]].concat());
    let gone = || manifest(&server, &old[0])["state"] == "deleted";
    eventually("the old recording is removed", SOON, async || gone().then_some(())).await;
    eventually("its file is gone", SOON, async || (!is_there(&server, &old[0])).then_some(())).await;
    for recording in &kept {
        assert!(is_there(&server, recording), "{} was removed", recording["stream"]);
    }
    let logged = async || {
        let log = server.output();
        log.lines().find(|line| line.contains("removed by retention")).map(str::to_owned)
    };
    let line = eventually("the log says what went", SOON, logged).await;
    assert!(line.contains(old[0]["file"].as_str().unwrap()), "{line}");
}

#[tokio::test]
async fn a_clock_that_ran_ahead_before_the_start_removes_nothing_by_age_until_somebody_vouches_for_it() {
    let mut server = Server::start(&["hooks.on_record="]);
    let mut recording = record(&server, "kept", 20).await;
    assert!(server.stop(SOON).is_some());
    age(&server, &mut recording);
    let mut server = server.killed_and_started(&["hooks.on_record=", DAY]);
    let said = async || server.output().contains("the wall clock is 4").then_some(());
    eventually("the log says that the clock is doubted", SOON, said).await;
    assert!(server.stop(SOON).is_some());
    assert!(is_there(&server, &recording), "removed by a clock that nobody vouches for");
    let (code, said) = retention(&server, &["--set", DAY]);
    println!("{said}");
    assert!(code == 0 && said.contains("removed: 0 recordings") && said.contains(".clock"), "{code} {said}");

    std::fs::write(server.records().join(".clock"), "").unwrap();
    let server = server.killed_and_started(&["hooks.on_record=", DAY]);
    let gone = async || (!is_there(&server, &recording)).then_some(());
    eventually("the old recording is removed", SOON, gone).await;
}

#[tokio::test]
async fn the_command_removes_the_oldest_until_the_rest_fits_where_no_server_works() {
    let mut server = Server::start(&["hooks.on_record="]);
    let mut recordings = Vec::new();
    for name in ["one", "two", "three"] {
        recordings.push(record(&server, name, 20).await);
    }
    assert!(server.stop(SOON).is_some());
    let bytes: u64 = recordings[1..].iter().map(|recording| recording["bytes"].as_u64().unwrap()).sum();
    let (code, said) = retention(&server, &["--set", &format!("retention.max_bytes={bytes}")]);
    assert_eq!(code, 0, "{said}");
    println!("{said}");
    let there: Vec<_> = recordings.iter().map(|recording| is_there(&server, recording)).collect();
    assert_eq!(there, [false, true, true], "{said}");
    assert_eq!(manifest(&server, &recordings[0])["state"], "deleted");
}
