//! An SDP's parts (RFC 8866): the session's lines, and each media section's, of which the first is `m=`.

/// An SDP's lines without their ends.
pub(in crate::webrtc) fn lines(sdp: &str) -> impl Iterator<Item = &str> {
    sdp.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty())
}

/// The session's lines and each section's.
pub(super) fn split(sdp: &str) -> (Vec<&str>, Vec<Vec<&str>>) {
    let (mut session, mut sections) = (Vec::new(), Vec::<Vec<&str>>::new());
    for line in lines(sdp) {
        match sections.last_mut() {
            _ if line.starts_with("m=") => sections.push(vec![line]),
            Some(section) => section.push(line),
            None => session.push(line),
        }
    }
    (session, sections)
}

/// What follows the first line's `key`.
pub(super) fn value<'a>(section: &[&'a str], key: &str) -> Option<&'a str> {
    section.iter().find_map(|line| line.strip_prefix(key))
}

/// The section's `a=mid` (RFC 5888), if it has one.
pub(super) fn mid<'a>(section: &[&'a str]) -> Option<&'a str> {
    value(section, "a=mid:").map(str::trim).filter(|mid| !mid.is_empty())
}

/// Whether the offerer itself has given the section up: port 0 without `a=bundle-only` (RFC 9143
/// section 6).
pub(super) fn is_disabled(section: &[&str]) -> bool {
    section[0].split_ascii_whitespace().nth(1) == Some("0") && !section.contains(&"a=bundle-only")
}

/// The section's direction, or the session's, lets the client send.
pub(super) fn sends(session: &[&str], section: &[&str]) -> bool {
    let direction = |lines: &[&str]| {
        lines.iter().find_map(|line| match *line {
            "a=sendrecv" | "a=sendonly" => Some(true),
            "a=recvonly" | "a=inactive" => Some(false),
            _ => None,
        })
    };
    !is_disabled(section) && direction(section).or_else(|| direction(session)).unwrap_or(true)
}

/// The formats of the section's `m=` line.
pub(super) fn formats<'a>(section: &[&'a str]) -> impl Iterator<Item = &'a str> {
    section[0].split_ascii_whitespace().skip(3)
}

/// What an `a=rtpmap`, `a=fmtp` or `a=rtcp-fb` line (`key`) says of this payload type.
pub(super) fn of_format<'a>(line: &'a str, key: &str, payload_type: u8) -> Option<&'a str> {
    let (number, rest) = line.strip_prefix(key)?.split_once(' ')?;
    (number.parse() == Ok(payload_type)).then(|| rest.trim())
}
