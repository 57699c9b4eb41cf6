"""The live mode of a build: from the command's words to a listening tee, and what that tee says of the dataset."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compiler.build import Report, live_counts
from compiler.errors import UsageError
from compiler.live.options import Policy, TeeOptions, is_loopback
from compiler.live.tee import Tee
from compiler.planning.plan import Plan
from loaders.files import write_atomically

DEFAULT_URL = "http://127.0.0.1:5555"

Announce = Callable[[str], None]


@dataclass(frozen=True)
class LiveOptions:
    """How a build goes live."""

    tee: TeeOptions
    wait: int = 0
    """So many listeners must be there before anything is rendered."""
    token_made: bool = False
    """Whether the token was made here, and must be told; one that was given is not shown again."""
    ready_file: Path | None = None
    """Gets the address and the token as JSON once the tee listens: for a program that started the build."""


def tee_options(url: str, host: str | None, policy: Policy, token: str | None) -> TeeOptions:
    """Return where the tee listens and for whom; where other machines can connect, a token is made if none is given.

    Args:
        url: ``http://127.0.0.1:5555``; port 0 takes any that is free.
        host: another address to listen at than the URL's, which must be this machine's loopback.
        policy: what slow listeners cause.
        token: what listeners must show.

    Raises:
        UsageError: not such a URL, an address of the network not named by `host`, a token that does not fit.
    """
    parts = urlsplit(url)
    try:
        port = 5555 if parts.port is None else parts.port
    except ValueError:
        port = -1
    if parts.scheme != "http" or not parts.hostname or port < 0 or parts.path not in ("", "/") or parts.query:
        raise UsageError(f"--live {url!r} is not an address to listen at", f"give one as {DEFAULT_URL}")
    if host is None and not is_loopback(parts.hostname):
        hint = f"if other machines shall connect, add --live-host {parts.hostname}; a token is then needed"
        raise UsageError(f"--live {url}: {parts.hostname} can be reached from other machines", hint)
    chosen = host or parts.hostname
    if token is None and not is_loopback(chosen):
        token = secrets.token_urlsafe(24)
    return TeeOptions(host=chosen, port=port, policy=policy, token=token)


@contextmanager
def live_tee(live: LiveOptions, plan: Plan, report: Report, announce: Announce) -> Iterator[Tee]:
    """Listen while the dataset is built; end the streams cleanly if it is, cut them if it is not.

    Args:
        live: where and for whom.
        plan: the dataset's plan.
        report: the build's, which grows; listeners may ask for it.
        announce: is told where the tee listens, and what is waited for.

    Raises:
        UsageError: the address cannot be used.
    """
    with Tee(live.tee, _describer(plan, report)) as tee:
        made = f" with token {live.tee.token}" if live.token_made else ", with the token that was given"
        announce(f"live at {tee.address}{made if live.tee.token else ''}")
        if live.ready_file is not None:
            ready = {"address": tee.address, "token": live.tee.token}
            write_atomically(live.ready_file, json.dumps(ready).encode())
        if live.wait:
            announce(f"waiting for {live.wait} listeners")
            tee.wait_for(live.wait)
        try:
            yield tee
            tee.finish()
        finally:
            report.live = live_counts(tee)


def _describer(plan: Plan, report: Report) -> Callable[[], dict[str, Any]]:
    """Return what tells listeners which dataset this is and how far it is (``GET /status``)."""
    fixed = {
        "name": plan.name,
        "plan": plan.identity(),
        "plan_digest": plan.digest,
        "schema": {"members": plan.members()},
    }
    moving = ("shards_wanted", "samples_wanted", "shards_done", "samples_done", "samples_rendered", "restarts", "rate")
    return lambda: {**fixed, **{name: getattr(report, name) for name in moving}}
