//! Tracks that were agreed on and bring nothing, or nothing that can be decoded.

use super::*;
use crate::support::media::Encoded;
use crate::support::source::Source;
use onrecord::media::GapReason::{self, Silence, Undecodable};

/// Pictures that no keyframe ever begins, up to one at this count.
struct Headless {
    video: Box<FakeVideo>,
    left: u32,
}

impl Source for Headless {
    fn next(&mut self) -> Encoded {
        let frame = self.video.next();
        self.left = self.left.saturating_sub(1);
        if self.left == 1 {
            self.video.request_keyframe();
        }
        let mut data = frame.data.to_vec();
        if self.left > 0 {
            data[0] |= 1;
        }
        Encoded { keyframe: self.left == 0 && frame.keyframe, data: data.into(), ..frame }
    }
}

/// What was told of each track, with whole seconds since the connection.
fn told(network: &Net) -> Vec<(u64, usize, Option<GapReason>)> {
    let start = network.server.connected_at.unwrap();
    network
        .server
        .troubles
        .iter()
        .map(|(at, track, reason)| ((*at - start).as_secs(), *track, *reason))
        .collect()
}

#[test]
fn a_track_that_never_sends_is_told_after_5_s_and_its_gap_reaches_to_its_first_frame() {
    let mut config = fake_media();
    config.video.as_mut().unwrap().starts_after = Duration::from_secs(12);
    let mut network = connect(590, config);
    network.run_for(Duration::from_secs(20));
    let told = told(&network);
    assert_eq!(told[0], (5, 0, Some(Silence)), "{told:?}");
    assert_eq!((told[1].1, told[1].2, told.len()), (0, None, 2), "{told:?}");
    let gap = gaps(&network)[0];
    println!("{gap:?}");
    assert_eq!((gap.track, gap.reason), (0, Silence));
    assert!(gap.to - gap.from > Duration::from_secs(11), "{gap:?}");
}

#[test]
fn a_track_that_never_sends_leaves_a_gap_up_to_the_end() {
    let mut config = fake_media();
    config.audio.as_mut().unwrap().starts_after = Duration::from_secs(1000);
    let mut network = connect(591, config);
    network.run_for(Duration::from_secs(20));
    let now = network.now();
    network.server.session.close(now);
    network.run_for(Duration::from_secs(1));
    assert_eq!(told(&network), [(5, 1, Some(Silence))]);
    let gap = gaps(&network)[0];
    assert!(gap.reason == Silence && gap.to - gap.from > Duration::from_secs(19), "{gap:?}");
}

#[test]
fn packets_that_no_frame_comes_of_are_told_after_5_s() {
    let mut config = fake_media();
    config.video = Some(TrackConfig::new(Box::new(Headless { video: FakeVideo::small(), left: 300 })));
    let mut network = connect(592, config);
    network.run_for(Duration::from_secs(20));
    finish(&mut network);
    let told = told(&network);
    assert_eq!((told[0], told.len()), ((5, 0, Some(Undecodable)), 2), "{told:?}");
    assert!(gaps(&network).iter().any(|gap| gap.track == 0 && gap.reason == Undecodable));
}

#[test]
fn a_microphone_that_transmits_nothing_in_silence_and_a_slow_camera_are_in_no_trouble() {
    let mut config = fake_media();
    let seconds = Duration::from_secs;
    let audio = config.audio.as_mut().unwrap();
    audio.pauses = (0..30).map(|n| seconds(n) + Duration::from_millis(40)..seconds(n + 1)).collect();
    let mut network = connect(593, config);
    network.run_for(seconds(30));
    assert_eq!(told(&network), []);
}
