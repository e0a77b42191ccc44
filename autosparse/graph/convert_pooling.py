"""Converters of pooling: windows, adaptive sizes, means over the image."""

from __future__ import annotations

from collections.abc import Sequence

from autosparse.graph.convert import Call, Unsupported, Value, both_sides, converts, pair, window
from autosparse.graph.ir import Op, Window


def _window(call: Call, dilation: tuple[int, int]) -> Window:
    """Gives the pooling window; that ``ceil_mode`` adds a last one shows in the output's size."""
    kernel = pair(call["kernel_size"])
    stride = pair(call["stride"]) if call["stride"] else kernel
    return window(kernel, stride, both_sides(pair(call["padding"])), dilation)


def _max_pool(call: Call) -> Value:
    return call.emit(Op.MAX_POOL, call.image("self"), window=_window(call, pair(call["dilation"])))


@converts("aten.max_pool2d.default")
def max_pool2d(call: Call) -> Value:
    """Largest value in a window."""
    return _max_pool(call)


@converts("aten.max_pool2d_with_indices.default")
def max_pool2d_with_indices(call: Call) -> tuple[Value, ...]:
    """The same; whoever reads the indices is unsupported."""
    return _max_pool(call), Value("", (0,))


@converts("aten.avg_pool2d.default")
def avg_pool2d(call: Call) -> Value:
    """Mean over a window, padded pixels counted or not."""
    if call["divisor_override"] is not None:
        raise Unsupported(f"divisor_override must be None, but got {call['divisor_override']}")
    return call.emit(
        Op.AVG_POOL,
        call.image("self"),
        window=_window(call, (1, 1)),
        count_include_pad=bool(call["count_include_pad"]),
    )


@converts("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(call: Call) -> Value:
    """Mean over windows chosen to give an output size; global or plain pooling where it is one."""
    value = call.image("self")
    size, target = value.dims[2:], call.dims[2:]
    if target == size:
        return call.alias(value)
    if target == (1, 1):
        return call.emit(Op.GLOBAL_AVG_POOL, value)
    if size[0] % target[0] or size[1] % target[1]:
        return call.emit(Op.ADAPTIVE_AVG_POOL, value)
    return call.emit(Op.AVG_POOL, value, window=_divided(size, target), count_include_pad=False)


def _divided(size: Sequence[int], target: Sequence[int]) -> Window:
    kernel = (size[0] // target[0], size[1] // target[1])
    return window(kernel, kernel, both_sides((0, 0)))


@converts("aten.adaptive_max_pool2d.default")
def adaptive_max_pool2d(call: Call) -> tuple[Value, ...]:
    """Largest values of equal windows."""
    value = call.image("self")
    size, target = value.dims[2:], call.dims[2:]
    if size[0] % target[0] or size[1] % target[1]:
        raise Unsupported(f"adaptive max-pooling must divide evenly, but got {size} to {target}")
    return call.emit(Op.MAX_POOL, value, window=_divided(size, target)), Value("", (0,))


def _whole_image(call: Call) -> Value:
    """Gives the input if the call reduces over exactly height and width.

    Raises:
        Unsupported: it reduces over something else.
    """
    value = call.image("self")
    axes = sorted(axis % 4 for axis in call["dim"] or ())
    if axes != [2, 3]:
        raise Unsupported(f"a reduction must run over dimensions 2 and 3, but got {call['dim']}")
    if call.get("dtype") is not None:
        raise Unsupported(f"a reduction must keep its type, but got dtype={call['dtype']}")
    return value


@converts("aten.mean.dim")
def mean(call: Call) -> Value:
    """Mean over the image: global average pooling."""
    return call.emit(Op.GLOBAL_AVG_POOL, _whole_image(call))


@converts("aten.amax.default")
def amax(call: Call) -> Value:
    """Largest value of the image: max-pooling with one window."""
    value = _whole_image(call)
    return call.emit(Op.MAX_POOL, value, window=_divided(value.dims[2:], (1, 1)))
