// The library against a server played by the test, in mocked time.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { media, peers, settle, sockets } from "./fakes.js";
import { createSession } from "../../www/lib/onrecord.js";

const RECORDING = { id: "1", stream: "t", file: "t_1.webm", url: "/recordings/t_1.webm", bytes: 10, duration_ms: 2000 };
const FAR = 60_000;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  sockets.length = peers.length = 0;
});

/** A stream whose offer was sent; `heard` collects what it and its session tell. */
async function offered(options = {}) {
  const session = createSession({ urlServer: "wss://host" });
  const stream = session.createStream({ name: "t", mediaStream: media, ...options });
  const heard = [];
  for (const event of ["PENDING", "PUBLISHING", "UNPUBLISHED", "FAILED", "reconnecting", "reconnected", "restarted", "warning"]) {
    stream.on(event, (_, detail) => heard.push(detail ? [event, detail] : event));
  }
  const published = stream.publish();
  published.catch(() => {});
  sockets[0].opened();
  await settle();
  return { session, stream, heard, published };
}

/** A stream that is being recorded. */
async function publishing(options) {
  const all = await offered(options);
  sockets[0].says({ type: "answer", stream: "t", sdp: "answer", resume: "secret", ice_servers: [] });
  sockets[0].says({ type: "status", stream: "t", status: "PUBLISHING" });
  await settle();
  peers[0].is("connected");
  return all;
}

const sealed = (reason = "stopped") => ({ type: "status", stream: "t", status: "UNPUBLISHED", reason, recording: RECORDING });

test("a stream goes from PENDING over PUBLISHING to UNPUBLISHED with its recording", async () => {
  const { stream, heard, published } = await publishing();
  assert.equal(await published, stream);
  assert.equal(stream.getRecordInfo(), null);
  const stopped = stream.stop();
  assert.deepEqual(sockets[0].sent.at(-1), { type: "stop", stream: "t" });
  sockets[0].says(sealed());
  const info = await stopped;
  assert.equal(`${info}`, "t_1.webm");
  assert.equal(info.url, "https://host/recordings/t_1.webm");
  assert.deepEqual(heard, ["PENDING", "PUBLISHING", "UNPUBLISHED"]);
});

test("candidates follow their offer and an empty one ends them", async () => {
  const { stream } = await offered();
  peers[0].found("candidate:1");
  peers[0].found(null);
  const types = sockets[0].sent.map(({ type, candidate }) => [type, candidate?.candidate]);
  assert.deepEqual(types, [["publish", undefined], ["candidate", "candidate:1"], ["candidate", ""]]);
  assert.equal(stream.status(), "PENDING");
});

test("candidates of the server that come before its answer wait for it", async () => {
  await offered();
  sockets[0].says({ type: "candidate", stream: "t", candidate: { candidate: "candidate:2", sdpMid: "0" } });
  assert.deepEqual(peers[0].candidates, []);
  sockets[0].says({ type: "answer", sdp: "answer", resume: "secret", ice_servers: [{ urls: ["turn:t"] }] });
  await settle();
  assert.equal(peers[0].candidates.length, 1);
  assert.deepEqual(peers[0].configuration.iceServers, [{ urls: ["turn:t"] }]);
});

test("a lost socket is opened again and the stream is offered with its resume secret", async () => {
  const { stream, heard } = await publishing();
  sockets[0].lost();
  mock.timers.tick(1000);
  assert.equal(sockets.length, 2, "no second socket within 1 s");
  sockets[1].opened();
  await settle();
  assert.deepEqual(sockets[1].of("publish").map(({ resume, sdp }) => [resume, sdp]), [["secret", "offer 0.2"]]);
  assert.equal(peers[0].restarts, 0, "the path holds: a restart would cost some sound");
  sockets[1].says({ type: "status", stream: "t", status: "PUBLISHING" });
  assert.deepEqual(heard, ["PENDING", "PUBLISHING"], "the page is not told twice");
  assert.equal(stream.status(), "PUBLISHING");
});

test("a stop said while the socket is away is said on the next one", async () => {
  const { stream, heard } = await publishing();
  sockets[0].lost();
  stream.stop();
  mock.timers.tick(1000);
  sockets[1].opened();
  await settle();
  assert.deepEqual(sockets[1].sent.map(({ type }) => type), ["publish", "stop"]);
  sockets[1].says(sealed());
  assert.deepEqual(heard, ["PENDING", "PUBLISHING", "UNPUBLISHED"]);
});

