//! Offers of all kinds are recorded.

use super::sources::without_sources;
use super::*;
use crate::support::sdp;
use onrecord::webrtc::PeerError;
use onrecord::webrtc::session::{Session, SessionEnd};

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

/// The offer with these lines of one media section rewritten.
fn rewritten(offer: &str, media: &str, line: impl Fn(&str) -> Vec<String>) -> String {
    let mut inside = false;
    let lines = offer.lines().flat_map(|text| {
        inside = if text.starts_with("m=") { text.starts_with(media) } else { inside };
        if inside { line(text) } else { vec![text.to_owned()] }
    });
    lines.map(|line| line + "\r\n").collect()
}

fn without_lines(offer: &str, media: &str, keys: &[&str]) -> String {
    let kept = |line: &str| !keys.iter().any(|key| line.starts_with(key));
    rewritten(offer, media, |line| if kept(line) { vec![line.to_owned()] } else { vec![] })
}

#[test]
fn a_first_section_without_media_stays_in_the_transport_of_the_second() {
    let inactive = |offer: &str| {
        rewritten(offer, "m=audio", |line| {
            vec![if line == "a=sendonly" { "a=inactive".to_owned() } else { line.to_owned() }]
        })
    };
    // str0m has nothing to send the sound by once it is answered so.
    let mut config = fake_media();
    config.audio.as_mut().unwrap().pauses = vec![Duration::ZERO..Duration::MAX];
    let network = connect_with(541, config, inactive);
    assert_records("the first section inactive", network, &[Video]);
}

#[test]
fn what_the_tagged_section_says_of_the_transport_holds_for_all() {
    let transport = ["a=ice-", "a=fingerprint", "a=setup", "a=candidate"];
    let network = connect_with(550, fake_media(), |offer| without_lines(offer, "m=video", &transport));
    assert_records("credentials in the first section alone", network, &[Video, Audio]);
}

#[test]
fn an_offer_without_a_group_of_one_section_connects() {
    let ungrouped = |offer: &str| -> String {
        let lines = offer.lines().filter(|line| !line.starts_with("a=group"));
        lines.map(|line| format!("{line}\r\n")).collect()
    };
    let config = Config { audio: None, ..fake_media() };
    let now = Instant::now();
    let (mut publisher, offer) = Publisher::new(config, now);
    let (ours, answer) = Ours::accept(&ungrouped(&offer), &session::config(server(), now), now);
    assert!(!answer.contains("a=group"), "{answer}");
    // str0m has offered one, and wants it back.
    let group = offer.lines().find(|line| line.starts_with("a=group")).unwrap();
    publisher.accept(&answer.replacen("m=video", &format!("{group}\r\nm=video"), 1));
    assert_records("no group", Network::new(560, now, publisher, ours), &[Video]);
}

#[test]
fn what_is_lost_is_sent_again_however_the_offer_says_so() {
    // As WebRTC stacks outside of browsers write it.
    let terse = |offer: &str| {
        rewritten(offer, "m=video", |line| match line.split_once(' ') {
            Some((fmtp, apt)) if fmtp.starts_with("a=fmtp:") && apt.starts_with("apt=") => {
                vec![format!("{fmtp} rtx-time=3000; {apt}")]
            }
            Some((key, "nack")) if key.starts_with("a=rtcp-fb:") => vec!["a=rtcp-fb:* nack".to_owned()],
            _ => vec![line.to_owned()],
        })
    };
    assert_records("terse", connect_with(570, fake_media(), terse), &[Video, Audio]);
}

#[test]
fn of_two_payload_types_of_a_codec_the_one_that_comes_counts() {
    let doubled = |offer: &str| {
        rewritten(offer, "m=video", |line| match line.strip_prefix("m=video ") {
            Some(rest) => {
                let words: Vec<&str> = rest.split(' ').collect();
                vec![
                    format!("m=video {} {} 127 {}", words[0], words[1], words[2..].join(" ")),
                    "a=rtpmap:127 VP8/90000".to_owned(),
                ]
            }
            // No repairs: neither has anything before the other.
            None if line.contains(" apt=") => vec![],
            None => vec![line.to_owned()],
        })
    };
    for (name, unnamed) in [("two payload types", false), ("two payload types, no SSRC", true)] {
        let mut network = connect_with(580, fake_media(), |offer| {
            if unnamed { without_sources(&doubled(offer)) } else { doubled(offer) }
        });
        network.run_for(Duration::from_secs(5));
        finish(&mut network);
        println!("{name}:");
        assert_kept(&network, Video, 99.0);
        assert_kept(&network, Audio, 99.0);
    }
}

