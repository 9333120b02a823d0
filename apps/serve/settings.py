"""What a server is told when it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from nlpkit.core.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that requests may name.

    Attributes:
        id: What requests call it.
        name: Name in the catalogue, path of a model file or directory, or hub id.
        adapter: As in `nlpkit.apps.models.spec.ModelSpec`.
    """

    id: str
    name: str
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How to serve.

    Attributes:
        models: What requests may name; the first is what they get who name none.
        dtype: Number format of all models, as in `ModelSpec`.
        device: Where they run.
        threads: CPU threads; None lets the engine choose.
        batch_tokens: Bound on positions of a model's cache in use, slots times length.
        memory_bytes: Most bytes of the weights of all loaded models; None is no limit.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        allowed_hosts: Names, beside the loopback's and `host`, that requests may call the server by.
        queue: Most requests in the house, running or waiting.
        max_body_bytes: Longest body of a request.
        timeout: Seconds after which a request is given up.
        grace: Seconds that running requests get when the server ends.
        api_keys: SHA-256 hashes of the keys, one of which requests must bring; empty lets everybody in.
    """

    models: tuple[ServedModel, ...] = (ServedModel(id="default", name="default"),)
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    batch_tokens: int = 32_768
    memory_bytes: int | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    queue: int = 256
    max_body_bytes: int = 4 * 2**20
    timeout: float = 600.0
    grace: float = 10.0
    api_keys: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("There is no model to serve. Name at least one.")
        ids = [model.id for model in self.models]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ConfigError(f"Two models have the id {twice[0]!r}. Give each its own: --model ID=NAME.")
