// A log: rows by number, the newest first, as many in the page as fit its purpose, all of them searchable.

import { fill } from "./cells.js";

export class Log {
  // `template`: a row to fill; `cellsOf(row)`: its texts; `keep`: rows remembered; `show`: rows in the page.
  constructor(table, template, { cellsOf, keep, show }) {
    this.body = table.tBodies[0];
    this.template = template;
    this.cellsOf = cellsOf;
    this.keep = keep;
    this.show = show;
    this.rows = []; // newest first
    this.shown = new Map(); // number -> its element
    this.isNew = true; // what the page holds is not of these rows
    this.matches = () => true;
  }

  // Begin again: another balancer counts from 1.
  replace(rows) {
    this.rows = [...rows].reverse();
    this.isNew = true;
  }

  add(row) {
    this.rows.unshift(row);
    if (this.rows.length > this.keep) this.rows.pop();
  }

  // How many rows match; the first of them are in the page afterwards. What is there already stays where it is.
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
    fill(element, this.cellsOf(row));
    return element;
  }
}
