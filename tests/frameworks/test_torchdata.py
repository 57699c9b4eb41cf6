"""torchdata's StatefulDataLoader resumes by the dataset's own state, without reading again what was seen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import loaders
from tests.frameworks import framework
from tests.synthetic import full_members, make_dataset

stateful = framework("torchdata.stateful_dataloader")

COUNTS = [5, 1, 8]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchdata") / "cubes"
    make_dataset(folder, COUNTS, full_members)
    return folder


def loader_of(folder: Path, streamed: bool, workers: int) -> tuple[loaders.ShardDataset, Any]:
    source: Any = [f"pipe:cat {path}" for path in sorted(folder.glob("*.tar"))] if streamed else folder
    shards = loaders.ShardDataset(source, manifest=folder, buffer=3)
    return shards, stateful.StatefulDataLoader(shards, 3, num_workers=workers, collate_fn=loaders.collate)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("streamed", [False, True], ids=["local", "streamed"])
def test_it_goes_on_where_it_was(
    dataset: Path, workers: int, streamed: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, running = loader_of(dataset, streamed, workers)
    epochs = []
    for epoch in range(2):
        shards.set_epoch(epoch)
        epochs.append([batch["key"] for batch in running])
    assert sorted(key for keys in epochs[0] for key in keys) == sorted(key for keys in epochs[1] for key in keys)
    assert epochs[0] != epochs[1]

    shards.set_epoch(1)
    states = []
    for _ in running:
        states.append(running.state_dict())
    states.append(running.state_dict())
    caplog.set_level(logging.WARNING)
    for step in (0, 2, len(states) - 1):
        later, resumed = loader_of(dataset, streamed, workers)
        later.set_epoch(1)
        resumed.load_state_dict(states[step])
        rest = [batch["key"] for batch in resumed]
        assert rest == (epochs[1][step + 1 :] if step < len(states) - 1 else epochs[1]), (
            "the next epoch, if none is left"
        )
        later.set_epoch(0)
        assert [batch["key"] for batch in resumed] == epochs[0], "whole epochs follow"
    assert "fast-forwarding" not in caplog.text


def test_what_was_seen_is_not_read_again(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, running = loader_of(dataset, streamed=False, workers=0)
    loop = iter(running)
    seen = [next(loop)["key"] for _ in range(3)]
    _, resumed = loader_of(dataset, streamed=False, workers=0)
    resumed.load_state_dict(running.state_dict())
    read = []
    original = loaders._dataset.Decoder.__call__

    def noting(self: Any, key: str, members: Any) -> Any:
        read.append(key)
        return original(self, key, members)

    monkeypatch.setattr(loaders._dataset.Decoder, "__call__", noting)
    rest = [key for batch in resumed for key in batch["key"]]
    assert read == rest
    assert not {key for keys in seen for key in keys} & set(rest)
