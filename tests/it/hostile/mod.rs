//! Everything that strangers can do to the server at once, while one publisher records.
//!
//! All of it comes from this machine, which has no share of its own in the limits: so it meets those for
//! everybody, which are the harder ones to live under.

mod attacks;
mod floods;

use crate::support::judge;
use crate::support::live::Live;
use crate::support::publisher::{Config, TrackConfig};
use crate::support::server::Server;
use crate::support::signalling::{Signal, Whip};
use crate::support::source::{FakeAudio, FakeVideo};
use crate::support::user::{Api, Script, eventually, record, sends};
use crate::support::viewer::{Seen, Viewer};
use attacks::Attack;
use floods::Target;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use str0m::media::MediaKind::{Audio, Video};

/// What the server may keep of all that: twice the unfinished messages it allows for, since a growing
/// buffer is copied, and some for sockets and sessions.
const MAY_GROW: u64 = 400 << 20;
/// After the last of it, everything is as before.
const RECOVERY: Duration = Duration::from_secs(60);

fn hd(local: SocketAddr) -> Config {
    Config {
        video: Some(TrackConfig::new(FakeVideo::hd())),
        audio: Some(TrackConfig::new(Box::<FakeAudio>::default())),
        ..Config::new(local)
    }
}

/// Thousands of sockets are files of this process too.
fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// The publisher whose every frame has to be there in the end.
struct Honest {
    live: Live,
    whip: Whip,
    target: Target,
}

impl Honest {
    async fn on_air(server: &Server) -> Self {
        let (live, offer) = Live::start(hd).await;
        let (whip, answer) = Whip::publish(&server.url("/whip/honest"), &offer).await.unwrap();
        live.accept(&answer).await;
        Api::of(server).stream_is("honest", "PUBLISHING").await;
        Self { live, whip, target: Target::new(&offer, &answer) }
    }

    /// Stops; holds what was kept against what was sent. Pictures that the kernel had no room for are sent
    /// again, so every one has to be there, whatever was dropped. Nobody can ask for sound again (browsers
    /// offer no retransmission for it): if something was dropped, what is missing has to be what the
    /// manifest says, and nothing otherwise.
    async fn ends_whole(self, server: &Server) {
        self.live.with(|publisher| publisher.stop_sending()).await;
        let (video, audio, resent) = self
            .live
            .with(|publisher| (publisher.sent_of(Video), publisher.sent_of(Audio), publisher.resent()))
            .await;
        self.whip.delete().await.unwrap();
        let api = Api::of(server);
        let manifest = eventually("its recording", RECOVERY, async || {
            let all = api.recordings().await;
            all.into_iter().find(|one| one["stream"] == "honest" && one["state"] == "sealed")
        })
        .await;
        println!(
            "the publisher sent {} pictures and {} sounds; {resent} packets were asked for and sent again; \
             {} bytes in {} ms, gaps {}",
            video.len(),
            audio.len(),
            manifest["bytes"],
            manifest["duration_ms"],
            manifest["gaps"],
        );
        let dropped = self.target.dropped();
        assert!(dropped > 0 || manifest["gaps"] == json!([]), "{manifest}");
        let lost = manifest["tracks"][1]["lost"].as_u64().unwrap() as usize;
        println!("{dropped} datagrams of everybody's were dropped by the kernel, {lost} sounds lost by that");
        let file = server.records().join(manifest["file"].as_str().unwrap());
        for (kind, sent, lost) in [("video", video, 0), ("audio", audio, if dropped > 0 { lost } else { 0 })]
        {
            let sent: Vec<_> = sent.iter().map(|sent| judge::sha256(&sent.data)).collect();
            is_whole(&file, kind, &sent, lost);
        }
    }
}

/// Every frame from the first kept one on but so many, in order, each once.
fn is_whole(file: &Path, kind: &str, sent: &[String], lost: usize) {
    let kept: Vec<_> = judge::packets_of(file, kind).into_iter().map(|packet| packet.sha256).collect();
    let start = sent.iter().position(|hash| *hash == kept[0]).expect("the first frame was sent");
    let expected: Vec<_> = sent[start..].iter().filter(|hash| kept.contains(hash)).cloned().collect();
    assert_eq!(sent.len() - start - expected.len(), lost, "{kind} frames missing of {}", sent.len() - start);
    assert_eq!(kept, expected, "{kind}: in order, each once");
    assert!(start <= 10, "{kind} began {start} frames late");
}

