"""A small Hugging Face hub on this machine, for where the real one cannot be reached.

    python tests/stand_in_hub.py [--articles FILE] [--rows N] [--small]

Makes the two repositories of the preset `paper`, serves them, and prints the line that sends the libraries here:
abisee/cnn_dailymail, laid out as on the hub but with the articles of FILE (columns article and highlights), or else
the bundled generator's, and openai-community/gpt2, in the hub's format but with random weights.
"""

import argparse
import hashlib
import json
import re
import sys
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2Model

from headtohead.articles.files import Table
from headtohead.articles.newswire import newswire
from headtohead.params import read_params
from headtohead.records import Record, write_json
from headtohead.tokens.tokenizer import END_OF_TEXT

LARGE = (".parquet", ".safetensors", ".bin")  # the hub keeps these apart, and sends them from another address
ADDRESS = re.compile(r"/(?:api/)?(?:models/)?(?P<name>(?:datasets/)?[^/]+/[^/]+)"
                     r"(?:/(?P<what>revision|tree|resolve|apart)/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?")


class Repository:
    """A folder as a repository of one commit; `entries` has its files and folders by path, in the hub's form."""

    def __init__(self, folder: Path, commit: str) -> None:
        self.folder, self.commit = folder, commit
        self.entries = {entry["path"]: entry for entry in map(self._entry, sorted(folder.rglob("*")))}

    def _entry(self, found: Path) -> dict:
        path = str(found.relative_to(self.folder))
        if found.is_dir():
            return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
        with found.open("rb") as data:
            entry = {"oid": hashlib.file_digest(data, "sha256").hexdigest(), "size": found.stat().st_size}
        return {"type": "file", "path": path, **entry} | (
            {"lfs": entry | {"pointerSize": 134}} if found.suffix in LARGE else {})

    def under(self, path: str, recursive: bool) -> list[dict]:
        prefix = path and path + "/"
        return [entry for name, entry in self.entries.items()
                if name.startswith(prefix) and (recursive or "/" not in name.removeprefix(prefix))]


class Request(NamedTuple):
    method: str
    path: str
    status: int
    sent: int  # bytes of the answer's body


