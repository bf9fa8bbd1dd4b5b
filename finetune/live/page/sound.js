"use strict";
// Sound: chunks end to end in the audio clock. It begins once `buffer_sec` of music are there, after a gap as well.
const $ = id => document.getElementById(id);
const stats = { chunks: 0, samples: 0, peak: 0, gaps: 0, run: 0 };
window.woodshed = { stats };
let hello = null, state = null;
let context = null, gain = null, scope = null, next = 0, waiting = [], waitingSec = 0, sounding = new Set();

function openSound() {
  if (!context) {
    context = new AudioContext({ sampleRate: hello.sample_rate_hz });
    gain = context.createGain(); scope = context.createAnalyser(); scope.fftSize = 2048;
    gain.connect(scope).connect(context.destination);
  }
  if (state && state.playing) context.resume();
}
function silence() {
  for (const source of sounding) { try { source.stop(); } catch (_) { /* not begun */ } }
  sounding.clear(); waiting = []; waitingSec = 0; next = 0; forgetFuture();
}
function take(bytes) {                       // a chunk: run, number, second, then 16-bit samples
  const view = new DataView(bytes), run = view.getUint32(0, true);
  if (run < stats.run) return;
  if (run > stats.run) { silence(); stats.run = run; }
  const channels = hello.channels, n = (bytes.byteLength - 16) / 2 / channels;
  stats.chunks += 1; stats.samples += n;
  if (!n) return;
  const parts = Array.from({ length: channels }, () => new Float32Array(n));
  for (let i = 0, at = 16; i < n; i++)
    for (let c = 0; c < channels; c++, at += 2) {
      const value = view.getInt16(at, true) / 32768;
      parts[c][i] = value;
      if (Math.abs(value) > stats.peak) stats.peak = Math.abs(value);
    }
  if (!context) return;
  const buffer = context.createBuffer(channels, n, hello.sample_rate_hz);
  parts.forEach((part, c) => buffer.copyToChannel(part, c));
  if (next && next < context.currentTime) { stats.gaps += 1; next = 0; }
  if (next) return schedule(buffer);
  waiting.push(buffer); waitingSec += buffer.duration;
  if (waitingSec >= state.buffer_sec) {
    next = context.currentTime + 0.05;
    waiting.forEach(schedule); waiting = []; waitingSec = 0;
  }
}
function schedule(buffer) {
  const source = context.createBufferSource();
  source.buffer = buffer; source.connect(gain); source.start(next);
  source.onended = () => sounding.delete(source);
  sounding.add(source); keepOnTape(buffer, next); next += buffer.duration;
}
