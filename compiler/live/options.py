"""Options of the live tee: where it listens, who may connect, and how much waits for a slow listener."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

from compiler.errors import UsageError

Policy = Literal["drop", "block"]

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """What happens to samples that a group of listeners has not taken yet."""

    policy: Policy = "drop"
    """``drop``: the oldest sample makes way and is counted. ``block``: the compiler waits."""
    queue_bytes: int = 64 << 20
    """As much waits for the slowest group, and so for all together; one larger sample may wait alone."""
    queue_samples: int = 4096
    """As many samples wait at most: small ones cost memory beyond their bytes."""
    grace_s: float = 60.0
    """What waits for a named group whose connections have all left is kept for this many seconds. At the end of the
    dataset, a group that has taken nothing for as long is given up."""


@dataclass(frozen=True, kw_only=True)
class TeeOptions(QueueLimits):
    """How a live tee is set up.

    Raises:
        UsageError: no token where other machines can connect, or one that is short or does not fit in a URL.
    """

    host: str = "127.0.0.1"
    """Address to listen at. One that is not this machine's own loopback needs a token."""
    port: int = 5555
    """0 takes any that is free."""
    token: str | None = None
    """Listeners must show it: ``Authorization: Bearer TOKEN`` or ``?token=TOKEN``."""
    max_connections: int = 256
    """Further connections are cut at once, whatever they want: a flood must not use up the compiler's files."""
    request_timeout_s: float = 15.0
    """A connection must have sent its whole request after this many seconds."""

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise UsageError(f"{self.host} can be reached from other machines", "give the live tee a token")
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise UsageError(
                "the live tee's token must be 16 or more of A-Z a-z 0-9 . _ ~ -", "leave it out to have one made"
            )


def is_loopback(host: str) -> bool:
    """Return whether `host` is an address, or the name, that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
