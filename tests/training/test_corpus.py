import json

from training import corpus
from training.corpus import fingerprint


def test_what_safety_is_measured_with_is_not_trained_on(data, tmp_path, monkeypatch):
    def trained():
        rows = {row.text for row in corpus.sentiment_rows(data, "train")}
        talks = {text for turns in corpus.support_exchanges(data, []) for text in turns}
        return rows | talks | set(corpus.requests(data, "zh")) | set(corpus.requests(data, "en"))

    ordinary, written = ["很好用", "考试压力好大", "打开客厅的灯"], ["写一首关于海的诗", "Name three rivers."]
    dev = corpus.sentiment_rows(data, "dev")
    before = trained()
    assert before >= {*ordinary, *written}

    (tmp_path / "ordinary.txt").write_text("\n".join(map(fingerprint, [*ordinary, dev[0].text])), "utf-8")
    for language, text in zip(("zh", "en"), written, strict=True):
        (tmp_path / f"{language}.jsonl").write_text(json.dumps({"family": "harmless", "text": text}) + "\n", "utf-8")
    monkeypatch.setattr(corpus, "SAFETY", tmp_path)
    whole_talk = {"考试压力好大", "先休息一下,慢慢来。", "谢谢", "我在。"}
    assert trained() == before - {*ordinary, *written, *whole_talk}
    assert corpus.sentiment_rows(data, "dev") == dev  # looked at, never trained on


def test_half_of_the_rows_are_fitted_on_and_the_text_alone_says_which():
    texts = [f"row {number}" for number in range(2000)]
    assert 900 < sum(map(corpus.is_fitted_on, texts)) < 1100
    assert [corpus.is_fitted_on(text) for text in texts] == [corpus.is_fitted_on(text) for text in texts]
