"""What every entry point does alike: tell a mistake in a sentence, and say with `--help` what there is to choose."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import resources
from typing import Any

import hydra
import yaml
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from peergrid.about import docstring
from peergrid.envs.common.configuration import shipped_names
from peergrid.grid.errors import PeergridError, UnknownName

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own variable for whoever wants tracebacks
MISTAKE = 2  # what argparse, too, exits with
INTERRUPTED = 130  # what shells say of a process that Ctrl-C ended
OWN_FILE = "Your own is FOLDER/{group}/NAME.yaml, with --config-dir FOLDER {group}=NAME."
PLUS = "One that its file does not name takes a + in front."


def command(config: str) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Makes of a function of Hydra's configuration an entry point on `conf/<config>.yaml`."""

    def decorate(task: Callable[..., Any]) -> Callable[..., None]:
        run = hydra.main(version_base="1.3", config_path="pkg://peergrid.conf", config_name=config)(task)

        @wraps(task)
        def main() -> None:
            with plainly(*(group for group, _ in groups_of(config))):
                run()

        return main

    return decorate


@contextmanager
def plainly(*groups: str) -> Iterator[None]:
    """Ends the process with a message in place of a traceback where whoever called it made a mistake.

    Args:
        groups: What can be chosen beside the settings, for the message.
    """
    wanted = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # else Hydra prints tracebacks of its own and exits
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what was kept", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except (PeergridError, HydraException, OmegaConfBaseException) as error:
        if wanted == "1":
            raise
        print(f"error: {_sentence(error, groups)}", file=sys.stderr)
        raise SystemExit(MISTAKE) from None
    finally:
        if wanted is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = wanted


def help_text(module: str, config: str) -> str:
    """What `--help` prints: the module's docstring, the choices in each group, and the settings with their comments."""
    groups, text = groups_of(config), _read(config)
    width = max((len(name) for name, _ in groups), default=0)
    blocks = re.split(r"\n(?=\w+:)", text)[1:]
    settings = [block.rstrip() for block in blocks if not block.startswith(("defaults:", "hydra:"))]
    lines = [f"python -m {module} [group=choice ...] [setting=value ...]", "", docstring(module), ""]
    if groups:
        lines += ["Groups; a group's own settings are group.setting=value:", ""]
        lines += [f"  {name:{width}}  {_choices(name, chosen)}" for name, chosen in groups]
        lines += [""]
    lines += ["Settings:", "", *("  " + line if line else "" for block in settings for line in block.splitlines()), ""]
    lines += [
        "-m runs every combination of values given with commas, --cfg job prints all settings without running,",
        "--config-dir FOLDER adds choices from FOLDER/<group>/<choice>.yaml, --hydra-help says what else Hydra can do.",
        "A part outside peergrid, named as module:attribute, needs PEERGRID_ALLOW_IMPORTS=1 in the environment.",
    ]
    return "\n".join(lines).replace("$", "$$")  # Hydra puts values in for $NAME


def groups_of(config: str) -> list[tuple[str, str]]:
    """Each group of `conf/<config>.yaml`, with what it chooses unless told otherwise."""
    defaults = [part for part in yaml.safe_load(_read(config))["defaults"] if isinstance(part, dict)]
    return [(name, str(choice)) for part in defaults for name, choice in part.items() if "override" not in name]


def _read(config: str) -> str:
    return (resources.files("peergrid.conf") / f"{config}.yaml").read_text(encoding="utf-8")


def _choices(group: str, chosen: str) -> str:
    names = [f"{name} (default)" if name == chosen else name for name in shipped_names(group)]
    return ", ".join(names)


def _sentence(error: Exception, groups: tuple[str, ...]) -> str:
    """What was wrong, with the nearest name that there is."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        hint = OWN_FILE.format(group=group)
        if group in ("hydra/launcher", "hydra/sweeper"):
            hint = 'More of them: pip install "peergrid[sweep]".'
        return str(UnknownName(group, name, error.options, hint=hint))
    cause = error.__cause__ or error
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        above, _, key = str(cause.full_key).rpartition(".")
        known = set(map(str, cause.parent_node or ()))
        if not above and key in groups:
            return f"{key!r} is a group, chosen as {key}=NAME; --cfg job shows where its settings lie"
        if above:
            return str(UnknownName(f"setting of {above}", key, known, hint=PLUS))
        return str(UnknownName("setting or group", key, known.union(groups) - {"hydra"}))
    return "\n".join(line for line in (str(error), str(error.__cause__ or "")) if line)


OmegaConf.register_new_resolver("peergrid.help", help_text, replace=True)
