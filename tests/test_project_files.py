"""Files for people and services around the code: workflows, forms for issues, how to cite."""

import re
from pathlib import Path

import pytest

import mtlfast

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
named = {"ids": lambda path: path.name}


def parsed(path):
    yaml = pytest.importorskip("yaml", reason="pyyaml comes with mtlfast[test]")
    return yaml.safe_load(path.read_text())


def targets():
    return set(re.findall(r"^(\w+): .*;", (ROOT / "Makefile").read_text(), re.MULTILINE))


def called(workflow):
    return re.findall(r"^ +- run: make (\w+)$", workflow.read_text(), re.MULTILINE)


def test_make_has_the_targets_that_it_names():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert set(phony.split()) == targets()
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"^\| `make (\w+)` \|", text, re.MULTILINE)) == targets()


@pytest.mark.parametrize("path", WORKFLOWS, **named)
def test_a_workflow_calls_what_there_is(path):
    assert set(called(path)) <= targets()
    workflow = parsed(path)
    assert {"name", "jobs"} < set(workflow)
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            for extras in re.findall(r'"\.\[([\w,]+)\]"', step.get("run", "")):
                project = (ROOT / "pyproject.toml").read_text()
                assert all(
                    re.search(rf"^{e} = \[", project, re.MULTILINE) for e in extras.split(",")
                )


def test_workflows_run_lint_tests_the_pages_the_sanitizers_and_the_wheels():
    assert {target for path in WORKFLOWS for target in called(path)} >= {
        *("lint", "types", "test", "docs", "links", "sanitize", "wheel", "aarch64", "clang")
    }
    (path,) = (path for path in WORKFLOWS if path.name == "tests.yml")
    assert len(parsed(path)["jobs"]["tests"]["strategy"]["matrix"]["python"]) == 2


@pytest.mark.parametrize("path", FORMS, **named)
def test_a_form_for_issues_has_what_github_asks_for(path):
    form = parsed(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    for part in form["body"]:
        assert part["type"] == "textarea" and part["attributes"]["label"]


def test_a_report_says_what_is_in_use():
    form = parsed(ROOT / ".github/ISSUE_TEMPLATE/problem.yml")
    (part,) = (part for part in form["body"] if part["id"] == "config")
    assert "mtlfast.show_config()" in part["attributes"]["description"]
    assert part["validations"]["required"]
    assert callable(mtlfast.show_config)


def test_how_to_cite():
    citation = parsed(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The mtlfast developers"}]
    assert str(citation["version"]) == mtlfast.__version__
    assert f'license = "{citation["license"]}"' in (ROOT / "pyproject.toml").read_text()
