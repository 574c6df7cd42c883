//! MP4 in fragments (ISO/IEC 14496-12 section 8.8), kept as a browser has recorded it.

mod fragments;

pub use fragments::{FragmentReader, Mp4Track, begins};

use crate::container::repair::{Found, Remedy, RepairedTrack, Unrepairable};
use crate::container::{Seal, repair};
use crate::media::Codec;

/// Cuts a file behind its last whole fragment.
#[derive(Debug, Default)]
pub struct Repair(FragmentReader);

impl repair::Repair for Repair {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Unrepairable> {
        self.0.push(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Found, Unrepairable> {
        let Self(reader) = *self;
        if reader.whole() == 0 {
            return Err(Unrepairable::because("it holds no whole fragment"));
        }
        let track = |(index, track): (usize, &Mp4Track)| RepairedTrack {
            number: index as u64 + 1,
            kind: track.codec.map(Codec::kind),
            codec_id: track.codec.map(Codec::matroska_id).unwrap_or_default().to_owned(),
            frames: track.frames,
            size: track.size,
        };
        let (end, duration) = (reader.whole(), reader.duration());
        let seal = Seal { append: Vec::new(), patches: Vec::new(), duration };
        Ok(Found {
            tracks: reader.tracks().iter().enumerate().map(track).collect(),
            duration,
            defects: Vec::new(),
            damaged: 0,
            cut: reader.len() - end,
            holes: Vec::new(),
            remedy: Remedy::InPlace { patches: Vec::new(), end, seal },
        })
    }
}
