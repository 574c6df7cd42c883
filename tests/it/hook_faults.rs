//! Hooks when something goes wrong: the server killed while one runs, and scripts that misbehave.

use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, eventually, record, runs};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A server that was killed may need `hooks.kill_after` more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Notes when each attempt begins, with proof that it is alone: the lock is held by the script and by
/// every process it starts, for as long as any of them lives.
const ALONE: &str = "exec 9> \"$here/alone\"\n\
    flock -n 9 || echo \"attempt $ONRECORD_ATTEMPT is not alone\" >> \"$here/overlaps\"\n\
    echo \"$ONRECORD_ID $ONRECORD_ATTEMPT $$\" >> \"$here/begun\"\n";

fn id(recording: &Value) -> &str {
    recording["id"].as_str().unwrap()
}

/// Number, exit code and error of every attempt.
fn attempts(manifest: &Value) -> Vec<(u64, Option<i64>, String)> {
    let of = |attempt: &Value| {
        let error = attempt["error"].as_str().unwrap_or_default().to_owned();
        (attempt["n"].as_u64().unwrap(), attempt["exit"].as_i64(), error)
    };
    manifest["hook"]["attempts"].as_array().unwrap().iter().map(of).collect()
}

fn last_line(text: &str) -> Option<Vec<&str>> {
    Some(text.lines().last()?.split(' ').collect())
}

#[tokio::test]
async fn a_restart_ends_what_a_killed_servers_hook_left_before_it_tries_again() {
    let script = Script::new(&format!(
        "{ALONE}[ \"$ONRECORD_ATTEMPT\" = 1 ] || exit 0\n\
         trap '' TERM\nsleep 1000 & echo $! > \"$here/child\"\nwhile :; do sleep 1; done"
    ));
    let settings = [&script.setting(), "hooks.kill_after=300ms"];
    let server = Server::start(&settings);
    let recording = record(&server, "killed", 30).await;
    let child = eventually("the hook runs", SOON, async || {
        Some(script.left("child")).filter(|child| child.ends_with('\n'))
    })
    .await;
    let script_pid = last_line(&script.left("begun")).unwrap()[2].to_owned();

    let server = server.killed_and_started(&settings);
    let manifest = Api::of(&server).hook(id(&recording), "done", PATIENCE).await;
    assert!(!runs(&child) && !runs(&script_pid), "still there: {child} {script_pid}");
    assert_eq!(script.left("overlaps"), "");
    let begun: Vec<_> = script.left("begun").lines().map(|line| line[..28].to_owned()).collect();
    assert_eq!(begun, [1, 2].map(|n| format!("{} {n}", id(&recording))), "ids and numbers");
    let ends = attempts(&manifest);
    assert_eq!((ends[0].0, ends[0].1, ends[0].2.as_str()), (1, None, "the server ended while it ran"));
    assert_eq!(ends[1..], [(2, Some(0), String::new())]);
    assert_eq!(manifest["hook"]["running"], json!(null));
}

#[tokio::test]
async fn a_child_that_outlived_its_script_is_ended_too() {
    let script = Script::new(&format!(
        "{ALONE}[ \"$ONRECORD_ATTEMPT\" = 1 ] || exit 0\n\
         trap '' TERM\nenv -i sleep 1000 & echo $! > \"$here/bare\"\n\
         setsid sleep 1000 & sleep 1000 & echo $! > \"$here/child\"\nwhile :; do sleep 1; done"
    ));
    let settings = [&script.setting(), "hooks.kill_after=300ms"];
    let server = Server::start(&settings);
    let recording = record(&server, "orphans", 30).await;
    eventually("the hook runs", SOON, async || script.left("child").ends_with('\n').then_some(())).await;
    let leader = last_line(&script.left("begun")).unwrap()[2].to_owned();
    server.signal("KILL");
    kill(&leader);
    let server = server.killed_and_started(&settings);
    Api::of(&server).hook(id(&recording), "done", PATIENCE).await;
    assert_eq!(script.left("overlaps"), "");
    for name in ["child", "bare"] {
        assert!(!runs(&script.left(name)), "{name} is still there");
    }
}

