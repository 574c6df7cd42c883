//! What is lost, what is repaired, and that nothing undecodable is kept.

use super::*;
use crate::support::media;
use crate::support::network::{Bursts, rtp_payload_type};

/// When the server gave up on packets after which pictures are missing, the first of each hole, and
/// when the picture came out that ends the hole.
fn unrepaired(network: &Net) -> Vec<(Instant, Instant)> {
    let kept = matched(network, Video);
    let (mut next, mut given_up, mut unrepaired) = (0, None, Vec::new());
    for (at, event) in &network.server.media {
        match event {
            Event::Lost { track: 0, .. } => drop(given_up.get_or_insert(*at)),
            Event::Frame(frame) if frame.track == 0 => {
                if next > 0 && kept[next].index > kept[next - 1].index + 1 {
                    unrepaired.push((given_up.expect("a loss before a hole"), *at));
                }
                (next, given_up) = (next + 1, None);
            }
            _ => {}
        }
    }
    unrepaired
}

/// The unrepaired holes for which no keyframe was there already, nor asked for within 100 ms; a
/// request takes 30 ms to arrive.
fn unasked(network: &Net) -> Vec<Duration> {
    let around = Duration::from_millis(100);
    let way = Duration::from_millis(30);
    let requests = network.publisher.keyframe_requests();
    let asked =
        |at: Instant| requests.iter().any(|asked| (at + way - around..=at + way + around).contains(asked));
    let start = network.publisher.connected_at().unwrap();
    let unasked = unrepaired(network).into_iter().filter(|(at, ended)| at != ended && !asked(*at));
    unasked.map(|(at, _)| at - start).collect()
}

#[test]
fn frames_kept_at_one_five_and_ten_percent_of_loss() {
    for (loss, video, audio) in [(0.01, 99.9, 99.9), (0.05, 99.0, 99.0), (0.10, 97.0, 97.0)] {
        for seed in 0..3 {
            let mut network = connect(100 + seed, fake_media());
            network.both(|link| link.loss = loss);
            network.run_for(Duration::from_secs(60));
            finish(&mut network);
            println!("loss {loss}, seed {seed}:");
            assert_kept(&network, Video, video);
            assert_kept(&network, Audio, audio);
            assert_one_stream(&network);
        }
    }
}

fn assert_only_decodable_frames(name: &str, mut network: Net) {
    network.run_for(Duration::from_secs(60));
    network.both(|link| (link.loss, link.bursts) = (0.0, None));
    finish(&mut network);
    assert_one_stream(&network);
    let video = matched(&network, Video);
    let holes = proof::holes(&video);
    let unasked = unasked(&network);
    println!(
        "{name}: {} of {} pictures, {} of {} sounds kept; {} holes, longest {:?}; {} keyframes asked for",
        video.len(),
        network.publisher.sent_of(Video).len(),
        counts(&network, Audio).1,
        counts(&network, Audio).0,
        holes.count,
        holes.longest,
        network.publisher.keyframe_requests().len(),
    );
    assert!(holes.count > 3, "nothing was lost: {holes:?}");
    assert!(unasked.is_empty(), "nobody asked for a keyframe after {unasked:?}");
    let noted = gaps(&network).iter().filter(|gap| gap.track == 0).count();
    assert_eq!(noted, holes.count, "gaps that are noted, holes that there are");
}

#[test]
fn without_retransmission_only_decodable_frames_are_kept_and_keyframes_asked_for() {
    for seed in 0..3 {
        let mut network = connect(110 + seed, fake_media());
        let rtx = network.publisher.rtx_payload_type().unwrap();
        network.up.filter = Some(Box::new(move |_, datagram| rtp_payload_type(datagram) != Some(rtx)));
        // Downwards nothing is lost, so that every request for a keyframe is seen.
        network.up.loss = 0.005;
        assert_only_decodable_frames("no retransmission, 0.5 % loss", network);
    }
}

#[test]
fn bursts_without_retransmission_leave_only_decodable_frames() {
    let mut network = connect(120, fake_media());
    let rtx = network.publisher.rtx_payload_type().unwrap();
    network.up.filter = Some(Box::new(move |_, datagram| rtp_payload_type(datagram) != Some(rtx)));
    let first = network.elapsed() + Duration::from_secs(3);
    let (every, length) = (Duration::from_secs(5), Duration::from_millis(200));
    network.up.bursts = Some(Bursts { first, every, length });
    assert_only_decodable_frames("bursts of 200 ms, no retransmission", network);
}

