// The page of tl-scopes app. Pictures are HTML that the package's views made, with every token escaped; they are parsed
// apart from the page, where nothing runs, and the server's Content-Security-Policy runs no script but its own files.
// Whatever this file writes itself, it writes as text.
"use strict";
const $ = (id) => document.getElementById(id);
const state = {
  asking: null, options: null, shown: null, tab: "tokens", asked: 0,
  begun: false, // has the model been asked? Until then, and after a file was opened, nothing runs by itself
  answers: null, // the question that the picture answers
  told: null, // where the page said what its question lacks: how many requests there had been
  step: null, // of a chain, the one that was picked; null is its answer
  ids: { target: null, foil: null }, // of tokens that were chosen by a click and not typed
  chosen: { target: false, foil: false }, // are they of a click, an example, a file? Those go with their text
};

// -- talking to the server -----------------------------------------------------------------------------------

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body };
  let answer;
  try {
    answer = await fetch(path, { ...options, signal: state.asking?.signal });
  } catch {
    throw new Error("The server does not answer. Is tl-scopes app still running?");
  }
  const data = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(data.error);
  return data;
}

// One request at a time is of interest: the answer to the last one. The others are hung up, and the server stops them.
// What the page said of a question that can't be asked yet stands until one is.
async function answered(what, request, use) {
  const mine = ++state.asked;
  state.asking?.abort();
  state.asking = new AbortController();
  $("results").setAttribute("aria-busy", "true");
  const late = setTimeout(() => mine === state.asked && state.told === null && say(what), 300);
  try {
    const data = await request();
    if (mine === state.asked) (state.told === null && tell(""), use(data), old());
  } catch (error) {
    if (mine === state.asked) (mine !== state.told && tell("", error.message), old(true));
  } finally {
    clearTimeout(late);
    if (mine === state.asked) {
      $("results").removeAttribute("aria-busy");
    }
  }
}

const say = (text) => ($("status").textContent = text);
function tell(text, error = "") {
  say(text);
  $("error").textContent = error;
  $("error").hidden = !error;
}

// The question that the page shows now can't be asked as it is.
function lacks(text, error = "") {
  state.told = state.asked;
  tell(text, error);
}

// The picture is of an earlier question than the one that the page shows.
function old(yes = now() !== state.answers) {
  $("panel").classList.toggle("old", yes && state.shown !== null);
}

// What the page asks at the moment, as one text; none where it makes no question.
function now() {
  try {
    return state.tab + question();
  } catch {
    return null;
  }
}

// -- the question --------------------------------------------------------------------------------------------

const boxes = () => [...$("frozen").querySelectorAll("input")];
const entry = () => state.options.methods.find((m) => m.name === $("method").value);

function whole(id, error, least = -Infinity) {
  const number = $(id).value.trim() === "" ? NaN : Number($(id).value);
  if (!Number.isInteger(number) || number < least) throw new Error(error);
  return number;
}

// Of a chain the whole text is continued, so that no place in it is asked about.
function question() {
  const asked = { model: $("model").value, method: $("method").value, prompt: $("prompt").value };
  if (state.tab === "chain") {
    asked.write = whole("write", "The number of tokens is a whole number from 1.", 1);
    Object.assign(asked, { units: $("units").value, prompt_units: $("prompt-units").value || null, answer: $("answer").value || null, step: state.step });
  } else asked.pos = whole("pos", "The position is a whole number; -1 is the last token.");
  for (const name of entry().options) {
    if (name === "target" && state.tab === "chain") continue;
    if (name === "rank") asked.rank = whole("rank", "The rank is a whole number from 1.");
    else if (name === "moment") asked.moment = $("moment").value;
    else if (name === "frozen") asked.frozen = boxes().filter((box) => box.checked).map((box) => box.value);
    else asked[name] = state.ids[name] ?? ($(name).value === "" ? null : $(name).value);
  }
  return JSON.stringify(asked);
}

