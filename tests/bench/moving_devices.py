# SPDX-License-Identifier: Apache-2.0
"""Migrations of a VM whose devices have much state: what PRE_COPY saves of the pause, and how
fast the state moves. README.md says how it is measured."""
import contextlib
import statistics

import measure
import moving

DEVICES, STATE_MIB, RAM_MIB = 4, 100, 128
# Slow enough that nothing but the channel is what the state waits for.
LIMIT = 128 << 20
WAYS = {"PRE_COPY": ("--migration=v2", f"--state-initial={STATE_MIB}M"), "stop-and-copy": ("--migration=stop-copy+p2p",)}


def migrate(build, way, **more):
    """What vm.migration says of the migration by TCP."""
    probe, arrival = moving.suite(build)
    from testdev import Driver, Server  # pylint: disable=import-outside-toplevel
    with measure.folder() as folder, contextlib.ExitStack() as stack:
        sides = {}
        for side in ("here", "there"):
            sides[side] = [Server(folder, *WAYS[way], "--dirty=log", f"--state-size={STATE_MIB}M", name=f"{side}{n}")
                           for n in range(DEVICES)]
            for server in sides[side]:
                stack.callback(server.end)
        options = [word for n, s in enumerate(sides["here"]) for word in ("--user-device", f"socket={s.socket},id=dev{n}")]
        vm = stack.enter_context(probe.Probe(*options, memory=f"{RAM_MIB}M"))
        to = stack.enter_context(arrival.Arrival())
        assert all(Driver(vm, f"dev{n}").alive() for n in range(DEVICES))
        to.listen(f"tcp:127.0.0.1:{moving.free_port()}",
                  user_devices=[{"id": f"dev{n}", "socket": s.socket} for n, s in enumerate(sides["there"])])
        # Stop-and-copy takes as long as it takes.
        vm.put("vm.send-migration", {"destination_url": to.url, "downtime_ms": 300 if way == "PRE_COPY" else 60000, **more},
               timeout=moving.TIMEOUT)
        to.arrived()
        assert all(Driver(to, f"dev{n}").alive() for n in range(DEVICES))
        progress = vm.get("vm.migration")
        assert sum(d["bytes"] for d in progress["devices"]) >= DEVICES * STATE_MIB << 20
        return progress


def figures(build, options, report):
    found = {way: [] for way in WAYS}
    for _ in range(options.move_rounds):
        for way, progress in found.items():
            progress.append(migrate(build, way))
    of = {way: lambda field, way=way: statistics.median(field(p) for p in found[way]) for way in WAYS}
    values = lambda field: {"ferry": of["PRE_COPY"](field), "stop-and-copy": of["stop-and-copy"](field)}
    what = f"migration with {DEVICES * STATE_MIB} MiB of state in {DEVICES} devices"
    report.add(f"{what}: downtime", "ms", values(lambda p: p["downtime_us"]["total"] / 1000), most_ratio=0.25,
               rival="stop-and-copy")
    report.add(f"{what}: total time", "ms", values(lambda p: p["elapsed_ms"]), most_ratio=1, rival="stop-and-copy")
    limited = [migrate(build, "PRE_COPY", bandwidth=LIMIT) for _ in range(options.move_rounds)]
    rate = statistics.median(p["transferred_bytes"] / p["elapsed_ms"] / 1000 for p in limited)
    report.add(f"{what}: rate, through a channel of {LIMIT >> 20} MiB/s", "MB/s",
               {"ferry": rate, "channel": LIMIT / 1e6}, least_ratio=0.9, rival="channel")
    # Without a limit: what the same bytes take between two sockets, as many of them.
    report.add(f"{what}: rate, unlimited", "GB/s",
               {"ferry": of["PRE_COPY"](lambda p: p["transferred_bytes"] / p["elapsed_ms"] / 1e6),
                "iperf3": statistics.median(moving.iperf(DEVICES * STATE_MIB, DEVICES) for _ in range(options.move_rounds))})