#[test]
fn a_burst_of_200_ms_is_repaired() {
    let mut network = connect(121, fake_media());
    let first = network.elapsed() + Duration::from_secs(3);
    let (every, length) = (Duration::from_secs(5), Duration::from_millis(200));
    network.both(|link| link.bursts = Some(Bursts { first, every, length }));
    network.run_for(Duration::from_secs(60));
    network.both(|link| link.bursts = None);
    finish(&mut network);
    println!(
        "bursts of 200 ms with retransmission: longest hole {:?}",
        proof::holes(&matched(&network, Video)).longest
    );
    assert_kept(&network, Video, 99.0);
    assert_one_stream(&network);
}

#[test]
fn what_comes_twice_or_out_of_order_costs_nothing() {
    let mut network = connect(130, fake_media());
    network.both(|link| {
        (link.reorder, link.duplicate, link.jitter) = (0.2, 0.1, Duration::from_millis(20));
    });
    network.run_for(Duration::from_secs(30));
    finish(&mut network);
    assert_kept(&network, Video, 100.0);
    assert_kept(&network, Audio, 100.0);
    assert_one_stream(&network);
    assert!(gaps(&network).is_empty(), "{:?}", gaps(&network));
}

#[test]
fn pauses_of_a_speaker_are_no_gaps() {
    let mut config = fake_media();
    let seconds = |from, to| Duration::from_secs(from)..Duration::from_secs(to);
    config.audio.as_mut().unwrap().pauses = vec![seconds(2, 4), seconds(5, 12)];
    let mut network = connect(140, config);
    network.run_for(Duration::from_secs(20));
    finish(&mut network);
    assert_kept(&network, Audio, 100.0);
    assert_kept(&network, Video, 100.0);
    assert!(gaps(&network).is_empty(), "{:?}", gaps(&network));
    assert!(network.server.media.iter().all(|(_, event)| !matches!(event, Event::Lost { .. })));
    let audio: Vec<_> = matched(&network, Audio);
    let span = |frame: &Matched| frame.time.as_secs_f64() - frame.captured.as_secs_f64();
    let shift = span(audio.last().unwrap()) - span(&audio[0]);
    assert!(shift.abs() < 0.002, "sound moved by {} ms over its pauses", shift * 1e3);
}

#[test]
fn a_frame_is_out_within_10_ms_of_its_last_packet() {
    let mut network = connect(150, fake_media());
    network.run_for(Duration::from_secs(30));
    finish(&mut network);
    // Sending takes no virtual time and the way 30 ms, so whatever is more than that is ours.
    let start = network.publisher.connected_at().unwrap();
    let mut delays = Vec::new();
    for kind in [Video, Audio] {
        let index = track(&network, kind);
        let sent = network.publisher.sent_of(kind);
        let out: Vec<Instant> =
            frames(&network).filter(|(_, frame)| frame.track == index).map(|(at, _)| at).collect();
        assert_eq!(out.len(), sent.len(), "frames of {kind:?}");
        delays.extend(out.iter().zip(&sent).map(|(out, sent)| *out - (start + sent.captured)));
    }
    delays.sort();
    let p99 = delays[delays.len() * 99 / 100].saturating_sub(Duration::from_millis(30));
    println!("datagram to frame: p99 {p99:?} over {} frames", delays.len());
    assert!(p99 <= Duration::from_millis(10), "{p99:?}");
}

#[test]
fn the_first_picture_is_kept_though_its_first_packets_are_lost_or_swapped_and_nobody_answers_a_pli() {
    for (clip, lost, jitter) in [
        (media::camera(4).0, 1, 0),
        (media::camera(4).0, 5, 0),
        (media::flash_and_beep(10).0, 1, 0),
        (media::camera(4).0, 0, 30),
        (media::flash_and_beep(10).0, 0, 30),
    ] {
        let mut config = Config::new(inside());
        config.video = Some(TrackConfig::new(crate::support::source::Looped::steady(clip)));
        let mut network = answered(160, config, str::to_owned);
        let rtx = network.publisher.rtx_payload_type();
        let mut left = lost;
        network.up.filter = Some(Box::new(move |_, datagram| {
            let dropped = left > 0 && rtp_payload_type(datagram).is_some_and(|kind| Some(kind) != rtx);
            left -= i32::from(dropped);
            !dropped
        }));
        (network.up.jitter, network.up.reorder) = (Duration::from_millis(jitter), 1.0);
        network.run_for(Duration::from_secs(2));
        (network.up.jitter, network.up.reorder) = (Duration::ZERO, 0.0);
        network.run_for(Duration::from_secs(3));
        finish(&mut network);
        println!("{lost} lost, {jitter} ms of disorder:");
        assert_kept(&network, Video, 100.0);
        assert_one_stream(&network);
        let lost = network.server.media.iter().filter(|(_, event)| matches!(event, Event::Lost { .. }));
        assert_eq!((lost.count(), gaps(&network).len()), (0, 0));
    }
}
