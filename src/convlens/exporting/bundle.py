"""One source file of many modules: what a program needs of convlens, word for word, in one namespace.

Owns the search for what is needed: top-level definitions are followed by name, from the program's on.
"""

import ast
import symtable
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from operator import itemgetter
from pathlib import Path

_OURS = "convlens"


class _Module:
    """A module's source, its top-level statements by the names that they bind, and its imports."""

    def __init__(self, name: str) -> None:
        found = find_spec(name)
        assert found is not None and found.origin is not None, name
        self.name, text = name, Path(found.origin).read_text(encoding="utf-8")
        self.lines, self.tree = text.splitlines(), ast.parse(text)
        self.defined: dict[str, ast.stmt] = {}
        self.ours: dict[str, tuple[str, str]] = {}  # name here -> module of convlens and name there
        self.outside: dict[str, str] = {}  # name here -> the import of another library
        for one in self.tree.body:
            if isinstance(one, ast.ImportFrom) and str(one.module).partition(".")[0] == _OURS:
                self.ours |= {alias.asname or alias.name: (str(one.module), alias.name) for alias in one.names}
            elif isinstance(one, ast.Import | ast.ImportFrom):
                start = f"from {one.module} import " if isinstance(one, ast.ImportFrom) else "import "
                for alias in one.names:
                    called = f" as {alias.asname}" if alias.asname else ""
                    self.outside[(alias.asname or alias.name).partition(".")[0]] = f"{start}{alias.name}{called}"
            else:
                self.defined |= dict.fromkeys(_bound(one), one)

    def source(self, one: ast.stmt) -> str:
        """A statement as it stands there, with the comment above it."""
        first = min([one.lineno, *(each.lineno for each in getattr(one, "decorator_list", []))]) - 1
        while first > 0 and self.lines[first - 1].startswith("#"):
            first -= 1
        return "\n".join(self.lines[first : one.end_lineno])

    def used(self, one: ast.stmt) -> set[str]:
        """The names that a statement takes from the module around it."""
        found: set[str] = set()
        tables = [symtable.symtable(self.source(one), self.name, "exec")]
        while tables:
            table = tables.pop()
            tables += table.get_children()
            is_top = table.get_type() == "module"
            found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (is_top or s.is_global())}
        return found


def bundled(program: str, root: str, own: tuple[str, ...] = ()) -> str:
    """The source of one file with `root` of the module `program` and all that it needs, without any import of
    convlens. The program's `own` stand for everything of their names."""
    module_of = cache(_Module)
    wanted: dict[str, set[str]] = {}  # module -> names
    aliases: dict[str, str] = {}  # name -> what it is called where it is defined
    spaces: dict[str, set[str]] = {}  # modules used as such, `files` -> names
    imports: dict[str, str] = {}
    waiting = [(program, root)]
    while waiting:
        place, name = waiting.pop()
        place = program if name in own else place
        here = module_of(place)
        if name in here.outside:
            assert imports.setdefault(name, here.outside[name]) == here.outside[name], f"{name} is two things"
        elif name in here.ours:
            source, there = here.ours[name]
            if name != there:
                assert aliases.setdefault(name, there) == there, f"{name} is two things"
            waiting.append((source, there))
        elif name in here.defined and name not in wanted.setdefault(place, set()):
            statement = here.defined[name]
            wanted[place].add(name)
            used = here.used(statement)
            for space in [one for one in used if one in here.ours and _is_module(*here.ours[one])]:
                used.remove(space)
                attributes = _attributes_of(statement, space)
                spaces.setdefault(space, set()).update(attributes)
                waiting += [(".".join(here.ours[space]), one) for one in attributes]
            waiting += [(place, one) for one in used]
    order = sorted(wanted, key=lambda name: _height(module_of(name), module_of))
    parts, known = [_import_lines({**imports, "SimpleNamespace": "from types import SimpleNamespace"})], set[str]()
    for place in order:
        assert not known & wanted[place], f"{known & wanted[place]} in {place} and before it"
        known |= wanted[place]
        parts.append(_section(module_of(place), wanted[place]))
        parts += [f"{new} = {old}" for new, old in aliases.items() if old in wanted[place]]
    for space, names in sorted(spaces.items()):
        parts.append(f"{space} = SimpleNamespace({', '.join(f'{name}={name}' for name in sorted(names))})")
    return "\n\n\n".join(parts) + "\n"


def _height(module: _Module, module_of: Callable[[str], _Module]) -> int:
    """How many modules stand below it, one on the other."""
    below = {f"{source}.{name}" if _is_module(source, name) else source for source, name in module.ours.values()}
    return 1 + max((_height(module_of(one), module_of) for one in below), default=0)


def _import_lines(imports: dict[str, str]) -> str:
    """The imports, those from one module in one line."""
    plain = sorted(line for line in imports.values() if line.startswith("import"))
    parted = sorted(line.partition(" import ") for line in imports.values() if line.startswith("from"))
    grouped = groupby(parted, itemgetter(0))
    return "\n".join(plain + [f"{start} import {', '.join(name for *_, name in each)}" for start, each in grouped])


def _section(module: _Module, names: set[str]) -> str:
    """The statements that bind these names, under the module's name."""
    place = module.name.replace(".", "/") + ".py"
    text, before = f"# {'-' * 8} {place}", None
    for one in module.tree.body:
        if not names & set(_bound(one)):
            continue
        is_plain = not isinstance(one, ast.FunctionDef | ast.ClassDef)
        text += "\n" if before is not None and before and is_plain else "\n\n\n"
        text, before = text + module.source(one), is_plain
    return text


def _bound(one: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement binds."""
    if isinstance(one, ast.FunctionDef | ast.ClassDef):
        yield one.name
        return
    for node in ast.walk(one):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


@cache
def _is_module(package: str, name: str) -> bool:
    parent = find_spec(package)
    return parent is not None and bool(parent.submodule_search_locations) and find_spec(f"{package}.{name}") is not None


def _attributes_of(one: ast.stmt, space: str) -> set[str]:
    """What a statement takes from a module that it imported as such."""
    attributes = [node for node in ast.walk(one) if isinstance(node, ast.Attribute)]
    return {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == space}