test("a stop that is never answered fails within 20 s", async () => {
  const { stream } = await publishing();
  const stopped = stream.stop();
  mock.timers.tick(20_000);
  await assert.rejects(stopped, { code: "unreachable" });
  assert.equal(stream.status(), "FAILED");
});

for (const reason of ["publisher_lost", "server_stopped", "server_crashed"]) {
  test(`after ${reason} a new recording begins by itself`, async () => {
    const { stream, heard } = await publishing();
    sockets[0].says(sealed(reason));
    mock.timers.tick(1000);
    const socket = sockets.at(-1);
    if (socket.readyState === 0) socket.opened();
    await settle();
    const offer = socket.of("publish").at(-1);
    assert.deepEqual([offer.sdp, offer.resume], ["offer 1.1", undefined]);
    socket.says({ type: "answer", sdp: "answer", resume: "other", ice_servers: [] });
    socket.says({ type: "status", stream: "t", status: "PUBLISHING" });
    const [event, detail] = heard.at(-1);
    assert.deepEqual([event, detail.reason, `${detail.recording}`], ["restarted", reason, "t_1.webm"]);
    stream.stop();
    socket.says({ ...sealed(), recording: { ...RECORDING, file: "t_2.webm" } });
    assert.deepEqual(stream.getRecordInfos().map(String), ["t_1.webm", "t_2.webm"]);
  });
}

test("a secret that is over leads to a new publication", async () => {
  const { stream } = await publishing();
  sockets[0].lost();
  mock.timers.tick(1000);
  sockets[1].opened();
  await settle();
  sockets[1].says({ type: "error", stream: "t", code: "resume_expired", message: "over" });
  await settle();
  assert.equal(sockets[1].of("publish").at(-1).resume, undefined);
  assert.equal(stream.status(), "PENDING");
});

test("an end that the operator wanted is the end", async () => {
  const { stream } = await publishing();
  sockets[0].says(sealed("kicked"));
  assert.equal(stream.status(), "UNPUBLISHED");
  assert.equal(peers.length, 1);
});

test("a lost path restarts ICE after a second and tells", async () => {
  const { heard } = await publishing();
  peers[0].is("disconnected");
  mock.timers.tick(900);
  assert.equal(peers[0].restarts, 0);
  mock.timers.tick(200);
  await settle();
  assert.equal(peers[0].restarts, 1);
  peers[0].is("connected");
  assert.deepEqual(heard.slice(2), [["reconnecting", { attempt: 1 }], "reconnected"]);
});

test("a connection that the server closes is made anew after a second", async () => {
  const { heard } = await publishing();
  peers[0].is("connected");
  peers[0].goodbye();
  mock.timers.tick(900);
  assert.equal(peers.length, 1, "it may say why");
  mock.timers.tick(200);
  await settle();
  assert.deepEqual([peers.length, peers[0].restarts], [2, 0]);
  assert.equal(sockets[0].of("publish").at(-1).resume, "secret");
  sockets[0].says({ type: "answer", stream: "t", sdp: "answer", resume: "secret", ice_servers: [] });
  peers[1].is("connected");
  assert.deepEqual(heard.slice(2), [["reconnecting", { attempt: 1 }], "reconnected"]);
});

test("a connection that the server closes for a reason isn't made anew", async () => {
  const { stream } = await publishing();
  peers[0].is("connected");
  peers[0].goodbye();
  sockets[0].says(sealed("kicked"));
  mock.timers.tick(2000);
  await settle();
  assert.deepEqual([stream.status(), peers.length], ["UNPUBLISHED", 1]);
});

test("an offer without an answer takes a new socket after 10 s", async () => {
  await offered();
  mock.timers.tick(10_000);
  assert.equal(sockets[0].readyState, 3);
  mock.timers.tick(1000);
  assert.equal(sockets.length, 2);
});

test("a refusal fails the stream with the server's words", async () => {
  const { stream, published } = await offered();
  sockets[0].says({ type: "error", stream: "t", code: "stream_busy", message: "taken" });
  await assert.rejects(published, { code: "stream_busy", message: "taken" });
  assert.equal(stream.getError().code, "stream_busy");
});

