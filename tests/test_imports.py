"""What importing the library costs, told by what is loaded: it sits in the start-up of somebody's monolith."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "asyncio",
    "ssl",
    "socket",
    "http.client",
    "urllib.request",
    "email",
    "logging",
    "inspect",
    "tomllib",
    "sqlite3",
    "concurrent.futures",
}


def loaded(code):
    script = f"import sys, json\nbefore = set(sys.modules)\n{code}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def third_party(modules):
    tops = {m.split(".")[0] for m in modules}
    return {t for t in tops if t not in sys.stdlib_module_names and not t.startswith(("_", "strangle_mw"))}


def test_the_package_imports_nothing_heavy():
    modules = loaded("import strangle_mw")
    assert third_party(modules) <= {"msgspec"}
    # dataclasses itself imports inspect; nothing else of the list may come.
    assert modules & (HEAVY - {"inspect"}) == set()


ASGI = "import strangle_mw\nasync def app(scope, receive, send): ...\nstrangle_mw.strangle(app, [strangle_mw.Route('/a', to='http://m')])"
WSGI = "import strangle_mw\ndef app(environ, start_response): ...\nstrangle_mw.strangle(app, [strangle_mw.Route('/a', to='http://m')])"


@pytest.mark.parametrize(
    ("code", "absent"), [(ASGI, {"ssl", "strangle_mw.wsgi"}), (WSGI, {"asyncio", "ssl", "strangle_mw.asgi"})]
)
def test_each_driver_loads_only_its_own(code, absent):
    modules = loaded(code)
    # msgspec takes typing_extensions if it is there; httptools is compiled by Cython.
    assert third_party(modules) <= {"msgspec", "httptools", "typing_extensions", "cython_runtime"}
    if "asyncio" not in absent:
        absent = absent - {"ssl"}  # asyncio imports it itself
    assert modules & absent == set()


def test_the_public_names_are_those_promised():
    import strangle_mw

    assert sorted(strangle_mw.__all__) == strangle_mw.__all__
    assert all(hasattr(strangle_mw, name) for name in strangle_mw.__all__)


def test_the_package_says_that_it_is_typed():
    from importlib.resources import files

    assert files("strangle_mw").joinpath("py.typed").is_file()
