// Says what a browser's <video> shows and plays of a recording, in the manner of observe.py. Run in a page of
// another site; window.look(url, targets, sampled, seeks) promises it.
(() => {
  const [WINDOW, ROUND] = [3, 10];
  /** Of what is drawn to be looked at. */
  const [WIDTH, HEIGHT] = [160, 16];

  /** Seconds around a beep in which the clocks are read, and by which the sound's may stumble there. */
  const [AROUND, STUMBLE] = [1.2, 0.035];
  /** Of so many beeps that are unclear. */
  const AGAIN = 4;

  /** Says when samples are loud, by the context's time, which the page's own thread knows too late. */
  const LISTENER = `registerProcessor("listener", class extends AudioWorkletProcessor {
    process([[samples]]) {
      const at = samples?.findIndex((sample) => Math.abs(sample) > 0.05) ?? -1;
      if (at >= 0) this.port.postMessage(currentTime + at / sampleRate);
      return true;
    }
  });`;

  const seconds = (ms) => new Promise((done) => setTimeout(done, ms * 1000));
  const event = (target, name) => new Promise((done, failed) => {
    target.addEventListener(name, done, { once: true });
    target.addEventListener("error", () => failed(new Error(target.error?.message ?? "no reason")), { once: true });
    setTimeout(() => failed(new Error(`no ${name}`)), 30_000);
  });

  /** Which moment a picture is: where its bar is. */
  function phase(video, canvas) {
    const [width, height] = [video.videoWidth, video.videoHeight];
    canvas.drawImage(video, 0, height * 0.85, width, height * 0.1, 0, 0, WIDTH, HEIGHT);
    const { data } = canvas.getImageData(0, 0, WIDTH, HEIGHT);
    const lit = [...Array(WIDTH).keys()].filter((x) => data[((WIDTH * HEIGHT) / 2 + x) * 4 + 1] > 128);
    if (!lit.length) return null;
    const middle = (lit.reduce((sum, x) => sum + x, 0) / lit.length + 0.5) / WIDTH;
    return Math.min(Math.max((middle - 1 / 32) / (1 - 1 / 16), 0), 1) * ROUND;
  }

  /** What a clock of (x, y) is ahead by around x, ascending. */
  function shifts(clock, x, around) {
    const near = clock.filter(([at]) => Math.abs(at - x) < around);
    return near.map(([at, value]) => value - at).sort((a, b) => a - b);
  }

  /** What it says at x: what is shown may be late, but is never early. */
  function readOff(clock, x) {
    const near = shifts(clock, x, 2 * AROUND);
    return x + near[Math.floor(near.length * 0.95)];
  }

  function onsets(times) {
    return times.filter((time, n) => n === 0 || time - times[n - 1] > 0.25);
  }

  /**
   * Plays from where it stands: when it beeped, by the times of the pictures that were shown then, and where
   * that can't be told, because the sound's own clock stumbled.
   */
  async function play(video, listener, audio, length) {
    // Film's time by the page's, and the page's by the context's.
    const [loud, clock, heard] = [[], [], []];
    listener.port.onmessage = ({ data }) => loud.push(data);
    let playing = true;
    const each = (now, { mediaTime, expectedDisplayTime }) => {
      if (!playing) return;
      clock.push([expectedDisplayTime / 1000, mediaTime]);
      video.requestVideoFrameCallback(each);
    };
    if (video.videoWidth) video.requestVideoFrameCallback(each);
    // Where there is no picture, the element's own time is the film's.
    else (async () => {
      for (; playing; await seconds(0.02)) clock.push([performance.now() / 1000, video.currentTime]);
    })();
    (async () => {
      for (; playing; await seconds(0.02)) {
        const { contextTime, performanceTime } = audio.getOutputTimestamp();
        heard.push([contextTime, performanceTime / 1000]);
      }
    })();
    const ended = event(video, "ended").catch(() => {});
    await video.play();
    await Promise.race([ended, seconds(length)]);
    playing = false;
    video.pause();
    const steady = (time) => {
      const near = shifts(heard, time, AROUND);
      return near.length && near.at(-1) - near[0] < STUMBLE;
    };
    const film = (time) => readOff(clock, readOff(heard, time));
    const [beeps, unclear] = [[], []];
    for (const time of onsets(loud)) (steady(time) ? beeps : unclear).push(film(time));
    return { beeps, unclear };
  }

  /** When it beeps in a film that was played: what is unclear is listened to again. */
  async function cleared(video, listener, audio, { beeps, unclear }) {
    for (const time of unclear.slice(0, AGAIN)) {
      await moved(video, Math.max(0, time - AROUND));
      const again = await play(video, listener, audio, 2 * AROUND);
      beeps.push(...again.beeps.filter((beep) => beeps.every((known) => Math.abs(known - beep) > 0.5)));
    }
    return beeps;
  }

  async function moved(video, target) {
    video.currentTime = target;
    await event(video, "seeked");
  }

  async function sought(video, canvas, target) {
    // What it shows last is what it sought: a picture of before may still be on its way.
    let [at, since, looking] = [null, null, true];
    const each = (_, { mediaTime }) => {
      [at, since] = [mediaTime, performance.now()];
      if (looking) video.requestVideoFrameCallback(each);
    };
    video.requestVideoFrameCallback(each);
    await moved(video, target);
    const began = performance.now();
    for (let now = began; now - (since ?? now) < 300 && now - began < 5000; now = performance.now()) await seconds(0.02);
    looking = false;
    return [target, at, phase(video, canvas)];
  }

  async function context() {
    const audio = new AudioContext();
    await audio.resume();
    await audio.audioWorklet.addModule(URL.createObjectURL(new Blob([LISTENER], { type: "text/javascript" })));
    return audio;
  }

  window.look = async (url, targets, sampled, seeks) => {
    const audio = await (window.audio ??= context());
    const video = document.body.appendChild(document.createElement("video"));
    const canvas = new OffscreenCanvas(WIDTH, HEIGHT).getContext("2d", { willReadFrequently: true });
    try {
      video.crossOrigin = "anonymous";
      video.preload = "auto";
      // What is painted small is painted in time.
      video.width = WIDTH;
      video.src = url;
      await event(video, "loadeddata");
      if (!sampled && video.readyState < 4) await event(video, "canplaythrough");
      const listener = new AudioWorkletNode(audio, "listener");
      audio.createMediaElementSource(video).connect(listener).connect(audio.destination);
      const seen = { beeps: [], seeks: [] };
      if (!sampled) {
        const heard = await play(video, listener, audio, video.duration + 5);
        if (video.videoWidth) seen.frames = video.getVideoPlaybackQuality().totalVideoFrames;
        seen.beeps = await cleared(video, listener, audio, heard);
      }
      for (const target of targets) {
        if (video.videoWidth && seeks) seen.seeks.push(await sought(video, canvas, target));
        if (!sampled) continue;
        // Sound and pictures find together while it plays.
        await moved(video, target - AROUND);
        const heard = await play(video, listener, audio, AROUND + WINDOW);
        seen.beeps.push(...(await cleared(video, listener, audio, heard)));
      }
      return seen;
    } catch (error) {
      return { lacks: String(error) };
    } finally {
      video.removeAttribute("src");
      video.load();
      video.remove();
    }
  };
})();
