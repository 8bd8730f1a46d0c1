"""The sentence: an architecture as one line of text, in pure Python."""

from convlens.architecture.explain import Explanation
from convlens.architecture.plan import Node, Plan, plan
from convlens.architecture.sentence import Architecture, parse

__all__ = ["Architecture", "Explanation", "Node", "Plan", "parse", "plan"]
