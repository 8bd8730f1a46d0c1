"""The arithmetic of activations: each function's value as terms that add up, and as a line of numbers.

Owns the formulas (those of torch.nn), in float64.
"""

import math

from convlens.architecture.layers import GELU, Activation, Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, SiLU, Tanh
from convlens.text import number


def activation_terms(layer: Activation, x: float) -> tuple[list[float], str]:
    """The terms of an activation's value, and the line that says how it comes about."""
    n = number(x)
    match layer:
        case ReLU():
            return [max(0.0, x)], f"max(0, {n})"
        case ReLU6():
            return [min(max(0.0, x), 6.0)], f"min(max(0, {n}), 6)"
        case LeakyReLU():
            slope = layer.negative_slope
            return [x if x > 0 else slope * x], f"{n} is positive: {n}" if x > 0 else f"{slope:g} · {n}"
        case GELU():
            if layer.approximate == "tanh":
                inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
                return [x / 2, x / 2 * math.tanh(inner)], f"{n} / 2 + {n} / 2 · tanh(√(2/π) · (x + 0.044715 x³))"
            return [x / 2, x / 2 * math.erf(x / math.sqrt(2))], f"{n} / 2 + {n} / 2 · erf({n} / √2)"
        case SiLU():
            return [x * _sigmoid(x)], f"{n} · 1 / (1 + e^({number(-x)}))"
        case Hardswish():
            terms = [0.0] if x <= -3 else [x] if x >= 3 else [x * x / 6, x / 2]
            return terms, f"{n} · min(max(0, {n} + 3), 6) / 6"
        case Tanh():
            return [math.tanh(x)], f"tanh({n})"
        case Sigmoid():
            return [_sigmoid(x)], f"1 / (1 + e^({number(-x)}))"
    raise AssertionError(f"no arithmetic for {layer}")


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
