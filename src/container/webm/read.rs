//! Reading, incrementally: bytes are pushed in pieces of any size, elements and blocks come out with
//! their exact place in the file.
//!
//! This is a small walker of its own over EBML headers, not the crate's `TagDecoder`. Repair must know where
//! each byte belongs: where a cluster ends that is cut in its middle, what to copy unchanged, and where
//! to go on behind damage. The decoder gives copies of decoded tags without their lengths, and ends for
//! good at the first thing it can't decode (its own way to go on may loop for ever).
//!
//! Rules: what waits for more bytes is bounded by [`MAX_PENDING`]; larger payloads that nobody needs
//! are passed over without being kept. The Segment's size is not believed: it ends with the input, or
//! where another file begins. Bytes that make no sense are reported as [`Item::Damaged`] up to the next
//! cluster, and reading goes on there. No input makes it panic.

use crate::container::webm::block::{self, Parts, StoredBlock};
use crate::container::webm::ebml::{Header, child, id, read_header, read_string, read_uint};
use std::ops::Range;

/// The largest element that is kept whole, and so what a reader holds at most beside the piece pushed
/// last. No frame comes near it; a larger length is taken for damage.
pub const MAX_PENDING: usize = 16 << 20;
/// Tags that are larger hold pictures rather than words, and are passed over.
const MAX_TAGS: u64 = 1 << 20;

