// What pages have besides, where JavaScript is there: buttons that copy, columns that sort, and dates of the reader's place.
"use strict";

// Browsers let pages copy over TLS or from this machine only.
for (const text of navigator.clipboard ? document.querySelectorAll("[data-copy]") : []) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  });
  text.after(button);
}

for (const table of document.querySelectorAll("table[data-sort]")) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => sort(table, heading, column));
  });
}

function sort(table, heading, column) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const text = row => row.cells[column]?.dataset.value ?? row.cells[column]?.textContent.trim() ?? "";
  const order = new Intl.Collator(undefined, {numeric: true});
  const rows = [...body.rows].sort((a, b) => order.compare(text(a), text(b)) * (down ? -1 : 1));
  body.replaceChildren(...rows);
}

const times = document.querySelectorAll("time[datetime*=T]");
for (const time of times) {
  const date = new Date(time.dateTime);
  time.title = time.textContent.replace(/( UTC)?$/, " UTC");
  time.textContent = date.toLocaleString(undefined, {
    year: "numeric", month: "short", day: "numeric", hour: "numeric", minute: "2-digit", timeZoneName: "short",
  });
}
if (times.length) document.querySelector("[data-zone]").textContent = "Times are in UTC, but for those that name a zone.";
