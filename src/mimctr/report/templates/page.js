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
  // Paper has nothing to click on: what is folded is opened for it, and folded again.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((folded) => { folded.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((folded) => { folded.open = false; }));
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  // Once, twice, and the third time as it was: words first upward, numbers first downward; what is not there comes last.
  // Rows stay in their group, and those that sum up the others in their place.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const groups = [];
    for (const row of body.rows) {
      const name = row.dataset.group ?? "";
      if (groups.at(-1)?.name !== name) groups.push({ name, rows: [] });
      groups.at(-1).rows.push(row);
    }
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const ways = column > 0 ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
      head.querySelector("button").addEventListener("click", () => {
        const way = ways[(ways.indexOf(head.getAttribute("aria-sort")) + 1) % ways.length];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", way);
        const value = (row) => row.cells[column]?.dataset.sort ?? "";
        const order = (one, other) => {
          const a = value(one), b = value(other);
          if (a === "" || b === "") return (a === "") - (b === "");
          return way === "descending" ? compare(b, a) : compare(a, b);
        };
        for (const { name, rows } of groups) {
          const moved = rows.filter((row) => row.dataset.summary === undefined);
          if (way !== "none") moved.sort(order);
          const shown = rows.map((row) => row.dataset.summary === undefined ? moved.shift() : row);
          shown.forEach((row, place) => row.classList.toggle("first", name !== "" && place === 0));
          body.append(...shown);
        }
      });
    });
  }
})();
