//! The other family of browsers: it publishes, and it watches.

use super::{CONNECT, SOON, Studio, start_publishing, stop_publishing};
use crate::support::browser::Browser;
use crate::support::judge::{self, Probe};
use std::time::Duration;

/// Longer than from one keyframe to the next.
const WATCHED: f64 = 7.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_publishes_and_watches_what_it_publishes_by_each_way() {
    let studio = Studio::open(&[]);
    let browser = Browser::firefox().await;
    for mode in ["webrtc", "chunks"] {
        start_publishing(&browser, &studio.server.base, &format!("{mode}&mode={mode}")).await;
        let publisher = browser.new_window().await;
        browser.goto(&studio.server.url(&format!("/watch/{mode}"))).await;
        browser.until("document.querySelector('#video').currentTime > 0.5", CONNECT).await;
        // What is shown is told by the picture's time: it moves each 20 ms or stands still.
        let script = "
            const video = document.querySelector('#video');
            let [last, since] = [video.currentTime, performance.now()];
            window.stuck = 0;
            setInterval(() => {
              const now = performance.now();
              window.stuck = Math.max(window.stuck, now - since);
              if (video.currentTime !== last) [last, since] = [video.currentTime, now];
            }, 20);";
        browser.run(script).await;
        let time = format!("document.querySelector('#video').currentTime > {}", 0.5 + WATCHED);
        browser.until(&time, SOON).await;
        let stuck =
            Duration::from_secs_f64(browser.run("return window.stuck;").await.as_f64().unwrap() / 1e3);
        let holes = browser.run("return document.querySelector('#video').buffered.length - 1;").await;
        println!("{mode}: stood still for {stuck:?} at worst, {holes} holes");
        assert_eq!(holes, 0, "{mode}: pictures are missing");
        assert!(stuck < Duration::from_secs(3), "{mode}: stood still for {stuck:?}");
        browser.close_window().await;
        browser.switch(publisher).await;
        let take = stop_publishing(&browser).await;
        let file = studio.path(&take.file);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), take.bytes);
        judge::decode(&file).unwrap();
        assert!(Probe::of(&file).duration() > Some(Duration::from_secs_f64(WATCHED)), "{mode}");
        assert!(!judge::cue_times(&file).is_empty(), "{mode} can't be entered");
        plays_from_the_middle(&browser, &take.url, Probe::of(&file).duration().unwrap()).await;
    }
    studio.hook.ran(2, SOON).await;
}

/// Of a recording that is sealed.
async fn plays_from_the_middle(browser: &Browser, url: &str, duration: Duration) {
    let script = format!(
        "window.film = document.createElement('video');
        film.muted = true;
        film.onloadedmetadata = () => {{ film.currentTime = film.duration / 2; film.play(); }};
        film.src = '{url}?inline=1';"
    );
    browser.run(&script).await;
    let half = duration.as_secs_f64() / 2.0;
    let plays = format!("film.error || film.currentTime > {} && film.duration", half + 0.3);
    let told = browser.until(&plays, SOON).await.as_f64().expect("it plays");
    println!("{told} s of {duration:?}");
    assert!((told - duration.as_secs_f64()).abs() < 0.05, "{told} s of {duration:?}");
}
