//! What is found once the server is up again, and what it is held to.

use crate::support::judge::{self, Packet, Probe};
use crate::support::proof::{KeptFrame, Matched, check_decodable, matched};
use crate::support::publisher::{Publisher, Sent};
use crate::support::server::Server;
use crate::support::user::{Api, Script, eventually, files_in};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};
use str0m::media::MediaKind;

/// How long a server may take to bring everything to its end, on a busy machine.
const SETTLED: Duration = Duration::from_secs(30);

/// Waits until no recording is open, no file unfinished or unknown, and no hook owed; gives the listed
/// recordings.
pub async fn settled(server: &Server) -> Vec<Value> {
    let (api, folder) = (Api::of(server), server.records());
    eventually("everything has come to its end", SETTLED, async || {
        let (recordings, files) = (api.recordings().await, files_in(&folder));
        let over = recordings.iter().all(is_over) && files.iter().all(|file| is_known(file, &recordings));
        over.then_some(recordings)
    })
    .await
}

fn is_over(recording: &Value) -> bool {
    match recording["state"].as_str().unwrap() {
        "sealed" => recording["hook"]["state"] == "done",
        state => state == "quarantined",
    }
}

/// Whether a file of the folder is one that may stay there: a listed recording's, a manifest, or the
/// folder of what could not be repaired.
fn is_known(file: &str, recordings: &[Value]) -> bool {
    let listed = || recordings.iter().any(|recording| recording["file"] == file);
    !file.starts_with('.') && (file == "quarantine" || file.ends_with(".json") || listed())
}

/// A publisher's one recording, if there is any.
pub fn the_one_of<'a>(stream: &str, recordings: &'a [Value]) -> Result<Option<&'a Value>, String> {
    let mut of_stream = recordings.iter().filter(|recording| recording["stream"] == stream);
    match (of_stream.next(), of_stream.next()) {
        (one, None) => Ok(one),
        (one, other) => Err(format!("two recordings of {stream}: {one:?}, {other:?}")),
    }
}

/// What a publisher lost of what it had sent until `end`, once its file has passed every judge. A
/// recording without a file has lost all.
pub fn lost(
    publisher: &Publisher,
    end: Instant,
    recording: Option<&Value>,
    records: &Path,
) -> Result<Duration, String> {
    let file = recording
        .filter(|recording| recording["state"] == "sealed")
        .map(|recording| records.join(recording["file"].as_str().unwrap()));
    let packets = file.as_deref().map(whole).transpose()?.unwrap_or_default();
    let Some(start) = publisher.connected_at() else { return Ok(Duration::ZERO) };
    let mut longest = Duration::ZERO;
    for (kind, name) in [(MediaKind::Video, "video"), (MediaKind::Audio, "audio")] {
        let kept: Vec<KeptFrame> =
            packets.iter().filter(|packet| packet.kind == name).map(KeptFrame::from).collect();
        let sent = publisher.sent_of(kind);
        let kept = matched(&sent, &kept).map_err(|error| format!("{name}: {error}"))?;
        if kind.is_video() {
            check_decodable(&kept)?;
        }
        longest = longest.max(missing(&sent, &kept, end.saturating_duration_since(start)));
    }
    Ok(longest)
}

/// How much of a track's end is missing, of what was captured until `end`.
fn missing(sent: &[Sent], kept: &[Matched], end: Duration) -> Duration {
    let captured = || sent.iter().map(|frame| frame.captured).filter(|captured| *captured <= end);
    let (Some(first), Some(last)) = (captured().next(), captured().next_back()) else {
        return Duration::ZERO;
    };
    last.saturating_sub(kept.last().map_or(first, |frame| frame.captured))
}

/// That a file plays and seeks; gives its blocks.
pub fn whole(file: &Path) -> Result<Vec<Packet>, String> {
    let duration = Probe::of(file).duration().ok_or("no duration")?;
    let packets = judge::packets(file);
    let end = packets.iter().map(|packet| packet.time).max().ok_or("no frames")?;
    if duration < end || duration > end + Duration::from_millis(200) {
        return Err(format!("it claims {duration:?}, its last block is at {end:?}"));
    }
    let keyframes: Vec<_> = packets
        .iter()
        .filter(|packet| packet.kind == "video" && packet.keyframe)
        .map(|key| key.time)
        .collect();
    // Where no picture had come, sound is sought by its own times.
    let sounds = || packets.iter().map(|packet| packet.time).collect();
    let keyframes: Vec<_> =
        if packets.iter().any(|packet| packet.kind == "video") { keyframes } else { sounds() };
    let cues = judge::cue_times(file);
    if cues.is_empty() || !cues.iter().all(|cue| keyframes.contains(cue)) {
        return Err(format!("cues at {cues:?}, keyframes at {keyframes:?}"));
    }
    judge::demux(file)?;
    Ok(packets)
}

/// That the hook has run for every recording that is sealed, never twice at the same time, each time
/// with the same id and a greater number; gives how often it began.
pub fn hooks(script: &Script, recordings: &[&Value]) -> Result<usize, String> {
    let log = script.left("log");
    let (mut attempts, mut ends) = (HashMap::new(), Vec::new());
    for line in log.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [what, id, attempt] = fields[..] else { return Err(format!("a torn line {line:?}")) };
        let attempt: u32 = attempt.parse().unwrap();
        match what {
            "begin" if attempts.insert(id, attempt).is_none_or(|before| before < attempt) => {}
            "end" => ends.push(id),
            _ => return Err(format!("{line:?} in\n{log}")),
        }
        if !recordings.iter().any(|recording| recording["id"] == id) {
            return Err(format!("a hook of {id}, which is not listed"));
        }
    }
    for recording in recordings.iter().filter(|recording| recording["state"] == "sealed") {
        if !ends.iter().any(|id| recording["id"] == **id) {
            return Err(format!("no hook has ended for {}: {log}", recording["id"]));
        }
    }
    Ok(log.lines().filter(|line| line.starts_with("begin")).count())
}
