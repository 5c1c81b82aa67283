"""An item's life as a picture: how often it was shown and clicked, from the beginning of the log to its end."""

from collections.abc import Sequence

from markupsafe import Markup

from mimctr.explore.schemas import Bin
from mimctr.report.wording import day

WIDTH, HEIGHT, FOOT, TOP = 640, 160, 24, 22


def life_chart(life: Sequence[Bin]) -> Markup:
    """Return an SVG: a bar of impressions for each stretch of time, its clicks inside; a line where the test begins."""
    most = max((one.num_impressions for one in life), default=0) or 1
    step, room = WIDTH / len(life), HEIGHT - FOOT - TOP
    parts = []
    for number, one in enumerate(life):
        words = f"{day(one.start)}: {one.num_impressions} impressions, {one.num_clicks} clicks"
        bars = "".join(
            f'<rect class="{kind}" x="{number * step + 1:.1f}" y="{HEIGHT - FOOT - count / most * room:.1f}" '
            f'width="{step - 2:.1f}" height="{count / most * room:.1f}"/>'
            for kind, count in (("shown", one.num_impressions), ("clicked", one.num_clicks))
            if count
        )
        parts.append(f"<g><title>{words}</title>{bars}</g>")
    first_test = next((number for number, one in enumerate(life) if one.in_test), len(life))
    border = first_test * step
    total, clicks = (sum(getattr(one, name) for one in life) for name in ("num_impressions", "num_clicks"))
    label = f"{total} impressions and {clicks} clicks over time; at most {most} in one bar"
    return Markup(
        f'<svg class="life" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'{"".join(parts)}<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT - FOOT}" y2="{HEIGHT - FOOT}"/>'
        f'<line class="border" x1="{border:.1f}" x2="{border:.1f}" y1="0" y2="{HEIGHT - FOOT}"/>'
        f'<text x="{border - 6:.1f}" y="14" text-anchor="end">test part begins</text>'
        f'<text x="0" y="14">most: {most}</text>'
        f'<text x="0" y="{HEIGHT - 6}">{day(life[0].start)[:10]}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 6}" text-anchor="end">{day(life[-1].end)[:10]}</text></svg>'
    )
