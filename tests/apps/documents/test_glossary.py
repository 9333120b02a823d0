"""Glossaries from tables and from TBX."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlpkit.apps.documents.glossary import read_glossary
from nlpkit.core.errors import ConfigError, InputError

TBX2 = """<martif type="TBX"><text><body><termEntry><langSet xml:lang="en-US"><tig><term>hard  disk</term></tig><tig>
<term>hard drive</term></tig></langSet><langSet xml:lang="de"><tig><term>Harddisk</term><termNote
type="administrativeStatus">deprecatedTerm-admn-sts</termNote></tig><tig><term>Laufwerk</term></tig><tig><term>Festplatte
</term><termNote type="administrativeStatus">preferredTerm-admn-sts</termNote></tig></langSet><langSet xml:lang="fr"><ntig>
<termGrp><term>disque dur</term></termGrp></ntig></langSet></termEntry></body></text></martif>"""
TBX3 = """<tbx xmlns="urn:iso:std:iso:30042:ed-2"><text><body><conceptEntry><langSec xml:lang="en"><termSec><term>dog</term>
</termSec></langSec><langSec xml:lang="de"><termSec><term>Hund</term></termSec></langSec></conceptEntry></body></text></tbx>"""


def written(folder: Path, name: str, content: str) -> str:
    (folder / name).write_text(content, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.tsv", "# terms\nhard disk\tFestplatte\n\ndog\tHund\n"),
        ("g.tsv", "# terms\nsource\ttarget\nhard disk\tFestplatte\ndog\tHund\n"),
        ("g.csv", 'Source,Target,Note\n"hard disk",Festplatte,x\n\ndog,Hund,\n'),
        ("g.csv", "hard disk;Festplatte\ndog;Hund\n"),
    ],
)
def test_tables(tmp_path: Path, name: str, content: str) -> None:
    assert read_glossary(written(tmp_path, name, content)) == {"hard disk": "Festplatte", "dog": "Hund"}


def test_only_a_first_line_names_columns(tmp_path: Path) -> None:
    wanted = {"dog": "Hund", "source": "Target"}
    assert read_glossary(written(tmp_path, "g.csv", "dog,Hund\nsource,Target\n")) == wanted


def test_tbx(tmp_path: Path) -> None:
    path = written(tmp_path, "g.tbx", TBX2)
    wanted = {"hard disk": "Festplatte", "hard drive": "Festplatte"}
    assert read_glossary(path, source_lang="en", target_lang="de") == wanted
    assert read_glossary(path, target_lang="de") == {**wanted, "disque dur": "Festplatte"}
    assert read_glossary(written(tmp_path, "h.tbx", TBX3), target_lang="de") == {"dog": "Hund"}
    with pytest.raises(ConfigError, match="--to"):
        read_glossary(path)
    with pytest.raises(InputError, match="no terms of these languages"):
        read_glossary(path, source_lang="es", target_lang="de")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("g.tsv", "dog\tHund\ndog\tKöter\n", "g.tsv:2: 'dog' is translated as 'Köter' here, but as 'Hund' above"),
        ("g.tsv", "dog\n", "g.tsv:1: 'dog' is not a term"),
        ("g.csv", "dog,Hund\ncat\n", "g.csv:2: 'cat' is not a term"),
        ("g.csv", "", "holds no terms"),
        ("g.tbx", "<tbx>", "cannot be read as TBX"),
        ("g.tbx", '<!DOCTYPE a [<!ENTITY b "c">]><a/>', "declares entities"),
    ],
)
def test_what_is_no_glossary_is_refused(tmp_path: Path, name: str, content: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_glossary(written(tmp_path, name, content), target_lang="de")
