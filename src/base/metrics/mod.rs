//! What `/metrics` counts.
//!
//! Process-wide, as Prometheus means them: a count only ever rises, nothing is decided by one, so
//! every layer may add to it without being handed anything. What has a present value (open streams, free
//! disk, queue depths) is not kept here: it is asked of its owner at each scrape ([`Scrape`]), and
//! so can't drift from the truth.
//!
//! Labels have few values, all of them written in the sources: never the name of a stream, a path or an address.
//! Each value is a series that a monitoring server keeps for weeks; visitors choose names, so one of them
//! could fill its memory. What happened to one stream is in the log and in its manifest.
//!
//! Adding to a count that has no labels, or that was fetched before, is one atomic addition. Finding one
//! by its labels takes a lock: fetch it, or count in a variable of your own and add that up each second
//! (packets are counted so).

mod counts;
mod names;
mod scrape;

pub use counts::{Counts, Durations, DurationsBy};
pub use prometheus_client::metrics::counter::Counter;
pub use scrape::{Format, Scrape};

use crate::base::end_reason::EndReason;
use crate::base::error_code::ErrorCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::sync::LazyLock;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

/// All counts.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// Whatever is counted; each field says what of.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests, messages, streams, … refused or cut because of a limit, by the limit's key.
    pub limit_refusals: Family<Limit, Counter>,
    /// Callers that were refused.
    pub auth: Auth,
    /// Publications.
    pub publications: Publications,
    /// Frames, however they came.
    pub media: Media,
    /// RTP packets.
    pub rtp: Rtp,
    /// The media port.
    pub port: Port,
    /// How late loops are.
    pub loops: Loops,
    /// Recordings and the disk.
    pub recordings: Recordings,
    /// Hooks.
    pub hooks: Hooks,
    /// Viewers.
    pub viewers: Viewers,
    /// HTTP.
    pub http: Http,
    /// Lines of the log that its reader was too slow for.
    pub log_lines_left_out: Counter,
}

/// Which limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Limit {
    /// Its key in the configuration, or its name if it has none.
    pub limit: &'static str,
}

/// Callers that were refused.
#[derive(Debug)]
pub struct Auth {
    /// By why.
    pub failures: Counts<1>,
}

impl Default for Auth {
    fn default() -> Self {
        let reasons = [["missing"], ["unknown"], ["expired"], ["forbidden"], ["too_many"], ["unavailable"]];
        Self { failures: Counts::new(["reason"], &reasons) }
    }
}

/// Ways in, as the API names them.
const WAYS: [[&str; 1]; 3] = [["webrtc"], ["chunks"], ["mjpeg"]];
/// Kinds of track.
const KINDS: [[&str; 1]; 2] = [["video"], ["audio"]];
const KEYFRAME_REASONS: [[&str; 1]; 5] = [["start"], ["loss"], ["interval"], ["viewer"], ["encoding"]];
/// Every reason a recording or a publication may end for.
const ENDS: [[&str; 1]; 10] = [
    [EndReason::Stopped.as_str()],
    [EndReason::PublisherLost.as_str()],
    [EndReason::Rotated.as_str()],
    [EndReason::Limit.as_str()],
    [EndReason::DiskFull.as_str()],
    [EndReason::WriteError.as_str()],
    [EndReason::Kicked.as_str()],
    [EndReason::BadMedia.as_str()],
    [EndReason::ServerStopped.as_str()],
    [EndReason::ServerCrashed.as_str()],
];
/// Further ones of a publication.
const OTHER_ENDS: &[[&str; 1]] = &[
    ["never_connected"],
    ["empty"],
    [ErrorCode::BadSdp.as_str()],
    [ErrorCode::UnsupportedCodec.as_str()],
    [ErrorCode::StreamBusy.as_str()],
    [ErrorCode::LimitReached.as_str()],
    [ErrorCode::BadBlob.as_str()],
    [ErrorCode::Internal.as_str()],
];
/// Codes that a publisher may be refused with.
const REFUSALS: [[&str; 1]; 8] = [
    [ErrorCode::BadSdp.as_str()],
    [ErrorCode::UnsupportedCodec.as_str()],
    [ErrorCode::StreamBusy.as_str()],
    [ErrorCode::ResumeExpired.as_str()],
    [ErrorCode::SessionNotFound.as_str()],
    [ErrorCode::LimitReached.as_str()],
    [ErrorCode::RateLimited.as_str()],
    [ErrorCode::DiskFull.as_str()],
];
/// Bounds for what should take milliseconds.
const BRIEF: [f64; 13] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Bounds for scripts.
const LONG: [f64; 10] = [0.05, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0];

