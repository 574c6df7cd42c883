//! Queue and worker with real scripts.

use super::jobs::{Job, Jobs};
use super::notes::Update;
use super::queue::Queue;
use super::worker::Worker;
use super::*;
use crate::base::id::RecordingId;
use crate::base::tasks::Tasks;
use crate::catalog::{HookAttempt, HookRunning, HookState};
use jiff::Timestamp;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Far above what any of these tests takes, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn job(stream: &str) -> Job {
    let at: Timestamp = "2026-11-21T10:15:00.120Z".parse().unwrap();
    Job {
        id: RecordingId::new(at),
        stream: stream.parse().unwrap(),
        file: "/srv/records/a file.webm".into(),
        bytes: 11_824_013,
        duration_ms: 62_360,
        mime: "video/webm".to_owned(),
        size: Some((1280, 720)),
        started_at: at,
        ended_at: "2026-11-21T10:16:02.480Z".parse().unwrap(),
        end_reason: "stopped".to_owned(),
        attempts_so_far: 0,
        failures: 0,
        interruptions: 0,
        unfinished: None,
        replayed: false,
        manifest: "/srv/records/a file.json".into(),
    }
}

struct Bench {
    folder: tempfile::TempDir,
    tasks: Tasks,
    queue: Arc<Queue>,
    worker: Worker,
    updates: mpsc::UnboundedReceiver<Update>,
    began: Instant,
}

impl Bench {
    /// A queue with short pauses that runs `script`, a shell script whose `$D` is a folder of its own.
    fn new(script: &str, change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hook");
        write_script(&path, &format!("#!/bin/sh\nD='{}'\n{script}\n", folder.path().display()));
        Self::with(folder, path, change)
    }

    fn with(folder: tempfile::TempDir, script: PathBuf, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            backoff: Duration::from_millis(20),
            kill_after: Duration::from_millis(300),
            ..Config::default()
        };
        change(&mut config);
        let tasks = Tasks::new();
        let queue = Arc::new(Queue::new(config.concurrency, config.max_attempts));
        let (updates, mut sent) = mpsc::channel(64);
        let worker = Worker::start(&config, Script::new(script), queue.clone(), updates, &tasks);
        // As if each was written at once.
        let (keep, kept) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(mut update) = sent.recv().await {
                let _ = std::mem::replace(&mut update.written, oneshot::channel().0).send(());
                let _ = keep.send(update);
            }
        });
        Self { folder, tasks, queue, worker, updates: kept, began: Instant::now() }
    }

    async fn next(&mut self) -> Update {
        let update = tokio::time::timeout(DEADLINE, self.updates.recv()).await;
        update.expect("no update came in time").expect("the queue ended")
    }

    /// Waits for an update of which `wanted` is true and returns it.
    async fn until(&mut self, wanted: impl Fn(&Update) -> bool) -> Update {
        loop {
            let update = self.next().await;
            if wanted(&update) {
                return update;
            }
        }
    }

    /// Runs one job to its end.
    async fn run(&mut self, job: Job) -> (HookState, Vec<HookAttempt>) {
        self.queue.push(job).await;
        self.over().await
    }

    /// The attempts of the one job in the queue, until it is done or failed.
    async fn over(&mut self) -> (HookState, Vec<HookAttempt>) {
        let mut attempts = Vec::new();
        loop {
            let step = self.next().await.step;
            attempts.extend(step.attempt);
            if !step.state.is_due() {
                return (step.state, attempts);
            }
        }
    }

    /// Waits until the script has made this file, and returns what is in it.
    async fn file(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        eventually(&format!("the script makes {name}"), || fs::read_to_string(&path).ok()).await
    }
}

