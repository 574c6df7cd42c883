//! Which of a section's sources (SSRCs) is recorded.
//!
//! A section may bring several: encodings of one camera in several sizes (simulcast, RFC 8853), the
//! retransmissions of each (RFC 4588), and the one of an encoder that was restarted. An offer may name them, or
//! their encodings (rid), or nothing, and never says which is the largest. So only what authentic packets
//! tell is believed: a payload type says what a packet is (unique on one transport, RFC 8843 section 9.2),
//! its keyframes how large a source's pictures are. The one with the largest is recorded. Packets of the
//! others end here, before they are put into order or asked for again.
//!
//! A track goes over to another source at that one's keyframe: when it is larger, or when the recorded one
//! has fallen silent while the other goes on. Sound, whose every packet is a beginning, only at the latter: it
//! begins with what the other one sent meanwhile, so that nothing is lost while that is not clear.

mod sections;

pub(super) use sections::Sections;

use crate::media::{Kind, Size};
use crate::rtp;
use crate::webrtc::offer::{PayloadKind, RecordedSection};
use crate::webrtc::packet_path::header::Header;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sources of one section that are told apart, the newest: a few encodings, and those that replaced them.
const MAX_SOURCES: usize = 16;
/// A source that was heard within this time still sends.
const HEARD: Duration = Duration::from_secs(1);
/// The recorded source is over when it was silent for this long while another one sent so many pictures or
/// packets of sound: an encoder short of bitrate drops pictures of its largest encoding for some 200 ms,
const ENDED_VIDEO: (Duration, u32) = (Duration::from_millis(500), 3);
/// and sound that is merely late is so on all sources.
const ENDED_AUDIO: (Duration, u32) = (Duration::from_millis(100), 5);
/// Packets of sound that are kept meanwhile: 100 ms of the shortest ones, of two sources.
const MAX_KEPT: usize = 80;
/// A new source begins with a keyframe. So long it may be on its way,
const BEGINS: Duration = Duration::from_millis(100);
/// then it is asked for, with pauses that double from this one
const ASK: Duration = Duration::from_millis(500);
/// to 2^4 times as much.
const MAX_DOUBLINGS: u32 = 4;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not recorded.
    Drop,
    /// It is the recorded source's.
    Media,
    /// From this packet on another source is recorded; with a hole in between if the old one had ended.
    Replaces {
        /// What the old one would have sent meanwhile is missing.
        hole: bool,
    },
}

/// An authentic packet, without its padding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub header: Header<'a>,
    pub payload: &'a [u8],
}

/// A sender report's pair of times (RFC 3550 section 6.4.1) and its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// Wall clock, 32.32 fixed point.
    pub ntp: u64,
    /// The same instant in the source's RTP clock.
    pub rtp: u32,
    pub arrived: Instant,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    /// Its encoding, if its packets name one.
    rid: Option<Bytes>,
    /// Where its packets come from again.
    repair: Option<u32>,
    heard: Instant,
    /// Pixels of its newest keyframe.
    area: Option<u64>,
    timestamp: u32,
    /// Pictures, or packets of sound, since the recorded source was heard.
    ahead: u32,
    /// When it is to be asked for a keyframe, if it still matters, and how often it was.
    ask: Instant,
    asked: u32,
    report: Option<Report>,
    said_bye: bool,
}

impl Source {
    fn new(ssrc: u32, rid: Option<Bytes>, now: Instant) -> Self {
        Self {
            ssrc,
            rid,
            repair: None,
            heard: now,
            area: None,
            timestamp: 0,
            ahead: 0,
            ask: now + BEGINS,
            asked: 0,
            report: None,
            said_bye: false,
        }
    }
}

/// The sources of one section.
#[derive(Debug)]
pub(super) struct Sources {
    section: RecordedSection,
    all: Vec<Source>,
    recorded: Option<usize>,
    /// Sound of others since that one was heard, and when it came. Of more than [`MAX_KEPT`] the newest.
    kept: VecDeque<Kept>,
}

/// A packet of sound that is not recorded yet.
#[derive(Debug)]
pub(super) struct Kept {
    ssrc: u32,
    pub packet: rtp::Packet,
    pub arrived: Instant,
}

impl Sources {
    fn new(section: RecordedSection) -> Self {
        Self { section, all: Vec::new(), recorded: None, kept: VecDeque::new() }
    }

