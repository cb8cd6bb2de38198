// A log: rows by number, the newest first; some are in the page, all can be searched.

import { fill } from "./rows.js";

export class Log {
  // `template`: a row to fill; `keep`: rows remembered; `show`: rows in the page.
  constructor(table, template, { keep, show }) {
    this.body = table.tBodies[0];
    this.template = template;
    this.keep = keep;
    this.show = show;
    this.rows = []; // newest first
    this.shown = new Map(); // number -> its element
    this.isNew = true; // the page still shows other rows
    this.matches = () => true;
  }

  // Starts over: another balancer counts from 1.
  replace(rows) {
    this.rows = [...rows].reverse();
    this.isNew = true;
  }

  add(row) {
    this.rows.unshift(row);
    if (this.rows.length > this.keep) this.rows.pop();
  }

  // Shows the first rows that match, and returns how many match. Rows that stay are not touched.
  render() {
    if (this.isNew) this.clear();
    const matching = this.rows.filter(this.matches);
    const wanted = matching.slice(0, this.show);
    const elements = new Map(wanted.map((row) => [row.number, this.shown.get(row.number) ?? this.made(row)]));
    for (const [number, element] of this.shown) if (!elements.has(number)) element.remove();
    let at = this.body.firstElementChild;
    for (const element of elements.values()) {
      if (element === at) at = at.nextElementSibling;
      else this.body.insertBefore(element, at);
    }
    this.shown = elements;
    return matching.length;
  }

  clear() {
    this.body.replaceChildren();
    this.shown.clear();
    this.isNew = false;
  }

  made(row) {
    const element = this.template.content.firstElementChild.cloneNode(true);
    fill(element, row);
    return element;
  }
}
