"""What is posted to an endpoint or an event is checked before anything is done with it.

Gradio takes any JSON, drops values that are too many, and answers a value that does not fit by no
word at all; here each of these is answered by one sentence.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio.utils import get_function_description

from fusion_core.config import is_number, is_whole, utf8
from fusion_core.errors import InputError, shown

from .tabs.events import sentence

PUBLIC = "public"
_log = logging.getLogger(__name__)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


KINDS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", is_whole),
    float: ("a number", is_number),
    list[str]: ("a list of texts", _is_list),
}
"""What an argument of an endpoint must be, by its annotation."""


def checked(function: Callable[..., Any], given: Sequence[Any]) -> list[Any]:
    """Return the arguments of a call, those that were left out by their defaults.

    Args:
        function: of annotated positional parameters, each of a kind in `KINDS`.
        given: the first arguments.

    Raises:
        InputError: there are too few or too many, or one is of another kind.
    """
    parameters = inspect.signature(function).parameters
    if len(given) > len(parameters):
        raise InputError(
            f"{function.__name__} takes {len(parameters)} arguments ({', '.join(parameters)}), "
            f"not {len(given)}: leave out the others."
        )
    kinds = get_type_hints(function)
    values = []
    for i, (name, parameter) in enumerate(parameters.items()):
        if i >= len(given):
            if parameter.default is parameter.empty:
                raise InputError(f"{name} is missing: it must be {KINDS[kinds[name]][0]}.")
            values.append(parameter.default)
            continue
        words, fits = KINDS[kinds[name]]
        if not fits(given[i]):
            raise InputError(f"{name} must be {words}, not {shown(given[i])}.")
        values.append(given[i])
    return values


def check_text(value: Any) -> None:
    """Refuse text that is no Unicode, wherever it is: no answer could quote it.

    Raises:
        InputError: there is a lone surrogate.
    """
    if isinstance(value, str):
        if value:
            utf8(value)
    elif isinstance(value, list | dict):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            check_text(part)


def refused(words: str) -> gr.Error:
    """Make the error that a client is answered with; the log keeps no traceback of it."""
    return gr.Error(words, print_exception=False)


class Page(gr.Blocks):
    """A page on which what is posted is checked first: to endpoints, and to its own events."""

    def get_api_info(self, *args: Any, **kwargs: Any) -> Any:
        """Describe the endpoints, with each argument's description and whatever is its default."""
        found = super().get_api_info(*args, **kwargs)
        for function in self.fns.values():
            if function.api_visibility != PUBLIC or function.fn is None:
                continue
            words = get_function_description(function.fn)[1]
            for parameter in found["named_endpoints"][f"/{function.api_name}"]["parameters"]:
                more = {"description": words[parameter["parameter_name"]]}
                if parameter["parameter_has_default"]:
                    more["default"] = parameter["parameter_default"]
                parameter["type"] = {**parameter["type"], **more}
        return found

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Answer a call; also a fault of ours is answered by a sentence, and goes to the log."""
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise refused(sentence(error)) from error

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any
    ) -> list[Any]:
        """Check the values of a call, and turn them into what its function takes."""
        try:
            if block_fn.fn is None:
                raise InputError("This event is answered by the page itself: reload it.")
            check_text(inputs)
            if block_fn.api_visibility == PUBLIC:
                inputs = checked(block_fn.fn, inputs)
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except InputError as error:
            raise refused(str(error)) from error
        except gr.Error as error:  # a component says what is wrong
            error.print_exception = False
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # No field holds such a value: it was posted by hand, or by an older page.
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {last.filename}:{last.lineno}"
            _log.warning("a value that fits no field was posted (%s)", where)  # it may be a key
            raise refused("A value fits no field of this page: reload it.") from error


def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer a call by names (``/call/v2``) that lacks one, or has an unknown one.

    Raises:
        Exception: the error itself, where it is any other.
    """
    if traceback.extract_tb(error.__traceback__)[-1].name != "construct_args":
        raise error
    return JSONResponse({"error": str(error).partition(" Please click")[0]}, status_code=422)
