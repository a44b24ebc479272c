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
    // Numbers and heads stay on one line; a long text may wrap.
    const widest = heads.map((head, k) => 10 + 5 * Math.max(head.length, ...all.map(row => Math.min(row.cells[k].textContent.length, row.cells[k].className === "n" ? 40 : 24))));
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
      if (!table.tHead) return;
      const one = known.get(table), parts = split(table, one ? one.rows() : [...table.tBodies[0].rows]), said = one?.left();
      if (!one && parts.length === 1) return;  // it fits as it stands
      const paperOnly = make("div", undefined, {className: "paper"});
      paperOnly.append(...parts, ...(said ? [make("p", said, {className: "note"})] : []));
      table.parentNode.after(paperOnly); table.parentNode.classList.add("on-paper-split");
    });
  };
  const after = () => {
    document.querySelectorAll(".paper").forEach(e => e.remove());
    document.querySelectorAll(".on-paper-split").forEach(e => e.classList.remove("on-paper-split"));
  };
  addEventListener("beforeprint", before); addEventListener("afterprint", after);
})();
