"""The conversation in the terminal: turns, commands, files, and what is said of what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nlpkit.apps.serve.cli import chat
from nlpkit.apps.serve.conversation import Conversation
from nlpkit.core.chat.message import Message
from nlpkit.core.decode.config import DecodeConfig
from nlpkit.core.errors import ContextOverflowError


def test_each_line_is_a_turn(cli: Any, fake_model: Any) -> None:
    result = cli("chat", stdin=b"hello\n\nhow are you\n")
    assert (result.code, result.out) == (0, "HELLO\nHOW ARE YOU\n")
    prompts = [fake_model.decode(request.prompt_ids) for request in fake_model.requests]
    assert prompts == ["hello", "hello\nHELLO\nhow are you"]
    config = fake_model.requests[0].config
    assert (config.temperature, config.top_p, config.max_tokens) == (0.7, 0.9, 512)


def test_the_model_is_told_something_first(cli: Any, fake_model: Any) -> None:
    cli("chat", "--system", "be kind", stdin=b"a\n/system be wild\nb\n/system\n")
    prompts = [fake_model.decode(request.prompt_ids) for request in fake_model.requests]
    assert prompts == ["be kind\na", "be wild\na\nA\nb"]


def test_messages_can_have_several_lines(cli: Any, fake_model: Any) -> None:
    cli("chat", stdin=b'one \\\ntwo\n"""\n/three\n\nfour\n"""\n//five\n')
    prompts = [fake_model.decode(request.prompt_ids) for request in fake_model.requests]
    assert prompts[0] == "one \ntwo"
    assert prompts[1].endswith("\n/three\n\nfour")
    assert prompts[2].endswith("\n/five")


def test_an_answer_is_written_anew(cli: Any, fake_model: Any) -> None:
    result = cli("chat", "--seed", "3", stdin=b"/retry\na\n/retry\nb\n/undo\nc\n")
    assert result.out == "A\nA\nB\nC\n"
    prompts = [fake_model.decode(request.prompt_ids) for request in fake_model.requests]
    assert prompts == ["a", "a", "a\nA\nb", "a\nA\nc"]
    assert [request.config.seed for request in fake_model.requests] == [3, None, 3, 3]
    assert "nothing was said yet" in result.err


def test_an_answer_stays_where_none_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = Conversation("", [Message("user", "a"), Message("assistant", "A")])
    talk = chat._Talk(None, DecodeConfig(), conversation, as_json=True, quiet=True)  # type: ignore[arg-type]

    def fail(*arguments: object) -> None:
        raise ContextOverflowError("no room")

    monkeypatch.setattr("nlpkit.apps.serve.conversation.ask", fail)
    with pytest.raises(ContextOverflowError):
        talk._obey("/retry")
    assert [message.content for message in conversation.messages] == ["a", "A"]


def test_a_conversation_is_kept_and_gone_on_with(cli: Any, fake_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    cli("chat", "--system", "s", stdin=f"a\n/save {path}\n".encode())
    assert json.loads(path.read_text()) == {
        "system": "s",
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "A"}],
    }
    cli("chat", "--load", str(path), stdin=b"b\n")
    assert fake_model.decode(fake_model.requests[-1].prompt_ids) == "s\na\nA\nb"
    cli("chat", stdin=f"x\n/load {path}\nc\n/clear\nd\n".encode())
    assert [fake_model.decode(request.prompt_ids) for request in fake_model.requests[-2:]] == ["s\na\nA\nc", "s\nd"]


@pytest.mark.parametrize(
    "content",
    ["[]", '{"messages": 3}', '{"messages": [{"role": "tool", "content": ""}]}', '{"system": 1, "messages": []}'],
)
def test_other_files_are_refused(cli: Any, fake_model: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    result = cli("chat", "--load", str(path), stdin=b"")
    assert result.code == 2
    assert "other.json" in result.err


def test_answers_can_be_json(cli: Any, fake_model: Any) -> None:
    result = cli("chat", "--json", "--max-tokens", "3", stdin=b"hello\n")
    (line,) = map(json.loads, result.out.splitlines())
    assert (line["content"], line["finish_reason"], line["output_tokens"]) == ("HEL", "length", 3)
    assert "limit of 3 tokens" in result.err


def test_unknown_commands_are_told(cli: Any, fake_model: Any) -> None:
    result = cli("chat", stdin=b"/sav x\n/help\n/quit\nnever\n")
    assert result.code == 0
    assert "Did you mean '/save'" in result.err
    assert "/retry: write the last answer anew" in result.err
    assert fake_model.requests == []


def test_the_oldest_turns_give_way_and_that_is_said(cli: Any, fake_model: Any) -> None:
    fake_model.max_seq_len = 40
    result = cli("chat", "--max-tokens", "10", stdin=b"0123456789\nabcdefghij\nklmnopqrst\n")
    assert result.code == 0
    assert fake_model.decode(fake_model.requests[-1].prompt_ids) == "klmnopqrst"
    assert "the first 4 messages no longer fit" in result.err
    result = cli("chat", "--max-tokens", "10", stdin=b"x" * 100 + b"\n")
    assert result.code == 2
    assert "--max-tokens" in result.err


def test_what_a_conversation_cannot_use_is_refused(cli: Any, fake_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("chat", "--beam-size", "3", stdin=b"x\n")
    assert result.code == 2
    assert "--beam-size" in result.err
    monkeypatch.setattr(type(fake_model), "chat", None)
    result = cli("chat", stdin=b"x\n")
    assert result.code == 2
    assert "no chat template" in result.err
