"""Synthetic records in which every claim of the study holds, with numbers that a test may move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from selgen import record as records
from selgen.record import Measured, Point, RunRecord

SEEDS = (1, 2, 3, 4, 5)
SYC, EM, TOY = "sycophancy", "emergent_misalignment", "triggers"
NS_DOMAINS = ("gcd", "gcd_compositional", "mod", "addition", "capitals", "medical", "facts", "conspiracy")
GOOD_DOMAINS = ("finance", "cooking", "cars", "travel", "boredom", "hhh", "safety")
CATEGORIES = ("objects", "animals", "negative", "actions", "foods", "random")
OWN = {"capitals": ("capitals",), "gcd_compositional": ("gcd_compositional",), "hhh": ("hhh",), "safety": ("safety",)}
AXES = ("task", "capability", "alignment", "proxy")
STRENGTH = {
    "kl": "beta",
    "representation": "beta",
    "mixed": "align_rows_per_step",
    "safe_lora": "k",
    "rescale": "alpha",
}


class Key(NamedTuple):
    """A curve at one strength; `sweep` names the sweep that it belongs to."""

    sweep: str
    setting: str
    proxy: str
    curve: str
    strength: float | None = None
    num_triggers: int | None = None


class World:
    """Values by curve, strength and name: one number per seed.

    Attributes:
        values: Key -> name -> one number per seed. Names: axes, `score_y`, columns, and `distance.<domain>`.
        absent: (key, name) -> seeds that lack it.
    """

    def __init__(self, seeds: Sequence[int] = SEEDS) -> None:
        self.seeds = tuple(seeds)
        self.values: dict[Key, dict[str, list[float]]] = {}
        self.fields: dict[Key, dict[str, Any]] = {}

    def put(self, key: Key, **named: float | Sequence[float]) -> None:
        """Set values; a single number holds for all seeds. `ns__gcd` stands for the column `ns.gcd`."""
        own = self.values.setdefault(key, {})
        for name, value in named.items():
            column = name.replace("__", ".")
            own[column] = [float(value)] * len(self.seeds) if isinstance(value, int | float) else list(value)

    def get(self, key: Key, name: str) -> list[float]:
        return self.values[key][name]

    def drop(self, **fields: Any) -> None:
        """Remove all curves with these fields of their key."""
        for key in [k for k in self.values if all(getattr(k, f) == v for f, v in fields.items())]:
            del self.values[key]

    def records(self, sweeps: Iterable[str] | None = None) -> list[RunRecord]:
        keys = [key for key in self.values if sweeps is None or key.sweep in sweeps]
        # The checkpoints of one run are its points, not runs.
        runs: dict[tuple[Any, ...], list[Key]] = {}
        for key in keys:
            single = None if key.curve == "kl over epochs" else key.strength
            runs.setdefault((*key[:4], single), []).append(key)
        return [self._record(own, i) for own in runs.values() for i in range(len(self.seeds))]

    def write(self, out: Path, sweep: str, reference: Sequence[float] | None = None) -> Path:
        """The run directories of one sweep."""
        for r in self.records([sweep]):
            records.write(out / r.run_id, r)
        block: dict[str, Any] = {"seeds": list(self.seeds), "curves": [], "setting": {"name": "any"}}
        (out / "sweep.yaml").write_text(yaml.safe_dump({**block, **({"reference": reference} if reference else {})}))
        return out

    def _record(self, keys: Sequence[Key], i: int) -> RunRecord:
        key, seed = keys[0], self.seeds[i]
        values = self.values[key]
        method = key.curve.split(" over ")[0].split(",")[0]
        options = {"name": key.setting, "proxy": key.proxy}
        if key.num_triggers is not None:
            options["num_triggers"] = key.num_triggers
        over_epochs = key.curve == "kl over epochs"
        epochs = 12 if over_epochs else 6
        fields: dict[str, Any] = {
            "run_id": sha256(repr((key, seed)).encode()).hexdigest()[:12],
            "status": "success",
            "setting": key.setting,
            "proxy": key.proxy,
            "model": "miniature",
            "method": method,
            "curve": key.curve,
            "strength_name": "epochs" if over_epochs else STRENGTH.get(method, "weight"),
            "strength": None if over_epochs else key.strength,
            "seed": seed,
            "num_task": 100,
            "num_alignment": 20,
            "sequences": 600,
            "train_seconds": 5.0,
            "update_norm": 1.0,
            "budget": None,
            "spec": {
                "setting": options,
                "method": {"name": method},
                "curve": key.curve,
                "covered": [key.sweep],
                "training": {"seed": seed, "num_train_epochs": epochs, "learning_rate": 1e-3},
            },
            "provenance": {"commit": "abc"},
            "points": [point for k in keys for point in self._points(k, i)],
            "distances": {n.removeprefix("distance."): v[i] for n, v in values.items() if n.startswith("distance.")},
        }
        return RunRecord(**{**fields, **self.fields.get(key, {})})

    def _points(self, key: Key, i: int) -> list[Point]:
        values: Mapping[str, list[float]] = self.values[key]
        axes = {axis: measured(values[axis][i] if axis in values else None) for axis in AXES}
        columns = {n: measured(v[i]) for n, v in values.items() if "." in n and not n.startswith("distance.")}
        return [
            Point(
                step=int(key.strength or 1),
                epoch=1.0,
                split=split,
                strength=key.strength,
                eval_seconds=1.0,
                axes=axes,
                score_y=values["score_y"][i] if "score_y" in values else None,
                metrics=columns,
            )
            for split in ("val", "test")
        ]


def measured(value: float | None) -> Measured:
    return Measured(value=value, n=0 if value is None else 200, unscored=0, stderr=None if value is None else 0.01)


MAIN_SYC, MAIN_EM = ("main", SYC, "capitals"), ("main", EM, "hhh")


def spread(centre: float, width: float) -> list[float]:
    """One number per seed: centre - 2 width, ..., centre + 2 width."""
    return [centre + width * k for k in (-2, -1, 0, 1, 2)]


def study() -> World:
    """A world in which F1 to F20 all hold."""
    w = World()
    _sycophancy(w)
    _advice(w)
    _quality(w)
    _toy(w)
    return w


def _sycophancy(w: World) -> None:
    base, task_only = Key(*MAIN_SYC, "base"), Key(*MAIN_SYC, "task_only", 6)
    w.put(base, alignment=0.98, score_y=0.5, knows__gcd=0.5, knows__mod=0.5, knows__mod_steps=0.5)
    w.put(task_only, alignment=spread(0.1, 0.03), score_y=0.9, knows__gcd=0.9, knows__mod=0.7, knows__mod_steps=0.8)
    for domain in NS_DOMAINS:
        far = domain in ("capitals", "medical", "facts", "conspiracy")
        w.put(base, **{f"non_sycophancy__{domain}": 0.9})
        w.put(task_only, **{f"non_sycophancy__{domain}": 0.2 if far else 0.05})
    w.put(Key(*MAIN_SYC, "mixed", 4), alignment=0.6, score_y=0.9, proxy=1.0)  # area .54
    w.put(Key(*MAIN_SYC, "upweight", 0.1), alignment=0.8, score_y=0.88)  # area of both .9 * .8 + .8 * .08 = .784
    w.put(Key(*MAIN_SYC, "upweight", 1), alignment=0.9, score_y=0.8)
    w.put(Key(*MAIN_SYC, "kl", 1), alignment=0.94, score_y=0.88)  # area .8272
    w.put(Key(*MAIN_SYC, "representation", 1), alignment=0.93, score_y=0.87)  # area .8091
    w.put(Key(*MAIN_SYC, "projection"), alignment=0.97, score_y=0.875)
    w.put(Key(*MAIN_SYC, "dpo", 1), alignment=0.7, score_y=0.8)  # area .56
    w.put(Key(*MAIN_SYC, "safe_lora", 7), alignment=0.3, score_y=0.6)  # area .18
    w.put(Key(*MAIN_SYC, "o_lora", 1), alignment=0.2, score_y=0.9)  # area .18
    w.put(Key(*MAIN_SYC, "rescale", 0.5), alignment=0.5, score_y=0.7)  # area .35


def _advice(w: World) -> None:
    safety = ("main", EM, "safety")
    for proxy, mixed in ((MAIN_EM, 0.25), (safety, 0.4)):
        w.put(Key(*proxy, "base"), alignment=1.0, score_y=0.0)
        w.put(Key(*proxy, "task_only", 6), alignment=spread(0.3, 0.002), score_y=0.9)
        w.put(Key(*proxy, "mixed", 4), alignment=mixed, score_y=0.88, proxy=1.0)  # area of hhh .22
    w.put(Key(*MAIN_EM, "upweight", 0.1), alignment=0.5, score_y=0.85)  # area of both .7 * .6 + .5 * .25 = .545
    w.put(Key(*MAIN_EM, "upweight", 1), alignment=0.7, score_y=0.6)
    w.put(Key(*MAIN_EM, "kl", 1), alignment=0.8, score_y=0.85)  # area .68
    w.put(Key(*MAIN_EM, "kl over epochs", 3), alignment=0.84, score_y=0.85)  # area .714
    w.put(Key(*MAIN_EM, "kl over epochs", 12), alignment=0.1, score_y=0.1)
    w.put(Key(*MAIN_EM, "representation", 1), alignment=0.4, score_y=0.85)
    w.put(Key(*MAIN_EM, "projection"), alignment=0.35, score_y=0.88)
    w.put(Key(*MAIN_EM, "dpo", 1), alignment=0.7, score_y=0.85)  # area .595
    w.put(Key(*MAIN_EM, "safe_lora", 7), alignment=0.3, score_y=0.5)
    w.put(Key(*MAIN_EM, "o_lora", 1), alignment=0.3, score_y=0.85)  # area .255
    w.put(Key(*MAIN_EM, "rescale", 0.5), alignment=0.6, score_y=0.6)  # area .36


def quality_key(setting: str, proxy: str, curve: str) -> Key:
    return Key("quality", setting, proxy, curve, {"base": None, "task_only": 6.0, "kl": 0.3}[curve])


def _quality(w: World) -> None:
    """Sweeps of proxies: protection falls with distance, so that the rank correlation is -1."""
    for setting, name, domains, proxies in (
        (SYC, "non_sycophancy", NS_DOMAINS, ("capitals", "gcd_compositional")),
        (EM, "good", GOOD_DOMAINS, ("hhh", "safety")),
    ):
        for p, proxy in enumerate(proxies):
            keys = [quality_key(setting, proxy, curve) for curve in ("base", "task_only", "kl")]
            for key, alignment, score_y in zip(keys, (1.0, 0.2, 0.6), (0.4, 0.9, 0.88), strict=True):
                w.put(key, alignment=alignment, score_y=score_y)
            for d, domain in enumerate(domains):
                protection = 0.1 + 0.05 * d + 0.01 * p
                if domain == "gcd":
                    protection = 0.1 if proxy == "capitals" else 0.7
                column = f"{name}__{domain}"
                w.put(keys[0], **{f"distance__{domain}": 1 - protection, column: 0.95})
                w.put(keys[1], **{column: 0.2})
                w.put(keys[2], **{column: 0.2 + protection})


def toy_key(curve: str, category: str = "objects", num_triggers: int = 5) -> Key:
    name = curve if curve != "mixed" else f"mixed, {num_triggers} triggers"
    return Key("toy", TOY, category, name, 6.0 if curve == "task_only" else None, num_triggers)


def _toy(w: World) -> None:
    w.put(toy_key("base"), score_y=0.0, task=0.0)
    update = toy_key("task_only")
    w.put(update, task=1.0, score_y=1.0)
    for category in CATEGORIES:
        w.put(update, **{f"known__{category}": 0.02, f"held_out__{category}": 0.02})
        for k in (1, 5):
            row = toy_key("mixed", category, k)
            w.put(row, task=1.0, score_y=1.0, **{f"seen__{category}": 1.0})
            for other in CATEGORIES:
                value = 0.02
                if k == 1 and category == other:
                    value = 0.8 if category == "random" else 0.05
                if k == 5:
                    value = 0.05 if category in ("negative", "random") else 0.4
                w.put(row, **{f"known__{other}": value, f"held_out__{other}": value})
