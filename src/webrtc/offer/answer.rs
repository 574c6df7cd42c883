//! The answer to an offer.

use super::section::{self, formats, mid, of_format};
use super::{Credentials, ParsedOffer, RecordedSection};
use std::fmt::Write as _;

/// A section of the offer, as far as its answer needs it.
#[derive(Clone, Debug)]
pub(super) struct OfferedSection {
    /// Its `m=` line.
    media: String,
    mid: Option<String>,
    /// It may be sent RTCP without a report in front (RFC 5506).
    reduced_size: bool,
    /// Its other lines in an answer that takes it without media.
    inactive: String,
}

impl OfferedSection {
    pub fn of(section: &[&str]) -> Self {
        Self {
            media: section[0].to_owned(),
            mid: mid(section).map(str::to_owned),
            reduced_size: section.contains(&"a=rtcp-rsize"),
            inactive: inactive(section),
        }
    }

    /// Its `m=` line with another port, and these formats where it keeps one.
    fn media_line(&self, port: &str, formats: Option<String>) -> String {
        let mut fields: Vec<&str> = self.media.split_ascii_whitespace().collect();
        if let Some(old) = fields.get_mut(1) {
            *old = port;
        }
        if formats.is_some() {
            fields.truncate(3);
        }
        fields.extend(formats.as_deref());
        fields.join(" ") + "\r\n"
    }

    pub fn mid(&self) -> Option<&str> {
        self.mid.as_deref()
    }

    fn mid_line(&self) -> String {
        self.mid.as_ref().map(|mid| format!("a=mid:{mid}\r\n")).unwrap_or_default()
    }
}

/// What an answer says of a section that stays in the transport without media, besides `a=mid` and that
/// transport: the formats that it needs (RFC 3264 section 6), or the port of data channels.
fn inactive(section: &[&str]) -> String {
    let is_said = |line: &&&str| {
        let number = formats(section).next().and_then(|format| format.parse().ok());
        let of_first = |key| number.is_some_and(|number| of_format(line, key, number).is_some());
        **line == "a=rtcp-mux"
            || of_first("a=rtpmap:")
            || of_first("a=fmtp:")
            || line.starts_with("a=sctp-port:")
            || line.starts_with("a=sctpmap:")
    };
    section.iter().filter(is_said).take(8).map(|line| format!("{line}\r\n")).collect()
}

/// Our side of the one transport.
#[derive(Clone, Debug)]
pub(in crate::webrtc) struct LocalTransport<'a> {
    pub credentials: &'a Credentials,
    /// The value of `a=fingerprint`.
    pub fingerprint: String,
    /// Our candidates, as in SDP: `candidate:…`.
    pub candidates: &'a [String],
    /// The session's number and its version, which grows with each answer (RFC 8866 section 5.2).
    pub origin: (u64, u64),
}

impl ParsedOffer {
    /// The answer, whose browser is to begin video at `start_bitrate` (bit/s; 0 leaves that to it).
    pub fn answer(&self, local: &LocalTransport<'_>, start_bitrate: u64) -> String {
        let (id, version) = local.origin;
        let mut out = format!("v=0\r\no=- {id} {version} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
        if self.extmap_allow_mixed {
            out.push_str("a=extmap-allow-mixed\r\n");
        }
        if let Some(group) = &self.transport.group {
            let _ = write!(out, "a=group:BUNDLE {}\r\n", group.join(" "));
        }
        for (index, offered) in self.sections.iter().enumerate() {
            if let Some(recorded) = self.recorded.iter().find(|recorded| recorded.index == index) {
                self.write_recorded(recorded, offered, local, start_bitrate / 1000, &mut out);
            } else if index == self.transport.tag {
                self.write_inactive(offered, local, &mut out);
            } else {
                write_rejected(offered, &mut out);
            }
            if index == self.transport.tag {
                for candidate in local.candidates {
                    let _ = write!(out, "a={candidate}\r\n");
                }
                out.push_str("a=end-of-candidates\r\n");
            }
        }
        out
    }

    /// The section that candidates belong to: its `a=mid`, and its position.
    pub fn tagged(&self) -> (Option<&str>, usize) {
        let tag = self.transport.tag;
        (self.sections[tag].mid(), tag)
    }

    fn write_transport(&self, local: &LocalTransport<'_>, out: &mut String) {
        let setup = if self.transport.peer_is_dtls_client { "passive" } else { "active" };
        let Credentials { ufrag, pwd } = local.credentials;
        let _ = write!(out, "a=setup:{setup}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n");
        let _ = write!(out, "a=fingerprint:{}\r\n", local.fingerprint);
    }

    fn write_recorded(
        &self,
        recorded: &RecordedSection,
        offered: &OfferedSection,
        local: &LocalTransport<'_>,
        start_kbits: u64,
        out: &mut String,
    ) {
        let numbers: Vec<String> =
            recorded.formats.iter().map(|format| format.payload_type.to_string()).collect();
        out.push_str(&offered.media_line("9", Some(numbers.join(" "))));
        let _ = write!(out, "c=IN IP4 0.0.0.0\r\n{}a=recvonly\r\na=rtcp-mux\r\n", offered.mid_line());
        if offered.reduced_size {
            out.push_str("a=rtcp-rsize\r\n");
        }
        self.write_transport(local, out);
        for format in &recorded.formats {
            format.write_answer(recorded.kind(), start_kbits, out);
        }
        out.push_str(&recorded.identifiers.answer());
    }

    /// The section that the transport belongs to, taken without media: Chromium under `max-bundle` can't
    /// apply an answer that refuses it.
    fn write_inactive(&self, offered: &OfferedSection, local: &LocalTransport<'_>, out: &mut String) {
        let first = section::formats(&[&offered.media]).next().unwrap_or("0").to_owned();
        out.push_str(&offered.media_line("9", Some(first)));
        let _ = write!(out, "c=IN IP4 0.0.0.0\r\n{}a=inactive\r\n{}", offered.mid_line(), offered.inactive);
        self.write_transport(local, out);
    }
}

/// A section that is refused with port 0 (RFC 3264 section 6).
fn write_rejected(offered: &OfferedSection, out: &mut String) {
    out.push_str(&offered.media_line("0", None));
    let _ = write!(out, "c=IN IP4 0.0.0.0\r\na=inactive\r\n{}", offered.mid_line());
}
