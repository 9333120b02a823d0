// Ask: the answer is a piece of the text, and is shown where it stands.
import { PlainError, postJson } from "./api.js";
import { copyButton, field, h, replace } from "./dom.js";
import { remember } from "./history.js";
import { meter, notes, output, runner, textPane } from "./parts.js";
import { toUnits } from "./sentences.js";
import { t } from "./texts.js";

export function askView() {
  const pane = textPane("document", { placeholder: "documentPlaceholder" });
  const question = h("input", { type: "text", tPlaceholder: "questionPlaceholder", autocomplete: "off" });
  const result = output("answer");
  const box = h("div", {});

  function show(found, text) {
    if (!found.answerable) {
      pane.read(text);
      replace(result.body, h("p", { class: "text none", t: "notAnswerable" }), meter("answerScore", found.score), notes(found.warnings));
      return;
    }
    const start = toUnits(text, found.start);
    const end = toUnits(text, found.end);
    const mark = h("mark", {}, text.slice(start, end));
    pane.read(text.slice(0, start), mark, text.slice(end));
    pane.reveal(mark);
    replace(result.body, h("p", { class: "text" }, found.prediction), meter("answerScore", found.score),
      h("p", { class: "hint" }, h("span", { t: "sourceNamed" }), ` ${pane.source || t("pastedText")}`),
      h("blockquote", {}, found.evidence), notes(found.warnings), h("div", { class: "row" }, copyButton(() => found.prediction)));
  }

  const run = runner("askRun", box, async (signal) => {
    const text = pane.area.value;
    if (!text.trim() || !question.value.trim()) throw new PlainError(t("errorQuestion"));
    const asked = { question: question.value, context: text };
    const found = await postJson("/v1/qa", asked, signal);
    show(found, text);
    remember({ view: "ask", input: asked, title: asked.question, output: found.answerable ? found.prediction : t("notAnswerable") });
  });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && !event.isComposing) run.start();
  });

  replace(box, h("div", { class: "panes" }, pane.box,
    h("div", {}, field("question", question), run.bar, run.error, result.box)));
  replace(result.body, h("p", { class: "hint", t: "resultHere" }));
  return {
    box,
    restore(input) {
      pane.set(input.context);
      question.value = input.question;
    },
  };
}
