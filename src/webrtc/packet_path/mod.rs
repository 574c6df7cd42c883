//! What a received packet passes on its way from the socket to the pipeline, and what its sender is told of it: each a
//! pure part with time as an argument, of bounded memory, that allocates nothing for a packet once its source is known.

pub(super) mod congestion;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub(super) mod header;
pub(super) mod reports;
pub(super) mod rtcp;
pub(super) mod srtp;
