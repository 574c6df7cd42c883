//! What comes in at the doors and should not: each gets the contract's error, and nothing stays open.

use crate::support::judge;
use crate::support::live::Live;
use crate::support::publisher::{Config, TrackConfig};
use crate::support::server::Server;
use crate::support::signalling::{Refused, Signal, Whip};
use crate::support::source::FakeVideo;
use crate::support::user::{
    Api, SOON, eventually, fake, files_in, on_air, on_air_again, record, sends, whip_on_air,
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use str0m::media::MediaKind::{Audio, Video};
use tokio::net::UdpSocket;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const NO_MEDIA: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
const OUTSIDE: &str = "../../etc/passwd";
const OUTSIDE_ENCODED: &str = "..%2F..%2Fetc%2Fpasswd";

async fn socket(server: &Server) -> Signal {
    Signal::connect(&server.ws_url("/signal")).await
}

async fn offer() -> String {
    Live::start(fake).await.1
}

fn video_only(offer: impl Fn(String) -> String) -> impl AsyncFn() -> String {
    async move || {
        let video =
            |local| Config { video: Some(TrackConfig::new(FakeVideo::small())), ..Config::new(local) };
        offer(Live::start(video).await.1)
    }
}

/// Status and code of a refused WHIP offer.
async fn whip_refused(server: &Server, name: &str, offer: &str) -> (u16, String) {
    let url = server.url(&format!("/whip/{name}"));
    let Refused { status, body } = Whip::publish(&url, offer).await.map(drop).unwrap_err();
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    assert!(!body["message"].as_str().unwrap().is_empty(), "{body}");
    (status.as_u16(), body["code"].as_str().unwrap().to_owned())
}

fn code(code: &str) -> Value {
    json!(code)
}

/// Nobody is on air, nothing was kept, and the process holds no more than before.
async fn nothing_is_left(server: &Server, open_before: usize) {
    Api::of(server).nobody_is_on_air().await;
    assert_eq!(files_in(&server.records()), Vec::<String>::new());
    eventually("its files and sockets closed", SOON, async || {
        (server.open_files() <= open_before).then_some(())
    })
    .await;
}

/// The bad offers that cost nothing to repeat.
async fn one_round(server: &Server, rubbish_sdp: &str) {
    let mut rubbish = socket(server).await;
    rubbish.send_text("{ rubbish").await;
    let told = rubbish.next().await.unwrap();
    assert_eq!((&told["type"], &told["code"]), (&json!("error"), &code("bad_request")));
    assert_eq!(rubbish.next().await, Err(Some(4400)));

    let mut signal = socket(server).await;
    let error = signal.publish("a", NO_MEDIA).await.unwrap_err();
    assert_eq!(error["code"], code("bad_sdp"), "{error}");
    let error = signal.publish("a", rubbish_sdp).await.unwrap_err();
    assert_eq!(error["code"], code("bad_sdp"), "{error}");
    let error = signal.publish(OUTSIDE, NO_MEDIA).await.unwrap_err();
    assert_eq!(error["code"], code("bad_name"), "{error}");
    signal.send(&json!({ "type": "stop", "stream": "a" })).await;
    assert_eq!(signal.next_of(&["error"]).await["code"], code("session_not_found"));

    assert_eq!(whip_refused(server, "a", NO_MEDIA).await, (400, "bad_sdp".into()));
    assert_eq!(whip_refused(server, "a", rubbish_sdp).await, (400, "bad_sdp".into()));
    assert_eq!(whip_refused(server, "a", "").await, (400, "bad_sdp".into()));
    assert_eq!(whip_refused(server, OUTSIDE_ENCODED, NO_MEDIA).await, (400, "bad_name".into()));
}

#[tokio::test]
async fn bad_input_fifty_times_over_gets_its_error_and_leaves_nothing_open() {
    let server = Server::start(&["hooks.on_record="]);
    one_round(&server, "rubbish").await;
    let open = server.open_files() + 2;
    let cut = offer().await;
    let cut = &cut[..cut.len() / 3];
    for _ in 0..50 {
        one_round(&server, cut.split("m=").next().unwrap()).await;
    }
    nothing_is_left(&server, open).await;
}

#[tokio::test]
async fn an_offer_of_five_megabytes_is_too_large_whichever_way_it_comes() {
    let server = Server::start(&["hooks.on_record="]);
    let open = server.open_files() + 2;
    let mut sdp = offer().await;
    while sdp.len() < 5 << 20 {
        sdp.push_str("a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n");
    }
    assert_eq!(whip_refused(&server, "large", &sdp).await, (413, "too_large".into()));
    let mut signal = socket(&server).await;
    let error = signal.publish("large", &sdp).await.unwrap_err();
    assert_eq!(error["code"], code("too_large"));
    assert_eq!(signal.next().await, Err(Some(4413)));
    drop(signal);
    nothing_is_left(&server, open).await;
}

#[tokio::test]
async fn a_path_as_a_name_is_refused_raw_and_encoded() {
    let server = Server::start(&["hooks.on_record="]);
    let sdp = offer().await;
    for name in [OUTSIDE_ENCODED, "..", "%2e%2e", ".%2e%2fx", "%5c..%5cx", "-rf", "a%00b", "a%0ab", "%ff"] {
        // A client takes dots out of a path by itself; a hostile one doesn't.
        let told = raw_post(&server, &format!("/whip/{name}"), &sdp).await;
        assert!(told.starts_with("HTTP/1.1 400") && told.contains("bad_name"), "{name}: {told}");
    }
    let mut signal = socket(&server).await;
    for name in [OUTSIDE, "..", ".hidden", "-rf", "a/b", "a\\b", "a\u{0}b", "a\nb", "", &"x".repeat(129)] {
        let error = signal.publish(name, &sdp).await.unwrap_err();
        assert_eq!(error["code"], code("bad_name"), "{name:?}: {error}");
    }
    let told = raw_get(&server, "/recordings/..%2f..%2f..%2fetc%2fpasswd").await;
    assert!(told.starts_with("HTTP/1.1 404") && told.contains("recording_not_found"), "{told}");
    Api::of(&server).nobody_is_on_air().await;
    assert_eq!(files_in(&server.records()), Vec::<String>::new());
}

async fn raw_post(server: &Server, path: &str, body: &str) -> String {
    let head = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", body.len());
    raw(server, &format!("POST {path} HTTP/1.1\r\n{head}"), body).await
}

async fn raw_get(server: &Server, path: &str) -> String {
    raw(server, &format!("GET {path} HTTP/1.1\r\n"), "").await
}

async fn raw(server: &Server, head: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = server.base.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{head}Host: {address}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn an_offer_without_a_codec_we_record_is_told_which_to_offer() {
    let server = Server::start(&["hooks.on_record="]);
    let h264 = video_only(|offer| offer.replace("VP8/90000", "H264/90000"))().await;
    let url = server.url("/whip/h264");
    let refused = Whip::publish(&url, &h264).await.map(drop).unwrap_err();
    let body: Value = serde_json::from_str(&refused.body).unwrap();
    assert_eq!((refused.status.as_u16(), &body["code"]), (422, &code("unsupported_codec")));
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("VP8") && message.contains("Opus"), "{message}");
    let error = socket(&server).await.publish("h264", &h264).await.unwrap_err();
    assert_eq!(error["code"], code("unsupported_codec"));
    // Sound alone of a sender that means to send pictures would be a surprise.
    let both = offer().await.replace("VP8/90000", "H264/90000");
    assert_eq!(whip_refused(&server, "both", &both).await, (422, "unsupported_codec".into()));
    Api::of(&server).nobody_is_on_air().await;
}

#[tokio::test]
async fn the_first_to_connect_has_the_name_and_the_other_is_told() {
    let server = Server::start(&["hooks.on_record="]);
    let api = Api::of(&server);
    let (first, first_offer) = Live::start(fake).await;
    let (second, second_offer) = Live::start(fake).await;
    let (mut first_signal, mut second_signal) = (socket(&server).await, socket(&server).await);
    let first_answer = first_signal.publish("one", &first_offer).await.unwrap();
    let second_answer = second_signal.publish("one", &second_offer).await.unwrap();
    assert_ne!(first_answer["resume"], second_answer["resume"]);
    // Whoever offered last may still be first.
    second.accept(second_answer["sdp"].as_str().unwrap()).await;
    second_signal.status("PUBLISHING").await;
    first.accept(first_answer["sdp"].as_str().unwrap()).await;
    let failed = first_signal.status("FAILED").await;
    assert_eq!(failed["reason"], code("stream_busy"), "{failed}");

    // From now on the offer itself is refused, whichever way it comes.
    let third = offer().await;
    let error = socket(&server).await.publish("one", &third).await.unwrap_err();
    assert_eq!(error["code"], code("stream_busy"), "{error}");
    assert_eq!(whip_refused(&server, "one", &third).await, (409, "stream_busy".into()));

    sends(&second, 60).await;
    let stopped = second_signal.stop("one").await;
    assert!(stopped["recording"].is_object(), "{stopped}");
    api.nobody_is_on_air().await;
    let recordings = api.recordings().await;
    assert_eq!(recordings.len(), 1, "{recordings:?}");
    // The name is free again.
    record(&server, "one", 30).await;
}

#[tokio::test]
async fn a_publisher_that_never_sends_ice_is_dropped_after_fifteen_seconds() {
    let server = Server::start(&["hooks.on_record=", "limits.max_streams=2"]);
    let mut signal = socket(&server).await;
    let began = Instant::now();
    let silent = offer().await;
    signal.publish("silent", &silent).await.unwrap();
    Whip::publish(&server.url("/whip/silent-too"), &silent).await.unwrap();
    assert_eq!(whip_refused(&server, "third", &silent).await, (503, "limit_reached".into()));
    let failed = signal.status("FAILED").await;
    let took = began.elapsed();
    println!("a silent publisher was dropped after {took:?}");
    assert!(failed["reason"].is_string() && failed["recording"].is_null(), "{failed}");
    assert!((14..17).contains(&took.as_secs()), "{took:?}");
    // Its place is free again.
    record(&server, "third", 30).await;
}

#[tokio::test]
async fn a_socket_that_says_nothing_holds_nobody_up_and_closing_it_frees_it() {
    let server = Server::start(&["hooks.on_record="]);
    record(&server, "before", 30).await;
    let open = server.open_files() + 2;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(socket(&server).await);
    }
    record(&server, "beside", 30).await;
    drop(silent);
    eventually("the sockets closed", SOON, async || (server.open_files() <= open).then_some(())).await;
}

