//! Publishers whose network lets no UDP through: WebRTC over TCP connections (RFC 6544, RFC 4571).

use crate::support::judge;
use crate::support::live::Live;
use crate::support::publisher::{Publisher, Sent};
use crate::support::server::Server;
use crate::support::signalling::{Signal, Whip};
use crate::support::user::{Api, OnAir, SOON, eventually, fake, on_air, sends};
use crate::support::wire::framed;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use str0m::media::MediaKind::{self, Audio, Video};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The hook would only cost time.
const QUIET: &str = "hooks.on_record=";

/// A publisher on air that has nothing but TCP.
async fn on_air_by_tcp(server: &Server, name: &str) -> OnAir {
    let (live, offer) = Live::start_tcp(fake);
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    signal.send(&json!({ "type": "publish", "stream": name, "sdp": offer })).await;
    let answer = signal.next_of(&["answer", "error"]).await;
    assert_eq!(answer["type"], "answer", "{answer}");
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    let resume = answer["resume"].as_str().unwrap().to_owned();
    OnAir { live, signal, name: name.to_owned(), resume, answer }
}

/// Restarts ICE as the library does after a change of the network.
async fn restart_ice(on_air: &mut OnAir) {
    let offer = on_air.live.with(Publisher::restart_ice).await;
    let message = json!({ "type": "publish", "stream": on_air.name, "sdp": offer, "resume": on_air.resume });
    on_air.signal.send(&message).await;
    let answer = on_air.signal.next_of(&["answer", "error"]).await;
    assert_eq!(answer["type"], "answer", "{answer}");
    on_air.live.accept(answer["sdp"].as_str().unwrap()).await;
}

/// Where publishers are told to connect.
fn passive(answer: &Value) -> SocketAddr {
    let sdp = answer["sdp"].as_str().unwrap();
    let line = sdp.lines().find(|line| line.contains(" tcptype passive")).unwrap_or_else(|| panic!("{sdp}"));
    let words: Vec<&str> = line.split(' ').collect();
    format!("{}:{}", words[4], words[5]).parse().unwrap()
}

/// A count of `/metrics`.
async fn count(server: &Server, line: &str) -> u64 {
    let text = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
}

async fn connections(server: &Server) -> u64 {
    count(server, "onrecord_media_port_connections").await
}

async fn cut(server: &Server, why: &str) -> u64 {
    count(server, &format!("onrecord_media_port_connections_cut_total{{why=\"{why}\"}}")).await
}

/// How many of the frames sent are not in the file; those that are have to be in order, each once.
fn missing(file: &Path, sent: &[Sent], kind: MediaKind) -> usize {
    let sent: Vec<_> =
        sent.iter().filter(|sent| sent.kind == kind).map(|sent| judge::sha256(&sent.data)).collect();
    let name = if kind == Video { "video" } else { "audio" };
    let kept: Vec<_> = judge::packets_of(file, name).into_iter().map(|packet| packet.sha256).collect();
    let found: Vec<_> = sent.iter().filter(|hash| kept.contains(hash)).cloned().collect();
    assert_eq!(kept, found, "{name}: in order, each once");
    println!("{name}: {} of {} frames", kept.len(), sent.len());
    sent.len() - kept.len()
}

