"""What the documentation shows is what happens: docstring examples and blocks of all pages run."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mtlfast

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    ".".join([*folder.split("/"), path.stem])
    for folder in ("mtlfast", "mtlfast/nn", "mtlfast/linear_model")
    for path in (ROOT / folder).glob("*.py")
    if path.stem != "__init__"
)
FENCE = r"^```python\n(.*?)^```\n(?:\n^```\n(.*?)^```)?"  # code, and what it prints where shown
INCLUDED = r"^```\{literalinclude\} (\S+)$"
# Copies of the tree that leave them out run the rest.
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
BLOCKS = {
    f"{page}-{number}": block
    for page, text in PAGES.items()
    for number, block in enumerate(re.findall(FENCE, text, re.MULTILINE | re.DOTALL))
}
PROGRAMS = sorted(
    {
        (page, os.path.normpath(Path(page).parent / path))
        for page, text in PAGES.items()
        for path in re.findall(INCLUDED, text, re.MULTILINE)
    }
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def output(command, folder):
    """What a program prints, away from the source."""
    run = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_the_pages_have_examples():
    pages = {name.partition("-")[0] for name in BLOCKS}
    assert pages >= {"README.md", "docs/start.md", "docs/training.md", "docs/exact_fits.md"}
    assert ("docs/own_term.md", "examples/own_term.py") in PROGRAMS


@pytest.mark.parametrize("name", BLOCKS)
def test_block_of_a_page(name, tmp_path):
    """Each block runs by itself, and prints what is shown below it."""
    code, shown = BLOCKS[name]
    printed = output(["-c", code], tmp_path)
    assert not shown or printed == shown


@pytest.mark.parametrize(("page", "program"), PROGRAMS)
def test_program_in_a_page(page, program, tmp_path):
    """A program whose parts a page includes prints what the page shows, and the parts are found."""
    text = (ROOT / program).read_text()
    assert f"```\n{output([ROOT / program], tmp_path)}```" in PAGES[page]
    for mark in re.findall(r'^:(?:start-after|end-before): "(.*)"$', PAGES[page], re.MULTILINE):
        assert text.count(mark) == 1, mark


def headings(page):
    """The anchors of a page's headings, as GitHub and the site name them."""
    titles = re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_project_lead_somewhere(page):
    """Where the pages are read in the repository; the build of the site asks for its own."""
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            target = os.path.normpath(Path(page).parent / path) if path else page
            if target.startswith("docs/drawn/"):  # drawn when the site is built
                target = "docs/pictures.py"
            assert (ROOT / target).is_file(), link
            assert not anchor or anchor in headings(target), link


def test_every_public_name_is_on_a_page_of_the_api():
    """The other modules are there as a whole, by what their ``__all__`` says."""
    text = "".join(PAGES[page] for page in PAGES if page.startswith("docs/api/"))
    listed = re.findall(r"^\.\. auto(?:function|class):: (\w+)$", text, re.MULTILINE)
    modules = {"nn", "optim"}
    wanted = {*mtlfast.__all__} - modules | {"Regularizer"}  # of nn, with what it inherits
    assert sorted(listed) == sorted(wanted)
    for module in {*modules, "linear_model"}:
        assert f".. automodule:: mtlfast.{module}\n   :members:" in text


def test_every_picture_that_a_page_shows_is_drawn():
    shown = {name for text in PAGES.values() for name in re.findall(r"\(drawn/(\w+)\.svg\)", text)}
    script = (ROOT / "docs/pictures.py").read_text()
    assert len(shown) > 10
    assert [name for name in sorted(shown) if not re.search(rf'"{name}(\.svg)?"', script)] == []


def test_the_readme_is_short_and_says_what_is_not_done():
    readme = PAGES["README.md"]
    assert len(readme.splitlines()) <= 150
    limits = readme.partition("## Limits\n")[2].partition("\n## ")[0]
    assert limits.count("\n- ") == 6
    assert "CUDA kernels have not run on a GPU yet" in limits
    for marker in ("main job", "tests"):  # CI runs the commands below them
        assert readme.count(f"<!-- {marker} -->\n```sh\n") == 1
