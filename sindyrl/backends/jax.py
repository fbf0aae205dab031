"""Evaluation by JAX: pure functions that can be jitted, vmapped, differentiated and scanned.

The number type follows the inputs; no JAX setting is read or changed. XLA may fuse a multiplication and an addition
into one rounding, so the last bits can differ from the other back ends. JAX multiplies gradients of a branch not taken
by zero, which makes NaN of an infinite one (``piecewise([(x > 0, sqrt(x))], 0)`` at 0); ``jacobian`` of a map does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sindyrl.backends import ClosedForm, check_count
from sindyrl.node import Binary, Comparison, Constant, Dense, Element, Node, Piecewise, Unary, Variable
from sindyrl.traversal import expand_powers, topological

if TYPE_CHECKING:
    from jax import Array


def columns(form: ClosedForm) -> Callable[[Sequence[Any]], list[Array]]:
    """Return ``evaluate(input columns) -> output columns``, all outputs broadcast to the inputs' common shape and type.

    Integer inputs become JAX's default float. ImportError if JAX is not installed.
    """
    import jax.numpy as jnp

    outputs = expand_powers(form.nodes)
    order = topological(outputs)
    position = {name: index for index, name in enumerate(form.input_names)}

    def evaluate(inputs: Sequence[Any]) -> list[Array]:
        check_count(form, len(inputs))
        arrays = [jnp.asarray(column) for column in inputs]
        dtype = jnp.result_type(float, *arrays)
        arrays = [array.astype(dtype) for array in arrays]
        shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
        values: dict[Node, Any] = {}
        for node in order:
            if isinstance(node, Variable):
                values[node] = arrays[position[node.name]]
            else:
                values[node] = _evaluate(node, [values[child] for child in node.children], dtype)
        return [jnp.broadcast_to(jnp.asarray(values[node], dtype=dtype), shape) for node in outputs]

    return evaluate


def _evaluate(node: Node, children: list[Any], dtype: Any) -> Any:
    import jax.numpy as jnp

    if isinstance(node, Constant):
        return np.asarray(node.value, dtype=dtype)
    if isinstance(node, (Unary, Binary, Comparison)):
        return _apply(node.op, children)
    if isinstance(node, Piecewise):
        value = children[-1]
        for condition, branch in zip(children[-3::-2], children[-2:0:-2], strict=True):
            value = jnp.where(condition, branch, value)
        return value
    if isinstance(node, Dense):
        return _dense(node, children, dtype)
    if isinstance(node, Element):
        return children[0][node.index]
    raise TypeError(f"JAX cannot evaluate {type(node).__name__}.")


def _apply(op: str, children: list[Any]) -> Any:
    import jax.numpy as jnp

    if op == "min":
        a, b = children
        return jnp.where(a < b, a, b)
    if op == "max":
        a, b = children
        return jnp.where(a > b, a, b)
    if op == "sign":
        (x,) = children
        return jnp.where(x > 0, 1.0, jnp.where(x < 0, -1.0, x))
    return getattr(jnp, _FUNCTIONS[op])(*children)


def _dense(node: Dense, args: list[Any], dtype: Any) -> Any:
    import jax.numpy as jnp

    shape = jnp.broadcast_shapes(*(jnp.shape(arg) for arg in args))
    column = (-1,) + (1,) * len(shape)
    matrix = node.matrix.astype(dtype)
    total: Any = jnp.broadcast_to(node.bias.astype(dtype).reshape(column), (len(node.bias), *shape))
    for weights, arg in zip(matrix.T, args, strict=True):
        total = total + weights.reshape(column) * arg
    if node.activation == "tanh":
        return jnp.tanh(total)
    return jnp.where(total > 0, total, jnp.zeros_like(total)) if node.activation == "relu" else total


_FUNCTIONS = {
    "neg": "negative",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "tanh": "tanh",
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "abs": "abs",
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
