"""What tests of several files share."""

import pytest

from nconv import choice
from nconv.machine import Machine


@pytest.fixture
def cheap_passes(monkeypatch):
    """'auto' takes passes for every outer product: what else would be faster is the machine's affair."""
    rates = Machine().scaled("work.separable", 1e-3)
    monkeypatch.setattr(choice, "machine", lambda device: rates)
    choice.forget_choices()
    yield
    choice.forget_choices()