/// Says what the server uses after each attack.
struct Ledger<'a> {
    server: &'a Server,
    began: Instant,
}

impl Ledger<'_> {
    fn note(&self, what: &str) {
        let Self { server, began } = self;
        println!(
            "{:5.1} s  {:4} MiB now, {:4} MiB at most, {:5} files, {:5.1} s of CPU  {what}",
            began.elapsed().as_secs_f64(),
            server.memory() >> 20,
            server.peak_memory() >> 20,
            server.open_files(),
            server.cpu().as_secs_f64(),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_strangers_do_a_publisher_keeps_every_frame_and_the_server_recovers() {
    many_files();
    let script = Script::new("echo \"$1\" >> \"$here/ran\"");
    let server = Server::start(&[&script.setting(), "limits.max_connections=2500", "log.level=warn"]);
    record(&server, "before", 30).await;
    let (files, memory) = (server.open_files() + 4, server.memory());
    let ledger = Ledger { server: &server, began: Instant::now() };
    ledger.note("before");

    let honest = Honest::on_air(&server).await;
    let idle = Attack::of_silence(&server).await;
    ledger.note(&format!("{} connections that say nothing, little or half of it", idle.len()));
    let (taken, refused) = attacks::half_open_handshakes(&server, 1000).await;
    ledger.note(&format!("1000 offers that nobody follows: {taken} answered, {refused} told to come later"));
    let rounds = 1 + ledger.began.elapsed().as_secs() as usize / 15;
    assert!((1..=200 * rounds).contains(&taken), "{taken} answered, {refused} refused");
    for (kind, flood) in floods::all(&honest.target) {
        let drops = honest.target.dropped();
        let sent = floods::run(honest.target.address, flood, Duration::from_secs(3)).await;
        let lost = honest.target.dropped() - drops;
        ledger
            .note(&format!("{sent} datagrams of {kind} in 3 s; the kernel dropped {lost} for want of room"));
    }
    let offer = Live::start(hd).await.1;
    eventually("the half-open handshakes are over", Duration::from_secs(30), async || {
        Whip::publish(&server.url("/whip/next"), &offer).await.ok()
    })
    .await;
    ledger.note("offers are answered again");
    attacks::oversize(&server).await;
    ledger.note("everything oversize");
    let cut = attacks::unfinished_messages(&server).await;
    ledger.note(&format!("64 messages of which 7 MiB came and the end never: {cut} were cut"));
    assert!(cut > 0, "nobody was cut");
    let turned_away = attacks::crowd(&server, 3000).await;
    ledger.note(&format!("3000 connections more: at least {turned_away} were turned away"));
    assert!(turned_away > 0, "nobody was turned away");

    let kept_open = idle.all_cut(RECOVERY).await;
    ledger.note("the server has cut all that were silent");
    assert_eq!(kept_open, 0, "silent connections are still open");
    sends(&honest.live, 60).await;
    let (peak, grown) = (server.peak_memory(), server.peak_memory().saturating_sub(memory));
    recovers(&server).await;
    honest.ends_whole(&server).await;
    eventually("as many files as before", RECOVERY, async || (server.open_files() <= files).then_some(()))
        .await;
    ledger.note("after");
    println!("memory: {} MiB before, {} MiB at most", memory >> 20, peak >> 20);
    assert!(grown < MAY_GROW, "it grew by {} MiB", grown >> 20);
    let hooks = eventually("every hook", RECOVERY, async || {
        let ran = script.left("ran");
        (ran.lines().count() == 3).then_some(ran)
    });
    println!("hooks ran for {:?}", hooks.await.lines().collect::<Vec<_>>());
}

/// A new publisher and a new viewer are served at once.
async fn recovers(server: &Server) {
    let began = Instant::now();
    let (live, offer) = Live::start(hd).await;
    let mut signal = Signal::connect(&server.ws_url("/signal")).await;
    let answer = signal.publish("after", &offer).await.unwrap();
    live.accept(answer["sdp"].as_str().unwrap()).await;
    signal.status("PUBLISHING").await;
    let mut viewer = Viewer::connect(&server.ws_url("/live/after"), None).await;
    while !matches!(viewer.next().await, Seen::Binary(_)) {}
    let took = began.elapsed();
    println!("a new publisher was on air and seen {took:?} after it came");
    assert!(took < Duration::from_secs(10), "{took:?}");
    live.with(|publisher| publisher.stop_sending()).await;
    let stopped: Value = signal.stop("after").await;
    assert!(stopped["recording"].is_object(), "{stopped}");
}
