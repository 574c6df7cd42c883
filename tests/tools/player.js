// Says what a browser's <video> shows and plays of a recording, in the manner of observe.py. Run in a page of
// another site; window.look(url, targets, sampled, seeks) promises it.
(() => {
  const [WINDOW, ROUND] = [3, 10];
  /** Of what is drawn to be looked at. */
  const [WIDTH, HEIGHT] = [160, 16];

  /** Seconds around a beep in which the clocks are read. */
  const AROUND = 1.2;
  /**
   * By how many seconds pictures may be shown beside the element's clock: those of a busy page are late or early by
   * up to 45 ms, by other amounts where a film is played again or beside itself, so that is none of the film's.
   */
  const BESIDE = 0.1;
  /** After so many seconds of a play its sound has begun, which the element's clock doesn't wait for. */
  const SETTLED = 0.3;
  /** Milliseconds between two questions asked at once. */
  const AT_ONCE = 2;

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

  function onsets(times) {
    return times.filter((time, n) => n === 0 || time - times[n - 1] > 0.25);
  }

  /** Of values by their times, those around one, ascending. */
  function around(values, time) {
    const near = values.filter(([at]) => Math.abs(at - time) < AROUND);
    return near.map(([, value]) => value).sort((a, b) => a - b);
  }

  /**
   * Plays from where it stands: when it beeped, by the element's clock; where pictures don't go by that, by theirs.
   * The element's and the sound's clock are asked one behind the other, so that nothing else is measured.
   */
  async function play(video, listener, audio, length) {
    // By how much the element's clock is ahead of the sound's, by this; and the pictures are behind the element's.
    const [loud, ahead, behind] = [[], [], []];
    listener.port.onmessage = ({ data }) => loud.push(data);
    const from = video.currentTime;
    let playing = true;
    const each = (_, { mediaTime, expectedDisplayTime }) => {
      if (!playing) return;
      const shown = video.currentTime + (expectedDisplayTime - performance.now()) / 1000;
      behind.push([mediaTime, shown - mediaTime]);
      video.requestVideoFrameCallback(each);
    };
    if (video.videoWidth) video.requestVideoFrameCallback(each);
    (async () => {
      for (; playing; await seconds(0.02)) {
        const asked = performance.now();
        const time = audio.currentTime;
        const value = [time, video.currentTime - time];
        if (performance.now() - asked < AT_ONCE && video.currentTime - from > SETTLED) ahead.push(value);
      }
    })();
    const ended = event(video, "ended").catch(() => {});
    await video.play();
    await Promise.race([ended, seconds(length)]);
    playing = false;
    video.pause();
    return onsets(loud).map((time) => {
      // What the element's clock says may be some time ago.
      const own = time + around(ahead, time).at(-1);
      const late = around(behind, own);
      const middle = late[Math.floor(late.length / 2)] ?? 0;
      return Math.abs(middle) < BESIDE ? own : own - middle;
    });
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
        seen.beeps = await play(video, listener, audio, video.duration + 5);
        if (video.videoWidth) seen.frames = video.getVideoPlaybackQuality().totalVideoFrames;
      }
      for (const target of targets) {
        if (video.videoWidth && seeks) seen.seeks.push(await sought(video, canvas, target));
        if (!sampled) continue;
        // Sound and pictures find together while it plays.
        await moved(video, target - AROUND);
        seen.beeps.push(...(await play(video, listener, audio, AROUND + WINDOW)));
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
