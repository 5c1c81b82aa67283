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
  const button = byPicture.querySelector("button");
  const said = document.getElementById("said"), hits = document.getElementById("hits");
  let current = null; // what aborts the search that is under way
  const tell = (line) => {
    const told = document.createElement("p");
    told.setAttribute("role", "alert");
    told.textContent = line;
    said.textContent = "";
    hits.replaceChildren(told);
  };
  const refusal = async (answer) => {
    const text = await answer.text();
    if (answer.headers.get("content-type")?.startsWith("application/json")) return JSON.parse(text).detail;
    const page = new DOMParser().parseFromString(text, "text/html");
    return page.querySelector("[role=alert]")?.textContent ?? "The server said " + answer.status;
  };
  const busy = (search) => {
    current = search;
    button.disabled = search !== null;
    hits.setAttribute("aria-busy", String(search !== null));
    if (search) said.textContent = "Searching…";
  };
  input.addEventListener("change", () => {
    if (current) {
      current.abort(); // it was for another picture
      said.textContent = "";
      busy(null);
    }
    URL.revokeObjectURL(preview.src);
    preview.hidden = !input.files.length;
    if (input.files.length) preview.src = URL.createObjectURL(input.files[0]);
  });
  byPicture.addEventListener("submit", async (event) => {
    event.preventDefault();
    const picture = input.files[0], limit = Number(byPicture.dataset.maxBytes);
    if (!picture) return tell("Choose a picture first.");
    if (picture.size > limit) return tell(`The picture is larger than ${limit.toLocaleString("en")} bytes.`);
    const encoder = document.querySelector("select[name=encoder]").value;
    const search = new AbortController(), wasFocused = document.activeElement === button;
    current?.abort();
    busy(search);
    try {
      const address = "/search/picture?encoder=" + encodeURIComponent(encoder);
      const answer = await fetch(address, { method: "POST", body: picture, signal: search.signal });
      if (!answer.ok) {
        const line = await refusal(answer);
        if (search === current) tell(line);
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (search !== current) return;
      said.textContent = page.querySelector("[role=status]").textContent;
      hits.replaceChildren(page.querySelector("ul"));
    } catch (error) {
      if (search === current) tell("The server does not answer: " + error.message);
    } finally {
      if (search === current) {
        busy(null);
        if (wasFocused && document.activeElement === document.body) button.focus(); // it had gone with the button
      }
    }
  });
}
