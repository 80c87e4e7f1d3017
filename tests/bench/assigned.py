# SPDX-License-Identifier: Apache-2.0
"""The part of the bench with a virtual function of a network card, in the lab's host (L1)."""
import json
import os
import re
import socket
import statistics
import subprocess

import measure

VF_MIB = 1024
# The PF's interface in L1 and the guest's VF.
HOST, GUEST = "192.168.91.1", "192.168.91.2"
MACHINE = "microvm,rtc=on,acpi=on,pcie=on"
HUGEPAGES = "/proc/sys/vm/nr_hugepages"


def ferry_device(path):
    return ["--device", f"path={path},id=vf0"]


def qemu_device(path):
    return ["-object", "iommufd,id=iommufd", "-device",
            f"vfio-pci,host={os.path.basename(path)},iommufd=iommufd"]


DEVICE = {"ferry": ferry_device, "qemu": qemu_device}


def make_vf(lab):
    path, _, _, interface = lab("vf", "igb").splitlines()[0].split()
    subprocess.run(["ip", "addr", "replace", f"{HOST}/24", "dev", interface], check=True)
    return path


def start(vmm, path, hugepages, folder, first):
    """ms from exec to the first instruction of a guest with 1 GiB; path None: without a VF."""
    more = DEVICE[vmm.name](path) if path else []
    guest = {"kernel": first, "mib": VF_MIB, "more": more}
    if vmm.name == "qemu":
        guest["machine"] = MACHINE
        if hugepages:
            guest["more"] = more + ["-object", f"memory-backend-memfd,id=m,size={VF_MIB}M,hugetlb=on", "-machine",
                                    "memory-backend=m"]
    elif hugepages:
        guest["memory"] = f"size={VF_MIB}M,hugepages=on,hugepage_size=2M"
    return measure.until_serial(vmm, b"\x06", folder, timeout=60, **guest)[0]


def start_up(options, found, path, first, out):
    for hugepages in (False, True):
        with open(HUGEPAGES, "w", encoding="ascii") as f:
            f.write(str(VF_MIB // 2 if hugepages else 0))
        name = "2 MiB pages" if hugepages else "4 KiB pages"
        with measure.folder() as folder:
            values, failed = measure.rounds(options.rounds, found, lambda vmm: (
                start(vmm, path, hugepages, folder, first), start(vmm, None, hugepages, folder, first)))
        out["notes"] += [f"lab: {vmm} left out of starting with a VF: {why}" for vmm, why in failed.items()]
        out["figures"].append({"what": f"exec to running, a VF and 1 GiB, {name} (lab)", "unit": "ms",
                               "most_ratio": 0.5, "values": {vmm: row[0] for vmm, row in values.items()}})
        out["figures"].append({"what": f"of that for the VF and for pinning RAM, {name} (lab)", "unit": "ms",
                               "values": {vmm: row[0] - row[1] for vmm, row in values.items()}})
    with open(HUGEPAGES, "w", encoding="ascii") as f:
        f.write("0")


def ping(count=200):
    """Median round trip in ms, from the host: its ping has the finer clock."""
    text = subprocess.run(["ping", "-c", str(count), "-i", "0.01", "-W", "2", GUEST], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return statistics.median(float(ms) for ms in re.findall(r"time=([\d.]+)", text))


def exits(api):
    """The accesses of the guest to the VF that left the guest, all kinds."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(api)
        client.sendall(b"GET /api/v1/vm.counters HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.recv(65536):
            answer += data
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    return sum(value for name, value in body["vf0"].items() if name != "msi_vectors")


def packets(agent):
    path = "/sys/class/net/eth0/statistics/"
    return sum(int(n) for n in agent.check(f"cat {path}rx_packets {path}tx_packets", 20).split())


def bring_up_link(agent):
    agent.check("i=0; while [ ! -d /sys/class/net/eth0 ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done"
                f"; ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up && ping -c 1 -w 60 {HOST}", 120)


def bring_up(agent):
    bring_up_link(agent)
    agent.check("mount -t ext4 -o ro /dev/vda /mnt && mount -t devtmpfs dev /mnt/dev && mount -t tmpfs tmp /mnt/tmp")


def traffic(agent, seconds, iperf, api=None):
    """[ms, Mbit/s, Mbit/s], and with an API exits per 1,000 packets."""
    bring_up(agent)
    before = (exits(api), packets(agent)) if api else None
    # Of a wider window the emulated network card loses packets, in both directions, and
    # what is measured then is TCP's patience.
    window = "-w", "128K"
    row = [ping(), iperf(agent, seconds, *window, host=HOST), iperf(agent, seconds, *window, "-R", host=HOST)]
    if api:
        count, sent = exits(api) - before[0], packets(agent) - before[1]
        row.append(1000 * count / max(sent, 1))
    return row


TRAFFIC = (("VF, ping round trip (lab)", "ms", {"most_ratio": 1}),
           ("VF, TCP guest to host (lab)", "Mbit/s", {"least_ratio": 1}),
           ("VF, TCP host to guest (lab)", "Mbit/s", {"least_ratio": 1}),
           ("VF, exits per 1,000 packets (lab)", "", {"most": 1}))
