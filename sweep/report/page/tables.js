// Tables: a heading sorts, again in the other direction; what has no value stays at the end.
// Cells of a column of numbers sort by their key, or by the number or duration that they begin with.
"use strict";
const MISSING = "\u2013";
const numberIn = (text) =>
  text.replaceAll(",", "").split(":").reduce((minutes, part) => 60 * minutes + Number.parseFloat(part), 0);
const keyOf = (row, column) => {
  const cell = row.cells[column];
  if ("key" in cell.dataset) return Number(cell.dataset.key);
  const text = cell.textContent.trim();
  const number = cell.classList.contains("number") ? numberIn(text) : NaN;
  return Number.isNaN(number) ? text : number;
};
function compare(a, b) {
  const numbers = typeof a === "number" && typeof b === "number";
  return numbers ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}
function sort(heading) {
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  const body = heading.closest("table").tBodies[0];
  heading.closest("tr").querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const column = heading.cellIndex;
  const isMissing = (row) => ["", MISSING].includes(row.cells[column].textContent.trim());
  const rows = [...body.rows].sort((a, b) =>
    isMissing(a) - isMissing(b) || (ascending ? 1 : -1) * compare(keyOf(a, column), keyOf(b, column)));
  body.append(...rows);
}
document.querySelectorAll("th button").forEach((button) =>
  button.addEventListener("click", () => sort(button.closest("th"))));
