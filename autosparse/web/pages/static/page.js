// Keeps the page current: when the daemon tells that something happened, the same address is asked again,
// and what has changed in the sections marked data-live is changed here, in place. Everything works
// without it, by links, forms and the browser's own reload.
"use strict";
(() => {
  const SOONEST_MS = 1000;
  const AGAIN_MS = 10000;
  // "open", as something may have happened before the stream was.
  const EVENTS = ["open", "transition", "state", "progress", "log", "end"];

  // ------------------------------------------------------------------------------ the reader's own zone

  const brief = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  function localise(root) {
    for (const each of root.querySelectorAll("time[datetime]")) {
      const at = new Date(each.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      each.title = each.textContent;
      each.textContent = ("seconds" in each.dataset ? exact : brief).format(at);
    }
  }

  // ------------------------------------------------------------- one tree made like another, in place

  // What has an id is itself wherever it moves, so that a reader's focus never lands on another job.
  function alike(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id ?? "") === (b.id ?? "");
  }

  function become(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name, value } of [...fresh.attributes])
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes])
      if (!fresh.hasAttribute(name) && name !== "open" && name !== "tabindex") old.removeAttribute(name);
    becomeChildren(old, fresh);
  }

  function becomeChildren(old, fresh) {
    const named = new Map([...old.children].filter((each) => each.id).map((each) => [each.id, each]));
    const kept = new Set([...fresh.children].map((each) => each.id));
    for (const [id, each] of named) if (!kept.has(id)) each.remove();
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const known = child.id ? named.get(child.id) : place;
      if (!known || !alike(known, child)) {
        old.insertBefore(child, place);
        continue;
      }
      if (known === place) place = place.nextSibling;
      else old.insertBefore(known, place);
      become(known, child);
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  function renew(section, fresh) {
    const log = section.querySelector(".log");
    const atEnd = log && log.scrollHeight - log.scrollTop - log.clientHeight < 30;
    const focus = section.contains(document.activeElement) ? document.activeElement : null;
    become(section, fresh);
    if (atEnd) log.scrollTop = log.scrollHeight;
    if (focus && !focus.isConnected) {
      section.tabIndex = -1;
      section.focus({ preventScroll: true });
    }
  }

  // ---------------------------------------------------------------------------- asked again when told

  const connection = document.getElementById("connection");
  let timer = 0;
  let askedAt = 0;
  let isAsking = false;
  let isDue = false;

  function soon() {
    if (timer || document.hidden) return;
    timer = setTimeout(ask, Math.max(0, askedAt + SOONEST_MS - Date.now()));
  }

  async function parsed(address) {
    const answer = await fetch(address, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.redirected) location.assign(address); // the session has ended
    if (!answer.ok) throw new Error(`${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    localise(fresh);
    return fresh;
  }

  async function ask() {
    timer = 0;
    isDue = isAsking;
    if (isAsking) return;
    isAsking = true;
    askedAt = Date.now();
    try {
      const fresh = await parsed(document.body.dataset.at);
      document.title = fresh.title;
      for (const section of document.querySelectorAll("[data-live]")) {
        const other = fresh.getElementById(section.id);
        if (other) renew(section, other);
      }
      connection.textContent = "";
      follow(fresh.body.dataset);
    } catch {
      connection.textContent = "The daemon does not answer; trying again";
      setTimeout(soon, AGAIN_MS);
    } finally {
      isAsking = false;
      if (isDue) soon();
    }
  }

  let source = null;
  let followed = "";
  let ticking = 0;

  function follow({ events = "", every = "" }) {
    clearInterval(ticking);
    if (every) ticking = setInterval(soon, 1000 * Number(every));
    if (events === followed) return;
    followed = events;
    source?.close();
    source = events ? new EventSource(events) : null;
    for (const name of EVENTS) source?.addEventListener(name, soon);
    source?.addEventListener("error", () => setTimeout(soon, SOONEST_MS));
  }

  // ------------------------------------------------------------------------------------------- forms

  function previewed(form) {
    let waiting = 0;
    let last = 0;
    form.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(async () => {
        const mine = ++last;
        const asked = new URLSearchParams([...new FormData(form)].filter(([, text]) => text));
        const fresh = await parsed(`${form.dataset.preview}?${asked}`).catch(() => null);
        const [here, there] = [document, fresh].map((root) => root?.getElementById("preview"));
        if (mine === last && there) become(here, there);
      }, 300);
    });
    const zone = form.elements.namedItem("timezone");
    if (zone && !zone.value) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });
  for (const form of document.querySelectorAll("form[data-preview]")) previewed(form);
  for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;

  localise(document);
  if (document.body.dataset.at) {
    follow(document.body.dataset);
    document.addEventListener("visibilitychange", soon);
  }
})();
