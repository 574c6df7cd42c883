//! Making a file of WebM or Matroska whole: in place if it is ours, else as a copy.

use crate::container::repair::{self, Defect, Found, Remedy, RepairedTrack, Unrepairable};
use crate::container::webm::{
    CopyPlan, ForeignTrack, InPlacePlan, InPlaceRepair, OwnHead, Reader, Remux, RemuxError, TrackIndex, seal,
};
use crate::media::Kind;

/// Reads a file of a known length.
#[derive(Debug)]
pub struct Repair {
    reader: Reader,
    len: u64,
    strategy: Strategy,
}

#[derive(Debug)]
enum Strategy {
    InPlace(OwnHead, InPlaceRepair),
    Copy(Remux),
}

impl Repair {
    /// For one of our own files, which begins with this head.
    pub fn in_place(own: OwnHead, len: u64) -> Self {
        Self {
            reader: Reader::new(Some(len)),
            len,
            strategy: Strategy::InPlace(own.clone(), InPlaceRepair::new(own)),
        }
    }

    /// For any file.
    pub fn by_copy(remux: Remux, len: u64) -> Self {
        Self { reader: Reader::new(Some(len)), len, strategy: Strategy::Copy(remux) }
    }

    fn read(&mut self) -> Result<(), Unrepairable> {
        while let Some(item) = self.reader.read().map_err(Unrepairable::because)? {
            match &mut self.strategy {
                Strategy::InPlace(_, repair) => repair.take(&item),
                Strategy::Copy(remux) => remux.take(&item).map_err(Unrepairable::because)?,
            }
        }
        Ok(())
    }
}

impl repair::Repair for Repair {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Unrepairable> {
        self.reader.push(bytes);
        self.read()
    }

    fn finish(mut self: Box<Self>) -> Result<Found, Unrepairable> {
        self.reader.finish();
        self.read()?;
        match self.strategy {
            Strategy::InPlace(own, repair) => {
                let plan = repair
                    .finish()
                    .ok_or_else(|| Unrepairable::because("it is damaged in too many places"))?;
                in_place(&own, plan, self.len)
            }
            Strategy::Copy(remux) => Ok(by_copy(remux.finish(self.len).map_err(Unrepairable::because)?)),
        }
    }
}

fn in_place(own: &OwnHead, plan: InPlacePlan, len: u64) -> Result<Found, Unrepairable> {
    let InPlacePlan { index, end, patches, damaged, holes } = plan;
    if index.tracks.iter().all(|track| track.frames == 0) {
        return Err(Unrepairable::because(RemuxError::NoMedia));
    }
    let track = |(at, track): (usize, &TrackIndex)| RepairedTrack {
        number: own.layout.tracks[at].number,
        kind: Some(track.kind),
        codec_id: own.tracks[at].codec.matroska_id().to_owned(),
        frames: track.frames - track.filled,
        size: (track.width > 0).then_some((track.width, track.height)),
    };
    let seal = seal(&own.layout, &index, end);
    Ok(Found {
        tracks: index.tracks.iter().enumerate().map(track).collect(),
        duration: seal.duration,
        defects: vec![Defect::Duration, Defect::Cues, Defect::Sizes],
        damaged,
        cut: len.saturating_sub(end),
        holes,
        remedy: Remedy::InPlace { patches, end, seal },
    })
}

fn by_copy(plan: CopyPlan) -> Found {
    let track = |(track, frames): &(ForeignTrack, u64)| RepairedTrack {
        number: track.number,
        kind: track.kind,
        codec_id: track.codec_id.clone(),
        frames: *frames,
        size: (track.kind == Some(Kind::Video)).then_some(track.size),
    };
    Found {
        tracks: plan.tracks.iter().map(track).collect(),
        duration: plan.duration,
        defects: plan.defects.clone(),
        damaged: plan.damaged.0,
        cut: plan.damaged.1,
        holes: Vec::new(),
        remedy: Remedy::Copy(Box::new(plan)),
    }
}
