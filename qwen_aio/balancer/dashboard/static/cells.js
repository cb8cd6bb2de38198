// Rows -> the texts in the cells of the tables: what cells.py does for the first paint, for everything that comes after.

const NONE = "–";
const BAR_WIDTH = 100;
const BAR_HEIGHT = 16;
const HIGHEST_BAR_MS = 10_000;
const NUM_BARS = 5;
const HASH_CHARS = 8;
const NUMBER = /[0-9]+(?:\.[0-9]+)?/g;

export class Cells {
  // `strings`: every word of the page's language, as in strings.py.
  constructor(strings) {
    this.strings = strings;
    this.words = new Map(Object.entries(strings.words));
    this.reasons = new Map(Object.entries(strings.reasons));
  }

  word(name) {
    return this.words.get(name) ?? name;
  }

  summary(snapshot) {
    const work = snapshot.waiting ? ` (${seconds(snapshot.waiting_work_s, 1)})` : "";
    return {
      state: snapshot.state,
      state_word: this.word(snapshot.state),
      ready: `${snapshot.ready} / ${snapshot.asked_for}`,
      waiting: number(snapshot.waiting) + work,
      in_flight: number(snapshot.in_flight),
      requests: number(snapshot.requests),
      failures: number(snapshot.failures),
      policy: snapshot.policy,
      version: snapshot.version,
    };
  }

  worker(row) {
    const isReady = row.admin === "ready";
    const state = isReady ? row.health : row.admin;
    return {
      id: row.id,
      url: row.url.slice(row.url.indexOf("://") < 0 ? 0 : row.url.indexOf("://") + 3),
      admin: row.admin,
      state,
      state_word: this.word(state),
      health_word: isReady ? "" : this.word(row.health),
      ...this.reason(row.why),
      breaker: row.breaker,
      breaker_word: this.word(row.breaker),
      cpu: `${number(row.cpu_percent)} %`,
      cpu_width: share(row.cpu_percent, 100),
      jitter: `± ${number(row.cpu_jitter, 1)}`,
      in_flight: `${row.in_flight} / ${row.capacity}`,
      in_flight_width: share(row.in_flight, row.capacity),
      running: number(row.running),
      queued: number(row.queue_depth),
      latency: milliseconds(row.latency_ms_mean5),
      last_five: row.latency_ms_last5.map(milliseconds).join(" · ") || NONE,
      ...bars(row.latency_ms_last5),
      first_token: milliseconds(row.ttft_ms_mean5),
      tokens: number(row.tokens_per_second, 1),
      memory: `${number(row.rss_mb)} MB`,
      uptime: span(row.uptime_s),
      cost: seconds(row.cost?.total ?? null),
      terms: this.terms(row.cost),
      age: seconds(row.status_age_s, 1),
      completed: number(row.completed),
      model: row.model || NONE,
      model_sha: row.model_sha.slice(0, HASH_CHARS) || NONE,
      precision: row.precision || NONE,
      tasks_sha: row.tasks_sha.slice(0, HASH_CHARS) || NONE,
      process: `${row.pid} #${row.generation}`,
    };
  }

  request(row) {
    return {
      time: clockTime(row.time),
      id: row.id,
      task: row.task,
      worker: row.worker || this.strings.nobody,
      ...this.reason(row.why || NONE),
      attempts: number(row.attempts),
      queue: milliseconds(row.queue_ms),
      total: milliseconds(row.total_ms),
      tokens: row.tokens ? number(row.tokens) : NONE,
      outcome: row.outcome,
      outcome_word: this.word(row.outcome),
      error: row.error,
    };
  }

  event(row) {
    return {
      time: clockTime(row.time),
      worker: row.worker,
      actor: this.word(row.actor),
      change: this.words.get(row.change) ?? row.change.split(" ").map((part) => this.word(part)).join(" "),
      ...this.reason(row.why),
    };
  }

  // A sentence that we have in the page's language, with its numbers; any other as it is, which is English.
  reason(sentence) {
    const told = this.reasons.get(sentence.replace(NUMBER, "#"));
    if (told === undefined) return { why: sentence, why_lang: "en" };
    const numbers = sentence.match(NUMBER) ?? [];
    const parts = told.split("#").map((text, index) => text + (numbers[index] ?? ""));
    return { why: parts.join(""), why_lang: this.strings.code };
  }

  terms(cost) {
    if (!cost) return this.strings.no_cost;
    return format(this.strings.terms, {
      queue: seconds(cost.queue_s),
      jitter: number(cost.jitter_factor, 2),
      failures: number(cost.failure_factor, 2),
      demotion: number(cost.demotion_factor),
    });
  }
}

// `sentence` with its {blanks} filled.
export function format(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Puts `cells` into a row made from a template (rows.html.j2). Text stays text: nothing here makes markup.
export function fill(row, cells) {
  for (const mark of ["id", "admin", "state", "breaker", "outcome"]) {
    if (mark in row.dataset && row.dataset[mark] !== cells[mark]) row.dataset[mark] = cells[mark];
  }
  for (const node of row.querySelectorAll("[data-text]")) {
    if (node.textContent !== cells[node.dataset.text]) node.textContent = cells[node.dataset.text];
  }
  for (const node of row.querySelectorAll("[data-lang]")) node.lang = cells[node.dataset.lang];
  for (const bar of row.querySelectorAll("[data-width]")) bar.setAttribute("width", cells[bar.dataset.width]);
  for (const bar of row.querySelectorAll("[data-height]")) bar.setAttribute("height", cells[bar.dataset.height]);
}

export function number(value, digits = 0) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function milliseconds(value) {
  if (value === null) return NONE;
  if (value < 1000) return `${number(value)} ms`;
  return `${number(value / 1000, value < 10_000 ? 2 : 1)} s`;
}

// Month, day and time, where the visitor is.
export function clockTime(unixS) {
  const at = new Date(unixS * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  return `${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

function seconds(value, digits = 3) {
  if (value === null) return NONE;
  return `${number(value, value < 10 ? digits : 0)} s`;
}

function span(valueS) {
  if (valueS === null) return NONE;
  const minutes = Math.floor(valueS / 60);
  if (minutes < 1) return `${Math.floor(valueS)} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / (24 * 60))} d ${Math.floor(minutes / 60) % 24} h`;
}

function share(value, whole) {
  return number(whole ? BAR_WIDTH * Math.min(value / whole, 1) : 0, 1);
}

function bars(valuesMs) {
  const heights = valuesMs
    .slice(-NUM_BARS)
    .map((value) => BAR_HEIGHT * Math.min(Math.log(value + 1) / Math.log(HIGHEST_BAR_MS), 1));
  return Object.fromEntries(
    Array.from({ length: NUM_BARS }, (_, index) => [`bar${index}`, number(heights[index] ?? 0, 1)]),
  );
}