const WORKING = { tokens: "Explaining …", matrix: "Explaining every token …", layers: "Looking at every layer …", heads: "Looking at every head …", verdict: "Removing tokens …", chain: "Writing, and following it back …" };

function explain(step = null) {
  let body;
  state.step = step;
  try {
    body = question();
  } catch (error) {
    return lacks("", error.message), old(true);
  }
  const tab = state.tab, path = tab === "tokens" ? "explain" : tab;
  if ($("unit").value === "turn") $("unit").value = ""; // a text that is typed has no turns
  state.begun = true;
  state.told = null;
  answered(WORKING[tab], () => ask(`api/${path}?${how()}`, body), (data) => ((state.answers = tab + body), show(data)));
}

function setToken(name, text, id) {
  $(name).value = text;
  state.ids[name] = id ?? null;
  state.chosen[name] = true;
}

// Another text: what was chosen in the old one has no place in it.
function newText() {
  $("pos").value = -1;
  state.step = null;
  for (const name of ["target", "foil"]) if (state.chosen[name]) setToken(name, "");
}

// Another model, scope, option or view: the answer follows, unless something must be given first.
function changed(step = null) {
  showOptions();
  old();
  if (!state.begun || $("prompt").value === "") return;
  if (entry().options.includes("foil") && $("foil").value === "") return lacks("Give a foil, the other token.");
  explain(step);
}

function showOptions() {
  const chosen = entry();
  $("explains").textContent = chosen.explains + ".";
  for (const element of document.querySelectorAll("[data-option]"))
    element.hidden = !chosen.options.includes(element.dataset.option);
  $("chaining").hidden = state.tab !== "chain";
  if (state.tab === "chain") for (const element of document.querySelectorAll("[data-place]")) element.hidden = true;
  else for (const element of document.querySelectorAll("[data-place]:not([data-option])")) element.hidden = false;
  for (const [tab, method] of [["matrix", chosen.matrix], ["layers", chosen.inside], ["heads", chosen.inside], ["chain", chosen.chain]]) {
    $(`tab-${tab}`).disabled = method === null;
    $(`tab-${tab}`).title = method === null ? `${chosen.title} has no such view; choose a scope` : "";
    if (method === null && state.tab === tab) select("tokens");
  }
}

// -- the answer ----------------------------------------------------------------------------------------------

const how = () =>
  new URLSearchParams({
    unit: $("unit").value,
    specials: $("specials").checked ? "0" : "1",
    scale: $("scale").value,
  });

const HINTS = {
  attribution: "Click a token or a prediction to explain it; arrow keys and Enter do the same.",
  chain: "Click a step to make it the answer; arrow keys and Enter do the same.",
};

function show(data) {
  state.shown = data;
  const inside = $("panel").contains(document.activeElement);
  const parsed = new DOMParser().parseFromString(data.html, "text/html");
  $("panel").replaceChildren(...parsed.body.childNodes);
  $("unit").disabled = !data.units;
  const turn = $("unit").querySelector("option[title]");
  turn.hidden = turn.disabled = !data.turns;
  $("specials").disabled = !data.specials;
  $("scale").disabled = data.kind !== "attribution";
  for (const kind of ["html", "json"]) {
    $(`save-${kind}`).href = `download/${data.id}.${kind}?${how()}`;
    $(`save-${kind}`).hidden = kind === "json" && data.kind !== "attribution";
  }
  $("hint").textContent = HINTS[data.kind] ?? "";
  $("hint").hidden = !(data.kind in HINTS) || (data.kind === "attribution" && $("panel").querySelector(".tls-units") !== null);
  if (data.kind === "attribution") clickable(data);
  window.tlScopesDraw();
  window.tlScopesSteps();
  if (data.kind === "chain") showSteps(data, inside);
}

