//! Packets in, what is recorded out.

use super::*;
use crate::rtp::PayloadFormat;
use crate::webrtc::offer::Format;
use crate::webrtc::simulcast::PacketIdentifiers;
use rtc::shared::marshal::Marshal;

const RID: u8 = 10;
const REPAIRED: u8 = 11;

fn video(identifiers: PacketIdentifiers) -> RecordedSection {
    let mid = "v".to_owned();
    let formats = vec![
        Format::plain(96, PayloadKind::Media),
        Format::plain(97, PayloadKind::Rtx(96)),
        Format::plain(120, PayloadKind::Media),
        Format::plain(121, PayloadKind::Rtx(120)),
    ];
    RecordedSection { index: 0, mid, format: PayloadFormat::Vp8, ssrcs: vec![], formats, identifiers }
}

fn audio() -> RecordedSection {
    let mid = "a".to_owned();
    let formats = vec![Format::plain(63, PayloadKind::Red), Format::plain(111, PayloadKind::Media)];
    let (format, identifiers) = (PayloadFormat::Opus, PacketIdentifiers::default());
    RecordedSection { index: 1, mid, format, ssrcs: vec![], formats, identifiers }
}

/// An RTP header, as another stack writes it.
fn head(ssrc: u32, payload_type: u8, timestamp: u32, element: Option<(u8, &[u8])>) -> Vec<u8> {
    let mut header =
        rtc::rtp::Header { ssrc, payload_type, timestamp, version: 2, ..rtc::rtp::Header::default() };
    if let Some((id, value)) = element {
        header.set_extension(id, Bytes::copy_from_slice(value)).unwrap();
    }
    header.marshal().unwrap().to_vec()
}

/// A section on its own clock.
struct Scene {
    sections: Sections,
    start: Instant,
    ms: u64,
    timestamp: u32,
}

impl Scene {
    fn new(section: &[RecordedSection]) -> Self {
        let mids = ["v", "a", "refused"].into_iter();
        Self { sections: Sections::new(section, mids), start: Instant::now(), ms: 0, timestamp: 0 }
    }

    fn simulcast() -> Self {
        let identifiers = PacketIdentifiers {
            rid_id: Some(RID),
            repaired_rid_id: Some(REPAIRED),
            ..PacketIdentifiers::default()
        };
        Self::new(&[video(identifiers)])
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    /// Takes a packet with such an element of its header extension.
    fn take_with(
        &mut self,
        (ssrc, payload_type): (u32, u8),
        element: Option<(u8, &[u8])>,
        payload: &[u8],
    ) -> Option<(usize, Verdict)> {
        let head = head(ssrc, payload_type, self.timestamp, element);
        let mut packet = Packet { header: Header::read(&head).unwrap(), payload };
        let now = self.now();
        self.sections.take(&mut packet, now)
    }

    fn take(&mut self, ssrc: u32, payload_type: u8, payload: &[u8]) -> Option<(usize, Verdict)> {
        self.take_with((ssrc, payload_type), None, payload)
    }

    /// A picture of an encoding: a keyframe of this width, or one that refers to others.
    fn picture(&mut self, ssrc: u32, width: Option<u16>) -> Verdict {
        let [low, high] = width.unwrap_or_default().to_le_bytes();
        let key = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, low, high, 0x10, 0];
        self.take(ssrc, 96, if width.is_some() { &key } else { &[0x10, 0x11, 1, 2] }).unwrap().1
    }

    fn sound(&mut self, ssrc: u32) -> Verdict {
        self.take(ssrc, 111, &[0xfc, 1]).unwrap().1
    }

    fn pass(&mut self, ms: u64) {
        self.ms += ms;
        self.timestamp += ms as u32 * 90;
    }

    fn wanted(&mut self) -> Option<u32> {
        let now = self.now();
        self.sections.wanted(0, now)
    }
}

const WHOLE: Verdict = Verdict::Replaces { hole: false };
const AFTER_A_HOLE: Verdict = Verdict::Replaces { hole: true };

