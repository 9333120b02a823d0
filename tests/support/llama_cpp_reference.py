"""llama.cpp as a reference, through its prebuilt library `xllamacpp`, and tiny GGUF files that it and we read."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import sentencepiece

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"]
WIDTH = 32


class LlamaCpp:
    """A model in llama.cpp's server, which runs in this process and listens on 127.0.0.1."""

    def __init__(self, path: Path, *, template: str | None = None) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.cpuparams.n_threads, params.cache_ram_mib = 256, 1, 1, 0
        params.warmup = params.fit_params = params.ui = False
        params.verbosity = -1
        if template is not None:
            params.chat_template = template
        self._server = xllamacpp.Server(params)

    def ask(self, path: str, **values: Any) -> Any:
        """Post JSON; an error's body is returned like any other."""
        request = urllib.request.Request(
            f"{self._server.listening_address}/{path}",
            json.dumps(values).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = False) -> list[int]:
        tokens: list[int] = self.ask("tokenize", content=text, add_special=add_special, parse_special=parse_special)[
            "tokens"
        ]
        return tokens

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self.ask("detokenize", tokens=list(token_ids))["content"])

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt of a chat, or the error."""
        answer = self.ask("apply-template", messages=list(messages))
        return str(answer.get("prompt", answer))


def write_bpe(path: Path, tokenizer: Any, pre: str, **more: Any) -> Path:
    """Write a file with a byte-level tokenizer of the library `tokenizers`."""
    state = json.loads(tokenizer.to_str())
    vocab = {**state["model"]["vocab"], **{token["content"]: token["id"] for token in state["added_tokens"]}}
    spelled = sorted(vocab, key=vocab.__getitem__)
    kinds = {token["content"]: 3 if token["special"] else 4 for token in state["added_tokens"]}
    writer = _begin(path)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(spelled)
    writer.add_token_types([kinds.get(token, 1) for token in spelled])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    writer.add_bos_token_id(vocab["<s>"])
    writer.add_eos_token_id(vocab["</s>"])
    return _end(writer, path, len(spelled), more)


def write_spm(path: Path, model: bytes, **more: Any) -> Path:
    """Write a file with a SentencePiece tokenizer."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = range(processor.vocab_size())
    writer = _begin(path)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([processor.id_to_piece(i) for i in ids])
    writer.add_token_scores([processor.get_score(i) for i in ids])
    writer.add_token_types(
        [
            2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1
            for i in ids
        ]
    )
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    return _end(writer, path, len(ids), more)


def _begin(path: Path) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 4)
    return writer


def _end(writer: gguf.GGUFWriter, path: Path, vocab_size: int, more: dict[str, Any]) -> Path:
    for key, value in more.items():
        {bool: writer.add_bool, str: writer.add_string}[type(value)](f"tokenizer.{key.replace('__', '.')}", value)
    rng = np.random.default_rng(0)
    square = ("blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "blk.0.attn_output", "blk.0.ffn_gate", "blk.0.ffn_up",
              "blk.0.ffn_down")  # fmt: skip
    shapes = dict.fromkeys(square, (WIDTH, WIDTH)) | dict.fromkeys(("token_embd", "output"), (vocab_size, WIDTH))
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (rng.standard_normal(shape) * 0.2).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
