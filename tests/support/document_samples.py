"""A small file of each format of documents: what is for people in it, and what must never change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """A file.

    Attributes:
        name: Its name.
        data: Its bytes.
        said: Texts of its segments, in order.
        kept: Literals that stand in every translation of it, as often as in the file.
    """

    name: str
    data: bytes
    said: tuple[str, ...]
    kept: tuple[str, ...]


SAMPLES = (
    Sample(
        "notes.txt",
        b"A letter\n\n- Bring {count} books.\n- Write to <b>Ann</b>.\n",
        ("A letter\n\n- Bring {count} books.\n- Write to Ann.\n",),
        ("- ", "{count}", "<b>", "</b>"),
    ),
    Sample(
        "page.md",
        b'---\ntitle: The boat\ndraft: true\n---\n\n# The boat\n\nWe *like* the [old boat](boat.html "A boat") and `row()`.\n'
        b"It has two\nsails.[^1]\n\n```sh\nrow fast\n```\n\n| Part | Use |\n|------|:---:|\n| Oar | Row `x` |\n\n"
        b'> A wise word.\n\n1. First\n   - [x] Done\n\n<div class="box">\n<p>Inside a box</p>\n</div>\n\n'
        b"[^1]: A note.\n\n[old]: https://example.org/old\n",
        (
            "The boat",
            "The boat",
            "We like the old boat and row(). It has two sails.",
            "Part",
            "Use",
            "Oar",
            "Row x",
            "A wise word.",
            "First",
            "[x] Done",
            "Inside a box",
            "A note.",
        ),
        (
            "title: ",
            "draft: true",
            "# ",
            '](boat.html "A boat")',
            "`row()`",
            "```sh\nrow fast\n```",
            "|------|:---:|",
            "> ",
            "1. ",
            "   - [x] ",
            '<div class="box">',
            "[^1]: ",
            "[old]: https://example.org/old",
            "`x`",
        ),
    ),
    Sample(
        "page.html",
        b"<!DOCTYPE html>\n<html>\n<head><title>Boats &amp; ships</title>\n<style>p { color: red }</style></head>\n<body>\n"
        b"<p class='x'>The <b>red</b> boat is&nbsp;<code>new</code>.<br>It floats.</p>\n<script>let a = 'open';</script>\n"
        b'<img src="a.png" alt="A boat"> <!-- a note -->\n<p translate="no">Do not</p><pre>as  is</pre>\n'
        b'<ul><li>One <a href="/x?a=1&amp;b=2" title="More">link</a></li></ul>\n</body></html>\n',
        ("Boats & ships", "The red boat is new.It floats.", "A boat", "One link", "More"),
        (
            "<!DOCTYPE html>",
            "<style>p { color: red }</style>",
            "<p class='x'>",
            "<b>",
            "&nbsp;",
            "<code>new</code>",
            "<br>",
            "<script>let a = 'open';</script>",
            '<img src="a.png" alt="',
            "<!-- a note -->",
            '<p translate="no">Do not</p><pre>as  is</pre>',
            '<a href="/x?a=1&amp;b=2" title="',
            "&amp;",
        ),
    ),
    Sample(
        "page.rst",
        b"The boat\n========\n\nSee ``row()`` and :ref:`the oar <oar>`, *please*.\n\n.. note:: It floats.\n\n"
        b".. code-block:: python\n\n   row()\n\n- One\n- Two words\n\n:author: Ann\n\nAn example::\n\n   as  is\n",
        ("The boat", "See row() and the oar <oar>, please.", "It floats.", "One", "Two words", "An example"),
        (
            "``row()``",
            ":ref:`the oar <oar>`",
            ".. note:: ",
            ".. code-block:: python\n\n   row()",
            "- ",
            ":author: Ann",
            "::\n\n   as  is",
        ),
    ),
    Sample(
        "page.adoc",
        b"= The boat\nAnn <ann@example.org>\n:toc:\n\n== Parts\n\nThe *oar* is `long`, see https://example.org[this page].\n\n"
        b"[source,sh]\n----\nrow fast\n----\n\n* One thing\nNOTE: It floats.\n\n|===\n|Name |Use\n|===\n",
        ("The boat", "Parts", "The oar is long, see this page.", "One thing NOTE: It floats.", "Name", "Use"),
        (
            "= ",
            "Ann <ann@example.org>\n:toc:",
            "`long`",
            "https://example.org[",
            "[source,sh]\n----\nrow fast\n----",
            "* ",
            "|===",
        ),
    ),
    Sample(
        "paper.tex",
        b"\\documentclass{article}\n\\title{The boat}\n\\begin{document}\n% a note\n\\section{Parts}\\label{sec:p}\n"
        b"The \\textbf{oar} is $x^2$ long~\\cite{ann}, 5\\% of it.\n\n\\begin{verbatim}\nrow fast\n\\end{verbatim}\n"
        b"\\begin{itemize}\n\\item One thing\n\\end{itemize}\n\\end{document}\n",
        ("The boat", "Parts", "The oar is $x^2$ long  , 5% of it.", "One thing"),
        (
            "\\documentclass{article}",
            "% a note",
            "\\label{sec:p}",
            "\\textbf{",
            "$x^2$",
            "~\\cite{ann}",
            "\\%",
            "\\begin{verbatim}\nrow fast\n\\end{verbatim}",
            "\\item ",
        ),
    ),
    Sample(
        "film.srt",
        b"1\r\n00:00:01,000 --> 00:00:03,000\r\n<i>Good morning,</i>\r\nmy friend.\r\n\r\n2\r\n00:00:04,000 --> 00:00:05,000\r\n"
        b"- Who is it?\r\n- Me.\r\n\r\n",
        ("Good morning, my friend.", "- Who is it?- Me."),
        ("1\r\n00:00:01,000 --> 00:00:03,000\r\n", "<i>", "</i>", "\r\n- "),
    ),
    Sample(
        "film.vtt",
        b"WEBVTT\n\nNOTE a note\n\nintro\n00:01.000 --> 00:03.000 align:start\n<v Ann>Good <b>morning</b>\n",
        ("Good morning",),
        ("WEBVTT", "NOTE a note", "00:01.000 --> 00:03.000 align:start\n", "<v Ann>", "<b>"),
    ),
    Sample(
        "film.ass",
        b"[Script Info]\nTitle: x\n\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        b"Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\i1}Good{\\i0} day, Ann.\\NHello\n"
        b"Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\p1}m 0 0 l 1 1\n",
        ("Good day, Ann.Hello",),
        ("Title: x", "{\\i1}", "{\\i0}", "\\N", "{\\p1}m 0 0 l 1 1"),
    ),
    Sample(
        "song.lrc",
        b"[ti:The boat]\n[ar:Ann]\n[00:01.00]We row\n[00:03.00][00:09.00]the boat\n",
        ("The boat", "We row", "the boat"),
        ("[ti:", "[ar:Ann]", "[00:01.00]", "[00:03.00][00:09.00]"),
    ),
    Sample(
        "app.po",
        b'msgid ""\nmsgstr ""\n"Language: de\\n"\n"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n\n#. note\n#: a.c:1\n#, c-format\n'
        b'msgctxt "menu"\nmsgid "Open %s"\nmsgstr ""\n\nmsgid "%d boat"\nmsgid_plural "%d boats"\nmsgstr[0] ""\nmsgstr[1] ""\n\n'
        b'#, fuzzy\nmsgid "Old"\nmsgstr "Alt"\n\nmsgid "Done"\nmsgstr "Fertig"\n\n#~ msgid "Gone"\n#~ msgstr "Weg"\n',
        ("Open %s", "%d boat", "%d boats"),
        (
            'msgctxt "menu"\nmsgid "Open %s"',
            "#, c-format",
            '#, fuzzy\nmsgid "Old"\nmsgstr "Alt"',
            'msgstr "Fertig"',
            '#~ msgid "Gone"\n#~ msgstr "Weg"',
            "#: a.c:1",
            'msgid_plural "%d boats"',
        ),
    ),
    Sample(
        "app.json",
        b'{\n  "title": "The boat",\n  "hello": "Hello {{name}}, see $t(title)",\n  "n": 3, "on": true,\n  "deep": {"a.b": '
        b'["One <b>oar</b>", ""]},\n  "icu": "{n, plural, one {# boat} other {# boats}}",\n  "url": "https://example.org/x",\n'
        b'  "esc": "caf\\u00e9 \\/ bar"\n}\n',
        ("The boat", "Hello {{name}}, see $t(title)", "One oar", "5 boat5 boats", "café / bar"),
        (
            '"title": "',
            "{{name}}",
            "$t(title)",
            '"n": 3, "on": true',
            '"a.b": ["',
            "<b>",
            '""',
            "{n, plural, one {# ",
            "} other {# ",
            '"https://example.org/x"',
        ),
    ),
    Sample(
        "app.arb",
        b'{"@@locale": "en", "hi": "Hello {user}", "@hi": {"description": "A greeting"}}',
        ("Hello {user}",),
        ('"@@locale": "en"', "{user}", '"@hi": {"description": "A greeting"}'),
    ),
    Sample(
        "app.yml",
        b"# note\nen:\n  title: The boat\n  quoted: 'It''s %{count} oars'\n  twice: \"A \\\"big\\\" boat\"\n  block: |\n    One line.\n"
        b"    Two lines.\n  folded: >-\n    A text that\n    goes on.\n  n: 5\n  yes_no: yes\n  ref: &a Again\n  same: *a\n",
        ("The boat", "It's %{count} oars", 'A "big" boat', "One line.\nTwo lines.\n", "A text that goes on.", "Again"),
        (
            "# note\nen:\n  title: ",
            "%{count}",
            "block: |\n    ",
            "folded: >-\n    ",
            "n: 5\n  yes_no: yes",
            "&a ",
            "*a\n",
        ),
    ),
    Sample(
        "app.toml",
        b'# note\ntitle = "The boat"\nn = 5\n[a.b]\nhello = \'Hello {name}\'\nlist = ["One oar", "two oars"]\nlong = """\nA text.\n"""\n'
        b'when = 2024-01-01\nmode = "fast"\n',
        ("The boat", "Hello {name}", "One oar", "two oars", "A text.\n"),
        ('# note\ntitle = "', "n = 5\n[a.b]\nhello = '", "{name}", 'when = 2024-01-01\nmode = "fast"'),
    ),
    Sample(
        "app.ini",
        b'; note\n[main]\ntitle = The boat\nsize: 5\nmode=fast\nquoted = "Good day"\n',
        ("The boat", "Good day"),
        ("; note\n[main]\ntitle = ", 'size: 5\nmode=fast\nquoted = "'),
    ),
    Sample(
        "app.properties",
        b"# note\ntitle = The boat\nhello=Hello {0}, it''s {1,number} oars\nlong = A text \\\n    goes on\nuni=Caf\\u00e9 open\n",
        ("The boat", "Hello {0}, it's {1,number} oars", "A text goes on", "Café open"),
        ("# note\ntitle = ", "{0}", "{1,number}", "uni="),
    ),
    Sample(
        "Localizable.strings",
        '/* note */\n"title" = "The boat";\n"hello" = "Hello %@, \\"%1$d\\" oars\\n";\n'.encode("utf-16"),
        ("The boat", 'Hello %@, "%1$d" oars\n'),
        (),
    ),
    Sample(
        "app.php",
        b"<?php\nreturn [\n  'title' => 'The boat', // note\n  'deep' => ['hello' => \"Hello :name\\n\", 'list' => ['One oar', 'It\\'s two']],\n"
        b"  'code' => trans('x.y'), 'sum' => 'A' . 'B',\n];\n",
        ("The boat", "Hello :name\n", "One oar", "It's two"),
        ("'title' => '", "// note", ":name", "trans('x.y')", "'A' . 'B'"),
    ),
    Sample(
        "strings.xml",
        b'<?xml version="1.0" encoding="utf-8"?>\n<resources>\n  <!-- note -->\n  <string name="no" translatable="false">Keep</string>\n'
        b'  <string name="hi">It\\\'s %1$s &amp; <b>you</b></string>\n  <plurals name="n"><item quantity="one">%d boat</item></plurals>\n'
        b'  <string name="ref">@string/no</string>\n</resources>\n',
        ("It's %1$s & you", "%d boat"),
        ('translatable="false">Keep<', "%1$s", "<b>", "@string/no", "<!-- note -->", '<item quantity="one">'),
    ),
    Sample(
        "app.resx",
        b'<?xml version="1.0" encoding="utf-8"?>\n<root>\n  <data name="a" xml:space="preserve"><value>The boat {0}</value></data>\n'
        b'  <data name="b" type="System.Int32"><value>Five five</value></data>\n</root>\n',
        ("The boat {0}",),
        ('<data name="a" xml:space="preserve">', "{0}", "<value>Five five</value>"),
    ),
    Sample(
        "app.ts",
        b'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n<TS version="2.1" language="de">\n<context><name>Main</name>\n'
        b'<message><source>Open %1</source><translation type="unfinished"></translation></message>\n'
        b'<message numerus="yes"><source>%n boats</source><translation type="unfinished"><numerusform></numerusform>'
        b"<numerusform></numerusform></translation></message>\n"
        b"<message><source>Done</source><translation>Fertig</translation></message>\n</context></TS>\n",
        ("Open %1", "%n boats", "%n boats"),
        ("<!DOCTYPE TS>", "<source>Open %1</source>", "<translation>Fertig</translation>", '<message numerus="yes">'),
    ),
    Sample(
        "app.xlf",
        b'<xliff version="1.2"><file source-language="en"><body>\n<trans-unit id="a"><source>The <g id="1">boat</g> <x id="2"/>'
        b'</source></trans-unit>\n<trans-unit id="b"><source>Done</source><target>Fertig</target></trans-unit>\n'
        b'<trans-unit id="c" translate="no"><source>Keep</source></trans-unit>\n</body></file></xliff>\n',
        ("The boat ",),
        (
            '<source>The <g id="1">boat</g> <x id="2"/></source>',
            "<target>Fertig</target>",
            "<source>Keep</source></trans-unit>",
        ),
    ),
    Sample(
        "app2.xlf",
        b'<xliff version="2.0" srcLang="en" trgLang="de"><file id="f"><unit id="u"><segment><source>The <pc id="1">boat</pc></source>'
        b"</segment></unit></file></xliff>",
        ("The boat",),
        ('<source>The <pc id="1">boat</pc></source>',),
    ),
    Sample(
        "memory.tmx",
        b'<?xml version="1.0"?>\n<tmx version="1.4"><header srclang="en"/><body>\n<tu><tuv xml:lang="en"><seg>The boat</seg></tuv></tu>\n'
        b'<tu><tuv xml:lang="en"><seg>Done</seg></tuv><tuv xml:lang="de"><seg>Fertig</seg></tuv></tu>\n</body></tmx>\n',
        ("The boat",),
        ('<tuv xml:lang="en"><seg>The boat</seg></tuv>', "<seg>Fertig</seg>"),
    ),
    Sample(
        "sign.svg",
        b'<svg xmlns="http://www.w3.org/2000/svg"><title>A sign</title><text x="1">Mind the <tspan fill="red">step</tspan></text>'
        b'<path d="M0 0"/></svg>',
        ("A sign", "Mind the step"),
        ('<text x="1">', '<tspan fill="red">', '<path d="M0 0"/>'),
    ),
    Sample(
        "dates.ics",
        b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART:20240101T100000Z\r\nSUMMARY;LANGUAGE=en:Lunch\\, with\r\n  Ann\r\n"
        b"DESCRIPTION:Bring bread.\\nAnd milk.\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        ("Lunch, with Ann", "Bring bread.\nAnd milk."),
        ("UID:1\r\nDTSTART:20240101T100000Z", "SUMMARY;LANGUAGE=en:", "DESCRIPTION:"),
    ),
    Sample(
        "app.ftl",
        b"# note\nhello = Hello { $user }\nboats = { $n ->\n    [one] One boat\n   *[other] { $n } boats\n}\n    .title = A title\n",
        ("Hello  ", "One boat  boats", "A title"),
        ("# note\nhello = ", "{ $user }", "{ $n ->\n    [one] ", "*[other] { $n }", ".title = "),
    ),
)