#[test]
fn a_certificate_that_the_strongest_fingerprint_does_not_fit_never_publishes() {
    let stronger = format!("a=fingerprint:SHA-512 {}", ["AB"; 64].join(":"));
    let both = |line: &str| vec![line.to_owned(), stronger.clone()];
    for media in ["m=audio", "m=video"] {
        let config = Config {
            audio: (media == "m=audio").then(|| TrackConfig::new(Box::<FakeAudio>::default())),
            ..fake_media()
        };
        let mut network = answered(590, config, |offer| {
            rewritten(offer, media, |line| {
                if line.starts_with("a=fingerprint") { both(line) } else { vec![line.to_owned()] }
            })
        });
        network.run_for(Duration::from_secs(5));
        assert_eq!(network.server.connected_at, None, "{media}");
        assert!(network.server.media.is_empty(), "{media}: {} events", network.server.media.len());
        assert_eq!(network.server.ended.map(|(_, gone)| gone), Some(SessionEnd::WrongCertificate), "{media}");
    }
    let known = |line: &str| vec!["a=fingerprint:shake256 00".to_owned(), line.replace("sha-256", "SHA-256")];
    let network = connect_with(591, fake_media(), |offer| {
        rewritten(offer, "m=", |line| {
            if line.starts_with("a=fingerprint") { known(line) } else { vec![line.to_owned()] }
        })
    });
    assert_records("an unknown hash beside SHA-256", network, &[Video, Audio]);
}

/// What a client in the wild has offered, and what the answer must and must not say.
struct Row {
    offer: &'static str,
    says: &'static [&'static str],
    not: &'static [&'static str],
    tracks: usize,
}

const OFFERS: &[Row] = &[
    Row {
        offer: include_str!("../fixtures/offers/first-audio-inactive.sdp"),
        says: &[
            "a=group:BUNDLE 0 1",
            "m=audio 9 UDP/TLS/RTP/SAVPF 96",
            "a=inactive",
            "a=rtpmap:97 VP8/90000",
        ],
        not: &["m=audio 0"],
        tracks: 1,
    },
    Row {
        offer: include_str!("../fixtures/offers/static-pt-without-rtpmap.sdp"),
        says: &["m=audio 9 UDP/TLS/RTP/SAVPF 96", "a=rtpmap:96 opus/48000/2", "a=rtpmap:97 VP8/90000"],
        not: &["a=inactive"],
        tracks: 2,
    },
    Row {
        offer: include_str!("../fixtures/offers/creds-only-in-datachannel-section.sdp"),
        says: &[
            "a=group:BUNDLE 2 0 1",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            "a=sctp-port:5000",
        ],
        not: &[" 0 UDP"],
        tracks: 2,
    },
    Row {
        offer: include_str!("../fixtures/offers/no-bundle-one-video.sdp"),
        says: &["m=video 9 UDP/TLS/RTP/SAVPF 97 98", "a=mid:1"],
        not: &["a=group"],
        tracks: 1,
    },
    Row {
        offer: include_str!("../fixtures/offers/rtcp-fb-wildcard.sdp"),
        says: &["a=rtcp-fb:97 nack", "a=rtcp-fb:97 nack pli"],
        not: &["a=rtcp-fb:*"],
        tracks: 2,
    },
    Row {
        offer: include_str!("../fixtures/offers/rtx-apt-with-space.sdp"),
        says: &["a=rtpmap:98 rtx/90000", "a=fmtp:98 apt=97"],
        not: &[],
        tracks: 2,
    },
    Row {
        offer: include_str!("../fixtures/offers/two-vp8-payload-types.sdp"),
        says: &["m=video 9 UDP/TLS/RTP/SAVPF 97 98 120", "a=rtpmap:98 rtx/90000", "a=fmtp:98 apt=97"],
        not: &[],
        tracks: 2,
    },
];

#[test]
fn offers_of_all_kinds_get_an_answer_that_fits_them() {
    for row in OFFERS {
        let now = Instant::now();
        let (ours, answer) = Ours::accept(row.offer, &session::config(server(), now), now);
        let lines: Vec<&str> = answer.split("\r\n").collect();
        for line in row.says {
            assert!(lines.contains(line), "no {line:?} in {answer}");
        }
        for word in row.not {
            assert!(!answer.contains(word), "{word:?} in {answer}");
        }
        assert_eq!(ours.session.tracks().len(), row.tracks, "{answer}");
        assert!(answer.ends_with("\r\n") && !answer.contains("\r\n\r\n"), "{answer}");
        let sections = |sdp: &str| sdp.lines().filter(|line| line.starts_with("m=")).count();
        assert_eq!(sections(&answer), sections(row.offer), "{answer}");
    }
    let unlisted = include_str!("../fixtures/offers/vp8-not-in-mline.sdp");
    let now = Instant::now();
    let refused = Session::accept(unlisted, &session::config(server(), now), now).map(drop);
    assert_eq!(refused, Err(PeerError::UnsupportedCodec));
}