#[test]
fn the_largest_encoding_is_recorded_in_whatever_order_they_come() {
    for order in [[160, 320, 640], [640, 320, 160], [320, 640, 160]] {
        let mut scene = Scene::simulcast();
        for width in order {
            scene.picture(u32::from(width), Some(width));
        }
        assert_eq!(scene.sections.recorded(0), Some(640), "{order:?}");
        scene.pass(33);
        let taken = order.map(|width| scene.picture(u32::from(width), None));
        assert_eq!(taken.iter().filter(|verdict| **verdict == Verdict::Media).count(), 1);
        assert_eq!(scene.wanted(), None, "all are measured");
    }
}

#[test]
fn an_encoding_of_unknown_size_is_asked_with_growing_pauses_and_taken_at_its_keyframe() {
    let mut scene = Scene::simulcast();
    scene.picture(160, Some(160));
    let mut asked = Vec::new();
    for _ in 0..200 {
        scene.pass(20);
        scene.picture(160, None);
        assert_eq!(scene.picture(640, None), Verdict::Drop);
        asked.extend(scene.wanted().map(|ssrc| (scene.ms, ssrc)));
    }
    assert_eq!(asked, [(120, 640), (620, 640), (1620, 640), (3620, 640)]);
    assert_eq!(scene.picture(640, Some(640)), WHOLE);
}

#[test]
fn the_next_largest_takes_over_at_its_keyframe_where_the_recorded_one_ends_and_gives_way_when_it_is_back() {
    let mut scene = Scene::simulcast();
    for width in [160, 320, 640] {
        scene.picture(u32::from(width), Some(width));
    }
    let mut asked = None;
    while asked.is_none() {
        scene.pass(33);
        scene.picture(160, None);
        assert_eq!(scene.picture(320, None), Verdict::Drop);
        asked = scene.wanted();
    }
    assert_eq!((asked, scene.ms), (Some(320), 528));
    assert_eq!(scene.picture(320, None), Verdict::Drop, "not before its keyframe");
    assert_eq!(scene.picture(320, Some(320)), AFTER_A_HOLE);
    scene.pass(3000);
    assert_eq!(scene.picture(640, None), Verdict::Drop);
    assert_eq!(scene.wanted(), Some(640), "the larger is back");
    assert_eq!(scene.picture(640, Some(640)), WHOLE);
}

#[test]
fn slow_pictures_of_all_encodings_end_none() {
    let mut scene = Scene::simulcast();
    for width in [160, 640] {
        scene.picture(u32::from(width), Some(width));
    }
    for _ in 0..20 {
        scene.pass(1000);
        scene.picture(160, None);
        assert_eq!((scene.wanted(), scene.picture(640, None)), (None, Verdict::Media));
    }
}

#[test]
fn an_encoder_that_is_restarted_is_taken_at_once_and_the_old_one_does_not_come_between() {
    let mut scene = Scene::new(&[video(PacketIdentifiers::default())]);
    scene.picture(1, Some(640));
    scene.pass(33);
    assert_eq!(scene.picture(2, Some(640)), WHOLE);
    scene.pass(33);
    assert_eq!((scene.picture(1, Some(640)), scene.picture(2, None)), (Verdict::Drop, Verdict::Media));
}

