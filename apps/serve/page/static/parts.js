// What several views share: a text that is edited or read, a button that runs and stops, places for errors and notes.
import { PlainError } from "./api.js";
import { announce, field, h, newId, replace, translate } from "./dom.js";
import { t } from "./texts.js";

const TEXT_FILES = /\.(txt|md|text|csv|tsv|json|srt|html?)$/i;
const MOST_BYTES = 3_500_000;

// A text pane: written in, or filled from a file; `read` shows it with marks in it instead.
export function textPane(key, { placeholder, onFile } = {}) {
  const area = h("textarea", { rows: 6, tPlaceholder: placeholder, spellcheck: true });
  const reading = h("div", { class: "reading", tabIndex: 0, role: "region", tLabel: key });
  const shown = h("div", { hidden: true }, h("p", { class: "label", t: key }), reading);
  const picker = h("input", { type: "file", hidden: true, tLabel: "openFile", on: { change: () => take(picker.files[0]) } });
  const open = h("button", { type: "button", class: "quiet", t: "openFile", on: { click: () => picker.click() } });
  const edit = h("button", { type: "button", class: "quiet", t: "edit", hidden: true, on: { click: () => write() } });
  const name = h("span", { class: "hint" });
  const problem = h("p", { class: "error", role: "alert", hidden: true });
  const box = h("div", { class: "pane" }, field(key, area), shown, h("div", { class: "row" }, open, edit, name, picker), problem);
  const pane = { box, area, source: "" };

  async function take(file) {
    picker.value = "";
    if (!file) return;
    problem.hidden = true;
    try {
      if (onFile && (await onFile(file))) return;
      if (!TEXT_FILES.test(file.name) && !file.type.startsWith("text/")) throw new PlainError(t("errorFile"));
      if (file.size > MOST_BYTES) throw new PlainError(t("errorLong"));
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      pane.set(text, file.name);
    } catch (error) {
      problem.textContent = error instanceof PlainError ? error.message : t("errorFile");
      problem.hidden = false;
    }
  }

  function write() {
    shown.hidden = true;
    edit.hidden = true;
    area.parentElement.hidden = false;
    area.focus();
  }

  pane.set = (text, source = "") => {
    area.value = text;
    pane.source = source;
    name.textContent = source;
    shown.hidden = true;
    edit.hidden = true;
    area.parentElement.hidden = false;
  };
  pane.read = (...children) => {
    replace(reading, ...children);
    shown.hidden = false;
    edit.hidden = false;
    area.parentElement.hidden = true;
  };
  // Bring a place into view without moving the page.
  pane.reveal = (element) => {
    const [outer, inner] = [reading.getBoundingClientRect(), element.getBoundingClientRect()];
    if (inner.top < outer.top || inner.bottom > outer.bottom) reading.scrollTop += inner.top - outer.top - reading.clientHeight / 3;
  };
  area.addEventListener("input", () => {
    pane.source = "";
    name.textContent = "";
  });
  box.addEventListener("dragover", (event) => {
    event.preventDefault();
    box.classList.add("dropping");
  });
  box.addEventListener("dragleave", () => box.classList.remove("dropping"));
  box.addEventListener("drop", (event) => {
    box.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  return pane;
}

// A button that starts work and, while it runs, stops it. `work` gets an AbortSignal. Ctrl-Enter in `root` starts, Escape stops.
export function runner(key, root, work) {
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const button = h("button", { type: "button", class: "main", t: key });
  const busy = h("span", { class: "busy", hidden: true, t: "working" });
  let running = null;

  async function start() {
    if (running) return;
    running = new AbortController();
    error.hidden = true;
    busy.hidden = false;
    button.dataset.t = "stop";
    translate(button);
    announce(t("working"));
    try {
      await work(running.signal);
      announce(t("done"));
    } catch (failure) {
      if (failure.name === "AbortError") announce(t("stopped"));
      else {
        if (!(failure instanceof PlainError)) console.error(failure);
        error.textContent = failure instanceof PlainError ? failure.message : t("errorBug");
        error.hidden = false;
      }
    } finally {
      running = null;
      busy.hidden = true;
      button.dataset.t = key;
      translate(button);
    }
  }
  button.addEventListener("click", () => (running ? running.abort() : start()));
  root.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      start();
    } else if (event.key === "Escape" && running) running.abort();
  });
  return { bar: h("div", { class: "row" }, button, busy), error, start };
}

// The sentences of warnings.
export function notes(warnings) {
  if (!warnings?.length) return null;
  return h("ul", { class: "notes" }, ...warnings.map((text) => h("li", {}, text.charAt(0).toUpperCase() + text.slice(1))));
}

// A share as words and as a bar.
export const meter = (key, value) => share(h("span", { t: key }), value);

// The same of something that has a name of its own. Where several are compared, a small share is nothing bad.
export function share(name, value, { judged = true } = {}) {
  const percent = Math.round(100 * value);
  const id = newId();
  const level = value >= 0.75 ? "good" : value >= 0.4 ? "fair" : "poor";
  const judgement = judged ? { low: 0.4, high: 0.75, optimum: 1, class: level } : {};
  const bar = h("meter", { min: 0, max: 1, ...judgement, value, "aria-labelledby": id });
  return h("p", { class: "measure" }, h("span", { id }, name, ` ${percent} %`), bar);
}

export function facts(pairs) {
  return h("dl", { class: "facts" }, ...pairs.map(([key, value]) => h("div", {}, h("dt", { t: key }), h("dd", {}, value))));
}

// An element for a result: a title, and what is put into it.
export function output(key) {
  const id = newId();
  const body = h("div", { class: "result" });
  const box = h("section", { class: "pane output", "aria-labelledby": id }, h("h2", { id, t: key }), body);
  return { box, body };
}
