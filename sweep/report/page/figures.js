// Figures: drawn by plotly when they come into view, in the colours of the page.
"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const themes = {
  light: { text: "#3d424a", grid: "rgba(0, 0, 0, .09)", hover: "#ffffff", ink: "#1c1e21" },
  dark: { text: "#b9bec7", grid: "rgba(255, 255, 255, .11)", hover: "#1b1e22", ink: "#e6e4df" },
};
const plots = [...document.querySelectorAll(".plot")];
const drawn = new Set();  // as the trials are filtered and chosen now
const inView = new Set();
const changes = [];  // functions of a figure and its plot that adapt it before it is drawn

// The library is unpacked once, for the first figure that comes into view.
let library = null;
async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function themed(text, theme) {
  const lighter = theme === themes.dark ? study.on_dark : [];
  const figure = JSON.parse(lighter.reduce((all, [from, to]) => all.replaceAll(from, to), text));
  const { layout } = figure;
  layout.font.color = theme.text;
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    layout[name].gridcolor = theme.grid;
  }
  const font = { color: theme.ink };
  Object.assign(layout.hoverlabel, { bgcolor: theme.hover, bordercolor: theme.text, font });
  layout.uirevision = true;  // what the reader has zoomed to stays
  return figure;
}

async function draw(plot, theme = dark.matches ? themes.dark : themes.light) {
  drawn.add(plot);
  await (library ??= unpack());
  const figure = themed(plot.nextElementSibling.textContent, theme);
  for (const change of changes) change(figure, plot);
  const { data, layout } = figure;
  const mouse = matchMedia("(hover: hover)").matches;
  if (!mouse) layout.dragmode = false;  // a finger on a figure should scroll the page
  if (plot.clientWidth < 500) {
    Object.assign(layout.margin, { l: 46, r: 6 });
    if (layout.xaxis.type === "log") layout.xaxis.nticks = 3;
  }
  const config = {
    responsive: true, displaylogo: false, displayModeBar: mouse ? "hover" : false,
    showSendToCloud: false,  // plotly.js offers an upload by default
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };
  const first = !plot.data;
  await Plotly.react(plot, data, layout, config);
  if (first) plot.on("plotly_click", ({ points }) => pickPoint(points[0]));
}

const redraw = (theme) => Promise.all(plots.filter((plot) => plot.data).map((plot) => draw(plot, theme)));

// Figures of trials follow the state at once if they are in view, else when they come into it.
const isOfTrials = (plot) => plot.nextElementSibling.textContent.includes('"customdata"');
function redrawTrials() {
  for (const plot of plots.filter((one) => drawn.has(one) && isOfTrials(one))) {
    if (inView.has(plot)) draw(plot);
    else drawn.delete(plot);
  }
}

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target);
    else inView.delete(target);
    if (isIntersecting && !drawn.has(target)) draw(target);
  }
}, { rootMargin: "200px" });

// The others, for printing and for the one who scrolls fast, one by one while nothing else is to do.
const whenIdle = window.requestIdleCallback ?? ((next) => setTimeout(next, 200));
function drawRest() {
  const plot = plots.find((one) => !drawn.has(one));
  if (plot) draw(plot).then(() => whenIdle(drawRest));
}

addEventListener("load", () => {
  plots.forEach((plot) => observer.observe(plot));
  setTimeout(() => whenIdle(drawRest), 1500);
});
dark.addEventListener("change", () => redraw());
addEventListener("beforeprint", () => redraw(themes.light));
addEventListener("afterprint", () => redraw());
