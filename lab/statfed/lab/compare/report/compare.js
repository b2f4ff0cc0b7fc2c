"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // What a cell or a point is: on hover and on focus.
  const tip = document.getElementById("tip");
  const show = (target) => {
    tip.textContent = target.dataset.tip || (target.getAttribute("aria-label") || "").replaceAll("; ", "\n");
    tip.hidden = false;
    const at = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = at.bottom + 8 + own.height < innerHeight;
    tip.style.left = Math.max(4, Math.min(at.left, innerWidth - own.width - 8)) + "px";
    tip.style.top = (below ? at.bottom + 8 : Math.max(4, at.top - own.height - 8)) + "px";
  };
  const hide = () => { tip.hidden = true; };
  for (const target of all("[data-tip], .point")) {
    target.addEventListener("mouseenter", () => show(target));
    target.addEventListener("focus", () => show(target));
    target.addEventListener("mouseleave", hide);
    target.addEventListener("blur", hide);
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, { passive: true });

  // Plots: which axis, which protections, and from a point to its row.
  for (const plots of all(".plots")) {
    for (const input of all("input[type=radio]", plots)) {
      const choose = () => {
        if (input.checked) for (const pane of all(".pane", plots)) pane.hidden = pane.dataset.axis !== input.value;
      };
      input.addEventListener("change", choose);
      choose();
    }
    for (const key of all("button.key", plots)) {
      key.addEventListener("click", () => {
        const on = key.getAttribute("aria-pressed") !== "true";
        key.setAttribute("aria-pressed", String(on));
        for (const part of all(".point, .named", plots)) {
          if (part.dataset.by === key.dataset.by) part.classList.toggle("off", !on);
        }
      });
    }
    for (const point of all(".point", plots)) {
      const go = () => {
        const row = document.getElementById(point.dataset.row);
        for (const other of all("tr.found")) other.classList.remove("found");
        row.classList.add("found");
        row.scrollIntoView({ block: "center" });
      };
      point.addEventListener("click", go);
      point.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
    }
  }

  // Tables: sorted by a column, numbers by their value, what is missing last.
  const worth = (row, index) => {
    const cell = row.cells[index], number = cell.dataset.v;
    return number === undefined ? (cell.classList.contains("n") ? null : cell.textContent.trim()) :
      Number(number === "inf" ? Infinity : number === "-inf" ? -Infinity : number);
  };
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
        for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [worth(row, index), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);
          return sign * (typeof a === "number" && typeof b === "number" ? a - b || 0 : String(a).localeCompare(String(b)));
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
})();
