"""The `woodshed` command. Only the standard library is imported until a command is known, so that help is instant.

Exit codes: 0 done, 1 a bug or a failed check, 2 something the user can mend, 130 stopped by Ctrl-C.
"""

import difflib
import importlib
import os
import sys
from collections.abc import MutableMapping, Sequence

COMMANDS = {
    "demo": "see the whole path work: prep, train and sample on songs that come with it",
    "prep": "turn a folder of songs into a prepared dataset",
    "captions": "read, change and count what a dataset's captions say",
    "plan": "which settings fit into a card's memory, and how fast they would be",
    "train": "teach a base model to play like a prepared dataset",
    "evaluate": "is an adapter good, which checkpoint, which strength: one page, one verdict",
    "sample": "make music from text with a base and an adapter",
    "live": "play a base and its adapters on a page in the browser",
    "merge": "merge an adapter into its base: a model that transformers loads",
    "blend": "several adapters into one, or one at another rank",
    "convert": "adapters and tuned models in other tools' formats, both ways",
    "bundle": "an adapter as one checked file for a friend, and back",
    "adapters": "which adapters are on this machine, and where they fit",
    "push": "put an adapter on the hub, after showing what would go",
    "pull": "fetch an adapter from the hub, checked",
    "inspect": "print everything an adapter says of itself",
    "codec": "what a codec keeps of your songs, and decoders that learn them",
    "doctor": "check this machine, with a fix beside each failure",
}
"""Name → one line. The code of a command is finetune/commands/<name>.py, imported only when it runs."""

WAIT_POLICY = "PASSIVE"
"""How OpenMP's threads wait for each other, unless the person has set OMP_WAIT_POLICY: asleep. Spinning, as is usual,
makes a training step four to five times as long as soon as one other process wants the same cores. It is read when
torch is loaded, so it is set before."""

ALLOCATOR = "expandable_segments:True"
"""PyTorch's CUDA allocator grows its segments instead of leaving gaps between them: clips of many lengths fragment
memory otherwise. Linux only, read when torch first allocates; without CUDA it means nothing."""
ALLOCATOR_NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Where a person may have said otherwise: the name since torch 2.9, and the one before."""


def prepare_for_torch(environment: MutableMapping[str, str]) -> None:
    """What torch reads from the environment when it is loaded, where the person has not said it."""
    environment.setdefault("OMP_WAIT_POLICY", WAIT_POLICY)
    if sys.platform == "linux" and not any(name in environment for name in ALLOCATOR_NAMES):
        environment[ALLOCATOR_NAMES[0]] = ALLOCATOR


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Without words it is this process's own command line."""
    prepare_for_torch(os.environ)
    if argv is not None:
        return _answer(list(argv))
    from finetune.stop import no_more_words, stop_in_words

    stop_in_words()
    try:
        return _answer(sys.argv[1:])
    finally:
        no_more_words()


def _answer(words: list[str]) -> int:
    debug = "--debug" in _before_end(words)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        print("\nstopped", file=sys.stderr)
        return getattr(stop, "code", 130)
    except BrokenPipeError:
        # The reader of a pipe has left. The interpreter flushes once more at exit: give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _show(error, debug)


def _dispatch(words: list[str]) -> int:
    while words and words[0] == "--debug":
        words.pop(0)
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[1] in COMMANDS:
            return _run(words[1], ["--help"])
        print(_help())
        return 0
    if words[0] in ("--version", "-V", "version"):
        print(f"woodshed {_version()}")
        return 0
    if words[0] not in COMMANDS:
        return _no_such_command(words[0])
    return _run(words[0], words[1:])


def _run(name: str, words: list[str]) -> int:
    from configs.tree import to_yaml
    from finetune.flags import declare, help_text, read
    from finetune.terminal import survive_odd_characters

    survive_odd_characters()
    module = importlib.import_module(f"finetune.commands.{name}")
    flags = declare(name, COMMANDS[name], module)
    if {"-h", "--help"} & set(_before_end(words)):
        print(help_text(flags, module.EXAMPLES), end="")
        return 0
    line = read(flags, words)
    if line.print_config:
        assert line.settings is not None
        print(to_yaml(line.settings, comments=True), end="")
        return 0
    return int(module.run(line.args, line.settings) or 0)


def _show(error: Exception, debug: bool) -> int:
    from configs.errors import UserError
    from data_prep.safe_write import as_os_error, disk_error, is_about_disk
    from finetune.terminal import show_bug, show_user_error

    cause = as_os_error(error)
    if cause is not None and is_about_disk(error):  # whatever library wrote: a full disk is never a bug of ours
        told = disk_error(cause)
        told.__cause__ = error
        error = told
    if type(error).__name__ == "OutOfMemoryError":  # torch's, from wherever: no bug of ours either
        from adapters.device_memory import no_memory

        error = no_memory(error) or error
    if isinstance(error, UserError):
        show_user_error(error, debug=debug)
        return 2
    show_bug(error, debug=debug)
    return 1


def _no_such_command(word: str) -> int:
    close = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean `woodshed {close[0]}`?" if close else "`woodshed --help` lists the commands"
    print(f"error: there is no command {word!r}; {hint}", file=sys.stderr)
    return 2


def _before_end(words: list[str]) -> list[str]:
    return words[: words.index("--")] if "--" in words else words


def _help() -> str:
    rows = "\n".join(f"  {name:<8}  {line}" for name, line in COMMANDS.items())
    return f"""usage: woodshed COMMAND ... [--debug]

Teach a pretrained text-to-music model to play like you, and share the result as a small adapter.

commands:
{rows}

  woodshed COMMAND --help   what a command takes, with examples
  woodshed --version

examples:
  woodshed prep my_songs/ data/mine --trigger "in the style of mine"
  woodshed train data/mine runs/mine --preset 8gb
  woodshed sample runs/mine/adapter "slow ballad, piano, in the style of mine" --out out/"""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("woodshed")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
