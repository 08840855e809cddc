// A chain: the step under the mouse or the keyboard, or else the answer, is followed back by the rows of the graph; cards
// take the colours of their shares at the slider's number of hops, and arcs show the way.
window.tlScopesSteps = window.tlScopesSteps || function () {
  const MOST_ARCS = 48, FAINT = 0.01;
  for (const root of document.querySelectorAll(".tls-steps:not([data-ready])")) {
    root.dataset.ready = "";
    const data = JSON.parse(root.querySelector(".tls-steps-data").textContent);
    const cards = [...root.querySelectorAll(".tls-static > .tls-unit:not(.tls-between)")];
    const slider = root.querySelector("input"), value = root.querySelector("output"), line = root.querySelector(".tls-read");
    const list = root.querySelector(".tls-static"), arcs = root.querySelector(".tls-arcs");
    const steps = data.prompt.length;
    let focus = null;

    // Shares of every card, and the links on the way: [from card, to card, share].
    function followed() {
      const at = new Float64Array(steps), shares = new Float64Array(cards.length), links = [];
      const start = focus === null ? data.answer : [[focus, 1]];
      for (const [u, w] of start) at[u] += w;
      const each = (row, then) => { for (let i = 0; i < row.length; i += 2) then(row[i], row[i + 1] / data.finest); };
      const ends = (u, mass) => each(data.prompt[u], (q, s) => { shares[q] += mass * s; links.push([data.sources + u, q, mass * s]); });
      const back = (u, mass, into) => each(data.earlier[u], (v, s) => { into[v] += mass * s; links.push([data.sources + u, data.sources + v, mass * s]); });
      if (+slider.value === data.hops.length) {
        for (let u = steps - 1; u >= 0; u--) if (at[u] > 0) { ends(u, at[u]); back(u, at[u], at); }
        for (const [u, w] of start) at[u] -= w;
        for (let u = 0; u < steps; u++) shares[data.sources + u] = at[u];
        return [shares, links];
      }
      let here = at;
      for (let k = 0; k < +slider.value; k++) {
        const next = new Float64Array(steps);
        for (let u = 0; u < steps; u++) if (here[u] > 0) back(u, here[u], next);
        here = next;
        links.length = 0;
      }
      const next = new Float64Array(steps);
      for (let u = 0; u < steps; u++) if (here[u] > 0) { ends(u, here[u]); back(u, here[u], next); }
      for (let u = 0; u < steps; u++) shares[data.sources + u] = next[u];
      return [shares, links];
    }

    const percent = (share) => `${share >= 0.001 ? (100 * share).toFixed(1) : share > 0 ? +(100 * share).toPrecision(1) : 0}%`;

    const called = (card) => card.title.split("\n")[0];

    function draw() {
      const [shares, links] = followed(), name = data.hops[+slider.value] ?? "all hops";
      value.textContent = name;
      slider.setAttribute("aria-valuetext", name);
      const largest = Math.max(...shares) || 1;
      cards.forEach((card, i) => {
        const share = Math.max(0, shares[i]), part = card.querySelector(".tls-part"), said = card.querySelector(".tls-said");
        const [paper, light, dark] = data.ramp[Math.round(share / largest * (data.ramp.length - 1))];
        said.style.backgroundColor = paper;
        said.firstElementChild.style.color = light;
        said.firstElementChild.dataset.flip = dark;
        if (part) part.querySelector(".tls-bar").style.width = `${(100 * share / largest).toFixed(1)}%`;
        if (part) part.lastElementChild.textContent = percent(share);
        card.title = `${called(card)}\n${percent(share)}`;
        const goal = focus === null ? data.answer.some(([u]) => data.sources + u === i) : i === data.sources + focus;
        card.classList.toggle("tls-goal", goal);
      });
      const best = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, 4).filter((i) => shares[i] > 0);
      const whose = focus === null ? "The answer" : `Step ${focus + 1}`;
      const said = (i) => `${called(cards[i])} ${cards[i].matches(".tls-chip") ? cards[i].textContent + " " : ""}${percent(shares[i])}`;
      line.textContent = `${whose}, ${name}: ${best.map(said).join(", ")}`;
      bend(links);
    }

    // Arcs beside the cards, or over words, and between words and a card along the margin; the widest for the largest share.
    function bend(links) {
      const box = list.getBoundingClientRect(), room = box.left - arcs.getBoundingClientRect().left;
      const place = (i) => {
        const card = cards[i], b = card.querySelector(".tls-said").getBoundingClientRect(), chip = card.matches(".tls-chip");
        return [(chip ? b.left + b.width / 2 : b.left) - box.left + room, (chip ? b.top : b.top + b.height / 2) - box.top, chip];
      };
      const drawn = links.filter((l) => l[2] >= FAINT).sort((a, b) => b[2] - a[2]).slice(0, MOST_ARCS);
      arcs.innerHTML = drawn.map(([from, to, share]) => {
        const [x, y, chip] = place(from), [u, v, other] = place(to), far = Math.hypot(x - u, y - v);
        const out = Math.min(room - 3, 6 + far / 5), up = 8 + far / 8;
        const p = chip ? [x, y - up] : [x - out, y], q = other ? [u, v - up] : [u - out, v];
        const curve = chip === other ? [[x, y], "C", p, q, [u, v]] : chip ? along(x, y, u, v, out) : along(u, v, x, y, out);
        const d = curve.map((c) => typeof c === "string" ? c : c.map((n) => n.toFixed(1)).join(" ")).join(" ");
        return `<path d="M${d}" stroke-width="${(0.75 + 6 * share).toFixed(2)}" opacity="${Math.min(0.9, 0.25 + share).toFixed(2)}"/>`;
      }).join("");
    }

    // From a word up into the gap above its line, to the margin, and along it to a card: over no text.
    function along(x, y, u, v, out) {
      const gap = y - 4, margin = u - out, turn = v < gap ? -6 : 6;
      return [[x, y], "Q", [x, gap], [x - 6, gap], "L", [margin + 6, gap], "Q", [margin, gap], [margin, gap + turn],
        "L", [margin, v - turn], "Q", [margin, v], [u, v]];
    }

    function turn(found) {
      focus = found;
      draw();
    }

    // A step is followed; a prompt's unit says its share of what is followed at the moment.
    function look(card) {
      const i = cards.indexOf(card);
      if (i >= data.sources) turn(i - data.sources);
    }

    // Until the page shows something else in its place.
    function listen(target, kind, act) {
      target.addEventListener(kind, function heard(event) {
        if (root.isConnected) act(event);
        else target.removeEventListener(kind, heard);
      });
    }

    // On the document, behind what reads out every mark (hover.js).
    listen(document, "mouseover", (event) => list.contains(event.target) && look(event.target.closest(".tls-unit")));
    list.addEventListener("mouseleave", () => turn(null));
    listen(document, "keydown", (event) => {
      if (!list.contains(event.target)) return;
      if (event.key !== "Escape") return look(list.querySelector(".tls-at"));
      for (const old of list.querySelectorAll(".tls-at")) old.classList.remove("tls-at");
      turn(null);
    });
    listen(window, "resize", draw);
    slider.addEventListener("input", draw);
    slider.disabled = false;
    draw();
  }
};
window.tlScopesSteps();
