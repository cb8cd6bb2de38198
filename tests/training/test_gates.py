import torch

from training.corpus import Labelled
from training.gates import Examiner
from training.model import Network


class Oracle:
    """A network that gives fixed scores to the labels: the test says which text gets which."""

    def __init__(self, scores_of):
        self._scores_of = scores_of

    def __call__(self, head, rows):
        return rows.unsqueeze(-1).expand(-1, -1, rows.shape[1])

    def logits(self, hidden):
        return torch.stack([self._scores_of(row.tolist()) for row in hidden])


def examined(encoder, tokenizer, scores, label):
    """Share of right answers on one text whose labels get `scores`, in the order positive, neutral, negative."""
    ids = [ids[0] for ids in encoder.label_ids(encoder.tasks["sentiment"])]
    everything = torch.zeros(tokenizer.vocab_size)
    everything[ids] = torch.tensor(scores)
    examiner = Examiner([Labelled("房间很干净", label, "sst2")], encoder)
    return examiner.accuracy(Oracle(lambda _: everything))["sst2"]


def test_the_best_of_the_three_labels_is_the_answer(encoder, tokenizer):
    assert examined(encoder, tokenizer, [3.0, 0.0, 0.0], "positive") == 1.0
    assert examined(encoder, tokenizer, [0.0, 0.0, 3.0], "positive") == 0.0


def test_a_neutral_answer_is_an_error_where_no_row_is_neutral(encoder, tokenizer):
    assert examined(encoder, tokenizer, [2.0, 4.0, 0.0], "positive") == 0.0


def test_below_the_tasks_threshold_the_answer_is_neutral(encoder, tokenizer):
    assert examined(encoder, tokenizer, [0.3, 0.0, 0.1], "positive") == 0.0
    assert examined(encoder, tokenizer, [0.3, 0.0, 0.1], "neutral") == 1.0


def test_rows_judged_together_get_the_answers_they_get_alone(encoder, tokenizer, recipe):
    """Rows are sorted and padded for speed; an answer must come back to its row, read at the row's own last token."""
    torch.manual_seed(5)
    network = Network(recipe.shape, vocab_size=tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    rows = [Labelled("房间很干净" * n + "the battery" * (n % 3), "positive", "sst2") for n in range(24)]
    together = Examiner(rows, encoder).answers(network)
    alone = [Examiner([row], encoder).answers(network)[0] for row in rows]
    assert together == alone
    assert len(set(together)) > 1
