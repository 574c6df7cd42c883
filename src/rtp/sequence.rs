//! Counters that wrap, made ones that don't (RFC 3550 appendix A.1).

/// Extends 16-bit sequence numbers to ones that grow for ever.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    newest: Option<i64>,
}

impl Sequences {
    /// The extended number nearest to the newest one seen; never below 0 for a first packet that
    /// is reordered, because counting begins at 2^16.
    pub fn extend(&mut self, sequence: u16) -> i64 {
        let Some(newest) = self.newest else {
            let first = i64::from(sequence) + (1 << 16);
            self.newest = Some(first);
            return first;
        };
        let extended = newest + i64::from(sequence.wrapping_sub(newest as u16) as i16);
        self.newest = Some(newest.max(extended));
        extended
    }
}

/// Thousands of years: a media time beyond is no real one. Sums of two stay far below 2^63.
const MAX_MICROS: i128 = 1 << 60;

/// Extends 32-bit RTP timestamps and gives them in microseconds.
#[derive(Debug)]
pub(super) struct Timestamps {
    clock_rate: i64,
    newest: Option<i64>,
}

impl Timestamps {
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate: i64::from(clock_rate), newest: None }
    }

    /// What comes next has a clock of its own.
    pub fn restart(&mut self) {
        self.newest = None;
    }

    /// Microseconds of the media clock, for a timestamp that has just arrived.
    pub fn micros(&mut self, timestamp: u32) -> i64 {
        self.newest = Some(self.extend(timestamp));
        self.micros_near(timestamp)
    }

    /// The same for a timestamp that is near the newest one.
    pub fn micros_near(&self, timestamp: u32) -> i64 {
        // A sender that jumps half a round with each packet comes to 2^63 / 10^6 ticks in a second.
        let micros = i128::from(self.extend(timestamp)) * 1_000_000 / i128::from(self.clock_rate);
        micros.clamp(-MAX_MICROS, MAX_MICROS) as i64
    }

    /// The extended value nearest to the newest.
    fn extend(&self, timestamp: u32) -> i64 {
        let newest = self.newest.unwrap_or_else(|| i64::from(timestamp) + (1 << 32));
        newest + i64::from(timestamp.wrapping_sub(newest as u32) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_over_their_wrap_and_bear_reordering() {
        let mut sequences = Sequences::default();
        let extended: Vec<i64> =
            [65534, 65535, 1, 0, 2].iter().map(|sequence| sequences.extend(*sequence)).collect();
        assert_eq!(extended, [131_070, 131_071, 131_073, 131_072, 131_074]);
        let mut timestamps = Timestamps::new(90_000);
        let first = timestamps.micros(u32::MAX - 89_999);
        assert_eq!(timestamps.micros(0) - first, 1_000_000);
        assert_eq!(timestamps.micros(u32::MAX - 89_999) - first, 0);
    }

    #[test]
    fn a_sender_that_jumps_with_every_packet_overflows_nothing() {
        for step in [0x7fff_ffff, 0x8000_0001u32] {
            let mut timestamps = Timestamps::new(48_000);
            let times = (0..20_000u32).map(|n| timestamps.micros(n.wrapping_mul(step)));
            let times: Vec<_> = times.map(i64::unsigned_abs).collect();
            assert!(times.iter().all(|time| *time <= 1 << 60), "{:?}", times.iter().max());
        }
    }
}