/// Publications, from the offer (or the first message, the first image) on.
#[derive(Debug)]
pub struct Publications {
    /// A name was reserved for a publisher.
    pub begun: Counter,
    /// A publisher was refused, by code.
    pub refused: Counts<1>,
    /// Media could flow for the first time, by way in.
    pub connected: Counts<1>,
    /// It could again, after a loss or another way.
    pub reconnected: Counts<1>,
    /// Over, by reason.
    pub ended: Counts<1>,
}

impl Default for Publications {
    fn default() -> Self {
        let ends = [&ENDS[..], OTHER_ENDS].concat();
        Self {
            begun: Counter::default(),
            refused: Counts::new(["code"], &REFUSALS),
            connected: Counts::new(["way"], &WAYS),
            reconnected: Counts::new(["way"], &WAYS),
            ended: Counts::new(["reason"], &ends),
        }
    }
}

/// What reached streams.
#[derive(Debug)]
pub struct Media {
    /// Frames, by codec.
    pub frames: Counts<1>,
    /// Their bytes, by way in; of MP4, which is not taken apart, all bytes.
    pub bytes: Counts<1>,
}

impl Default for Media {
    fn default() -> Self {
        let codecs = [["vp8"], ["vp9"], ["av1"], ["h264"], ["mjpeg"], ["opus"]];
        Self { frames: Counts::new(["codec"], &codecs), bytes: Counts::new(["way"], &WAYS) }
    }
}

/// What became of RTP packets.
#[derive(Debug)]
pub struct Rtp {
    /// Came, repetitions too, by kind of track.
    pub received: Counts<1>,
    /// Never came, by kind.
    pub lost: Counts<1>,
    /// Came in the end, by kind and by what brought them.
    pub repaired: Counts<2>,
    /// Were overtaken by others, by kind.
    pub reordered: Counts<1>,
    /// Came twice or too late, by kind.
    pub late: Counts<1>,
    /// Asked for again, by kind; each time counts.
    pub asked: Counts<1>,
    /// Keyframes asked for, by reason.
    pub keyframe_requests: Counts<1>,
    /// Pictures that came and could not be decoded for want of others.
    pub withheld: Counter,
    /// Times that an agreed track brought no frame for seconds, by kind and reason.
    pub trouble: Counts<2>,
}

impl Default for Rtp {
    fn default() -> Self {
        let by = [
            ["video", "retransmission"],
            ["audio", "retransmission"],
            // RFC 2198.
            ["audio", "red"],
        ];
        let troubles =
            [["video", "silence"], ["audio", "silence"], ["video", "undecodable"], ["audio", "undecodable"]];
        Self {
            received: Counts::new(["kind"], &KINDS),
            lost: Counts::new(["kind"], &KINDS),
            repaired: Counts::new(["kind", "by"], &by),
            reordered: Counts::new(["kind"], &KINDS),
            late: Counts::new(["kind"], &KINDS),
            asked: Counts::new(["kind"], &KINDS),
            keyframe_requests: Counts::new(["reason"], &KEYFRAME_REASONS),
            withheld: Counter::default(),
            trouble: Counts::new(["kind", "reason"], &troubles),
        }
    }
}

/// Datagrams of the media port, and the TCP connections that bring some of them.
#[derive(Debug)]
pub struct Port {
    /// All that came.
    pub datagrams: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Dropped, by why.
    pub dropped: Counts<1>,
    /// TCP connections that are open; see [`Open`].
    connections: Gauge,
    /// TCP connections cut, by why.
    pub connections_cut: Counts<1>,
}

impl Default for Port {
    fn default() -> Self {
        let why = [["unknown_stun_request"], ["unknown_stun_response"], ["unknown_media"], ["unknown_other"]];
        let why = [&why[..], &[["unproven_media"], ["forged_stun"], ["loop_full"]]].concat();
        let cut = [["unknown"], ["unauthenticated"], ["bad_frame"], ["slow"], ["crowded"], ["replaced"]];
        Self {
            datagrams: Counter::default(),
            bytes: Counter::default(),
            dropped: Counts::new(["why"], &why),
            connections: Gauge::default(),
            connections_cut: Counts::new(["why"], &cut),
        }
    }
}

/// How late loops are. Each notes the worst of every second, so that watching costs nothing.
#[derive(Debug)]
pub struct Loops {
    /// How late the media engine's timers were served.
    pub media_lag: Durations,
    /// How long one of its turns took.
    pub media_turn: Durations,
    /// How late a task of the rest of the server was woken.
    pub runtime_lag: Durations,
}

