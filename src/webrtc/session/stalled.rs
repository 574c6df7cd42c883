//! Tracks that were agreed on and bring nothing: no packet, or packets that no frame comes of. The file
//! shows it when it is too late, so the publisher is told while it can still be mended.

use crate::media::{Gap, GapReason};
use std::time::{Duration, Instant};

/// Without a frame for this long a track is in trouble. A microphone sends a packet every 400 ms however
/// silent it is, a camera a picture a second in the dark; a keyframe that is asked for comes within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Packets come as long as the newest is not older than this.
const FLOWS: Duration = Duration::from_secs(2);
/// A peer not heard of for this long may be gone, with all its tracks: browsers check their path every 2.5 s.
const CONTACT: Duration = Duration::from_secs(3);

#[derive(Debug)]
struct Watched {
    /// When the newest frame came out; before the first, when the peer connected.
    frame: Instant,
    time: Duration,
    /// A frame has come.
    begun: bool,
    /// Since then packets came: the first and the newest.
    packets: Option<(Instant, Instant)>,
    trouble: Option<GapReason>,
}

impl Watched {
    /// When to look whether it is in trouble, if the peer was `heard` then.
    fn due(&self, heard: Instant) -> Option<Instant> {
        let since = match (self.trouble, self.packets) {
            (None, packets) => packets.map_or(self.frame, |(first, _)| first),
            (Some(GapReason::Silence), Some((first, _))) => first,
            _ => return None,
        };
        Some(since + PATIENCE).filter(|at| heard + CONTACT >= *at)
    }

    fn look(&mut self, now: Instant, heard: Instant) -> Option<GapReason> {
        self.due(heard).filter(|at| now >= *at)?;
        let reason = match self.packets {
            Some((_, newest)) if now < newest + FLOWS => GapReason::Undecodable,
            _ => {
                self.packets = None;
                GapReason::Silence
            }
        };
        (self.trouble.replace(reason) != Some(reason)).then_some(reason)
    }
}

#[derive(Debug, Default)]
pub(super) struct Watch(Vec<Watched>);

impl Watch {
    /// The peer has connected, at this time of the frames: from now on so many tracks are expected.
    pub fn begin(&mut self, tracks: usize, time: Duration, now: Instant) {
        let watched = |_| Watched { frame: now, time, begun: false, packets: None, trouble: None };
        self.0 = (0..tracks).map(watched).collect();
    }

    pub fn packet(&mut self, track: usize, now: Instant) {
        if let Some(watched) = self.0.get_mut(track) {
            let first = watched.packets.map_or(now, |(first, _)| first);
            watched.packets = Some((first, now));
        }
    }

    /// A frame of a track has come out; what was missing before it, if the track was in trouble. A pause between
    /// two frames is none: long silences are noted where the publication's time is kept.
    pub fn frame(&mut self, track: usize, time: Duration, now: Instant) -> Option<Gap> {
        let watched = self.0.get_mut(track)?;
        let from = std::mem::replace(&mut watched.time, time);
        (watched.frame, watched.packets) = (now, None);
        let begun = std::mem::replace(&mut watched.begun, true);
        let reason = watched.trouble.take().filter(|reason| !begun || *reason != GapReason::Silence)?;
        Some(Gap { track, from, to: time.max(from), reason })
    }

    /// A track that is in trouble, of what kind; told once. `heard` is the last sign of life of the peer.
    pub fn look(&mut self, now: Instant, heard: Instant) -> Option<(usize, GapReason)> {
        self.0.iter_mut().enumerate().find_map(|(track, watched)| Some((track, watched.look(now, heard)?)))
    }

    pub fn due(&self, heard: Instant) -> Option<Instant> {
        self.0.iter().filter_map(|watched| watched.due(heard)).min()
    }

    /// What is missing at the end, beside the tracks that went on.
    pub fn end(&mut self) -> Vec<Gap> {
        let to = self.0.iter().map(|watched| watched.time).max().unwrap_or_default();
        let missing = |(track, watched): (usize, &mut Watched)| {
            let reason = watched.trouble.take().filter(|_| watched.time < to)?;
            Some(Gap { track, from: watched.time, to, reason })
        };
        self.0.iter_mut().enumerate().filter_map(missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Lets a minute pass in which these come, each with its milliseconds; what is told, when.
    fn minute(packets: &[u32], frames: &[u32]) -> Vec<(u32, GapReason)> {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(1, Duration::ZERO, start);
        let mut told = Vec::new();
        for ms in 0..60_000 {
            let now = start + ms * MS;
            if packets.contains(&ms) {
                watch.packet(0, now);
            }
            if frames.contains(&ms) {
                watch.frame(0, ms * MS, now);
            }
            while watch.due(now).is_some_and(|at| at <= now) {
                told.extend(watch.look(now, now).map(|(_, reason)| (ms, reason)));
            }
        }
        told
    }

    #[test]
    fn a_track_that_brings_no_packet_or_none_that_a_frame_comes_of_is_told_once() {
        use GapReason::{Silence, Undecodable};
        let often: Vec<u32> = (0..60_000).step_by(100).collect();
        assert_eq!(minute(&[], &[]), [(5_000, Silence)], "nothing ever");
        assert_eq!(minute(&often, &[]), [(5_000, Undecodable)], "no frame ever");
        assert_eq!(minute(&often, &often), []);
        assert_eq!(minute(&often, &often[..100]), [(15_000, Undecodable)], "no frame any more");
        let late: Vec<u32> = (30_000..60_000).step_by(100).collect();
        assert_eq!(minute(&late, &[]), [(5_000, Silence), (35_000, Undecodable)]);
        assert_eq!(minute(&[], &[20_000]), [(5_000, Silence), (25_000, Silence)]);
        assert_eq!(minute(&often[..3], &[]), [(5_000, Silence)], "it has stopped");
        let seldom: Vec<u32> = (0..60_000).step_by(4_900).collect();
        assert_eq!(minute(&seldom, &seldom), []);
    }

    #[test]
    fn what_is_missing_reaches_from_the_last_frame_to_the_next_or_to_the_end() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(2, 100 * MS, start);
        assert_eq!(watch.frame(1, 200 * MS, start), None);
        let later = start + 6_000 * MS;
        assert_eq!(watch.look(later, later), Some((0, GapReason::Silence)));
        assert_eq!(watch.look(later, later), Some((1, GapReason::Silence)));
        assert_eq!(watch.frame(1, 6_000 * MS, later), None, "a pause of a speaker");
        let gap = Gap { track: 0, from: 100 * MS, to: 6_000 * MS, reason: GapReason::Silence };
        assert_eq!(watch.end(), [gap]);
        watch.begin(1, 100 * MS, start);
        assert_eq!(watch.look(later, later), Some((0, GapReason::Silence)));
        assert_eq!(watch.frame(0, 6_000 * MS, later), Some(gap), "it began late");
    }

    #[test]
    fn a_peer_that_may_be_gone_is_no_track_in_trouble() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(1, Duration::ZERO, start);
        let later = start + 6_000 * MS;
        assert_eq!((watch.due(start), watch.look(later, start)), (None, None));
        assert_eq!(watch.look(later, later), Some((0, GapReason::Silence)), "it is there after all");
    }
}
