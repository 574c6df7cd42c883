//! Sources (SSRCs) that the offer doesn't name, or that change in mid-stream.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The offer without what it says of SSRCs, as some WHIP clients make it.
pub fn without_sources(offer: &str) -> String {
    let lines = offer.lines().filter(|line| !line.starts_with("a=ssrc"));
    lines.map(|line| format!("{line}\r\n")).collect()
}

#[test]
fn an_encoder_that_begins_anew_is_recorded_further_whether_or_not_the_offer_names_sources() {
    for (seed, rewrite) in [(570, str::to_owned as fn(&str) -> String), (571, without_sources)] {
        let mut network = connect_with(seed, fake_media(), rewrite);
        network.both(|link| link.loss = 0.02);
        network.run_for(Duration::from_secs(10));
        // str0m hears no feedback for a source that took another's place, so nothing may be lost from here.
        network.both(|link| link.loss = 0.0);
        for _ in 0..5 {
            network.run_for(Duration::from_secs(3));
            network.publisher.change_sources();
        }
        network.run_for(Duration::from_secs(3));
        finish(&mut network);
        assert_kept(&network, Video, 98.0);
        assert_kept(&network, Audio, 97.0);
        assert_one_stream(&network);
        for kind in [Video, Audio] {
            let silence = longest_silence(&network, kind);
            assert!(silence < Duration::from_millis(700), "{kind:?}: nothing for {silence:?}");
        }
    }
}

#[test]
fn several_sources_in_the_offer_cost_nothing_whichever_of_them_sends() {
    // The one that sends first, last, and not named at all.
    for (seed, place) in [(580, 0), (581, 2), (582, 9)] {
        let next = AtomicU32::new(1_000_000);
        let crowded = |offer: &str| {
            let mut out = String::new();
            for line in offer.lines() {
                let own = line.starts_with("a=ssrc");
                let (before, after) = if place == 0 { (0, 1) } else { (1, 0) };
                let others = |count: u32, out: &mut String| {
                    for _ in 0..count {
                        let source = next.fetch_add(1, Relaxed);
                        out.push_str(&format!("a=ssrc:{source} cname:other\r\n"));
                    }
                };
                others(if own { before } else { 0 }, &mut out);
                if !own || place < 9 {
                    out.push_str(&format!("{line}\r\n"));
                }
                others(if own { after } else { 0 }, &mut out);
            }
            out
        };
        let mut network = connect_with(seed, fake_media(), crowded);
        network.both(|link| link.loss = 0.02);
        network.run_for(Duration::from_secs(10));
        network.both(|link| link.loss = 0.0);
        finish(&mut network);
        assert_kept(&network, Video, 99.0);
        assert_kept(&network, Audio, 99.0);
        assert_one_stream(&network);
    }
}
