"""Doorway: `python balancer.py --workers qwen-1,qwen-2,qwen-3`. See `python balancer.py --help`."""

from qwen_aio.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(program="balancer.py", command="balance"))
