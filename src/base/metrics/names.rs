//! What each count is called, and what it means. Counters get `_total` behind their name, all names
//! `onrecord_` before it.

use super::{Hooks, Http, Loops, Media, Metrics, Port, Publications, Recordings, Rtp, Viewers};
use prometheus_client::registry::Registry;

impl Metrics {
    /// Names every count for a scrape.
    pub(super) fn register(&self, registry: &mut Registry) {
        let to = &mut *registry;
        let help = "Requests, messages and streams refused because of a limit";
        to.register("limit_refusals", help, self.limit_refusals.clone());
        to.register("auth_failures", "Callers who were not let in, by why", self.auth.failures.family());
        self.publications.register(to);
        self.media.register(to);
        self.rtp.register(to);
        self.port.register(to);
        self.loops.register(to);
        self.recordings.register(to);
        self.hooks.register(to);
        let Viewers { skips, skipped_frames } = &self.viewers;
        to.register(
            "viewer_skips",
            "Times that a viewer was too slow and went on at a keyframe",
            skips.clone(),
        );
        to.register("viewer_skipped_frames", "Frames that slow viewers missed", skipped_frames.clone());
        let Http { requests, connections } = &self.http;
        to.register("http_requests", "Requests answered, by route", requests.clone());
        to.register("http_connections", "Connections that are open", connections.clone());
        let help = "Log lines left out because their reader is too slow";
        to.register("log_lines_left_out", help, self.log_lines_left_out.clone());
    }
}

impl Publications {
    fn register(&self, to: &mut Registry) {
        let help = "Publications begun: a name was reserved for an offer, an upload or a JPEG stream";
        to.register("publications", help, self.begun.clone());
        let help = "Offers, uploads and JPEG streams refused";
        to.register("publications_refused", help, self.refused.family());
        let help = "Publications whose media could flow";
        to.register("publications_connected", help, self.connected.family());
        let help = "Further connections of publications: after a loss, or another way in";
        to.register("publications_reconnected", help, self.reconnected.family());
        let help = "Publications that are over; never_connected: no media got through in time; empty: no \
                    frame came";
        to.register("publications_ended", help, self.ended.family());
    }
}

impl Media {
    fn register(&self, to: &mut Registry) {
        to.register("frames_received", "Frames that reached a stream", self.frames.family());
        to.register("media_received_bytes", "Bytes of frames that reached a stream", self.bytes.family());
    }
}

impl Rtp {
    fn register(&self, to: &mut Registry) {
        to.register("rtp_packets_received", "RTP packets, repetitions too", self.received.family());
        to.register("rtp_packets_lost", "RTP packets that never came", self.lost.family());
        let help = "Missing RTP packets that came in time: asked for again, or as copies in others (RED)";
        to.register("rtp_packets_repaired", help, self.repaired.family());
        let help = "RTP packets that others had overtaken, and that were not asked for";
        to.register("rtp_packets_reordered", help, self.reordered.family());
        let help = "RTP packets of no use: duplicates, and those that came too late";
        to.register("rtp_packets_late", help, self.late.family());
        let help = "RTP packets asked for again (NACK), each time counted";
        to.register("rtp_nacks_sent", help, self.asked.family());
        let help = "Keyframes asked for (PLI): at the start, after a loss, for seeking, for a viewer, \
                    or to see how large another encoding is";
        to.register("rtp_keyframe_requests", help, self.keyframe_requests.family());
        let help = "Pictures that came but could not be decoded, since what they build on was lost";
        to.register("rtp_frames_withheld", help, self.withheld.clone());
        let help = "Times that a track brought no frame for 5 s while its publisher was connected: silence, no \
                    packet came; undecodable, packets did";
        to.register("rtp_tracks_in_trouble", help, self.trouble.family());
    }
}

impl Port {
    fn register(&self, to: &mut Registry) {
        to.register("media_port_datagrams", "Datagrams received on the media port", self.datagrams.clone());
        to.register("media_port_received_bytes", "Bytes received on the media port", self.bytes.clone());
        let help = "Datagrams of nobody (unknown), from an address that nobody has proven to be his, or with \
                    a wrong signature";
        to.register("media_port_dropped", help, self.dropped.family());
        let help = "ICE-TCP connections on the media port that are open";
        to.register("media_port_connections", help, self.connections.clone());
        let help = "ICE-TCP connections cut. unknown: they began with nothing of a session; unauthenticated: they \
                    didn't show in time that they are its peer's; slow: they took nothing";
        to.register("media_port_connections_cut", help, self.connections_cut.family());
    }
}

impl Loops {
    fn register(&self, to: &mut Registry) {
        let help = "How late the media engine served its timers: the worst of each second";
        to.register("media_loop_lag_seconds", help, self.media_lag.0.clone());
        let help = "How long a turn of the media engine took: the longest of each second";
        to.register("media_loop_turn_seconds", help, self.media_turn.0.clone());
        let help = "How late a task was woken that asks for it each second";
        to.register("runtime_lag_seconds", help, self.runtime_lag.0.clone());
    }
}

impl Recordings {
    fn register(&self, to: &mut Registry) {
        to.register("recordings_sealed", "Files sealed, by why they ended", self.sealed.family());
        let help = "Recordings that left no file, or one that the next start has to repair";
        to.register("recordings_failed", help, self.failed.family());
        let help = "Recordings that ended before a frame came that can begin a file";
        to.register("recordings_empty", help, self.empty.clone());
        let help = "Files that the server's last run left unfinished, made whole";
        to.register("recordings_repaired", help, self.repaired.clone());
        let help = "Files that could not be repaired, moved to quarantine";
        to.register("recordings_quarantined", help, self.quarantined.clone());
        let help = "Repairs that failed and are left to the next start";
        to.register("recordings_repair_failures", help, self.repair_failed.clone());
        to.register("recordings_written_bytes", "Bytes of media files written", self.bytes.clone());
        let help = "Holes noted in recordings: nothing came, or nothing that can be decoded";
        to.register("recordings_gaps", help, self.gaps.family());
        let help = "How long work on files took: writes end in memory, syncs (also seals, manifests, repairs) \
                    wait for the disk";
        to.register("disk_work_seconds", help, self.disk.family());
    }
}

impl Hooks {
    fn register(&self, to: &mut Registry) {
        let help = "Hook attempts; interrupted: by the server's stop; lost: the server died meanwhile";
        to.register("hook_attempts", help, self.attempts.family());
        let help = "Recordings whose hook failed for good: its attempts are used up";
        to.register("hooks_failed", help, self.failed.clone());
        to.register("hook_duration_seconds", "How long a hook attempt took", self.duration.0.clone());
    }
}
