// Puts the texts of the server into the rows of the page. Text stays text: no markup is made here.

// `row`: made from a template (rows.html.j2); `cells`: name -> text.
export function fill(row, cells) {
  for (const mark of ["id", "admin", "state", "breaker", "outcome"]) {
    if (mark in row.dataset && row.dataset[mark] !== cells[mark]) row.dataset[mark] = cells[mark];
  }
  for (const node of row.querySelectorAll("[data-text]")) {
    if (node.textContent !== cells[node.dataset.text]) node.textContent = cells[node.dataset.text];
  }
  for (const node of row.querySelectorAll("[data-time]")) node.textContent = clockTime(cells[node.dataset.time]);
  for (const node of row.querySelectorAll("[data-lang]")) node.lang = cells[node.dataset.lang];
  for (const bar of row.querySelectorAll("[data-width]")) bar.setAttribute("width", cells[bar.dataset.width]);
  for (const bar of row.querySelectorAll("[data-height]")) bar.setAttribute("height", cells[bar.dataset.height]);
}

// Month, day and time, where the visitor is.
export function clockTime(unixS) {
  const at = new Date(unixS * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  return `${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}
