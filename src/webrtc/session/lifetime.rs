//! When a session ends: as its publisher asks, or because nothing comes of the peer.

use super::{Event, Session, SessionEnd};
use crate::media;
use std::time::{Duration, Instant};

/// A peer that has not finished ICE and DTLS by then never will (D2).
const HANDSHAKE: Duration = Duration::from_secs(15);
/// A peer not heard of for 10 s is gone: browsers check their path every 2.5 s at the latest (D2). The
/// little that is left of them is for sealing the file.
const VANISHED: Duration = Duration::from_millis(9_950);

/// When a publisher asks to stop, media that was sent before may still be on its way: the request
/// takes another path. The session ends once no more has come out for this long,
pub(super) const LINGER: Duration = Duration::from_millis(300);
/// and at this time after the request whatever still comes; so long packets may be waited for that were asked
/// for again, since behind a hole nothing comes out.
const MAX_LINGER: Duration = Duration::from_secs(1);

/// A session that its publisher has asked to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    /// When that was.
    requested: Instant,
    /// When it ends unless more comes out.
    pub drained: Instant,
}

impl Session {
    /// Lets time pass: the peer connection's timers, windows of the pipeline, tracks in trouble, and its own end.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.peer.handle_timeout(now);
        self.take_from_peer(now);
        self.pipeline.handle_timeout(now);
        self.take_media(now);
        while let Some((track, reason)) = self.watch.look(now, self.last_heard) {
            self.events.push_back(Event::Trouble(track, Some(reason)));
        }
        if self.stops_at().is_some_and(|at| now >= at) {
            self.end(SessionEnd::Stopped, now);
        }
        if !self.over && now >= self.expires() {
            let end = match (self.connected, now.saturating_duration_since(self.last_heard) >= VANISHED) {
                (false, _) => SessionEnd::NeverConnected,
                (true, true) => SessionEnd::Vanished,
                (true, false) => SessionEnd::Idle,
            };
            self.end(end, now);
        }
    }

    /// When the peer is given up if nothing more comes of it.
    fn expires(&self) -> Instant {
        if self.connected {
            (self.last_heard + VANISHED).min(self.last_media + self.idle_timeout)
        } else {
            self.began + HANDSHAKE
        }
    }

    /// When `handle_timeout` is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        if self.over {
            return None;
        }
        let due = [
            self.peer.deadline(),
            self.receiver.deadline(),
            self.pipeline.deadline(),
            self.stops_at(),
            self.watch.due(self.last_heard),
        ];
        due.into_iter().flatten().chain([self.expires()]).min()
    }

    /// Its publisher has asked to stop: it ends by itself once what was sent before is there. The first
    /// request counts.
    pub fn stop(&mut self, now: Instant) {
        self.stopping.get_or_insert(Stopping { requested: now, drained: now + LINGER });
    }

    /// When it ends as its publisher has asked, if nothing more comes.
    fn stops_at(&self) -> Option<Instant> {
        let Stopping { requested, drained } = self.stopping?;
        let last = requested + MAX_LINGER;
        Some(if self.pipeline.has_hole() { last } else { drained.min(last) })
    }

    /// Ends the session: releases the frames that are whole and says goodbye to the peer.
    pub fn close(&mut self, now: Instant) {
        if !self.over {
            self.over = true;
            self.pipeline.finish(now);
            self.take_media(now);
            let missing = self.watch.end().into_iter().map(media::Event::Gap);
            self.events.extend(missing.map(Event::Media));
            self.peer.close(now);
        }
    }

    pub(super) fn end(&mut self, end: SessionEnd, now: Instant) {
        if !self.over {
            self.close(now);
            self.events.push_back(Event::Ended(end));
        }
    }
}
