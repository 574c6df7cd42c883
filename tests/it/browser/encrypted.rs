//! Chromium at a name that is not localhost: only TLS makes its page one that gets the camera, and gives a
//! cookie that no plain page has set.

use super::login::{TOKEN, log_in, tokens};
use super::{SOON, Studio, assert_seekable, record};
use crate::support::browser::{ALLOW, Browser};
use crate::support::certificate::chromium_flag;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_certificate_of_its_own_a_page_of_another_name_logs_in_and_records() {
    let studio = Studio::open(&["server.tls.self_signed=true", &tokens()]);
    let cert = CertificateDer::from_pem_file(studio.server.records().join(".tls.pem")).unwrap();
    let accept = chromium_flag(&cert);
    let browser = Browser::with(&[ALLOW, "--host-resolver-rules=MAP studio.test 127.0.0.1", &accept]).await;
    let base = studio.server.base.replace("localhost", "studio.test");
    assert!(base.starts_with("https://studio.test:"), "{base}");

    browser.goto(&format!("{base}/publish?name=lan")).await;
    browser.until("location.pathname === '/login' && document.querySelector('#token')", SOON).await;
    log_in(&browser, TOKEN).await;
    browser.until("location.pathname === '/publish'", SOON).await;
    let cookies = browser.devtools("Network.getCookies", json!({})).await;
    let [cookie] = &cookies["cookies"].as_array().unwrap()[..] else { panic!("{cookies}") };
    let facts = ["name", "path", "secure", "httpOnly", "sameSite"].map(|key| cookie[key].clone());
    assert_eq!(json!(facts), json!(["__Host-onrecord", "/", true, true, "Lax"]), "{cookie}");

    let take = record(&browser, &base, "lan", Duration::from_secs(5)).await;
    let page = browser.run("return [origin, isSecureContext, !!navigator.mediaDevices, document.querySelector('#transport').textContent];").await;
    println!("{page}");
    assert_eq!((&page[0], &page[1], &page[2]), (&base.as_str().into(), &true.into(), &true.into()));
    assert!(take.url.starts_with(&format!("{base}/recordings/")), "{}", take.url);
    let runs = studio.hook.ran(1, SOON).await;
    assert_eq!((runs[0].0.as_str(), &runs[0].1), ("lan", &studio.path(&take.file)));
    let (duration, _) = assert_seekable(&runs[0].1);
    println!("{:?} on the page, {duration:?} in the file", take.on_page);
    assert!((duration.as_secs_f64() - take.on_page.as_secs_f64()).abs() < 1.0, "{duration:?}");

    // The address without a scheme is what people type.
    browser.goto(&format!("{}/recordings", base.replace("https", "http"))).await;
    browser.until("location.protocol === 'https:' && document.querySelector('#list li')", SOON).await;
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:#?}");
}
