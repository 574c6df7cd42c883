//! The main job: Start, talk, Stop, and a file that plays and seeks.

use super::{SOON, Studio, assert_seekable, publish_for, record, start_publishing, stop_publishing};
use crate::support::browser::Browser;
use crate::support::judge::Packet;
use crate::support::web::Proxy;
use serde_json::Value;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_on_the_publish_page_becomes_a_file_that_seeks_anywhere_and_the_hook_runs() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    let take = record(&browser, &studio.server.base, "interview", MINUTE).await;

    browser.click("#download").await;
    let file = browser.downloaded(&take.file, take.bytes, SOON).await;
    let (duration, video) = assert_seekable(&file);
    let off = duration.as_secs_f64() - take.on_page.as_secs_f64();
    println!("{:?} on the page, {duration:?} in the file: {:+.0} ms", take.on_page, off * 1e3);
    assert!(off.abs() <= 0.5, "{:?} on the page, {duration:?} in the file", take.on_page);

    let manifest = studio.the_one_recording(SOON).await;
    assert_eq!(manifest["stream"], "interview");
    assert!(studio.path(&take.file).is_absolute());
    assert_eq!(std::fs::read(studio.path(&take.file)).unwrap(), std::fs::read(&file).unwrap());

    plays_from_the_middle(&browser, &studio, &take.url, duration, &video, take.bytes).await;
}

/// A mobile network, in bytes a second. On loopback Chromium has the next megabytes before it has decoded
/// the first picture, wherever it seeks to.
const MOBILE: u32 = 500_000;

/// In a `<video>` behind a slow line that counts what the browser fetches.
async fn plays_from_the_middle(
    browser: &Browser,
    studio: &Studio,
    url: &str,
    duration: Duration,
    video: &[Packet],
    bytes: u64,
) {
    let proxy = Proxy::slow(&studio.server.base, MOBILE);
    // A page that fetches nothing by itself.
    browser.goto(&format!("{}/healthz", proxy.base)).await;
    let before = proxy.served();
    let path = url.strip_prefix(&studio.server.base).unwrap_or_else(|| panic!("{url}"));
    browser
        .run(&format!(
            r#"const video = document.body.appendChild(document.createElement("video"));
            window.seen = {{}};
            video.preload = "metadata";
            video.muted = true;
            video.onerror = () => {{ seen.error = video.error.message; }};
            // The browser has what it wants of a video nobody has started; now somebody seeks. A busy one may
            // pause before it has read anything.
            video.onsuspend = video.onloadedmetadata = () => {{
              if (!(video.duration > 0) || video.networkState !== video.NETWORK_IDLE) return;
              video.onsuspend = video.onloadedmetadata = null;
              seen.duration = video.duration;
              seen.target = video.duration / 2;
              video.requestVideoFrameCallback(function look(_, {{ mediaTime }}) {{
                // On a busy machine the first picture is shown only now.
                if (mediaTime < 1) video.requestVideoFrameCallback(look);
                else seen.mediaTime = mediaTime;
              }});
              video.currentTime = seen.target;
            }};
            video.src = "{path}?inline=1";"#
        ))
        .await;
    let seen = browser.until("(seen.error || seen.mediaTime !== undefined) && seen", SOON).await;
    let fetched = proxy.served() - before;
    let number = |key: &str| seen[key].as_f64().unwrap_or_else(|| panic!("no {key}: {seen}"));
    let share = fetched as f64 / bytes as f64;
    println!("{seen}, {fetched} of {bytes} bytes fetched: {:.0} %", share * 100.0);
    assert!((number("duration") - duration.as_secs_f64()).abs() < 0.05, "{seen}, {duration:?}");

    let target = number("target");
    let after = video.partition_point(|frame| frame.time.as_secs_f64() <= target).min(video.len() - 1);
    let around = [video[after - 1].time.as_secs_f64(), video[after].time.as_secs_f64()];
    let shown = number("mediaTime");
    assert!(
        shown >= around[0] - 0.002 && shown <= around[1] + 0.002,
        "shown {shown}, wanted {target}, which is between {around:?}"
    );
    assert!(share < 0.4, "{fetched} of {bytes} bytes were fetched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pages_at_once_become_two_files() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    start_publishing(&browser, &studio.server.base, "left").await;
    let left = browser.new_window().await;
    start_publishing(&browser, &studio.server.base, "right").await;
    publish_for(&browser, Duration::from_secs(5)).await;
    let right = stop_publishing(&browser).await;
    browser.switch(left).await;
    let left = stop_publishing(&browser).await;

    let runs = studio.hook.ran(2, SOON).await;
    let names: Vec<&str> = runs.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["right", "left"]);
    for (take, (_, path, _)) in [right, left].iter().zip(&runs) {
        assert_eq!(*path, studio.path(&take.file));
        let (duration, _) = assert_seekable(path);
        let off = duration.abs_diff(take.on_page);
        assert!(off < Duration::from_secs(1), "{:?} on the page, {duration:?} in the file", take.on_page);
    }
    let states: Vec<Value> = studio.recordings().await.iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["sealed", "sealed"]);
}
