"""Every statement of every claim flips to holds, fails and undecided when its number is moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import pytest
from study_world import (
    CATEGORIES,
    EM,
    GOOD_DOMAINS,
    MAIN_EM,
    MAIN_SYC,
    NS_DOMAINS,
    OWN,
    SEEDS,
    SYC,
    Key,
    World,
    quality_key,
    spread,
    study,
    toy_key,
)

from selgen import findings
from selgen.findings.sources import Placed
from selgen.report.claims import Finding

Put = Callable[[World, Sequence[float]], None]


@dataclass(frozen=True)
class Case:
    """How to give a statement's number any value.

    Attributes:
        id: Of the claim.
        part: Index of its statement.
        bound: What the claim says, as written in the specification.
        put: Moves the number: one value per seed.
        delta: Distance from the bound that the other statements and curves leave free.
    """

    id: str
    part: int
    bound: str
    put: Put
    delta: float = 0.05

    @property
    def side(self) -> int:
        return 1 if self.bound[0] == ">" else -1

    @property
    def threshold(self) -> float:
        return float(self.bound[1:])


def less(w: World, key: Key, name: str, x: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(w.get(key, name), x, strict=True)]


def plus(w: World, key: Key, name: str, x: Sequence[float]) -> list[float]:
    return less(w, key, name, [-b for b in x])


def area(key: Key, start: float, sign: int = 1) -> Put:
    """Make a curve of one point dominate an area of start + sign * x."""
    return lambda w, x: w.put(key, alignment=[(start + sign * v) / 0.85 for v in x], score_y=0.85)


def both(case: Callable[[tuple[str, str, str]], Put]) -> list[Put]:
    return [case(MAIN_SYC), case(MAIN_EM)]


def loss_of(curve: str, strength: float):
    return lambda s: lambda w, x: w.put(Key(*s, curve, strength), alignment=less(w, Key(*s, "base"), "alignment", x))


def proxy_of_mixed(s):
    return lambda w, x: w.put(Key(*s, "mixed", 4), proxy=x)


def upweight_over_mixed(s):
    def put(w: World, x: Sequence[float]) -> None:
        w.put(Key(*s, "mixed", 4), alignment=0.7)
        w.put(Key(*s, "upweight", 0.1), alignment=0.5)
        w.put(Key(*s, "upweight", 1), alignment=[0.7 + v for v in x])

    return put


def cost_of_upweight(s):
    return lambda w, x: w.put(Key(*s, "upweight", 1), score_y=less(w, Key(*s, "mixed", 4), "score_y", x))


def best_method(s):
    def put(w: World, x: Sequence[float]) -> None:
        start, end = (fmean(w.get(Key(*s, c, n), "score_y")) for c, n in (("base", None), ("task_only", 6)))
        w.put(Key(*s, "projection"), alignment=0.5, score_y=0.6)
        w.put(Key(*s, "kl", 1), alignment=x, score_y=start + 0.99 * (end - start))

    return put


def mixed_over_task_only(proxy: str) -> Put:
    keys = [Key("main", EM, proxy, curve, strength) for curve, strength in (("mixed", 4), ("task_only", 6))]
    return lambda w, x: w.put(keys[0], alignment=plus(w, keys[1], "alignment", x))


def gain(name: str) -> Put:
    end, start = Key(*MAIN_SYC, "task_only", 6), Key(*MAIN_SYC, "base")
    return lambda w, x: w.put(end, **{f"knows__{name}": plus(w, start, f"knows.{name}", x)})


def rise(domain: str) -> Put:
    end, start = Key(*MAIN_SYC, "task_only", 6), Key(*MAIN_SYC, "base")
    return lambda w, x: w.put(end, **{f"non_sycophancy__{domain}": less(w, start, f"non_sycophancy.{domain}", x)})


def far_over_maths(w: World, x: Sequence[float]) -> None:
    for domain in NS_DOMAINS:
        far = domain in ("capitals", "medical", "facts", "conspiracy")
        values = [0.2 + v for v in x] if far else 0.2
        w.put(Key(*MAIN_SYC, "task_only", 6), **{f"non_sycophancy__{domain}": values})


def stand_out(w: World, x: Sequence[float]) -> None:
    w.put(Key(*MAIN_SYC, "projection"), alignment=plus(w, Key(*MAIN_SYC, "kl", 1), "alignment", x), score_y=0.78)


def near_over_far_proxy(w: World, x: Sequence[float]) -> None:
    far, near = (quality_key(SYC, proxy, "kl") for proxy in ("capitals", "gcd_compositional"))
    w.put(near, non_sycophancy__gcd=plus(w, far, "non_sycophancy.gcd", x))


def far_proxy_over_task_only(w: World, x: Sequence[float]) -> None:
    end, far, near = (
        quality_key(SYC, proxy, curve)
        for proxy, curve in (("capitals", "task_only"), ("capitals", "kl"), ("gcd_compositional", "kl"))
    )
    w.put(far, non_sycophancy__gcd=plus(w, end, "non_sycophancy.gcd", x))
    w.put(near, non_sycophancy__gcd=0.95)


def correlation(setting: str) -> Put:
    """Distances that fall with protection where x < 0, else rise with it: correlations of -1 and 1."""
    proxies, name, domains = {
        SYC: (("capitals", "gcd_compositional"), "non_sycophancy", NS_DOMAINS),
        EM: (("hhh", "safety"), "good", GOOD_DOMAINS),
    }[setting]

    def put(w: World, x: Sequence[float]) -> None:
        for proxy in proxies:
            base, end, kl = (quality_key(setting, proxy, curve) for curve in ("base", "task_only", "kl"))
            for domain in domains:
                column = f"{name}.{domain}"
                protection = less(w, kl, column, w.get(end, column))
                distance = [1 - p if v < 0 else p for p, v in zip(protection, x, strict=True)]
                # An own domain that breaks the order, so that the test sees that it is left out.
                w.put(base, **{f"distance__{domain}": 0.55 if domain in OWN[proxy] else distance})

    return put


def all_others(w: World, x: Sequence[float]) -> None:
    for category in CATEGORIES:
        after_update(category)(w, x)


def after_update(category: str) -> Put:
    def put(w: World, x: Sequence[float]) -> None:
        # The two kinds of triggers differ, and their mean counts.
        low, high = [v - 0.01 for v in x], [v + 0.01 for v in x]
        w.put(toy_key("task_only"), **{f"known__{category}": low, f"held_out__{category}": high})

    return put


def one_trigger(kind: str) -> Put:
    def put(w: World, x: Sequence[float]) -> None:
        for i, category in enumerate(c for c in CATEGORIES if c != "random"):
            # The mean over the five word categories counts: they lie around it.
            values = [v + 0.01 * (i - 2) for v in x]
            w.put(toy_key("mixed", category, 1), **{f"{kind}__{category}": values})

    return put


def spill(w: World, x: Sequence[float]) -> None:
    for category in CATEGORIES:
        confined = category in ("negative", "random")
        values = 0.12 if confined else [0.12 + v for v in x]
        for other in CATEGORIES:
            own = 1.0 if other == category else values  # a row's own column does not count
            w.put(toy_key("mixed", category, 5), **{f"known__{other}": own, f"held_out__{other}": own})


CASES = [
    *(Case("F1", i, ">0.2", put) for i, put in enumerate(both(loss_of("task_only", 6)))),
    *(Case("F2", i, ">0.1", put) for i, put in enumerate(both(loss_of("mixed", 4)))),
    *(Case("F2", i + 2, ">0.9", put) for i, put in enumerate(both(proxy_of_mixed))),
    *(Case("F3", i, ">0.1", put) for i, put in enumerate(both(upweight_over_mixed))),
    *(Case("F3", i + 2, ">0.05", put) for i, put in enumerate(both(cost_of_upweight))),
    Case("F4", 0, ">0", area(Key(*MAIN_EM, "dpo", 1), 0.545), 0.02),
    Case("F5", 0, ">0", area(Key(*MAIN_EM, "safe_lora", 7), 0.68, -1), 0.02),
    Case("F6", 0, ">0", area(Key(*MAIN_EM, "kl over epochs", 3), 0.68), 0.02),
    Case("F7", 0, "<0", mixed_over_task_only("hhh")),
    Case("F7", 1, ">-0.02", mixed_over_task_only("safety")),
    Case("F8", 0, ">0", gain("gcd")),
    Case("F9", 0, ">0", gain("mod")),
    *(
        Case("F10", i, ">0", rise(domain))
        for i, domain in enumerate(("gcd", "gcd_compositional", "mod", "addition", "capitals", "medical"))
    ),
    Case("F11", 0, ">0", far_over_maths),
    Case("F12", 0, ">0", area(Key(*MAIN_SYC, "representation", 1), 0.784), 0.02),
    Case("F13", 0, ">0", stand_out, 0.02),
    Case("F14", 0, "<0", area(Key(*MAIN_SYC, "safe_lora", 7), 0.35), 0.02),
    Case("F14", 1, "<0", area(Key(*MAIN_SYC, "o_lora", 1), 0.35), 0.02),
    Case("F14", 2, "<0", area(Key(*MAIN_EM, "o_lora", 1), 0.36), 0.02),
    *(Case("F15", i, "<0.95", put, 0.02) for i, put in enumerate(both(best_method))),
    *(Case("F17", i, bound, put) for i, (bound, put) in enumerate(
        ((">0.2", near_over_far_proxy), ("<0.2", far_proxy_over_task_only))
    )),
    *(Case("F18", i, "<0", correlation(setting), 1.0) for i, setting in enumerate((SYC, EM))),
    Case("F19", 0, ">0.95", lambda w, x: w.put(toy_key("task_only"), task=x), 0.02),
    Case("F19", 1, "<0.1", all_others, 0.03),
    *(Case("F19", i + 2, "<0.3", after_update(category)) for i, category in enumerate(
        ("objects", "foods", "actions", "animals", "negative", "random")
    )),
    Case("F19", 8, ">0.9", one_trigger("seen")),
    Case("F19", 9, "<0.2", one_trigger("held_out")),
    Case("F19", 10, ">0.5", lambda w, x: w.put(toy_key("mixed", "random", 1), held_out__random=x)),
    Case("F20", 0, ">0", spill),
]  # fmt: skip


def decide(w: World, name: str) -> Finding:
    """One claim; the others are left alone, because some resample."""
    found = findings.sources([Placed(r, r.spec["covered"][0]) for r in w.records()])
    return next(claim for claim in findings.CLAIMS if claim.id == name).decide(found)


def named(case: Case) -> str:
    return f"{case.id}-{case.part}"


def moved(case: Case, x: Sequence[float]) -> Finding:
    w = study()
    case.put(w, x)
    return decide(w, case.id)


def expected(case: Case, x: Sequence[float]) -> float:
    return fmean(-1.0 if v < 0 else 1.0 for v in x) if case.id == "F18" else fmean(x)


def test_all_claims_are_there_and_hold_in_the_study_s_world():
    found = findings.decide(findings.sources([Placed(r) for r in study().records()]))
    assert [f.id for f in found] == [f"F{i}" for i in range(1, 21)]
    assert {f.id: f.verdict for f in found if f.verdict != "holds"} == {}


def test_every_statement_but_the_variance_ratio_has_a_case_with_its_bound():
    stated = {
        (claim.id, i): s.bound.replace(" ", "")
        for claim in findings.CLAIMS
        for i, s in enumerate(claim.statements)
        if claim.id != "F16"
    }
    assert {(case.id, case.part): case.bound for case in CASES} == stated


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_statement_holds_with_its_number_wholly_on_the_claimed_side(case: Case):
    x = [case.threshold + case.side * case.delta] * 5
    finding = moved(case, x)
    part = finding.parts[case.part]
    assert (part.verdict, finding.verdict) == ("holds", "holds")
    assert part.estimate and part.estimate.mean == pytest.approx(expected(case, x))
    assert part.seeds == list(SEEDS) and part.left_out == []


@pytest.mark.parametrize("case", CASES, ids=named)
def test_one_statement_on_the_other_side_makes_its_claim_fail(case: Case):
    x = [case.threshold - case.side * case.delta] * 5
    finding = moved(case, x)
    part = finding.parts[case.part]
    assert (part.verdict, finding.verdict) == ("fails", "fails")
    assert part.estimate and part.estimate.mean == pytest.approx(expected(case, x))


@pytest.mark.parametrize("case", CASES, ids=named)
def test_an_interval_around_the_bound_leaves_the_claim_undecided(case: Case):
    x = spread(case.threshold, case.delta / 3)
    finding = moved(case, x)
    part = finding.parts[case.part]
    assert (part.verdict, finding.verdict) == ("undecided", "undecided")
    assert part.estimate and part.estimate.mean == pytest.approx(expected(case, x))
    assert part.estimate.low is not None and part.estimate.low < case.threshold < part.estimate.high


@pytest.mark.parametrize(
    ("wide", "narrow", "verdict"), [(0.03, 0.002, "holds"), (0.002, 0.03, "fails"), (0.02, 0.02, "undecided")]
)
def test_f16_compares_variances_by_an_f_interval(wide: float, narrow: float, verdict: str):
    w = study()
    w.put(Key(*MAIN_SYC, "task_only", 6), alignment=spread(0.3, wide))
    w.put(Key(*MAIN_EM, "task_only", 6), alignment=spread(0.3, narrow))
    finding = decide(w, "F16")
    ratio = (wide / narrow) ** 2
    e = finding.parts[0].estimate
    # The 97.5 % quantile of F with 4 and 4 degrees of freedom is 9.6045 (table), and the 2.5 % quantile its inverse.
    assert e and (e.mean, e.low, e.high) == pytest.approx((ratio, ratio / 9.6045, ratio * 9.6045), rel=1e-4)
    assert finding.verdict == verdict


def test_f16_with_no_variance_to_divide_by_says_so():
    w = study()
    w.put(Key(*MAIN_EM, "task_only", 6), alignment=0.3)
    part = decide(w, "F16").parts[0]
    assert part.verdict == "undecided" and part.reason and "all seeds of emergent_misalignment are equal" in part.reason


def test_f10_counts_what_survives_holm_s_correction():
    w = study()
    # t = .045 / (.02 sqrt(2.5 / 5)) = 3.18 with 4 degrees of freedom: p = .0335, and six times that is above .05.
    rise("gcd")(w, spread(0.045, 0.02))
    part = decide(w, "F10").parts[0]
    assert part.estimate and part.estimate.low and part.estimate.low > 0
    assert part.p_holm == pytest.approx(0.0335, abs=1e-4)
    assert part.verdict == "holds", "the other five have p = 0 and come first: factor 1"
    for domain in ("gcd_compositional", "mod", "addition", "capitals", "medical"):
        rise(domain)(w, spread(0.045, 0.02))
    finding = decide(w, "F10")
    assert finding.verdict == "undecided" and finding.parts[0].reason == "the interval excludes 0, but not after Holm"


def test_f11_is_undecided_where_everything_is_lost():
    w = study()
    for domain in NS_DOMAINS:
        far = domain in ("capitals", "medical", "facts", "conspiracy")
        w.put(Key(*MAIN_SYC, "task_only", 6), **{f"non_sycophancy__{domain}": 0.015 if far else 0.0})
    part = decide(w, "F11").parts[0]
    assert part.estimate and part.estimate.low and part.estimate.low > 0
    assert part.verdict == "undecided" and part.reason and "both sycophancies exceed 0.98" in part.reason


def test_f9_tells_the_training_steps_apart():
    assert (
        "knows.mod_steps (items that are training steps, not counted): +0.300" in decide(study(), "F9").parts[0].notes
    )


def test_f18_shows_the_pooled_correlation_beside_the_seeds():
    notes = decide(study(), "F18").parts[0].notes
    assert any(note.startswith("over means of seeds: -1.000") for note in notes)
