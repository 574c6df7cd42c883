//! How a session ends that nobody stopped (D2).

use super::*;
use crate::support::network::{Datagram, Endpoint, rtp_payload_type};
use onrecord::webrtc::session::SessionEnd;

/// Why the session ended, and how long after `since`.
fn gone(network: &Net, since: Instant) -> (SessionEnd, Duration) {
    let (at, gone) = network.server.ended.expect("the session is over");
    println!("{gone:?} after {:?}", at - since);
    (gone, at - since)
}

#[test]
fn a_peer_that_never_sends_anything_is_dropped_after_15_s() {
    let mut network = answered(400, fake_media(), str::to_owned);
    let start = network.now();
    network.up.loss = 1.0;
    network.run_for(Duration::from_secs(20));
    let (why, after) = gone(&network, start);
    assert_eq!((why, after.as_millis()), (SessionEnd::NeverConnected, 15_000));
}

#[test]
fn a_peer_that_never_finishes_dtls_is_dropped_after_15_s() {
    let mut network = answered(401, fake_media(), str::to_owned);
    let start = network.now();
    network.up.filter = Some(Box::new(|_, datagram| !(20..64).contains(&datagram[0])));
    network.run_for(Duration::from_secs(20));
    let (why, after) = gone(&network, start);
    assert_eq!((why, after.as_millis()), (SessionEnd::NeverConnected, 15_000));
}

#[test]
fn a_peer_that_falls_silent_is_gone_after_10_s() {
    let mut network = connect(402, fake_media());
    network.run_for(Duration::from_secs(5));
    let start = network.now();
    network.up.loss = 1.0;
    network.run_for(Duration::from_secs(15));
    let (why, after) = gone(&network, start);
    assert_eq!(why, SessionEnd::Vanished);
    assert!(after.abs_diff(Duration::from_secs(10)) < Duration::from_millis(100), "{after:?}");
}

#[test]
fn a_peer_without_media_is_ended_after_the_idle_timeout_and_not_before() {
    let mut network = connect(403, fake_media());
    network.run_for(Duration::from_secs(5));
    network.publisher.stop_sending();
    let start = network.now();
    network.run_for(Duration::from_secs(59));
    assert_eq!(network.server.ended, None);
    network.run_for(Duration::from_secs(3));
    let (why, after) = gone(&network, start);
    assert_eq!(why, SessionEnd::Idle);
    assert!(after.abs_diff(Duration::from_secs(60)) < Duration::from_millis(100), "{after:?}");
}

#[test]
fn a_peer_that_closes_is_gone_at_once() {
    let mut network = connect(404, fake_media());
    network.run_for(Duration::from_secs(5));
    let start = network.now();
    network.publisher.close();
    network.run_for(Duration::from_secs(1));
    let (why, after) = gone(&network, start);
    assert_eq!(why, SessionEnd::Closed);
    assert!(after < Duration::from_millis(100), "{after:?}");
    let (sent, kept) = counts(&network, Video);
    assert!(sent - kept <= 2, "{kept} of {sent} pictures");
}

/// Stopped over a round trip of 400 ms: of the last 50 ms a packet of a picture is lost, and the word takes as
/// long as media does. Gives how long after the word the session ended.
fn stopped_with_a_hole(seed: u64, repaired: bool) -> (Net, Duration) {
    let mut network = connect(seed, fake_media());
    network.both(|link| link.latency = Duration::from_millis(200));
    network.run_for(Duration::from_secs(5));
    let rtx = network.publisher.rtx_payload_type().unwrap();
    let mut lost = false;
    network.up.filter = Some(Box::new(move |_, datagram| match rtp_payload_type(datagram) {
        Some(kind) if kind == rtx => repaired,
        // Packets of sound are small.
        Some(_) if datagram.len() > 500 => std::mem::replace(&mut lost, true),
        _ => true,
    }));
    network.run_for(Duration::from_millis(50));
    network.publisher.stop_sending();
    network.run_for(Duration::from_millis(200));
    let word = network.now();
    network.server.session.stop(word);
    network.run_for(Duration::from_secs(3));
    let (why, after) = gone(&network, word);
    assert_eq!(why, SessionEnd::Stopped);
    assert_kept(&network, Audio, 100.0);
    assert_one_stream(&network);
    (network, after)
}

#[test]
fn what_was_lost_right_before_the_word_to_stop_is_waited_for() {
    let (network, after) = stopped_with_a_hole(420, true);
    assert_kept(&network, Video, 100.0);
    assert!(after < Duration::from_secs(1), "{after:?}");
}

#[test]
fn a_hole_that_nobody_fills_keeps_a_stopped_session_for_a_second_and_is_told() {
    let (network, after) = stopped_with_a_hole(421, false);
    assert_eq!(after, Duration::from_secs(1));
    let (sent, kept) = counts(&network, Video);
    println!("{kept} of {sent} pictures");
    assert!((1..=2).contains(&(sent - kept)), "{kept} of {sent} pictures");
    let lost = |event: &Event| matches!(event, Event::Lost { track: 0, packets: 1 });
    assert!(network.server.media.iter().any(|(_, event)| lost(event)), "the loss is not told");
}

#[test]
fn a_session_that_is_stopped_with_nothing_missing_ends_300_ms_later() {
    let mut network = connect(422, fake_media());
    network.run_for(Duration::from_secs(5));
    finish(&mut network);
    let word = network.now();
    network.server.session.stop(word);
    network.run_for(Duration::from_secs(1));
    assert_eq!(gone(&network, word), (SessionEnd::Stopped, Duration::from_millis(300)));
}

#[test]
fn a_forged_goodbye_ends_nothing() {
    let mut network = connect(405, fake_media());
    network.run_for(Duration::from_secs(2));
    let now = network.now();
    // A plaintext DTLS 1.2 alert of epoch 0: close_notify, from the peer's own address.
    let bytes = vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 1, 0];
    network.server.receive(now, Datagram { from: inside(), to: server(), bytes });
    network.run_for(Duration::from_secs(2));
    assert_eq!(network.server.ended, None);
    finish(&mut network);
    assert_kept(&network, Video, 100.0);
}

/// Connects over a network that loses this share; the times it took to the first frame, sorted.
fn handshakes(seed: u64, loss: f64, rewrite: impl Fn(&str) -> String) -> Vec<Duration> {
    let connect = |seed| {
        let mut network = answered(seed, fake_media(), &rewrite);
        network.both(|link| link.loss = loss);
        let flows = |net: &Net| frames(net).next().is_some();
        assert!(network.run_until_true(Duration::from_secs(15), flows), "seed {seed}: not in 15 s");
        network.elapsed()
    };
    let mut times: Vec<Duration> = (seed..seed + 40).map(connect).collect();
    times.sort();
    println!("first frame at loss {loss}: median {:?}, at most {:?}", times[20], times[39]);
    times
}

#[test]
fn a_handshake_over_a_bad_network_still_comes_about() {
    let times = handshakes(410, 0.1, str::to_owned);
    assert!(times[39] < Duration::from_secs(10), "{:?}", times[39]);
}

#[test]
fn a_handshake_with_a_peer_that_insists_on_being_the_client_comes_about() {
    // The client's timers are its own, and back off: at 10 % one in some hundred takes over 15 s.
    handshakes(460, 0.05, |offer| offer.replace("a=setup:actpass", "a=setup:active"));
}
