//! The other family of browsers: it publishes, and it watches.

use super::watch::watches_a_camera_that_stutters;
use super::{CONNECT, SOON, Studio, start_publishing, stop_publishing};
use crate::support::browser::Browser;
use crate::support::judge::{self, Probe};
use crate::support::live::Live;
use crate::support::media;
use crate::support::publisher::{Config, Publisher};
use crate::support::signalling::Signal;
use crate::support::user::eventually;
use std::ops::Range;
use std::time::Duration;

/// Longer than from one keyframe to the next.
const WATCHED: f64 = 7.0;
/// When a microphone sends nothing.
const AWAY: Range<Duration> = Duration::from_secs(8)..Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_publishes_and_watches_what_it_publishes_by_each_way() {
    let studio = Studio::open(&[]);
    let browser = Browser::firefox().await;
    for mode in ["webrtc", "chunks"] {
        start_publishing(&browser, &studio.server.base, &format!("{mode}&mode={mode}")).await;
        let publisher = browser.new_window().await;
        browser.goto(&studio.server.url(&format!("/watch/{mode}"))).await;
        begins_to_watch(&browser).await;
        let time = format!("document.querySelector('#video').currentTime > {}", 0.5 + WATCHED);
        browser.until(&time, SOON).await;
        let (stuck, holes) = stood_still(&browser).await;
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

/// Waits until the watch page plays. From then on it notes for how long it stands still.
async fn begins_to_watch(browser: &Browser) {
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
}

/// For how long it stood still at worst, and how many holes there are in what it has buffered.
async fn stood_still(browser: &Browser) -> (Duration, u64) {
    let stuck = browser.run("return window.stuck;").await.as_f64().unwrap();
    let ranges = browser.run("return document.querySelector('#video').buffered.length;").await;
    (Duration::from_secs_f64(stuck / 1e3), ranges.as_u64().unwrap() - 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn firefox_goes_on_watching_while_a_microphone_sends_nothing() {
    let studio = Studio::open(&[]);
    let browser = Browser::firefox().await;
    browser.goto(&studio.server.url("/watch/quiet")).await;
    let (live, offer) = Live::start(|local| {
        let mut config = Config::playing(local, media::flash_and_beep(10));
        config.audio.as_mut().unwrap().pauses = vec![AWAY];
        config
    })
    .await;
    let mut signal = Signal::connect(&studio.server.ws_url("/signal")).await;
    let answer = signal.publish("quiet", &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    begins_to_watch(&browser).await;
    eventually("sound is back", CONNECT + SOON, async || {
        let sent = live.with(|publisher| publisher.sent().last().map(|frame| frame.captured)).await;
        (sent? > AWAY.end + Duration::from_secs(3)).then_some(())
    })
    .await;
    let (stuck, holes) = stood_still(&browser).await;
    println!("stood still for {stuck:?} at worst, {holes} holes");
    assert!(stuck < Duration::from_secs(1) && holes == 0, "stood still for {stuck:?}, {holes} holes");
    live.with(Publisher::stop_sending).await;
    signal.stop("quiet").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_stutters_costs_a_viewer_with_firefox_no_other_picture() {
    watches_a_camera_that_stutters(&Browser::firefox().await).await;
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
