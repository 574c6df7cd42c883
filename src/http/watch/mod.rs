//! Ways out: live WebM, JPEG pictures.

pub mod live;
pub(super) mod mjpeg;
pub(super) mod pictures;
