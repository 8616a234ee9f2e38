"""What the JSON files beside a vocabulary say of its special tokens."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from ilm_jax.errors import UserError

CONFIG, SPECIAL_MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
# Looked at for eos and pad alone, where the files above name none: Qwen's config.json has a bos
# that its tokenizer never writes.
MODEL_CONFIGS = ("generation_config.json", "config.json")
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
      config: tokenizer_config.json, or {}.
    """

    def __init__(self, files: Mapping[str, bytes], where: str) -> None:
        """Parses those of JSON_FILES that are there.

        Raises:
          UserError: for a file that is not a JSON object.
        """
        self.where = where
        self._files: dict[str, dict[str, Any]] = {}
        for name in JSON_FILES:
            if name in files:
                self._files[name] = parse_json(files[name], f"{where}: {name}")
        self.config = self._files.get(CONFIG, {})

    @property
    def tokenizer_class(self) -> str:
        """Such as "Llama"; "" where it is not stated."""
        name = str(self.config.get("tokenizer_class") or "")
        return name.removesuffix("Fast").removesuffix("Tokenizer")

    @property
    def added(self) -> dict[str, int]:
        """Ids of tokens that were added to the vocabulary."""
        added = {str(token): int(number) for token, number in self._files.get(ADDED, {}).items()}
        for number, token in self._decoder.items():
            added[str(_content(token))] = int(number)
        return added

    @property
    def _decoder(self) -> dict[str, Any]:
        return self.config.get("added_tokens_decoder") or {}

    def id(self, role: str, to_id: ToId) -> int | None:
        """Id of "eos", "pad", …; None where no file names it.

        Raises:
          UserError: if a file names a token that the vocabulary lacks.
        """
        for name in (CONFIG, SPECIAL_MAP):
            token = _content(self._files.get(name, {}).get(f"{role}_token"))
            if token:
                found = to_id(token)
                if found is None:
                    raise UserError(
                        f"{self.where}: {name} names {role}_token {token!r}, which the vocabulary "
                        "lacks"
                    )
                return found
        for name in MODEL_CONFIGS if role in ("eos", "pad") else ():
            number = self._files.get(name, {}).get(f"{role}_token_id")
            if isinstance(number, list):
                number = number[0] if number else None
            if number is not None and number >= 0:
                return int(number)
        return None

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
        used = [number + 1 for number in (pad, eos, bos, unk) if number is not None]
        return Roles(
            pad=pad, eos=eos, bos=bos, unk=unk, cls=cls, dec=dec,
            size=size, least_size=max(reachable, *used), text_size=text_size,
        )  # fmt: skip

    def config_of(self, roles: Roles, to_token: Callable[[int], str]) -> bytes:
        """A tokenizer_config.json that says all of it, for saving without the other files."""
        said: dict[str, str | None] = {
            f"{role}_token": to_token(number)
            for role in ("pad", "eos", "bos", "unk", "cls")
            if (number := getattr(roles, role)) is not None and number < roles.size
        }
        if roles.bos is None:
            said["bos_token"] = None
        config = {**self.config, **said, "add_bos_token": roles.bos is not None}
        if self.added:
            known = {int(n): token for n, token in self._decoder.items()}
            names = {number: {"content": token} for token, number in self.added.items()}
            config["added_tokens_decoder"] = {str(n): v for n, v in (names | known).items()}
        return json.dumps(config, indent=1, ensure_ascii=False).encode()


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: if it is none.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UserError(f"{what} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{what} holds no JSON object")
    return value


def _content(token: Any) -> Any:
    """Tokens stand as strings, or as objects with their options."""
    return token.get("content") if isinstance(token, dict) else token
