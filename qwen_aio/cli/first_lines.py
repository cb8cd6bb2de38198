"""What `qwen-aio` prints without arguments: five lines, each a command to paste.

Imports nothing heavy: whoever does not know yet what to type should not wait for it.
"""

from __future__ import annotations

from qwen_aio.startup.language import operators_language

ENGLISH_LINES = """\
qwen-aio serve                               # the page: http://127.0.0.1:7860
qwen-aio run "late, but I love it" --reply   # ask once: a label and an answer
qwen-aio chat                                # a conversation in this terminal
qwen-aio cluster                             # workers, balancer, dashboard, page
qwen-aio classify FILE.csv -o labelled.csv   # label the column `text` of a file
"""
CHINESE_LINES = """\
qwen-aio serve                               # 网页：http://127.0.0.1:7860
qwen-aio run "快递太慢了，差评" --reply      # 问一句：标签和回复
qwen-aio chat                                # 在终端里对话
qwen-aio cluster                             # 多个实例、负载均衡器、仪表盘和网页
qwen-aio classify FILE.csv -o labelled.csv   # 给文件的 text 列逐行打标签
"""


def print_first_lines() -> int:
    """In the operator's language; the exit status."""
    print({"en": ENGLISH_LINES, "zh": CHINESE_LINES}[operators_language()], end="")
    return 0
