"""From ``MODULE[:NAME]`` on the command line to a topology."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .command import CommandFailedError, UsageError, print_error

if TYPE_CHECKING:
    from types import ModuleType

    from riverrun.engine.plan import Plan

DEFAULT_NAME = "topology"

SearchPlace = Literal["first", "last"]
"""Where the current directory comes in the search for modules.

``first`` is how Python itself runs a program that is being written. ``last`` is for production:
whatever lies in the directory cannot take the place of an installed module.
"""


def load_plan(target: str, *, current_directory: SearchPlace) -> Plan:
    """Import a module and return the plan of the topology in it.

    Raises:
        UsageError: If there is no such module, or no topology of that name in it.
        CommandFailedError: If the module raises while it is imported.
        TopologyError: If the topology is wrong.
    """
    module_name, _, name = _split(target)
    module = _load(module_name, current_directory)
    topology = getattr(module, name or DEFAULT_NAME, None)
    from riverrun.engine.graph import Graph
    from riverrun.engine.plan import make_plan

    graph = getattr(topology, "graph", None)
    if not isinstance(graph, Graph):
        raise UsageError(_no_topology(module, module_name, name, topology))
    validate = getattr(topology, "validate", None)
    if validate is not None:
        validate()
    return make_plan(graph)


def looks_like_module(target: str) -> bool:
    """Return whether a text can be nothing but a module: a path, or with ``:NAME``."""
    return ":" in target or target.endswith(".py") or os.sep in target


def _split(target: str) -> tuple[str, str, str]:
    module_name, colon, name = target.rpartition(":")
    if not colon:
        module_name, name = target, ""
    elif not name.isidentifier() or not module_name:
        raise UsageError(
            f"{target!r} is not MODULE or MODULE:NAME, as in examples.revenue:topology"
        )
    return module_name, colon, name


def _load(module_name: str, current_directory: SearchPlace) -> ModuleType:
    if module_name.endswith(".py") or os.sep in module_name:
        return _load_file(Path(module_name))
    here = os.getcwd()
    if current_directory == "first":
        sys.path.insert(0, here)
    elif here not in sys.path:
        sys.path.append(here)
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageError(
            f"{module_name!r} is no module name; write package.module, or the path of a .py file"
        )
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            # Found, but something that it imports is not.
            raise _import_failed(module_name, error) from error
        hint = (
            f"; did you mean {module_name.replace('.', '/')}.py?" if _is_file(module_name) else ""
        )
        raise UsageError(
            f"there is no module {module_name!r} (no {error.name!r}) in {here} or among the "
            f"installed packages{hint or '; start in its directory, or set PYTHONPATH'}"
        ) from error
    except Exception as error:
        raise _import_failed(module_name, error) from error


def _is_file(module_name: str) -> bool:
    return Path(*module_name.split(".")).with_suffix(".py").is_file()


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}; the directory is {os.getcwd()}")
    # Its neighbours can be imported, as when Python runs the file.
    sys.path.insert(0, str(path.resolve().parent))
    name = path.stem if path.stem not in sys.modules else f"riverrun_topology_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Type hints are looked up there when records are declared.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _import_failed(str(path), error) from error
    return module


def _import_failed(what: str, error: Exception) -> Exception:
    """Return what to raise when a module raised ``error``; errors of ours speak for themselves."""
    from riverrun.engine.errors import RiverrunError

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_of_user(frame.filename)]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    if isinstance(error, RiverrunError):
        return type(error)(f"{error}{where}")
    if isinstance(error, SyntaxError):
        return CommandFailedError(
            f"cannot import {what}: {error.msg} ({error.filename}, line {error.lineno})"
        )
    # A mistake in the user's code: there the traceback is the best explanation.
    print_error(f"importing {what} failed:")
    lines = traceback.StackSummary.from_list(own or frames).format()
    sys.stderr.writelines(["Traceback (most recent call last):\n", *lines])
    return CommandFailedError(f"{type(error).__name__}: {error}{where}")


def _is_of_user(filename: str) -> bool:
    """Return whether a file is neither ours nor Python's nor generated code."""
    if filename.startswith("<"):
        return False
    package = Path(__file__).resolve().parent.parent
    # The links of a checkout lead out of the package.
    folders = [package, *(path.resolve() for path in package.iterdir() if path.is_dir())]
    folders.append(Path(sysconfig.get_path("stdlib")).resolve())
    return not any(Path(filename).resolve().is_relative_to(folder) for folder in folders)


def _no_topology(module: ModuleType, module_name: str, name: str, found: Any) -> str:
    from riverrun.engine.graph import Graph

    candidates = sorted(
        each
        for each, value in vars(module).items()
        if isinstance(getattr(value, "graph", None), Graph)
    )
    wanted = name or DEFAULT_NAME
    kind = "" if found is None else f", but a {type(found).__name__}"
    problem = f"{wanted!r} in module {module_name!r} is no Topology{kind}"
    if not candidates:
        return f"{problem}, and there is none under another name; write topology = rr.Topology(...)"
    choices = " or ".join(f"{module_name}:{each}" for each in candidates)
    return f"{problem}; write {choices}"
