//! Several encodings of one camera (simulcast by rid): the largest is recorded, whichever comes first.

use super::*;
use std::ops::Range;

/// Encodings of a quarter, a half and the full size, whose names don't tell.
const SIZES: [(&str, u16, u16); 3] = [("1", 160, 90), ("2", 320, 180), ("3", 640, 360)];
const SECOND: Duration = Duration::from_secs(1);

/// Offers them in this order; the full one pauses.
fn encodings(order: [&'static str; 3], pauses: &[Range<Duration>]) -> Config {
    let encoding = |rid: &'static str| {
        let (_, width, height) = *SIZES.iter().find(|(name, ..)| *name == rid).unwrap();
        let mut track = TrackConfig::new(FakeVideo::sized(width, height));
        if rid == "3" {
            track.pauses = pauses.to_vec();
        }
        (rid, track)
    };
    let video = order.map(encoding).into_iter().collect();
    Config { video: None, encodings: video, ..fake_media() }
}

/// What was kept of the video: when each frame came out, in time since the connection, and its encoding.
fn kept_encodings(network: &Net) -> Vec<(Duration, String)> {
    let start = network.publisher.connected_at().unwrap();
    let sent = network.publisher.sent_of(Video);
    frames(network)
        .filter(|(_, frame)| frame.track == 0)
        .map(|(at, frame)| {
            let of = sent.iter().find(|sent| sent.data[..] == frame.data[..]).expect("it was sent");
            (at - start, of.rid.unwrap().to_string())
        })
        .collect()
}

/// That the frames of each encoding, where it is recorded without another in between, can be decoded: the
/// first is a keyframe, each further one follows the one sent before it or is a keyframe.
fn assert_decodable(network: &Net) {
    let sent = network.publisher.sent_of(Video);
    let mut before: Option<(String, usize)> = None;
    for frame in network.server.frames(0) {
        let of = sent.iter().find(|sent| sent.data[..] == frame.data[..]).expect("it was sent");
        let rid = of.rid.unwrap().to_string();
        let own: Vec<_> = sent.iter().filter(|other| other.rid == of.rid).collect();
        let at = own.iter().position(|other| other.data == of.data).unwrap();
        let follows = before.as_ref() == Some(&(rid.clone(), at.wrapping_sub(1)));
        assert!(of.keyframe || follows, "picture {at} of {rid} has lost what it refers to: {before:?}");
        before = Some((rid, at));
    }
    let times: Vec<Duration> = network.server.frames(0).map(|frame| frame.time).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "time goes back");
}

#[test]
fn the_largest_encoding_is_recorded_in_whatever_order_they_are_offered_and_no_loss_is_named() {
    for (seed, order) in [(540, ["1", "2", "3"]), (541, ["3", "2", "1"]), (542, ["2", "3", "1"])] {
        let mut network = connect(seed, encodings(order, &[]));
        network.run_for(10 * SECOND);
        finish(&mut network);
        let kept = kept_encodings(&network);
        let others = kept.iter().filter(|(_, rid)| rid != "3").map(|(at, _)| *at).max();
        println!("{order:?}: {} frames kept, the last that is not the largest at {others:?}", kept.len());
        assert!(others.is_none_or(|at| at < SECOND), "{order:?}: a smaller one at {others:?}");
        let largest = network.publisher.sent_of(Video).iter().filter(|s| s.rid.unwrap()[..1] == *"3").count();
        assert!(kept.len() + 5 >= largest, "{order:?}: {} of {largest} frames", kept.len());
        assert_eq!(gaps(&network), [], "{order:?}");
        let lost = network.server.media.iter().filter(|(_, event)| matches!(event, Event::Lost { .. }));
        assert_eq!(lost.count(), 0, "{order:?}");
        assert_decodable(&network);
    }
}

#[test]
fn packets_of_the_recorded_encoding_alone_are_asked_for_again() {
    let mut network = connect(550, encodings(["1", "2", "3"], &[]));
    network.both(|link| link.loss = 0.02);
    network.run_for(20 * SECOND);
    network.both(|link| link.loss = 0.0);
    finish(&mut network);
    assert_decodable(&network);
    let kept = kept_encodings(&network);
    let largest = kept.iter().filter(|(at, rid)| *at > 2 * SECOND && rid == "3").count();
    println!(
        "{largest} of {} frames are of the largest, {} sent again",
        kept.len(),
        network.publisher.resent()
    );
    assert!(largest >= 510, "{largest} frames of the largest in 18 s");
}

#[test]
fn the_next_largest_is_recorded_while_the_largest_pauses_and_the_gap_is_named() {
    let pause = 5 * SECOND..12 * SECOND;
    let mut network = connect(560, encodings(["1", "2", "3"], std::slice::from_ref(&pause)));
    network.run_for(20 * SECOND);
    finish(&mut network);
    assert_decodable(&network);
    let kept = kept_encodings(&network);
    let of = |from: Duration, to: Duration| {
        let mut rids: Vec<&str> =
            kept.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, rid)| &rid[..]).collect();
        rids.dedup();
        rids
    };
    assert_eq!(of(2 * SECOND, pause.start), ["3"]);
    assert_eq!(of(pause.start + SECOND, pause.end), ["2"]);
    assert_eq!(of(pause.end + SECOND, 20 * SECOND), ["3"]);
    let silence = longest_silence(&network, Video);
    println!("{silence:?} without a picture, gaps: {:?}", gaps(&network));
    assert!(silence < SECOND, "{silence:?}");
    assert_eq!(gaps(&network).len(), 1, "{:?}", gaps(&network));
}
