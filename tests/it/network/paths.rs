//! The publisher's address changes, and the stream goes on.

use super::*;
use crate::support::network::{Datagram, Endpoint, rtp_payload_type};
use crate::support::sdp;

fn assert_goes_on(network: &mut Net, what: &str) {
    let before = counts(network, Video).1;
    network.run_for(Duration::from_secs(3));
    let frames = counts(network, Video).1 - before;
    println!("{what}: {frames} pictures in the 3 s after");
    assert!(frames >= 30, "{what}: {frames} pictures in 3 s");
}

fn assert_answers_a_pli(network: &mut Net) {
    let asked = network.publisher.keyframe_requests().len();
    let now = network.now();
    network.server.session.request_keyframe(now);
    network.run_for(Duration::from_millis(1500));
    assert!(network.publisher.keyframe_requests().len() > asked, "no request arrived");
    let newest = frames(network).filter(|(_, frame)| frame.track == 0 && frame.keyframe).last();
    assert!(newest.is_some_and(|(at, _)| at > now), "no keyframe came");
}

#[test]
fn a_nat_that_rebinds_twice_costs_less_than_a_second_each_time() {
    for seed in 0..4 {
        let mut network = connect(300 + seed, fake_media());
        network.run_for(Duration::from_millis(4000 + 700 * seed));
        for port in [40_000, 40_001] {
            let from = network.elapsed();
            network.bind_nat(inside(), outside(port));
            network.run_for(Duration::from_secs(10));
            let moved = network.server.proven.last() == Some(&outside(port));
            assert!(moved, "{from:?}: the peer was not followed: {:?}", network.server.proven);
            assert_answers_a_pli(&mut network);
        }
        network.run_for(Duration::from_secs(60));
        assert_eq!(network.server.ended, None, "gone after a minute");
        let up = network.now();
        finish(&mut network);
        let (video, audio) = (longest_silence(&network, Video), longest_silence(&network, Audio));
        let hole = proof::holes(&matched(&network, Video)).longest;
        println!(
            "seed {seed}: longest silence {video:?} of pictures, {audio:?} of sound; longest hole {hole:?}"
        );
        assert!(video.max(audio).max(hole) <= Duration::from_secs(1), "{video:?}, {audio:?}, {hole:?}");
        assert!(frames(&network).any(|(at, _)| at > up - Duration::from_secs(1)), "still sending");
        assert_one_stream(&network);
    }
}

#[test]
fn a_nat_that_rebinds_while_nothing_is_sent_is_followed_by_ice_alone() {
    let mut config = fake_media();
    let pause = Duration::from_secs(4)..Duration::from_secs(12);
    config.audio.as_mut().unwrap().pauses = vec![pause.clone()];
    config.video.as_mut().unwrap().pauses = vec![pause];
    let mut network = connect(310, config);
    network.run_for(Duration::from_secs(5));
    network.bind_nat(inside(), outside(41_000));
    network.run_for(Duration::from_secs(6));
    assert_eq!(network.server.proven.last(), Some(&outside(41_000)), "within two checks of the peer");
    assert_goes_on(&mut network, "rebound in silence");
}

#[test]
fn forged_media_moves_nothing_and_costs_few_checks() {
    let mut network = connect(320, fake_media());
    network.run_for(Duration::from_secs(3));
    let proven = network.server.proven.clone();
    let mut checks = 0;
    let packet = last_packet(&mut network);
    for n in 0..2000_u16 {
        let now = network.now();
        let from = outside(20_000 + n);
        let datagram = Datagram { from, to: server(), bytes: packet.clone() };
        network.server.receive(now, datagram);
        while let Some(sent) = network.server.transmit(now) {
            checks += usize::from(sent.to == from);
        }
        network.run_for(Duration::from_millis(1));
    }
    assert_eq!(checks, 0, "checks while the peer is where it was");
    assert_eq!(network.server.proven, proven);

    // Silent, so that anybody may be the peer.
    network.publisher.stop_sending();
    network.run_for(Duration::from_millis(500));
    for n in 0..1000_u16 {
        let now = network.now();
        let from = outside(30_000 + n);
        network.server.receive(now, Datagram { from, to: server(), bytes: packet.clone() });
        while let Some(sent) = network.server.transmit(now) {
            checks += usize::from(sent.to == from);
        }
        network.run_for(Duration::from_millis(1));
    }
    println!("{checks} checks for 1000 forged packets in a second");
    assert!((1..=6).contains(&checks), "{checks} checks");
    assert_eq!(network.server.proven, proven);
}

/// A true media packet of the publisher.
fn last_packet(network: &mut Net) -> Vec<u8> {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let copy = seen.clone();
    network.up.filter = Some(Box::new(move |_, datagram| {
        if rtp_payload_type(datagram).is_some() {
            *copy.lock().unwrap() = datagram.to_vec();
        }
        true
    }));
    network.run_for(Duration::from_millis(100));
    network.up.filter = None;
    seen.lock().unwrap().clone()
}

