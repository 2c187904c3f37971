#!/usr/bin/python3
"""Figures of bench.py for people: tables in Markdown, and plots. As a program it puts those of a file of figures into the
documents: bench/figures.py build/bench.json docs"""
import json
import pathlib
import sys

BEGIN, END = "<!-- figures: written by bench/figures.py -->\n", "<!-- end of figures -->\n"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 260, 64, 44, 34, 16
COLOURS = ["#1f5fa8", "#c2571a", "#3d7d3a"]


def lines_of(head, rows):
    parts = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in parts) + "\n"


def three(times):
    return " / ".join(f"{times[part]:.0f}" for part in ("p50", "p95", "p99"))


def plug_row(name, row):
    return [name, three(row["daemon"]["bytes"]), three(row["floor"]["bytes"]), row["ratio"]["bytes"],
            three(row["daemon"]["attached"]), three(row["floor"]["attached"]), row["ratio"]["attached"],
            f"{row['daemon']['cpu']:.0f}", row["daemon"]["memory"]]


def plug_table(name, rows):
    head = [name, "`device_add`, µs", "floor", "ratio", "attached, µs", "floor", "ratio", "CPU, µs", "memory, KiB"]
    return lines_of(head, rows)


def burst_table(bursts):
    rows = []
    for burst in bursts:
        start, once, floor = burst["start"], burst["once"], burst["floor"]
        rows.append([burst["devices"], f"{start['us'] / 1000:.1f}", start["connections"], start["commands"],
                     f"{once['us'] / 1000:.1f}", once["connections"], once["commands"],
                     f"{floor['us'] / 1000:.1f}", floor["connections"], floor["commands"]])
    return lines_of(["devices", "at the start, ms", "connections", "commands", "at once, ms", "connections", "commands",
                     "floor, ms", "connections", "commands"], rows)


def other_rows(found):
    start, idle = found["start"], found["idle"]
    yield ["start until ready, p50 / p95", f"{start['daemon']['p50'] / 1000:.1f} / {start['daemon']['p95'] / 1000:.1f} ms",
           f"{start['floor']['p50'] / 1000:.1f} / {start['floor']['p95'] / 1000:.1f} ms"]
    yield ["private memory, one VM, one rule, after the plugs",
           *(f"{found['rules'][0][who]['memory']} KiB written" for who in ("daemon", "floor"))]
    for row in found["memory"]:
        yield [f"private memory, {row['devices']} devices in 16 VMs",
               f"{row['kib']} KiB written, {row['files']} KiB of files", "–"]
    yield [f"context switches in {idle['seconds']} idle seconds", idle["switches"], "–"]
    yield [f"CPU in {idle['seconds']} idle seconds", f"{idle['cpu']} s", "–"]
    sizes = found["sizes"]
    yield ["the program, stripped"] + [f"{sizes[name]['program'] / 1024:.0f} KiB" for name in ("daemon", "floor")]
    yield ["all libraries it needs"] + [f"{sizes[name]['libraries'] / 1024:.0f} KiB" for name in ("daemon", "floor")]
    yield ["of these not in the smallest Debian"] + [
        ", ".join(f"{library} {size / 1024:.0f} KiB" for library, size in sorted(sizes[name]["added"].items())) or "none"
        for name in ("daemon", "floor")]


def percents(parts):
    return " / ".join(f"{parts[part] * 100:.0f}" for part in ("p50", "p95", "p99"))


def lab_table(lab):
    """Shares and ratios alone: times of an emulated machine are none."""
    if "missing" in lab:
        return f"Real plugs in the lab were not measured: {lab['missing']}.\n"
    names = {"floor": "floor, scripted VM", "daemon": "vhotplug, scripted VM", "qemu": "vhotplug, real QEMU"}
    rows = [[name, lab[who]["plugs"], percents(lab[who]["share"]["udevd"]), percents(lab[who]["share"]["own"]),
             percents(lab[who]["share"]["vm"]) if who == "qemu" else "–"] for who, name in names.items()]
    ways = {"bytes": "from udevd's event to `device_add`", "attached": "from udevd's event to attached"}
    return "\n".join([
        f"Real plugs in the lab, measured on {lab['date']} in {lab['minutes']} minutes, load {lab['load']} before and "
        f"{lab['load_after']} after: shares of the way from the kernel's event until the attach was told, and how many "
        "times as long as the floor, each p50 / p95 / p99.\n",
        lines_of(["real plugs", "plugs", "until udevd's event, %", "then the program, %", "QEMU answers `device_add`, %"], rows),
        lines_of(["of the floor's time, scripted VM", "p50", "p95", "p99"],
                 [[name, *lab["ratio"][way].values()] for way, name in ways.items()])])


