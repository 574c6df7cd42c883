//! JPEG over plain HTTP: what is posted is seen at once and byte for byte, and is in a file that seeks.

use crate::support::judge::{self, Probe};
use crate::support::media;
use crate::support::server::Server;
use crate::support::user::{Api, SOON, eventually, files_in, on_air, on_air_again, stalled};
use crate::support::web::HookLog;
use futures_util::StreamExt;
use futures_util::future::join_all;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const NO_HOOK: &str = "hooks.on_record=";
const RESUME: &str = "onrecord-resume";
/// No step takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A camera that has sent its first image.
struct Camera {
    client: Client,
    url: String,
    token: String,
}

impl Camera {
    async fn start(server: &Server, name: &str, image: &[u8]) -> Self {
        let (client, url) = (Client::new(), server.url(&format!("/upload/{name}")));
        let answer = post(&client, &url, None, image.to_vec()).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let token = answer.headers()[RESUME].to_str().unwrap().to_owned();
        Self { client, url, token }
    }

    async fn post(&self, image: &[u8]) {
        let answer = post(&self.client, &self.url, Some(&self.token), image.to_vec()).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert!(!answer.headers().contains_key(RESUME), "the secret was told twice");
    }

    async fn end(&self) -> Value {
        let request = self.client.delete(&self.url).header(RESUME, &self.token);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }
}

async fn post(client: &Client, url: &str, token: Option<&str>, image: Vec<u8>) -> Response {
    let request = client.post(url).header(header::CONTENT_TYPE, "image/jpeg").body(image);
    with_token(request, token).send().await.unwrap()
}

fn with_token(request: RequestBuilder, token: Option<&str>) -> RequestBuilder {
    token.into_iter().fold(request, |request, token| request.header(RESUME, token))
}

fn part(image: &[u8]) -> Vec<u8> {
    let head = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", image.len());
    [head.as_bytes(), image, b"\r\n--frame\r\n"].concat()
}

/// What a viewer of `/stream` reads.
struct Viewer {
    response: Response,
    unread: Vec<u8>,
}