#[tokio::test]
async fn a_hook_that_kills_the_server_each_time_is_kept_as_failed_after_its_attempts() {
    let script = Script::new(
        "echo \"$ONRECORD_ATTEMPT\" >> \"$here/begun\"\n\
         until [ -e \"$here/go$ONRECORD_ATTEMPT\" ]; do sleep 0.02; done\nkill -KILL $PPID\nsleep 1000",
    );
    let settings = [&script.setting(), "hooks.max_attempts=3", "hooks.kill_after=300ms"];
    let mut server = Server::start(&settings);
    let recording = record(&server, "deadly", 30).await;
    for attempt in 1..=3 {
        std::fs::write(script.file(&format!("go{attempt}")), "").unwrap();
        assert!(server.ended(PATIENCE).await.is_some(), "attempt {attempt}");
        server = server.killed_and_started(&settings);
    }
    let api = Api::of(&server);
    let manifest = api.hook(id(&recording), "failed", PATIENCE).await;
    let ends = attempts(&manifest);
    assert_eq!(ends.iter().map(|end| (end.0, end.1)).collect::<Vec<_>>(), [(1, None), (2, None), (3, None)]);
    assert!(ends[2].2.contains("take the server along"), "{ends:?}");
    assert_eq!(script.left("begun"), "1\n2\n3\n");
    // Asked for by hand it has its attempts anew.
    std::fs::write(script.file("hook.sh"), "#!/bin/sh\nexit 0\n").unwrap();
    let manifest = again(&api, id(&recording), 4).await;
    assert_eq!(manifest["hook"]["state"], "done", "{manifest}");
}

#[tokio::test]
async fn an_attempt_that_an_orderly_stop_cuts_off_does_not_count() {
    let script = Script::new(&format!("{ALONE}[ -e \"$here/enough\" ] || exec sleep 1000"));
    let settings = [&script.setting(), "hooks.max_attempts=1", "server.shutdown_grace=1s"];
    let mut server = Server::start(&settings);
    let recording = record(&server, "stopped", 30).await;
    eventually("it runs", SOON, async || last_line(&script.left("begun")).map(drop)).await;
    assert!(server.stop(PATIENCE).is_some_and(|status| status.success()));
    std::fs::write(script.file("enough"), "").unwrap();
    let server = server.killed_and_started(&settings);
    let manifest = Api::of(&server).hook(id(&recording), "done", PATIENCE).await;
    let list = &manifest["hook"]["attempts"];
    assert_eq!((&list[0]["interrupted"], &list[1]["exit"]), (&json!(true), &json!(0)), "{manifest}");
}

fn kill(pid: &str) {
    let status = Command::new("kill").args(["-KILL", pid.trim()]).status();
    assert!(status.unwrap().success(), "{pid}");
}

