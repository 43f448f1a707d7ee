// Folded parts that hold the place an address points to are opened, so that links into them arrive
function openTarget() {
  const id = decodeURIComponent(location.hash.slice(1));
  for (let e = id && document.getElementById(id); e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
}
addEventListener("hashchange", openTarget);
addEventListener("DOMContentLoaded", openTarget);

// The boxes in which readers type are pages of their own; they take the colours of this one
function dress(box) {
  try { box.contentDocument.documentElement.dataset.theme = document.documentElement.dataset.theme; }
  catch { /* opened from a disk, a page does not reach into another */ }
}
addEventListener("DOMContentLoaded", () => {
  const boxes = document.querySelectorAll("iframe.live");
  boxes.forEach(o => o.addEventListener("load", () => dress(o)));
  new MutationObserver(() => boxes.forEach(dress)).observe(document.documentElement, {attributeFilter: ["data-theme"]});
});
