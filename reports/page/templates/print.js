// On paper no table is cut: one that is wider than the page is split into several, each of which
// begins with the first column.
const MOST_PRINTED = 300, printed = [];
(() => {
  const paper = 690;  // A4 within its margins, in CSS pixels; other papers are wider
  const split = (table, rows) => {
    const heads = [...table.tHead.rows[0].cells].map(th => th.textContent), all = [...[...table.tHead.rows].slice(1), ...rows];
    const copy = (cell, tag) => { const e = make(tag, cell.textContent); e.className = cell.className; return e; };
    const build = chosen => {
      const one = make("table"), top = make("tr"), body = make("tbody"), thead = make("thead");
      one.className = table.className;
      chosen.forEach(k => top.append(copy(table.tHead.rows[0].cells[k], "th")));
      all.forEach(row => { const tr = make("tr"); tr.className = row.className; chosen.forEach(k => tr.append(copy(row.cells[k], "td"))); body.append(tr); });
      thead.append(top); one.append(thead, body);
      return one;
    };
    // A long text may wrap, and so may a name at its dots.
    const widest = heads.map((head, k) => Math.min(150, 12 + 5.6 * Math.max(...head.split(/(?<=[._ ])/).map(part => part.length), ...all.map(row => row.cells[k].className === "long" ? Math.min(24, row.cells[k].textContent.length) : row.cells[k].textContent.length))));
    const parts = []; let part = [0], used = widest[0];
    for (let k = 1; k < heads.length; k++) {
      if (used + widest[k] > paper && part.length > 1) { parts.push(part); part = [0]; used = widest[0]; }
      part.push(k); used += widest[k];
    }
    parts.push(part);
    return parts.map(build);
  };
  const before = () => {
    after();
    const known = new Map(printed.map(one => [one.table, one]));
    document.querySelectorAll(".scroll > table").forEach(table => {
      const one = known.get(table), rows = one ? one.rows() : [...table.tBodies[0].rows];
      if (!table.tHead) return;
      const paperOnly = make("div", undefined, {className: "paper"}), said = one?.left();
      paperOnly.append(...split(table, rows), ...(said ? [make("p", said, {className: "note"})] : []));
      table.parentNode.after(paperOnly); table.parentNode.classList.add("on-paper-split");
    });
  };
  const after = () => {
    document.querySelectorAll(".paper").forEach(e => e.remove());
    document.querySelectorAll(".on-paper-split").forEach(e => e.classList.remove("on-paper-split"));
  };
  addEventListener("beforeprint", before); addEventListener("afterprint", after);
})();