test("an error about something small is a warning", async () => {
  const { stream, heard } = await publishing();
  sockets[0].says({ type: "error", stream: "t", code: "bad_request", message: "what candidate?" });
  assert.equal(stream.status(), "PUBLISHING");
  assert.equal(heard.at(-1)[0], "warning");
});

test("a stop before anything was sent needs no server", async () => {
  const session = createSession({ urlServer: "wss://host" });
  const stream = session.createStream({ name: "t", mediaStream: media });
  const published = stream.publish();
  assert.equal(await stream.stop(), null);
  assert.equal(stream.status(), "UNPUBLISHED");
  await assert.rejects(published, { code: "stopped" });
});

test("a server that was never there fails session and stream at once", async () => {
  const session = createSession({ urlServer: "wss://host" });
  const stream = session.createStream({ name: "t", mediaStream: media });
  const published = stream.publish();
  sockets[0].lost();
  await settle();
  assert.equal(session.status(), "FAILED");
  await assert.rejects(published, { code: "unreachable" });
  assert.match(stream.getError().message, /host can't be reached/);
});

test("a server that hangs up each time is given up after 15 s", async () => {
  const { stream } = await offered();
  for (let second = 0; second < 16; second += 1) {
    const socket = sockets.at(-1);
    if (socket.readyState === 0) socket.opened();
    if (socket.readyState === 1) socket.lost();
    mock.timers.tick(1000);
    await settle();
  }
  assert.equal(stream.status(), "FAILED");
  assert.ok(sockets.length < 12, `${sockets.length} sockets in 15 s`);
});

test("ESTABLISHED is told once and DISCONNECTED when nobody tries any more", async () => {
  const heard = [];
  const { session } = await publishing();
  for (const event of ["ESTABLISHED", "DISCONNECTED", "reconnecting", "reconnected"]) session.on(event, () => heard.push(event));
  await settle();
  sockets[0].lost();
  mock.timers.tick(1000);
  sockets[1].opened();
  await settle();
  sockets[1].says({ ...sealed() });
  sockets[1].lost();
  assert.deepEqual(heard, ["ESTABLISHED", "reconnecting", "reconnected", "DISCONNECTED"]);
  mock.timers.tick(FAR);
  assert.equal(sockets.length, 2, "a finished session opened another socket");
});

test("a session that the server closes because it is silent wakes with the next stream", async () => {
  const session = createSession({ urlServer: "wss://host" });
  sockets[0].opened();
  sockets[0].lost(4400);
  mock.timers.tick(FAR);
  assert.deepEqual([session.status(), sockets.length], ["ESTABLISHED", 1]);
  session.createStream({ name: "t", mediaStream: media }).publish();
  await settle();
  sockets[1].opened();
  await settle();
  assert.equal(sockets[1].of("publish").length, 1);
});

test("a full disk ends a stream with its file, says why, and is not tried again", async () => {
  const { stream } = await publishing();
  const sent = sockets[0].of("publish").length;
  sockets[0].says(sealed("disk_full"));
  assert.deepEqual([stream.status(), stream.getEndReason(), String(stream.getRecordInfo())], ["UNPUBLISHED", "disk_full", RECORDING.file]);
  mock.timers.tick(FAR);
  await settle();
  assert.equal(sockets[0].of("publish").length, sent, "it published again");
});

test("two streams of one session hear only what is theirs", async () => {
  const { session, stream } = await publishing();
  const other = session.createStream({ name: "u", mediaStream: media });
  other.publish();
  await settle();
  sockets[0].says({ type: "status", stream: "u", status: "FAILED", code: "disk_full", message: "full" });
  assert.deepEqual([stream.status(), other.status(), other.getError().code], ["PUBLISHING", "FAILED", "disk_full"]);
  const twin = session.createStream({ name: "t", mediaStream: media });
  await assert.rejects(twin.publish(), { code: "stream_busy" });
  assert.equal(stream.status(), "PUBLISHING");
});

test("a mode that doesn't exist is refused by its name", async () => {
  const { stream } = await offered({ mode: "pigeon" });
  assert.equal(stream.getError().code, "unsupported_mode");
  assert.match(stream.getError().message, /pigeon/);
});
