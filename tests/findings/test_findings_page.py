"""What a user sees: the command's table, JSON, the page, and the report's section."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from study_world import MAIN_SYC, Key, World, study
from typer.testing import CliRunner

import selgen
from selgen import findings, report
from selgen.cli import app
from selgen.cli.claims import _resolved
from selgen.findings import page
from selgen.grid import SweepSpec
from selgen.sweep import as_data

CONFIGS = Path(selgen.__file__).parent / "configs"


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["findings", *map(str, arguments)])


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The study's world in three directories, where GCD does not improve."""
    root, w = tmp_path_factory.mktemp("sweeps"), study()
    w.put(Key(*MAIN_SYC, "task_only", 6), knows__gcd=0.3)
    outs = [root / name for name in ("main", "quality", "toy")]
    for out in outs:
        w.write(out, out.name)
    return outs


def test_the_command_prints_every_claim_and_writes_json_and_a_page_that_keeps_the_readings(
    sweeps: list[Path], tmp_path: Path
):
    (tmp_path / "found_readings.md").write_text("F8 fails because this world says so.\n")
    result = invoke(*sweeps, "--json", tmp_path / "found.json", "--markdown", tmp_path / "found.md")
    assert result.exit_code == 0, result.output
    assert "20 claims: 19 hold, 1 fail, 0 are undecided." in result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert [f["id"] for f in found] == [f"F{i}" for i in range(1, 21)]
    assert [f["id"] for f in found if f["verdict"] != "holds"] == ["F8"]
    assert found[7]["parts"][0]["estimate"]["mean"] == pytest.approx(-0.2)

    text = (tmp_path / "found.md").read_text()
    assert (
        "| F8 | sycophancy | GCD itself improves | **fails** | sycophancy: -0.200 [-0.200, -0.200] \\> 0 | 5 |" in text
    )
    assert f"selgen findings {' '.join(map(str, sweeps))} --markdown {tmp_path / 'found.md'}" in text
    assert f"selgen sweep --out {sweeps[0]}    # by its own sweep.yaml" in text
    assert "mixed, align_rows_per_step 4, proxy capitals: 100% of the gain on val" in text
    assert text.endswith("## Readings\n\nF8 fails because this world says so.\n")


def test_fewer_seeds_than_meant_are_told(tmp_path: Path):
    w = World(seeds=(1, 2))
    w.put(Key(*MAIN_SYC, "base"), alignment=0.9)
    w.put(Key(*MAIN_SYC, "task_only", 6), alignment=[0.1, 0.11])
    result = invoke(w.write(tmp_path / "out", "main"))
    assert result.exit_code == 0
    assert "Decided from 2 seeds (1, 2); meant are 5" in result.output
    assert "no runs of setting triggers" in result.output


def test_what_cannot_be_read_is_an_error_without_a_traceback(tmp_path: Path):
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "holds no finished run. Name the output directory of a sweep." in result.output


def test_failed_runs_and_unscored_answers_are_counted_on_the_page(sweeps: list[Path]):
    runs = findings.read(sweeps[:1])
    row = page.markdown([], runs, sweeps[:1], "command", None, lambda _: None).splitlines()
    finished = sum(run.record.status == "success" for run in runs)
    assert any(line.startswith(f"| `{sweeps[0]}` | {finished} | 0 | 1, 2, 3, 4, 5 | 0 of ") for line in row)


@pytest.fixture(scope="module")
def configs():
    return page.shipped(_resolved)


@pytest.mark.parametrize("name", ["findings/sycophancy", "sycophancy", "triggers"])
def test_a_sweep_is_named_by_the_shipped_config_that_says_the_same(name: str, configs, tmp_path: Path):
    swept = as_data(SweepSpec.parse(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(swept))
    assert page.sweep_command(tmp_path, _resolved, configs) == f"selgen sweep -c configs/{name}.yaml --out {tmp_path}"


@pytest.mark.parametrize(("block", "key", "value"), [("training", "weight_decay", 0.3), ("evaluation", "top_p", 0.5)])
def test_a_sweep_that_differs_in_what_the_config_leaves_out_is_not_named_so(block, key, value, configs, tmp_path: Path):
    swept = as_data(SweepSpec.parse(yaml.safe_load((CONFIGS / "triggers.yaml").read_text())))
    assert swept[block][key] != value
    swept[block][key] = value
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(swept))
    assert page.sweep_command(tmp_path, _resolved, configs).endswith("# by its own sweep.yaml")


def test_the_report_lists_the_claims_that_its_runs_speak_of(sweeps: list[Path]):
    summary = report.write(sweeps[2], claims=findings.in_report(sweeps[2]), setting_of=lambda _: _Anything())
    assert [f.id for f in summary.findings] == ["F19", "F20"]
    html = summary.page.read_text()
    assert "2 claims: 2 hold, 0 fail, 0 are undecided." in html
    assert "held-out random strings with one of them" in html
    plain = json.loads((sweeps[2] / "report" / "summary.json").read_text())
    assert plain["findings"][1]["verdict"] == "holds"


def test_a_report_without_claims_has_no_such_section(sweeps: list[Path]):
    summary = report.write(sweeps[2], setting_of=lambda _: _Anything())
    assert summary.findings == [] and "Claims of the study" not in summary.page.read_text()


class _Anything:
    title = "A setting"
    axis_labels = {"alignment": "alignment", "score_y": "task"}
    bar_chart = None
    heat_maps = ()
    compares_proxies = True
    proxy_domains: frozenset[str] = frozenset()

    def checks(self, records, samples):
        return []

    def anchors(self, model):
        return []


def test_deciding_claims_loads_no_torch():
    code = "import sys, selgen.findings, selgen.findings.page; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
