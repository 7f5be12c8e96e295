// Sorting of tables, and folds. Without this script all content stays readable.
(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

  // Sorting: a button in each heading of a table; rows of another kind, such as averages, stay below.
  const collator = new Intl.Collator("en", { numeric: true });
  const valueOf = (row, column) => {
    const text = row.cells[column].textContent.trim().replace("\u2212", "-").replaceAll(",", "");
    const number = parseFloat(text);
    return text === "" || text === "\u2013" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (one, other) => {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one === "number" && typeof other === "number") return one - other;
    return collator.compare(one, other);
  };
  const sort = (heading) => {
    const table = heading.closest("table"), body = table.tBodies[0], column = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "descending" || column === 0 && heading.getAttribute("aria-sort") === "none";
    all("th[aria-sort]", table).forEach((each) => each.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", down ? "ascending" : "descending");
    const rows = all("tr:not([class])", body), rest = all("tr[class]", body);
    const keyed = rows.map((row) => [valueOf(row, column), row]);
    keyed.sort(([one], [other]) => {
      const order = compare(one, other);
      return one === null || other === null || down ? order : -order;
    });
    body.append(...keyed.map(([, row]) => row), ...rest);
  };
  for (const heading of all(".sortable thead th")) {
    const button = make("button", { type: "button", title: "Sort by this column" });
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(heading));
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
  }

  // Folds: opened in print and where a link of the contents leads into one.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    const fold = target && target.closest("details");
    if (fold) fold.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
})();
