//! What is right: what a tool saw, beside what is in the file and what was sent.

use super::films::Film;
use super::scene::ROUND;
use serde::Deserialize;

/// Sound and picture may be apart by so many seconds.
const APART: f64 = 0.040;
/// A seek may miss by so many seconds.
const MISS: f64 = 0.3;
/// Rates and counts may be wrong by this share.
const SHARE: f64 = 0.02;
/// Where a picture stands longer, in seconds, a rate says nothing.
const HOLE: f64 = 0.5;
/// What is so near, in seconds, belongs together: a page that is busy draws some flash late, or never.
const NEAR: f64 = 0.3;
/// Seconds of sound that may be missing at the ends.
const SHORT: f64 = 0.1;
/// What of a long film is looked at behind each target, in seconds: WINDOW in `tests/tools/observe.py`.
const WINDOW: f64 = 3.0;

/// What begins so near to the edge of such a sample may be cut there.
const CUT: f64 = 0.15;

/// What a tool says: see `tests/tools/observe.py`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Seen {
    pub frames: Option<u64>,
    pub fps: Option<f64>,
    pub count: Option<f64>,
    pub sound: Option<f64>,
    pub seeks: Vec<(f64, Option<f64>, Option<f64>)>,
    pub flashes: Vec<f64>,
    pub beeps: Vec<f64>,
    pub pictures: Vec<(f64, Option<f64>)>,
    pub lacks: Option<String>,
}

/// What is wrong with the file itself: then no tool can be right.
pub fn faults_of_file(film: &Film, truth: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    let pairs = paired(film, truth, truth);
    if pairs.len() < film.pairs {
        faults.push(format!("the file has {} beeps with a flash, not {}", pairs.len(), film.pairs));
    }
    faults.extend(sync(film, truth, truth));
    faults
}

/// What a tool got wrong but seeks.
pub fn faults(film: &Film, truth: &Seen, seen: &Seen) -> Vec<String> {
    let mut faults = counts(film, truth, seen);
    if let (Some(heard), Some(there)) = (seen.sound, truth.sound)
        && heard < there - SHORT
    {
        faults.push(format!("{heard:.2} s of {there:.2} s of sound"));
    }
    faults.extend(sync(film, truth, seen));
    faults
}

fn counts(film: &Film, truth: &Seen, seen: &Seen) -> Vec<String> {
    let Some(sent) = film.pictures() else { return Vec::new() };
    let mut faults = Vec::new();
    if let Some(frames) = seen.frames.filter(|frames| *frames != sent) {
        faults.push(format!("{frames} pictures of {sent}"));
    }
    let longest = truth.pictures.windows(2).map(|pair| pair[1].0 - pair[0].0);
    if !film.sampled && longest.fold(0.0, f64::max) > HOLE {
        return faults;
    }
    let rate = match (&truth.pictures[..], film.sampled) {
        ([first, .., last], false) => (sent - 1) as f64 / (last.0 - first.0),
        _ => sent as f64 / film.duration(),
    };
    for (what, said, right) in [("fps", seen.fps, rate), ("pictures by the header", seen.count, sent as f64)]
    {
        if let Some(said) = said.filter(|said| (said / right - 1.0).abs() > SHARE) {
            faults.push(format!("{said:.1} {what}, not {right:.1}"));
        }
    }
    faults
}

/// Seeks that show another moment than the wanted one.
pub fn missed_seeks(truth: &Seen, seen: &Seen) -> Vec<String> {
    seen.seeks.iter().filter_map(|seek| missed(truth, *seek)).collect()
}

