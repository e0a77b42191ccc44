"""Verbs of the command line as they are asked of a daemon: the same flags, and how the job is treated.

The flags are read off the local verbs, so that one that is added there is here as well. Their values go
to the daemon as they were typed, which checks them: it knows its own files, models and hardware.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from autosparse.cli import deploy, options, remote, search
from autosparse.cli.output import notice
from autosparse.errors import UsageError, got

_D = typing.TypeVar("_D")

VERBS: Mapping[str, Callable[..., int]] = MappingProxyType(
    {
        "search": search.search,
        "tune": search.tune,
        "train": search.train,
        "check": deploy.check,
    }
)
"""What jobs can be of."""

OF_THE_DAEMON = frozenset({"out", "database", "storage", "study_name", "address"})
"""Keys that say where a daemon works, which it decides."""
_OF_THE_CALL = frozenset({"ctx", "config_file", "save_config", "resume", "dry_run", "as_json"})
_OF_RUNS = ("run", "since")
_FILE = "config_file"
_TREATED = "How the job is treated"


def _flag(*names: str, help: str, panel: str = _TREATED, **more: Any) -> Any:
    return typer.Option(
        *names, help=help, show_default=False, rich_help_panel=panel, **{"metavar": "", **more}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Treated:
    """How a job is treated; see `autosparse.jobs.records.JobOptions`."""

    priority: Annotated[
        int | None,
        _flag("--priority", help="-100 to 100; of two that wait the higher runs first (default: 0)."),
    ] = None
    time_limit: Annotated[
        str | None,
        _flag("--time-limit", help="Time that it may run, such as 2h; it is stopped then, resumable."),
    ] = None
    retries: Annotated[
        int | None,
        _flag("--retries", help="How often it begins again when its process is killed (default: 3)."),
    ] = None
    label: Annotated[str | None, _flag("--label", help="A few words of your own.")] = None
    hardware_id: Annotated[
        str | None, _flag("--on", help="Hardware id of the only hosts that it may run on.")
    ] = None

    def body(self) -> dict[str, Any]:
        """Gives what was given, by the API's names."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What a call itself is told."""

    server: remote.Server = None
    as_json: options.Json = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filed:
    """What a verb is told whose settings may stand in a file."""

    config_file: options.ConfigFile = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for on the command line.

    Attributes:
        verb: of `VERBS`.
        settings: its flags by their keys, as they were typed.
        context: of the parser.
        rest: the other flags, by their parameters' names.
    """

    verb: str
    settings: Mapping[str, Any]
    context: typer.Context
    rest: Mapping[str, Any]

    def of(self, kind: type[_D]) -> _D:
        """Gives the flags of one of the classes that `command_of` was given."""
        names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
        return kind(**{name: self.rest[name] for name in names})


def command_of(
    verb: str, groups: Sequence[type], act: Callable[[Asked], int], help: str
) -> Callable[..., int]:
    """Makes the function whose flags the parser reads: those of a local verb and some groups more.

    Args:
        verb: of `VERBS`.
        groups: dataclasses whose fields are annotated as flags.
        act: called with what was asked.
        help: says what it does.
    """
    flags = _flags(verb)
    context = inspect.Parameter("ctx", _KIND, annotation=typer.Context)
    filed = [_Filed] if _takes_file(verb) else []
    more = [parameter for group in (*filed, *groups) for parameter in parameters(group)]

    def run(**given: Any) -> int:
        typed = {key: given[name] for key, (name, _) in flags.items() if given[name] not in (None, [])}
        rest = {parameter.name: given[parameter.name] for parameter in more}
        settings = _settings(verb, typed, rest.get(_FILE))
        return act(Asked(verb=verb, settings=settings, context=given["ctx"], rest=rest))

    every = [context, *(parameter for _, parameter in flags.values()), *more]
    run.__name__, run.__doc__ = verb, help
    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return run


_KIND = inspect.Parameter.KEYWORD_ONLY


def parameters(group: type) -> list[inspect.Parameter]:
    """Gives the fields of a dataclass as parameters that the parser reads."""
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(each.name, _KIND, default=each.default, annotation=hints[each.name])
        for each in dataclasses.fields(group)
    ]


def _flags(verb: str) -> dict[str, tuple[str, inspect.Parameter]]:
    """Gives the flags of a local verb that are a job's to say: key to parameter, and its name."""
    local = inspect.signature(VERBS[verb], eval_str=True).parameters
    named = [each for each in local.values() if each.name not in OF_THE_DAEMON | _OF_THE_CALL]
    return {_key(each): (each.name, _as_text(each)) for each in named}


def _takes_file(verb: str) -> bool:
    """Tells whether a verb's settings are keys of a configuration, and not flags alone."""
    return _FILE in inspect.signature(VERBS[verb]).parameters


