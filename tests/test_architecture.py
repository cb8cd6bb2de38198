"""The rooms of the house and who may enter which: read off the imports themselves."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from qwen_aio.cli.parser import COMMANDS

PACKAGE = Path("qwen_aio")
FLOOR = {
    *("bounds", "config", "core", "egress", "errors", "files", "language", "machine", "next_event"),
    *("result", "routing", "safeguards", "service_links", "status", "visible"),
}
MAY_IMPORT = {
    "floor": set(),
    "doorway": {"cli", "startup"},
    "wire": FLOOR,
    "client": FLOOR | {"wire"},
    "bulk": FLOOR,
    "bundling": FLOOR | {"doorway", "models"},
    "evaluation": FLOOR | {"bulk", "tasks"},
    "tasks": FLOOR,
    "engine": FLOOR,
    "models": FLOOR,
    "serving": FLOOR | {"wire"},
    "startup": FLOOR | {"serving"},
    "worker": FLOOR | {"wire", "tasks", "engine", "models", "serving", "startup"},
    "balancer": FLOOR | {"wire", "client", "serving"},
    "cluster": FLOOR | {"serving", "startup"},
    "doctor": FLOOR | {"client", "cluster", "engine", "models", "serving", "startup", "tasks", "worker"},
    "tuning": FLOOR | {"client", "cluster", "serving", "startup"},
    "ui": FLOOR | {"bulk", "client", "evaluation", "serving", "startup"},
    "cli": FLOOR
    | {"wire", "client", "tasks", "engine", "models", "serving", "startup"}
    | {"bulk", "bundling", "evaluation", "worker", "balancer", "cluster", "doctor", "tuning", "ui"},
}
TORCH_ROOMS = {"engine/foreign", "engine/model", "engine/quant"}
TORCH_FILES = {"engine/load.py"}  # sets the number of its threads
CHECKPOINT_ROOMS = TORCH_ROOMS | {"engine/weights"}


def room_of(module: str) -> str:
    """`qwen_aio.engine.model.forward` -> `engine`; the modules of the floor are one room."""
    part = module.split(".")[1]
    return "floor" if part in FLOOR else part


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


NAMED = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in modules()}


def imports_of(path: Path) -> set[str]:
    """What a module imports, inside its functions, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=str)
def test_a_room_imports_only_rooms_below_it(path):
    module = ".".join(path.with_suffix("").parts)
    room = room_of(module)
    others = {name.split(".")[1] for name in imports_of(path) if name.startswith("qwen_aio.")} - {"__version__"}
    allowed = FLOOR if room == "floor" else MAY_IMPORT[room] | {room}
    assert others <= allowed, f"{module} must not import {sorted(others - allowed)}"


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/architecture.zh-CN.md"])
def test_the_arrows_of_the_drawing_are_these_rooms(page):
    lines = re.findall(
        r"^(?:\+- )?(\w+)(?:/|\.py) .*?(?:  -> ([a-z ]+))?$", Path(page).read_text(encoding="utf-8"), re.M
    )
    drawn = {room: set(arrows.split()) for room, arrows in lines if room in MAY_IMPORT}
    rooms = {room: others - FLOOR for room, others in MAY_IMPORT.items() if room not in ("floor", "doorway")}
    assert drawn | {"cli": rooms["cli"]} == rooms  # its arrow says "everything below"


@pytest.mark.parametrize("path", modules(), ids=str)
def test_torch_lives_in_the_rooms_that_compute_with_it_alone(path):
    imported = {name.split(".")[0] for name in imports_of(path)}
    inside = path.relative_to(PACKAGE)
    room = inside.parent.as_posix()
    assert not imported & {"torch", "transformers"} or room in TORCH_ROOMS or inside.as_posix() in TORCH_FILES
    assert "safetensors" not in imported or room in CHECKPOINT_ROOMS


@pytest.mark.parametrize("path", modules(), ids=str)
def test_gradio_lives_in_the_ui_alone(path):
    assert "gradio" not in {name.split(".")[0] for name in imports_of(path)} or path.parts[1] == "ui"


def loaded_by(module: str) -> set[str]:
    """Top-level packages in memory after importing `module` in a fresh process."""
    code = f"import sys, {module}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("module", ["qwen_aio.cli.cluster", "qwen_aio.cli.balance"])
def test_who_computes_nothing_loads_no_numpy(module):
    assert "numpy" not in loaded_by(module)


@pytest.mark.parametrize(
    "module",
    [
        "qwen_aio.client.async_client",
        "qwen_aio.client.sync_client",
        "qwen_aio.routing",
        "qwen_aio.status.file",
        ", ".join(f"qwen_aio.cli.{module}" for module in ("main", *COMMANDS.values())),
        "qwen_aio.balancer.app",
        "qwen_aio.engine.engine",
        "qwen_aio.engine.load",
        "qwen_aio.engine.service",
        "qwen_aio.engine.text.grammar",
    ],
)
def test_light_entries_load_no_torch_and_no_gradio(module):
    assert not loaded_by(module) & {"torch", "transformers", "gradio"}


def test_worker_and_engine_load_no_gradio():
    assert "gradio" not in loaded_by("qwen_aio.serving.app, qwen_aio.engine.service, qwen_aio.cli.serve")


def test_cuda_is_hidden_before_anything_else_is_imported():
    code = "import os; os.environ['CUDA_VISIBLE_DEVICES'] = '0'; import qwen_aio; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "-1"
    assert imports_of(Path("app.py")) == {"qwen_aio.doorway", "qwen_aio.doorway.start"}


def test_modules_import_each_other_in_no_circle():
    graph = {name: {module_of(each) for each in imports_of(path)} - {"", name} for name, path in NAMED.items()}
    check_no_circle(graph)


@pytest.mark.parametrize("room", ["balancer", "engine", "serving", "ui"])
def test_inner_rooms_import_each_other_in_no_circle(room):
    """Folders as a whole, and the modules beside them."""
    graph: dict[str, set[str]] = {}
    for name, path in NAMED.items():
        if name.startswith(f"qwen_aio.{room}."):
            others = {module_of(each) for each in imports_of(path)}
            inner = {other.split(".")[2] for other in others if other.startswith(f"qwen_aio.{room}.")}
            graph.setdefault(name.split(".")[2], set()).update(inner - {name.split(".")[2]})
    check_no_circle(graph)


def module_of(imported: str) -> str:
    """`qwen_aio.core.Task` -> `qwen_aio.core`; empty for what is not ours."""
    return next((part for part in (imported, imported.rpartition(".")[0]) if part in NAMED), "")


def check_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        pytest.fail(f"import circle: {' -> '.join(exc.args[1])}")


def test_a_name_means_one_thing_in_the_whole_package():
    """Classes, functions and type aliases; each command has its own `main` and `add_arguments`."""
    defined: dict[str, list[str]] = {}
    for path in modules():
        for name in names_of(path) - {"main", "add_arguments", "logger", "T"}:
            defined.setdefault(name, []).append(str(path))
    assert {name: paths for name, paths in defined.items() if len(paths) > 1} == {}


def names_of(path: Path) -> set[str]:
    """Top-level names of `path` that are neither private nor constants."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = {node.name for node in body if isinstance(node, kinds)}
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    found |= {target.id for target in targets if isinstance(target, ast.Name) and not target.id.isupper()}
    return {name for name in found if not name.startswith("_")}