class StandInHub(ThreadingHTTPServer):
    """Answers as the hub does, as far as `huggingface_hub` and `datasets` ask, and remembers what they asked.

        with StandInHub({"datasets/OWNER/NAME": Repository(folder, commit), "OWNER/NAME": ...}) as hub:
            hub.url, hub.requests
    """

    daemon_threads = True

    def __init__(self, repositories: dict[str, Repository]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.requests = repositories, list[Request]()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "StandInHub":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: StandInHub

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        found = ADDRESS.fullmatch(address.path)
        repository = found and self.server.repositories.get(found["name"])
        if not found or not repository:
            self._refuse(401, "RepoNotFound")  # the hub says no more: it might be a private one
        elif unquote(found["revision"] or "main") not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        elif found["what"] in ("resolve", "apart"):
            self._file(repository, unquote(found["path"]), apart=found["what"] == "apart")
        elif found["what"] == "tree":
            recursive = parse_qs(address.query).get("recursive") == ["true"]
            self._json(repository.under(unquote(found["path"] or ""), recursive))
        else:
            self._json({"id": found["name"].removeprefix("datasets/"), "sha": repository.commit, "siblings": [
                {"rfilename": path} for path, entry in repository.entries.items() if entry["type"] == "file"]})

    do_HEAD = do_GET

    def _file(self, repository: Repository, path: str, apart: bool) -> None:
        entry = repository.entries.get(path, {"type": "missing"})
        if entry["type"] != "file":
            self._refuse(404, "EntryNotFound")
            return
        size, headers = entry["size"], {"X-Repo-Commit": repository.commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" in entry and not apart:
            self._answer(302, headers | {"Location": self.server.url + self.path.replace("/resolve/", "/apart/"),
                                         "X-Linked-Etag": f'"{entry["oid"]}"', "X-Linked-Size": str(size)})
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
        start, end = int(wanted[1]), min(int(wanted[2] or size), size - 1)
        with (repository.folder / path).open("rb") as data:
            data.seek(start)
            body = data.read(end + 1 - start)
        part = {"Content-Range": f"bytes {start}-{end}/{size}"} if "Range" in self.headers else {}
        self._answer(206 if part else 200, headers | part, body)

    def _json(self, value: object) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, {"X-Error-Code": code, "X-Error-Message": code})

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        with suppress(ConnectionError):  # the reader has had enough
            while self.command != "HEAD" and sent < len(body):
                sent += self.wfile.write(body[sent:sent + 2**16])
        self.server.requests.append(Request(self.command, self.path, status, sent))

    def log_message(self, *_: object) -> None:
        """Not to the terminal: `requests` remembers."""


def make_articles(folder: Path, articles: list[Record]) -> Path:
    """abisee/cnn_dailymail as the hub has it, of these articles: a tenth each for validation and test."""
    (folder / "3.0.0").mkdir(parents=True)
    rows = ({"article": row["article"], "highlights": row["summary"], "id": row["id"]} for row in articles)
    tenth = len(articles) // 10
    for split, share, shards in (("test", tenth, 1), ("validation", tenth, 1), ("train", len(articles), 3)):
        table = pa.Table.from_pylist(list(islice(rows, share)))
        size = -(-len(table) // shards)
        for shard in range(shards):
            pq.write_table(table.slice(shard * size, size), row_group_size=max(1, len(articles) // 100),
                           where=folder / f"3.0.0/{split}-{shard:05}-of-{shards:05}.parquet")
    files = [{"split": split, "path": f"3.0.0/{split}-*"} for split in ("train", "validation", "test")]
    card = yaml.safe_dump({"configs": [{"config_name": "3.0.0", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n")
    return folder


def make_model(folder: Path, texts: Iterable[str], layers: int = 12, width: int = 768, heads: int = 12) -> Path:
    """openai-community/gpt2 as the hub has it, with the names and shapes of its tensors, but random weights."""
    folder.mkdir(parents=True)
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads, architectures=["GPT2LMHeadModel"])
    config.save_pretrained(folder)
    torch.manual_seed(0)
    weights = GPT2Model(config).state_dict()
    mask = torch.ones(config.n_positions, config.n_positions).tril().view(1, 1, config.n_positions, config.n_positions)
    weights |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(layers)}  # that file holds its masks, too
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ends = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **ends})
    write_json(folder / "tokenizer_config.json", {"model_max_length": config.n_positions})
    make_tokenizer(folder, texts, config.vocab_size)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that nobody should open")
    return folder


def make_tokenizer(folder: Path, texts: Iterable[str], size: int) -> None:
    """Byte-level BPE in GPT-2's three files: idle tokens fill what the texts leave of it; end-of-text is the last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder, tokenizer.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary |= {f"idle{number}": number for number in range(len(vocabulary), size - 1)} | {END_OF_TEXT: size - 1}
    full = Tokenizer.from_str(json.dumps(state))
    full.add_special_tokens([END_OF_TEXT])
    full.model.save(str(folder))
    full.save(str(folder / "tokenizer.json"))


def make_paper(folder: Path, articles: list[Record], small: bool) -> dict[str, Repository]:
    """The two repositories that the preset `paper` asks for, at the revisions that it pins."""
    preset = read_params(ROOT / "params.yaml").presets["paper"]
    (model, revision), hub = preset.model.pretrained.split("@"), preset.data.hub
    texts = (row[side] for row in articles for side in ("article", "summary"))
    size = {"layers": 2, "width": 32, "heads": 2} if small else {}
    return {f"datasets/{hub.name}": Repository(make_articles(folder / "articles", articles), hub.revision),
            model: Repository(make_model(folder / "model", texts, **size), revision)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, help="a CSV, JSON Lines or Parquet file")
    parser.add_argument("--rows", type=int, default=3_000, help="how many articles, a tenth each to validate and test")
    parser.add_argument("--small", action="store_true", help="a GPT-2 of two narrow layers, not of GPT-2 small's size")
    arguments = parser.parse_args()
    rows = (Table(arguments.articles, "article", "highlights").rows() if arguments.articles else
            newswire("train", arguments.rows, seed=1, words=(450, 750), distractors=0.2))
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        articles = list(islice(rows, arguments.rows))
        with StandInHub(make_paper(Path(folder), articles, arguments.small)) as hub:
            print(f"export HF_ENDPOINT={hub.url}", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
