"""A training step of `nconv.nn` against PyTorch's: ``python -m nconv.bench.training`` prints the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import nn, threads
from .measure import median_seconds

_STEP, _USE = "training step", "forward"


class Network(NamedTuple):
    """Layers by PyTorch's names and arguments, and the input that they take."""

    name: str
    shape: tuple[int, ...]
    layers: tuple[tuple, ...]

    def build(self, room: Any) -> Any:
        """The network of `nconv.nn` or `torch.nn`, which is `room`."""
        return room.Sequential(*(getattr(room, kind)(*arguments) for kind, *arguments in self.layers))


NETWORKS = (
    Network("digits, 32 x 1 x 8 x 8", (32, 1, 8, 8), (
        ("Conv2d", 1, 16, 3, 1, 1), ("ReLU",), ("Conv2d", 16, 32, 3, 1, 1), ("ReLU",), ("MaxPool2d", 2), ("Flatten",),
        ("Linear", 512, 10))),
    Network("colour, 16 x 3 x 32 x 32", (16, 3, 32, 32), (
        ("Conv2d", 3, 32, 3, 1, 1), ("ReLU",), ("Conv2d", 32, 64, 3, 1, 1), ("ReLU",), ("MaxPool2d", 2),
        ("Conv2d", 64, 64, 3, 1, 1), ("ReLU",), ("MaxPool2d", 2), ("Flatten",), ("Linear", 4096, 10))),
    Network("long signals, 8 x 32 x 4,096, depthwise 513", (8, 32, 4096), (
        ("Conv1d", 32, 32, 513, 1, 256, 1, 32), ("ReLU",), ("Conv1d", 32, 32, 513, 1, 256, 1, 32), ("ReLU",),
        ("AvgPool1d", 512), ("Flatten",), ("Linear", 256, 10))),
)
"""What is measured; the last one has windows that PyTorch knows no transform for."""


def steps(network: Network) -> dict[str, dict[str, Callable[[], float]]]:
    """By what is done ('forward', 'training step') and by whom: functions that do it and return the loss."""
    import torch

    torch.set_num_threads(threads.get_num_threads())
    rng = np.random.default_rng(0)
    x = rng.standard_normal(network.shape).astype("f4")
    target = rng.integers(0, 10, len(x))
    theirs, ours = network.build(torch.nn), network.build(nn)
    ours.load_state_dict(theirs.state_dict())
    their_loss, our_loss = torch.nn.CrossEntropyLoss(), nn.CrossEntropyLoss()
    their_optimiser, our_optimiser = torch.optim.SGD(theirs.parameters(), lr=1e-3), nn.SGD(ours.parameters(), lr=1e-3)
    tensor, their_target = torch.from_numpy(x), torch.from_numpy(target)

    def our_step() -> float:
        loss = our_loss(ours.train()(x), target)
        our_optimiser.zero_grad()
        ours.backward(our_loss.backward(), input_gradient=False)
        our_optimiser.step()
        return loss

    def their_step() -> float:
        loss = their_loss(theirs(tensor), their_target)
        their_optimiser.zero_grad()
        loss.backward()
        their_optimiser.step()
        return loss.item()

    def their_use() -> float:
        with torch.inference_mode():
            return their_loss(theirs(tensor), their_target).item()

    return {_USE: {"nconv": lambda: our_loss(ours.eval()(x), target), "torch": their_use},
            _STEP: {"nconv": our_step, "torch": their_step}}


def main() -> None:
    """Print the table; losses are compared before anything is timed."""
    print(f"{threads.get_num_threads()} threads, float32, median milliseconds; ratio: torch's time over nconv's")
    print(f"{'network':<45}{'':<15}{'nconv':>8}{'torch':>8}{'ratio':>7}")
    for network in NETWORKS:
        for what, functions in steps(network).items():
            first, second = (function() for function in functions.values())
            assert abs(first - second) < 1e-3 * abs(second), f"{network.name}: losses differ: {first}, {second}"
            ours, theirs = median_seconds(*functions.values())
            print(f"{network.name:<45}{what:<15}{ours * 1e3:>8.3g}{theirs * 1e3:>8.3g}{theirs / ours:>7.2f}")


if __name__ == "__main__":
    main()
