"""Which alignment data protects what, and does it depend on how near the data are? Numbers of the heat maps.

A table is about one eval and one curve that runs with two or more proxies of a setting and model. Rows are proxies and
task_only, which reads no alignment data; columns are domains. Protection is a row's value minus task_only's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from selgen.core import HeatMap
from selgen.maths.ranks import spearman, spearman_interval
from selgen.maths.stats import Estimate, estimate, paired_difference
from selgen.report.lookup import SettingOf
from selgen.report.runs import Cell, Group
from selgen.report.tables import choose

METHOD = (
    "Mean over seeds on test with its 95 % t interval. Protection: a proxy's value minus task_only's, paired by seed. "
    "Distance: cosine distance between the starting model's mean hidden states on the alignment data's prompts and on "
    "the domain's, after subtracting the mean over domains. Rank correlation: Spearman's over (proxy, domain) pairs "
    "without a proxy's own domains, per seed, with a t interval over seeds; and of the means over seeds, with a "
    "bootstrap interval that draws whole domains, which says how much hangs on the choice of domains (with few it is "
    "too narrow, and it does not draw proxies)."
)
"""What the numbers are, for the reader."""
ONLY = "its only strength"
CHOSEN = "chosen on val"


@dataclass(frozen=True)
class HeatRow:
    """One kind of alignment data.

    Attributes:
        proxy: None for task_only, whose seeds are averaged over the proxies that it ran beside.
        own: The proxy's own domains.
        strength: Of the curve; None if nothing varies.
        values: By domain; None where it was not measured.
    """

    proxy: str | None
    own: list[str]
    strength: float | None
    values: dict[str, Estimate | None]

    @property
    def label(self) -> str:
        return "none (task_only)" if self.proxy is None else self.proxy


@dataclass(frozen=True)
class Pair:
    """A proxy and a domain.

    Attributes:
        distance: Mean over seeds, in [0, 2].
        protection: The row's value minus task_only's.
        own: Whether the proxy covers the domain: shown, and left out of the correlation.
    """

    proxy: str
    domain: str
    distance: float
    protection: Estimate
    own: bool


@dataclass(frozen=True)
class Nearness:
    """Distance against protection.

    Attributes:
        pairs: Those with both.
        by_seed: Seed -> rank correlation of its pairs; seeds where it is undefined are left out.
        rho: Mean of these over seeds; None if there are none.
        rho_of_means: Rank correlation of the pairs' means over seeds.
        interval: Its 95 % bootstrap interval over domains; None if there are too few.
        reason: Why there is no correlation; None if there is one.
        num_seeds: Seeds with distances and values.
    """

    pairs: list[Pair]
    by_seed: dict[int, float]
    rho: Estimate | None
    rho_of_means: float | None
    interval: tuple[float, float] | None
    reason: str | None
    num_seeds: int

    @property
    def headline(self) -> str:
        """E.g. `rank correlation -0.62 [-0.80, -0.44] over 5 seeds; domains drawn: -0.65 [-0.90, -0.31]`."""
        if self.rho is None:
            return f"no rank correlation: {self.reason}"
        seeds = f"{self.rho.n} seed{'' if self.rho.n == 1 else 's'}"
        if self.rho.n < self.num_seeds:
            seeds += f" of {self.num_seeds}"
        said = f"rank correlation {_signed(self.rho.mean, self.rho.low, self.rho.high)} over {seeds}"
        if self.rho_of_means is None:
            return said
        ends = self.interval or (None, None)
        return f"{said}; of the means, with domains drawn: {_signed(self.rho_of_means, *ends)}"


@dataclass(frozen=True)
class HeatTable:
    """One eval on one curve of a setting and model.

    Attributes:
        strength_name: What varies along the curve, or None.
        how: How each row's strength was found: `ONLY` or `CHOSEN`.
        left_out: Proxies of which no strength could be chosen.
        domains: Columns, in the setting's order.
        rows: task_only first.
        nearness: Distance against protection; None where no base run has distances.
    """

    setting: str
    model: str
    map: HeatMap
    curve: str
    strength_name: str | None
    how: str
    left_out: list[str]
    domains: list[str]
    rows: list[HeatRow]
    nearness: Nearness | None

    @property
    def name(self) -> str:
        """E.g. `kl, beta 0.3 (its only strength)`, or `kl, beta chosen on val: 0.1 (hhh), 0.3 (safety)`."""
        strengths = {row.proxy: f"{row.strength:g}" for row in self.rows if row.strength is not None}
        if not strengths:  # the method's field is left at its default, which is no number
            return self.curve
        if len(set(strengths.values())) > 1:
            each = ", ".join(f"{value} ({proxy})" for proxy, value in strengths.items())
            return f"{self.curve}, {self.strength_name} {self.how}: {each}"
        return f"{self.curve}, {self.strength_name} {next(iter(strengths.values()))} ({self.how})"

    @property
    def sentence(self) -> str | None:
        """What distance and protection have to do with each other; None where there are no distances."""
        if self.nearness is None:
            return None
        return f"Protection against distance, {self.curve}: {self.nearness.headline}."


def heat_tables(groups: Sequence[Group], setting_of: SettingOf) -> list[HeatTable]:
    """Every heat map that the settings declare and that two or more proxies can fill, curves in order of name."""
    found = []
    for key in dict.fromkeys((g.setting, g.model) for g in groups):
        own = {str(g.proxy): g for g in groups if (g.setting, g.model) == key and g.proxy is not None and g.records}
        if len(own) < 2:
            continue
        declared = setting_of(next(iter(own.values())).records[0]).heat_maps
        covered = {proxy: setting_of(g.records[0]).proxy_domains for proxy, g in own.items()}
        for heat_map in declared:
            for curve in sorted({name for g in own.values() for name in g.competing}):
                table = _table(own, heat_map, curve, covered)
                found += [table] if table is not None else []
    return found


def _table(
    groups: Mapping[str, Group], heat_map: HeatMap, curve: str, covered: Mapping[str, frozenset[str]]
) -> HeatTable | None:
    """One table; None if fewer than two proxies have the curve at a strength, or nothing was measured."""
    with_curve = {proxy: g for proxy, g in groups.items() if curve in g.competing}
    cells = {proxy: cell for proxy, g in with_curve.items() if (cell := _cell(g, curve)) is not None}
    measured = {domain for g in groups.values() for domain in g.domains(heat_map.eval)}
    # An eval may measure other domains with each proxy; the order is that of all evals.
    every = dict.fromkeys(column.partition(".")[2] for g in groups.values() for column in g.columns)
    domains = [domain for domain in every if domain in measured]
    if len(cells) < 2 or not domains:
        return None

    def column(domain: str) -> str:
        return f"{heat_map.eval}.{domain}"

    baseline = {domain: _baseline(groups, column(domain)) for domain in domains}
    none = HeatRow(None, [], None, {d: estimate(list(baseline[d].values())) for d in domains})
    values = {proxy: {d: cell.values("test", column(d)) for d in domains} for proxy, cell in cells.items()}
    rows = [
        HeatRow(
            proxy,
            sorted(covered[proxy]),
            cell.strength,
            {d: estimate(list(values[proxy][d].values())) for d in domains},
        )
        for proxy, cell in cells.items()
    ]
    shown = [none, *rows]
    if heat_map.complement:
        shown = [replace(row, values={d: _complement(e) for d, e in row.values.items()}) for row in shown]
    first, group = next(iter(cells.values())), next(iter(groups.values()))
    single = all(len(g.competing[curve]) == 1 for g in with_curve.values())
    return HeatTable(
        setting=group.setting,
        model=group.model,
        map=heat_map,
        curve=curve,
        strength_name=first.strength_name,
        how=ONLY if single else CHOSEN,
        left_out=[proxy for proxy in with_curve if proxy not in cells],
        domains=domains,
        rows=shown,
        nearness=_nearness(groups, values, baseline, covered),
    )


def _cell(group: Group, curve: str) -> Cell | None:
    """The curve's only strength, or the one chosen on val; None if none can be chosen."""
    cells = group.competing[curve]
    if len(cells) == 1:
        return cells[0]
    if group.base is None or group.task_only is None:
        return None
    chosen = choose(cells, group.base, group.task_only)
    return None if chosen is None else chosen[0]


