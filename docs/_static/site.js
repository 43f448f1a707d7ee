// Folded parts that hold the place an address points to are opened, so that links into them arrive
function openTarget() {
  const id = decodeURIComponent(location.hash.slice(1));
  for (let e = id && document.getElementById(id); e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
}
addEventListener("hashchange", openTarget);
addEventListener("DOMContentLoaded", openTarget);
