// Trials: filters say which are shown, the reader which are chosen; every view shows both.
"use strict";
const table = document.getElementById("all-trials");
const headings = [...table.tHead.rows[0].cells];
const names = headings.map((heading) => heading.dataset.name);
const trials = [...table.tBodies[0].rows].map((row) => ({
  row,
  number: Number(row.dataset.trial),
  arm: row.dataset.arm,
  text: row.textContent.toLowerCase(),
  shown: true,
  chosen: false,
  values: Object.fromEntries(names.map((name, column) => [name, valueOf(row.cells[column])])),
}));
const byNumber = new Map(trials.map((trial) => [trial.number, trial]));
const state = { words: [], kinds: new Map(), ranges: new Map(), chosen: [] };
const views = [];  // functions that show the state

function valueOf(cell) {
  if ("key" in cell.dataset) return Number(cell.dataset.key);
  const text = cell.textContent.trim();
  return text === MISSING ? null : text;
}
const isFiltered = () => state.words.length > 0 || state.kinds.size > 0 || state.ranges.size > 0;

function update() {
  for (const trial of trials) {
    trial.shown = passes(trial);
    trial.chosen = state.chosen.includes(trial.number);
  }
  views.forEach((view) => view());
}
function passes(trial) {
  return state.words.every((word) => holds(trial, word))
    && [...state.kinds].every(([name, kinds]) => kinds.has(trial.values[name]))
    && [...state.ranges].every(([name, [low, high]]) => {
      const value = placeOf(name, trial);
      return value !== null && low <= value && value <= high;
    });
}
// A range of an axis with categories is one of their positions on it. Of 6e-05 a cell has 0.00006.
function placeOf(name, trial) {
  const { choices } = study.axes.find((axis) => axis.name === name) ?? {};
  const value = trial.values[name];
  if (!choices || value === null) return value;
  return choices.findIndex((choice) => (typeof value === "number" ? Number(choice) : choice) === value);
}
function choose(number, chosen = !state.chosen.includes(number)) {
  state.chosen = state.chosen.filter((other) => other !== number);
  if (chosen) state.chosen.push(number);
  update();
}

// Search: every word must be in the row, and every comparison such as n_layer>3 must hold.
const COMPARISON = /^([^<>=]+)(<=|>=|<|>|=)(.+)$/;
const inLower = new Map(names.map((name) => [name.toLowerCase(), name]));
const columnOf = (name) => inLower.get(name) ?? inLower.get(study.short_names[name]);
function holds(trial, word) {
  const [, name, sign, bound] = word.match(COMPARISON) || [];
  if (!columnOf(name)) return trial.text.includes(word);
  const value = trial.values[columnOf(name)];
  const limit = Number(bound);
  if (sign === "=") return value === limit || String(value ?? MISSING).toLowerCase() === bound;
  if (typeof value !== "number") return false;
  return { "<": value < limit, ">": value > limit, "<=": value <= limit, ">=": value >= limit }[sign];
}
function unknown(words) {
  const missing = words.map((word) => (word.match(COMPARISON) || [])[1])
    .filter((name) => name && !columnOf(name));
  return missing.length ? `; there is no column ${missing.join(", ")}` : "";
}
const search = document.getElementById("filter");
search.addEventListener("input", () => {
  state.words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  update();
});

// Filters by arm, outcome and origin: all of a kind, or those that are ticked.
document.querySelectorAll("fieldset[data-kind]").forEach((fieldset) => {
  fieldset.addEventListener("change", () => {
    const ticked = [...fieldset.querySelectorAll("input:checked")].map((input) => input.value);
    if (ticked.length) state.kinds.set(fieldset.dataset.kind, new Set(ticked));
    else state.kinds.delete(fieldset.dataset.kind);
    update();
  });
});

// Ranges: made here or by brushing an axis, and always written here.
const ranges = document.getElementById("ranges");
const newRange = document.getElementById("new-range");
function setRange(name, range) {
  if (range) state.ranges.set(name, range);
  else state.ranges.delete(name);
  update();
}
function numberField(name, end) {
  const input = document.createElement("input");
  input.type = "number";
  input.step = "any";
  input.ariaLabel = `${name} ${end ? "at most" : "at least"}`;
  input.addEventListener("change", () => {
    const range = [...state.ranges.get(name)];
    range[end] = input.value === "" ? (end ? Infinity : -Infinity) : Number(input.value);
    setRange(name, range);
  });
  return input;
}
function rangeChip(name) {
  const chip = document.createElement("span");
  chip.className = "chip";
  chip.dataset.name = name;
  const { choices } = study.axes.find((axis) => axis.name === name) ?? {};
  const ends = choices ? [document.createElement("span")] : [numberField(name, 0), "to", numberField(name, 1)];
  const remove = document.createElement("button");
  remove.type = "button";
  remove.textContent = "\u00d7";
  remove.ariaLabel = `any ${name}`;
  remove.addEventListener("click", () => setRange(name, null));
  chip.append(name, ...ends, remove);
  return chip;
}
const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "");
views.push(() => {
  for (const chip of [...ranges.children]) {
    if (!state.ranges.has(chip.dataset.name)) chip.remove();
  }
  for (const [name, range] of state.ranges) {
    let chip = [...ranges.children].find((one) => one.dataset.name === name);
    if (!chip) ranges.append(chip = rangeChip(name));
    const inputs = chip.querySelectorAll("input");
    inputs.forEach((input, end) => {
      if (input !== document.activeElement) input.value = short(range[end]);
    });
    if (!inputs.length) {
      const { choices } = study.axes.find((axis) => axis.name === name);
      const within = choices.filter((_, place) => range[0] <= place && place <= range[1]);
      chip.querySelector("span").textContent = within.join(", ") || "none";
    }
  }
});
newRange.addEventListener("change", () => {
  const values = trials.map((trial) => placeOf(newRange.value, trial)).filter((value) => value !== null);
  if (values.length) setRange(newRange.value, [Math.min(...values), Math.max(...values)]);
  newRange.value = "";
});