    fn is_video(&self) -> bool {
        self.section.kind() == Kind::Video
    }

    fn knows(&self, ssrc: u32) -> bool {
        self.all.iter().any(|source| source.ssrc == ssrc || source.repair == Some(ssrc))
    }

    pub fn recorded(&self) -> Option<u32> {
        self.recorded.map(|at| self.all[at].ssrc)
    }

    pub fn report(&self) -> Option<Report> {
        self.all[self.recorded?].report
    }

    /// Looks at a packet; a retransmission becomes the packet it repeats.
    fn take(&mut self, packet: &mut Packet<'_>, now: Instant) -> Verdict {
        let at = match self.section.payload_kind(packet.header.payload_type) {
            Some(PayloadKind::Rtx(of)) => {
                let primary = self.repaired_by(&packet.header);
                // What was not asked for repeats a picture that isn't recorded.
                primary.filter(|at| self.recorded == Some(*at) && unwrap_rtx(packet, self.all[*at].ssrc, of))
            }
            Some(PayloadKind::Media | PayloadKind::Red) => self.find(&packet.header, now),
            None => None,
        };
        let Some(at) = at else { return Verdict::Drop };
        if self.is_video() {
            let size = self.section.format.keyframe_size(packet.payload);
            return self.heard(at, packet.header.timestamp, size, now);
        }
        let silent_since = self.recorded.map(|at| self.all[at].heard);
        let verdict = self.heard(at, packet.header.timestamp, None, now);
        self.keep(packet, verdict, silent_since.unwrap_or(now), now)
    }

    /// Keeps sound that may be recorded yet, while the recorded source is silent; what the verdict is then.
    fn keep(
        &mut self,
        packet: &Packet<'_>,
        verdict: Verdict,
        silent_since: Instant,
        now: Instant,
    ) -> Verdict {
        match verdict {
            Verdict::Media => self.kept.clear(),
            Verdict::Drop => {
                if self.kept.len() >= MAX_KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back(Kept {
                    ssrc: packet.header.ssrc,
                    packet: self.media(packet).with(Bytes::copy_from_slice(packet.payload)),
                    arrived: now,
                });
            }
            Verdict::Replaces { .. } => {
                self.kept.retain(|kept| kept.ssrc == packet.header.ssrc);
                let begins = self.kept.front().map_or(now, |kept| kept.arrived);
                let hole = begins.saturating_duration_since(silent_since) >= ENDED_AUDIO.0;
                return Verdict::Replaces { hole };
            }
        }
        verdict
    }

