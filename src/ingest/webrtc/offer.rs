//! The SDP offer, cut down to what we record, and the answer that fits the whole of it.
//!
//! The peer connection is given only the sections we take (one audio, one video, no simulcast, no
//! candidates: those are added one by one, so that a broken one costs nobody the call). Its answer
//! is then woven into one for the client's offer, where all other sections are rejected with port 0
//! (RFC 3264 section 6). Text in, text out: SDP is lines (RFC 8866), and sections we don't take
//! need not even be valid.

use crate::ingest::Refusal;
use crate::media::{Codec, Kind, Track};
use std::fmt::Write as _;

/// No browser's offer comes near; a larger one is not worth parsing.
const MAX_BYTES: usize = 256 << 10;
/// A camera page has two or three.
const MAX_SECTIONS: usize = 64;
/// Candidates of one offer or fragment that are looked at; the rest is ignored.
const MAX_CANDIDATES: usize = 64;
/// Lines besides candidates; a browser's section with every codec has two hundred. What they cost to
/// take apart grows faster than they do.
const MAX_LINES: usize = 4096;
/// Sources of one section that are looked at: one, its repairs, and those of simulcast layers.
const MAX_SSRCS: usize = 16;

/// One media section that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Position in the client's offer.
    pub index: usize,
    /// Its `a=mid`.
    pub mid: String,
    /// What it becomes.
    pub track: Track,
    /// SSRCs that the section declares, first the primary one.
    pub ssrcs: Vec<u32>,
    /// Payload type of the codec.
    pub payload_type: u8,
    /// Payload type of RED around Opus (RFC 2198), if offered.
    pub red: Option<u8>,
    /// Payload type of its retransmissions (RFC 4588), if offered.
    pub rtx: Option<u8>,
}

/// An offer that can be answered.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What is recorded: video first, then audio.
    pub chosen: Vec<Chosen>,
    /// The offer for the peer connection.
    pub reduced: String,
    /// The offer's candidates, without `a=`.
    pub candidates: Vec<String>,
    /// `a=ice-ufrag` and `a=ice-pwd`.
    pub credentials: Credentials,
    /// The offerer's certificate: its identity.
    pub fingerprint: String,
    /// The offerer insists on being the DTLS client (`a=setup:active`).
    pub peer_is_dtls_client: bool,
    /// First lines and mids of all sections, for the answer.
    sections: Vec<(String, Option<String>)>,
}

/// ICE credentials (RFC 8839 section 5.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl Credentials {
    /// The first pair in an SDP or fragment.
    pub fn find(sdp: &str) -> Option<Self> {
        let value = |key| lines(sdp).find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        Some(Self { ufrag: value("a=ice-ufrag:")?, pwd: value("a=ice-pwd:")? })
    }

    /// The same SDP with these credentials instead of its own, everywhere.
    pub fn put_into(&self, sdp: &str) -> String {
        lines(sdp).fold(String::with_capacity(sdp.len()), |mut out, line| {
            let _ = match line {
                _ if line.starts_with("a=ice-ufrag:") => write!(out, "a=ice-ufrag:{}\r\n", self.ufrag),
                _ if line.starts_with("a=ice-pwd:") => write!(out, "a=ice-pwd:{}\r\n", self.pwd),
                _ => write!(out, "{line}\r\n"),
            };
            out
        })
    }
}

/// An SDP's lines without their ends.
pub(super) fn lines(sdp: &str) -> impl Iterator<Item = &str> {
    sdp.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty())
}

/// The candidates of an SDP or a trickle fragment, without `a=`. Those of component 2 are left out:
/// RTCP shares the media's port (`a=rtcp-mux`).
pub(super) fn candidates(sdp: &str) -> Vec<String> {
    lines(sdp)
        .filter_map(|line| line.strip_prefix("a=").filter(|rest| rest.starts_with("candidate:")))
        .filter(|candidate| candidate.split(' ').nth(1) == Some("1"))
        .take(MAX_CANDIDATES)
        .map(str::to_owned)
        .collect()
}

fn bad(message: &str) -> Refusal {
    Refusal::BadSdp(format!("the SDP offer can't be used: {message}"))
}

