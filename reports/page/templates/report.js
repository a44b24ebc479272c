"use strict";
// What the parts of the page share; each part is a function of its own in a file of its own.
const data = JSON.parse(document.getElementById("data").textContent);
const columns = data.columns, trialOf = columns[0].values, total = trialOf.length;
const byId = id => document.getElementById(id);
const make = (tag, text) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; return e; };
const isMissing = v => v === null || v === undefined || v === "";
const text = v => isMissing(v) ? "" : typeof v === "number"
  ? (Number.isInteger(v) ? String(v) : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e6 ? String(+v.toPrecision(4)) : v.toExponential(2))
  : String(v);
const shown = (column, row) => column.unit === "%" && column.values[row] !== null ? column.values[row].toFixed(2) : text(column.values[row]);
const compare = (x, y, down) => {
  if (isMissing(x) || isMissing(y)) return isMissing(x) - isMissing(y);
  const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), undefined, {numeric: true});
  return down ? -order : order;
};
const mark = (heads, index) => {
  const down = heads[index].getAttribute("aria-sort") !== "descending";
  heads.forEach(h => h.removeAttribute("aria-sort"));
  heads[index].setAttribute("aria-sort", down ? "descending" : "ascending");
  return down;
};

// Tables that stand in the page already.
document.querySelectorAll("table.sortable").forEach(one => {
  const heads = [...one.tHead.rows[0].cells], rows = [...one.tBodies[0].rows];
  heads.forEach((th, index) => {
    const button = make("button", th.textContent); button.type = "button"; th.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = mark(heads, index);
      const value = row => { const c = row.cells[index], v = c.dataset.value ?? c.textContent; return v === "" || v === "-" ? null : isNaN(v) ? v : Number(v); };
      one.tBodies[0].append(...rows.sort((a, b) => compare(value(a), value(b), down)));
    });
  });
});
