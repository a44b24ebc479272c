// Parallel coordinates, lying: a line of values for each searched setting, the objective last. A
// range is dragged along a line, or set with the arrow keys on its two ends; it becomes a comparison
// in the filter, which the table and all figures follow.
(() => {
  const box = byId("parallel");
  if (!box) return;
  const canvas = box.querySelector("canvas"), gap = 64, top = 30;
  const lines = trialOf.map((_, i) => i).filter(hasValue).sort((a, b) => (objective.values[a] - objective.values[b]) * (data.maximize ? 1 : -1));
  const isGiven = column => column?.values.some(v => !isMissing(v));
  const axes = [...new Set([...data.searched.map(columnOf), objective])].filter(isGiven).map(column => {
    const values = column.values, present = values.filter(v => !isMissing(v)), names = !column.isNumber && [...new Set(present)];
    const order = Object.keys(data.styles);
    if (names) names.sort((a, b) => order.indexOf(a) - order.indexOf(b) || collator.compare(a, b));
    const codes = names && new Map(names.map((n, k) => [n, k]));
    const numbers = names ? [0, names.length - 1] : [present.reduce((a, b) => Math.min(a, b)), present.reduce((a, b) => Math.max(a, b))];
    const log = !names && column.log && numbers[0] > 0, f = v => log ? Math.log10(v) : v;
    const a = f(numbers[0]), span = f(numbers[1]) - a;
    return {
      column, names, log, hasGaps: present.length < values.length && column !== objective, isWhole: !names && present.every(Number.isInteger),
      low: numbers[0], high: numbers[1],
      at: value => span ? (f(names ? codes.get(value) : value) - a) / span : .5,
      back: share => { const v = a + Math.min(1, Math.max(0, share)) * span; return log ? 10 ** v : v; },
    };
  });
  if (axes.length < 2) return;
  // Settings that few of the chosen trials have are left out: of many methods each has its own.
  let visible = axes;
  const choose = rows => {
    visible = axes.filter(axis => !axis.hasGaps || filter.of(axis.column.name).length || rows.filter(row => !isMissing(axis.column.values[row])).length >= .2 * rows.length);
    box.style.height = `${top + gap * visible.length}px`;
    const left = axes.length - visible.length;
    byId("parallel-note").textContent = left ? `${left} settings that less than a fifth of these trials have are left out; a filter such as methods = ${String(groupOf[0]).includes(" ") ? "vpt" : groupOf[0]} brings a method's own.` : "";
  };
  let left = 0, width = 0, isNarrow = false;
  const unset = () => left + width + 46;
  const px = (axis, row) => { const v = axis.column.values[row]; return isMissing(v) ? unset() : left + axis.at(v) * width; };
  const py = k => top + gap * k;

  const paint = () => {
    const on = filter.isOn(), chosen = on ? lines.filter(filter.passes) : lines;
    choose(chosen);
    const [pen, w] = begin(canvas);
    isNarrow = w < 640; left = isNarrow ? 12 : 190; width = w - left - 18 - (visible.some(a => a.hasGaps) ? 64 : 0);
    const trace = row => { pen.beginPath(); visible.forEach((axis, k) => pen[k ? "lineTo" : "moveTo"](px(axis, row), py(k))); pen.stroke(); };
    const many = lines.length, strength = Math.max(.05, Math.min(.8, 60 / many));
    pen.lineWidth = many > 1000 ? .7 : 1.1;
    if (on) { pen.strokeStyle = inks.line; pen.globalAlpha = Math.max(.04, Math.min(.6, 60 / many)); lines.forEach(row => { if (!filter.passes(row)) trace(row); }); }
    const clear = Math.max(strength, Math.min(.8, 60 / (chosen.length || 1)));
    // The best come last and are strongest: they are few, and others would hide them.
    chosen.forEach((row, k) => {
      pen.strokeStyle = markerOf(groupOf[row])[0]; pen.globalAlpha = Math.min(.95, clear * (k > .9 * chosen.length ? 3 : statusOf[row] === "completed" ? 1 : .5));
      pen.setLineDash(statusOf[row] === "completed" || many > 300 ? [] : [4, 3]); trace(row);
    });
    pen.globalAlpha = 1; pen.setLineDash([]);
    visible.forEach((axis, k) => frame(pen, axis, k));
    place();
  };
  // Text over lines stands on a strip of paper.
  const write = (pen, said, x, y, align) => {
    pen.textAlign = align; const size = pen.measureText(said).width, from = align === "center" ? x - size / 2 : align === "right" ? x - size : x;
    pen.globalAlpha = .8; pen.fillStyle = inks.paper; pen.fillRect(from - 2, y - 10, size + 4, 13); pen.globalAlpha = 1; pen.fillStyle = inks.ink; pen.fillText(said, x, y);
  };
  const frame = (pen, axis, k) => {
    const y = py(k), name = axis.column.name + (axis.column.unit ? ` (${axis.column.unit})` : "") + (axis.log ? ", log" : "");
    pen.strokeStyle = inks.soft; pen.lineWidth = 1; pen.beginPath(); pen.moveTo(left, y); pen.lineTo(left + width, y); pen.stroke();
    pen.font = `bold ${font(12)}`;
    if (isNarrow) write(pen, name, left, y - 12, "left"); else write(pen, fitted(pen, name, left - 24), left - 16, y + 4, "right");
    pen.font = font(11);
    let taken = -Infinity;
    const room = isNarrow ? 44 : 64, marks = axis.names ? axis.names.map((n, i) => [axis.at(n), n]) : numbersOf(axis, width / (room + 20)).map(v => [axis.at(v), text(+v.toPrecision(4))]);
    for (const [share, said] of marks) {
      const x = left + share * width, half = pen.measureText(said).width / 2;
      pen.beginPath(); pen.moveTo(x, y - 3); pen.lineTo(x, y + 3); pen.stroke();
      const middle = Math.min(Math.max(x, half + 2), canvas.clientWidth - half - 2);
      if (middle - half > taken + 6) { write(pen, said, middle, y + 20, "center"); taken = middle + half; }
    }
    if (axis.hasGaps) { pen.beginPath(); pen.arc(unset(), y, 3, 0, 7); pen.stroke(); write(pen, "not set", unset(), y + 20, "center"); }
  };
  const fitted = (pen, said, most) => { let cut = said; while (cut.length > 4 && pen.measureText(cut).width > most) cut = "…" + cut.slice(cut.startsWith("…") ? 2 : 1); return cut; };
  // Both ends are written always; values of a short list are written all.
  const numbersOf = (axis, n) => {
    const different = [...new Set(axis.column.values.filter(v => !isMissing(v)))].sort((a, b) => a - b);
    if (different.length <= Math.min(8, n + 1)) return different;
    const apart = (a, b) => Math.abs(axis.at(a) - axis.at(b)) > .8 / n, inner = (axis.log ? logTicks : ticks)(axis.low, axis.high, n);
    return [axis.low, ...inner.filter(v => v > axis.low && v < axis.high && apart(v, axis.low) && apart(v, axis.high)), axis.high];
  };

  // Ranges: what the filter says of an axis, as shares of its length.
  const rangeOf = axis => {
    const said = filter.of(axis.column.name);
    if (!said.length) return null;
    if (axis.names) {
      const named = said.find(p => p.op === "="), places = named ? named.parts.map(p => axis.names.findIndex(n => n.toLowerCase() === p.toLowerCase())).filter(k => k >= 0) : [];
      return places.length ? [axis.at(axis.names[Math.min(...places)]), axis.at(axis.names[Math.max(...places)])] : null;
    }
    let from = 0, to = 1;
    for (const p of said) {
      if (p.parts[0] === "unset") return null;
      const share = Math.min(1, Math.max(0, axis.at(Math.max(p.limit, axis.log ? 1e-300 : -Infinity))));
      if (p.op.startsWith(">")) from = Math.max(from, share);
      if (p.op.startsWith("<")) to = Math.min(to, share);
      if (p.op === "=") from = to = share;
    }
    return [from, to];
  };
  const quoted = name => /[\s<>=|!"]/.test(name) ? `"${name}"` : name;
  const setRange = (axis, from, to) => {
    const name = axis.column.name;
    if (from <= 0 && to >= 1) return filter.replace(name, "");
    if (axis.names) return filter.replace(name, `${name} = ${axis.names.filter(n => axis.at(n) >= from - 1e-6 && axis.at(n) <= to + 1e-6).map(quoted).join("|") || "nothing"}`);
    const round = v => axis.isWhole ? v : +v.toPrecision(3), a = axis.isWhole ? Math.ceil(axis.back(from) - 1e-6) : round(axis.back(from)), b = axis.isWhole ? Math.floor(axis.back(to) + 1e-6) : round(axis.back(to));
    filter.replace(name, from <= 0 ? `${name} <= ${b}` : to >= 1 ? `${name} >= ${a}` : `${a} <= ${name} <= ${b}`);
  };
  const strips = axes.map(axis => {
    const strip = make("div", "", {className: "strip"}), band = make("div", "", {className: "band"}), name = axis.column.name;
    const ends = ["from", "to"].map((side, which) => {
      const handle = make("button", "", {type: "button", className: `end ${side}`});
      handle.setAttribute("role", "slider"); handle.setAttribute("aria-label", `${name} ${side}`); handle.setAttribute("aria-valuemin", "0"); handle.setAttribute("aria-valuemax", "100");
      handle.addEventListener("keydown", event => {
        const step = axis.names ? 1 / Math.max(1, axis.names.length - 1) : axis.isWhole && axis.high > axis.low && !axis.log ? Math.max(.02, 1 / (axis.high - axis.low)) : .02;
        const range = rangeOf(axis) ?? [0, 1], moves = {ArrowRight: range[which] + step, ArrowUp: range[which] + step, ArrowLeft: range[which] - step, ArrowDown: range[which] - step, Home: 0, End: 1};
        if (event.key === "Escape") return filter.replace(name, "");
        if (!(event.key in moves)) return;
        event.preventDefault();
        range[which] = Math.min(1, Math.max(0, moves[event.key]));
        setRange(axis, which ? Math.min(range[0], range[1]) : range[0], which ? range[1] : Math.max(range[0], range[1]));
        handle.focus();
      });
      return handle;
    });
    let grabbed = null;
    const share = event => (event.clientX - strip.getBoundingClientRect().left - 10) / width;
    strip.addEventListener("pointerdown", event => {
      event.preventDefault(); strip.setPointerCapture(event.pointerId); event.target.closest(".end")?.focus();
      const which = ends.indexOf(event.target), range = rangeOf(axis) ?? [0, 1];
      // an end that is grabbed moves against the other one, anything else begins a new range
      grabbed = {fixed: which < 0 ? share(event) : range[1 - which], x: event.clientX};
    });
    strip.addEventListener("pointermove", event => {
      if (grabbed && Math.abs(event.clientX - grabbed.x) > 3) { const to = share(event); setRange(axis, Math.min(grabbed.fixed, to), Math.max(grabbed.fixed, to)); }
    });
    const drop = event => {
      if (grabbed && event.type === "pointerup" && Math.abs(event.clientX - grabbed.x) <= 3 && !ends.includes(event.target)) {
        const isUnset = share(event) > 1 + 20 / width && axis.hasGaps;
        filter.replace(name, isUnset ? `${name} = unset` : "");
      }
      grabbed = null;
    };
    strip.addEventListener("pointerup", drop); strip.addEventListener("pointercancel", drop);
    strip.append(band, ...ends); box.append(strip);
    return {strip, band, ends};
  });
  const place = () => axes.forEach((axis, index) => {
    const {strip, band, ends} = strips[index], k = visible.indexOf(axis), range = rangeOf(axis), [from, to] = range ?? [0, 1];
    strip.hidden = k < 0;
    strip.style.cssText = `left:${left - 10}px;top:${py(k) - 13}px;width:${width + 20 + (axis.hasGaps ? 64 : 0)}px`;
    band.hidden = !range; band.style.cssText = `left:${10 + from * width}px;width:${Math.max(2, (to - from) * width)}px`;
    ends.forEach((handle, which) => {
      handle.style.left = `${10 + (which ? to : from) * width}px`;
      const value = axis.names ? axis.names[Math.round((which ? to : from) * (axis.names.length - 1))] : text(+axis.back(which ? to : from).toPrecision(3));
      handle.setAttribute("aria-valuenow", String(Math.round(100 * (which ? to : from)))); handle.setAttribute("aria-valuetext", String(value));
    });
  });
  const again = onceAFrame(paint);
  filter.onChange(again); addEventListener("resize", again);
  paint();
})();
