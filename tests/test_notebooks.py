"""The notebooks run from top to bottom in silence, and are stored as they ran."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat: pip install lvm[notebooks]")
nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient: pip install lvm[notebooks]")
pytest.importorskip("ipykernel", reason="notebooks need ipykernel: pip install lvm[notebooks]")
pytest.importorskip("matplotlib", reason="notebooks need matplotlib: pip install lvm[plot]")

FOLDER = Path(__file__).parents[1] / "notebooks"
if not FOLDER.is_dir():
    pytest.skip("the notebooks are not part of this copy of the sources", allow_module_level=True)
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CELL_TIMEOUT = 300  # seconds: the first fit on a fresh machine compiles every kernel
MAX_BYTES = 600_000

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def noise(notebook):
    """Return what a clean run does not have: errors and anything on stderr."""
    return [
        output.get("text") or "\n".join(output.traceback)
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Keep the user's kernels, start-up files and history out of the run; return its folder."""
    import matplotlib.font_manager  # noqa: F401  # builds the font cache here, where its message is not a cell's stderr

    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel draws into the notebook
    work = tmp_path / "work"
    work.mkdir()
    return work


def test_there_are_notebooks():
    assert {"01_first_mixture.ipynb", "02_em_from_the_bound.ipynb"} <= {path.name for path in NOTEBOOKS}


@every_notebook
def test_runs_from_top_to_bottom(path, home):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        allow_errors=False,
        resources={"metadata": {"path": str(home)}},
    )
    client.execute()
    assert noise(notebook) == []
    assert list(home.iterdir()) == []  # nothing is left behind


@every_notebook
def test_is_stored_as_it_ran(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert noise(notebook) == []
    assert path.stat().st_size < MAX_BYTES


@every_notebook
def test_names_no_machine(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)  # by chance, base64 may spell anything
    text = nbformat.writes(notebook)
    assert [place for place in ("/home/", "/root/", "/tmp/", "/Users/", "C:\\\\") if place in text] == []


def test_noise_is_found():
    new = nbformat.v4
    clean = new.new_code_cell(outputs=[new.new_output("stream", name="stdout", text="fine")])
    warned = new.new_code_cell(outputs=[new.new_output("stream", name="stderr", text="a warning")])
    failed = new.new_code_cell(outputs=[new.new_output("error", ename="E", evalue="e", traceback=["a", "b"])])
    assert noise(new.new_notebook(cells=[clean])) == []
    assert noise(new.new_notebook(cells=[clean, warned, failed])) == ["a warning", "a\nb"]
