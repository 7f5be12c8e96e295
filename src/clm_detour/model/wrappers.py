"""Pass `causal` from a wrapper (data parallel, PEFT) on to the model in it.

A plain attribute of the wrapper would have no effect. A wrapper's class gets the property when one of our
models is first wrapped. `torch.compile` passes attributes on by itself.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

WRAPPERS = (
    ("torch.nn.parallel", "DistributedDataParallel"),
    ("torch.nn.parallel", "DataParallel"),
    ("torch.distributed.fsdp", "FullyShardedDataParallel"),
    ("torch.optim.swa_utils", "AveragedModel"),
    ("peft", "PeftModel"),
    ("peft", "PeftMixedModel"),
    ("peft.tuners.tuners_utils", "BaseTuner"),
    ("deepspeed", "DeepSpeedEngine"),
)


def pass_causal_on(model_class: type[nn.Module]) -> None:
    """Let wrappers of models of this class pass `causal` on, from now on."""
    wrappers: set[type] = set()

    def inside(wrapper: nn.Module) -> Any:
        return next((module for module in wrapper.modules() if isinstance(module, model_class)), None)

    def get(wrapper: nn.Module) -> Any:
        if (model := inside(wrapper)) is not None:
            return model.causal
        if "causal" in vars(wrapper):  # a wrapper of another model
            return vars(wrapper)["causal"]
        raise AttributeError("causal")

    def put(wrapper: nn.Module, value: Any) -> None:
        model = inside(wrapper)
        if model is None:
            vars(wrapper)["causal"] = value
        else:
            model.causal = value

    def wrapped(_: nn.Module, __: str, module: nn.Module | None) -> None:
        if isinstance(module, (model_class, *wrappers)):
            for place, name in WRAPPERS:
                found = getattr(sys.modules.get(place), name, None)
                if found is not None and found not in wrappers:
                    found.causal = property(get, put, doc="The mask of the model inside.")
                    wrappers.add(found)

    register_module_module_registration_hook(wrapped)
