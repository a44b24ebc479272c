
// A page that is made again while its study runs shows the newest and says how old it is.
(() => {
  const line = document.getElementById("live");
  if (!line) return;
  const made = new Date(line.dataset.made), every = Number(line.dataset.every);
  const isUsed = () => document.activeElement?.matches("input, select, canvas")
    || [...document.querySelectorAll("input[type=search]")].some(one => one.value);
  setInterval(() => {
    const age = Math.max(0, Math.round((Date.now() - made) / 1000)), isOld = age > 3 * every + 60;
    line.classList.toggle("old", isOld);
    line.textContent = isOld ? `Made ${made.toLocaleTimeString()} and not again since: nobody refreshes this page any more (tcpa report --live does).`
      : `Made ${made.toLocaleTimeString()}, ${age} s ago; shown anew every ${every} s${isUsed() ? ", once you leave the filter" : ""}.`;
  }, 1000);
  // Reloading keeps the place on the page, but would empty a filter under the reader's hands.
  setInterval(() => { if (!isUsed()) location.reload(); }, 1000 * every);
})();
