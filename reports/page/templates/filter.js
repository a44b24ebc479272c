// The filter: words and comparisons, all of which hold. One text says it for table and figures, so a
// range that is dragged in a figure can be read, changed and copied.
const filter = (() => {
  const field = byId("filter"), listeners = [], letThrough = new Uint8Array(total).fill(1);
  const order = {"<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b};
  const flipped = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="};
  const spelt = {"==": "=", "≤": "<=", "≥": ">=", "≠": "!="};
  // Operands are runs of plain and quoted parts: vpt, "vfpt + tcpa"|vpt.
  const tokens = all => [...all.matchAll(/<=|>=|!=|==|[≤≥≠<>=]|(?:"[^"]*"?|[^\s<>=≤≥≠!"]|!(?!=))+/g)].map(m => {
    const op = spelt[m[0]] ?? m[0];
    return {op: op in flipped ? op : null, text: m[0], at: m.index, end: m.index + m[0].length};
  });
  const bare = part => part.replaceAll('"', "");
  const alternatives = part => [...part.matchAll(/(?:"[^"]*"?|[^|"])+/g)].map(m => bare(m[0]));
  const lastPart = name => name.slice(name.lastIndexOf(".") + 1);
  const named = (all, name) => {
    const wanted = bare(name).toLowerCase(), exact = all.filter(n => n.toLowerCase() === wanted);
    return exact.length ? exact : all.filter(n => lastPart(n).toLowerCase() === wanted);
  };
  const names = columns.map(c => c.name), constants = new Map(data.constants.map(([name, value]) => [name, value])), known = [...names, ...constants.keys()];
  const toNumber = part => part.trim() === "" ? NaN : Number(part.replace(/%$/, ""));
  const isNumeric = column => column.isNumeric ??= column.values.every(v => isMissing(v) || typeof v !== "boolean" && !isNaN(v)) && column.values.some(v => !isMissing(v));

  // One comparison with one column: a test of rows, or a sentence why there is none.
  const compared = (column, op, parts) => {
    const equal = op === "=" || op === "!=", wanted = parts.map(p => p.toLowerCase());
    const limits = parts.map(toNumber), numeric = isNumeric(column);
    const bad = numeric ? parts.find((p, k) => isNaN(limits[k]) && !(equal && wanted[k] === "unset")) : undefined;
    if (bad !== undefined) return `${column.name} is a number, "${bad}" is none`;
    if (!equal && !numeric) return `${column.name} has names, which know = and != alone`;
    if (!equal && parts.length > 1) return `"${parts.join("|")}" stands behind ${op}, which takes one number`;
    if (!equal) return row => !isMissing(column.values[row]) && order[op](Number(column.values[row]), limits[0]);
    const same = row => {
      const value = column.values[row];
      if (isMissing(value)) return wanted.includes("unset");
      // a number is also found as the table rounds it, a chain of methods by each of them
      if (numeric) return limits.includes(Number(value)) || wanted.includes(shown(column, row).toLowerCase());
      const own = String(value).toLowerCase();
      return wanted.includes(own) || own.includes(" + ") && own.split(" + ").some(one => wanted.includes(one));
    };
    return op === "=" ? same : row => !same(row);
  };
  const fixed = (name, op, parts) => {
    const value = constants.get(name), limit = toNumber(parts[0]), numeric = !isNaN(value) && value !== "";
    const same = parts.some(p => p.toLowerCase() === value.toLowerCase() || numeric && toNumber(p) === Number(value));
    const holds = op === "=" ? same : op === "!=" ? !same : order[op](Number(value), limit);
    return {test: () => holds, said: `${name} is ${value} in all trials that have it`};
  };
  const comparison = (left, op, right) => {
    const piece = {at: left.at, end: right.end, said: "", test: null};
    let found = named(known, left.text), other = right;
    if (!found.length && (found = named(known, right.text)).length) { other = left; op = flipped[op]; }
    if (!found.length) {
      const near = known.filter(n => n.toLowerCase().includes(bare(left.text).toLowerCase()));
      return {...piece, said: `no column is called "${bare(left.text)}"; ${near.length ? "near it" : "there are"}: ${(near.length ? near : names).slice(0, 12).join(", ")}`};
    }
    const parts = alternatives(other.text), shownOnes = found.filter(n => names.includes(n));
    if (!shownOnes.length) return {...piece, ...fixed(found[0], op, parts)};
    const tests = shownOnes.map(n => compared(columnOf(n), op, parts)), wrong = tests.find(t => typeof t === "string");
    if (wrong) return {...piece, said: wrong};
    const said = shownOnes.length > 1 ? `${bare(left.text)} is ${shownOnes.join(" or ")}` : "";
    return {...piece, said, test: row => tests.some(t => t(row)), op, column: shownOnes.length === 1 ? shownOnes[0] : null, limit: toNumber(parts[0]), parts};
  };
  let lines = null;
  const word = token => {
    const wanted = bare(token.text).toLowerCase(), piece = {at: token.at, end: token.end, said: "", test: null};
    if (wanted === "and" || wanted === "") return piece;
    if (wanted === "or") return {...piece, said: 'all parts hold together; alternatives of one column are written methods = vpt|tcpa'};
    if (wanted === "not") return {...piece, said: '"not" is unknown; write status != pruned'};
    lines ??= trialOf.map((_, r) => columns.map(c => shown(c, r)).join("\n").toLowerCase());
    return {...piece, test: row => lines[row].includes(wanted), said: lines.some(l => l.includes(wanted)) ? "" : `no trial has "${bare(token.text)}"`};
  };
  const parse = all => {
    const list = tokens(all), found = [];
    for (let k = 0; k < list.length; k++) {
      const token = list[k], next = list[k + 1], right = list[k + 2];
      if (token.op) found.push({at: token.at, end: token.end, test: null, said: `nothing stands before "${token.text}"`});
      else if (!next?.op) found.push(word(token));
      else if (!right || right.op) { found.push({at: token.at, end: next.end, test: null, said: `nothing stands behind "${token.text} ${next.text}"`}); k++; }
      else {
        found.push(comparison(token, next.op, right)); k += 2;
        // 0.001 < lr < 0.01: the middle belongs to both
        while (list[k + 1]?.op && list[k + 2] && !list[k + 2].op) { found.push({...comparison(list[k], list[k + 1].op, list[k + 2]), joined: true}); k += 2; }
      }
    }
    return found;
  };
  let pieces = [];
  const apply = () => {
    pieces = parse(field.value);
    const tests = pieces.map(p => p.test).filter(Boolean);
    for (let row = 0; row < total; row++) letThrough[row] = tests.every(t => t(row));
    byId("said").textContent = [...new Set(pieces.map(p => p.said).filter(Boolean))].map(s => s + ".").join(" ");
    listeners.forEach(listener => listener());
  };
  field.addEventListener("input", apply);
  return {
    apply,
    passes: row => letThrough[row] === 1,
    isOn: () => pieces.some(p => p.test),
    count: () => letThrough.reduce((a, b) => a + b, 0),
    onChange: listener => listeners.push(listener),
    text: () => field.value,
    // What the text says of one column alone.
    of: name => pieces.filter(p => p.test && p.column === name),
    // Replaces what the text says of one column.
    replace: (name, said) => {
      let value = field.value;
      // what is joined shares its middle with the piece before it, so the whole chain goes
      const groups = [];
      for (const p of pieces) if (p.joined) { groups.at(-1).end = p.end; groups.at(-1).names.push(p.column); } else groups.push({at: p.at, end: p.end, names: [p.column]});
      for (const g of groups.reverse()) if (g.names.includes(name)) value = value.slice(0, g.at) + value.slice(g.end);
      field.value = [value.replace(/\s+/g, " ").trim(), said].filter(Boolean).join(" ");
      apply();
    },
    clear: () => { field.value = ""; apply(); },
  };
})();
