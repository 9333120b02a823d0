"""A whole pass through the model by the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nlpkit.core.machine.crowd import TEAM
from nlpkit.core.model.cache import KVCache
from nlpkit.core.model.config import ModelConfig
from nlpkit.core.model.gpt import GPT, Block
from nlpkit.core.model.layers import LayerNorm, RMSNorm
from nlpkit.core.quantization.kernel_library import (
    _ACTIVATIONS,
    _QK_NORMS,
    _SHAPE,
    _Layer,
    _Linear,
    _Model,
    _Norm,
    _Pass,
    _places,
)
from nlpkit.core.quantization.kernel_linear import KernelLinear


class Kernels:
    """Runs the blocks of one model whose linear layers are all `KernelLinear`."""

    def __init__(self, model: GPT) -> None:
        """Describe a model to the kernels.

        Args:
            model: On the CPU, quantized by them; see `fits_kernels`.

        Raises:
            TypeError: A layer is not quantized by them.
        """
        config = model.config
        self._gpt = model
        # What the kernels point to must live as long as they do.
        self._kept: list[Tensor] = []
        self._layers = (_Layer * config.n_layers)(
            *(self._layer(config, layer, block) for layer, block in enumerate(model.iter_blocks()))
        )
        rotary_dim = 0 if config.positions != "rope" else config.rope.dim or config.head_dim
        scale = config.attn_scale if config.attn_scale is not None else config.head_dim**-0.5
        self._model = _Model(
            self._layers,
            *(getattr(config, name) for name in _SHAPE),
            _ACTIVATIONS[config.activation],
            config.gated_mlp,
            config.parallel_residual,
            config.norm_placement in ("post", "sandwich"),
            _QK_NORMS[config.qk_norm],
            rotary_dim,
            scale,
            config.attn_softcap,
            self._norm(model.final_norm),
        )
        self._library = next(layer.library for layer in model.modules() if isinstance(layer, KernelLinear))

    def _norm(self, norm: nn.Module | None) -> _Norm:
        if isinstance(norm, LayerNorm):
            weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
            self._kept += [weight, bias]
            return _Norm(weight.data_ptr(), bias.data_ptr(), 2, norm.eps)
        if isinstance(norm, RMSNorm):
            weight = norm.weight.detach().float() + norm.offset
            self._kept.append(weight)
            return _Norm(weight.data_ptr(), None, 1, norm.eps)
        return _Norm(None, None, 0, 0.0)

    def _linear(self, layer: nn.Module | None) -> _Linear:
        if not isinstance(layer, KernelLinear):
            raise TypeError("a layer is not quantized for the kernels")
        content = (layer.weight, layer.bias, layer.low_in, layer.low_out)
        self._kept += [tensor for tensor in content if tensor is not None]
        return layer.described()

    def _layer(self, config: ModelConfig, layer: int, block: Block) -> _Layer:
        attn, mlp = block.attn, block.mlp
        norms = ("attn_norm", "mlp_norm", "attn_post_norm", "mlp_post_norm")
        sliding = layer in config.sliding_layers and config.sliding_window is not None
        return _Layer(
            *(self._norm(getattr(block, name, None)) for name in norms),
            *(self._norm(getattr(attn, name, None)) for name in ("q_norm", "k_norm")),
            self._linear(attn.qkv),
            self._linear(attn.o),
            self._linear(mlp.gate_up if config.gated_mlp else mlp.up),
            self._linear(mlp.down),
            config.sliding_window if sliding else 0,
            layer in config.sliding_layers,
        )

    def hidden(
        self,
        token_ids: Tensor,
        rows: Tensor,
        positions: Tensor,
        cache: KVCache,
        *,
        longest: int,
        lengths: Tensor | None = None,
        wanted: Tensor | None = None,
        homes: Tensor | None = None,
    ) -> Tensor:
        """Do what `GPT.hidden` does, for tokens of any rows: each token sees its row's slots up to its own position.

        Args:
            token_ids: Shape ``(tokens,)``.
            rows: Row of the cache of each token, same shape.
            positions: Position in its row of each token, same shape; those of one row must come in order.
            cache: Where keys and values go, with room for all positions.
            longest: One more than the largest position.
            lengths: Length of the sequence that each token is computed for, same shape, where the model depends on it.
            wanted: The tokens whose states are wanted, by number and in order: the last layer leaves out the others.
                None is all.
            homes: int32, shape ``(tokens, longest)``: the row in which each position of each token's text lies, up to
                its own; None where all lie in its own row. Neighbours that begin alike share the reading of keys.

        Returns:
            Normalised hidden states in fp32, shape ``(tokens, d_model)``, or ``(wanted, d_model)``.

        Raises:
            IndexError: A row or position lies outside the cache, or a wanted token outside the pass.
            ValueError: `homes` has another shape or dtype, or comes with `wanted`.
        """
        # The kernels write wherever they are told to.
        for values, count in ((rows, cache.n_rows), (positions, cache.n_slots)):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < count:
                raise IndexError(f"tokens at {int(values.min())} to {int(values.max())} of a cache of {count}")
        n_tokens = positions.numel()
        chosen = None if wanted is None else wanted.to(torch.int32).contiguous()
        # Each is moved to its place in turn, so none may come before one that is still to be moved.
        if chosen is not None and chosen.numel():
            in_order = bool((chosen.diff() > 0).all())
            if not in_order or not 0 <= int(chosen[0]) <= int(chosen[-1]) < n_tokens:
                raise IndexError(f"wanted tokens are not in order, or not among the {n_tokens} of the pass")
        # A copy in any case: it is overwritten.
        x = self._gpt.embedded(token_ids, positions).to(torch.float32, copy=True).contiguous()
        slots, rows = positions.to(torch.int32).contiguous(), rows.to(torch.int32).contiguous()
        rotary = self._gpt.rotary_for(None if lengths is None else lengths[:, None])
        tables: list[Tensor] = []
        for one in rotary:
            pair = (x, x) if one is None else one.cos_sin(positions[:, None], longest=longest, dtype=torch.float32)
            tables += [part.contiguous() for part in pair]
            if rotary[0] is rotary[1]:
                tables *= 2
                break
        tensors = (x, rows, slots, *tables, cache.keys, cache.values)
        strides = cache.keys.stride()[:3]
        pointers = (tensor.data_ptr() for tensor in tensors)
        at, n_wanted = (None, n_tokens) if chosen is None else (chosen.data_ptr(), chosen.numel())
        where, shared = (None, None) if homes is None else _places(homes, slots, cache, chosen, longest)
        forks = (None, None, 0) if where is None or shared is None else (where.data_ptr(), shared.data_ptr(), longest)
        with TEAM.passing(torch.get_num_threads(), n_tokens) as threads:
            self._library.run(self._model, _Pass(*pointers, *strides, None, at, *forks, n_tokens, n_wanted, threads, 0))
        return x[:n_wanted]
