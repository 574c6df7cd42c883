//! What `/metrics` counts.
//!
//! Process-wide, as Prometheus means them: a count only ever rises, nobody decides anything by one, so
//! every layer may add to it without being handed anything. What has a present value (open streams, free
//! disk, queue depths) is not kept here: it is asked of its owner when somebody scrapes, and so can't
//! drift from the truth.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
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
    /// Callers who were not let in, by why.
    pub auth_failures: Family<AuthFailure, Counter>,
}

/// Why somebody was not let in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AuthFailure {
    /// In a word: `missing`, `unknown`, `expired`, `forbidden`, `too_many` or `unavailable`.
    pub reason: &'static str,
}

/// Which limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Limit {
    /// Its key in the configuration, or its name if it has none.
    pub limit: &'static str,
}

impl Metrics {
    /// Counts one refusal because of this limit.
    pub fn refused(&self, limit: &'static str) {
        self.limit_refusals.get_or_create(&Limit { limit }).inc();
    }

    /// Counts one caller who was not let in.
    pub fn auth_failed(&self, reason: &'static str) {
        self.auth_failures.get_or_create(&AuthFailure { reason }).inc();
    }

    /// Names every count for a scrape.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "limit_refusals",
            "Requests, messages and streams refused because of a limit",
            self.limit_refusals.clone(),
        );
        registry.register("auth_failures", "Callers who were not let in, by why", self.auth_failures.clone());
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
        let mut registry = Registry::with_prefix("onrecord");
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("onrecord_limit_refusals_total{limit=\"limits.max_streams\"} 2"), "{text}");
    }
}
