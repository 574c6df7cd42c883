//! How far a track's frames are apart, on the average.

use std::time::Duration;

/// A longer interval is a pause and says nothing of the frame rate.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// Readers take 1000 pictures a second, which is a tick each, for a mistake.
const SHORTEST: Duration = Duration::from_millis(2);

/// The intervals of frames in their order in the file, but for pauses. Those of pictures that are stored
/// before others that are shown first are negative: in the sum they cancel out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameInterval {
    /// Times of the first and the last frame, in ticks.
    ends: Option<(u64, u64)>,
    sum: i64,
    intervals: u64,
}

impl FrameInterval {
    /// Of one frame.
    pub fn of(time: u64) -> Self {
        Self { ends: Some((time, time)), ..Self::default() }
    }

    /// Adds frames behind these; `pause` is [`PAUSE`] in ticks.
    pub fn append(&mut self, next: &Self, pause: u64) {
        let Some((start, last)) = next.ends else { return };
        self.sum += next.sum;
        self.intervals += next.intervals;
        if let Some((_, before)) = self.ends
            && start.abs_diff(before) <= pause
        {
            self.sum = self.sum.saturating_add_unsigned(start).saturating_sub_unsigned(before);
            self.intervals += 1;
        }
        self.ends = Some((self.ends.map_or(start, |(first, _)| first), last));
    }

    /// The mean interval; `None` where there is none.
    pub fn mean(&self, tick: Duration) -> Option<Duration> {
        let sum = u128::try_from(self.sum).ok().filter(|sum| *sum > 0)?;
        let nanos = (sum * tick.as_nanos()).checked_div(u128::from(self.intervals))?;
        u64::try_from(nanos).ok().map(|nanos| Duration::from_nanos(nanos).clamp(SHORTEST, PAUSE))
    }
}

/// So much time in ticks.
pub(super) fn in_ticks(time: Duration, tick: Duration) -> u64 {
    (time.as_nanos() / tick.as_nanos().max(1)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);

    fn mean(times: &[u64]) -> Option<f64> {
        let mut interval = FrameInterval::default();
        times.iter().for_each(|time| interval.append(&FrameInterval::of(*time), 500));
        interval.mean(TICK).map(|mean| mean.as_secs_f64() * 1000.0)
    }

    #[test]
    fn the_mean_leaves_pauses_out_and_takes_pictures_in_any_order() {
        assert_eq!(mean(&[0, 40, 80, 5_000, 5_040]), Some(40.0), "a pause");
        assert_eq!(mean(&[0, 1, 66, 99]), Some(33.0), "a camera whose rate varies");
        assert_eq!(mean(&[0, 80, 40, 160, 120, 200, 240]), Some(40.0), "pictures shown out of order");
        assert_eq!(mean(&[0, 1, 2]), Some(2.0), "no reader believes in 1000 a second");
        for none in [&[][..], &[7], &[0, 501, 1_002], &[5, 5]] {
            assert_eq!(mean(none), None, "{none:?}");
        }
    }

    #[test]
    fn clusters_joined_are_as_good_as_one() {
        let times: Vec<u64> = (0..100).map(|step| step * 33 + step % 7).collect();
        let interval = |times: &[u64]| {
            let mut interval = FrameInterval::default();
            times.iter().for_each(|time| interval.append(&FrameInterval::of(*time), 500));
            interval
        };
        let mut joined = FrameInterval::default();
        times.chunks(13).for_each(|cluster| joined.append(&interval(cluster), 500));
        assert_eq!(joined, interval(&times));
    }
}
