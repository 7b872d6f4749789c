"""Attention as torch has it, timed by events on one GPU."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from results import LONGEST_ERROR, Result, Shape, Times, causal_keys, window_keys

DEVICE = "cuda:0"

# Inputs and outputs beyond this do not stay in the L2 cache from call to call; `sparsek bench` lets
# as many sets of inputs take turns.
CACHED_BYTES = 192 << 20
MOST_SETS = 8

# Milliseconds of calls that count, and of those before them.
MEASURED_MS, WARMUP_MS = 80.0, 20.0
LEAST_CALLS, MOST_CALLS = 3, 50

# A spinning kernel holds the stream until all calls are queued, so that no time of Python is
# measured. A call that takes longer than this on the GPU needs no holding.
HELD_MS_PER_CALL = 0.5
CYCLES_PER_MS = 2_000_000


@dataclass(frozen=True)
class Peer:
    """`build` makes a function of q, k and v, [B, H, N, D], for one length."""

    name: str
    keys_seen: Callable[[int], float]
    build: Callable[[int], Callable]


def dense(name: str, backend: SDPBackend) -> Peer:
    """Dense causal attention by one backend of torch's SDPA; it raises where that one cannot."""

    def attention(q, k, v):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return Peer(name, causal_keys, lambda n: attention)


def flex_window(window: int) -> Peer:
    """FlexAttention over the last `window` keys. Its mask is made once and not timed."""

    def build(n: int) -> Callable:
        from torch._functorch import config
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        # A compiled backward otherwise overwrites what the forward saved, and can run only once.
        config.donated_buffer = False
        mask = create_block_mask(
            lambda b, h, i, j: (j <= i) & (i - j < window),
            None, None, n, n, device=DEVICE, _compile=True,
        )  # fmt: skip
        compiled = torch.compile(flex_attention, dynamic=False)
        return partial(compiled, block_mask=mask, enable_gqa=True)

    return Peer(f"FlexAttention window {window:,}", lambda n: window_keys(n, window), build)


CUDNN = dense("cuDNN dense", SDPBackend.CUDNN_ATTENTION)
FLASH = dense("FlashAttention-2 dense", SDPBackend.FLASH_ATTENTION)


def measure(peer: Peer, shape: Shape) -> Result:
    """Forward as in training, then backward. What fails is the row's error."""
    result = Result(peer.name, shape, keys_seen=peer.keys_seen(shape.n))
    operations = shape.operations(result.keys_seen)
    try:
        attention = peer.build(shape.n)
        sets = inputs(shape)
        forwards = [partial(attention, *tensors) for tensors in sets]
        result.forward = timed(forwards, operations)
        backwards = []
        for forward, tensors in zip(forwards, sets):
            o = forward()
            d_o = torch.randn_like(o)
            backwards.append(partial(torch.autograd.grad, o, tensors, d_o, retain_graph=True))
        result.backward = timed(backwards, 2.5 * operations)
    except Exception as e:  # whatever torch raises: the other peers still run
        lines = [line.strip() for line in str(e).splitlines() if line.strip()]
        result.error = f"{type(e).__name__}: {lines[0] if lines else ''}"[:LONGEST_ERROR]
    return result


def release() -> None:
    """Gives back memory that torch keeps, before another process needs it."""
    gc.collect()
    # After a fault on the GPU nothing of this process can be given back.
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


def inputs(shape: Shape) -> list[tuple[torch.Tensor, ...]]:
    """Sets of q, k and v that take turns; random normal numbers."""
    torch.manual_seed(0)

    def vectors(heads: int) -> torch.Tensor:
        sizes = (shape.batch, heads, shape.n, shape.head_dim)
        return torch.randn(sizes, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)

    heads = 2 * (shape.query_heads + shape.kv_heads)
    bytes_of_set = 2 * shape.batch * heads * shape.n * shape.head_dim
    count = min(max(math.ceil(CACHED_BYTES / bytes_of_set), 1), MOST_SETS)
    kv, q = shape.kv_heads, shape.query_heads
    return [(vectors(q), vectors(kv), vectors(kv)) for _ in range(count)]


def timed(calls: list[Callable], operations: float) -> Times:
    """Calls one after the other on the stream, without waiting in between."""
    for call in calls:
        call()  # compiles, chooses, takes memory
    [estimate] = events(itertools.islice(itertools.cycle(calls), 1))

    def count(ms: float, least: int) -> int:
        return min(max(math.ceil(ms / max(estimate, 1e-3)), least), MOST_CALLS)

    turns = itertools.cycle(calls)
    for call in itertools.islice(turns, count(WARMUP_MS, 1)):
        call()
    repeats = count(MEASURED_MS, LEAST_CALLS)
    if estimate < 10 * HELD_MS_PER_CALL:
        torch.cuda._sleep(int(HELD_MS_PER_CALL * CYCLES_PER_MS * repeats))
    ms = events(itertools.islice(turns, repeats))
    median = statistics.median(ms)
    return Times(median, min(ms), max(ms), operations / (median * 1e9))


def events(calls) -> list[float]:
    """Milliseconds of each call, between events before and after it."""
    marks = []
    for call in calls:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        marks.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in marks]
