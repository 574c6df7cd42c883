// A worker that ticks: browsers slow the timers of a hidden page, but not a worker's.

/** @type {ReturnType<typeof setInterval> | undefined} */
let timer;
addEventListener("message", ({ data }) => {
  clearInterval(timer);
  if (data > 0) timer = setInterval(() => postMessage(null), data);
});