// The keyboard goes on from the step that was picked; a text that fills the context was not written to its end.
function showSteps(data, inside) {
  const steps = $("panel").querySelectorAll(".tls-between ~ .tls-unit");
  if (state.step !== null) steps[state.step]?.classList.add("tls-at");
  if (inside) $("panel").querySelector(".tls-steps [tabindex]").focus();
  const { context } = state.options.models.find((m) => m.name === $("model").value);
  if (data.length === context) $("hint").textContent += ` The text fills the model's context of ${context} tokens: no more was written.`;
}

function clickable(data) {
  const list = $("panel").querySelector(".tls-pred");
  if (!list || !data.predictions.length) return;
  list.classList.add("can-click");
  [...list.children].forEach((item, i) => {
    if (!data.predictions[i]) return;
    item.tabIndex = 0;
    item.dataset.prediction = i;
    item.setAttribute("role", "button");
    item.title = "Explain this prediction";
  });
}

// Why was this token predicted? Its prediction is made one position before it.
function explainToken(index) {
  const data = state.shown, first = data.first[index];
  if (first === undefined) return;
  if (first === 0) return lacks("", "Nothing stands before the first token that could have caused it.");
  aim(first - 1, data.tokens[index], $("panel").querySelector(`bdi[data-pos="${index}"]`).textContent);
}

function explainPrediction(i) {
  const { text, id } = state.shown.predictions[i];
  aim(state.shown.pos, id, text);
}

function aim(pos, id, text) {
  if (state.shown.prompt !== null && state.shown.prompt !== undefined) $("prompt").value = state.shown.prompt;
  $("pos").value = pos;
  if (!entry().options.includes("target")) $("method").value = "semantic_scope";
  select("tokens");
  setToken("target", text, id);
  explain();
}

function select(tab) {
  state.tab = tab;
  for (const button of document.querySelectorAll("[role=tab]")) {
    const on = button.id === `tab-${tab}`;
    button.setAttribute("aria-selected", on);
    button.tabIndex = on ? 0 : -1;
  }
  $("panel").setAttribute("aria-labelledby", `tab-${tab}`);
  if (state.options) showOptions();
}

function openFile(file) {
  if (!file) return;
  select("tokens");
  state.told = null;
  if ($("unit").value === "turn") $("unit").value = "";
  const read = async () => ask(`api/open?${how()}`, await file.text());
  answered("Opening …", read, (data) => {
    show(data);
    if (data.asked?.prompt) $("prompt").value = data.asked.prompt;
    if (data.asked) $("pos").value = data.asked.pos;
    const same = state.options.methods.find((m) => m.name === data.method || m.matrix === data.method);
    if (same) $("method").value = same.name;
    for (const box of boxes()) box.checked = data.frozen.includes(box.value);
    showOptions();
    setToken("target", data.target_text ?? "", data.target);
    state.begun = false;
    state.answers = now();
    say(`${file.name}: opened as it was saved. Explain computes it anew with the model chosen here.`);
  });
}

// -- wiring --------------------------------------------------------------------------------------------------

function fill(select, items) {
  select.replaceChildren(
    ...items.map(([value, text]) => Object.assign(document.createElement("option"), { value, textContent: text }))
  );
}

function build(options) {
  state.options = options;
  fill($("model"), options.models.map((m) => [m.name, m.name]));
  for (const baseline of [false, true]) {
    const group = document.createElement("optgroup");
    group.label = baseline ? "Baselines" : "Scopes";
    fill(group, options.methods.filter((m) => m.baseline === baseline).map((m) => [m.name, m.title]));
    $("method").append(group);
  }
  for (const example of options.examples) {
    const chip = Object.assign(document.createElement("button"), { type: "button", textContent: example.title });
    chip.addEventListener("click", () => {
      $("prompt").value = example.prompt;
      const speak = options.models.filter((m) => m.examples).map((m) => m.name);
      if (!speak.includes($("model").value)) $("model").value = speak[0];
      $("pos").value = -1;
      setToken("target", example.target);
      explain();
    });
    $("examples").append(chip);
  }
  showOptions();
  if (options.examples.length) $("examples").firstElementChild.click();
  else say("Paste a text and press Explain.");
}

