"""Decoding: the greedy answers are those of `generate`, and the distributions those of asking for every price."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from pricer.commands.parts.setup import Setup
from pricer.core.predictions import QUANTILES, Prediction
from pricer.core.prefix_search import PriceTrie, build_trie
from pricer.core.prices import PriceFormat, format_steps
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base
from pricer.ml.cpu_layers import speed_up
from pricer.ml.loss import score_in_float32
from pricer.ml.predict import TreeDecoder
from pricer.ml.tokens import PriceTokens, TokenizedPrompt, find_price_tokens
from pricer.ml.tree_attention import common_prefix

TAIL = "\n\nPrice is $"


@pytest.fixture(scope="module")
def prompts(setup: Setup) -> list[TokenizedPrompt]:
    return setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val])


def a_decoder(
    model: Any, tokenizer: Any, price_format: PriceFormat, digits: int, answer_length: int = 5
) -> TreeDecoder:
    price_tokens = find_price_tokens(tokenizer, "", price_format, digits)
    return TreeDecoder(model, tokenizer, price_format, answer_length, price_tokens, max_residual_mass=0.0)


def generate(model: Any, tokenizer: Any, prompts: Sequence[TokenizedPrompt], length: int) -> list[str]:
    """The greedy completions by transformers' own `generate`."""
    batch = tokenizer.pad(
        {"input_ids": [prompt.ids.tolist() for prompt in prompts]}, padding_side="left", return_tensors="pt"
    )
    output = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        generation_config=GenerationConfig(
            max_new_tokens=length, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        ),
    )
    completions: list[str] = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return completions


def follow_up(model: Any, prompt: TokenizedPrompt, paths: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """For each path the probabilities of the tokens after it, by a plain forward pass each: no cache, no padding."""
    found = []
    for path in paths:
        ids = torch.tensor([*prompt.ids.tolist(), *path])[None]
        with torch.inference_mode():
            found.append(model(input_ids=ids).logits[0, -1].double().softmax(-1).numpy())
    return found


def test_greedy_is_what_generate_gives(setup: Setup, model: Any, prompts: list[TokenizedPrompt]) -> None:
    length = setup.encoder.answer_tokens

    read = a_decoder(model, setup.tokenizer, setup.template.price_format, 4, length).predict(prompts)

    assert [p.item_id for p in read] == [prompt.item_id for prompt in prompts]
    assert [p.completion for p in read] == generate(model, setup.tokenizer, prompts, length)
    assert sum(p.price is not None for p in read) > 30


@pytest.mark.parametrize("length", [1, 2, 8])
def test_greedy_is_what_generate_gives_where_it_is_no_price(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt], length: int
) -> None:
    # Cut in their middle, the prompts ask for nothing: the model babbles, or ends at once.
    cut = [TokenizedPrompt(p.item_id, p.ids[: 3 + index], p.cut) for index, p in enumerate(prompts)]

    read = a_decoder(model, setup.tokenizer, setup.template.price_format, 4, length).predict(cut)

    assert [p.completion for p in read] == generate(model, setup.tokenizer, cut, length)
    assert any(p.price is None for p in read)


def test_a_batch_of_twelve_is_read_as_twelve_batches_of_one(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt]
) -> None:
    decoder = a_decoder(model, setup.tokenizer, setup.template.price_format, 4)

    together = decoder.predict(prompts[:12])
    alone = [decoder.predict([prompt])[0] for prompt in prompts[:12]]

    for one, other in zip(together, alone, strict=True):
        assert one.distribution is not None
        assert other.distribution is not None
        assert (one.completion, one.distribution.quantiles) == (other.completion, other.distribution.quantiles)
        assert one.distribution.no_price == pytest.approx(other.distribution.no_price, abs=1e-5)
        assert one.distribution.mean == pytest.approx(other.distribution.mean, rel=1e-5)
        assert one.distribution.mean_error == pytest.approx(other.distribution.mean_error, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("width", [1, 2])
def test_padded_prices_are_read_as_by_asking_for_every_one(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt], width: int
) -> None:
    decoder = a_decoder(model, setup.tokenizer, PriceFormat("padded", width), width)
    digits = setup.tokenizer("0123456789", add_special_tokens=False)["input_ids"]

    for prediction, prompt in zip(decoder.predict(prompts[:3]), prompts[:3], strict=True):
        shares, probability, left = np.ones(1), np.ones(1), 0.0
        paths: list[list[int]] = [[]]
        for _ in range(width):
            odds = np.array(follow_up(model, prompt, paths))[:, digits]
            on_digits = odds.sum(axis=1, keepdims=True)
            left += float((probability * (1 - on_digits[:, 0])).sum())
            shares = (shares[:, None] * odds / on_digits).ravel()
            probability = (probability[:, None] * odds).ravel()
            paths = [[*path, digit] for path in paths for digit in digits]
        read = prediction.distribution
        assert read is not None
        assert read.quantiles == tuple(float(np.argmax(np.cumsum(shares) >= q)) for q in QUANTILES)
        assert read.mean == pytest.approx((shares * np.arange(10**width)).sum(), abs=read.mean_error + 1e-3)
        assert read.no_price <= left + 1e-5
        if width == 1:
            assert read.no_price == pytest.approx(left, abs=1e-5)
            assert read.mean_error == 0


