#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures inside the virtual machine, and leaves /out/<what>.json.

    guest.py clock MAIN_MIB SPARE_MIB RELOCATIONS DISTANCE [FIRST LENGTH]...
        One processor whose clock counts instructions.  /dev/vda is a spare for a main of MAIN_MIB
        on which RELOCATIONS blocks are relocated, DISTANCE blocks from one to the next; its
        metadata is in the parts that begin at byte FIRST.
    guest.py processors MAIN_MIB
        Two processors and the usual clock.

What is done at the moment is printed.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

BLOCK = 4096
SECTOR = 512

# Requests of a measurement, and of the shorter one that is taken off it with all that it takes to
# start and to end.
REQUESTS = 20000
FEW_REQUESTS = 1000

# Runs of a measurement may differ by this much.  What disturbs one only ever adds to it, so the
# lowest counts, and more are made until there are two that agree.
TOLERANCE = 0.001
MOST_RUNS = 8

# With two processors everything is measured so often, for so many seconds.
ROUNDS = 10
SECONDS = 1


def say(text):
    print(text, flush=True)


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with status {done.returncode}: {done.stdout}")
    return done.stdout


# --- Devices ---

def null_disk(name, size, **attributes):
    """Makes the disk /dev/NAME of `size` MiB; without memory unless told otherwise."""
    folder = pathlib.Path("/sys/kernel/config/nullb", name)
    folder.mkdir()
    settings = {"size": size, "blocksize": SECTOR, **attributes, "power": 1}
    for attribute, value in settings.items():
        (folder / attribute).write_text(str(value))
    return f"/dev/{name}"


def sectors(device):
    return int(run("blockdev", "--getsz", device))


def linear(name, below):
    run("dmsetup", "create", name, "--table", f"0 {sectors(below)} linear {below} 0")
    return mapped(name)


def remap(name, main, *spares):
    run("dmsetup", "create", name, "--table", remap_line(main, *spares))
    return mapped(name)


def remap_line(main, *spares):
    return f"0 {sectors(main)} remap {main} {len(spares)} {' '.join(spares)}"


def mapped(name):
    run("dmsetup", "mknodes")
    return f"/dev/mapper/{name}"


# --- Requests ---

def fio(device, direction, *options):
    """Sends random requests of 4 KiB to a device, and gives what fio says of each job."""
    output = run(
        "fio", "--name=requests", f"--filename={device}", f"--rw=rand{direction}", "--bs=4k",
        "--ioengine=io_uring", "--direct=1", "--iodepth=32", "--norandommap",
        "--output-format=json", *options,
    )
    # Lines about the commands of exec_prerun and exec_postrun stand before the JSON.
    report = json.loads(output[output.index("{\n"):])
    for job in report["jobs"]:
        if job["error"] != 0:
            sys.exit(f"requests to {device} failed: {os.strerror(job['error'])}")
    return [job[direction] for job in report["jobs"]]


def duration(device, direction, requests, options):
    """How many nanoseconds so many requests take, and a constant time more."""
    [job] = fio(
        device, direction, f"--number_ios={requests}", "--exec_prerun=date +%s%N",
        "--exec_postrun=date +%s%N", *options,
    )
    if job["total_ios"] != requests:
        sys.exit(f"fio sent {job['total_ios']} requests instead of {requests}")
    first, last = (int(pathlib.Path(f"requests.{when}run.txt").read_text()) for when in ("pre", "post"))
    return last - first


def steady(measure, agree):
    """The two lowest results of as many measurements as it takes until they agree."""
    results = []
    while len(results) < MOST_RUNS:
        results = sorted([*results, measure()])
        if len(results) >= 2 and agree(*results[:2]):
            break
    return results[:2]


def within(tolerance):
    """Whether a result is higher than the lowest by no more than this part of it."""
    return lambda lowest, other: other <= lowest * (1 + tolerance)


