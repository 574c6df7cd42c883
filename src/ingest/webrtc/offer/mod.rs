//! The SDP offer, cut down to what we record, and the answer that fits the whole of it.
//!
//! The peer connection is given only the sections we take (one audio, one video, no simulcast, no
//! candidates: those are added one by one, so that a broken one costs nobody the call), with the payload
//! types we take and one transport, in plain words: offers differ more than it understands. Its answer
//! is then woven into one for the client's offer, where all other sections are rejected with port 0
//! (RFC 3264 section 6). Text in, text out: SDP is lines (RFC 8866), and what we don't take need not
//! even be valid.

mod answer;
mod formats;
mod section;
#[cfg(test)]
mod tests;
mod transport;

pub(super) use formats::{Carries, Format, RED_FEEDBACK, feedback_of};
pub(super) use section::lines;
pub(super) use transport::{Credentials, Identity};

use crate::ingest::Refusal;
use crate::media::{Codec, Kind, Track};
use answer::Offered;
use bytes::Bytes;
use section::{mid, sends, split};
use std::fmt::Write as _;
use transport::Transport;

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
    /// Its `a=mid`, or a made-up one: a section that shares its transport with none needs none.
    pub mid: String,
    /// What it becomes.
    pub track: Track,
    /// SSRCs that the section declares, first the primary one.
    pub ssrcs: Vec<u32>,
    /// Payload type of the codec that is answered first.
    pub payload_type: u8,
    /// Payload type of RED around Opus (RFC 2198), if offered.
    pub red: Option<u8>,
    /// Payload type of its retransmissions (RFC 4588), if offered.
    pub rtx: Option<u8>,
    /// All payload types that it may come under, in the order of the answer.
    pub formats: Vec<Format>,
}

impl Chosen {
    /// Whether its media comes under this payload type, plain or as RED.
    pub fn is_media(&self, payload_type: u8) -> bool {
        let carries = |format: &Format| format.payload_type == payload_type && !format.is_repair();
        payload_type == self.payload_type
            || Some(payload_type) == self.red
            || self.formats.iter().any(carries)
    }

    /// Whether its retransmissions do.
    pub fn is_repair(&self, payload_type: u8) -> bool {
        let repairs = |format: &Format| format.payload_type == payload_type && format.is_repair();
        Some(payload_type) == self.rtx || self.formats.iter().any(repairs)
    }

    /// Whether packets may be asked for again; browsers answer that for sound only if they offer it.
    pub fn has_nack(&self) -> bool {
        let offered = |format: &Format| format.has_feedback("nack");
        self.track.codec.kind() == Kind::Video || self.formats.iter().any(offered)
    }
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
    /// Where and with whom.
    transport: Transport,
    /// All sections, for the answer.
    sections: Vec<Offered>,
}

impl Plan {
    /// `a=ice-ufrag` and `a=ice-pwd`.
    pub fn credentials(&self) -> &Credentials {
        &self.transport.credentials
    }

    /// The offerer has begun to use others (a WHIP client says so in a fragment).
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.transport.credentials = credentials;
    }

    /// The offerer's certificate.
    pub fn identity(&self) -> &Identity {
        &self.transport.identity
    }

    /// The offerer insists on being the DTLS client (`a=setup:active`).
    pub fn peer_is_dtls_client(&self) -> bool {
        self.transport.peer_is_dtls_client
    }
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
    let transport = Transport::of(&session, &sections, &chosen)?;
    Ok(Plan {
        reduced: reduce(&session, &sections, &chosen, &transport),
        candidates: candidates(sdp),
        transport,
        sections: sections.iter().map(|section| Offered::of(section)).collect(),
        chosen,
    })
}

/// Takes the first sending section of each kind that has a codec we record.
fn choose(session: &[&str], sections: &[Vec<&str>]) -> Result<Vec<Chosen>, Refusal> {
    let mut chosen: Vec<Chosen> = Vec::new();
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
        let track = Track { codec, channels, private: Bytes::new() };
        let found = sending().find_map(|(index, section)| {
            choose_section(index, section, formats::find(section, kind, encoding), &track)
        });
        chosen.push(found.ok_or(Refusal::UnsupportedCodec)?);
    }
    if offered == 0 {
        return Err(bad("no audio or video section sends anything: add a camera or a microphone track"));
    }
    if let [one, other] = chosen.as_slice()
        && one.mid == other.mid
    {
        return Err(bad("two media sections have the same a=mid"));
    }
    Ok(chosen)
}

/// A section with these payload types; `None` if they carry nothing of the codec.
fn choose_section(index: usize, section: &[&str], formats: Vec<Format>, track: &Track) -> Option<Chosen> {
    let of = |carries| formats.iter().find(|f| f.carries == carries).map(|format| format.payload_type);
    let payload_type = of(Carries::Media)?;
    Some(Chosen {
        index,
        mid: mid(section).map_or_else(|| format!("section-{index}"), str::to_owned),
        track: track.clone(),
        ssrcs: ssrcs(section),
        payload_type,
        red: of(Carries::Redundancy),
        rtx: of(Carries::Repair(payload_type)),
        formats,
    })
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

/// The offer with the chosen sections only, in our own words but for sources and header extensions.
fn reduce(session: &[&str], sections: &[Vec<&str>], chosen: &[Chosen], transport: &Transport) -> String {
    let mut order: Vec<&Chosen> = chosen.iter().collect();
    order.sort_by_key(|chosen| chosen.index);
    let mut out = String::from("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    let for_all = ["a=extmap-allow-mixed", "a=ice-lite"];
    for line in session.iter().filter(|line| for_all.contains(*line)) {
        let _ = write!(out, "{line}\r\n");
    }
    let mids: Vec<&str> = order.iter().map(|chosen| chosen.mid.as_str()).collect();
    let _ = write!(out, "a=group:BUNDLE {}\r\n", mids.join(" "));
    let kept = ["a=extmap:", "a=msid:", "a=ssrc:", "a=ssrc-group:"];
    for chosen in order {
        let kind = if chosen.track.codec.kind() == Kind::Video { "video" } else { "audio" };
        let _ = write!(out, "m={kind} 9 UDP/TLS/RTP/SAVPF");
        for format in &chosen.formats {
            let _ = write!(out, " {}", format.payload_type);
        }
        let _ = write!(out, "\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\na=sendonly\r\na=rtcp-mux\r\n", chosen.mid);
        transport.write(&mut out);
        chosen.formats.iter().for_each(|format| format.reduce(&mut out));
        let section = &sections[chosen.index];
        for line in section.iter().filter(|line| kept.iter().any(|key| line.starts_with(key))) {
            let _ = write!(out, "{line}\r\n");
        }
    }
    out
}
