//! Making a file of WebM or Matroska whole: in place if it is ours, else as a copy.

use crate::container::repair::{self, Beyond, Found, Remedy, RepairedTrack};
use crate::container::webm::{
    ForeignTrack, InPlaceRepair, Lack, Mended, OwnHead, Plan, Reader, Remux, RemuxError, TrackIndex, seal,
};
use crate::media::Kind;

/// Reads a file of a known length.
#[derive(Debug)]
pub struct Repair {
    reader: Reader,
    len: u64,
    way: Way,
}

#[derive(Debug)]
enum Way {
    InPlace(OwnHead, InPlaceRepair),
    Copy(Remux),
}

impl Repair {
    /// For one of our own files, which begins with this head.
    pub fn in_place(own: OwnHead, len: u64) -> Self {
        Self { reader: Reader::new(Some(len)), len, way: Way::InPlace(own.clone(), InPlaceRepair::new(own)) }
    }

    /// For any file.
    pub fn by_copy(remux: Remux, len: u64) -> Self {
        Self { reader: Reader::new(Some(len)), len, way: Way::Copy(remux) }
    }

    fn read(&mut self) -> Result<(), Beyond> {
        while let Some(item) = self.reader.read().map_err(Beyond::because)? {
            match &mut self.way {
                Way::InPlace(_, mend) => mend.take(&item),
                Way::Copy(remux) => remux.take(&item).map_err(Beyond::because)?,
            }
        }
        Ok(())
    }
}

impl repair::Repair for Repair {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Beyond> {
        self.reader.push(bytes);
        self.read()
    }

    fn finish(mut self: Box<Self>) -> Result<Found, Beyond> {
        self.reader.finish();
        self.read()?;
        match self.way {
            Way::InPlace(own, mend) => {
                let mended =
                    mend.finish().ok_or_else(|| Beyond::because("it is damaged in too many places"))?;
                in_place(&own, mended, self.len)
            }
            Way::Copy(remux) => Ok(by_copy(remux.finish(self.len).map_err(Beyond::because)?)),
        }
    }
}

fn in_place(own: &OwnHead, mended: Mended, len: u64) -> Result<Found, Beyond> {
    let Mended { index, end, patches, damaged, holes } = mended;
    if index.tracks.iter().all(|track| track.frames == 0) {
        return Err(Beyond::because(RemuxError::NoMedia));
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
        lacks: vec![Lack::Duration, Lack::Cues, Lack::Sizes],
        damaged,
        cut: len.saturating_sub(end),
        holes,
        remedy: Remedy::InPlace { patches, end, seal },
    })
}

fn by_copy(plan: Plan) -> Found {
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
        lacks: plan.lacks.clone(),
        damaged: plan.damaged.0,
        cut: plan.damaged.1,
        holes: Vec::new(),
        remedy: Remedy::Copy(Box::new(plan)),
    }
}
