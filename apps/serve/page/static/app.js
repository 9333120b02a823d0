// The page: its frame, its views, and what is remembered of both.
import { getJson, onKeyNeeded } from "./api.js";
import { announce, field, h, replace, translate } from "./dom.js";
import { clearHistory, readHistory } from "./history.js";
import { LANGUAGES, language, setLanguage, t } from "./texts.js";
import { askView } from "./ask.js";
import { classifyView } from "./classify.js";
import { playgroundView } from "./playground.js";
import { summarizeView } from "./summarize.js";
import { translateView } from "./translate.js";
import { writeView } from "./write.js";

const VIEWS = [
  ["translate", translateView],
  ["summarize", summarizeView],
  ["ask", askView],
  ["write", writeView],
  ["classify", classifyView],
  ["playground", playgroundView],
];
const THEMES = ["auto", "light", "dark"];
const stored = (name) => {
  try { return localStorage.getItem(`nlpkit.${name}`); } catch { return null; }
};
const store = (name, value) => {
  try { localStorage.setItem(`nlpkit.${name}`, value); } catch { /* the page works without */ }
};

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  store("theme", theme);
}

function themePicker() {
  const options = THEMES.map((name) => h("option", { value: name, t: `theme_${name}` }));
  const picker = h("select", { tLabel: "theme", on: { change: () => setTheme(picker.value) } }, ...options);
  picker.value = document.documentElement.dataset.theme;
  return picker;
}

function languagePicker() {
  const options = Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, lang: code }, name));
  const picker = h("select", { tLabel: "interfaceLanguage", on: { change: () => {
    store("language", picker.value);
    setLanguage(picker.value);
    document.documentElement.lang = picker.value;
    translate(document.body);
    document.dispatchEvent(new Event("languagechange"));
    showTitle();
  } } }, ...options);
  picker.value = language();
  return picker;
}

// Ask for the server's key; gives a promise of it, or of null.
function keyDialog() {
  const input = h("input", { type: "password", autocomplete: "off", required: true });
  const wrong = h("p", { class: "error", role: "alert", t: "keyWrong", hidden: true });
  const form = h("form", { method: "dialog" },
    h("h2", { t: "keyTitle", id: "key-title" }), h("p", { t: "keyWhy" }), field("key", input), wrong,
    h("div", { class: "row" }, h("button", { class: "main", value: "ok", t: "keyUse" }),
      h("button", { class: "quiet", value: "", formNoValidate: true, t: "cancel" })));
  const dialog = h("dialog", { "aria-labelledby": "key-title" }, form);
  let asking = null;
  onKeyNeeded((before) => {
    asking ??= new Promise((resolve) => {
      wrong.hidden = !before;
      input.value = "";
      dialog.returnValue = "";
      dialog.showModal();
      input.focus();
      dialog.addEventListener("close", () => {
        asking = null;
        resolve(dialog.returnValue === "ok" ? input.value.trim() : null);
      }, { once: true });
    });
    return asking;
  });
  return dialog;
}

function historyDialog(views) {
  const list = h("ul", { class: "history" });
  const dialog = h("dialog", { class: "drawer", "aria-labelledby": "history-title" },
    h("div", { class: "row between" }, h("h2", { id: "history-title", t: "history" }),
      h("button", { type: "button", class: "quiet", t: "close", on: { click: () => dialog.close() } })),
    h("p", { class: "hint", t: "historyWhere" }), list,
    h("button", { type: "button", class: "quiet", t: "historyClear", on: { click: () => {
      clearHistory();
      fill();
      announce(t("historyEmpty"));
    } } }));

  function fill() {
    const entries = readHistory();
    const when = new Intl.DateTimeFormat(language(), { dateStyle: "short", timeStyle: "short" });
    replace(list, ...entries.map((entry) => h("li", {}, h("button", { type: "button", class: "entry", on: { click: () => {
      dialog.close();
      location.hash = entry.view;
      views[entry.view]?.restore(entry.input);
    } } }, h("span", { class: "hint" }, `${t(entry.view)} · ${when.format(entry.at)}`),
      h("strong", {}, String(entry.title ?? "").slice(0, 120)), h("span", {}, String(entry.output ?? "").slice(0, 160))))));
    if (!entries.length) list.append(h("li", { class: "hint", t: "historyEmpty" }));
  }
  return { dialog, show: () => { fill(); dialog.showModal(); } };
}

function current() {
  const name = location.hash.slice(1);
  return VIEWS.some(([known]) => known === name) ? name : VIEWS[0][0];
}

function showTitle() {
  document.title = `${t(current())} · nlpkit`;
}

function build() {
  document.documentElement.dataset.theme = THEMES.includes(stored("theme")) ? stored("theme") : "auto";
  const wanted = [stored("language"), ...navigator.languages.map((one) => one.slice(0, 2))];
  setLanguage(wanted.find((one) => one in LANGUAGES) ?? "en");
  document.documentElement.lang = language();

  const views = Object.fromEntries(VIEWS.map(([name, make]) => [name, make()]));
  const sections = VIEWS.map(([name]) => h("section", { id: `view-${name}`, hidden: true, "aria-labelledby": `title-${name}` },
    h("h1", { id: `title-${name}`, tabIndex: -1, t: name }), h("p", { class: "lead", t: `${name}Lead` }), views[name].box));
  const links = VIEWS.map(([name]) => h("a", { href: `#${name}`, t: name }));
  const past = historyDialog(views);
  const header = h("header", {},
    h("a", { class: "brand", href: "#translate" }, "nlpkit"),
    h("nav", { tLabel: "views" }, ...links),
    h("div", { class: "settings" },
      h("button", { type: "button", class: "quiet", t: "history", on: { click: past.show } }), languagePicker(), themePicker()));
  const main = h("main", { id: "main", tabIndex: -1 }, ...sections);
  const skip = h("button", { type: "button", class: "skip", t: "skip", on: { click: () => main.focus() } });
  const footer = h("footer", {}, h("p", { t: "footer" }), h("a", { href: "/docs", t: "docs" }));
  document.body.replaceChildren(skip, header, main, footer, past.dialog, keyDialog(),
    h("div", { id: "live", class: "unseen", role: "status", "aria-live": "polite" }));

  const show = (focus) => {
    const name = current();
    VIEWS.forEach(([one], index) => {
      sections[index].hidden = one !== name;
      if (one === name) links[index].setAttribute("aria-current", "page");
      else links[index].removeAttribute("aria-current");
    });
    showTitle();
    if (focus) document.getElementById(`title-${name}`).focus();
    views[name].shown?.();
  };
  addEventListener("hashchange", () => show(true));
  show(false);
}

build();
getJson("/languages").then((list) => document.dispatchEvent(new CustomEvent("languages", { detail: list })), () => {});
