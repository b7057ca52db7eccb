"""How handlers and functions are named."""

import sys

import pytest

from strangle_mw.lambda_dev.names import (
    Handler,
    missing_module,
    parse_handler,
    parse_handlers,
    parse_reference,
)


@pytest.mark.parametrize(
    ("text", "handler", "shown", "aws"),
    [
        ("app:handler", Handler("", "app", "handler"), "app", "app.handler"),
        ("app.handler", Handler("", "app", "handler"), "app", "app.handler"),
        ("shop.events:main", Handler("", "shop.events", "main"), "shop-events", "shop.events.main"),
        ("shop.events.main", Handler("", "shop.events", "main"), "shop-events", "shop.events.main"),
        ("shop/events.main", Handler("", "shop.events", "main"), "shop-events", "shop.events.main"),
        ("My-fn_1=app:h", Handler("My-fn_1", "app", "h"), "My-fn_1", "app.h"),
    ],
)
def test_a_handler(text, handler, shown, aws):
    found = parse_handler(text)
    assert found == handler
    assert (found.shown, str(found)) == (shown, aws)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["app"], "must be [NAME=]module:handler"),
        ([":handler"], "must be [NAME=]module:handler"),
        (["app:"], "must be [NAME=]module:handler"),
        (["app:Class.method"], "must name a module and a function"),
        (["app.py:handler:x"], "must name a module and a function"),
        (["../app:handler"], "must name a module and a function"),
        (["=app:handler"], "'' is no function name"),
        (["a b=app:handler"], "'a b' is no function name"),
        (["x" * 65 + "=app:handler"], "is no function name"),
        (["a:h", "b:h"], "only one function can answer to any name"),
        (["n=a:h", "n=b:h"], "'n' is given twice"),
    ],
)
def test_a_handler_that_is_none(texts, says):
    with pytest.raises(ValueError) as raised:
        parse_handlers(texts)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("events", ("events", "")),
        ("events:live", ("events", "live")),
        ("events:$LATEST", ("events", "$LATEST")),
        ("function:events", ("events", "")),
        ("123456789012:function:events:7", ("events", "7")),
        ("eu-west-1:123456789012:function:events", ("events", "")),
        ("arn:aws:lambda:eu-west-1:123456789012:function:events:live", ("events", "live")),
        ("arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:events", ("events", "")),
        ("", None),
        ("a b", None),
        ("a\r\nX: y", None),
        ("a:b:c:d", None),
        ("arn:aws:s3:::bucket", None),
        ("x" * 171, None),
    ],
)
def test_a_reference(text, found):
    assert parse_reference(text) == found


def test_modules_are_found_without_an_import(tmp_path):
    package = tmp_path / "ldnames"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "events.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "folder").mkdir()
    found = {
        name: missing_module(name, tmp_path)
        for name in (
            "ldnames.events",
            "ldnames",
            "ldnames.none",
            "ldnames.events.deep",
            "folder",
            "ldnone",
            "strangle_mw",
        )
    }
    assert found == {
        "ldnames.events": None,
        "ldnames": None,
        "ldnames.none": "there is no module 'ldnames.none' in the package ldnames",
        "ldnames.events.deep": "'ldnames.events' is a module and has no 'deep' below it",
        "folder": "'folder' is a folder of modules, not a module",
        "ldnone": f"there is no module 'ldnone' in the folder {tmp_path}",
        "strangle_mw": None,
    }
    assert not any(name.startswith("ldnames") for name in sys.modules)
