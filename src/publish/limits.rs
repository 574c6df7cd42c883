//! What the server takes on: section `limits` of the configuration, and what one publication may send.

use crate::base::quota::Limit;
use crate::base::units;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Section `limits` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Publications at the same time, however they come in.
    pub max_streams: usize,
    /// Those of one client; 0 for no bound of its own, as for all that is per address or stream.
    pub max_streams_per_address: usize,
    /// WebRTC sessions that are answered and not yet connected.
    pub max_handshakes: usize,
    /// Viewers at the same time, of all streams together, JPEG streams too.
    pub max_viewers: usize,
    /// Those of one client.
    pub max_viewers_per_address: usize,
    /// Those of one stream.
    pub max_viewers_per_stream: usize,
    /// TCP connections.
    pub max_connections: usize,
    /// Those of one address that connects.
    pub max_connections_per_address: usize,
    /// WebSockets.
    pub max_sockets: usize,
    /// Those of one client.
    pub max_sockets_per_address: usize,
    /// Bits of media a second that a publication may send for longer than a burst; 0 for any.
    #[serde(deserialize_with = "units::bitrate")]
    pub max_bitrate: u64,
    /// Bytes of media after which a publication ends; 0 for never.
    #[serde(deserialize_with = "units::size")]
    pub max_bytes: u64,
    /// Time after which it ends; 0 for never.
    #[serde(deserialize_with = "units::duration")]
    pub max_duration: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_streams: 500,
            max_streams_per_address: 50,
            max_handshakes: 200,
            max_viewers: 1000,
            max_viewers_per_address: 250,
            max_viewers_per_stream: 0,
            max_connections: 4096,
            max_connections_per_address: 500,
            max_sockets: 3000,
            max_sockets_per_address: 300,
            max_bitrate: 0,
            max_bytes: 0,
            max_duration: Duration::ZERO,
        }
    }
}

impl Limits {
    pub(super) fn streams(&self) -> (Limit, Limit) {
        (Limit("limits.max_streams", self.max_streams), self.per_address())
    }

    /// What never connects is one client's stream all the same.
    pub(super) fn handshakes(&self) -> (Limit, Limit) {
        (Limit("limits.max_handshakes", self.max_handshakes), self.per_address())
    }

    fn per_address(&self) -> Limit {
        Limit("limits.max_streams_per_address", self.max_streams_per_address)
    }
}

/// So much media in excess of the bitrate is no offence: keyframes, and what a network held back.
const BURST: Duration = Duration::from_secs(5);
/// What a browser that records by itself has kept while it was offline comes all at once.
pub(super) const OFFLINE_BACKLOG: Duration = Duration::from_secs(60);

/// What one publication has sent. Pure: time is an argument.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes a second; 0 for any.
    rate: f64,
    max_bytes: u64,
    max_duration: Duration,
    began: Option<Instant>,
    /// A bucket that leaks at the rate, and when it was looked at.
    level: f64,
    at: Instant,
    bytes: u64,
}

impl Meter {
    pub fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            rate: limits.max_bitrate as f64 / 8.0,
            max_bytes: limits.max_bytes,
            max_duration: limits.max_duration,
            began: None,
            level: 0.0,
            at: now,
            bytes: 0,
        }
    }

    /// Takes so many bytes; the limit they exceed, if any. `backlog` is for how long its sender may have
    /// been offline and gone on recording.
    pub fn take(&mut self, bytes: usize, backlog: Duration, now: Instant) -> Option<&'static str> {
        let began = *self.began.get_or_insert(now);
        self.bytes += bytes as u64;
        if self.max_bytes > 0 && self.bytes > self.max_bytes {
            return Some("limits.max_bytes");
        }
        if !self.max_duration.is_zero() && now.saturating_duration_since(began) >= self.max_duration {
            return Some("limits.max_duration");
        }
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level - passed * self.rate).max(0.0) + bytes as f64;
        self.at = now;
        let full = self.rate * (BURST + backlog).as_secs_f64();
        (self.rate > 0.0 && self.level > full).then_some("limits.max_bitrate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends this much a second in ten pieces; when it was stopped, and by what.
    fn stopped(limits: &Limits, bytes: usize, backlog: Duration) -> Option<(f64, &'static str)> {
        let start = Instant::now();
        let mut meter = Meter::new(limits, start);
        (0..6000_u32).find_map(|tenth| {
            let at = SECOND * tenth / 10;
            meter.take(bytes / 10, backlog, start + at).map(|limit| (at.as_secs_f64(), limit))
        })
    }

    #[test]
    fn a_publication_is_ended_by_the_limit_it_exceeds_and_by_none_by_default() {
        let of = |max_bitrate, max_bytes, seconds| Limits {
            max_bitrate,
            max_bytes,
            max_duration: SECOND * seconds,
            ..Limits::default()
        };
        assert_eq!(stopped(&Limits::default(), 100_000_000, Duration::ZERO), None);
        let table = [
            (of(800_000, 0, 0), 100_000, Duration::ZERO, None),
            // Twice the rate fills a burst of five seconds in five.
            (of(800_000, 0, 0), 200_000, Duration::ZERO, Some((4.9, "limits.max_bitrate"))),
            (of(800_000, 0, 0), 200_000, OFFLINE_BACKLOG, Some((64.9, "limits.max_bitrate"))),
            (of(0, 1_000_000, 0), 100_000, Duration::ZERO, Some((10.0, "limits.max_bytes"))),
            (of(0, 0, 30), 100_000, Duration::ZERO, Some((30.0, "limits.max_duration"))),
        ];
        for (limits, bytes, backlog, expected) in table {
            let found = stopped(&limits, bytes, backlog);
            let near = match (found, expected) {
                (Some(found), Some(expected)) => found.1 == expected.1 && (found.0 - expected.0).abs() < 0.3,
                (found, expected) => found == expected,
            };
            assert!(near, "{limits:?}: stopped {found:?}, not {expected:?}");
        }
    }

    #[test]
    fn a_keyframe_and_a_network_that_held_back_three_seconds_are_no_offence() {
        let start = Instant::now();
        let mut meter = Meter::new(&Limits { max_bitrate: 800_000, ..Limits::default() }, start);
        for second in 0..60 {
            assert_eq!(meter.take(100_000, Duration::ZERO, start + SECOND * second), None);
        }
        assert_eq!(meter.take(300_000, Duration::ZERO, start + SECOND * 63), None);
    }
}
