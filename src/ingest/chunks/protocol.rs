//! Where an upload stands: which message fits when, how many bytes have come, when it is over.
//!
//! Pure: time is an argument.

use crate::base::end_reason::EndReason;
use crate::ingest::chunks::{Config, UploadError};
use std::time::{Duration, Instant};

/// A Blob may trail the stop by this much, counted from the last message.
const TRAIL: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing may come before START.
    Registered,
    Receiving,
    /// STOP has come; the rest may still be on its way.
    Stopping {
        bytes: Option<u64>,
    },
}

#[derive(Debug)]
pub(crate) struct Protocol {
    phase: Phase,
    offset: u64,
    /// When its client was heard last.
    heard: Instant,
    /// A client that is away since then.
    away: Option<Instant>,
}

impl Protocol {
    pub fn new(now: Instant) -> Self {
        Self { phase: Phase::Registered, offset: 0, heard: now, away: None }
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn start(&mut self, now: Instant) -> Result<(), UploadError> {
        if self.phase != Phase::Registered {
            return Err(UploadError::BadRequest("this upload has begun already: go on with its bytes"));
        }
        (self.phase, self.heard) = (Phase::Receiving, now);
        Ok(())
    }

    /// Whether so many bytes may come now.
    pub fn expects(&self, len: u64) -> Result<(), UploadError> {
        match self.phase {
            Phase::Registered => Err(UploadError::BadRequest("send START_REC_BLOB before any bytes")),
            Phase::Stopping { bytes: Some(bytes) } if self.offset + len > bytes => {
                Err(UploadError::OffsetMismatch { said: bytes, arrived: self.offset + len })
            }
            _ => Ok(()),
        }
    }

    /// They have been taken.
    pub fn took(&mut self, len: u64, now: Instant) {
        (self.offset, self.heard) = (self.offset + len, now);
    }

    /// STOP_REC_BLOB. A second one may say otherwise.
    pub fn stop(&mut self, bytes: Option<u64>, now: Instant) -> Result<(), UploadError> {
        if self.phase == Phase::Registered {
            return Err(UploadError::BadRequest("there is nothing to stop: send START_REC_BLOB first"));
        }
        if let Some(said) = bytes.filter(|bytes| *bytes < self.offset) {
            return Err(UploadError::OffsetMismatch { said, arrived: self.offset });
        }
        (self.phase, self.heard) = (Phase::Stopping { bytes }, now);
        Ok(())
    }

    /// A client holds it again.
    pub fn attached(&mut self, now: Instant) {
        (self.heard, self.away) = (now, None);
    }

    /// Its client's socket is lost.
    pub fn lost(&mut self, now: Instant) {
        self.away.get_or_insert(now);
    }

    /// When it is over if nothing more comes, and why.
    pub fn end(&self, config: &Config) -> (Instant, EndReason) {
        match (self.phase, self.away) {
            (Phase::Stopping { bytes: Some(bytes) }, _) if bytes == self.offset => {
                (self.heard, EndReason::Stopped)
            }
            (Phase::Stopping { bytes: None }, _) => (self.heard + TRAIL, EndReason::Stopped),
            (_, Some(away)) => (away + config.resume_grace, EndReason::PublisherLost),
            (_, None) => (self.heard + config.idle_timeout, EndReason::PublisherLost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error_code::ErrorCode;

    const SECOND: Duration = Duration::from_secs(1);

    fn code<T: std::fmt::Debug>(result: Result<T, UploadError>) -> ErrorCode {
        result.unwrap_err().code()
    }

    #[test]
    fn what_comes_out_of_turn_is_refused_and_changes_nothing() {
        let now = Instant::now();
        let mut upload = Protocol::new(now);
        assert_eq!(code(upload.expects(1)), ErrorCode::BadRequest);
        assert_eq!(code(upload.stop(None, now)), ErrorCode::BadRequest);
        upload.start(now).unwrap();
        assert_eq!(code(upload.start(now)), ErrorCode::BadRequest);
        upload.took(10, now);
        assert_eq!(code(upload.stop(Some(9), now)), ErrorCode::OffsetMismatch);
        upload.stop(Some(12), now).unwrap();
        assert_eq!(code(upload.expects(3)), ErrorCode::OffsetMismatch);
        upload.expects(2).unwrap();
        assert_eq!(upload.offset(), 10);
    }

    #[test]
    fn each_way_to_end_has_its_time_and_its_reason() {
        let (now, config) = (Instant::now(), Config::default());
        let (grace, idle) = (config.resume_grace, config.idle_timeout);
        let lost = EndReason::PublisherLost;
        let mut upload = Protocol::new(now);
        upload.start(now).unwrap();
        assert_eq!(upload.end(&config), (now + idle, lost), "it says nothing");
        upload.lost(now + SECOND);
        upload.lost(now + 2 * SECOND);
        assert_eq!(upload.end(&config), (now + SECOND + grace, lost), "its socket is gone");
        upload.attached(now + 3 * SECOND);
        assert_eq!(upload.end(&config), (now + 3 * SECOND + idle, lost));
        upload.stop(None, now).unwrap();
        upload.took(5, now + SECOND);
        assert_eq!(upload.end(&config), (now + 2 * SECOND, EndReason::Stopped), "a Blob trailed the stop");
        upload.stop(Some(7), now).unwrap();
        assert_eq!(upload.end(&config), (now + idle, lost), "two bytes are missing");
        upload.took(2, now + SECOND);
        assert_eq!(upload.end(&config), (now + SECOND, EndReason::Stopped), "all are there");
    }
}
