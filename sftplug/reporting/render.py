"""The page of a report: runs laid over each other, then what each of them was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sftplug.previewing import legend, row_html
from sftplug.previewing.page import STYLE as ROW_STYLE
from sftplug.reporting import chart
from sftplug.reporting.chart import Curve
from sftplug.reporting.collect import NOTHING, Report, differing, flat
from sftplug.reporting.facts import LEDGER, answers, ledger_rows, on_accelerator, split_rows, summary
from sftplug.run.exports import EXPORTS, export_rows
from sftplug.util.html import page, table, text

_STYLE = """
h2 { font-size: 1.15rem; margin: 2.2rem 0 .8rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
.wide { overflow-x: auto; } .grid { width: 100%; } .grid th, .grid td { padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid var(--line); } .grid thead th { font-size: .85rem; white-space: nowrap; }
.grid td { min-width: 3.5rem; } .grid tbody tr:last-child > * { border-bottom: 0; }
.names { display: flex; flex-wrap: wrap; gap: .3rem 1.6rem; margin: 0 0 1rem; }
.summary tbody th { width: 11rem; } .pale { color: var(--pale); } .why { color: var(--note); margin: .2rem 0; }
.state { border: 1px solid; border-radius: 4px; padding: .05em .5em; font-size: .8rem; margin-left: .5em; }
.finished { color: var(--on-trained); background: var(--trained); border-color: transparent; }
.failed { color: var(--stop); } .interrupted, .running { color: var(--note); }
details { border: 1px solid var(--line); background: var(--card); border-radius: 8px; margin: .7rem 0; }
summary { cursor: pointer; padding: .55rem 1rem; font-weight: 600; } details > div { padding: 0 1rem .8rem; }
.value { font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap; }
.answer th { width: 9rem; white-space: nowrap; } .answer td { white-space: pre-wrap; }
.prompt { margin: 1rem 0 .3rem; font-weight: 600; white-space: pre-wrap;
  overflow-wrap: anywhere; }
"""


def to_html(title: str, reports: Sequence[Report]) -> str:
    """Return the whole page; everything in it that comes from a run is text."""
    parts = [_names(reports), _summary(reports), _charts(reports), _differences(reports), _samples(reports)]
    parts += [_run(number, report, alone=len(reports) == 1) for number, report in enumerate(reports)]
    return page(title, "\n".join(filter(None, parts)), ROW_STYLE + chart.STYLE + _STYLE)


def _chip(run: int) -> str:
    return f'<span class="chip" style="background: {chart.colour(run)}"></span>'


def _name(run: int, report: Report) -> str:
    state = report.state.state if report.state.state in ("finished", "failed", "interrupted", "running") else "running"
    return f'{_chip(run)}<b>{text(report.name)}</b><span class="state {state}">{text(report.state.state)}</span>'


def _names(reports: Sequence[Report]) -> str:
    names = "".join(f"<span>{_name(run, report)}</span>" for run, report in enumerate(reports))
    return f'<div class="names">{names}</div>'


def _summary(reports: Sequence[Report]) -> str:
    facts = [dict(summary(report)) for report in reports]
    names = list(dict.fromkeys(name for known in facts for name in known))
    heads = [f"<th>{_chip(run)}{text(report.name)}</th>" for run, report in enumerate(reports)]
    cells = {name: "".join(f"<td>{text(known.get(name, NOTHING))}</td>" for known in facts) for name in names}
    lines = "".join(f"<tr><th>{text(name)}</th>{values}</tr>" for name, values in cells.items())
    head = f"<thead><tr><th></th>{''.join(heads)}</tr></thead>" if len(reports) > 1 else ""
    return f'<div class="wide"><table class="grid summary">{head}<tbody>{lines}</tbody></table></div>'


def _charts(reports: Sequence[Report]) -> str:
    runs = list(enumerate(reports))

    def of(name: str, factor: float = 1.0) -> list[Curve]:
        return [
            Curve(report.name, run, [(step, value * factor) for step, value in report.points(name)])
            for run, report in runs
        ]

    evaluated = [
        Curve(f"{report.name}, evaluation", run, report.points("eval_loss"), marks=True) for run, report in runs
    ]
    memory = "MB, accelerator" if any(map(on_accelerator, reports)) else "MB, process"
    figures = [
        chart.chart(
            "Loss",
            "line: training, ◆: evaluation" if any(c.points for c in evaluated) else "training",
            [*of("loss"), *evaluated],
        ),
        chart.chart("Learning rate", "", of("learning_rate")),
        chart.chart("Tokens per second", "without evaluations", [Curve(r.name, run, r.speed()) for run, r in runs]),
        chart.chart("Peak memory so far", memory, of("peak_bytes", 1e-6)),
        chart.chart("Gradient norm", "before clipping", of("grad_norm")),
        chart.chart("Accuracy of the next token", "evaluation", of("eval_mean_token_accuracy")),
    ]
    drawn = "".join(figures)
    return (
        f'<h2>Curves</h2><div class="charts">{drawn}</div>' if drawn else '<p class="why">Nothing was logged yet.</p>'
    )


def _differences(reports: Sequence[Report]) -> str:
    if len(reports) < 2:
        return ""
    rows = [(path, *values) for path, values in differing(reports)]
    if not rows:
        return "<h2>What differs between the recipes</h2><p>Nothing but the output folder.</p>"
    heads = ["", *(report.name for report in reports)]
    return f"<h2>What differs between the recipes</h2>{table(heads, rows, 'grid differences')}"


def _samples(reports: Sequence[Report]) -> str:
    parts = []
    for prompt, found in answers(reports).items():
        lines = "".join(
            f"<tr><th>{_chip(run) if len(reports) > 1 else ''}step {step:,}</th><td>{_answer(answer)}</td></tr>"
            for run, step, answer in sorted(found, key=lambda item: (item[1], item[0]))
        )
        parts.append(f'<p class="prompt">{text(prompt)}</p><table class="grid answer"><tbody>{lines}</tbody></table>')
    return f"<h2>Answers as training went on</h2>{''.join(parts)}" if parts else ""


def _answer(answer: str) -> str:
    return text(answer) if answer.strip() else '<span class="pale">(empty)</span>'


# --- one run ----------------------------------------------------------------------------------------------------------


def _run(run: int, report: Report, *, alone: bool) -> str:
    parts = [] if alone else [f"<h2>{_name(run, report)}</h2>"]
    parts += [f'<p class="why">{text(sentence)}</p>' for sentence in report.missing]
    parts += [*_ledger(report), *_split(report), *_exports(report), *_rows(report), *_details(report)]
    return f'<section class="run">{"".join(parts)}</section>'


def _ledger(report: Report) -> Iterator[str]:
    if not report.ledger:
        return
    yield "<h3>What became of the rows</h3>"
    yield table(LEDGER, ledger_rows(report.ledger), "grid ledger")
    for split, accounts in report.ledger.get("splits", {}).items():
        for account in accounts:
            lines = list(_reasons(account))
            if lines:
                yield _fold(f"Reasons: {split}, {account.get('source', '')}", table(("", "row"), lines))
    stops = report.ledger.get("stops") or {}
    learned = ", ".join(f"{stop} x {turns:,}" for stop, turns in stops.items()) or "none"
    engine = report.ledger.get("engine") or "none"
    yield f'<p class="pale">Turns end with: {text(learned)}. Tokenized by: {text(engine)}.</p>'


def _split(report: Report) -> Iterator[str]:
    heads, lines = split_rows(report)
    if lines:
        yield f"<h3>By source, role, part and tag; tags by name</h3>{table(heads, lines, 'grid split')}"


def _exports(report: Report) -> Iterator[str]:
    lines = list(export_rows(report.exports, report.state.steps))
    if lines:
        yield f"<h3>Exports, compared with the trained model</h3>{table(EXPORTS, lines, 'grid exports')}"


def _reasons(account: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (stage or kind, sentence) for each reason; a run before reasons were counted has its first rows."""
    for kind, groups in account.get("by_reason", {}).items():
        yield from ((kind, f"{item['rows']:,} rows, {', '.join(item['first'])} …: {item['reason']}") for item in groups)
    if "by_reason" not in account:
        yield from ((kind, line) for kind, found in account.get("reasons", {}).items() for line in found)


def _rows(report: Report) -> Iterator[str]:
    if report.rows:
        yield f"<h3>Rows as they were trained</h3>{legend()}"
        yield from map(row_html, report.rows)
    elif report.rows_note:
        yield f'<h3>Rows as they were trained</h3><p class="why">{text(report.rows_note)}</p>'


def _details(report: Report) -> Iterator[str]:
    if report.recipe:
        lines = [(path, value, report.origins.get(path, NOTHING)) for path, value in flat(report.recipe).items()]
        yield _fold("Recipe, and where each value comes from", table(("", "value", "from"), lines, "grid recipe"))
    if report.plugins:
        heads = ("name", "distribution", "version", "source", "sha256")
        lines_ = [tuple(str(plugin.get(head, "")) for head in heads) for plugin in report.plugins]
        yield _fold("Plugins", table(heads, lines_, "grid plugins"))
    if report.data:
        yield _fold("Data", table(("", ""), flat(report.data).items(), "grid data"))
    if report.environment:
        yield _fold("Environment", table(("", ""), flat(report.environment).items(), "grid environment"))
    if report.state.attempts:
        heads = ("started", "ended", "from_step", "state", "reason")
        tried = [tuple(str(attempt.get(head, NOTHING)) for head in heads) for attempt in report.state.attempts]
        yield _fold("Attempts", table(heads, tried))


def _fold(title: str, inside: str) -> str:
    return f"<details><summary>{text(title)}</summary><div>{inside}</div></details>"
