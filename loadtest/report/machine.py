"""What a report must name so that it can be judged and repeated: the machine, the versions, the command. Prints JSON.

usage: machine.py SERVICE K6 PROMETHEUS
"""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "not known"
    return ((done.stdout or done.stderr).strip().splitlines() or ["not known"])[0]


def field(file, name):
    match = re.search(rf"^{name}\s*[:=]\s*\"?(.*?)\"?$", pathlib.Path(file).read_text(), re.MULTILINE)
    return match.group(1) if match else "not known"


def commit():
    name = first_line("git", "rev-parse", "--short=12", "HEAD")
    changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{name} with changes" if changed else name


def main(service, k6, prometheus):
    memory = int(field("/proc/meminfo", "MemTotal").split()[0]) / 1024 / 1024
    version = re.search(r"version ([\d.]+)", first_line(prometheus, "--version"))
    return {
        "command": os.environ.get("COMMAND", "make loadtest"),
        "machine": {
            "processor": f"{os.cpu_count()} x {field('/proc/cpuinfo', 'model name')}",
            "memory": f"{memory:.0f} GiB",
            "system": f"{field('/etc/os-release', 'PRETTY_NAME')}, Linux {os.uname().release}",
            "open files": f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,}",
            "load average before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        },
        "versions": {
            "coupon-svc": first_line(service, "--version").removeprefix("coupon-svc "),
            "commit": commit(),
            "k6": first_line(k6, "version").removeprefix("k6").removeprefix(".exe").strip(),
            "Prometheus": version.group(1) if version else "not known",
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4]), indent=2))
