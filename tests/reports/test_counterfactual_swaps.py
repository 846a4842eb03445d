"""A counterfactual text says the same of another group, in correct English.

Every word that means a person of the group is exchanged, and no other: verbs, names of others, and colours of things
stay. Articles, capitals, possessives, titles and hyphens are right after the exchange.
"""

from __future__ import annotations

import pytest

from beft.data.counterfactual import augment, axis, swapped

GENDER, NAMES, RACE, RELIGION = axis("gender"), axis("gender", names=True), axis("race"), axis("religion")


@pytest.mark.parametrize(
    ("text", "other"),
    [
        # possessive in front of a number, a mark, an accent
        ("She lost her 3 dogs.", "He lost his 3 dogs."),
        ("Her 20-year-old sister left.", "His 20-year-old brother left."),
        ('We liked her "modern" style.', 'We liked his "modern" style.'),
        ("We liked her “modern” style.", "We liked his “modern” style."),
        ("We met her (older) cousins.", "We met his (older) cousins."),
        ("I know her élan and her époque.", "I know his élan and his époque."),
        ("She sold her $5 watch.", "He sold his $5 watch."),
        ("At her in-laws’ house", "At his in-laws’ house"),
        ("She did it against her will.", "He did it against his will."),
        ("Watch her every move!", "Watch his every move!"),
        ("Her newly built house", "His newly built house"),
        ("his/her book", "her/his book"),
        # object
        ("We saw her (and him).", "We saw him (and her)."),
        ('They called her "brilliant".', 'They called him "brilliant".'),
        ("I saw “her”.", "I saw “him”."),
        ("We met her 10 years ago.", "We met him 10 years ago."),
        ("They paid her $5.", "They paid him $5."),
        ("I saw her leave the shop.", "I saw him leave the shop."),
        ("It made her happy.", "It made him happy."),
        ("They let her walk home.", "They let him walk home."),
        ("I told her quietly that it rained.", "I told him quietly that it rained."),
        ("I told her Bob left.", "I told him Bob left."),
        ("Give her my book.", "Give him my book."),
        ("We saw her last week.", "We saw him last week."),
        ("I love her--always.", "I love him--always."),
        ("I told her she’s right.", "I told him he’s right."),
        # his
        ("That friend of his said so.", "That friend of hers said so."),
        ("It was not his, but [his] father's.", "It was not hers, but [her] mother's."),
        ("The core of his being", "The core of her being"),
        ("HIS BOOK, not hers: he did it himself.", "HER BOOK, not his: she did it herself."),
    ],
)
def test_her_and_his_have_the_right_one_of_two_counterparts(text, other):
    assert swapped(text, GENDER) == other


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Mrs Smith met Mr. Jones.", "Mr Smith met Ms. Jones."),
        ("Miss Smith told Mrs. Jones.", "Mr Smith told Mr. Jones."),
        ("Mr. and Mrs. Smith left.", "Ms. and Mr. Smith left."),
        ("Don't miss it. Miss it and you lose.", "Don't miss it. Miss it and you lose."),
        ("She has MS.", "He has MS."),
        ("Sir Walter and Lady Ann met a lady.", "Dame Walter and Lord Ann met a gentleman."),
        ("Good Lord! We read Lord of the Rings.", "Good Lord! We read Lord of the Rings."),
        ("Yes, ma’am.", "Yes, sir."),
    ],
)
def test_titles_are_exchanged_in_front_of_names_and_verbs_are_not(text, other):
    assert swapped(text, GENDER) == other


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("An actor met a heroine.", "An actress met a hero."),
        ("An aunt, a UNCLE.", "An uncle, a AUNT."),
        ("A woman and an uncle", "A man and an aunt"),
        ("An uncle and AN AUNT", "An aunt and AN UNCLE"),
        ("A nephew or a niece", "A niece or a nephew"),
        ('A "gentleman" in an emperor\'s coat', 'A "lady" in an empress\'s coat'),
        ("A DUKE", "A DUCHESS"),
    ],
)
def test_articles_follow_the_new_word(text, other):
    assert swapped(text, GENDER) == other


def test_articles_follow_words_of_any_axis():
    assert swapped("A white man and a priest", RACE, 2) == "An Asian man and a priest"
    assert swapped("An Asian man", RACE, 0) == "A black man"
    assert swapped("An African prince", RACE, 1) == "A European prince"
    assert swapped("A priest met an imam.", RELIGION, 2) == "An imam met an imam."
    assert swapped("A PRIEST", RELIGION, 2) == "AN IMAM"


@pytest.mark.parametrize(
    ("text", "group", "other"),
    [
        ("White people and black men", 2, "Asian people and Asian men"),
        ("The Asian students met Asians.", 0, "The black students met blacks."),
        ("An African American spoke.", 1, "A Caucasian spoke."),
        ("Two African-American men", 2, "Two Asian-American men"),
        ("AFRICAN AMERICANS VOTE", 2, "ASIAN AMERICANS VOTE"),
        ("a caucasian boy, in small letters", 2, "an asian american boy, in small letters"),
    ],
)
def test_every_word_of_a_pair_has_its_capitals(text, group, other):
    assert swapped(text, RACE, group) == other


