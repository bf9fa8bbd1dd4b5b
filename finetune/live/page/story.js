"use strict";
// A story: moments in a list, each with the time at which its prompt begins to fade in.
function clock(second) { const whole = Math.floor(second); return Math.floor(whole / 60) + ":" + String(whole % 60).padStart(2, "0") + (second % 1 ? (second % 1).toFixed(1).slice(1) : ""); }
function momentRow(at, text) {
  const time = make("input", { type: "text", value: at, placeholder: "0:00" }), words = make("input", { type: "text", value: text, maxLength: 1000, placeholder: "what begins here?" });
  time.setAttribute("aria-label", "Moment"); words.setAttribute("aria-label", "Its prompt");
  const row = make("li", {}, time, words); row.append(removeButton(() => row.remove()));
  return row;
}
function moments() {
  return [...$("moments").children].filter(row => row.children[1].value.trim()).map(row => {
    const found = row.children[0].value.match(/^\s*(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)\s*$/);
    if (!found) throw new Error("A moment is a time such as 0:15, not " + JSON.stringify(row.children[0].value));
    return { second: 3600 * (found[1] || 0) + 60 * (found[2] || 0) + Number(found[3]), text: row.children[1].value.trim() };
  });
}
function showStory(message, before) {
  const changed = !before || JSON.stringify(before.story) !== JSON.stringify(message.story);
  if (changed && message.story.length) $("moments").replaceChildren(...message.story.map(one => momentRow(clock(one.second), one.text)));
  if (!message.story.length) { $("telling").textContent = ""; showMoment(null); }
}
function showMoment(number) {
  [...$("moments").children].forEach((row, at) => row.classList.toggle("now", at === number));
  if (number !== null) $("telling").textContent = "moment " + (number + 1) + " of " + state.story.length;
}
$("add-moment").onclick = () => {
  const rows = $("moments").children, last = rows.length ? rows[rows.length - 1].children[0].value.match(/(\d+):(\d+)/) : null;
  $("moments").append(momentRow(rows.length ? last ? clock(60 * last[1] + Number(last[2]) + 15) : "" : "0:00", ""));
  $("moments").lastElementChild.children[1].focus();
};
$("tell").onclick = () => {
  try { const told = moments(); if (told.length) send({ type: "story", moments: told }); else problem("A story needs a moment.", 4000); }
  catch (error) { problem(error.message, 6000); }
};
$("end").onclick = () => send({ type: "story", moments: [] });
$("moments").append(momentRow("0:00", ""), momentRow("0:15", ""));
