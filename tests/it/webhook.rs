//! `hooks/webhook.sh` against a real HTTP server.

use crate::support::server::Server;
use crate::support::user::{Api, Script, record};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/webhook.sh");

type Calls = Arc<Mutex<Vec<(Method, HeaderMap, Bytes)>>>;

/// Says `answers` one after the other, the last for ever.
async fn receiver(answers: Vec<fn() -> Response>) -> (SocketAddr, Calls) {
    let calls = Calls::default();
    let seen = calls.clone();
    let answer = move |method: Method, headers: HeaderMap, body: Bytes| async move {
        let mut seen = seen.lock().unwrap();
        seen.push((method, headers, body));
        answers[(seen.len() - 1).min(answers.len() - 1)]()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, calls)
}

fn ok() -> Response {
    StatusCode::ACCEPTED.into_response()
}

fn broken() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "out of ink\n\u{1b}[31m").into_response()
}

fn elsewhere() -> Response {
    Redirect::to("/elsewhere").into_response()
}

#[tokio::test]
async fn the_receiver_gets_the_manifest_with_the_same_key_until_it_says_yes() {
    let (address, calls) = receiver(vec![broken, elsewhere, ok]).await;
    let script = Script::new(&format!(
        "export WEBHOOK_URL='http://{address}/path-secret?key=query-secret' WEBHOOK_TOKEN=header-secret\nexec {SCRIPT} \"$@\""
    ));
    let server = Server::start(&[&script.setting(), "hooks.backoff=20ms"]);
    let recording = record(&server, "interview 7", 30).await;
    let id = recording["id"].as_str().unwrap();
    let manifest = Api::of(&server).hook(id, "done", Duration::from_secs(60)).await;
    let tails: Vec<_> = manifest["hook"]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["tail"].as_str().unwrap())
        .collect();
    println!("{tails:#?}");
    assert!(tails[0].contains("answered 500: out of ink") && !tails[0].contains('\u{1b}'), "{tails:?}");
    assert!(tails[1].contains("answered 303"), "a redirect was followed: {tails:?}");
    assert!(tails[2].contains("took it (202)"), "{tails:?}");
    assert!(tails.iter().all(|tail| !tail.contains("-secret")), "a secret is in the manifest: {tails:?}");
    assert!(!server.output().contains("-secret"), "a secret is in the log");

    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 3);
    for (attempt, (method, headers, body)) in (1..).zip(calls.iter()) {
        assert_eq!(method, Method::POST);
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(
            (header("idempotency-key"), header("onrecord-attempt")),
            (id, attempt.to_string().as_str())
        );
        assert_eq!(header(header::AUTHORIZATION.as_str()), "Bearer header-secret");
        assert_eq!(header("content-type"), "application/json");
        let told: Value = serde_json::from_slice(body).unwrap();
        assert_eq!((&told["id"], &told["stream"]), (&recording["id"], &recording["stream"]));
    }
}

/// Runs it by hand.
fn run(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(SCRIPT);
    command.args(["name", "/file"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn every_misconfiguration_has_a_line_that_says_what_to_do() {
    let url = ("WEBHOOK_URL", "http://me:my-secret@127.0.0.1:9/path-secret?key=query-secret");
    let manifest = ("ONRECORD_MANIFEST", SCRIPT);
    let table: [(&[(&str, &str)], &str); 7] = [
        (&[], "WEBHOOK_URL is not set"),
        (&[("WEBHOOK_URL", "example.org/path-secret")], "doesn't begin with http"),
        (&[url, ("WEBHOOK_TOKEN_FILE", "/nowhere")], "can't read /nowhere"),
        (&[url, ("WEBHOOK_TOKEN", "two\nlines")], "no header may have"),
        (&[("WEBHOOK_URL", "http://127.0.0.1:9/a\nuser = \"x\"")], "no address may have"),
        (&[url], "ONRECORD_MANIFEST names"),
        (&[url, manifest], "can't be reached"),
    ];
    for (variables, line) in table {
        let output = run(variables);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(line), "{variables:?}: {said}");
        assert!(!said.contains("-secret"), "shown to whoever may see recordings: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_an_argument_and_no_file_is_left() {
    let (address, calls) = receiver(vec![ok]).await;
    let folder = tempfile::tempdir().unwrap();
    let pretend = folder.path().join("curl");
    let real = String::from_utf8(Command::new("sh").args(["-c", "command -v curl"]).output().unwrap().stdout)
        .unwrap();
    std::fs::write(
        &pretend,
        format!("#!/bin/sh\necho \"$@\" > {0}/told\nexec {1} \"$@\"", folder.path().display(), real.trim()),
    )
    .unwrap();
    std::fs::set_permissions(&pretend, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let url = format!("http://{address}/path-secret?a=[1]&b='x'");
    let manifest = folder.path().join("a \"manifest\".json");
    std::fs::write(&manifest, "{\"id\": 1}").unwrap();
    let secret = "with \"no\" escape".replace('"', "'");
    let output = Command::new(SCRIPT)
        .args(["name", "/file"])
        .env("PATH", path)
        .env("TMPDIR", &temporary)
        .envs([("WEBHOOK_URL", url.as_str()), ("WEBHOOK_TOKEN", secret.as_str())])
        .env("ONRECORD_MANIFEST", &manifest)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
    assert!(told.contains("--config -") && !told.contains("escape") && !told.contains("-secret"), "{told}");
    assert_eq!(calls.lock().unwrap()[0].1["authorization"], format!("Bearer {secret}").as_str());
    assert_eq!(calls.lock().unwrap()[0].2, "{\"id\": 1}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "files are left");
}
