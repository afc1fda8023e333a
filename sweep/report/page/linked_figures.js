// Figures that follow the trials: learning curves with their switches, and points of every trial.
"use strict";
const curvesPlot = document.querySelector("#figure-curves .plot");
const switches = document.getElementById("curve-switches");
const FAINT = 0.15;  // opacity of what is not chosen

// A click on a point or a curve chooses its trial.
function pickPoint({ customdata, pointNumber, data }) {
  const number = customdata ?? data.customdata?.[pointNumber];
  if (byNumber.has(number)) choose(number);
}
const isOn = (number) => {
  const trial = byNumber.get(number);
  return trial.shown && (state.chosen.length === 0 || trial.chosen);
};
const isNarrowed = () => isFiltered() || state.chosen.length > 0;

// Points: plotly fades those that are not selected.
changes.push(({ data }, plot) => {
  if (plot === curvesPlot) return;
  for (const trace of data.filter(({ customdata, mode }) => customdata && mode === "markers")) {
    const on = trace.customdata.flatMap((number, place) => (isOn(number) ? [place] : []));
    trace.selectedpoints = isNarrowed() ? on : null;
    trace.unselected = { marker: { opacity: FAINT } };
  }
});

// Curves: the traces of the figure, with the axis of the switches, split into faint and strong.
changes.push((figure, plot) => {
  if (plot !== curvesPlot || !figure.data.length) return;
  const [unit, scale] = ["unit", "scale"].map((name) => switches.querySelector(`[name=${name}]`).value);
  const half = switches.querySelector("[name=half]").checked;
  const { layout } = figure;
  figure.data.forEach((trace) => rescale(trace, unit));
  const isCurve = (trace) => trace.customdata && trace.mode === "lines";
  const curves = figure.data.filter(isCurve);
  if (isNarrowed()) {
    const strong = curves.map((trace) => ({ ...only(trace, isOn), opacity: 1 }));
    const faint = curves.map((trace) => ({ ...only(trace, (number) => !isOn(number)), opacity: FAINT, hoverinfo: "skip", hovertemplate: null, showlegend: false }));
    figure.data = [...faint, ...figure.data.filter((trace) => !isCurve(trace)), ...strong];
  }
  const on = curves.map((trace) => (isNarrowed() ? only(trace, isOn) : trace));
  const points = on.flatMap(({ x, y }) => x.map((at, n) => [at, y[n]])).filter(([at]) => at !== null);
  const last = points.reduce((most, [at]) => Math.max(most, at), 0);
  const from = half ? last / 2 : 0;
  layout.xaxis.title.text = switches.querySelector(`option[value=${unit}]`).dataset.title;
  layout.xaxis.range = [from, last * 1.01];
  if (scale !== "auto") layout.yaxis.type = scale;
  const within = points.filter(([at]) => at >= from).map(([, value]) => value);
  const floor = figure.data.find(({ name }) => name?.startsWith("lowest possible"));
  if (floor) floor.x = [0, last];
  if (half || scale !== "auto" || isNarrowed()) layout.yaxis.range = frame(within, layout.yaxis.type, half);
  layout.uirevision = [unit, scale, half, state.chosen, [...state.ranges], state.words.join()].join();
});
// Every curve is in one trace, in the order of its steps, with a gap behind it.
function rescale(trace, unit) {
  if (unit === "tokens" || !trace.customdata) return;
  const at = new Map();
  trace.x = trace.x.map((tokens, n) => {
    const number = trace.customdata[n];
    if (number === null) return null;
    if (unit === "flops") return tokens * study.flops[number];
    if (trace.mode === "markers") return study.seconds[number].at(-1);  // where it diverged
    at.set(number, (at.get(number) ?? -1) + 1);
    return study.seconds[number][at.get(number)];
  });
}
function only(trace, keep) {
  const kept = trace.customdata.map((number) => number !== null && keep(number));
  const without = (values) => values.map((value, n) => (kept[n] ? value : null));
  return { ...trace, x: without(trace.x), y: without(trace.y) };
}
// All that is low is in the frame, and of what is high no more than curves that rise far.
function frame(values, type, tight) {
  const sorted = values.filter((value) => value > 0 || type !== "log").sort((a, b) => a - b);
  if (!sorted.length) return null;
  const low = sorted[0];
  const high = sorted[Math.floor((sorted.length - 1) * (tight ? 0.9 : 0.98))];
  if (type === "log") {
    const [a, b] = [Math.log10(low), Math.log10(high)];
    const pad = 0.06 * (b - a) || 0.05;
    return [a - pad, b + pad];
  }
  const pad = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  return [low - pad, high + pad];
}

let waiting = null;  // a brush moves faster than curves are drawn
views.push(() => {
  clearTimeout(waiting);
  waiting = setTimeout(redrawTrials, 120);
});
if (curvesPlot && switches) switches.addEventListener("change", () => draw(curvesPlot));
update();
unfold();