    /// A packet as the pipeline takes it.
    fn media<'a>(&self, packet: &Packet<'a>) -> rtp::Packet<&'a [u8]> {
        let Header { payload_type, sequence, timestamp, marker, .. } = packet.header;
        rtp::Packet {
            sequence,
            timestamp,
            marker,
            payload: packet.payload,
            red: self.section.payload_kind(payload_type) == Some(PayloadKind::Red),
        }
    }

    /// The source whose packets a retransmission's source repeats.
    fn repaired_by(&mut self, header: &Header<'_>) -> Option<usize> {
        let ssrc = header.ssrc;
        if let Some(at) = self.all.iter().position(|source| source.repair == Some(ssrc)) {
            return Some(at);
        }
        let declared = self.section.identifiers.rtx_pairs.iter().find(|(_, repair)| *repair == ssrc);
        let named = self.section.identifiers.repaired_rid_id.and_then(|id| header.extension(id));
        let is_primary = |source: &Source| match (declared, &named) {
            (Some((primary, _)), _) => source.ssrc == *primary,
            (None, Some(rid)) => source.rid.as_deref() == Some(*rid),
            // Nothing says whose they are: the newest's that has none.
            (None, None) => source.repair.is_none(),
        };
        let at = self.all.iter().rposition(is_primary)?;
        self.all[at].repair = Some(ssrc);
        Some(at)
    }

    /// The index of a packet's source; `None` if there are too many.
    fn find(&mut self, header: &Header<'_>, now: Instant) -> Option<usize> {
        if let Some(at) = self.all.iter().position(|source| source.ssrc == header.ssrc) {
            return Some(at);
        }
        let rid = self.section.identifiers.rid_id.and_then(|id| header.extension(id));
        let new = Source::new(header.ssrc, rid.map(Bytes::copy_from_slice), now);
        if self.all.len() < MAX_SOURCES {
            self.all.push(new);
            return Some(self.all.len() - 1);
        }
        let oldest = (0..self.all.len())
            .filter(|at| self.recorded != Some(*at))
            .min_by_key(|at| self.all[*at].heard)
            .filter(|at| now.saturating_duration_since(self.all[*at].heard) >= HEARD)?;
        self.all[oldest] = new;
        Some(oldest)
    }

    /// Notes a packet of a source and decides whether it is recorded.
    fn heard(&mut self, at: usize, timestamp: u32, size: Option<Size>, now: Instant) -> Verdict {
        let area = size.map(|size| u64::from(size.width) * u64::from(size.height));
        let source = &mut self.all[at];
        let measured = source.area.is_some();
        (source.heard, source.said_bye) = (now, false);
        if area.is_some() {
            (source.area, source.asked, source.ask) = (area, 0, now);
        }
        let Some(recorded) = self.recorded.filter(|recorded| *recorded != at) else {
            self.record(at);
            return Verdict::Media;
        };
        if source.timestamp != timestamp || source.ahead == 0 {
            (source.timestamp, source.ahead) = (timestamp, source.ahead + 1);
        }
        let ended = self.has_ended(recorded, at, now);
        let goes_over = if self.is_video() {
            area.is_some_and(|area| ended || self.outgrows(recorded, at, area, measured))
        } else {
            ended
        };
        if !goes_over {
            return Verdict::Drop;
        }
        self.record(at);
        Verdict::Replaces { hole: ended }
    }

    fn record(&mut self, at: usize) {
        self.recorded = Some(at);
        if self.all.len() > 1 {
            self.all.iter_mut().for_each(|source| source.ahead = 0);
        }
    }

    /// Whether a keyframe of this area makes its source the one to record.
    fn outgrows(&self, recorded: usize, at: usize, area: u64, measured: bool) -> bool {
        let (old, new) = (&self.all[recorded], &self.all[at]);
        // An encoder that was restarted at the same size, and no other encoding.
        let again = !measured && (new.rid.is_none() || new.rid == old.rid);
        old.area.is_none_or(|old| area > old || (area == old && again))
    }

    /// Whether the recorded source is over, as another one shows.
    fn has_ended(&self, recorded: usize, other: usize, now: Instant) -> bool {
        let (silence, ahead) = if self.is_video() { ENDED_VIDEO } else { ENDED_AUDIO };
        let (recorded, other) = (&self.all[recorded], &self.all[other]);
        let silent = now.saturating_duration_since(recorded.heard) >= silence;
        recorded.said_bye || (silent && other.ahead >= ahead)
    }

    /// The source that is to be asked for a keyframe now, beside the recorded one: it may be the larger, or
    /// must replace it.
    fn wanted(&mut self, now: Instant) -> Option<u32> {
        let recorded = self.recorded.filter(|_| self.is_video() && self.all.len() > 1)?;
        let matters = |at: &usize| {
            let source = &self.all[*at];
            let sends = !source.said_bye && now.saturating_duration_since(source.heard) < HEARD;
            let larger = source.area.is_none_or(|area| Some(area) > self.all[recorded].area);
            *at != recorded && sends && (larger || self.has_ended(recorded, *at, now))
        };
        let best = (0..self.all.len()).filter(matters).filter(|at| now >= self.all[*at].ask);
        // One whose size is unknown may be the largest.
        let best = best.max_by_key(|at| self.all[*at].area.unwrap_or(u64::MAX))?;
        let source = &mut self.all[best];
        source.ask = now + ASK * 2_u32.pow(source.asked.min(MAX_DOUBLINGS));
        source.asked += 1;
        Some(source.ssrc)
    }
}

/// Makes of a retransmission the packet it repeats: its number stands in front of the payload (RFC 4588
/// section 4), under the payload type that its own repairs. False if it is padding.
fn unwrap_rtx(packet: &mut Packet<'_>, primary: u32, payload_type: u8) -> bool {
    let Some((number, payload)) = packet.payload.split_first_chunk::<2>() else { return false };
    packet.header.sequence = u16::from_be_bytes(*number);
    packet.header.ssrc = primary;
    packet.header.payload_type = payload_type;
    packet.payload = payload;
    true
}

#[cfg(test)]
mod tests;
