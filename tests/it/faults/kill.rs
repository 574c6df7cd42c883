//! The server is killed at any moment of three publishers' life.

use super::scene::{self, Actor};
use super::{MAY_LOSE, SETTINGS, aftermath, block_on, side_by_side};
use crate::support::server::Server;
use crate::support::user::{Script, files_in};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::future::pending;
use std::time::{Duration, Instant};

const SEED: u64 = 20_261_121;
/// Scenes at the same time: twelve publishers.
const WIDTH: usize = 4;
/// What each publisher sends before it stops: 1.5 to 2.5 s.
const FRAMES: [(&str, usize); 3] = [("north", 120), ("south", 160), ("west", 200)];
const HOOK_LASTS: Duration = Duration::from_millis(500);

/// When the server dies.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the publishers began to connect.
    Connecting(Duration),
    /// When the first has sent so many frames.
    Recording(usize),
    /// So long after the first has sent its last frame: the server waits a quarter of a second for what
    /// the stop may have overtaken, then seals.
    Stopping(Duration),
    /// So long after the first hook began.
    InHook(Duration),
}

/// Five of each kind.
fn moments() -> Vec<Moment> {
    let mut dice = StdRng::seed_from_u64(SEED);
    let mut up_to = |ms: u64| Duration::from_millis(dice.random_range(0..ms));
    let mut all = Vec::new();
    for round in 1..=5 {
        all.push(Moment::Connecting(up_to(600)));
        all.push(Moment::Recording(1 + up_to(FRAMES[0].1 as u64).as_millis() as usize));
        all.push(Moment::Stopping(round * up_to(150)));
        all.push(Moment::InHook(up_to(HOOK_LASTS.as_millis() as u64)));
    }
    all
}

/// Waits for the moment.
async fn comes(moment: Moment, first: &Actor, script: &Script) {
    let look = || tokio::time::sleep(Duration::from_millis(2));
    // What lasts is part of the moment.
    match moment {
        Moment::Connecting(after) => tokio::time::sleep(after).await,
        Moment::Recording(frames) => {
            while first.frames().await < frames {
                look().await;
            }
        }
        Moment::Stopping(after) => {
            while first.frames().await < FRAMES[0].1 {
                look().await;
            }
            tokio::time::sleep(after).await;
        }
        Moment::InHook(after) => {
            while script.left("log").is_empty() {
                look().await;
            }
            tokio::time::sleep(after).await;
        }
    }
}

/// What a kill left, and what became of it.
struct Row {
    unfinished: usize,
    whole: usize,
    hooks_begun: usize,
    hooks_ended: usize,
    sealed: usize,
    lost: Duration,
    hooks: usize,
}

fn run(moment: Moment) -> Result<Row, String> {
    let script = scene::hook(HOOK_LASTS);
    let hook = script.setting();
    let settings = [&[hook.as_str()], &SETTINGS[..]].concat();
    let server = Server::start(&settings);
    let (publishers, end) = block_on(async {
        let actors = join_all(FRAMES.map(|(stream, _)| Actor::new(stream))).await;
        let scene = join_all(actors.iter().zip(FRAMES).map(async |(actor, (_, frames))| {
            let recording = actor.record(&server.base, frames).await?;
            scene::hook_has_run(&server.base, &recording).await
        }));
        let scene = async {
            scene.await;
            pending().await
        };
        tokio::select! {
            () = scene => {}
            () = comes(moment, &actors[0], &script) => {}
        }
        let end = Instant::now();
        server.signal("KILL");
        (join_all(actors.into_iter().map(Actor::leave)).await, end)
    });
    let files = files_in(&server.records());
    let log = script.left("log");
    let left = |suffix: &str| files.iter().filter(|file| file.ends_with(suffix)).count();
    let said = |word: &str| log.lines().filter(|line| line.starts_with(word)).count();
    let (unfinished, whole) = (left(".part"), left(".webm"));
    let (hooks_begun, hooks_ended) = (said("begin"), said("end"));

    let server = server.killed_and_started(&settings);
    let recordings = block_on(aftermath::settled(&server));
    let mut lost = Duration::ZERO;
    for (stream, publisher) in &publishers {
        let recording = aftermath::the_one_of(stream, &recordings)?;
        lost = lost.max(aftermath::lost(publisher, end, recording, &server.records())?);
        if lost > MAY_LOSE {
            return Err(format!("{lost:?} lost of {stream}: {recording:?}"));
        }
    }
    let hooks = aftermath::hooks(&script, &recordings.iter().collect::<Vec<_>>())?;
    let sealed = recordings.iter().filter(|recording| recording["state"] == "sealed").count();
    Ok(Row { unfinished, whole, hooks_begun, hooks_ended, sealed, lost, hooks })
}

#[test]
fn killed_at_any_moment_it_loses_a_flush_interval_at_most_and_every_hook_runs() {
    let began = Instant::now();
    let moments = moments();
    let rows = side_by_side(WIDTH, moments.clone(), run);
    println!("seed {SEED}; killed with so many files and hooks, then found");
    println!(
        "{:<26}{:>11}{:>6}{:>7}{:>7} |{:>7}{:>10}{:>7}",
        "moment", "unfinished", "whole", "begun", "ended", "sealed", "lost most", "hooks"
    );
    for (moment, row) in moments.iter().zip(&rows) {
        let moment = format!("{moment:?}");
        match row {
            Ok(Row { unfinished, whole, hooks_begun, hooks_ended, sealed, lost, hooks }) => println!(
                "{moment:<26}{unfinished:>11}{whole:>6}{hooks_begun:>7}{hooks_ended:>7} |{sealed:>7}{:>7} ms{hooks:>7}",
                lost.as_millis()
            ),
            Err(error) => println!("{moment:<26} {error}"),
        }
    }
    println!("{} kills in {:?}", rows.len(), began.elapsed());
    assert!(rows.iter().all(Result::is_ok), "a promise was broken, see above");
    // The moments are what they are called, or the matrix has a hole.
    let any = |seen: fn(&Row) -> bool| rows.iter().flatten().any(seen);
    assert!(any(|row| row.whole == 0 && row.unfinished == 0), "none before the first file");
    assert!(any(|row| row.unfinished == FRAMES.len()), "none in mid recording");
    assert!(any(|row| row.unfinished > 0 && row.whole > 0), "none while one was sealed");
    assert!(any(|row| row.hooks_begun > row.hooks_ended), "none while a hook ran");
}
