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

/// What a step does, and to what.
type Kind = (&'static str, &'static str);

fn kind(step: &Step) -> Kind {
    let Some(path) = &step.path else { return (step.call, "hook") };
    let name = path.file_name().unwrap().to_string_lossy();
    let kinds =
        [(".json.tmp", "manifest's copy"), (".webm.part", "part"), (".webm", "file"), (".json", "manifest")];
    let place = kinds.into_iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("folder", |(_, it)| it);
    (step.call, place)
}

/// The step to be killed before: the one of this number among its kind, counted from 1. Threads take
/// turns as they like, so a number among all steps would be another step in each run.
#[derive(Clone, Copy)]
struct Target {
    kind: Kind,
    number: usize,
}

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

fn run(earlier: &Earlier, kill_before: Option<Target>) -> Result<Run, String> {
    let script = scene::hook(HOOK_LASTS);
    let hook = script.setting();
    let settings = [&[hook.as_str()], &SETTINGS[..]].concat();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    copy_all(earlier.records.path(), &folder.path().join("records"));
    let server = Server::start_in(folder, Environment::new(), &settings);
    let mut met = 0;
    let tracer = Tracer::attach(server.pid(), &server.records(), move |step| {
        kill_before.is_some_and(|Target { kind: aim, number }| {
            met += usize::from(kind(step) == aim);
            met == number
        })
    });
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
    let mut rows = BTreeMap::<Kind, Row>::new();
    for step in &counted.trace.steps {
        rows.entry(kind(step)).or_default().steps += 1;
    }
    // A run may have a flush or a sync more than the one that was counted.
    let targets: Vec<_> = rows
        .iter()
        .flat_map(|(kind, row)| (1..=row.steps + 1).map(|number| Target { kind: *kind, number }))
        .collect();
    let (mut hooks, mut complete) = (0, 0);
    let results = side_by_side(WIDTH, targets.clone(), |target| run(&earlier, Some(target)));
    for (Target { kind, number }, result) in targets.into_iter().zip(results) {
        let row = rows.entry(kind).or_default();
        match result {
            Ok(run) if run.trace.killed_at.is_none() => complete += 1,
            Ok(run) => {
                row.kills += 1;
                row.unsealed += usize::from(run.state.as_deref() != Some("sealed"));
                row.lost = row.lost.max(run.lost);
                hooks += run.hooks;
            }
            Err(error) => row.failures.push(format!("before number {number} of {kind:?}: {error}")),
        }
    }
    print_table(&rows);
    println!("{complete} runs came to their end unharmed; {hooks} hooks ran; all in {:?}", began.elapsed());
    let failures: Vec<_> = rows.values().flat_map(|row| &row.failures).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    for (kind, row) in rows {
        assert!(row.kills > 0, "never killed before {kind:?}");
    }
}

fn print_table(rows: &BTreeMap<Kind, Row>) {
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
