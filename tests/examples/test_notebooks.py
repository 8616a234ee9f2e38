import pytest

from tests.examples.notebooks import FOLDER, cells, notebook

SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_and_its_script_are_a_pair(script):
    written = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert written == notebook(script), "write it by `python -m tests.examples.notebooks`"


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(script, tmp_path, monkeypatch):
    monkeypatch.setenv("ILM_NOTEBOOK", str(tmp_path))
    monkeypatch.setenv("ILM_NOTEBOOK_STEPS", "4")
    names: dict = {"__name__": "__notebook__"}
    for kind, source in cells(script):
        if kind == "code":
            exec(compile(source, str(script), "exec"), names)  # noqa: S102
