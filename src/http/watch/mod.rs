//! Ways out: live WebM, JPEG pictures.

pub mod limits;
pub(super) mod live;
pub(super) mod mjpeg;
pub(super) mod mjpeg_playback;
