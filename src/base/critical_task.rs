//! The parts without which the server is of no use: should one of them end by itself, which only a
//! fault of ours can bring about, it is better to end in order and be started again than to go on half alive.

use tokio::sync::watch;

/// Tells which part was the first to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CriticalTasks {
    ended: watch::Sender<Option<&'static str>>,
}

impl Default for CriticalTasks {
    fn default() -> Self {
        Self { ended: watch::Sender::new(None) }
    }
}

impl CriticalTasks {
    /// What a part holds as long as it lives.
    pub fn part(&self, name: &'static str) -> CriticalTask {
        CriticalTask { name, all: self.clone() }
    }

    /// Waits for a part to end; gives its name.
    pub async fn ended(&self) -> &'static str {
        let mut ended = self.ended.subscribe();
        // The sender is ours.
        match ended.wait_for(Option::is_some).await.map(|name| *name) {
            Ok(Some(name)) => name,
            _ => std::future::pending().await,
        }
    }
}

/// A part's sign of life: it goes with the part, panicking or not.
#[derive(Debug)]
pub struct CriticalTask {
    name: &'static str,
    all: CriticalTasks,
}

impl CriticalTask {
    /// What another part holds, without which this one is of no use.
    pub fn beside(&self, name: &'static str) -> Self {
        self.all.part(name)
    }
}

impl Drop for CriticalTask {
    fn drop(&mut self) {
        self.all.ended.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(self.name);
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_part_that_ends_is_named_even_if_it_panics() {
        let critical = CriticalTasks::default();
        let (first, second) = (critical.part("first"), critical.part("second"));
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), critical.ended()).await;
        assert!(early.is_err(), "both live: {early:?}");
        let panics = std::thread::spawn(move || {
            let _second = second;
            panic!("this test means it");
        });
        assert!(panics.join().is_err());
        drop(first);
        assert_eq!(critical.ended().await, "second");
    }
}
