"""The admin key, row by row: what was meant to be a key never becomes an empty one, nor none."""

# ruff: noqa: E501  a row of a table is one line

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from open_mcp_gateway.config.load import LoadedConfig, Overrides, load_config
from open_mcp_gateway.errors import InvalidConfig
from tests.unprivileged import unprivileged

KEY = "test-key-0123456789-abcdef"
HASH = hashlib.sha256(KEY.encode()).hexdigest()
ENVIRON = {
    "KEY": KEY,
    "EMPTY": "",
    "BLANK": "   ",
    "PADDED": f" {KEY} ",
    "NEWLINE": f"{KEY}\n",
    "INNER": "test-key 0123456789",
    "CONTROL": "test-key\x07-0123456789",
    "UMLAUT": "test-key-0123456789-ä",
    "BYTES": "test-key-0123456789-\udcff",
    "LONG": "test-key-" + "0123456789" * 51,
    "SHORT": "test-key",
    "SAME": "ababababababababababab",
    "TEMPLATE": "${MCP_KEY}",
    "BARE": "$MCP_KEY",
    "DOLLAR": "test-key$word-0123456789",
    "HASH": HASH,
    "HALF": "0123456789",
}


def load(folder: Path, text: str) -> LoadedConfig:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, Overrides(), ENVIRON)


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load(folder, text)
    prefix = f"{folder / 'config.yaml'}:"
    return [str(problem).removeprefix(prefix) for problem in caught.value.problems]


def assert_key(loaded: LoadedConfig, key: str) -> None:
    config = loaded.config
    assert config.auth_enabled
    (record,) = config.keys
    assert record.id == "config:api_key"
    assert record.role == "admin"
    assert record.digests == (hashlib.sha256(key.encode()).digest(),)
    assert key not in repr(loaded)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"api_key: {KEY}", KEY),
        (f'api_key: "{KEY}"', KEY),
        ("api_key: ${KEY}", KEY),
        ('api_key: "${KEY}"', KEY),
        ("api_key: ${KEY:?set it}", KEY),
        ("api_key: ${KEY:-test-key-of-the-file}", KEY),
        ("api_key: test-key-${HALF}", "test-key-0123456789"),
        ("api_key: '1234567890123456'", "1234567890123456"),
        ("api_key: test-key-$$word-0123", "test-key-$word-0123"),
        ("api_key: ${DOLLAR}", "test-key$word-0123456789"),
        (f"api_key: {'0123456789abcdef' * 32}", "0123456789abcdef" * 32),
        (f"api_key_hash: sha256:{HASH}", KEY),
        (f"api_key_hash: sha256:{HASH.upper()}", KEY),
        ("api_key_hash: sha256:${HASH}", KEY),
        (f"api_key: {KEY}\nauth: {{require: true}}", KEY),
        (f"api_key: {KEY}\nauth: {{require: false}}", KEY),
    ],
)  # fmt: skip
def test_a_key(tmp_path: Path, text: str, key: str) -> None:
    assert_key(load(tmp_path, text), key)


def test_no_key(tmp_path: Path) -> None:
    loaded = load(tmp_path, "log_level: info")
    assert not loaded.config.auth_enabled
    assert loaded.config.keys == ()
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    "text", ["api_key: null", "api_key: ~", "api_key:", "api_key_file: null", "api_key_hash:"]
)
@pytest.mark.parametrize("beside", ["", "\nauth: {require: false}"])
def test_a_key_left_empty_never_opens_the_door(tmp_path: Path, text: str, beside: str) -> None:
    [problem] = problems_of(tmp_path, text + beside)
    assert problem.endswith("is empty; write a key or remove the line")


