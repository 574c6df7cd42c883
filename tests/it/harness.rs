//! The harness proves itself, str0m against str0m: what it says of losses and times is true.

use crate::support::judge::{self, Probe};
use crate::support::media::{self, FLASH_AT};
use crate::support::network::{Bursts, Datagram, Endpoint, Network, rtp_payload_type};
use crate::support::proof::{self, KeptFrame};
use crate::support::publisher::{Config, Publisher, Reports, TrackConfig};
use crate::support::receiver::Receiver;
use crate::support::sdp;
use crate::support::source::{FakeAudio, FakeVideo, Looped};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::media::MediaKind::{Audio, Video};

fn inside() -> SocketAddr {
    "10.0.0.2:50000".parse().unwrap()
}

fn outside(port: u16) -> SocketAddr {
    ([198, 51, 100, 7], port).into()
}

fn fake_media() -> Config {
    Config {
        video: Some(TrackConfig::new(FakeVideo::hd())),
        audio: Some(TrackConfig::new(Box::<FakeAudio>::default())),
        ..Config::new(inside())
    }
}

fn connect(seed: u64, config: Config) -> Network<Publisher, Receiver> {
    let now = Instant::now();
    let (mut publisher, offer) = Publisher::new(config, now);
    let (receiver, answer) = Receiver::accept(&offer, "192.0.2.1:8189".parse().unwrap(), now);
    publisher.accept(&answer);
    let mut network = Network::new(seed, now, publisher, receiver);
    let connected =
        network.run_until_true(Duration::from_secs(5), |network| network.publisher.connected_at().is_some());
    assert!(connected, "not connected after {:?}", network.elapsed());
    network
}

fn kept(network: &Network<Publisher, Receiver>, kind: str0m::media::MediaKind) -> (usize, usize) {
    (network.publisher.sent_of(kind).len(), network.server.count(kind))
}

#[test]
fn a_good_network_delivers_every_frame_in_order_and_unchanged() {
    let mut network = connect(1, fake_media());
    network.run_for(Duration::from_secs(10));
    network.publisher.stop_sending();
    network.run_for(Duration::from_secs(2));
    for kind in [Video, Audio] {
        let (sent, received) = kept(&network, kind);
        assert_eq!(sent, received, "{kind:?}: {received} of {sent} frames arrived");
        let arrived = network.server.received().iter().filter(|frame| frame.kind == kind);
        for (sent, arrived) in network.publisher.sent_of(kind).iter().zip(arrived) {
            assert_eq!(sent.data, arrived.data);
        }
    }
}

#[test]
fn retransmission_and_red_repair_five_percent_of_loss() {
    let mut network = connect(2, fake_media());
    network.both(|link| link.loss = 0.05);
    network.run_for(Duration::from_secs(30));
    network.publisher.stop_sending();
    network.run_for(Duration::from_secs(2));
    let (video, audio) = (kept(&network, Video), kept(&network, Audio));
    println!("5 % loss: video {}/{}, audio {}/{}", video.1, video.0, audio.1, audio.0);
    assert!(network.up.lost > 100, "the network lost {} datagrams", network.up.lost);
    assert!(video.1 * 100 >= video.0 * 99, "{} of {} video frames arrived", video.1, video.0);
    assert!(audio.1 * 100 >= audio.0 * 99, "{} of {} audio frames arrived", audio.1, audio.0);
}

#[test]
fn without_retransmission_frames_are_lost_and_keyframes_asked_for() {
    let mut network = connect(3, fake_media());
    let rtx = network.publisher.rtx_payload_type().unwrap();
    network.up.filter = Some(Box::new(move |_, datagram| rtp_payload_type(datagram) != Some(rtx)));
    network.up.loss = 0.02;
    let before = network.publisher.keyframe_requests().len();
    network.run_for(Duration::from_secs(10));
    let (sent, received) = kept(&network, Video);
    let requests = network.publisher.keyframe_requests().len() - before;
    assert!(received < sent, "{received} of {sent} frames arrived");
    assert!(requests > 0, "{requests} keyframes were asked for");
}

fn kept_frames(network: &Network<Publisher, Receiver>, kind: str0m::media::MediaKind) -> Vec<KeptFrame> {
    let start = network.publisher.connected_at().unwrap();
    let frames = network.server.received().iter().filter(|frame| frame.kind == kind);
    frames.map(|frame| KeptFrame::new(frame.at - start, &frame.data)).collect()
}

