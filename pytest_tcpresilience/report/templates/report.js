"use strict";
// The report is complete without this. It adds a filter, and opens the details for the printer.
const records = [...document.querySelectorAll("details.record")];
const filter = document.getElementById("filter");
if (filter && records.length > 1) {
  const words = filter.querySelector("input[type=search]");
  const broken = filter.querySelector("input[type=checkbox]");
  const told = filter.querySelector("output");
  const apply = () => {
    const wanted = words.value.trim().toLowerCase();
    let shown = 0;
    for (const record of records) {
      const text = record.querySelector("summary").textContent.toLowerCase();
      const hidden = !text.includes(wanted) || (broken.checked && record.dataset.tone === "good");
      record.classList.toggle("hidden", hidden);
      shown += hidden ? 0 : 1;
    }
    told.textContent = shown === records.length ? "" : `${shown} of ${records.length} shown`;
  };
  filter.addEventListener("input", apply);
  filter.classList.remove("hidden");
}
let opened = [];
addEventListener("beforeprint", () => {
  opened = records.filter((record) => !record.open);
  for (const record of opened) record.open = true;
});
addEventListener("afterprint", () => {
  for (const record of opened) record.open = false;
});
const follow = () => {
  const target = document.getElementById(location.hash.slice(1));
  const record = target && target.closest("details.record");
  if (!record) return;
  record.classList.remove("hidden");
  record.open = true;
  record.scrollIntoView();
  record.querySelector("summary").focus({ preventScroll: true });
};
addEventListener("hashchange", follow);
follow();
