//! JPEG pictures, live: the newest one, and its viewers.
//!
//! There is no queue: a viewer that is behind finds only the newest picture. All viewers share its
//! bytes, so one that reads nothing keeps at most the picture it got last.

use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::watch;

/// What a viewer's parts are told apart by (RFC 2046 section 5.1.1), as `Content-Type` says it.
pub const CONTENT_TYPE: &str = "multipart/x-mixed-replace; boundary=frame";
/// Before the first part.
pub const OPENING: &[u8] = b"--frame\r\n";
/// Right behind each picture, so that no browser waits for the next one to show it.
const BOUNDARY: &[u8] = b"\r\n--frame\r\n";
/// Behind the last part.
pub const CLOSING: &[u8] = b"--frame--\r\n";
/// The last part, where it is no picture but the reason why there are no more, as JSON.
pub fn last_words(json: &str) -> Bytes {
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", json.len());
    [&head, json, "\r\n--frame--\r\n"].concat().into()
}

/// A picture is sent again after this much silence: proxies and browsers cut a connection that says
/// nothing.
pub const REPEAT: Duration = Duration::from_secs(5);

/// One JPEG image, and the part of the multipart stream that it is, in the same memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Picture {
    part: Bytes,
    image: Range<usize>,
}

impl Picture {
    /// Makes a part of a whole image.
    pub fn new(image: &[u8]) -> Self {
        Self::with("", image)
    }

    /// The same of one that is at some time of a recording, in milliseconds in `Onrecord-Time`; one behind
    /// damage of the file says so in `Onrecord-Damaged`.
    pub fn timed(image: &[u8], time: Duration, behind_damage: bool) -> Self {
        let damaged = if behind_damage { "Onrecord-Damaged: before\r\n" } else { "" };
        Self::with(&format!("Onrecord-Time: {}\r\n{damaged}", time.as_millis()), image)
    }

    fn with(header: &str, image: &[u8]) -> Self {
        let head = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n{header}\r\n", image.len());
        let mut part = BytesMut::with_capacity(head.len() + image.len() + BOUNDARY.len());
        part.put(head.as_bytes());
        part.put(image);
        part.put(BOUNDARY);
        Self { part: part.freeze(), image: head.len()..head.len() + image.len() }
    }

    /// The part, with the boundary behind it.
    pub fn part(&self) -> Bytes {
        self.part.clone()
    }

    /// The image.
    pub fn image(&self) -> Bytes {
        self.part.slice(self.image.clone())
    }
}

/// The newest picture of a stream; dropping it ends every viewer's stream.
#[derive(Debug)]
pub struct Pictures(watch::Sender<Picture>);

impl Pictures {
    /// Begins with a first picture.
    pub fn new(first: Picture) -> Self {
        Self(watch::Sender::new(first))
    }

    /// Shows this one from now on. Never waits.
    pub fn show(&self, picture: Picture) {
        self.0.send_replace(picture);
    }

    /// The newest.
    pub fn newest(&self) -> Picture {
        self.0.borrow().clone()
    }

    /// How many viewers there are.
    pub fn viewers(&self) -> usize {
        self.0.receiver_count()
    }

    /// A new viewer.
    pub fn viewer(&self) -> Viewer {
        Viewer { pictures: self.0.subscribe(), stage: Stage::Opening }
    }
}

/// A viewer of the newest picture.
#[derive(Debug)]
pub struct Viewer {
    pictures: watch::Receiver<Picture>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Opening,
    Looking,
    Over,
}

impl Viewer {
    /// What to send next: each time a whole part with the boundary behind it. The first comes at once,
    /// `None` when all is said.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Opening => {
                self.stage = Stage::Looking;
                let first = self.newest();
                Some([OPENING, &first].concat().into())
            }
            Stage::Looking => match tokio::time::timeout(REPEAT, self.pictures.changed()).await {
                Ok(Err(_)) => {
                    self.stage = Stage::Over;
                    Some(Bytes::from_static(CLOSING))
                }
                Ok(Ok(())) | Err(_) => Some(self.newest()),
            },
            Stage::Over => None,
        }
    }

    fn newest(&mut self) -> Bytes {
        self.pictures.borrow_and_update().part.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_viewer_gets_the_newest_at_once_skips_what_it_missed_and_is_told_the_end() {
        let pictures = Pictures::new(Picture::new(b"one"));
        let mut viewer = pictures.viewer();
        let head = |length| format!("Content-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n");
        let part = |image: &str| format!("{}{image}\r\n--frame\r\n", head(image.len()));
        assert_eq!(viewer.next().await.unwrap(), format!("--frame\r\n{}", part("one")));
        for image in ["two", "three", "newest"] {
            pictures.show(Picture::new(image.as_bytes()));
        }
        assert_eq!(viewer.next().await.unwrap(), part("newest"));
        assert_eq!(pictures.newest().image(), "newest");
        pictures.show(Picture::new(b"last"));
        drop(pictures);
        assert_eq!(viewer.next().await.unwrap(), part("last"), "the last one is not lost");
        assert_eq!(viewer.next().await.unwrap(), "--frame--\r\n");
        assert_eq!(viewer.next().await, None);
    }
}