def table(found):
    """All figures as Markdown."""
    machine = found["machine"]
    rules = [plug_row(row["rules"], row) for row in found["rules"]]
    vms = [plug_row(f"{row['vms']}, {row['hanging']}", row) for row in found["vms"]]
    return "\n".join([
        f"Measured on {found['date']}: {machine['processors']} processors ({machine['model']}), {machine['system']}, "
        f"Linux {machine['kernel']}, load {machine['load']} before and {machine['load_after']} after. {found['plugs']} "
        "plugs each; times are p50 / p95 / p99; ratios are of p50.\n",
        plug_table("rules", rules), plug_table("VMs, of which hang", vms), burst_table(found["bursts"]),
        lines_of(["", "vhotplug", "floor"], other_rows(found)), lab_table(found["lab"])])


# ---- plots

def ticks(top):
    """Round numbers from 0 to at least TOP, about five."""
    step = 10 ** len(str(int(top / 5))) / 10 if top >= 5 else 1
    while top / step > 6:
        step *= 2 if top / step <= 12 else 2.5
    return [step * i for i in range(int(top / step) + 2)]


def text(x, y, words, anchor="middle", size=11):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{words}</text>'


def plot(title, axis, names, series):
    """SVG of SERIES {name: [value at each of NAMES]}, which stand at equal distances."""
    marks = ticks(max(value for values in series.values() for value in values))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    xs = [LEFT + width * (i + 0.5) / len(names) for i in range(len(names))]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', text(WIDTH / 2, 16, title, size=13)]

    def y_of(value):
        return TOP + height * (1 - value / marks[-1])
    for mark in marks:
        y = y_of(mark)
        parts += [f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>',
                  text(LEFT - 6, y + 4, f"{mark:,.10g}", "end")]
    parts += [text(x, HEIGHT - BOTTOM + 16, name) for x, name in zip(xs, names)]
    parts.append(text(LEFT + width / 2, HEIGHT - 8, axis))
    for i, (name, values) in enumerate(series.items()):
        points = " ".join(f"{x:.1f},{y_of(value):.1f}" for x, value in zip(xs, values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[i]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y_of(value):.1f}" r="3" fill="{COLOURS[i]}"/>' for x, value in zip(xs, values)]
        parts.append(f'<text x="{LEFT + 8 + 130 * i}" y="{TOP - 4}" font-size="11" fill="{COLOURS[i]}">{name}</text>')
    return "\n".join(parts) + "\n</svg>\n"


def plug_plot(title, axis, names, rows):
    return plot(title, axis, names, {"p50": [row["daemon"]["bytes"]["p50"] for row in rows],
                                     "CPU, with unplug": [row["daemon"]["cpu"] for row in rows],
                                     "floor, p50": [row["floor"]["bytes"]["p50"] for row in rows]})


def plots(found):
    """{name: SVG}"""
    rules, vms, bursts, memory = (found[name] for name in ("rules", "vms", "bursts", "memory"))
    counts = [burst["devices"] for burst in bursts]
    hanging = [f"{row['vms']} ({row['hanging']})" for row in vms]
    return {
        "rules": plug_plot("Event to device_add, µs", "rules", [row["rules"] for row in rules], rules),
        "vms": plug_plot("Event to device_add, µs", "VMs (of which hang)", hanging, vms),
        "bursts": plot("Devices for one VM, ms until all are in it", "devices", counts, {
            "at the start": [burst["start"]["us"] / 1000 for burst in bursts],
            "at once": [burst["once"]["us"] / 1000 for burst in bursts],
            "floor, at once": [burst["floor"]["us"] / 1000 for burst in bursts]}),
        "commands": plot("QMP commands until all are in it", "devices", counts, {
            "at the start": [burst["start"]["commands"] for burst in bursts],
            "at once": [burst["once"]["commands"] for burst in bursts],
            "floor, at once": [burst["floor"]["commands"] for burst in bursts]}),
        "memory": plot("Private memory, KiB", "devices, in 16 VMs", [row["devices"] for row in memory],
                       {"daemon": [row["kib"] for row in memory]}),
        "memory-rules": plot("Private memory, KiB", "rules", [row["rules"] for row in rules],
                             {"daemon": [row["daemon"]["memory"] for row in rules]}),
        "memory-vms": plot("Private memory, KiB", "VMs (of which hang)", hanging,
                           {"daemon": [row["daemon"]["memory"] for row in vms]}),
    }


def publish(found, documents):
    page = documents / "benchmarks.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + "\n" + table(found) + "\n" + END + after)
    for name, svg in plots(found).items():
        (documents / f"benchmark-{name}.svg").write_text(svg)


if __name__ == "__main__":
    publish(json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2]))
