"""Texts: every language whole, fallbacks, and what a shop may replace."""

from pathlib import Path

import pytest

from feature_store.errors import UserError
from recsvc.explaining.explain import CODES
from recsvc.explaining.words import BUILT_IN, Library, check, placeholders, read_library

LIBRARY = read_library()
ENGLISH = LIBRARY._books["en"]


def written(folder: Path, name: str, text: str) -> Library:
    (folder / name).write_text(text, encoding="utf-8")
    return read_library(folder)


@pytest.mark.parametrize("language", BUILT_IN)
def test_every_language_says_everything_with_the_same_parts(language: str) -> None:
    book = LIBRARY._books[language]
    assert set(book) == set(ENGLISH)
    check(book, ENGLISH, language)
    for name, template in book.items():
        assert template.other.strip() == template.other or name.startswith("lists."), name
        assert (template.one is None) == (ENGLISH[name].one is None), name


@pytest.mark.parametrize("language", BUILT_IN)
def test_every_reason_has_a_text_with_and_without_items(language: str) -> None:
    words = LIBRARY.words(language)
    for code in {*CODES.values(), "because_you_viewed", "followed"}:
        named = placeholders(LIBRARY._books[language][f"reasons.{code}"].other, code)
        assert named <= {"items"}
        assert words.text(f"reasons.{code}", items="X")
        assert words.text(f"reasons_unnamed.{code}")
    assert words.text("reasons_unnamed.quiet")


def test_nothing_is_said_of_other_people() -> None:
    for language, others in (
        ("en", ("customers", "people like", "others", "someone", "somebody", "users")),
        ("de", ("andere", "jemand", "kunden wie", "kundinnen wie", "personen wie")),
    ):
        for name, template in LIBRARY._books[language].items():
            if name.startswith("reasons"):
                said = template.other.lower()
                assert not [one for one in others if one in said], (name, said)


def test_lists_and_numbers_read_as_one_writes_them() -> None:
    english, german = LIBRARY.words("en"), LIBRARY.words("de")
    assert english.titles(["Milk"]) == "“Milk”"
    assert english.titles(["Milk", "Rye bread", "Eggs"]) == "“Milk”, “Rye bread” and “Eggs”"
    assert german.titles(["Milch", "Brot"]) == "„Milch“ und „Brot“"
    assert german.text("reasons.because_you_bought", items=german.titles(["Milch"])) == (
        "Weil Sie „Milch“ gekauft haben"
    )
    assert english.number(1234567.891, 2) == "1,234,567.89"
    assert german.number(1234567.891, 2) == "1.234.567,89"
    assert english.titles(["{title} {0.__class__}"]) == "“{title} {0.__class__}”"
    assert len(english.titles(["x" * 5_000])) < 130


def test_what_others_wrote_does_not_change_the_sentence_around_it() -> None:
    """Titles are a merchant's feed: they may hold anything, and turn what comes after them."""
    english = LIBRARY.words("en")
    evil = "A\x00B\x1b[31m\u202eC\nD\u2066E\x9f\u2028\ufeff"
    for told in (
        english.text("reasons.because_you_bought", items=english.titles([evil])),
        english.text("profile.interest", name=evil),
        english.text("profile.did_view", item=evil),
    ):
        assert told.isprintable()
        assert "\u202e" not in told
        assert all(letter in told for letter in "ABCDE")
    family = "Tea \U0001f468\u200d\U0001f469\u200d\U0001f467 \u0645\u06cc\u200c\u062e\u0648"
    assert family in english.text("profile.did_view", item=family)


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("de", "de"), ("de-AT", "de"), ("DE_at", "de"), ("fr", "en"), ("", "en"), (None, "en"),
        ("en-GB", "en"), ("de-Latn-CH-1996", "de"), ("d", "en"), ("-", "en"),
    ],
)  # fmt: skip
def test_languages_fall_back(asked: str | None, language: str) -> None:
    assert LIBRARY.words(asked).language == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr, en;q=0.2, de;q=0.7", "de"),
        ("fr;q=1, en;q=0.5", "en"),
        ("de;q=0, en", "en"),
        ("de;q=2, en;q=0.1", "en"),
        ("*", "en"),
        ("", "en"),
        ("de;q=abc", "en"),
        (",;q=,de", "de"),
    ],
)
def test_accept_language(header: str, language: str) -> None:
    assert LIBRARY.preferred(header) == language


def test_a_shop_says_it_in_its_own_words(tmp_path: Path) -> None:
    written(tmp_path, "de.toml", '[reasons]\npopular = "Der Renner"\n')
    library = written(tmp_path, "fr-CA.toml", '[reasons]\npopular = "Populaire"\n')
    assert library.words("de").text("reasons.popular") == "Der Renner"
    assert library.words("de").text("reasons.trending") == "Gerade im Trend"
    assert library.words("fr-ca").text("reasons.popular") == "Populaire"
    # What a shop has not translated is said in English.
    assert library.words("fr-ca").text("reasons.trending") == "Trending now"
    assert library.words("fr").language == "en"
    assert library.languages == ("de", "en", "fr-ca")
    assert read_library().words("de").text("reasons.popular") == "Zurzeit beliebt"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("de.toml", '[reasons]\npopluar = "x"\n', "there is no text reasons.popluar"),
        ("de.toml", '[reasons]\nsimilar_to = "Ähnlich"\n', "reasons.similar_to lacks {items}"),
        ("de.toml", '[reasons]\npopular = "{x}"\n', "reasons.popular has an unknown part {x}"),
        ("de.toml", '[reasons]\npopular = "{"\n', "write {{ for a brace"),
        ("de.toml", '[reasons]\nsimilar_to = "{items.real}"\n', "is not the name of a part"),
        ("de.toml", "[reasons]\npopular = 7\n", "must be a text"),
        ("de.toml", 'popular = "x"\n', "must stand in a section"),
        ("de.toml", "[reasons\n", "cannot be read"),
        ("german!.toml", "", "is not named like a language"),
    ],
)
def test_what_a_shop_got_wrong_is_said_clearly(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    with pytest.raises(UserError, match=said.replace("{", r"\{").replace("}", r"\}")) as error:
        written(tmp_path, name, text)
    assert name in str(error.value)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="words_dir"):
        read_library(tmp_path / "nothing")


def test_a_text_that_lacks_its_part_is_an_error_of_ours() -> None:
    with pytest.raises(KeyError):
        LIBRARY.words("en").text("reasons.similar_to")
    with pytest.raises(KeyError):
        LIBRARY.words("en").text("reasons.nothing")
