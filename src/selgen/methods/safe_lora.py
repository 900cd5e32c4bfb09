"""A trained adapter projected, after the fact, onto what alignment did to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from selgen.adapters import lora_layers
from selgen.core import Origin, PostHoc
from selgen.maths.noise import gaussian_like
from selgen.maths.subspace import onto_alignment, similarity
from selgen.models import StoredWeights

DEFAULT_K = 10
Projector = Literal["alignment", "random"]


@dataclass
class SafeLoRA(PostHoc):
    """Project the task-only adapter, in its least similar modules, onto the directions in which alignment moved them.

    For each adapted module  V = W_aligned - W_base,  P = V V^T / |V|_F;  B becomes P B where
    cos(P B A, B A) <= tau, or in the k modules with the smallest cosine. A module that alignment left as it was
    (V = 0, so P = 0/0) has no cosine and stays as it is.

    Args:
        k: Number of modules to project, >= 0, ties in model order; modules without a cosine are not among them. 0
            leaves the adapter as it is. 10 if tau is not given.
        tau: Instead of k: project modules whose cosine is at most tau, in [0, 1].
        base: Model directory or hub id of the weights before alignment. None: the miniature's before instruction
            training, or the raw model under a starting adapter; other models need it.
        aligned: Of the weights after alignment. None: the starting model, with its adapter if it has one.
        projector: `alignment`, or `random`, the control: V is replaced by a Gaussian matrix of the same Frobenius norm,
            drawn by the module's name alone, so that all seeds and strengths have the same one.

    Cost: no training; both models' adapted weights are read once, module by module.
    Source: Hsu et al., Safe LoRA: the Silver Lining of Reducing Safety Risks when Fine-tuning Large Language Models,
    2024. Official code: github.com/IBM/SafeLoRA.
    Differs from: the official code rounds cosines to five digits and projects all modules tied with the k-th. Like
    ours it leaves LoRA's scaling out of the cosine, which does not depend on it.
    """

    k: int | None = None
    tau: float | None = None
    base: str | None = None
    aligned: str | None = None
    projector: Projector = "alignment"

    strength = "k"
    neutral = (0, "task_only")
    paths: ClassVar[tuple[str, ...]] = ("base", "aligned")

    def __post_init__(self) -> None:
        if self.projector not in get_args(Projector):
            raise ValueError(
                f"method.projector should be one of {', '.join(get_args(Projector))}, found {self.projector!r}."
            )
        self.control = self.projector == "random"
        if self.k is not None and self.tau is not None:
            raise ValueError(
                f"method.k and method.tau exclude each other, found {self.k} and {self.tau}. Set one of them to null."
            )
        if self.tau is not None:
            self.strength, self.neutral = "tau", None
            if not 0 <= self.tau <= 1:
                raise ValueError(f"method.tau should be in [0, 1], found {self.tau}. Use k=0 to project no module.")
            return
        self.k = DEFAULT_K if self.k is None else self.k
        if self.k < 0:
            raise ValueError(f"method.k should be >= 0, found {self.k}. Use 0 for the task-only adapter.")

    def check(self, model: Any, start: Origin) -> None:
        layers = lora_layers(model)
        unusual = [name for name, layer in layers if not layer.lora_A or any(layer.use_dora.values())]
        if unusual:
            raise ValueError(
                f"lora should adapt linear layers only, without DoRA, found {', '.join(unusual[:3])}. Set "
                "lora.use_dora=false and lora.target_modules=all-linear."
            )
        if self.k is not None and self.k > len(layers):
            raise ValueError(
                f"method.k should be at most {len(layers)}, the number of adapted modules, found {self.k}. Lower it."
            )
        base, aligned = self._sides(start)
        for name, layer in layers:
            own = tuple(layer.get_base_layer().weight.shape)
            shapes = base.shape(name), aligned.shape(name)
            if set(shapes) != {own}:
                raise ValueError(
                    f"weights of {name} should have one shape, found {list(shapes[0])} in base {base.name}, "
                    f"{list(shapes[1])} in aligned {aligned.name} and {list(own)} in the starting model. Name models "
                    "of one architecture in method.base and method.aligned."
                )
        if start.planned and self.aligned is None:
            return  # its numbers are not there yet
        if not any(bool(_moved(base, aligned, name, layer).any()) for name, layer in layers):
            raise ValueError(
                f"base {base.name} and aligned {aligned.name} should differ, found equal weights in every adapted "
                "module. Name the weights before alignment in method.base."
            )

    def transform(self, model: Any, start: Origin) -> Mapping[str, Any]:
        base, aligned = self._sides(start)
        factors: dict[str, Tensor] = {}
        projected: dict[str, Tensor] = {}
        cosines: dict[str, float | None] = {}
        for name, layer in lora_layers(model):
            [adapter] = layer.active_adapters
            a, factors[name] = layer.lora_A[adapter].weight.detach().cpu(), layer.lora_B[adapter].weight
            b = factors[name].detach().cpu()
            v = _moved(base, aligned, name, layer)
            found = onto_alignment(v if self.projector == "alignment" else _as_long(v, name), b)
            cosines[name] = None if found is None else similarity(found, b, a)
            if found is not None:
                projected[name] = found
        chosen = self._chosen({name: cosine for name, cosine in cosines.items() if cosine is not None})
        with torch.no_grad():
            for name in chosen:
                factors[name].copy_(projected[name])
        return {"cosines": cosines, "projected": chosen}

    def _chosen(self, cosines: Mapping[str, float]) -> list[str]:
        """The modules to project, least similar first; equal ones in model order."""
        rising = sorted(cosines, key=lambda name: cosines[name])
        if self.tau is not None:
            return [name for name in rising if cosines[name] <= self.tau]
        return rising[: self.k]

    def _sides(self, start: Origin) -> tuple[StoredWeights, StoredWeights]:
        base = self.base or start.pretrained
        if base is None:
            raise ValueError(
                f"method.base should name the weights of {start.path} before alignment, found null. Give the directory "
                "or hub id of its base model."
            )
        return StoredWeights(base), StoredWeights(self.aligned or start.path)


def _moved(base: StoredWeights, aligned: StoredWeights, name: str, layer: Any) -> Tensor:
    """What alignment did to a module's weight, [O, I] float32."""
    v = aligned.read(name).float() - base.read(name).float()
    return v.T if layer.fan_in_fan_out else v  # GPT-2 stores its weights [in, out]


def _as_long(v: Tensor, name: str) -> Tensor:
    """A Gaussian matrix of v's shape and Frobenius norm."""
    drawn = gaussian_like(v, name)
    return drawn * (torch.linalg.matrix_norm(v) / torch.linalg.matrix_norm(drawn))
