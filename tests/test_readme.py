"""What README and docs show works, in both languages."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from qwen_aio.cli.parser import parser_of
from qwen_aio.config import Settings
from qwen_aio.doorway import OWN_LINE, TORCH_LINE
from qwen_aio.routing import choose_route
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.template import PromptTemplate

CHINESE = ".zh-CN.md"
ENGLISH_ONLY = {Path("docs/tried.md")}  # a table for developers
PAGES = (Path("README.md"), Path("README.zh-CN.md"), *sorted(Path("docs").glob("*.md")))
ENGLISH_PAGES = tuple(page for page in PAGES if not page.name.endswith(CHINESE) and page not in ENGLISH_ONLY)
READMES, TASK_PAGES, SETTINGS_PAGES, ARCHITECTURE_PAGES = (
    (Path(f"{name}.md"), Path(f"{name}{CHINESE}"))
    for name in ("README", "docs/tasks", "docs/settings", "docs/architecture")
)
PROGRAMS = {"python app.py": ["serve"], "python balancer.py": ["balance"], "qwen-aio": []}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str = r"\w+") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> set[str]:
    """Command lines of our programs, in blocks and in running text, without comments and redirections."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", text_of(page))
    shown = {re.split(" [#>]", line)[0].strip().removeprefix(".venv/bin/") for line in lines}
    named = {line for line in shown if line.startswith("qwen-aio/")}  # tasks as models
    return {line for line in shown if line.startswith(tuple(PROGRAMS))} - {"qwen-aio"} - named


def test_every_page_is_there_in_both_languages():
    translated = {page.with_name(page.name.removesuffix(".md") + CHINESE) for page in ENGLISH_PAGES}
    assert translated | set(ENGLISH_PAGES) | ENGLISH_ONLY == set(PAGES)


def test_the_readme_is_short_and_leads_to_every_page():
    for readme in READMES:
        is_chinese = readme.name.endswith(CHINESE)
        wanted = {page for page in PAGES if page.name.endswith(CHINESE) == is_chinese} - {readme} | ENGLISH_ONLY
        assert len(text_of(readme).splitlines()) <= 140
        assert all(f"]({page})" in text_of(readme) for page in wanted)


@pytest.mark.parametrize("page", TASK_PAGES, ids=str)
def test_the_task_of_the_guide_is_a_task(page, tmp_path):
    folder = tmp_path / "urgency"
    folder.mkdir()
    (folder / "task.toml").write_text(blocks(page, "toml")[0], encoding="utf-8")
    (folder / "prompt.j2").write_text(blocks(page, "jinja")[0], encoding="utf-8")
    tasks = load_tasks(tmp_path)
    assert choose_route("auto", "请马上处理", tasks).reason == "rule urgency.words: 马上"
    assert PromptTemplate(tasks["urgency"]).prompt("请马上处理").body


@pytest.mark.parametrize("page", ENGLISH_PAGES, ids=str)
def test_both_languages_show_the_same_commands(page):
    english, chinese = (
        [line.split("#")[0].rstrip() for block in blocks(each) for line in block.splitlines()]
        for each in (page, page.with_name(page.name.removesuffix(".md") + CHINESE))
    )
    assert english == chinese


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in PAGES for line in sorted(commands(page))], ids=str)
def test_every_command_is_understood(page, line):
    program = next(name for name in PROGRAMS if line.startswith(name))
    command, *arguments = PROGRAMS[program] + shlex.split(line.removeprefix(program))
    parser = parser_of(command, program=program)
    assert parser.parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_benchmark_and_file_of_the_code_exists(page):
    benchmarks = re.findall(r"python -m (benchmarks\.\w+)", text_of(page))
    assert all(find_spec(name) for name in benchmarks)
    files = re.findall(r"`([\w/]+\.py)`", text_of(page))
    assert [file for file in files if not (Path("qwen_aio", file).exists() or Path(file).exists())] == []


@pytest.mark.parametrize("page", ARCHITECTURE_PAGES, ids=str)
def test_every_room_is_on_the_map(page):
    (drawing,) = re.findall(r"^```\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)
    rooms = {path.stem for path in Path("qwen_aio").iterdir() if path.suffix in ("", ".py") and path.name[0] != "_"}
    assert rooms - set(re.findall(r"\w+", drawing)) == set()


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_the_install_lines_are_those_that_a_bare_python_prints(readme):
    (first, *_) = (block for block in blocks(readme, "sh") if "venv" in block and "pip" in block)
    assert f".venv/bin/{TORCH_LINE}\n.venv/bin/{OWN_LINE}\n" in first


@pytest.mark.parametrize("page", SETTINGS_PAGES, ids=str)
def test_every_setting_of_the_table_exists(page):
    named = set(re.findall(r"^\| `--([a-z-]+)`", text_of(page), flags=re.MULTILINE))
    assert len(named) >= 6
    assert named <= {name.replace("_", "-") for name in Settings.model_fields}


@pytest.mark.parametrize("page", [*PAGES, Path("DECISIONS.md"), Path("qwen_aio/models/bundled/README.md")], ids=str)
def test_links_inside_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", text_of(page))
    assert all((page.parent / target).exists() for target in targets), targets
