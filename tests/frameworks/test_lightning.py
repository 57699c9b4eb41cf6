"""Lightning trains from a `Loader`: every epoch another order, from its checkpoints on with the next batch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import loaders
from tests.frameworks import framework
from tests.synthetic import full_members, make_dataset

lightning = framework("pytorch_lightning")
callbacks = framework("pytorch_lightning.callbacks")

COUNTS = [5, 1, 8]
BATCH = 4
STEPS = -(-sum(COUNTS) // BATCH)
"""Of an epoch."""


class Model(lightning.LightningModule):  # type: ignore[misc]
    """Notes the keys of the batches that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.batches: list[list[str]] = []
        self.validated: list[list[str]] = []

    def training_step(self, batch: Any, _: int) -> Any:
        self.batches.append(batch["key"])
        return self.layer(batch["depth"].float().mean().reshape(1, 1)).square().sum()

    def validation_step(self, batch: Any, _: int) -> None:
        self.validated.append(batch["key"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-6)

    @property
    def epochs(self) -> list[list[list[str]]]:
        return [self.batches[first : first + STEPS] for first in range(0, len(self.batches), STEPS)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lightning") / "cubes"
    make_dataset(folder, COUNTS, full_members)
    return folder


def loader_of(dataset: Path, workers: int = 0) -> loaders.Loader:
    return loaders.Loader(loaders.ShardDataset(dataset), BATCH, num_workers=workers, persistent_workers=workers > 0)


def fit(folder: Path, model: Model, *data: Any, ckpt_path: Path | None = None, **options: Any) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(default_root_dir=folder, **{"num_sanity_val_steps": 0, **quiet, **options})
    trainer.fit(model, *data, ckpt_path=ckpt_path)


def plainly(dataset: Path, epochs: int) -> list[list[list[str]]]:
    loader = loader_of(dataset)
    return [[batch["key"] for batch in loader] for _ in range(epochs)]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_gives_every_sample_in_an_order_of_its_own(dataset: Path, tmp_path: Path, workers: int) -> None:
    model, loader = Model(), loader_of(dataset, workers)
    validation = loaders.Loader(loaders.ShardDataset(dataset, shuffle=False), BATCH)
    fit(tmp_path, model, loader, validation, max_epochs=3, enable_checkpointing=False)
    assert model.epochs == plainly(dataset, 3)
    assert len({str(epoch) for epoch in model.epochs}) == 3
    assert loader.epoch == 3
    assert model.validated[: len(model.validated) // 3] * 3 == model.validated
    assert sum(map(len, model.validated)) == 3 * sum(COUNTS)


def test_a_checkpoint_goes_on_with_the_batch_behind_its_last_one(dataset: Path, tmp_path: Path) -> None:
    whole = [batch for epoch in plainly(dataset, 3) for batch in epoch]
    every = callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    fit(tmp_path, Model(), loader_of(dataset, 2), max_epochs=2, callbacks=[every])
    for step in (1, STEPS - 1, STEPS, STEPS + 2):
        resumed, loader = Model(), loader_of(dataset)
        fit(
            tmp_path,
            resumed,
            loader,
            max_epochs=3,
            ckpt_path=tmp_path / f"step={step}.ckpt",
            enable_checkpointing=False,
        )
        assert resumed.batches == whole[step:], step
        assert loader.epoch == 3


def test_a_checkpoint_at_an_epochs_end_goes_on_with_the_next_epoch(dataset: Path, tmp_path: Path) -> None:
    whole = [batch for epoch in plainly(dataset, 3) for batch in epoch]
    last = callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fit(tmp_path, Model(), loader_of(dataset), max_epochs=2, callbacks=[last])
    for epoch in (0, 1):
        resumed = Model()
        fit(tmp_path, resumed, loader_of(dataset), max_epochs=3, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert resumed.batches == whole[(epoch + 1) * STEPS :]


def test_the_trainers_epoch_is_the_loaders(dataset: Path, tmp_path: Path) -> None:
    """A trainer begins at epoch 0, wherever the loader has been before."""
    loader = loader_of(dataset)
    for _ in range(2):
        model = Model()
        fit(tmp_path, model, loader, max_epochs=2, enable_checkpointing=False)
        assert model.epochs == plainly(dataset, 2)


DDP = """
import os
import sys
from tests.frameworks.test_lightning import BATCH, Model, fit
import loaders

class Ranked(Model):
    def train_dataloader(self):  # by then Lightning has set up torch.distributed, so that the dataset finds its rank
        return loaders.Loader(loaders.ShardDataset(sys.argv[1], remainder="pad"), BATCH)

model = Ranked()
fit(sys.argv[2], model, max_epochs=2, devices=2, strategy="ddp", enable_checkpointing=False)
for batch in model.batches:
    os.write(1, f"rank {model.global_rank}: {' '.join(batch)}{os.linesep}".encode())  # at once: ranks share the pipe
"""


def test_ranks_share_the_epochs(dataset: Path, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(DDP)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, script, dataset, tmp_path],
        env={**os.environ, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    keys = {rank: re.findall(rf"^rank {rank}: (.*)$", done.stdout, re.M) for rank in (0, 1)}
    expected = []
    for rank in (0, 1):
        loader = loaders.Loader(loaders.ShardDataset(dataset, remainder="pad", rank=rank, world_size=2), BATCH)
        expected.append([" ".join(batch["key"]) for _ in range(2) for batch in loader])
    assert [keys[0], keys[1]] == expected
