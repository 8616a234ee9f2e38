"""The section of the page on ELM's tasks: semantic consistency of each, row by row."""

import pathlib

import elm_tasks
from page_parts import column, scrolling, tests_table, with_all, worlds_of
from page_real import LABELS

MEASURED = "semantic"


def tasks_section(kept: pathlib.Path) -> str:
    """What rows write of held-out items for each task; empty where there are no receipts."""
    worlds = worlds_of(kept / elm_tasks.FOLDER.name)
    rows = {row: f"all_{row}" for row in elm_tasks.ElmTasks.rows}
    rows = {row: name for row, name in rows.items() if any(name in c for c in worlds.values())}
    same = with_all(worlds, rows.values())
    if not rows or not same:
        return ""
    found = {row: column(same, name) for row, name in rows.items()}
    lines = []
    for task in elm_tasks.TASKS:
        metrics = (elm_tasks.of_task(cells, task, MEASURED) for cells in found.values())
        cells = "".join(f"<td>{metric.mean:.3f}</td>" for metric in metrics)
        lines.append(f"<tr><td>{task.replace('_', ' ')}</td>{cells}</tr>")
    means = (elm_tasks.over_tasks(cells, MEASURED).mean() for cells in found.values())
    over = (f"<td>{mean:.3f}</td>" for mean in means)
    lines.append(f"<tr><td><strong>mean</strong></td>{''.join(over)}</tr>")
    head = "".join(f"<th>{LABELS[row]}</th>" for row in found)
    body = "\n".join(lines)
    tested = [
        (f"{LABELS[one]} less {LABELS[other]}", *elm_tasks.compared(one, other, found, MEASURED))
        for one, other in elm_tasks.PAIRED
        if found.keys() >= {one, other}
    ]
    return "\n".join(
        [
            f"<p>Stage 2 read texts of all {len(elm_tasks.TASKS)} tasks about items, composed from "
            "what is known of them, and wrote about held-out items. A sentence encoder compares "
            "what was written with the reference: 0 is as near as the references of other items, 1 "
            f"the same meaning. Toy worlds, each with a seed of its own: {len(same)}.</p>",
            scrolling(
                f"<table><thead><tr><th>task</th>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
            ),
            tests_table("mean over tasks", tested, "consistency"),
        ]
    )
