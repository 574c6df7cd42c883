//! Which streams are meant.

use crate::base::id::StreamName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Names of streams: `*` stands for any characters, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// A pattern that no name can match, or that is too long to be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a stream pattern has 1 to 128 bytes, no control characters and no / or \\; * stands for any characters"
)]
pub struct BadPattern;

impl Pattern {
    /// The pattern every name matches.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// The pattern of this name alone; `None` for a name with a `*` in it, which would match others.
    pub fn only(name: &StreamName) -> Option<Self> {
        (!name.as_str().contains('*')).then(|| Self(name.as_str().to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is one of them.
    pub fn matches(&self, name: &StreamName) -> bool {
        let name = name.as_str();
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        // The earliest match of each piece leaves the most text for those behind it.
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = text.is_empty()
            || text.len() > 128
            || text.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
        if bad { Err(BadPattern) } else { Ok(Self(text.to_owned())) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Self, BadPattern> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let table = [
            ("*", "anything", true),
            ("interview-*", "interview-7", true),
            ("interview-*", "interview-", true),
            ("interview-*", "interview", false),
            ("*-cam", "door-cam", true),
            ("*-cam", "door-cam2", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("ab*bc", "abc", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("a*b*b", "ab", false),
            ("é*", "école", true),
        ];
        for (pattern, name, matches) in table {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(&name.parse().unwrap()), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn what_no_name_can_match_is_no_pattern() {
        for bad in ["", "a/*", "a\\b", "a\nb", &"x".repeat(129)] {
            assert_eq!(bad.parse::<Pattern>(), Err(BadPattern), "{bad:?}");
        }
        assert_eq!(Pattern::only(&"a".parse().unwrap()).unwrap().as_str(), "a");
        assert_eq!(Pattern::only(&"a*".parse().unwrap()), None, "it would match more than that name");
    }

    /// What a star means, said as plainly as can be.
    fn matches_by_definition(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|at| matches_by_definition(rest, &name[at..])),
            Some((c, rest)) => name.first() == Some(c) && matches_by_definition(rest, &name[1..]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_pattern_matches_what_its_definition_says(pattern in "[aбc*]{1,9}", name in "[aбc]{1,12}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = matches_by_definition(&chars(&pattern), &chars(&name));
            let matched = pattern.parse::<Pattern>().unwrap().matches(&name.parse().unwrap());
            prop_assert_eq!(matched, expected, "{} {}", pattern, name);
        }
    }
}
