//! Open files: every connection is one, every download another, and when they run out nothing can be recorded
//! either.

use crate::publish::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files that are open whatever happens: the media socket, the log, the runtime's own; and scripts, each
/// with three pipes.
const OWN: usize = 100;
/// Files of one stream that is recorded: the recording, its manifest while that is replaced, and what is
/// synced in the background.
const PER_STREAM: usize = 3;
/// A connection, and what is downloaded: as many requests as connections may be under way.
const PER_CONNECTION: usize = 2;
/// So few connections are let in whatever the system says: the operator has to be able to look.
const LEAST: usize = 32;

/// Asks the system for all the files it may give, and lets in fewer connections if that isn't enough.
pub(super) fn make_room(limits: Limits) -> Limits {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    fit(limits, files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX)))
}

fn fit(mut limits: Limits, files: usize) -> Limits {
    let fitting = files.saturating_sub(OWN + PER_STREAM * limits.max_streams) / PER_CONNECTION;
    let fitting = fitting.max(LEAST);
    if limits.max_connections > fitting {
        warn!(
            files,
            limits.max_streams,
            limits.max_connections,
            "the system gives too few open files for these limits: at most {fitting} connections are let in; \
             raise it (LimitNOFILE= of systemd, ulimit -n)"
        );
        limits.max_connections = fitting;
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_the_files_that_recordings_need() {
        let fitted = |files| fit(Limits::default(), files).max_connections;
        assert_eq!(fitted(20_000), 4096);
        assert_eq!(fitted(4096), (4096 - 100 - 1500) / 2);
        assert_eq!(fitted(1024), LEAST, "with few files and many streams");
        assert_eq!(fit(Limits { max_streams: 50, ..Limits::default() }, 1024).max_connections, 387);
    }
}
