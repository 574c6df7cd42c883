//! Reading, incrementally: bytes are pushed in pieces of any size, elements and blocks come out with
//! their exact position in the file.
//!
//! This reads EBML headers by itself, not with the crate's `TagDecoder`. Repair must know where
//! each byte belongs: where a cluster ends that is cut in its middle, what to copy unchanged, and where
//! to go on behind damage. The decoder gives copies of decoded tags without their lengths, and ends for
//! good at the first thing it can't decode (its own way to go on may loop for ever).
//!
//! Rules: what waits for more bytes is bounded by [`MAX_PENDING`]; larger payloads that are not needed
//! are skipped without being kept. The Segment's size is not believed: it ends with the input, or
//! where another file begins. Bytes that make no sense are reported as [`Item::Damaged`] up to the next
//! cluster, and reading goes on there. No input makes it panic.

mod item;
mod resync;

pub use item::{Item, ReadError};
pub use resync::is_expected;

use crate::container::webm::block::{self, ParsedBlock, StoredBlock};
use crate::container::webm::ebml::{Header, child, id, read_header, read_string, read_uint};
use resync::{is_known, is_top_level};
use std::ops::Range;

/// The largest element that is kept whole, and so what a reader holds at most beside the piece pushed
/// last. No frame comes near it; a larger length is taken for damage.
pub const MAX_PENDING: usize = 16 << 20;
/// Tags that are larger hold pictures rather than words, and are skipped.
const MAX_TAGS: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, Default)]
struct OpenCluster {
    end: Option<u64>,
    time: Option<u64>,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing read yet.
    Start,
    /// Between elements of the Segment, or before it.
    Top,
    Cluster(OpenCluster),
    /// Skipping an element; then back to the cluster it is in.
    Skipping {
        id: u64,
        at: Range<u64>,
        back: Option<OpenCluster>,
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
    Skipped { id: u64, at: Range<u64> },
    Cluster { at: u64, payload_at: u64, size: Option<u64> },
    Time(u64),
    Block { block: ParsedBlock, time: i128, at: Range<u64>, payload: Range<usize> },
    ClusterElement { id: u64, at: Range<u64> },
    ClusterEnd { at: u64 },
    Damaged { at: Range<u64> },
}

enum Step {
    Again,
    NeedsMore,
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

    /// Whether what was pushed last makes no sense: known at once, not only when the next cluster is found.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }

    /// The next item; `None` when more bytes are needed, or at the end.
    pub fn read(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        let found = loop {
            match self.step()? {
                Step::Again => {}
                Step::NeedsMore => return Ok(None),
                Step::Found(found) => break found,
            }
        };
        self.item(found).map(Some)
    }

    fn item(&self, found: Found) -> Result<Item<'_>, ReadError> {
        Ok(match found {
            Found::Header { at, payload } => self.header(at, &self.buffer[payload])?,
            Found::Segment { payload_at, size } => Item::Segment { payload_at, size },
            Found::Element { id, at, payload } => Item::Element { id, at, payload: &self.buffer[payload] },
            Found::Skipped { id, at } => Item::Skipped { id, at },
            Found::Cluster { at, payload_at, size } => Item::Cluster { at, payload_at, size },
            Found::Time(time) => Item::Time(time),
            Found::Block { block, time, at, payload } => Item::Block(StoredBlock {
                track: block.track,
                time,
                keyframe: block.keyframe,
                discardable: block.discardable,
                duration: block.duration,
                has_additions: block.has_additions,
                side_data: block.side_data,
                at,
                bytes: &self.buffer[payload],
                laces: block.laces,
            }),
            Found::ClusterElement { id, at } => Item::ClusterElement { id, at },
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
            State::Skipping { id, at, back } => Ok(self.skip(id, at, back)),
            State::Lost { from } => Ok(self.look_for_cluster(from)),
            State::Done => Ok(Step::NeedsMore),
        }
    }

