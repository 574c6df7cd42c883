//! Several event loops behind the one media port (`webrtc.loops`).

use crate::support::judge;
use crate::support::publisher::Publisher;
use crate::support::server::Server;
use crate::support::user::{Api, SOON, eventually, on_air, sends};
use str0m::media::MediaKind::{Audio, Video};

/// The hook would only cost time.
const SETTINGS: [&str; 2] = ["hooks.on_record=", "webrtc.loops=2"];
/// Half of all ports lead to the other loop.
const PORTS: usize = 64;

/// How many sessions each loop has.
async fn sessions(server: &Server) -> [u64; 2] {
    let text = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    [0, 1].map(|at| {
        let line = format!("onrecord_media_loop_sessions{{loop=\"{at}\"}} ");
        let found = text.lines().find_map(|found| found.strip_prefix(&line));
        found.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_are_spread_over_the_loops_and_all_is_recorded() {
    const PUBLISHERS: usize = 24;
    let server = Server::start(&SETTINGS);
    let mut all = Vec::new();
    for number in 0..PUBLISHERS {
        all.push(on_air(&server, &format!("spread-{number}")).await);
    }
    // Each is where its own datagrams come: all 24 on one side is what one run in eight million does.
    let spread = sessions(&server).await;
    println!("{spread:?}");
    assert_eq!(spread.iter().sum::<u64>(), PUBLISHERS as u64);
    assert!(spread.iter().all(|sessions| *sessions > 0), "{spread:?}");
    for on_air in &all {
        sends(&on_air.live, 30).await;
    }
    for mut on_air in all {
        on_air.live.with(Publisher::stop_sending).await;
        let status = on_air.signal.stop(&on_air.name).await;
        let file = server.records().join(status["recording"]["file"].as_str().unwrap());
        let publisher = on_air.live.stop().await;
        assert_eq!(
            judge::packets_of(&file, "video").len(),
            publisher.sent_of(Video).len(),
            "{}",
            on_air.name
        );
        assert_eq!(
            judge::packets_of(&file, "audio").len(),
            publisher.sent_of(Audio).len(),
            "{}",
            on_air.name
        );
    }
    let none = async || (sessions(&server).await == [0, 0]).then_some(());
    eventually("no loop has a session that is over", SOON, none).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_whose_address_leads_to_another_loop_goes_there_and_is_recorded_on() {
    let server = Server::start(&SETTINGS);
    let api = Api::of(&server);
    let mut on_air = on_air(&server, "moves").await;
    sends(&on_air.live, 30).await;
    let before = sessions(&server).await;
    let (mut ports, mut moves, mut now) = (0, 0, before);
    while moves < 2 {
        ports += 1;
        assert!(ports < PORTS, "{ports} other ports, and it is still at {now:?}");
        on_air.live.rebind().await;
        // More than the session takes to follow, and to go over.
        sends(&on_air.live, 60).await;
        let then = std::mem::replace(&mut now, sessions(&server).await);
        assert_eq!(now.iter().sum::<u64>(), 1, "{now:?}");
        moves += usize::from(then != now);
    }
    println!("{moves} moves with {ports} ports");
    on_air.live.with(Publisher::stop_sending).await;
    let status = on_air.signal.stop("moves").await;
    assert_eq!(status["reason"], "stopped", "{status}");
    let manifest = api.sealed(SOON).await;
    let file = server.records().join(manifest["file"].as_str().unwrap());
    let publisher = on_air.live.stop().await;
    assert_eq!(judge::packets_of(&file, "video").len(), publisher.sent_of(Video).len(), "{manifest}");
    // Sound isn't asked for again: what came from a port before that was proven to be the peer's is lost, as on one
    // loop, and nothing else.
    let gaps: Vec<_> = manifest["gaps"].as_array().unwrap().iter().map(|gap| &gap["track"]).collect();
    assert!(gaps.len() <= ports && gaps.iter().all(|track| **track == 2), "{ports} ports: {manifest}");
}
