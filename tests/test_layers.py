"""The layers of the architecture: imports point downwards only, `core` is pure, there is no cycle."""

import ast
import sys
from pathlib import Path

import pytest

from parsing import parsed

PACKAGE = Path(__file__).parents[1] / "src" / "strangle_mw"
MODULES = {
    ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted(PACKAGE.rglob("*.py"))
}

# From the bottom; a module may import from its own layer only inside one package (core, transports, stores).
LAYERS = [
    ["errors"],
    ["core"],
    ["files", "decoding", "asking", "identity", "bridges", "lambda_dev"],
    ["transports", "stores"],
    ["config", "states", "watch"],
    ["probing", "live"],
    ["follower"],
    ["engine"],
    ["asgi_client", "asgi_head", "wsgi_body"],
    ["in_process", "in_process_websocket", "lifespans"],
    ["websocket"],
    ["asgi", "wsgi", "inspection", "schema", "reach", "imports", "inventories", "learning"],
    ["rollout", "status", "inventory"],
    ["cli_status"],
    ["cli_live", "cli_lambda", "cli_import", "cli_inventory"],
    ["cli_app", "flask_identify"],
    ["cli", "flask", "django", "starlette"],
]
# What `core` may not touch, although it is in the standard library.
IMPURE = {
    "socket",
    "ssl",
    "select",
    "selectors",
    "time",
    "threading",
    "asyncio",
    "logging",
    "os",
    "random",
    "secrets",
    "subprocess",
}


def layer(module):
    name = module.removeprefix("strangle_mw").removeprefix(".").split(".")[0]
    return next((i for i, names in enumerate(LAYERS) if name in names), len(LAYERS))


def imports(path):
    """Yield (module, whether it is for types only or inside a function) for every import."""
    tree = parsed(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names)


def test_every_module_has_a_layer():
    known = {n for names in LAYERS for n in names} | {""}
    assert {m.removeprefix("strangle_mw").removeprefix(".").split(".")[0] for m in MODULES} == known


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    for imported in imports(MODULES[module]):
        if not imported.startswith("strangle_mw.") or module == "strangle_mw":
            continue
        own, other = module.split(".")[1], imported.split(".")[1]
        inside = own == other and own in (
            "core",
            "transports",
            "stores",
            "bridges",
            "lambda_dev",
            "imports",
            "identity",
            "inventories",
            "django",
        )
        assert inside or layer(imported) < layer(module), f"{module} imports {imported}"


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.startswith(("strangle_mw.core", "strangle_mw.errors"))]
)
def test_core_is_pure(module):
    for imported in imports(MODULES[module]):
        top = imported.split(".")[0]
        assert top == "strangle_mw" or top in sys.stdlib_module_names, f"{module} imports {imported}"
        assert top not in IMPURE, f"{module} imports {imported}"


def test_only_the_engine_imports_transports():
    found = {
        module
        for module, path in MODULES.items()
        if not module.startswith("strangle_mw.transports")
        for imported in runtime_imports(path)
        if imported.startswith("strangle_mw.transports")
    }
    assert found == {"strangle_mw.engine"}


def runtime_imports(path):
    """Yield the modules that are imported when the program runs, not those for type checkers."""
    tree = parsed(path)
    skipped = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and ast.unparse(i.test) == "TYPE_CHECKING"
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped:
            yield node.module


def test_there_is_no_cycle():
    graph = {m: [i for i in runtime_imports(p) if i in MODULES] for m, p in MODULES.items()}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            path.append(module)
            for imported in graph[module]:
                visit(imported)
            path.pop()
            done.add(module)

    for module in graph:
        if module != "strangle_mw":  # the front door imports inside `strangle`
            visit(module)
    assert done
