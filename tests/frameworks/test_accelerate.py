"""accelerate: the `Loader` beside what it prepares, in its checkpoints; or a DataLoader that it prepares."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import loaders
from tests.frameworks import framework
from tests.synthetic import full_members, key_of, make_dataset

framework("accelerate")

ROOT = Path(__file__).parents[2]
RANKS = 2
COUNTS = [5, 1, 8]
KEYS = [key_of(shard, sample) for shard, samples in enumerate(COUNTS) for sample in range(samples)]

BEGINNING = """
import os
import sys
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
import loaders

def say(what, batch):
    line = f"{what} {accelerator.process_index}: {' '.join(batch['key'])}"
    os.write(1, f"{line}{os.linesep}".encode())  # at once: ranks share the pipe

def step(batch):
    with accelerator.accumulate(model):
        accelerator.backward(model(batch["depth"].float().mean().reshape(1, 1)).sum())
        optimizer.step()
        optimizer.zero_grad()

model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
"""

BESIDE = """
def training():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    dataset = loaders.ShardDataset(sys.argv[1], remainder="pad")  # after the Accelerator: its rank is known by then
    loader = loaders.Loader(dataset, 3, num_workers=1)
    accelerator.register_for_checkpointing(loader)
    return accelerator, loader, *accelerator.prepare(model, optimizer)

accelerator, loader, model, optimizer = training()
for epoch in range(loader.epoch, 2):
    loader.set_epoch(epoch)
    for number, batch in enumerate(loader):
        batch = send_to_device(batch, accelerator.device)
        step(batch)
        say("whole", batch)
        if epoch == 1 and number == 0:
            accelerator.save_state(sys.argv[2])

accelerator.load_state(sys.argv[2])
assert loader.epoch == 1
for batch in loader:
    say("resumed", send_to_device(batch, accelerator.device))
assert loader.epoch == 2
accelerator.end_training()
"""

PREPARED = """
accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))
dataset = loaders.ShardDataset(sys.argv[1], rank=0, world_size=1)  # accelerate deals the samples out itself
data_loader = DataLoader(dataset, 3, num_workers=1, collate_fn=loaders.collate)
model, optimizer, data_loader = accelerator.prepare(model, optimizer, data_loader)
for epoch in range(2):
    dataset.set_epoch(epoch)
    for batch in data_loader:
        step(batch)
        say(f"epoch{epoch}", batch)
accelerator.end_training()
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accelerate") / "cubes"
    make_dataset(folder, COUNTS, full_members)
    return folder


def said(tmp_path: Path, program: str, dataset: Path) -> list[tuple[str, int, str]]:
    """Run a program on two ranks; return what was said, by which rank, of which keys. The page's code runs on one."""
    script = tmp_path / "train.py"
    script.write_text(BEGINNING + program)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}"]
    done = subprocess.run(
        [sys.executable, *launcher, script, dataset, tmp_path / "checkpoint"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(what, int(rank), keys) for what, rank, keys in re.findall(r"^(\w+) (\d): (.*)$", done.stdout, re.M)]


def test_a_loader_beside_what_is_prepared(dataset: Path, tmp_path: Path) -> None:
    told = said(tmp_path, BESIDE, dataset)
    for rank in range(RANKS):
        loader = loaders.Loader(loaders.ShardDataset(dataset, remainder="pad", rank=rank, world_size=RANKS), 3)
        epochs = [[" ".join(batch["key"]) for batch in loader] for _ in range(2)]
        assert [keys for what, by, keys in told if (what, by) == ("whole", rank)] == epochs[0] + epochs[1]
        assert [keys for what, by, keys in told if (what, by) == ("resumed", rank)] == epochs[1][1:]


def test_a_data_loader_that_is_prepared(dataset: Path, tmp_path: Path) -> None:
    told = said(tmp_path, PREPARED, dataset)
    orders = []
    for epoch in range(2):
        batches = [keys.split() for what, _, keys in told if what == f"epoch{epoch}"]
        given = Counter(key for keys in batches for key in keys)
        assert given.keys() == set(KEYS)
        assert sum(given.values()) - len(KEYS) < 3 * RANKS, "accelerate begins anew to fill the last batches"
        orders.append(sorted(batches))
    assert orders[0] != orders[1]
