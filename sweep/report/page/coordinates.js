// Parallel coordinates: a line per trial over all parameters. A drag along an axis keeps a range of
// it, a click on an axis frees it again; a click on a line chooses its trial.
"use strict";
const TOP = 34, HEIGHT = 290, LOST = 24;  // pixels; LOST: below an axis, for what has no value
const BOTTOM = TOP + HEIGHT;
const ROOM = 96;  // of an axis at least
const MARGIN = 44;  // beside the first and the last axis
const SNAP = 0.015;  // of an axis
const NEAR = 7;  // of a line to the pointer
const coordinates = document.getElementById("coordinates");

function svg(tag, attributes = {}, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

// Scales: an axis has low, high and log; one with choices has their positions as its numbers.
function yOf({ low, high, log }, value) {
  const share = log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return BOTTOM - HEIGHT * share;
}
function valueAt({ low, high, log }, y) {
  let share = (BOTTOM - y) / HEIGHT;
  if (share < SNAP) share = 0;  // the ends are meant, and hold trials
  if (share > 1 - SNAP) share = 1;
  return log ? low * (high / low) ** share : low + share * (high - low);
}
function placeOn(axis, trial) {
  const value = placeOf(axis.name, trial);
  return value === null ? BOTTOM + LOST : yOf(axis, value);
}
function ticksOf({ low, high, log, choices }) {
  if (choices) return choices.map((choice, place) => [place, choice]);
  const found = [];
  const decade = 10 ** Math.floor(Math.log10(log ? low : (high - low) / 4));
  if (log) {
    const few = Math.log10(high / low) > 2 ? [1] : [1, 2, 5];
    for (let power = decade; power <= high; power *= 10) found.push(...few.map((digit) => digit * power));
  } else {
    const step = decade * [1, 2, 5, 10].find((digit) => digit * decade >= (high - low) / 5);
    for (let n = Math.ceil(low / step); n * step <= high * (1 + 1e-9); n += 1) found.push(n * step);
  }
  const within = found.filter((value) => low * (1 - 1e-9) <= value && value <= high * (1 + 1e-9));
  return within.map((value) => [value, tickText(value)]);
}
function tickText(value) {
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return small ? value.toExponential(0) : Number(value.toPrecision(4)).toLocaleString("en");
}

// Drawing: once for a width; the state only changes classes and the order of the lines.
let lines = new Map();  // trial number -> its path
let bands = new Map();  // axis name -> the rectangle of its range
let places = [];  // of the axes, from left to right

function drawCoordinates() {
  const width = Math.max(coordinates.parentElement.clientWidth, ROOM * study.axes.length);
  const left = Math.max(...ticksOf(study.axes[0]).map(([, text]) => 18 + 7 * text.length), MARGIN);
  const room = (width - left - MARGIN) / (study.axes.length - 1);
  places = study.axes.map((_, n) => left + room * n);
  const picture = svg("svg", { width, height: BOTTOM + LOST + 14, role: "img" });
  picture.append(svg("title", {}, "Parallel coordinates of all trials"));
  lines = new Map(trials.map((trial) => {
    const points = study.axes.map((axis, n) => `${places[n].toFixed(1)},${placeOn(axis, trial).toFixed(1)}`);
    const path = svg("polyline", { points: points.join(" "), class: "line" });
    path.style.stroke = study.arms[trial.arm]?.colour ?? "var(--muted)";
    if (trial.values.outcome !== "complete") path.classList.add("early");
    return [trial.number, path];
  }));
  const under = svg("g", { class: "lines" });
  under.append(...lines.values());
  picture.append(under, ...study.axes.map(drawAxis));
  coordinates.replaceChildren(picture);
  picture.addEventListener("pointermove", ({ offsetX, offsetY }) => point(nearest(offsetX, offsetY)));
  picture.addEventListener("pointerleave", () => point(null));
  picture.addEventListener("click", ({ offsetX, offsetY }) => {
    const trial = nearest(offsetX, offsetY);
    if (trial) choose(trial.number);
  });
  showCoordinates();
}
function drawAxis(axis, n) {
  const group = svg("g", { class: "axis", transform: `translate(${places[n]})` });
  const band = svg("rect", { class: "band", x: -8, width: 16, y: TOP, height: 0 });
  bands.set(axis.name, band);
  group.append(svg("text", { class: "name", y: 14 }, axis.title), svg("line", { y1: TOP, y2: BOTTOM }));
  for (const [value, text] of ticksOf(axis)) {
    group.append(svg("text", { x: -7, y: yOf(axis, value) + 4, class: "tick" }, text));
  }
  if (trials.some((trial) => placeOf(axis.name, trial) === null)) {
    group.append(svg("text", { x: -7, y: BOTTOM + LOST + 4, class: "tick" }, MISSING));
  }
  group.append(band, brush(axis));
  return group;
}
function brush(axis) {
  const area = svg("rect", { class: "brush", x: -14, width: 28, y: TOP - 6, height: HEIGHT + 12 });
  area.dataset.axis = axis.name;
  let start = null;
  const yIn = (event) => event.clientY - coordinates.getBoundingClientRect().top;
  area.addEventListener("pointerdown", (event) => {
    start = yIn(event);
    area.setPointerCapture(event.pointerId);
  });
  area.addEventListener("pointermove", (event) => {
    if (start === null || Math.abs(yIn(event) - start) < 4) return;
    const ends = [valueAt(axis, start), valueAt(axis, yIn(event))];
    setRange(axis.name, ends.sort((a, b) => a - b));
  });
  area.addEventListener("pointerup", (event) => {
    if (Math.abs(yIn(event) - start) < 4) setRange(axis.name, null);
    start = null;
  });
  area.addEventListener("pointercancel", () => { start = null; });
  area.addEventListener("click", (event) => event.stopPropagation());
  return area;
}

// The line at the pointer: its height is interpolated between the two axes beside it.
function nearest(x, y) {
  const right = places.findIndex((place) => place >= x);
  if (right < 1) return null;
  const share = (x - places[right - 1]) / (places[right] - places[right - 1]);
  let best = null, least = NEAR;
  for (const trial of trials.filter(({ shown }) => shown)) {
    const [from, to] = [right - 1, right].map((n) => placeOn(study.axes[n], trial));
    const distance = Math.abs(from + share * (to - from) - y);
    if (distance < least) [best, least] = [trial, distance];
  }
  return best;
}
let pointed = null;
function point(trial) {
  if (trial === pointed) return;
  lines.get(pointed?.number)?.classList.remove("pointed");
  lines.get(trial?.number)?.classList.add("pointed");
  pointed = trial;
  coordinates.classList.toggle("over-line", trial !== null);
  document.getElementById("pointed").textContent = trial ? describe(trial) : "";
}
function describe(trial) {
  const parts = study.axes.map((axis) => `${axis.title} ${cellText(trial, axis.name)}`);
  return `trial ${trial.number}, ${trial.values.outcome}: ${parts.join(", ")}`;
}

function showCoordinates() {
  const some = state.chosen.length > 0;
  for (const trial of trials) {
    const line = lines.get(trial.number);
    line.classList.toggle("off", !trial.shown);
    line.classList.toggle("chosen", trial.chosen);
    line.classList.toggle("beside", some && !trial.chosen);
    if (trial.chosen) line.parentNode.append(line);  // above the others
  }
  for (const axis of study.axes) {
    const range = state.ranges.get(axis.name);
    const [low, high] = (range ?? [axis.low, axis.low]).map((end) =>
      yOf(axis, Math.min(axis.high, Math.max(axis.low, end))));
    const band = bands.get(axis.name);
    band.setAttribute("y", high);
    band.setAttribute("height", low - high);
  }
}
if (coordinates) {
  views.push(showCoordinates);
  drawCoordinates();
  let width = coordinates.parentElement.clientWidth;
  new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - width) < 1) return;
    width = contentRect.width;
    drawCoordinates();
  }).observe(coordinates.parentElement);
}