    fn start(&mut self) -> Result<Step, ReadError> {
        match read_header(self.rest()) {
            Header::Incomplete if !self.ended => Ok(Step::NeedsMore),
            Header::Valid { id: id::EBML, size: Some(size), len } if size <= 4096 => {
                if self.rest().len() >= len + size as usize {
                    self.state = State::Top;
                    Ok(Step::Found(self.take_header(size, len)))
                } else if self.ended {
                    Err(ReadError::NotWebm)
                } else {
                    Ok(Step::NeedsMore)
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

    /// What to do before an element of this payload is taken; `None` if all of it is in the buffer.
    fn check_payload(&mut self, size: u64, len: usize) -> Option<Step> {
        let end = self.position().saturating_add(len as u64).saturating_add(size);
        let beyond = self.len.is_some_and(|all| end > all);
        if beyond || size > MAX_PENDING as u64 {
            Some(self.lost())
        } else if self.rest().len() >= len + size as usize {
            None
        } else if self.ended {
            Some(self.lost())
        } else {
            Some(Step::NeedsMore)
        }
    }

    fn top(&mut self) -> Step {
        let (id, size, len) = match read_header(self.rest()) {
            Header::Incomplete if !self.ended => return Step::NeedsMore,
            Header::Incomplete if self.rest().is_empty() => {
                self.state = State::Done;
                return Step::NeedsMore;
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
                self.state = State::Cluster(OpenCluster { end, time: None });
                Step::Found(Found::Cluster { at, payload_at, size })
            }
            (id::SEGMENT, size) => {
                self.used += len;
                Step::Found(Found::Segment { payload_at, size })
            }
            (_, None) => self.lost(),
            (id::EBML, Some(size)) if size <= 4096 => match self.check_payload(size, len) {
                None => Step::Found(self.take_header(size, len)),
                Some(step) => step,
            },
            (id::SEEK_HEAD | id::INFO | id::TRACKS | id::CUES, Some(size)) if size <= MAX_PENDING as u64 => {
                self.take_element(id, size, len)
            }
            (id::TAGS, Some(size)) if size <= MAX_TAGS => self.take_element(id, size, len),
            (_, Some(size)) => self.begin_skip(id, size, len, None),
        }
    }

    fn take_element(&mut self, id: u64, size: u64, len: usize) -> Step {
        if let Some(step) = self.check_payload(size, len) {
            return step;
        }
        let (at, start) = (self.position(), self.used + len);
        self.used = start + size as usize;
        Step::Found(Found::Element { id, at: at..self.position(), payload: start..self.used })
    }

    fn begin_skip(&mut self, id: u64, size: u64, len: usize, back: Option<OpenCluster>) -> Step {
        let at = self.position();
        let end = at.saturating_add(len as u64).saturating_add(size);
        // An unknown id is allowed, but one that claims much is rather a flipped bit.
        let strange = !is_known(id) && size > MAX_PENDING as u64;
        if strange || self.len.is_some_and(|all| end > all) {
            return self.lost();
        }
        self.state = State::Skipping { id, at: at..end, back };
        Step::Again
    }

    fn skip(&mut self, id: u64, at: Range<u64>, back: Option<OpenCluster>) -> Step {
        let left = at.end - self.position();
        self.used += left.min(self.rest().len() as u64) as usize;
        if self.position() == at.end {
            self.state = back.map_or(State::Top, State::Cluster);
            let in_cluster = back.is_some();
            return Step::Found(if in_cluster {
                Found::ClusterElement { id, at }
            } else {
                Found::Skipped { id, at }
            });
        }
        if self.ended {
            self.state = State::Lost { from: at.start };
            return Step::Again;
        }
        Step::NeedsMore
    }

    fn cluster(&mut self, open: OpenCluster) -> Step {
        let at = self.position();
        if open.end == Some(at) {
            return self.end_cluster();
        }
        let (id, size, len) = match read_header(self.rest()) {
            Header::Incomplete if !self.ended => return Step::NeedsMore,
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
            id::TIMESTAMP | id::SIMPLE_BLOCK | id::BLOCK_GROUP => match self.check_payload(size, len) {
                None => self.take_child(open, id, size, len),
                Some(step) => step,
            },
            _ => self.begin_skip(id, size, len, Some(open)),
        }
    }

    fn end_cluster(&mut self) -> Step {
        self.state = State::Top;
        Step::Found(Found::ClusterEnd { at: self.position() })
    }

    fn take_child(&mut self, open: OpenCluster, id: u64, size: u64, len: usize) -> Step {
        let range = self.used + len..self.used + len + size as usize;
        let payload = &self.buffer[range.clone()];
        if id == id::TIMESTAMP {
            let Some(time) = read_uint(payload) else { return self.lost() };
            self.used = range.end;
            self.state = State::Cluster(OpenCluster { time: Some(time), ..open });
            return Step::Found(Found::Time(time));
        }
        let block = if id == id::SIMPLE_BLOCK { block::simple(payload) } else { block::group(payload) };
        let (Some(block), Some(time)) = (block, open.time) else { return self.lost() };
        let (at, time) = (self.position(), i128::from(time) + i128::from(block.offset));
        self.used = range.end;
        Step::Found(Found::Block { block, time, at: at..self.position(), payload: range })
    }
}
