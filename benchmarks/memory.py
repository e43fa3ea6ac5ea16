"""Peak memory of one way of one case, on top of its arguments, in a process of its own."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path


def _resident(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}")


def peak(make, way):
    """MiB that a call takes at most, after one that found what is found once."""
    import gc

    import mtlfast

    job = make()
    job.ways[way]()
    gc.collect()
    mtlfast.release_memory()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system, or it would not count
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _resident("VmRSS")
    job.ways[way]()
    return _resident("VmHWM") - before


def measure(name, way, threads=2, timeout=240):
    """The same from outside: MiB, or a line that says why there is no figure."""
    command = [sys.executable, __file__, name, way, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1])


def main():
    import torch
    from jobs import CASES
    from jobs_pairwise import curve_case

    name, way, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    found = [case.make for case in CASES if case.name == name] or [curve_case(name)]
    print(json.dumps(peak(found[0], way)))


if __name__ == "__main__":
    main()