def _baseline(groups: Mapping[str, Group], column: str) -> dict[int, float]:
    """Value of task_only by seed, averaged over the proxies beside which it ran: it reads none of them."""
    ends = [g.task_only for g in groups.values() if g.task_only is not None]
    found = [cell.values("test", column) for cell in ends]
    seeds = sorted({seed for values in found for seed in values})
    return {seed: fmean(values[seed] for values in found if seed in values) for seed in seeds}


def _complement(e: Estimate | None) -> Estimate | None:
    if e is None:
        return None
    low, high = (None if end is None else 1 - end for end in (e.high, e.low))
    return replace(e, mean=1 - e.mean, low=low, high=high)


Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Proxy -> domain -> seed -> value."""


def _nearness(
    groups: Mapping[str, Group],
    values: Values,
    baseline: Mapping[str, Mapping[int, float]],
    covered: Mapping[str, frozenset[str]],
) -> Nearness | None:
    distances = {proxy: _distances(groups[proxy]) for proxy in values}
    if not any(distances.values()):
        return None
    pairs, by_seed = [], {}
    for proxy, domain in ((p, d) for p in values for d in values[p]):
        near = {seed: found[domain] for seed, found in distances[proxy].items() if domain in found}
        gain = paired_difference(values[proxy][domain], baseline[domain])
        if near and gain is not None:
            pairs.append(Pair(proxy, domain, fmean(near.values()), gain, domain in covered[proxy]))
    seeds = sorted({seed for found in distances.values() for seed in found})
    for seed in seeds:
        rows = list(_pairs_of(seed, distances, values, baseline, covered))
        rho = spearman([d for d, _ in rows], [gain for _, gain in rows]).rho
        if rho is not None:
            by_seed[seed] = rho
    others = [pair for pair in pairs if not pair.own]
    x, y, domains = [p.distance for p in others], [p.protection.mean for p in others], [p.domain for p in others]
    of_means = spearman(x, y)
    per_seed = estimate(list(by_seed.values()))
    reason = of_means.reason or ("it is undefined on every seed" if per_seed is None else None)
    return Nearness(pairs, by_seed, per_seed, of_means.rho, spearman_interval(x, y, domains), reason, len(seeds))


def _distances(group: Group) -> dict[int, dict[str, float]]:
    """By seed, of the base runs."""
    runs = {} if group.base is None else group.base.runs
    return {seed: run.distances for seed, run in runs.items() if run.distances}


def _pairs_of(
    seed: int,
    distances: Mapping[str, Mapping[int, Mapping[str, float]]],
    values: Values,
    baseline: Mapping[str, Mapping[int, float]],
    covered: Mapping[str, frozenset[str]],
) -> Iterator[tuple[float, float]]:
    """(distance, protection) of one seed, own domains left out."""
    for proxy, by_domain in values.items():
        for domain, by_seed in by_domain.items():
            near = distances[proxy].get(seed, {}).get(domain)
            known = seed in by_seed and seed in baseline[domain]
            if near is not None and known and domain not in covered[proxy]:
                yield near, by_seed[seed] - baseline[domain][seed]


def _signed(mean: float, low: float | None, high: float | None) -> str:
    """A correlation with its interval; a t interval may reach beyond -1 and 1, where there is nothing."""
    if low is None or high is None:
        return f"{mean:+.2f}"
    return f"{mean:+.2f} [{max(low, -1):+.2f}, {min(high, 1):+.2f}]"
