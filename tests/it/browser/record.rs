//! The page that records in chunks: MediaRecorder's bytes, whatever happens to their socket.

use super::pages::{look, pictures};
use super::{CONNECT, SOON, Studio, assert_seekable_with, duration_of};
use crate::support::browser::{ALLOW, Browser};
use crate::support::judge;
use crate::support::web::Proxy;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const TEN: Duration = Duration::from_secs(10);
/// Keeps a copy of every blob, by MediaRecorder, before the page's own scripts run.
const KEEP_BLOBS: &str = "
    const Real = MediaRecorder;
    window.kept = [];
    window.MediaRecorder = class extends Real {
      constructor(...given) {
        super(...given);
        const blobs = [];
        kept.push(blobs);
        this.addEventListener('dataavailable', ({ data }) => blobs.push(data));
      }
    };";
const STATUS: &str = "document.querySelector('#status').dataset.status";

/// Opens the page, which starts by itself, and waits until it records.
async fn start_recording(browser: &Browser, base: &str, query: &str) {
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": KEEP_BLOBS })).await;
    browser.goto(&format!("{base}/record?{query}")).await;
    browser.until(&format!("{STATUS} === 'PUBLISHING'"), CONNECT).await;
    browser.run("window.began = performance.now();").await;
}

async fn record_for(browser: &Browser, time: Duration) {
    browser.until(&format!("performance.now() - began >= {}", time.as_millis()), time + SOON).await;
}

async fn stop_recording(browser: &Browser) {
    browser.click("#stop").await;
    browser.until("!document.querySelector('#result').hidden", SOON).await;
    assert_eq!(browser.text("#status").await, "UNPUBLISHED");
}

/// The hashes of all frames of a kind that the page's MediaRecorders produced, one after the other.
async fn produced(browser: &Browser, kind: &str) -> Vec<String> {
    let files = browser
        .run(
            "const text = (blobs) => new Promise((done) => {
               const reader = new FileReader();
               reader.onload = () => done(reader.result);
               reader.readAsBinaryString(new Blob(blobs));
             });
             return Promise.all(kept.filter((blobs) => blobs.length).map(text));",
        )
        .await;
    let folder = tempfile::tempdir().unwrap();
    let mut frames = Vec::new();
    for (n, file) in files.as_array().unwrap().iter().enumerate() {
        let path = folder.path().join(format!("{n}.webm"));
        // A character a byte.
        let bytes: Vec<u8> = file.as_str().unwrap().chars().map(|c| u8::try_from(c).unwrap()).collect();
        std::fs::write(&path, bytes).unwrap();
        frames.extend(hashes(&path, kind));
    }
    frames
}

fn hashes(file: &Path, kind: &str) -> Vec<String> {
    judge::packets_of(file, kind).into_iter().map(|packet| packet.sha256).collect()
}

/// The file has all that the page produced, in order.
async fn assert_all_is_there(browser: &Browser, file: &Path) {
    for kind in ["video", "audio"] {
        let (there, made) = (hashes(file, kind), produced(browser, kind).await);
        println!("{kind}: {} frames in the file, {} produced", there.len(), made.len());
        assert!(made.len() > 20, "{} {kind} frames", made.len());
        let first = there.iter().zip(&made).position(|(a, b)| a != b);
        assert!(there == made, "{kind}: {} of {} frames, other from {first:?} on", there.len(), made.len());
    }
}

