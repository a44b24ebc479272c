
// Any two trials compared image by image: McNemar's exact test of what only one of them gets right.
(data.samples || []).forEach((trials, part) => {
  const place = document.querySelector(`.compare[data-part="${part}"]`);
  if (!place || !trials) return;
  const bits = trials.map(one => Uint8Array.from(atob(one.bits), c => c.charCodeAt(0)));
  const ones = byte => { let n = 0; for (; byte; byte >>= 1) n += byte & 1; return n; };
  const only = (a, b) => a.reduce((sum, byte, i) => sum + ones(byte & ~b[i]), 0);
  const chance = (fewer, all) => {
    let term = -all * Math.LN2, sum = 0;
    for (let k = 0; k <= fewer; k++) { sum += Math.exp(term); term += Math.log((all - k) / (k + 1)); }
    return Math.min(1, 2 * sum);
  };
  const [first, second] = place.querySelectorAll("select"), output = place.querySelector("output");
  [first, second].forEach((select, index) => {
    trials.forEach((one, value) => { const option = make("option", one.name); option.value = value; select.append(option); });
    select.value = index;
  });
  const compareThem = () => {
    const a = only(bits[first.value], bits[second.value]), b = only(bits[second.value], bits[first.value]);
    const p = chance(Math.min(a, b), a + b);
    output.textContent = `only the first is right on ${a} test images, only the second on ${b}; McNemar p ${p < 0.001 ? "< 0.001" : "= " + p.toFixed(3)}`;
  };
  [first, second].forEach(select => select.addEventListener("change", compareThem));
  place.hidden = false;
  compareThem();
});
