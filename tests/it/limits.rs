//! What one publication may send: who exceeds it has a whole file all the same, and a hook that runs.

use crate::metrics::scrape;
use crate::support::judge;
use crate::support::proof::{self, KeptFrame};
use crate::support::server::Server;
use crate::support::user::{Api, SOON, Script, on_air, record};
use serde_json::json;
use str0m::media::MediaKind::{Audio, Video};

async fn ends_whole_at(limit: &str, value: &str) {
    let script = Script::new("echo \"$1 $ONRECORD_END_REASON\" >> \"$here/ran\"");
    let server = Server::start(&[&script.setting(), &format!("{limit}={value}")]);
    let mut on_air = on_air(&server, "too much").await;
    let told = on_air.signal.status("UNPUBLISHED").await;
    assert_eq!(told["reason"], "limit", "{limit}: {told}");
    let publisher = on_air.live.stop().await;
    let api = Api::of(&server);
    let manifest = api.hook(told["recording"]["id"].as_str().unwrap(), "done", SOON).await;
    assert_eq!((&manifest["state"], &manifest["end_reason"]), (&json!("sealed"), &json!("limit")));
    assert_eq!(script.left("ran"), "too much limit\n");
    let file = server.records().join(manifest["file"].as_str().unwrap());
    judge::decode(&file).unwrap();
    for (kind, name) in [(Video, "video"), (Audio, "audio")] {
        let kept: Vec<_> = judge::packets_of(&file, name).iter().map(KeptFrame::from).collect();
        let matched = proof::matched(&publisher.sent_of(kind), &kept).unwrap();
        println!("{limit}={value}: {} {name} frames in {} ms", matched.len(), manifest["duration_ms"]);
        assert_eq!(proof::holes(&matched).frames, 0, "{limit}: {name} is missing before the end");
        assert_eq!(matched[0].index, 0, "{limit}: {name} is missing at the beginning");
    }
    let refused = scrape(&server).await.value("onrecord_limit_refusals_total", &[("limit", limit)]);
    assert_eq!(refused, 1.0, "{limit}");
    // The name is free, and the next one has an allowance of its own.
    record(&server, "too much", 10).await;
}

#[tokio::test]
async fn a_publication_that_lasts_too_long_ends_whole() {
    ends_whole_at("limits.max_duration", "2s").await;
}

#[tokio::test]
async fn a_publication_of_too_many_bytes_ends_whole() {
    ends_whole_at("limits.max_bytes", "100kB").await;
}

#[tokio::test]
async fn a_publication_that_sends_too_fast_ends_whole() {
    ends_whole_at("limits.max_bitrate", "100kbit/s").await;
}
