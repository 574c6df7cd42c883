//! After a write error the recording goes on in a new file of the same publication (S6).

use crate::base::end_reason::EndReason;
use crate::record::close::{End, Stage, end_of};
use crate::record::recorder::Recorder;
use std::io;
use std::time::{Duration, Instant};

/// A second file in a row that can't be written must have lasted so long, each further one twice as long
/// as the one before: a disk that fails again and again gets a handful of files, not one a second.
const MUST_LAST: Duration = Duration::from_secs(2);
/// A failure that was followed by so much recording counts no more.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The write errors of one recording.
#[derive(Debug, Default)]
pub(super) struct Failures {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Failures {
    /// Counts one; whether to go on in another file.
    fn may_fail_over(&mut self, now: Instant) -> bool {
        let lasted = self.last.replace(now).map(|last| now.saturating_duration_since(last));
        let Some(lasted) = lasted.filter(|lasted| *lasted < FORGOTTEN) else {
            self.in_a_row = 1;
            return true;
        };
        let doublings = self.in_a_row.saturating_sub(1).min(16);
        self.in_a_row += 1;
        lasted >= MUST_LAST * (1 << doublings)
    }
}

impl Recorder {
    /// Seals the file that can't be written beside, and goes on in a new one, with the frames that
    /// reached none where they can be decoded.
    ///
    /// # Errors
    ///
    /// The recording ends: the disk is full, or has failed too often.
    pub(super) fn fail_over(&mut self, error: io::Error, now: Instant) -> Result<(), End> {
        let end = End { reason: end_of(&error), error: Some(error) };
        let has_file = matches!(self.stage, Stage::Opening(..) | Stage::Writing(_));
        if end.reason == EndReason::DiskFull || !has_file || !self.failures.may_fail_over(now) {
            return Err(end);
        }
        let mut old = std::mem::replace(&mut self.stage, Stage::Nothing);
        self.continues = match &mut old {
            Stage::Writing(writer) => {
                if self.queue.put_back(writer.take_back()) {
                    self.tap.want_keyframe();
                }
                let id = writer.recorded().then(|| writer.manifest.id.clone());
                id.or_else(|| writer.manifest.continues.clone())
            }
            Stage::Opening(opening, _) => opening.continues.clone(),
            Stage::Waiting(_) | Stage::Nothing => None,
        };
        if let Some(error) = &end.error {
            tracing::error!(%error, "writing failed: the recording goes on in a new file");
        }
        self.seal_beside(old, end);
        let id = self.files.next(|| self.shared.ids.next(self.anchor.wall_at(now)));
        self.stage = Stage::Waiting(id);
        if let Some(at) = self.queue.oldest() {
            self.begin(at);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_again_and_again_gets_a_handful_of_files() {
        let start = Instant::now();
        let files = |every: u64| {
            let mut failures = Failures::default();
            (1..).find(|n| !failures.may_fail_over(start + Duration::from_secs(every * n))).unwrap()
        };
        assert_eq!((files(0), files(1), files(5), files(59)), (2, 2, 4, 7));
        let mut failures = Failures::default();
        assert!(
            (0..100).all(|n| failures.may_fail_over(start + FORGOTTEN * n)),
            "one now and then ends nothing"
        );
    }
}