fn file_of(studio: &Studio, manifest: &Value) -> std::path::PathBuf {
    studio.path(manifest["file"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_seconds_of_chunks_become_a_seekable_file_named_after_the_prefix() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    start_recording(&browser, &studio.server.base, "name_prefix=interview&chunk_time=500").await;
    record_for(&browser, TEN).await;
    look(&browser, &pictures(), "record").await;
    let settings = browser.text("#settings").await;
    assert!(settings.contains("interview-") && settings.contains("500 ms"), "{settings}");
    stop_recording(&browser).await;
    look(&browser, &pictures(), "record-stopped").await;

    let manifest = studio.the_one_recording(SOON).await;
    let name = manifest["stream"].as_str().unwrap();
    assert!(name.starts_with("interview-") && name.len() == "interview-".len() + 6, "{name}");
    assert_eq!(manifest["end_reason"], "stopped");
    let (duration, video) = assert_seekable_with("vp9", &file_of(&studio, &manifest));
    println!("{name}: {duration:?}, {} pictures", video.len());
    assert!(duration >= TEN, "{duration:?}");
    assert_all_is_there(&browser, &file_of(&studio, &manifest)).await;
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_cut_three_times_costs_no_frame() {
    let studio = Studio::open(&[]);
    let proxy = Proxy::start(&studio.server.base);
    let browser = Browser::start().await;
    start_recording(&browser, &proxy.base, "name_prefix=cut&chunk_time=300").await;
    let sent = "+document.querySelector('#traffic').dataset.acked";
    for _ in 0..3 {
        let before = browser.run(&format!("return {sent};")).await;
        browser.until(&format!("{sent} > {before} + 100000"), SOON).await;
        proxy.cut();
        browser.until("document.querySelector('#note').textContent.includes('trying again')", SOON).await;
        browser.until("document.querySelector('#note').textContent.startsWith('Recording')", SOON).await;
    }
    record_for(&browser, Duration::from_secs(5)).await;
    stop_recording(&browser).await;
    let manifest = studio.the_one_recording(SOON).await;
    assert_eq!(manifest["end_reason"], "stopped");
    assert_seekable_with("vp9", &file_of(&studio, &manifest));
    assert_all_is_there(&browser, &file_of(&studio, &manifest)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pages_without_a_query_become_two_files() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    start_recording(&browser, &studio.server.base, "").await;
    let first = browser.new_window().await;
    start_recording(&browser, &studio.server.base, "").await;
    record_for(&browser, Duration::from_secs(3)).await;
    stop_recording(&browser).await;
    browser.switch(first).await;
    stop_recording(&browser).await;
    let runs = studio.hook.ran(2, SOON).await;
    println!("{runs:?}");
    assert!(runs.iter().all(|(name, ..)| name.starts_with("noname-")), "{runs:?}");
    assert_ne!(runs[0].0, runs[1].0);
    for (_, file, _) in &runs {
        assert_seekable_with("vp9", file);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_switched_twice_goes_on_in_the_same_file() {
    let studio = Studio::open(&[]);
    let two = "--use-fake-device-for-media-stream=device-count=2";
    let browser = Browser::with(&[ALLOW, two]).await;
    start_recording(&browser, &studio.server.base, "name_prefix=switched&chunk_time=300").await;
    for turn in 1..=2 {
        browser
            .run(
                "const select = document.querySelector('#camera');
                 select.selectedIndex = select.selectedIndex ? 0 : 1;
                 select.dispatchEvent(new Event('change'));",
            )
            .await;
        // The new MediaRecorder has given two seconds of it.
        let given = format!("kept[{turn}]?.filter(({{ size }}) => size).length >= 6");
        browser.until(&given, SOON).await;
    }
    stop_recording(&browser).await;
    let manifest = studio.the_one_recording(SOON).await;
    println!("{:?}", duration_of(&manifest));
    assert_seekable_with("vp9", &file_of(&studio, &manifest));
    assert_all_is_there(&browser, &file_of(&studio, &manifest)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_length_out_of_bounds_is_clamped_and_said_and_nothing_starts_unasked() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    browser.goto(&studio.server.url("/record?chunk_time=5&autostart=0")).await;
    browser.until("!document.querySelector('#start').disabled", SOON).await;
    let settings = browser.text("#settings").await;
    assert!(
        settings.contains("noname-") && settings.contains("100 ms") && settings.contains("not 5"),
        "{settings}"
    );
    assert_eq!(browser.text("#status").await, "Ready");
    assert!(studio.recordings().await.is_empty());
}
