//! A browser on another network than the server's, behind a router that lets no UDP through.

use super::{CONNECT, SOON, Studio, assert_seekable};
use crate::support::browser::{ALLOW, Browser};
use crate::support::coturn::Coturn;
use crate::support::judge::{self, Probe};
use crate::support::namespaces::{Networks, SERVER};
use crate::support::user::{Api, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The server on its own machine, with the media port that it has by itself, and these settings more.
fn open(networks: &Networks, settings: &[&str]) -> Studio {
    let bind = format!("server.bind={SERVER}:0");
    let own = [bind.as_str(), "webrtc.udp_bind=auto", "auth.mode=open"];
    networks.on_server(|| Studio::open(&own.iter().chain(settings).copied().collect::<Vec<_>>()))
}

/// Chromium, with a camera for the server's pages though they come without TLS.
async fn chromium(studio: &Studio) -> Browser {
    let trusted = format!("--unsafely-treat-insecure-origin-as-secure={}", studio.server.base);
    Browser::with(&[ALLOW, &trusted]).await
}

/// Opens the publish page and presses Start, until it is recorded by WebRTC.
async fn start(studio: &Studio, browser: &Browser) {
    browser.goto(&studio.server.url("/publish?name=far")).await;
    let notes = "const Original = RTCPeerConnection;
        window.connections = [];
        window.RTCPeerConnection = class extends Original {
          constructor(...args) { super(...args); connections.push(this); }
        };";
    browser.run(notes).await;
    browser.click("#start").await;
    browser.until("document.querySelector('#status').dataset.status === 'PUBLISHING'", CONNECT).await;
    assert_eq!(browser.run("return document.querySelector('#transport').dataset.mode;").await, "webrtc");
}

/// Lets so much time pass on the page's clock: what is recorded meanwhile is what a test is about.
async fn goes_on(browser: &Browser, time: Duration) {
    browser.run("window.began = performance.now();").await;
    browser.until(&format!("performance.now() - began > {}", time.as_millis()), time + SOON).await;
}

/// The candidate of the browser that its media leave from.
async fn leaves_from(browser: &Browser) -> Value {
    let script = "return connections.at(-1).getStats().then((stats) => {
        const all = [...stats.values()];
        const transport = all.find(({ type }) => type === 'transport');
        const pair = transport ? stats.get(transport.selectedCandidatePairId) : all.find(({ selected }) => selected);
        const { protocol, candidateType } = stats.get(pair.localCandidateId);
        return { protocol, candidateType, bytes: pair.bytesSent };
      });";
    browser.run(script).await
}

async fn stop(studio: &Studio, browser: &Browser) -> Value {
    browser.click("#stop").await;
    browser.until("!document.querySelector('#result').hidden", SOON).await;
    studio.the_one_recording(SOON).await
}

/// Records five seconds; gives where media left from, and the recording.
async fn publish(studio: &Studio, browser: &Browser) -> (Value, Value) {
    start(studio, browser).await;
    goes_on(browser, Duration::from_secs(5)).await;
    let from = leaves_from(browser).await;
    println!("{from}");
    (from, stop(studio, browser).await)
}

/// Five seconds without a hole.
fn assert_whole(studio: &Studio, manifest: &Value) {
    let (duration, pictures) = assert_seekable(&studio.path(manifest["file"].as_str().unwrap()));
    println!("{duration:?}, {} pictures", pictures.len());
    assert!(duration >= Duration::from_millis(4900), "{duration:?}");
    assert_eq!(manifest["gaps"], json!([]), "{manifest:#}");
}

#[tokio::test]
async fn where_no_udp_gets_through_a_browser_publishes_over_tcp() {
    let networks = Networks::new();
    networks.block_udp(None);
    let studio = open(&networks, &[]);
    let (from, manifest) = publish(&studio, &chromium(&studio).await).await;
    assert_eq!(from["protocol"], "tcp", "{from}");
    assert!(from["bytes"].as_u64() > Some(100_000), "{from}");
    assert_whole(&studio, &manifest);
}

#[tokio::test]
async fn where_no_udp_gets_through_firefox_publishes_over_tcp_too() {
    let networks = Networks::new();
    networks.block_udp(None);
    let studio = open(&networks, &[]);
    let (from, manifest) = publish(&studio, &Browser::firefox().await).await;
    assert_eq!(from["protocol"], "tcp", "{from}");
    assert_whole(&studio, &manifest);
}

