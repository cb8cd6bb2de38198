"""A folder whose model may think first, as Qwen3's: the tokens of thoughts, and a chat template that can leave them empty."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

THOUGHTS = ("<think>", "</think>")
NEVER = """\
{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""  # of a model trained without thoughts
EMPTY = r"{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
HYBRID = NEVER.removesuffix("{% endif %}") + EMPTY + "{% endif %}"


def with_thoughts(specification: str) -> str:
    """The tokenizer.json with the tokens of thoughts, which Qwen3 does not call special."""
    stated = json.loads(specification)
    first_id = 1 + max(token["id"] for token in stated["added_tokens"])
    for token_id, content in enumerate(THOUGHTS, first_id):
        stated["added_tokens"].append(
            stated["added_tokens"][0] | {"id": token_id, "content": content, "special": False}
        )
    return json.dumps(stated)


def thinking_folder(source: Path, target: Path) -> Path:
    """A copy of the checkpoint in `source` that may think first."""
    shutil.copytree(source, target)
    path = target / "tokenizer.json"
    path.write_text(with_thoughts(path.read_text(encoding="utf-8")), encoding="utf-8")
    (target / "tokenizer_config.json").write_text(json.dumps({"chat_template": HYBRID, "eos_token": "<|im_end|>"}))
    return target
