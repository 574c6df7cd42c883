//! The command line: what it takes, what it says, and with which exit code it ends.

use crate::support::certificate::Certificate;
use crate::support::coturn::Coturn;
use crate::support::server::Server;
use crate::support::user::{SOON, eventually, files_in};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs the binary to its end in this folder.
fn onrecord(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_onrecord"))
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

const FREE: [&str; 6] =
    ["--set", "server.bind=127.0.0.1:0", "--set", "webrtc.udp_bind=127.0.0.1:0", "--set", "hooks.on_record="];

fn check(folder: &Path, settings: &[&str]) -> Ran {
    let set = settings.iter().flat_map(|setting| ["--set", *setting]);
    onrecord(folder, &["check"].into_iter().chain(FREE).chain(set).collect::<Vec<_>>(), &[])
}

#[test]
fn check_says_that_all_is_well_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let ran = check(folder.path(), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("in order"), "{}", ran.out);
    assert_eq!(files_in(&folder.path().join("records")), Vec::<String>::new());
}

#[test]
fn openapi_prints_the_document_the_server_answers_with() {
    let folder = tempfile::tempdir().unwrap();
    let ran = onrecord(folder.path(), &["openapi"], &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/streams/{name}/recording"]["post"].is_object());
    assert_eq!(files_in(folder.path()), Vec::<String>::new(), "it leaves nothing behind");
}

#[test]
fn check_names_every_port_in_use_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (http, media) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (http, media) = (http.local_addr().map(|at| (at, http)), media.local_addr().map(|at| (at, media)));
    let (http, media) = (http.unwrap(), media.unwrap());
    let settings = [format!("server.bind={}", http.0), format!("webrtc.udp_bind={}", media.0)];
    let ran = check(folder.path(), &[&settings[0], &settings[1]]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    for (key, address) in [("server.bind", http.0), ("webrtc.udp_bind", media.0)] {
        let line =
            ran.out.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{}", ran.out));
        assert!(line.contains(&address.to_string()) && line.contains("another port"), "{line}");
    }
    // A port that is free for UDP alone is none for media.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let setting = format!("webrtc.udp_bind={address}");
    let ran = check(folder.path(), &[&setting]);
    let line = ran.out.lines().find(|line| line.starts_with("webrtc.udp_bind")).unwrap_or_default();
    let named = format!("TCP port {}", address.port());
    assert!(ran.code == 1 && line.contains(&named) && line.contains("webrtc.tcp"), "{}{}", ran.out, ran.err);
    let ran = onrecord(folder.path(), &[&["serve"][..], &FREE, &["--set", &setting]].concat(), &[]);
    assert!(ran.code == 1 && ran.err.contains(&named), "{}{}", ran.out, ran.err);
    let ran = check(folder.path(), &[&setting, "webrtc.tcp=false"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    // The server says the same, and fails.
    let bind = format!("server.bind={}", http.0);
    let args = [&["serve"][..], &FREE, &["--set", &bind]].concat();
    let ran = onrecord(folder.path(), &args, &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("server.bind") && ran.err.contains(&http.0.to_string()), "{}", ran.err);
}

#[test]
fn check_finds_a_hook_that_can_not_run_and_a_folder_that_can_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hook.sh"), "#!/bin/sh\n").unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let hook = format!("hooks.on_record={}", folder.path().join("hook.sh").display());
    let ran = check(folder.path(), &[&hook, "record.dir=file/records"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("hook.sh") && ran.out.contains("chmod"), "{}", ran.out);
    assert!(ran.out.contains("record.dir"), "{}", ran.out);
}

#[test]
fn a_bad_configuration_is_exit_code_2_with_every_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        ["record.flush_intervall=1s", "hooks.concurrency=0", "server.bind=nowhere", "recrod.dir=x"];
    let ran = check(folder.path(), &settings);
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
    for part in
        ["record.flush_intervall", "record.flush_interval", "hooks.concurrency", "server.bind", "recrod"]
    {
        assert!(ran.err.contains(part), "{part} is not in:\n{}", ran.err);
    }
    let nearest = ran.err.lines().find(|line| line.contains("flush_intervall")).unwrap();
    assert!(nearest.replace("flush_intervall", "").contains("flush_interval"), "{nearest}");
    for args in [&["--nonsense"][..], &["dance"], &["--set", "nonsense"], &["--config", "missing.toml"]] {
        let ran = onrecord(folder.path(), args, &[]);
        assert_eq!(ran.code, 2, "{args:?}: {}{}", ran.out, ran.err);
        assert!(!ran.err.is_empty(), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["check", "--help"]] {
        assert_eq!(onrecord(folder.path(), args, &[]).code, 0, "{args:?}");
    }
}

#[test]
fn an_open_address_needs_a_word_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let ran = check(folder.path(), &["server.bind=0.0.0.0:0"]);
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
    for way_out in ["auth.mode = \"open\"", "`onrecord token new --name me --admin`", "127.0.0.1"] {
        assert!(ran.err.contains(way_out), "{way_out} is not in {}", ran.err);
    }
    let ran = check(folder.path(), &["server.bind=0.0.0.0:0", "auth.mode=open"]);
    assert!(ran.code == 1 && ran.out.contains("webrtc.advertise"), "media on loopback: {}", ran.out);
}

#[test]
fn a_token_is_shown_once_and_its_entry_is_taken_as_it_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    let mut entries = String::new();
    let new = |args: &[&str]| onrecord(folder.path(), &[&["token", "new"][..], args].concat(), &[]);
    for args in [
        &["--name", "studio \"7\" é", "--publish", "--streams", "interview-*", "--streams", "a \"b\""][..],
        &["--name", "stage", "--view", "--recordings", "--expires", "30d"],
        &["--name", "me", "--admin"],
    ] {
        let ran = new(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        let tokens: Vec<_> = ran.out.lines().filter(|line| line.trim().starts_with("onr_")).collect();
        assert_eq!(tokens.len(), 1, "{}", ran.out);
        let entry = &ran.out[ran.out.find("[[auth.tokens]]").unwrap()..];
        assert!(!entry.contains("onr_"), "{entry}");
        entries.push_str(entry);
    }
    assert!(entries.contains("permissions = [\"view\",\"recordings\"]"), "{entries}");
    let local = folder.path().join("config/local.toml");
    std::fs::write(&local, &entries).unwrap();
    let ran = check(folder.path(), &["auth.mode=tokens"]);
    assert_eq!(ran.code, 0, "{}{}\n{entries}", ran.out, ran.err);
    let first = entries.lines().find(|line| line.starts_with("hash")).unwrap();
    std::fs::write(&local, entries.replace(first, "hash = \"onr_hunter2\"")).unwrap();
    let ran = check(folder.path(), &[]);
    assert!(ran.code == 2 && ran.err.contains("auth.tokens"), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("studio") && !ran.err.contains("hunter2"), "{}", ran.err);

    for args in [
        &["--name", "nothing"][..],
        &["--publish"],
        &["--name", "", "--publish"],
        &["--name", "a", "--publish", "--streams", "a/b"],
        &["--name", "a", "--publish", "--expires", "soon"],
    ] {
        let ran = new(args);
        assert!(ran.code == 2 && ran.out.is_empty() && !ran.err.is_empty(), "{args:?}: {}", ran.out);
    }
}

#[test]
fn a_short_lived_token_is_signed_with_the_configured_secret() {
    let folder = tempfile::tempdir().unwrap();
    let sign = ["token", "sign", "--publish", "--streams", "interview-7", "--for", "10m"];
    let ran = onrecord(folder.path(), &sign, &[]);
    assert!(ran.code == 2 && ran.out.is_empty(), "{}", ran.out);
    assert!(ran.err.contains("auth.jwt.secret") && ran.err.contains("openssl rand"), "{}", ran.err);
    let secret = ("ONRECORD__AUTH__JWT__SECRET", "hunter2 hunter2 hunter2 hunter2 hunter2");
    let ran = onrecord(folder.path(), &sign, &[secret]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert_eq!(ran.out.trim().split('.').map(|part| part.len()).filter(|len| *len > 0).count(), 3);
    assert!(ran.out.starts_with("eyJ") && ran.out.lines().count() == 1, "{}", ran.out);
    let bound = ("ONRECORD__AUTH__JWT__MAX_LIFETIME", "5m");
    let ran = onrecord(folder.path(), &sign, &[secret, bound]);
    assert!(ran.code == 2 && ran.err.contains("auth.jwt.max_lifetime"), "{}{}", ran.out, ran.err);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
}

#[test]
fn files_give_way_to_variables_and_those_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    std::fs::write(&file, "[hooks]\non_record = \"\"\nconcurrency = 0\n").unwrap();
    let args = [&["check"][..], &FREE[..4], &["--config", file.to_str().unwrap()]].concat();
    let ran = onrecord(folder.path(), &args, &[]);
    assert!(ran.code == 2 && ran.err.contains("found 0"), "{}{}", ran.out, ran.err);
    let ran = onrecord(folder.path(), &args, &[("ONRECORD__HOOKS__CONCURRENCY", "2000")]);
    assert!(ran.code == 2 && ran.err.contains("found 2000"), "{}{}", ran.out, ran.err);
    let set = [&args[..], &["--set", "hooks.concurrency=3"]].concat();
    let ran = onrecord(folder.path(), &set, &[("ONRECORD__HOOKS__CONCURRENCY", "2000")]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let ran = onrecord(folder.path(), &set, &[("ONRECORD__HOOKS__CONCURENCY", "2")]);
    assert!(ran.code == 2 && ran.err.contains("concurrency"), "{}{}", ran.out, ran.err);
}

#[tokio::test]
async fn the_banner_says_where_to_go_where_recordings_go_and_which_hook_runs() {
    let folder = tempfile::tempdir().unwrap();
    let hook = folder.path().join("hook.sh");
    std::fs::write(&hook, "#!/bin/sh\n").unwrap();
    let setting = format!("hooks.on_record={}", hook.display());
    let server = Server::start(&[&setting]);
    for part in [server.base.as_str(), "/records", hook.to_str().unwrap(), "chmod +x"] {
        eventually(part, SOON, async || server.output().contains(part).then_some(())).await;
    }
}

#[tokio::test]
async fn check_asks_stun_and_turn_servers_as_a_browser_would_and_tries_what_publishers_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let coturn = Coturn::start("127.0.0.1", &["--lt-cred-mech", "--user=ann:right"]);
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = dead.local_addr().unwrap().port();
    let server = |scheme: &str, port, credential| {
        format!(
            "{{ urls = [\"{scheme}:127.0.0.1:{port}\"], username = \"ann\", credential = \"{credential}\" }}"
        )
    };
    let asked =
        |servers: &[String]| check(folder.path(), &[&format!("webrtc.ice_servers=[{}]", servers.join(", "))]);
    let up = [server("stun", coturn.port, ""), server("turn", coturn.port, "right")];
    let ran = eventually("coturn answers", SOON, async || Some(asked(&up)).filter(|ran| ran.code == 0)).await;
    println!("{}", ran.out);
    for part in [
        "(UDP); it leads here",
        "(TCP); it leads here",
        "sees this machine at 127.0.0.1",
        "takes the credential and relays at 127.0.0.1:",
    ] {
        assert!(ran.out.contains(part), "{part} is not in:\n{}", ran.out);
    }
    let ran = asked(&[server("turn", coturn.port, "wrong"), server("stun", dead, ""), up[0].clone()]);
    println!("{}", ran.out);
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("webrtc.ice_servers: turn:") && ran.out.contains("it refuses"), "{}", ran.out);
    assert!(ran.out.contains("no answer") || ran.out.contains("refused"), "{}", ran.out);
}

#[tokio::test]
async fn a_turn_server_takes_the_credential_that_is_made_under_a_shared_secret() {
    let folder = tempfile::tempdir().unwrap();
    let coturn = Coturn::start("127.0.0.1", &["--use-auth-secret", "--static-auth-secret=shared secret"]);
    let servers = format!("webrtc.ice_servers=[{{ urls = [\"turn:127.0.0.1:{}\"] }}]", coturn.port);
    let with = |secret: &str| check(folder.path(), &[&servers, &format!("webrtc.turn_secret={secret}")]);
    let right = async || Some(with("shared secret")).filter(|ran| ran.code == 0);
    let ran = eventually("coturn answers", SOON, right).await;
    assert!(ran.out.contains("takes the credential and relays at 127.0.0.1:"), "{}", ran.out);
    let ran = with("another");
    assert!(ran.code == 1 && ran.out.contains("it refuses"), "{}", ran.out);
}

#[test]
fn check_says_until_when_the_certificate_is_good_and_that_an_expired_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let settings =
        [format!("server.tls.cert={}", cert.display()), format!("server.tls.key={}", key.display())];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let ran = check(folder.path(), &settings);
    assert!(ran.code != 0 && (ran.out + &ran.err).contains("server.tls.cert"), "files that are not there");
    Certificate::of(&["localhost"]).write(&cert, &key);
    let ran = check(folder.path(), &settings);
    assert!(ran.code == 0 && ran.out.contains("the certificate is good until"), "{}{}", ran.out, ran.err);
    Certificate::expired("localhost").write(&cert, &key);
    let ran = check(folder.path(), &settings);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("it has expired on 2020-01-01"), "{}", ran.out);
}
