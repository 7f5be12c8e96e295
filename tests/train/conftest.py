"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clm_detour.config import load_config
from clm_detour.config.schema import Config
from clm_detour.pipeline import prepare_data
from clm_detour.train.callbacks.metrics import Metrics


@pytest.fixture
def prepared(tiny_recipe, tmp_path) -> Callable[..., Config]:
    """A function from a name and overrides to a tiny recipe whose data is there."""

    def make(name: str, *overrides: str) -> Config:
        config = load_config(tiny_recipe(tmp_path / name), ["train.workers=0", *overrides])
        prepare_data(config)
        return config

    return make


@pytest.fixture
def stop_after(monkeypatch) -> Callable[[int], None]:
    """A function that makes the next phase stop, as by Ctrl-C, at the end of a step."""

    def arrange(step: int) -> None:
        batch_checkpoint = Metrics.batch_checkpoint

        def stop(self, state, logger):
            batch_checkpoint(self, state, logger)
            if state.timestamp.batch.value == step:
                raise KeyboardInterrupt

        monkeypatch.setattr(Metrics, "batch_checkpoint", stop)

    return arrange