#[test]
fn the_proof_finds_what_was_lost_and_what_can_not_be_decoded() {
    let mut network = connect(3, fake_media());
    network.run_for(Duration::from_secs(2));
    let video = kept_frames(&network, Video);
    let sent = network.publisher.sent_of(Video);
    let whole = proof::matched(&sent, &video).unwrap();
    assert_eq!(proof::holes(&whole).count, 0);
    proof::check_decodable(&whole).unwrap();

    let without = |index: usize| [&video[..index], &video[index + 1..]].concat();
    let holed = proof::matched(&sent, &without(20)).unwrap();
    assert_eq!((proof::holes(&holed).count, proof::holes(&holed).frames), (1, 1));
    assert!(proof::check_decodable(&holed).is_err());

    let mut swapped = video.clone();
    swapped.swap(10, 11);
    assert!(proof::matched(&sent, &swapped).is_err());
}

#[test]
fn the_proof_measures_how_far_sound_and_picture_are_apart() {
    let mut config = fake_media();
    config.audio.as_mut().unwrap().encoding_takes = Duration::from_millis(25);
    let mut network = connect(11, config);
    network.run_for(Duration::from_secs(2));
    let track =
        |kind| proof::matched(&network.publisher.sent_of(kind), &kept_frames(&network, kind)).unwrap();
    let offsets = proof::offsets(&track(Video), &track(Audio));
    // By arrival: str0m's receiver hands frames out as they come.
    let apart = offsets.iter().map(|(_, ms)| (ms - 25.0).abs()).fold(0.0, f64::max);
    assert!(offsets.len() > 50 && apart < 2.0, "up to {apart} ms from the 25 ms put in");
}

#[test]
fn a_burst_loses_everything_for_its_length_and_nothing_outside() {
    let mut network = connect(4, Config { red: false, ..fake_media() });
    let first = network.elapsed() + Duration::from_secs(1);
    network.up.bursts =
        Some(Bursts { first, every: Duration::from_secs(2), length: Duration::from_millis(200) });
    let lost = network.up.lost;
    network.run_for(Duration::from_millis(900));
    assert_eq!(network.up.lost, lost);
    network.run_for(Duration::from_secs(4));
    let (sent, received) = kept(&network, Audio);
    // Two bursts of 200 ms of 20 ms packets, less what is still on its way.
    let missing = sent - received;
    assert!((18..=24).contains(&missing), "{missing} of {sent} audio packets are missing");
}

#[test]
fn a_publisher_behind_a_rebound_nat_goes_on_sending_and_stays_connected() {
    let mut network = connect(5, fake_media());
    for port in [40_000, 40_001] {
        network.bind_nat(inside(), outside(port));
        let before = network.server.count(Audio);
        network.run_for(Duration::from_secs(30));
        let arrived = network.server.count(Audio) - before;
        assert!(arrived > 1400, "{arrived} packets arrived in 30 s from port {port}");
        assert!(!network.publisher.ice().is_disconnected(), "ICE is {:?}", network.publisher.ice());
    }
}

/// Says something each second; notes whom it heard.
struct Beacon {
    next: Instant,
    said: Vec<Datagram>,
    heard: Vec<SocketAddr>,
    from: SocketAddr,
    to: SocketAddr,
}

impl Endpoint for Beacon {
    fn receive(&mut self, _now: Instant, datagram: Datagram) {
        self.heard.push(datagram.from);
    }

    fn timeout(&mut self, _now: Instant) {
        self.next += Duration::from_secs(1);
        self.said.push(Datagram { from: self.from, to: self.to, bytes: vec![0] });
    }

    fn deadline(&mut self) -> Option<Instant> {
        Some(self.next)
    }

    fn transmit(&mut self, _now: Instant) -> Option<Datagram> {
        self.said.pop()
    }
}

#[test]
fn a_nat_shows_its_newest_address_and_forgets_the_one_before() {
    let now = Instant::now();
    let server: SocketAddr = "192.0.2.1:8189".parse().unwrap();
    let beacon = |from, to| Beacon { next: now, said: Vec::new(), heard: Vec::new(), from, to };
    let talking_to_the_first_address = beacon(server, outside(1));
    let mut network = Network::new(6, now, beacon(inside(), server), talking_to_the_first_address);
    network.bind_nat(inside(), outside(1));
    network.run_for(Duration::from_millis(1500));
    network.bind_nat(inside(), outside(2));
    network.run_for(Duration::from_secs(2));
    assert_eq!(network.server.heard, [outside(1), outside(1), outside(2), outside(2)]);
    assert_eq!(network.publisher.heard, [server, server]);
}

