//! Pages that are left, crash, freeze, lose their socket, or get no camera.

use super::{CONNECT, SOON, Studio, assert_seekable, duration_of, longest_silence, publish_for};
use super::{start_publishing, stop_publishing};
use crate::support::browser::{ALLOW, Browser};
use crate::support::judge;
use crate::support::user::{Api, eventually};
use crate::support::web::Proxy;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const FIVE: Duration = Duration::from_secs(5);

/// What the page has sent is in the file, a second of the way from PUBLISHING to the end given or taken.
fn assert_nothing_lost(studio: &Studio, manifest: &Value, sent: Duration) {
    let duration = duration_of(manifest);
    println!("{:?} sent, {duration:?} in the file, ended: {}", sent, manifest["end_reason"]);
    let off = duration.abs_diff(sent);
    assert!(off < Duration::from_secs(1), "{sent:?} sent, {duration:?} in the file");
    assert_seekable(&studio.path(manifest["file"].as_str().unwrap()));
}

/// By the page's clock.
async fn published_so_far(browser: &Browser) -> Duration {
    let ms = browser.run("return performance.now() - marks.PUBLISHING;").await;
    Duration::from_secs_f64(ms.as_f64().unwrap() / 1e3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_the_page_seals_what_was_sent() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    start_publishing(&browser, &studio.server.base, "left").await;
    publish_for(&browser, FIVE).await;
    let sent = published_so_far(&browser).await;
    browser.goto(&studio.server.url("/healthz")).await;
    // Ten seconds of grace pass if the page says nothing.
    let manifest = studio.the_one_recording(SOON).await;
    assert_nothing_lost(&studio, &manifest, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_window_seals_what_was_sent() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let other = browser.new_window().await;
    start_publishing(&browser, &studio.server.base, "closed").await;
    publish_for(&browser, FIVE).await;
    let sent = published_so_far(&browser).await;
    browser.close_window().await;
    browser.switch(other).await;
    let manifest = studio.the_one_recording(SOON).await;
    assert_nothing_lost(&studio, &manifest, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_crashes_is_sealed_after_ten_seconds_of_silence_and_the_grace() {
    let studio = Studio::open(&["record.reconnect_grace=2s"]);
    let browser = Browser::start().await;
    start_publishing(&browser, &studio.server.base, "crashed").await;
    publish_for(&browser, FIVE).await;
    let sent = published_so_far(&browser).await;
    let crashed = Instant::now();
    browser.crash().await;
    let manifest = studio.the_one_recording(Duration::from_secs(30)).await;
    let took = crashed.elapsed();
    println!("sealed {took:?} after the crash");
    assert_nothing_lost(&studio, &manifest, sent);
    assert_eq!(manifest["end_reason"], "publisher_lost");
    // A second more for the seal, the hook, and a busy machine.
    assert!(took < Duration::from_secs(13), "sealed {took:?} after the crash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_cut_in_mid_recording_leaves_one_file_with_no_hole_of_a_second() {
    let studio = Studio::open(&[]);
    let proxy = Proxy::start(&studio.server.base);
    let browser = Browser::start().await;
    start_publishing(&browser, &proxy.base, "cut").await;
    publish_for(&browser, Duration::from_secs(3)).await;
    let note = "document.querySelector('#note').textContent";
    browser
        .run(
            "window.notes = []; const note = document.querySelector('#note');
            new MutationObserver(() => notes.push(note.textContent)).observe(note, { childList: true });",
        )
        .await;
    proxy.cut();
    browser.until("notes.some((text) => text.includes('trying again'))", SOON).await;
    browser.until(&format!("{note}.startsWith('Recording')"), SOON).await;
    browser.run("marks.back = performance.now();").await;
    browser.until("performance.now() - marks.back >= 3000", SOON).await;
    let take = stop_publishing(&browser).await;

    let manifest = studio.the_one_recording(SOON).await;
    assert_eq!(manifest["end_reason"], "stopped");
    assert_nothing_lost(&studio, &manifest, take.on_page);
    let silence = longest_silence(&judge::packets_of(&studio.path(&take.file), "audio"));
    println!("{silence:?} without sound at most");
    assert!(silence < Duration::from_secs(1), "{silence:?} without sound");
    assert_eq!(studio.hook.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_frozen_for_five_seconds_goes_on_in_one_file_and_the_gap_is_named() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    start_publishing(&browser, &studio.server.base, "frozen").await;
    publish_for(&browser, Duration::from_secs(3)).await;
    browser.signal("STOP");
    // The fault itself lasts so long; nothing is waited for.
    tokio::time::sleep(FIVE).await;
    browser.signal("CONT");
    browser.run("marks.back = performance.now();").await;
    browser.until("performance.now() - marks.back >= 4000", SOON).await;
    let take = stop_publishing(&browser).await;

    let manifest = studio.the_one_recording(SOON).await;
    assert_eq!(manifest["end_reason"], "stopped");
    let (file, duration) = (studio.path(&take.file), duration_of(&manifest));
    println!("{:?} on air, {duration:?} in the file", take.on_page);
    assert!(duration.abs_diff(take.on_page) < Duration::from_secs(1), "of {:?} {duration:?}", take.on_page);
    judge::decode(&file).unwrap();
    for (index, track) in manifest["tracks"].as_array().unwrap().iter().enumerate() {
        let kind = track["kind"].as_str().unwrap();
        let packets = judge::packets_of(&file, kind);
        let silence = longest_silence(&packets);
        let ms = |gap: &Value, key: &str| gap[key].as_u64().unwrap();
        let of_track = |gap: &&Value| gap["track"] == index + 1 && gap["reason"] == "silence";
        let gaps = manifest["gaps"].as_array().unwrap().iter().filter(of_track);
        let named = gaps.map(|gap| ms(gap, "to_ms") - ms(gap, "from_ms")).max().unwrap_or(0);
        let early = duration - packets.last().unwrap().time;
        println!("{kind}: nothing for {silence:?}, {named} ms by the manifest; it ends {early:?} early");
        // Chromium stamps sound by counting samples: its clock stands still meanwhile.
        assert!(silence >= Duration::from_millis(4500), "{silence:?}");
        assert!(early < Duration::from_millis(500), "the sound is not where the pictures are: {early:?}");
        let told = silence < Duration::from_secs(2) || silence.as_millis().abs_diff(u128::from(named)) < 100;
        assert!(told, "{manifest:#}");
    }
    // Whoever enters it behind the hole sees pictures.
    let behind = judge::cue_times(&file).into_iter().filter(|cue| *cue >= Duration::from_secs(8)).count();
    assert!(behind > 0, "no keyframe behind the hole");
    assert_eq!(studio.hook.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_frozen_for_longer_than_its_session_lasts_goes_on_in_the_same_file() {
    let studio = Studio::open(&["record.reconnect_grace=5m"]);
    let browser = Browser::start().await;
    start_publishing(&browser, &studio.server.base, "asleep").await;
    publish_for(&browser, Duration::from_secs(3)).await;
    browser.signal("STOP");
    // The fault itself lasts so long: the server gives a session up that it hasn't heard of for ten seconds.
    tokio::time::sleep(Duration::from_secs(13)).await;
    browser.signal("CONT");
    let bytes = async || Api::of(&studio.server).streams().await[0]["bytes"].as_u64().unwrap();
    let (before, began) = (bytes().await, Instant::now());
    eventually("media comes again", SOON, async || (bytes().await > before).then_some(())).await;
    println!("media comes again after {:?}", began.elapsed());
    browser.run("marks.back = performance.now();").await;
    browser.until("performance.now() - marks.back >= 4000", SOON).await;
    let take = stop_publishing(&browser).await;
    let manifest = studio.the_one_recording(SOON).await;
    assert_eq!(manifest["end_reason"], "stopped");
    let pictures = judge::packets_of(&studio.path(&take.file), "video");
    let behind = pictures.iter().filter(|picture| picture.time > Duration::from_secs(12)).count();
    assert!(behind > 50, "{behind} pictures behind the hole: {manifest:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_camera_says_what_to_do() {
    let studio = Studio::open(&[]);
    let browser = Browser::with(&[]).await;
    for device in ["camera", "microphone"] {
        let denied = json!({ "permission": { "name": device }, "setting": "denied" });
        browser.devtools("Browser.setPermission", denied).await;
    }
    browser.goto(&studio.server.url("/publish")).await;
    browser.click("#start").await;
    browser.until("!document.querySelector('#error').hidden", CONNECT).await;
    let error = browser.text("#error").await;
    assert!(error.contains("Click the icon beside the address, allow both"), "{error}");

    for (failure, advice) in [("NotFoundError", "Plug one in"), ("NotReadableError", "Close that program")] {
        browser
            .run(&format!(
                "navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{failure}'); }};"
            ))
            .await;
        browser.click("#start").await;
        let says = format!("document.querySelector('#error').textContent.includes('{advice}')");
        browser.until(&says, SOON).await;
    }
    assert!(studio.recordings().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_address_is_not_secure_names_three_ways_out() {
    let studio = Studio::open(&["auth.mode=open"]);
    let browser = Browser::with(&[ALLOW, "--host-resolver-rules=MAP onrecord.test 127.0.0.1"]).await;
    let port = studio.server.base.rsplit(':').next().unwrap();
    browser.goto(&format!("http://onrecord.test:{port}/publish")).await;
    browser.until("!document.querySelector('#insecure').hidden", SOON).await;
    let notice = browser.text("#insecure").await;
    for way in [&format!("http://localhost:{port}/publish"), "TLS", "proxy"] {
        assert!(notice.contains(way), "no {way} in: {notice}");
    }
    assert_eq!(browser.run("return document.querySelector('#start').disabled;").await, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_a_socket_hears_at_once_that_an_operator_has_ended_its_stream() {
    let studio = Studio::open(&[]);
    let proxy = Proxy::without_sockets(&studio.server.base);
    let browser = Browser::start().await;
    start_publishing(&browser, &proxy.base, "ended").await;
    publish_for(&browser, Duration::from_secs(2)).await;
    let (status, body) = Api::of(&studio.server).call(Method::DELETE, "/api/streams/ended").await;
    assert!(status.is_success(), "{body}");
    let ended = Instant::now();
    // By the state of the connection it would be eleven seconds, and the page would publish anew.
    browser.until("!document.querySelector('#result').hidden", FIVE).await;
    println!("the page knows after {:?}", ended.elapsed());
    assert_eq!(browser.text("#status").await, "UNPUBLISHED");
    assert_eq!(studio.the_one_recording(SOON).await["end_reason"], "kicked");
}
