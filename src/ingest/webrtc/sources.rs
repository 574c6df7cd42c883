//! Where the media of a section comes from, when its offer does not say (RFC 5576 is optional).
//!
//! The peer connection wants sources (SSRCs) declared as soon as there are two sections, and repairs
//! nothing of undeclared ones. So sections without any are given made-up ones, and the packets'
//! own take their place when they come: their payload types name the section, for those are unique
//! on one transport (RFC 8843 section 9.2).

use crate::ingest::webrtc::offer::{self, Chosen};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Sources believed in one session, each at the price of a negotiation: some for each track, and for
/// an encoder that begins anew. A header is not authenticated when it is looked at.
const MAX_FOUND: usize = 16;
/// Sources whose packets the decryption gets to see in one session, beside those that its offer names: it keeps
/// a window of repetitions for each, from before it knows that a packet is genuine, and for ever. What is
/// beyond is dropped.
const MAX_SEEN: usize = 64;
/// A source that was heard within this time is not replaced by another one.
const HEARD: Duration = Duration::from_secs(1);

/// The sources that the decryption has seen.
#[derive(Debug, Default)]
pub(super) struct Seen(HashSet<u32>);

impl Seen {
    /// Whether it may see a packet of this one.
    pub fn admits(&mut self, source: u32, chosen: &[Chosen]) -> bool {
        chosen.iter().any(|chosen| chosen.ssrcs.contains(&source))
            || self.0.contains(&source)
            || (self.0.len() < MAX_SEEN && self.0.insert(source))
    }
}

/// The sources of one section.
#[derive(Debug)]
struct Sources {
    chosen: Chosen,
    primary: u32,
    repair: Option<u32>,
    /// Last authentic packet of the primary source.
    heard: Option<Instant>,
    /// The source of retransmissions has come.
    repairs: bool,
}

/// The sources of all sections that name none.
#[derive(Debug, Default)]
pub(super) struct Undeclared {
    sections: Vec<Sources>,
    found: usize,
}

impl Undeclared {
    pub fn new(chosen: &[Chosen]) -> Self {
        let sources = |chosen: &Chosen| Sources {
            chosen: chosen.clone(),
            primary: rand::random(),
            repair: chosen.rtx.map(|_| rand::random()),
            heard: None,
            repairs: false,
        };
        Self { sections: chosen.iter().filter(|c| c.ssrcs.is_empty()).map(sources).collect(), found: 0 }
    }

    /// The reduced offer with all that is known.
    pub fn put_into(&self, reduced: &str) -> String {
        self.sections.iter().fold(reduced.to_owned(), |offer, section| {
            offer::declare(&offer, &section.chosen.mid, section.primary, section.repair)
        })
    }

    /// An authentic packet of this source came.
    pub fn heard(&mut self, source: u32, now: Instant) {
        if let Some(section) = self.sections.iter_mut().find(|section| section.primary == source) {
            section.heard = Some(now);
        }
    }

    /// Looks at a packet; whether it is of a source that must be negotiated first.
    pub fn find(&mut self, source: u32, payload_type: u8, now: Instant) -> bool {
        let known = |section: &Sources| section.primary == source || section.repair == Some(source);
        if self.sections.is_empty() || self.found == MAX_FOUND || self.sections.iter().any(known) {
            return false;
        }
        for section in &mut self.sections {
            let alive = section.heard.is_some_and(|at| now.saturating_duration_since(at) < HEARD);
            if section.chosen.is_media(payload_type) && !alive {
                section.primary = source;
            } else if section.chosen.is_repair(payload_type) && !section.repairs && section.heard.is_some() {
                (section.repair, section.repairs) = (Some(source), true);
            } else {
                continue;
            }
            self.found += 1;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Track};

    #[test]
    fn a_source_is_found_once_replaced_after_silence_and_forged_ones_end() {
        let track = Track::video(Codec::Vp8);
        let (red, rtx) = (None, Some(97));
        let (index, formats) = (0, vec![]);
        let chosen =
            Chosen { index, mid: "v".to_owned(), track, ssrcs: vec![], payload_type: 96, red, rtx, formats };
        let declared = Chosen { ssrcs: vec![5], ..chosen.clone() };
        let now = Instant::now();
        assert!(!Undeclared::new(&[declared]).find(7, 96, now), "the offer names another");

        let mut sources = Undeclared::new(&[chosen]);
        assert!(!sources.find(8, 97, now), "a retransmission of nothing");
        assert!(!sources.find(8, 33, now), "no section's payload type");
        assert!(sources.find(7, 96, now) && !sources.find(7, 96, now), "once");
        sources.heard(7, now);
        assert!(sources.find(8, 97, now) && !sources.find(9, 97, now));
        let offer = sources.put_into("m=video\r\na=mid:v\r\n");
        assert!(offer.contains("a=ssrc-group:FID 7 8\r\na=ssrc:7 cname:onrecord\r\na=ssrc:8 "), "{offer}");
        assert!(!sources.find(10, 96, now), "the one that is heard stays");
        assert!(sources.find(10, 96, now + HEARD), "an encoder that began anew");
        let forged = (100..1000).filter(|source| sources.find(*source, 96, now + HEARD)).count();
        assert_eq!(forged, MAX_FOUND - 3);
    }

    #[test]
    fn sources_without_end_are_not_all_looked_into_and_the_offers_own_always_are() {
        let track = Track::video(Codec::Vp8);
        let (index, red, rtx, formats) = (0, None, None, vec![]);
        let mid = "v".to_owned();
        let offered = [Chosen { index, mid, track, ssrcs: vec![5], payload_type: 96, red, rtx, formats }];
        let mut seen = Seen::default();
        assert!(seen.admits(100, &offered));
        let forged = (1000..1_000_000).filter(|source| seen.admits(*source, &offered)).count();
        assert_eq!((forged, seen.0.len()), (MAX_SEEN - 1, MAX_SEEN));
        assert!(seen.admits(5, &offered), "the offer names it");
        assert!(seen.admits(100, &offered), "it was there before");
    }
}