/// Why the input can't be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It does not begin with an EBML header.
    #[error("it is neither WebM nor Matroska")]
    NotWebm,
    /// A document of another kind, or of a version nobody knows.
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
    /// The Segment begins.
    Segment {
        /// Where its payload begins.
        payload_at: u64,
        /// Its size, if it tells one.
        size: Option<u64>,
    },
    /// SeekHead, Info, Tracks, Cues, or Tags of a usual size.
    Element {
        /// Which.
        id: u64,
        /// The whole element.
        at: Range<u64>,
        /// Its payload.
        payload: &'a [u8],
    },
    /// Any other element beside the clusters; its payload is not kept.
    Passed {
        /// Which.
        id: u64,
        /// The whole element.
        at: Range<u64>,
    },
    /// A cluster begins.
    Cluster {
        /// Where.
        at: u64,
        /// Where its payload begins.
        payload_at: u64,
        /// Its size, if it tells one.
        size: Option<u64>,
    },
    /// The cluster's time, in ticks.
    Time(u64),
    /// A block.
    Block(StoredBlock<'a>),
    /// Any other element in a cluster.
    Aside {
        /// Which.
        id: u64,
        /// The whole element.
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

/// An open cluster.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    end: Option<u64>,
    time: Option<u64>,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing read yet.
    Start,
    /// Between elements of the Segment, or before it.
    Top,
    Cluster(Open),
    /// Passing over an element; then back to the cluster it is in.
    Passing {
        id: u64,
        at: Range<u64>,
        back: Option<Open>,
    },
    /// Looking for a cluster behind damage that begins here.
    Lost {
        from: u64,
    },
    Done,
}

/// Bytes in, [`Item`]s out.
#[derive(Debug)]
pub struct Reader {
    state: State,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are done with.
    used: usize,
    /// Where the buffer begins in the input.
    base: u64,
    /// Length of the input, if it is known: what would lie behind it is damage at once.
    len: Option<u64>,
    ended: bool,
}

/// An item without its bytes.
enum Found {
    Header { at: u64, payload: Range<usize> },
    Segment { payload_at: u64, size: Option<u64> },
    Element { id: u64, at: Range<u64>, payload: Range<usize> },
    Passed { id: u64, at: Range<u64> },
    Cluster { at: u64, payload_at: u64, size: Option<u64> },
    Time(u64),
    Block { parts: Parts, time: i128, at: Range<u64>, payload: Range<usize> },
    Aside { id: u64, at: Range<u64> },
    ClusterEnd { at: u64 },
    Damaged { at: Range<u64> },
}

enum Step {
    Again,
    More,
    Found(Found),
}

impl Reader {
    /// A reader of an input of `len` bytes, or of one whose end is not yet known.
    pub fn new(len: Option<u64>) -> Self {
        Self { state: State::Start, buffer: Vec::new(), used: 0, base: 0, len, ended: false }
    }

    /// Adds bytes. Take all items before the next call: they are what keeps the buffer small.
    pub fn push(&mut self, bytes: &[u8]) {
        self.base += self.used as u64;
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that no more bytes come.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// Whether what was pushed last makes no sense, for who can't wait for the next cluster to hear so.
    pub fn is_astray(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }

    /// The next item; `None` when more bytes are needed, or at the end.
    pub fn read(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        let found = loop {
            match self.step()? {
                Step::Again => {}
                Step::More => return Ok(None),
                Step::Found(found) => break found,
            }
        };
        self.show(found).map(Some)
    }

    fn show(&self, found: Found) -> Result<Item<'_>, ReadError> {
        Ok(match found {
            Found::Header { at, payload } => self.header(at, &self.buffer[payload])?,
            Found::Segment { payload_at, size } => Item::Segment { payload_at, size },
            Found::Element { id, at, payload } => Item::Element { id, at, payload: &self.buffer[payload] },
            Found::Passed { id, at } => Item::Passed { id, at },
            Found::Cluster { at, payload_at, size } => Item::Cluster { at, payload_at, size },
            Found::Time(time) => Item::Time(time),
            Found::Block { parts, time, at, payload } => Item::Block(StoredBlock {
                track: parts.track,
                time,
                keyframe: parts.keyframe,
                discardable: parts.discardable,
                duration: parts.duration,
                additions: parts.additions,
                aside: parts.aside,
                at,
                bytes: &self.buffer[payload],
                laces: parts.laces,
            }),
            Found::Aside { id, at } => Item::Aside { id, at },
            Found::ClusterEnd { at } => Item::ClusterEnd { at },
            Found::Damaged { at } => Item::Damaged { at },
        })
    }

    fn header<'a>(&self, at: u64, payload: &'a [u8]) -> Result<Item<'a>, ReadError> {
        let number = |id, default| child(payload, id).map_or(Some(default), read_uint).unwrap_or(u64::MAX);
        let doc_type = child(payload, id::DOC_TYPE).map_or("", read_string);
        let (version, read_version) = (number(id::DOC_TYPE_VERSION, 1), number(id::DOC_TYPE_READ_VERSION, 1));
        let limits = [(id::EBML_READ_VERSION, 1), (id::EBML_MAX_ID_LENGTH, 4), (id::EBML_MAX_SIZE_LENGTH, 8)];
        let beyond = limits.iter().any(|(id, most)| number(*id, *most) > *most);
        if beyond || !matches!(doc_type, "webm" | "matroska") || read_version > 4 {
            return Err(ReadError::Unsupported(format!("{doc_type:?}, version {read_version}")));
        }
        Ok(Item::Header { at, doc_type, version, read_version })
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    fn position(&self) -> u64 {
        self.base + self.used as u64
    }

    fn step(&mut self) -> Result<Step, ReadError> {
        match self.state.clone() {
            State::Start => self.start(),
            State::Top => Ok(self.top()),
            State::Cluster(open) => Ok(self.cluster(open)),
            State::Passing { id, at, back } => Ok(self.pass(id, at, back)),
            State::Lost { from } => Ok(self.look_for_cluster(from)),
            State::Done => Ok(Step::More),
        }
    }

    fn start(&mut self) -> Result<Step, ReadError> {
        match read_header(self.rest()) {
            Header::Incomplete if !self.ended => Ok(Step::More),
            Header::Valid { id: id::EBML, size: Some(size), len } if size <= 4096 => {
                if self.rest().len() >= len + size as usize {
                    self.state = State::Top;
                    Ok(Step::Found(self.take_header(size, len)))
                } else if self.ended {
                    Err(ReadError::NotWebm)
                } else {
                    Ok(Step::More)
                }
            }
            _ => Err(ReadError::NotWebm),
        }
    }

    fn take_header(&mut self, size: u64, len: usize) -> Found {
        let (at, start) = (self.position(), self.used + len);
        self.used = start + size as usize;
        Found::Header { at, payload: start..self.used }
    }

    fn lost(&mut self) -> Step {
        self.state = State::Lost { from: self.position() };
        Step::Again
    }

    /// What to do before an element of this payload is taken; `None` if all of it is in the buffer.
    fn lacks(&mut self, size: u64, len: usize) -> Option<Step> {
        let end = self.position().saturating_add(len as u64).saturating_add(size);
        let beyond = self.len.is_some_and(|all| end > all);
        if beyond || size > MAX_PENDING as u64 {
            Some(self.lost())
        } else if self.rest().len() >= len + size as usize {
            None
        } else if self.ended {
            Some(self.lost())
        } else {
            Some(Step::More)
        }
    }

    fn top(&mut self) -> Step {
        let (id, size, len) = match read_header(self.rest()) {
            Header::Incomplete if !self.ended => return Step::More,
            Header::Incomplete if self.rest().is_empty() => {
                self.state = State::Done;
                return Step::More;
            }
            Header::Incomplete | Header::Invalid => return self.lost(),
            Header::Valid { id, size, len } => (id, size, len),
        };
        let at = self.position();
        let payload_at = at + len as u64;
        match (id, size) {
            (id::CLUSTER, size) => {
                self.used += len;
                let end = size.and_then(|size| payload_at.checked_add(size));
                self.state = State::Cluster(Open { end, time: None });
                Step::Found(Found::Cluster { at, payload_at, size })
            }
            (id::SEGMENT, size) => {
                self.used += len;
                Step::Found(Found::Segment { payload_at, size })
            }
            (_, None) => self.lost(),
            (id::EBML, Some(size)) if size <= 4096 => match self.lacks(size, len) {
                None => Step::Found(self.take_header(size, len)),
                Some(step) => step,
            },
            (id::SEEK_HEAD | id::INFO | id::TRACKS | id::CUES, Some(size)) if size <= MAX_PENDING as u64 => {
                self.take_element(id, size, len)
            }
            (id::TAGS, Some(size)) if size <= MAX_TAGS => self.take_element(id, size, len),
            (_, Some(size)) => self.begin_to_pass(id, size, len, None),
        }
    }

    fn take_element(&mut self, id: u64, size: u64, len: usize) -> Step {
        if let Some(step) = self.lacks(size, len) {
            return step;
        }
        let (at, start) = (self.position(), self.used + len);
        self.used = start + size as usize;
        Step::Found(Found::Element { id, at: at..self.position(), payload: start..self.used })
    }

    fn begin_to_pass(&mut self, id: u64, size: u64, len: usize, back: Option<Open>) -> Step {
        let at = self.position();
        let end = at.saturating_add(len as u64).saturating_add(size);
        // An id that nobody knows is allowed, but one that claims much is rather a flipped bit.
        let strange = !is_known(id) && size > MAX_PENDING as u64;
        if strange || self.len.is_some_and(|all| end > all) {
            return self.lost();
        }
        self.state = State::Passing { id, at: at..end, back };
        Step::Again
    }

    fn pass(&mut self, id: u64, at: Range<u64>, back: Option<Open>) -> Step {
        let left = at.end - self.position();
        self.used += left.min(self.rest().len() as u64) as usize;
        if self.position() == at.end {
            self.state = back.map_or(State::Top, State::Cluster);
            let aside = back.is_some();
            return Step::Found(if aside { Found::Aside { id, at } } else { Found::Passed { id, at } });
        }
        if self.ended {
            self.state = State::Lost { from: at.start };
            return Step::Again;
        }
        Step::More
    }

    fn cluster(&mut self, open: Open) -> Step {
        let at = self.position();
        if open.end == Some(at) {
            return self.end_cluster();
        }
        let (id, size, len) = match read_header(self.rest()) {
            Header::Incomplete if !self.ended => return Step::More,
            Header::Incomplete if self.rest().is_empty() && open.end.is_none() => return self.end_cluster(),
            Header::Incomplete | Header::Invalid => return self.lost(),
            Header::Valid { id, size, len } => (id, size, len),
        };
        if open.end.is_none() && (is_top_level(id) || id == id::EBML) {
            return self.end_cluster();
        }
        let Some(size) = size else { return self.lost() };
        let fits = |end: u64| {
            at.checked_add(len as u64).and_then(|at| at.checked_add(size)).is_some_and(|e| e <= end)
        };
        if is_top_level(id) || open.end.is_some_and(|end| !fits(end)) {
            return self.lost();
        }
        match id {
            id::TIMESTAMP | id::SIMPLE_BLOCK | id::BLOCK_GROUP => match self.lacks(size, len) {
                None => self.take_child(open, id, size, len),
                Some(step) => step,
            },
            _ => self.begin_to_pass(id, size, len, Some(open)),
        }
    }

    fn end_cluster(&mut self) -> Step {
        self.state = State::Top;
        Step::Found(Found::ClusterEnd { at: self.position() })
    }

    fn take_child(&mut self, open: Open, id: u64, size: u64, len: usize) -> Step {
        let range = self.used + len..self.used + len + size as usize;
        let payload = &self.buffer[range.clone()];
        if id == id::TIMESTAMP {
            let Some(time) = read_uint(payload) else { return self.lost() };
            self.used = range.end;
            self.state = State::Cluster(Open { time: Some(time), ..open });
            return Step::Found(Found::Time(time));
        }
        let parts = if id == id::SIMPLE_BLOCK { block::simple(payload) } else { block::group(payload) };
        let (Some(parts), Some(time)) = (parts, open.time) else { return self.lost() };
        let (at, time) = (self.position(), i128::from(time) + i128::from(parts.offset));
        self.used = range.end;
        Step::Found(Found::Block { parts, time, at: at..self.position(), payload: range })
    }

    /// Goes on to the next bytes that begin like a cluster.
    fn look_for_cluster(&mut self, from: u64) -> Step {
        loop {
            let rest = self.rest();
            let skip = rest.iter().position(|byte| *byte == 0x1f).unwrap_or(rest.len());
            self.used += skip;
            let found = begins_cluster(self.rest());
            if found == Some(true) || (self.ended && self.rest().is_empty()) {
                self.state = if found == Some(true) { State::Top } else { State::Done };
                return Step::Found(Found::Damaged { at: from..self.position() });
            }
            if found.is_none() && !self.ended {
                return Step::More;
            }
            self.used += 1;
        }
    }
}

