"""Texts in many languages: scored, split into sentences, told apart."""

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from headtohead.articles.newswire import newswire
from headtohead.params import LANGUAGES
from headtohead.quality.language import STEMMERS, choose, detect
from headtohead.quality.lead import lead3
from headtohead.quality.measures import BLEU, ROUGE
from headtohead.quality.metric import SummaryQuality
from headtohead.quality.scoring import score

# One article in each language: its sentences, and a text of other words that shares its number.
ARTICLES = {
    "de": (["Über 200 Menschen kamen am 3. Oktober nach Köln.", "„Es war schön“, sagte Dr. Müller.",
            "Öffentlich wird das nicht.", "2 von 5 kamen zu spät.", "Äpfel kosten z. B. 2,50 Euro."],
           "Die Regierung plant 200 neue Gesetze."),
    "fr": (["« Tout change », dit M. Dupont.", "À Paris, il faut 200 millions d'euros.", "Était-ce prévu ?",
            "Élue hier, elle part."], "L'équipe gagne 200 fois."),
    "ru": (["Мэр открыл новый мост за 200 млн руб. в понедельник.", "«Это прекрасно!» — сказал А. С. Пушкин.",
            "Жители довольны.", "Европа молчит."], "Команда выиграла 200 матчей."),
    "el": (["Ο δήμαρχος άνοιξε τη νέα γέφυρα.", "Είναι όμορφη;", "Κόστισε 200 εκατ. ευρώ.", "Έτσι τελείωσε."],
           "Χθες έβρεξε 200 φορές."),
    "hi": (["मेयर ने सोमवार को एक नया पुल खोला।", "उन्होंने कहा कि यह बहुत सुंदर है।", "इसकी लागत 200 करोड़ रुपये है।",
            "लोग खुश थे।"], "टीम 200 रन से जीती।"),
    "ar": (["افتتح رئيس البلدية جسرا جديدا يوم الاثنين.", "هل هو جميل؟", "قال إن التكلفة بلغت 200 مليون دولار.",
            "وحضر الدكتور أحمد."], "فاز الفريق 200 مرة."),
    "zh": (["北京市政府周一宣布新政策。", "市长说：“我们很高兴。”", "共有200人参加！", "谁会反对呢？"],
           "昨夜大雪，火车停运200列。"),
    "ja": (["市長は月曜日に新しい橋を開通させた。", "費用は200億円だった！", "誰が払うのか？", "終わり。"],
           "サッカー試合に200名。"),
    "th": (["นายกเทศมนตรีเปิดสะพานใหม่เมื่อวันจันทร์", "ค่าใช้จ่าย 200 ล้านบาท", "สิ่งต่าง ๆ ดีขึ้น", "ชาวบ้านดีใจ"], "ฝน 200"),
    "km": (["អភិបាលក្រុងបានបើកស្ពានថ្មី។", "វាស្អាតណាស់។", "ប្រជាជន 200 នាក់សប្បាយចិត្ត។", "ចប់។"], "ភ្លៀង 200"),
    "my": (["မြို့တော်ဝန်သည် တံတားသစ်ကို ဖွင့်လှစ်ခဲ့သည်။", "ကုန်ကျစရိတ် 200 များသည်။", "လူများ ပျော်ကြသည်။", "ပြီးပါပြီ။"], "မိုး 200"),
}
ROW = {"id": "1", "summary": "Anna Berg came.", "reference": "Anna came."}
languages = pytest.mark.parametrize("language", ARTICLES)


def compute(summary, reference, language):
    return SummaryQuality(language).compute(predictions=[summary], references=[reference])


def article(language):
    """Its sentences, as they stand in a text, and the other text."""
    found, other = ARTICLES[language]
    return ("" if language in ("ja", "km", "zh") else " ").join(found), found, other


@languages
def test_a_text_in_any_script_is_like_itself_and_unlike_others(language):
    text, _, other = article(language)
    assert compute(text, text, language) == pytest.approx(dict.fromkeys([*ROUGE, BLEU], 1))
    unlike = compute(other, text, language)
    assert unlike["rouge1"] < 0.25
    assert unlike["rouge2"] < 0.1
    assert unlike["bleu"] < 0.02


@languages
def test_newlines_are_kept_in_any_script(language):
    found = article(language)[1]
    scores = compute("\n".join(found), "\n".join(reversed(found)), language)
    assert scores["rougeLsum"] > scores["rougeL"] + 0.1


@languages
def test_lead3_knows_the_stops_of_other_languages(language):
    text, found, _ = article(language)
    assert lead3(text, language).split("\n") == found[:3]


@languages
def test_the_language_is_found_in_the_articles(language):
    text = article(language)[0]
    assert choose("auto", [text, "The mayor opened a new bridge on Monday.", text]) == language
    assert choose("en", [text]) == "en"


def test_english_is_found_in_the_bundled_articles():
    rows = newswire("test", 50, seed=13, words=(55, 100), distractors=0.15)
    assert {detect([row["article"]]) for row in rows} == {"en"}


def test_every_language_that_can_be_found_can_be_named():
    labels = LanguageIdentifier.from_model_file(MODEL_FILE).labels
    assert sorted(LANGUAGES) == sorted(label for label in labels if len(label) == 2)
    assert STEMMERS.keys() < set(LANGUAGES)
    for language in LANGUAGES:
        assert lead3("One. Two.", language)
        assert compute("Oslo 12 a b", "Oslo 12 a b", language)["rouge1"] == pytest.approx(1)


@pytest.mark.parametrize(("language", "one", "other", "same"), [
    ("de", "Häusern", "Haus", True), ("ru", "города", "город", True), ("ar", "وَلَد", "ولد", True),
    ("hi", "दिन", "दान", False), ("fa", "می\u200cروند", "میروند", True), ("ja", "ＡＢＣ", "abc", True)])
def test_words_are_compared_by_their_stems(language, one, other, same):
    assert compute(one, other, language)["rouge1"] == same


def test_scripts_without_spaces_are_compared_letter_by_letter():
    assert compute("北京市长来了。", "上海市长来了", "zh")["rouge1"] == pytest.approx(4 / 6)
    assert compute("คนดี", "คนดู", "th")["rouge1"] == pytest.approx(2 / 3)


def test_the_details_say_how_texts_were_scored():
    details = {language: score([ROW], [], {}, language) for language in ("en", "ru", "zh", "th", "vi")}
    assert all(part["scorer"]["language"] == language for language, part in details.items())
    assert "default tokenizer" in details["en"]["scorer"]["rouge"]
    assert "russian stemmer" in details["ru"]["scorer"]["rouge"]
    assert "not stemmed" in details["vi"]["scorer"]["rouge"]
    for language, tokenizer in {"ru": "intl", "zh": "zh", "th": "char"}.items():
        assert f"tokenize='{tokenizer}'" in details[language]["scorer"]["bleu"]


def test_the_length_of_summaries_counts_letters_where_there_are_no_spaces():
    rows = [{"id": "1", "summary": "“北京ABC“很好”。 Oslo, 12", "reference": "a"}]
    assert score(rows, [], {}, "zh")["summary_words"] == 7
