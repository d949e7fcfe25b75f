"""`h2h summarize` and `headtohead.summarize`: from any input, in order, in bounded memory, and nothing is lost."""

import gzip
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import datasets
import pandas as pd
import pytest
import torch
from closure import ROOT
from conftest import MAX_LENGTH, VARIANTS, tiny

import headtohead
from headtohead import cli
from headtohead.summaries import routing, run

NEW = 12  # tokens of a summary
ROOM = MAX_LENGTH - 1 - NEW
WORDS = ["The", "mayor", "of", "Ashfield", "opened", "a", "new", "bridge", "on", "Monday"]
ARTICLES = [{"id": f"a{i}", "text": " ".join(WORDS[(i + k) % 10] for k in range(1 + i * 7 % 30)), "views": i}
            for i in range(40)]
TEXTS = [article["text"] for article in ARTICLES]
NEWLINE = b"\n"
COMMAND = [sys.executable, "-c", "from headtohead.cli import main; main()", "summarize"]


def checkpoint(folder, tokenizer, variant="flash", **options):
    model = tiny(VARIANTS[variant], **options)
    model.config.training = {"variant": variant, "preset": None, "data": "some", "pretrained": None, "steps": 1,
                             "batch_size": 1, "seed": 13, "max_length": MAX_LENGTH, "max_new_tokens": NEW}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    return checkpoint(tmp_path_factory.mktemp("flash"), tokenizer)


@pytest.fixture(scope="module")
def alibi(tmp_path_factory, tokenizer):
    return checkpoint(tmp_path_factory.mktemp("alibi"), tokenizer, "flash_alibi")