def cost(device, direction, *options):
    """What a request costs: by the lowest run, and by the one next to it."""

    def runs(requests):
        # The same time is nothing against the longer runs.
        agree = within(TOLERANCE * REQUESTS / requests)
        return steady(lambda: duration(device, direction, requests, options), agree)

    start = runs(FEW_REQUESTS)[0]
    return [(whole - start) / (REQUESTS - FEW_REQUESTS) for whole in runs(REQUESTS)]


class Costs:
    """What requests cost on several devices."""

    def __init__(self):
        self.table = []

    def measure(self, what, **devices):
        """Measures reads and writes on each of the devices: its path and options for fio."""
        for direction in ("read", "write"):
            costs = {name: cost(path, direction, *options) for name, (path, *options) in devices.items()}
            self.table.append({"what": what, "direction": direction, "costs": costs})
            say(f"{what}, {direction}: " + ", ".join(f"{name} {runs[0]:.1f}" for name, runs in costs.items()))


# --- Counting ---

def memory_used():
    """Bytes of memory that the kernel uses for itself."""
    for _ in range(2):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    kibibytes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return 1024 * sum(kibibytes[name] for name in ("Slab", "VmallocUsed", "Percpu", "PageTables"))


def writes_and_flushes(devices):
    """How many writes and flushes the devices have ended."""
    files = [pathlib.Path("/sys/block", os.path.basename(device), "stat") for device in devices]
    counts = [[int(word) for word in file.read_text().split()] for file in files]
    flushes = sum(count[15] for count in counts)
    # The kernel counts a flush, which has no data here, as a write too.
    return sum(count[4] for count in counts) - flushes, flushes


def relocation(spares):
    """How many writes and flushes it takes on all devices to relocate one block by message."""
    cached = {"memory_backed": 1, "cache_size": 1}
    names = ["idle", *(f"idle{number}" for number in range(spares))]
    devices = [null_disk(name, 64, **cached) for name in names]
    remap("relocating", *devices)
    # The first one may make metadata pages that the others find.
    run("dmsetup", "message", "relocating", 0, "add", 0)
    run("dmsetup", "message", "relocating", 0, "sync")
    before = writes_and_flushes(devices)
    run("dmsetup", "message", "relocating", 0, "add", 8000)
    run("dmsetup", "message", "relocating", 0, "sync")
    writes, flushes = (after - before for after, before in zip(writes_and_flushes(devices), before))
    run("dmsetup", "remove", "relocating")
    for name in names:
        os.rmdir(f"/sys/kernel/config/nullb/{name}")
    say(f"one relocation, {spares} spare(s): {writes} writes, {flushes} flushes")
    return {"spares": spares, "writes": writes, "flushes": flushes}


# --- The two machines ---

def clock(main_mib, spare_mib, relocations, distance, *parts):
    main = null_disk("main", main_mib)
    on_main = linear("linear", main)
    costs = Costs()

    say("warming up")
    cost(main, "read")
    cost(on_main, "read")
    blank = null_disk("blank", 64, memory_backed=1)
    empty = remap("empty", main, blank)
    costs.measure("no relocations", raw=[main], linear=[on_main], remap=[empty])
    run("dmsetup", "remove", "empty")

    # The spare keeps its metadata, so it needs memory, for which each request pays.  Its twin
    # shows how much.
    spare = null_disk("spare", spare_mib, memory_backed=1)
    twin = null_disk("twin", spare_mib, memory_backed=1)
    load(spare, parts)
    activation = {"none": activate("none", main, blank), "many": activate("many", main, spare)}
    # Device mapper makes every device, linear too, some 230 instructions cheaper when its table
    # is loaded once more, so this one is as new as those that it is compared with.
    many = remap("many", main, spare)

    step = distance * BLOCK
    relocated = f"--blockalign={step}", f"--size={relocations * step}"
    beside = *relocated, f"--offset={BLOCK}"
    # Random requests to all blocks that are not relocated: one in each range between two that are.
    healthy = (
        "--zonemode=strided", f"--offset={BLOCK}", f"--zonerange={step - BLOCK}",
        f"--zoneskip={BLOCK}", f"--zonesize={BLOCK}",
    )
    costs.measure("relocations elsewhere", linear=[on_main, *healthy], remap=[many, *healthy])
    costs.measure("relocation beside", linear=[on_main, *beside], remap=[many, *beside])
    if spare_blocks_used(many) != 0:
        sys.exit("requests that were meant for healthy blocks went to the spare")
    on_twin = linear("twin", twin)
    for device, options in ((many, relocated), (on_twin, ())):
        # What is written for the first time has its memory allocated.
        duration(device, "write", REQUESTS, options)
    costs.measure("relocated", linear=[on_twin], remap=[many, *relocated])
    run("dmsetup", "remove", "many")
    return {"costs": costs.table, "activation": activation, "relocation": [relocation(1), relocation(2)]}


