#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures inside the virtual machine what a background pass costs those who use the device
meanwhile, prints a table and leaves /out/scan.json.

    scan.py REQUESTS ROUNDS

Main is a disk that carries out one request at a time, in a fixed time.  Random reads of 4 KiB
come at random moments, as a Poisson process, so that the disk is busy for a part of the time.
In each round the same requests come twice at the same moments: without a pass, and while one runs.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

MAIN_MIB = 1 << 20
SPARE_MIB = 64

# How long the disk takes for a request, in microseconds, and for which part of the time those of
# others keep it busy, in percent.
REQUEST_US = 8000
LOADS = (20, 40, 60)

# How many jobs share the load.
JOBS = 25

# The percentiles that are shown.
PARTS = (50, 99)

# By how much of itself the 99th percentile may grow.
LIMIT = 0.05


def say(text):
    print(text, flush=True)


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with status {done.returncode}: {done.stdout}")
    return done.stdout


def null_disk(name, size, **attributes):
    """Makes the disk /dev/NAME of `size` MiB; without memory unless told otherwise."""
    folder = pathlib.Path("/sys/kernel/config/nullb", name)
    folder.mkdir()
    for attribute, value in {"size": size, "blocksize": 512, **attributes, "power": 1}.items():
        (folder / attribute).write_text(str(value))
    return f"/dev/{name}"


def remap(name, main, spare):
    sectors = int(run("blockdev", "--getsz", main))
    run("dmsetup", "create", name, "--table", f"0 {sectors} remap {main} 1 {spare} 2 scan_interval 0")
    run("dmsetup", "mknodes")
    return f"/dev/mapper/{name}"


def message(name, *words):
    run("dmsetup", "message", name, 0, *words)


def position(name):
    words = dict(word.split("=") for word in run("dmsetup", "status", name).split() if "=" in word)
    return int(words["scan_pos"])


def reads(device, rate, requests, seed):
    """Reads at random moments, `rate` times a second, and gives the times that these took."""
    # Each of many jobs reads now and then, so that a read hardly ever waits for the one before it of the
    # same job, and fio looks at once when it has ended.
    report = json.loads(run(
        "fio", "--name=reads", f"--filename={device}", "--rw=randread", "--bs=4k", "--direct=1",
        "--ioengine=psync", "--thread", f"--numjobs={JOBS}", "--group_reporting", "--norandommap",
        f"--runtime={requests // rate}", "--time_based", f"--rate_iops={rate // JOBS}",
        "--rate_process=poisson", f"--randseed={seed}", "--write_lat_log=reads", "--output-format=json",
    ))
    [job] = report["jobs"]
    if job["error"] != 0:
        sys.exit(f"reads of {device} failed: {os.strerror(job['error'])}")
    lines = [line for log in pathlib.Path().glob("reads_lat.*.log") for line in log.read_text().splitlines()]
    # All jobs begin and end at once, with a read each, so the beginning and the end do not count.  fio's own
    # percentiles are exact to 1.6 percent only.
    ended = (tuple(map(int, line.split(",")[:2])) for line in lines)
    milliseconds = requests * 1000 // rate
    times = sorted(took for when, took in ended if 0.05 < when / milliseconds < 0.95)
    percentile = {part: times[len(times) * part // 100] / 1000 for part in PARTS}
    return {"seconds": job["read"]["runtime"] / 1000, "percentile": percentile}


def with_pass(name, *what):
    """The same while a pass runs, and how much the pass has read meanwhile."""
    message(name, "scan", "start")
    before = position(name)
    result = reads(*what)
    result["kib"] = (position(name) - before) // 2
    message(name, "scan", "stop")
    return result


def measure(name, load, requests, rounds):
    """Prints what each of the rounds gives."""
    rate = load * 10000 // REQUEST_US
    results = []
    for seed in range(1, rounds + 1):
        what = f"/dev/mapper/{name}", rate, requests, seed
        results.append({"without": reads(*what), "with": with_pass(name, *what)})
        show(load, seed, results[-1])
    growth = {part: statistics.median(more(result, part) for result in results) for part in PARTS}
    return {"load_percent": load, "rate": rate, "rounds": results, "growth": growth}


def more(result, part):
    """By how much of itself a percentile is larger with a pass."""
    return result["with"]["percentile"][part] / result["without"]["percentile"][part] - 1


LINE = "{:>5} {:>6}  {:>11} {:>11} {:>7}  {:>11} {:>11} {:>7}  {:>12}"


def show(load, seed, result):
    cells = []
    for part in PARTS:
        cells += [f"{result[which]['percentile'][part]:.0f}" for which in ("without", "with")]
        cells.append(f"{100 * more(result, part):+.2f}%")
    speed = result["with"]["kib"] / result["with"]["seconds"]
    say(LINE.format(f"{load}%", seed, *cells, f"{speed:.0f} KiB/s"))


def main():
    requests, rounds = map(int, sys.argv[1:])
    run("modprobe", "null_blk", "nr_devices=0")
    run("insmod", "/dm-remap.ko")
    os.chdir("/tmp")
    disk = {"irqmode": 2, "completion_nsec": 1000 * REQUEST_US, "hw_queue_depth": 1, "submit_queues": 1}
    remap("remap", null_disk("main", MAIN_MIB, **disk), null_disk("spare", SPARE_MIB, memory_backed=1))
    say(f"Microseconds for a random read of 4 KiB on a disk that takes {REQUEST_US} for each:\n")
    say(LINE.format("load", "round", "p50 without", "with a pass", "more", "p99 without", "with a pass", "more", "the pass"))
    results = [measure("remap", load, requests, rounds) for load in LOADS]
    say("\nThe median over the rounds, of which each has the same reads with a pass and without:\n")
    for result in results:
        growth = [f"p{part} {100 * result['growth'][part]:+.2f}%" for part in PARTS]
        say(f"{result['load_percent']}%: {', '.join(growth)}")
    worst = max(result["growth"][99] for result in results)
    say(f"\nThe 99th percentile grows by {100 * worst:.2f}% at most, {100 * LIMIT:g}% are allowed: "
        f"{'ok' if worst <= LIMIT else 'TOO MUCH'}.")
    pathlib.Path("/out").mkdir(exist_ok=True)
    pathlib.Path("/out/scan.json").write_text(json.dumps({"kernel": os.uname().release, "loads": results}))


main()
