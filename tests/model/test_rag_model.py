"""The sum as a module, over generators of three kinds with random weights."""

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from consilience.errors import UsageError
from consilience.generation import TokenRows
from consilience.model import PooledEncoder, RagModel, RankWeights
from consilience.model.fusion import SUMMED, Fusion, log_likelihood, log_prior, smoothing
from tests.model.small import GENERATORS, SIZE, WORDS, bart, compact, dpr, gpt2, some_rows

SCORES = torch.tensor([[0.9, 0.3, 0.1], [0.2, 0.8, 0.4]])
ABSENT = float("-inf")
SUMS = sorted(SUMMED)
Inputs = dict[str, Tensor]


@pytest.fixture(params=sorted(GENERATORS))
def model(request: pytest.FixtureRequest) -> RagModel:
    generator = GENERATORS[request.param]()
    return RagModel(generator, temperature=0.5).eval()


@pytest.fixture
def seq2seq() -> RagModel:
    return RagModel(bart(), temperature=0.5).eval()


def inputs_of(model: RagModel) -> Inputs:
    return {**some_rows(model.generator), "scores": SCORES.clone()}


def only(inputs: Inputs, question: int) -> Inputs:
    return {name: value[question : question + 1] for name, value in inputs.items()}


@pytest.mark.parametrize("fusion", SUMS)
def test_the_sum_is_that_of_its_rows_one_by_one(model: RagModel, fusion: Fusion) -> None:
    """Every row read alone, and added up as the formula says."""
    inputs = inputs_of(model)
    found = model(**inputs, fusion=fusion)
    labels = inputs["labels"]
    mask, targets = labels >= 0, labels.clamp_min(0)
    log_probs = torch.zeros(2, 3, 4)
    for question in range(2):
        for passage in range(3):
            keep = inputs["context_mask"][question, passage]
            ids = inputs["context_ids"][question, passage][keep][None]
            memory = model.generator.memorise(TokenRows(ids, torch.ones_like(ids).bool()))
            whole = model.generator.next_logits(memory, targets[question : question + 1])
            row = whole.log_softmax(-1).gather(-1, targets[question][None, :, None])[0, :, 0]
            log_probs[question, passage] = row
    weights = log_prior(SCORES, 0.5)
    if fusion == "average":
        weights = torch.full_like(weights, 1 / 3).log()
    expected = log_likelihood(weights, log_probs, mask, fusion=fusion)
    torch.testing.assert_close(found.log_likelihood, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.loss, -expected.mean(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", [*SUMS, "fid"])
def test_a_question_does_not_depend_on_the_rest_of_the_batch(
    model: RagModel, fusion: Fusion
) -> None:
    inputs = inputs_of(model)
    if fusion == "fid" and not hasattr(model.generator, "start"):
        with pytest.raises(UsageError, match="decoder"):
            model(**inputs, fusion=fusion)
        return
    together = model(**inputs, fusion=fusion)
    for question in range(2):
        alone = model(**only(inputs, question), fusion=fusion)
        torch.testing.assert_close(
            alone.loss, -together.log_likelihood[question], atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("fusion", [*SUMS, "fid"])
def test_a_missing_passage_is_as_if_it_were_not_asked_for(
    seq2seq: RagModel, fusion: Fusion
) -> None:
    inputs = inputs_of(seq2seq)
    inputs["scores"][1, 2] = ABSENT
    inputs["context_mask"][1, 2] = False
    found = seq2seq(**inputs, fusion=fusion)
    short = only(inputs, 1)
    short |= {name: short[name][:, :2] for name in ("context_ids", "context_mask", "scores")}
    alone = seq2seq(**short, fusion=fusion)
    torch.testing.assert_close(found.log_likelihood[1:], alone.log_likelihood)
    if fusion != "fid":
        assert float(found.posterior[1, 2]) == 0.0
    found.loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in seq2seq.parameters() if p.grad is not None)


@pytest.mark.parametrize("fusion", SUMS)
def test_posteriors_of_every_forward_are_distributions(model: RagModel, fusion: Fusion) -> None:
    inputs = inputs_of(model)
    found = model(**inputs, fusion=fusion)
    torch.testing.assert_close(found.posterior.sum(-1), torch.ones(2))
    mask = (inputs["labels"] >= 0).float()
    torch.testing.assert_close(found.token_posterior.sum(1), mask)


@pytest.mark.parametrize("fusion", SUMS)
def test_posteriors_cost_no_further_pass(
    model: RagModel, fusion: Fusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, inputs, asked = type(model.generator), inputs_of(model), []

    def counted(name: str) -> Callable[..., object]:
        real = getattr(kind, name)

        def call(*args: object, **settings: object) -> object:
            asked.append(name)
            return real(*args, **settings)

        return call

    for name in ("read", "memorise", "target_log_probs", "next_logits", "score", "begin", "step"):
        monkeypatch.setattr(kind, name, counted(name))
    found = model(**inputs, fusion=fusion)
    assert asked == ["memorise", "target_log_probs"]
    assert found.posterior.shape == (2, 3)
    assert found.token_posterior.shape == (2, 3, 4)


@pytest.mark.parametrize("fusion", SUMS)
def test_logits_are_a_distribution_whose_product_is_the_likelihood(
    model: RagModel, fusion: Fusion
) -> None:
    inputs = inputs_of(model)
    found = model(**inputs, fusion=fusion, return_logits=True)
    torch.testing.assert_close(found.logits.exp().sum(-1), torch.ones(2, 4))
    labels = inputs["labels"]
    chosen = found.logits.gather(-1, labels.clamp_min(0)[..., None])[..., 0] * (labels >= 0)
    torch.testing.assert_close(chosen.sum(-1), found.log_likelihood, atol=1e-4, rtol=1e-4)
    assert model(**inputs, fusion=fusion).logits is None


@pytest.mark.parametrize("fusion", ["sequence", "token"])
def test_the_gradient_reaches_every_part(model: RagModel, fusion: Fusion) -> None:
    inputs = inputs_of(model)
    inputs["scores"].requires_grad_()
    found = model(**inputs, fusion=fusion)
    found.loss.backward()
    assert inputs["scores"].grad is not None
    if fusion == "sequence":
        expected = (found.log_prior.exp() - found.posterior).detach() / (2 * 0.5)
        torch.testing.assert_close(inputs["scores"].grad, expected)
    assert float(model.log_temperature.grad.abs()) > 0
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_one_token_answers_move_the_retriever(model: RagModel) -> None:
    inputs = inputs_of(model)
    inputs["labels"] = torch.full((2, 1), model.generator.end)
    inputs["scores"].requires_grad_()
    found = model(**inputs)
    found.loss.backward()
    expected = (found.log_prior.exp() - found.posterior).detach()
    torch.testing.assert_close(inputs["scores"].grad, expected)
    assert float(expected.abs().max()) > 1e-4


def test_training_moves_the_prior_to_the_passage_that_answers(seq2seq: RagModel) -> None:
    inputs = inputs_of(seq2seq)
    scores = torch.zeros(2, 3, requires_grad=True)
    optimiser = torch.optim.Adam([scores, *seq2seq.parameters()], lr=1e-2)
    losses = []
    for _ in range(60):
        found = seq2seq(**(inputs | {"scores": scores}))
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
        losses.append(found.loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert torch.equal(scores.argmax(-1), found.posterior.argmax(-1))


class TestOneRowFusions:
    def test_concat_is_the_generator_alone(self, model: RagModel) -> None:
        inputs = inputs_of(model)
        inputs |= {name: inputs[name][:, :1] for name in ("context_ids", "context_mask")}
        found = model(**inputs, fusion="concat")
        first = {name: value[:, :1] for name, value in inputs.items() if name != "labels"}
        expected = model(**first, labels=inputs["labels"], fusion="sequence")
        torch.testing.assert_close(found.loss, expected.loss)
        assert found.posterior is None
        assert found.token_posterior is None

    def test_fid_writes_from_all_passages_together(self, seq2seq: RagModel) -> None:
        inputs = inputs_of(seq2seq)
        found = seq2seq(**inputs, fusion="fid")
        generator, rows = seq2seq.generator, inputs["context_ids"].flatten(0, 1)
        memory = generator.memorise(TokenRows(rows, inputs["context_mask"].flatten(0, 1)))
        targets = inputs["labels"].masked_fill(inputs["labels"] < 0, generator.end)
        log_probs = generator.target_log_probs(generator.together(memory, 3), targets)
        expected = (log_probs * (inputs["labels"] >= 0)).sum(-1)
        torch.testing.assert_close(found.log_likelihood, expected)
        assert found.posterior is None
        assert found.log_prior is not None
        assert seq2seq(**{k: v for k, v in inputs.items() if k != "scores"}, fusion="fid").loss

    def test_decoder_only_models_have_no_fid(self) -> None:
        model = RagModel(gpt2())
        with pytest.raises(UsageError, match="no Fusion-in-Decoder"):
            model(**inputs_of(model), fusion="fid")


class TestAverage:
    def test_weights_of_ranks_are_learned(self) -> None:
        model = RagModel(bart(), ranks=RankWeights([1.0, 1.0, 1.0]))
        inputs = inputs_of(model)
        del inputs["scores"]
        optimiser = torch.optim.Adam(model.ranks.parameters(), lr=0.1)
        losses = []
        for _ in range(30):
            found = model(**inputs, fusion="average")
            optimiser.zero_grad()
            found.loss.backward()
            optimiser.step()
            losses.append(found.loss.item())
        assert losses[-1] < losses[0] - 1e-3
        assert float(found.log_prior.exp().max()) > 0.5
        torch.testing.assert_close(found.log_prior[0], found.log_prior[1])

    def test_it_is_the_token_sum_with_other_weights(self, model: RagModel) -> None:
        inputs = inputs_of(model)
        average = model(**inputs, fusion="average")
        token = model(**(inputs | {"scores": torch.zeros(2, 3)}), fusion="token")
        torch.testing.assert_close(average.loss, token.loss)
        torch.testing.assert_close(average.posterior, token.posterior)


class TestSmoothing:
    @pytest.mark.parametrize("fusion", [*SUMS, "fid", "concat"])
    def test_the_loss_is_smoothed_and_the_likelihood_is_not(
        self, seq2seq: RagModel, fusion: Fusion
    ) -> None:
        inputs = inputs_of(seq2seq)
        if fusion == "concat":
            inputs |= {name: inputs[name][:, :1] for name in ("context_ids", "context_mask")}
        plain = seq2seq(**inputs, fusion=fusion)
        smooth = seq2seq(**inputs, fusion=fusion, label_smoothing=0.2)
        torch.testing.assert_close(plain.log_likelihood, smooth.log_likelihood)
        assert smooth.logits is None
        if fusion in ("fid", "concat"):
            logits = seq2seq(**inputs, fusion=fusion, return_logits=True).logits
            expected = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), inputs["labels"], label_smoothing=0.2, reduction="none"
            )
            torch.testing.assert_close(smooth.loss, expected.sum(-1).mean())
        else:
            assert abs(float(smooth.loss - plain.loss)) > 1e-3

    def test_it_adds_what_the_formula_says(self, seq2seq: RagModel) -> None:
        inputs = inputs_of(seq2seq)
        plain = seq2seq(**inputs)
        smooth = seq2seq(**inputs, label_smoothing=0.2)
        labels = inputs["labels"].masked_fill(inputs["labels"] < 0, seq2seq.generator.end)
        rows = TokenRows(inputs["context_ids"].flatten(0, 1), inputs["context_mask"].flatten(0, 1))
        memory = seq2seq.generator.memorise(rows)
        full = seq2seq.generator.next_logits(memory, labels.repeat_interleave(3, 0))
        full = full.log_softmax(-1).view(2, 3, 4, WORDS)
        chosen = full.gather(-1, labels[:, None, :, None].expand(2, 3, 4, 1))[..., 0]
        mask = inputs["labels"] >= 0
        extra = smoothing(plain.log_prior, chosen, full, mask, fusion="sequence")
        torch.testing.assert_close(smooth.loss, plain.loss + 0.2 * extra.mean())

    @pytest.mark.parametrize("strength", [-0.1, 1.0])
    def test_other_strengths_are_refused(self, seq2seq: RagModel, strength: float) -> None:
        with pytest.raises(UsageError, match="label_smoothing must be at least 0 and below 1"):
            seq2seq(**inputs_of(seq2seq), label_smoothing=strength)


class TestEncoders:
    @pytest.fixture
    def whole(self) -> RagModel:
        asked, told = dpr()
        model = RagModel(
            bart(), question_encoder=PooledEncoder(asked), passage_encoder=PooledEncoder(told)
        )
        return model.eval()

    @pytest.fixture
    def texts(self) -> Inputs:
        torch.manual_seed(3)
        mask = torch.ones(2, 3, 6, dtype=torch.bool)
        mask[0, 1, 4:] = False
        return {
            "question_ids": torch.randint(3, WORDS, (2, 5)),
            "passage_ids": torch.randint(3, WORDS, (2, 3, 6)),
            "passage_mask": mask,
        }

    def test_scores_are_inner_products(self, whole: RagModel, texts: Inputs) -> None:
        asked = whole.question_encoder.model(texts["question_ids"]).pooler_output
        told = torch.stack(
            [
                whole.passage_encoder.model(
                    texts["passage_ids"][q, d][texts["passage_mask"][q, d]][None]
                ).pooler_output[0]
                for q in range(2)
                for d in range(3)
            ]
        ).view(2, 3, SIZE)
        expected = log_prior(torch.einsum("bd,bkd->bk", asked, told))
        torch.testing.assert_close(whole(**texts).log_prior, expected, atol=1e-5, rtol=1e-4)
        given = whole(question_ids=texts["question_ids"], passage_vectors=told)
        torch.testing.assert_close(given.log_prior, expected, atol=1e-5, rtol=1e-4)

    def test_the_gradient_reaches_both_encoders(self, whole: RagModel, texts: Inputs) -> None:
        whole(**texts, **some_rows(whole.generator)).loss.backward()
        for encoder in (whole.question_encoder, whole.passage_encoder):
            grads = [p.grad for p in encoder.parameters() if p.grad is not None]
            assert max(float(grad.abs().max()) for grad in grads) > 0

    def test_a_passage_without_tokens_is_not_there(self, whole: RagModel, texts: Inputs) -> None:
        texts["passage_mask"][0, 2] = False
        found = whole(**texts, **some_rows(whole.generator))
        assert float(found.log_prior[0, 2].exp()) == 0.0
        found.loss.backward()
        grads = [p.grad for p in whole.parameters() if p.grad is not None]
        assert all(bool(grad.isfinite().all()) for grad in grads)

    @pytest.mark.parametrize("pooling", ["first", "mean"])
    def test_poolings_of_plain_encoders(self, pooling: str) -> None:
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=WORDS,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
        )
        bert = BertModel(config).eval()
        ids = torch.randint(3, WORDS, (2, 5))
        mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
        found = PooledEncoder(bert, pooling=pooling)(ids, mask)  # type: ignore[arg-type]
        states = bert(ids, attention_mask=mask.long()).last_hidden_state
        mean = torch.stack([states[0].mean(0), states[1, :3].mean(0)])
        torch.testing.assert_close(found, states[:, 0] if pooling == "first" else mean)

    def test_an_unknown_pooling_is_refused(self) -> None:
        with pytest.raises(UsageError, match="unknown pooling 'last'"):
            PooledEncoder(dpr()[0], pooling="last")  # type: ignore[arg-type]

    def test_what_is_missing_is_named(self, seq2seq: RagModel, texts: Inputs) -> None:
        with pytest.raises(UsageError, match="this model has no passage_encoder"):
            seq2seq(**texts)
        vectors = torch.randn(2, 3, SIZE)
        with pytest.raises(UsageError, match="this model has no question_encoder"):
            seq2seq(question_ids=texts["question_ids"], passage_vectors=vectors)
        with pytest.raises(UsageError, match="the fusion token needs scores"):
            seq2seq(**some_rows(seq2seq.generator), fusion="token")
        with pytest.raises(UsageError, match="context_ids was not given"):
            seq2seq(scores=SCORES, labels=some_rows(seq2seq.generator)["labels"])


class TestPrecision:
    def test_the_prior_is_float32_in_a_half_model(self, seq2seq: RagModel) -> None:
        scores = torch.tensor([[75.03, 74.5, 74.08], [75.03, 74.5, 74.08]])
        expected = log_prior(scores)
        half = RagModel(bart(), question_encoder=PooledEncoder(dpr()[0])).to(torch.float16)
        found = half(scores=scores, labels=None)
        assert found.log_prior.dtype is torch.float32
        torch.testing.assert_close(found.log_prior, expected, atol=1e-3, rtol=1e-3)

    def test_autocast_leaves_the_scores_alone(self) -> None:
        class Same(torch.nn.Module):
            def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
                return torch.tensor([[10.0, 1.0]])

        model = RagModel(bart(), question_encoder=Same())
        vectors = torch.tensor([[[7.5, 0.03], [7.5, 0.0], [7.5, -0.03]]])
        with torch.autocast("cpu", torch.bfloat16):
            found = model(question_ids=torch.zeros(1, 1).long(), passage_vectors=vectors)
        expected = log_prior(torch.tensor([[75.03, 75.0, 74.97]]))
        torch.testing.assert_close(found.log_prior, expected)

    def test_scores_of_vectors_of_half_precision_are_added_up_in_float32(self) -> None:
        class Half(torch.nn.Module):
            def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
                return torch.tensor([[10.0, 1.0]], dtype=torch.bfloat16)

        model = RagModel(bart(), question_encoder=Half())
        vectors = torch.tensor([[[7.5, 0.03], [7.5, 0.0], [7.5, -0.03]]]).bfloat16()
        found = model(question_ids=torch.zeros(1, 1).long(), passage_vectors=vectors)
        expected = log_prior((torch.tensor([10.0, 1.0]) * vectors.float()).sum(-1))
        torch.testing.assert_close(found.log_prior, expected)


def test_without_labels_only_the_prior(seq2seq: RagModel) -> None:
    found = seq2seq(scores=SCORES)
    torch.testing.assert_close(found.log_prior, log_prior(SCORES, 0.5))
    rest = [getattr(found, each.name) for each in fields(found) if each.name != "log_prior"]
    assert rest == [None] * len(rest)


def test_without_masks_every_id_is_a_token(seq2seq: RagModel) -> None:
    inputs = inputs_of(seq2seq)
    del inputs["context_mask"]
    whole = torch.ones_like(inputs["context_ids"], dtype=torch.bool)
    torch.testing.assert_close(seq2seq(**inputs).loss, seq2seq(**inputs, context_mask=whole).loss)


def _set(name: str, place: tuple[int, ...], value: float) -> Callable[[Inputs], None]:
    def change(inputs: Inputs) -> None:
        inputs[name][place] = value

    return change


def _cut(name: str, keep: int, dim: int = 1) -> Callable[[Inputs], None]:
    def change(inputs: Inputs) -> None:
        inputs[name] = inputs[name].narrow(dim, 0, keep)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("scores", (1, 2), float("nan")), "the scores of question 1 are not numbers"),
        (_set("scores", (0, 1), float("inf")), "the scores of question 0 are not numbers"),
        (_set("scores", (0,), ABSENT), "question 0 has no passage"),
        (_cut("scores", 0), r"scores must be \[questions, passages\], received \[2, 0\]"),
        (
            _cut("context_ids", 2),
            r"context_ids must be \[2, 3, length\] for the fusion sequence, received \[2, 2, 9\]",
        ),
        (
            _set("context_ids", (1, 2, 0), 40),
            "context_ids of question 1, passage 2 hold the id 40; the generator's vocabulary has "
            "40 ids",
        ),
        (_set("context_ids", (0, 0, 1), -3), "context_ids of question 0, passage 0 hold the id -3"),
        (_set("labels", (1, 0), 99), "the labels of question 1 hold the id 99"),
        (_set("labels", (0, 2), -1), "the labels of question 0 hold the id -1"),
        (_set("labels", (1,), -100), "the labels of question 1 hold no token"),
        (_cut("labels", 1, dim=0), r"labels must be \[2, length\], received \[1, 4\]"),
    ],
)
def test_what_does_not_fit_is_named(
    seq2seq: RagModel, change: Callable[[Inputs], None], message: str
) -> None:
    inputs = inputs_of(seq2seq)
    inputs["context_mask"][1, 2, 0] = True
    change(inputs)
    if inputs["context_ids"].shape != inputs["context_mask"].shape:
        del inputs["context_mask"]
    with pytest.raises(UsageError, match=message):
        seq2seq(**inputs)


def test_vectors_that_are_no_numbers_are_refused(seq2seq: RagModel) -> None:
    vectors = torch.full((2, 3, SIZE), float("nan"))
    with pytest.raises(UsageError, match="passage_vectors hold numbers that are not finite"):
        seq2seq(passage_vectors=vectors, fusion="average")


def test_contexts_that_are_flat_are_refused(seq2seq: RagModel) -> None:
    inputs = some_rows(seq2seq.generator)
    inputs |= {name: inputs[name][:, 0] for name in ("context_ids", "context_mask")}
    with pytest.raises(UsageError, match=r"context_ids must be \[questions, passages, length\]"):
        seq2seq(**inputs, fusion="average")


def test_an_unknown_fusion_is_refused() -> None:
    model = RagModel(compact())
    with pytest.raises(UsageError, match="unknown fusion 'sum'") as caught:
        model(**inputs_of(model), fusion="sum")
    assert caught.value.hint == ("choose one of: sequence, token, fid, attention, average, concat")
