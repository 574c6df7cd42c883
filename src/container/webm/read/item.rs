//! What a reader tells of a file.

use crate::container::webm::StoredBlock;
use std::ops::Range;

/// Why the input can't be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It does not begin with an EBML header.
    #[error("it is neither WebM nor Matroska")]
    NotWebm,
    /// A document of another kind, or of an unknown version.
    #[error("it is EBML, but neither WebM nor Matroska of a version that can be read: {0}")]
    Unsupported(String),
}

/// What comes out. Positions count from the start of the input.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// The EBML header. A second one begins another file in the same input.
    Header {
        /// Where it begins.
        at: u64,
        /// `webm` or `matroska`.
        doc_type: &'a str,
        /// DocTypeVersion.
        version: u64,
        /// DocTypeReadVersion.
        read_version: u64,
    },
    /// The Segment's ID and size: what follows is in it.
    Segment {
        /// Where its payload begins.
        payload_at: u64,
        /// Length of its payload in bytes; `None` if it is of unknown size.
        size: Option<u64>,
    },
    /// SeekHead, Info, Tracks, Cues, or Tags of a usual size.
    Element {
        /// Its element ID, the length marker included.
        id: u64,
        /// The whole element, ID and size included.
        at: Range<u64>,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Any other element beside the clusters; its payload is not kept.
    Skipped {
        /// Its element ID, the length marker included.
        id: u64,
        /// The whole element, ID and size included.
        at: Range<u64>,
    },
    /// A Cluster's ID and size: up to its end, what follows is in it.
    Cluster {
        /// Where it begins.
        at: u64,
        /// Where its payload begins.
        payload_at: u64,
        /// Length of its payload in bytes; `None` if it is of unknown size.
        size: Option<u64>,
    },
    /// The cluster's time, in ticks.
    Time(u64),
    /// A SimpleBlock or a BlockGroup.
    Block(StoredBlock<'a>),
    /// Any other element in a cluster.
    ClusterElement {
        /// Its element ID, the length marker included.
        id: u64,
        /// The whole element, ID and size included.
        at: Range<u64>,
    },
    /// The cluster is whole and ends here.
    ClusterEnd {
        /// Behind its last byte.
        at: u64,
    },
    /// Bytes that make no sense, or an element that is cut off by the end. An open cluster ends with
    /// it and is not whole; the range may be empty then.
    Damaged {
        /// Up to the next cluster, or to the end.
        at: Range<u64>,
    },
}