/// That a seek shows another moment than the wanted one.
fn missed(truth: &Seen, (target, at, phase): (f64, Option<f64>, Option<f64>)) -> Option<String> {
    let behind = truth.pictures.partition_point(|(time, _)| *time <= target);
    let around = &truth.pictures[behind.saturating_sub(1)..(behind + 1).min(truth.pictures.len())];
    let Some(phase) = phase else { return Some(format!("nothing shown at {target:.2} s")) };
    let round = f64::from(ROUND);
    let far = |shown: f64| ((phase - shown).rem_euclid(round)).min((shown - phase).rem_euclid(round));
    let shows = around.iter().filter_map(|(_, shown)| *shown).map(far).fold(f64::MAX, f64::min);
    let (first, last) = (around.first()?.0, around.last()?.0);
    let says = at.is_none_or(|at| at > first - MISS && at < last + MISS);
    (shows > MISS || !says)
        .then(|| format!("sought {target:.2} s, it says {at:.2?} and shows what is {shows:.2} s from there"))
}

/// What has beeped, and by how many seconds behind its flash. A tool that has no pictures is held against
/// those of the file.
fn paired(film: &Film, truth: &Seen, seen: &Seen) -> Vec<(f64, f64)> {
    let flashes = if seen.flashes.is_empty() { &truth.flashes } else { &seen.flashes };
    let (Some(first), Some(last)) = (flashes.first(), flashes.last()) else { return Vec::new() };
    let is_whole = |beep: &&f64| (first - HOLE..last + HOLE).contains(*beep) && is_looked_at(film, **beep);
    let nearest = |beep: f64| {
        let apart = flashes.iter().map(|flash| beep - flash);
        apart.min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap()
    };
    let pairs = seen.beeps.iter().filter(is_whole).map(|beep| (*beep, nearest(*beep)));
    pairs.filter(|(_, apart)| apart.abs() < NEAR).collect()
}

/// Whether something is where all tools look, and is not cut at the edge of a sample of a long film.
fn is_looked_at(film: &Film, time: f64) -> bool {
    let within = |target: f64| (target + CUT..target + WINDOW - CUT).contains(&time);
    !film.sampled || film.targets().into_iter().any(within)
}

/// Whether sound and pictures are apart.
pub fn is_out_of_step(film: &Film, truth: &Seen, seen: &Seen) -> bool {
    !sync(film, truth, seen).is_empty()
}

fn sync(film: &Film, truth: &Seen, seen: &Seen) -> Vec<String> {
    if truth.beeps.is_empty() || truth.flashes.is_empty() {
        return [("beeps", &seen.beeps), ("flashes", &seen.flashes)]
            .into_iter()
            .filter_map(|(what, onsets)| uneven(what, onsets))
            .collect();
    }
    if seen.beeps.is_empty() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let (pairs, all) = (paired(film, truth, seen), paired(film, truth, truth).len());
    if pairs.len() + 1 < all {
        faults.push(format!("{} beeps with a flash, not {all}", pairs.len()));
    }
    let worst = pairs.iter().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
    if let Some((at, apart)) = worst.filter(|(_, apart)| apart.abs() > APART) {
        let wrong = pairs.iter().filter(|(_, apart)| apart.abs() > APART).count();
        let ms = apart * 1e3;
        faults
            .push(format!("{wrong} of {} beeps out of step, that at {at:.2} s by {ms:+.0} ms", pairs.len()));
    }
    faults
}

/// The largest distance between sound and picture, in milliseconds, where there are both.
pub fn worst(film: &Film, truth: &Seen, seen: &Seen) -> Option<f64> {
    let apart = paired(film, truth, seen).into_iter().map(|(_, apart)| apart * 1e3);
    apart.max_by(|a, b| a.abs().total_cmp(&b.abs()))
}

/// Where only one of both is there: that it doesn't come each second.
fn uneven(what: &str, onsets: &[f64]) -> Option<String> {
    let first = onsets.first()?;
    let off = onsets.iter().map(|onset| (onset - first + 0.5).rem_euclid(1.0) - 0.5);
    let worst = off.map(f64::abs).fold(0.0, f64::max);
    (worst > APART).then(|| format!("{what} are {:.0} ms off their seconds", worst * 1e3))
}
