//! L2: one publisher's frames, handed to everybody who reads them.

pub mod mjpeg;
mod stream;
mod tap;

pub use stream::Stream;
pub use tap::{Item, Tap};