class Numbers:
    """A tokenizer of numbers alone: a token for each `group` digits from the left, for `.00`, and for the end."""

    eos_token_id, pad_token_id, point = 0, 0, 1

    def __init__(self, group: int) -> None:
        self._group = group
        self._texts = ["", ".00", *(f"{n:0{size}}" for size in range(1, group + 1) for n in range(10**size))]
        self._ids = {text: index for index, text in enumerate(self._texts)}
        self.size = len(self._texts)

    @property
    def backend_tokenizer(self) -> "Numbers":
        return self

    def no_truncation(self) -> None: ...

    def no_padding(self) -> None: ...

    def encode_batch_fast(self, texts: list[str], **_: Any) -> list[Any]:
        return [SimpleNamespace(ids=self.encode(text)) for text in texts]

    def encode(self, text: str) -> list[int]:
        number, point, _ = text.partition(".")
        groups = [number[start : start + self._group] for start in range(0, len(number), self._group)]
        return [*(self._ids[group] for group in groups), *([self.point] if point else [])]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._texts[int(token)] for token in ids)

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [self.decode(row) for row in rows]


def a_small_model(tokenizer: Numbers) -> Any:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=tokenizer.size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
    )
    model: Any = LlamaForCausalLM(shape)
    model.generation_config.eos_token_id = None
    score_in_float32(model)
    return model.eval()


ASKED = [TokenizedPrompt("a", np.array([5, 6, 7]), cut=False), TokenizedPrompt("b", np.array([9, 8, 2, 4]), cut=False)]


@pytest.mark.parametrize(
    ("group", "price_format", "kind"),
    [
        (2, PriceFormat("plain"), tuple),  # 0 to 99 are one token each: everything is there after the prompt
        (1, PriceFormat("plain"), PriceTrie),  # 7 and 72 begin alike
        (2, PriceFormat("padded", 2), tuple),
        (1, PriceFormat("padded", 2), tuple),
    ],
)
def test_every_way_to_write_two_digits_is_read_as_by_asking_for_every_price(
    group: int, price_format: PriceFormat, kind: type
) -> None:
    tokenizer = Numbers(group)
    model = a_small_model(tokenizer)
    price_tokens = find_price_tokens(tokenizer, "", price_format, 2)
    assert isinstance(price_tokens, kind)
    texts = [tokenizer.encode(format_steps(price, price_format)) for price in range(100)]
    written = [(*ids, tokenizer.eos_token_id) for ids in texts]

    predictions = a_decoder(model, tokenizer, price_format, 2).predict(ASKED)

    for prediction, prompt in zip(predictions, ASKED, strict=True):
        shares = np.ones(100)
        for prefix in {ids[:length] for ids in written for length in range(len(ids))}:
            below = [price for price, ids in enumerate(written) if ids[: len(prefix)] == prefix]
            odds = follow_up(model, prompt, [prefix])[0]
            total = sum(odds[token] for token in {written[price][len(prefix)] for price in below})
            if len(below) > 1:
                for price in below:
                    shares[price] *= odds[written[price][len(prefix)]] / total
        read = prediction.distribution
        assert read is not None
        assert shares.sum() == pytest.approx(1)
        assert read.quantiles == tuple(float(np.argmax(np.cumsum(shares) >= q)) for q in QUANTILES)
        assert read.mean == pytest.approx((shares * np.arange(100)).sum(), abs=read.mean_error + 1e-3)
        if read.mode_is_certain:
            assert read.mode == shares.argmax()


