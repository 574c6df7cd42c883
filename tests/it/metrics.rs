//! `/metrics`, `/healthz`, `/readyz`: what an operator is told is what happened.

use crate::support::media;
use crate::support::openmetrics::Scrape;
use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, eventually, on_air, sends, whip_on_air};
use crate::support::viewer::Viewer;
use reqwest::{Client, Method, StatusCode, header};
use serde_json::Value;
use std::time::{Duration, Instant};
use str0m::media::MediaKind::{Audio, Video};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn text(server: &Server, accept: &str) -> (String, String) {
    let request = Client::new().get(server.url("/metrics")).header(header::ACCEPT, accept);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    (kind, response.text().await.unwrap())
}

/// What Prometheus reads.
pub async fn scrape(server: &Server) -> Scrape {
    // As Prometheus 2.x asks.
    let accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let (kind, text) = text(server, accept).await;
    assert_eq!(kind, OPEN_METRICS);
    Scrape::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

/// A number of the manifest's track of this kind.
fn of_track(manifest: &Value, kind: &str, key: &str) -> f64 {
    let tracks = manifest["tracks"].as_array().unwrap();
    tracks.iter().find(|track| track["kind"] == kind).unwrap()[key].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_publication_is_counted_as_its_manifest_has_it() {
    let script = Script::new("cat > /dev/null");
    let server = Server::start(&[&script.setting()]);
    let on_air = on_air(&server, "lossy").await;
    let mut viewer = Viewer::connect(&server.ws_url("/live/lossy"), None).await;
    viewer.next().await;
    let now = scrape(&server).await;
    for (name, labels, value) in [
        ("onrecord_streams", &[("way", "webrtc")][..], 1.0),
        ("onrecord_streams", &[("way", "none")], 0.0),
        ("onrecord_viewers", &[("kind", "websocket")], 1.0),
        ("onrecord_recordings_open", &[], 1.0),
        ("onrecord_websockets", &[], 2.0),
        ("onrecord_publications_connected_total", &[("way", "webrtc")], 1.0),
        ("onrecord_ready", &[], 1.0),
        ("onrecord_record_dir_writable", &[], 1.0),
    ] {
        assert_eq!(now.value(name, labels), value, "{name}{labels:?}");
    }
    assert!(now.value("onrecord_record_dir_free_bytes", &[]) > 0.0);

    on_air.live.lose(0.1).await;
    let repaired =
        |scrape: &Scrape| scrape.value("onrecord_rtp_packets_repaired_total", &[("kind", "video")]);
    eventually("repairs", SOON, async || (repaired(&scrape(&server).await) >= 5.0).then_some(())).await;
    on_air.live.lose(0.0).await;
    on_air.sends(60).await;
    drop(viewer);
    let asked = on_air.live.with(|publisher| publisher.keyframe_requests().len()).await;
    let recording = on_air.stop().await;
    let manifest = Api::of(&server).hook(recording["id"].as_str().unwrap(), "done", SOON).await;

    let end = eventually("all gauges at rest", SOON, async || {
        let end = scrape(&server).await;
        let open =
            ["onrecord_recordings_open", "onrecord_viewers", "onrecord_hook_queue", "onrecord_streams"];
        open.iter().all(|gauge| end.value(gauge, &[]) == 0.0).then_some(end)
    })
    .await;
    for (kind, codec) in [("video", "vp8"), ("audio", "opus")] {
        let frames = end.value("onrecord_frames_received_total", &[("codec", codec)]);
        let lost = end.value("onrecord_rtp_packets_lost_total", &[("kind", kind)]);
        let repaired = end.value("onrecord_rtp_packets_repaired_total", &[("kind", kind)]);
        let received = end.value("onrecord_rtp_packets_received_total", &[("kind", kind)]);
        println!("{kind}: {received} packets, {repaired} repaired, {lost} lost, {frames} frames");
        assert_eq!(frames, of_track(&manifest, kind, "frames"), "{kind} frames: {manifest}");
        assert_eq!(lost, of_track(&manifest, kind, "lost"), "{kind} packets lost: {manifest}");
        // A packet that came only as a copy in others is a frame of its own.
        let copied = [("kind", kind), ("by", "red")];
        let packets = received + end.value("onrecord_rtp_packets_repaired_total", &copied);
        assert!(packets >= frames, "{packets} packets for {frames} frames");
    }
    let nacks = end.value("onrecord_rtp_nacks_sent_total", &[("kind", "video")]);
    assert!(nacks >= repaired(&end), "{nacks} packets asked for, {} repaired", repaired(&end));
    let requests = end.value("onrecord_rtp_keyframe_requests_total", &[]);
    assert!(requests >= asked as f64, "{requests} keyframes asked for, the publisher heard {asked}");
    for (name, labels, value) in [
        ("onrecord_recordings_written_bytes_total", &[][..], manifest["bytes"].as_f64().unwrap()),
        ("onrecord_recordings_sealed_total", &[("reason", "stopped")], 1.0),
        ("onrecord_recordings_sealed_total", &[], 1.0),
        ("onrecord_publications_total", &[], 1.0),
        ("onrecord_publications_ended_total", &[("reason", "stopped")], 1.0),
        ("onrecord_hook_attempts_total", &[("result", "success")], 1.0),
        ("onrecord_hook_attempts_total", &[], 1.0),
        ("onrecord_hook_duration_seconds_count", &[], 1.0),
        ("onrecord_recordings_failed_total", &[], 0.0),
    ] {
        assert_eq!(end.value(name, labels), value, "{name}{labels:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publisher_sent_over_a_good_network_is_counted_to_the_byte() {
    let server = Server::start(&["hooks.on_record="]);
    let (live, whip, _) = whip_on_air(&server, "good", None).await;
    sends(&live, 200).await;
    live.with(|publisher| publisher.stop_sending()).await;
    let bytes =
        live.with(|publisher| publisher.sent().iter().map(|sent| sent.data.len()).sum::<usize>()).await;
    let (video, audio) =
        live.with(|publisher| (publisher.sent_of(Video).len(), publisher.sent_of(Audio).len())).await;
    whip.delete().await.unwrap();
    Api::of(&server).sealed(SOON).await;
    let end = scrape(&server).await;
    println!("{video} pictures, {audio} packets of sound, {bytes} bytes");
    assert_eq!(end.value("onrecord_frames_received_total", &[("codec", "vp8")]), video as f64);
    assert_eq!(end.value("onrecord_frames_received_total", &[("codec", "opus")]), audio as f64);
    assert_eq!(end.value("onrecord_media_received_bytes_total", &[("way", "webrtc")]), bytes as f64);
    assert_eq!(end.value("onrecord_rtp_packets_lost_total", &[]), 0.0);
    let requests = |method: &str, route: &str, status: &str| {
        let labels = [("method", method), ("route", route), ("status", status)];
        end.value("onrecord_http_requests_total", &labels)
    };
    assert_eq!(requests("POST", "/whip/{name}", "2xx"), 1.0);
    assert_eq!(requests("DELETE", "/whip/{name}/{session}", "2xx"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_names_and_a_flood_of_paths_add_no_series() {
    let server = Server::start(&["hooks.on_record=", "mjpeg.record=false"]);
    let (client, image) = (Client::new(), media::jpegs(1, "160x120").swap_remove(0));
    let visit = async |name: &str| {
        let upload = client.post(server.url(&format!("/upload/{name}"))).body(image.clone());
        let posted = upload.header(header::CONTENT_TYPE, "image/jpeg").send().await.unwrap();
        assert_eq!(posted.status(), StatusCode::NO_CONTENT);
        for path in [format!("/snapshot/{name}.jpg"), format!("/nothing/{name}"), format!("/live/{name}")] {
            client.get(server.url(&path)).send().await.unwrap();
        }
        let odd = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
        client.request(odd, server.url("/api/streams")).send().await.unwrap();
        let token = posted.headers()["onrecord-resume"].clone();
        let end = client.delete(server.url(&format!("/upload/{name}"))).header("onrecord-resume", token);
        assert_eq!(end.send().await.unwrap().status(), StatusCode::OK);
    };
    visit("first").await;
    scrape(&server).await;
    let before = scrape(&server).await.series();
    for number in 0..50 {
        visit(&format!("name{number}")).await;
    }
    let after = scrape(&server).await;
    assert_eq!(after.value("onrecord_publications_ended_total", &[("reason", "stopped")]), 51.0);
    println!("{} series", before.len());
    assert_eq!(after.series(), before);
    for series in &before {
        for told in ["name", "records", "127.0.0.1"] {
            let of_route = series.contains("\"route\"") && told == "name";
            assert!(of_route || !series.contains(told), "{series} tells {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_costs_a_few_milliseconds_and_each_reader_gets_the_text_it_knows() {
    let server = Server::start(&["hooks.on_record="]);
    let (kind, text) = text(&server, "*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        text.contains("\n# TYPE onrecord_publications_total counter\nonrecord_publications_total 0\n"),
        "{text}"
    );
    assert!(
        text.contains("\n# TYPE process_cpu_seconds_total counter\n") && !text.contains("# EOF"),
        "{text}"
    );
    let names: Vec<String> = scrape(&server).await.names().iter().map(|name| (*name).to_owned()).collect();
    let ours = |name: &&String| !name.starts_with("onrecord_") && !name.starts_with("process_");
    assert_eq!(names.iter().find(ours), None);

    let (client, rounds) = (Client::new(), 50);
    let (cpu, began) = (server.cpu(), Instant::now());
    let mut bytes = 0;
    for _ in 0..rounds {
        bytes = client.get(server.url("/metrics")).send().await.unwrap().bytes().await.unwrap().len();
    }
    let (cpu, took) = ((server.cpu() - cpu) / rounds, began.elapsed() / rounds);
    println!("a scrape of {bytes} bytes: {cpu:?} of CPU, {took:?} in all");
    assert!(cpu < Duration::from_millis(5), "{cpu:?} of CPU for a scrape");
}

/// The reasons of `/readyz`; none if it says yes.
async fn not_ready(server: &Server) -> Vec<String> {
    let (status, body) = Api::of(server).call(Method::GET, "/readyz").await;
    assert!(!body.to_string().contains(&*server.folder().to_string_lossy()), "it tells where: {body}");
    if status == StatusCode::OK {
        assert_eq!(body["status"], "ready");
        return Vec::new();
    }
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &Value::from("limit_reached")));
    let reasons = body["reasons"].as_array().unwrap();
    reasons.iter().map(|reason| reason["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_not_record_is_alive_but_not_ready_and_says_why() {
    let server = Server::start(&["hooks.on_record="]);
    assert_eq!(not_ready(&server).await, [""; 0]);
    let away = server.folder().join("away");
    std::fs::rename(server.records(), &away).unwrap();
    eventually("not writable", SOON, async || (not_ready(&server).await == ["not_writable"]).then_some(()))
        .await;
    let (status, health) = Api::of(&server).call(Method::GET, "/healthz").await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &Value::from("ok")));
    let told = scrape(&server).await;
    assert_eq!(told.value("onrecord_record_dir_writable", &[]), 0.0);
    assert_eq!(told.value("onrecord_ready", &[]), 0.0);
    std::fs::rename(&away, server.records()).unwrap();
    eventually("ready again", SOON, async || not_ready(&server).await.is_empty().then_some(())).await;

    let full = Server::start(&["hooks.on_record=", "record.min_free=1000000GiB"]);
    assert_eq!(not_ready(&full).await, ["disk_full"]);
}

#[test]
fn the_reader_of_metrics_takes_nothing_that_is_badly_written() {
    let gauge = "# HELP a Some.\n# TYPE a gauge\n";
    let bounds = "# HELP h Some.\n# TYPE h histogram\nh_sum 1.0\nh_count 2\n";
    let good = format!(
        "{gauge}a{{b=\"c\\\\d\\\"\\n\"}} 1\n{bounds}h_bucket{{le=\"1.0\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\n"
    );
    let read = Scrape::parse(&format!("{good}# EOF\n")).unwrap();
    assert_eq!(read.value("a", &[("b", "c\\d\"\n")]), 1.0);
    for bad in [
        gauge.to_owned(),
        format!("{gauge}a 1\na 2\n"),
        format!("{gauge}a_total 1\n"),
        format!("{gauge}a  1\n"),
        format!("{gauge}a 1 \n"),
        format!("{gauge}a NaN\n"),
        format!("{gauge}a{{b=\"c}} 1\n"),
        format!("{gauge}a{{b=\"\\c\"}} 1\n"),
        format!("{gauge}a{{1b=\"c\"}} 1\n"),
        format!("{gauge}a{{b=\"c\",b=\"d\"}} 1\n"),
        format!("{gauge}a{{b=\"c\"}} 1\na 1\n"),
        format!("{gauge}a 1\n{gauge}"),
        format!("{gauge}a 1\n# HELP a_total More.\n# TYPE a_total gauge\na_total 1\n"),
        format!("{gauge}a 1\n\n"),
        "a 1\n".to_owned(),
        "# TYPE a gauge\na 1\n".to_owned(),
        format!("{bounds}h_bucket{{le=\"1.0\"}} 1\n"),
        format!("{bounds}h_bucket{{le=\"1.0\"}} 3\nh_bucket{{le=\"+Inf\"}} 2\n"),
    ] {
        assert!(Scrape::parse(&format!("{bad}# EOF\n")).is_err(), "taken:\n{bad}");
    }
    assert!(Scrape::parse(&good).is_err(), "it has no end");
}
