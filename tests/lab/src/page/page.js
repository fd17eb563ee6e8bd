// Keeps the page up to date: sections that have changed are put in, screens are asked for again.
"use strict";

const SECOND = 1000;
const live = document.getElementById("live");
// What the server made, before pictures were put in: of sections and of VMs' cards, by their ids.
const made = new Map([...document.querySelectorAll("section, .vms li")].map(part => [part.id, part.innerHTML]));
let filter = "";

function say(text, state) {
  live.textContent = text;
  live.className = state;
}

function applyFilter() {
  for (const row of document.querySelectorAll("#calls tbody tr")) {
    row.hidden = filter !== "" && !row.textContent.toLowerCase().includes(filter);
  }
}

// The box stays where it is while the table below it is replaced.
function addFilter() {
  const box = document.createElement("input");
  box.type = "search";
  box.id = "filter";
  box.placeholder = "show only calls with …";
  box.setAttribute("aria-label", "show only calls with this text");
  box.addEventListener("input", () => { filter = box.value.trim().toLowerCase(); applyFilter(); });
  document.getElementById("calls").before(box);
}

async function sections() {
  const answer = await fetch("/lab/now", { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const section of fresh.querySelectorAll("section")) {
    const old = document.getElementById(section.id);
    if (section.id === "vms") cards(old, section);
    else if (made.get(section.id) !== section.innerHTML) {
      made.set(section.id, section.innerHTML);
      old.innerHTML = section.innerHTML;
    }
  }
  applyFilter();
}

// A card whose text is the same keeps its picture.
function cards(old, fresh) {
  const now = [...fresh.querySelectorAll("li")];
  const before = [...old.querySelectorAll("li")];
  const isSame = card => made.get(card.id) === card.innerHTML;
  if (now.length === before.length && now.every((card, at) => card.id === before[at].id && isSame(card))) return;
  for (const card of now) {
    const kept = document.getElementById(card.id);
    if (kept && isSame(card)) card.replaceWith(kept);
    else made.set(card.id, card.innerHTML);
  }
  old.replaceChildren(...fresh.childNodes);
}

async function screens() {
  for (const image of document.querySelectorAll("img[data-screen]")) {
    const answer = await fetch(`/lab/screen/${image.dataset.screen}.png`, { cache: "no-cache" });
    if (!answer.ok) continue;
    const tag = answer.headers.get("ETag");
    if (tag && tag === image.dataset.tag) continue;
    const address = URL.createObjectURL(await answer.blob());
    const before = image.src;
    image.src = address;
    image.dataset.tag = tag ?? "";
    await image.decode().catch(() => undefined);
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  }
}

async function look() {
  if (!document.hidden) {
    try {
      await sections();
      await screens();
      say("live", "online");
    } catch {
      say("the lab does not answer", "offline");
    }
  }
  setTimeout(look, SECOND);
}

addFilter();
look();
