//! Offers as clients write them, and what is made of them.

use super::*;

const SESSION: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=mid:0\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=ssrc:7 cname:x\r\n";
const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rid:h send\r\na=simulcast:send h\r\na=candidate:1 1 udp 1 127.0.0.1 5 typ host\r\n";
const H264: &str = "m=video 9 UDP/TLS/RTP/SAVPF 102\r\na=mid:2\r\na=sendonly\r\na=rtpmap:102 H264/90000\r\n";

const CANDIDATE: &str = "candidate:1 1 udp 1 192.0.2.1 8189 typ host";

/// Our answer.
fn answer(offer: &ParsedOffer, start_bitrate: u64) -> String {
    let credentials = Credentials { ufrag: "u".to_owned(), pwd: "p".to_owned() };
    let local = LocalTransport {
        credentials: &credentials,
        fingerprint: "sha-256 AB".to_owned(),
        candidates: &[CANDIDATE.to_owned()],
        origin: (1, 2),
    };
    offer.answer(&local, start_bitrate)
}

fn section<'a>(answer: &'a str, media: &str) -> Vec<&'a str> {
    let (_, sections) = split(answer);
    sections.into_iter().find(|section| section[0].starts_with(media)).unwrap()
}

#[test]
fn one_audio_and_one_video_section_are_taken_and_the_rest_is_rejected_with_port_0() {
    let offer = parse(&format!("{SESSION}{AUDIO}{VIDEO}{}", VIDEO.replace("mid:1", "mid:2"))).unwrap();
    assert_eq!(
        offer.recorded.iter().map(|c| (c.index, c.format)).collect::<Vec<_>>(),
        [(1, PayloadFormat::Vp8), (0, PayloadFormat::Opus)]
    );
    let formats = |recorded: &RecordedSection| {
        recorded.formats.iter().map(|f| (f.payload_type, f.payload_kind)).collect::<Vec<_>>()
    };
    assert_eq!(formats(&offer.recorded[0]), [(96, PayloadKind::Media), (97, PayloadKind::Rtx(96))]);
    assert_eq!(formats(&offer.recorded[1]), [(63, PayloadKind::Red), (111, PayloadKind::Media)]);
    assert_eq!(offer.clocks(), [(96, 90_000), (97, 90_000), (63, 48_000), (111, 48_000)]);
    assert_eq!(offer.recorded[1].ssrcs, [7]);
    assert_eq!(offer.candidates.len(), 2);
    let answer = self::answer(&offer, 0);
    let media: Vec<_> = lines(&answer).filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        media,
        [
            "m=audio 9 UDP/TLS/RTP/SAVPF 63 111",
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
            "m=video 0 UDP/TLS/RTP/SAVPF 96 97"
        ]
    );
}

#[test]
fn a_section_that_sends_what_is_not_recorded_is_named_with_the_reason() {
    let second = VIDEO.replace("mid:1", "mid:3");
    let idle = second.replace("mid:3", "mid:4").replace("sendonly", "recvonly");
    let given_up = second.replace("mid:3", "mid:5").replace("video 9", "video 0");
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n";
    let offer = parse(&format!("{SESSION}{AUDIO}{VIDEO}{H264}{second}{idle}{given_up}{data}")).unwrap();
    let rejected: Vec<_> =
        offer.rejected.iter().map(|rejected| (rejected.mid.as_str(), rejected.reason)).collect();
    assert_eq!(
        rejected,
        [
            ("2", "none of its codecs is recorded"),
            ("3", "one section of a kind is recorded, and another one comes before it"),
            ("section-6", "only audio and video are recorded"),
        ]
    );
}