def _key(parameter: inspect.Parameter) -> str:
    """Gives the key of a setting: the long name of its flag."""
    info = typing.get_args(parameter.annotation)[1]
    declared = [] if info.default is ... else [info.default]
    names = [*declared, *(info.param_decls or ())]
    long = next((name for name in names if name.startswith("--")), parameter.name)
    return str(long).partition("/")[0].lstrip("-").replace("-", "_")


def _as_text(parameter: inspect.Parameter) -> inspect.Parameter:
    """Gives a flag whose value stays as it was typed, and is None where it was not given."""
    base, info = typing.get_args(parameter.annotation)
    kinds = typing.get_args(base) or (base,)
    info = copy.copy(info)
    info.min = info.max = info.envvar = None
    if parameter.default not in (None, inspect.Parameter.empty) and info.show_default is True:
        info.show_default = str(parameter.default)
    if parameter.name in _OF_RUNS:
        info.autocompletion = None  # runs of this machine are not the daemon's
    if bool in kinds:
        kind: Any = bool | None
    elif any(typing.get_origin(each) is list for each in (base, *kinds)):
        kind = list[str] | None
    else:
        kind = str | None
    return inspect.Parameter(parameter.name, _KIND, default=None, annotation=Annotated[kind, info])


def _settings(verb: str, typed: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """Puts settings together as a local verb does: flag over environment over file, all of here."""
    if not _takes_file(verb):
        return dict(typed)
    from autosparse.config import read_file, variable

    keys = _flags(verb)
    in_file = {} if file is None else dict(read_file(file))
    left_out = [key for key in in_file if key in OF_THE_DAEMON and in_file[key] is not None]
    if left_out:
        notice(f"{', '.join(left_out)} in {file} are left out: the daemon decides where it works")
    of_file = {key: value for key, value in in_file.items() if key not in OF_THE_DAEMON}
    of_shell = {key: os.environ[variable(key)] for key in keys if os.environ.get(variable(key))}
    return {**of_file, **of_shell, **typed}


# -------------------------------------------------------------------------------- what stands where


class VerbGroup(TyperGroup):
    """Verbs whose flags may stand before them as well, as ``submit --priority 5 search``.

    A subclass may take one word before the verb, and say by `says_when` what it is.
    """

    says_when = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the verb first, and before it the word that the group takes."""
        asks_help = any(name in args for name in ctx.help_option_names)
        if args and not asks_help:
            try:
                args = self._in_order(args, ctx.command_path)
            except UsageError:
                if not ctx.resilient_parsing:  # else a shell asks what may come next
                    raise
        return super().parse_args(ctx, args)

    def _in_order(self, args: list[str], path: str) -> list[str]:
        takes_value = self._flags()
        before: list[str] = []
        words: list[str] = []
        wanted = 1 if self.says_when else 0
        rest = list(args)
        has_ended = False  # by two dashes: what follows is no flag
        while rest and len(words) < wanted + 1:
            word = rest.pop(0)
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if word == "--" and not has_ended:
                has_ended = True
            elif has_ended or not word.startswith("-") or (" " in word and len(words) < wanted):
                words.append(word)
                has_ended = has_ended and len(words) < wanted
            elif name not in takes_value:
                near = difflib.get_close_matches(name, takes_value, n=1, cutoff=0.7)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UsageError(
                    f"a flag must be one that exists, but got {name}{hint} (see {path} --help)"
                )
            else:
                before.append(word)
                if takes_value[name] and word == name and rest:
                    before.append(rest.pop(0))
        return self._checked(words, wanted, path) + before + rest

    def _checked(self, words: list[str], wanted: int, path: str) -> list[str]:
        """Gives the words as the parser takes them.

        Raises:
            UsageError: one of them is missing.
        """
        verbs = ", ".join(self.commands)
        if wanted and (not words or (words[0] in self.commands and len(words) == 1)):
            raise UsageError(f"{self.says_when} must stand before the verb (see {path} --help)")
        if len(words) <= wanted:
            raise UsageError(f"a verb must be named, one of {verbs}, but none was (see {path} --help)")
        if words[-1] not in self.commands:
            near = difflib.get_close_matches(words[-1], self.commands, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"a verb must be one of {verbs}, but got {got(words[-1])}{hint} (see {path} --help)"
            )
        return ["--", *words] if wanted else words

    def _flags(self) -> dict[str, bool]:
        """Gives every flag of the verbs, and whether a value follows it."""
        every = [parameter for verb in self.commands.values() for parameter in verb.params]
        return {
            name: not (parameter.is_flag or parameter.count)  # type: ignore[attr-defined]
            for parameter in every
            if parameter.param_type_name == "option"
            for name in (*parameter.opts, *parameter.secondary_opts)
        }
