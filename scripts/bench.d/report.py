#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes a table, and one JSON file, of what guest.py has measured.

    report.py CLOCK.json PROCESSORS.json RELOCATIONS MAIN_MIB OUTPUT.json
"""

import json
import sys

# What each cost may be above that of linear, in percent.
LIMITS = {"no relocations": 0.5, "relocations elsewhere": 1.0, "relocation beside": None, "relocated": 3.0}
ACTIVATION_NS = 10**9
RELOCATION_BYTES = 24
# Memory that may be used for each part of main of this size, whatever is relocated.
BYTES_FOR_MAIN, MAIN_BYTES = 64 * 1024, 20 * 10**12
RELOCATION_WRITES, RELOCATION_FLUSHES = 4, 3
FACTOR_PERCENT = 2.0


def judge(value, limit):
    if limit is None:
        return "-"
    return "ok" if value <= limit else "over"


def cost_rows(costs):
    """A row for each kind of request and direction."""
    # A spare keeps its metadata, so it must have memory, and requests to it cost more for that.
    # They are compared with linear on such a disk, but in percent of linear on one without.
    base = {cost["direction"]: cost["costs"]["linear"][0] for cost in costs if "raw" in cost["costs"]}
    for cost in costs:
        what, direction = cost["what"], cost["direction"]
        runs = cost["costs"]
        difference = runs["remap"][0] - runs["linear"][0]
        percent = 100 * difference / min(base[direction], runs["linear"][0])
        yield {
            "what": what,
            "direction": direction,
            "raw": runs.get("raw", [None])[0],
            "linear": runs["linear"][0],
            "remap": runs["remap"][0],
            "difference": difference,
            "percent": percent,
            "limit_percent": LIMITS[what],
            "verdict": judge(percent, LIMITS[what]),
            "repeat_percent": max(100 * (other / lowest - 1) for lowest, other in runs.values()),
        }


def other_rows(clock, processors, relocations, main_mib):
    """Rows of what is not a request's cost: name, value, limit, verdict."""
    none, many = clock["activation"]["none"], clock["activation"]["many"]
    yield f"activation with {relocations:,} relocations, s", many["nanoseconds"][0] / 1e9, ACTIVATION_NS / 1e9
    fixed = BYTES_FOR_MAIN * main_mib * 2**20 / MAIN_BYTES
    yield "memory for each of them, bytes", (many["bytes"] - none["bytes"] - fixed) / relocations, RELOCATION_BYTES
    for count in clock["relocation"]:
        where = f"one relocation by message, {count['spares']} spare(s)"
        yield f"{where}: writes", count["writes"], RELOCATION_WRITES
        yield f"{where}: flushes", count["flushes"], RELOCATION_FLUSHES
    # What disturbs a run only ever makes it slower, so the fastest counts.
    factors = {name: max(runs["2"]) / max(runs["1"]) for name, runs in processors["rates"].items()}
    for name, factor in factors.items():
        yield f"two processors against one, {name}: factor", factor, None
    yield "remap's factor below that of linear, percent", 100 * (1 - factors["remap"] / factors["linear"]), FACTOR_PERCENT


def show(costs, others):
    print("Nanoseconds, which are instructions, for a request of 4 KiB at depth 32:\n")
    line = "{:<22} {:<5} {:>8} {:>8} {:>8} {:>7} {:>8} {:>7}  {:<4} {:>8}"
    print(line.format("", "", "raw", "linear", "remap", "more", "percent", "limit", "", "repeat"))
    for row in costs:
        limit = row["limit_percent"]
        print(line.format(
            row["what"], row["direction"],
            "" if row["raw"] is None else f"{row['raw']:.0f}", f"{row['linear']:.0f}", f"{row['remap']:.0f}",
            f"{row['difference']:+.0f}", f"{row['percent']:+.2f}",
            "" if limit is None else f"{limit:+.1f}", row["verdict"], f"{row['repeat_percent']:.3f}%",
        ))
    print("\nrelocated: on a spare with memory, so its linear is too; percent of linear without memory.")
    print("repeat: how far the run next to the lowest was above it.\n")
    for row in others:
        limit = "" if row["limit"] is None else f"at most {row['limit']:g}"
        print(f"{row['what']:<58} {row['value']:>9.2f}  {limit:<12} {row['verdict']}")


def main():
    clock_path, processors_path, relocations, main_mib, output = sys.argv[1:]
    with open(clock_path) as clock_file, open(processors_path) as processors_file:
        clock, processors = json.load(clock_file), json.load(processors_file)
    costs = list(cost_rows(clock["costs"]))
    others = [
        {"what": what, "value": value, "limit": limit, "verdict": judge(value, limit)}
        for what, value, limit in other_rows(clock, processors, int(relocations), int(main_mib))
    ]
    show(costs, others)
    result = {"kernel": clock["kernel"], "costs": costs, "others": others, "clock": clock, "processors": processors}
    with open(output, "w") as output_file:
        json.dump(result, output_file, indent=1)
        output_file.write("\n")


main()