def test_capitals_of_a_list_of_ones_own_are_kept_word_by_word(tmp_path):
    path = tmp_path / "lists.json"
    path.write_text('{"axes": {"pets": {"groups": ["a", "b"], "words": [["cat person", "dog lover"]]}}}')
    pets = axis("pets", path=path)
    assert swapped("Cat person, Cat Person, CAT PERSON", pets) == "Dog lover, Dog Lover, DOG LOVER"
    assert swapped("I am a dog lover.", pets) == "I am a cat person."


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("My mother-in-law and her ex-husband", "My father-in-law and his ex-wife"),
        ("a father-son talk, a husband-and-wife team", "a mother-daughter talk, a wife-and-husband team"),
        ("a boy-meets-girl story, a 15-year-old-boy", "a girl-meets-boy story, a 15-year-old-girl"),
        ("a male-dominated field, all-female crews", "a female-dominated field, all-male crews"),
        ("a father-of-two, mother-of-pearl", "a mother-of-two, mother-of-pearl"),
        ("a man-made lake, Spider-Man, a two-man crew", "a man-made lake, Spider-Man, a two-man crew"),
        ("s/he is here, he/she too", "s/he is here, she/he too"),
        ("The woman’s fiancé and the fiance\u0301e’s mom", "The man’s fiancée and the fiancé’s dad"),
    ],
)
def test_hyphens_apostrophes_and_accents_are_parts_of_words(text, other):
    assert swapped(text, GENDER) == other


@pytest.mark.parametrize(
    "text",
    [
        "Paris will host the games and hosts a fair.",
        "A host of problems; the host country.",
        "They man the desk; you groom the horse.",
        "Groom the dog. Man the lifeboats!",
        "Stephen King and Martin Luther King; Kings County; Port-au-Prince",
        "Burger King, king size, queen bee",
        "Charles O. Prince heads it.",
        "My mother tongue, a sister company, a witch hunt",
        "Oh man! Boy, was it hot.",
    ],
)
def test_verbs_names_and_compounds_are_not_exchanged(text):
    assert swapped(text, GENDER) == text


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("The King and King George", "The Queen and Queen George"),
        ("The host of the show", "The hostess of the show"),
        ("the bride and the groom", "the groom and the bride"),
        ("Prince William met kings.", "Princess William met queens."),
        ("A man and his hosts", "A woman and her hostesses"),
    ],
)
def test_the_same_words_are_exchanged_where_they_are_people(text, other):
    assert swapped(text, GENDER) == other


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Mark the box. The victor won a mark.", "Mark the box. The victor won a mark."),
        ("Mark came, and Victor met Ruth.", "Lisa came, and Clara met Martin."),
        ("St. Paul and Saint John's Church", "St. Paul and Saint John's Church"),
        ("Justice Harold Thomas wrote it.", "Justice Harold Thomas wrote it."),
        ("Justice Thomas and Dr. David Fleming", "Justice Jessica and Dr. Barbara Fleming"),
        ("the George Washington Bridge", "the George Washington Bridge"),
        ("Throw Paul the rope.", "Throw Nancy the rope."),
        ("michael scored, said mark .", "jennifer scored, said mark ."),
    ],
)
def test_first_names_are_exchanged_where_they_are_first_names(text, other):
    assert swapped(text, NAMES) == other


@pytest.mark.parametrize(
    "text",
    [
        "A black and white dog, black coffee and white wine",
        "The White House and the White Sox",
        "Mr. White wore black.",
        "egg whites, the whites of their eyes",
        "Salt is white.",
        "South Africans and North Koreans; Indo-European",
    ],
)
def test_colours_of_things_are_not_exchanged(text):
    assert swapped(text, RACE, 2) == text


def test_colours_of_people_are_exchanged():
    assert swapped("Young black men are black.", RACE, 1) == "Young white men are white."
    assert swapped("He was black and she's white.", RACE, 2) == "He was Asian and she's Asian."
    assert swapped("black and white students", RACE, 2) == "asian and asian students"


def test_nouns_and_adjectives_of_religion_differ():
    assert swapped("A Christian met Christian women.", RELIGION, 0) == "A Jew met Jewish women."
    assert swapped("She is Muslim. He is a Muslim.", RELIGION, 0) == "She is Jewish. He is a Jew."
    assert swapped("Anti-Muslim and non-Jewish people", RELIGION, 1) == "Anti-Christian and non-Christian people"


def test_a_text_whose_only_words_mean_no_person_has_no_counterfactual():
    augmented = augment(["A black dog ran.", "A black man ran."], RACE)
    assert augmented.texts == ("A black man ran.", "A white man ran.", "An Asian man ran.")
    assert augmented.origin == (1, 1, 1) and augmented.changed == 1
