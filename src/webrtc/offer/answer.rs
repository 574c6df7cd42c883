//! The answer to the whole of an offer, made from the peer connection's answer to the reduced one.

use super::section::{self, formats, mid, of_format, split, value};
use super::{ParsedOffer, RecordedSection, candidates};
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

impl ParsedOffer {
    /// The answer for the client, whose browser is to begin video at `start_bitrate` (bit/s; 0 leaves
    /// that to it).
    pub fn answer(&self, answer: &str, start_bitrate: u64) -> String {
        let (session, answered) = split(answer);
        let mut out = String::with_capacity(2 * answer.len());
        for line in session.iter().filter(|line| !line.starts_with("a=group:")) {
            let _ = write!(out, "{line}\r\n");
        }
        if let Some(group) = &self.transport.group {
            let _ = write!(out, "a=group:BUNDLE {}\r\n", group.join(" "));
        }
        for (index, offered) in self.sections.iter().enumerate() {
            let recorded = self.recorded.iter().find(|recorded| recorded.index == index);
            let section = recorded.and_then(|c| answered.iter().find(|s| mid(s) == Some(&c.mid)));
            if let (Some(recorded), Some(section)) = (recorded, section) {
                write_recorded(recorded, offered, section, start_bitrate / 1000, &mut out);
            } else if index == self.transport.tag {
                write_inactive(offered, answered.first().map_or(&[], Vec::as_slice), &mut out);
            } else {
                write_rejected(offered, &mut out);
            }
            if index == self.transport.tag {
                let own = candidates(answer);
                for candidate in &own {
                    let _ = write!(out, "a={candidate}\r\n");
                }
                out.push_str(if own.is_empty() { "" } else { "a=end-of-candidates\r\n" });
            }
        }
        out
    }

    /// The section that candidates belong to: its `a=mid`, and its position.
    pub fn tagged(&self) -> (Option<&str>, usize) {
        let tag = self.transport.tag;
        (self.sections[tag].mid(), tag)
    }
}

fn write_recorded(
    recorded: &RecordedSection,
    offered: &OfferedSection,
    answered: &[&str],
    start_kbits: u64,
    out: &mut String,
) {
    let numbers: Vec<String> =
        recorded.formats.iter().map(|format| format.payload_type.to_string()).collect();
    out.push_str(&offered.media_line("9", Some(numbers.join(" "))));
    let ours = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=mid:", "a=candidate:", "a=end-of-candidates"];
    for line in &answered[1..] {
        let reduced_size = *line != "a=rtcp-rsize" || offered.reduced_size;
        if reduced_size && !ours.iter().any(|key| line.starts_with(key)) {
            let _ = write!(out, "{line}\r\n");
        }
    }
    out.push_str(&offered.mid_line());
    for format in &recorded.formats {
        format.write_answer(recorded.kind(), start_kbits, out);
    }
    out.push_str(&recorded.identifiers.answer());
}

/// The section that the transport belongs to, taken without media: Chromium under `max-bundle` can't
/// apply an answer that refuses it.
fn write_inactive(offered: &OfferedSection, answered: &[&str], out: &mut String) {
    let first = section::formats(&[&offered.media]).next().unwrap_or("0").to_owned();
    out.push_str(&offered.media_line("9", Some(first)));
    let _ = write!(out, "c=IN IP4 0.0.0.0\r\n{}a=inactive\r\n{}", offered.mid_line(), offered.inactive);
    for key in ["a=setup:", "a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:"] {
        if let Some(value) = value(answered, key) {
            let _ = write!(out, "{key}{value}\r\n");
        }
    }
}

/// A section that is refused with port 0 (RFC 3264 section 6).
fn write_rejected(offered: &OfferedSection, out: &mut String) {
    out.push_str(&offered.media_line("0", None));
    let _ = write!(out, "c=IN IP4 0.0.0.0\r\na=inactive\r\n{}", offered.mid_line());
}
