(() => {
  // Points: objective over trial number or over a cost.
  const canvas = byId("points");
  if (!canvas) return;
  const names = Object.keys(data.styles).filter(name => data.groups.includes(name)), colour = name => data.styles[name][0];
  const status = columns[1].values, choice = byId("against"), tip = byId("tip"), pen = canvas.getContext("2d");
  const percent = data.objective.endsWith("accuracy"), pick = name => name === "trial" ? trialOf.map((_, i) => i) : data.costs[name];
  const labels = {trial: "trial", num_trainable: "trainable parameters", flops_per_image: "FLOPs per image", duration_s: "training time (s)", peak_memory_bytes: "peak memory (bytes)"};
  ["trial", ...Object.keys(data.costs)].forEach(name => { const option = make("option", labels[name]); option.value = name; choice.append(option); });
  names.filter(Boolean).forEach(name => { const item = make("span", name); item.style.setProperty("--dot", colour(name)); byId("legend").append(item); });
  let points = [], current = -1;
  const ticks = (low, high, n) => {
    const raw = (high - low) / n || 1, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(s => s * power >= raw) * power;
    const found = []; for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) found.push(v);
    return found;
  };
  const paint = () => {
    const box = canvas.getBoundingClientRect(), scale = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    canvas.width = box.width * scale; canvas.height = box.height * scale; pen.setTransform(scale, 0, 0, scale, 0, 0);
    const xs = pick(choice.value), rows = trialOf.map((_, i) => i).filter(i => data.value[i] !== null && xs[i] !== null);
    pen.clearRect(0, 0, box.width, box.height); pen.font = "12px sans-serif"; pen.fillStyle = style.getPropertyValue("--soft");
    if (!rows.length) { pen.fillText("No trial has a result yet.", 20, 30); points = []; return; }
    const done = rows.filter(i => status[i] === "completed"), ys = (done.length ? done : rows).map(i => data.value[i]).sort((a, b) => a - b);
    let x0 = Infinity, x1 = -Infinity; for (const i of rows) { x0 = Math.min(x0, xs[i]); x1 = Math.max(x1, xs[i]); }
    let y0 = ys[0], y1 = ys[ys.length - 1]; const room = (y1 - y0 || Math.abs(y1) * .02 || 1) * .06; y0 -= room; y1 += room;
    const log = choice.value !== "trial" && x0 > 0 && x1 / x0 > 20, f = v => log ? Math.log10(v) : v;
    let a = f(x0), b = f(x1); const gap = (b - a || 1) * .03; a -= gap; b += gap;
    const left = 58, right = 12, top = 12, bottom = 40, w = box.width - left - right, h = box.height - top - bottom;
    const px = v => left + (f(v) - a) / (b - a) * w, py = v => top + (1 - (v - y0) / (y1 - y0)) * h;
    pen.strokeStyle = style.getPropertyValue("--line"); pen.lineWidth = 1;
    pen.textAlign = "right"; for (const v of ticks(y0, y1, 5)) { pen.beginPath(); pen.moveTo(left, py(v)); pen.lineTo(left + w, py(v)); pen.stroke(); pen.fillText(text(+v.toPrecision(6)), left - 6, py(v) + 4); }
    pen.textAlign = "center"; for (const v of ticks(a, b, Math.max(2, w / 110))) { const value = log ? 10 ** v : v; pen.fillText(text(+value.toPrecision(3)), left + (v - a) / (b - a) * w, top + h + 16); }
    pen.fillText(labels[choice.value] + (log ? ", log scale" : ""), left + w / 2, top + h + 34);
    pen.save(); pen.translate(13, top + h / 2); pen.rotate(-Math.PI / 2); pen.fillText(data.objective + (percent ? " (%)" : ""), 0, 0); pen.restore();
    const radius = rows.length > 2000 ? 1.6 : rows.length > 300 ? 2.5 : 4;
    const inside = rows.filter(i => data.value[i] >= y0 && data.value[i] <= y1), outside = rows.length - inside.length;
    points = inside.map(i => [px(xs[i]), py(data.value[i]), i]);
    if (outside) { pen.textAlign = "left"; pen.fillText(`${outside} trials beyond the axis, see the table`, left + 6, top + h - 6); }
    for (const [x, y, i] of points) {
      pen.beginPath(); pen.arc(x, y, radius, 0, 7); const c = colour(data.groups[i]);
      if (status[i] === "completed") { pen.fillStyle = c; pen.globalAlpha = rows.length > 2000 ? .6 : .9; pen.fill(); pen.globalAlpha = 1; } else { pen.strokeStyle = c; pen.stroke(); }
    }
    if (choice.value === "trial" && data.is_search && done.length) {
      let best = null; pen.beginPath(); pen.strokeStyle = style.getPropertyValue("--ink"); pen.lineWidth = 1.2;
      for (const i of done) { const v = data.value[i]; if (best === null) { best = v; pen.moveTo(px(xs[i]), py(v)); } else { pen.lineTo(px(xs[i]), py(best)); if (data.maximize ? v > best : v < best) { best = v; pen.lineTo(px(xs[i]), py(v)); } } }
      pen.lineTo(left + w, py(best)); pen.stroke();
    }
    points.sort((p, q) => p[0] - q[0]);
    if (current >= 0 && points[current]) { const [x, y] = points[current]; pen.beginPath(); pen.arc(x, y, radius + 4, 0, 7); pen.strokeStyle = style.getPropertyValue("--ink"); pen.lineWidth = 2; pen.stroke(); }
  };
  const tell = () => {
    tip.hidden = current < 0 || !points[current];
    if (!tip.hidden) {
      const [x, y, row] = points[current], list = make("dl");
      const line = (name, value) => { if (value !== "") list.append(make("dt", name), make("dd", value)); };
      line(data.objective, text(data.value[row]) + (percent ? " %" : "")); line("status", status[row]);
      data.settings.forEach(name => line(name, shown(columns.find(c => c.name === name), row)));
      tip.replaceChildren(make("strong", `trial ${trialOf[row]}`), list, make("code", data.replay.replace("{trial}", trialOf[row])));
      const box = canvas.getBoundingClientRect(), own = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(box.left + x + 14, innerWidth - own.width - 8)) + "px";
      tip.style.top = Math.max(4, Math.min(box.top + y + 14, innerHeight - own.height - 8)) + "px";
    }
    paint();
  };
  const nearest = event => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = 400;
    points.forEach((p, k) => { const d = (p[0] - x) ** 2 + (p[1] - y) ** 2; if (d < least) { least = d; best = k; } });
    if (best !== current) { current = best; tell(); }
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
  choice.addEventListener("change", () => { current = -1; tell(); });
  addEventListener("resize", paint); addEventListener("scroll", () => { if (!tip.hidden) leave(); }, {passive: true});
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  paint();
})();
