// The page after its first paint: one stream of news, three tables, four charts, the buttons.
// The server sends the texts of all cells (cells.py); this puts them in place, at most once a frame.

import { Charts } from "./charts.js";
import { Log } from "./log.js";
import { clockTime, fill } from "./rows.js";

const STALE_S = 5; // there is news every second
const SILENT_S = 15; // then the page reconnects
const FIRST_PAUSE_S = 0.5;
const LONGEST_PAUSE_S = 2;

const get = (id) => document.getElementById(id);
const strings = JSON.parse(document.body.dataset.strings);
const charts = new Charts(strings);
const show = Number(document.body.dataset.rows);
const requests = new Log(get("requests"), get("request-row"), { keep: 1000, show });
const events = new Log(get("events"), get("event-row"), { keep: 500, show });
const search = get("search");

let snapshot = null;
let lastNewsAt = performance.now();
let askedAt = lastNewsAt; // when the stream was requested
let pauseS = FIRST_PAUSE_S;
let source = null;
const changed = new Set(); // what the next frame draws

// ---- news ----

const readers = {
  history(history) {
    requests.replace(history.requests);
    events.replace(history.events);
    charts.replace(history.samples);
    pauseS = FIRST_PAUSE_S;
    draw("requests", "events", "charts");
  },
  snapshot(news) {
    snapshot = news;
    draw("snapshot");
  },
  sample(sample) {
    charts.add(sample);
    draw("charts");
  },
  request(row) {
    requests.add(row);
    draw("requests");
  },
  event(row) {
    events.add(row);
    get("spoken").textContent = `${row.worker}: ${row.change}`;
    draw("events");
  },
};

function listen() {
  askedAt = performance.now();
  source = new EventSource(`events?lang=${document.documentElement.lang}`);
  source.onerror = leave;
  for (const [name, read] of Object.entries(readers)) {
    source.addEventListener(name, (message) => {
      lastNewsAt = performance.now();
      read(JSON.parse(message.data));
      watch();
    });
  }
}

// Not left to the browser, which does not reconnect after a refusal, such as 503 at shutdown.
function leave() {
  if (!source) return;
  if (source.readyState === EventSource.CLOSED) signInIfNeeded();
  source.close();
  source = null;
  setTimeout(listen, pauseS * 1000);
  pauseS = Math.min(pauseS * 2, LONGEST_PAUSE_S);
  watch();
}

// The stream was refused: if that is for lack of a key, the page itself is now the form for signing in.
async function signInIfNeeded() {
  const reply = await fetch("status").catch(() => null);
  if (reply?.status === 401) location.reload();
}

// The figures are stale when there was no news for a while, whatever the state of the connection.
function watch() {
  const silentS = (performance.now() - lastNewsAt) / 1000;
  const isStale = !source || silentS > STALE_S;
  document.body.classList.toggle("stale", isStale);
  get("stale").hidden = !isStale;
  get("live").hidden = isStale || !snapshot;
  if (isStale) {
    const time = snapshot ? clockTime(snapshot.time) : "–";
    get("stale").textContent = format(strings.stale, { seconds: Math.floor(silentS), time });
  }
  if (source && performance.now() - Math.max(lastNewsAt, askedAt) > SILENT_S * 1000) leave();
}

// ---- drawing ----

function draw(...what) {
  if (!changed.size) requestAnimationFrame(drawChanged);
  for (const part of what) changed.add(part);
}

function drawChanged() {
  if (changed.has("snapshot")) drawSnapshot();
  if (changed.has("requests")) drawRequests();
  if (changed.has("events")) events.render();
  if (changed.has("charts")) charts.draw();
  changed.clear();
}

function drawSnapshot() {
  fill(get("summary"), snapshot.summary);
  get("live").querySelector("time").textContent = clockTime(snapshot.time);
  const table = get("workers");
  const bodies = new Map([...table.tBodies].map((body) => [body.dataset.id, body]));
  snapshot.workers.forEach((row, index) => {
    const body = bodies.get(row.id) ?? get("worker-row").content.firstElementChild.cloneNode(true);
    bodies.delete(row.id);
    keepFocus(body, () => fill(body, row));
    if (table.tBodies[index] !== body) table.insertBefore(body, table.tBodies[index] ?? null);
  });
  for (const body of bodies.values()) body.remove();
}

// Where `change` hides the button that has the focus, the one in its place gets it.
function keepFocus(body, change) {
  const focused = document.activeElement;
  change();
  if (!body.contains(focused) || focused.checkVisibility()) return;
  [...body.querySelectorAll("button")].find((button) => button.checkVisibility())?.focus();
}

function drawRequests() {
  const shown = requests.render();
  const all = requests.rows.length;
  get("requests-empty").hidden = all > 0; // not when a filter hides all rows
  const isMissing = !shown && search.elements.id.value;
  const count = isMissing ? format(strings.not_found, { all }) : format(strings.found, { shown, all });
  search.querySelector("output").textContent = search.elements.id.value || search.elements.filter.value ? count : "";
}

// ---- finding requests ----

search.addEventListener("input", () => {
  const id = search.elements.id.value.trim();
  const parts = search.elements.filter.value.toLowerCase().split(" ").filter(Boolean);
  requests.matches = (row) => {
    const text = [row.id, row.task, row.worker, row.outcome, row.outcome_word, row.error].join(" ").toLowerCase();
    return row.id.startsWith(id) && parts.every((part) => text.includes(part));
  };
  draw("requests");
});
search.addEventListener("submit", (event) => event.preventDefault());

// A click on an id shows all rows of its request.
get("requests").addEventListener("click", ({ target }) => {
  if (target.dataset.text !== "id") return;
  search.elements.id.value = target.textContent;
  search.dispatchEvent(new Event("input"));
});

// ---- the buttons ----

get("workers").addEventListener("click", async ({ target }) => {
  const button = target.closest("button[data-set]");
  if (!button || button.ariaDisabled === "true") return;
  button.ariaDisabled = "true"; // not `disabled`, which would lose the focus
  await setAdmin(button.closest("tbody"), button.dataset.set);
  button.ariaDisabled = null;
});

async function setAdmin(body, state, force = false) {
  const { id } = body.dataset;
  get("trouble").hidden = true;
  try {
    const reply = await fetch(`admin/workers/${encodeURIComponent(id)}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ state, force }),
    });
    const { error } = await reply.json();
    if (reply.ok) {
      keepFocus(body, () => (body.dataset.admin = state)); // the next snapshot says the rest
    } else if (error.code === "last_worker") {
      if (await confirmed(id)) await setAdmin(body, state, true);
    } else if (error.code === "origin_refused") {
      complain(strings.refused_origin);
    } else if (error.code === "access_denied" || error.code === "invalid_api_key") {
      complain(strings.refused_key);
    } else {
      complain(format(strings.refused, { message: error.message }));
    }
  } catch (error) {
    // TypeError: no connection; SyntaxError: not a response of the balancer.
    if (!(error instanceof TypeError || error instanceof SyntaxError)) throw error;
    complain(strings.unreachable);
  }
}

function confirmed(id) {
  const dialog = get("confirm");
  get("confirm-text").textContent = format(strings.confirm, { worker: id });
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// `sentence` with its {blanks} filled.
function format(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function complain(sentence) {
  get("trouble").textContent = sentence;
  get("trouble").hidden = false;
}

document.documentElement.classList.add("live");
listen();
setInterval(watch, 1000);