@pytest.mark.parametrize("as_trie", [False, True])
@pytest.mark.parametrize("decimals", [-2, 2])
def test_prices_in_other_steps_have_the_distribution_of_the_same_number_of_dollars(
    decimals: int, *, as_trie: bool
) -> None:
    # Padded prices are numbers of steps: $0.27 in cents is written as $27 in dollars.
    tokenizer = Numbers(1)
    model = a_small_model(tokenizer)
    dollars, steps = PriceFormat("padded", 2), PriceFormat("padded", 2, decimals, "€")

    def predict(price_format: PriceFormat) -> list[Prediction]:
        price_tokens = find_price_tokens(tokenizer, "", price_format, 2)
        if as_trie:
            texts = [tokenizer.encode(format_steps(number, price_format)) for number in range(100)]
            price_tokens = build_trie({number: [*ids, tokenizer.eos_token_id] for number, ids in enumerate(texts)})
        return TreeDecoder(model, tokenizer, price_format, 5, price_tokens).predict(ASKED)

    for one, other in zip(predict(dollars), predict(steps), strict=True):
        assert one.distribution is not None
        assert other.distribution is not None
        scaled = one.distribution.from_steps(steps.price_unit)
        assert other.completion == one.completion
        assert other.distribution == scaled
        assert scaled.median == (one.distribution.median / 100 if decimals == 2 else one.distribution.median * 100)
        assert other.price == (None if one.price is None else steps.price_unit.from_steps(one.price))


def test_without_price_tokens_only_the_greedy_answer_is_read(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt]
) -> None:
    price_format = setup.template.price_format

    read = TreeDecoder(model, setup.tokenizer, price_format, 5).predict(prompts)

    assert {p.distribution for p in read} == {None}
    assert [p.completion for p in read] == generate(model, setup.tokenizer, prompts, 5)


def test_with_the_prefix_of_all_prompts_an_answer_depends_on_its_own_batch_alone(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt]
) -> None:
    price_format, length = setup.template.price_format, setup.encoder.answer_tokens
    shared = common_prefix([prompt.ids for prompt in prompts])
    batches = [prompts[:2], prompts[2:12], prompts[12:13], prompts[13:20]]

    def predict(*numbers: int) -> list[list[Prediction]]:
        decoder = TreeDecoder(model, setup.tokenizer, price_format, length, setup.price_tokens, 0.0, shared)
        return [decoder.predict(batches[number]) for number in numbers]

    # Exactly the same numbers, although the first batches have longer common prefixes, or are too small for one.
    assert predict(3, 2, 1, 0) == predict(0, 1, 2, 3)[::-1]
    assert [predict(number)[0] for number in range(4)] == predict(0, 1, 2, 3)


def sizes(price_tokens: PriceTokens | None) -> list[int]:
    assert isinstance(price_tokens, tuple)
    return [len(tokens) for tokens in price_tokens]


def test_padded_prices_are_digit_tokens_one_by_one_or_in_groups(setup: Setup) -> None:
    assert sizes(find_price_tokens(setup.tokenizer, TAIL, PriceFormat("padded", 7), 7)) == [10] * 7
    assert sizes(find_price_tokens(Numbers(3), "", PriceFormat("padded", 4), 4)) == [1000, 10]  # as Llama 3 would
    assert sizes(find_price_tokens(Numbers(3), "", PriceFormat("padded", 6), 6)) == [1000, 1000]


def test_plain_prices_are_one_level_where_each_is_a_token_and_a_fork_elsewhere(setup: Setup) -> None:
    assert sizes(find_price_tokens(Numbers(3), "", PriceFormat("plain"), 3)) == [1000]
    trie = find_price_tokens(Numbers(3), "", PriceFormat("plain"), 4)
    assert isinstance(trie, PriceTrie)
    # Of 1 to 3 digits a token each; 100 to 999 may go on with a fourth.
    assert sum(child is not None for child in trie.children) == 900
    assert isinstance(find_price_tokens(setup.tokenizer, TAIL, PriceFormat("plain"), 3), PriceTrie)


def test_plain_prices_that_are_too_many_to_enumerate_have_no_price_tokens(setup: Setup) -> None:
    assert find_price_tokens(setup.tokenizer, TAIL, PriceFormat("plain"), 6) is None


