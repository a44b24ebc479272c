(() => {
  // The trial table: one page of rows in the document, all of them in memory.
  const table = byId("trials"), head = table.tHead.rows[0], body = table.tBodies[0];
  const size = 50, isNumber = columns.map(c => c.values.some(v => typeof v === "number"));
  let order = [...trialOf.keys()], visible = order, page = 0, lines = null;
  columns.forEach((column, index) => {
    const th = make("th"), button = make("button", column.name + (column.unit ? ` (${column.unit})` : ""));
    th.scope = "col"; th.title = column.meaning; button.type = "button";
    if (isNumber[index]) th.className = "n";
    button.addEventListener("click", () => {
      const down = mark([...head.cells], index), values = column.values;
      order.sort((a, b) => compare(values[a], values[b], down) || a - b);
      page = 0; filter();
    });
    th.append(button); head.append(th);
  });
  const draw = () => {
    const pages = Math.max(1, Math.ceil(visible.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    body.replaceChildren(...visible.slice(page * size, (page + 1) * size).map(row => {
      const tr = make("tr");
      columns.forEach((column, index) => {
        const td = make("td", shown(column, row));
        if (isNumber[index]) td.className = "n"; else if (column.name === "reason") td.className = "long";
        tr.append(td);
      });
      return tr;
    }));
    byId("shown").textContent = `${visible.length} of ${total} trials`;
    byId("page").textContent = `page ${page + 1} of ${pages}`;
    byId("previous").disabled = page === 0; byId("next").disabled = page >= pages - 1;
  };
  const tests = {"<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a == b};
  const wanted = word => {
    const found = /^([\w.]+)(<=|>=|<|>|=)(.+)$/.exec(word), column = found && columns.find(c => c.name.toLowerCase() === found[1]);
    if (!column) return row => (lines ??= trialOf.map((_, r) => columns.map(c => shown(c, r)).join("\n").toLowerCase()))[row].includes(word);
    const limit = isNaN(found[3]) ? found[3] : Number(found[3]);
    return row => {
      const value = column.values[row];
      if (isMissing(value)) return false;
      return tests[found[2]](typeof limit === "number" ? Number(value) : String(value).toLowerCase(), limit);
    };
  };
  const filter = () => {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean).map(wanted);
    visible = words.length ? order.filter(row => words.every(test => test(row))) : order;
    draw();
  };
  byId("filter").addEventListener("input", () => { page = 0; filter(); });
  byId("previous").addEventListener("click", () => { page--; draw(); });
  byId("next").addEventListener("click", () => { page++; draw(); });
  filter();
})();