#[test]
fn sound_from_a_new_source_is_taken_once_the_old_one_is_silent() {
    let mut scene = Scene::new(&[video(PacketIdentifiers::default()), audio()]);
    scene.sound(1);
    for _ in 0..50 {
        scene.pass(20);
        assert_eq!((scene.sound(1), scene.sound(2)), (Verdict::Media, Verdict::Drop));
    }
    let mut taken = Vec::new();
    while !matches!(taken.last(), Some(Verdict::Replaces { .. })) {
        scene.pass(20);
        taken.push(scene.sound(2));
    }
    assert_eq!((taken.len(), taken.last()), (5, Some(&WHOLE)), "{taken:?}");
    let kept = scene.sections.take_kept(1);
    assert!(kept.iter().all(|kept| kept.ssrc == 2));
    assert_eq!(kept.len(), 5, "what it has sent since the old one was heard");
    assert_eq!((scene.sound(2), scene.sections.take_kept(1).len()), (Verdict::Media, 0));
    scene.pass(1_000);
    let taken: Vec<Verdict> = (0..6)
        .map(|_| {
            scene.pass(20);
            scene.sound(4)
        })
        .collect();
    assert!(taken.contains(&AFTER_A_HOLE), "nothing was sent for a second: {taken:?}");
    scene.sections.bye(4);
    scene.pass(20);
    assert_eq!(scene.sound(2), WHOLE, "the one before has said goodbye");
}

#[test]
fn a_retransmission_is_the_recorded_sources_packet_or_nothing() {
    let identifiers = PacketIdentifiers {
        rid_id: Some(RID),
        repaired_rid_id: Some(REPAIRED),
        rtx_pairs: vec![(2, 12)],
        ..PacketIdentifiers::default()
    };
    let mut scene = Scene::new(&[video(identifiers)]);
    scene.picture(1, Some(160));
    scene.picture(2, Some(640));
    for (repair, payload_type, padding, expected) in
        [(12, 97, false, Some(96)), (12, 121, false, Some(120)), (11, 97, false, None), (12, 97, true, None)]
    {
        let payload: &[u8] = if padding { &[0] } else { &[0x12, 0x34, 0x10, 0x11, 1] };
        let head = head(repair, payload_type, scene.timestamp, None);
        let mut packet = Packet { header: Header::read(&head).unwrap(), payload };
        let now = scene.now();
        let (_, verdict) = scene.sections.take(&mut packet, now).unwrap();
        assert_eq!(verdict == Verdict::Media, expected.is_some(), "{payload_type} of {repair}");
        if let Some(payload_type) = expected {
            let header = &packet.header;
            assert_eq!((header.ssrc, header.payload_type, header.sequence), (2, payload_type, 0x1234));
            assert_eq!(packet.payload, [0x10, 0x11, 1]);
        }
    }
}

#[test]
fn a_packet_belongs_to_its_source_its_section_or_its_payload_type() {
    let identifiers = PacketIdentifiers { mid_id: Some(4), ..PacketIdentifiers::default() };
    let mut scene = Scene::new(&[video(identifiers), audio()]);
    for (payload_type, mid, track) in [
        (96, "v", Some(0)),
        (120, "unheard of", Some(0)),
        (121, "unheard of", Some(0)),
        (111, "a", Some(1)),
        (63, "unheard of", Some(1)),
        (96, "unheard of", Some(0)),
        (96, "refused", None),
        (35, "a", Some(1)),
        (35, "unheard of", None),
    ] {
        let ssrc = u32::from(payload_type) + 1000 * mid.len() as u32;
        let taken = scene.take_with((ssrc, payload_type), Some((4, mid.as_bytes())), &[0xfc, 1]);
        assert_eq!(taken.map(|(track, _)| track), track, "{payload_type} of {mid}");
    }
}

#[test]
fn sources_without_end_are_not_all_told_apart() {
    let mut scene = Scene::new(&[video(PacketIdentifiers::default())]);
    for ssrc in 0..1000 {
        scene.picture(ssrc, None);
    }
    assert_eq!(scene.sections.all[0].all.len(), MAX_SOURCES);
}

#[test]
fn sound_of_others_is_kept_only_while_the_recorded_one_is_silent_and_not_without_end() {
    let mut scene = Scene::new(&[video(PacketIdentifiers::default()), audio()]);
    scene.sound(1);
    for other in 0..10_000 {
        scene.sound(2 + other % 10);
        assert!(scene.sections.all[1].kept.len() <= MAX_KEPT);
    }
    scene.sound(1);
    assert!(scene.sections.all[1].kept.is_empty());
}
