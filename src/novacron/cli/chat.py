"""novacron chat: talk to a model in the terminal, or through a pipe, one message a line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click

from novacron.cli.api_client import ApiClient
from novacron.cli.conversation import Conversation
from novacron.cli.generation import Generation, Statistics
from novacron.cli.options import settings_command
from novacron.cli.sampling import parse_setting, sampling_options, split_sampling
from novacron.cli.target import connected, target_options
from novacron.errors import InvalidRequest, NovaCronError


@settings_command("model")
@target_options
@click.option("--model-name", help="model to ask for, if the server has several")
@click.option("--system", default="", help="system prompt")
@sampling_options
@click.pass_context
def chat(
    ctx: click.Context,
    /,
    url: str | None,
    client_key: str | None,
    model_name: str | None,
    system: str,
    **options: object,
) -> None:
    """Talk to a running server or, with --model, to a model run right here.

    Type /help for the commands inside the chat. Ctrl-C stops an answer, Ctrl-D leaves. Reads one
    message a line if standard input is not a terminal.
    """
    sampling, flags = split_sampling(options)
    with connected(url, client_key, flags) as client:
        name = model_name or client.first_model()
        conversation = Conversation(system=system, settings=sampling)
        session = ChatSession(client, name, conversation, is_terminal=sys.stdin.isatty())
        ctx.exit(session.run())


class ChatSession:
    """Reads lines until the input ends or /exit; answers on standard output."""

    def __init__(
        self, client: ApiClient, model: str, conversation: Conversation, *, is_terminal: bool
    ) -> None:
        self._client = client
        self._model = model
        self._conversation = conversation
        self._is_terminal = is_terminal
        self._statistics: Statistics | None = None
        self._failed = False

    def run(self) -> int:
        """The exit code: 1 if an answer failed and nobody was there to see it."""
        if self._is_terminal:
            import readline  # noqa: F401 - gives input() editing and a history

            self._note(f"{self._model} at {self._client.url}. /help lists commands.")
        while (line := self._read()) is not None:
            if not line.strip():
                continue
            try:
                if not line.startswith("/"):
                    self._say(line)
                elif not self._command(line):
                    break
            except NovaCronError as error:
                self._failed = True
                click.echo(f"Error: {error}", err=True)
        return int(self._failed and not self._is_terminal)

    def _read(self) -> str | None:
        if not self._is_terminal:
            line = sys.stdin.readline()
            return line.rstrip("\n") if line else None
        while True:
            try:
                return input("\n> ")
            except EOFError:
                click.echo()
                return None
            except KeyboardInterrupt:
                self._note("\n/exit or Ctrl-D leaves.")

    def _say(self, text: str) -> None:
        self._conversation.ask(text)
        self._answer()

    def _answer(self) -> None:
        """Stream the answer to the open question. On a terminal Ctrl-C ends it, not the chat; it is
        kept as far as it came."""
        body = {
            "model": self._model,
            "messages": self._conversation.messages,
            **self._conversation.settings,
        }
        generation = Generation(self._client, "/v1/chat/completions", body)
        pieces: list[str] = []
        try:
            with closing(iter(generation)) as texts:
                for text in texts:
                    pieces.append(text)
                    click.echo(text, nl=False)
        except KeyboardInterrupt:
            if not self._is_terminal:
                raise
            self._note("\nStopped.")
        except NovaCronError:
            click.echo("\n" if pieces else "", nl=False)
            self._conversation.take_back_question()
            raise
        else:
            click.echo()
            self._statistics = generation.statistics
            self._note(str(generation.statistics))
        self._conversation.answer("".join(pieces))

    def _command(self, line: str) -> bool:
        """Carry out a /command. False if it ends the chat."""
        name, _, argument = line.partition(" ")
        if name in ("/exit", "/quit", "/bye"):
            return False
        action = self._actions().get(name)
        if action is None:
            raise InvalidRequest(f"There is no command {name}. /help lists them.")
        action(argument.strip())
        return True

    def _actions(self) -> dict[str, Callable[[str], None]]:
        return {
            "/help": self._help,
            "/clear": self._clear,
            "/system": self._set_system,
            "/set": self._set,
            "/stats": self._stats,
            "/retry": self._retry,
            "/save": self._save,
            "/load": self._load,
        }

    def _help(self, _: str) -> None:
        click.echo(_HELP)

    def _clear(self, _: str) -> None:
        self._conversation.turns.clear()
        self._note("The chat starts afresh.")

    def _set_system(self, text: str) -> None:
        if text:
            self._conversation.system = text
        self._note(f"System prompt: {self._conversation.system or '(none)'}")

    def _set(self, argument: str) -> None:
        name, _, value = argument.partition(" ")
        settings = self._conversation.settings
        if value.strip():
            settings[name.replace("-", "_")] = parse_setting(name, value.strip())
        elif name:
            settings.pop(name.replace("-", "_"), None)
        shown = ", ".join(f"{key} {value}" for key, value in settings.items())
        self._note(f"Settings: {shown or 'those of the model'}")

    def _stats(self, _: str) -> None:
        click.echo(str(self._statistics or "No answer yet."))

    def _retry(self, _: str) -> None:
        if not self._conversation.take_back_answer():
            raise InvalidRequest("There is no answer to try again.")
        self._answer()

    def _save(self, name: str) -> None:
        self._conversation.save(_path(name))
        self._note(f"Saved to {name}.")

    def _load(self, name: str) -> None:
        self._conversation.load(_path(name))
        self._note(f"Loaded {len(self._conversation.turns)} messages from {name}.")

    def _note(self, text: str) -> None:
        """Said to people, not to programs."""
        if self._is_terminal:
            click.secho(text, dim=True, err=True)


def _path(name: str) -> Path:
    if not name:
        raise InvalidRequest("Name a file, as in /save talk.json.")
    return Path(name).expanduser()


_HELP = """\
/help                 this list
/clear                forget the chat so far
/system [TEXT]        show or replace the system prompt
/set [NAME [VALUE]]   show settings, set one (temperature 0.2) or return it to the default
/retry                another answer to the last question
/stats                tokens and times of the last answer
/save FILE            write the chat to a file
/load FILE            go on with a saved chat
/exit                 leave (also Ctrl-D)"""
