"""Moves stock NSQ to nsquorum and checks every message. Started by `run`."""

import argparse
import pathlib
import sys
import tempfile

import fleet
import imports
from nsq import Process


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binary", required=True, help="nsquorum")
    arguments.add_argument("--nsqd", required=True, type=pathlib.Path, help="stock nsqd; the other programs lie beside it")
    arguments.add_argument("--count", type=int, default=3000, help="messages of the larger topic (100,000 in full)")
    arguments.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="of nsquorum")
    arguments.add_argument("--part", choices=("imports", "fleet"), help="only this")
    options = arguments.parse_args()
    if options.count < 300:
        arguments.error("--count is at least 300")
    with tempfile.TemporaryDirectory(prefix="nsquorum-migration-") as folder:
        try:
            if options.part != "fleet":
                imports.run(options, pathlib.Path(folder))
            if options.part != "imports":
                fleet.run(options, pathlib.Path(folder), imports)
        except imports.Failed as failed:
            for log in sorted(pathlib.Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)
            print(f"FAILED: {failed}", file=sys.stderr)
            return 1
        finally:
            Process.kill_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
