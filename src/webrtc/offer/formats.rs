//! The payload types of a section that are recorded, and what the answer says of them.

use super::section::{formats, of_format};
use crate::media::{Codec, Kind};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Payload types of one codec that are taken. Browsers offer one; what we take apart is bounded.
const MAX_MEDIA: usize = 4;

/// What comes under a payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::webrtc) enum PayloadKind {
    /// The codec's packets.
    Media,
    /// Several of them in one, as RED (RFC 2198).
    Red,
    /// Those of this payload type once more (RFC 4588).
    Rtx(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::webrtc) struct Format {
    pub payload_type: u8,
    pub payload_kind: PayloadKind,
    /// Name, clock rate and channels, as offered (`a=rtpmap`).
    encoding: String,
    /// The answer's `a=fmtp`; empty for none.
    parameters: String,
    /// The answer's `a=rtcp-fb`: what is offered and we know how to use.
    feedback: Vec<&'static str>,
}

/// Feedback that we can make use of (RFC 4585, RFC 5104, and the draft of transport-wide congestion
/// control), for the media of a kind.
const fn feedback_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Video => &["nack", "nack pli", "ccm fir", "transport-cc"],
        Kind::Audio => &["nack", "transport-cc"],
    }
}

/// The same for RED: what is lost of it is in the next packet.
const RED_FEEDBACK: &[&str] = &["transport-cc"];

/// The payload types of a section that carry this codec, in the order of the answer: browsers send
/// the first, so RED goes before what it protects (they use it only so), and what can be sent again
/// before what can't. Empty if there are none.
pub(super) fn find(section: &[&str], codec: Codec) -> Vec<Format> {
    let kind = codec.kind();
    let listed = listed(section);
    let named = |name: &str| {
        let same = move |(_, other): &&(u8, &str)| other.eq_ignore_ascii_case(name);
        listed.iter().filter(same).map(|(payload_type, _)| *payload_type).collect::<Vec<_>>()
    };
    let mut media = named(codec.rtpmap());
    media.truncate(MAX_MEDIA);
    let parameters =
        |payload_type| section.iter().find_map(|line| of_format(line, "a=fmtp:", payload_type)).unwrap_or("");
    let rtx: Vec<(u8, Option<u8>)> =
        named("rtx/90000").into_iter().map(|rtx| (rtx, repaired(parameters(rtx)))).collect();
    let repair = |of: u8| rtx.iter().find(|(_, repaired)| *repaired == Some(of)).map(|(rtx, _)| *rtx);
    media.sort_by_key(|payload_type| repair(*payload_type).is_none());

    let format = |payload_type, payload_kind, parameters: String, known: &[&'static str]| Format {
        payload_type,
        payload_kind,
        encoding: listed
            .iter()
            .find(|(number, _)| *number == payload_type)
            .map_or("", |found| found.1)
            .into(),
        parameters,
        feedback: offered_feedback(section, payload_type, known),
    };
    let mut found = Vec::new();
    let red = named("red/48000/2").into_iter().find(|red| protects(parameters(*red), &media));
    if let Some(red) = red.filter(|_| kind == Kind::Audio) {
        found.push(format(red, PayloadKind::Red, parameters(red).to_owned(), RED_FEEDBACK));
    }
    for of in media {
        found.push(format(of, PayloadKind::Media, answered(codec, parameters(of)), feedback_of(kind)));
        if let Some(rtx) = repair(of) {
            found.push(format(rtx, PayloadKind::Rtx(of), format!("apt={of}"), &[]));
        }
    }
    found
}

/// The payload types of the `m=` line that an `a=rtpmap` gives a name. One without is a static one
/// (RFC 3551), of which we record none.
fn listed<'a>(section: &[&'a str]) -> Vec<(u8, &'a str)> {
    let mut names = HashMap::new();
    for line in section {
        if let Some((number, name)) = line.strip_prefix("a=rtpmap:").and_then(|map| map.split_once(' '))
            && let Ok(number) = number.parse::<u8>()
        {
            names.entry(number).or_insert(name.trim());
        }
    }
    // RTP has 7 bits for them.
    let numbers =
        formats(section).filter_map(|format| format.parse::<u8>().ok()).filter(|number| *number < 128);
    // Each once, however often it is listed.
    numbers.filter_map(|number| names.remove(&number).map(|name| (number, name))).collect()
}

/// `apt` of RTX: the payload type that it repairs (RFC 4588 section 8.1), among other parameters.
fn repaired(parameters: &str) -> Option<u8> {
    let of = |parameter: &str| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case("apt").then(|| value.trim().parse().ok()).flatten()
    };
    parameters.split(';').find_map(of)
}

/// Whether RED's parameters (RFC 2198 section 5: `111/111`) name one payload type throughout, which is
/// one of these.
fn protects(parameters: &str, media: &[u8]) -> bool {
    let mut generations = parameters.split('/').map(|generation| generation.trim().parse::<u8>().ok());
    let first = generations.next().flatten();
    first.is_some_and(|of| media.contains(&of))
        && parameters.contains('/')
        && generations.all(|of| of == first)
}

/// What is answered to a codec's parameters. Those of Opus come back, without in-band FEC: only a
/// decoder that sees the loss could use it, so in a file it would be dead weight; RED carries whole
/// packets. Those of VP8 are the offerer's own bounds as a receiver (RFC 7741 section 6.1), which would
/// bound it as a sender in our answer.
fn answered(codec: Codec, parameters: &str) -> String {
    match codec {
        Codec::Opus => parameters.replace("useinbandfec=1", "useinbandfec=0"),
        _ => String::new(),
    }
}

/// What is offered of the feedback we know, for this payload type or for all (`a=rtcp-fb:*`, RFC 4585
/// section 4.2).
fn offered_feedback(section: &[&str], payload_type: u8, known: &[&'static str]) -> Vec<&'static str> {
    let offered = |line: &&str, feedback: &str| {
        let wildcard = || line.strip_prefix("a=rtcp-fb:* ").map(str::trim);
        of_format(line, "a=rtcp-fb:", payload_type).or_else(wildcard) == Some(feedback)
    };
    known.iter().copied().filter(|feedback| section.iter().any(|line| offered(line, feedback))).collect()
}

impl Format {
    /// One without parameters and feedback.
    #[cfg(test)]
    pub fn plain(payload_type: u8, payload_kind: PayloadKind) -> Self {
        Self {
            payload_type,
            payload_kind,
            encoding: String::new(),
            parameters: String::new(),
            feedback: Vec::new(),
        }
    }

    /// Whether the offerer wants to hear of this.
    pub fn has_feedback(&self, feedback: &str) -> bool {
        self.feedback.contains(&feedback)
    }

    /// Its lines in the answer; of video with the bitrate (kbit/s) at which a browser is to begin, where
    /// 0 leaves that to it.
    pub(super) fn write_answer(&self, kind: Kind, start_kbits: u64, out: &mut String) {
        let start = (kind, self.payload_kind) == (Kind::Video, PayloadKind::Media) && start_kbits > 0;
        let parameters = match start {
            true => format!("x-google-start-bitrate={start_kbits}"),
            false => self.parameters.clone(),
        };
        self.write(&parameters, out);
    }

    fn write(&self, parameters: &str, out: &mut String) {
        let number = self.payload_type;
        let _ = write!(out, "a=rtpmap:{number} {}\r\n", self.encoding);
        if !parameters.is_empty() {
            let _ = write!(out, "a=fmtp:{number} {parameters}\r\n");
        }
        for feedback in &self.feedback {
            let _ = write!(out, "a=rtcp-fb:{number} {feedback}\r\n");
        }
    }
}