#[test]
fn an_ice_restart_by_offer_goes_on_in_the_same_stream() {
    let mut network = connect(330, fake_media());
    for _ in 0..2 {
        network.run_for(Duration::from_secs(3));
        let offer = network.publisher.restart_ice();
        let now = network.now();
        let answer = network.server.session.reoffer(&offer, now).unwrap().expect("the same peer");
        network.publisher.accept(&answer.sdp);
        assert_goes_on(&mut network, "ICE restart by offer");
        assert_answers_a_pli(&mut network);
    }
    network.run_for(Duration::from_secs(60));
    assert_eq!(network.server.ended, None);
    finish(&mut network);
    assert_one_stream(&network);
    assert!(longest_silence(&network, Video) <= Duration::from_secs(3));
}

/// Everything that was sent in a network that loses nothing is kept.
fn assert_nothing_lost(network: &mut Net, what: &str) {
    assert_eq!(network.server.ended, None, "{what}");
    let asked = network.publisher.keyframe_requests().len();
    network.run_for(Duration::from_secs(6));
    assert!(network.publisher.keyframe_requests().len() > asked, "{what}: no request for a keyframe arrives");
    finish(network);
    for kind in [Audio, Video] {
        let (sent, kept) = counts(network, kind);
        println!("{what}: {kept} of {sent} frames of {kind:?}");
        assert_eq!(kept, sent, "{what}: {kind:?}");
    }
    assert_one_stream(network);
}

/// From the server's answer to the moment the publisher has it.
const SIGNALLING: Duration = Duration::from_millis(400);

#[test]
fn an_ice_restart_by_offer_on_an_unchanged_network_costs_no_frame() {
    let mut network = connect(350, fake_media());
    for _ in 0..3 {
        network.run_for(Duration::from_millis(2500));
        let offer = network.publisher.restart_ice();
        let now = network.now();
        let answer = network.server.session.reoffer(&offer, now).unwrap().expect("the same peer");
        network.run_for(SIGNALLING);
        network.publisher.accept(&answer.sdp);
    }
    network.run_for(Duration::from_secs(90));
    assert_nothing_lost(&mut network, "restarts by offer");
}

#[test]
fn an_ice_restart_by_fragment_on_an_unchanged_network_costs_no_frame() {
    let now = Instant::now();
    let (mut publisher, offer) = Publisher::new(fake_media(), now);
    let (ours, answer) = Ours::accept(&offer, &session::config(server(), now), now);
    publisher.accept(&answer);
    let mut network = Network::new(351, now, publisher, ours);
    for _ in 0..3 {
        network.run_for(Duration::from_millis(2500));
        let offer = network.publisher.restart_ice();
        let now = network.now();
        let (fragment, _) = network.server.session.restart(&sdp::fragment(&offer), now).unwrap();
        network.run_for(SIGNALLING);
        network.publisher.accept(&sdp::restarted(&answer, &fragment));
    }
    network.run_for(Duration::from_secs(90));
    assert_nothing_lost(&mut network, "restarts by fragment");
}

#[test]
fn a_nat_that_rebinds_after_an_ice_restart_is_followed() {
    let mut network = connect(352, fake_media());
    network.run_for(Duration::from_secs(3));
    let offer = network.publisher.restart_ice();
    let now = network.now();
    let answer = network.server.session.reoffer(&offer, now).unwrap().expect("the same peer");
    network.publisher.accept(&answer.sdp);
    network.run_for(Duration::from_secs(3));
    network.bind_nat(inside(), outside(43_000));
    network.run_for(Duration::from_secs(10));
    assert_eq!(network.server.proven.last(), Some(&outside(43_000)));
    assert_goes_on(&mut network, "rebound after a restart");
    network.run_for(Duration::from_secs(90));
    assert_eq!(network.server.ended, None);
    finish(&mut network);
    assert_one_stream(&network);
}

#[test]
fn an_ice_restart_from_a_new_address_by_fragment_goes_on_in_the_same_stream() {
    let now = Instant::now();
    let (mut publisher, offer) = Publisher::new(fake_media(), now);
    let (ours, answer) = Ours::accept(&offer, &session::config(server(), now), now);
    publisher.accept(&answer);
    let mut network = Network::new(340, now, publisher, ours);
    network.run_for(Duration::from_secs(3));
    network.bind_nat(inside(), outside(42_000));
    let offer = network.publisher.restart_ice();
    let now = network.now();
    let (fragment, etag) = network.server.session.restart(&sdp::fragment(&offer), now).unwrap();
    assert_eq!(etag, network.server.session.etag());
    network.publisher.accept(&sdp::restarted(&answer, &fragment));
    assert_goes_on(&mut network, "ICE restart by fragment");
    assert_answers_a_pli(&mut network);
    network.run_for(Duration::from_secs(60));
    assert_eq!(network.server.ended, None);
    finish(&mut network);
    assert_one_stream(&network);
    let silence = longest_silence(&network, Video);
    println!("longest silence {silence:?}");
    assert!(silence <= Duration::from_secs(3), "{silence:?}");
}
