"""Creative writing in a given form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nlpkit.apps.tasks.task import (
    Composes,
    Field,
    Lack,
    Learned,
    LineWriter,
    Prediction,
    Prompt,
    Row,
    Target,
    TaskDecoding,
)
from nlpkit.apps.text.cleaning import Cleaning
from nlpkit.apps.text.forms import acrostic_word, check_form, find_title
from nlpkit.apps.text.verse.plans import LinePlan, plan_of
from nlpkit.apps.text.verse.search import VerseSearch, layout
from nlpkit.apps.text.verse.sounds import can_search, words_of
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ConfigError, InputError, did_you_mean


@dataclass(frozen=True)
class Form:
    """One form of writing.

    Attributes:
        ask: What the prompt asks for; ``{word}`` is the word of an acrostic.
        max_tokens: Limit of the completion.
    """

    ask: str
    max_tokens: int


FORMS: dict[str, Form] = {
    "free": Form("", 512),
    "story": Form("Write a short story", 768),
    "poem": Form("Write a poem", 320),
    "haiku": Form("Write a haiku (three lines of 5, 7 and 5 syllables)", 64),
    "sonnet": Form("Write a sonnet of 14 lines", 320),
    "limerick": Form("Write a limerick of five lines, rhyming aabba,", 128),
    "quatrain": Form("Write a poem of four rhyming lines", 128),
    "couplets": Form("Write a poem of six lines that rhyme in pairs", 192),
    "acrostic": Form("Write an acrostic poem: the lines begin with the letters {letters}. It is", 192),
    "dialogue": Form("Write a dialogue, each line beginning with the speaker's name,", 384),
}
"""All forms by name."""


VERSE = "poem"
"""The form whose prompt asks for lines of verse in all forms that the model did not learn."""


class Writing(Composes[Row]):
    """Writes a text in a form, sampled; the result reports the seed.

    Forms whose lines have rules (haiku, limerick, quatrain, couplets, sonnet, acrostic) are searched for line by
    line, so that the rules hold (`nlpkit.apps.text.verse.search`).

    Fields of a prediction: ``form``, ``title`` (if the text opens with one), ``keywords_missing``, and the facts of
    `nlpkit.apps.text.forms.check_form`.
    """

    name = "writing"
    fields: ClassVar[tuple[Field, ...]] = (
        Field(
            "prompt",
            required=False,
            aliases=("instruction",),
            help="what to write about, or the whole instruction for the form `free`",
        ),
        Field("form", required=False, role="option", help=", ".join(FORMS) + " (the default is free)"),
        Field("keywords", list, required=False, help="words that the text should use"),
        Field("text", required=False, role="reference", aliases=("story", "output"), help="reference text"),
    )
    metrics: ClassVar[tuple[str, ...]] = ("distinct2", "distinct1", "self_bleu", "repetition", "length_words")
    options = DecodeConfig(max_tokens=512, temperature=0.8, top_p=0.95, frequency_penalty=0.2)
    cleaning = Cleaning(announcements=True)

    def prepare(self, row: Row) -> Row:
        """Check the form, and that there is something to write about.

        Raises:
            ConfigError: There is no such form.
            InputError: There is neither a prompt nor a keyword, or no letter to make an acrostic of.
        """
        form = str(row.get("form") or "free").lower()
        if form not in FORMS:
            raise ConfigError(f"There is no form {form!r}. {did_you_mean(form, FORMS)}")
        prompt = str(row.get("prompt") or "")
        if not prompt.strip() and not row.get("keywords"):
            raise InputError("There is nothing to write about: the prompt is empty. Give a prompt or keywords.")
        if form == "acrostic" and not acrostic_word(prompt):
            raise InputError(f"The prompt {prompt!r} has no word to make an acrostic of.")
        return {**row, "prompt": prompt, "form": form}

    def prompt(self, example: Row) -> Prompt:
        """Ask for the form on the prompt's subject, with the keywords; briefly in one line.

        A prompt without a form is an instruction, and no short one.
        """
        form, subject = _form(example), str(example.get("prompt") or "").strip()
        word = acrostic_word(subject)
        ask = FORMS[form].ask.format(letters=", ".join(word.upper()))
        text = subject or "Write a text."
        if ask:
            text = f"{ask} about {subject}." if subject else f"{ask}."
        keywords = ", ".join(str(word) for word in example.get("keywords") or [])
        if keywords:
            text += f" Use these words: {keywords}."
        short = f"{form.capitalize()} about {'; '.join(filter(None, [subject, keywords]))}:"
        return Prompt(
            text, short=None if form == "free" else short, form=f"acrostic:{word}" if form == "acrostic" else form
        )

    def decoding(self, example: Row, *, learned: Learned | None) -> TaskDecoding:
        """Allow what the form needs."""
        return TaskDecoding(max_tokens=FORMS[_form(example)].max_tokens)

    def lack(self, example: Row, learned: Learned) -> Lack | None:
        """Take what was learned of verse for all forms that are written line by line."""
        if _plan(example) and can_search() and VERSE in learned.values("form"):
            return None
        return super().lack(example, learned)

    def composition(self, example: Row, *, learned: Learned | None) -> Row | None:
        """Ask for verse, or for the form itself where the model learned it."""
        if not (_plan(example) and can_search()):
            return None
        known = learned.values("form") if learned is not None else ()
        return {**example, "form": VERSE} if VERSE in known and _form(example) not in known else example

    def compose(self, example: Row, writer: LineWriter, *, seed: int) -> tuple[str, float] | None:
        """Search for the lines of a form."""
        plan = _plan(example)
        keywords = tuple(str(word) for word in example.get("keywords") or [])[: len(plan)]
        search = VerseSearch(
            plan=plan,
            keywords=keywords,
            theme=frozenset(words_of(str(example.get("prompt") or ""))),
            write=writer.write,
            is_common=writer.is_common,
            seed=seed,
        )
        best = search.run()[0]
        return (layout(best.lines, plan), best.score / len(plan)) if len(best.lines) == len(plan) else None

    def parse(self, text: str, example: Row) -> Prediction:
        """Collect the facts about the form."""
        form = _form(example)
        word = acrostic_word(str(example.get("prompt") or "")) if form == "acrostic" else ""
        facts: dict[str, Any] = {
            "form": form,
            "title": find_title(text),
            "keywords_missing": [
                str(word) for word in example.get("keywords") or [] if str(word).casefold() not in text.casefold()
            ],
            **check_form(text, form, acrostic=word),
        }
        return Prediction(text, facts, _warnings(facts))

    def target(self, example: Row) -> Target | None:
        """Return the reference text, where there is one."""
        return Target(str(example["text"])) if example.get("text") else None


def _plan(example: Row) -> tuple[LinePlan, ...]:
    return plan_of(_form(example), acrostic=acrostic_word(str(example.get("prompt") or "")))


def _form(example: Row) -> str:
    form = str(example.get("form") or "free").lower()
    return form if form in FORMS else "free"


def _warnings(facts: dict[str, Any]) -> tuple[str, ...]:
    warnings = []
    if facts["form_ok"] is False:
        why = f": {facts['faults'][0]}" if facts.get("faults") else ""
        warnings.append(f"the text does not keep to the form {facts['form']}{why}")
        if plan_of(str(facts["form"]), acrostic="A") and not can_search():
            warnings.append("forms are kept where the libraries for them are there: pip install 'nlpkit[writing]'")
    if facts["keywords_missing"]:
        warnings.append("keywords not used: " + ", ".join(facts["keywords_missing"]))
    return tuple(warnings)
