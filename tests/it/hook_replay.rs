//! `onrecord hook replay`, and who may work in a folder of recordings.

use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, eventually, record, runs};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Fails until it is mended; then it hangs until it is told to go on, if it is told to hang.
const MENDABLE: &str = "echo \"this is attempt $ONRECORD_ATTEMPT of $1\"\n\
    [ -e \"$here/mended\" ] || exit 3\necho $$ > \"$here/pid\"\n\
    while [ -e \"$here/hang\" ]; do sleep 0.05; done";

fn id(recording: &Value) -> &str {
    recording["id"].as_str().unwrap()
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn command(server: &Server, args: &[&str], settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    let records = format!("record.dir={}", server.records().display());
    command.args(args).args(["--set", &records]).current_dir(server.folder());
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn end(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn replay(server: &Server, ids: &[&str], setting: &str) -> Ran {
    end(command(server, &[&["hook", "replay"], ids].concat(), &[setting]).spawn().unwrap())
}

fn manifest_path(server: &Server, recording: &Value) -> PathBuf {
    server.records().join(recording["file"].as_str().unwrap()).with_extension("json")
}

fn manifest(server: &Server, recording: &Value) -> Value {
    serde_json::from_slice(&std::fs::read(manifest_path(server, recording)).unwrap()).unwrap()
}

/// A server with a failed hook, whose script has been mended since.
async fn failed(script: &Script) -> (Server, Value) {
    let server = Server::start(&[&script.setting(), "hooks.max_attempts=1"]);
    let recording = record(&server, "interview 7", 30).await;
    Api::of(&server).hook(id(&recording), "failed", SOON).await;
    std::fs::write(script.file("mended"), "").unwrap();
    (server, recording)
}

async fn killed(server: &mut Server) {
    server.signal("KILL");
    assert!(server.ended(SOON).await.is_some());
}

#[tokio::test]
async fn a_replay_is_left_to_the_server_that_runs_and_each_refusal_says_why() {
    let script = Script::new(MENDABLE);
    let (server, recording) = failed(&script).await;
    let unknown = "0".repeat(26);
    let ran = replay(&server, &[&unknown, id(&recording), "nonsense"], &script.setting());
    assert_eq!(ran.code, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(&format!("{}: queued", id(&recording))), "{}", ran.out);
    assert_eq!(ran.err.matches("there is no recording").count(), 2, "{}", ran.err);
    let api = Api::of(&server);
    let done = api.hook(id(&recording), "done", SOON).await;
    assert_eq!(done["hook"]["attempts"].as_array().unwrap().len(), 2, "{done}");
    let ran = replay(&server, &[id(&recording)], &script.setting());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    eventually("a third attempt", SOON, async || {
        let hook = &api.recording(id(&recording)).await["hook"];
        (hook["attempts"].as_array()?.len() == 3 && hook["state"] == "done").then_some(())
    })
    .await;
    std::fs::remove_file(server.records().join(recording["file"].as_str().unwrap())).unwrap();
    let ran = replay(&server, &[id(&recording)], &script.setting());
    assert!(ran.code == Some(1) && ran.err.contains("moved away"), "{}", ran.err);
}

#[tokio::test]
async fn a_server_behind_a_certificate_a_path_and_tokens_is_asked_as_well() {
    let script = Script::new(MENDABLE);
    let (server, recording) = failed(&script).await;
    let hash = format!("{:x}", Sha256::digest("operator"));
    let tokens = format!("auth.tokens=[{{name=\"me\", hash=\"sha256:{hash}\", permissions=[\"admin\"]}}]");
    let setting = script.setting();
    let settings = [&setting, "server.tls.self_signed=true", "server.base_path=/media", &tokens];
    let server = server.killed_and_started(&settings);
    assert!(server.base.starts_with("https://"), "{}", server.base);
    let ran = end(command(&server, &["hook", "replay", id(&recording)], &settings).spawn().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    let done = eventually("it ran", SOON, async || {
        let hook = manifest(&server, &recording)["hook"].clone();
        (hook["state"] == "done").then_some(hook)
    })
    .await;
    assert_eq!(done["attempts"].as_array().unwrap().len(), 2, "{done}");
}

#[tokio::test]
async fn without_a_server_a_replay_runs_at_once_and_shows_what_the_hook_prints() {
    let script = Script::new(MENDABLE);
    let (mut server, recording) = failed(&script).await;
    killed(&mut server).await;
    let ran = replay(&server, &[id(&recording)], &script.setting());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    assert!(ran.out.starts_with("this is attempt 2 of interview 7\n"), "{}", ran.out);
    let hook = manifest(&server, &recording)["hook"].clone();
    assert_eq!((&hook["state"], &hook["attempts"][1]["n"]), (&json!("done"), &json!(2)), "{hook}");

    std::fs::remove_file(script.file("mended")).unwrap();
    let ran = replay(&server, &[id(&recording)], &script.setting());
    assert!(ran.code == Some(1) && ran.err.contains("exit code 3"), "{}", ran.err);
    assert_eq!(manifest(&server, &recording)["hook"]["state"], "failed");

    let refused = |setting: &str, expected: &str| {
        let ran = replay(&server, &[id(&recording)], setting);
        assert!(ran.code == Some(1) && ran.err.contains(expected), "{expected}: {}{}", ran.out, ran.err);
    };
    refused("hooks.on_record=", "hooks.on_record");
    let file = server.records().join(recording["file"].as_str().unwrap());
    std::fs::rename(&file, server.folder().join("moved")).unwrap();
    refused(&script.setting(), "moved away");
    let mut open = manifest(&server, &recording);
    open["state"] = json!("recording");
    std::fs::write(manifest_path(&server, &recording), open.to_string()).unwrap();
    refused(&script.setting(), "not sealed");
    for args in [&["hook"][..], &["hook", "replay"], &["hook", "rerun", "x"]] {
        let ran = end(command(&server, args, &[]).spawn().unwrap());
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_folder_of_recordings_has_one_server_and_check_says_so() {
    let server = Server::start(&["hooks.on_record="]);
    let free = ["hooks.on_record=", "server.bind=127.0.0.1:0", "webrtc.udp_bind=127.0.0.1:0"];
    for word in ["serve", "check"] {
        let ran = end(command(&server, &[word], &free).spawn().unwrap());
        let said = format!("{}{}", ran.out, ran.err);
        assert_eq!(ran.code, Some(1), "{word}: {said}");
        let holder = format!("process {}", server.pid());
        assert!(said.contains("record.dir") && said.contains(&holder), "{word}: {said}");
    }
}

#[tokio::test]
async fn while_a_replay_runs_no_server_starts_and_what_was_interrupted_runs_after_it() {
    let script = Script::new(MENDABLE);
    let (mut server, recording) = failed(&script).await;
    killed(&mut server).await;
    std::fs::write(script.file("hang"), "").unwrap();
    let settings = [script.setting()];
    let start = || {
        let args = ["hook", "replay", id(&recording)];
        command(&server, &args, &[&settings[0]]).spawn().unwrap()
    };
    let child = start();
    let running = async || Some(script.left("pid")).filter(|pid| pid.ends_with('\n') && runs(pid));
    let first = eventually("it runs", SOON, running).await;
    let free = ["server.bind=127.0.0.1:0", "webrtc.udp_bind=127.0.0.1:0", &settings[0]];
    let refused = end(command(&server, &["serve"], &free).spawn().unwrap());
    assert!(refused.err.contains(&format!("process {}", child.id())), "{}", refused.err);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let interrupted = end(child);
    assert!(interrupted.code == Some(1) && interrupted.err.contains("interrupted"), "{}", interrupted.err);
    assert!(!runs(&first), "the hook outlived its command");
    assert_eq!(manifest(&server, &recording)["hook"]["state"], "queued");

    // Killed, it leaves its hook running; the server ends that before it runs it again.
    let mut child = start();
    let second =
        eventually("it runs again", SOON, async || running().await.filter(|pid| *pid != first)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(runs(&second), "nothing survived");
    let began = Instant::now();
    let server = server.killed_and_started(&[&settings[0], "hooks.kill_after=300ms"]);
    let api = Api::of(&server);
    eventually("the server runs it", PATIENCE, async || running().await.filter(|pid| *pid != second)).await;
    assert!(!runs(&second), "two at a time");
    println!("the survivor is gone and the next attempt runs after {:?}", began.elapsed());
    std::fs::remove_file(script.file("hang")).unwrap();
    let hook = api.hook(id(&recording), "done", PATIENCE).await["hook"].clone();
    let numbers: Vec<_> = hook["attempts"].as_array().unwrap().iter().map(|one| one["n"].clone()).collect();
    assert_eq!(json!(numbers), json!([1, 2, 3, 4]), "{hook}");
}
