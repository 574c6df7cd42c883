//! The server is killed right before each single step it takes on the disk.

use super::scene::{self, Actor};
use super::{MAY_LOSE, SETTINGS, aftermath, block_on, side_by_side};
use crate::support::server::{Environment, Server};
use crate::support::tracer::{Step, Trace, Tracer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Runs at the same time: most of their time is spent waiting.
const WIDTH: usize = 6;
/// Frames of both kinds that are recorded: five clusters, two syncs.
const FRAMES: usize = 100;
const HOOK_LASTS: Duration = Duration::from_millis(200);

/// A recording of an earlier day, which is removed in the end.
struct Earlier {
    records: TempDir,
    id: String,
    file: String,
}

impl Earlier {
    fn new() -> Self {
        let script = scene::hook(Duration::ZERO);
        let server = Server::start(&[&[script.setting().as_str()], &SETTINGS[..]].concat());
        let recording = block_on(async {
            let recording = Actor::new("earlier").await.record(&server.base, 40).await.unwrap();
            scene::hook_has_run(&server.base, &recording).await.unwrap()
        });
        let records = tempfile::tempdir().unwrap();
        copy_all(&server.records(), records.path());
        let text = |key: &str| recording[key].as_str().unwrap().to_owned();
        Self { records, id: text("id"), file: text("file") }
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// One run: what the server did, and what was found afterwards.
struct Run {
    trace: Trace,
    lost: Duration,
    /// The recording's state in the end; none if there is no recording.
    state: Option<String>,
    hooks: usize,
}

/// Records, stops, waits for the hook, removes the earlier recording.
async fn play(server: &Server, camera: &Actor, earlier: &str) -> reqwest::Result<()> {
    let recording = camera.record(&server.base, FRAMES).await?;
    scene::hook_has_run(&server.base, &recording).await?;
    scene::delete(&server.base, earlier).await
}

fn run(earlier: &Earlier, kill_before: Option<usize>) -> Result<Run, String> {
    let script = scene::hook(HOOK_LASTS);
    let hook = script.setting();
    let settings = [&[hook.as_str()], &SETTINGS[..]].concat();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    copy_all(earlier.records.path(), &folder.path().join("records"));
    let server = Server::start_in(folder, Environment::new(), &settings);
    let tracer = Tracer::attach(server.pid(), &server.records(), kill_before);
    let (publisher, played) = block_on(async {
        let camera = Actor::new("camera").await;
        let over = async {
            while !tracer.is_over() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let played = tokio::select! {
            played = play(&server, &camera, &earlier.id) => played.is_ok(),
            () = over => false,
        };
        (camera.leave().await.1, played)
    });
    let trace = tracer.end();
    if !played && trace.killed_at.is_none() {
        return Err("the scene broke off without a kill".to_owned());
    }
    let end = trace.killed_at.unwrap_or_else(Instant::now);
    if let (Some(step), Some(_)) = (trace.steps.last(), trace.killed_at)
        && !step.is_undone()
    {
        return Err(format!("killed too late: {step:?} was made"));
    }

    let server = server.killed_and_started(&settings);
    let recordings = block_on(aftermath::settled(&server));
    let camera = aftermath::the_one_of("camera", &recordings)?;
    let lost = aftermath::lost(&publisher, end, camera, &server.records())?;
    if lost > MAY_LOSE {
        return Err(format!("{lost:?} lost: {camera:?}"));
    }
    let state = camera.map(|recording| recording["state"].as_str().unwrap().to_owned());
    let hooks = aftermath::hooks(&script, camera.as_slice())?;
    check_earlier(earlier, played, &recordings, &server.records())?;
    Ok(Run { trace, lost, state, hooks })
}

/// The earlier recording is there as it was, or it is gone; once its removal was confirmed, it is gone.
fn check_earlier(
    earlier: &Earlier,
    removed: bool,
    recordings: &[Value],
    records: &Path,
) -> Result<(), String> {
    let listed = aftermath::the_one_of("earlier", recordings)?.is_some();
    let there = std::fs::read(records.join(&earlier.file)).ok();
    let as_it_was = || std::fs::read(earlier.records.path().join(&earlier.file)).ok();
    match (listed, &there) {
        (true, Some(_)) if !removed && there == as_it_was() => Ok(()),
        (false, None) => Ok(()),
        _ => Err(format!(
            "the earlier recording: removed {removed}, listed {listed}, there {}",
            there.is_some()
        )),
    }
}

/// What a step is about, in a word or two.
fn place(step: &Step) -> &'static str {
    let Some(path) = &step.path else { return "hook" };
    let name = path.file_name().unwrap().to_string_lossy();
    let kinds =
        [(".json.tmp", "manifest's copy"), (".webm.part", "part"), (".webm", "file"), (".json", "manifest")];
    kinds.into_iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("folder", |(_, kind)| kind)
}

#[derive(Default)]
struct Row {
    steps: usize,
    kills: usize,
    unsealed: usize,
    lost: Duration,
    failures: Vec<String>,
}

#[test]
fn killed_before_any_step_on_the_disk_it_loses_a_flush_interval_at_most_and_every_hook_runs() {
    let began = Instant::now();
    let earlier = Earlier::new();
    let counted = run(&earlier, None).unwrap_or_else(|error| panic!("without a kill: {error}"));
    let mut rows = BTreeMap::<(&str, &str), Row>::new();
    for step in &counted.trace.steps {
        rows.entry((step.call, place(step))).or_default().steps += 1;
    }
    // A run may have a flush or a sync more than the one that was counted.
    let all = (1..=counted.trace.steps.len() + 2).collect();
    let (mut hooks, mut complete) = (0, 0);
    for (number, result) in
        side_by_side(WIDTH, all, |number| run(&earlier, Some(number))).into_iter().enumerate()
    {
        match result {
            Ok(run) if run.trace.killed_at.is_none() => complete += 1,
            Ok(run) => {
                let step = run.trace.steps.last().unwrap();
                let row = rows.entry((step.call, place(step))).or_default();
                row.kills += 1;
                row.unsealed += usize::from(run.state.as_deref() != Some("sealed"));
                row.lost = row.lost.max(run.lost);
                hooks += run.hooks;
            }
            Err(error) => {
                let step = &counted.trace.steps[number.min(counted.trace.steps.len() - 1)];
                let row = rows.entry((step.call, place(step))).or_default();
                row.failures.push(format!("before step {}: {error}", number + 1));
            }
        }
    }
    print_table(&rows);
    println!("{complete} runs came to their end unharmed; {hooks} hooks ran; all in {:?}", began.elapsed());
    let failures: Vec<_> = rows.values().flat_map(|row| &row.failures).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    for (step, row) in rows {
        assert!(row.kills > 0, "never killed before {step:?}");
    }
}

fn print_table(rows: &BTreeMap<(&str, &str), Row>) {
    println!(
        "{:<10}{:<17}{:>6}{:>7}{:>12}{:>12}{:>8}",
        "before a", "of", "steps", "kills", "without file", "lost most", "failed"
    );
    for ((call, place), row) in rows {
        let Row { steps, kills, unsealed, lost, failures } = row;
        let lost = format!("{} ms", lost.as_millis());
        println!("{call:<10}{place:<17}{steps:>6}{kills:>7}{unsealed:>12}{lost:>12}{:>8}", failures.len());
    }
}