/// Whether these bytes begin a cluster: its id, a size, and a first child as every muxer writes it.
/// `None` if they are too few to tell.
fn begins_cluster(bytes: &[u8]) -> Option<bool> {
    let id = (id::CLUSTER as u32).to_be_bytes();
    let known = bytes.len().min(4);
    if bytes[..known] != id[..known] {
        return Some(false);
    }
    let Header::Valid { len, .. } = some(read_header(bytes))? else { return Some(false) };
    let Header::Valid { id, size: Some(size), .. } = some(read_header(&bytes[len..]))? else {
        return Some(false);
    };
    Some(match id {
        id::TIMESTAMP | id::POSITION | id::PREV_SIZE => (1..=8).contains(&size),
        id::CRC_32 => size == 4,
        _ => false,
    })
}

fn some(header: Header) -> Option<Header> {
    (header != Header::Incomplete).then_some(header)
}

/// Elements that can't be in a cluster: one of them ends a cluster of unknown size.
fn is_top_level(id: u64) -> bool {
    matches!(
        id,
        id::CLUSTER
            | id::SEGMENT
            | id::SEEK_HEAD
            | id::INFO
            | id::TRACKS
            | id::CUES
            | id::TAGS
            | id::CHAPTERS
            | id::ATTACHMENTS
    )
}

/// Whether a recorder writes such an element beside blocks or clusters. Rubbish often reads like a row
/// of small elements that nobody knows.
pub fn is_expected(id: u64) -> bool {
    const SILENT_TRACKS: u64 = 0x5854;
    is_known(id) || matches!(id, id::POSITION | id::PREV_SIZE | SILENT_TRACKS)
}

/// Elements whose size is believed however large it is.
fn is_known(id: u64) -> bool {
    is_top_level(id) || matches!(id, id::VOID | id::CRC_32 | id::EBML)
}