function theme(dark) {
  document.documentElement.setAttribute("theme", dark ? "dark" : "light");
}

function start() {
  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  $("theme").addEventListener("click", () => theme(document.documentElement.getAttribute("theme") !== "dark"));
  $("ask").addEventListener("submit", (event) => (event.preventDefault(), explain()));
  for (const id of ["ask", "chaining"]) $(id).addEventListener("input", () => old());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) (event.preventDefault(), explain());
  });
  for (const id of ["model", "method", "target", "foil", "rank", "moment", "frozen", "pos", "chaining"])
    $(id).addEventListener("change", () => changed());
  $("prompt").addEventListener("input", newText);
  for (const name of ["target", "foil"])
    $(name).addEventListener("input", () => ((state.ids[name] = null), (state.chosen[name] = false)));
  for (const id of ["unit", "specials", "scale"])
    $(id).addEventListener("change", () => {
      if (state.shown) answered("Drawing …", () => ask(`api/view/${state.shown.id}?${how()}`), show);
    });
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => (select(tab.id.slice(4)), changed(state.step)));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const next = step && tabs[(i + step + tabs.length) % tabs.length];
      if (next && !next.disabled) (next.focus(), next.click());
    });
  });
  $("panel").addEventListener("click", (event) => act(event.target));
  $("panel").addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") act(event.target) && event.preventDefault();
    else walk(event);
  });
  new MutationObserver(reachable).observe($("panel"), { childList: true, subtree: true });
  $("open").addEventListener("change", () => (openFile($("open").files[0]), ($("open").value = "")));
  for (const [name, on] of [["dragover", true], ["dragleave", false], ["drop", false]])
    document.addEventListener(name, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", on);
      if (name === "drop") openFile(event.dataTransfer.files[0]);
    });
  ask("api/options").then(build, (error) => lacks("", error.message));
}

// A click or Enter on a token or a prediction.
function act(element) {
  if (state.shown?.kind === "chain") return followStep(element);
  if (!state.shown || state.shown.kind !== "attribution") return false;
  const prediction = element.closest("[data-prediction]");
  if (prediction) return explainPrediction(+prediction.dataset.prediction), true;
  const token = element.closest("[data-pos]") ?? element.querySelector(":scope > span > [data-pos], :scope > [data-pos]");
  if (!token || !element.closest(".tls-tokens:not(.tls-units)") || element.closest(".tls-tokens") === element) return false;
  return explainToken(+token.dataset.pos), true;
}

// A click or Enter on a card of a chain: what does this step rest on?
function followStep(element) {
  const card = element.closest(".tls-unit") ?? element.querySelector(":scope > .tls-at");
  const between = $("panel").querySelector(".tls-between");
  if (!card || !(between.compareDocumentPosition(card) & Node.DOCUMENT_POSITION_FOLLOWING)) return false;
  const cards = [...between.parentElement.children];
  if (!$("panel").matches(".old")) explain(cards.indexOf(card) - cards.indexOf(between) - 1); // else it is a step of another text
  return true;
}

// One token of the text is in the order of Tab; arrow keys walk to the others.
function reachable() {
  for (const text of $("panel").querySelectorAll(".tls-tokens:not(.tls-units, .tls-pick *)")) {
    const tokens = text.querySelectorAll("bdi[data-pos]");
    if (!tokens.length || text.querySelector("bdi[tabindex]")) continue;
    for (const token of tokens) token.tabIndex = -1;
    tokens[tokens.length - 1].tabIndex = 0;
  }
}

function walk(event) {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !event.target.matches("bdi[data-pos]")) return;
  const next = event.target.closest(".tls-tokens").querySelector(`bdi[data-pos="${+event.target.dataset.pos + step}"]`);
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

start();
