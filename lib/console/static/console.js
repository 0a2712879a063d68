// What a page can do beyond links and forms: keys, the theme, the pulse, and following a topic. Nothing needs it.
"use strict";

const root = document.documentElement;
const stored = localStorage.getItem("headwater-theme");
if (stored === "light" || stored === "dark") root.dataset.theme = stored;

document.getElementById("theme")?.addEventListener("click", () => {
  const dark = root.dataset.theme === "dark" || (root.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("headwater-theme", root.dataset.theme);
});

let chord = false;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  if (chord) {
    chord = false;
    const link = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === event.key);
    if (link) { event.preventDefault(); link.click(); }
    return;
  }
  if (event.key === "g") { chord = true; setTimeout(() => { chord = false; }, 1500); }
  else if (event.key === "/") { const field = document.getElementById("search"); if (field) { event.preventDefault(); field.focus(); field.select(); } }
  else if (event.key === "r") location.reload();
  else if (event.key === "c") event.target.closest("article")?.querySelector("[data-copy]")?.click();
  else if (event.key === "?") document.getElementById("keys").showModal();
});

for (const link of document.querySelectorAll("[data-slow]")) {
  link.addEventListener("click", () => { link.textContent = "Counting …"; link.setAttribute("aria-busy", "true"); });
}

// One listener for all records, also those that come while a topic is followed.
document.getElementById("rows")?.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = button.closest("article").querySelector("[data-value] pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "This browser refuses to copy";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

const tail = document.getElementById("tail");
if (tail) {
  const said = document.getElementById("tail-state");
  let next = Number(tail.dataset.next);
  let following = false;
  let wait = 1000;
  async function look() {
    if (!following) return;
    try {
      const answer = await fetch(`${tail.dataset.url}&offset=${next}`, { headers: { accept: "application/json" } });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const found = await answer.json();
      if (found.next > next) {
        const rows = document.getElementById("rows");
        const parsed = new DOMParser().parseFromString(found.html, "text/html");
        for (const one of [...parsed.body.querySelectorAll("article")]) rows.prepend(document.importNode(one, true));
        while (rows.children.length > 500) rows.lastElementChild.remove();
        next = found.next;
      }
      said.textContent = `Following, at offset ${next}`;
      said.className = "";
      wait = 1000;
    } catch (error) {
      wait = Math.min(wait * 2, 15000);
      said.textContent = `Connection lost (${error.message}); trying again in ${wait / 1000} s`;
      said.className = "lost";
    }
    setTimeout(look, wait);
  }
  tail.addEventListener("click", () => {
    following = !following;
    tail.setAttribute("aria-pressed", String(following));
    if (following) look(); else said.textContent = "";
  });
}
