//! Counts with labels whose values are few, and known in the sources.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A count split by labels.
#[derive(Clone, Debug)]
pub struct Counts<const N: usize> {
    labels: [&'static str; N],
    family: Family<Labels<N>, Counter>,
}

impl<const N: usize> Counts<N> {
    /// All known values are shown from the start, as 0: a query for a rate would miss the step from
    /// nothing to 1, and an alert on it the first time it matters.
    pub(super) fn new(labels: [&'static str; N], known: &[[&'static str; N]]) -> Self {
        let counts = Self { labels, family: Family::default() };
        for values in known {
            drop(counts.of(*values));
        }
        counts
    }

    /// The count of these values, for callers that count often: finding it takes a lock, adding to it does not.
    pub fn of(&self, values: [&'static str; N]) -> Counter {
        self.family.get_or_create_owned(&pairs(self.labels, values))
    }

    /// Counts one.
    pub fn inc(&self, values: [&'static str; N]) {
        self.add(values, 1);
    }

    /// Counts some.
    pub fn add(&self, values: [&'static str; N], more: u64) {
        self.family.get_or_create(&pairs(self.labels, values)).inc_by(more);
    }

    pub(super) fn family(&self) -> Family<Labels<N>, Counter> {
        self.family.clone()
    }
}

fn pairs<const N: usize>(labels: [&'static str; N], values: [&'static str; N]) -> Labels<N> {
    std::array::from_fn(|at| (labels[at], values[at]))
}

/// How long something took, in buckets.
#[derive(Clone, Debug)]
pub struct Durations(pub(super) Histogram);

impl Durations {
    pub(super) fn new(bounds: &[f64]) -> Self {
        Self(Histogram::new(bounds.iter().copied()))
    }

    /// Notes one. Takes a lock: not for every packet.
    pub fn note(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

/// The same, split by a label.
#[derive(Clone, Debug)]
pub struct DurationsBy {
    label: &'static str,
    family: Family<Labels<1>, Histogram, fn() -> Histogram>,
}

impl DurationsBy {
    pub(super) fn new(label: &'static str, known: &[&'static str], make: fn() -> Histogram) -> Self {
        let durations = Self { label, family: Family::new_with_constructor(make) };
        for value in known {
            drop(durations.family.get_or_create(&[(label, value)]));
        }
        durations
    }

    /// Notes one.
    pub fn note(&self, value: &'static str, took: Duration) {
        self.family.get_or_create(&[(self.label, value)]).observe(took.as_secs_f64());
    }

    pub(super) fn family(&self) -> Family<Labels<1>, Histogram, fn() -> Histogram> {
        self.family.clone()
    }
}
