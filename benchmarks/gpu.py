"""Whether pricer works on this machine's GPU, and how fast: a line of JSON for each check, and a verdict.

    python benchmarks/gpu.py right|fast [CHECK...]      (make gpu: both, all checks)

`right` trains and scores the embedded base (3 minutes on an H200); `fast` makes bases of the 8B's and the 3B's shape
with random weights and takes some steps and answers (5 minutes). On a machine without CUDA both do the same on a tiny
scale, to be sure that they run. Nothing is downloaded. OUT=FOLDER keeps the lines and the profile; LIMIT_S=N begins no
check after N seconds.
"""

import sys
import warnings

from reporting import Report

# Of libraries that know nothing of each other; the tests run with every warning an error.
warnings.simplefilter("ignore")


def main() -> None:
    """Run the checks of a part, all or those whose names are given; exit code 1 if one fails."""
    part, wanted = sys.argv[1], sys.argv[2:]
    report = Report(part, wanted)
    if part == "right":
        from gpu_right import run  # noqa: PLC0415  # each part is a process of its own
    else:
        from gpu_fast import run  # noqa: PLC0415
    run(report)
    sys.exit(report.verdict())


if __name__ == "__main__":
    main()
