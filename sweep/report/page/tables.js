// Tables: a heading sorts, again in the other direction; what has no value stays at the end.
"use strict";
const MISSING = "\u2013";
const keyOf = (row, column) => {
  const cell = row.cells[column];
  return "key" in cell.dataset ? Number(cell.dataset.key) : cell.textContent.trim();
};
function compare(a, b) {
  const numbers = typeof a === "number" && typeof b === "number";
  return numbers ? a - b : String(a).localeCompare(String(b));
}
function sort(heading) {
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  const body = heading.closest("table").tBodies[0];
  heading.closest("tr").querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const column = heading.cellIndex;
  const isMissing = (row) => row.cells[column].textContent.trim() === MISSING;
  const rows = [...body.rows].sort((a, b) =>
    isMissing(a) - isMissing(b) || (ascending ? 1 : -1) * compare(keyOf(a, column), keyOf(b, column)));
  body.append(...rows);
}
document.querySelectorAll("th button").forEach((button) =>
  button.addEventListener("click", () => sort(button.closest("th"))));
