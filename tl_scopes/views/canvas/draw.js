// Draws every host on the page that is not drawn yet with its CircuitsVis component. What stands in a host already
// (the same picture without script) stays until the drawn one is complete, and for good if drawing fails.
window.tlScopesDraw = window.tlScopesDraw || (function () {
  let count = 0;

  // CircuitsVis writes token.replace(...) into the page as HTML and shows token and value as text when hovered.
  // An array with those methods gives each its own: escaped HTML there, plain text and the true score here.
  function tokens(data) {
    return {
      tokens: data.html.map((html, i) =>
        Object.assign([data.texts[i]], { replace: () => html, match: () => (data.breaks.includes(i) ? ["\n"] : null) })
      ),
      values: data.values.map((value, i) => Object.assign([data.tips[i]], { valueOf: () => value })),
      minValue: data.below ? -1 : 0,
      maxValue: 1,
      positiveColor: data.colour,
      negativeColor: data.below,
    };
  }

  // CircuitsVis colours a share of attention by a red of lightness 1 - 0.75 · share; here it is the blue of every map, with
  // black or white on it by its luma, which inverting mirrors.
  function ink(button, ramp) {
    let [r, g, b] = button.style.backgroundColor.match(/\d+/g).map(Number);
    if (r > b) {
      const share = (1 - (Math.max(r, g, b) + Math.min(r, g, b)) / 510) / 0.75;
      button.style.backgroundColor = ramp[Math.min(Math.round(share * (ramp.length - 1)), ramp.length - 1)];
      [r, g, b] = button.style.backgroundColor.match(/\d+/g).map(Number);
    }
    button.firstElementChild.style.color = 0.213 * r + 0.715 * g + 0.072 * b > 120 ? "#000" : "#fff";
  }

  // Beside the matrix: what was predicted where the hovered target stands; left alone, the target that was clicked last.
  function predictions(live, data, buttons) {
    const panel = live.closest(".tls").querySelector(".tls-beside");
    if (!panel) return;
    let kept = data.focus;
    const make = (tag, css, text) => {
      const element = document.createElement(tag);
      if (css) element.className = css;
      if (text !== undefined) element.textContent = text;
      return element;
    };
    const show = (i) => {
      const found = data.beside[i];
      if (!found) return panel.replaceChildren(make("p", "tls-small", "No prediction of this token is explained."));
      const list = make("ol", "tls-pred");
      for (const [text, percent, width, explained] of found.words) {
        const item = make("li"), name = make(explained ? "b" : "span"), track = make("span", "tls-track");
        name.append(make("bdi", "", text));
        track.append(make("span", "tls-bar"));
        track.firstChild.style.width = width + "%";
        item.append(name, track, make("span", "", percent));
        list.append(item);
      }
      panel.replaceChildren(make("p", "tls-small", found.title), list);
    };
    buttons.forEach((button, i) => {
      button.addEventListener("mouseover", () => show(i));
      button.addEventListener("click", () => show((kept = i)));
      button.addEventListener("mouseout", () => {
        const focused = buttons.findIndex((other) => other.matches(":focus-visible"));
        show(focused < 0 ? kept : focused);
      });
    });
    show(kept);
  }

  // The keyboard does what the mouse does: a target that gets the focus lights up its sources.
  function keyboard(buttons) {
    const send = (name) => (event) => {
      if (event.target.matches(":focus-visible") || name === "mouseout")
        event.target.dispatchEvent(new MouseEvent(name, { bubbles: true }));
    };
    buttons.forEach((button, i) => {
      button.addEventListener("focus", send("mouseover"));
      button.addEventListener("blur", send("mouseout"));
      button.addEventListener("keydown", (event) => {
        const next = buttons[i + { ArrowLeft: -1, ArrowRight: 1 }[event.key]];
        if (next) next.focus();
      });
    });
  }

  const views = {
    ColoredTokens: { props: tokens, cells: ".colored-tokens > span", ready: () => {} },
    AttentionPatterns: {
      // Its tensors are tiny and read back one by one: on a graphics card each read is a stall.
      prepare: () => window._tfengine && window._tfengine.setBackend("cpu"),
      props: (data) => ({
        tokens: data.html.map((html) => ({ replace: () => html })),
        attention: data.attention,
        headLabels: [""],
      }),
      cells: ".tokens button",
      ready: (live, data) => {
        const buttons = [...live.querySelectorAll(".tokens button")];
        buttons.forEach((button) => ink(button, data.ramp));
        new MutationObserver((changes) => changes.forEach((c) => c.target.tagName === "BUTTON" && ink(c.target, data.ramp))).observe(
          live, { attributes: true, attributeFilter: ["style"], subtree: true }
        );
        keyboard(buttons);
        predictions(live, data, buttons);
        buttons[data.focus].click();
      },
    },
  };

  return function () {
    for (const host of document.querySelectorAll(".tls-host:not([data-drawn])")) {
      host.dataset.drawn = "";
      const still = host.querySelector(".tls-static");
      const live = document.createElement("div");
      live.id = "tls-" + Math.random().toString(36).slice(2) + "-" + count++;
      live.className = "tls-live";
      live.style.display = "none";
      host.prepend(live);
      try {
        const view = views[host.dataset.component];
        const data = JSON.parse(host.querySelector("script").textContent);
        const seen = new MutationObserver(() => {
          if (live.querySelectorAll(view.cells).length !== data.html.length) return;
          seen.disconnect();
          if (still && host.dataset.keep === undefined) still.remove();
          live.style.display = "";
          view.ready(live, data);
        });
        seen.observe(live, { childList: true, subtree: true });
        if (view.prepare) view.prepare();
        window.CircuitsVis.render(live.id, window.CircuitsVis[host.dataset.component], view.props(data));
      } catch (error) {
        live.remove();
        console.error("tl_scopes: could not draw", error);
      }
    }
  };
})();
