//! The SDP offer: what of it is recorded, and the answer that fits the whole of it.
//!
//! One audio and one video section are taken, on one transport; all others are rejected with port 0 (RFC 3264
//! section 6). Text in, text out: SDP is lines (RFC 8866), and what we don't take need not even be valid. A
//! candidate that is broken doesn't end the call, so each is taken apart by itself.

mod answer;
mod formats;
mod section;
#[cfg(test)]
mod tests;
mod transport;

pub(super) use formats::{Format, PayloadKind};
pub(super) use section::lines;
pub(super) use transport::{Credentials, Identity};

use crate::media::Kind;
use crate::rtp::PayloadFormat;
use crate::webrtc::PeerError;
use crate::webrtc::simulcast::PacketIdentifiers;
pub(super) use answer::LocalTransport;
use answer::OfferedSection;
use section::{mid, sends, split};
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordedSection {
    /// Position in the client's offer.
    pub index: usize,
    /// Its `a=mid`, or a made-up one: a section that shares its transport with none needs none.
    pub mid: String,
    /// What its packets carry.
    pub format: PayloadFormat,
    /// SSRCs that the section declares, first the primary one.
    pub ssrcs: Vec<u32>,
    /// All payload types that it may come under, in the order of the answer.
    pub formats: Vec<Format>,
    pub identifiers: PacketIdentifiers,
}

impl RecordedSection {
    pub fn kind(&self) -> Kind {
        self.format.codec().kind()
    }

    /// What comes under this payload type; `None` if the answer doesn't take it.
    pub fn payload_kind(&self, payload_type: u8) -> Option<PayloadKind> {
        let format = self.formats.iter().find(|format| format.payload_type == payload_type);
        format.map(|format| format.payload_kind)
    }

    /// Whether packets may be asked for again; browsers answer that for sound only if they offer it.
    pub fn has_nack(&self) -> bool {
        let offered = |format: &Format| format.has_feedback("nack");
        self.kind() == Kind::Video || self.formats.iter().any(offered)
    }
}

/// An offer that can be answered.
#[derive(Clone, Debug)]
pub(super) struct ParsedOffer {
    /// What is recorded: video first, then audio.
    pub recorded: Vec<RecordedSection>,
    /// The offer's candidates, without `a=`.
    pub candidates: Vec<String>,
    transport: Transport,
    /// The offerer is ICE-lite (RFC 8839 section 5.3).
    pub is_ice_lite: bool,
    /// One-byte and two-byte header extensions may be mixed (RFC 8285 section 6).
    extmap_allow_mixed: bool,
    /// Sections that send something which is not recorded.
    pub rejected: Vec<RejectedSection>,
    /// All sections, for the answer.
    sections: Vec<OfferedSection>,
}

/// A section that sends something which is not recorded: its port is 0 in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RejectedSection {
    /// Its `a=mid`, or its position where it has none.
    pub mid: String,
    pub reason: &'static str,
}

impl ParsedOffer {
    /// `a=ice-ufrag` and `a=ice-pwd`.
    pub fn credentials(&self) -> &Credentials {
        &self.transport.credentials
    }

