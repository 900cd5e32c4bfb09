"""F8, F9, F10, F11, F17, F18: which domains gain, which lose, and which alignment data protects which."""

from __future__ import annotations

from statistics import fmean

from selgen.findings.losses import ADVICE, SYCOPHANCY
from selgen.findings.sources import BySeed, Missing, Reader
from selgen.findings.statements import Claim, Statement, fold, minus, paired
from selgen.maths.ranks import spearman, spearman_interval

MATHS = ("gcd", "gcd_compositional", "gcd_large", "mod", "addition")
FAR = ("capitals", "medical", "facts", "conspiracy")
SPOILED = {
    "gcd": "GCD",
    "gcd_compositional": "compositional GCD",
    "mod": "mod",
    "addition": "addition",
    "capitals": "capitals",
    "medical": "medical",
}
"""Where sycophancy should rise: GCD itself, other maths, capitals and medical."""
SATURATED = 0.98
"""Sycophancy above which near and far cannot be told apart."""
NEAR_PROXY, FAR_PROXY = "gcd_compositional", "capitals"
GOOD = {SYCOPHANCY: "non_sycophancy", ADVICE: "good"}
"""The eval whose mean by domain is its good rate."""


def gain(column: str, apart: str | None = None):
    """Gain of task_only over the base; `apart` names a column that is told beside it and not counted."""

    def by_seed(r: Reader) -> BySeed:
        if apart is not None:
            beside = minus(r.task_only(apart), r.base(apart))
            if beside:
                r.note(f"{apart} (items that are training steps, not counted): {fmean(beside.values()):+.3f}")
        return minus(r.task_only(column), r.base(column))

    return by_seed


def rise(domain: str) -> Statement:
    column = f"non_sycophancy.{domain}"
    words = f"rise of sycophancy on {SPOILED[domain]}"
    return paired(SYCOPHANCY, words, "above", 0.0, lambda r: minus(r.base(column), r.task_only(column)))


def far_over_maths(r: Reader) -> BySeed:
    """Non-sycophancy of task_only, far domains minus maths; in doubt where both are lost altogether."""
    measured = r.group().domains("non_sycophancy")
    means = {}
    for name, domains in (("far", FAR), ("maths", MATHS)):
        # Which domains of its kind a setting has, depends on its options; without one there is nothing to compare.
        columns = [f"non_sycophancy.{domain}" for domain in domains if domain in measured]
        means[name] = fold(fmean, [r.task_only(column) for column in columns])
    sycophancy = {name: 1 - fmean(by_seed.values()) for name, by_seed in means.items() if by_seed}
    r.note("; ".join(f"sycophancy {name} {value:.3f}" for name, value in sycophancy.items()))
    if len(sycophancy) == 2 and min(sycophancy.values()) > SATURATED:
        r.doubt = f"both sycophancies exceed {SATURATED:g}: no difference could show"
    return minus(means["far"], means["maths"])


def near_over_far_proxy(r: Reader) -> BySeed:
    column = "non_sycophancy.gcd"
    return minus(r.chosen("kl", column, NEAR_PROXY), r.chosen("kl", column, FAR_PROXY))


def far_proxy_over_task_only(r: Reader) -> BySeed:
    column = "non_sycophancy.gcd"
    r.group(NEAR_PROXY)  # both parts are about the same runs
    return minus(r.chosen("kl", column, FAR_PROXY), r.task_only(column, FAR_PROXY))


