//! What the security headers let a real browser do: all that the pages need, in a frame of a listed
//! site too, and nothing in anybody else's.

use super::{
    SOON, Studio, assert_seekable, press_start, publish_for, record, start_publishing, stop_publishing,
};
use crate::support::browser::Browser;
use crate::support::web::Site;
use serde_json::json;
use std::time::Duration;

const TWO: Duration = Duration::from_secs(2);

/// Has every page note what its policy forbids it, from its first line on.
async fn note_violations(browser: &Browser) {
    let source = "window.violations = [];
        addEventListener('securitypolicyviolation', (event) =>
            violations.push(`${event.effectiveDirective} ${event.blockedURI}`));";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source })).await;
}

async fn assert_no_violation(browser: &Browser, page: &str) {
    let violations = browser.run("return violations;").await;
    assert_eq!(violations, json!([]), "{page}");
    let console = browser.console().await;
    assert!(console.is_empty(), "{page}: {console:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_does_anything_that_its_policy_forbids() {
    let studio = Studio::open(&[]);
    let browser = Browser::start().await;
    note_violations(&browser).await;
    // The policy is what is tested, so one thing that it forbids is tried first.
    browser.goto(&studio.server.url("/")).await;
    browser.run("document.body.setAttribute('style', 'color: red');").await;
    let inline = browser.until("violations.length > 0 && violations", SOON).await;
    assert_eq!(inline, json!(["style-src-attr inline"]));
    browser.console().await;

    let take = record(&browser, &studio.server.base, "strict", TWO).await;
    assert_no_violation(&browser, "/publish").await;
    start_publishing(&browser, &studio.server.base, "live").await;
    let publisher = browser.new_window().await;
    note_violations(&browser).await;
    for (page, shows) in [
        ("/", "document.querySelector('#live li, #live .badge')"),
        ("/watch/live", "document.querySelector('video')?.currentTime > 0.5"),
        ("/recordings", "document.querySelector('[data-action=play]')"),
        ("/record?autostart=0", "document.querySelector('#start')"),
        ("/camera", "document.querySelector('#camera option')"),
    ] {
        browser.goto(&studio.server.url(page)).await;
        browser.until(shows, SOON).await;
        if page == "/recordings" {
            browser.click("[data-action=play]").await;
            browser.until("document.querySelector('#video').currentTime > 0.5", SOON).await;
        }
        assert_no_violation(&browser, page).await;
    }
    browser.switch(publisher).await;
    stop_publishing(&browser).await;
    assert_seekable(&studio.path(&take.file));
}

/// A page of another site with our publish page in it.
fn framing(studio: &Studio) -> String {
    let src = studio.server.url("/publish?name=framed");
    format!(
        "<!doctype html><title>A portal</title>
         <iframe src='{src}' allow='camera; microphone' width='900' height='800'></iframe>"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_site_records_from_our_page_in_its_frame() {
    let site = Site::start().await;
    let studio = Studio::open(&[&format!("server.frame_ancestors=[\"{}\"]", site.origin)]);
    let browser = Browser::start().await;
    browser.goto(&site.serve("portal", framing(&studio))).await;
    browser.enter_frame().await;
    browser
        .until("document.querySelector('#start') && !document.querySelector('#start').disabled", SOON)
        .await;
    press_start(&browser).await;
    publish_for(&browser, TWO).await;
    let take = stop_publishing(&browser).await;
    assert_seekable(&studio.path(&take.file));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_not_listed_frames_nothing_though_it_may_publish() {
    let (site, listed) = (Site::start().await, Site::start().await);
    let studio = Studio::open(&[
        &format!("server.frame_ancestors=[\"{}\"]", listed.origin),
        &format!("server.cors_origins=[\"{}\"]", site.origin),
    ]);
    let browser = Browser::start().await;
    browser.goto(&site.serve("portal", framing(&studio))).await;
    browser.enter_frame().await;
    browser.until("location.protocol === 'chrome-error:'", SOON).await;
    assert_eq!(browser.run("return document.querySelector('#start');").await, json!(null));
    let console = browser.console().await;
    assert!(console.iter().any(|line| line.contains("frame-ancestors")), "{console:#?}");
}
