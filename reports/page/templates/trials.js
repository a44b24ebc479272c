// The trial table: one page of rows in the document, all of them in memory.
(() => {
  const table = byId("trials"), head = table.tHead.rows[0], body = table.tBodies[0], size = 50;
  const order = [...trialOf.keys()]; let visible = order, page = 0;
  const isLong = column => column.name === "reason" || column.name === "deviation";
  // A dotted path may be broken at its dots.
  const broken = (node, name) => { name.split(/(?<=[._])/).forEach((part, k) => node.append(...(k ? [make("wbr")] : []), part)); return node; };
  columns.forEach((column, index) => {
    const th = make("th"), button = broken(make("button"), column.name + (column.unit ? ` (${column.unit})` : ""));
    th.scope = "col"; th.title = column.meaning; button.type = "button";
    if (column.isNumber) th.className = "n"; else if (isLong(column)) th.className = "long";
    button.addEventListener("click", () => {
      const down = mark([...head.cells], index), values = column.values;
      order.sort((a, b) => compare(values[a], values[b], down) || a - b);
      page = 0; draw();
    });
    th.append(button); head.append(th);
  });
  const rowOf = row => {
    const tr = make("tr");
    tr.className = statusOf[row];
    columns.forEach(column => {
      const td = make("td", shown(column, row));
      if (column.isNumber) td.className = "n"; else if (isLong(column)) td.className = "long";
      tr.append(td);
    });
    return tr;
  };
  // The selected setting stays on top, however the others are sorted and filtered.
  table.tHead.append(...data.selected.slice(0, 10).map(row => { const tr = rowOf(row); tr.classList.add("pinned"); tr.title = "the selected setting"; return tr; }));
  const draw = () => {
    visible = filter.isOn() ? order.filter(filter.passes) : order;
    const pages = Math.max(1, Math.ceil(visible.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    body.replaceChildren(...visible.slice(page * size, (page + 1) * size).map(rowOf));
    byId("shown").textContent = `${visible.length} of ${total} trials`;
    byId("page").textContent = `page ${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0; byId("next").disabled = page >= pages - 1;
    const by = byId("chosen");
    by.hidden = !filter.isOn();
    by.querySelector("span").textContent = `${visible.length} of ${total} trials: ${filter.text()}`;
  };
  filter.onChange(() => { page = 0; draw(); });
  byId("previous").addEventListener("click", () => { page--; draw(); });
  byId("next").addEventListener("click", () => { page++; draw(); });
  byId("clear").addEventListener("click", filter.clear);
  // On paper stand all rows of the filter, or the first ones and a line that says so.
  printed.push({table, rows: () => visible.slice(0, MOST_PRINTED).map(rowOf), left: () => visible.length > MOST_PRINTED ? `Printed: the first ${MOST_PRINTED} of ${visible.length} trials; all stand in tables/trials.csv.` : ""});
  filter.apply();
})();