#[test]
fn an_offer_that_cannot_be_recorded_says_why() {
    let because = |sdp: &str| parse(sdp).map(|_| ()).unwrap_err();
    assert_eq!(because(&format!("{SESSION}{AUDIO}{H264}")), PeerError::UnsupportedCodec);
    assert_eq!(because(&format!("{SESSION}{H264}")), PeerError::UnsupportedCodec);
    for (sdp, reason) in [
        (String::new(), "v=0"),
        ("rubbish".to_owned(), "v=0"),
        (SESSION.to_owned(), "no media section"),
        (
            format!("{SESSION}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n"),
            "sends anything",
        ),
        (format!("{SESSION}{}", VIDEO.replace("sendonly", "recvonly")), "sends anything"),
        (format!("{SESSION}{VIDEO}{}", AUDIO.replace("a=mid:0\r\n", "")), "BUNDLE"),
        (format!("{SESSION}{VIDEO}{}", AUDIO.replace("mid:0", "mid:1")), "same a=mid"),
        (format!("{SESSION}{AUDIO}{}", VIDEO.replace("mid:1", "mid:9")), "BUNDLE"),
        (format!("{}{AUDIO}", SESSION.replace("a=ice-pwd", "a=x")), "ice-pwd"),
        (format!("{}{AUDIO}", SESSION.replace("a=fingerprint", "a=x")), "fingerprint"),
        (format!("{SESSION}{AUDIO}").replace("sha-256 ", "sha-1 "), "sha-512"),
        (format!("{SESSION}{AUDIO}").replace("sha-256 AB:", "sha-256 "), "sha-512"),
        (format!("v=0\r\n{}", "a=x\r\n".repeat(100_000)), "larger"),
    ] {
        let refusal = because(&sdp).to_string();
        assert!(refusal.contains(reason), "{refusal:?} doesn't mention {reason:?}");
    }
}

#[test]
fn a_tagged_section_that_is_not_recorded_stays_in_the_transport_without_media() {
    let inactive = AUDIO.replace("sendrecv", "inactive");
    let answer = self::answer(&parse(&format!("{SESSION}{inactive}{VIDEO}")).unwrap(), 0);
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n"), "{answer}");
    let audio = section(&answer, "m=audio");
    assert_eq!(audio[0], "m=audio 9 UDP/TLS/RTP/SAVPF 111");
    for line in [
        "a=mid:0",
        "a=inactive",
        "a=rtpmap:111 opus/48000/2",
        "a=ice-ufrag:u",
        "a=ice-pwd:p",
        "a=setup:active",
        "a=fingerprint:sha-256 AB",
        "a=candidate:1 1 udp 1 192.0.2.1 8189 typ host",
    ] {
        assert!(audio.contains(&line), "{line} is missing in {answer}");
    }
    assert_eq!(answer.matches("a=candidate:").count(), 1, "{answer}");

    // What the offerer has given up itself can't be kept; the next one's transport is the group's.
    let rejected = inactive.replace("m=audio 9", "m=audio 0");
    let offer = parse(&format!("{SESSION}{rejected}{VIDEO}")).unwrap();
    let answer = self::answer(&offer, 0);
    assert!(answer.contains("a=group:BUNDLE 1\r\n"), "{answer}");
    assert_eq!(section(&answer, "m=audio")[0], "m=audio 0 UDP/TLS/RTP/SAVPF 111 63");
    assert_eq!(offer.tagged(), (Some("1"), 1));
}