/// Reads an offer.
pub(super) fn plan(sdp: &str) -> Result<Plan, Refusal> {
    if sdp.len() > MAX_BYTES {
        return Err(bad("it is larger than 256 KiB"));
    }
    if !sdp.starts_with("v=0") {
        return Err(bad("it doesn't begin with v=0"));
    }
    if lines(sdp).filter(|line| !line.starts_with("a=candidate:")).count() > MAX_LINES {
        return Err(bad("it has more than 4096 lines"));
    }
    let (session, sections) = split(sdp);
    if sections.is_empty() {
        return Err(bad("it has no media section: add a camera or a microphone track"));
    }
    if sections.len() > MAX_SECTIONS {
        return Err(bad("it has more than 64 media sections"));
    }
    let chosen = choose(&session, &sections)?;
    let reduced = reduce(&session, &sections, &chosen)?;
    let credentials =
        Credentials::find(&reduced).ok_or_else(|| bad("a=ice-ufrag or a=ice-pwd is missing"))?;
    let fingerprint = lines(&reduced)
        .find_map(|line| line.strip_prefix("a=fingerprint:"))
        .ok_or_else(|| bad("a=fingerprint is missing: media must be encrypted with DTLS-SRTP"))?
        .to_owned();
    let peer_is_dtls_client = lines(&reduced).any(|line| line == "a=setup:active");
    Ok(Plan {
        peer_is_dtls_client,
        fingerprint,
        candidates: candidates(sdp),
        credentials,
        reduced,
        sections: sections.iter().map(|s| (s[0].to_owned(), value(s, "a=mid:").map(str::to_owned))).collect(),
        chosen,
    })
}

/// The session's lines and each section's.
fn split(sdp: &str) -> (Vec<&str>, Vec<Vec<&str>>) {
    let (mut session, mut sections) = (Vec::new(), Vec::<Vec<&str>>::new());
    for line in lines(sdp) {
        match sections.last_mut() {
            _ if line.starts_with("m=") => sections.push(vec![line]),
            Some(section) => section.push(line),
            None => session.push(line),
        }
    }
    (session, sections)
}

fn value<'a>(section: &[&'a str], key: &str) -> Option<&'a str> {
    section.iter().find_map(|line| line.strip_prefix(key))
}

/// The section's direction, or the session's, lets the client send.
fn sends(session: &[&str], section: &[&str]) -> bool {
    let direction = |lines: &[&str]| {
        lines.iter().find_map(|line| match *line {
            "a=sendrecv" | "a=sendonly" => Some(true),
            "a=recvonly" | "a=inactive" => Some(false),
            _ => None,
        })
    };
    let rejected = section[0].split(' ').nth(1) == Some("0") && !section.contains(&"a=bundle-only");
    !rejected && direction(section).or_else(|| direction(session)).unwrap_or(true)
}

/// The payload type whose `a=rtpmap` names this encoding.
fn payload_type(section: &[&str], encoding: &str) -> Option<u8> {
    section.iter().find_map(|line| {
        let (number, name) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
        name.eq_ignore_ascii_case(encoding).then(|| number.parse().ok()).flatten()
    })
}

/// Takes the first sending section of each kind that has a codec we record.
fn choose(session: &[&str], sections: &[Vec<&str>]) -> Result<Vec<Chosen>, Refusal> {
    let mut chosen = Vec::new();
    let mut offered = 0;
    for (kind, media, encoding, codec, channels) in [
        (Kind::Video, "m=video ", "VP8/90000", Codec::Vp8, 0),
        (Kind::Audio, "m=audio ", "opus/48000/2", Codec::Opus, 2),
    ] {
        let sending =
            || sections.iter().enumerate().filter(|(_, s)| s[0].starts_with(media) && sends(session, s));
        if sending().next().is_none() {
            continue;
        }
        offered += 1;
        let Some((index, section, number)) = sending().find_map(|(index, section)| {
            payload_type(section, encoding).map(|number| (index, section, number))
        }) else {
            return Err(Refusal::UnsupportedCodec);
        };
        let has = |line: String| section.contains(&line.as_str());
        let red = payload_type(section, "red/48000/2")
            .filter(|red| kind == Kind::Audio && has(format!("a=fmtp:{red} {number}/{number}")));
        let apt = format!(" apt={number}");
        let rtx = section.iter().find_map(|line| {
            line.strip_prefix("a=fmtp:")?.strip_suffix(&apt).and_then(|rtx| rtx.parse().ok())
        });
        let mid = value(section, "a=mid:").ok_or_else(|| bad("a media section has no a=mid"))?.to_owned();
        chosen.push(Chosen {
            index,
            mid,
            track: Track { channels, ..Track::video(codec) },
            ssrcs: ssrcs(section),
            payload_type: number,
            red,
            rtx,
        });
    }
    if offered == 0 {
        return Err(bad("no audio or video section sends anything: add a camera or a microphone track"));
    }
    Ok(chosen)
}

