"""Chat templates that would run for ever, or fill the memory, in operations that look like nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlpkit.core.chat import sandbox as template_sandbox
from nlpkit.core.chat.message import Message
from nlpkit.core.chat.template import ChatTemplate
from nlpkit.core.errors import ModelFileError

pytest.importorskip("resource")

TWINS = (
    "{% set ns = namespace(a=[], b=[]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}"
    "{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
)
TUPLES = "{% set ns = namespace(a=(1,)) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}"
SHORT_TWINS = TWINS.replace("60", "22")
ENDLESS = {
    "equal": TWINS + "{{ ns.a == ns.b }}",
    "unequal": TWINS + "{{ ns.a != ns.b }}",
    "less": TWINS + "{{ ns.a < ns.b }}",
    "chain": TWINS + "{{ ns.a == ns.b == ns.a }}",
    "in": TWINS + "{{ ns.a in [ns.b] }}",
    "not in": TWINS + "{{ ns.a not in [1, ns.b] }}",
    "in a branch": TWINS + "{% if ns.a == ns.b %}x{% endif %}",
    "test eq": TWINS + "{{ ns.a is eq ns.b }}",
    "test in": TWINS + "{{ ns.a is in [ns.b] }}",
    "select": TWINS + "{{ [ns.a]|select('eq', ns.b)|list }}",
    "selectattr": TWINS + "{{ [{'a': ns.a}]|selectattr('a', '==', ns.b)|list }}",
    "changed": TWINS + "{% for i in range(2) %}{{ loop.changed(ns.a if i else ns.b) }}{% endfor %}",
    "count": TWINS + "{{ [ns.b].count(ns.a) }}",
    "index": TWINS + "{{ [ns.b].index(ns.a) }}",
    "sort": TWINS + "{{ [ns.a, ns.b]|sort|length }}",
    "max": TWINS + "{{ [ns.a, ns.b]|max|length }}",
    "unique": TUPLES + "{{ [ns.a, ns.a]|unique|list|length }}",
    "key": TUPLES + "{% set d = {ns.a: 1} %}x",
    "look-up": TUPLES + "{{ {}[ns.a] }}",
    "get": TUPLES + "{{ {}.get(ns.a) }}",
    "in dict": TUPLES + "{{ ns.a in {} }}",
    "dict": TUPLES + "{{ dict([(ns.a, 1)]) }}",
    "encode": "{{ ('x' * 10).encode('punycode') }}",
    "decode": "{{ 'x'.encode().decode('punycode') }}",
}
WIDE = {
    "percent": "{% set x = '%(a)999d' * 200000 %}{{ (x % {'a': 1})|length }}",
    "percent, four digits": "{{ '%9999d' % 1 }}",
    "precision": "{{ (('%.999f' * 200000) % (1,))|length }}",
    "filter": "{{ ('%(a)999d' * 200000)|format(a=1)|length }}",
    "format": "{{ ('{0:999}' * 200000).format(1)|length }}",
    "format, four digits": "{{ '{0:9999}'.format(1) }}",
    "format, nested": "{{ '{0:{1}}'.format(1, 9) }}",
    "bytes": "{{ (('%9999d' * 2000).encode() % 1)|length }}",
    "separators": "{{ range(20000)|list|tojson(separators=('x'*200000, ':'))|length }}",
    "indent": "{{ range(90000)|list|tojson(indent='x'*2000)|length }}",
    "dictionaries": "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l, ["
    + "{}," * 4_000
    + "]] %}{% endfor %}",
    "lists": "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l, ["
    + "[]," * 4_000
    + "]] %}{% endfor %}",
    "characters": "{{ ('\U0001f600' * 3000000)|list|length }}",
    "numbers": "{% for i in range(999) %}{% set x = range(99999)|list %}{% endfor %}",
    "batch": "{{ (range(99999)|list * 60)|batch(1)|list|length }}",
    "text": "{{ 'ab' * 900000 }}",
    "text in pieces": "{% for i in range(900) %}{{ 'ab' * 1000 }}{% endfor %}",
}
SCRIPT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (500 << 20, 500 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
sys.path.insert(0, sys.argv[1])
from nlpkit.core.errors import ModelFileError
from nlpkit.core.chat.sandbox import SandboxedTemplate
for source in sys.stdin.buffer.read().decode().split("\\0"):
    try:
        SandboxedTemplate(source).render({"messages": [{"role": "user", "content": "hi"}]})
    except ModelFileError as error:
        print("refused", error)
    else:
        print("rendered")
"""


@pytest.mark.parametrize("name", ENDLESS)
def test_no_operation_runs_for_ever(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "equal":  # a small budget is spent as the large one is, and sooner
        monkeypatch.setattr(template_sandbox, "BASE_BUDGET", 1_000_000)
    started = time.process_time()
    with pytest.raises(ModelFileError, match=r"runs away|not offered"):
        ChatTemplate(ENDLESS[name]).render([Message("user", "hi")])
    assert time.process_time() - started < 5


def test_memory_is_bounded() -> None:
    root = str(Path(template_sandbox.__file__).parents[3])
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT, root], input="\0".join(WIDE.values()).encode(), capture_output=True, timeout=120
    )
    lines = said.stdout.decode().splitlines()
    assert len(lines) == len(WIDE), said.stderr.decode()[-500:]
    bad = {n: line for n, line in zip(WIDE, lines, strict=True) if "runs away" not in line and "offered" not in line}
    assert not bad


def test_what_templates_do_goes_on_working() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'user' and loop.index0 < 5 != true %}{{ m.role }}{% endif %}"
        "{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endif %}"
        "{% set d = {m.role: 1, 'x': 2} %}{{ d[m.role] }}{{ m.role in ['user', 'system'] }}{{ m.role is in d }}"
        "{{ 'In 20240 of %5.1f|%s' | format(1.25, m.role) }}{{ '{:>4}{}'.format(1, 2) }}{{ loop.changed(m.role) }}"
        "{{ [3, 1, 2] | sort }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
        "{{ {'a': [1, 'é']} | tojson }}{{ (1, 2) == (1, 2) }}{{ tools is none }}{{ missing == 'a' }}{{ 1 < 2 < 3 }}"
        "{{ 'b' not in {'a': 1} }}{{ messages[0] is sameas messages[0] }}{{ 'ab'.upper() }}{% endfor %}"
    )
    assert ChatTemplate(source).render([Message("user", "a</think>\nb")]) == (
        'userb1TrueTrueIn 20240 of   1.2|user   12True[1, 2, 3]1{"a": [1, "é"]}TrueTrueFalseTrueTrueTrueAB'
    )
    long = [Message("user" if i % 2 == 0 else "assistant", "word " * 2_000) for i in range(60)]
    many = "{% for m in messages %}{% for k in range(9) %}{% if '<x>' in m.content or m.content == 'y' %}z{% endif %}{% endfor %}"
    assert len(ChatTemplate(many + "{{ m.content }}{% endfor %}").render(long)) == 600_000
