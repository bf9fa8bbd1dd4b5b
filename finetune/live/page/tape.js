"use strict";
// The tape: what was heard left of the needle, what is made and not yet heard right of it, and where a control moved.
const STEPS_PER_SEC = 40, SHOWN_SEC = 14, AHEAD = 0.16;
let tape = [], marks = [];

function keepOnTape(buffer, start) {
  const wave = buffer.getChannelData(0), step = Math.round(buffer.sampleRate / STEPS_PER_SEC);
  for (let from = 0; from < wave.length; from += step) {
    let peak = 0;
    for (let i = from; i < Math.min(from + step, wave.length); i += 2) peak = Math.max(peak, Math.abs(wave[i]));
    tape.push({ at: start + from / buffer.sampleRate, peak });
  }
  const oldest = context.currentTime - SHOWN_SEC;
  tape = tape.filter(one => one.at > oldest); marks = marks.filter(at => at > oldest);
}
function forgetFuture() { if (context) tape = tape.filter(one => one.at <= context.currentTime); }
function markMove() { if (context && state && state.playing) marks.push(context.currentTime); }

(function draw() {
  const canvas = $("tape"), ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
  const pen = canvas.getContext("2d"), now = context ? context.currentTime : 0, needle = width * (1 - AHEAD), perSec = width / SHOWN_SEC;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0); pen.clearRect(0, 0, width, height);
  pen.fillStyle = "#2a221b"; pen.fillRect(0, height / 2 - .5, width, 1);
  const bar = Math.max(1.5, perSec / STEPS_PER_SEC - 1.5);
  for (const { at, peak } of tape) {
    const x = needle + (at - now) * perSec, tall = Math.max(2, Math.min(1, peak ** .7) * (height - 18));
    pen.fillStyle = at > now ? "#6d5230" : `rgba(240, 162, 59, ${Math.max(.18, x / needle)})`;
    pen.beginPath(); pen.roundRect(x, (height - tall) / 2, bar, tall, bar / 2); pen.fill();
  }
  pen.fillStyle = "#5fb8a8";
  for (const at of marks) { const x = needle + (at - now) * perSec; pen.beginPath(); pen.moveTo(x - 4, 0); pen.lineTo(x + 4, 0); pen.lineTo(x, 7); pen.fill(); }
  pen.fillStyle = "#f3ebdf"; pen.fillRect(needle - 1, 0, 2, height);
  if (scope) {                               // the wave of this very moment, on the needle
    const wave = new Float32Array(512); scope.getFloatTimeDomainData(wave);
    pen.strokeStyle = "#f3ebdfaa"; pen.lineWidth = 1.2; pen.beginPath();
    for (let y = 0; y < height; y += 2) pen.lineTo(needle + wave[Math.floor(y / height * 511)] * 60, y);
    pen.stroke();
  }
  requestAnimationFrame(draw);
})();
