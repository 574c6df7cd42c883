//! The header `Range` as RFC 9110 section 14 reads it, made plain for what serves the file.

use axum::http::{HeaderMap, HeaderValue, Method, header};

/// What a request asks of a file with some length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestedRange {
    /// All of it.
    Whole,
    /// From the first byte to the last, both counted in; the last is in the file.
    Part(u64, u64),
    /// Nothing that is there (416).
    Nothing,
}

/// Leaves a request for a file of `len` bytes with one range that is in the file, with one that can't be
/// satisfied, or with none. Only GET knows ranges (section 14.2). A unit that isn't bytes, and what is no range
/// at all, are ignored, and so are several at once: the whole file is an answer to them, too.
pub(in crate::http) fn normalise(method: &Method, headers: &mut HeaderMap, len: u64) {
    let mut lines = headers.get_all(header::RANGE).iter();
    let line = lines.next().filter(|_| *method == Method::GET && lines.next().is_none());
    let asked =
        line.and_then(|line| line.to_str().ok()).map_or(RequestedRange::Whole, |line| asked(line, len));
    let plain = match asked {
        RequestedRange::Whole => None,
        RequestedRange::Part(first, last) => Some(format!("bytes={first}-{last}")),
        RequestedRange::Nothing => Some(format!("bytes={len}-")),
    };
    headers.remove(header::RANGE);
    if let Some(value) = plain.and_then(|plain| HeaderValue::try_from(plain).ok()) {
        headers.insert(header::RANGE, value);
    }
}

fn asked(line: &str, len: u64) -> RequestedRange {
    let Some((unit, set)) = line.split_once('=') else { return RequestedRange::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return RequestedRange::Whole;
    }
    // A list may have empty elements (section 5.6.1).
    let mut ranges = set.split(',').map(|one| one.trim_matches([' ', '\t'])).filter(|one| !one.is_empty());
    match (ranges.next(), ranges.next()) {
        (Some(one), None) => range(one, len),
        _ => RequestedRange::Whole,
    }
}

/// `first-last`, `first-` or `-length` (section 14.1.2).
fn range(one: &str, len: u64) -> RequestedRange {
    let Some((first, last)) = one.split_once('-') else { return RequestedRange::Whole };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => RequestedRange::Whole,
        (Some(first), _) if first >= len && (last.is_empty() || number(last).is_some()) => {
            RequestedRange::Nothing
        }
        (Some(first), Some(last)) => RequestedRange::Part(first, last.min(len - 1)),
        (Some(first), None) if last.is_empty() => RequestedRange::Part(first, len - 1),
        (None, Some(0)) if first.is_empty() => RequestedRange::Nothing,
        (None, Some(_)) if first.is_empty() && len == 0 => RequestedRange::Nothing,
        (None, Some(length)) if first.is_empty() => RequestedRange::Part(len.saturating_sub(length), len - 1),
        _ => RequestedRange::Whole,
    }
}

/// Digits alone; a number that no file reaches is the largest there is.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let table = [
            ("bytes=0-9", RequestedRange::Part(0, 9)),
            ("bytes=90-", RequestedRange::Part(90, 99)),
            ("bytes=-10", RequestedRange::Part(90, 99)),
            ("bytes=-1000", RequestedRange::Part(0, 99)),
            ("bytes=50-1000", RequestedRange::Part(50, 99)),
            ("bytes=0-99999999999999999999999", RequestedRange::Part(0, 99)),
            ("Bytes=0-9", RequestedRange::Part(0, 9)),
            ("BYTES=0-9,", RequestedRange::Part(0, 9)),
            ("bytes=, 0-9 ,\t,", RequestedRange::Part(0, 9)),
            ("bytes=100-", RequestedRange::Nothing),
            ("bytes=100-200", RequestedRange::Nothing),
            ("bytes=99999999999999999999999-", RequestedRange::Nothing),
            ("bytes=-0", RequestedRange::Nothing),
            ("bytes=0-9,20-29", RequestedRange::Whole),
            ("bytes=9-0", RequestedRange::Whole),
            ("bytes=", RequestedRange::Whole),
            ("bytes=,", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes=a-b", RequestedRange::Whole),
            ("bytes=100-x", RequestedRange::Whole),
            ("bytes=+1-2", RequestedRange::Whole),
            ("bytes", RequestedRange::Whole),
            ("items=0-5", RequestedRange::Whole),
            ("", RequestedRange::Whole),
        ];
        for (line, expected) in table {
            assert_eq!(asked(line, 100), expected, "{line:?}");
        }
        for line in ["bytes=0-", "bytes=0-0", "bytes=-5"] {
            assert_eq!(asked(line, 0), RequestedRange::Nothing, "{line:?} of an empty file");
        }
    }

    #[test]
    fn only_get_asks_for_a_range_and_only_once() {
        let left = |method: Method, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::RANGE, HeaderValue::from_static(line));
            }
            normalise(&method, &mut headers, 100);
            headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(left(Method::GET, &["bytes=-200"]).as_deref(), Some("bytes=0-99"));
        assert_eq!(left(Method::GET, &["bytes=100-"]).as_deref(), Some("bytes=100-"));
        assert_eq!(left(Method::HEAD, &["bytes=0-9"]), None);
        assert_eq!(left(Method::GET, &["bytes=0-9", "bytes=20-29"]), None);
    }
}
