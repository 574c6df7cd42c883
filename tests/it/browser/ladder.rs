//! `mode=auto` where something is in the way: the page records by the next way, and says so.

use super::{CONNECT, SOON, Studio, assert_seekable, assert_seekable_with};
use crate::support::browser::{ALLOW, Browser};
use crate::support::judge::{self, Probe};
use crate::support::web::Proxy;
use serde_json::Value;
use std::time::Duration;

/// The browser then has no UDP, as behind a firewall that lets none through.
const NO_UDP: &str = "--webrtc-ip-handling-policy=disable_non_proxied_udp";
const TEN: Duration = Duration::from_secs(10);

/// Records three seconds on the publish page: the way, what the page says of it, how long it took from
/// Start to PUBLISHING, and what became of it.
async fn publish(
    studio: &Studio,
    browser: &Browser,
    base: &str,
    query: &str,
) -> (String, String, Duration, Value) {
    browser.goto(&format!("{base}/publish?name=ladder&{query}")).await;
    // The camera is on: what is measured is the way to the server.
    browser.until("document.querySelector('#preview').videoWidth > 0", CONNECT).await;
    browser
        .run(
            "const status = document.querySelector('#status');
             new MutationObserver(() => { if (status.dataset.status === 'PUBLISHING') window.began ??= performance.now(); })
               .observe(status, { attributes: true });
             window.pressed = performance.now();",
        )
        .await;
    browser.click("#start").await;
    let took = browser.until("window.began && began - pressed", CONNECT).await.as_f64().unwrap() / 1e3;
    let took = Duration::from_secs_f64(took);
    browser.until("performance.now() - began > 3000", SOON).await;
    let way = browser
        .run("return document.querySelector('#transport').dataset.mode;")
        .await
        .as_str()
        .unwrap()
        .to_owned();
    let says = browser.text("#transport").await;
    browser.click("#stop").await;
    browser.until("!document.querySelector('#result').hidden", SOON).await;
    println!("{query} {way} after {took:?}: {says}");
    (way, says, took, studio.the_one_recording(SOON).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_udp_auto_records_by_chunks_within_ten_seconds() {
    let studio = Studio::open(&[]);
    let browser = Browser::with(&[ALLOW, NO_UDP]).await;
    let (way, says, took, manifest) = publish(&studio, &browser, &studio.server.base, "").await;
    assert_eq!(way, "chunks");
    assert!(says.contains("recorded chunks") && says.contains("UDP"), "{says}");
    assert!(took < TEN, "{took:?}");
    assert_seekable_with("vp9", &studio.path(manifest["file"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_udp_and_without_sockets_auto_records_jpeg_pictures() {
    let studio = Studio::open(&[]);
    let proxy = Proxy::without_sockets(&studio.server.base);
    let browser = Browser::with(&[ALLOW, NO_UDP]).await;
    let (way, says, took, manifest) = publish(&studio, &browser, &proxy.base, "").await;
    assert_eq!(way, "mjpeg");
    assert!(says.contains("JPEG") && says.contains("no sound") && says.contains("WebSockets"), "{says}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    let file = studio.path(manifest["file"].as_str().unwrap());
    judge::decode(&file).unwrap();
    let probe = Probe::of(&file);
    assert_eq!(probe.stream("video").unwrap().codec_name, "mjpeg");
    assert!(probe.duration().unwrap() > Duration::from_secs(2), "{probe:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sockets_but_with_udp_auto_records_webrtc_by_whip() {
    let studio = Studio::open(&[]);
    let proxy = Proxy::without_sockets(&studio.server.base);
    let browser = Browser::start().await;
    let (way, says, _, manifest) = publish(&studio, &browser, &proxy.base, "").await;
    assert_eq!(way, "whip");
    assert!(says.contains("WebRTC") && says.contains("WebSockets"), "{says}");
    assert_seekable(&studio.path(manifest["file"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_that_is_asked_for_is_taken() {
    for (mode, codec) in [("chunks", "vp9"), ("mjpeg", "mjpeg"), ("webrtc", "vp8")] {
        let studio = Studio::open(&[]);
        let browser = Browser::start().await;
        let (way, _, _, manifest) =
            publish(&studio, &browser, &studio.server.base, &format!("mode={mode}")).await;
        assert_eq!(way, mode);
        let probe = Probe::of(&studio.path(manifest["file"].as_str().unwrap()));
        assert_eq!(probe.stream("video").unwrap().codec_name, codec);
    }
}
