"""clang-format over the C++ and CUDA sources, by .clang-format: writes them, or with --check looks.

The program is PyPI's clang-format, pinned in constraints.txt: other versions format differently.
"""

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["csrc", "tests/cuda_shim", "tests/replay"]
SUFFIXES = {".cpp", ".cu", ".h"}


def sources():
    files = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    return sorted(path for path in files if path.suffix in SUFFIXES)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a file would change")
    options = parser.parse_args()
    program = Path(sysconfig.get_path("scripts"), "clang-format")
    if not program.exists():
        sys.exit("clang-format is missing: pip install -c constraints.txt clang-format")
    how = ["--dry-run", "--Werror"] if options.check else ["-i"]
    sys.exit(subprocess.run([program, *how, *sources()]).returncode)


if __name__ == "__main__":
    main()
