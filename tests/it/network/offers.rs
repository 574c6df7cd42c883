//! Offers of all kinds are recorded.

use super::sources::without_sources;
use super::*;
use crate::support::sdp;

fn assert_records(name: &str, mut network: Net, kinds: &[MediaKind]) {
    network.both(|link| link.loss = 0.02);
    network.run_for(Duration::from_secs(20));
    network.both(|link| link.loss = 0.0);
    finish(&mut network);
    println!("{name}:");
    for kind in kinds {
        assert_kept(&network, *kind, 99.0);
    }
    assert_eq!(network.server.session.tracks().len(), kinds.len());
    assert_one_stream(&network);
}

#[test]
fn sound_alone_and_pictures_alone_are_recorded() {
    assert_records("sound alone", connect(500, Config { video: None, ..fake_media() }), &[Audio]);
    assert_records("pictures alone", connect(501, Config { audio: None, ..fake_media() }), &[Video]);
}

#[test]
fn a_publisher_whose_candidates_nobody_resolves_or_that_has_none_yet_connects() {
    for trickle in [false, true] {
        let network = connect_with(510, Config { trickle, ..fake_media() }, sdp::with_local_names);
        assert_records("candidates under .local names", network, &[Video, Audio]);
    }
}

#[test]
fn a_third_section_is_rejected_and_the_others_are_recorded() {
    let config = fake_media();
    let now = Instant::now();
    let (mut publisher, offer) = Publisher::new(config, now);
    let third = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:third\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\n";
    let (ours, answer) = Ours::accept(&format!("{offer}{third}"), &session::config(server(), now), now);
    let media: Vec<&str> = answer.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(media.len(), 3, "{answer}");
    assert!(media[2].starts_with("m=video 0 "), "{answer}");
    let rejected = answer.find(media[2]).unwrap();
    publisher.accept(&answer[..rejected]);
    let network = Network::new(520, now, publisher, ours);
    assert_records("a third section", network, &[Video, Audio]);
}

#[test]
fn sources_that_the_offer_does_not_name_are_found_by_their_payload_types() {
    let alone = Config { audio: None, ..fake_media() };
    assert_records("pictures alone, no SSRC", connect_with(530, alone, without_sources), &[Video]);
    let alone = Config { video: None, ..fake_media() };
    assert_records("sound alone, no SSRC", connect_with(531, alone, without_sources), &[Audio]);
    assert_records("both, no SSRC", connect_with(532, fake_media(), without_sources), &[Video, Audio]);
}