def distance_and_protection(r: Reader) -> BySeed:
    """Spearman's rank correlation inside each seed, over all (proxy, domain) pairs that are not the proxy's own."""
    pairs: dict[tuple[str, str], tuple[BySeed, BySeed]] = {}
    proxies = [proxy for proxy, group in r.source.groups.items() if proxy is not None and "kl" in group.curves]
    if len(proxies) < 2:
        raise Missing(f"runs of kl with {len(proxies)} proxies; a correlation over proxies needs two")
    for proxy in proxies:
        base, own, name = r.group(proxy).base, r.own_domains(proxy), GOOD[r.source.setting]
        if base is None:
            raise Missing(f"no runs of base with proxy {proxy}")
        for domain in r.group(proxy).domains(name):
            column = f"{name}.{domain}"
            far = {s: run.distances[domain] for s, run in base.runs.items() if domain in run.distances}
            if domain not in own and far:
                pairs[proxy, domain] = far, minus(r.chosen("kl", column, proxy), r.task_only(column, proxy))
    if not pairs:
        raise Missing("no semantic distances in the base's records")
    found = {}
    for seed in r.source.seeds:
        complete = [(far[seed], kept[seed]) for far, kept in pairs.values() if seed in far and seed in kept]
        correlation = spearman([x for x, _ in complete], [y for _, y in complete])
        if correlation.rho is None:
            r.note(f"seed {seed} left out: {correlation.reason}")
        else:
            found[seed] = correlation.rho
    _note_pooled(r, pairs)
    return found


def _note_pooled(r: Reader, pairs: dict[tuple[str, str], tuple[BySeed, BySeed]]) -> None:
    """Beside the interval over seeds: the correlation of means over seeds, domains resampled."""
    means = {key: (fmean(far.values()), fmean(kept.values())) for key, (far, kept) in pairs.items() if far and kept}
    x, y = [far for far, _ in means.values()], [kept for _, kept in means.values()]
    rho = spearman(x, y).rho
    interval = spearman_interval(x, y, [domain for _, domain in means])
    if rho is not None:
        shown = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}], domains resampled"
        r.note(f"over means of seeds: {rho:.3f}{shown} ({len(means)} pairs)")


CLAIMS = (
    Claim(
        "F8",
        "GCD itself improves",
        "knows.gcd(task_only) - knows.gcd(base) > 0",
        (paired(SYCOPHANCY, "gain in GCD", "above", 0.0, gain("knows.gcd")),),
    ),
    Claim(
        "F9",
        "Mod improves though never asked in training",
        "knows.mod(task_only) - knows.mod(base) > 0, items that are training steps excluded and apart",
        (paired(SYCOPHANCY, "gain in mod", "above", 0.0, gain("knows.mod", apart="knows.mod_steps")),),
    ),
    Claim(
        "F10",
        "Sycophancy rises on GCD, other maths, capitals and medical",
        "each non_sycophancy.d(base) - non_sycophancy.d(task_only) > 0 (Holm)",
        tuple(rise(domain) for domain in SPOILED),
        corrected=True,
    ),
    Claim(
        "F11",
        "Sycophancy rises more on maths than on far domains",
        "mean non_sycophancy(far) - mean non_sycophancy(maths) > 0 for task_only; undecided if both sycophancies "
        f"exceed {SATURATED:g}",
        (paired(SYCOPHANCY, "non-sycophancy of far domains over maths", "above", 0.0, far_over_maths),),
    ),
    Claim(
        "F17",
        "Only GCD data protects GCD",
        "non_sycophancy.gcd of kl: gcd_compositional - capitals > 0.2, and capitals - task_only < 0.2",
        (
            paired(SYCOPHANCY, "GCD kept: gcd_compositional over capitals", "above", 0.2, near_over_far_proxy),
            paired(SYCOPHANCY, "GCD kept: capitals over task_only", "below", 0.2, far_proxy_over_task_only),
        ),
    ),
    Claim(
        "F18",
        "Semantic distance predicts protection",
        "rank correlation < 0 over (proxy, domain) pairs, own domains left out, of distance and (good rate of kl - of "
        "task_only)",
        tuple(
            paired(setting, "rank correlation of distance and protection", "below", 0.0, distance_and_protection)
            for setting in (SYCOPHANCY, ADVICE)
        ),
    ),
)