/// What a request with these headers is answered, by status and code.
async fn with_headers(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request = Client::new().request(method, server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    (status, body["code"].clone())
}

#[tokio::test]
async fn foreign_pages_hosts_and_proxies_stay_outside() {
    let server = Server::start(&["hooks.on_record="]);
    let open = server.open_files() + 2;
    let origin = [("origin", "https://evil.example")];
    let host = [("host", "evil.example")];
    for _ in 0..10 {
        for (method, path) in [(Method::POST, "/whip/a"), (Method::DELETE, "/api/streams/a")] {
            assert_eq!(
                with_headers(&server, method, path, &origin).await,
                (403, code("origin_denied")),
                "{path}"
            );
        }
        for path in ["/", "/api/recordings", "/whip/a", "/signal"] {
            for headers in [&host[..], &[("x-forwarded-for", "203.0.113.9")], &[("forwarded", "for=x")]] {
                let told = with_headers(&server, Method::GET, path, headers).await;
                assert_eq!(told, (401, code("unauthorized")), "{path} {headers:?}");
            }
        }
        for (name, value, status) in [
            (header::ORIGIN, "https://evil.example", 403),
            (header::ORIGIN, "null", 403),
            (header::HOST, "evil.example", 401),
        ] {
            let mut request = server.ws_url("/signal").into_client_request().unwrap();
            request.headers_mut().insert(name.clone(), value.parse().unwrap());
            match tokio_tungstenite::connect_async(request).await {
                Err(tungstenite::Error::Http(response)) => assert_eq!(response.status().as_u16(), status),
                other => panic!("{name}: {value} was answered {other:?}"),
            }
        }
    }
    nothing_is_left(&server, open).await;
}

#[tokio::test]
async fn garbage_on_the_media_port_harms_no_recording() {
    let server = Server::start(&["hooks.on_record="]);
    let on_air = on_air(&server, "steady").await;
    let sdp = on_air.answer["sdp"].as_str().unwrap().to_owned();
    let candidate = sdp.lines().find(|line| line.starts_with("a=candidate:")).unwrap();
    let words: Vec<&str> = candidate.split(' ').collect();
    let target = format!("{}:{}", words[4], words[5]);
    let ufrag = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();

    let noise = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let rounds = 400;
    for round in 0..rounds {
        for datagram in garbage(ufrag, round) {
            noise.send_to(&datagram, &target).await.unwrap();
        }
        if round % 20 == 0 {
            on_air.sends(2).await;
        }
    }
    on_air.sends(60).await;
    on_air.live.with(|publisher| publisher.stop_sending()).await;
    let (video, audio) =
        on_air.live.with(|publisher| (publisher.sent_of(Video), publisher.sent_of(Audio))).await;
    let recording = on_air.stop().await;
    let manifest = Api::of(&server).recording(recording["id"].as_str().unwrap()).await;
    assert_eq!(manifest["gaps"], json!([]), "{manifest}");
    let file = server.records().join(recording["file"].as_str().unwrap());
    for (kind, sent) in [("video", video), ("audio", audio)] {
        let kept: Vec<_> = judge::packets_of(&file, kind).into_iter().map(|packet| packet.sha256).collect();
        let sent: Vec<_> = sent.iter().map(|sent| judge::sha256(&sent.data)).collect();
        let start = sent.iter().position(|hash| *hash == kept[0]).expect("the first frame was sent");
        assert_eq!(kept[..], sent[start..], "{kind}: {} kept, {} sent", kept.len(), sent.len());
        assert!(start <= 10, "{kind} began {start} frames late");
    }
}

/// STUN, DTLS, RTP, RTCP and nothing at all, well and badly formed, none of it from the publisher.
fn garbage(ufrag: &str, round: usize) -> Vec<Vec<u8>> {
    let random = |length: usize| (0..length).map(|_| rand::random::<u8>()).collect::<Vec<u8>>();
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    request.extend(random(12));
    let user = format!("{ufrag}:x");
    request.extend([0, 6, 0, user.len() as u8]);
    request.extend(user.as_bytes());
    request.extend(vec![0; user.len().next_multiple_of(4) - user.len()]);
    let mut lying = request.clone();
    lying[3] = (request.len() - 20) as u8;
    lying.extend([0, 8, 0xff, 0xff]);
    let mut integrity = request.clone();
    integrity.extend([0, 8, 0, 20]);
    integrity.extend(random(20));
    integrity[3] = (integrity.len() - 20) as u8;
    let mut answer = vec![1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    answer.extend(random(12));
    let mut rtp = vec![0x80, 96];
    rtp.extend(random(60));
    let mut rtcp = vec![0x80, 200, 0, 6];
    rtcp.extend(random(24));
    let mut dtls = vec![22, 254, 253];
    dtls.extend(random(80));
    vec![request, lying, integrity, answer, rtp, rtcp, dtls, Vec::new(), random(1 + round % 1400), vec![0; 3]]
}

#[tokio::test]
async fn whip_sessions_answer_wrong_requests_as_the_rfc_says() {
    let server = Server::start(&["hooks.on_record="]);
    let (live, whip, _) = whip_on_air(&server, "whip", None).await;
    let client = Client::new();
    let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    let patch = async |url: &str, if_match: Option<&str>, kind: &str| {
        let mut request = client.patch(url).header(header::CONTENT_TYPE, kind).body(fragment);
        if let Some(tag) = if_match {
            request = request.header(header::IF_MATCH, tag);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let kind = "application/trickle-ice-sdpfrag";
    assert_eq!(patch(&whip.location, None, kind).await, 428);
    assert_eq!(patch(&whip.location, Some("\"stale\""), kind).await, 412);
    assert_eq!(patch(&whip.location, Some(&format!("W/{}", whip.etag)), kind).await, 412);
    assert_eq!(patch(&whip.location, Some("\"*\""), kind).await, 412);
    assert_eq!(patch(&whip.location, Some(&format!("\"stale\", {}", whip.etag)), kind).await, 204);
    assert_eq!(patch(&whip.location, Some(&whip.etag), "application/json").await, 415);
    assert_eq!(patch(&whip.location, Some(&whip.etag), kind).await, 204);
    let unknown = server.url("/whip/whip/nobody");
    assert_eq!(patch(&unknown, Some(&whip.etag), kind).await, 404);
    assert_eq!(client.delete(&unknown).send().await.unwrap().status().as_u16(), 404);
    sends(&live, 30).await;

    let location = whip.location.clone();
    whip.delete().await.unwrap();
    let api = Api::of(&server);
    let manifest = api.sealed(SOON).await;
    assert_eq!(manifest["end_reason"], "stopped");
    assert_eq!(client.delete(&location).send().await.unwrap().status().as_u16(), 404);
    assert_eq!(patch(&location, Some("*"), kind).await, 404);
    let id = manifest["id"].as_str().unwrap();
    for (call, status) in [(1, StatusCode::NO_CONTENT), (2, StatusCode::NO_CONTENT)] {
        let told = api.call(Method::DELETE, &format!("/api/recordings/{id}")).await;
        assert_eq!(told.0, status, "call {call}: {}", told.1);
    }
    assert!(api.recordings().await.is_empty());
    let (status, body) = api.call(Method::DELETE, "/api/streams/whip").await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &code("stream_not_found")));
    let kept = files_in(&server.records());
    assert!(kept.len() == 1 && kept[0].ends_with(".json"), "{kept:?}");
    drop(live);
}

#[tokio::test]
async fn a_wrong_resume_secret_opens_no_door() {
    let server = Server::start(&["hooks.on_record="]);
    let holder = on_air(&server, "held").await;
    let sdp = offer().await;
    for resume in ["guess", &holder.resume[1..]] {
        let mut signal = socket(&server).await;
        signal.send(&json!({ "type": "publish", "stream": "held", "sdp": sdp, "resume": resume })).await;
        let error = signal.next_of(&["answer", "error"]).await;
        assert_eq!(error["code"], code("resume_expired"), "{error}");
    }
    // The right secret for another name is no secret at all.
    let mut signal = socket(&server).await;
    let other = json!({ "type": "publish", "stream": "other", "sdp": sdp, "resume": holder.resume });
    signal.send(&other).await;
    assert_eq!(signal.next_of(&["answer", "error"]).await["code"], code("resume_expired"));
    let back = on_air_again(&server, "held", Some(&holder.resume)).await;
    back.sends(30).await;
    back.stop().await;
    drop(holder);
    eventually("the name is free", Duration::from_secs(2), async || {
        Api::of(&server).streams().await.is_empty().then_some(())
    })
    .await;
}
