//! What is particular to a codec's RTP payload.

pub(super) mod vp8;
