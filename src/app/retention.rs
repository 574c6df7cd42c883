//! `onrecord retention`: what the rules remove, now or only in words.

use crate::app::{Error, lock};
use crate::base::tasks::Tasks;
use crate::config::Config;
use crate::record::{Recordings, Removal, doubt, would_remove};
use std::io::{self, Write};

/// Removes what is due by the rules of `retention`, or only says what that would be.
pub async fn retention(config: &Config, dry_run: bool) -> Result<bool, Error> {
    let dir = &config.record.dir;
    let named = |error: io::Error| Error::Records(dir.clone(), error.into());
    let doubt = doubt(dir).map_err(named)?;
    let rules = if doubt.is_some() { config.retention.by_size_alone() } else { config.retention.clone() };
    let (removals, what) = if dry_run {
        (would_remove(dir, &rules).map_err(named)?, "would go")
    } else {
        let _lock = lock(dir).await?;
        // No event comes: nothing is sealed here.
        let (recordings, _events) =
            Recordings::open(config.record.clone(), config.hook_script.is_some(), Tasks::new())
                .map_err(|error| Error::Records(dir.clone(), error))?;
        (recordings.remove_due(&rules).await, "removed")
    };
    if let Some(doubt) = doubt.filter(|_| rules != config.retention) {
        let _ = writeln!(io::stderr(), "{doubt}");
    }
    // A closed standard output changes nothing about the exit code.
    let mut out = io::stdout();
    for Removal { manifest, why } in &removals {
        let _ = writeln!(out, "{}  {:>10}  {}: {why}", manifest.id, manifest.bytes, manifest.file);
    }
    let bytes: u64 = removals.iter().map(|removal| removal.manifest.bytes).sum();
    let no_rule = if config.retention.removes() { "" } else { "; [retention] has no rule" };
    let _ = writeln!(out, "{what}: {} recordings, {} MiB{no_rule}", removals.len(), bytes >> 20);
    Ok(true)
}