/// The reduced offer with these sources, `(primary, retransmissions)`, declared for the section of a
/// mid that declares none itself: the peer connection can't tell two sections apart without.
pub(super) fn declare(reduced: &str, mid: &str, primary: u32, repair: Option<u32>) -> String {
    let mut out = String::with_capacity(reduced.len() + 100);
    let wanted = format!("a=mid:{mid}");
    for line in lines(reduced) {
        let _ = write!(out, "{line}\r\n");
        if line == wanted {
            if let Some(repair) = repair {
                let _ = write!(out, "a=ssrc-group:FID {primary} {repair}\r\n");
            }
            for source in [Some(primary), repair].into_iter().flatten() {
                let _ = write!(out, "a=ssrc:{source} cname:onrecord\r\n");
            }
        }
    }
    out
}

fn ssrcs(section: &[&str]) -> Vec<u32> {
    let mut found = Vec::new();
    for line in section {
        let Some(rest) = line.strip_prefix("a=ssrc:") else { continue };
        if let Ok(ssrc) = rest.split(' ').next().unwrap_or_default().parse()
            && found.len() < MAX_SSRCS
            && !found.contains(&ssrc)
        {
            found.push(ssrc);
        }
    }
    found
}

/// The offer with the chosen sections only.
fn reduce(session: &[&str], sections: &[Vec<&str>], chosen: &[Chosen]) -> Result<String, Refusal> {
    if chosen.len() > 1 {
        let bundled = session.iter().any(|line| {
            line.strip_prefix("a=group:BUNDLE ")
                .is_some_and(|mids| chosen.iter().all(|c| mids.split(' ').any(|mid| mid == c.mid)))
        });
        if !bundled {
            return Err(bad("audio and video must share one transport (a=group:BUNDLE)"));
        }
    }
    let mut order: Vec<&Chosen> = chosen.iter().collect();
    order.sort_by_key(|chosen| chosen.index);
    let mut out = String::new();
    let dropped =
        ["a=group:", "a=msid-semantic", "a=candidate:", "a=end-of-candidates", "a=simulcast:", "a=rid:"];
    let directions = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
    let keep = |line: &&&str| !dropped.iter().any(|key| line.starts_with(key)) && !directions.contains(*line);
    for line in session.iter().filter(keep) {
        let _ = write!(out, "{line}\r\n");
    }
    let mids: Vec<&str> = order.iter().map(|chosen| chosen.mid.as_str()).collect();
    let _ = write!(out, "a=group:BUNDLE {}\r\n", mids.join(" "));
    for chosen in order {
        for line in sections[chosen.index].iter().filter(keep) {
            let _ = write!(out, "{line}\r\n");
        }
        out.push_str("a=sendonly\r\n");
    }
    Ok(out)
}

impl Plan {
    /// The answer for the client, woven from the peer connection's answer to the reduced offer.
    pub fn weave(&self, answer: &str) -> String {
        let (session, answered) = split(answer);
        let mut out = session.iter().fold(String::new(), |out, line| out + line + "\r\n");
        for (index, (first, mid)) in self.sections.iter().enumerate() {
            let chosen = self.chosen.iter().find(|chosen| chosen.index == index);
            let section = chosen.and_then(|c| answered.iter().find(|s| value(s, "a=mid:") == Some(&c.mid)));
            match (section, chosen.and_then(|chosen| chosen.red)) {
                (Some(section), red) => {
                    let _ = write!(out, "{}\r\n", prefer(section[0], red));
                    for line in section[1..].iter().filter(|line| !line.starts_with("a=candidate:")) {
                        let _ = write!(out, "{}\r\n", without_fec(line));
                    }
                    let own = candidates(&section.join("\n"));
                    for candidate in &own {
                        let _ = write!(out, "a={candidate}\r\n");
                    }
                    if !own.is_empty() {
                        out.push_str("a=end-of-candidates\r\n");
                    }
                }
                (None, _) => {
                    let mut words: Vec<&str> = first.split(' ').collect();
                    if let Some(port) = words.get_mut(1) {
                        *port = "0";
                    }
                    let _ = write!(out, "{}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n", words.join(" "));
                    if let Some(mid) = mid {
                        let _ = write!(out, "a=mid:{mid}\r\n");
                    }
                }
            }
        }
        out
    }
}