// The table: rows that are shown, a box for those that are chosen, columns as the reader likes.
table.tBodies[0].addEventListener("change", ({ target }) =>
  choose(Number(target.closest("tr").dataset.trial), target.checked));
views.push(() => {
  for (const { row, shown, chosen } of trials) {
    row.hidden = !shown;
    row.classList.toggle("chosen", chosen);
    row.querySelector("input").checked = chosen;
  }
  const shown = trials.filter((trial) => trial.shown).length;
  const found = isFiltered() ? `${shown} of ${trials.length}${unknown(state.words)}` : "";
  document.getElementById("found").textContent = found;
  document.getElementById("clear").disabled = !isFiltered() && !state.chosen.length;
});
document.getElementById("columns").addEventListener("change", ({ target }) => {
  const column = names.indexOf(target.value);
  for (const row of table.rows) row.cells[column].hidden = !target.checked;
});
document.getElementById("clear").addEventListener("click", () => {
  search.value = "";
  document.querySelectorAll("fieldset[data-kind] input").forEach((input) => { input.checked = false; });
  Object.assign(state, { words: [], kinds: new Map(), ranges: new Map(), chosen: [] });
  update();
});

// Differences between two to five chosen trials.
const differences = document.getElementById("differences");
const MOST = 5;
function cellText(trial, name) {
  return trial.row.cells[names.indexOf(name)].textContent.trim();
}
function element(tag, text, attributes = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, attributes);
}
views.push(() => {
  const chosen = state.chosen.map((number) => byNumber.get(number)).filter(Boolean);
  const hint = {
    0: "Choose two to five trials, in the table or by a click on a line, to see what differs between them.",
    1: `Trial ${chosen[0]?.number} is chosen. Choose another one to see what differs.`,
  }[chosen.length] ?? (chosen.length > MOST ? `${chosen.length} are chosen; up to ${MOST} are compared.` : "");
  document.getElementById("compare-hint").textContent = hint;
  differences.hidden = chosen.length < 2 || chosen.length > MOST;
  if (differences.hidden) return;
  const head = element("tr", "");
  head.append(element("th", "what differs", { scope: "col" }));
  head.append(...chosen.map(({ number }) => element("th", `trial ${number}`, { scope: "col", className: "number" })));
  const compared = names.filter((name) => name !== "number" && name !== "story");
  const differing = compared.filter((name) => new Set(chosen.map((trial) => cellText(trial, name))).size > 1);
  const rows = differing.map((name) => {
    const row = element("tr", "");
    row.append(element("th", headings[names.indexOf(name)].textContent.trim(), { scope: "row" }));
    row.append(...chosen.map((trial) => element("td", cellText(trial, name), { className: "number" })));
    return row;
  });
  differences.querySelector("thead").replaceChildren(head);
  differences.querySelector("tbody").replaceChildren(...rows);
  const same = compared.filter((name) => !differing.includes(name) && cellText(chosen[0], name) !== MISSING);
  const words = same.map((name) => `${headings[names.indexOf(name)].textContent.trim()} ${cellText(chosen[0], name)}`);
  document.getElementById("same").textContent = words.length ? `The same in all: ${words.join(", ")}.` : "";
});

// Downloads: the trials that are shown, in their order, with the columns that are shown.
function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", "", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
function records() {
  const columns = names.filter((name, column) => !headings[column].hidden && name !== "story");
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  return [columns, rows.map((row) => byNumber.get(Number(row.dataset.trial)).values)];
}
document.getElementById("csv").addEventListener("click", () => {
  const [columns, rows] = records();
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value ?? ""));
  const lines = [columns, ...rows.map((row) => columns.map((name) => row[name]))];
  save(`${study.name}.csv`, "text/csv", lines.map((line) => `${line.map(quoted).join(",")}\r\n`).join(""));
});
document.getElementById("json").addEventListener("click", () => {
  const [columns, rows] = records();
  const found = rows.map((row) => Object.fromEntries(columns.map((name) => [name, row[name]])));
  save(`${study.name}.json`, "application/json", JSON.stringify(found, null, 1));
});

// A link to a story that is folded away unfolds it.
function unfold() {
  const details = document.getElementById(location.hash.slice(1))?.closest("details");
  if (details) details.open = true;
}
addEventListener("hashchange", unfold);
