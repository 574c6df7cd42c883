//! Rewriting SDP as clients and WHIP do.

/// Every candidate's address replaced by a `.local` name nobody resolves: what browsers offer while no
/// camera is granted.
pub fn with_local_names(offer: &str) -> String {
    let line = |line: &str| {
        let mut words: Vec<_> = line.split(' ').collect();
        if line.starts_with("a=candidate:") {
            words[4] = "0b1c6f6e-8b3c-4c7e-9d53-2a1f4d6e7a90.local"; // RFC 8839 section 5.1
        }
        words.join(" ") + "\r\n"
    };
    offer.lines().map(line).collect()
}

/// The credentials and candidates of a description as `application/trickle-ice-sdpfrag` (RFC 8840).
pub fn fragment(description: &str) -> String {
    let first = |prefix: &str| description.lines().find(|line| line.starts_with(prefix)).unwrap_or_default();
    let candidates = description.lines().filter(|line| line.starts_with("a=candidate:"));
    let head = [first("a=ice-ufrag:"), first("a=ice-pwd:"), first("m="), first("a=mid:")];
    head.into_iter().chain(candidates.take(1)).map(|line| format!("{line}\r\n")).collect()
}

/// An answer with the credentials and candidates of a fragment: what WHIP's ICE restart amounts to.
pub fn restarted(answer: &str, fragment: &str) -> String {
    let new = |prefix: &'static str| fragment.lines().filter(move |line| line.starts_with(prefix));
    let mut restarted = String::new();
    for line in answer.lines().filter(|line| !line.starts_with("a=candidate:")) {
        let replaced = ["a=ice-ufrag:", "a=ice-pwd:"].iter().find(|prefix| line.starts_with(**prefix));
        let line = replaced.and_then(|prefix| new(prefix).next()).unwrap_or(line);
        restarted += &format!("{line}\r\n");
        if line.starts_with("a=ice-pwd:") {
            restarted.extend(new("a=candidate:").map(|candidate| format!("{candidate}\r\n")));
        }
    }
    restarted
}