impl Default for Loops {
    fn default() -> Self {
        let brief = || Durations::new(&BRIEF);
        Self { media_lag: brief(), media_turn: brief(), runtime_lag: brief() }
    }
}

/// Recordings, and the disk they go to.
#[derive(Debug)]
pub struct Recordings {
    /// Sealed, by end reason.
    pub sealed: Counts<1>,
    /// Left no file, by code.
    pub failed: Counts<1>,
    /// Ended before any frame came that can begin a file.
    pub empty: Counter,
    /// Made whole at the start.
    pub repaired: Counter,
    /// Moved to quarantine.
    pub quarantined: Counter,
    /// Not repaired, though not beyond it.
    pub repair_failed: Counter,
    /// Bytes of media files.
    pub bytes: Counter,
    /// Holes, by reason.
    pub gaps: Counts<1>,
    /// Work on the disk, by what it waits for.
    pub disk: DurationsBy,
}

impl Default for Recordings {
    fn default() -> Self {
        let gaps = ["loss", "reconnect", "silence", "pause", "overrun", "damage", "clock", "undecodable"];
        let gaps = gaps.map(|reason| [reason]);
        let codes =
            [ErrorCode::DiskFull, ErrorCode::WriteError, ErrorCode::BadBlob].map(|code| [code.as_str()]);
        Self {
            sealed: Counts::new(["reason"], &ENDS),
            failed: Counts::new(["code"], &codes),
            empty: Counter::default(),
            repaired: Counter::default(),
            quarantined: Counter::default(),
            repair_failed: Counter::default(),
            bytes: Counter::default(),
            gaps: Counts::new(["reason"], &gaps),
            disk: DurationsBy::new("work", &["write", "sync"], || Histogram::new(BRIEF)),
        }
    }
}

/// Hooks.
#[derive(Debug)]
pub struct Hooks {
    /// Attempts, by result.
    pub attempts: Counts<1>,
    /// Recordings whose attempts are used up.
    pub failed: Counter,
    /// How long an attempt took.
    pub duration: Durations,
}

impl Default for Hooks {
    fn default() -> Self {
        let results = [["success"], ["failed"], ["timed_out"], ["interrupted"], ["lost"]];
        Self {
            attempts: Counts::new(["result"], &results),
            failed: Counter::default(),
            duration: Durations::new(&LONG),
        }
    }
}

/// Viewers of live streams.
#[derive(Debug, Default)]
pub struct Viewers {
    /// Times that one missed frames.
    pub skips: Counter,
    /// The frames.
    pub skipped_frames: Counter,
}

/// HTTP.
#[derive(Debug, Default)]
pub struct Http {
    /// Requests answered.
    pub requests: Family<Answered, Counter>,
    /// Connections that are open; see [`Open`].
    connections: Gauge,
}

/// A request, as far as it is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// The route's template, never the path.
    pub route: String,
    /// `GET`, …; `other` if it is none that routes have.
    pub method: &'static str,
    /// `2xx`, ….
    pub status: &'static str,
}

/// Counts one connection as open until it is dropped.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    /// One more of HTTP.
    pub fn connection() -> Self {
        Self::of(&metrics().http.connections)
    }

    /// One more on the media port.
    pub fn media_connection() -> Self {
        Self::of(&metrics().port.connections)
    }

    fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Counts one refusal because of this limit.
    pub fn refused(&self, limit: &'static str) {
        self.limit_refusals.get_or_create(&Limit { limit }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_counted_under_its_limits_key() {
        let metrics = Metrics::default();
        metrics.refused("limits.max_streams");
        metrics.refused("limits.max_streams");
        let text = Scrape::new(&metrics).text(Format::OpenMetrics).unwrap();
        assert!(text.contains("onrecord_limit_refusals_total{limit=\"limits.max_streams\"} 2"), "{text}");
    }

    #[test]
    fn what_may_be_counted_is_there_as_zero_before_it_happens() {
        let text = Scrape::new(&Metrics::default()).text(Format::OpenMetrics).unwrap();
        for line in [
            "onrecord_recordings_sealed_total{reason=\"disk_full\"} 0",
            "onrecord_publications_ended_total{reason=\"never_connected\"} 0",
            "onrecord_rtp_packets_repaired_total{kind=\"audio\",by=\"red\"} 0",
            "onrecord_disk_work_seconds_count{work=\"sync\"} 0",
            "onrecord_hooks_failed_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
