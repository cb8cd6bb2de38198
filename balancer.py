"""Doorway: `python balancer.py --workers qwen-1,qwen-2,qwen-3`. See `python balancer.py --help`."""

from qwen_aio.doorway import start

if __name__ == "__main__":
    raise SystemExit(start(program="balancer.py", command="balance"))
