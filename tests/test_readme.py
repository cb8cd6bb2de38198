"""What the README shows must work, in both languages."""

import re
from pathlib import Path

import pytest

from qwen_aio.config import Settings
from qwen_aio.doorway import OWN_LINE, TORCH_LINE
from qwen_aio.routing import choose_route
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.template import PromptTemplate

READMES = (Path("README.md"), Path("README.zh-CN.md"))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_the_task_one_is_reported_to_add_is_a_task(readme, tmp_path):
    folder = tmp_path / "urgency"
    folder.mkdir()
    (folder / "task.toml").write_text(blocks(readme, "toml")[0], encoding="utf-8")
    (folder / "prompt.j2").write_text(blocks(readme, "jinja")[0], encoding="utf-8")
    tasks = load_tasks(tmp_path)
    assert choose_route("auto", "请马上处理", tasks).reason == "rule urgency.words: 马上"
    assert PromptTemplate(tasks["urgency"]).prompt("请马上处理").body


def test_both_languages_show_the_same_commands():
    english, chinese = (
        [
            line.split("#")[0].rstrip()
            for language in ("sh", "powershell", "json")
            for block in blocks(readme, language)
            for line in block.splitlines()
        ]
        for readme in READMES
    )
    assert english == chinese


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_a_bare_python_is_reported_the_lines_that_stand_here(readme):
    (first, *_) = (block for block in blocks(readme, "sh") if "venv" in block and "pip" in block)
    assert f".venv/bin/{TORCH_LINE}\n.venv/bin/{OWN_LINE}\n" in first


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_every_setting_it_names_exists(readme):
    named = set(re.findall(r"^\| `--([a-z-]+)`", readme.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert len(named) >= 6
    assert named <= {name.replace("_", "-") for name in Settings.model_fields}


@pytest.mark.parametrize(
    "page",
    [*READMES, *Path("docs").glob("*.md"), Path("DECISIONS.md"), Path("qwen_aio/models/bundled/README.md")],
    ids=str,
)
def test_links_inside_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert all((page.parent / target).exists() for target in targets), targets
