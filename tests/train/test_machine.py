"""What a training runs on, settled from what is asked for and what is there."""

import os

import pytest
import torch

from torchfpn.config.settings import TrainConfig
from torchfpn.errors import ConfigError
from torchfpn.tasks.task import find_device
from torchfpn.train.run_folder import machine


def pretend(monkeypatch, *, cuda=0, bf16=True, cores=2):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 0), (4, 1), (64, 1)])
def test_a_cpu_keeps_its_cores_for_the_steps(monkeypatch, cores, workers):
    pretend(monkeypatch, cores=cores)
    found = machine(TrainConfig())
    assert (found.accelerator, found.devices, found.precision, found.workers) == ("cpu", 1, "bf16-mixed", workers)


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (4, 3), (64, 8)])
def test_a_gpu_is_taken_where_there_is_one_and_only_one_unless_asked(monkeypatch, cores, workers):
    pretend(monkeypatch, cuda=4, cores=cores)
    found = machine(TrainConfig())
    assert (found.accelerator, found.devices, found.workers) == ("cuda", 1, workers)
    assert machine(TrainConfig(devices=4)).device == "4 x Some GPU"
    assert machine(TrainConfig(accelerator="gpu")).accelerator == "cuda"
    assert machine(TrainConfig(accelerator="cpu")).accelerator == "cpu"


def test_without_bf16_it_is_float32_and_what_is_asked_for_wins(monkeypatch):
    pretend(monkeypatch, bf16=False)
    assert machine(TrainConfig()).precision == "32-true"
    assert machine(TrainConfig(precision="bf16-mixed", num_workers=5)).precision == "bf16-mixed"
    assert machine(TrainConfig(num_workers=5)).workers == 5


def test_what_is_not_there_is_said_with_what_is(monkeypatch):
    pretend(monkeypatch, cuda=2)
    with pytest.raises(ConfigError, match="devices: 3; expected 2: Some GPU"):
        machine(TrainConfig(devices=3))
    with pytest.raises(ConfigError, match=r'"mps", which this machine does not have; expected cuda \| cpu'):
        machine(TrainConfig(accelerator="mps"))
    with pytest.raises(ConfigError, match="auto_batch: with several devices"):
        machine(TrainConfig(devices=2, auto_batch=True))


@pytest.mark.parametrize(
    ("there", "asked", "taken"),
    [
        (["mps", "cpu"], "auto", "mps"),
        (["mps", "cpu"], "gpu", "mps"),
        (["mps", "cpu"], "cpu", "cpu"),
        (["cuda:0", "mps", "cpu"], "auto", "cuda"),
        (["cpu"], "auto", "cpu"),
    ],
)
def test_the_gpu_of_a_mac_is_taken_by_itself(there, asked, taken):
    found = machine(TrainConfig(accelerator=asked), there)
    assert (found.accelerator, found.devices) == (taken, 1)
    if asked != "gpu":
        assert find_device(asked, there).type == taken
    if taken == "mps":
        assert found.precision == "32-true"


def test_a_mac_has_one_device_of_its_own():
    with pytest.raises(ConfigError, match="devices: 2; expected 1: the mps counts as one device"):
        machine(TrainConfig(devices=2), ["mps", "cpu"])
    with pytest.raises(ConfigError, match=r'"cuda", which this machine does not have; expected mps \| cpu'):
        machine(TrainConfig(accelerator="cuda"), ["mps", "cpu"])
