"""What a reader would call broken: texts that run into one another, or out of their boxes. Measured in the browser."""

from __future__ import annotations

from playwright.sync_api import Page

# Every line of text that can be seen: [number of its node, text, left, top, right, bottom, right edge of its box], cut
# to what the boxes around it show.
_MEASURE = """() => {
    const lines = [], range = document.createRange();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let number = 0; texts.nextNode(); number++) {
        const node = texts.currentNode, parent = node.parentElement;
        if (!node.data.trim() || !parent.checkVisibility() || parent.closest(".unseen, .speaker, .sr-only")) continue;
        let own = parent;
        while (["inline", "contents"].includes(getComputedStyle(own).display)) own = own.parentElement;
        const edge = getComputedStyle(own).overflowX === "visible" ? own.getBoundingClientRect().right : Infinity;
        const room = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
        for (let box = parent; box !== document.body; box = box.parentElement) {
            const style = getComputedStyle(box);
            if (style.overflowX === "visible" || style.display === "inline") continue;
            const shown = box.getBoundingClientRect();
            room.left = Math.max(room.left, shown.left), room.right = Math.min(room.right, shown.right);
            room.top = Math.max(room.top, shown.top), room.bottom = Math.min(room.bottom, shown.bottom);
        }
        range.selectNodeContents(node);
        for (const line of range.getClientRects()) {
            const left = Math.max(line.left, room.left), right = Math.min(line.right, room.right);
            const top = Math.max(line.top, room.top), bottom = Math.min(line.bottom, room.bottom);
            const upmost = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);  // null: not in the window
            const isCovered = upmost && !upmost.contains(parent) && !parent.contains(upmost);
            if (right - left > 1 && bottom - top > 1 && !isCovered) {
                lines.push([number, node.data.trim().slice(0, 40), left, top, right, bottom, edge]);
            }
        }
    }
    return lines;
}"""
SLACK = 2.0  # px: boxes of lines are a little higher than their letters


def flaws(page: Page) -> list[str]:
    """Pairs of texts that overlap, and texts that are wider than their box."""
    lines = sorted(page.evaluate(_MEASURE), key=lambda line: line[3])
    found = [f"{text!r} leaves its box" for _, text, _, _, right, _, edge in lines if right > edge + SLACK]
    for index, (number, text, left, _, right, bottom, _) in enumerate(lines):
        for other, other_text, other_left, other_top, other_right, _, _ in lines[index + 1 :]:
            if other_top >= bottom - SLACK:
                break
            if number != other and min(right, other_right) - max(left, other_left) > SLACK:
                found.append(f"{text!r} and {other_text!r} overlap at {other_left:.0f}, {other_top:.0f}")
    return found