/// Opus parameters without in-band FEC: only a decoder that sees the loss could use it, so in a file
/// it would be dead weight; RED carries whole packets.
fn without_fec(line: &str) -> String {
    if line.starts_with("a=fmtp:") {
        line.replace("useinbandfec=1", "useinbandfec=0")
    } else {
        (*line).to_owned()
    }
}

/// An `m=` line with this payload type in front: browsers send the first one, and use RED only so.
fn prefer(line: &str, payload_type: Option<u8>) -> String {
    let Some(first) = payload_type.map(|pt| pt.to_string()) else { return line.to_owned() };
    let words: Vec<&str> = line.split(' ').collect();
    let (head, formats) = words.split_at(words.len().min(3));
    if !formats.contains(&first.as_str()) {
        return line.to_owned();
    }
    let rest = formats.iter().copied().filter(|format| *format != first);
    head.iter().copied().chain([first.as_str()]).chain(rest).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=fingerprint:sha-256 AA\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=mid:0\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=ssrc:7 cname:x\r\n";
    const VIDEO: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=sendonly\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rid:h send\r\na=simulcast:send h\r\na=candidate:1 1 udp 1 127.0.0.1 5 typ host\r\n";
    const H264: &str =
        "m=video 9 UDP/TLS/RTP/SAVPF 102\r\na=mid:2\r\na=sendonly\r\na=rtpmap:102 H264/90000\r\n";

    #[test]
    fn one_audio_and_one_video_section_are_taken_and_the_rest_is_rejected_with_port_0() {
        let plan = plan(&format!("{SESSION}{AUDIO}{VIDEO}{}", VIDEO.replace("mid:1", "mid:2"))).unwrap();
        assert_eq!(
            plan.chosen.iter().map(|c| (c.index, c.track.codec)).collect::<Vec<_>>(),
            [(1, Codec::Vp8), (0, Codec::Opus)]
        );
        assert_eq!(plan.chosen[1].red, Some(63));
        assert_eq!(plan.chosen[1].ssrcs, [7]);
        assert_eq!((plan.chosen[0].payload_type, plan.chosen[0].rtx), (96, Some(97)));
        let declared = declare(&plan.reduced, "1", 5, Some(6));
        assert!(declared.contains("a=mid:1\r\na=ssrc-group:FID 5 6\r\na=ssrc:5 "), "{declared}");
        for gone in ["simulcast", "a=rid", "candidate", "mid:2", "sendrecv"] {
            assert!(!plan.reduced.contains(gone), "{gone} is left in {}", plan.reduced);
        }
        assert_eq!(plan.candidates.len(), 2);
        let answer = plan.weave("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=mid:0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n");
        let media: Vec<_> = lines(&answer).filter(|line| line.starts_with("m=")).collect();
        assert_eq!(
            media,
            [
                "m=audio 9 UDP/TLS/RTP/SAVPF 63 111",
                "m=video 9 UDP/TLS/RTP/SAVPF 96",
                "m=video 0 UDP/TLS/RTP/SAVPF 96 97"
            ]
        );
    }

    #[test]
    fn an_offer_that_cannot_be_recorded_says_why() {
        let because = |sdp: &str| plan(sdp).map(|_| ()).unwrap_err();
        assert_eq!(because(&format!("{SESSION}{AUDIO}{H264}")), Refusal::UnsupportedCodec);
        assert_eq!(because(&format!("{SESSION}{H264}")), Refusal::UnsupportedCodec);
        for (sdp, word) in [
            (String::new(), "v=0"),
            ("rubbish".to_owned(), "v=0"),
            (SESSION.to_owned(), "no media section"),
            (
                format!("{SESSION}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n"),
                "sends anything",
            ),
            (format!("{SESSION}{}", VIDEO.replace("sendonly", "recvonly")), "sends anything"),
            (format!("{SESSION}{}", AUDIO.replace("a=mid:0\r\n", "")), "a=mid"),
            (format!("{SESSION}{AUDIO}{}", VIDEO.replace("mid:1", "mid:9")), "BUNDLE"),
            (format!("{}{AUDIO}", SESSION.replace("a=ice-pwd", "a=x")), "ice-pwd"),
            (format!("{}{AUDIO}", SESSION.replace("a=fingerprint", "a=x")), "fingerprint"),
            (format!("v=0\r\n{}", "a=x\r\n".repeat(100_000)), "larger"),
        ] {
            let refusal = because(&sdp).to_string();
            assert!(refusal.contains(word), "{refusal:?} doesn't mention {word:?}");
        }
    }
}
