// The charts of the last 15 minutes. uPlot draws; titles, keys and values are elements of the page.

/* global uPlot */

const SPAN_S = 900;
const HEIGHT = 120;
const NUM_COLOURS = 8;

export class Charts {
  constructor(strings) {
    this.samples = [];
    const plain = (value) => number(value);
    const fixed = (...lines) => () => lines;
    this.charts = [
      new Chart("rate", fixed(line(strings.requests, (m) => m.requests_per_s, "c0")), (value) => number(value, 1)),
      new Chart(
        "latency",
        fixed(line("p50", (m) => m.p50_ms, "c0"), line("p95", (m) => m.p95_ms, "c1")),
        milliseconds,
      ),
      new Chart(
        "queue",
        (samples) => [line(strings.waiting, (m) => m.waiting, "ink"), ...perWorker(samples, "in_flight")],
        plain,
      ),
      new Chart("cpu", (samples) => perWorker(samples, "cpu_percent"), (value) => `${number(value)} %`, 100),
    ];
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  replace(samples) {
    this.samples = samples;
  }

  add(sample) {
    // Also drops samples of the future, after a clock was set back: time must grow along the axis.
    this.samples = this.samples.filter(({ time }) => time > sample.time - SPAN_S && time < sample.time);
    this.samples.push(sample);
  }

  draw() {
    for (const chart of this.charts) chart.draw(this.samples);
  }
}

// `of(sample)`: the value or null; `tone`: name of the colour in the style sheet.
function line(label, of, tone) {
  return { label, of, tone };
}

// One line for every worker in the samples, of the same colour in every chart.
function perWorker(samples, name) {
  const ids = [...new Set(samples.flatMap((sample) => Object.keys(sample[name])))].sort(inWords);
  const of = (id) => (sample) => (Object.hasOwn(sample[name], id) ? sample[name][id] : null);
  return ids.map((id, index) => line(id, of(id), `c${index % NUM_COLOURS}`));
}

// qwen-2 before qwen-10.
const inWords = new Intl.Collator("en", { numeric: true }).compare;

class Chart {
  // `linesOf(samples)`: the lines to draw; `shown(value)`: its text; `top`: end of a fixed axis.
  constructor(name, linesOf, shown, top) {
    const figure = document.querySelector(`[data-chart=${name}]`);
    this.linesOf = linesOf;
    this.shown = shown;
    this.top = top;
    this.plot = figure.querySelector(".plot");
    this.keys = figure.querySelector("ul");
    this.labels = null; // of the lines the chart was made for
    this.lines = [];
    this.samples = [];
    new ResizeObserver(() => this.fit()).observe(this.plot);
  }

  draw(samples) {
    this.samples = samples;
    this.lines = this.linesOf(samples);
    const labels = JSON.stringify(this.lines.map((line) => line.label));
    if (labels !== this.labels) {
      this.labels = labels;
      this.make();
    }
    this.uplot.setData([samples.map((sample) => sample.time), ...this.lines.map((line) => samples.map(line.of))]);
    this.showValues();
  }

  make() {
    this.uplot?.destroy();
    this.keys.replaceChildren(...this.lines.map(key));
    this.uplot = new uPlot(this.options(), [[], ...this.lines.map(() => [])], this.plot);
  }

  options() {
    const axis = { stroke: colour("soft"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    const grid = { stroke: colour("line"), width: 1 };
    return {
      width: this.plot.clientWidth || 1,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "time" }, drag: { x: false, y: false }, y: false },
      scales: {
        x: { range: () => [(this.samples.at(-1)?.time ?? 0) - SPAN_S, this.samples.at(-1)?.time ?? 1] },
        y: { range: (_, __, most) => [0, this.top ?? Math.max((most ?? 0) * 1.1, 1)] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 22, space: 70, values: (_, times) => times.map(hourAndMinute) },
        { ...axis, grid, size: 46, gap: 4, space: 30, values: (_, values) => values.map(this.shown) },
      ],
      series: [{}, ...this.lines.map((line) => series(line, this.lines.length))],
      hooks: { setCursor: [() => this.showValues()] },
    };
  }

  // The values under the pointer, or else the last ones.
  showValues() {
    const sample = this.samples[this.uplot.cursor.idx ?? this.samples.length - 1];
    this.lines.forEach((line, index) => {
      const value = sample && line.of(sample);
      this.keys.children[index].lastElementChild.textContent = typeof value === "number" ? this.shown(value) : "–";
    });
  }

  fit() {
    if (this.uplot && this.plot.clientWidth) this.uplot.setSize({ width: this.plot.clientWidth, height: HEIGHT });
  }
}

function series({ label, tone }, count) {
  const stroke = colour(tone);
  const fill = count === 1 ? colour("accent-wash") : undefined;
  return { label, stroke, fill, width: 1.5, spanGaps: true, points: { show: false } };
}

function key({ label, tone }) {
  const item = document.createElement("li");
  const [name, value] = [document.createElement("span"), document.createElement("b")];
  item.className = `key ${tone}`;
  name.textContent = label;
  item.append(name, value);
  return item;
}

// Read at every drawing, so that the charts follow a change from light to dark.
function colour(name) {
  return () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function number(value, digits = 0) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function milliseconds(value) {
  return value < 1000 ? `${number(value)} ms` : `${number(value / 1000, value < 10_000 ? 2 : 1)} s`;
}

function hourAndMinute(unixS) {
  return new Date(unixS * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}
