"""Notebooks, run in a kernel of their own.

`python -m tests.notebooks` runs that of the examples and stores what it shows;
set KERAS_BACKEND=jax and PYTHONHASHSEED=0 for it.
"""

import contextlib

from tests.checkout import ROOT

PATH = ROOT / "examples" / "notebook.ipynb"


def read_notebook():
    """The example, with the outputs that are stored in it."""
    import nbformat

    return nbformat.read(PATH, as_version=4)


@contextlib.contextmanager
def running(notebook, folder):
    """In a block, what runs a cell by its position; one that fails raises."""
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    with client.setup_kernel():
        yield lambda place: client.execute_cell(notebook.cells[place], place)


def list_code(notebook):
    """The positions of the cells that hold code."""
    cells = enumerate(notebook.cells)
    return [place for place, one in cells if one.cell_type == "code"]


def store_outputs():
    """Run the example, and keep what a person reads of its outputs."""
    import nbformat

    notebook = read_notebook()
    with running(notebook, PATH.parent) as run:
        for place in list_code(notebook):
            cell = run(place)
            cell.metadata.pop("execution", None)  # When it ran.
            cell.outputs = [one for one in cell.outputs if not is_noise(one)]
            for one in cell.outputs:
                # The page stands for an object whose text nobody would read.
                if "text/html" in one.get("data", {}):
                    one.data.pop("text/plain", None)
    nbformat.write(notebook, PATH)


def is_noise(output):
    """Whether an output is what backends say of themselves while they load."""
    return output.output_type == "stream" and output.name == "stderr"


if __name__ == "__main__":
    store_outputs()
