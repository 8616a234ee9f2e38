"""Text figures are right in any script, and on English they are the libraries' own."""

import random
import unicodedata

import numpy as np
import pytest

from ilm_jax.evaluation.evaluators.texts import text_evaluation
from ilm_jax.evaluation.measures.generation import Generated
from ilm_jax.metrics import texts, words

pytest.importorskip("rouge_score")
sacrebleu = pytest.importorskip("sacrebleu")

# A text, and one that shares no word with it.
SCRIPTS = {
    "latin": ("une île très calme à l’été", "deux villes sans aucun jardin"),
    "cyrillic": ("спокойный рассказ о северном море", "громкая комедия из большого города"),
    "greek": ("ένα ήσυχο βιβλίο για τη θάλασσα", "δύο μεγάλες πόλεις χωρίς κήπους"),
    "arabic": ("قصة هادئة عن بحر الشمال", "فيلم صاخب في مدينة كبيرة"),
    "hebrew": ("סיפור שקט על הים הצפוני", "סרט רועש בעיר גדולה מאוד"),
    "devanagari": ("समुद्र की एक शांत कहानी", "बड़े शहर में तेज़ फ़िल्म"),
    "hangul": ("바다 이야기 조용한 영화 하나", "도시의 시끄러운 전쟁 두 편"),
    "thai": ("เรื่องทะเลสงบ", "ผู้คนวุ่นจัด"),
    "khmer": ("រឿងសមុទ្រ", "ពិភពគុក"),
    "kana and han": ("静かな海の物語", "都会でうるさく"),
    "han": ("安静的大海故事", "城市里很吵闹"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_text_is_itself_and_another_is_not(script):
    text, other = SCRIPTS[script]
    assert texts.text_means([text], [text]) == pytest.approx(
        {"exact_match": 1, "rouge1": 1, "rouge2": 1, "rougeL": 1, "bleu": 100}
    )
    decomposed = unicodedata.normalize("NFD", text)
    assert texts.text_means([decomposed], [text])["rougeL"] == 1
    assert texts.text_means([decomposed], [text])["exact_match"] == 1
    wrong = texts.text_means([other], [text])
    assert wrong["rouge1"] < 0.4 and wrong["bleu"] < 30 and not wrong["exact_match"]


@pytest.mark.parametrize("script", list(SCRIPTS)[1:])
def test_a_latin_frame_does_not_make_a_wrong_text_right(script):
    text, other = SCRIPTS[script]
    framed = texts.text_means([f"Part 2: {other}"], [f"Part 2: {text}"])
    assert framed["rouge1"] < 0.75 and framed["bleu"] < 60
    assert texts.text_means([f"Part 2: {text}"], [f"Part 2: {text}"])["rouge1"] == 1


def english(draw):
    vocabulary = "The running stories' of 3.5 well-known (dogs) didn't U.S. e_mail, END!".split()
    return " ".join(draw.choice(vocabulary) for _ in range(draw.randint(1, 9)))


@pytest.mark.parametrize("stemmer", [False, True])
def test_english_figures_are_the_libraries_own(stemmer):
    from rouge_score.rouge_scorer import RougeScorer

    draw = random.Random(1)
    generated, references = ([english(draw) for _ in range(60)] for _ in range(2))
    theirs = RougeScorer(list(texts.ROUGES), use_stemmer=stemmer)
    ours = texts.rouge(generated, references, stemmer=stemmer)
    for row, (text, reference) in enumerate(zip(generated, references, strict=True)):
        score = theirs.score(reference, text)
        assert {name: ours[name][row] for name in ours} == {n: s.fmeasure for n, s in score.items()}
    expected = sacrebleu.corpus_bleu(generated, [references]).score
    assert texts.bleu(generated, references).mean == pytest.approx(expected, abs=1e-9)
    assert texts.tokenizers(references)["bleu"] == "13a"


def test_bleu_of_other_scripts_with_spaces_is_sacrebleus_intl():
    generated = ["тихая история: о море, «лете»", "три кота и пёс спят"]
    references = ["тихий рассказ: о море, «лете»", "два кота и пёс не спят"]
    theirs = sacrebleu.corpus_bleu(generated, [references], tokenize="intl").score
    assert texts.bleu(generated, references).mean == pytest.approx(theirs) and theirs > 0
    assert texts.tokenizers(references)["bleu"].startswith("intl; characters")
    both = texts.tokenizers([*references, "plain"])["bleu"]
    assert both.startswith("13a of 1 references in ASCII, intl of the 2 others")


def test_a_corpus_without_matching_runs_of_four_is_smoothed_as_sacrebleu_does():
    generated, references = ["a b c d x e f g"], ["a b c q x e f g"]
    theirs = sacrebleu.corpus_bleu(generated, [references]).score
    assert texts.bleu(generated, references).mean == pytest.approx(theirs) and theirs > 0


def test_signs_are_compared_where_there_are_no_words():
    found = texts.rouge(["★★★", "★★☆", "good"], ["★★★", "★★★", "★★★"])
    assert found["rouge1"] == pytest.approx([1, 2 / 3, 0])
    assert texts.exact_match(["★★★"], ["★★"], normalised=True) == 0


def test_what_is_not_defined_says_so_and_is_no_zero():
    found = text_evaluation(Generated(np.arange(2), [], ["★", "★★★"], ["", "★★★"], 1.0))
    by_name = {metric.name: metric for metric in found.metrics}
    assert by_name["rouge1"].index.tolist() == [1], "an empty reference has no words to share"
    assert found.missing["bleu"] == texts.TOO_SHORT and "bleu" not in by_name
    empty = text_evaluation(Generated(np.arange(1), [], [""], [""], 1.0))
    assert empty.missing["rougeL"] == texts.NO_WORDS and empty.totals["empty"] == 1
    assert texts.bleu(["so good"], ["so good"]) is None
    assert "bleu" not in texts.text_means(["so good"], ["so good"])


def test_case_and_invisible_characters_are_no_part_of_words():
    assert words.words("STRASSE Straße") == ["strasse"] * 2
    assert words.words("ΣΊΣΥΦΟΣ") == words.words("σίσυφος")
    assert words.words("\ufeffkin\u200bo") == words.words("kino")
    assert words.words("2013年のラーメン") == ["2013", "年", "の", "ラ", "ー", "メ", "ン"]