class CountedTokens:
    """A model that counts what it computes."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.shapes: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, input_ids: torch.Tensor, **others: Any) -> Any:
        self.shapes.append((input_ids.shape[0], input_ids.shape[1]))
        return self._model(input_ids=input_ids, **others)


def test_what_all_prompts_begin_with_is_computed_once(setup: Setup, model: Any, prompts: list[TokenizedPrompt]) -> None:
    counted = CountedTokens(model)
    decoder = a_decoder(counted, setup.tokenizer, setup.template.price_format, 4)
    question = len(setup.tokenizer(setup.template.question)["input_ids"])

    decoder.predict(prompts[:20])
    first = list(counted.shapes)
    decoder.predict(prompts[:20])

    (one, beginning), (items, rest) = first[:2]
    assert (one, items) == (1, 20)
    assert beginning >= question
    assert beginning + rest == max(len(prompt.ids) for prompt in prompts[:20])
    assert counted.shapes[len(first) :] == first[1:]


def test_the_shared_prefix_gets_shorter_until_all_prompts_begin_with_it(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt]
) -> None:
    decoder = a_decoder(model, setup.tokenizer, setup.template.price_format, 4)
    other = [TokenizedPrompt(p.item_id, np.concatenate([p.ids[:3], p.ids[5:]]), p.cut) for p in prompts[:3]]
    fresh = [
        a_decoder(model, setup.tokenizer, setup.template.price_format, 4).predict([prompt])[0]
        for prompt in (*prompts[:3], *other)
    ]

    asked = ((prompts[:3], fresh[:3]), (other, fresh[3:]), (prompts[:3], fresh[:3]), (prompts[:1], fresh[:1]))
    for together, alone in asked:
        for one, single in zip(decoder.predict(together), alone, strict=True):
            assert one.distribution is not None
            assert single.distribution is not None
            assert (one.completion, one.distribution.quantiles) == (single.completion, single.distribution.quantiles)


def test_the_shared_prefix_is_computed_again_by_another_model(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt]
) -> None:
    bare = load_base(setup.base.folder, setup.precision)
    fresh, used = (a_decoder(bare, setup.tokenizer, setup.template.price_format, 4) for _ in range(2))
    used.use(model)
    used.predict(prompts[:8])
    used.use(bare)

    assert used.predict(prompts[:8]) == fresh.predict(prompts[:8])


def test_long_prompts_in_several_parts_are_read_as_each_by_itself(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Prompts of 130 tokens take three blocks of 64 queries, and parts of 300 tokens hold two of them.
    monkeypatch.setattr("pricer.ml.tree_attention._TOKENS_AT_ONCE_ON_CPU", 300)
    body = np.concatenate([prompt.ids for prompt in prompts])
    tail = prompts[0].ids[-4:]
    long = [
        TokenizedPrompt(p.item_id, np.concatenate([body[index : 120 + 2 * index], tail]), cut=False)
        for index, p in enumerate(prompts[:7])
    ]
    length = setup.encoder.answer_tokens
    decoder = a_decoder(model, setup.tokenizer, setup.template.price_format, 4, length)

    together = decoder.predict(long)

    assert [p.completion for p in together] == generate(model, setup.tokenizer, long, length)
    for prediction, prompt in zip(together, long, strict=True):
        (alone,) = decoder.predict([prompt])
        assert prediction.distribution is not None
        assert alone.distribution is not None
        assert prediction.distribution.quantiles == alone.distribution.quantiles
        assert prediction.distribution.mean == pytest.approx(alone.distribution.mean, rel=1e-5)


def test_a_tree_grows_beyond_the_memory_that_was_allocated_first(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = a_decoder(model, setup.tokenizer, PriceFormat("plain"), 3)
    expected = decoder.predict(prompts[:5])
    monkeypatch.setattr("pricer.ml.tree_attention._SPARE_COLUMNS", 1)

    assert decoder.predict(prompts[:5]) == expected


def test_the_last_layer_and_the_attention_are_as_before_after_a_prediction(
    setup: Setup, model: Any, prompts: list[TokenizedPrompt]
) -> None:
    ids = torch.from_numpy(prompts[0].ids.astype(np.int64))[None]
    before = model(input_ids=ids).logits
    implementation = model.config._attn_implementation

    a_decoder(model, setup.tokenizer, setup.template.price_format, 4).predict(prompts[:5])

    assert model.config._attn_implementation == implementation
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_model_that_trains_is_read_as_before_its_layers_were_made_faster(
    setup: Setup, prompts: list[TokenizedPrompt]
) -> None:
    adapted = add_adapter(load_base(setup.base.folder, setup.precision, dense=True), setup.config.adapter, seed=0)
    decoder = a_decoder(adapted.eval(), setup.tokenizer, setup.template.price_format, 4)
    before = decoder.predict(prompts[:8])

    speed_up(adapted)

    for one, other in zip(decoder.predict(prompts[:8]), before, strict=True):
        assert one.distribution is not None
        assert other.distribution is not None
        assert (one.completion, one.distribution.quantiles) == (other.completion, other.distribution.quantiles)
