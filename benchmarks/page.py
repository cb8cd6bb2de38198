"""How long a person waits for the decision, in a real browser; and the picture in the README.

    python -m benchmarks.page [--short] [--screenshot docs/page.png]

Starts `app.py --mode single` with the bundled model. Chromium types a sentence, presses Enter and waits for the label;
the page's own clock, from the key to the label in the document. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
from pathlib import Path

from playwright.async_api import Page, async_playwright

from benchmarks.servers import last_line, started

CHROMIUM = shutil.which("chromium") or "chromium"
STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"
SENTENCES = (STORY, "快递太慢了,差评!", "客服态度超好,必须点赞!", "I love this dress, but it arrived late.")
# Runs in the page. Resolves with milliseconds once the quoted text is the one sent and its label stands below.
WAIT_FOR_DECISION = """text => new Promise(resolve => {
    const started = performance.now();
    const look = () => {
        const quote = document.querySelector('.decision blockquote');
        const shown = quote && quote.textContent === text && document.querySelector('.decision .decided');
        shown ? resolve(performance.now() - started) : requestAnimationFrame(look);
    };
    look();
})"""


async def ask(page: Page, text: str) -> float:
    """Milliseconds from Enter until the decision is shown; returns when the answer is complete too."""
    box = page.locator("#text textarea")
    await box.fill(text)
    waiting = asyncio.ensure_future(page.evaluate(WAIT_FOR_DECISION, text))
    await box.press("Enter")
    waited_ms = float(await waiting)
    await page.locator("#send").wait_for(state="visible")
    return waited_ms


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--screenshot", type=Path)
    arguments = parser.parse_args()
    rounds = 2 if arguments.short else 8
    async with started("single", "--model", "bundled") as url, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page(viewport={"width": 1280, "height": 860}, locale="en-US")
        await page.goto(url)
        await page.locator("#mode label").first.wait_for()
        await ask(page, STORY)
        if arguments.screenshot:
            await page.wait_for_timeout(3000)  # the page fades what is new in
            await page.screenshot(path=arguments.screenshot)
        times = sorted([await ask(page, f"{text} {turn}") for turn in range(rounds) for text in SENTENCES])
        await browser.close()
    low, middle, high = statistics.quantiles(times, n=4)
    print(f"decision shown after {middle:.0f} ms ({low:.0f} to {high:.0f}, slowest {times[-1]:.0f}; n={len(times)})")
    print(last_line({"p50_ms": round(middle), "quartiles_ms": [round(low), round(high)], "max_ms": round(times[-1])}))


if __name__ == "__main__":
    asyncio.run(main())
