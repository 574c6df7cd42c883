//! What a received packet passes on its way from the socket to the pipeline, and what is told of it: each a pure part
//! with time as an argument, of bounded memory, that allocates nothing for a packet once its source is known.

#![allow(dead_code)]

pub(super) mod congestion;
pub(super) mod header;
pub(super) mod reports;
pub(super) mod srtp;
