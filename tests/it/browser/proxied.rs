//! Chromium, then nginx with the shipped `config/nginx.conf`, then the server: below a path, over TLS.

use super::pages::pictures;
use super::{CONNECT, SOON, assert_seekable, record};
use crate::support::browser::{ALLOW, Browser};
use crate::support::certificate::Certificate;
use crate::support::judge::{self, Probe};
use crate::support::nginx::{Nginx, free_port};
use crate::support::server::Server;
use crate::support::web::HookLog;
use std::time::Duration;

const HOST: &str = "record.example.org";
const PUBLISHING: &str = "document.querySelector('#status').dataset.status === 'PUBLISHING'";
const STOPPED: &str = "!document.querySelector('#result').hidden";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_path_of_nginx_everything_is_published_watched_and_downloaded() {
    let certificate = Certificate::of(&[HOST]);
    let port = free_port();
    let nginx = Nginx::start(port, &certificate);
    let (origin, hook) = (format!("https://{HOST}:{}", nginx.port), HookLog::new());
    let server = Server::start(&[
        &format!("server.bind=127.0.0.1:{port}"),
        &format!("server.public_url={origin}"),
        "server.base_path=/onrecord",
        "server.trusted_proxies=127.0.0.1",
        "auth.mode=open",
        &hook.setting(),
    ]);
    let resolve = format!("--host-resolver-rules=MAP {HOST} 127.0.0.1");
    let browser = Browser::with(&[ALLOW, &resolve, &certificate.chromium_flag()]).await;
    let base = format!("{origin}/onrecord");

    // WebRTC, with its signalling through nginx.
    let take = record(&browser, &base, "by%20webrtc", Duration::from_secs(4)).await;
    assert!(take.url.starts_with(&format!("{base}/recordings/")), "{}", take.url);
    browser.click("#download").await;
    let file = browser.downloaded(&take.file, take.bytes, SOON).await;
    assert_seekable(&file);

    chunks_are_recorded_and_watched(&browser, &base).await;
    pictures_are_sent_and_watched(&browser, &base).await;

    let runs = hook.ran(3, SOON).await;
    for (stream, file, _) in &runs {
        judge::decode(file).unwrap();
        println!("{stream}: {:?}", Probe::of(file).duration());
    }
    recordings_are_played(&browser, &base).await;
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
    let complaints: Vec<_> =
        nginx.log().lines().filter(|line| !line.contains("[notice]")).map(str::to_owned).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let asked = nginx.asked();
    assert!(asked.contains("/onrecord/publish ") && asked.contains("/onrecord/recordings/"), "{asked}");
    assert!(!asked.contains('?'), "a query may hold a token: {asked}");
    drop(server);
}

/// In two windows; the first one goes on recording.
async fn chunks_are_recorded_and_watched(browser: &Browser, base: &str) {
    browser.goto(&format!("{base}/record?name_prefix=chunks")).await;
    browser.until(PUBLISHING, CONNECT).await;
    let recorder = browser.new_window().await;
    browser.goto(&format!("{base}/")).await;
    browser.until("document.querySelector('#live [data-action=watch]')", SOON).await;
    browser.click("#live [data-action=watch]").await;
    let live = "document.querySelector('#state')?.dataset.state === 'live' && document.querySelector('#video').currentTime";
    let first = browser.until(live, CONNECT).await.as_f64().unwrap();
    browser.until(&format!("document.querySelector('#video').currentTime > {}", first + 2.0), SOON).await;
    std::fs::write(pictures().join("proxied-watch.png"), browser.screenshot().await).unwrap();
    let page = browser.run("return location.href;").await;
    assert!(page.as_str().unwrap().starts_with(&format!("{base}/watch/chunks-")), "{page}");
    browser.close_window().await;
    browser.switch(recorder).await;
    browser.click("#stop").await;
    browser.until(STOPPED, SOON).await;
    let link = browser.run("return document.querySelector('#download').href;").await;
    assert!(link.as_str().unwrap().starts_with(&format!("{base}/recordings/")), "{link}");
}

async fn pictures_are_sent_and_watched(browser: &Browser, base: &str) {
    browser.goto(&format!("{base}/camera?name=pictures")).await;
    browser.click("#start").await;
    browser.until(PUBLISHING, CONNECT).await;
    let sender = browser.new_window().await;
    browser.goto(&format!("{base}/watch/pictures")).await;
    browser
        .until(
            "!document.querySelector('#picture').hidden && document.querySelector('#picture').naturalWidth",
            SOON,
        )
        .await;
    // The bare stream: what nginx must not collect, or the pictures after the first come late.
    browser
        .run(
            "window.parts = 0;
            (async () => {
              const reader = (await fetch('../stream/pictures')).body.getReader();
              for (let left = ''; ; ) {
                const { value } = await reader.read();
                left += new TextDecoder('latin1').decode(value);
                parts += left.split('--frame').length - 1;
                left = left.slice(-6);
              }
            })();",
        )
        .await;
    browser.until("parts > 10", SOON).await;
    browser.close_window().await;
    browser.switch(sender).await;
    browser.click("#stop").await;
    browser.until(STOPPED, SOON).await;
    let link = browser.run("return document.querySelector('#download').href;").await;
    assert!(link.as_str().unwrap().starts_with(&format!("{base}/recordings/")), "{link}");
}

async fn recordings_are_played(browser: &Browser, base: &str) {
    browser.goto(&format!("{base}/recordings")).await;
    browser.until("document.querySelectorAll('li[data-hook=done]').length === 3", SOON).await;
    std::fs::write(pictures().join("proxied-recordings.png"), browser.screenshot().await).unwrap();
    // The oldest is the last one: the one by WebRTC.
    browser.run("[...document.querySelectorAll('[data-action=play]')].at(-1).click();").await;
    browser.until("document.querySelector('#video').currentTime > 0.5", SOON).await;
    browser.click("#player form button").await;
    let bytes = "const link = [...document.querySelectorAll('[data-action=download]')].at(-1);
        const body = await (await fetch(link.href)).arrayBuffer();
        return [link.href, body.byteLength];";
    let got = browser.run(bytes).await;
    assert!(got[0].as_str().unwrap().starts_with(&format!("{base}/recordings/")), "{got}");
    assert!(got[1].as_u64().unwrap() > 50_000, "{got}");
}
