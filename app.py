"""Doorway: `python app.py --mode single|worker|ui ...`. See `python app.py --help`."""

from qwen_aio.doorway import start

if __name__ == "__main__":
    raise SystemExit(start(program="app.py", command="serve"))
