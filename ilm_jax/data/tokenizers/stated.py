"""Special tokens, as the JSON files beside a vocabulary state them."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from ilm_jax.errors import UserError
from ilm_jax.strict_json import parse_object

CONFIG, SPECIAL_MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
GENERATION = "generation_config.json"
# How turns of a conversation are laid out, where tokenizer_config.json does not hold it itself; the
# first of them is read.
TEMPLATES = ("chat_template.jinja", "chat_template.json")
# Looked at for eos and pad alone, where the files above name none: Qwen's config.json has a bos
# that its tokenizer never writes.
MODEL_CONFIGS = (GENERATION, "config.json")
JSON_FILES = (CONFIG, SPECIAL_MAP, ADDED, *MODEL_CONFIGS)
ToId = Callable[[str], int | None]


@dataclasses.dataclass(frozen=True)
class Roles:
    """Ids of the special tokens; see `Tokenizer`."""

    pad: int
    eos: int
    bos: int | None
    unk: int | None
    cls: int
    dec: int
    size: int
    least_size: int
    text_size: int


class Stated:
    """The parsed files.

    Attributes:
      where: the folder or file, for messages.
      config: tokenizer_config.json, or {}; "chat_template" in it is the model's own, in whichever
        file it stands.
    """

    def __init__(self, files: Mapping[str, bytes], where: str) -> None:
        """Parses those of JSON_FILES and TEMPLATES that are there.

        Raises:
          UserError: for a file that is not a JSON object, or no text.
        """
        self.where = where
        self._files: dict[str, dict[str, Any]] = {}
        for name in JSON_FILES:
            if name in files:
                self._files[name] = parse_object(files[name], f"{where}: {name}")
        self.config = self._files.get(CONFIG, {})
        for name in TEMPLATES:
            if name in files:
                template = _template(files[name], f"{where}: {name}")
                self.config = {**self.config, "chat_template": template}
                break

    @property
    def tokenizer_class(self) -> str:
        """Such as "Llama"; "" where it is not stated."""
        name = str(self.config.get("tokenizer_class") or "")
        return name.removesuffix("Fast").removesuffix("Tokenizer")

    @functools.cached_property
    def added(self) -> dict[str, int]:
        """Ids of tokens that were added to the vocabulary.

        Raises:
          UserError: where the files give one token two ids, or one id two tokens.
        """
        pairs = [(token, number) for token, number in self._files.get(ADDED, {}).items()]
        pairs += [(_content(token), number) for number, token in self._decoder.items()]
        added: dict[str, int] = {}
        for token, number in pairs:
            place = self._number(number, f"the id of {token!r}")
            if added.setdefault(str(token), place) != place:
                raise UserError(
                    f"{self.where}: {CONFIG} and {ADDED} give {token!r} the ids {added[token]} and "
                    f"{place}: delete the wrong one"
                )
        names: dict[int, str] = {}
        for name, place in added.items():
            if names.setdefault(place, name) != name:
                raise UserError(
                    f"{self.where}: id {place} is {names[place]!r} and {name!r} in {CONFIG} and "
                    f"{ADDED}: delete the wrong one"
                )
        return added

    @property
    def special(self) -> set[str]:
        """Tokens that tokenizer_config.json calls special."""
        return {
            str(_content(token))
            for token in self._decoder.values()
            if isinstance(token, dict) and token.get("special")
        }

    @property
    def _decoder(self) -> dict[str, Any]:
        found = self.config.get("added_tokens_decoder") or {}
        if not isinstance(found, dict):
            raise UserError(f"{self.where}: {CONFIG}: added_tokens_decoder is no JSON object")
        return found

    def _number(self, value: object, what: str) -> int:
        """An id, as JSON's keys and values give it."""
        if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 10:
            return int(value)
        if type(value) is not int or not -1 <= value < 10**9:
            raise UserError(f"{self.where}: {what} is {value!r}, which is no id")
        return value

    def id(self, role: str, to_id: ToId) -> int | None:
        """Id of "eos", "pad", …; None where no file names it.

        Raises:
          UserError: if a file names a token that the vocabulary lacks, or two files two tokens.
        """
        named = {}
        for name in (CONFIG, SPECIAL_MAP):
            said = self._files.get(name, {}).get(f"{role}_token")
            token = _content(said)
            if said and not isinstance(token, str):
                raise UserError(f"{self.where}: {name} says {role}_token {said!r}, which is none")
            if token:
                named[name] = token
        if len(set(map(str, named.values()))) > 1:
            raise UserError(
                f"{self.where}: {CONFIG} names {role}_token {named[CONFIG]!r}, {SPECIAL_MAP} "
                f"{named[SPECIAL_MAP]!r}: correct the wrong one"
            )
        for name, token in named.items():
            found = to_id(token)
            if found is None:
                raise UserError(
                    f"{self.where}: {name} names {role}_token {token!r}, which the vocabulary lacks"
                )
            return found
        for name in MODEL_CONFIGS if role in ("eos", "pad") else ():
            if numbers := self.ids(name, role):
                return numbers[0]
        return None

    def stops(self, eos: int, size: int) -> tuple[int, ...]:
        """Ids that end a text: eos, and those of generation_config.json.

        Where that file names none, config.json's, from which its default is made.

        Args:
          eos: the tokenizer's.
          size: number of ids.

        Raises:
          UserError: for one that is no id of the tokenizer.
        """
        for name in MODEL_CONFIGS:
            if numbers := self.ids(name, "eos"):
                wrong = [number for number in numbers if number >= size]
                if wrong:
                    raise UserError(
                        f"{self.where}: {name} ends texts with id {wrong[0]}, and the tokenizer "
                        f"has {size} ids: is it this model's?"
                    )
                return tuple(dict.fromkeys((eos, *numbers)))
        return (eos,)

    def ids(self, name: str, role: str) -> list[int]:
        """What a model's file says of a role; -1 stands for none."""
        stated = self._files.get(name, {}).get(f"{role}_token_id")
        stated = stated if isinstance(stated, list) else [] if stated is None else [stated]
        what = f"{name}: {role}_token_id"
        return [n for value in stated if (n := self._number(value, what)) >= 0]

    def roles(
        self,
        to_id: ToId,
        size: int,
        *,
        reachable: int,
        defaults: Mapping[str, int | None],
        opens: int | None,
    ) -> Roles:
        """All roles, by the rules of this package.

        Args:
          to_id: of a token, None where there is none.
          size: number of ids.
          reachable: texts encode to ids below this.
          defaults: ids by role for what no file names; {} for none.
          opens: the id with which the vocabulary's own template opens a text.

        Raises:
          UserError: if nothing names an end token.
        """

        def find(role: str) -> int | None:
            """Id of the token in this role, as stated or by default; None: there is none."""
            stated = self.id(role, to_id)
            return defaults.get(role) if stated is None else stated

        eos = find("eos")
        if eos is None:
            raise UserError(
                f"{self.where}: nothing names the end token; put the model's {CONFIG} there"
            )
        opener = self.config.get("add_bos_token")
        bos = find("bos") if opener else opens if opener is None else None
        pad = find("pad")
        cls, dec, text_size = find("cls"), to_id("[DEC]"), size
        if cls is None:
            cls, text_size = text_size, text_size + 1
        if dec is None:
            dec, text_size = text_size, text_size + 1
        pad, unk = eos if pad is None else pad, find("unk")
        for role, number in (("eos", eos), ("pad", pad)):
            if number >= size:
                raise UserError(
                    f"{self.where}: the files name {role} id {number}, and the tokenizer has "
                    f"{size} ids: are they of this model?"
                )
        used = [number + 1 for number in (pad, eos, bos, unk) if number is not None]
        return Roles(
            pad=pad,
            eos=eos,
            bos=bos,
            unk=unk,
            cls=cls,
            dec=dec,
            size=size,
            least_size=max(reachable, *used),
            text_size=text_size,
        )

    def config_of(self, roles: Roles, to_token: Callable[[int], str]) -> bytes:
        """A tokenizer_config.json that says all of it, for saving without the other files."""
        said: dict[str, str | None] = {
            f"{role}_token": to_token(number)
            for role in ("pad", "eos", "bos", "unk", "cls")
            if (number := getattr(roles, role)) is not None and number < roles.size
        }
        if roles.bos is None and not self.config.get("chat_template"):
            said["bos_token"] = None
        config = {**self.config, **said, "add_bos_token": roles.bos is not None}
        if self.added:
            known = {int(n): token for n, token in self._decoder.items()}
            names = {number: {"content": token} for token, number in self.added.items()}
            config["added_tokens_decoder"] = {str(n): v for n, v in (names | known).items()}
        return json.dumps(config, indent=1, ensure_ascii=False).encode()


def _template(data: bytes, what: str) -> Any:
    """A chat template in a file of its own."""
    if what.endswith(".json"):
        return parse_object(data, what).get("chat_template")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 ({error}): download it again") from error


def _content(token: object) -> Any:
    """Tokens stand as strings, or as objects with their options."""
    return token.get("content") if isinstance(token, dict) else token


def generation_of(stops: tuple[int, ...]) -> dict[str, bytes]:
    """The generation_config.json that says several end tokens, for saving; {} for one."""
    if len(stops) == 1:
        return {}
    return {GENERATION: json.dumps({"eos_token_id": list(stops)}).encode()}
