"""The notebook of docs/, and a way to run its cells as a person would: in a kernel of this Python, in a folder."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat
import psutil
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from nbclient import NotebookClient
from nbformat import NotebookNode

COLAB = Path(__file__).parent.parent / "docs" / "colab.ipynb"

# A `!command` that fails stops nobody: IPython keeps its exit code and goes on.
_MUST_HAVE_WORKED = "\nassert not globals().get('_exit_code'), f'exit code {_exit_code}'"


def read_notebook() -> NotebookNode:
    """The notebook as it is in the repository."""
    notebook: NotebookNode = nbformat.read(COLAB, as_version=4)
    return notebook


def source_of(notebook: NotebookNode, name: str) -> str:
    """The code of the cell with that id."""
    return str(next(cell.source for cell in notebook.cells if cell.id == name))


def output_of(notebook: NotebookNode, name: str) -> str:
    """What the cell with that id printed, and the HTML that it shows."""
    outputs = next(cell.outputs for cell in notebook.cells if cell.id == name)
    return "".join(output.get("text", "") or output["data"].get("text/html", "") for output in outputs)


def run_cells(notebook: NotebookNode, folder: Path, cut: Callable[[], bool] | None = None) -> None:
    """Run all code cells in `folder`, and keep what they show in the notebook; the first that fails ends the test.

    `cut`: as soon as it is true, the kernel and all that it started are killed, and DeadKernelError is raised.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code" and "!" in cell.source:
            cell.source += _MUST_HAVE_WORKED
    # "python3" is the kernel of the Python that asks for it, whatever kernels are installed.
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    done = threading.Event()
    watcher = threading.Thread(target=_cut_when, args=(cut, client, done)) if cut else None
    if watcher:
        watcher.start()
    try:
        client.execute()
    finally:
        done.set()
        if watcher:
            watcher.join()


def _cut_when(cut: Callable[[], bool], client: NotebookClient, done: threading.Event) -> None:
    while not done.wait(0.05):
        if cut():
            assert client.km is not None
            assert isinstance(client.km.provisioner, LocalProvisioner)
            kernel = psutil.Process(client.km.provisioner.pid)
            _kill([*kernel.children(recursive=True), kernel])
            return


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
