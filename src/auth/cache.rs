//! Recent answers of the service behind `auth.url`. Keyed by hashes, so that no credential stays in
//! memory for longer than its request.

use crate::auth::grant::Grant;
use crate::auth::{AccessRequest, AuthError};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OnceCell;

/// Answers that are kept: some megabytes. Of more, the oldest is dropped, and asked for again.
const ANSWERS: usize = 4096;

type Key = [u8; 32];

/// One answer, or where it will be: callers that ask the same meanwhile wait for it.
pub(super) type Slot = Arc<OnceCell<Answer>>;

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub found: Result<Grant, AuthError>,
    /// It grants more than was asked for.
    pub wide: bool,
    pub until: Instant,
}

/// Under which an answer is kept.
pub(super) struct Keys {
    /// The credential alone.
    holder: Key,
    /// All of the question but the address: a client that moves from one network to another is asked about once.
    question: Key,
}

/// The hashes for a question.
pub(super) fn keys(credential: &str, asked: AccessRequest<'_>) -> Keys {
    let holder: Key = Sha256::digest(credential).into();
    let hash = Sha256::new().chain_update(holder).chain_update([asked.permission as u8]);
    // A name is never empty, so nothing is no name.
    let stream = asked.stream.map_or("", |name| name.as_str());
    Keys { holder, question: hash.chain_update(stream).finalize().into() }
}

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Cache {
    slots: HashMap<Key, (u64, Slot)>,
    /// In the order they were put in; entries that were replaced meanwhile have another number there.
    order: VecDeque<(u64, Key)>,
    next: u64,
}

impl Cache {
    /// The grant that covers this question, or the slot for its answer.
    pub fn find(&mut self, keys: &Keys, asked: AccessRequest<'_>, now: Instant) -> Result<Grant, Slot> {
        let answer = |key| self.slots.get(key).and_then(|(_, slot)| slot.get()).filter(|a| a.until > now);
        if let Some(Ok(grant)) = answer(&keys.holder).map(|answer| &answer.found)
            && grant.allows(asked.permission, asked.stream)
        {
            return Ok(grant.clone());
        }
        if let Some((_, slot)) = self.slots.get(&keys.question)
            && slot.get().is_none_or(|answer| answer.until > now)
        {
            return Err(slot.clone());
        }
        let slot = Slot::default();
        self.put(keys.question, slot.clone());
        Err(slot)
    }

    /// Keeps an answer for all that its grant covers.
    pub fn widen(&mut self, keys: &Keys, answer: Answer) {
        self.put(keys.holder, Arc::new(OnceCell::new_with(Some(answer))));
    }

    fn put(&mut self, key: Key, slot: Slot) {
        self.next += 1;
        self.slots.insert(key, (self.next, slot));
        self.order.push_back((self.next, key));
        while self.slots.len() > ANSWERS || self.order.len() > 2 * ANSWERS {
            let Some((number, key)) = self.order.pop_front() else { break };
            if self.slots.get(&key).is_some_and(|(current, _)| *current == number) {
                self.slots.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Permission;
    use std::net::Ipv4Addr;

    #[test]
    fn questions_differ_by_all_but_the_address_and_the_oldest_answer_is_dropped() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let asked = |permission, stream, last| AccessRequest {
            credential: None,
            permission,
            stream,
            from: Ipv4Addr::new(192, 0, 2, last).into(),
        };
        let view = Permission::View;
        let questions = [
            keys("x", asked(view, None, 1)),
            keys("x", asked(view, Some(&a), 1)),
            keys("x", asked(view, Some(&b), 1)),
            keys("x", asked(Permission::Publish, Some(&a), 1)),
            keys("xa", asked(view, None, 1)),
        ];
        for (at, one) in questions.iter().enumerate() {
            assert!(questions[..at].iter().all(|other| other.question != one.question), "{at}");
        }
        assert_eq!(questions[0].question, keys("x", asked(view, None, 2)).question);

        let now = Instant::now();
        let mut cache = Cache::default();
        let mut slot = |n: usize| {
            let question = asked(view, None, 1);
            cache.find(&keys(&n.to_string(), question), question, now).unwrap_err()
        };
        let (first, second) = (slot(0), slot(1));
        assert!(Arc::ptr_eq(&first, &slot(0)), "the same question shares its answer");
        (2..=ANSWERS).for_each(|n| drop(slot(n)));
        assert!(Arc::ptr_eq(&second, &slot(1)));
        assert!(!Arc::ptr_eq(&first, &slot(0)), "the oldest is still there");
        assert!(cache.slots.len() <= ANSWERS && cache.order.len() <= 2 * ANSWERS);
    }
}
