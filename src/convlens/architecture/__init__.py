"""The sentence: an architecture as one line of text, in pure Python."""

from convlens.architecture.explain import Explanation
from convlens.architecture.parser import Architecture, parse
from convlens.architecture.plan import Node, Plan, plan

__all__ = ["Architecture", "Explanation", "Node", "Plan", "parse", "plan"]
