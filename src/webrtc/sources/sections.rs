//! The sections of one transport: which of them a packet belongs to.

use super::{Kept, Packet, Report, Sources, Verdict};
use crate::rtp;
use crate::webrtc::offer::RecordedSection;
use crate::webrtc::packet_path::header::Header;
use std::collections::VecDeque;
use std::time::Instant;

#[derive(Debug)]
pub(in crate::webrtc) struct Sections {
    pub(super) all: Vec<Sources>,
    /// Mids of the sections that are refused.
    rejected: Vec<String>,
    /// Sources that were heard for the first time, until they are taken.
    pub found: VecDeque<u32>,
}

impl Sections {
    /// The sections that are recorded, of those with these mids.
    pub fn new<'a>(recorded: &[RecordedSection], mids: impl Iterator<Item = &'a str>) -> Self {
        let rejected = mids.filter(|mid| recorded.iter().all(|section| section.mid != **mid));
        let rejected = rejected.map(str::to_owned).collect();
        Self { all: recorded.iter().cloned().map(Sources::new).collect(), rejected, found: VecDeque::new() }
    }

    /// A re-offer of the same sections: their sources stay.
    pub fn renew(&mut self, recorded: &[RecordedSection]) {
        for (sources, section) in self.all.iter_mut().zip(recorded) {
            sources.section = section.clone();
        }
    }

    /// What becomes of an authentic packet, and in which track.
    pub fn take(&mut self, packet: &mut Packet<'_>, now: Instant) -> Option<(usize, Verdict)> {
        let track = self.track_of(&packet.header)?;
        let sources = &mut self.all[track];
        let (ssrc, known) = (packet.header.ssrc, sources.knows(packet.header.ssrc));
        let verdict = sources.take(packet, now);
        if !known && sources.knows(ssrc) {
            tracing::debug!(ssrc, track, "a source is heard for the first time");
            self.found.push_back(ssrc);
        }
        Some((track, verdict))
    }

    /// The track of a packet's source, of its section by its mid, or of its payload type.
    fn track_of(&self, header: &Header<'_>) -> Option<usize> {
        let position = |is_it: &dyn Fn(&Sources) -> bool| self.all.iter().position(is_it);
        if let Some(track) = position(&|sources| sources.knows(header.ssrc)) {
            return Some(track);
        }
        let mid = self.all.iter().find_map(|sources| header.extension(sources.section.identifiers.mid_id?));
        let named = |name: &String| mid.is_some_and(|mid| *mid == *name.as_bytes());
        if self.rejected.iter().any(named) {
            return None;
        }
        position(&|sources| named(&sources.section.mid))
            .or_else(|| position(&|sources| sources.section.ssrcs.contains(&header.ssrc)))
            .or_else(|| position(&|sources| sources.section.payload_kind(header.payload_type).is_some()))
    }

    /// The source of a track that is recorded.
    pub fn recorded(&self, track: usize) -> Option<u32> {
        self.all.get(track)?.recorded()
    }

    /// What a track's source has sent before it was recorded, if that belongs to it, and when it came.
    pub fn take_kept(&mut self, track: usize) -> VecDeque<Kept> {
        self.all.get_mut(track).map(|sources| std::mem::take(&mut sources.kept)).unwrap_or_default()
    }

    /// A packet of a track as the pipeline takes it.
    pub fn media<'a>(&self, track: usize, packet: &Packet<'a>) -> rtp::Packet<&'a [u8]> {
        self.all[track].media(packet)
    }

    /// The newest report of a track's recorded source.
    pub fn report(&self, track: usize) -> Option<Report> {
        self.all.get(track)?.report()
    }

    /// A source that should be asked for a keyframe now, though it isn't recorded.
    pub fn wanted(&mut self, track: usize, now: Instant) -> Option<u32> {
        self.all.get_mut(track)?.wanted(now)
    }

    /// Takes a sender report; gives the source's track if it is recorded.
    pub fn sender_report(&mut self, ssrc: u32, report: Report) -> Option<usize> {
        let mut all = self.all.iter_mut().enumerate();
        let (track, at, sources) = all.find_map(|(track, sources)| {
            let at = sources.all.iter().position(|source| source.ssrc == ssrc)?;
            Some((track, at, sources))
        })?;
        sources.all[at].report = Some(report);
        (sources.recorded == Some(at)).then_some(track)
    }

    /// A source has said goodbye (RTCP BYE).
    pub fn bye(&mut self, ssrc: u32) {
        let all = self.all.iter_mut().flat_map(|sources| &mut sources.all);
        all.filter(|source| source.ssrc == ssrc).for_each(|source| source.said_bye = true);
    }
}