impl Viewer {
    async fn open(url: &str) -> Self {
        let response = reqwest::get(url).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "multipart/x-mixed-replace; boundary=frame");
        Self { response, unread: Vec::new() }
    }

    /// Waits for exactly these bytes.
    async fn reads(&mut self, expected: &[u8]) {
        while self.unread.len() < expected.len() {
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let Ok(Ok(Some(chunk))) = chunk else {
                panic!("{chunk:?} after {} of {} bytes", self.unread.len(), expected.len());
            };
            self.unread.extend_from_slice(&chunk);
        }
        let rest = self.unread.split_off(expected.len());
        assert!(self.unread == expected, "{} bytes are not those expected", expected.len());
        self.unread = rest;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_image_reaches_the_viewer_whole_before_the_next_is_posted() {
    let server = Server::start(&[NO_HOOK]);
    let images = media::jpegs(12, "320x180");
    let camera = Camera::start(&server, "cam", &images[0]).await;
    let mut viewer = Viewer::open(&server.url("/stream/cam")).await;
    viewer.reads(b"--frame\r\n").await;
    viewer.reads(&part(&images[0])).await;
    let mut slowest = Duration::ZERO;
    for image in &images[1..] {
        let posted = Instant::now();
        camera.post(image).await;
        viewer.reads(&part(image)).await;
        slowest = slowest.max(posted.elapsed());
        let snapshot = reqwest::get(server.url("/snapshot/cam.jpg")).await.unwrap();
        assert_eq!(snapshot.headers()[header::CONTENT_TYPE], "image/jpeg");
        assert!(snapshot.bytes().await.unwrap() == image, "the snapshot is another image");
    }
    println!("from POST to the whole part at the viewer: at most {slowest:?}");

    // Silence: the newest again, but not before five seconds.
    let silent = Instant::now();
    viewer.reads(&part(&images[11])).await;
    let repeated = silent.elapsed();
    println!("repeated after {repeated:?} of silence");
    assert!(repeated > Duration::from_millis(4_500), "repeated after {repeated:?}");

    let last = camera.end().await;
    assert_eq!(last["status"], "UNPUBLISHED", "{last}");
    viewer.reads(b"--frame--\r\n").await;
    let end = tokio::time::timeout(PATIENCE, viewer.response.chunk()).await.unwrap().unwrap();
    assert_eq!(end, None, "bytes behind the end");
    assert_eq!(camera.end().await, last, "who asks again hears the same");
    let gone = reqwest::get(server.url("/snapshot/cam.jpg")).await.unwrap();
    assert_eq!(error_of(gone).await, (404, "stream_not_found".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_who_is_early_waits_in_a_viewers_place_and_sees_the_first_picture() {
    let mut server = Server::start(&[NO_HOOK, "limits.max_viewers=2"]);
    let image = media::jpegs(1, "320x180").remove(0);
    let mut early = Viewer::open(&server.url("/stream/cam")).await;
    let other = Viewer::open(&server.url("/stream/never")).await;
    let full = reqwest::get(server.url("/stream/cam")).await.unwrap();
    assert_eq!(error_of(full).await, (503, "limit_reached".to_owned()));
    let camera = Camera::start(&server, "cam", &image).await;
    early.reads(b"--frame\r\n").await;
    early.reads(&part(&image)).await;
    camera.end().await;
    early.reads(b"--frame--\r\n").await;
    let began = Instant::now();
    assert!(server.stop(SOON).is_some_and(|status| status.success()));
    println!("stopped with somebody waiting after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5), "a viewer who waits holds the stop up");
    drop(other);
}

/// The parts of an answer that ends, each with its time.
async fn timed(url: &str) -> Vec<(u64, Vec<u8>)> {
    let (parts, _, last) = told(url).await;
    assert_eq!(last, None);
    parts
}

/// The parts of an answer that ends, each with its time; which of them say that there is damage before them;
/// and what the last one says, if that is an error.
async fn told(url: &str) -> (Vec<(u64, Vec<u8>)>, Vec<usize>, Option<Value>) {
    let body = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let (mut rest, mut parts) = (body.strip_prefix(b"--frame\r\n").expect("it opens"), Vec::new());
    let mut damaged = Vec::new();
    while !rest.starts_with(b"--frame--\r\n") {
        let head = find(rest, b"\r\n\r\n").expect("a head") + 4;
        let text = String::from_utf8(rest[..head].to_vec()).unwrap().to_lowercase();
        let number = |name: &str| -> u64 {
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            value.trim().parse().unwrap()
        };
        let end = head + number("content-length:") as usize;
        if text.contains("content-type: application/json") {
            assert_eq!(&rest[end..], b"\r\n--frame--\r\n");
            return (parts, damaged, Some(serde_json::from_slice(&rest[head..end]).unwrap()));
        }
        if text.contains("onrecord-damaged:") {
            damaged.push(parts.len());
        }
        parts.push((number("onrecord-time:"), rest[head..end].to_vec()));
        rest = rest[end..].strip_prefix(b"\r\n--frame\r\n").expect("a boundary right behind the picture");
    }
    (parts, damaged, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_at_a_damaged_recording_of_pictures_is_told_where_it_is_damaged() {
    let server = Server::start(&[NO_HOOK, "record.flush_interval=200ms"]);
    let images = media::jpegs(20, "320x180");
    let camera = Camera::start(&server, "cam", &images[0]).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for image in &images[1..] {
        ticks.tick().await;
        camera.post(image).await;
    }
    let recording = camera.end().await["recording"].clone();
    let url = format!("{}/pictures", server.url(recording["url"].as_str().unwrap()));
    let file = server.records().join(recording["file"].as_str().unwrap());
    let whole = std::fs::read(&file).unwrap();
    let place = |image: &[u8]| whole.windows(image.len()).position(|window| window == image).unwrap();

    // Where a cluster begins there is nothing any more.
    let clusters: Vec<_> =
        (0..whole.len() - 4).filter(|at| whole[*at..].starts_with(&[0x1f, 0x43, 0xb6, 0x75])).collect();
    let mut hurt = whole.clone();
    hurt[clusters[1]..clusters[1] + 12].fill(0);
    std::fs::write(&file, &hurt).unwrap();
    let (parts, damaged, last) = told(&url).await;
    println!("{} of {} pictures, damage before {damaged:?}", parts.len(), images.len());
    let before = images.iter().filter(|image| place(image) < clusters[1]).count();
    assert!(parts.len() < images.len() && parts.len() > before, "{} pictures", parts.len());
    assert_eq!((damaged, last), (vec![before], None), "where the damage is");

    // Its end is missing, or is not to be read.
    let mut zeros = whole.clone();
    zeros[place(&images[12])..].fill(0);
    for hurt in [&whole[..place(&images[12])], &zeros] {
        std::fs::write(&file, hurt).unwrap();
        let (parts, damaged, last) = told(&url).await;
        let last = last.expect("an error at the end");
        println!("{} pictures, then {last}", parts.len());
        assert!((10..=12).contains(&parts.len()) && damaged.is_empty(), "{} pictures", parts.len());
        assert!(parts.iter().map(|part| &part.1).eq(&images[..parts.len()]), "other pictures");
        assert_eq!(last["code"], "internal");
        let from = format!("from {:.1} s on", parts.last().unwrap().0 as f64 / 1000.0);
        assert!(last["message"].as_str().unwrap().contains(&from), "{last}, {from}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_of_pictures_is_shown_at_their_times_from_any_on() {
    let server = Server::start(&[NO_HOOK, "limits.max_viewers=1"]);
    let images = media::jpegs(20, "320x180");
    let camera = Camera::start(&server, "cam", &images[0]).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(150));
    for image in &images[1..] {
        ticks.tick().await;
        camera.post(image).await;
    }
    let recording = camera.end().await["recording"].clone();
    let url = format!("{}/pictures", server.url(recording["url"].as_str().unwrap()));
    let file = server.records().join(recording["file"].as_str().unwrap());
    let times: Vec<_> =
        judge::packets_of(&file, "video").iter().map(|packet| packet.time.as_millis() as u64).collect();
    let began = Instant::now();
    let all = timed(&url).await;
    let took = began.elapsed();
    println!("{} pictures of {} ms in {took:?}", all.len(), recording["duration_ms"]);
    assert!(took >= Duration::from_millis(times[19] - times[0]), "faster than they came: {took:?}");
    assert_eq!(all.iter().map(|part| part.0).collect::<Vec<_>>(), times);
    assert!(all.iter().map(|part| &part.1).eq(&images), "other pictures");
    for from in [times[7], times[7] - 1, times[7] - 20] {
        let some = timed(&format!("{url}?from={from}")).await;
        assert_eq!(some.iter().map(|part| part.0).collect::<Vec<_>>(), times[7..], "from {from}");
    }
    assert_eq!(timed(&format!("{url}?from=99999999")).await, []);
    let looking = reqwest::get(&url).await.unwrap();
    let full = reqwest::get(&url).await.unwrap();
    assert_eq!(error_of(full).await, (503, "limit_reached".to_owned()), "not counted as a viewer");
    drop(looking);
    let id = recording["id"].as_str().unwrap();
    assert_eq!(Api::of(&server).call(Method::DELETE, &format!("/api/recordings/{id}")).await.0, 204);
    for path in [url.clone(), server.url(recording["url"].as_str().unwrap())] {
        let gone = reqwest::get(path).await.unwrap();
        assert_eq!(error_of(gone).await, (410, "recording_not_found".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_images_in_one_body_each_is_a_frame_at_a_time_of_its_own() {
    let server = Server::start(&[NO_HOOK]);
    let images = media::jpegs(5, "320x180");
    let client = Client::new();
    let url = server.url("/upload/cam");
    let request = client.post(&url).header(header::CONTENT_TYPE, "image/jpg").body(images[..2].concat());
    let first = request.send().await.unwrap();
    assert_eq!(first.status(), StatusCode::NO_CONTENT, "image/jpg");
    let token = first.headers()[RESUME].to_str().unwrap().to_owned();
    let padded = [images[2..].concat(), vec![0; 100]].concat();
    assert_eq!(post(&client, &url, Some(&token), padded).await.status(), StatusCode::NO_CONTENT);
    let last = Camera { client, url, token }.end().await;
    let file = server.records().join(last["recording"]["file"].as_str().unwrap());
    let kept = judge::packets_of(&file, "video");
    let hashes: Vec<_> = kept.iter().map(|packet| packet.sha256.clone()).collect();
    assert_eq!(hashes, images.iter().map(|image| judge::sha256(image)).collect::<Vec<_>>());
    assert!(kept.windows(2).all(|pair| pair[0].time < pair[1].time), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_become_a_matroska_file_that_plays_and_seeks_with_every_byte() {
    let hook = HookLog::new();
    let server = Server::start(&[&hook.setting()]);
    // The camera is turned in mid-stream. Not the other way round: where the first picture has less than
    // three quarters of the header's height, ffmpeg takes it for one of two fields.
    let mut images = media::jpegs(30, "180x320");
    images.extend(media::jpegs(30, "320x180"));
    let camera = Camera::start(&server, "front%20door", &images[0]).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for image in &images[1..] {
        ticks.tick().await;
        camera.post(image).await;
    }
    let last = camera.end().await;
    let recording = &last["recording"];
    let runs = hook.ran(1, PATIENCE).await;
    let file = &runs[0].1;
    assert_eq!(runs[0].0, "front door");
    assert!(recording["url"].as_str().unwrap().ends_with(".mkv"), "{last}");
    assert_eq!(file.file_name().unwrap().to_str(), recording["file"].as_str());

    judge::decode(file).unwrap();
    let probe = Probe::of(file);
    assert_eq!(probe.stream("video").unwrap().codec_name, "mjpeg");
    assert!(probe.duration().unwrap() > Duration::from_secs(2), "{probe:?}");
    assert!(!judge::cue_times(file).is_empty(), "no cues");
    let kept: Vec<_> = judge::packets_of(file, "video").into_iter().map(|packet| packet.sha256).collect();
    let sent: Vec<_> = images.iter().map(|image| judge::sha256(image)).collect();
    assert!(kept == sent, "{} images sent, {} in the file", sent.len(), kept.len());
    assert_eq!(judge::picture_sizes(file).len(), 2);
    let manifest = Api::of(&server).recording(recording["id"].as_str().unwrap()).await;
    let track = &manifest["tracks"][0];
    assert_eq!((&manifest["mime"], &track["codec"]), (&json!("video/x-matroska"), &json!("mjpeg")));
    assert_eq!((&track["frames"], &manifest["end_reason"]), (&json!(60), &json!("stopped")), "{manifest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffprobe_reads_a_live_stream() {
    let server = Server::start(&[NO_HOOK]);
    let images = media::jpegs(10, "320x180");
    let camera = Camera::start(&server, "cam", &images[0]).await;
    let mut probe = tokio::process::Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-f",
            "mpjpeg",
            "-show_entries",
            "stream=codec_name,width,height",
            "-of",
            "csv",
        ])
        .arg(server.url("/stream/cam"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut output = probe.stdout.take().unwrap();
    let feed = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for image in images.iter().cycle() {
            ticks.tick().await;
            camera.post(image).await;
        }
    };
    tokio::select! {
        read = output.read_to_string(&mut said) => drop(read.unwrap()),
        () = feed => {}
        () = tokio::time::sleep(PATIENCE) => panic!("ffprobe reads for ever"),
    }
    assert_eq!(said.trim(), "stream,mjpeg,320,180");
    assert!(probe.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_reads_nothing_costs_one_image_and_is_cut_off() {
    const VIEWERS: usize = 20;
    const MIB: u64 = 1 << 20;
    // What is recorded waits in memory for its write, which is another measurement.
    let server = Server::start(&[NO_HOOK, "mjpeg.record=false"]);
    let small = media::jpegs(1, "320x180").remove(0);
    let image = media::heavy_jpeg(&small, MIB as usize);
    let camera = Camera::start(&server, "cam", &image).await;
    for _ in 0..20 {
        camera.post(&image).await;
    }
    let (alone, open) = (server.memory(), server.open_files());
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        viewers.push(stalled(&server, "/stream/cam").await);
    }
    eventually("all viewers there", SOON, async || (server.open_files() >= open + VIEWERS).then_some(()))
        .await;
    let (mut most, began) = (0, Instant::now());
    for _ in 0..200 {
        camera.post(&image).await;
        most = server.memory().max(most);
    }
    let grown = most.saturating_sub(alone);
    println!(
        "{VIEWERS} stalled viewers, 200 images of {:.2} MiB in {:?}: {:.1} MiB more than alone ({:.1} MiB)",
        image.len() as f64 / MIB as f64,
        began.elapsed(),
        grown as f64 / MIB as f64,
        alone as f64 / MIB as f64
    );
    // One image each, and what an allocator keeps of those that came and went.
    assert!(grown < (2 * VIEWERS as u64) * MIB, "{grown} bytes for {VIEWERS} viewers");
    // A silent stream has nothing more to give them; they still owe us the reading of what they got.
    eventually("stalled viewers are cut off", PATIENCE, async || {
        (server.open_files() <= open + 1).then_some(())
    })
    .await;
    drop(viewers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_viewers_see_a_stream_and_slow_down_nobody() {
    const VIEWERS: usize = 200;
    const IMAGES: usize = 50;
    let server = Server::start(&[NO_HOOK]);
    let images = media::jpegs(IMAGES, "640x360");
    let camera = Camera::start(&server, "cam", &images[0]).await;
    let client = Client::new();
    let opened = (0..VIEWERS).map(|_| client.get(server.url("/stream/cam")).send());
    let viewers = join_all(opened).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let counting = viewers.into_iter().map(|viewer| {
        tokio::spawn(async move {
            let mut bytes = viewer.bytes_stream();
            let mut count = 0;
            while let Some(chunk) = bytes.next().await {
                count += chunk.unwrap().len();
            }
            count
        })
    });
    let counting: Vec<_> = counting.collect();
    let (before, began) = (server.cpu(), Instant::now());
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut slowest = Duration::ZERO;
    for image in &images[1..] {
        ticks.tick().await;
        let posted = Instant::now();
        camera.post(image).await;
        slowest = slowest.max(posted.elapsed());
    }
    let (cpu, wall) = (server.cpu() - before, began.elapsed());
    camera.end().await;
    let sizes: Vec<usize> = images.iter().map(|image| part(image).len()).collect();
    let all = sizes.iter().sum::<usize>() * VIEWERS;
    let received: usize = join_all(counting).await.into_iter().map(Result::unwrap).sum();
    let share = received as f64 / all as f64;
    let delivered = share * (VIEWERS * IMAGES) as f64;
    println!(
        "{VIEWERS} viewers, {IMAGES} images of {} kB in {wall:?}: {:.1} % delivered, {:.1} µs of CPU each; \
         the slowest POST took {slowest:?}",
        images[0].len() / 1000,
        share * 100.0,
        cpu.as_secs_f64() * 1e6 / delivered,
    );
    assert!(share > 0.5, "{:.1} % delivered", share * 100.0);
}

async fn error_of(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert!(body["message"].as_str().is_some_and(|message| message.len() > 10), "{body}");
    (status, body["code"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_image_of_this_publisher_gets_the_contracts_error() {
    let server = Server::start(&[NO_HOOK, "mjpeg.max_frame=64KiB"]);
    let image = media::jpegs(1, "320x180").remove(0);
    let large = media::heavy_jpeg(&image, 70 << 10);
    let camera = Camera::start(&server, "cam", &image).await;
    let client = Client::new();
    let cut = image[..image.len() / 2].to_vec();
    let without_end = image[..image.len() - 2].to_vec();
    let png = b"\x89PNG\r\n\x1a\n and so on".to_vec();
    let (own, other) = (Some(camera.token.as_str()), Some("0123456789abcdefghjkmnpqrs"));
    let jpeg = "image/jpeg";
    type Case<'a> = (&'a str, Option<&'a str>, &'a str, Vec<u8>, u16, &'a str);
    let table: Vec<Case<'_>> = vec![
        ("cam", own, jpeg, Vec::new(), 400, "bad_blob"),
        ("cam", own, jpeg, png.clone(), 400, "bad_blob"),
        ("cam", own, jpeg, cut, 400, "bad_blob"),
        ("cam", own, jpeg, without_end, 400, "bad_blob"),
        ("cam", own, jpeg, vec![0xff, 0xd8, 0xff, 0xd9], 400, "bad_blob"),
        ("cam", own, jpeg, large, 413, "too_large"),
        ("cam", own, "image/png", png, 415, "bad_type"),
        ("cam", own, "", image.clone(), 415, "bad_type"),
        ("cam", other, jpeg, image.clone(), 409, "stream_busy"),
        ("cam", None, jpeg, image.clone(), 409, "stream_busy"),
        ("new", other, jpeg, image.clone(), 410, "resume_expired"),
        ("..%2F..%2Fetc", None, jpeg, image.clone(), 400, "bad_name"),
        ("%FF", None, jpeg, image.clone(), 400, "bad_name"),
    ];
    for (name, token, kind, body, status, code) in table {
        let url = server.url(&format!("/upload/{name}"));
        let request = client.post(url).header(header::CONTENT_TYPE, kind).body(body);
        let answer = with_token(request, token).send().await.unwrap();
        assert_eq!(error_of(answer).await, (status, code.to_owned()), "{name} {token:?} {kind}");
    }
    let ends = [
        ("cam", other, 409, "stream_busy"),
        ("cam", None, 409, "stream_busy"),
        ("new", other, 404, "stream_not_found"),
    ];
    for (name, token, status, code) in ends {
        let request = client.delete(server.url(&format!("/upload/{name}")));
        let answer = with_token(request, token).send().await.unwrap();
        assert_eq!(error_of(answer).await, (status, code.to_owned()), "DELETE {name} {token:?}");
    }
    let answer = client.get(server.url("/snapshot/new.jpg")).send().await.unwrap();
    assert_eq!(error_of(answer).await, (404, "stream_not_found".to_owned()));
    let wrong = client.get(server.url("/snapshot/cam.png")).send().await.unwrap();
    assert_eq!(wrong.status(), 404);
    camera.post(&image).await;
    let last = camera.end().await;
    let manifest = Api::of(&server).recording(last["recording"]["id"].as_str().unwrap()).await;
    assert_eq!(manifest["tracks"][0]["frames"], 2, "what was refused is not in the file: {manifest}");
    Api::of(&server).nobody_is_on_air().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_stream_needs_no_secret_and_takes_images_from_many_at_once() {
    let server = Server::start(&[NO_HOOK]);
    let client = Client::new();
    let images = media::jpegs(20, "320x180");
    let url = server.url("/upload");
    let answers = join_all(images.iter().map(|image| post(&client, &url, None, image.clone()))).await;
    let first = answers.iter().filter(|answer| answer.headers().contains_key(RESUME)).count();
    assert_eq!(first, 1, "streams were begun");
    for answer in &answers {
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
    let wrong = post(&client, &url, Some("wrong"), images[0].clone()).await;
    assert_eq!(error_of(wrong).await, (409, "stream_busy".to_owned()));
    let streams = Api::of(&server).streams().await;
    assert_eq!((&streams[0]["stream"], &streams[0]["via"]), (&json!("default"), &json!("mjpeg")));
    let mut viewer = Viewer::open(&server.url("/stream")).await;
    viewer.reads(b"--frame\r\n").await;
    let last: Value = client.delete(&url).send().await.unwrap().json().await.unwrap();
    let file = server.records().join(last["recording"]["file"].as_str().unwrap());
    let mut kept: Vec<_> = judge::packets_of(&file, "video").into_iter().map(|one| one.sha256).collect();
    let mut sent: Vec<_> = images.iter().map(|image| judge::sha256(image)).collect();
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_falls_silent_has_a_file_and_its_viewers_hear_the_end() {
    let server = Server::start(&[NO_HOOK, "mjpeg.idle_timeout=500ms"]);
    let image = media::jpegs(1, "320x180").remove(0);
    let camera = Camera::start(&server, "cam", &image).await;
    let mut viewer = Viewer::open(&server.url("/stream/cam")).await;
    viewer.reads(&[b"--frame\r\n", part(&image).as_slice(), b"--frame--\r\n"].concat()).await;
    let sealed = Api::of(&server).sealed(SOON).await;
    assert_eq!(
        (&sealed["end_reason"], &sealed["tracks"][0]["frames"]),
        (&json!("publisher_lost"), &json!(1))
    );
    let late = post(&camera.client, &camera.url, Some(&camera.token), image.clone()).await;
    assert_eq!(error_of(late).await, (410, "resume_expired".to_owned()));
    assert_eq!(camera.end().await["recording"]["id"], sealed["id"], "its owner can still ask");
    Camera::start(&server, "cam", &image).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_images_that_become_a_whole_file() {
    let settings = [NO_HOOK, "record.flush_interval=100ms"];
    let server = Server::start(&settings);
    let images = media::jpegs(20, "320x180");
    let camera = Camera::start(&server, "cam", &images[0]).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for image in &images[1..] {
        ticks.tick().await;
        camera.post(image).await;
    }
    eventually("a part that has been written", SOON, async || {
        let parts = files_in(&server.records()).into_iter().filter(|file| file.ends_with(".mkv.part"));
        let sizes = parts.map(|file| std::fs::metadata(server.records().join(file)).unwrap().len());
        (sizes.sum::<u64>() > images.iter().map(|image| image.len() as u64).sum::<u64>() / 2).then_some(())
    })
    .await;
    let server = server.killed_and_started(&settings);
    let sealed = Api::of(&server).sealed(PATIENCE).await;
    assert_eq!(sealed["end_reason"], "server_crashed", "{sealed}");
    let file = server.records().join(sealed["file"].as_str().unwrap());
    assert!(file.extension().is_some_and(|suffix| suffix == "mkv"), "{file:?}");
    judge::decode(&file).unwrap();
    assert!(Probe::of(&file).duration().unwrap() > Duration::from_millis(400));
    assert!(!judge::cue_times(&file).is_empty(), "no cues");
    let kept: Vec<_> = judge::packets_of(&file, "video").into_iter().map(|one| one.sha256).collect();
    let sent: Vec<_> = images.iter().map(|image| judge::sha256(image)).collect();
    println!("{} of {} images are in the repaired file", kept.len(), sent.len());
    assert!(kept.len() >= 10 && kept == sent[..kept.len()], "{} images, or others", kept.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_goes_from_webrtc_to_jpeg_and_back_with_its_secret() {
    let server = Server::start(&[NO_HOOK]);
    let image = media::jpegs(1, "320x180").remove(0);
    let webrtc = on_air(&server, "cam").await;
    let (client, url) = (Client::new(), server.url("/upload/cam"));
    let elsewhere = client.get(server.url("/stream/cam")).send().await.unwrap();
    let body: Value = elsewhere.json().await.unwrap();
    assert!(body["message"].as_str().unwrap().contains("/watch/cam"), "{body}");
    let stranger = post(&client, &url, Some("wrong"), image.clone()).await;
    assert_eq!(error_of(stranger).await, (409, "stream_busy".to_owned()));

    let taken = post(&client, &url, Some(&webrtc.resume), image.clone()).await;
    assert_eq!(taken.status(), StatusCode::NO_CONTENT);
    let api = Api::of(&server);
    let via = async |way: &str| {
        eventually(way, SOON, async || api.streams().await.iter().any(|one| one["via"] == way).then_some(()))
            .await;
    };
    via("mjpeg").await;
    let mut viewer = Viewer::open(&server.url("/stream/cam")).await;
    viewer.reads(&[b"--frame\r\n", part(&image).as_slice()].concat()).await;
    let back = on_air_again(&server, "cam", Some(&webrtc.resume)).await;
    via("webrtc").await;
    viewer.reads(b"--frame--\r\n").await;
    back.sends(20).await;
    back.stop().await;
    let recordings = api.recordings().await;
    let suffixes: Vec<_> =
        recordings.iter().map(|one| one["file"].as_str().unwrap().rsplit_once('.').unwrap().1).collect();
    assert_eq!(suffixes, ["webm", "mkv", "webm"], "{recordings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_page_passes_every_preflight_and_a_foreign_one_does_not() {
    let server = Server::start(&[NO_HOOK, "server.cors_origins=[\"https://app.example.org\"]"]);
    let image = media::jpegs(1, "320x180").remove(0);
    let client = Client::new();
    let families = [
        ("/upload", "POST"),
        ("/upload/cam", "DELETE"),
        ("/stream/cam", "GET"),
        ("/snapshot/cam.jpg", "GET"),
        ("/live/cam.webm", "GET"),
        ("/whip/cam", "POST"),
        ("/api/streams/cam", "DELETE"),
        ("/recordings/file.mkv", "GET"),
    ];
    for (path, method) in families {
        for (origin, allowed) in [("https://app.example.org", true), ("https://evil.example", false)] {
            let answer = client
                .request(Method::OPTIONS, server.url(path))
                .header(header::ORIGIN, origin)
                .header("access-control-request-method", method)
                .header("access-control-request-headers", "content-type,onrecord-resume")
                .send()
                .await
                .unwrap();
            let head = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
            assert_eq!(head("access-control-allow-origin"), allowed.then_some(origin), "{path} {origin}");
            if allowed {
                assert_eq!(answer.status(), StatusCode::NO_CONTENT, "{path}");
                assert!(head("access-control-allow-methods").unwrap().contains(method), "{path}");
                let headers = head("access-control-allow-headers").unwrap().to_lowercase();
                assert!(headers.contains("content-type") && headers.contains(RESUME), "{path}: {headers}");
            }
        }
    }
    let post = |origin: &'static str| {
        let request = client.post(server.url("/upload/cam")).header(header::ORIGIN, origin);
        request.header(header::CONTENT_TYPE, "image/jpeg").body(image.clone()).send()
    };
    assert_eq!(
        error_of(post("https://evil.example").await.unwrap()).await,
        (403, "origin_denied".to_owned())
    );
    let taken = post("https://app.example.org").await.unwrap();
    assert_eq!(taken.status(), StatusCode::NO_CONTENT);
    let exposed = taken.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
    assert!(exposed.contains(RESUME), "{exposed}");
}

/// As `curl` shows it, which is how most people first look at a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_saves_the_stream_as_it_was_posted() {
    let server = Server::start(&[NO_HOOK, "mjpeg.idle_timeout=5m"]);
    let images = media::jpegs(2, "320x180");
    let camera = Camera::start(&server, "cam", &images[0]).await;
    let (url, file) = (server.url("/stream/cam"), server.folder().join("saved"));
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sN", "--max-time", "60", "-o"]).arg(&file).arg(&url).stdin(Stdio::null());
    let mut curl = curl.spawn().unwrap();
    let saved = || std::fs::read(&file).unwrap_or_default();
    let first = [b"--frame\r\n", part(&images[0]).as_slice()].concat();
    eventually("the first image is saved", PATIENCE, async || (saved() == first).then_some(())).await;
    let both = [first, part(&images[1])].concat();
    camera.post(&images[1]).await;
    eventually("the second image is saved", PATIENCE, async || (saved() == both).then_some(())).await;
    camera.end().await;
    assert!(curl.wait().await.unwrap().success());
    assert!(saved() == [both.as_slice(), b"--frame--\r\n"].concat());
}