LEFT = "holds '$NAME' or '${' that was not replaced; write ${NAME} with the variable set"
QUOTE = "to YAML, not text; quote it"
CHARACTERS = "holds a space, a control character or a non-ASCII one; use visible ASCII only"
BLANK = "is empty or blank; write a key or remove the line"
EDGES = "starts or ends with white space; remove it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('api_key: ""', BLANK),
        ("api_key: ''", BLANK),
        ("api_key: '   '", BLANK),
        ('api_key: "\\t\\n"', BLANK),
        ("api_key: ${BLANK}", f"{BLANK} (the value comes from BLANK)"),
        ("api_key: ${UNSET}", "environment variable UNSET is not set; set it"),
        ('api_key: "${UNSET}"', "environment variable UNSET is not set; set it"),
        ("api_key: test-key-${UNSET}", "environment variable UNSET is not set; set it"),
        ("api_key: ${EMPTY}", "environment variable EMPTY is empty; set it"),
        ("api_key: test-key-0123456789${EMPTY}", "environment variable EMPTY is empty; set it"),
        ("api_key: ${UNSET:-}", "environment variable UNSET is empty; set it"),
        ("api_key: ${EMPTY:-}", "environment variable EMPTY is empty; set it"),
        ("api_key: ${UNSET:?ask the operator}", "ask the operator (environment variable UNSET is not set)"),
        ("api_key: ${EMPTY:?ask the operator}", "ask the operator (environment variable EMPTY is empty)"),
        ("api_key: ${UNSET:?}", "a value is needed; set it (environment variable UNSET is not set)"),
        ("api_key: ${KEY", "'${' has no closing '}'; close it, or write '$$' for a literal '$'"),
        ("api_key: $KEY", LEFT),
        ("api_key: test-key-$KEY-0123", LEFT),
        ("api_key: $${KEY}", LEFT),
        ("api_key: ${TEMPLATE}", f"{LEFT} (the value comes from TEMPLATE)"),
        ("api_key: ${BARE}", f"{LEFT} (the value comes from BARE)"),
        ("api_key: ${PADDED}", f"{EDGES} (the value comes from PADDED)"),
        ("api_key: ${NEWLINE}", f"{EDGES} (the value comes from NEWLINE)"),
        (f"api_key: ' {KEY}'", EDGES),
        (f"api_key: '{KEY} '", EDGES),
        ("api_key: ${INNER}", f"{CHARACTERS} (the value comes from INNER)"),
        ("api_key: ${CONTROL}", f"{CHARACTERS} (the value comes from CONTROL)"),
        ("api_key: ${UMLAUT}", f"{CHARACTERS} (the value comes from UMLAUT)"),
        ("api_key: ${BYTES}", f"{CHARACTERS} (the value comes from BYTES)"),
        ('api_key: "test-key\\0"', CHARACTERS),
        ("api_key: ${LONG}", "is longer than 512 bytes; use a shorter key (the value comes from LONG)"),
        (f"api_key: {'0123456789abcde ' * 31}0123456789abcde/", CHARACTERS),
        ("api_key: 12345678901234567890", f"is a whole number {QUOTE}"),
        ("api_key: 0x1234567890abcdef", f"is a whole number {QUOTE}"),
        ("api_key: 1234567890.123456", f"is a number {QUOTE}"),
        ("api_key: 1e20", f"is a number {QUOTE}"),
        ("api_key: yes", f"is true or false {QUOTE}"),
        ("api_key: true", f"is true or false {QUOTE}"),
        ("api_key: [a]", "must be text, but is a list; write one value"),
        ("api_key: {a: b}", "must be text, but is a mapping; write one value"),
        ('api_key_hash: ""', BLANK),
        ("api_key_hash: ${UNSET}", "environment variable UNSET is not set; set it"),
        ("api_key_hash: ${EMPTY}", "environment variable EMPTY is empty; set it"),
        (f"api_key_hash: {HASH}", "must be 'sha256:' and 64 hexadecimal digits"),
        (f"api_key_hash: sha256:{HASH[:-1]}", "must be 'sha256:' and 64 hexadecimal digits"),
        (f"api_key_hash: sha256:{HASH}0", "must be 'sha256:' and 64 hexadecimal digits"),
        (f"api_key_hash: 'sha256:{HASH} '", "must be 'sha256:' and 64 hexadecimal digits"),
        (f"api_key_hash: md5:{HASH}", "must be 'sha256:' and 64 hexadecimal digits"),
        *((f"api_key_hash: sha256:{hashlib.sha256(empty).hexdigest()}",
           "is the hash of an empty key; hash the key itself") for empty in (b"", b"\n")),
        ('api_key_file: ""', BLANK),
        ("api_key_file: ${EMPTY}", "environment variable EMPTY is empty; set it"),
        ("api_key_file: none", "the file does not exist; create it, or mend the path"),
        ("api_key_file: .", "the file is a folder; name the file in it"),
        ("api_key_file: ~nobody-of-that-name/key", "'~' leads to no home folder; write the whole path"),
        ("api_key_file: 5", f"is a whole number {QUOTE}"),
    ],
)  # fmt: skip
def test_an_error_and_never_an_open_gateway(tmp_path: Path, text: str, message: str) -> None:
    field = text.partition(":")[0]
    assert problems_of(tmp_path, text) == [f"1 {field}: {message}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty or blank; write the key into it"),
        (b"\n", "the file is empty or blank; write the key into it"),
        (b" \r\n\t\n", "the file is empty or blank; write the key into it"),
        (b"${KEY}\n", f"the file's content {LEFT}"),
        (b"$KEY", f"the file's content {LEFT}"),
        (KEY.encode() + b"\n\n", EDGES),
        (b" " + KEY.encode(), EDGES),
        (KEY.encode() + b"\nother", CHARACTERS),
        (b"test-key-\xff\xfe-0123456789", CHARACTERS),
        (b"k" * 513, "is longer than 512 bytes; use a shorter key"),
        (b"k" * 5000, "the file is larger than 4096 bytes; is it the right file?"),
    ],
)
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    assert problems_of(tmp_path, "api_key_file: key") == [f"1 api_key_file: {message}"]


