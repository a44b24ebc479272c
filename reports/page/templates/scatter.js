// Every trial as a point: the objective over the trial's number, a cost or a numeric setting.
const markerOf = group => data.styles[group] ?? ["#595959", "o", "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z"];
const outlines = new Map();
const outlineOf = group => { if (!outlines.has(group)) outlines.set(group, new Path2D(markerOf(group)[2])); return outlines.get(group); };
const statusOf = columnOf("status").values, reasonOf = columnOf("reason")?.values ?? [];
const objective = columnOf(data.objective), isPercent = objective.unit === "%";
// Failed trials and those without a finite value stand at the edge; running ones have none yet.
const hasValue = row => statusOf[row] !== "failed" && objective.values[row] !== null;
const isOver = row => statusOf[row] !== "running" && statusOf[row] !== "planned";

// An axis that holds all values: where a few lie far off, a seventh of its length is theirs.
const axisOfAll = values => {
  const v = [...values].sort((a, b) => a - b), at = q => v[Math.min(v.length - 1, Math.floor(q * v.length))];
  const low = v[0], high = v.at(-1), spread = at(.75) - at(.25) || at(.95) - at(.05), reach = 1.5 * spread;
  let a = v.find(x => x >= at(.25) - reach), b = v.findLast(x => x <= at(.75) + reach);
  const core = b - a, isFew = v.filter(x => x < a || x > b).length <= .1 * v.length;
  if (!(isFew && core > 0 && a - low > core)) a = low;
  if (!(isFew && core > 0 && high - b > core)) b = high;
  const room = (b - a || Math.abs(b) * .02 || 1) * .05, below = a > low, above = b < high, far = 1 / 7;
  const first = a - room, last = b + room, foot = below ? far : 0, head = above ? 1 - far : 1;
  const place = x => x < first && below ? foot * (.12 + .8 * (x - low) / (a - low)) : x > last && above ? head + far * (.08 + .8 * (x - b) / (high - b)) : foot + (head - foot) * (x - first) / (last - first);
  return {place, low, high, below, above, foot, head, ticks: ticks(first, last, 5), first, last};
};

