//! Sources (SSRCs) that the offer doesn't name, or that change in mid-stream.

use super::*;
use crate::support::network::rtp_payload_type;
use crate::support::publisher::Asked;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

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
        assert_kept(&network, Audio, 99.9);
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

/// The number and the source of an RTP packet, which SRTP leaves readable.
fn number_and_source(datagram: &[u8]) -> Option<(u16, u32)> {
    rtp_payload_type(datagram)?;
    let number = u16::from_be_bytes(*datagram.get(2..)?.first_chunk()?);
    Some((number, u32::from_be_bytes(*datagram.get(8..)?.first_chunk()?)))
}

/// Changes the sources and loses these packets of the new one's first keyframe; gives that, their numbers, and what was
/// asked of it in the next 300 ms.
fn lost_after_a_change(seed: u64, lost: Range<usize>) -> (u32, Vec<u16>, Vec<Asked>) {
    let mut network = connect(seed, Config { notes_asked: true, ..fake_media() });
    network.run_for(Duration::from_secs(5));
    let sources = network.publisher.change_sources();
    let (_, source) = sources.into_iter().find(|(kind, _)| *kind == Video).unwrap();
    let (numbers, before) = (Arc::new(Mutex::new(Vec::new())), network.publisher.asked().len());
    let (mut pictures, mut packets) = (0, 0);
    let noted = numbers.clone();
    network.up.filter = Some(Box::new(move |_, datagram| {
        let Some((number, _)) = number_and_source(datagram).filter(|(_, of)| *of == source) else {
            return true;
        };
        // The picture that was under way when the keyframe was wished for comes before it.
        let is_lost = pictures == 1 && lost.contains(&packets);
        packets = if pictures == 1 { packets + 1 } else { 0 };
        pictures += usize::from(datagram[1] & 0x80 != 0);
        if is_lost {
            noted.lock().unwrap().push(number);
        }
        !is_lost
    }));
    network.run_for(Duration::from_millis(300));
    let asked = network.publisher.asked()[before..].iter().map(|(_, asked)| asked.clone()).collect();
    let numbers = numbers.lock().unwrap().clone();
    (source, numbers, asked)
}

#[test]
fn what_is_lost_of_a_source_that_has_just_taken_over_is_asked_for_again() {
    let (source, lost, asked) = lost_after_a_change(573, 1..4);
    println!("{lost:?} of {source} are lost: {asked:?}");
    assert_eq!(lost.len(), 3);
    assert!(asked.contains(&Asked::Again(source, lost)), "{asked:?}");
    // Its first packet alone says how large its pictures are.
    let (source, lost, asked) = lost_after_a_change(574, 0..1);
    println!("{lost:?} of {source} is lost: {asked:?}");
    assert!(asked.contains(&Asked::Keyframe(source)), "{asked:?}");
}
