//! What a section of an offer says of its encodings (simulcast, RFC 8853) and of the identifiers that its
//! packets carry, and what the answer says to that.
//!
//! The offer doesn't say which encoding is the largest, unless by `max-width`, or by the usual names. Else all of them
//! are accepted, and [`crate::webrtc::sources`] finds out.

use rtc::sdp::extmap::TRANSPORT_CC_URI;
use std::fmt::Write as _;

/// Encodings of one section that are accepted; browsers offer three.
const MAX_RIDS: usize = 8;
/// Pairs of a source and its retransmissions that are looked at: as many as there may be encodings, twice.
const MAX_PAIRS: usize = 16;

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";

/// What pages call a full, a half and a quarter size, as the examples of the WebRTC specification do. A browser
/// that is offered all three of a small camera sends the first two only, of q, h, f without the largest;
/// asked for that one alone, it sends it.
const FULL: &str = "f";
const SMALLER: [&str; 2] = ["h", "q"];

/// How the packets of one section are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketIdentifiers {
    /// Sources with those of their retransmissions (`a=ssrc-group:FID`, RFC 5576 section 4.2).
    pub rtx_pairs: Vec<(u32, u32)>,
    /// Encodings that the answer accepts, in the offer's order; none where there is no simulcast.
    pub rids: Vec<String>,
    /// Id of the header extension (RFC 8285) that names a packet's section (RFC 9143 section 15),
    pub mid_id: Option<u8>,
    /// of the one that names its encoding,
    pub rid_id: Option<u8>,
    /// of the one that names the encoding whose packets it sends again (RFC 8852),
    pub repaired_rid_id: Option<u8>,
    /// and of the one that counts packets transport-wide.
    pub congestion_id: Option<u8>,
}

impl PacketIdentifiers {
    /// Reads a section whose codec has these payload types.
    pub fn read(session: &[&str], section: &[&str], media: &[u8]) -> Self {
        let id = |uri| extension(section, uri).or_else(|| extension(session, uri));
        let (rid_id, repaired_rid_id) = (id(RID), id(REPAIRED));
        // Without that extension a packet can't tell which encoding it is of.
        let rids = if rid_id.is_some() { encodings(section, media) } else { Vec::new() };
        Self {
            rtx_pairs: rtx_pairs(section),
            rids,
            mid_id: id(MID),
            rid_id,
            repaired_rid_id,
            congestion_id: id(TRANSPORT_CC_URI),
        }
    }

    /// What the section's answer says of them.
    pub fn answer(&self) -> String {
        let mut out = String::new();
        let mut extensions = vec![(self.mid_id, MID), (self.congestion_id, TRANSPORT_CC_URI)];
        if !self.rids.is_empty() {
            extensions.extend([(self.rid_id, RID), (self.repaired_rid_id, REPAIRED)]);
        }
        for (id, uri) in extensions {
            if let Some(id) = id {
                let _ = write!(out, "a=extmap:{id} {uri}\r\n");
            }
        }
        if self.rids.is_empty() {
            return out;
        }
        for rid in &self.rids {
            let _ = write!(out, "a=rid:{rid} recv\r\n");
        }
        let _ = write!(out, "a=simulcast:recv {}\r\n", self.rids.join(";"));
        out
    }
}

/// The id of a header extension. 15 ends the one-byte form, and 0 is padding (RFC 8285 section 4.2).
pub(super) fn extension(lines: &[&str], uri: &str) -> Option<u8> {
    lines.iter().find_map(|line| {
        let (id, rest) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
        let id = id.split('/').next()?.parse().ok().filter(|id| *id != 0 && *id != 15)?;
        (rest.split(' ').next() == Some(uri)).then_some(id)
    })
}

fn rtx_pairs(section: &[&str]) -> Vec<(u32, u32)> {
    let pair = |line: &&str| {
        let mut sources = line.strip_prefix("a=ssrc-group:FID ")?.split(' ').map(str::parse);
        Some((sources.next()?.ok()?, sources.next()?.ok()?))
    };
    section.iter().filter_map(pair).take(MAX_PAIRS).collect()
}

/// One `a=rid` line of an encoding that is sent (RFC 8851 section 10).
struct Encoding<'a> {
    rid: &'a str,
    restrictions: &'a str,
}

impl<'a> Encoding<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.strip_prefix("a=rid:")?.splitn(3, ' ');
        let (rid, direction) = (fields.next()?, fields.next()?);
        let known = !rid.is_empty() && rid.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        (known && direction == "send").then(|| Self { rid, restrictions: fields.next().unwrap_or_default() })
    }

    fn restriction(&self, name: &str) -> Option<&'a str> {
        self.restrictions.split(';').find_map(|one| one.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether it may come under one of these payload types.
    fn allows_any(&self, media: &[u8]) -> bool {
        let is_one = |one: &str| one.parse().is_ok_and(|payload_type| media.contains(&payload_type));
        self.restriction("pt").is_none_or(|types| types.split(',').any(is_one))
    }

    /// Pixels at most, where the offer restricts both sides.
    fn max_pixels(&self) -> Option<u64> {
        let side = |name| self.restriction(name)?.parse::<u32>().ok().map(u64::from);
        Some(side("max-width")? * side("max-height").unwrap_or(1))
    }
}