/// For what announces itself by no event: another process's files, and its death.
async fn eventually<T>(what: &str, probe: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Another process writes the script: were it written here, a test that starts a process at that
/// moment would lend its child our open file, and running the script would fail with ETXTBSY.
pub(super) fn write_script(path: &Path, text: &str) {
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut writer.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Whether a process runs; a zombie, which was not waited for, does not.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_script_gets_the_name_and_the_path_as_one_argument_each_and_the_contracts_environment() {
    for name in ["interview 7", "it's \"quoted\"", "собеседование", "$HOME `id` $(id)", "a;b|c&d>e*?"]
    {
        let mut bench = Bench::new(
            "STREAM_NAME=$1; FILE_PATH=$2\nprintf '%s\\n' \"$#\" \"$STREAM_NAME\" \"$FILE_PATH\"; env | sort | grep ^ONRECORD_; cat",
            |_| {},
        );
        let job = job(name);
        let id = job.id.clone();
        let (state, attempts) = bench.run(job).await;
        assert_eq!(state, HookState::Done, "{attempts:?}");
        assert_eq!(
            attempts[0].tail,
            format!(
                "2\n{name}\n/srv/records/a file.webm\nONRECORD_ATTEMPT=1\nONRECORD_BYTES=11824013\n\
                 ONRECORD_DURATION_MS=62360\nONRECORD_ENDED_AT=2026-11-21T10:16:02.480Z\n\
                 ONRECORD_END_REASON=stopped\nONRECORD_FILE=/srv/records/a file.webm\nONRECORD_HEIGHT=720\nONRECORD_ID={id}\n\
                 ONRECORD_MANIFEST=/srv/records/a file.json\nONRECORD_MIME=video/webm\n\
                 ONRECORD_STARTED_AT=2026-11-21T10:15:00.120Z\nONRECORD_STREAM={name}\nONRECORD_WIDTH=1280\n"
            )
        );
    }
}

#[tokio::test]
async fn output_and_errors_keep_their_order() {
    let mut bench = Bench::new("echo one; echo two >&2; echo three; exit 7", |c| c.max_attempts = 1);
    let (state, attempts) = bench.run(job("a")).await;
    assert_eq!((state, attempts[0].exit, attempts[0].error.as_deref()), (HookState::Failed, Some(7), None));
    assert_eq!(attempts[0].tail, "one\ntwo\nthree\n");
}

#[tokio::test]
async fn a_script_that_fails_twice_runs_a_third_time_with_the_same_id() {
    let script = "echo \"$ONRECORD_ID $ONRECORD_ATTEMPT\" >> $D/log; [ $ONRECORD_ATTEMPT = 3 ]";
    let mut bench = Bench::new(script, |_| {});
    let job = job("a");
    let id = job.id.clone();
    let (state, attempts) = bench.run(job).await;
    assert_eq!(state, HookState::Done, "{attempts:?}");
    assert_eq!(
        attempts.iter().map(|a| (a.n, a.exit)).collect::<Vec<_>>(),
        [(1, Some(1)), (2, Some(1)), (3, Some(0))]
    );
    assert_eq!(bench.file("log").await, format!("{id} 1\n{id} 2\n{id} 3\n"));
}

#[tokio::test]
async fn attempts_end_in_failed_go_on_after_a_restart_and_begin_anew_with_a_replay() {
    let mut bench = Bench::new("exit 1", |c| c.max_attempts = 3);
    let numbers = |(state, attempts): (HookState, Vec<HookAttempt>)| {
        assert_eq!(state, HookState::Failed);
        attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>()
    };
    assert_eq!(numbers(bench.run(job("fresh")).await), [1, 2, 3]);
    let failed = |n, stream| Job { attempts_so_far: n, failures: n, ..job(stream) };
    assert_eq!(numbers(bench.run(failed(2, "restarted")).await), [3]);
    assert_eq!(numbers(bench.run(failed(3, "not noted as failed")).await), [4]);
    let anew = Job { attempts_so_far: 4, failures: 1, ..job("replayed before the restart") };
    assert_eq!(numbers(bench.run(anew).await), [5, 6]);
    bench.queue.push(Job { replayed: true, ..failed(3, "replayed") }).await;
    assert_eq!(numbers(bench.over().await), [4, 5, 6]);
}

#[tokio::test]
async fn a_hook_that_takes_the_server_along_is_given_up_when_its_attempts_are_used_up() {
    let mut bench = Bench::new("echo ran >> $D/log", |c| c.max_attempts = 3);
    let died = |n: u32| {
        let unfinished = Some(HookRunning::new(n, Timestamp::now()));
        Job { attempts_so_far: n - 1, failures: n - 1, unfinished, ..job("a") }
    };
    let (state, attempts) = bench.run(died(3)).await;
    assert_eq!((state, attempts.len(), attempts[0].n), (HookState::Failed, 1, 3));
    assert!(!attempts[0].interrupted && attempts[0].error.as_deref().unwrap().contains("run it again"));
    assert!(!bench.folder.path().join("log").exists(), "it was run all the same");
    let (state, attempts) = bench.run(died(2)).await;
    assert_eq!(state, HookState::Done);
    assert_eq!(attempts.iter().map(|a| (a.n, a.exit)).collect::<Vec<_>>(), [(2, None), (3, Some(0))]);
}

#[tokio::test]
async fn a_hook_that_is_always_cut_off_by_a_stop_comes_to_an_end_too() {
    for (stops, expected) in
        [(0, HookState::Queued), (2, HookState::Queued), (4, HookState::Queued), (5, HookState::Failed)]
    {
        let mut bench = Bench::new("sleep 1000", |c| c.max_attempts = 3);
        bench.queue.push(Job { attempts_so_far: stops, interruptions: stops, ..job("a") }).await;
        bench.until(|update| update.step.state == HookState::Running).await;
        bench.worker.drain(Duration::ZERO).await;
        let ended = bench.until(|update| update.step.attempt.is_some()).await;
        assert_eq!(ended.step.state, expected, "after {stops} stops");
        assert!(ended.step.attempt.unwrap().interrupted);
    }
}

#[tokio::test]
async fn a_job_that_is_withdrawn_is_not_tried_again() {
    let mut bench = Bench::new("echo \"$1\" >> $D/log; exit 1", |c| c.backoff = Duration::from_secs(3600));
    let gone = job("gone");
    bench.queue.push(gone.clone()).await;
    bench.until(|update| update.step.state == HookState::Queued).await;
    bench.queue.withdraw(&gone.id).await;
    bench.queue.retry_now(&gone.id).await;
    bench.queue.push(job("next")).await;
    bench.until(|update| update.step.state == HookState::Queued).await;
    bench.worker.drain(DEADLINE).await;
    assert_eq!(bench.file("log").await, "gone\nnext\n");
}

#[tokio::test]
async fn a_replay_hurries_a_job_that_waits_for_its_retry() {
    let mut bench = Bench::new("[ $ONRECORD_ATTEMPT = 2 ]", |c| c.backoff = Duration::from_secs(3600));
    let job = job("a");
    bench.queue.push(job.clone()).await;
    bench.until(|update| update.step.state == HookState::Queued).await;
    bench.queue.retry_now(&job.id).await;
    let (state, attempts) = bench.over().await;
    assert_eq!((state, attempts[0].n), (HookState::Done, 2));
}

#[tokio::test]
async fn a_script_that_hangs_is_ended_with_its_children_even_if_they_ignore_term() {
    let script = "trap '' TERM\n(trap '' TERM; echo $$ > $D/x; exec sleep 1000) & echo $! > $D/child.tmp\n\
                  mv $D/child.tmp $D/child; sleep 1000 & wait; wait; wait";
    let limits = |c: &mut Config| {
        c.timeout = Duration::from_secs(3);
        c.max_attempts = 1;
    };
    let mut bench = Bench::new(script, limits);
    let (state, attempts) = bench.run(job("a")).await;
    let child = bench.file("child").await;
    assert!(!runs(&child), "child {child} outlived its script");
    assert_eq!((state, attempts[0].exit), (HookState::Failed, None));
    assert!(attempts[0].error.as_deref().unwrap().contains("hooks.timeout"), "{attempts:?}");
    println!("ended after {} ms", attempts[0].ms);
    assert!((3000..15_000).contains(&attempts[0].ms), "{} ms", attempts[0].ms);
}

#[tokio::test]
async fn a_script_may_clean_up_when_it_is_told_to_end() {
    let script = "trap 'echo cleaned; exit 3' TERM; sleep 1000 & wait";
    let mut bench = Bench::new(script, |c| {
        c.timeout = Duration::from_secs(2);
        c.kill_after = Duration::from_secs(30);
        c.max_attempts = 1;
    });
    let (state, attempts) = bench.run(job("a")).await;
    assert_eq!(
        (state, attempts[0].exit, attempts[0].tail.as_str()),
        (HookState::Failed, Some(3), "cleaned\n")
    );
}

#[tokio::test]
async fn children_that_outlive_a_script_are_ended() {
    let script = "sleep 1000 & echo $! > $D/child; (trap '' TERM; sleep 1000) & echo ok";
    let mut bench = Bench::new(script, |_| {});
    let (state, attempts) = bench.run(job("a")).await;
    assert_eq!((state, attempts[0].tail.as_str()), (HookState::Done, "ok\n"));
    let child = bench.file("child").await;
    assert!(!runs(&child), "child {child} outlived its script");
}

#[tokio::test]
async fn a_daemon_that_keeps_the_output_open_does_not_hold_the_queue_up() {
    let script = "setsid sh -c 'echo $$ > $D/daemon; exec sleep 1000' & while [ ! -s $D/daemon ]; do sleep 0.01; done; echo ok";
    let mut bench = Bench::new(&format!("export D; {script}"), |_| {});
    let (state, attempts) = bench.run(job("a")).await;
    let daemon = bench.file("daemon").await;
    let left_alone = runs(&daemon);
    assert!(Command::new("kill").arg(daemon.trim()).status().unwrap().success());
    println!("done after {} ms", attempts[0].ms);
    assert_eq!((state, attempts[0].tail.as_str(), left_alone), (HookState::Done, "ok\n", true));
}

#[tokio::test]
async fn a_script_need_not_read_its_input_however_long_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("a.json");
    fs::write(&manifest, "x".repeat(1 << 20)).unwrap();
    let scripts = ["exit 0", "exec <&-; sleep 0.2", "head -c 10 > /dev/null", "[ $(wc -c) = 1048576 ]"];
    for script in scripts {
        let mut bench = Bench::new(script, |c| {
            c.max_attempts = 1;
            c.stdin = Stdin::Manifest;
        });
        let (state, attempts) = bench.run(Job { manifest: manifest.clone(), ..job("a") }).await;
        assert_eq!(state, HookState::Done, "{script}: {attempts:?}");
        assert!(attempts[0].ms < 30_000, "{script}: {} ms", attempts[0].ms);
    }
}

#[tokio::test]
async fn a_flood_of_output_is_read_to_its_end_and_leaves_a_tail() {
    let mut bench = Bench::new("yes 'a line of a flood' | head -c 100000000; echo; echo last", |_| {});
    let (state, attempts) = bench.run(job("a")).await;
    println!("100 MB in {} ms", attempts[0].ms);
    assert_eq!(state, HookState::Done, "{attempts:?}");
    assert_eq!(attempts[0].tail.len(), 4096);
    assert!(attempts[0].tail.ends_with("\nlast\n"), "{}", attempts[0].tail);
}

#[tokio::test]
async fn what_cannot_start_says_what_to_do_and_is_tried_again() {
    let cases: [(&str, &str, &str, &str); 6] = [
        ("missing", "", "", "does not exist"),
        ("a folder", "", "mkdir \"$1\"", "is not a file"),
        ("not executable", "#!/bin/sh\n", "chmod 644 \"$1\"", "chmod +x"),
        ("no shebang", "echo hi\n", "", "begin it with a line such as #!/bin/sh"),
        ("no interpreter", "#!/nowhere/sh\n", "", "wants /nowhere/sh"),
        ("windows", "#!/bin/sh\r\necho\r\n", "", "Windows line ends"),
    ];
    for (what, text, then, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hook");
        if !text.is_empty() {
            write_script(&path, text);
        }
        assert!(Command::new("sh").args(["-c", then, "sh"]).arg(&path).status().unwrap().success());
        let checked = Script::new(path.clone()).check().unwrap_err();
        let mut bench = Bench::with(folder, path, |c| c.max_attempts = 2);
        let (state, attempts) = bench.run(job("a")).await;
        assert_eq!((state, attempts.len()), (HookState::Failed, 2), "{what}: {attempts:?}");
        let error = attempts[0].error.as_deref().unwrap();
        assert!(error.contains(expected), "{what}: {error}");
        assert_eq!(error, checked, "{what}: check says another thing than the attempt");
    }
}

#[tokio::test]
async fn a_script_that_is_killed_says_by_what() {
    let mut bench = Bench::new("kill -9 $$", |c| c.max_attempts = 1);
    let (state, attempts) = bench.run(job("a")).await;
    assert_eq!((state, attempts[0].exit), (HookState::Failed, None));
    assert_eq!(attempts[0].error.as_deref(), Some("killed by signal 9"));
}

#[tokio::test]
async fn ten_streams_at_once_with_a_two_second_hook_are_done_within_ten_seconds() {
    let mut bench = Bench::new("sleep 2", |_| {});
    for stream in 0..10 {
        bench.queue.push(job(&format!("stream {stream}"))).await;
    }
    for _ in 0..10 {
        bench.until(|update| update.step.state == HookState::Done).await;
    }
    let took = bench.began.elapsed();
    println!("all done after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn one_streams_hooks_run_in_order_and_never_two_at_once() {
    let mut bench = Bench::new("mkdir $D/lock && sleep 0.05 && rmdir $D/lock", |_| {});
    let jobs: Vec<_> = (0..8).map(|_| job("a")).collect();
    for job in &jobs {
        bench.queue.push(job.clone()).await;
    }
    for job in &jobs {
        let update = bench.until(|update| update.step.state != HookState::Running).await;
        assert_eq!((update.step.state, &update.id), (HookState::Done, &job.id), "{update:?}");
    }
}

#[tokio::test]
async fn a_slow_hook_holds_up_no_other_stream_and_a_failing_one_not_even_its_own() {
    let script = "case $1 in slow) sleep 1000;; failing) [ -e $D/mended ];; esac";
    let mut bench = Bench::new(script, |c| {
        c.concurrency = 2;
        c.backoff = Duration::from_secs(3600);
    });
    let failing = job("failing");
    bench.queue.push(job("slow")).await;
    bench.queue.push(failing.clone()).await;
    let failed = bench.until(|update| update.step.attempt.is_some()).await;
    assert_eq!((failed.step.state, &failed.id), (HookState::Queued, &failing.id));
    fs::write(bench.folder.path().join("mended"), "").unwrap();
    for stream in ["failing", "b", "c"] {
        let job = job(stream);
        bench.queue.push(job.clone()).await;
        let done = bench.until(|update| update.step.attempt.is_some()).await;
        assert_eq!((done.step.state, done.id), (HookState::Done, job.id), "{stream}");
    }
    bench.worker.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_drain_lets_queued_first_attempts_finish_and_leaves_retries_to_the_manifests() {
    let mut bench = Bench::new("[ $1 = good ] && sleep 0.2", |c| c.backoff = Duration::from_secs(3600));
    bench.queue.push(job("bad")).await;
    bench.until(|update| update.step.state == HookState::Queued).await;
    for _ in 0..3 {
        bench.queue.push(job("good")).await;
    }
    bench.worker.drain(DEADLINE).await;
    let took = bench.began.elapsed();
    assert!(took < DEADLINE, "the drain waited for a retry: {took:?}");
    bench.queue.push(job("late")).await;
    let mut states = HashMap::new();
    while let Some(update) = bench.updates.recv().await {
        states.insert(update.id, update.step.state);
    }
    assert_eq!(states.into_values().collect::<Vec<_>>(), [HookState::Done; 3]);
    assert!(bench.tasks.drain(DEADLINE).await, "a task outlived the drain");
}

#[tokio::test]
async fn a_drain_ends_what_exceeds_its_grace_and_says_it_will_run_again() {
    let mut bench = Bench::new("sleep 1000 & echo $! > $D/child; mv $D/child $D/pid; wait", |_| {});
    bench.queue.push(job("a")).await;
    bench.queue.push(job("a")).await;
    let child = bench.file("pid").await;
    let running = bench.next().await;
    let noted = running.step.running.unwrap();
    assert_eq!(noted.process_group, None, "the manifest speaks of it before it is there");
    let noted = bench.next().await.step.running.unwrap();
    assert!(noted.process_group.unwrap() > 1 && noted.process_born.unwrap().contains('@'));
    bench.worker.drain(Duration::from_millis(50)).await;
    let took = bench.began.elapsed();
    assert!(!runs(&child), "child {child} outlived the drain");
    let ended = bench.next().await;
    assert_eq!(ended.step.state, HookState::Queued);
    assert!(ended.step.attempt.unwrap().error.unwrap().contains("server stops"));
    assert!(bench.updates.recv().await.is_none(), "the second job started after the grace");
    println!("drained after {took:?}");
}

#[tokio::test]
async fn stopping_the_tasks_ends_the_scripts() {
    let mut bench = Bench::new("sleep 1000 & echo $! > $D/child; mv $D/child $D/pid; wait", |_| {});
    bench.queue.push(job("a")).await;
    let child = bench.file("pid").await;
    assert!(bench.tasks.stop(DEADLINE).await, "the queue did not end");
    assert!(!runs(&child), "child {child} outlived the queue");
    assert_eq!(bench.until(|update| update.step.attempt.is_some()).await.step.state, HookState::Queued);
}

#[tokio::test]
async fn the_shipped_hook_prints_one_line() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/on_record_hook.sh");
    assert_eq!(Script::new(script.clone()).check(), Ok(()));
    let mut bench = Bench::with(tempfile::tempdir().unwrap(), script, |_| {});
    let (state, attempts) = bench.run(job("$a 'b'")).await;
    assert_eq!(state, HookState::Done, "{attempts:?}");
    let line = "recorded $a 'b' -> /srv/records/a file.webm (11824013 bytes, 62360 ms)\n";
    assert_eq!(attempts[0].tail, line);
}