#[test]
fn an_ice_restart_goes_on_with_the_same_media() {
    let mut network = connect(6, fake_media());
    network.run_for(Duration::from_secs(2));
    let offer = network.publisher.restart_ice();
    let answer = network.server.accept_again(&offer);
    network.publisher.accept(&answer);
    let before = network.server.count(Video);
    network.run_for(Duration::from_secs(3));
    let after = network.server.count(Video) - before;
    assert!(after >= 60, "{after} frames in 3 s after the restart");
}

#[test]
fn an_ice_restart_by_fragments_goes_on_with_the_same_media() {
    let now = Instant::now();
    let (mut publisher, offer) = Publisher::new(fake_media(), now);
    let (receiver, answer) = Receiver::accept(&offer, "192.0.2.1:8189".parse().unwrap(), now);
    publisher.accept(&answer);
    let mut network = Network::new(12, now, publisher, receiver);
    network.run_for(Duration::from_secs(2));
    let offer = network.publisher.restart_ice();
    assert_eq!(sdp::fragment(&offer).lines().count(), 5, "{}", sdp::fragment(&offer));
    let fragment = sdp::fragment(&network.server.accept_again(&offer));
    network.publisher.accept(&sdp::restarted(&answer, &fragment));
    let before = network.server.count(Video);
    network.run_for(Duration::from_secs(3));
    let after = network.server.count(Video) - before;
    assert!(after >= 60, "{after} frames in 3 s after the restart");
}

#[test]
fn a_publisher_whose_candidates_nobody_resolves_or_that_trickles_none_connects() {
    for trickle in [false, true] {
        let now = Instant::now();
        let (mut publisher, offer) = Publisher::new(Config { trickle, ..fake_media() }, now);
        assert_eq!(offer.contains("a=candidate:"), !trickle, "{offer}");
        assert!(publisher.candidate().starts_with("candidate:"), "{}", publisher.candidate());
        let offer = sdp::with_local_names(&offer);
        let (receiver, answer) = Receiver::accept(&offer, "192.0.2.1:8189".parse().unwrap(), now);
        publisher.accept(&answer);
        let mut network = Network::new(13, now, publisher, receiver);
        network.run_for(Duration::from_secs(3));
        assert!(network.server.count(Video) > 0, "nothing arrived, trickle {trickle}");
    }
}

#[test]
fn reports_are_held_back_and_then_name_the_true_capture_time() {
    let hold = Duration::from_secs(3);
    let mut network = connect(7, Config { reports: Reports::After(hold), ..fake_media() });
    let start = network.publisher.connected_at().unwrap();
    network.run_for(Duration::from_secs(6));
    let arrived = network.server.received();
    let early = arrived.iter().filter(|frame| frame.at < start + hold && frame.report.is_some()).count();
    assert_eq!(early, 0, "reports arrived before {hold:?}");
    // Both tracks' first frames were captured at the same instant, so that is what reports must say.
    let captured = |kind| {
        let last = arrived.iter().rfind(|frame| frame.kind == kind && frame.report.is_some()).unwrap();
        let first = arrived.iter().find(|frame| frame.kind == kind).unwrap();
        let (wall, rtp) = last.report.unwrap();
        wall.as_secs_f64() - (rtp.as_seconds() - first.time.as_seconds())
    };
    let apart = captured(Video) - captured(Audio);
    assert!(apart.abs() < 0.001, "the reports put the tracks {} ms apart", apart * 1e3);
}

#[test]
fn a_skewed_capture_clock_sends_more_often() {
    let mut config = Config { reports: Reports::Never, ..fake_media() };
    config.audio.as_mut().unwrap().ppm = 10_000.0;
    let mut network = connect(8, config);
    network.run_for(Duration::from_secs(20));
    let sent = network.publisher.sent_of(Audio).len();
    assert!((1009..=1011).contains(&sent), "{sent} packets in 20 s with a clock fast by 1 %");
}