def load(spare, parts):
    """Copies the metadata from /dev/vda to the spare."""
    with open("/dev/vda", "rb") as source, open(spare, "r+b") as target:
        for first, length in zip(parts[::2], parts[1::2]):
            source.seek(first)
            target.seek(first)
            target.write(source.read(length))
        target.flush()
        os.fsync(target.fileno())


def activate(name, main, spare):
    """Activates a device: what it takes of memory, and of time."""
    run("dmsetup", "create", name, "--notable")

    def load():
        run("dmsetup", "load", name, "--table", remap_line(main, spare))

    def resume():
        start = time.monotonic_ns()
        run("dmsetup", "resume", name)
        return time.monotonic_ns() - start

    def reload():
        load()
        return resume()

    load()
    before = memory_used()
    resume()
    used = memory_used() - before
    durations = steady(reload, within(TOLERANCE))
    run("dmsetup", "remove", name)
    say(f"activating {name}: {durations[0]} ns, {used} bytes")
    return {"nanoseconds": durations, "bytes": used}


def spare_blocks_used(device):
    words = dict(word.split("=") for word in run("dmsetup", "status", device).split() if "=" in word)
    return int(words["spare_reads"]) + int(words["spare_writes"])


def processors(main_mib):
    main = null_disk("main", main_mib, submit_queues=2)
    devices = {
        "linear": linear("linear", main),
        "remap": remap("remap", main, null_disk("blank", 64, memory_backed=1)),
    }
    say("warming up")
    for device in devices.values():
        rate(device, 2)
    rates = {name: {1: [], 2: []} for name in devices}
    for number in range(ROUNDS):
        for jobs in (1, 2):
            for name, device in devices.items():
                rates[name][jobs].append(rate(device, jobs))
        best = {name: max(runs[2]) / max(runs[1]) for name, runs in rates.items()}
        say(f"round {number + 1} of {ROUNDS}: " + ", ".join(f"{name} {factor:.3f}" for name, factor in best.items()))
    return {"rates": rates}


def rate(device, jobs):
    """Requests in a second that so many jobs make, each on its own processor."""
    done = fio(
        device, "read", "--time_based", f"--runtime={SECONDS}", f"--numjobs={jobs}",
        "--cpus_allowed=0,1", "--cpus_allowed_policy=split",
    )
    return sum(job["iops"] for job in done)


def main():
    machines = {"clock": clock, "processors": processors}
    name, *arguments = sys.argv[1:]
    run("modprobe", "null_blk", "nr_devices=0")
    run("modprobe", "dm-mod")
    run("insmod", "/dm-remap.ko")
    os.chdir("/tmp")
    result = machines[name](*map(int, arguments))
    result["kernel"] = os.uname().release
    pathlib.Path("/out").mkdir(exist_ok=True)
    pathlib.Path("/out", f"{name}.json").write_text(json.dumps(result))


main()
