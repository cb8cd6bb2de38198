"""Doorway: `python app.py --mode single|worker|ui ...`. See `python app.py --help`."""

from qwen_aio.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(program="app.py", command="serve"))
