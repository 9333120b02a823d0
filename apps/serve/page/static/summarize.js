// Summarize: each sentence of the summary leads to the sentence of the text that it is, or that says most of it.
import { PlainError, postStream } from "./api.js";
import { announce, copyButton, field, h, replace } from "./dom.js";
import { remember } from "./history.js";
import { notes, output, runner, textPane } from "./parts.js";
import { splitSentences, trace } from "./sentences.js";
import { t } from "./texts.js";

/** Which sentences of a text begin where others do; those are counted in characters, not in units of UTF-16. */
function placesOf(taken, source) {
  let end = 0;
  const ends = source.map((one) => (end += [...one.text].length));
  return taken.map((one) => ends.findIndex((stop) => one.start < stop));
}

export function summarizeView() {
  const pane = textPane("document", { placeholder: "documentPlaceholder" });
  const length = h("select", {}, ...["", "short", "medium", "long"].map((name) => h("option", { value: name, t: `length_${name || "usual"}` })));
  const result = output("summary");
  const box = h("div", {});

  function show(found, text) {
    const source = splitSentences(text);
    const taken = found.mode === "extractive" ? found.sentences : [];
    const summary = taken.length ? taken.map((one) => ({ text: `${one.text} ` })) : splitSentences(found.prediction);
    const places = taken.length ? placesOf(taken, source) : trace(summary, source);
    const marks = source.map((one) => h("span", {}, one.text.trimEnd()));
    pane.read(...marks.flatMap((mark, index) => [mark, source[index].text.slice(mark.textContent.length)]));
    const light = (place) => {
      marks.forEach((mark, index) => mark.classList.toggle("lit", index === place));
      if (place >= 0) pane.reveal(marks[place]);
    };
    const parts = summary.map((one, index) => h("span", { class: "traced", role: "button", tabIndex: 0, on: {
      click: () => light(places[index]),
      mouseenter: () => light(places[index]),
      mouseleave: () => light(-1),
      focus: () => {
        light(places[index]);
        announce(places[index] < 0 ? t("noSource") : `${t("fromSource")} ${source[places[index]].text.trim()}`);
      },
      blur: () => light(-1),
    } }, one.text));
    replace(result.body, h("p", { class: "text" }, ...parts), h("p", { class: "hint", t: "traceHint" }), notes(found.warnings),
      h("div", { class: "row" }, copyButton(() => found.prediction)));
  }

  const run = runner("summarizeRun", box, async (signal) => {
    const text = pane.area.value;
    if (!text.trim()) throw new PlainError(t("errorEmpty"));
    const asked = { document: text, mode: "auto", ...(length.value ? { length: length.value } : {}) };
    const growing = h("p", { class: "text", "aria-busy": "true" });
    replace(result.body, growing);
    for await (const event of postStream("/v1/summarize", asked, signal)) {
      if (event.text) growing.append(event.text);
      if (event.result) {
        show(event.result, text);
        remember({ view: "summarize", input: asked, title: text, output: event.result.prediction });
      }
    }
  });

  replace(box, h("div", { class: "panes" },
    h("div", {}, pane.box, h("div", { class: "controls" }, field("length", length)), run.bar, run.error), result.box));
  replace(result.body, h("p", { class: "hint", t: "resultHere" }));
  return {
    box,
    restore(input) {
      pane.set(input.document);
      length.value = input.length ?? "";
    },
  };
}
