"use strict";
(() => {
  const theme = document.querySelector("button.theme");
  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.hidden = false;
  name();
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  // Once, twice, and the third time as it was: words first upward, numbers first downward; what is not there comes last.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const before = [...body.rows].map((row) => [row, row.className]);
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const ways = column > 0 ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
      head.querySelector("button").addEventListener("click", () => {
        const way = ways[(ways.indexOf(head.getAttribute("aria-sort")) + 1) % ways.length];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", way);
        const value = (row) => row.cells[column]?.dataset.sort ?? "";
        const rows = before.map(([row, className]) => {
          row.className = way === "none" ? className : "";
          return row;
        });
        if (way !== "none") {
          rows.sort((one, other) => {
            const a = value(one), b = value(other);
            if (a === "" || b === "") return (a === "") - (b === "");
            return way === "descending" ? compare(b, a) : compare(a, b);
          });
        }
        body.append(...rows);
      });
    });
  }
})();
