"""The table that people read."""

import time
from statistics import median


def of(costs, what):
    return median(getattr(cost, what) for cost in costs)


def entry(row, costs):
    """One tool's numbers in words."""
    if row.unit == "share":
        return f"{of(costs, 'value'):.2f}"
    spread = sorted(cost.seconds for cost in costs)
    return f"{of(costs, 'seconds'):.2f} s ({spread[0]:.2f} to {spread[-1]:.2f})"


def ratio(row, costs, ours):
    """Our time as a share of theirs: below 1 is faster (for transactions kept: above 1 is better)."""
    if ours is None:
        return ""
    what = "value" if row.unit == "share" else "seconds"
    theirs = of(costs, what)
    return f"{of(ours, what) / theirs:.2f}" if theirs else ""


def table(measured):
    row, tools, costs = measured
    ours = next((costs[tool.name] for tool in tools if tool.name.startswith("everpoint")), None)
    lines = []
    for tool in tools:
        own = costs[tool.name]
        lines.append((
            tool.name, entry(row, own), ratio(row, own, ours), f"{of(own, 'cpu'):.1f} s" if of(own, "cpu") else "",
            f"{of(own, 'stored') / 1e6:.0f} MB" if of(own, "stored") else "",
            f"{of(own, 'memory') / 2**20:.0f} MiB" if of(own, "memory") else "",
            "; ".join(own[-1].notes),
        ))
    return lines


def as_text(measured):
    row = measured[0]
    return "\n".join([f"  {row.title}", *("    " + "  ".join(f"{cell:<26}" for cell in line if cell) for line in table(measured))])


def write(path, world, results, options):
    """Writes the report."""
    out = [
        "# Measurements", "",
        f"Made by `bench/run --scale {options.scale} --runs {options.runs}` on {time.strftime('%Y-%m-%d', time.gmtime())}. "
        "Medians of interleaved runs, with the fastest and the slowest; warm page cache. The ratio is Everpoint's number "
        "divided by that of the line: below 1 means that Everpoint took less time. CPU and memory are those of the tool "
        "with its children, not of the server; memory is the highest sum seen, shared pages counted once.", "",
        *(f"- {line}" for line in world.machine.describe()),
        f"- data: pgbench scale {world.scale}, {world.rows} rows of text, jsonb and uuid, {world.tables} small tables: "
        f"{world.data_bytes / 1e9:.2f} GB in {world.data_files} files", "",
    ]
    for measured in results:
        row, tools, _ = measured
        first = "share kept" if row.unit == "share" else "time"
        out += [f"## {row.title[0].upper()}{row.title[1:]}", "",
                f"| tool | {first} | ratio | CPU | repository | memory | |", "|---|---|---|---|---|---|---|"]
        out += ["| " + " | ".join(line) + " |" for line in table(measured)]
        out += ["", *(f"- {tool.name}: `{tool.commands[row.command]}`" for tool in tools if row.command in tool.commands), ""]
    path.write_text("\n".join(out))