/// Stops; gives the file, and what was sent.
async fn stopped(server: &Server, on_air: OnAir) -> (std::path::PathBuf, Vec<Sent>, Value) {
    let OnAir { live, mut signal, name, .. } = on_air;
    live.with(|publisher| publisher.stop_sending()).await;
    let recording = signal.stop(&name).await["recording"].clone();
    let manifest = Api::of(server).recording(recording["id"].as_str().unwrap()).await;
    let file = server.records().join(manifest["file"].as_str().unwrap());
    judge::decode(&file).unwrap();
    let sent = live.stop().await.sent().to_vec();
    (file, sent, manifest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_has_only_tcp_is_recorded_frame_by_frame() {
    let server = Server::start(&[QUIET]);
    let on_air = on_air_by_tcp(&server, "tcp").await;
    let candidates: Vec<&str> = on_air.answer["sdp"]
        .as_str()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .collect();
    assert_eq!(candidates.len(), 2, "UDP and TCP: {candidates:?}");
    assert!(candidates[0].contains(" udp ") && candidates[1].contains(" tcp "), "{candidates:?}");
    assert_eq!(connections(&server).await, 1);
    on_air.sends(200).await;
    let (file, sent, manifest) = stopped(&server, on_air).await;
    assert_eq!((missing(&file, &sent, Video), missing(&file, &sent, Audio)), (0, 0), "{manifest}");
    assert_eq!(manifest["gaps"], json!([]), "{manifest}");
    eventually("the connection is closed with its session", SOON, async || {
        (connections(&server).await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_closes_loses_nothing_that_came_before_its_end_or_after_the_next_ones_check() {
    let server = Server::start(&[QUIET]);
    let mut on_air = on_air_by_tcp(&server, "again").await;
    for restarts in [true, false] {
        on_air.sends(60).await;
        on_air.live.close_connection().await;
        if restarts {
            restart_ice(&mut on_air).await;
        }
        eventually("it has another connection", SOON, async || {
            (connections(&server).await == 1).then_some(())
        })
        .await;
    }
    on_air.sends(60).await;
    let (file, sent, manifest) = stopped(&server, on_air).await;
    assert_eq!((missing(&file, &sent, Video), missing(&file, &sent, Audio)), (0, 0), "{manifest}");
    assert_eq!(manifest["gaps"], json!([]), "{manifest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reset_pictures_that_were_under_way_are_sent_again() {
    let server = Server::start(&[QUIET]);
    let mut on_air = on_air_by_tcp(&server, "reset").await;
    on_air.sends(60).await;
    on_air.live.reset_connection().await;
    restart_ice(&mut on_air).await;
    on_air.sends(60).await;
    let (file, sent, manifest) = stopped(&server, on_air).await;
    assert_eq!(missing(&file, &sent, Video), 0, "{manifest}");
    let lost = manifest["tracks"][1]["lost"].as_u64().unwrap() as usize;
    assert_eq!(missing(&file, &sent, Audio), lost, "nobody asks for sound again: {manifest}");
}

/// A STUN binding request for a session that there isn't.
fn stun_for_nobody() -> Vec<u8> {
    let mut request = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    request.extend([0, 6, 0, 8]);
    request.extend(b"nobody:x");
    request
}

/// Waits for the server to close a connection; what it says before.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await;
    // A reset is an end too.
    let _ = read.expect("the server closes it");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_strangers_are_cut_and_cost_no_publisher_anything() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let server = Server::start(&[QUIET]);
    let (udp, tcp) = (on_air(&server, "udp").await, on_air_by_tcp(&server, "tcp").await);
    let port = passive(&tcp.answer);
    let before = server.open_files();

    for (what, why) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "bad_frame"),
        (vec![0, 0], "bad_frame"),
        (framed(&stun_for_nobody()), "unknown"),
        (framed(&[128; 100]), "unknown"),
        (vec![0, 9, 1], "unauthenticated"),
    ] {
        let counted = cut(&server, why).await;
        let mut stranger = TcpStream::connect(port).await.unwrap();
        stranger.write_all(&what).await.unwrap();
        assert_eq!(closed(stranger).await, b"", "{why}");
        assert_eq!(cut(&server, why).await, counted + 1, "{why}: {what:?}");
    }

    let began = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(port).await.unwrap());
    }
    let open = connections(&server).await;
    println!("1000 idle connections after {:?}: {open} are open", began.elapsed());
    assert!(open <= 1 + 512, "{open} are open");
    for stream in idle {
        closed(stream).await;
    }
    println!("all are closed after {:?}", began.elapsed());
    let publishers_alone = async || (connections(&server).await == 1).then_some(());
    eventually("the publisher's connection is the only one", SOON, publishers_alone).await;
    // What asks for the counts may keep its own connection.
    let files = server.open_files();
    assert!(files <= before + 8, "{files} files are open, {before} were before");
    let late = on_air_by_tcp(&server, "late").await;
    sends(&late.live, 30).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    for on_air in [udp, tcp, late] {
        let (file, sent, manifest) = stopped(&server, on_air).await;
        assert_eq!((missing(&file, &sent, Video), missing(&file, &sent, Audio)), (0, 0), "{manifest}");
        assert_eq!(manifest["gaps"], json!([]), "{manifest}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whip_clients_are_recorded_over_tcp_and_told_of_it_again_when_they_restart_ice() {
    let server = Server::start(&[QUIET]);
    let (live, offer) = Live::start_tcp(fake);
    let (mut whip, answer) = Whip::publish(&server.url("/whip/tcp"), &offer).await.unwrap();
    live.accept(&answer).await;
    let api = Api::of(&server);
    api.stream_is("tcp", "PUBLISHING").await;
    sends(&live, 60).await;
    let fragment = "a=ice-ufrag:anew\r\na=ice-pwd:anewanewanewanewanewanew\r\n";
    let restarted = whip.restart(fragment).await.unwrap();
    let candidates = |sdp: &str| {
        sdp.lines().filter(|line| line.starts_with("a=candidate:")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(candidates(&restarted), candidates(&answer));
    assert!(restarted.contains(" tcptype passive"), "{restarted}");
    sends(&live, 30).await;
    live.with(|publisher| publisher.stop_sending()).await;
    whip.delete().await.unwrap();
    let manifest = api.sealed(SOON).await;
    let sent = live.stop().await.sent().to_vec();
    let file = server.records().join(manifest["file"].as_str().unwrap());
    assert_eq!((missing(&file, &sent, Video), missing(&file, &sent, Audio)), (0, 0), "{manifest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tcp_none_is_told_and_none_is_taken() {
    let server = Server::start(&[QUIET, "webrtc.tcp=false"]);
    let on_air = on_air(&server, "udp").await;
    let sdp = on_air.answer["sdp"].as_str().unwrap();
    let candidates: Vec<_> = sdp.lines().filter(|line| line.starts_with("a=candidate:")).collect();
    assert!(candidates.len() == 1 && candidates[0].contains(" udp "), "{candidates:?}");
    let words: Vec<&str> = candidates[0].split(' ').collect();
    let port = format!("{}:{}", words[4], words[5]);
    assert!(TcpStream::connect(&port).await.is_err(), "it listens on {port}");
}