#[tokio::test]
async fn where_udp_gets_through_a_browser_takes_it_though_tcp_is_offered() {
    let networks = Networks::new();
    let studio = open(&networks, &[]);
    let (from, manifest) = publish(&studio, &chromium(&studio).await).await;
    assert_eq!(from["protocol"], "udp", "{from}");
    assert_whole(&studio, &manifest);
}

#[tokio::test]
async fn where_udp_gets_through_no_more_a_browser_goes_on_over_tcp_in_the_same_file() {
    let networks = Networks::new();
    let studio = open(&networks, &[]);
    let browser = chromium(&studio).await;
    start(&studio, &browser).await;
    goes_on(&browser, Duration::from_secs(3)).await;
    let from = leaves_from(&browser).await;
    assert_eq!(from["protocol"], "udp", "{from}");
    networks.block_udp(None);
    let over_tcp = async || Some(leaves_from(&browser).await).filter(|from| from["protocol"] == "tcp");
    eventually("it goes on over TCP", SOON, over_tcp).await;
    goes_on(&browser, Duration::from_secs(3)).await;
    let manifest = stop(&studio, &browser).await;
    let file = studio.path(manifest["file"].as_str().unwrap());
    judge::decode(&file).unwrap();
    let (duration, pictures) = (Probe::of(&file).duration().unwrap(), judge::packets_of(&file, "video"));
    let hole = pictures.windows(2).map(|pair| (pair[1].time - pair[0].time, pair[1].time)).max().unwrap();
    println!("{duration:?}, a hole of {hole:?}, {}", manifest["gaps"]);
    // The browser takes some five seconds to give a path up, and the page then restarts ICE.
    assert!(hole.0 > Duration::from_millis(500) && hole.0 < SOON, "{hole:?}");
    assert!(hole.1 + Duration::from_secs(2) < duration, "pictures behind the hole");
    assert_eq!(manifest["end_reason"], "stopped", "{manifest:#}");
}

#[tokio::test]
async fn a_network_that_is_away_for_longer_than_a_session_lasts_costs_that_time_and_no_other() {
    let networks = Networks::new();
    let studio = open(&networks, &["record.reconnect_grace=5m"]);
    let browser = chromium(&studio).await;
    start(&studio, &browser).await;
    goes_on(&browser, Duration::from_secs(3)).await;
    networks.cut();
    // The fault itself lasts so long: the server gives a session up that it hasn't heard of for ten seconds.
    goes_on(&browser, Duration::from_secs(13)).await;
    networks.mend();
    let (api, began) = (Api::of(&studio.server), Instant::now());
    let received = async || api.streams().await[0]["bytes"].as_u64().unwrap();
    let before = received().await;
    eventually("media comes again", SOON, async || (received().await > before).then_some(())).await;
    let connections = browser.run("return connections.length;").await;
    println!("media comes again after {:?}, {connections} connections", began.elapsed());
    goes_on(&browser, Duration::from_secs(5)).await;
    let manifest = stop(&studio, &browser).await;
    let pictures = judge::packets_of(&studio.path(manifest["file"].as_str().unwrap()), "video");
    let hole = pictures.windows(2).map(|pair| (pair[1].time - pair[0].time, pair[1].time)).max().unwrap();
    println!("a hole of {hole:?}");
    assert!(pictures.last().unwrap().time - hole.1 > Duration::from_secs(2), "{manifest:#}");
}

#[tokio::test]
async fn where_only_a_relay_is_reached_a_browser_publishes_by_it() {
    let networks = Networks::new();
    let secret = ["--use-auth-secret", "--static-auth-secret=shared secret"];
    let coturn = networks.on_server(|| Coturn::start(SERVER, &secret));
    networks.block_udp(Some(coturn.port));
    let servers = format!("webrtc.ice_servers=[{{ urls = [\"turn:{SERVER}:{}\"] }}]", coturn.port);
    let studio = open(&networks, &[&servers, "webrtc.turn_secret=shared secret", "webrtc.tcp=false"]);
    let (from, manifest) = publish(&studio, &chromium(&studio).await).await;
    assert_eq!(from["candidateType"], "relay", "{from}");
    assert_whole(&studio, &manifest);
}