@pytest.fixture
def h2h(monkeypatch, tmp_path, capfd):
    """Runs the command in an empty folder: (exit code or message, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "keep_in", lambda folder: None)

    def call(*words, pipe=b""):
        monkeypatch.setattr(sys, "argv", ["h2h", "summarize", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pipe)))
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code
        out, err = capfd.readouterr()
        return code, out, err
    return call


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def save(articles, path):
    table = pd.DataFrame(articles)
    if path.suffix in (".csv", ".tsv"):
        table.to_csv(path, index=False, sep=";" if path.suffix == ".csv" else "\t")
    elif path.suffix in (".jsonl", ".json"):
        table.to_json(path, orient="records", lines=path.suffix == ".jsonl", force_ascii=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(table.to_csv(index=False).encode("utf-16")))
    else:
        datasets.Dataset.from_list(articles).save_to_disk(path.parent / "saved")
        shutil.copy(path.parent / "saved/data-00000-of-00001.arrow", path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".csv.gz"])
def test_every_table_gives_the_same_rows_in_its_order(h2h, tmp_path, model, suffix):
    file = save(ARTICLES, tmp_path / f"news{suffix}")
    code, out, err = h2h(file, "--model", model, "--batch-size", 4)
    assert code == 0, err
    assert [row["id"] for row in rows(out)] == [article["id"] for article in ARTICLES]
    assert [row["summary"] for row in rows(out)] == headtohead.summarize(TEXTS, model, batch_size=4)
    assert "summaries: 40 in" in err


def test_texts_and_several_files_and_standard_input(h2h, tmp_path, model):
    (tmp_path / "one.txt").write_bytes(f"\n{TEXTS[9]} — café\n".encode("cp1252"))
    save([{"article": text} for text in TEXTS[:2]], tmp_path / "two.jsonl")
    piped = save([{"id": i, "text": text} for i, text in enumerate(TEXTS[2:4], 7)], tmp_path / "x.jsonl").read_bytes()
    code, out, err = h2h("one.txt", "two.jsonl", "-", "--model", model, pipe=b"\xef\xbb\xbf" + piped)
    assert code == 0, err
    assert [row["id"] for row in rows(out)] == ["one.txt", "2", "3", "7", "8"]
    assert [row["summary"] for row in rows(out)] == headtohead.summarize(
        [f"{TEXTS[9]} — café", *TEXTS[:4]], model)
    code, out, err = h2h("--model", model, pipe=f"{TEXTS[5]}\n\n{TEXTS[6]}\n".encode())
    assert [(row["id"], row["summary"]) for row in rows(out)] == [
        ("1", *headtohead.summarize([f"{TEXTS[5]}\n\n{TEXTS[6]}"], model))]


def test_ids_are_kept_as_they_are(h2h, tmp_path, model):
    given = [{"id": "x", "text": TEXTS[0]}, {"text": TEXTS[1]}, {"id": None, "text": TEXTS[2]},
             {"id": "x", "text": TEXTS[3]}, {"id": 7, "text": TEXTS[4]}, {"id": "\ud800 é", "text": "  "}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    code, out, err = h2h("a.jsonl", "--model", model)
    assert code == 0, err
    assert [row["id"] for row in rows(out)] == ["x", "2", "3", "x", "7", "\ud800 é"]
    assert rows(out)[-1] | {"key": ""} == {"id": "\ud800 é", "summary": "", "model": None, "tokens": 0, "cut": 0,
                                           "cut_share": 0.0, "key": ""}
    assert "without text: 1" in err
    assert h2h("a.jsonl", "--model", model, "--output", "out.jsonl")[0] == 0
    assert (tmp_path / "out.jsonl").read_text() == out
    assert "6 were there already" in h2h("a.jsonl", "--model", model, "--output", "out.jsonl")[2]


def test_an_article_that_does_not_fit_is_cut_as_in_training_and_says_so(h2h, tmp_path, model, alibi, tokenizer):
    long = " ".join(WORDS * 12)
    tokens = len(tokenizer(" " + long)["input_ids"])
    save([{"text": long}, {"text": TEXTS[1]}], tmp_path / "a.jsonl")
    _, out, err = h2h("a.jsonl", "--model", model)
    cut, whole = rows(out)
    assert (cut["tokens"], cut["cut"], cut["cut_share"]) == (tokens, tokens - ROOM, round(1 - ROOM / tokens, 3))
    assert (whole["cut"], whole["cut_share"]) == (0, 0.0)
    assert f"cut to fit: 1, by up to {100 * cut['cut_share']:.0f} % of their tokens" in err
    assert rows(h2h("a.jsonl", "--model", alibi)[1])[0]["cut"] == tokens - ROOM
    assert rows(h2h("a.jsonl", "--model", alibi, "--max-length", 1000)[1])[0]["cut"] == 0
    its_positions_end = rows(h2h("a.jsonl", "--model", model, "--max-length", 1000)[1])
    assert its_positions_end[0]["cut"] == tokens - ROOM
    assert "leave no room" in h2h("a.jsonl", "--model", model, "--max-new-tokens", MAX_LENGTH)[0]


@pytest.mark.parametrize("torn", [0, 1, 9, 60])
def test_a_torn_file_goes_on_and_ends_with_the_same_bytes(h2h, tmp_path, model, torn):
    save(ARTICLES, tmp_path / "a.csv")
    words = ("a.csv", "--model", model, "--batch-size", 2, "--output")
    h2h(*words, "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out.jsonl").write_bytes(b"".join(lines[:21]) + lines[21][:torn])
    code, _, err = h2h(*words, "out.jsonl")
    assert code == 0, err
    assert "(21 were there already)" in err
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_a_killed_process_goes_on_and_ends_with_the_same_bytes(h2h, tmp_path, model):
    save([article | {"id": f"{i}/{article['id']}"} for i in range(10) for article in ARTICLES], tmp_path / "a.csv")
    words, output = ("a.csv", "--model", model, "--batch-size", "4", "--output"), tmp_path / "out.jsonl"
    process = subprocess.Popen([*COMMAND, *words, output], cwd=tmp_path, stderr=subprocess.PIPE)
    while not output.exists() or output.read_bytes().count(NEWLINE) < 60:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = output.read_bytes()
    assert 60 <= kept.count(NEWLINE) < 400
    assert f"summaries: 400 ({kept.count(NEWLINE)} were there already)" in h2h(*words, output)[2]
    assert h2h(*words, "whole.jsonl")[0] == 0
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_is_not_of_this_input_model_and_settings_is_refused_and_left_alone(h2h, tmp_path, model, alibi):
    save(ARTICLES, tmp_path / "a.csv")
    output = tmp_path / "out.jsonl"
    words = ("--output", output, "--batch-size", 8)
    h2h("a.csv", "--model", model, *words)
    made = output.read_bytes()

    def refused(*command):
        code, _, err = h2h(*command)
        assert code, err
        assert output.read_bytes() == made
        return code

    save([ARTICLES[0] | {"text": "Another one."}, *ARTICLES[1:]], tmp_path / "b.csv")
    assert "out.jsonl, line 1: article 'a0' had another text; give another --output" in refused(
        "b.csv", "--model", model, *words)
    save([ARTICLES[1], ARTICLES[0], *ARTICLES[2:]], tmp_path / "b.csv")
    assert "line 1: is of article 'a0', and the input has 'a1' there" in refused("b.csv", "--model", model, *words)
    save(ARTICLES[:30], tmp_path / "b.csv")
    assert "has more than 30 rows" in refused("b.csv", "--model", model, *words)
    assert "wrote it, and that" in refused("a.csv", "--model", alibi, *words)
    assert "or a setting is another" in refused("a.csv", "--model", model, *words, "--max-new-tokens", 5)
    # More articles, another folder and another batch size are no other summaries.
    save([*ARTICLES, *ARTICLES[:3]], tmp_path / "b.csv")
    shutil.copytree(model, tmp_path / "moved")
    code, _, err = h2h("b.csv", "--model", "moved", "--output", output, "--batch-size", 4)
    assert code == 0
    assert "summaries: 43 (40 were there already)" in err
    for alien in (b"id,text\n1,a\n", b"{}", b'{"id": "a0", "summary": "x"}\n', b"\n", b"no summary"):
        output.write_bytes(alien)
        made = alien
        assert "line 1: is no summary as `h2h summarize` writes it" in refused("a.csv", "--model", model, *words)


def test_two_processes_cannot_write_one_file(h2h, tmp_path, model):
    save(ARTICLES, tmp_path / "a.csv")
    holder = subprocess.Popen([sys.executable, "-c", "import fcntl; f = open('out.jsonl', 'a'); "
                               "fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"],
                              cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    assert "another process is writing it" in h2h("a.csv", "--model", model, "--output", "out.jsonl")[0]
    holder.communicate(b"\n")


MEASURED = """
import json, resource, sys
from headtohead.cli import main
model, text = sys.argv[1:]
for count in (1_000, 10_000):
    with open(f"{count}.in.jsonl", "w") as file:
        file.writelines(json.dumps({"text": f"{i} {text}"}) + chr(10) for i in range(count))
    sys.argv[:] = ["h2h", "summarize", f"{count}.in.jsonl", "--model", model, "--batch-size", "100",
                   "--max-new-tokens", "2", "--output", f"{count}.jsonl"]
    main()
    print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_ten_thousand_articles_go_through_in_bounded_memory(tmp_path, tokenizer):
    model = checkpoint(tmp_path / "model", tokenizer, layers=1, heads=1)
    done = subprocess.run([sys.executable, "-c", MEASURED, model, " ".join(WORDS * 12)], cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    peaks = {int(count): int(mb) for count, mb in map(str.split, done.stdout.splitlines())}
    assert all(sum(1 for _ in (tmp_path / f"{count}.jsonl").open()) == count for count in (1_000, 10_000))
    assert peaks[10_000] <= peaks[1_000] + 10  # MB; the articles with their tokens are more


def test_a_stream_shows_what_is_written_in_the_end_and_never_half_a_character(h2h, tmp_path, model):
    save(ARTICLES, tmp_path / "a.csv")
    words = ("a.csv", "--model", model, "--max-new-tokens", 30, "--beams", 1)
    _, out, _ = h2h(*words)
    code, shown, err = h2h(*words, "--stream", "--output", "out.jsonl")
    assert code == 0, err
    written = rows((tmp_path / "out.jsonl").read_text())
    assert [row["summary"] for row in written] == [row["summary"] for row in rows(out)]
    assert shown == "\n".join(row["summary"] + "\n" for row in rows(out))
    pieces = []
    summarizer = run.Summarizer(routing.rule_for(model), run.Wishes(max_new_tokens=30))
    for row in rows(out):
        text = next(article["text"] for article in ARTICLES if article["id"] == row["id"])
        pieces.clear()
        assert summarizer.aloud({"id": "1", "article": text}, pieces.append)["summary"] == row["summary"]
        assert "".join(pieces) == row["summary"]
        assert not any(piece.endswith("\ufffd") for piece in pieces[:-1])
        assert len(pieces) > 3
    assert "--beams 2 chooses it at the end" in h2h(*words[:-1], 2, "--stream")[0]


def test_a_character_is_shown_when_its_bytes_are_complete(monkeypatch, model):
    from headtohead.inference import generation
    summarizer = run.Summarizer(routing.rule_for(model), run.Wishes())
    tokenizer = summarizer._first.tokenizer
    text, pieces = "Café — 日本語 𝄞  ok", []
    monkeypatch.setattr(generation, "stream", lambda *a, **k: iter(tokenizer(text + "  ")["input_ids"]))
    assert summarizer.aloud({"id": "1", "article": "a"}, pieces.append)["summary"] == text
    assert "".join(pieces) == text
    assert "語" in pieces
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_rule_divides_the_articles_and_says_how_many_went_where(h2h, tmp_path, monkeypatch, model, alibi):
    def rule(tokens):
        return model if tokens <= 15 else alibi

    save(ARTICLES, tmp_path / "a.csv")
    monkeypatch.setattr(routing, "rule_of_the_last_run", lambda latency: rule)
    code, _, err = h2h("a.csv", "--model", "auto", "--output", "out.jsonl")
    assert code == 0, err
    written = rows((tmp_path / "out.jsonl").read_text())
    for row, short, long in zip(written, *(headtohead.summarize(TEXTS, one) for one in (model, alibi)), strict=True):
        assert row["model"] == rule(row["tokens"])
        assert row["summary"] == (short if row["tokens"] <= 15 else long)
    near = sum(row["tokens"] <= 15 for row in written)
    assert 5 < near < 35
    assert f"{model}: {near} articles" in err
    assert f"{alibi}: {40 - near} articles" in err
    assert "(40 were there already)" in h2h("a.csv", "--model", "auto", "--output", "out.jsonl")[2]
    assert headtohead.summarize(TEXTS, rule) == [row["summary"] for row in written]


def test_models_with_other_tokenizers_cannot_share_the_articles(tmp_path, tokenizer, model):
    other = checkpoint(tmp_path / "other", tokenizer)
    settings = json.loads((tmp_path / "other/tokenizer_config.json").read_text())
    (tmp_path / "other/tokenizer_config.json").write_text(json.dumps(settings | {"separator": "TL;DR"}))
    with pytest.raises(ValueError, match="has another tokenizer"):
        headtohead.summarize(TEXTS, lambda tokens: model if tokens < 15 else other)


def test_in_python_a_list_gives_a_list_and_an_iterator_is_read_as_far_as_needed(model, caplog):
    read = []
    summaries = headtohead.summarize((read.append(text) or text for text in TEXTS), model, batch_size=2)
    assert not isinstance(summaries, list)
    assert next(summaries) == headtohead.summarize(TEXTS[:1], model)[0]
    assert len(read) == 16  # a window
    assert [*summaries] == headtohead.summarize(TEXTS, model, batch_size=2)[1:]
    assert headtohead.summarize([], model) == []
    caplog.clear()
    headtohead.summarize([" ".join(WORDS * 12), "short"], model)
    assert "1 of 2 articles did not fit" in caplog.text
    with pytest.raises(TypeError, match="put it in a list"):
        headtohead.summarize("a text", model)


def test_short_memory_says_what_to_lower_and_what_is_written_stays(h2h, tmp_path, monkeypatch, model):
    save(ARTICLES, tmp_path / "a.csv")
    real, calls = run.write_summaries, []

    def full(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    monkeypatch.setattr(run, "write_summaries", full)
    words = ("a.csv", "--model", model, "--output", "out.jsonl")
    assert "out of memory; lower batch_size (is 2) or beams (is 1)" in h2h(*words, "--batch-size", 2)[0]
    assert len(rows((tmp_path / "out.jsonl").read_text())) == 16
    monkeypatch.setattr(run, "write_summaries", real)
    assert "(16 were there already)" in h2h(*words, "--batch-size", 1)[2]


def test_a_full_disk_says_so_and_what_is_written_stays(h2h, tmp_path, model):
    save(ARTICLES, tmp_path / "a.csv")
    words = ("a.csv", "--model", model, "--batch-size", 2, "--output")
    h2h(*words, "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, hard))
    try:
        code = h2h(*words, "out.jsonl")[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "out.jsonl cannot be written: File too large; its 16 rows stay, and the same command goes on" in code
    assert h2h(*words, "out.jsonl")[0] == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_a_stopped_command_says_how_to_go_on(h2h, tmp_path, monkeypatch, model):
    def stop(*arguments):
        raise KeyboardInterrupt

    save(ARTICLES, tmp_path / "a.csv")
    monkeypatch.setattr(run, "write_summaries", stop)
    code, _, err = h2h("a.csv", "--model", model, "--output", "out.jsonl")
    assert code == 130
    assert "stopped; the same command goes on with out.jsonl" in err


@pytest.mark.parametrize(("name", "content", "told"), [
    ("a.jsonl", '{"text": "a"}\n{"text":\n', "a.jsonl, line 2: is not JSON"),
    ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', "a.jsonl, row 2: column 'text' holds int"),
    ("a.csv", "one,two\n1,2\n", "has no column 'article' (--column); its columns are one, two"),
    ("a.csv", "one,text\n1\n", "row 1 (ends on line 2): has 1 cells"),
    ("a.csv", "", "a.csv is empty"),
    ("a.txt", b"\xe4\xf6 \x81", "name its encoding in --encoding"),
    ("a.pdf", "x", "a.pdf: format .pdf is unknown; there are .txt, .csv"),
])
def test_bad_input_is_named_before_any_work(h2h, tmp_path, model, name, content, told):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, _ = h2h(name, "--model", model, "--output", "out.jsonl")
    assert told in code
    assert not out
    assert not (tmp_path / "out.jsonl").exists()


def test_bad_calls_are_explained(h2h, tmp_path, model):
    save(ARTICLES, tmp_path / "a.csv")
    assert "no such file" in h2h("b.csv", "--model", model)[0]
    assert "is a folder; name the files in it" in h2h(tmp_path, "--model", model)[0]
    assert "nowhere is no checkpoint folder" in h2h("a.csv", "--model", "nowhere")[0]
    assert "line 1: is not JSON" in h2h("--model", model, pipe=b'{"text": "a"')[0]
    for encoding in ((), ("--encoding", "utf-8")):
        assert "or a later one: is not utf-8" in h2h("--model", model, *encoding, pipe=b'{"text": "a"}\n"\xff')[0]
    assert "no column 'texts' (--column); its columns are id, text, views. Is it 'text'? Give --column text" in h2h(
        "a.csv", "--model", model, "--column", "texts")[0]
    for flag, value in (("--beams", "0"), ("--batch-size", "many"), ("--max-new-tokens", "1.5")):
        code, _, err = h2h("a.csv", "--model", model, flag, value)
        assert code == 2
        assert f"{flag}: {value!r} is not a whole number from 1 to" in err
    (tmp_path / "broken").mkdir()
    shutil.copy(f"{model}/config.json", tmp_path / "broken")
    assert "cannot be read" in h2h("a.csv", "--model", "broken")[0]


HEAVY = """
import sys, headtohead.cli
sys.argv[1:] = {}
try:
    headtohead.cli.main()
except SystemExit:
    print([name for name in ("torch", "transformers", "datasets") if name in sys.modules])
"""


def test_usage_and_typos_are_answered_without_the_libraries(tmp_path):
    for words in (["summarize", "--help"], ["summarize"], ["summarize", "x.txt", "--model", "m"],
                  ["summarize", str(ROOT / "README.md"), "--model", "m"], ["summarize", "--model", "m"]):
        done = subprocess.run([sys.executable, "-c", HEAVY.format(words)], cwd=tmp_path, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, check=True)
        assert done.stdout.splitlines()[-1] == "[]", words


def test_a_reader_that_ends_early_ends_it_quietly(h2h, tmp_path, monkeypatch, model):
    save(ARTICLES, tmp_path / "a.csv")
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    code, _, err = h2h("a.csv", "--model", model)
    assert code == 1
    assert "Errno" not in err