@pytest.mark.parametrize(
    ("ending", "mode"),
    [("", 0o600), ("\n", 0o600), ("\r\n", 0o600), ("", 0o400), ("", 0o711), ("", 0o622)],
)
def test_a_key_from_a_file(tmp_path: Path, ending: str, mode: int) -> None:
    file = tmp_path / "key"
    file.write_bytes((KEY + ending).encode())
    file.chmod(mode)
    loaded = load(tmp_path, "api_key_file: key")
    assert_key(loaded, KEY)
    assert loaded.warnings == ()
    assert loaded.config.key_files == (file,)


def test_a_key_file_stays_watched_only_when_there_is_one(tmp_path: Path) -> None:
    assert load(tmp_path, f"api_key: {KEY}").config.key_files == ()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_can_read(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(mode)
    loaded = load(tmp_path, "api_key_file: key")
    assert_key(loaded, KEY)
    assert [warning.message for warning in loaded.warnings] == [
        "other users can read the file; run chmod 600 on it"
    ]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0)
    unprivileged(check_that_it_is_not_read, tmp_path)


def check_that_it_is_not_read(folder: Path) -> None:
    (problem,) = problems_of(folder, "api_key_file: key")
    assert "Permission denied" in problem


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("api_key: ${SHORT}", "is shorter than 16 characters and can be guessed; use a long random one"),
        ("api_key: 0123456789abcde", "is shorter than 16 characters and can be guessed; use a long random one"),
        ("api_key: abcdeabcdeabcdeabcde", "repeats a few characters and can be guessed; use a long random one"),
        ("api_key: ${SAME}", "repeats a few characters and can be guessed; use a long random one"),
        ("api_key: ${UNSET:-test-key-of-the-file}",
         "UNSET is not set, so the default in this file is the key; set UNSET"),
    ],
)  # fmt: skip
def test_a_weak_key_is_a_warning(tmp_path: Path, text: str, warning: str) -> None:
    loaded = load(tmp_path, text)
    assert loaded.config.auth_enabled
    assert [one.message for one in loaded.warnings] == [warning]


@pytest.mark.parametrize("key", ["0123456789abcdef", "abcdefabcdefabcdef"])
def test_a_key_that_is_just_good_enough(tmp_path: Path, key: str) -> None:
    assert load(tmp_path, f"api_key: {key}").warnings == ()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (("api_key", "api_key_file"), "'api_key' and 'api_key_file'"),
        (("api_key_hash", "api_key"), "'api_key' and 'api_key_hash'"),
        (("api_key_file", "api_key_hash"), "'api_key_file' and 'api_key_hash'"),
    ],
)
def test_two_ways_at_once(tmp_path: Path, fields: tuple[str, ...], named: str) -> None:
    (tmp_path / "key").write_text(KEY)
    values = {"api_key": KEY, "api_key_file": "key", "api_key_hash": f"sha256:{HASH}"}
    text = "\n".join(f"{field}: {values[field]}" for field in fields)
    (problem,) = problems_of(tmp_path, text)
    assert problem.endswith(f"{named} are both there; keep one of them")


def test_two_ways_at_once_when_one_is_empty(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, f"api_key: {KEY}\napi_key_file: ''")
    assert len(problems) == 2


def test_what_cannot_be_a_key_is_nobodys(tmp_path: Path) -> None:
    """So it is not called the same as another one that cannot be either."""
    (tmp_path / "blank").write_text("\n")
    for text in (f"api_key: '{KEY} '", "api_key_file: blank", "api_key_hash: x"):
        tenant = f"tenants: [{{id: a, namespaces: [], {text}}}]"
        assert len(problems_of(tmp_path, f"{text}\n{tenant}")) == 2


def test_required_and_not_there(tmp_path: Path) -> None:
    assert problems_of(tmp_path, "auth: {require: true}") == [
        "1 auth.require: is true, but no key is configured; set api_key or api_key_file"
    ]


def test_no_problem_holds_the_key(tmp_path: Path) -> None:
    for name in ("PADDED", "INNER", "CONTROL", "UMLAUT", "LONG", "TEMPLATE"):
        text = "\n".join(problems_of(tmp_path, f"api_key: ${{{name}}}"))
        assert "0123456789" not in text
        assert "MCP_KEY" not in text
    text = "\n".join(problems_of(tmp_path, f"api_key: ' {KEY}'\nlisten_addr: x"))
    assert KEY not in text
