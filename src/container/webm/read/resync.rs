//! Damage: what is taken for it, and where reading goes on behind it.

use super::{Found, Reader, State, Step};
use crate::container::webm::ebml::{Header, id, read_header};

impl Reader {
    pub(super) fn lost(&mut self) -> Step {
        self.state = State::Lost { from: self.position() };
        Step::Again
    }

    /// Goes on to the next bytes that begin like a cluster.
    pub(super) fn look_for_cluster(&mut self, from: u64) -> Step {
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
                return Step::NeedsMore;
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
    let Header::Valid { len, .. } = complete(read_header(bytes))? else { return Some(false) };
    let Header::Valid { id, size: Some(size), .. } = complete(read_header(&bytes[len..]))? else {
        return Some(false);
    };
    Some(match id {
        id::TIMESTAMP | id::POSITION | id::PREV_SIZE => (1..=8).contains(&size),
        id::CRC_32 => size == 4,
        _ => false,
    })
}

fn complete(header: Header) -> Option<Header> {
    (header != Header::Incomplete).then_some(header)
}

/// Elements that can't be in a cluster: one of them ends a cluster of unknown size.
pub(super) fn is_top_level(id: u64) -> bool {
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
/// of small unknown elements.
pub fn is_expected(id: u64) -> bool {
    const SILENT_TRACKS: u64 = 0x5854;
    is_known(id) || matches!(id, id::POSITION | id::PREV_SIZE | SILENT_TRACKS)
}

/// Elements whose size is believed however large it is.
pub(super) fn is_known(id: u64) -> bool {
    is_top_level(id) || matches!(id, id::VOID | id::CRC_32 | id::EBML)
}
