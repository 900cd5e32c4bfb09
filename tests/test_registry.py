"""Names are file names; listing imports nothing; a wrong name points to the right one."""

import subprocess
import sys
import types
from importlib.metadata import EntryPoint

import pytest

from selgen import core, registry


class Foreign(core.Scorer):
    """A scorer of another package."""

    def score_many(self, pairs):
        return [core.Score(1.0) for _ in pairs]


NOT_A_CLASS = "text"


@pytest.fixture
def foreign(monkeypatch):
    def provide(value: str) -> None:
        point = EntryPoint("foreign", value, "selgen.scorers")
        monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "selgen.scorers" else [])

    return provide


@pytest.mark.parametrize("kind", ["methods", "settings", "scorers", "judges"])
def test_every_name_loads_one_class_of_its_kind(kind):
    for name in registry.names(kind):
        assert issubclass(registry.load(kind, name), registry._BASES[kind])


def test_unknown_name_suggests_the_close_one():
    with pytest.raises(registry.UnknownName, match=r"Unknown method 'task_olny'. Did you mean 'task_only'\?"):
        registry.load("methods", "task_olny")


def test_unknown_name_without_a_close_one_lists_all():
    with pytest.raises(registry.UnknownName, match="Known: .*upweight"):
        registry.load("methods", "zzz")


def test_other_packages_add_names_by_entry_point(foreign):
    foreign(f"{__name__}:Foreign")
    assert "foreign" in registry.names("scorers")
    assert registry.load("scorers", "foreign") is Foreign


def test_entry_point_of_a_wrong_type_is_refused(foreign):
    foreign(f"{__name__}:NOT_A_CLASS")
    with pytest.raises(TypeError, match="should be a class derived from Scorer, found 'text'"):
        registry.load("scorers", "foreign")


def test_listing_imports_no_leaf_and_no_torch():
    code = (
        "import sys; from selgen import registry\n"
        "assert 'kl' in registry.names('methods')\n"
        "heavy = [m for m in sys.modules if m in ('torch', 'transformers') or m.startswith('selgen.methods.')]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("classes", "found"), [([], "none"), (["One", "Two"], r"\['One', 'Two'\]")])
def test_a_file_without_exactly_one_class_is_refused(classes, found):
    module = types.ModuleType("selgen.scorers.made_up")
    for name in classes:
        body = {"__module__": module.__name__, "score_many": Foreign.score_many}
        setattr(module, name, type(name, (core.Scorer,), body))
    with pytest.raises(TypeError, match=f"should define one public Scorer, found {found}"):
        registry._only_class(module, core.Scorer)
