"""When the alerts of deploy/alerts.yml ring over what was measured: asked of promtool."""

import os
import re
import subprocess

# As deploy/prometheus.yml has it.
SCRAPE = 15
# How long all was well before, and is again afterwards.
CALM = 20 * 60
PROVEN = "archiver_last_proven_timestamp_seconds"
OLDEST = "archiver_oldest_pending_age_seconds"
RUN = "archiver_run_seconds"
NAMES = [
    "archiver_build_info", "archiver_running", "archiver_paused", "archiver_trouble", "archiver_backlog_files",
    "archiver_given_up_rows", OLDEST, PROVEN, RUN,
]


def stretched(samples, end, lasts):
    """The samples of a trouble that ended at `end`, as if it had lasted so long: its last one goes on until then. Before
    and behind them it is as it was at first and at last. Each is a time from 0 and its figures."""
    first, last = samples[0], samples[-1]
    begin = first["time"]
    frozen = max((sample for sample in samples if sample["time"] <= end), key=lambda sample: sample["time"])
    more = max(0.0, lasts - (end - begin))
    grid = []
    for at in range(0, int(CALM + (last["time"] - begin) + more + CALM), SCRAPE):
        real = begin + at - CALM
        if real < begin:
            values = figures(first, proven=real - begin)
        elif real <= frozen["time"]:
            values = figures(nearest(samples, real))
        elif real <= frozen["time"] + more:
            values = figures(frozen, aged=real - frozen["time"])
        elif real - more <= last["time"]:
            then = nearest(samples, real - more)
            anew = proven_at(then) > proven_at(frozen)
            values = figures(then, proven=more if anew else 0.0)
        else:
            values = figures(last, proven=real - last["time"])
        grid.append((at, shifted(values, begin - CALM)))
    return grid


def nearest(samples, time):
    return min(samples, key=lambda sample: abs(sample["time"] - time))


def proven_at(sample):
    return max((value for name, value in sample["metrics"].items() if name.startswith(PROVEN)), default=0.0)


def figures(sample, aged=0.0, proven=0.0):
    """Its metrics; what waits has waited `aged` seconds longer, and the last proof was `proven` seconds later."""
    values = {name: value for name, value in sample["metrics"].items() if name.split("{")[0] in NAMES}
    for name in values:
        if name.startswith((OLDEST, RUN)) and values[name] > 0:
            values[name] += aged
        if name.startswith(PROVEN):
            values[name] += proven
    return values


def shifted(values, origin):
    """promtool's clock begins at 0."""
    moved = lambda name, value: value - origin if name.startswith(PROVEN) else value
    return {name: moved(name, value) for name, value in values.items()}


def firing(grid, folder):
    """Which alerts ring when: for each, the seconds of the grid at which it does."""
    rules = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "deploy/alerts.yml")
    names = sorted({name for _, values in grid for name in values})
    lines = [f"rule_files: [{rules}]", f"evaluation_interval: {SCRAPE}s", "tests:", f"  - interval: {SCRAPE}s", "    input_series:"]
    for name in names:
        values = " ".join(str(values[name]) if name in values else "_" for _, values in grid)
        lines += [f"      - series: '{name}'", f"        values: '{values}'"]
    lines.append("    promql_expr_test:")
    for at, _ in grid:
        lines += ["      - expr: 'ALERTS{alertstate=\"firing\"}'", f"        eval_time: {at}s"]
    path = f"{folder}/alerts-of-the-night.yml"
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    said = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    found, at = {}, None
    for line in (said.stdout + said.stderr).splitlines():
        if time := re.search(r"time: ([^,]+),", line):
            at = seconds(time[1])
        elif line.strip().startswith("got:"):
            for name in re.findall(r'alertname="([^"]+)"', line):
                found.setdefault(name, []).append(at)
        elif "error" in line.lower():
            raise RuntimeError(line)
    return found


def seconds(text):
    """Of 1h2m3s."""
    units = {"h": 3600, "m": 60, "s": 1, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))
