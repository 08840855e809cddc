// A text with targets: a click on one, or Enter where the arrow keys are, gives the text the colours of its sources.
window.tlScopesPick = window.tlScopesPick || (function () {
  const known = new WeakMap();

  function pick(target) {
    const box = target.closest(".tls-pick");
    if (!known.has(box)) known.set(box, JSON.parse(box.querySelector(".tls-pick-data").textContent));
    const data = known.get(box), row = +target.dataset.row;
    for (const old of box.querySelectorAll(".tls-picked")) old.classList.remove("tls-picked");
    target.classList.add("tls-picked");
    for (const token of box.querySelectorAll("[data-pos]")) {
      const p = +token.dataset.pos, step = data.steps[row][p], score = data.scores[row][p];
      const [paper, light, dark] = data.ramp[step ?? 0];
      token.parentElement.style.backgroundColor = paper;
      token.parentElement.title = `${token.textContent}\nposition ${p}` + (step === null ? "" : `: ${score}`);
      token.style.color = step === null ? data.dim : light;
      if (step === null) delete token.dataset.flip;
      else token.dataset.flip = dark;
    }
    box.querySelector(".tls-says").textContent = data.says[row];
  }

  document.addEventListener("click", (event) => {
    const cell = event.target.closest && event.target.closest(".tls-pick .tls-static > span");
    const target = cell && cell.querySelector("[data-row]");
    if (target) pick(target);
  });
  document.addEventListener("keydown", (event) => {
    const text = event.target.closest && event.target.closest(".tls-pick .tls-static");
    const target = text && (event.key === "Enter" || event.key === " ") && text.querySelector(".tls-at [data-row]");
    if (!target) return;
    event.preventDefault();
    pick(target);
  });
  return true;
})();