#[tokio::test]
async fn a_noted_group_that_is_somebody_elses_by_now_is_left_alone() {
    let script = Script::new(&format!("{ALONE}[ \"$ONRECORD_ATTEMPT\" = 1 ] || exit 0\nsleep 1000"));
    let settings = [script.setting()];
    let settings = [settings[0].as_str()];
    let server = Server::start(&settings);
    let recording = record(&server, "reused", 30).await;
    let api = Api::of(&server);
    let group = eventually("the group is noted", SOON, async || {
        api.recording(id(&recording)).await["hook"]["running"]["process_group"].as_i64()
    })
    .await;
    let begun = eventually("the script has begun", SOON, async || {
        let begun = script.left("begun");
        last_line(&begun).is_some_and(|line| line.len() > 2).then_some(begun)
    })
    .await;
    assert_eq!(group.to_string(), last_line(&begun).unwrap()[2]);
    server.signal("KILL");
    kill(&group.to_string());
    // A stranger leads a group, and the manifest says it was the hook's.
    let mut stranger = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
    let path = server.records().join(recording["file"].as_str().unwrap()).with_extension("json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let noted = manifest["hook"]["running"].clone();
    assert!(manifest["hook"]["state"] == "running" && noted["n"] == 1, "{manifest}");
    manifest["hook"]["running"]["process_group"] = json!(stranger.id());
    std::fs::write(&path, manifest.to_string()).unwrap();

    let server = server.killed_and_started(&settings);
    let manifest = Api::of(&server).hook(id(&recording), "done", PATIENCE).await;
    let left_alone = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(left_alone, "a stranger was killed");
    let ends = attempts(&manifest);
    assert_eq!(ends[0], (1, None, "the server ended while it ran".to_owned()));
    assert_eq!(ends[1..], [(2, Some(0), String::new())]);
}

/// Starts a server in the folder of another one, kills it when `moment` has come, and waits for its end.
fn start_and_kill(server: &Server, settings: &[&str], moment: impl FnOnce()) {
    let records = format!("record.dir={}", server.records().display());
    let own = ["server.bind=127.0.0.1:0", "webrtc.udp_bind=127.0.0.1:0", &records];
    let mut command = Command::new(env!("CARGO_BIN_EXE_onrecord"));
    command.arg("serve").current_dir(server.folder()).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for setting in own.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    let mut child = command.spawn().unwrap();
    moment();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn killed_at_any_moment_around_the_start_of_a_hook_no_two_ever_run() {
    const KILLS: u32 = 40;
    let script = Script::new(&format!(
        "{ALONE}trap '' TERM\n(env -u ONRECORD_ID sleep 1000) &\n\
         until [ -e \"$here/enough\" ]; do sleep 0.02; done; kill %1 2>/dev/null; kill -9 $! ; exit 0"
    ));
    let settings = [script.setting()];
    let settings = [settings[0].as_str(), "hooks.kill_after=20ms", "hooks.max_attempts=100"];
    let server = Server::start(&settings);
    let recording = record(&server, "often", 30).await;
    server.signal("KILL");
    let began = Instant::now();
    let mut server = server;
    assert!(server.ended(SOON).await.is_some());
    let path = server.records().join(recording["file"].as_str().unwrap()).with_extension("json");
    for round in 0..KILLS {
        let (before, begun) = (std::fs::read(&path).unwrap(), Instant::now());
        // Every other time once the manifest speaks of the survivor, or of the next attempt; else from
        // before the server has read the manifests to well after the hook's start.
        let (follow, least) = if round % 2 == 0 { (true, 0) } else { (false, 5_000) };
        let after = Duration::from_micros(rand::random_range(least..if follow { 30_000 } else { 250_000 }));
        start_and_kill(&server, &settings, || {
            while follow && std::fs::read(&path).unwrap() == before {
                assert!(begun.elapsed() < PATIENCE, "round {round}: the manifest stays as it was");
                std::thread::sleep(Duration::from_millis(1));
            }
            // The moment of the kill is what the test is about.
            std::thread::sleep(after);
        });
        assert_eq!(script.left("overlaps"), "", "round {round}, killed after {after:?}");
    }
    let seen = script.left("begun").lines().count();
    println!("{KILLS} kills in {:?}, the hook begun {seen} times", began.elapsed());
    std::fs::write(script.file("enough"), "").unwrap();
    let server = server.killed_and_started(&settings);
    let manifest = Api::of(&server).hook(id(&recording), "done", PATIENCE).await;
    assert_eq!(script.left("overlaps"), "");
    let numbers: Vec<_> = attempts(&manifest).iter().map(|attempt| attempt.0).collect();
    println!("attempts in the manifest: {numbers:?}");
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert!(seen >= 3, "too few kills met the hook: {seen}");
    let ids: Vec<_> = script.left("begun").lines().map(|line| line[..26].to_owned()).collect();
    assert!(ids.iter().all(|seen| seen == id(&recording)), "{ids:?}");
    // What was begun has its number once, and the manifest knows it.
    let mut begun: Vec<u64> =
        script.left("begun").lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    assert!(begun.iter().all(|n| numbers.contains(n)), "{begun:?} of {numbers:?}");
    begun.dedup();
    assert_eq!(begun.len(), script.left("begun").lines().count(), "a number was given out twice");
}

#[tokio::test]
async fn a_replay_at_the_moment_of_the_start_runs_no_second_one() {
    let script = Script::new(&format!("{ALONE}trap '' TERM\n[ -e \"$here/enough\" ] || sleep 1000"));
    let settings = [script.setting()];
    let settings = [settings[0].as_str(), "hooks.kill_after=1s"];
    let server = Server::start(&settings);
    let recording = record(&server, "replayed", 30).await;
    eventually("it runs", SOON, async || last_line(&script.left("begun")).map(drop)).await;
    let server = server.killed_and_started(&settings);
    std::fs::write(script.file("enough"), "").unwrap();
    let api = Api::of(&server);
    let path = format!("/api/recordings/{}/hook", id(&recording));
    for _ in 0..10 {
        let (status, body) = api.call(Method::POST, &path).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    }
    api.hook(id(&recording), "done", PATIENCE).await;
    assert_eq!((script.left("overlaps").as_str(), script.left("begun").lines().count()), ("", 2));
}

/// Asks for the hook again, and waits until so many attempts are over.
async fn again(api: &Api, id: &str, over: usize) -> Value {
    let (status, body) = api.call(Method::POST, &format!("/api/recordings/{id}/hook")).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    eventually(&format!("{over} attempts"), PATIENCE, async || {
        let manifest = api.recording(id).await;
        let waits = ["queued", "running"].contains(&manifest["hook"]["state"].as_str().unwrap());
        (!waits && attempts(&manifest).len() == over).then_some(manifest)
    })
    .await
}

#[tokio::test]
async fn a_hook_that_can_not_start_says_why_and_runs_once_it_is_mended() {
    let script = Script::new("exit 0");
    let path = script.file("hook.sh");
    let server = Server::start(&[&script.setting(), "hooks.max_attempts=1"]);
    std::fs::remove_file(&path).unwrap();
    let recording = record(&server, "deleted after the start", 30).await;
    let api = Api::of(&server);
    let manifest = api.hook(id(&recording), "failed", SOON).await;
    assert!(attempts(&manifest)[0].2.contains("does not exist"), "{manifest}");
    let cases: [(&str, u32, &str); 4] = [
        ("#!/bin/sh\n", 0o644, "chmod +x"),
        ("#!/nowhere/sh\n", 0o755, "/nowhere/sh, which does not exist"),
        ("exit 0\n", 0o755, "names no interpreter"),
        ("\x7fELF\x02\x01\x01\0 of no machine", 0o755, "no program of this machine"),
    ];
    for (number, (text, mode, expected)) in cases.into_iter().enumerate() {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let manifest = again(&api, id(&recording), number + 2).await;
        let (n, exit, error) = attempts(&manifest).pop().unwrap();
        assert_eq!((&manifest["hook"]["state"], n, exit), (&json!("failed"), number as u64 + 2, None));
        assert!(error.contains(expected), "{error}");
    }
    std::fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
    let manifest = again(&api, id(&recording), 6).await;
    assert_eq!(manifest["hook"]["state"], "done", "{manifest}");
    assert_eq!(api.call(Method::GET, "/readyz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_hook_that_always_fails_is_given_growing_pauses_and_then_kept_for_a_replay() {
    let script = Script::new("exit 3");
    let server = Server::start(&[&script.setting(), "hooks.max_attempts=4", "hooks.backoff=200ms"]);
    let recording = record(&server, "fails", 30).await;
    let api = Api::of(&server);
    let manifest = api.hook(id(&recording), "failed", PATIENCE).await;
    let list = manifest["hook"]["attempts"].as_array().unwrap();
    let at = |attempt: &Value| attempt["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let pauses: Vec<_> = list
        .windows(2)
        .map(|pair| {
            at(&pair[1]).as_millisecond() - at(&pair[0]).as_millisecond() - pair[0]["ms"].as_i64().unwrap()
        })
        .collect();
    println!("pauses: {pauses:?} ms");
    assert_eq!(pauses.len(), 3, "{manifest}");
    for (pause, least) in pauses.iter().zip([160, 320, 640]) {
        // The times are rounded down to milliseconds.
        assert!(*pause >= least - 2, "{pauses:?}");
    }
    std::fs::write(script.file("hook.sh"), "#!/bin/sh\nexit 0\n").unwrap();
    let manifest = again(&api, id(&recording), 5).await;
    assert_eq!((&manifest["hook"]["state"], attempts(&manifest)[4].0), (&json!("done"), 5));
}

#[tokio::test]
async fn a_hook_killed_from_outside_says_by_what_and_runs_again() {
    let script = Script::new(&format!(
        "{ALONE}[ \"$ONRECORD_ATTEMPT\" = 1 ] || exit 0\nsleep 1000 & echo $! > \"$here/child\"\nwait"
    ));
    let server = Server::start(&[&script.setting(), "hooks.backoff=10ms"]);
    let recording = record(&server, "killed", 30).await;
    let child = eventually("it runs", SOON, async || {
        Some(script.left("child")).filter(|child| child.ends_with('\n'))
    })
    .await;
    kill(last_line(&script.left("begun")).unwrap()[2]);
    let manifest = Api::of(&server).hook(id(&recording), "done", SOON).await;
    let expected = [(1, None, "killed by signal 9".to_owned()), (2, Some(0), String::new())];
    assert_eq!(attempts(&manifest), expected);
    assert!(script.left("overlaps").is_empty() && !runs(&child), "its child {child} was left");
}

fn kib(server: &Server, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse().unwrap()
}

#[tokio::test]
async fn a_gigabyte_of_output_costs_neither_memory_nor_log() {
    let script = Script::new(
        "until [ -e \"$here/go\" ]; do sleep 0.02; done\n\
         yes 'a line of a flood' | head -c 1000000000\necho\necho last",
    );
    let server = Server::start(&[&script.setting()]);
    let recording = record(&server, "flood", 30).await;
    let api = Api::of(&server);
    api.hook(id(&recording), "running", SOON).await;
    // The highest value so far is forgotten (proc_pid_clear_refs(5)).
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
    let (before, lines, began) = (kib(&server, "VmRSS"), server.output().lines().count(), Instant::now());
    std::fs::write(script.file("go"), "").unwrap();
    let manifest = api.hook(id(&recording), "done", 3 * PATIENCE).await;
    let grown = kib(&server, "VmHWM").saturating_sub(before);
    let (took, logged) = (began.elapsed(), server.output().lines().count() - lines);
    println!("1 GB of output in {took:?}: {grown} KiB more memory at most, {logged} lines logged");
    assert!(grown < 16 << 10, "{grown} KiB");
    assert!(logged as u64 <= 220 + 40 * (took.as_secs() + 1), "{logged} lines");
    let tail = manifest["hook"]["attempts"][0]["tail"].as_str().unwrap();
    assert!(tail.len() <= 4096 && tail.ends_with("\nlast\n"), "{tail}");
}
