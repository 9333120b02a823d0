// Translate: two panes, how sure each result is, other ways to say it, whole files.
import { getJson, PlainError, postForm, postStream } from "./api.js";
import { copyButton, field, h, replace, translate } from "./dom.js";
import { remember } from "./history.js";
import { meter, notes, output, runner, textPane } from "./parts.js";
import { language, t } from "./texts.js";

const ALTERNATIVES = 4;

function languageName(code) {
  try {
    return new Intl.DisplayNames([language()], { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}

export function translateView() {
  const from = h("select", {});
  const to = h("select", {});
  const swap = h("button", { type: "button", class: "quiet swap", tLabel: "swap" }, "⇄");
  const link = h("p", { class: "download", hidden: true });
  const pane = textPane("sourceText", { placeholder: "sourcePlaceholder", onFile: translateFile });
  const result = output("translation");
  const box = h("div", {});
  let languages = [];
  let formats = [];
  let last = null;
  let sending = null;
  let asking = null;

  function fill() {
    const chosen = [from.value || "auto", to.value];
    const codes = languages.map((one) => one.code);
    const sorted = (list) => [...list].sort((a, b) => languageName(a).localeCompare(languageName(b), language()));
    const option = (code) => h("option", { value: code }, languageName(code));
    replace(from, h("option", { value: "auto", t: "detectLanguage" }), ...sorted(codes).map(option));
    replace(to, ...sorted(codes).map(option));
    from.value = chosen[0];
    const wished = [chosen[1], language(), "de", "en"].filter((code) => codes.includes(code) && code !== chosen[0]);
    const usual = language() === "en" ? wished.find((code) => code !== "en") : wished[0];
    to.value = codes.includes(chosen[1]) ? chosen[1] : (usual ?? codes[0]);
  }
  document.addEventListener("languages", (event) => { languages = event.detail; fill(); });
  document.addEventListener("languagechange", fill);
  getJson("/frontend/settings").then((found) => { formats = found.supportedFilesFormat ?? []; }, () => {});

  swap.addEventListener("click", () => {
    const before = from.value === "auto" ? last?.source_lang : from.value;
    if (!before) return;
    [from.value, to.value] = [to.value, before];
    // What was written since is the user's own.
    if (last && pane.area.value === last.asked.source) pane.set(last.shown);
  });

  // A file that is more than plain text goes to the server whole, and comes back as a file.
  async function translateFile(file) {
    link.hidden = true;
    const end = file.name.slice(file.name.lastIndexOf(".")).toLowerCase();
    if (!formats.includes(end) || [".txt", ".md"].includes(end)) return false;
    const form = new FormData();
    form.append("file", file);
    form.append("source", from.value);
    form.append("target", to.value);
    sending?.abort();
    const own = (sending = new AbortController());
    replace(link, h("span", { t: "working" }), " ", h("button", { type: "button", class: "quiet", t: "stop", on: { click: () => own.abort() } }));
    link.hidden = false;
    try {
      const { translatedFileUrl } = await postForm("/translate_file", form, own.signal);
      const path = new URL(translatedFileUrl).pathname;
      replace(link, h("a", { href: path, download: "" }, `${t("download")} ${file.name}`));
    } catch (error) {
      if (sending === own) link.hidden = true;
      if (error.name !== "AbortError") throw error;
    }
    return true;
  }

  function show(found, text) {
    const own = (last = { ...found, shown: text });
    const said = h("p", { class: "text", lang: found.target_lang, dir: "auto" }, text);
    const detected = found.source_lang && from.value === "auto" ? h("p", { class: "hint" }, `${t("detected")} ${languageName(found.source_lang)}`) : null;
    const others = h("ol", { class: "choices" });
    const more = h("button", { type: "button", class: "quiet", t: "alternatives", on: { click: async () => {
      if (more.dataset.t === "stop") return asking.abort();
      const { signal } = (asking = new AbortController());
      more.dataset.t = "stop";
      translate(more);
      try {
        const body = { ...found.asked, options: { n: ALTERNATIVES } };
        let other = [];
        for await (const event of postStream("/v1/translate", body, signal)) other = event.result?.alternatives ?? other;
        const texts = [...new Set([text, ...other.map((one) => one.text)])];
        replace(others, ...texts.map((one) => h("li", {}, h("button", { type: "button", class: "choice", lang: found.target_lang, on: { click: (event) => {
          for (const choice of others.querySelectorAll("button")) choice.setAttribute("aria-pressed", String(choice === event.currentTarget));
          said.textContent = one;
          own.shown = one;
        } }, "aria-pressed": String(one === text) }, one))));
        if (texts.length < 2) replace(others, h("li", { class: "hint", t: "noAlternatives" }));
        more.hidden = true;
      } catch (error) {
        if (error.name !== "AbortError") replace(others, h("li", { class: "error", role: "alert" }, error instanceof PlainError ? error.message : t("errorBug")));
      }
      more.dataset.t = "alternatives";
      translate(more);
    } } });
    replace(result.body, said, meter("confidence", found.confidence), detected, notes(found.warnings), flagged(found.flagged),
      h("div", { class: "row" }, copyButton(() => said.textContent), more), others);
  }

  function flagged(list) {
    if (!list?.length || list.length < 2) return null;
    return h("details", {}, h("summary", { t: "doubtful" }), h("ul", { class: "notes" }, ...list.map((one) => h("li", {},
      h("q", {}, one.source), ` → ${one.translation} (${Math.round(100 * one.confidence)} %)`))));
  }

  const run = runner("translateRun", box, async (signal) => {
    const text = pane.area.value;
    if (!text.trim()) throw new PlainError(t("errorEmpty"));
    asking?.abort();
    const asked = { source: text, target_lang: to.value, source_lang: from.value };
    for await (const event of postStream("/v1/translate", asked, signal)) {
      if (event.result) show({ ...event.result, asked }, event.result.prediction);
    }
    remember({ view: "translate", input: asked, title: text, output: last?.shown });
  });

  replace(box,
    h("div", { class: "languages" }, field("from", from), swap, field("to", to)),
    h("div", { class: "panes" }, h("div", {}, pane.box, run.bar, run.error, link), result.box));
  replace(result.body, h("p", { class: "hint", t: "resultHere" }));
  return {
    box,
    restore(input) {
      last = null;
      pane.set(input.source);
      from.value = input.source_lang;
      to.value = input.target_lang;
    },
  };
}
