"use strict";
// What the parts of the page share; each part is a function of its own in a file of its own.
const data = JSON.parse(document.getElementById("data").textContent);
const columns = data.columns;
for (const c of [...columns, data.group]) {
  if (c.levels) c.values = c.values.map(place => place === null ? null : c.levels[place]);
  c.isNumber = c.values.some(v => typeof v === "number");
}
const trialOf = columns[0].values, total = trialOf.length, groupOf = data.group.values;
const columnOf = name => columns.find(c => c.name === name);
const byId = id => document.getElementById(id);
const make = (tag, text, more) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; return Object.assign(e, more); };
const isMissing = v => v === null || v === undefined || v === "";
const text = v => isMissing(v) ? "" : typeof v === "number"
  ? (Number.isInteger(v) ? String(v) : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e6 ? String(+v.toPrecision(4)) : v.toExponential(2))
  : String(v);
const shown = (column, row) => column.unit === "%" && column.values[row] !== null ? column.values[row].toFixed(2) : text(column.values[row]);
const compare = (x, y, down) => {
  if (isMissing(x) || isMissing(y)) return isMissing(x) - isMissing(y);
  const order = typeof x === "number" && typeof y === "number" ? x - y : x === y ? 0 : collator.compare(x, y);
  return down ? -order : order;
};
const collator = new Intl.Collator(undefined, {numeric: true});
const mark = (heads, index) => {
  const down = heads[index].getAttribute("aria-sort") !== "descending";
  heads.forEach(h => h.removeAttribute("aria-sort"));
  heads[index].setAttribute("aria-sort", down ? "descending" : "ascending");
  return down;
};
// Of many calls between two pictures the last one is done; thousands of marks wait for a pause in
// the typing, so that the table answers at once.
const onceAFrame = work => {
  let frame = 0, pause = 0;
  const soon = () => { frame ||= requestAnimationFrame(() => { frame = 0; work(); }); };
  return total > 2000 ? () => { clearTimeout(pause); pause = setTimeout(soon, 120); } : soon;
};

// Figures are drawn in the colours of a light page; in the dark one rule of the style turns all of
// them, drawn or stored, in the same way.
const inks = {ink: "#1b1b1b", soft: "#595959", line: "#d8d8d4", faint: "#e9e9e6", paper: "#ffffff"};
const font = size => `${size}px "Helvetica Neue", Arial, "Liberation Sans", sans-serif`;
// A canvas at the resolution of the screen; gives its pen, width and height.
const begin = canvas => {
  const scale = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight, pen = canvas.getContext("2d");
  canvas.width = w * scale; canvas.height = h * scale; pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, w, h); pen.font = font(12);
  return [pen, w, h];
};
const ticks = (low, high, n) => {
  const raw = (high - low) / n || 1, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(s => s * power >= raw * (1 - 1e-9)) * power;
  const found = []; for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) found.push(+v.toPrecision(12));
  return found;
};
// Of a logarithmic axis: powers of ten, and 2 and 5 times them where there is room.
const logTicks = (low, high, n) => {
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) for (const m of [1, 2, 5]) found.push(+(m * 10 ** e).toPrecision(3));
  const inside = found.filter(v => v >= low * .999 && v <= high * 1.001), tens = inside.filter(v => String(v.toExponential()).startsWith("1e"));
  return inside.length <= n || tens.length < 2 ? inside : tens.filter((_, k) => k % Math.ceil(tens.length / n) === 0);
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