/// The encodings to ask for: the largest alone, if the offer restricts the size of each or names them by it,
/// else all.
fn encodings(section: &[&str], media: &[u8]) -> Vec<String> {
    let Some(list) = section.iter().find_map(|line| line.strip_prefix("a=simulcast:")) else {
        return Vec::new();
    };
    let mut fields = list.split(' ').skip_while(|field| *field != "send");
    let streams = fields.nth(1).unwrap_or_default();
    // Of alternatives the preferred one; `~` says that it begins paused.
    let wanted: Vec<&str> = streams
        .split(';')
        .filter_map(|alternatives| alternatives.split(',').next())
        .map(|rid| rid.trim_start_matches('~'))
        .collect();
    let mut found: Vec<Encoding<'_>> = section
        .iter()
        .filter_map(|line| Encoding::read(line))
        .filter(|encoding| wanted.contains(&encoding.rid) && encoding.allows_any(media))
        .collect();
    found.truncate(MAX_RIDS);
    let sizes: Option<Vec<u64>> = found.iter().map(Encoding::max_pixels).collect();
    let largest = sizes.and_then(|sizes| (0..sizes.len()).max_by_key(|at| sizes[*at]));
    match largest.or_else(|| named_full(&found)) {
        Some(at) => vec![found[at].rid.to_owned()],
        None => found.iter().map(|encoding| encoding.rid.to_owned()).collect(),
    }
}

/// The full size, where all encodings are named by their sizes.
fn named_full(found: &[Encoding<'_>]) -> Option<usize> {
    let named = found.iter().all(|encoding| encoding.rid == FULL || SMALLER.contains(&encoding.rid));
    found.iter().position(|encoding| named && encoding.rid == FULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifiers(lines: &str) -> PacketIdentifiers {
        let section: Vec<&str> = lines.lines().collect();
        PacketIdentifiers::read(&["a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid"], &section, &[96, 120])
    }

    const EXTENSIONS: &str = "a=extmap:10/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\n\
        a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\n";

    #[test]
    fn all_encodings_are_accepted_where_nothing_says_which_is_the_largest() {
        let found = identifiers(&format!(
            "{EXTENSIONS}a=rid:1 send\na=rid:2 send pt=97,120\na=rid:3 send max-width=1280\na=simulcast:send 1;~2,x;3\n"
        ));
        assert_eq!((found.mid_id, found.rid_id, found.repaired_rid_id), (Some(4), Some(10), Some(11)));
        let answer = "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
            a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
            a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n\
            a=rid:1 recv\r\na=rid:2 recv\r\na=rid:3 recv\r\na=simulcast:recv 1;2;3\r\n";
        assert_eq!(found.answer(), answer);
    }

    #[test]
    fn the_largest_alone_is_asked_for_where_the_offer_says_which_it_is() {
        let found = identifiers(&format!(
            "{EXTENSIONS}a=rid:q send max-width=320;max-height=180\na=rid:f send max-width=1280;max-height=720\n\
             a=rid:h send max-width=640;max-height=360\na=simulcast:recv x send q;f;h\n"
        ));
        assert_eq!(found.rids, ["f"]);
    }

    #[test]
    fn the_full_size_alone_is_asked_for_where_encodings_are_named_by_their_sizes() {
        for (names, asked) in [("qhf", &["f"][..]), ("fhq", &["f"]), ("hq", &["h", "q"]), ("fx", &["f", "x"])]
        {
            let names: Vec<String> = names.chars().map(String::from).collect();
            let lines: String = names.iter().map(|rid| format!("a=rid:{rid} send\n")).collect();
            let found = identifiers(&format!("{EXTENSIONS}{lines}a=simulcast:send {}\n", names.join(";")));
            assert_eq!(found.rids, asked);
        }
    }

    #[test]
    fn what_no_packet_could_be_told_by_or_is_of_another_codec_is_not_accepted() {
        let plain = "a=rid:q send\na=simulcast:send q\n";
        let answer = identifiers(plain).answer();
        assert_eq!(answer, "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n", "no extension");
        assert_eq!(identifiers(EXTENSIONS).rids, Vec::<String>::new(), "no simulcast");
        let others =
            "a=rid:q recv\na=rid:h send pt=100\na=rid:f send\na=rid:<x> send\na=simulcast:send q;h;<x>;f\n";
        assert_eq!(identifiers(&format!("{EXTENSIONS}{others}")).rids, ["f"]);
    }

    #[test]
    fn a_source_is_found_beside_its_retransmissions() {
        let found = identifiers(
            "a=ssrc-group:SIM 1 2\na=ssrc-group:FID 1 3\na=ssrc-group:FID 2 4\na=ssrc-group:FID 9",
        );
        assert_eq!(found.rtx_pairs, [(1, 3), (2, 4)]);
    }
}