    /// The offerer has begun to use others (a WHIP client says so in a fragment).
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.transport.credentials = credentials;
    }

    pub fn identity(&self) -> &Identity {
        &self.transport.identity
    }

    pub fn mids(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().filter_map(OfferedSection::mid)
    }

    /// The id of the header extension that counts packets transport-wide.
    pub fn congestion_id(&self) -> Option<u8> {
        self.recorded.iter().find_map(|recorded| recorded.identifiers.congestion_id)
    }

    /// Payload types that may come, with the rates of their clocks (a retransmission has that of what it
    /// repeats, RFC 4588 section 8.1).
    pub fn clocks(&self) -> Vec<(u8, u32)> {
        let of = |recorded: &RecordedSection| {
            let rate = recorded.format.codec().clock_rate();
            recorded.formats.iter().map(move |format| (format.payload_type, rate)).collect::<Vec<_>>()
        };
        self.recorded.iter().flat_map(of).collect()
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

fn bad(message: &str) -> PeerError {
    PeerError::BadSdp(format!("the SDP offer can't be used: {message}"))
}

pub(super) fn parse(sdp: &str) -> Result<ParsedOffer, PeerError> {
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
    let recorded = recorded_sections(&session, &sections)?;
    let transport = Transport::of(&session, &sections, &recorded)?;
    Ok(ParsedOffer {
        candidates: candidates(sdp),
        transport,
        is_ice_lite: session.contains(&"a=ice-lite"),
        extmap_allow_mixed: session.contains(&"a=extmap-allow-mixed"),
        rejected: rejected(&session, &sections, &recorded),
        sections: sections.iter().map(|section| OfferedSection::of(section)).collect(),
        recorded,
    })
}

/// Takes the first sending section of each kind that has a codec we record.
fn recorded_sections(session: &[&str], sections: &[Vec<&str>]) -> Result<Vec<RecordedSection>, PeerError> {
    let mut recorded: Vec<RecordedSection> = Vec::new();
    let mut offered = 0;
    for format in PayloadFormat::ALL {
        let of_kind = |section: &[&str]| kind_of(section) == Some(format.codec().kind());
        let sending = || sections.iter().enumerate().filter(|(_, s)| of_kind(s) && sends(session, s));
        if sending().next().is_none() {
            continue;
        }
        offered += 1;
        let found = sending().find_map(|(index, section)| {
            let formats = formats::find(section, format.codec());
            (!formats.is_empty()).then(|| recorded_section(session, (index, section), formats, format))
        });
        recorded.push(found.ok_or(PeerError::UnsupportedCodec)?);
    }
    if offered == 0 {
        return Err(bad("no audio or video section sends anything: add a camera or a microphone track"));
    }
    if let [one, other] = recorded.as_slice()
        && one.mid == other.mid
    {
        return Err(bad("two media sections have the same a=mid"));
    }
    Ok(recorded)
}

/// What a section is about; `None` for data channels and the like.
fn kind_of(section: &[&str]) -> Option<Kind> {
    let media = section[0].strip_prefix("m=")?.split(' ').next()?;
    [Kind::Video, Kind::Audio].into_iter().find(|kind| kind.as_str() == media)
}

fn recorded_section(
    session: &[&str],
    (index, section): (usize, &[&str]),
    formats: Vec<Format>,
    format: PayloadFormat,
) -> RecordedSection {
    let media = formats.iter().filter(|format| format.payload_kind == PayloadKind::Media);
    let media: Vec<u8> = media.map(|format| format.payload_type).collect();
    RecordedSection {
        index,
        mid: name_of(index, section),
        format,
        ssrcs: ssrcs(section),
        formats,
        identifiers: PacketIdentifiers::read(session, section, &media),
    }
}

fn name_of(index: usize, section: &[&str]) -> String {
    mid(section).map_or_else(|| format!("section-{index}"), str::to_owned)
}

/// The sections that send something and are not recorded.
fn rejected(session: &[&str], sections: &[Vec<&str>], recorded: &[RecordedSection]) -> Vec<RejectedSection> {
    let left_out = |(index, section): &(usize, &Vec<&str>)| {
        recorded.iter().all(|recorded| recorded.index != *index) && sends(session, section)
    };
    let reason = |section: &[&str]| {
        let Some(kind) = kind_of(section) else { return "only audio and video are recorded" };
        let mut codecs = PayloadFormat::ALL.map(PayloadFormat::codec).into_iter();
        let is_recorded =
            codecs.any(|codec| codec.kind() == kind && !formats::find(section, codec).is_empty());
        match !is_recorded {
            true => "none of its codecs is recorded",
            false => "one section of a kind is recorded, and another one comes before it",
        }
    };
    let rejected = |(index, section): (usize, &Vec<&str>)| RejectedSection {
        mid: name_of(index, section),
        reason: reason(section),
    };
    sections.iter().enumerate().filter(left_out).map(rejected).collect()
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
