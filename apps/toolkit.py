"""`Toolkit`: the tasks as methods, for Python programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from nlpkit.apps.asking.answers import FoundAnswer, ask_collection
from nlpkit.apps.asking.collection import Collection
from nlpkit.apps.documents.files import read_bytes, read_head
from nlpkit.apps.models.adapters import NONE, AdapterChooser, ModelChoice
from nlpkit.apps.pipeline.pool import ModelPool, only
from nlpkit.apps.pipeline.result import TaskResult
from nlpkit.apps.tasks.rows import Prepared, prepare_row
from nlpkit.apps.tasks.table import load_task
from nlpkit.apps.tasks.task import Overflow, Row, Task
from nlpkit.apps.text.languages import parse_language
from nlpkit.apps.translating.run import Asking, DocumentRun, format_of, translate_bytes
from nlpkit.core.decode.request import Score
from nlpkit.core.errors import InputError
from nlpkit.core.files.write import atomic_write, unwritable
from nlpkit.core.tokenizers.tokenizer import encode_behind

if TYPE_CHECKING:
    from nlpkit.core.language_model import LanguageModel

Texts = list[str] | tuple[str, ...]
Options = Mapping[str, Any]
"""`DecodeConfig` fields, such as ``{"max_tokens": 100, "temperature": 0.7}``."""


class Toolkit:
    """A model and the tasks that it does. `load` makes one.

    Where tasks have adapters of their own, each task's model is loaded when it is first used, and kept. A toolkit may
    be used from several threads.

    Each task method takes one text and returns a `TaskResult`, or a list of texts and returns a list of results, run
    together in batches. ``str(result)`` is the text, ``result.to_dict()`` has everything. `options` are decoding
    options by name; `on_overflow` says what to do with a text that does not fit the model's context: ``error``,
    ``chunk`` or ``truncate``, None being the task's own default.

    Args:
        models: The model that does everything, or a pool of models with adapters.
        chooser: Chooses from the pool; by default the bare model.
        name: Name of the model, where `models` is a pool.
    """

    def __init__(
        self, models: LanguageModel | ModelPool, chooser: AdapterChooser | None = None, *, name: str = ""
    ) -> None:
        self._pool = models if isinstance(models, ModelPool) else only(models)
        self._chooser = chooser or AdapterChooser(name, NONE)
        self._name = name if isinstance(models, ModelPool) else models.name

    @property
    def lm(self) -> LanguageModel:
        """The model without the tasks' adapters, or with the one that was named."""
        return self._pool.get(self._chooser.named)

    def __repr__(self) -> str:
        return f"Toolkit({self._name!r})"

    def _choose(self, task: Task[Any], rows: Sequence[Row]) -> list[tuple[Row | Prepared[Any], ModelChoice]]:
        """Say what each row runs on."""
        if self._chooser.usual(task) is None:
            return [(row, ModelChoice()) for row in rows]
        prepared = [prepare_row(task, row, where=f"row {number}") for number, row in enumerate(rows, start=1)]
        return [(one, self._chooser.choose(task, one.example)) for one in prepared]

    def run(
        self,
        task: str | Task[Any],
        rows: Sequence[Row],
        *,
        options: Options | None = None,
        on_overflow: Overflow | None = None,
    ) -> list[TaskResult]:
        """Run any task on data rows.

        Args:
            task: Its name, or the task itself.
            rows: Rows with the task's fields.
            options: Decoding options.
            on_overflow: What to do with rows that do not fit.

        Raises:
            NlpkitError: The task is unknown, or a row or an option cannot be used.
        """
        found = load_task(task) if isinstance(task, str) else task
        return list(self._pool.run(found, self._choose(found, rows), overrides=options, on_overflow=on_overflow))

    def stream(
        self,
        task: str | Task[Any],
        row: Row,
        *,
        options: Options | None = None,
        on_overflow: Overflow | None = None,
    ) -> Iterator[str | TaskResult]:
        """Run any task on one row: pieces of text as they are written, then the result.

        Args:
            task: Its name, or the task itself.
            row: The row.
            options: Decoding options.
            on_overflow: What to do with a row that does not fit.

        Raises:
            NlpkitError: The task is unknown, or the row or an option cannot be used.
        """
        found = load_task(task) if isinstance(task, str) else task
        ((prepared, choice),) = self._choose(found, [row])
        return self._pool.stream(found, prepared, choice, overrides=options, on_overflow=on_overflow)

    @overload
    def translate(
        self,
        text: str,
        *,
        target_lang: str,
        source_lang: str = ...,
        glossary: Mapping[str, str] | None = ...,
        options: Options | None = ...,
        on_overflow: Overflow | None = ...,
    ) -> TaskResult: ...
    @overload
    def translate(
        self,
        text: Texts,
        *,
        target_lang: str,
        source_lang: str = ...,
        glossary: Mapping[str, str] | None = ...,
        options: Options | None = ...,
        on_overflow: Overflow | None = ...,
    ) -> list[TaskResult]: ...
    def translate(
        self,
        text: str | Texts,
        *,
        target_lang: str,
        source_lang: str = "auto",
        glossary: Mapping[str, str] | None = None,
        options: Options | None = None,
        on_overflow: Overflow | None = None,
    ) -> TaskResult | list[TaskResult]:
        """Translate.

        Args:
            text: One source or several.
            target_lang: Code or name of the language to translate into.
            source_lang: Code or name of the source's language, or ``auto``.
            glossary: Source terms and how to translate them.
            options: Decoding options.
            on_overflow: What to do with texts that do not fit.

        Raises:
            NlpkitError: A text or an option cannot be used.
        """
        fixed: dict[str, Any] = {"target_lang": target_lang, "source_lang": source_lang}
        if glossary:
            fixed["glossary"] = dict(glossary)
        return self._each("translation", "source", text, fixed, options, on_overflow)

    def translate_document(
        self,
        path: str | Path,
        target_lang: str,
        *,
        output: str | Path | None = None,
        source_lang: str = "auto",
        glossary: Mapping[str, str] | None = None,
        input_format: str = "auto",
        encoding: str = "utf-8",
        options: Options | None = None,
    ) -> DocumentRun:
        """Translate a file in its own format: nothing but the words changes.

        Args:
            path: The file.
            target_lang: Code or name of the language to translate into.
            output: Where to write the translated file; None to only return it.
            source_lang: Code or name of the file's language, or ``auto``.
            glossary: Source terms and how to translate them.
            input_format: Name of the file's format, or ``auto`` to go by its name and content.
            encoding: Encoding of the file, where its format does not say.
            options: Decoding options.

        Returns:
            The translated file as bytes (`data`), and its `translation` with what a person should look at (`flags`).

        Raises:
            NlpkitError: The file cannot be read in its format, or the languages or options cannot be used.
        """
        name = str(path)
        # What is no document is told by its beginning, before all of it is read.
        format_of(name, read_head(name), input_format)
        done = self.translate_bytes(
            read_bytes(name),
            target_lang,
            name=name,
            source_lang=source_lang,
            glossary=glossary,
            input_format=input_format,
            encoding=encoding,
            options=options,
        )
        if output is not None:
            with unwritable(f"{output} cannot be written"), atomic_write(Path(output)) as file:
                file.write(done.data)
        return done

    def translate_bytes(
        self,
        data: bytes,
        target_lang: str,
        *,
        name: str,
        source_lang: str = "auto",
        glossary: Mapping[str, str] | None = None,
        input_format: str = "auto",
        encoding: str = "utf-8",
        options: Options | None = None,
    ) -> DocumentRun:
        """Translate the content of a file, as `translate_document` does.

        Args:
            data: The content.
            target_lang: Code or name of the language to translate into.
            name: The file's name, by which its format is known, and which errors tell.
            source_lang: Code or name of the file's language, or ``auto``.
            glossary: Source terms and how to translate them.
            input_format: Name of the file's format, or ``auto`` to go by its name and content.
            encoding: Encoding of the file, where its format does not say.
            options: Decoding options.

        Returns:
            The translated file as bytes (`data`), and its `translation` with what a person should look at (`flags`).

        Raises:
            NlpkitError: It cannot be read in its format, or the languages or options cannot be used.
        """
        asking = Asking(
            task=load_task("translation"),
            pool=self._pool,
            chooser=self._chooser,
            target_lang=parse_language(target_lang),
            glossary=glossary or {},
            overrides=options or {},
        )
        return translate_bytes(
            data, asking, name=name, source_lang=source_lang, input_format=input_format, encoding=encoding
        )

    @overload
    def summarize(
        self,
        text: str,
        *,
        length: str | None = ...,
        max_words: int | None = ...,
        sentences: int | None = ...,
        mode: str = ...,
        options: Options | None = ...,
        on_overflow: Overflow | None = ...,
    ) -> TaskResult: ...
    @overload
    def summarize(
        self,
        text: Texts,
        *,
        length: str | None = ...,
        max_words: int | None = ...,
        sentences: int | None = ...,
        mode: str = ...,
        options: Options | None = ...,
        on_overflow: Overflow | None = ...,
    ) -> list[TaskResult]: ...
    def summarize(
        self,
        text: str | Texts,
        *,
        length: str | None = None,
        max_words: int | None = None,
        sentences: int | None = None,
        mode: str = "auto",
        options: Options | None = None,
        on_overflow: Overflow | None = None,
    ) -> TaskResult | list[TaskResult]:
        """Summarize.

        Args:
            text: One document or several.
            length: ``short``, ``medium`` or ``long``; None is what the model learned, or else ``medium``.
            max_words: Length in words, instead of `length`.
            sentences: Most sentences, instead of `length`; for extracts.
            mode: ``abstractive``, in the model's words; ``extractive``, of the text's own sentences; or ``auto``: one
                sentence of a model that was tuned for it if nothing in it was invented, else an extract.
            options: Decoding options.
            on_overflow: What to do with texts that do not fit.

        Raises:
            NlpkitError: A text or an option cannot be used.
        """
        fixed = {"length": length, "max_words": max_words, "sentences": sentences, "mode": mode}
        return self._each("summarization", "document", text, fixed, options, on_overflow)

    @overload
    def answer(
        self, question: str, context: str, *, options: Options | None = ..., on_overflow: Overflow | None = ...
    ) -> TaskResult: ...
    @overload
    def answer(
        self, question: Texts, context: str, *, options: Options | None = ..., on_overflow: Overflow | None = ...
    ) -> list[TaskResult]: ...
    def answer(
        self,
        question: str | Texts,
        context: str,
        *,
        options: Options | None = None,
        on_overflow: Overflow | None = None,
    ) -> TaskResult | list[TaskResult]:
        """Answer questions with words of a text.

        Args:
            question: One question or several, all about the same text.
            context: The text.
            options: Decoding options.
            on_overflow: What to do with a text that does not fit.

        Raises:
            NlpkitError: A text or an option cannot be used.
        """
        return self._each("qa", "question", question, {"context": context}, options, on_overflow)

    qa = answer

    def ask(self, question: str, *paths: str | Path, top: int = 1) -> list[FoundAnswer]:
        """Answer a question from files and folders: the `top` best answers, each with its place.

        Raises:
            NlpkitError: The files cannot be read, or the question cannot be used.
        """
        collection = Collection.read([str(path) for path in paths])
        return list(ask_collection(lambda rows: self.run("qa", rows), question, collection).answers[:top])

    @overload
    def write(
        self,
        prompt: str,
        *,
        form: str = ...,
        keywords: Texts | None = ...,
        seed: int | None = ...,
        options: Options | None = ...,
        on_overflow: Overflow | None = ...,
    ) -> TaskResult: ...
    @overload
    def write(
        self,
        prompt: Texts,
        *,
        form: str = ...,
        keywords: Texts | None = ...,
        seed: int | None = ...,
        options: Options | None = ...,
        on_overflow: Overflow | None = ...,
    ) -> list[TaskResult]: ...
    def write(
        self,
        prompt: str | Texts,
        *,
        form: str = "free",
        keywords: Texts | None = None,
        seed: int | None = None,
        options: Options | None = None,
        on_overflow: Overflow | None = None,
    ) -> TaskResult | list[TaskResult]:
        """Write a text in a form. Sampled: the result's `seed` repeats it.

        Args:
            prompt: What to write about, one or several.
            form: ``free``, ``story``, ``poem``, ``haiku``, ``limerick``, ``quatrain``, ``couplets``, ``sonnet``,
                ``acrostic`` or ``dialogue``.
            keywords: Words to use.
            seed: Seed of the sampler; None draws one.
            options: Decoding options.
            on_overflow: What to do with prompts that do not fit.

        Raises:
            NlpkitError: A text or an option cannot be used.
        """
        fixed: dict[str, Any] = {"form": form}
        if keywords:
            fixed["keywords"] = list(keywords)
        if seed is not None:
            options = {**(options or {}), "seed": seed}
        return self._each("writing", "prompt", prompt, fixed, options, on_overflow)

    @overload
    def generate(
        self, prompt: str, *, options: Options | None = ..., on_overflow: Overflow | None = ...
    ) -> TaskResult: ...
    @overload
    def generate(
        self, prompt: Texts, *, options: Options | None = ..., on_overflow: Overflow | None = ...
    ) -> list[TaskResult]: ...
    def generate(
        self,
        prompt: str | Texts,
        *,
        options: Options | None = None,
        on_overflow: Overflow | None = None,
    ) -> TaskResult | list[TaskResult]:
        """Continue a text, without a chat template around it.

        Args:
            prompt: The beginning, one or several.
            options: Decoding options.
            on_overflow: What to do with prompts that do not fit.

        Raises:
            NlpkitError: A text or an option cannot be used.
        """
        return self._each("generation", "prompt", prompt, {}, options, on_overflow)

    @overload
    def score(self, context: str, continuation: str) -> Score: ...
    @overload
    def score(self, context: str, continuation: Texts) -> list[Score]: ...
    @overload
    def score(self, context: Texts, continuation: str | Texts) -> list[Score]: ...
    def score(self, context: str | Texts, continuation: str | Texts) -> Score | list[Score]:
        """Return how likely the model holds it that a text goes on in a certain way.

        The context is tokenized like a prompt of `generate`, the continuation as what follows it; they are tokenized
        apart, so give the space between two words to the continuation.

        Args:
            context: What stands before, one or several. Empty where the tokenizer has a beginning-of-sequence token.
            continuation: What is scored, one or several. Of several, each belongs to the context at the same place, or
                to the only one.

        Returns:
            The log-probability of the continuation in nats (`logprob`), that of each of its tokens, and whether greedy
            decoding would have written it; a list where one of the arguments is.

        Raises:
            NlpkitError: A text is no string, a context has no tokens, the lists differ in length, or a pair is longer
                than the model's context.
        """
        one = isinstance(context, str) and isinstance(continuation, str)
        contexts, continuations = _texts("context", context), _texts("continuation", continuation)
        if isinstance(context, str):
            contexts *= len(continuations)
        if isinstance(continuation, str):
            continuations *= len(contexts)
        if len(contexts) != len(continuations):
            raise InputError(
                f"There are {len(contexts)} contexts and {len(continuations)} continuations. Give as many of both, or "
                "one text."
            )
        lm = self.lm
        pairs = []
        for before, after in zip(contexts, continuations, strict=True):
            ids = lm.encode(before)
            if not ids:
                raise InputError(
                    "The context is empty, and this model's texts begin with no token of their own. Give at least one "
                    "character."
                )
            pairs.append((ids, encode_behind(lm.tokenizer, ids, after)))
        scores = lm.score(pairs)
        return scores[0] if one else scores

    def _each(
        self,
        task: str,
        text_field: str,
        text: str | Texts,
        fixed: Mapping[str, Any],
        options: Options | None,
        on_overflow: Overflow | None,
    ) -> TaskResult | list[TaskResult]:
        texts = _texts(text_field, text)
        given = {name: value for name, value in fixed.items() if value is not None}
        rows = [{text_field: one, **given} for one in texts]
        results = self.run(task, rows, options=options, on_overflow=on_overflow)
        return results[0] if isinstance(text, str) else results


def _texts(name: str, value: str | Texts) -> list[str]:
    if not isinstance(value, (str, list, tuple)):
        raise InputError(f"The {name} must be a string or a list of strings, not {type(value).__name__}.")
    return [value] if isinstance(value, str) else list(value)
