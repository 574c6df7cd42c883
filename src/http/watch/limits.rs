//! Bounds on viewers.

use crate::base::id::StreamName;
use crate::base::metrics::Scrape;
use crate::base::quota::{ClientKey, Limit, LimitExceeded, Permit, Quota};
use crate::http::error::ApiError;
use crate::publish::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many viewers there are, and may be.
pub struct ViewerLimits {
    viewers: Quota,
    streams: Quota<StreamName>,
    pub(super) cache: usize,
    /// In the order of [`ViewerKind`].
    open: [Arc<AtomicU64>; 3],
}

/// How a client watches.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) enum ViewerKind {
    WebSocket,
    Http,
    Mjpeg,
}

/// A viewer's share of the limits, free again when dropped.
#[derive(Debug)]
pub(in crate::http) struct ViewerPermit {
    _of_all: Permit,
    _of_stream: Permit<StreamName>,
    open: Arc<AtomicU64>,
}

impl Drop for ViewerPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ViewerLimits {
    /// None yet; streams have so many bytes of cache.
    pub fn new(limits: &Limits, cache: u64) -> Self {
        let all = Limit("limits.max_viewers", limits.max_viewers);
        let each = Limit("limits.max_viewers_per_address", limits.max_viewers_per_address);
        let stream = Limit("limits.max_viewers_per_stream", limits.max_viewers_per_stream);
        Self {
            viewers: Quota::new(all, each),
            streams: Quota::new(all, stream),
            cache: usize::try_from(cache).unwrap_or(usize::MAX),
            open: Default::default(),
        }
    }

    /// Admits one more.
    pub(in crate::http) fn enter(
        &self,
        kind: ViewerKind,
        client: Option<ClientKey>,
        stream: &StreamName,
    ) -> Result<ViewerPermit, ApiError> {
        let of_all = self.viewers.enter(client)?;
        // A stream has many clients: that it has all the viewers it may have is not this one's doing.
        let full = |(LimitExceeded::Own(limit) | LimitExceeded::All(limit)): LimitExceeded| {
            LimitExceeded::All(limit)
        };
        let of_stream = self.streams.enter(Some(stream.clone())).map_err(full)?;
        let open = self.open[kind as usize].clone();
        open.fetch_add(1, Ordering::Relaxed);
        Ok(ViewerPermit { _of_all: of_all, _of_stream: of_stream, open })
    }

    /// What there is at present.
    pub(in crate::http) fn gauges(&self, scrape: &mut Scrape) {
        let of = |kind: ViewerKind| self.open[kind as usize].load(Ordering::Relaxed);
        let values = [
            ("websocket", of(ViewerKind::WebSocket)),
            ("http", of(ViewerKind::Http)),
            ("mjpeg", of(ViewerKind::Mjpeg)),
        ];
        scrape.gauges("viewers", "Viewers of live streams, by how they watch", "kind", values);
    }
}
