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

// A slider: the probabilities of the likeliest words at the temperature that it stands at
function startSlider(figure) {
  const {temperatures, sums, words} = JSON.parse(figure.dataset.slider), input = figure.querySelector("input");
  const rows = figure.querySelectorAll("tr");
  function show() {
    const t = temperatures[input.value], p = words.map(o => Math.exp(o[1] / t - sums[input.value]));
    [...p, Math.max(0, 1 - p.reduce((a, b) => a + b))].forEach((o, i) => {
      rows[i].children[1].textContent = (100 * o).toFixed(1) + "%";
      rows[i].querySelector(".bar").style.width = 100 * o + "%";
    });
    figure.querySelector("output").textContent = t.toFixed(2);
  }
  input.addEventListener("input", show);
  show();
  figure.hidden = false;
}
addEventListener("DOMContentLoaded", () => document.querySelectorAll("figure.slider").forEach(startSlider));

// What is wider than its box can be scrolled with the keyboard, too; the theme sees to code and outputs
function reachable() {
  for (const o of document.querySelectorAll("figure.drawn-figure")) {
    if (o.scrollWidth > o.clientWidth) o.tabIndex = 0;
    else o.removeAttribute("tabindex");
  }
}
for (const event of ["DOMContentLoaded", "resize"]) addEventListener(event, reachable);