#[test]
fn the_transport_is_the_one_of_the_tagged_section() {
    let tagged = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\na=ice-ufrag:tagd\r\na=ice-pwd:tagged\r\na=setup:active\r\n";
    let session = SESSION.replace("BUNDLE 0 1 2", "BUNDLE 2 0 1");
    let (audio, video) = (AUDIO.replace("m=audio 9", "m=audio 0") + "a=bundle-only\r\n", VIDEO);
    let offer = parse(&format!("{session}{audio}{video}{tagged}")).unwrap();
    let credentials = Credentials { ufrag: "tagd".to_owned(), pwd: "tagged".to_owned() };
    assert_eq!(offer.credentials(), &credentials);
    assert!(offer.peer_is_dtls_client());
    assert_eq!(offer.recorded.len(), 2, "a section that is for the bundle alone is taken");
    let answer = self::answer(&offer, 0);
    assert!(answer.contains("a=group:BUNDLE 2 0 1\r\n"), "{answer}");
    let data = section(&answer, "m=application");
    assert_eq!(data[0], "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
    assert!(data.contains(&"a=sctp-port:5000"), "{answer}");
    assert!(data.last().is_some_and(|last| *last == "a=end-of-candidates"), "{answer}");
}

#[test]
fn the_strongest_known_fingerprint_counts_in_whatever_order_and_case() {
    let certificate = b"a certificate";
    let hex = |digest: Vec<u8>| digest.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    use sha2::{Digest as _, Sha256, Sha384, Sha512};
    let sha256 = hex(Sha256::digest(certificate).to_vec());
    let (sha384, sha512) =
        (hex(Sha384::digest(certificate).to_vec()), hex(Sha512::digest(certificate).to_vec()));
    let wrong = hex(Sha512::digest(b"another").to_vec());
    for (lines, is_of) in [
        (vec![format!("sha-256 {sha256}")], true),
        (vec![format!("SHA-256 {}", sha256.to_uppercase())], true),
        (vec![format!("sha-384 {sha384}")], true),
        (vec![format!("Sha-512 {sha512}"), "md5 00".to_owned()], true),
        (vec![format!("sha-512 {sha512}"), format!("sha-256 {wrong}")], true),
        (vec![format!("sha-256 {sha256}"), format!("sha-512 {wrong}")], false),
        (vec![format!("sha-512 {wrong}"), format!("sha-512 {sha512}")], true),
        (vec!["shake256 00:11".to_owned(), format!("sha-256 {sha256}")], true),
    ] {
        let fingerprints: String = lines.iter().map(|line| format!("a=fingerprint:{line}\r\n")).collect();
        let session: String = lines_without(SESSION, "a=fingerprint");
        let offer = parse(&format!("{session}{fingerprints}{AUDIO}")).unwrap();
        assert_eq!(offer.identity().is_of(certificate), is_of, "{lines:?}");
    }
}

fn lines_without(sdp: &str, key: &str) -> String {
    lines(sdp).filter(|line| !line.starts_with(key)).map(|line| format!("{line}\r\n")).collect()
}

#[test]
fn payload_types_are_answered_once_each_with_what_belongs_to_them() {
    let answered = |video: &str| {
        let answer = self::answer(&parse(&format!("{SESSION}{AUDIO}{video}")).unwrap(), 2_000_000);
        let lines = section(&answer, "m=video").into_iter().map(str::to_owned);
        lines
            .filter(|l| ["m=", "a=rtpmap", "a=fmtp", "a=rtcp-fb"].iter().any(|k| l.starts_with(k)))
            .collect::<Vec<_>>()
    };
    let start = "a=fmtp:96 x-google-start-bitrate=2000";
    let spaced = VIDEO.replace("apt=96", "rtx-time=3000 ; APT=96;x");
    let expected = [
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "a=rtpmap:96 VP8/90000",
        start,
        "a=rtpmap:97 rtx/90000",
        "a=fmtp:97 apt=96",
    ];
    assert_eq!(answered(&spaced), expected);

    let two = VIDEO.replace("SAVPF 96 97", "SAVPF 0 34 120 96 120 97 127 300 x")
        + "a=rtpmap:120 vp8/90000\r\na=fmtp:120 max-fs=12288\r\na=rtcp-fb:* nack\r\na=rtcp-fb:* goog-remb\r\na=rtcp-fb:120 nack pli\r\n";
    assert_eq!(
        answered(&two),
        [
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 120",
            "a=rtpmap:96 VP8/90000",
            start,
            "a=rtcp-fb:96 nack",
            "a=rtpmap:97 rtx/90000",
            "a=fmtp:97 apt=96",
            "a=rtpmap:120 vp8/90000",
            "a=fmtp:120 x-google-start-bitrate=2000",
            "a=rtcp-fb:120 nack",
            "a=rtcp-fb:120 nack pli"
        ]
    );
    let unlisted = format!("{SESSION}{AUDIO}{}", VIDEO.replace("SAVPF 96 97", "SAVPF 97 98"));
    assert_eq!(parse(&unlisted).map(drop), Err(PeerError::UnsupportedCodec));
}

#[test]
fn a_section_on_its_own_needs_neither_a_group_nor_a_mid() {
    let session = lines_without(SESSION, "a=group");
    let alone = parse(&format!("{session}{}", AUDIO.replace("a=mid:0\r\n", ""))).unwrap();
    let answer = self::answer(&alone, 0);
    assert!(
        !answer.contains("a=group") && !section(&answer, "m=audio").iter().any(|l| l.starts_with("a=mid")),
        "{answer}"
    );
    assert_eq!(alone.tagged(), (None, 0));
    assert!(answer.contains("a=rtpmap:111 opus/48000/2\r\n") && answer.contains("a=candidate:"), "{answer}");
}
