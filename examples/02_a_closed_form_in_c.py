"""A controller written by hand as a closed form, and the C of it for a microcontroller.

Claim: the C on this machine and on an emulated Cortex-M4F return, in every bit, what NumPy gives for its arithmetic in
float32 (the map's, its sums regrouped for fewer instructions); the C is put in place only after they agreed.

    python examples/02_a_closed_form_in_c.py        writes firmware/swing_up.h, .c and _selftest.c
"""

from pathlib import Path

import numpy as np

from sindyrl import Signal, SymbolicMap
from sindyrl.export import to_c
from sindyrl.expression import Variable, clip, piecewise

# A pendulum of 1 kg and 1 m with a motor of 4 N m. Angle 0 is upright.
STATES = (Signal("cos", "1", -1.0, 1.0), Signal("sin", "1", -1.0, 1.0), Signal("w", "rad/s", -10.0, 10.0))
TORQUE = Signal("u", "N*m", -4.0, 4.0)


def swing_up() -> SymbolicMap:
    """Pump energy until the pendulum is near the top, then catch it with a linear law (Astrom and Furuta, 2000)."""
    cos, sin, w = (Variable(signal.name) for signal in STATES)
    energy = 0.5 * w**2 + 9.81 * (cos - 1.0)  # J; 0 at rest upright
    pump = -0.5 * energy * w
    catch = -30.0 * sin - 8.0 * w
    law = piecewise([(cos > 0.95, catch)], default=pump)
    return SymbolicMap(STATES, {TORQUE: clip(law, TORQUE.lower, TORQUE.upper)}, name="swing_up")


def main() -> None:
    controller = swing_up()
    print(controller)
    print("hanging, at 2 rad/s:", controller([-1.0, 0.0, 2.0]), "N m")

    states = np.random.default_rng(0).uniform(-1.0, 1.0, (1000, 3))
    same = np.array_equal(controller(states), controller.backend("c")(states))
    print("C in double precision equals NumPy in every bit:", same)

    report = to_c(controller, "firmware", number="float32")
    print()
    print(Path("firmware/swing_up.c").read_text(encoding="utf-8"))
    print(f"verified: {report.verified}, on {report.vectors} inputs, largest difference {report.max_error:.1g} N m")
    if report.m4_instructions is None:
        print(f"not executed on a Cortex-M4F: {report.note}")
    else:
        print(f"{report.m4_instructions} instructions per call and {report.c_bytes} bytes on a Cortex-M4F")


if __name__ == "__main__":
    main()
