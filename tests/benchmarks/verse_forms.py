"""Print how often verse keeps its form, how long it takes, and how often its keyword is there.

    python tests/benchmarks/verse_forms.py [--form haiku] [--count 20] [--show 3]

Each form is written about as many themes, with the theme's noun as keyword in every other one; seeds are 1, 2, 3, ...
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import nlpkit
from nlpkit.apps.text.verse.plans import PLANS

THEMES = [
    "autumn rain", "a cat who loved tea", "the sea at night", "an old clock", "my mother's garden", "the first snow",
    "a train journey", "lost keys", "the moon over the city", "bread", "a broken guitar", "summer holidays",
    "a letter from a friend", "the forest", "fishing at dawn", "an empty house", "spring flowers", "a long road",
    "dancing", "the stars", "a dog in the rain", "coffee in the morning", "the harbour", "growing old", "a small bird",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--form", action="append", choices=[*PLANS, "acrostic"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--show", type=int, default=2)
    options = parser.parse_args()
    lm = nlpkit.load()
    lm.write("a stone", form="poem", seed=1)
    print(f"{'form':<10} {'kept':>9} {'keyword':>9} {'theme':>9} {'distinct-2':>10} {'median s':>9} {'longest s':>9}")
    for form in options.form or [*PLANS, "acrostic"]:
        kept, with_keyword, themed, asked, seconds, shown = 0, 0, 0, 0, [], []
        pairs: list[tuple[str, str]] = []
        for number in range(options.count):
            theme = THEMES[number % len(THEMES)]
            noun = max(theme.split(), key=len)
            keywords = [noun] if number % 2 and form != "acrostic" else None
            began = time.perf_counter()
            result = lm.write(theme, form=form, keywords=keywords, seed=number + 1)
            seconds.append(time.perf_counter() - began)
            kept += result.fields["form_ok"] is True
            asked += keywords is not None
            with_keyword += keywords is not None and not result.fields["keywords_missing"]
            themed += any(word in result.text.casefold() for word in theme.casefold().split() if len(word) > 3)
            words = result.text.casefold().split()
            pairs += itertools.pairwise(words)
            shown += [f"[{theme}]\n{result.text}"] if number < options.show else []
        distinct = len(set(pairs)) / max(1, len(pairs))
        held = f"{with_keyword}/{asked}"
        print(
            f"{form:<10} {f'{kept}/{options.count}':>9} {held:>9} {f'{themed}/{options.count}':>9} {distinct:>10.3f} "
            f"{statistics.median(seconds):>9.1f} {max(seconds):>9.1f}",
            flush=True,
        )
        for text in shown:
            print(f"\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
