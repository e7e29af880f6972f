"""A run as a picture: replicas over time by state, the floor, what happened. Plain SVG text."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from controller.simulate.report import Run
from controller.simulate.timeline import Line, Sample

_SVG: Final = "http://www.w3.org/2000/svg"
_SIZE: Final = 'font-size="12"'
WIDTH: Final = 960
LEFT: Final = 90
PANEL: Final = 150
GAP: Final = 46
TOP: Final = 64
_STEPS: Final = 6
_BANDS: Final = (
    ("ready_old", "ready, the current revision", "#4c78a8"),
    ("ready_new", "ready, the new revision", "#59a14f"),
    ("coming", "starting", "#f2cf5b"),
    ("leaving", "leaving", "#bab0ac"),
)
_MARKS: Final = {"fault": "#d62728", "verb": "#333333", "broken": "#ff00ff"}


def svg(run: Run) -> str:
    """Draw a run; the same run, the same bytes."""
    height = TOP + len(run.samples) * (PANEL + GAP) + 20
    parts = [
        f'<svg xmlns="{_SVG}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" {_SIZE}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(run.report.title)}</text>',
        f'<text x="{WIDTH - 20}" y="22" text-anchor="end">seed {run.report.seed}</text>',
        *_legend(),
    ]
    for place, (name, samples) in enumerate(run.samples.items()):
        top = TOP + place * (PANEL + GAP)
        parts += _panel(run, name, samples, top)
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> Iterator[str]:
    x = LEFT
    for _, words, colour in _BANDS:
        yield f'<rect x="{x}" y="34" width="11" height="11" fill="{colour}"/>'
        yield f'<text x="{x + 16}" y="44">{words}</text>'
        x += 34 + 7 * len(words)
    yield f'<text x="{x}" y="44" fill="#d62728">| fault</text>'
    yield f'<text x="{x + 50}" y="44">| verb</text>'


def _panel(run: Run, name: str, samples: Sequence[Sample], top: int) -> Iterator[str]:
    most = max((_total(each) for each in samples), default=1)
    most = max(most, *(each.target for each in samples), 1)
    bottom = top + PANEL

    def at_x(at_s: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 20) * at_s / run.report.duration_s, 1)

    def at_y(count: int) -> float:
        return round(bottom - PANEL * count / most, 1)

    yield f'<text x="8" y="{top + 14}">{escape(name)}</text>'
    ends = [*(each.at_s for each in samples[1:]), run.report.duration_s]
    for each, end_s in zip(samples, ends, strict=True):
        below, x = 0, at_x(each.at_s)
        width = round(at_x(end_s) - x, 1)
        for field, _, colour in _BANDS:
            count = getattr(each, field)
            if count and width > 0:
                y, high = at_y(below + count), round(at_y(below) - at_y(below + count), 1)
                yield f'<rect x="{x}" y="{y}" width="{width}" height="{high}" fill="{colour}"/>'
            below += count
        yield (
            f'<path d="M{x} {at_y(each.floor)}h{width}" stroke="#000000" stroke-dasharray="4 3"/>'
        )
    yield f'<path d="M{LEFT} {bottom}H{WIDTH - 20}" stroke="#333333"/>'
    for count in (0, most):
        yield f'<text x="{LEFT - 6}" y="{at_y(count) + 4}" text-anchor="end">{count}</text>'
    for step in range(_STEPS + 1):
        at_s = run.report.duration_s * step / _STEPS
        yield f'<text x="{at_x(at_s)}" y="{bottom + 15}" text-anchor="middle">{at_s:.0f} s</text>'
    for line in run.lines:
        if line.kind in _MARKS and line.about in (name, "world", "BROKEN"):
            yield _mark(line, at_x(line.at_s), top, bottom)


def _mark(line: Line, x: float, top: int, bottom: int) -> str:
    return (
        f'<path d="M{x} {top}V{bottom}" stroke="{_MARKS[line.kind]}" stroke-opacity="0.7">'
        f"<title>{escape(f'{line.at_s:.1f} s: {line.text}')}</title></path>"
    )


def _total(sample: Sample) -> int:
    return sample.ready + sample.coming + sample.leaving