#[test]
fn a_late_device_starts_late_and_a_pause_is_silent() {
    let mut config = fake_media();
    let audio = config.audio.as_mut().unwrap();
    audio.starts_after = Duration::from_millis(500);
    audio.pauses = vec![Duration::from_secs(1)..Duration::from_secs(2)];
    let mut network = connect(9, config);
    network.run_for(Duration::from_millis(2999));
    let times: Vec<_> = network.publisher.sent_of(Audio).iter().map(|sent| sent.captured).collect();
    assert_eq!(times[0], Duration::from_millis(500));
    assert_eq!(times.len(), 25 + 50);
}

#[test]
fn clips_are_whole_and_their_content_is_where_it_should_be() {
    let (video, audio) = media::flash_and_beep(4);
    assert_eq!((video.frames.len(), audio.frames.len()), (120, 200));
    let keyframes = video.frames.iter().filter(|frame| frame.keyframe).map(|frame| frame.time);
    assert_eq!(keyframes.collect::<Vec<_>>(), (0..4).map(Duration::from_secs).collect::<Vec<_>>());
    let flash = &video.frames[15];
    assert_eq!(flash.time, FLASH_AT);
    assert!(media::size_change(1).frames.len() == 90);
}

#[test]
fn an_hour_of_real_media_takes_at_most_a_minute() {
    let (video, audio) = media::flash_and_beep(10);
    let config = Config {
        video: Some(TrackConfig::new(Looped::new(video))),
        audio: Some(TrackConfig::new(Looped::new(audio))),
        ..Config::new(inside())
    };
    let mut network = connect(10, config);
    let began = Instant::now();
    network.run_for(Duration::from_secs(3600));
    network.publisher.stop_sending();
    network.run_for(Duration::from_secs(1));
    let took = began.elapsed();
    println!("an hour of virtual time took {took:?}, {:.0} times real time", 3600.0 / took.as_secs_f64());
    let sent = network.publisher.sent().len();
    assert_eq!(sent, network.server.received().len(), "frames sent, frames received");
    assert!(took < Duration::from_secs(60), "it took {took:?}");
}

/// Two seconds whose beeps follow their flashes by 40 ms, made by ffmpeg alone.
fn file_with_late_sound(folder: &std::path::Path) -> std::path::PathBuf {
    let file = folder.join("late.webm");
    let flash = "color=c=black:s=320x180:r=30,drawbox=c=white:t=fill:enable='between(mod(n,30),15,17)'";
    let beep = "aevalsrc='if(between(mod(t,1),0.54,0.64),0.8*sin(2*PI*1000*t),0)':s=48000";
    let status = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-f", "lavfi", "-i", flash, "-f", "lavfi", "-i", beep])
        .args(["-t", "2", "-c:v", "libvpx", "-deadline", "realtime", "-g", "30", "-c:a", "libopus"])
        .arg(&file)
        .status();
    assert!(status.unwrap().success());
    file
}

#[test]
fn the_judges_read_a_file_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_with_late_sound(folder.path());
    let probe = Probe::of(&file);
    assert_eq!(probe.stream("video").unwrap().codec_name, "vp8");
    assert_eq!(probe.stream("audio").unwrap().codec_name, "opus");
    assert!(probe.duration().unwrap().abs_diff(Duration::from_secs(2)) < Duration::from_millis(20));
    let video = judge::packets_of(&file, "video");
    assert_eq!(video.len(), 60);
    assert_eq!(judge::longest_keyframe_gap(&video, Duration::from_secs(2)), Duration::from_secs(1));
    let keyframes = video.iter().filter(|packet| packet.keyframe).map(|packet| packet.time);
    assert_eq!(judge::cue_times(&file), keyframes.collect::<Vec<_>>());
    assert_eq!(judge::picture_sizes(&file).into_iter().collect::<Vec<_>>(), [(320, 180)]);
    judge::decode(&file).unwrap();
    let offsets = judge::av_offsets(&file);
    assert_eq!(offsets.len(), 2, "{offsets:?}");
    assert!(offsets.iter().all(|offset| (offset - 40.0).abs() < 5.0), "{offsets:?}, not 40 ms");
}

#[test]
fn a_damaged_file_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_with_late_sound(folder.path());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2000].fill(0);
    std::fs::write(&file, bytes).unwrap();
    assert!(judge::decode(&file).is_err());
}
