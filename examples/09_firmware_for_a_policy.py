"""The policy of a demonstration as firmware: floating point, fixed point, and an Arduino library.

Claim: all three compute the policy; the fixed-point one is within its proven bound, and raw angles go in where the
policy was learned on cosine and sine.

    python examples/09_firmware_for_a_policy.py                              a policy that `sindyrl demo` found
    python examples/09_firmware_for_a_policy.py runs/cartpole-seed0/policy.json     the one of your own run
"""

import sys
from pathlib import Path

import numpy as np

from sindyrl import SymbolicMap
from sindyrl.export import raw_angles, to_c

FOUND = Path(__file__).resolve().parent.parent / "benchmarks" / "speed" / "maps" / "cartpole_policy.json"


def main() -> None:
    policy = SymbolicMap.load(sys.argv[1] if len(sys.argv) > 1 else FOUND).rename(name="swing_up")
    print(policy.equations(precision=3), "\n")

    single = to_c(policy, "firmware/float32", fallback={policy.output_names[0]: 0.0}, period=0.01)
    angle = to_c(raw_angles(policy, {"theta": ("cos", "sin")}), "firmware/raw_angle", period=0.01)
    fixed = to_c(policy, "firmware/q31", number="q31", period=0.01)
    arduino = to_c(policy, "firmware/arduino", package="arduino", verify="compile", period=0.01)

    print(f"{'':<12} {'verified':<9} {'instructions':>12} {'bytes':>6} {'largest error':>14} {'bound':>9}")
    for name, report in (("float32", single), ("raw angle", angle), ("q31", fixed)):
        instructions, size = ("-" if n is None else n for n in (report.m4_instructions, report.c_bytes))
        print(
            f"{name:<12} {report.verified:<9} {instructions:>12} {size:>6} {report.max_error:>14.2g} "
            f"{report.error_bound:>9.2g}"
        )
    print("same bits as in NumPy:", all(report.bitwise for report in (single, angle, fixed)))
    print("fixed point within its proven bound:", bool(np.less_equal(fixed.max_error, fixed.error_bound)))
    print("Arduino library:", ", ".join(path.name for path in arduino.files))


if __name__ == "__main__":
    main()
