// Sorting of tables, a shadow beside the column that stays, and searching by a picture. Everything else works without.
"use strict";

for (const box of document.querySelectorAll(".scroll")) {
  box.addEventListener("scroll", () => box.classList.toggle("scrolled", box.scrollLeft > 0), { passive: true });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const downwards = head.getAttribute("aria-sort") !== "descending" && column > 0;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      if (key(one) === "" || key(other) === "") return (key(one) === "") - (key(other) === ""); // nothing comes last
      return (key(one) - key(other)) * (downwards ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }));
}

const byPicture = document.getElementById("by-picture");
if (byPicture) {
  const input = byPicture.elements.picture, preview = document.getElementById("preview");
  const hits = document.getElementById("hits");
  const tell = (line) => {
    const told = document.createElement("p");
    told.setAttribute("role", "alert");
    told.textContent = line;
    hits.replaceChildren(told);
  };
  input.addEventListener("change", () => {
    URL.revokeObjectURL(preview.src);
    preview.hidden = !input.files.length;
    if (input.files.length) preview.src = URL.createObjectURL(input.files[0]);
  });
  byPicture.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!input.files.length) return tell("Choose a picture first.");
    const encoder = document.querySelector("select[name=encoder]").value;
    const query = "?encoder=" + encodeURIComponent(encoder);
    try {
      const answer = await fetch("/search/picture" + query, { method: "POST", body: input.files[0] });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!answer.ok) return tell(page.querySelector("[role=alert]")?.textContent ?? "The server said " + answer.status);
      hits.replaceChildren(...page.body.childNodes);
    } catch (error) {
      tell("The server does not answer: " + error.message);
    }
  });
}
