// Shows how loud a microphone is.

/** The quietest that shows, in decibels below full scale: about a silent room. */
const FLOOR_DB = 60;

export class LevelMeter {
  /** @type {AudioContext | null} */
  #context = null;
  #meter;
  #frame = 0;

  /** @param {HTMLMeterElement} meter */
  constructor(meter) {
    this.#meter = meter;
    // Browsers let sound run only after the page was touched.
    for (const touch of ["pointerdown", "keydown"]) {
      addEventListener(touch, () => this.#context?.resume().catch(() => {}));
    }
  }

  /** Shows this stream's sound, if it has any, in place of the one before. @param {MediaStream | null} media */
  show(media) {
    cancelAnimationFrame(this.#frame);
    this.#context?.close();
    this.#context = null;
    this.#meter.value = 0;
    if (!media?.getAudioTracks().length) return;
    this.#context = new AudioContext();
    const analyser = this.#context.createAnalyser();
    this.#context.createMediaStreamSource(media).connect(analyser);
    this.#draw(analyser, new Float32Array(analyser.fftSize));
  }

  /**
   * @param {AnalyserNode} analyser
   * @param {Float32Array<ArrayBuffer>} samples
   */
  #draw(analyser, samples) {
    analyser.getFloatTimeDomainData(samples);
    const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    const level = Math.min(1, Math.max(0, 1 + (20 * Math.log10(peak + 1e-9)) / FLOOR_DB));
    this.#meter.value = Math.max(level, this.#meter.value - 0.02); // falls slowly, so that it can be read
    this.#frame = requestAnimationFrame(() => this.#draw(analyser, samples));
  }
}