(() => {
  const canvas = byId("points");
  if (!canvas) return;
  canvas.classList.toggle("low", !objective.values.some((_, row) => hasValue(row)));
  const choice = byId("against"), tip = byId("tip");
  const labels = {trial: "trial", num_trainable: "trainable parameters", flops_per_image: "FLOPs per image", duration_s: "training time (s)", peak_memory_bytes: "peak memory (bytes)"};
  const across = ["trial", ...data.costs, ...data.settings.filter(name => columnOf(name)?.isNumber)];
  across.forEach(name => { const option = make("option", labels[name] ?? name); option.value = name; choice.append(option); });
  const pick = name => name === "trial" ? trialOf.map((_, i) => i) : columnOf(name).values;
  const rows = trialOf.map((_, i) => i), valued = rows.filter(hasValue), edge = rows.filter(i => isOver(i) && !hasValue(i)), waiting = total - valued.length - edge.length;
  const vertical = valued.length ? axisOfAll(valued.map(i => objective.values[i])) : null;
  let points = [], current = -1;
  const mark = (pen, x, y, radius, row, faint) => {
    const [colour] = markerOf(groupOf[row]);
    pen.save(); pen.translate(x, y); pen.scale(radius, radius);
    pen.globalAlpha = faint ? .1 : rows.length > 2000 ? .6 : .9; pen.fillStyle = pen.strokeStyle = faint ? inks.soft : colour;
    if (!hasValue(row)) { pen.lineWidth = 1.6 / radius; pen.beginPath(); pen.moveTo(-1, -1); pen.lineTo(1, 1); pen.moveTo(1, -1); pen.lineTo(-1, 1); pen.stroke(); }
    else if (statusOf[row] === "completed") pen.fill(outlineOf(groupOf[row]));
    else { pen.lineWidth = 1.3 / radius; pen.stroke(outlineOf(groupOf[row])); }
    pen.restore();
  };
  const paint = () => {
    const [pen, width, height] = begin(canvas), xs = pick(choice.value);
    points = [];
    if (!valued.length && !edge.length) { pen.fillStyle = inks.soft; pen.fillText("No trial has a result yet.", 20, 30); return; }
    const known = rows.filter(i => isOver(i) && xs[i] !== null);
    let x0 = Infinity, x1 = -Infinity; for (const i of known) { x0 = Math.min(x0, xs[i]); x1 = Math.max(x1, xs[i]); }
    if (!known.length) { x0 = 0; x1 = 1; }
    const log = choice.value !== "trial" && x0 > 0 && (columnOf(choice.value)?.log || x1 / x0 > 20), f = v => log ? Math.log10(v) : v;
    let a = f(x0), b = f(x1); const gap = (b - a || Math.abs(b) * .05 || 1) * .03; a -= gap; b += gap;
    const strip = edge.length ? 24 : 0, left = 62, right = 12, top = 10, bottom = 40, w = width - left - right, h = height - top - bottom - strip;
    const px = v => left + (f(v) - a) / (b - a) * w, py = v => top + (1 - vertical.place(v)) * h, foot = top + h + strip;
    pen.lineWidth = 1; pen.fillStyle = inks.soft; pen.strokeStyle = inks.line;
    const number = v => text(+v.toPrecision(6)), line = (y, dash) => { pen.setLineDash(dash); pen.beginPath(); pen.moveTo(left, y); pen.lineTo(left + w, y); pen.stroke(); pen.setLineDash([]); };
    if (vertical) {
      pen.textAlign = "right";
      for (const v of vertical.ticks) { line(py(v), []); pen.fillText(number(v), left - 6, py(v) + 4); }
      // Of the squeezed parts only the farthest value is written; a band says that the scale differs.
      for (const [is, from, to, end] of [[vertical.below, 0, vertical.foot, vertical.low], [vertical.above, vertical.head, 1, vertical.high]]) if (is) {
        pen.fillStyle = inks.faint; pen.fillRect(left, top + (1 - to) * h, w, (to - from) * h); pen.fillStyle = inks.soft;
        pen.textAlign = "right"; pen.fillText(number(end), left - 6, py(end) + 4); pen.textAlign = "left";
        const beyond = valued.filter(i => vertical.place(objective.values[i]) < to && vertical.place(objective.values[i]) >= from).length;
        pen.fillText(`${beyond} far off, on a squeezed scale`, left + 6, top + (1 - (is === vertical.below && from === 0 ? to : from)) * h + (from === 0 ? 14 : -5));
      }
    }
    if (strip) { pen.textAlign = "right"; pen.fillText("no value", left - 6, foot - 8); line(foot - strip, [2, 3]); }
    pen.textAlign = "center";
    const marks = (log ? logTicks(10 ** a, 10 ** b, Math.max(2, w / 70)) : ticks(a, b, Math.max(2, w / 110))).filter(v => choice.value !== "trial" || Number.isInteger(v));
    for (const v of marks) pen.fillText(number(+v.toPrecision(3)), px(v), foot + 16);
    pen.fillText((labels[choice.value] ?? choice.value) + (log ? ", log scale" : ""), left + w / 2, foot + 34);
    pen.save(); pen.translate(13, top + h / 2); pen.rotate(-Math.PI / 2); pen.fillText(data.objective + (isPercent ? " (%)" : ""), 0, 0); pen.restore();
    const radius = rows.length > 2000 ? 1.7 : rows.length > 300 ? 2.8 : 4.2;
    // Without a place on this axis a trial stands at its left end.
    const spot = i => [xs[i] === null ? left + 2 : px(xs[i]), hasValue(i) ? py(objective.values[i]) : foot - strip / 2, i];
    const all = [...valued, ...edge].map(spot);
    for (const [x, y, i] of all) if (!filter.passes(i)) mark(pen, x, y, radius, i, true);
    for (const p of all) if (filter.passes(p[2])) { mark(pen, p[0], p[1], radius, p[2], false); points.push(p); }
    if (choice.value === "trial" && data.is_search) best(pen, px, py, left + w);
    points.sort((p, q) => p[0] - q[0]);
    if (points[current]) { const [x, y] = points[current]; pen.beginPath(); pen.arc(x, y, radius + 5, 0, 7); pen.strokeStyle = inks.ink; pen.lineWidth = 2; pen.stroke(); }
  };
  const best = (pen, px, py, end) => {
    let so = null; pen.beginPath(); pen.strokeStyle = inks.ink; pen.lineWidth = 1.2;
    for (const i of valued) if (statusOf[i] === "completed") {
      const v = objective.values[i];
      if (so === null) { so = v; pen.moveTo(px(i), py(v)); }
      else { pen.lineTo(px(i), py(so)); if (data.maximize ? v > so : v < so) { so = v; pen.lineTo(px(i), py(v)); } }
    }
    if (so !== null) { pen.lineTo(end, py(so)); pen.stroke(); }
  };
  const tell = () => {
    tip.hidden = !points[current];
    if (!tip.hidden) {
      const [x, y, row] = points[current], list = make("dl");
      const line = (name, value) => { if (value !== "") list.append(make("dt", name), make("dd", value)); };
      line(data.objective, objective.values[row] === null ? "none" : shown(objective, row) + (isPercent ? " %" : ""));
      line("status", statusOf[row]); line("reason", text(reasonOf[row]));
      [...new Set([...data.searched, ...data.settings])].filter(columnOf).forEach(name => line(name, shown(columnOf(name), row)));
      tip.replaceChildren(make("strong", `trial ${trialOf[row]}`), list, make("code", data.replay.replace("{trial}", trialOf[row])));
      const box = canvas.getBoundingClientRect(), own = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(box.left + x + 14, innerWidth - own.width - 8)) + "px";
      tip.style.top = Math.max(4, Math.min(box.top + y + 14, innerHeight - own.height - 8)) + "px";
    }
    paint();
  };
  const nearest = event => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let found = -1, least = 400;
    points.forEach((p, k) => { const d = (p[0] - x) ** 2 + (p[1] - y) ** 2; if (d < least) { least = d; found = k; } });
    if (found !== current) { current = found; tell(); }
  };
  const leave = () => { current = -1; tell(); };
  canvas.addEventListener("pointermove", nearest); canvas.addEventListener("pointerdown", nearest);
  canvas.addEventListener("pointerleave", leave); canvas.addEventListener("blur", leave);
  canvas.addEventListener("keydown", event => {
    const moves = {ArrowRight: current + 1, ArrowLeft: current < 0 ? points.length - 1 : current - 1, Home: 0, End: points.length - 1};
    if (event.key === "Escape") return leave();
    if (!(event.key in moves) || !points.length) return;
    event.preventDefault(); current = Math.min(Math.max(moves[event.key], 0), points.length - 1); tell();
  });
  byId("points-note").textContent = [
    valued.some(i => statusOf[i] === "completed") ? "Filled: completed." : "", valued.some(i => statusOf[i] === "pruned") ? "Hollow: stopped early." : "",
    edge.length ? `× below the axis: failed or without a finite value (${edge.length}).` : "", waiting ? `${waiting} without a value yet.` : "",
  ].filter(Boolean).join(" ");
  const again = onceAFrame(paint);
  choice.addEventListener("change", leave); filter.onChange(() => { current = -1; tip.hidden = true; again(); });
  addEventListener("resize", again); 
  // Under the arrow keys the box goes with its point; the pointer is elsewhere after a scroll.
  addEventListener("scroll", () => { if (!tip.hidden) (document.activeElement === canvas ? tell : leave)(); }, {passive: true});
  paint();
})();
